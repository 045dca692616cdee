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
