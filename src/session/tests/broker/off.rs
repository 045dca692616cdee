//! Targets, and off until the device has confirmed it.

use super::*;

#[test]
fn a_target_is_two_messages_and_the_same_state_is_not_written_twice() {
    let mut world = connected();
    world.set_target(45.0);
    world.run(60_000);
    assert_eq!(world.texts(), [TARGET_45, HEAT]);
    let state = world.node.state();
    assert!(state.heat && (state.target_c - 45.0).abs() < 0.01);
    world.set_target(0.0);
    world.run(400_000);
    assert_eq!(world.texts(), [TARGET_45, HEAT, OFF]);
    assert!(world.snapshot().off_known);
    assert_eq!(world.lines, Vec::<String>::new());
}

#[test]
fn a_new_target_while_heating_is_one_message() {
    let mut world = heating();
    world.set_target(50.5);
    world.run(60_000);
    assert_eq!(
        world.texts(),
        ["panda-breath/climate/chamber/target_temperature/command 50.5"]
    );
    assert!((world.node.state().target_c - 50.5).abs() < 0.01);
    assert_eq!(world.snapshot().device_target, Some(50.5));
}

#[test]
fn r2_off_never_waits_and_wins_over_heat_that_is_not_confirmed() {
    let mut world = connected();
    for target in [45.0, 0.0, 50.0, 0.0] {
        world.set_target(target);
        world.run(50);
    }
    assert_eq!(world.texts().last(), Some(&OFF));
    world.run(10_000);
    assert!(!world.node.state().heat);
    assert!(world.snapshot().off_known);
    assert_eq!(
        world.lines,
        Vec::<String>::new(),
        "nobody else did anything"
    );
}

#[test]
fn r2_a_node_that_boots_into_heat_is_turned_off() {
    let setup = bang_bang();
    let mut world = BrokerWorld::new(config(), &setup);
    world.run(12_000);
    assert!(!world.node.state().heat);
    assert!(world.snapshot().off_known);
    assert!(world.texts().contains(&OFF));
}

#[test]
fn r2_off_is_the_first_word_of_a_new_connection() {
    let mut world = heating();
    world.device_frozen = true;
    world.set_target(0.0);
    world.cut(); // and the off with it
    world.run(100);
    let offs = world.texts().iter().filter(|text| **text == OFF).count();
    assert_eq!(offs, 2, "{:?}", world.texts());
}

#[test]
fn r2_off_is_known_by_the_action_never_by_the_mode() {
    let mut world = BrokerWorld::heating(config(), &long_run(20.0));
    world.set_target(0.0);
    world.run(6_000);
    assert_eq!(world.snapshot().device_on, Some(false), "its mode says off");
    assert!(
        world.node.state().relay,
        "its minimum run time has not passed"
    );
    assert!(!world.snapshot().off_known);
    world.run(30_000);
    assert!(!world.node.state().relay);
    assert!(world.snapshot().off_known);
    let offs = world.texts().iter().filter(|text| **text == OFF).count();
    assert!((2..=5).contains(&offs), "{offs} offs in 20 s");
}

#[test]
fn r2_off_is_not_known_of_a_device_that_never_says_what_its_element_does() {
    let mut config = config();
    if let Some(mqtt) = config.mqtt.as_mut() {
        let nowhere = (Role::ActionState, "panda-breath/nowhere".to_owned());
        mqtt.topics.extend([nowhere]);
    }
    let mut world = BrokerWorld::new(config, &esphome());
    world.run(60_000);
    assert_eq!(world.snapshot().link, Link::Connected);
    assert!(!world.snapshot().off_known);
    assert_eq!(world.snapshot().fault, Some(Trouble::StillHeats));
}

#[test]
fn r2_off_that_is_not_confirmed_for_30_s_is_a_fault_until_it_is() {
    let mut world = BrokerWorld::heating(config(), &long_run(60.0));
    world.set_target(0.0);
    world.run(29_000);
    assert_eq!(world.snapshot().fault, None);
    world.run(2_000);
    assert_eq!(world.snapshot().fault, Some(Trouble::StillHeats));
    assert_eq!(world.lines.len(), 1, "{:?}", world.lines);
    assert!(world.lines[0].contains("min_heating_run_time"));
    world.run(60_000);
    assert_eq!(world.snapshot().fault, None);
    assert!(world.snapshot().off_known);
}

#[test]
fn a_clamped_target_is_an_error_that_names_the_option() {
    let setup = Setup {
        platform: Platform::Thermostat(Thermostat::clamped()),
        ..Setup::default()
    };
    let mut world = BrokerWorld::connected(config(), &Kind::Esphome(Box::new(setup)));
    world.set_target(60.0);
    world.run(10_000);
    let forced = world.snapshot().forced_off.unwrap();
    assert_eq!(forced.reason, Reason::Refused);
    assert!(
        forced.text.contains("30 C instead of 60 C")
            && forced.text.contains("visual: max_temperature"),
        "{}",
        forced.text
    );
    assert!(
        !world.node.state().heat,
        "and it does not heat to the other"
    );
    let targets = world
        .texts()
        .iter()
        .filter(|text| text.ends_with(" 60"))
        .count();
    assert_eq!(targets, 2, "tried twice: {:?}", world.texts());
}

#[test]
fn a_limit_that_the_node_announces_is_known_beforehand() {
    let setup = Setup {
        platform: Platform::Thermostat(Thermostat::clamped()),
        discovery: Some(Discovery {
            prefix: "homeassistant".into(),
            abbreviated: true,
        }),
        ..Setup::default()
    };
    let world = BrokerWorld::connected(config(), &Kind::Esphome(Box::new(setup)));
    assert_eq!(world.snapshot().target_limit, Some(30.0));
}

#[test]
fn two_targets_are_a_band_around_one_and_never_cross() {
    let mut world = BrokerWorld::connected(config(), &bang_bang());
    for target in [45.0, 60.0, 30.0] {
        world.set_target(target);
        world.run(20_000);
        let state = world.node.state();
        assert!(
            state.heat && (state.target_c - target).abs() < 0.01,
            "{state:?}"
        );
        assert_eq!(world.snapshot().device_target, Some(target));
    }
    let topics: Vec<_> = world
        .texts()
        .iter()
        .filter_map(|text| text.strip_prefix("panda-breath/climate/chamber/target_temperature_"))
        .map(str::to_owned)
        .collect();
    assert_eq!(
        topics[2..],
        [
            "high/command 60.5",
            "low/command 59.5",
            "low/command 29.5",
            "high/command 30.5"
        ]
    );
    assert_eq!(world.snapshot().forced_offs, 0);
}

#[test]
fn r2_a_node_that_reboots_into_a_restored_mode_is_turned_off() {
    let mut world = BrokerWorld::heating(config(), &restoring());
    world.run(70_000); // its mode is in flash
    world.drop_device();
    world.set_target(0.0);
    world.run(500);
    assert!(world.node.state().heat, "it does not know yet");
    world.reboot_device();
    world.run(15_000);
    assert!(
        !world.node.state().heat,
        "{:?} {:?}",
        world.lines,
        world.sent
    );
    assert!(world.snapshot().off_known);
}

#[test]
fn r2_switched_on_by_hand_while_the_target_is_0_is_turned_off_at_once() {
    let mut world = connected();
    world.node.switch(true);
    world.run(200);
    assert_eq!(world.texts(), [OFF]);
    assert!(
        world.lines[0].contains("while its target is 0; turning it off"),
        "{:?}",
        world.lines
    );
    world.run(10_000);
    assert!(world.snapshot().off_known);
    assert_eq!(world.texts(), [OFF]);
}
