//! Regulating by a sensor of Klipper's, a device behind a broker.

use super::super::super::Chamber;
use super::*;

const MINUTE: Millis = 60_000;

fn with_chamber(config: Config) -> Config {
    Config {
        chamber: Some(Chamber {
            sensor: "temperature_sensor cavity".into(),
            max_boost: 15,
        }),
        ..config
    }
}

#[test]
fn boost_is_one_message_per_step_and_the_mode_is_left_alone() {
    let mut world = BrokerWorld::connected(with_chamber(config()), &esphome());
    world.chamber = Some(38.0);
    world.set_target(45.0);
    world.run(25 * MINUTE);
    let boost = world.snapshot().boost;
    assert!((2..=8).contains(&boost), "{boost}");
    let target = 45.0 + f64::from(boost);
    assert!((world.node.state().target_c - target).abs() < 0.01);
    assert_eq!(world.snapshot().device_target, Some(target));
    let steps: Vec<String> = (46..=45 + u32::from(boost))
        .map(|c| TARGET_45.replace("45", &c.to_string()))
        .collect();
    assert_eq!(world.texts()[2..], steps, "after target and mode");
    assert_eq!(world.snapshot().forced_offs, 0);
}

#[test]
fn boost_stops_at_the_limit_that_a_node_announces() {
    let setup = Setup {
        platform: Platform::Thermostat(Thermostat::clamped()),
        discovery: Some(Discovery::default()),
        ..Setup::default()
    };
    let mut world = BrokerWorld::connected(with_chamber(config()), &Kind::Esphome(Box::new(setup)));
    assert_eq!(world.snapshot().target_limit, Some(30.0));
    world.chamber = Some(24.0);
    world.set_target(28.0);
    world.run(30 * MINUTE);
    assert_eq!(world.snapshot().boost, 2);
    assert_eq!(world.snapshot().forced_offs, 0, "{:?}", world.lines);
    let stays = "temperature_sensor cavity stays at 24.0 C: the device's target of 30 C";
    let told = world.lines.iter().filter(|line| line.starts_with(stays));
    assert_eq!(told.count(), 1, "{:?}", world.lines);
}

#[test]
fn boost_of_a_stock_device_behind_a_broker() {
    let mut world = BrokerWorld::connected(with_chamber(stock_config()), &Kind::Stock);
    world.chamber = Some(38.0);
    world.set_target(45.0);
    world.run(25 * MINUTE);
    let boost = world.snapshot().boost;
    assert!((2..=8).contains(&boost), "{boost}");
    let target = 45.0 + f64::from(boost);
    assert!((world.node.state().target_c - target).abs() < 0.01);
    assert_eq!(world.snapshot().forced_offs, 0);
}

#[test]
fn r5_after_an_own_will_the_wish_comes_back_and_the_boost_if_it_is_known_to_be_right() {
    let mut world = BrokerWorld::connected(with_chamber(config()), &esphome());
    world.chamber = Some(38.0);
    world.set_target(45.0);
    world.run(25 * MINUTE);
    let boost = world.snapshot().boost;
    world.cut();
    world.run(MINUTE);
    let state = world.node.state();
    let now = world.snapshot().boost;
    assert!(state.heat, "{:?}", world.lines);
    assert!(now == 0 || now.abs_diff(boost) <= 1, "{boost} -> {now}");
    assert!((state.target_c - 45.0 - f64::from(now)).abs() < 0.01);
}
