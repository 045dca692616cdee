//! What reports mean, at each edge: readings, faults, hands. Told to the session itself.

use super::edges::{lines, live};
use super::found::{tell, told_to_heat, want};
use super::*;
use crate::dialect::Fault;

const HEATER: &str = r#"{"settings":{"ptc_heater_status":0}}"#;
const SENSOR: &str = r#"{"settings":{"warehouse_sensor_status":2}}"#;
const OFF_BY_HAND: &str = r#"{"settings":{"work_on":0}}"#;

fn frame(session: &mut Session, now: Millis, text: &str) -> Vec<Command> {
    session.renew(now);
    tell(session, now, Input::Frame(Conn(1), text.as_bytes()))
}

/// The device goes on telling its temperature; returns what is said and done.
fn warm(session: &mut Session, from: Millis, to: Millis) -> Vec<Command> {
    let mut done = Vec::new();
    for at in (from..to).step_by(500) {
        done.extend(frame(
            session,
            at,
            r#"{"settings":{"warehouse_temper":30}}"#,
        ));
    }
    done
}

/// It was turned off by hand at 5 s, which is known at 6.2 s.
fn turned_off() -> Session {
    let mut session = live();
    want(&mut session, 40, 45.0);
    warm(&mut session, 500, 5_000);
    frame(&mut session, 5_000, OFF_BY_HAND);
    tell(&mut session, 6_199, Input::Tick);
    assert_eq!(session.snapshot(6_199).forced_offs, 0);
    tell(&mut session, 6_200, Input::Tick);
    let forced = session.snapshot(6_200).forced_off.unwrap();
    assert_eq!(forced.reason, Reason::ExternalOff);
    session
}

#[test]
fn r9_a_reason_that_comes_late_still_corrects_what_was_made_of_it() {
    for (at, reason) in [
        (11_199, Reason::Fault(Fault::Heater)),
        (11_200, Reason::ExternalOff),
    ] {
        let mut session = turned_off();
        warm(&mut session, 6_500, at);
        let mut done = frame(&mut session, at, HEATER);
        done.extend(frame(&mut session, at + 10, HEATER));
        let snapshot = session.snapshot(at);
        assert_eq!(snapshot.forced_off.unwrap().reason, reason, "{at}");
        let late = reason == Reason::ExternalOff;
        assert_eq!(snapshot.forced_offs, if late { 1 } else { 2 }, "once");
        assert_eq!(lines(&done).len(), usize::from(late), "{done:?}");
        assert_eq!(snapshot.external_off, late);
    }
    // What was forced off for another reason is not corrected.
    let mut session = live();
    want(&mut session, 40, 45.0);
    frame(&mut session, 500, SENSOR);
    frame(&mut session, 600, HEATER);
    assert_eq!(session.snapshot(600).forced_offs, 1);
}

#[test]
fn r9_a_sensor_fault_is_over_three_seconds_after_it_was_last_said() {
    let mut session = live();
    let done = frame(&mut session, 500, SENSOR);
    assert_eq!(lines(&done).len(), 1, "{done:?}");
    for at in (1_000..10_000).step_by(500) {
        assert_eq!(frame(&mut session, at, SENSOR), [], "{at}: said once");
    }
    let text = r#"{"settings":{"warehouse_temper":30}}"#;
    let ignored = session.snapshot(9_500).ignored;
    tell(&mut session, 11_000, Input::Tick);
    assert_eq!(frame(&mut session, 12_499, text), []);
    assert_eq!(session.snapshot(12_499).reading, None, "by a broken sensor");
    assert_eq!(session.snapshot(12_499).ignored, ignored + 1);
    let done = tell(&mut session, 12_500, Input::Tick);
    assert!(lines(&done)[0].contains("no longer"), "{done:?}");
    assert_eq!(session.snapshot(12_500).fault, None);
    frame(&mut session, 12_600, text);
    assert_eq!(session.snapshot(12_600).reading.unwrap().number, 1);
    frame(&mut session, 13_100, text);
    assert_eq!(session.snapshot(13_100).reading.unwrap().number, 2);
}

#[test]
fn a_device_without_a_temperature_is_told_once_27_s_after_it_came() {
    let mut session = live(); // at 30
    let mut said = Vec::new();
    for at in (500..60_000).step_by(10) {
        let done = frame(&mut session, at, r#"{"settings":{"work_mode":2}}"#);
        said.extend(lines(&done).iter().map(|line| (at, (*line).to_owned())));
    }
    assert_eq!(said.len(), 1, "{said:?}");
    assert_eq!(said[0].0, 27_030);
    assert!(said[0].1.contains("after 120 s without one"), "{said:?}");
    // And after the last one that there was.
    let mut session = live();
    warm(&mut session, 500, 20_500); // the last is at 20 s
    let mut said = Vec::new();
    for at in (20_500..60_000).step_by(10) {
        let done = frame(&mut session, at, r#"{"settings":{"work_mode":2}}"#);
        said.extend(lines(&done).iter().map(|_| at));
    }
    assert_eq!(said, [47_000]);
}

#[test]
fn r5_lost_is_120_s_after_the_last_reading_or_after_the_start() {
    for (with_reading, lost_at) in [(false, 120_000), (true, 121_000)] {
        let mut session = live();
        if with_reading {
            warm(&mut session, 1_000, 1_001);
        }
        for at in (1_500..lost_at).step_by(500) {
            frame(&mut session, at, r#"{"settings":{"work_mode":2}}"#);
        }
        let silent = r#"{"settings":{"work_mode":2}}"#;
        frame(&mut session, lost_at - 1, silent);
        assert!(!session.snapshot(lost_at).lost);
        let done = frame(&mut session, lost_at, silent);
        assert!(session.snapshot(lost_at).lost);
        assert!(lines(&done)[0].contains("no reading from PandaBreath.local for 120 s"));
        assert_eq!(frame(&mut session, lost_at + 500, silent), []);
    }
}

#[test]
fn r10_a_target_is_the_same_if_it_is_as_near_as_the_device_tells_it() {
    let near = |step: Option<f64>, told: f64| {
        let mut device = device::Device::default();
        (device.target, device.target_step) = (Some(told), step);
        device.is_near(45.0)
    };
    for (step, told, is) in [
        (None, 45.5, true),
        (None, 44.5, true),
        (None, 45.51, false),
        (None, 44.49, false),
        (Some(0.5), 45.25, true),
        (Some(0.5), 45.26, false),
        (Some(2.0), 44.0, true),
        (Some(2.0), 43.9, false),
        (Some(2.0), 46.1, false),
    ] {
        assert_eq!(near(step, told), is, "{told} in steps of {step:?}");
    }
}

#[test]
fn r2_it_is_not_said_to_be_off_before_it_has_said_so() {
    let mut session = told_to_heat();
    let say = |session: &mut Session, now, leaf: &str, payload: &str| {
        session.renew(now);
        super::found::say(session, now, leaf, payload)
    };
    say(&mut session, 1_200, "climate/chamber/mode/state", "heat");
    say(
        &mut session,
        1_300,
        "climate/chamber/action/state",
        "heating",
    );
    want(&mut session, 3_000, 0.0);
    for (at, celsius) in [(3_500, "30"), (5_000, "60"), (6_500, "61")] {
        let done = say(
            &mut session,
            at,
            "sensor/chamber_temperature/state",
            celsius,
        );
        assert_eq!(lines(&done), [""; 0], "{at}: it heats, and says so");
    }
    assert_eq!(session.snapshot(6_500).reading.unwrap().number, 3);
}
