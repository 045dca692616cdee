//! Buttons, other clients, and restarts of the device.

use super::*;
use crate::sim::Button;

#[test]
fn r9_what_a_device_answers_to_an_earlier_command_is_nobodys_doing() {
    for frozen in [0, 3_000] {
        let mut world = heating();
        world.device_frozen = true;
        world.set_target(0.0);
        world.run(10);
        world.set_target(45.0);
        world.run(frozen);
        world.device_frozen = false;
        world.run(10_000);
        assert!(world.node.state().heat, "{frozen}: {:?}", world.lines);
        assert_eq!(
            world.snapshot().forced_offs,
            0,
            "{frozen}: {:?}",
            world.lines
        );
    }
}

#[test]
fn r9_the_first_off_of_a_new_connection_may_be_a_late_will_the_second_is_not() {
    let mut world = heating();
    world.cut();
    world.run(4_000);
    assert!(world.node.state().heat);
    let topic = "panda-breath/climate/chamber/mode/command";
    world.publish(topic, "off", false);
    world.run(1_500);
    assert!(world.node.state().heat, "{:?}", world.lines);
    assert_eq!(world.snapshot().forced_offs, 0);
    world.run(1_500);
    world.publish(topic, "off", false);
    world.run(3_000);
    assert_eq!(
        world.snapshot().forced_off.unwrap().reason,
        Reason::ExternalOff
    );
}

#[test]
fn r9_our_own_will_is_excused_however_late_and_after_attempts_that_failed() {
    for silent in [2_000, 20_000] {
        let mut world = heating();
        world.device_frozen = true; // as slow as its network
        world.down = true;
        world.cut();
        world.run(3_000); // attempts fail
        world.down = false;
        world.run(silent);
        let topic = "panda-breath/climate/chamber/mode/state";
        world.publish(topic, "heat", false); // on its way since before the cut
        world.run(500);
        world.device_frozen = false; // and it hears our will
        world.run(20_000);
        assert_eq!(world.said_wills(), [OFF]);
        assert_eq!(
            world.snapshot().forced_offs,
            0,
            "{silent}: {:?}",
            world.lines
        );
        assert!(world.node.state().heat, "{silent}: {:?}", world.lines);
    }
}

#[test]
fn r9_an_off_by_hand_is_accepted_after_the_own_will_has_been() {
    let mut world = heating();
    world.cut();
    world.run(5_000);
    assert!(world.node.state().heat);
    world.run(8_000);
    world.sent.clear();
    world.node.switch(false);
    world.run(3_000);
    let forced = world.snapshot().forced_off.unwrap();
    assert_eq!(forced.reason, Reason::ExternalOff);
    world.run(60_000);
    assert!(!world.node.state().heat);
    assert!(!world.texts().contains(&HEAT), "{:?}", world.texts());
}

#[test]
fn r9_two_clients_with_the_same_wish_do_not_fight() {
    let mut world = heating();
    for _ in 0..50 {
        world.publish(
            "panda-breath/climate/chamber/target_temperature/command",
            "45",
            false,
        );
        world.publish("panda-breath/climate/chamber/mode/command", "heat", false);
        world.run(1_000);
    }
    assert_eq!(world.texts(), Vec::<&str>::new());
    assert_eq!(world.snapshot().forced_offs, 0);
}

#[test]
fn r10_a_target_changed_by_another_is_set_right_but_not_for_ever() {
    let mut world = heating();
    for _ in 0..100 {
        world.publish(
            "panda-breath/climate/chamber/target_temperature/command",
            "20",
            false,
        );
        world.run(2_000);
    }
    let corrections = world.texts().len();
    assert!(
        (3..=5).contains(&corrections),
        "{corrections}: {:?}",
        world.lines
    );
}

#[test]
fn r9_a_restart_that_turned_it_off_is_excused_once() {
    let mut world = heating();
    world.node.switch(false); // saved before, so that it boots off
    world.power_cut();
    world.run(10_000);
    assert!(world.node.state().heat, "{:?}", world.lines);
    assert_eq!(world.snapshot().forced_offs, 0);
    world.run(30_000);
    world.power_cut();
    world.run(15_000);
    assert_eq!(
        world.snapshot().forced_off.unwrap().reason,
        Reason::ExternalOff
    );
    assert!(!world.node.state().heat);
}

#[test]
fn r9_a_restart_that_nobody_announced_is_excused_too() {
    let mut world = heating(); // its mode is not in flash yet, so it comes back off
    world.restart_unnoticed();
    world.run(8_000);
    assert!(world.node.state().heat, "{:?}", world.lines);
    assert_eq!(world.snapshot().forced_offs, 0);
}

#[test]
fn r9_a_node_that_reboots_into_the_wished_mode_is_left_alone() {
    let mut world = BrokerWorld::heating(config(), &restoring());
    world.run(70_000);
    world.reboot_device();
    world.run(15_000);
    assert!(world.node.state().heat);
    assert_eq!(world.texts(), Vec::<&str>::new(), "{:?}", world.lines);
    assert_eq!(world.snapshot().forced_offs, 0);
}

#[test]
fn r9_an_off_soon_after_the_first_connection_is_nobodys_will() {
    for failing in [0, 3_000] {
        let mut world = BrokerWorld::absent(config(), &esphome(), failing > 0);
        world.run(failing); // attempts that never got as far as a will
        world.down = false;
        world.run(1_500);
        world.set_target(45.0);
        world.run(2_500);
        assert!(world.node.state().heat, "{:?}", world.lines);
        world.node.switch(false);
        world.run(3_000);
        let forced = world.snapshot().forced_off.unwrap();
        assert_eq!(forced.reason, Reason::ExternalOff, "{failing}");
    }
}

#[test]
fn a_target_that_another_keeps_raising_is_not_blamed_on_a_limit() {
    let mut world = connected();
    let topic = "panda-breath/climate/chamber/target_temperature/command";
    world.set_target(45.0);
    for _ in 0..40 {
        world.run(200);
        world.publish(topic, "50", false);
    }
    let forced = world.snapshot().forced_off.unwrap();
    assert_eq!(forced.reason, Reason::Refused);
    assert!(forced.text.contains("another program"), "{}", forced.text);
}

#[test]
fn r9_every_button_of_a_stock_device() {
    const HEAT_45: &str = r#"{"mode":"power on","target_temp":45,"work_on":"ON"}"#;
    for (button, sent, lines, dropped) in [
        (Button::Power, &[][..], 0, true),
        (Button::On, &[][..], 0, false),
        (Button::Auto, &[HEAT_45][..], 1, false),
        (Button::Dry, &[HEAT_45][..], 1, false),
    ] {
        let mut world = BrokerWorld::heating(stock_config(), &Kind::Stock);
        world.run(10_000);
        world.node.press(button);
        world.run(400_000);
        assert_eq!(payloads(&world), sent, "{button:?}");
        assert_eq!(world.lines.len(), lines, "{button:?}: {:?}", world.lines);
        let snapshot = world.snapshot();
        let reason = snapshot.forced_off.map(|forced| forced.reason);
        assert_eq!(reason, dropped.then_some(Reason::ExternalOff), "{button:?}");
        assert_eq!((snapshot.failures, snapshot.fault), (0, None), "{button:?}");
    }
    for button in [Button::On, Button::Auto, Button::Dry] {
        let mut world = BrokerWorld::connected(stock_config(), &Kind::Stock);
        world.run(10_000);
        world.node.press(button);
        world.run(1_000);
        assert_eq!(payloads(&world), [STOCK_OFF], "{button:?}: at once");
        world.run(400_000);
        assert_eq!(payloads(&world), [STOCK_OFF], "{button:?}: once");
        assert_eq!(world.lines.len(), 1, "{button:?}: {:?}", world.lines);
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
fn r9_off_and_on_again_by_hand() {
    for (wait, stays_on) in [(300, true), (3_000, false)] {
        let mut world = heating();
        world.run(10_000);
        world.node.switch(false);
        world.run(wait);
        world.node.switch(true);
        world.run(60_000);
        assert_eq!(
            world.node.state().heat,
            stays_on,
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
fn r9_off_by_hand_soon_after_a_new_target_is_obeyed() {
    for (config, kind) in [(config(), esphome()), (stock_config(), Kind::Stock)] {
        for wait in [0, 20, 200, 500, 900, 1_000, 1_100, 2_000, 5_000] {
            let mut world = BrokerWorld::heating(config.clone(), &kind);
            world.run(10_000);
            world.set_target(50.0);
            world.run(60 + wait); // it has been read
            world.node.switch(false);
            world.run(10_000);
            let reason = world.snapshot().forced_off.map(|forced| forced.reason);
            assert_eq!(
                reason,
                Some(Reason::ExternalOff),
                "{wait} ms: {:?}",
                world.sent
            );
            assert!(!world.node.state().heat, "{wait} ms");
        }
    }
}

/// What it says in the first second after heat may be its answer to an off of before: an off by
/// hand in that second is overridden, once.
#[test]
fn r9_off_by_hand_in_the_first_second_of_heat_is_overridden_once_at_the_most() {
    for (config, kind) in [(config(), esphome()), (stock_config(), Kind::Stock)] {
        for wait in [0, 20, 200, 500, 900, 1_100, 2_000, 5_000] {
            let mut world = BrokerWorld::connected(config.clone(), &kind);
            world.set_target(45.0);
            world.run(60 + wait);
            world.node.switch(false);
            world.run(15_000);
            let heats = world
                .sent
                .iter()
                .filter(|(_, text)| text.ends_with(" heat") || text.contains(r#""ON""#));
            let heats = heats.count();
            let reason = world.snapshot().forced_off.map(|forced| forced.reason);
            if wait >= 1_000 {
                assert_eq!(
                    reason,
                    Some(Reason::ExternalOff),
                    "{wait} ms: {:?}",
                    world.sent
                );
                assert_eq!(heats, 1, "{wait} ms");
            } else {
                assert!(heats <= 2, "{wait} ms: {:?}", world.sent);
            }
            world.node.switch(false);
            world.run(5_000);
            assert!(
                !world.node.state().heat,
                "{wait} ms: the second press counts"
            );
            assert_eq!(
                world.snapshot().forced_offs,
                1,
                "{wait} ms: {:?}",
                world.lines
            );
        }
    }
}
