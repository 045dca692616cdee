//! Buttons, other clients, and restarts of the device.

use super::*;

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
    let mut world = BrokerWorld::new(config(), &esphome());
    world.run(1_500);
    world.set_target(45.0);
    world.run(2_500);
    assert!(world.node.state().heat, "{:?}", world.lines);
    world.node.switch(false);
    world.run(3_000);
    let forced = world.snapshot().forced_off.unwrap();
    assert_eq!(forced.reason, Reason::ExternalOff);
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
