use super::*;
use crate::driver::watch::Heard;

const STATUS: &str = "panda-breath/status";
const CHAMBER: &str = "panda-breath/sensor/chamber_temperature/state";
const MODE: &str = "panda-breath/climate/chamber/mode/state";
const TARGET: &str = "panda-breath/climate/chamber/target_temperature/state";
const ACTION: &str = "panda-breath/climate/chamber/action/state";
const CARD: &str = "esphome/discover/panda-breath";
const STOCK: &str = "panda_breath/AABBCCDDEE01/state";

fn open(dialect: Option<Dialect>) -> View {
    let mut view = View::behind_broker(&Options {
        dialect,
        ..Options::default()
    });
    view.heard(0, &Heard::Opened);
    view
}

fn esphome() -> View {
    open(Some(Dialect::Esphome))
}

fn tell(view: &mut View, now: Millis, topic: &str, payload: &str, retained: bool) {
    let arrival = Arrival {
        topic: topic.to_owned(),
        payload: payload.to_owned().into(),
        retained,
    };
    view.heard(now, &Heard::Delivered(arrival));
}

fn say(view: &mut View, now: Millis, topic: &str, payload: &str) {
    tell(view, now, topic, payload, false);
}

/// What a node says with each reading.
fn burst(view: &mut View, now: Millis, celsius: &str) {
    say(view, now, MODE, "heat");
    say(view, now, TARGET, "45.0");
    say(view, now, ACTION, "heating");
    say(view, now, CHAMBER, celsius);
}

fn events(view: &View) -> Vec<&str> {
    view.events
        .iter()
        .map(|event| event.text.as_str())
        .collect()
}

#[test]
fn r5_what_a_broker_has_kept_is_shown_apart_until_the_device_speaks() {
    let mut view = esphome();
    for (topic, payload) in [
        (STATUS, "online"),
        (CHAMBER, "24.0"),
        (MODE, "heat"),
        (TARGET, "45.0"),
    ] {
        tell(&mut view, 10, topic, payload, true);
    }
    let kept = view.kept().unwrap();
    assert_eq!(
        (kept.reading, kept.on, kept.target),
        (Some(24.0), Some(true), Some(45.0))
    );
    assert_eq!((view.reading, view.on, view.target), (None, None, None));
    assert_eq!((view.messages, view.points.len()), (0, 0));
    assert_eq!(view.link, Link::Failed(WAITING.to_owned()));
    say(&mut view, 5_000, MODE, "off");
    assert_eq!(view.kept(), None);
    assert_eq!(view.on, Some(false));
}

#[test]
fn r5_a_device_is_believed_when_it_has_spoken_twice_a_second_apart() {
    let mut view = esphome();
    burst(&mut view, 5_000, "30.0");
    assert_eq!((view.reading, view.on), (None, Some(true)));
    burst(&mut view, 5_999, "31.0");
    assert_eq!(
        view.reading, None,
        "a bridge replays what it had kept at once"
    );
    burst(&mut view, 10_000, "32.0");
    assert_eq!(view.reading, Some((32.0, 10_000)));
    assert_eq!(view.link, Link::Connected);
    assert_eq!(events(&view), ["connected, ESPHome"]);
}

#[test]
fn a_node_says_what_its_element_does_and_has_no_mode_when_it_is_off() {
    let mut view = esphome();
    tell(
        &mut view,
        0,
        CARD,
        r#"{"name":"panda-breath","mac":"aabbccddee01","version":"2026.6.5"}"#,
        true,
    );
    burst(&mut view, 1_000, "30.0");
    burst(&mut view, 6_000, "46.0");
    assert_eq!(view.heats(), Some(true), "although it is warm enough");
    assert!(view.tells_heating());
    assert_eq!(view.spoken_by(), "ESPHome 2026.6.5");
    assert_eq!(view.identity.unwrap().last4(), "ee01");
    say(&mut view, 7_000, ACTION, "idle");
    assert_eq!(view.heats(), Some(false));
    say(&mut view, 8_000, MODE, "off");
    say(&mut view, 9_000, TARGET, "50.0");
    assert_eq!((view.mode, view.followed()), (None, None));
    assert_eq!(events(&view)[1..], ["the device is off", "target 50 C"]);
}

#[test]
fn a_stock_device_behind_a_broker_is_calculated_as_over_its_own_socket() {
    let mut view = open(Some(Dialect::StockMqtt));
    let state = |celsius: u8, mode: &str| {
        format!(
            r#"{{"chamber_temp":{celsius},"work_on":"ON","mode":"{mode}","target_temp":45,"drying_running":"OFF","drying_remaining_min":0}}"#
        )
    };
    tell(&mut view, 0, STOCK, &state(20, "power on"), true);
    assert_eq!((view.kept(), view.on), (None, None));
    say(&mut view, 500, STOCK, &state(30, "power on"));
    say(&mut view, 1_500, STOCK, &state(31, "power on"));
    assert_eq!(view.reading, Some((31.0, 1_500)));
    assert_eq!((view.heats(), view.tells_heating()), (Some(true), false));
    assert_eq!(view.spoken_by(), "stock firmware over MQTT");
    let dries = state(32, "filament drying").replace("\"OFF\"", "\"ON\"");
    let dries = dries.replace("min\":0", "min\":60");
    say(&mut view, 2_000, STOCK, &dries);
    assert_eq!(view.remaining(2_000), Some(3_600));
    assert_eq!(view.followed(), None, "a programme has its own target");
    assert_eq!(events(&view)[1..], ["mode drying", "drying has begun"]);
}

#[test]
fn a_device_that_goes_is_gone_and_one_that_comes_back_is_counted() {
    let mut view = esphome();
    burst(&mut view, 1_000, "30.0");
    burst(&mut view, 6_000, "31.0");
    say(&mut view, 7_000, STATUS, "offline");
    assert_eq!(view.link, Link::Lost(OFFLINE.to_owned()));
    say(&mut view, 17_000, STATUS, "online");
    assert_eq!(view.link, Link::Lost(WAITING.to_owned()));
    burst(&mut view, 17_500, "29.0");
    assert_eq!(view.reading, Some((31.0, 6_000)), "it must show anew");
    burst(&mut view, 23_000, "28.0");
    assert_eq!((&view.link, view.reconnects), (&Link::Connected, 1));
    assert_eq!(
        events(&view),
        [
            "connected, ESPHome",
            "connection lost: the broker says that the device is offline",
            "connected, ESPHome",
        ]
    );
}

#[test]
fn what_was_offline_before_is_said_so() {
    let mut view = esphome();
    tell(&mut view, 5, STATUS, "offline", true);
    assert_eq!(view.link, Link::Failed(OFFLINE.to_owned()));
    assert_eq!(view.advance(60_000), None, "its reason is known");
    assert_eq!(
        events(&view),
        ["no connection: the broker says that the device is offline"]
    );
}

#[test]
fn a_device_that_falls_silent_is_lost_at_the_moment_when_it_should_have_spoken() {
    let mut view = esphome();
    burst(&mut view, 1_000, "30.0");
    burst(&mut view, 6_000, "31.0");
    assert_eq!(view.advance(20_999), None);
    assert_eq!(view.advance(60_000), Some(21_000));
    assert_eq!(
        view.link,
        Link::Lost("nothing heard from the device for 15 s".to_owned())
    );
    assert_eq!(view.advance(70_000), None, "once");
    assert_eq!(view.events[1].at, 21_000);
}

#[test]
fn a_device_that_is_never_heard_is_said_once_and_its_proof_is_not_spoilt() {
    let mut view = esphome();
    assert_eq!(view.advance(9_999), None);
    assert_eq!(view.advance(10_500), Some(10_000));
    assert_eq!(view.link, Link::Failed(SILENT.to_owned()));
    assert_eq!(view.advance(99_000), None);

    let mut view = esphome();
    burst(&mut view, 5_100, "30.0");
    assert_eq!(view.advance(10_200), None, "it has begun to speak");
    burst(&mut view, 10_300, "30.0");
    assert_eq!(view.link, Link::Connected);
}

#[test]
fn to_listen_to_other_topics_is_no_lost_connection() {
    let mut view = open(None);
    assert_eq!(view.dialect(), None);
    say(&mut view, 500, CHAMBER, "30.0");
    assert_eq!(view.dialect(), Some(Dialect::Esphome));
    view.heard(510, &Heard::Refreshed);
    view.heard(520, &Heard::Opened);
    burst(&mut view, 5_500, "30.5");
    assert_eq!((&view.link, view.reconnects), (&Link::Connected, 0));
    // Where nobody comes back it is one.
    view.heard(6_000, &Heard::Refreshed);
    view.heard(6_010, &Heard::Closed("connection refused".to_owned()));
    view.heard(7_000, &Heard::Opened);
    assert_eq!(view.link, Link::Lost(WAITING.to_owned()));
}

#[test]
fn a_command_that_the_broker_keeps_is_a_fault_until_it_is_cleared() {
    let topic = "panda-breath/climate/chamber/mode/command";
    let mut view = esphome();
    say(&mut view, 5, topic, "heat");
    assert_eq!(view.retained_command(), None, "ordinary");
    tell(&mut view, 10, topic, "heat", true);
    tell(&mut view, 11, topic, "heat", true);
    let fault = view.retained_command().unwrap();
    assert!(
        fault.contains(topic) && fault.contains("mosquitto_pub -r -n"),
        "{fault}"
    );
    say(&mut view, 20, topic, "");
    assert_eq!(view.retained_command(), None);
    assert_eq!(events(&view).len(), 2, "{:?}", events(&view));
    assert_eq!(view.messages, 0, "it is not the device that commands");
}

#[test]
fn several_devices_in_the_place_of_one_are_none() {
    let mut view = open(Some(Dialect::StockMqtt));
    let state = r#"{"chamber_temp":30,"work_on":"OFF"}"#;
    for second in 0..4 {
        say(&mut view, second * 1_000, STOCK, state);
        let other = STOCK.replace("01/", "02/");
        say(&mut view, second * 1_000 + 1, &other, state);
    }
    assert_eq!((view.reading, view.reconnects), (None, 0));
    let why = view.link.why().unwrap();
    assert!(
        why.contains("AABBCCDDEE01, AABBCCDDEE02; choose one"),
        "{why}"
    );
    assert_eq!(events(&view).len(), 1, "{:?}", events(&view));
}

#[test]
fn r6_what_a_stranger_writes_does_not_get_onto_the_terminal() {
    let mut view = esphome();
    tell(
        &mut view,
        0,
        "homeassistant/climate/panda-breath/chamber/config",
        "{\"mode_cmd_t\":\"\\u001b[2J\",\"temp_stat_tpl\":\"\\u001b\"}",
        true,
    );
    tell(
        &mut view,
        0,
        "homeassistant/climate/panda-breath/chamber/config",
        r#"{"mode_cmd_t":"panda-breath/\u001b[2J"}"#,
        true,
    );
    tell(&mut view, 1, "panda-breath/\u{1b}[2J", "heat", true);
    let all = events(&view).join("\n") + &view.retained_command().unwrap();
    assert!(!all.contains('\u{1b}'), "{all:?}");
}

#[test]
fn what_one_stray_message_has_taught_is_forgotten() {
    let mut view = open(None);
    say(&mut view, 1_000, STOCK, r#"{"warehouse_temper":30}"#);
    assert_eq!(view.dialect(), Some(Dialect::StockMqtt));
    view.advance(30_999);
    assert_eq!(view.dialect(), Some(Dialect::StockMqtt));
    view.advance(31_000);
    assert_eq!(view.dialect(), None);
    for now in [32_000, 33_500] {
        burst(&mut view, now, "30.0");
    }
    assert_eq!(view.dialect(), Some(Dialect::Esphome));
    assert_eq!(view.link, Link::Connected);
    // A device that has been there is not doubted, however long it is gone.
    view.advance(500_000);
    assert_eq!(view.dialect(), Some(Dialect::Esphome));
}
