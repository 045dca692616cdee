//! RESTART: a new printer takes the device over from the one before.

use _core::sim::Event;

use crate::klipper::{Klipper, OFF, Rig, heat};

#[test]
fn r12_a_restart_keeps_the_connection_and_what_was_wished_before_it_is_over() {
    let rig = Rig::new();
    let old = rig.heating();
    let mark = rig.mark();
    old.handle.close();
    let mut new = Klipper::ready(rig.config());
    drop(old); // its printer object may live on for a while
    new.wait_connected();
    new.want(50.0);
    rig.wait_frame_since(mark, &heat(50));
    new.wait_readings(4);
    assert_eq!(
        rig.frames_since(mark),
        [OFF.to_owned(), heat(50)],
        "no off after the new heat"
    );
    assert!(rig.is_on());
    assert_eq!(rig.opened_since(mark), [0; 0], "the same connection");
    assert_eq!(rig.closed_since(mark), [0; 0]);
}

#[test]
fn r12_the_printer_before_the_restart_has_no_say_any_more() {
    let rig = Rig::new();
    let mut old = rig.heating();
    let mut new = Klipper::ready(rig.config());
    new.wait_off_known();
    let mark = rig.mark();
    old.want(55.0);
    old.drain();
    old.handle.close();
    new.wait_readings(3);
    assert_eq!(rig.frames_since(mark), [""; 0]);
    new.want(45.0);
    rig.wait_frame_since(mark, &heat(45));
    old.want(0.0);
    old.drain();
    drop(old);
    new.wait_readings(3);
    assert_eq!(rig.frames_since(mark), [heat(45)]);
}

#[test]
fn r8_what_the_printer_before_drains_is_no_sign_of_life_of_the_new_one() {
    let rig = Rig::new();
    let mut old = rig.off();
    let mut new = Klipper::ready({
        let mut config = rig.config();
        config.lease = 2_000;
        config
    });
    new.want(45.0);
    let mark = rig.mark();
    let end = crate::klipper::now_s() + 20.0;
    let off = |event: &Event| matches!(event, Event::Frame { text, .. } if text == OFF);
    while !rig.simulator.entries()[mark..]
        .iter()
        .any(|entry| off(&entry.event))
    {
        old.handle.drain(old.wish);
        assert!(crate::klipper::now_s() < end, "{:#?}", rig.story(mark));
        crate::klipper::pause();
    }
    old.obeys = false;
}

#[test]
fn r12_restarts_while_heating_are_one_connection() {
    let rig = Rig::new();
    let mut klipper = rig.heating();
    let mark = rig.mark();
    for _ in 0..6 {
        // As many as go without waiting for the next write that flash is allowed.
        let before = rig.mark();
        klipper.handle.close();
        klipper = Klipper::ready(rig.config());
        rig.wait_frame_since(before, OFF);
        klipper.want(45.0);
        rig.wait_frame_since(before, &heat(45));
        rig.wait_state_since(before, 1, 45);
    }
    assert_eq!(rig.opened_since(mark), [0; 0], "{:#?}", rig.story(mark));
    assert!(rig.is_on());
}

#[test]
fn r2_closed_while_unreachable_the_off_is_still_owed() {
    let rig = Rig::new();
    let klipper = rig.heating();
    let mark = rig.mark();
    rig.inject("refuse 2");
    rig.inject("drop");
    drop(klipper);
    rig.wait_frame_since(mark, OFF);
    let sent = rig.mark();
    // Off is verified, then the session ends and with it its connection.
    rig.wait_since(sent, "all closed", |event| {
        matches!(event, Event::Close { open: 0, .. })
    });
    assert!(!rig.is_on());
    assert_eq!(rig.frames_since(mark), [OFF]);
}
