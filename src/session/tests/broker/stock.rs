//! Stock 1.0.4 over its own MQTT.

use super::*;

#[test]
fn stock_a_target_is_one_message_and_off_is_confirmed_by_the_state() {
    let mut world = BrokerWorld::connected(stock_config(), &Kind::Stock);
    assert!(!world.node.state().heat, "R2: its factory setting is on");
    world.set_target(44.6);
    world.run(30_000);
    let heat = r#"{"mode":"power on","target_temp":45,"work_on":"ON"}"#;
    assert_eq!(payloads(&world), [heat]);
    assert!(world.node.state().relay);
    world.set_target(0.0);
    world.run(4_000);
    assert_eq!(payloads(&world), [heat, STOCK_OFF]);
    assert!(world.snapshot().off_known);
    assert_eq!(world.snapshot().identity.unwrap().last4(), "0001");
}

#[test]
fn stock_is_ready_two_seconds_after_the_broker_was_reached() {
    let mut world = BrokerWorld::new(stock_config(), &Kind::Stock);
    world.run(2_600); // half a second of it to find out the id
    assert!(world.snapshot().reading.is_some(), "{:?}", world.lines);
}

#[test]
fn stock_the_will_needs_the_id_that_was_found() {
    let mut world = BrokerWorld::heating(stock_config(), &Kind::Stock);
    world.cut();
    assert_eq!(world.said_wills().len(), 1);
    assert!(
        world.said_wills()[0].ends_with(STOCK_OFF),
        "{:?}",
        world.said_wills()
    );
    world.run(30);
    assert!(!world.node.state().heat);
    world.run(5_000);
    assert!(world.node.state().heat, "and it comes back");
}

#[test]
fn r5_stock_silence_of_five_seconds_is_an_absent_device() {
    let mut world = BrokerWorld::heating(stock_config(), &Kind::Stock);
    world.device_frozen = true;
    world.run(6_000);
    assert_eq!(world.snapshot().link, Link::Reconnecting);
    world.device_frozen = false;
    world.run(3_000);
    assert_eq!(world.snapshot().link, Link::Connected);
    assert_eq!(world.snapshot().forced_offs, 0);
}

#[test]
fn identity_two_stock_devices_under_one_prefix_get_no_heat() {
    let mut world = BrokerWorld::connected(stock_config(), &Kind::Stock);
    let state = r#"{"chamber_temp":30,"work_on":"OFF","mode":"power on","target_temp":45}"#;
    world.publish("panda_breath/AABBCCDDEEFF/state", state, false);
    world.run(100);
    assert_eq!(world.snapshot().link, Link::Error);
    let error = world.snapshot().last_error.unwrap();
    assert!(
        error.contains("AABBCCDDEEFF") && error.contains("mqtt_device_id"),
        "{error}"
    );
    world.set_target(45.0);
    world.run(5_000);
    assert!(!world.node.state().heat, "{:?}", world.sent);
    world.set_target(0.0);
    world.publish("panda_breath/AABBCCDDEEFF/availability", "offline", true);
    world.run(5_000);
    assert_eq!(world.snapshot().link, Link::Connected);
}

#[test]
fn auto_finds_stock_too() {
    let mut config = stock_config();
    config.mqtt = Some(Options::default());
    let world = BrokerWorld::heating(config, &Kind::Stock);
    assert_eq!(world.snapshot().dialect, Some(Dialect::StockMqtt));
}

#[test]
fn r9_behind_a_broker_the_last_press_counts_though_it_says_that_it_does_not_dry() {
    let mut world = BrokerWorld::heating(stock_config(), &Kind::Stock);
    world.node.switch(false);
    world.run(500);
    world.node.switch(true);
    world.run(10_000);
    assert_eq!(world.snapshot().forced_offs, 0, "{:?}", world.lines);
    assert!(world.node.state().heat);
}
