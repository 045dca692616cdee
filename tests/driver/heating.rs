//! Heating, turning off, and hands at the device.

use std::time::Duration;

use _core::session::{Link, OnExternalOff, OnExternalOn, Reason, Trouble};
use _core::sim::{Event, Firmware};

use crate::klipper::{Klipper, OFF, Rig, heat};

#[test]
fn connects_reads_heats_with_one_frame_and_turns_off_on_every_firmware() {
    std::thread::scope(|scope| {
        for firmware in Firmware::ALL {
            scope.spawn(move || main_job(firmware));
        }
    });
}

fn main_job(firmware: Firmware) {
    let rig = Rig::with(|options| options.setup.firmware = firmware);
    let heat = heat(45).replace("set_temp", firmware.target_key());

    // Out of the box it is on: that is the first thing to end.
    let mut klipper = Klipper::ready(rig.config());
    let snapshot = klipper.wait_off_known();
    assert_eq!(snapshot.firmware.unwrap().as_str(), firmware.reported());
    assert_eq!(snapshot.device_on, Some(false));
    assert_eq!(rig.frames_since(0), [OFF], "{firmware}");
    assert_eq!(
        rig.opened_since(0),
        [1, 2],
        "one that stays, and a short one to look"
    );
    rig.wait_since(0, "the short one closed", |event| {
        matches!(event, Event::Close { client: 2, .. })
    });
    klipper.wait_readings(1);

    let mark = rig.mark();
    klipper.want(45.0);
    rig.wait_frame_since(mark, &heat);
    rig.wait_state(1, 45);
    let snapshot = klipper.wait_readings(4);
    assert_eq!(
        (snapshot.device_on, snapshot.device_target),
        (Some(true), Some(45.0))
    );
    assert!(!snapshot.off_known);
    assert_eq!(
        rig.frames_since(mark),
        [heat],
        "{firmware}: one change is one frame"
    );

    let mark = rig.mark();
    klipper.want(0.0);
    rig.wait_frame_since(mark, OFF);
    klipper.wait_off_known();
    assert!(!rig.is_on());
    assert_eq!(rig.frames_since(mark), [OFF], "{firmware}");
    assert_eq!(
        rig.opened_since(mark),
        [3],
        "off is verified by a fresh connection"
    );
    rig.wait_since(mark, "that one closed", |event| {
        matches!(event, Event::Close { client: 3, .. })
    });
    assert_eq!(rig.closed_since(0), [2, 3], "the one that stays has stayed");
}

#[test]
fn r2_a_device_that_is_on_is_turned_off_before_klipper_is_ready() {
    let rig = Rig::new();
    let mut klipper = Klipper::starting(rig.config());
    klipper.wish.target = 45.0; // not before klippy:ready, whatever is asked for
    klipper.wait_off_known();
    assert_eq!(rig.frames_since(0), [OFF]);
    klipper.wish.armed = true;
    klipper.want(45.0);
    rig.wait_state(1, 45);
    assert_eq!(rig.frames_since(0), [OFF.to_owned(), heat(45)]);
}

#[test]
fn r2_disarmed_is_off() {
    let rig = Rig::new();
    let mut klipper = rig.heating();
    let mark = rig.mark();
    klipper.wish.armed = false; // klippy:shutdown; the target stays as it was
    klipper.handle.want(klipper.wish);
    rig.wait_frame_since(mark, OFF);
    klipper.wait_off_known();
    assert_eq!(rig.frames_since(mark), [OFF]);
}

#[test]
fn r2_switched_on_by_hand_while_the_target_is_0_it_is_turned_off() {
    let rig = Rig::new();
    let mut klipper = rig.off();
    for _ in 0..2 {
        let mark = rig.mark();
        klipper.lines.clear();
        rig.inject("button on");
        rig.wait_frame_since(mark, OFF);
        klipper.wait_line("turned on by hand while its target is 0");
        klipper.wait_off_known();
        assert!(!rig.is_on());
        assert_eq!(rig.frames_since(mark), [OFF]);
        assert_eq!(
            klipper.lines.len(),
            1,
            "one line per press: {:?}",
            klipper.lines
        );
    }
}

#[test]
fn r2_switched_on_by_hand_it_may_stay_on_if_the_user_allows_it() {
    let rig = Rig::new();
    let mut klipper = rig.off_with(|config| config.on_external_on = OnExternalOn::Allow);
    let mark = rig.mark();
    rig.inject("button on");
    klipper.wait_line("stays on until the next target");
    klipper.wait_readings(4);
    assert!(rig.is_on());
    assert_eq!(rig.frames_since(mark), [""; 0]);
    klipper.want(45.0);
    rig.wait_frame_since(mark, &heat(45));
    klipper.wait_readings(4);
    klipper.want(0.0);
    rig.wait_frame_since(mark, OFF);
}

#[test]
fn r9_turned_off_by_hand_it_stays_off() {
    let rig = Rig::new();
    let mut klipper = rig.heating();
    let mark = rig.mark();
    rig.inject("button power");
    let snapshot = klipper.wait_until("external off", |snapshot| snapshot.external_off);
    assert_eq!(snapshot.forced_offs, 1);
    assert_eq!(snapshot.failures, 0, "somebody chose this");
    assert_eq!(snapshot.forced_off.unwrap().reason, Reason::ExternalOff);
    assert!(klipper.wish.target.total_cmp(&0.0).is_eq());
    klipper.wait_off_known();
    klipper.drain_for(Duration::from_secs(2));
    assert_eq!(
        rig.frames_since(mark),
        [""; 0],
        "neither heat nor an off that says nothing new"
    );

    klipper.want(50.0);
    rig.wait_state(1, 50);
    let snapshot = klipper.wait_readings(4);
    assert!(!snapshot.external_off);
    assert_eq!(rig.frames_since(mark), [heat(50)]);
}

#[test]
fn r3_a_wish_older_than_the_last_forced_off_is_no_wish() {
    let rig = Rig::new();
    let mut klipper = rig.heating();
    klipper.obeys = false; // on_lost: warn leaves the target where it was
    let mark = rig.mark();
    rig.inject("button power");
    klipper.wait_until("external off", |snapshot| snapshot.external_off);
    // A second process asking again and again, and a reconnect, change nothing.
    rig.inject("drop");
    rig.wait_open_since(mark);
    klipper.wait_connected();
    klipper.drain_for(Duration::from_secs(3));
    assert!(!rig.is_on());
    assert!(
        !rig.frames_since(mark).contains(&heat(45)),
        "{:#?}",
        rig.story(mark)
    );
}

#[test]
fn r9_reassert_turns_it_on_again() {
    let rig = Rig::new();
    let mut klipper = rig.heating_with(|config| config.on_external_off = OnExternalOff::Reassert);
    let mark = rig.mark();
    rig.inject("button power");
    rig.wait_state_since(mark, 0, 45);
    rig.wait_frame_since(mark, &heat(45));
    let snapshot = klipper.wait_readings(4);
    assert_eq!(snapshot.forced_offs, 0);
    assert!(rig.is_on());
    assert_eq!(rig.frames_since(mark), [heat(45)]);
    klipper.wait_line("on_external_off: reassert");
}

#[test]
fn r9_a_device_that_stops_itself_is_a_failure_and_never_reasserted() {
    let rig = Rig::new();
    let mut klipper = rig.heating_with(|config| config.on_external_off = OnExternalOff::Reassert);
    let mark = rig.mark();
    rig.inject("fault ptc-open");
    let snapshot = klipper.wait_until("a failure", |snapshot| snapshot.failures > 0);
    let fault = _core::dialect::Fault::ElementSensorOpen;
    assert_eq!(snapshot.forced_off.unwrap().reason, Reason::Fault(fault));
    assert_eq!(snapshot.fault, Some(Trouble::Device(fault)));
    assert_eq!(snapshot.forced_offs, snapshot.failures);
    klipper.drain_for(Duration::from_secs(3));
    assert!(!rig.is_on());
    assert!(
        !rig.frames_since(mark).contains(&heat(45)),
        "{:#?}",
        rig.story(mark)
    );

    // A new target cannot heat it either as long as the fault lasts.
    klipper.want(45.0);
    klipper.drain_for(Duration::from_secs(2));
    assert!(
        !rig.frames_since(mark).contains(&heat(45)),
        "{:#?}",
        rig.story(mark)
    );
    klipper.want(0.0);
    rig.inject("fault clear");
    klipper.wait_until("no fault", |snapshot| snapshot.fault.is_none());
    klipper.want(45.0);
    rig.wait_frame_since(mark, &heat(45));
}

#[test]
fn r5_with_a_broken_sensor_its_temperature_is_no_reading() {
    let rig = Rig::new();
    let mut klipper = rig.off();
    rig.inject("fault chamber-open");
    let fault = Trouble::Device(_core::dialect::Fault::ChamberSensorOpen);
    let snapshot = klipper.wait_until("the fault", |snapshot| {
        snapshot.fault.as_ref() == Some(&fault)
    });
    let number = snapshot.reading.unwrap().number;
    klipper.wait_until("ignored", |now| now.ignored >= snapshot.ignored + 4);
    assert_eq!(klipper.drain().reading.unwrap().number, number);
    rig.inject("fault clear");
    klipper.wait_until("reading again", |snapshot| {
        snapshot.reading.unwrap().number > number
    });
    assert_eq!(klipper.drain().fault, None);
}

#[test]
fn r8_a_reactor_that_is_stuck_loses_its_lease() {
    let rig = Rig::new();
    let mut klipper = rig.heating_with(|config| config.lease = 2_000);
    let mark = rig.mark();
    let last = klipper.drain();
    assert_eq!(last.forced_offs, 0, "it was alive so far");
    rig.wait_frame_since(mark, OFF); // and nobody drains meanwhile
    rig.wait_state_since(mark, 0, 45);
    let snapshot = klipper.wait_until("forced off", |snapshot| snapshot.forced_offs > 0);
    assert_eq!((snapshot.forced_offs, snapshot.failures), (1, 1));
    assert_eq!(snapshot.forced_off.unwrap().reason, Reason::Lease);
    klipper.wait_off_known();
    assert_eq!(rig.frames_since(mark), [OFF]);
}

#[test]
fn r8_a_wish_without_a_drain_does_not_renew_the_lease() {
    let rig = Rig::new();
    let klipper = rig.heating_with(|config| config.lease = 2_000);
    let mark = rig.mark();
    let mut wish = klipper.wish;
    let off = |event: &Event| matches!(event, Event::Frame { text, .. } if text == OFF);
    for n in 0..400 {
        wish.target = 45.0 + f64::from(n % 2) / 10.0; // another wish for the same degrees
        klipper.handle.want(wish);
        let quick = Duration::from_millis(50);
        if rig
            .simulator
            .wait_for_new(mark, |entry| off(&entry.event), quick)
            .is_some()
        {
            return;
        }
    }
    panic!("the lease never ended: {:#?}", rig.story(mark));
}

#[test]
fn r10_the_same_wish_is_not_written_twice() {
    let rig = Rig::new();
    let mut klipper = rig.heating();
    let mark = rig.mark();
    for _ in 0..3 {
        klipper.drain_for(Duration::from_secs(1));
        let before = rig.mark();
        rig.inject("drop");
        rig.wait_open_since(before);
        klipper.wait_connected();
        klipper.wait_readings(2);
    }
    for degrees in [44.6, 45.0, 45.4] {
        klipper.want(degrees); // the device knows whole degrees only
        klipper.drain_for(Duration::from_millis(600));
    }
    assert_eq!(rig.frames_since(mark), [""; 0], "{:#?}", rig.story(mark));

    klipper.want(0.0);
    klipper.wait_off_known();
    let mark = rig.mark();
    rig.inject("drop");
    rig.wait_open_since(mark);
    klipper.wait_connected();
    klipper.wait_off_known();
    klipper.drain_for(Duration::from_secs(2));
    assert_eq!(rig.frames_since(mark), [""; 0], "{:#?}", rig.story(mark));
    // `frames_since` looks at every frame of the test: there was never a ping.
    rig.frames_since(0);
}

#[test]
fn r10_a_slider_that_is_dragged_is_a_dozen_frames_at_the_most_and_ends_where_it_was_left() {
    let rig = Rig::new();
    let mut klipper = rig.off();
    let mark = rig.mark();
    for n in 0..200 {
        klipper.want(30.0 + f64::from(n % 30));
        klipper.drain();
        std::thread::park_timeout(Duration::from_millis(10));
    }
    klipper.want(41.0);
    rig.wait_state_since(mark, 1, 41);
    klipper.wait_readings(4);
    let frames = rig.frames_since(mark);
    assert_eq!(frames.last(), Some(&heat(41)));
    assert!(frames.len() <= 12, "{} frames", frames.len());
    assert_eq!(klipper.drain().link, Link::Connected);
}

#[test]
fn a_target_above_the_limit_is_cut() {
    let rig = Rig::new();
    let mut klipper = rig.off_with(|config| config.max_target = 50);
    let mark = rig.mark();
    for target in [200.0, 300.0, f64::INFINITY] {
        klipper.want(target);
        rig.wait_state(1, 50);
        klipper.wait_readings(2);
    }
    assert_eq!(rig.frames_since(mark), [heat(50)]);
    klipper.want(f64::NAN);
    rig.wait_frame_since(mark, OFF);
}

#[test]
fn r1_no_call_of_the_reactor_waits_whatever_the_device_does() {
    let rig = Rig::new();
    let mut klipper = rig.heating();
    for fault in [
        "hang",
        "drip",
        "drop",
        "hang all",
        "refuse 5",
        "flood 2000 1",
        "powercut 1",
        "reboot",
    ] {
        rig.inject(fault);
        let before = voluntary_switches();
        for n in 0..2_000 {
            klipper.want(40.0 + f64::from(n % 7));
            klipper.drain();
            klipper.handle.is_stuck();
        }
        assert_eq!(voluntary_switches() - before, 0, "{fault}");
        rig.inject("resume");
    }
}

/// How often this thread has waited for something.
fn voluntary_switches() -> u64 {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    line.unwrap().trim().parse().unwrap()
}
