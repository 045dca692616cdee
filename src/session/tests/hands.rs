//! The device says no, or something else than what it was told: hands at its buttons, other
//! clients, its own checks, power cuts. Spoken to directly.

use super::*;
use crate::sim::Button;

const DIMMED: &str = r#"{"settings":{"set_temp":20}}"#;

/// Presses a button; holding the power button restarts the device.
fn press(world: &mut World, button: Button) {
    if world.device.press(button) != sim::Effect::None {
        world.run(100);
        world.reboot();
    }
}

#[test]
fn r9_every_button_while_heating() {
    // What is sent, the lines there are, and whether the target is dropped.
    for (button, sent, lines, dropped) in [
        (Button::Power, &[][..], 0, true), // the words come with the forced off
        (Button::On, &[][..], 0, false),   // it is what it was
        (Button::Auto, &[HEAT_45][..], 1, false),
        (Button::Dry, &[HEAT_45][..], 1, false),
        (Button::PowerLong, &[HEAT_45][..], 2, false), // a restart, with factory settings
    ] {
        let mut world = World::heating();
        world.run(10_000);
        press(&mut world, button);
        world.run(400_000);
        let snapshot = world.snapshot();
        assert_eq!(world.texts(), sent, "{button:?}");
        assert_eq!(world.lines.len(), lines, "{button:?}: {:?}", world.lines);
        let external = snapshot.forced_off.map(|forced| forced.reason);
        assert_eq!(
            external,
            dropped.then_some(Reason::ExternalOff),
            "{button:?}"
        );
        assert_eq!(snapshot.failures, 0, "{button:?}");
        assert_eq!(snapshot.fault, None, "{button:?}");
        assert_eq!(world.state(), (u8::from(!dropped), 45), "{button:?}");
    }
}

#[test]
fn r2_every_button_while_off() {
    for button in [
        Button::Power,
        Button::On,
        Button::Auto,
        Button::Dry,
        Button::PowerLong,
    ] {
        let mut world = World::connected();
        world.run(10_000);
        press(&mut world, button);
        world.run(400);
        assert_eq!(world.state().0, 0, "{button:?}: at once");
        world.run(400_000);
        let turned_on = button != Button::Power;
        assert_eq!(world.texts(), [OFF].repeat(turned_on.into()), "{button:?}");
        let said = |line: &&String| line.contains("turning it off");
        let said = world.lines.iter().filter(said).count();
        assert_eq!(
            said,
            usize::from(turned_on),
            "{button:?}: {:?}",
            world.lines
        );
        let snapshot = world.snapshot();
        assert_eq!(
            (snapshot.forced_offs, snapshot.fault),
            (0, None),
            "{button:?}"
        );
        assert!(snapshot.off_known, "{button:?}");
    }
}

#[test]
fn whoever_looks_on_sends_nothing_and_says_nothing() {
    for button in [Button::Power, Button::On, Button::Auto, Button::Dry] {
        let mut world = World::new(Config {
            on_external_on: OnExternalOn::LookOn,
            ..Config::default()
        });
        world.run(4_000);
        press(&mut world, button);
        world.run(400_000);
        assert_eq!(world.texts(), [""; 0], "{button:?}");
        let said = |line: &&String| line.contains("turn");
        assert_eq!(world.lines.iter().find(said), None, "{button:?}");
        let on = u8::from(button != Button::Power);
        assert_eq!(world.state().0, on, "{button:?}");
        let snapshot = world.snapshot();
        assert_eq!((snapshot.forced_offs, snapshot.fault), (0, None));
        assert_eq!(snapshot.device_on, Some(on == 1), "{button:?}");
        if on == 1 {
            press(&mut world, Button::Power);
            world.run(10_000);
        }
        press(&mut world, Button::On);
        world.run(10_000);
        assert_eq!(world.texts(), [""; 0], "off and on after {button:?}");
        assert_eq!(world.lines.iter().find(said), None, "{button:?}");
        assert_eq!(world.state().0, 1, "{button:?}");
    }
}

#[test]
fn r9_off_and_on_again_by_hand() {
    // Within what is waited for a reason, the last press counts; after that, Klipper has obeyed.
    for (wait, stays_on) in [(300, true), (3_000, false)] {
        let mut world = World::heating();
        let _ = world.device.press(Button::Power);
        world.run(wait);
        let _ = world.device.press(Button::On);
        world.run(60_000);
        assert_eq!(
            world.state().0,
            u8::from(stays_on),
            "{wait} ms: {:?}",
            world.lines
        );
        assert_eq!(
            world.snapshot().forced_offs,
            u32::from(!stays_on),
            "{wait} ms"
        );
    }
}

#[test]
fn r9_off_by_hand_is_obeyed_however_soon_after_a_command() {
    for wait in [
        0, 10, 50, 200, 500, 900, 990, 1_000, 1_010, 1_100, 2_000, 5_000,
    ] {
        for target in [45.0, 50.0] {
            // The first heat, and a new target while heating.
            let mut world = if target > 45.0 {
                World::heating()
            } else {
                World::connected()
            };
            world.set_target(target);
            world.run(6); // it has been read
            world.run(wait);
            let _ = world.device.press(Button::Power);
            world.run(10_000);
            let reason = world.snapshot().forced_off.map(|forced| forced.reason);
            assert_eq!(
                reason,
                Some(Reason::ExternalOff),
                "{target} C, after {wait} ms"
            );
            assert_eq!(
                world.texts().len(),
                1,
                "{target} C, after {wait} ms: {:?}",
                world.sent
            );
            assert_eq!(world.state().0, 0, "{target} C, after {wait} ms");
        }
    }
}

#[test]
fn r9_a_heater_fault_is_one_failure_for_each_target_and_nothing_is_sent_by_itself() {
    let mut world = World::connected();
    world.device.fault(sim::Fault::Heater);
    for tries in 1..=3 {
        world.set_target(45.0);
        world.run(300_000);
        let snapshot = world.snapshot();
        assert_eq!(snapshot.failures, tries, "{:?}", world.lines);
        assert_eq!(snapshot.fault, Some(Trouble::Device(Fault::Heater)));
        assert_eq!(
            world.texts().len(),
            usize::try_from(tries).unwrap(),
            "{:?}",
            world.sent
        );
        assert_eq!(world.state().0, 0);
    }
}

#[test]
fn r9_a_target_changed_in_silence_is_found_by_the_snapshot_and_set_right() {
    // Below the target it is looked at every 60 s, at it every 5 min.
    for (chamber, within) in [(22.0, 65_000), (46.0, 310_000)] {
        let mut world = World::connected();
        world.device.set_chamber(chamber);
        world.set_target(45.0);
        world.run(70_000);
        world.sent.clear();
        world.lines.clear();
        let _ = world.device.handle_text(DIMMED.as_bytes());
        world.run(within);
        assert_eq!(world.texts(), [HEAT_45], "at {chamber} C");
        assert_eq!(world.lines.len(), 1, "{:?}", world.lines);
        assert_eq!(world.snapshot().forced_offs, 0);
    }
}

#[test]
fn r9_a_client_that_will_not_leave_it_alone_is_a_fault() {
    let mut world = World::heating();
    let mut until_fault = None;
    for minute in 0..30 {
        let _ = world.device.handle_text(DIMMED.as_bytes());
        world.run(60_000);
        if world.snapshot().fault.is_some() {
            until_fault.get_or_insert(minute);
        }
    }
    assert_eq!(
        world.snapshot().fault,
        Some(Trouble::Overruled),
        "{:?}",
        world.lines
    );
    assert!((2..=8).contains(&until_fault.unwrap()), "{until_fault:?}");
    let said = world
        .lines
        .iter()
        .filter(|line| **line == Trouble::Overruled.text());
    assert_eq!(said.count(), 1, "{:?}", world.lines);
    assert!(
        world.texts().len() <= 3 + 30 * 60 / 200,
        "{}",
        world.texts().len()
    );
    let mut other = world.session.clone();
    world.run(1_000_000); // nobody interferes any more
    assert_eq!(world.snapshot().fault, None);
    assert_eq!(world.state(), (1, 45));
    let new_target = Wish {
        target: 50.0,
        dry: false,
        armed: true,
        ack: 0,
        hand: 0,
    };
    other.handle(world.now, Input::Wish(new_target));
    assert_eq!(
        other.snapshot(world.now).fault,
        None,
        "a new target is a new try"
    );
}

#[test]
fn r2_a_power_cut_ends_in_what_klipper_wants_by_then() {
    // It resumes by itself what it was told last. What is wanted before it and after it:
    for (before, after, sent) in [
        (45.0, 45.0, &[][..]),
        (45.0, 0.0, &[OFF][..]),
        (0.0, 0.0, &[][..]),
        (0.0, 45.0, &[HEAT_45][..]),
    ] {
        let mut world = World::connected();
        world.set_target(before);
        world.run(10_000);
        world.sent.clear();
        world.lines.clear();
        world.lose_power(8_000);
        world.set_target(after);
        assert_eq!(
            world.texts(),
            Vec::<&str>::new(),
            "nothing goes to a dead socket"
        );
        world.run(30_000);
        assert_eq!(
            world.texts(),
            sent,
            "{before} to {after}: {:?}",
            world.lines
        );
        assert_eq!(world.state().0, u8::from(after > 0.0));
        let snapshot = world.snapshot();
        assert_eq!(
            snapshot.forced_offs, 0,
            "{before} to {after}: {:?}",
            world.lines
        );
        assert_eq!(snapshot.off_known, after <= 0.0);
        assert_eq!(snapshot.fault, None);
    }
}

#[test]
fn r2_a_power_cut_between_an_off_and_the_device_is_off_in_the_end() {
    let mut world = World::heating();
    world.lag = 500;
    world.set_target(0.0);
    world.run(100); // it is on its way
    world.lose_power(3_000);
    assert_eq!(world.state().0, 1, "it resumes by itself");
    world.run(10_000);
    assert_eq!(world.state().0, 0);
    assert!(world.snapshot().off_known);
    assert_eq!(world.texts(), [OFF, OFF]);
    assert_eq!(world.snapshot().fault, None, "{:?}", world.lines);
}

#[test]
fn r9_heat_that_is_late_is_not_taken_for_somebodys_off() {
    let mut world = World::connected();
    world.run(70_000); // a look is due as soon as it heats
    world.lag = 3_000;
    world.set_target(45.0);
    world.run(20_000);
    assert_eq!(world.snapshot().forced_offs, 0, "{:?}", world.lines);
    assert_eq!(world.state(), (1, 45));
    assert_eq!(world.texts(), [HEAT_45]);
}

#[test]
fn r2_an_off_that_is_late_is_nobody_elses_on() {
    let mut world = World::heating();
    world.lag = 1_500;
    world.set_target(0.0);
    world.run(10_000);
    assert_eq!(world.state().0, 0);
    assert!(world.snapshot().off_known);
    assert_eq!(world.lines, Vec::<String>::new());
}

#[test]
fn r2_a_device_that_heats_on_after_off_is_a_fault_in_words() {
    for rises in [false, true] {
        let mut world = World::heating();
        world.device.set_chamber(45.0);
        world.run(60_000);
        world.set_target(0.0);
        world.run(10_000);
        let mut looks = world.connects.len();
        for _ in 0..500 {
            let chamber = world.device.state().chamber;
            world
                .device
                .set_chamber(chamber + if rises { 0.07 } else { 0.03 }); // C per second
            world.run(1_000);
        }
        looks = world.connects.len() - looks;
        let snapshot = world.snapshot();
        assert_eq!(
            snapshot.fault,
            rises.then_some(Trouble::HeatsOn),
            "{:?}",
            world.lines
        );
        assert_eq!(world.lines.len(), usize::from(rises), "{:?}", world.lines);
        assert_eq!(
            world.texts(),
            [OFF],
            "it says that it is off: there is nothing to send"
        );
        assert!((1..=8).contains(&looks), "looked at every 3 C: {looks}");
        assert_eq!(snapshot.forced_offs, 0, "there is no target to drop");
    }
}

/// With `on_lost: warn` Klipper keeps its target after a forced off, and does not count as obeying.
#[test]
fn r3_the_same_target_after_a_forced_off_is_a_new_wish() {
    let mut world = World::heating();
    world.run(20_000);
    world.klipper.stalled = true; // it keeps its target
    press(&mut world, Button::Power);
    world.run(3_000);
    let snapshot = world.snapshot();
    assert_eq!(snapshot.forced_offs, 1, "{:?}", world.lines);
    assert!(world.texts().is_empty(), "it is off already");
    world.lines.clear();
    world.klipper.stalled = false;
    world.klipper.obeyed = snapshot.forced_offs;
    world.set_target(45.0);
    world.run(5_000);
    assert_eq!(world.state(), (1, 45), "{:?}", world.lines);
    assert!(world.lines.is_empty(), "{:?}", world.lines);
    assert_eq!(world.texts(), [HEAT_45]);
}
