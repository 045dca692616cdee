//! Brokers, connections and devices that come and go, and our own will.

use super::*;

#[test]
fn r4_off_is_not_known_before_the_old_connection_had_time_to_drain() {
    let mut world = BrokerWorld::heating(stock_config(), &Kind::Stock);
    world.set_target(0.0);
    world.cut();
    world.run(1_800);
    let off = r#"{"chamber_temp":30,"work_on":"OFF","mode":"power on","target_temp":45}"#;
    world.publish("panda_breath/025042000001/state", off, false); // a state more than usual
    world.run(100);
    assert_eq!(world.snapshot().link, Link::Connected);
    assert_eq!(world.snapshot().device_on, Some(false));
    assert!(!world.snapshot().off_known);
    world.run(15_000);
    assert!(world.snapshot().off_known);
}

#[test]
fn r4_heat_that_was_never_confirmed_needs_a_second_look() {
    let mut world = connected();
    world.set_target(45.0);
    world.run(1);
    world.set_target(0.0);
    world.cut();
    world.run(9_000);
    assert_eq!(world.snapshot().link, Link::Connected);
    assert!(!world.snapshot().off_known, "{:?}", world.sent);
    world.run(15_000);
    assert!(world.snapshot().off_known);
}

#[test]
fn r4_a_hundred_targets_while_offline_and_then_the_last_one() {
    let mut world = heating();
    world.down = true;
    world.cut();
    for n in 1..=100 {
        world.set_target(f64::from(n % 50 + 5));
        world.run(100);
    }
    world.set_target(50.0);
    world.down = false;
    world.run(15_000);
    assert_eq!(
        world.texts(),
        [
            "panda-breath/climate/chamber/target_temperature/command 50",
            HEAT
        ]
    );
    assert!(world.node.state().heat);
    assert_eq!(world.snapshot().forced_offs, 0);
}

#[test]
fn r8_our_own_will_is_not_external_and_heat_comes_back() {
    let mut world = heating();
    world.cut();
    assert_eq!(world.wills.len(), 1);
    assert_eq!(
        world.snapshot().device_on,
        None,
        "what it said before is history"
    );
    world.run(60);
    assert!(!world.node.state().heat, "the broker turned it off");
    world.run(5_000);
    assert!(world.node.state().heat, "{:?}", world.lines);
    assert_eq!(world.snapshot().forced_offs, 0);
}

#[test]
fn r8_an_old_connection_is_taken_over_before_the_new_heat() {
    let mut world = heating();
    // Half open: the broker has not noticed that we are gone.
    world.half_open();
    world.run(30_000);
    assert_eq!(world.wills.len(), 1, "when the same client id came back");
    assert!(
        world.node.state().heat,
        "{:?} {:?}",
        world.lines,
        world.sent
    );
    assert_eq!(world.snapshot().forced_offs, 0);
}

#[test]
fn r3_a_broker_frozen_for_12_s_ends_in_heat_again() {
    let mut world = heating();
    world.frozen = true;
    world.run(12_000);
    world.frozen = false;
    world.run(20_000);
    assert_eq!(world.snapshot().link, Link::Connected);
    assert!(
        world.node.state().heat,
        "{:?} {:?}",
        world.lines,
        world.sent
    );
    assert_eq!(world.snapshot().forced_offs, 0);
}

#[test]
fn r4_heat_left_in_a_frozen_broker_is_off_in_the_end() {
    let mut world = connected();
    world.frozen = true;
    world.set_target(45.0);
    world.run(100);
    world.set_target(0.0);
    world.run(14_000);
    world.frozen = false;
    world.run(30_000);
    assert!(!world.node.state().heat && !world.node.state().relay);
    assert!(world.snapshot().off_known);
}

#[test]
fn r8_a_process_that_was_stopped_finds_a_forced_off_when_it_wakes() {
    let mut world = heating();
    world.freeze(20_000);
    world.run(100);
    assert_eq!(world.wills.len(), 1, "the broker missed us");
    assert_eq!(world.snapshot().forced_off.unwrap().reason, Reason::Lease);
    world.run(60_000);
    assert!(!world.node.state().heat, "{:?}", world.sent);
    assert!(!world.texts().contains(&HEAT));
    assert!(world.snapshot().off_known);
}

#[test]
fn r4_a_broker_that_restarts_leaves_the_current_wish() {
    for persistent in [true, false] {
        for target in [0.0, 45.0] {
            let mut world = heating();
            world.set_target(target);
            world.run(5_000);
            world.down = true;
            world.restart_broker(persistent);
            world.run(3_000);
            world.down = false;
            world.run(40_000);
            assert_eq!(world.snapshot().link, Link::Connected, "{:?}", world.lines);
            assert_eq!(
                world.node.state().heat,
                target > 0.0,
                "{persistent} {target}"
            );
            assert_eq!(world.snapshot().forced_offs, 0);
        }
    }
}

#[test]
fn r5_what_a_broker_has_kept_proves_no_device_and_is_no_reading() {
    let mut world = BrokerWorld::new(config(), &esphome());
    world.device_frozen = true; // never connects
    world.publish("panda-breath/status", "online", true);
    world.publish("panda-breath/climate/chamber/mode/state", "heat", true);
    world.publish(
        "panda-breath/sensor/chamber_temperature/state",
        "31.5",
        true,
    );
    world.run(60_000);
    let snapshot = world.snapshot();
    assert_eq!(snapshot.link, Link::Connecting);
    assert_eq!(snapshot.reading, None);
    assert_eq!(snapshot.device_on, None);
    assert!(
        world
            .lines
            .iter()
            .any(|line| line.contains("nothing is heard from the device")),
        "{:?}",
        world.lines
    );
}

#[test]
fn r5_a_bridge_that_replays_what_was_kept_proves_no_device() {
    let mut world = heating();
    world.device_frozen = true;
    world.run(20_000);
    assert_eq!(world.snapshot().link, Link::Reconnecting);
    let last = world.snapshot().reading.unwrap();
    world.replay();
    world.run(5_000);
    assert_eq!(world.snapshot().link, Link::Reconnecting);
    world.cut(); // and what it delivers as kept is no word of the device either
    world.run(1_500);
    world.replay();
    world.run(500);
    assert_eq!(world.snapshot().link, Link::Reconnecting);
    assert_eq!(world.snapshot().reading.unwrap(), last);
}

#[test]
fn r5_a_device_that_the_broker_says_is_gone_is_gone_at_once() {
    let mut world = heating();
    world.drop_device();
    world.run(50);
    assert_eq!(world.snapshot().link, Link::Reconnecting);
    assert!(
        world.lines[0].contains("the device is offline"),
        "{:?}",
        world.lines
    );
    world.run(15_000);
    assert!(
        world.lines[1].contains("connected again"),
        "{:?}",
        world.lines
    );
}

#[test]
fn r5_two_words_with_a_long_silence_between_prove_no_device() {
    let mut world = heating();
    world.device_frozen = true;
    world.run(20_000);
    for _ in 0..3 {
        world.publish("panda-breath/climate/chamber/mode/state", "off", false);
        world.run(100);
        assert_eq!(world.snapshot().link, Link::Reconnecting);
        world.run(20_000);
    }
}

#[test]
fn r5_a_device_that_freezes_is_noticed_and_comes_back_to_the_current_wish() {
    let mut world = heating();
    world.device_frozen = true;
    world.run(16_000);
    assert_eq!(world.snapshot().link, Link::Reconnecting);
    assert!(world.lines[0].contains("no word from the device for 15 s"));
    world.set_target(0.0);
    world.run(3_000);
    world.device_frozen = false;
    world.run(5_000);
    assert!(!world.node.state().heat);
    world.run(10_000);
    assert_eq!(world.snapshot().link, Link::Connected);
    assert!(world.snapshot().off_known);
}

#[test]
fn r5_a_broken_sensor_is_no_reading_and_ends_in_lost() {
    let mut world = heating();
    world.node.fault(crate::sim::Fault::ChamberOpen);
    world.run(10_000);
    let last = world.snapshot().reading.unwrap();
    world.run(60_000);
    assert_eq!(world.snapshot().reading.unwrap(), last);
    assert_eq!(world.snapshot().link, Link::Connected);
    world.run(60_000);
    assert_eq!(world.snapshot().forced_off.unwrap().reason, Reason::Lost);
}

#[test]
fn r8_goodbye_is_said_only_when_off_is_known() {
    let mut world = BrokerWorld::heating(config(), &long_run(20.0));
    world.orphan();
    world.run(3_000);
    assert!(!world.ended, "its element still heats");
    world.run(30_000);
    assert!(world.ended);
    assert_eq!(
        world.wills.len(),
        0,
        "a will would turn off what the next one turns on"
    );
}

#[test]
fn r8_a_process_that_dies_before_off_is_confirmed_leaves_a_will() {
    let mut world = BrokerWorld::heating(config(), &long_run(20.0));
    world.restart(); // RESTART: off is under way
    world.run(2_000);
    assert!(!world.snapshot().off_known);
    world.cut(); // the kernel closes our socket
    assert_eq!(world.wills.len(), 1);
}

#[test]
fn r8_topics_that_move_while_it_heats_end_in_the_will_and_in_heat_again() {
    let mut world = heating();
    let announced = r#"{"mode_cmd_t":"panda-breath/climate/chamber/mode/command",
        "act_t":"panda-breath/climate/chamber/action/state","modes":["off","heat"],
        "temp_cmd_t":"panda-breath/climate/chamber/target_temperature/command",
        "avty_t":"panda-breath/elsewhere"}"#;
    world.publish(
        "homeassistant/climate/panda-breath/chamber/config",
        announced,
        true,
    );
    world.run(500);
    assert_eq!(world.said_wills(), [OFF], "no goodbye while it heats");
    world.run(8_000);
    assert!(world.node.state().heat, "{:?}", world.lines);
}

#[test]
fn r12_a_restart_keeps_the_connection_and_ends_without_a_printer() {
    let mut world = heating();
    let connects = world.connects.len();
    world.orphan();
    world.run(1_900); // off is known long since
    assert!(!world.ended && world.snapshot().off_known);
    world.klipper.stalled = false;
    world.restart();
    world.run(100);
    assert_eq!(world.snapshot().link, Link::Connected);
    assert_eq!(world.connects.len(), connects);
    world.orphan();
    world.run(2_100);
    assert!(world.ended);
    assert_eq!(world.wills.len(), 0);
}
