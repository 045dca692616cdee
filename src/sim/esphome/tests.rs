//! One test per fact about an ESPHome node that a client must live with.

use std::time::Duration;

use super::*;

const CLIMATE: &str = "panda-breath/climate/chamber";

fn node(change: impl FnOnce(&mut Setup)) -> Node {
    let mut setup = Setup {
        debug: false,
        ..Setup::default()
    };
    change(&mut setup);
    Node::new(&setup)
}

fn bang_bang() -> Node {
    node(|setup| setup.platform = Platform::BangBang(BangBang::default()))
}

fn thermostat(change: impl FnOnce(&mut Thermostat)) -> Node {
    let mut options = Thermostat::default();
    change(&mut options);
    node(|setup| setup.platform = Platform::Thermostat(options))
}

fn run(node: &mut Node, seconds: f64) {
    node.step(Duration::from_secs_f64(seconds));
}

/// Connected, with its first readings, all of it published.
fn ready(mut node: Node) -> Node {
    node.connected();
    run(&mut node, 1.0);
    node.take_publications();
    node
}

fn send(node: &mut Node, topic: &str, payload: &str) -> Vec<(String, String)> {
    node.handle(topic, payload.as_bytes());
    node.step(Duration::from_millis(16));
    published(node)
}

fn published(node: &mut Node) -> Vec<(String, String)> {
    let text = |publication: Publication| {
        assert!(publication.retain, "{}", publication.topic);
        let payload = String::from_utf8(publication.payload).unwrap();
        (publication.topic, payload)
    };
    node.take_publications().into_iter().map(text).collect()
}

/// The part behind the climate's topic, and the payload.
fn burst(publications: &[(String, String)]) -> Vec<(&str, &str)> {
    publications
        .iter()
        .filter(|(topic, _)| topic.starts_with(CLIMATE))
        .map(|(topic, payload)| (&topic[CLIMATE.len() + 1..], payload.as_str()))
        .collect()
}

#[test]
fn a_connect_publishes_info_then_birth_then_states_and_the_climate_last() {
    let mut node = node(|_| {});
    run(&mut node, 1.0);
    assert!(node.take_publications().is_empty(), "nothing while offline");
    node.connected();
    let all = published(&mut node);
    let topics: Vec<&str> = all.iter().map(|(topic, _)| topic.as_str()).collect();
    assert_eq!(
        topics,
        [
            "esphome/discover/panda-breath",
            "panda-breath/status",
            "panda-breath/sensor/chamber_temperature/state",
            "panda-breath/sensor/ptc_element_temperature/state",
            "panda-breath/fan/fan/state",
            "panda-breath/fan/fan/speed_level/state",
            "panda-breath/climate/chamber/mode/state",
            "panda-breath/climate/chamber/current_temperature/state",
            "panda-breath/climate/chamber/target_temperature/state",
            "panda-breath/climate/chamber/action/state",
        ]
    );
    assert_eq!(all[1].1, "online");
    assert_eq!(all[2].1, "22.0");
    let info: serde_json::Value = serde_json::from_str(&all[0].1).unwrap();
    assert_eq!(
        (&info["name"], &info["mac"]),
        (&"panda-breath".into(), &"025042000001".into())
    );
}

#[test]
fn sensors_without_a_sample_have_no_state() {
    let mut node = node(|_| {});
    node.connected();
    let all = published(&mut node);
    assert!(!all.iter().any(|(topic, _)| topic.contains("sensor")));
    assert!(!all.iter().any(|(topic, _)| topic.contains("current_")));
}

#[test]
fn its_session_outlives_the_connection_and_its_will_is_retained() {
    let terms = node(|_| {}).terms();
    assert_eq!(terms.client_id, "panda-breath-025042000001");
    assert!(!terms.clean_session);
    assert_eq!(terms.keep_alive, Duration::from_secs(15));
    let will = terms.will.unwrap();
    assert_eq!(
        (will.topic.as_str(), will.payload.as_slice(), will.retain),
        ("panda-breath/status", b"offline".as_slice(), true)
    );
    let has = |end: &str| terms.subscriptions.iter().any(|topic| topic.ends_with(end));
    assert!(has("climate/chamber/mode/command") && has("/target_temperature/command"));
    assert!(has("esphome/ping/panda-breath") && !has("_low/command") && !has("relay/command"));
    assert!(
        !terms
            .subscriptions
            .iter()
            .any(|topic| topic.contains(['#', '+']))
    );
}

#[test]
fn two_point_platforms_have_no_single_target() {
    let terms = bang_bang().terms();
    let has = |end: &str| terms.subscriptions.iter().any(|topic| topic.ends_with(end));
    assert!(has("/target_temperature_low/command") && has("/target_temperature_high/command"));
    assert!(!has("/target_temperature/command"));
    let mut node = ready(bang_bang());
    let topic = format!("{CLIMATE}/target_temperature/command");
    assert_eq!(send(&mut node, &topic, "45"), []);
}

#[test]
fn prefix_and_object_ids_are_free() {
    let node = node(|setup| {
        setup.prefix = Some("a/b".into());
        setup.climate = "box".into();
    });
    let terms = node.terms();
    assert!(
        terms
            .subscriptions
            .contains(&"a/b/climate/box/mode/command".into())
    );
    assert!(
        terms
            .subscriptions
            .contains(&"esphome/ping/panda-breath".into())
    );
    assert_eq!(terms.will.unwrap().topic, "a/b/status");
}

#[test]
fn an_accepted_command_is_followed_by_the_whole_set_in_order() {
    let mut node = ready(node(|_| {}));
    let all = send(
        &mut node,
        &format!("{CLIMATE}/target_temperature/command"),
        "45",
    );
    assert_eq!(
        burst(&all),
        [
            ("mode/state", "off"),
            ("current_temperature/state", "22.0"),
            ("target_temperature/state", "45.0"),
            ("action/state", "off"),
        ]
    );
    let all = send(&mut node, &format!("{CLIMATE}/mode/command"), "HEAT");
    assert_eq!(burst(&all)[0], ("mode/state", "heat"));
    assert_eq!(burst(&all)[3], ("action/state", "heating"));
    assert!(node.state().relay && node.state().heat);
}

#[test]
fn a_number_that_is_none_is_followed_by_nothing() {
    let mut node = ready(node(|_| {}));
    let topic = format!("{CLIMATE}/target_temperature/command");
    for payload in ["abc", "", "25.5 "] {
        assert_eq!(send(&mut node, &topic, payload), [], "{payload:?}");
    }
    let all = send(&mut node, &topic, "nan");
    assert_eq!(burst(&all)[2], ("target_temperature/state", "40.0"));
}

#[test]
fn an_unknown_mode_is_published_about_and_changes_nothing() {
    let mut node = ready(node(|_| {}));
    for payload in ["cool", "nonsense", ""] {
        let all = send(&mut node, &format!("{CLIMATE}/mode/command"), payload);
        assert_eq!(burst(&all)[0], ("mode/state", "off"));
        assert_eq!(burst(&all).len(), 4);
    }
}

#[test]
fn topics_that_end_in_set_do_not_exist() {
    let mut node = ready(node(|_| {}));
    for topic in ["mode/set", "target_temperature/set", "command", ""] {
        assert_eq!(send(&mut node, &format!("{CLIMATE}/{topic}"), "heat"), []);
    }
    let other = "panda-breath2/climate/chamber/mode/command";
    assert_eq!(send(&mut node, other, "heat"), []);
    assert!(!node.state().heat);
}

#[test]
fn a_sensor_update_publishes_the_set_and_the_sensors_every_5_seconds() {
    let mut node = ready(node(|_| {}));
    run(&mut node, 4.9);
    assert_eq!(published(&mut node), []);
    run(&mut node, 0.2);
    let all = published(&mut node);
    assert_eq!(burst(&all).len(), 4);
    assert!(all.contains(&(
        "panda-breath/sensor/chamber_temperature/state".into(),
        "22.0".into()
    )));
    run(&mut node, 50.0);
    assert_eq!(burst(&published(&mut node)).len(), 40);
}

#[test]
fn bang_bang_publishes_twice_when_its_action_changes() {
    let mut node = ready(bang_bang());
    assert!(
        node.state().relay,
        "heats at the first boot without a command"
    );
    let all = send(&mut node, &format!("{CLIMATE}/mode/command"), "off");
    let actions: Vec<_> = burst(&all)
        .into_iter()
        .filter(|(topic, _)| *topic == "action/state")
        .collect();
    assert_eq!(actions, [("action/state", "off"); 2]);
    assert!(!node.state().relay, "at once");
    let all = send(
        &mut node,
        &format!("{CLIMATE}/target_temperature_high/command"),
        "95",
    );
    assert_eq!(burst(&all).len(), 5);
    assert_eq!(burst(&all)[3], ("target_temperature_high/state", "95.0"));
}

#[test]
fn a_target_above_the_visual_maximum_is_clamped_and_echoed_so() {
    let mut node = ready(node(|setup| {
        setup.platform = Platform::Thermostat(Thermostat::clamped());
    }));
    let all = send(
        &mut node,
        &format!("{CLIMATE}/target_temperature/command"),
        "60",
    );
    assert_eq!(burst(&all)[2], ("target_temperature/state", "30.0"));
}

#[test]
fn off_is_said_at_once_and_done_when_the_run_time_is_over() {
    let mut node = ready(thermostat(|options| options.min_run_s = 20.0));
    send(&mut node, &format!("{CLIMATE}/mode/command"), "heat");
    let all = send(&mut node, &format!("{CLIMATE}/mode/command"), "off");
    assert_eq!(burst(&all)[0], ("mode/state", "off"));
    assert_eq!(burst(&all)[3], ("action/state", "heating"));
    run(&mut node, 19.0);
    assert!(node.state().relay);
    node.take_publications();
    run(&mut node, 1.0);
    assert!(!node.state().relay);
    let all = published(&mut node);
    assert_eq!(burst(&all).last(), Some(&("action/state", "off")));
}

#[test]
fn a_broken_sensor_says_nan_and_the_climate_says_no_temperature_and_stops() {
    let mut node = ready(bang_bang());
    node.fault(Fault::ChamberOpen);
    run(&mut node, 5.0);
    let all = published(&mut node);
    assert!(all.contains(&(
        "panda-breath/sensor/chamber_temperature/state".into(),
        "nan".into()
    )));
    assert!(
        !all.iter()
            .any(|(topic, _)| topic.contains("current_temperature"))
    );
    assert_eq!(burst(&all).last(), Some(&("action/state", "off")));
    assert_eq!((node.state().relay, node.state().reading_c), (false, None));
    node.clear_faults();
    run(&mut node, 5.0);
    assert!(node.state().relay, "and goes on by itself");
}

#[test]
fn nan_can_be_none() {
    let mut node = ready(node(|setup| setup.nan_as_none = true));
    node.fault(Fault::ChamberOpen);
    run(&mut node, 5.0);
    let expected = (
        "panda-breath/sensor/chamber_temperature/state".into(),
        "None".into(),
    );
    assert!(published(&mut node).contains(&expected));
}

#[test]
fn a_power_cut_within_a_minute_loses_what_a_clean_reboot_keeps() {
    let heat = |node: &mut Node| send(node, &format!("{CLIMATE}/mode/command"), "heat");
    let mut cut = ready(node(|_| {}));
    heat(&mut cut);
    run(&mut cut, 2.0);
    cut.power_off();
    cut.boot();
    assert!(!cut.state().heat);

    let mut clean = ready(node(|_| {}));
    heat(&mut clean);
    clean.shut_down();
    assert_eq!(
        published(&mut clean).last(),
        Some(&("panda-breath/status".into(), "offline".into()))
    );
    assert!(!clean.state().relay);
    clean.boot();
    assert!(clean.state().heat);
    run(&mut clean, 1.0);
    assert!(clean.state().relay, "heats without a broker");

    let mut late = ready(node(|_| {}));
    heat(&mut late);
    run(&mut late, 61.0);
    late.power_off();
    late.boot();
    assert!(late.state().heat);
}

#[test]
fn a_thermostat_can_forget_on_purpose_and_bang_bang_cannot() {
    let mut node = ready(thermostat(|options| options.restores = false));
    send(&mut node, &format!("{CLIMATE}/mode/command"), "heat");
    node.shut_down();
    node.boot();
    assert!(!node.state().heat);
    let mut node = ready(bang_bang());
    send(&mut node, &format!("{CLIMATE}/mode/command"), "off");
    node.shut_down();
    node.boot();
    assert!(!node.state().heat, "what was saved, not the default");
}

#[test]
fn what_is_in_flash_outlives_the_simulator() {
    let mut first = ready(node(|_| {}));
    send(
        &mut first,
        &format!("{CLIMATE}/target_temperature/command"),
        "51",
    );
    first.shut_down();
    let mut second = node(|_| {});
    second.restore(first.stored());
    assert!((second.state().target_c - 51.0).abs() < 1e-6);
}

#[test]
fn without_a_broker_it_goes_on_and_reboots_after_a_quarter_of_an_hour() {
    let mut node = ready(node(|_| {}));
    send(&mut node, &format!("{CLIMATE}/mode/command"), "heat");
    node.disconnected();
    run(&mut node, 899.0);
    assert!(node.state().heat && node.reboots() == 0);
    run(&mut node, 2.0);
    assert_eq!(node.reboots(), 1);
    assert!(node.state().heat);
    assert_eq!(node.take_publications(), []);
}

#[test]
fn what_arrived_before_the_connection_ended_is_obeyed() {
    let mut node = ready(node(|_| {}));
    send(&mut node, &format!("{CLIMATE}/mode/command"), "heat");
    node.handle(&format!("{CLIMATE}/mode/command"), b"off"); // as a broker that ends sends a will
    node.disconnected();
    run(&mut node, 0.1);
    assert!(!node.state().heat);
    assert_eq!(node.take_publications(), []);
}

#[test]
fn a_ping_is_answered_soon_with_the_device_info() {
    let mut node = ready(node(|_| {}));
    for topic in ["esphome/ping/panda-breath", "esphome/discover"] {
        let all = send(&mut node, topic, "");
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].0, "esphome/discover/panda-breath");
    }
    assert_eq!(send(&mut node, "esphome/ping/another", ""), []);
}

#[test]
fn of_more_than_31_messages_at_once_the_rest_is_lost() {
    let mut node = ready(node(|_| {}));
    for level in 1..=40 {
        let level = level.to_string();
        node.handle("panda-breath/fan/fan/speed_level/command", level.as_bytes());
    }
    run(&mut node, 1.0);
    let all = published(&mut node);
    assert_eq!(all.len(), 62, "two topics each");
    assert_eq!(all.last().unwrap().1, "31");
}

#[test]
fn a_fan_has_its_own_ideas_about_levels() {
    let mut node = ready(node(|_| {}));
    let mut send = |topic: &str, payload: &str| {
        let all = send(&mut node, &format!("panda-breath/fan/fan/{topic}"), payload);
        all.into_iter().map(|(_, text)| text).collect::<Vec<_>>()
    };
    assert_eq!(send("command", "on"), ["ON", "100"]);
    assert_eq!(send("speed_level/command", "0"), ["ON", "1"]);
    assert!(send("speed_level/command", "33.0").is_empty());
    assert!(send("speed_level/command", "101").is_empty());
    assert!(send("command", "turn_off").is_empty());
    assert_eq!(send("command", "TOGGLE"), ["OFF", "1"]);
    assert_eq!(send("speed_level/command", "50"), ["OFF", "50"]);
}

#[test]
fn a_relay_that_is_an_entity_bypasses_the_climate() {
    let mut node = ready(node(|setup| setup.relay = true));
    send(
        &mut node,
        "panda-breath/switch/ptc_heater_relay/command",
        "ON",
    );
    run(&mut node, 60.0);
    assert!(node.state().relay && !node.state().heat);
    send(
        &mut node,
        "panda-breath/switch/ptc_heater_relay/command",
        "OFF",
    );
    assert!(!node.state().relay);
}

#[test]
fn discovery_has_short_keys_or_long_ones() {
    for abbreviated in [true, false] {
        let mut node = node(|setup| {
            setup.discovery = Some(Discovery {
                abbreviated,
                ..Discovery::default()
            });
        });
        node.connected();
        let all = published(&mut node);
        let topic = "homeassistant/climate/panda-breath/chamber/config";
        let (_, text) = all.iter().find(|(at, _)| at == topic).unwrap();
        let config: serde_json::Value = serde_json::from_str(text).unwrap();
        let [command, availability, device, ids] = if abbreviated {
            ["temp_cmd_t", "avty_t", "dev", "ids"]
        } else {
            [
                "temperature_command_topic",
                "availability_topic",
                "device",
                "identifiers",
            ]
        };
        assert_eq!(
            config[command],
            format!("{CLIMATE}/target_temperature/command")
        );
        assert_eq!(config[availability], "panda-breath/status");
        assert_eq!(config[device][ids], "025042000001");
        assert!(config["max_temp"] == 80.0 && config["modes"][1] == "heat");
    }
}

#[test]
fn the_debug_topic_is_noisy_coloured_and_retained() {
    let mut node = Node::new(&Setup::default());
    node.connected();
    run(&mut node, 6.0);
    let all = published(&mut node);
    let lines = all
        .iter()
        .filter(|(topic, _)| topic == "panda-breath/debug");
    assert!(lines.clone().count() >= 6);
    assert!(lines.clone().all(|(_, text)| text.contains("\x1b[0;36m")));
}

#[test]
fn a_node_that_lives_faster_publishes_no_more_often_and_regulates_as_well() {
    let mut node = ready(node(|setup| setup.speed = 60.0));
    send(
        &mut node,
        &format!("{CLIMATE}/target_temperature/command"),
        "45",
    );
    send(&mut node, &format!("{CLIMATE}/mode/command"), "heat");
    run(&mut node, 10.0);
    let readings = published(&mut node);
    let readings = readings
        .iter()
        .filter(|(topic, _)| topic.contains("/chamber_temperature/"));
    assert!((2..=3).contains(&readings.count()));
    run(&mut node, 10.0);
    assert!(node.state().chamber_c > 44.0, "{:?}", node.state());
    run(&mut node, 20.0);
    assert!(node.state().chamber_c < 52.0, "{:?}", node.state());
}

#[test]
fn it_heats_to_its_target_and_stays_there() {
    let mut node = ready(node(|_| {}));
    send(
        &mut node,
        &format!("{CLIMATE}/target_temperature/command"),
        "45",
    );
    send(&mut node, &format!("{CLIMATE}/mode/command"), "heat");
    run(&mut node, 3600.0);
    let state = node.state();
    assert!((43.0..52.0).contains(&state.chamber_c), "{state:?}");
}

#[test]
fn a_switch_at_the_device_is_published_too() {
    let mut node = ready(node(|_| {}));
    node.switch(true);
    assert_eq!(burst(&published(&mut node))[0], ("mode/state", "heat"));
    node.switch(false);
    assert_eq!(burst(&published(&mut node))[0], ("mode/state", "off"));
}
