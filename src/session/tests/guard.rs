//! The guard (R8): no heat without one, what it finds, and what its sessions do with it.

use super::broker_world::BrokerWorld;
use super::peer::Kind;
use super::world::World;
use super::*;
use crate::dialect::mqtt::Options;

const HEAT_45: &str = r#"{"settings":{"work_mode":2,"set_temp":45,"work_on":true}}"#;
const HEAT_50: &str = r#"{"settings":{"work_mode":2,"set_temp":50,"work_on":true}}"#;
const OFF: &str = r#"{"settings":{"work_on":false}}"#;

/// A device that is connected and off, and needs a guard; there is none yet.
fn unguarded() -> World {
    let mut world = World::new(Config {
        guard: true,
        ..Config::default()
    });
    world.run(4_000);
    world.sent.clear();
    world
}

/// The same, heating to 45 C under a guard.
fn guarded() -> World {
    let mut world = unguarded();
    world.tell(Input::Guard(&Guard::Watching));
    world.set_target(45.0);
    world.run(3_000);
    assert_eq!(world.texts(), [HEAT_45]);
    world.sent.clear();
    world
}

fn gone() -> Guard {
    Guard::Gone("no memory".into())
}

#[test]
fn r8_heat_waits_for_a_guard_and_off_does_not() {
    let mut world = unguarded();
    world.set_target(45.0);
    world.run(5_000);
    assert_eq!(world.texts(), [""; 0]);
    world.tell(Input::Guard(&Guard::Watching));
    assert_eq!(world.texts(), [HEAT_45]);
    world.run(2_000);
    world.tell(Input::Guard(&gone()));
    world.set_target(50.0);
    world.run(1_000);
    assert_eq!(
        world.texts(),
        [HEAT_45],
        "heating goes on, and is not raised"
    );
    assert_eq!(world.state(), (1, 45));
    world.set_target(0.0);
    assert_eq!(world.texts(), [HEAT_45, OFF]);
}

#[test]
fn r8_without_a_guard_for_ten_seconds_it_is_turned_off() {
    let mut world = guarded();
    world.tell(Input::Guard(&gone()));
    let fault = world.snapshot().fault.unwrap();
    assert!(fault.blocks_heat() && fault.text().contains("no memory"));
    world.run(9_999);
    assert_eq!(world.snapshot().forced_offs, 0);
    world.run(1);
    let forced = world.snapshot().forced_off.unwrap();
    assert_eq!(forced.reason, Reason::Unguarded);
    assert_eq!(&*forced.text, "no guard process for 10 s: no memory");
    assert_eq!(world.texts(), [OFF]);
    world.tell(Input::Guard(&Guard::Watching));
    assert_eq!(world.snapshot().fault, None);
}

#[test]
fn r8_what_is_left_to_somebody_else_is_no_error() {
    let mut world = guarded();
    world.session.end(world.now);
    assert_eq!(world.snapshot().last_error, None);
}

#[test]
fn r8_a_guard_that_is_replaced_in_time_is_no_reason_to_stop() {
    let mut world = guarded();
    for _ in 0..5 {
        world.tell(Input::Guard(&Guard::Starting));
        world.run(9_000);
        world.tell(Input::Guard(&Guard::Watching));
        world.run(20_000);
    }
    assert_eq!(world.snapshot().forced_offs, 0);
    assert_eq!(world.texts(), [""; 0]);
    assert_eq!(world.state(), (1, 45));
}

#[test]
fn r8_no_heat_while_the_guard_is_at_work() {
    let mut world = unguarded();
    world.tell(Input::Guard(&Guard::Busy));
    world.set_target(45.0);
    world.run(3_000);
    assert_eq!(world.texts(), [""; 0]);
    world.tell(Input::Guard(&Guard::Watching));
    assert_eq!(world.texts(), [HEAT_45]);
}

#[test]
fn r8_behind_a_broker_heat_waits_for_a_guard_too() {
    let (config, kind) = esphome();
    let config = Config {
        guard: true,
        ..config
    };
    let mut world = BrokerWorld::connected(config, &kind);
    world.sent.clear();
    world.set_target(45.0);
    world.run(5_000);
    assert_eq!(world.texts(), [""; 0]);
    world.tell(Input::Guard(&Guard::Watching));
    world.run(3_000);
    assert!(world.node.state().heat);
}

#[test]
fn without_the_option_nothing_waits_for_a_guard() {
    let mut world = World::connected();
    world.tell(Input::Guard(&gone()));
    assert_eq!(world.snapshot().fault, None);
    world.set_target(45.0);
    assert_eq!(world.texts(), [HEAT_45]);
    world.run(30_000);
    assert_eq!(world.snapshot().forced_offs, 0);
}

// What is left behind

#[test]
fn r8_what_would_be_left_behind_at_each_moment() {
    let mut world = World::new(Config::default());
    assert_eq!(world.session.bequest(), Bequest::default());
    world.run(4_000);
    let known_off = world.session.bequest();
    assert!(!known_off.may_be_on && !known_off.undelivered);
    assert_eq!(known_off.identity, world.snapshot().identity);
    assert_eq!(known_off.address, Some("192.0.2.10:80".parse().unwrap()));
    world.run(310_000); // known off is looked at again; it is not forgotten meanwhile
    assert_eq!(world.session.bequest(), known_off);

    world.set_target(45.0);
    let heating = world.session.bequest();
    assert!(heating.may_be_on && heating.undelivered);
    world.run(2_000);
    assert!(
        !world.session.bequest().undelivered,
        "reports came after it"
    );
    world.set_target(0.0);
    assert!(world.session.bequest().may_be_on, "off is not known yet");
    world.run(4_000);
    assert_eq!(world.session.bequest(), known_off);

    world.set_target(45.0);
    world.hang();
    world.run(6_000); // the connection is given up, with heat in it
    let hung = world.session.bequest();
    assert!(hung.may_be_on && hung.undelivered);

    let mut world = World::connected();
    world.set_target(45.0);
    world.unreachable = true;
    world.cut();
    world.run(1_000);
    let cut = world.session.bequest();
    assert!(cut.may_be_on && cut.undelivered, "with its connection gone");
}

#[test]
fn r8_the_time_until_it_must_be_heard_of_ends_with_the_reactor_while_heat_is_wanted() {
    let mut world = World::heating();
    let drained = world.klipper.renewed_at;
    world.klipper.stalled = true;
    for _ in 0..9 {
        world.run(1_000);
        assert_eq!(world.session.good_until(world.now), drained + 13_000);
    }
    // From here on it is the background thread's word alone: it turns off, and lives.
    world.run(2_000);
    assert_eq!(world.snapshot().forced_off.unwrap().reason, Reason::Lease);
    assert_eq!(world.session.good_until(world.now), world.now + 13_000);
}

// The guard's own sessions

#[test]
fn r8_the_guard_turns_off_at_once_and_ends_when_off_is_known() {
    let mut world = World::heating();
    let killed = world.now;
    world.die();
    world.run(1_000);
    assert_eq!(world.texts(), [OFF]);
    assert!(world.sent[0].0 <= killed + 50, "{:?}", world.sent);
    assert_eq!(world.state().0, 0);
    assert!(!world.ended, "heat may still be on its way for 2 s");
    world.run(1_500);
    assert!(world.ended && world.snapshot().off_known);
    assert_eq!(world.texts(), [OFF]);
}

#[test]
fn r4_where_heat_was_never_seen_to_arrive_the_guard_looks_twice() {
    let mut world = World::connected();
    world.set_target(45.0);
    world.run(20); // it has arrived, and nobody knows
    world.die();
    world.run(11_000);
    assert_eq!(world.state().0, 0);
    assert!(!world.ended);
    world.run(4_000);
    assert!(world.ended && world.snapshot().off_known);
}

#[test]
fn r8_the_guard_goes_on_while_nothing_can_be_reached() {
    let mut world = World::heating();
    world.unreachable = true;
    world.die();
    world.run(600_000);
    assert!(!world.ended);
    assert_eq!(world.texts(), [""; 0]);
    let before = world.connects.len();
    world.run(60_000);
    assert!(world.connects.len() >= before + 7, "at least every 8 s");
    world.unreachable = false;
    world.run(15_000);
    assert_eq!(world.texts(), [OFF]);
    assert!(world.ended);
}

#[test]
fn identity_the_guard_turns_nothing_off_but_the_device_it_was_left() {
    let mut world = World::heating();
    world.swap(1); // two units have swapped addresses
    world.sent.clear();
    world.die();
    world.run(60_000);
    assert_eq!(world.texts(), [""; 0]);
    assert!(!world.ended);
    world.swap_back();
    world.run(20_000);
    assert_eq!(world.state().0, 0);
    assert!(world.ended);
}

#[test]
fn r8_a_device_that_is_known_to_be_off_leaves_the_guard_nothing_to_do() {
    let mut world = World::connected();
    let connects = world.connects.len();
    world.die();
    world.run(5_000);
    assert_eq!(world.connects.len(), connects);
    assert!(world.ended);
}

fn esphome() -> (Config, Kind) {
    let config = Config {
        host: "192.0.2.20".into(),
        port: 1883,
        mqtt: Some(Options {
            dialect: Some(Dialect::Esphome),
            ..Options::default()
        }),
        ..Config::default()
    };
    (config, Kind::Esphome(Box::default()))
}

#[test]
fn r8_an_esphome_node_is_watched_for_70_s_after_off_is_known() {
    let (config, kind) = esphome();
    let mut world = BrokerWorld::heating(config, &kind);
    world.die();
    world.run(20_000);
    assert!(world.snapshot().off_known && !world.node.state().heat);
    world.run(45_000);
    assert!(!world.ended);
    world.node.switch(true); // what it had saved a minute ago, after a power cut
    world.run(5_000);
    assert!(!world.node.state().heat);
    world.run(64_000);
    assert!(!world.ended, "and from then on for 70 s");
    world.run(20_000);
    assert!(world.ended && !world.node.state().heat);
}

#[test]
fn r8_the_guard_has_no_will_at_the_broker() {
    let (config, kind) = esphome();
    let mut world = BrokerWorld::heating(config, &kind);
    world.die();
    world.run(5_000);
    assert_eq!(world.wills.len(), 1, "klippy's own");
    world.cut();
    world.run(60_000);
    assert_eq!(world.wills.len(), 1);
}

// One writer

#[test]
fn one_writer_heat_comes_after_the_guard_has_left_and_no_off_after_it() {
    let mut world = World::heating();
    world.kill_guarded(300);
    world.sent.clear();
    world.set_target(50.0);
    world.run(60_000);
    assert_eq!(world.texts(), [HEAT_50]);
    assert_eq!(world.state(), (1, 50));
}

#[test]
fn one_writer_what_another_left_is_doubted() {
    let mut world = World::connected();
    assert!(world.snapshot().off_known);
    world.tell(Input::Doubt);
    assert!(!world.snapshot().off_known);
    world.run(11_000);
    assert!(!world.snapshot().off_known, "one look is not enough");
    world.run(3_000);
    assert!(world.snapshot().off_known);
}

#[test]
fn one_writer_a_device_of_another_process_is_left_alone_until_it_is_free() {
    let mut world = World::new(Config::default());
    world.held = Some((4711, true));
    world.run(3_000);
    let snapshot = world.snapshot();
    assert_eq!(snapshot.link, Link::Error);
    let why = snapshot.last_error.unwrap();
    assert!(
        why.contains("controlled by another process (4711);"),
        "{why}"
    );
    world.set_target(45.0);
    world.run(20_000);
    world.set_target(0.0);
    world.run(20_000);
    assert_eq!(world.texts(), [""; 0], "not even an off");
    let told = world.lines.iter().filter(|line| line.contains("4711"));
    assert_eq!(told.count(), 1, "{:?}", world.lines);

    world.held = Some((4711, false));
    world.run(10_000);
    let why = world.snapshot().last_error.unwrap();
    assert!(why.contains("(4711) and does not answer"), "{why}");
    world.held = None;
    world.run(10_000);
    assert_eq!(world.snapshot().link, Link::Connected);
}

#[test]
fn r8_a_missing_guard_is_told_first_whatever_else_is_wrong() {
    let mut world = World::new(Config {
        guard: true,
        ..Config::default()
    });
    world.tell(Input::Guard(&Guard::Watching));
    world.run(4_000);
    world.device.fault(crate::sim::Fault::Heater);
    world.set_target(45.0);
    world.run(20_000);
    let fault = Trouble::Device(crate::dialect::Fault::Heater);
    assert_eq!(world.snapshot().fault, Some(fault.clone()));
    world.tell(Input::Guard(&Guard::Gone("no memory".into())));
    let told = world.snapshot().fault.unwrap();
    assert!(told.blocks_heat(), "{told:?}");
    world.tell(Input::Guard(&Guard::Watching));
    assert_eq!(world.snapshot().fault, Some(fault));
}
