//! `on_external_on: allow`: what was turned on by hand may stay on, and how long.

use super::*;
use crate::session::OnExternalOn;
use crate::sim::Button;

fn allowing() -> World {
    let mut world = World::new(Config {
        on_external_on: OnExternalOn::Allow,
        ..Config::default()
    });
    world.run(14_000);
    world.lines.clear();
    world
}

fn press(world: &mut World, button: Button) {
    let _ = world.device.press(button);
    world.run(3_000);
}

#[test]
fn r2_what_may_stay_on_ends_with_the_printer() {
    let mut world = allowing();
    press(&mut world, Button::On);
    assert_eq!(world.state().0, 1, "{:?}", world.lines);
    world.config.on_external_on = OnExternalOn::Off;
    world.restart();
    world.run(5_000);
    assert_eq!(world.state().0, 0, "another printer, another wish");
    world.lines.clear();
    press(&mut world, Button::On);
    assert_eq!(world.state().0, 0, "{:?}", world.lines);
    assert_eq!(world.lines.len(), 1, "{:?}", world.lines);
}

#[test]
fn r2_what_may_stay_on_ends_with_the_printer_that_could_not_be_obeyed() {
    let mut world = allowing();
    press(&mut world, Button::On);
    assert_eq!(world.state().0, 1, "{:?}", world.lines);
    world.unreachable = true;
    world.cut();
    world.restart();
    world.run(5_000);
    world.unreachable = false;
    world.run(60_000);
    assert_eq!(world.state().0, 0, "{:?}", world.lines);
}

#[test]
fn r8_on_by_hand_after_off_was_known_is_left_to_the_guard() {
    // After a RESTART, and after an off by hand.
    for restarts in [true, false] {
        let mut world = allowing();
        press(&mut world, Button::On);
        if restarts {
            world.restart();
        } else {
            press(&mut world, Button::Power);
        }
        world.run(310_000);
        assert_eq!(world.state().0, 0);
        assert!(world.snapshot().off_known);
        press(&mut world, Button::On);
        assert_eq!(world.state().0, 1, "{:?}", world.lines);
        assert!(!world.snapshot().off_known);
        assert!(world.session.bequest().may_be_on);
    }
}

#[test]
fn r9_each_press_that_is_allowed_is_said() {
    let mut world = allowing();
    for _ in 0..2 {
        world.lines.clear();
        press(&mut world, Button::On);
        assert_eq!(world.state().0, 1);
        assert!(world.lines[0].contains("it stays on"), "{:?}", world.lines);
        press(&mut world, Button::Power);
    }
}

#[test]
fn r2_in_a_shutdown_nothing_may_stay_on_and_nothing_says_so() {
    let mut world = allowing();
    world.shut_down();
    world.run(5_000);
    world.lines.clear();
    press(&mut world, Button::On);
    assert_eq!(world.state().0, 0);
    assert!(
        world.lines[0].ends_with("turning it off"),
        "{:?}",
        world.lines
    );
    world.klipper.armed = true;
    world.run(310_000);
    assert_eq!(world.state().0, 0);
    assert!(world.snapshot().off_known);
}

#[test]
fn r9_what_may_stay_on_does_not_end_with_the_answer_to_an_earlier_off() {
    let mut world = allowing();
    world.set_target(45.0);
    world.run(20_000);
    world.klipper.stalled = true;
    world.run(60_000); // the lease ends
    assert_eq!(world.snapshot().forced_offs, 1, "{:?}", world.lines);
    assert_eq!(world.state().0, 0);
    world.set_target(0.0);
    press(&mut world, Button::On);
    assert_eq!(world.state().0, 1, "{:?}", world.lines);
    world.klipper.stalled = false;
    world.run(5_000);
    assert_eq!(world.klipper.obeyed, 1);
    assert_eq!(world.state().0, 1, "{:?}", world.lines);
}
