//! Whose word counts: identities, retained commands, discovery messages, garbage.

use super::*;

#[test]
fn r6_garbage_on_our_topics_is_counted_and_changes_nothing() {
    let mut world = heating();
    let topics = [
        "status",
        "climate/chamber/mode/state",
        "climate/chamber/action/state",
        "climate/chamber/target_temperature/state",
        "climate/chamber/target_temperature_low/state",
        "sensor/chamber_temperature/state",
        "climate/chamber/mode/command",
    ];
    let fat = "x".repeat(60_000);
    for topic in topics {
        for payload in [
            "",
            "garbage",
            "inf",
            "1e999",
            "-500",
            "{}",
            "nan",
            "\u{1f525}",
            &fat,
        ] {
            world.publish(&format!("panda-breath/{topic}"), payload, false);
        }
    }
    world.publish("esphome/discover/panda-breath", "[[[", false);
    world.run(8_000);
    assert_eq!(world.snapshot().link, Link::Connected);
    assert!(
        world.snapshot().ignored > 30,
        "{}",
        world.snapshot().ignored
    );
    assert!(world.node.state().heat);
    assert_eq!(world.snapshot().forced_offs, 0);
    assert_eq!(world.texts(), Vec::<&str>::new());
}

#[test]
fn a_retained_command_is_a_fault_that_says_how_to_clear_it() {
    let mut world = connected();
    let topic = "panda-breath/climate/chamber/mode/command";
    world.publish(topic, "heat", true);
    world.run(5_000);
    assert!(!world.node.state().heat, "as any other switching on");
    world.cut(); // it is seen when we subscribe
    world.run(5_000);
    let fault = world.snapshot().fault.unwrap();
    assert!(fault.blocks_heat());
    assert!(
        fault.text().contains("mosquitto_pub -r -n -t"),
        "{}",
        fault.text()
    );
    world.sent.clear();
    world.set_target(45.0);
    world.run(5_000);
    assert!(!world.texts().contains(&HEAT), "{:?}", world.texts());
    world.set_target(0.0);
    world.publish(topic, "", true);
    world.run(1_000);
    assert_eq!(world.snapshot().fault, None);
    world.set_target(45.0);
    world.run(5_000);
    assert!(world.node.state().heat);
}

#[test]
fn a_retained_command_that_was_cleared_while_we_were_away_is_over() {
    let mut world = connected();
    let topic = "panda-breath/climate/chamber/mode/command";
    world.publish(topic, "off", true);
    world.cut();
    world.run(5_000);
    assert!(world.snapshot().fault.is_some());
    world.down = true;
    world.cut();
    world.publish(topic, "", true);
    world.down = false;
    world.run(10_000);
    assert_eq!(world.snapshot().fault, None);
}

#[test]
fn a_retained_command_drops_the_target_it_is_found_with() {
    let mut world = heating();
    world.publish("panda-breath/climate/chamber/mode/command", "heat", true);
    world.cut();
    world.run(20_000);
    assert_eq!(world.snapshot().forced_off.unwrap().reason, Reason::Refused);
    assert!(!world.node.state().heat);
}

#[test]
fn identity_two_nodes_under_one_prefix_get_no_heat() {
    let mut world = heating();
    let card = r#"{"name":"panda-breath","mac":"aabbccddee99","version":"2026.6.5"}"#;
    world.publish("esphome/discover/panda-breath", card, false);
    world.run(500);
    assert!(!world.node.state().heat);
    assert_eq!(world.snapshot().link, Link::Error);
    let error = world.snapshot().last_error.unwrap();
    assert!(
        error.contains("ee99") && error.contains("topic_prefix"),
        "{error}"
    );
    world.sent.clear();
    world.set_target(45.0);
    for _ in 0..10 {
        world.run(10_000);
        world.publish("esphome/discover/panda-breath", card, false);
    }
    assert!(!world.texts().contains(&HEAT), "{:?}", world.texts());
    world.set_target(0.0);
    world.run(75_000);
    assert_eq!(world.snapshot().link, Link::Connected, "the other is gone");
}

#[test]
fn identity_another_node_is_refused_and_not_even_turned_off() {
    let mut config = config();
    config.device_id = Some("0000".into());
    let mut world = BrokerWorld::new(config, &esphome());
    world.run(6_000);
    assert_eq!(world.snapshot().link, Link::Error);
    assert_eq!(world.snapshot().reading, None);
    world.sent.clear();
    world.node.switch(true);
    world.set_target(45.0);
    world.run(5_000);
    world.set_target(0.0);
    world.run(20_000);
    assert_eq!(world.texts(), Vec::<&str>::new(), "{:?}", world.lines);
}

#[test]
fn identity_another_node_that_stays_on_is_not_found_on_again_and_again() {
    let mut config = config();
    config.device_id = Some("0000".into());
    let mut world = BrokerWorld::new(config, &esphome());
    world.run(6_000);
    world.node.switch(true);
    world.run(2_000);
    world.lines.clear();
    for _ in 0..5 {
        world.publish("panda-breath/climate/chamber/mode/state", "heat", false);
        world.run(1_000);
    }
    assert!(world.lines.is_empty(), "{:?}", world.lines);
    assert_eq!(world.snapshot().fault, None);
}

#[test]
fn topics_that_the_node_announces_are_used_and_move_the_will() {
    let mut world = BrokerWorld::new(config(), &esphome());
    let announced = r#"{"~":"panda-breath/elsewhere","mode_cmd_t":"~/mode","mode_stat_t":
        "panda-breath/climate/chamber/mode/state","modes":["off","heat"],"temp_cmd_t":
        "panda-breath/climate/chamber/target_temperature/command","max_temp":70}"#;
    world.publish(
        "homeassistant/climate/panda-breath/chamber/config",
        announced,
        true,
    );
    world.run(12_000);
    assert_eq!(world.snapshot().target_limit, Some(70.0));
    world.sent.clear();
    world.set_target(45.0);
    world.run(100);
    assert_eq!(world.texts()[1], "panda-breath/elsewhere/mode heat");
    world.cut();
    assert_eq!(world.said_wills(), ["panda-breath/elsewhere/mode off"]);
}

#[test]
fn identity_a_command_topic_outside_of_the_prefix_is_refused() {
    let mut world = BrokerWorld::new(config(), &esphome());
    let announced = r#"{"mode_cmd_t":"oven/mode","modes":["off","heat"]}"#;
    world.publish(
        "homeassistant/climate/panda-breath/chamber/config",
        announced,
        true,
    );
    world.run(12_000);
    assert!(
        world
            .lines
            .iter()
            .any(|line| line.contains("mqtt_foreign_topics")),
        "{:?}",
        world.lines
    );
    assert!(
        world
            .sent
            .iter()
            .all(|(_, text)| text.starts_with("panda-breath/"))
    );
}

#[test]
fn auto_says_what_it_found() {
    let mut config = config();
    if let Some(mqtt) = config.mqtt.as_mut() {
        mqtt.dialect = None;
    }
    let mut world = BrokerWorld::new(config, &esphome());
    world.run(12_000);
    assert_eq!(world.snapshot().dialect, Some(Dialect::Esphome));
    let said = "connected to panda-breath on broker 192.0.2.20, esphome, firmware 2026.6.5";
    assert!(world.lines[0].starts_with(said), "{:?}", world.lines);
    world.set_target(45.0);
    world.run(5_000);
    assert!(world.node.state().heat);
    world.cut();
    assert_eq!(world.wills.len(), 1, "the connection has a will by now");
}
