//! `chamber_sensor` when it says nothing: when that is told, and when it is the end. Told to the
//! session itself.

use super::edges::{lines, live};
use super::found::{tell, want};
use super::*;

fn session() -> Session {
    let config = Config {
        chamber: Some(Chamber {
            sensor: "temperature_sensor cavity".into(),
            max_boost: 15,
        }),
        ..Config::default()
    };
    let mut session = live();
    tell(&mut session, 30, Input::Adopted(&config));
    session
}

fn heard(session: &mut Session, at: Millis) {
    session.surround(Surroundings {
        chamber: Some(Sample { celsius: 40.0, at }),
        cutoff: None,
        bed: None,
    });
}

/// The device is well and Klipper alive; what is told, when.
fn told(session: &mut Session, from: Millis, to: Millis) -> Vec<(Millis, String)> {
    let mut told = Vec::new();
    let (mut at, mut report_at) = (from, from);
    while at < to {
        session.renew(at);
        let done = if at >= report_at {
            report_at += 500;
            let reading = br#"{"settings":{"warehouse_temper":30}}"#;
            tell(session, at, Input::Frame(Conn(1), reading))
        } else {
            tell(session, at, Input::Tick)
        };
        told.extend(lines(&done).iter().map(|line| (at, (*line).to_owned())));
        if session.snapshot(at).forced_offs > 0 {
            return told;
        }
        at = session.deadline(at).min(report_at);
    }
    told
}

const SILENT: &str =
    "no reading from temperature_sensor cavity; heating by the device's own sensor";

#[test]
fn r5_a_chamber_that_falls_silent_is_told_after_10_s_and_lost_after_120_s() {
    let mut session = session();
    heard(&mut session, 40);
    want(&mut session, 40, 45.0);
    let lines = told(&mut session, 500, 119_000);
    assert_eq!(lines, [(10_040, SILENT.to_owned())]);
    let mut back = session.clone();
    heard(&mut back, 119_000);
    let lines = told(&mut back, 119_010, 121_000);
    let line = "temperature_sensor cavity is back".to_owned();
    assert_eq!(lines, [(119_010, line)]);

    told(&mut session, 119_010, 200_000);
    let forced = session.snapshot(200_000).forced_off.unwrap();
    assert_eq!(forced.reason, Reason::Lost);
    let text = "no reading from temperature_sensor cavity for 120 s (chamber_sensor)";
    assert_eq!(&*forced.text, text);
    assert_eq!(
        session.last_turn,
        Some(120_040),
        "neither earlier nor later"
    );
}

#[test]
fn r5_a_chamber_that_never_spoke_has_120_s_from_the_target_on() {
    let mut session = session();
    assert_eq!(told(&mut session, 500, 150_000), [], "no heat, no sensor");
    let done = want(&mut session, 150_000, 45.0);
    assert_eq!(lines(&done), [SILENT]);
    assert_eq!(told(&mut session, 150_010, 400_000), [], "said once");
    let forced = session.snapshot(400_000).forced_off.unwrap();
    assert_eq!(forced.reason, Reason::Lost);
    assert_eq!(session.last_turn, Some(270_000));
}

// What becomes of the boost

const WARM: &str = r#"{"settings":{"warehouse_temper":60}}"#;
const SILENT_SENSOR: &str = r#"{"settings":{"filtertemp":30}}"#;

/// The device says this twice a second, and the chamber is at 40 C; the last turn is at `to`.
fn go_on(session: &mut Session, from: Millis, to: Millis, text: &str) -> Vec<String> {
    let mut told = Vec::new();
    for at in (from..to).step_by(500).chain([to]) {
        session.renew(at);
        heard(session, at);
        let done = tell(session, at, Input::Frame(Conn(1), text.as_bytes()));
        told.extend(lines(&done).iter().map(|line| (*line).to_owned()));
    }
    told
}

/// Heating to 45 C with a boost of 1 C, which is as much as `max_target` leaves.
fn boosted(max_target: u8) -> Session {
    let mut session = session();
    let config = Config {
        max_target,
        ..session.config.clone()
    };
    tell(&mut session, 30, Input::Adopted(&config));
    want(&mut session, 40, 45.0);
    go_on(&mut session, 500, 119_500, WARM);
    assert_eq!(session.snapshot(119_500).boost, 0);
    go_on(&mut session, 120_000, 121_000, WARM);
    assert_eq!(session.snapshot(121_000).boost, 1);
    session
}

#[test]
fn boost_is_no_more_than_max_target_leaves_and_that_is_told() {
    let mut session = boosted(46);
    let told = go_on(&mut session, 121_500, 1_300_000, WARM);
    assert_eq!(session.snapshot(1_300_000).boost, 1);
    assert_eq!(told.len(), 1, "{told:?}");
    let line = "temperature_sensor cavity stays at 40.0 C: the device's target of 46 C is the";
    assert!(told[0].starts_with(line), "{told:?}");
    let mut session = boosted(60);
    go_on(&mut session, 121_500, 360_000, WARM);
    assert_eq!(session.snapshot(360_000).boost, 2, "the next after 120 s");
    want(&mut session, 360_000, 0.0);
    assert_eq!(session.snapshot(360_000).boost, 0);
}

#[test]
fn boost_by_a_reading_of_seven_seconds_ago_is_blind() {
    let mut session = boosted(60);
    go_on(&mut session, 121_500, 127_999, SILENT_SENSOR);
    assert_eq!(session.snapshot(127_999).boost, 1);
    go_on(&mut session, 128_000, 128_000, SILENT_SENSOR);
    assert_eq!(session.snapshot(128_000).boost, 0);
}

#[test]
fn boost_goes_on_after_a_short_absence_where_the_device_was_left() {
    for (target, chamber, kept) in [(46, true, true), (45, true, false), (46, false, false)] {
        let mut session = boosted(60);
        tell(&mut session, 121_100, Input::Closed(Conn(1), "reset"));
        let Some(Main { conn, .. }) = session.main else {
            panic!("it tries again at once");
        };
        for at in (121_500..130_000).step_by(500) {
            session.renew(at);
            heard(&mut session, at);
            tell(&mut session, at, Input::Reached(conn)); // it takes its time
        }
        assert_eq!(session.snapshot(129_500).boost, 1, "nothing can be sent");
        if !chamber {
            session.surround(Surroundings::default());
        }
        let text = super::found::SNAPSHOT
            .replace("\"work_on\":0", "\"work_on\":1")
            .replace("\"set_temp\":45", &format!("\"set_temp\":{target}"));
        tell(
            &mut session,
            130_000,
            Input::Opened(conn, super::found::address()),
        );
        tell(&mut session, 130_000, Input::Frame(conn, text.as_bytes()));
        let ours = Claim::Ours { doubt: false };
        let who = super::found::who(super::found::SNAPSHOT);
        tell(&mut session, 130_000, Input::Claimed(who, ours));
        assert_eq!(session.snapshot(130_000).link, Link::Connected);
        let boost = u8::from(kept);
        assert_eq!(session.snapshot(130_000).boost, boost, "{target} {chamber}");
        // And not for longer than a reading would count.
        for (at, boost) in [
            (132_000, boost),
            (134_000, boost),
            (136_000, boost),
            (137_000, 0),
        ] {
            session.renew(at);
            heard(&mut session, at);
            tell(
                &mut session,
                at,
                Input::Frame(conn, SILENT_SENSOR.as_bytes()),
            );
            assert_eq!(session.snapshot(at).boost, boost, "{at}");
        }
    }
}
