use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use super::super::finding::Level;
use super::super::wanted::Target;
use super::*;

/// A folder with configuration files that goes with this.
struct Files(PathBuf);

impl Files {
    fn new(name: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("panda-klipper-{}-{count}-{name}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// What is said about a configuration, without what is well; and the devices in it.
    fn check(&self, text: &str) -> (Vec<String>, Vec<Wanted>) {
        let path = self.write("printer.cfg", text);
        let config = Config::read(&path).unwrap();
        let (said, wanted) = check(&config, &path, Some(&self.0));
        for finding in &said.list {
            assert!(
                finding.level == Level::Ok || finding.remedy.is_some(),
                "{finding:?}"
            );
        }
        let bad = said.list.iter().filter(|one| one.level != Level::Ok);
        let bad = bad.map(|one| format!("{} {}: {}", one.level.name(), one.check, one.text));
        (bad.collect(), wanted)
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The configuration of which nothing bad can be said.
const GOOD: &str = "[panda_breath]\nhost: 192.0.2.7\n[pause_resume]\n";

#[track_caller]
fn bad(name: &str, text: &str, parts: &[&str]) {
    let (said, _) = Files::new(name).check(text);
    for part in parts {
        assert!(
            said.iter().any(|line| line.contains(part)),
            "{part}: {said:?}"
        );
    }
    assert_eq!(said.len(), parts.len(), "{said:?}");
}

#[test]
fn nothing_is_said_of_a_good_configuration() {
    bad("good", GOOD, &[]);
    bad(
        "good-own",
        "[panda_breath]\nhost: 192.0.2.7\nmax_target: 70\n\
         [heater_generic chamber]\nheater_pin: panda_breath:pwm\nsensor_type: panda_breath\n\
         control: watermark\nmin_temp: 0\nmax_temp: 80\n\
         [verify_heater chamber]\nmax_error: 8400\nhysteresis: 5\n\
         [gcode_macro M141]\ngcode: SET_HEATER_TEMPERATURE HEATER=chamber\n\
         [gcode_macro M191]\ngcode:\n  {% set x = printer.panda_breath.temperature %}\n\
         [pause_resume]\n",
        &[],
    );
    let example = include_str!("../../../../examples/printer.cfg");
    bad(
        "example",
        example,
        &["warning pause: there is no [pause_resume]"],
    );
}

#[test]
fn a_configuration_without_our_section_is_a_problem() {
    bad("none", "[printer]\n", &["problem section: there is no"]);
}

#[test]
fn what_needs_our_section_stands_below_it() {
    bad(
        "order",
        "[heater_generic chamber]\nheater_pin: panda_breath:pwm\nsensor_type: panda_breath\n\
         [temperature_sensor air]\nsensor_type: panda_breath\n\
         [panda_breath]\nhost: 192.0.2.7\n[pause_resume]\n",
        &["problem order: [heater_generic chamber]"],
    );
    // Another device's sensor is not ours.
    bad(
        "order-other",
        "[panda_breath a]\nhost: 192.0.2.7\n[temperature_sensor x]\nsensor_type: panda_breath a\n\
         [panda_breath b]\nhost: 192.0.2.8\n[pause_resume]\n",
        &[],
    );
}

#[test]
fn pause_needs_its_section() {
    let text = "[panda_breath]\nhost: 192.0.2.7\n";
    let two = format!("{text}[panda_breath b]\nhost: 192.0.2.8\n");
    bad("pause-once", &two, &["warning pause: there is no"]);
    bad("pause", text, &["warning pause: there is no"]);
    bad("warn", &format!("{text}on_lost: warn\n"), &[]);
}

#[test]
fn verify_heater_bears_a_chamber() {
    let verify = "[verify_heater panda_breath]\n";
    let strict = "[verify_heater panda_breath] is too strict";
    for option in [
        "max_error: 120",
        "check_gain_time: 20",
        "heating_gain: 2",
        "hysteresis: 1",
    ] {
        bad("verify", &format!("{GOOD}{verify}{option}\n"), &[strict]);
    }
    for option in ["max_error: 7200", "check_gain_time: 600", "hysteresis: 6"] {
        bad("verify", &format!("{GOOD}{verify}{option}\n"), &[]);
    }
    bad(
        "verify-lost",
        "[panda_breath]\nhost: 192.0.2.7\nlost_after: 200\n[pause_resume]\n\
         [verify_heater panda_breath]\nmax_error: 7200\n",
        &[strict],
    );
    bad(
        "verify-above",
        &format!("{verify}max_error: 7200\n{GOOD}"),
        &["warning verify: [verify_heater panda_breath] stands above"],
    );
}

#[test]
fn commands_of_the_community_module_are_found_wherever_they_are() {
    let files = Files::new("community");
    files.write(
        "macros.cfg",
        "[gcode_macro M141]\ngcode:\n  PANDA_BREATH_SET TEMP={params.S}\n",
    );
    let (said, _) = files.check(&format!("{GOOD}[include *acros.cfg]\n"));
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(
        said[0].starts_with("problem community: [gcode_macro M141]"),
        "{said:?}"
    );
    assert!(said[0].contains("macros.cfg:1") && said[0].contains("PANDA_BREATH_SET"));
    // One that the user has defined is known to Klipper.
    bad(
        "community-own",
        &format!(
            "{GOOD}[gcode_macro PANDA_BREATH_SET]\ngcode: G4\n[delayed_gcode d]\n\
             gcode: PANDA_BREATH_SET\n"
        ),
        &[],
    );
}

#[test]
fn two_sections_with_one_device_are_a_problem() {
    let two = |a: &str, b: &str| {
        format!("[panda_breath a]\n{a}\n[panda_breath b]\n{b}\n[pause_resume]\n")
    };
    let one = &["problem one_device: [panda_breath a] and [panda_breath b]"][..];
    for (a, b, said) in [
        ("host: X.local", "host: x.LOCAL.", one),
        ("host: 192.0.2.7", "host: 192.0.2.8", &[]),
        ("host: 192.0.2.7", "host: 192.0.2.7\nport: 81", &[]),
        ("mqtt_broker: b", "mqtt_broker: b", one),
        ("mqtt_broker: b", "mqtt_broker: b\nfirmware: esphome", one),
        (
            "mqtt_broker: b\nfirmware: stock_mqtt",
            "mqtt_broker: b\nfirmware: esphome",
            &[],
        ),
        (
            "mqtt_broker: b\nmqtt_device_id: 025042000001",
            "mqtt_broker: b\nmqtt_device_id: 02:50:42:00:00:02",
            &[],
        ),
    ] {
        bad("two", &two(a, b), said);
    }
}

#[test]
fn options_that_do_not_go_together_are_named() {
    for (options, part) in [
        ("guard: no", "has 'guard: no'"),
        ("max_target: 80\nmax_temp: 70", "problem max_target"),
        ("control: pid", "warning control"),
    ] {
        let text = GOOD.replace("[pause", &format!("{options}\n[pause"));
        bad("options", &text, &[part]);
    }
    let heater = "[heater_generic panda_breath]\nmax_temp: 70\n";
    bad("heater", &format!("{GOOD}{heater}"), &[]);
    let text = GOOD.replace("[pause", "max_temp: 75\n[pause");
    // Nor is what SAVE_CONFIG keeps for it a second word.
    bad(
        "twice-saved",
        &format!(
            "{text}\n#*# <---------------------- SAVE_CONFIG ---------------------->\n\
             #*# [heater_generic panda_breath]\n#*# max_temp = 70\n"
        ),
        &[],
    );
    bad(
        "twice",
        &format!("{text}{heater}"),
        &["problem twice: 'max_temp'"],
    );
}

#[test]
fn a_section_says_where_its_device_is() {
    for (options, part) in [
        ("", "has no 'host'"),
        ("host:", "has no 'host'"),
        ("host: http://192.0.2.7/", "is not a name or an address"),
        ("host: 192.0.2.7:81", "is not a name or an address"),
        ("host: 192.0.2.7\nport: x", "is no port"),
        ("host: h\nmqtt_broker: b", "has 'host' and 'mqtt_broker'"),
        ("host: h\nfirmware: esphome", "has no 'mqtt_broker'"),
        ("host: h\nfirmware: tasmota", "which does not exist"),
        ("mqtt_broker: b\nmqtt_port: 0", "is no port"),
        (
            "mqtt_broker: b\nmqtt_tls: True\nmqtt_ca_file: /nonexistent",
            "problem tls",
        ),
        (
            "mqtt_broker: b\nmqtt_password_file: ~/p",
            "but no mqtt_username",
        ),
        (
            "mqtt_broker: b\nmqtt_username: u\nmqtt_password_file: ~/p",
            "cannot be read",
        ),
    ] {
        let text = format!("[panda_breath]\n{options}\n[pause_resume]\n");
        bad("place", &text, &[part]);
    }
}

#[test]
fn a_value_that_only_kalico_can_tell_is_no_mistake() {
    let (said, wanted) = Files::new("kalico").check(&GOOD.replace("192.0.2.7", "${constants.ip}"));
    assert_eq!(said, [""; 0]);
    assert!(wanted[0].target.is_none());
}

#[test]
fn r11_a_password_is_read_from_its_file_and_never_shown() {
    use std::os::unix::fs::PermissionsExt;
    let files = Files::new("password");
    let text = "[panda_breath]\nmqtt_broker: 192.0.2.5\nmqtt_username: u\n\
                mqtt_password_file: ~/secret\n[pause_resume]\n";
    let path = files.write("secret", "geheim\n");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    let (said, _) = files.check(text);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("others may read") && !said[0].contains("geheim"));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let (said, wanted) = files.check(text);
    assert_eq!(said, [""; 0]);
    let Some(Target::Broker(broker, _)) = &wanted[0].target else {
        panic!("{wanted:?}");
    };
    assert_eq!(broker.login.as_ref().unwrap().password, "geheim");
    assert!(!format!("{wanted:?}").contains("geheim"));
    files.write("secret", "\n");
    assert!(files.check(text).0[0].contains("is empty"));
    let (said, _) = files.check("[panda_breath]\nhost: h\nmqtt_password: geheim\n[pause_resume]\n");
    assert!(
        said[0].contains("which is refused") && !said[0].contains("geheim"),
        "{said:?}"
    );
}

#[test]
fn what_klipper_would_stop_at_is_a_problem() {
    bad(
        "include",
        &format!("{GOOD}[include gone.cfg]\n"),
        &["problem read"],
    );
}

#[test]
fn m141_and_m191_are_only_a_hint() {
    let files = Files::new("hint");
    let path = files.write("printer.cfg", GOOD);
    let (said, _) = check(&Config::read(&path).unwrap(), &path, None);
    let hint = said.list.iter().find(|one| one.check == "macros").unwrap();
    assert_eq!(hint.level, Level::Ok);
    assert!(hint.text.contains("M141 and M191 not there") && hint.remedy.is_some());
}

mod heaters;
mod options;
