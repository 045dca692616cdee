//! `cutoff_sensor`: when it trips, when it does not, and how it is left.

use super::super::{Config, Cutoff, OnExternalOn, Reason, Sample, refusal};
use super::world::World;
use super::{HEAT_45, OFF};
use crate::sim::Button;

fn config() -> Config {
    Config {
        cutoff: Some(Cutoff {
            sensor: "temperature_sensor top".into(),
            celsius: 70.0,
        }),
        ..Config::default()
    }
}

fn world() -> World {
    let mut world = World::new(config());
    says(&mut world, 50.0);
    world.run(4_000);
    assert!(world.snapshot().off_known);
    world.sent.clear();
    world.lines.clear();
    world
}

fn heating() -> World {
    let mut world = world();
    says(&mut world, 50.0);
    world.set_target(45.0);
    world.run(3_000);
    assert_eq!(world.texts(), [HEAT_45]);
    world.sent.clear();
    world
}

/// A reading arrives in Klipper now.
fn says(world: &mut World, celsius: f64) {
    let at = world.now;
    world.around.cutoff = Some(Sample { celsius, at });
}

fn refused(world: &World) -> Option<String> {
    let tripped = world.snapshot().tripped;
    refusal(&world.config, &world.around, tripped, world.now)
}

#[test]
fn cutoff_at_the_limit_is_off_and_a_failure() {
    let mut world = heating();
    says(&mut world, 69.9);
    world.run(2_000);
    assert!(world.sent.is_empty(), "not before");
    says(&mut world, 70.0);
    world.run(2_000);
    assert_eq!(world.texts(), [OFF]);
    let snapshot = world.snapshot();
    let forced = snapshot.forced_off.unwrap();
    assert_eq!(forced.reason, Reason::Cutoff);
    assert!(forced.reason.is_failure());
    assert_eq!((snapshot.forced_offs, snapshot.failures), (1, 1));
    let text = "temperature_sensor top reads 70.0 C, and cutoff_temp is 70 C";
    assert_eq!(&*forced.text, text);
}

#[test]
fn cutoff_stays_until_five_degrees_below_and_a_new_target() {
    let mut world = heating();
    says(&mut world, 75.0);
    world.run(2_000);
    says(&mut world, 65.5);
    world.run(2_000);
    assert!(refused(&world).unwrap().contains("cool down to 65 C first"));
    // Whoever gets past the refusal is cut off again.
    world.set_target(50.0);
    world.run(2_000);
    assert_eq!(world.texts(), [OFF]);
    assert_eq!(world.snapshot().forced_offs, 2);
    says(&mut world, 65.0);
    world.run(5_000);
    assert_eq!(refused(&world), None);
    assert_eq!(world.texts(), [OFF], "not by itself");
    world.set_target(45.0);
    world.run(2_000);
    assert_eq!(world.texts(), [OFF, HEAT_45]);
    // Cold once is enough: below the limit it stays on now.
    says(&mut world, 69.0);
    world.run(2_000);
    assert_eq!(world.state().0, 1);
}

#[test]
fn cutoff_while_off_does_nothing_and_refuses_and_latches() {
    let mut world = world();
    says(&mut world, 71.0);
    world.run(3_000);
    assert_eq!(world.snapshot().forced_offs, 0);
    assert!(world.snapshot().tripped);
    assert!(refused(&world).unwrap().contains("reads 71.0 C"));
    assert!(world.lines.is_empty());
    says(&mut world, 66.0);
    world.run(3_000);
    assert!(refused(&world).is_some());
    says(&mut world, 64.0);
    world.run(3_000);
    assert_eq!(refused(&world), None);
}

#[test]
fn cutoff_by_silence_of_ten_seconds_not_of_nine() {
    let mut world = heating();
    says(&mut world, 50.0);
    world.run(9_000);
    assert!(world.sent.is_empty());
    world.run(2_500);
    assert_eq!(world.texts(), [OFF]);
    let forced = world.snapshot().forced_off.unwrap();
    assert_eq!(forced.reason, Reason::Cutoff);
    let text = "no reading from temperature_sensor top for 10 s (cutoff_sensor)";
    assert_eq!(&*forced.text, text);
    // It was never hot: as soon as it speaks again a target is accepted.
    assert!(refused(&world).is_some());
    says(&mut world, 50.0);
    assert_eq!(refused(&world), None);
}

#[test]
fn cutoff_does_not_wait_for_a_klipper_that_hangs_however_long_its_lease() {
    let mut world = World::new(Config {
        lease: 60_000,
        ..config()
    });
    world.cutoff_is_well = true;
    world.run(4_000);
    world.set_target(45.0);
    world.run(3_000);
    world.sent.clear();
    world.klipper.stalled = true;
    world.run(8_000);
    assert!(world.sent.is_empty());
    world.run(4_000);
    assert_eq!(world.texts(), [OFF]);
    let forced = world.snapshot().forced_off.unwrap();
    assert_eq!(forced.reason, Reason::Cutoff);
}

#[test]
fn cutoff_no_false_alarm_with_a_sensor_of_every_three_to_five_seconds() {
    for every in [300, 1_000, 3_000, 5_000] {
        let mut world = heating();
        for _ in 0..600_000 / every {
            says(&mut world, 60.0);
            world.run(every);
        }
        assert!(world.sent.is_empty(), "{every} ms: {:?}", world.lines);
        assert_eq!(world.snapshot().forced_offs, 0);
    }
}

#[test]
fn cutoff_by_what_cannot_be() {
    for absurd in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -40.1, 150.1] {
        let mut world = heating();
        says(&mut world, absurd);
        world.run(2_000);
        assert_eq!(world.texts(), [OFF], "{absurd}");
        let forced = world.snapshot().forced_off.unwrap();
        assert!(forced.text.contains("which cannot be"), "{}", forced.text);
    }
}

#[test]
fn cutoff_that_has_not_spoken_yet_refuses_and_is_no_alarm() {
    let mut world = World::new(config());
    world.run(30_000);
    let why = refused(&world).unwrap();
    assert!(
        why.contains("temperature_sensor top has no reading yet"),
        "{why}"
    );
    assert_eq!(world.snapshot().forced_offs, 0);
    assert!(!world.snapshot().tripped);
    world.sent.clear();
    world.set_target(45.0); // past the refusal
    world.run(2_000);
    assert!(world.sent.is_empty());
    let forced = world.snapshot().forced_off.unwrap();
    assert_eq!(forced.reason, Reason::Cutoff);
}

#[test]
fn r3_a_target_that_does_not_know_of_the_cutoff_is_no_wish() {
    let mut world = heating();
    says(&mut world, 80.0);
    world.run(2_000);
    says(&mut world, 20.0);
    world.klipper.obeyed = 0;
    world.klipper.target = 60.0;
    world.run(100);
    assert_eq!(world.texts(), [OFF]);
}

#[test]
fn cutoff_turns_off_what_was_turned_on_by_hand() {
    let config = Config {
        on_external_on: OnExternalOn::Allow,
        ..config()
    };
    let mut world = World::new(config);
    says(&mut world, 50.0);
    world.run(4_000);
    let _ = world.device.press(Button::On);
    says(&mut world, 50.0);
    world.run(3_000);
    assert_eq!(world.state().0, 1, "{:?}", world.lines);
    says(&mut world, 70.0);
    world.run(3_000);
    assert_eq!(world.state().0, 0);
    let line = world.lines.last().unwrap();
    assert!(
        line.contains("cutoff_temp is 70 C; turning the device off"),
        "{line}"
    );
    assert_eq!(world.snapshot().failures, 0, "nobody's target was dropped");
    let _ = world.device.press(Button::On);
    says(&mut world, 70.0);
    world.run(3_000);
    assert_eq!(world.state().0, 0, "nor does it stay on while it is hot");
}

#[test]
fn cutoff_a_restart_forgets_what_an_earlier_printers_sensor_said() {
    let mut world = heating();
    says(&mut world, 80.0);
    world.run(2_000);
    world.restart();
    world.around.cutoff = None;
    world.run(2_000);
    assert!(refused(&world).unwrap().contains("no reading yet"));
    says(&mut world, 66.0);
    world.run(2_000);
    assert_eq!(refused(&world), None);
}

#[test]
fn cutoff_removed_from_the_configuration_is_gone() {
    let mut world = heating();
    says(&mut world, 80.0);
    world.run(2_000);
    world.config.cutoff = None;
    world.restart();
    world.set_target(45.0);
    world.run(3_000);
    assert_eq!(world.state(), (1, 45));
}
