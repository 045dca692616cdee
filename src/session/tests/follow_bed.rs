//! `follow_bed`: when the chamber follows the bed, when it does not, and who wins.

use super::super::{Config, Cutoff, Guard, Link, Reason, Sample, Step};
use super::world::World;
use super::{HEAT_45, OFF};
use crate::sim::Button;

const HEAT_60: &str = r#"{"settings":{"work_mode":2,"set_temp":60,"work_on":true}}"#;

fn config() -> Config {
    let table = [(80.0, 45.0), (100.0, 60.0)];
    Config {
        follow: table.map(|(bed, chamber)| Step { bed, chamber }).to_vec(),
        ..Config::default()
    }
}

fn world() -> World {
    let mut world = World::new(config());
    bed(&mut world, 0.0);
    world.run(4_000);
    assert!(world.snapshot().off_known);
    world.sent.clear();
    world.lines.clear();
    world
}

/// The same, and the bed at 100 C is followed.
fn following() -> World {
    let mut world = world();
    bed(&mut world, 100.0);
    assert_eq!(world.texts(), [HEAT_60]);
    world.sent.clear();
    world.lines.clear();
    world
}

/// Somebody sets the bed's target, and Klipper looks at it.
fn bed(world: &mut World, target: f64) {
    world.around.bed = Some(target);
    world.run(2_500);
}

fn target(world: &World) -> f64 {
    world.klipper.target
}

#[track_caller]
fn is_at(world: &World, celsius: f64) {
    let device = world.state();
    let on = u8::from(celsius > 0.0);
    assert!((target(world) - celsius).abs() < 1e-9, "{}", target(world));
    assert_eq!(device.0, on, "{:?}", world.sent);
    assert!(on == 0 || (f64::from(device.1) - celsius).abs() < 1e-9);
}

#[test]
fn follow_bed_holds_for_a_target_that_was_there_when_klipper_became_ready() {
    let mut world = world();
    world.set_target(30.0);
    world.run(2_500);
    world.shut_down();
    bed(&mut world, 100.0);
    world.klipper.armed = true;
    world.run(5_000);
    is_at(&world, 30.0);
}

#[test]
fn follow_bed_sets_klippers_target_and_is_off_with_the_bed() {
    let mut world = world();
    bed(&mut world, 60.0);
    is_at(&world, 0.0);
    assert!(world.lines.is_empty(), "{:?}", world.lines);
    for (degrees, chamber) in [(80.0, 45.0), (110.0, 60.0), (95.0, 60.0), (90.0, 45.0)] {
        bed(&mut world, degrees);
        is_at(&world, chamber);
    }
    bed(&mut world, 0.0);
    is_at(&world, 0.0);
    world.run(60_000);
    assert_eq!(world.texts(), [HEAT_45, HEAT_60, HEAT_45, OFF]);
    assert_eq!(world.lines.len(), 4, "{:?}", world.lines);
    assert_eq!(
        world.lines[1],
        "follow_bed: 60 C in the chamber for a bed of 110 C"
    );
    assert_eq!(
        world.lines[3],
        "follow_bed: the bed is off, and so is the chamber"
    );
    assert_eq!(world.snapshot().forced_offs, 0);
}

#[test]
fn follow_bed_off_below_the_table_though_the_bed_is_on() {
    let mut world = following();
    bed(&mut world, 60.0);
    is_at(&world, 0.0);
    assert!(world.lines[0].contains("0 C in the chamber for a bed of 60 C"));
    bed(&mut world, 80.0);
    is_at(&world, 45.0);
}

#[test]
fn follow_bed_not_without_the_option() {
    let mut world = World::new(Config::default());
    bed(&mut world, 100.0);
    is_at(&world, 0.0);
    assert_eq!(world.snapshot().follow, None);
    world.set_target(45.0);
    bed(&mut world, 0.0);
    is_at(&world, 45.0);
}

#[test]
fn follow_bed_an_explicit_target_holds_until_the_bed_has_been_off() {
    for explicit in [0.0, 30.0, 60.0] {
        let mut world = following();
        world.set_target(explicit);
        for degrees in [110.0, 80.0, 60.0, 100.0] {
            bed(&mut world, degrees);
            is_at(&world, explicit);
        }
        bed(&mut world, 0.0);
        is_at(&world, 0.0);
        bed(&mut world, 80.0);
        is_at(&world, 45.0);
    }
}

#[test]
fn follow_bed_an_explicit_zero_where_it_is_zero_already_holds_too() {
    let mut world = world();
    bed(&mut world, 60.0);
    world.set_target(0.0);
    bed(&mut world, 100.0);
    is_at(&world, 0.0);
}

#[test]
fn follow_bed_a_target_before_the_bed_is_on_wins_over_the_table() {
    let mut world = world();
    world.set_target(30.0);
    world.run(60_000);
    is_at(&world, 30.0); // the bed is off, but it is not what this came from
    bed(&mut world, 100.0);
    is_at(&world, 30.0);
    bed(&mut world, 0.0);
    is_at(&world, 0.0);
}

#[test]
fn follow_bed_a_chamber_that_is_kept_warm_after_the_bed_went_off_stays_so() {
    let mut world = following();
    world.around.bed = Some(0.0);
    world.set_target(50.0); // both in the same second
    world.run(60_000);
    is_at(&world, 50.0);
    world.set_target(0.0);
    bed(&mut world, 100.0);
    is_at(&world, 60.0);
}

#[test]
fn follow_bed_the_next_print_is_followed_whoever_turned_all_heaters_off() {
    for bed_first in [true, false] {
        let mut world = following();
        if bed_first {
            world.around.bed = Some(0.0);
            world.set_target(0.0);
        } else {
            world.set_target(0.0);
            world.around.bed = Some(0.0);
        }
        world.run(3_000);
        is_at(&world, 0.0);
        bed(&mut world, 100.0);
        is_at(&world, 60.0);
    }
}

#[test]
fn follow_bed_a_forced_off_holds_until_the_bed_has_been_off() {
    let mut world = following();
    let _ = world.device.press(Button::Power);
    world.run(3_000);
    let reason = world.snapshot().forced_off.unwrap().reason;
    assert_eq!(reason, Reason::ExternalOff);
    for degrees in [80.0, 110.0] {
        bed(&mut world, degrees);
        is_at(&world, 0.0);
    }
    assert!(world.sent.is_empty(), "R9: {:?}", world.sent);
    bed(&mut world, 0.0);
    bed(&mut world, 100.0);
    is_at(&world, 60.0);
}

#[test]
fn follow_bed_a_lost_device_is_not_heated_again_by_the_bed() {
    let mut world = following();
    world.cut();
    world.unreachable = true;
    world.run(125_000);
    assert_eq!(world.snapshot().forced_off.unwrap().reason, Reason::Lost);
    world.unreachable = false;
    world.run(10_000);
    is_at(&world, 0.0);
}

#[test]
fn r3_follow_bed_is_no_wish_before_klipper_is_ready_or_after_a_shutdown() {
    let mut world = world();
    world.klipper.armed = false;
    bed(&mut world, 100.0);
    is_at(&world, 0.0);
    assert_eq!(world.snapshot().follow, None);
    world.klipper.armed = true;
    world.run(2_000);
    is_at(&world, 60.0);
    world.shut_down();
    world.run(2_000);
    assert_eq!(world.state().0, 0);
    assert_eq!(world.snapshot().follow, None);
}

#[test]
fn r3_follow_bed_lives_by_the_lease_like_any_target() {
    let mut world = following();
    world.klipper.stalled = true;
    world.run(11_000);
    assert_eq!(world.state().0, 0);
    assert_eq!(world.snapshot().forced_off.unwrap().reason, Reason::Lease);
    world.klipper.stalled = false;
    world.run(5_000);
    is_at(&world, 0.0);
}

#[test]
fn r3_what_follow_bed_says_is_void_once_somebody_has_set_a_target() {
    let mut world = world();
    world.around.bed = Some(100.0);
    world.session.surround(world.around);
    world.tell(super::super::Input::Tick);
    let said = world.snapshot(); // and before the shim reads it, somebody sets a target
    assert!((said.follow.unwrap().target - 60.0).abs() < 1e-9);
    world.set_target(0.0);
    assert!(!world.klipper.follows(&said));
    world.run(5_000);
    is_at(&world, 0.0);
}

#[test]
fn follow_bed_after_a_restart_nothing_is_left_of_it() {
    let mut world = following();
    world.set_target(0.0);
    world.restart();
    world.run(3_000);
    is_at(&world, 0.0);
    bed(&mut world, 80.0);
    is_at(&world, 45.0);
}

#[test]
fn follow_bed_waits_for_a_device_that_is_not_there_and_says_so_once() {
    let mut world = World::absent(config(), true);
    bed(&mut world, 0.0);
    bed(&mut world, 100.0);
    world.run(30_000);
    assert!(target(&world) <= 0.0);
    let waits = |line: &&String| line.contains("wants 60 C in the chamber (follow_bed)");
    assert_eq!(world.lines.iter().filter(waits).count(), 1);
    world.unreachable = false;
    world.run(20_000);
    is_at(&world, 60.0);
}

#[test]
fn follow_bed_that_waits_says_it_once_for_each_target() {
    let mut world = World::absent(config(), true);
    for degrees in [0.0, 80.0, 85.0, 100.0, 110.0] {
        bed(&mut world, degrees);
    }
    let waits: Vec<_> = world
        .lines
        .iter()
        .filter(|l| l.contains("has to wait"))
        .collect();
    assert_eq!(waits.len(), 2, "{waits:?}");
    assert!(waits[0].contains("target of 80 C wants 45 C"), "{waits:?}");
    assert!(waits[1].contains("target of 100 C wants 60 C"), "{waits:?}");
}

#[test]
fn follow_bed_waits_for_a_device_that_is_lost_or_another_one() {
    let mut world = world();
    world.cut();
    world.unreachable = true;
    world.run(125_000);
    assert!(world.snapshot().lost);
    bed(&mut world, 100.0);
    assert!(target(&world) <= 0.0);
    world.unreachable = false;
    world.run(20_000);
    is_at(&world, 60.0);

    let mut world = self::world();
    world.swap(1);
    world.run(20_000);
    let snapshot = world.snapshot();
    assert_eq!((snapshot.link, snapshot.lost), (Link::Error, false));
    bed(&mut world, 100.0);
    assert!(target(&world) <= 0.0);
}

#[test]
fn follow_bed_is_said_at_once_and_once() {
    let mut world = world();
    world.around.bed = Some(100.0);
    world.session.surround(world.around);
    for _ in 0..3 {
        world.tell(super::super::Input::Tick);
        let said = "follow_bed: 60 C in the chamber for a bed of 100 C";
        assert_eq!(world.lines, [said]);
    }
}

#[test]
fn r2_follow_bed_is_off_with_the_bed_although_it_could_not_be_on() {
    let mut world = World::new(Config {
        guard: true,
        ..config()
    });
    bed(&mut world, 0.0);
    world.tell(super::super::Input::Guard(&Guard::Watching));
    bed(&mut world, 100.0);
    is_at(&world, 60.0);
    let gone = Guard::Gone("no memory".into());
    world.tell(super::super::Input::Guard(&gone));
    bed(&mut world, 0.0);
    assert_eq!(world.snapshot().forced_offs, 0);
    is_at(&world, 0.0);
}

#[test]
fn follow_bed_waits_where_a_cutoff_refuses() {
    let cutoff = Cutoff {
        sensor: "temperature_sensor top".into(),
        celsius: 70.0,
    };
    let mut world = World::new(Config {
        cutoff: Some(cutoff),
        ..config()
    });
    bed(&mut world, 0.0);
    world.sent.clear();
    let at = world.now;
    world.around.cutoff = Some(Sample { celsius: 75.0, at });
    bed(&mut world, 100.0);
    is_at(&world, 0.0);
    assert_eq!(world.snapshot().forced_offs, 0);
    world.cutoff_is_well = true;
    world.run(5_000);
    is_at(&world, 60.0);
}

/// With `on_lost: warn` Klipper keeps its target after a forced off.
#[test]
fn follow_bed_goes_on_after_a_forced_off_that_was_never_obeyed() {
    let mut world = following();
    world.klipper.stalled = true;
    world.broadcast(r#"{"settings":{"ptc_sensor_status":2}}"#);
    world.run(1_000);
    assert_eq!(world.snapshot().forced_offs, 1);
    world.session.surround(super::super::Surroundings {
        bed: Some(0.0),
        ..Default::default()
    });
    world.tell(super::super::Input::Tick); // the print is over, and the next one begins
    world.around.bed = Some(100.0);
    world.broadcast(r#"{"settings":{"ptc_sensor_status":0}}"#);
    world.klipper.stalled = false;
    world.klipper.obeyed = 1;
    world.klipper.target = 0.0;
    world.klipper.bed_was_off = true;
    world.run(10_000);
    is_at(&world, 60.0);
}
