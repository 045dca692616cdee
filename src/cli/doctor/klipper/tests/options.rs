//! What stands in our own section.

use super::*;

/// A good configuration with a bed and further options.
fn with(options: &str) -> String {
    format!("[panda_breath]\nhost: 192.0.2.7\n{options}\n[pause_resume]\n[heater_bed]\n")
}

/// The only finding about these options, and its remedy.
#[track_caller]
fn only(options: &str) -> (String, String) {
    let files = Files::new("option");
    let path = files.write("printer.cfg", &with(options));
    let (said, _) = check(&Config::read(&path).unwrap(), &path, None);
    let bad = said.list.iter().filter(|one| one.level != Level::Ok);
    let bad: Vec<_> = bad.collect();
    assert_eq!(bad.len(), 1, "{options}: {bad:?}");
    let one = bad[0];
    let text = format!("{} {}: {}", one.level.name(), one.check, one.text);
    (text, one.remedy.clone().unwrap())
}

#[test]
fn an_option_that_does_not_exist_is_named_with_what_was_meant() {
    for (option, meant) in [
        ("drier: True", "write 'dryer', or"),
        ("dryer: True\ndrying_hour: 4", "write 'drying_hours', or"),
        ("folow_bed: 80:45", "write 'follow_bed', or"),
        ("max_tmep: 70", "write 'max_temp', or"),
        (
            "mqtt_target_sate_topic: a",
            "write 'mqtt_target_state_topic', or",
        ),
        ("heater_pin: PA1", "remove the line"),
    ] {
        let (text, remedy) = only(option);
        let name = option.lines().last().unwrap().split(':').next().unwrap();
        let whole =
            format!("problem option: [panda_breath] has '{name}', which is no option of it");
        assert_eq!(text, whole);
        assert!(remedy.starts_with(meant), "{remedy}");
        assert!(remedy.contains("Klipper does not start"), "{remedy}");
    }
}

#[test]
fn a_value_that_klipper_would_stop_at_is_named_with_what_fits() {
    for (option, wanted) in [
        ("dryer: maybe", "write True or False"),
        ("dryer:", "write True or False"),
        ("guard: never", "write True or False"),
        (
            "dryer: yes\ndrying_hours: 0",
            "write a whole number from 1 to 99",
        ),
        (
            "dryer: on\ndrying_hours: 100",
            "write a whole number from 1 to 99",
        ),
        (
            "dryer: 1\ndrying_hours: 4.5",
            "write a whole number from 1 to 99",
        ),
        ("lease: 61", "write a number from 3 to 60"),
        ("lease: nan", "write a number from 3 to 60"),
        ("on_lost: stop", "write one of pause, shutdown, warn"),
    ] {
        let (text, remedy) = only(option);
        let line = option.lines().last().unwrap().trim_end_matches(':');
        assert!(
            text.starts_with("problem value: [panda_breath] has '"),
            "{text}"
        );
        assert!(text.contains(line), "{text}");
        assert!(remedy.starts_with(wanted), "{remedy}");
    }
    for good in [
        "dryer: OFF",
        "dryer: True\ndrying_hours: 99",
        "lease: 3\nguard_retry: 1e3",
        "on_external_on: allow\non_external_off: reassert",
        "max_temp: 70\npid_kp: 1\nmqtt_foreign_topics: ${constants.foreign}",
    ] {
        bad("value-good", &with(good), &[]);
    }
}

#[test]
fn an_option_that_needs_another_is_named_with_it() {
    for (option, other) in [
        ("drying_hours: 4", "dryer: True"),
        ("dryer: False\ndrying_hours: 4", "dryer: True"),
        ("max_boost: 5", "chamber_sensor"),
        ("cutoff_temp: 90", "cutoff_sensor"),
        ("cutoff_sensor: temperature_sensor x", "cutoff_temp"),
    ] {
        let (text, remedy) = only(option);
        let line = option.lines().last().unwrap();
        let whole = format!("problem needs: [panda_breath] has '{line}' without '{other}'");
        assert_eq!(text, whole);
        assert!(
            remedy.starts_with(&format!("add '{other}' or remove")),
            "{remedy}"
        );
    }
}

#[test]
fn dryer_needs_a_target_that_dries() {
    let (text, remedy) = only("dryer: True\nmax_target: 39");
    assert!(
        text.starts_with("problem dryer: [panda_breath] has 'dryer: True'"),
        "{text}"
    );
    assert!(
        text.contains("'max_target: 39'") && text.contains("40 C"),
        "{text}"
    );
    assert!(remedy.starts_with("raise max_target"), "{remedy}");
    bad("dryer-40", &with("dryer: True\nmax_target: 40"), &[]);
}

#[test]
fn the_dryers_pin_is_there_only_with_the_option() {
    let oven = "[heater_generic oven]\nheater_pin: panda_breath:dry\nsensor_type: panda_breath\n";
    let named = "problem dryer: [heater_generic oven]";
    bad("dry-pin", &(with("") + oven), &[named]);
    bad("dry-pin-good", &(with("dryer: True") + oven), &[]);
    // It is not taken for the chamber's, which is made.
    let limits = format!("{}{oven}max_temp: 50\n", with("dryer: True\nmax_temp: 70"));
    bad("dry-pin-limits", &limits, &[]);
}

#[test]
fn follow_bed_is_a_table_that_rises_within_max_target() {
    let pairs = |count: i32| {
        let pairs: Vec<_> = (1..=count).map(|n| format!("{n}:40")).collect();
        format!("follow_bed: {}", pairs.join(", "))
    };
    for (option, part, remedy_part) in [
        ("follow_bed: 80", "'80' is no pair", "such as 80:45, 100:60"),
        ("follow_bed: 80:45,", "'' is no pair", "such as 80:45"),
        ("follow_bed:", "'' is no pair", "such as 80:45"),
        ("follow_bed: 80:x", "'80:x' is no pair", "such as 80:45"),
        ("follow_bed: -1:40", "'-1:40' is no pair", "such as 80:45"),
        ("follow_bed: 80:1e1", "'80:1e1' is no pair", "such as 80:45"),
        (
            "follow_bed: 0:40",
            "a bed of 0 C is off",
            "above 0 and rise",
        ),
        (
            "follow_bed: 100:60, 80:45",
            "80 C comes after one of 100 C",
            "rise",
        ),
        (
            "follow_bed: 80:45, 80:50",
            "80 C comes after one of 80 C",
            "rise",
        ),
        (
            "follow_bed: 80:61",
            "a chamber of 61 C is above max_target, 60 C",
            "raise max_target",
        ),
        (
            "follow_bed: 80:45\nmax_target: 44",
            "above max_target, 44 C",
            "lower it",
        ),
        (
            &pairs(21),
            "it has 21 pairs, and 20 are the most",
            "remove some",
        ),
    ] {
        let (text, remedy) = only(option);
        assert!(
            text.starts_with("problem follow_bed: [panda_breath] has 'follow_bed"),
            "{text}"
        );
        assert!(text.contains(part), "{part}: {text}");
        assert!(remedy.contains(remedy_part), "{remedy}");
    }
    for good in [
        "follow_bed: 80:45, 100:60",
        "follow_bed: 60.5 : 40.5,\n 100:60",
        "follow_bed: 80:70\nmax_target: 70",
        "follow_bed: ${constants.table}",
        &pairs(20),
    ] {
        bad("follow-good", &with(good), &[]);
    }
}

#[test]
fn follow_bed_needs_a_bed() {
    let text = with("follow_bed: 80:45").replace("[heater_bed]\n", "");
    bad(
        "follow-no-bed",
        &text,
        &["problem follow_bed: [panda_breath] has 'follow_bed', but there is no [heater_bed]"],
    );
}

#[test]
fn r11_a_password_in_an_option_that_does_not_exist_is_not_shown() {
    let (text, remedy) = only("mqtt_pasword: geheim");
    assert!(
        text.contains("'mqtt_pasword'") && !text.contains("geheim"),
        "{text}"
    );
    assert!(
        !remedy.contains("geheim") && !remedy.contains("write"),
        "{remedy}"
    );
}
