use super::*;
use crate::dialect::Target;

fn esphome() -> Esphome {
    Esphome::new(&Options::default())
}

fn say(
    esphome: &mut Esphome,
    topic: &str,
    payload: &str,
    retained: bool,
) -> Result<Report, DecodeError> {
    esphome.decode(Delivery {
        topic,
        payload: payload.as_bytes(),
        retained,
    })
}

fn live(esphome: &mut Esphome, leaf: &str, payload: &str) -> Report {
    say(esphome, &format!("panda-breath/{leaf}"), payload, false).unwrap()
}

#[test]
fn topics_are_where_esphome_has_them() {
    let terms = esphome().terms();
    for topic in [
        "panda-breath/status",
        "panda-breath/sensor/chamber_temperature/state",
        "panda-breath/climate/chamber/mode/state",
        "panda-breath/climate/chamber/mode/command",
        "panda-breath/climate/chamber/action/state",
        "panda-breath/climate/chamber/target_temperature/state",
        "panda-breath/climate/chamber/target_temperature_low/command",
        "panda-breath/climate/chamber/target_temperature_high/state",
        "esphome/discover/panda-breath",
        "homeassistant/climate/panda-breath/chamber/config",
        "homeassistant/sensor/panda-breath/chamber_temperature/config",
    ] {
        assert!(
            terms.subscriptions.iter().any(|one| one == topic),
            "{topic}"
        );
    }
    assert!(
        terms
            .subscriptions
            .iter()
            .all(|one| !one.contains(['#', '+']))
    );
    let will = terms.will.unwrap();
    assert_eq!(
        will.to_string(),
        "panda-breath/climate/chamber/mode/command off"
    );
}

#[test]
fn names_and_topics_of_the_users_are_used() {
    let options = Options {
        prefix: Some("shop/heater".into()),
        device_id: Some("breath-2".into()),
        climate: "cavity".into(),
        discovery_prefix: String::new(),
        topics: [(Role::Temperature, "elsewhere/t".to_owned())].into(),
        ..Options::default()
    };
    let mut esphome = Esphome::new(&options);
    let terms = esphome.terms();
    assert_eq!(
        terms.will.unwrap().topic,
        "shop/heater/climate/cavity/mode/command"
    );
    assert!(
        !terms
            .subscriptions
            .iter()
            .any(|one| one.starts_with("homeassistant"))
    );
    let report = say(&mut esphome, "elsewhere/t", "31.5", false).unwrap();
    assert_eq!(report.reading, Some(31.5));
    assert_eq!(esphome.question().topic, "esphome/ping/breath-2");
}

#[test]
fn the_state_comes_in_parts() {
    let mut esphome = esphome();
    let mode = live(&mut esphome, "climate/chamber/mode/state", "heat");
    assert_eq!((mode.on, mode.mode), (Some(true), Some(Mode::On)));
    let off = live(&mut esphome, "climate/chamber/mode/state", "OFF");
    assert_eq!((off.on, off.mode), (Some(false), None));
    let cool = live(&mut esphome, "climate/chamber/mode/state", "heat_cool");
    assert_eq!((cool.on, cool.mode), (Some(true), Some(Mode::Auto)));
    for (word, heating) in [
        ("heating", true),
        ("idle", false),
        ("off", false),
        ("fan", false),
    ] {
        let action = live(&mut esphome, "climate/chamber/action/state", word);
        assert_eq!(action.heating, Some(heating), "{word}");
    }
    let target = live(
        &mut esphome,
        "climate/chamber/target_temperature/state",
        "45.5",
    );
    assert_eq!((target.target, target.target_step), (Some(45.5), Some(0.1)));
    let whole = live(
        &mut esphome,
        "climate/chamber/target_temperature/state",
        "46",
    );
    assert_eq!((whole.target, whole.target_step), (Some(46.0), Some(1.0)));
}

#[test]
fn r5_what_the_broker_has_kept_says_nothing_about_now() {
    let mut esphome = esphome();
    for (leaf, payload) in [
        ("climate/chamber/mode/state", "heat"),
        ("climate/chamber/action/state", "heating"),
        ("climate/chamber/target_temperature/state", "60"),
        ("sensor/chamber_temperature/state", "44.0"),
    ] {
        let report = say(&mut esphome, &format!("panda-breath/{leaf}"), payload, true).unwrap();
        assert!(!report.is_from_device(), "{leaf}: {report:?}");
    }
    let present = say(&mut esphome, "panda-breath/status", "offline", true).unwrap();
    assert_eq!(present.present, Some(false), "but for its leaving");
}

#[test]
fn r5_a_broken_sensor_is_no_reading_and_no_mistake() {
    let mut esphome = esphome();
    for text in ["nan", "NaN", "None"] {
        let report = live(&mut esphome, "sensor/chamber_temperature/state", text);
        assert_eq!(report.reading, None, "{text}");
        assert!(report.is_from_device(), "it lives");
    }
    for text in [
        "", "inf", "-inf", "1e999", "-41", "151", "31.5 C", "0x1f", "\u{662}",
    ] {
        let report = say(
            &mut esphome,
            "panda-breath/sensor/chamber_temperature/state",
            text,
            false,
        );
        assert_eq!(report, Err(DecodeError::Meaningless), "{text}");
    }
}

#[test]
fn unknown_words_mean_nothing() {
    let mut esphome = esphome();
    for leaf in ["mode/state", "action/state", "target_temperature/state"] {
        let topic = format!("panda-breath/climate/chamber/{leaf}");
        for payload in ["", "nan", "burning", "{}", "-1e300"] {
            assert!(
                say(&mut esphome, &topic, payload, false).is_err(),
                "{leaf} {payload}"
            );
        }
        let delivery = Delivery {
            topic: &topic,
            payload: b"\xff\xfe",
            retained: false,
        };
        assert!(esphome.decode(delivery).is_err());
    }
    assert!(say(&mut esphome, "panda-breath/debug", "heat", false).is_err());
}

#[test]
fn nothing_is_said_before_it_is_known_how() {
    let mut esphome = esphome();
    let heat = Setting::Heat(Target::whole(45));
    assert!(esphome.encode(heat, false).is_empty());
    assert!(esphome.what_is_missing().unwrap().contains("mqtt_climate"));
    live(&mut esphome, "climate/chamber/mode/state", "off");
    let missing = esphome.what_is_missing().unwrap();
    assert!(missing.contains("target_temperature/state"), "{missing}");
    // Kept from before it was flashed anew: two targets. What it says now counts.
    say(
        &mut esphome,
        "panda-breath/climate/chamber/target_temperature_low/state",
        "20",
        true,
    )
    .unwrap();
    live(
        &mut esphome,
        "climate/chamber/target_temperature/state",
        "20",
    );
    say(
        &mut esphome,
        "panda-breath/climate/chamber/target_temperature_high/state",
        "20",
        true,
    )
    .unwrap();
    assert_eq!(esphome.what_is_missing(), None);
    let said: Vec<_> = esphome
        .encode(heat, false)
        .iter()
        .map(Message::to_string)
        .collect();
    assert_eq!(
        said,
        [
            "panda-breath/climate/chamber/target_temperature/command 45",
            "panda-breath/climate/chamber/mode/command heat"
        ]
    );
    assert_eq!(esphome.encode(heat, true).len(), 1);
    assert_eq!(esphome.encode(Setting::Off, true).len(), 1);
}

#[test]
fn a_band_that_is_not_ours_is_told_as_what_it_heats_to() {
    let mut esphome = esphome();
    live(
        &mut esphome,
        "climate/chamber/target_temperature_low/state",
        "44.5",
    );
    let ours = live(
        &mut esphome,
        "climate/chamber/target_temperature_high/state",
        "45.5",
    );
    assert_eq!(ours.target, Some(45.0));
    let wide = live(
        &mut esphome,
        "climate/chamber/target_temperature_high/state",
        "60.0",
    );
    assert_eq!(wide.target, Some(60.0));
}

#[test]
fn the_card_shows_who_it_is() {
    let mut esphome = esphome();
    let card =
        r#"{"ip":"192.0.2.7","name":"panda-breath","version":"2026.6.5","mac":"aabbccddee01"}"#;
    let report = say(&mut esphome, "esphome/discover/panda-breath", card, true).unwrap();
    assert_eq!(report.identity.unwrap().last4(), "ee01");
    assert_eq!(report.firmware.unwrap().as_str(), "2026.6.5");
    assert!(!report.heard, "it was kept");
    assert!(
        say(&mut esphome, "esphome/discover/panda-breath", card, false)
            .unwrap()
            .heard
    );
    for wrong in [r#"{"name":"oven","mac":"aabbccddee01"}"#, "[]", "x", "{}"] {
        let read = say(&mut esphome, "esphome/discover/panda-breath", wrong, false);
        assert!(read.is_err(), "{wrong}");
    }
    assert!(
        say(&mut esphome, "esphome/discover/panda-breath", "", false).is_ok(),
        "cleared"
    );
}

#[test]
fn retained_commands_are_news_and_live_ones_are_not() {
    let mut esphome = esphome();
    let topic = "panda-breath/climate/chamber/mode/command";
    let kept = say(&mut esphome, topic, "off", true).unwrap();
    assert_eq!(kept.broker, Some(BrokerNews::RetainedCommand(topic.into())));
    assert!(!kept.is_from_device());
    let ours = say(&mut esphome, topic, "heat", false).unwrap();
    assert_eq!(ours, Report::default());
    let cleared = say(&mut esphome, topic, "", false).unwrap();
    assert_eq!(
        cleared.broker,
        Some(BrokerNews::CommandCleared(topic.into()))
    );
}

#[test]
fn availability_may_be_several_topics() {
    for (mode, one_gone, both_gone) in [
        ("all", false, false),
        ("any", true, false),
        ("latest", false, false),
    ] {
        let mut esphome = esphome();
        let config = format!(
            r#"{{"avty_mode":"{mode}","avty":[{{"t":"a/1"}},{{"t":"a/2","pl_avail":"1","pl_not_avail":"0"}}]}}"#
        );
        say(
            &mut esphome,
            "homeassistant/climate/panda-breath/chamber/config",
            &config,
            true,
        )
        .unwrap();
        assert!(esphome.take_changed());
        assert!(esphome.terms().subscriptions.contains(&"a/2".to_owned()));
        assert_eq!(
            say(&mut esphome, "a/1", "online", false).unwrap().present,
            Some(true)
        );
        assert_eq!(
            say(&mut esphome, "a/2", "0", false).unwrap().present,
            Some(one_gone),
            "{mode}"
        );
        assert_eq!(
            say(&mut esphome, "a/1", "offline", false).unwrap().present,
            Some(both_gone)
        );
    }
}

#[test]
fn half_a_band_of_an_earlier_connection_is_no_target() {
    let mut esphome = esphome();
    let low = "climate/chamber/target_temperature_low/state";
    let high = "climate/chamber/target_temperature_high/state";
    live(&mut esphome, low, "44");
    let both = live(&mut esphome, high, "46");
    assert_eq!(both.target, Some(45.0));
    esphome.forget_state();
    assert_eq!(live(&mut esphome, high, "60.5").target, None);
    assert_eq!(live(&mut esphome, low, "59.5").target, Some(60.0));
    // Our band as finely as it is told; any other heats to its upper end.
    for (told, target) in [("60.6", 60.05), ("60.7", 60.7), ("60.3", 60.3)] {
        let report = live(&mut esphome, high, told);
        assert!((report.target.unwrap() - target).abs() < 1e-9, "{told}");
    }
}

#[test]
fn one_target_or_two_is_what_the_node_tells_now() {
    let mut esphome = esphome();
    let single = "climate/chamber/target_temperature/state";
    let first = |esphome: &Esphome| {
        let messages = esphome.encode(Setting::Heat(Target::whole(45)), true);
        messages.first().map(|message| message.topic.clone())
    };
    let two = Some("panda-breath/climate/chamber/target_temperature_high/command".to_owned());
    let one = Some("panda-breath/climate/chamber/target_temperature/command".to_owned());
    assert_eq!(first(&esphome), None, "not known yet");
    say(&mut esphome, &format!("panda-breath/{single}"), "45", true).unwrap();
    assert_eq!(
        first(&esphome),
        one,
        "what the broker has kept is better than nothing"
    );
    live(
        &mut esphome,
        "climate/chamber/target_temperature_low/state",
        "44",
    );
    assert_eq!(first(&esphome), two);
    say(&mut esphome, &format!("panda-breath/{single}"), "45", true).unwrap();
    assert_eq!(first(&esphome), two, "and worse than its own word");
    live(&mut esphome, single, "45");
    assert_eq!(first(&esphome), one, "another firmware by now");
}

const CONFIG: &str = "homeassistant/climate/panda-breath/chamber/config";

#[test]
fn availability_is_said_on_its_own_topic_alone() {
    let mut esphome = esphome();
    for (payload, present) in [("online", true), ("offline", false)] {
        let report = live(&mut esphome, "status", payload);
        assert_eq!(report.present, Some(present));
        let mode = "panda-breath/climate/chamber/mode/state";
        let said = say(&mut esphome, mode, payload, false);
        assert_eq!(said, Err(DecodeError::Meaningless), "{payload}");
    }
}

#[test]
fn a_card_without_an_address_is_counted() {
    let mut esphome = esphome();
    for (mac, ignored) in [("aabbccddee01", 0), ("none", 1)] {
        let card = format!(r#"{{"name":"panda-breath","mac":"{mac}","version":"1"}}"#);
        let report = say(&mut esphome, "esphome/discover/panda-breath", &card, false).unwrap();
        assert_eq!(report.ignored, ignored);
        assert_eq!(report.identity, Identity::of_mac(mac));
    }
}

#[test]
fn a_discovery_message_says_who_it_is_and_how_far_it_goes() {
    let mut esphome = esphome();
    let config = r#"{"mode_cmd_t":"panda-breath/m","modes":["off","heat"],"max_temp":70,
        "dev":{"ids":["aabbccddee01"]}}"#;
    let report = say(&mut esphome, CONFIG, config, true).unwrap();
    assert_eq!(report.target_limit, Some(70.0));
    assert_eq!(report.identity, Identity::of_mac("aabbccddee01"));
    assert_eq!((report.ignored, report.broker), (0, None));
}

#[test]
fn identity_topics_outside_of_the_prefix_are_refused_once_or_allowed() {
    let config = |topic: &str| format!(r#"{{"mode_cmd_t":"{topic}","modes":["off","heat"]}}"#);
    let mut esphome = esphome();
    let mut told = Vec::new();
    for payload in [config("oven/mode"), config("oven/mode"), "[]".into()] {
        let report = say(&mut esphome, CONFIG, &payload, true).unwrap();
        assert_eq!(report.ignored, 1, "{payload}");
        told.push(report.broker.is_some());
    }
    assert_eq!(told, [true, false, true]);
    let mut esphome = Esphome::new(&Options {
        foreign_topics: true,
        ..Options::default()
    });
    let report = say(&mut esphome, CONFIG, &config("oven/mode"), true).unwrap();
    assert_eq!((report.ignored, report.broker), (0, None));
    let will = esphome.terms().will.unwrap();
    assert_eq!(will.to_string(), "oven/mode off");
}

#[test]
fn of_two_targets_the_lower_is_never_above_the_upper() {
    let mut esphome = esphome();
    live(
        &mut esphome,
        "climate/chamber/target_temperature_low/state",
        "44.5",
    );
    live(
        &mut esphome,
        "climate/chamber/target_temperature_high/state",
        "45.5",
    );
    for (target, first) in [(46, "low"), (47, "high"), (60, "high"), (20, "low")] {
        let messages = esphome.encode(Setting::Heat(Target::whole(target)), true);
        assert!(messages[0].topic.contains(first), "{target}: {messages:?}");
    }
}

#[test]
fn of_all_topics_that_must_say_that_it_is_there_none_may_say_that_it_is_gone() {
    for (mode, present) in [("all", false), ("any", true), ("latest", true)] {
        let mut esphome = esphome();
        let config = format!(
            r#"{{"mode_cmd_t":"panda-breath/m","modes":["off","heat"],"availability_mode":"{mode}",
            "availability":[{{"topic":"panda-breath/a"}},{{"topic":"panda-breath/b"}}]}}"#
        );
        say(&mut esphome, CONFIG, &config, true).unwrap();
        let report = live(&mut esphome, "b", "offline");
        assert_eq!(report.present, Some(false));
        let report = live(&mut esphome, "a", "online");
        assert_eq!(report.present, Some(present), "{mode}");
    }
}
