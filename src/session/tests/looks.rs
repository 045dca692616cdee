//! Looks at a device that is spoken to directly: when a second connection is opened, what its
//! snapshot proves, and what it does not.

use super::edges::{lines, live};
use super::found::{SNAPSHOT, address, tell, want};
use super::*;

/// The device is there, and warm.
const READING: &[u8] = br#"{"settings":{"warehouse_temper":30}}"#;

/// Reports come and Klipper is alive, until a look begins; returns when and on which connection.
fn until_look(session: &mut Session, from: Millis, to: Millis) -> Option<(Millis, Conn)> {
    for at in (from..to).step_by(500) {
        session.renew(at);
        let done = tell(session, at, Input::Frame(Conn(1), READING));
        if let Some(conn) = connects(&done) {
            return Some((at, conn));
        }
    }
    None
}

fn connects(done: &[Command]) -> Option<Conn> {
    done.iter().find_map(|one| {
        let Command::Connect { conn, .. } = one else {
            return None;
        };
        Some(*conn)
    })
}

fn offs(done: &[Command]) -> usize {
    let off = |one: &&Command| matches!(one, Command::Send(_, text) if text == OFF);
    done.iter().filter(off).count()
}

/// The second connection opens, and its snapshot is this.
fn look(session: &mut Session, now: Millis, conn: Conn, snapshot: &str) -> Vec<Command> {
    tell(session, now, Input::Opened(conn, address()));
    tell(session, now + 10, Input::Frame(conn, snapshot.as_bytes()))
}

fn on() -> String {
    SNAPSHOT.replace("\"work_on\":0", "\"work_on\":1")
}

/// A session whose device was told to heat at 40 and has heard it.
fn heating() -> Session {
    let mut session = live();
    let done = want(&mut session, 40, 45.0);
    assert!(matches!(done[..], [Command::Send(..)]), "{done:?}");
    session
}

#[test]
fn r2_a_look_without_an_answer_is_given_up_and_repeated() {
    let mut session = live();
    let (at, conn) = until_look(&mut session, 500, 400_000).unwrap();
    assert!((300_000..301_000).contains(&at), "{at}");
    let again = until_look(&mut session, at + 500, at + 20_000).unwrap();
    assert_ne!(again.1, conn);
    assert_eq!(again.0, at + 5_000 + 2_000);
    let (at, conn) = again;
    tell(&mut session, at + 100, Input::Closed(conn, "reset"));
    let (at_last, _) = until_look(&mut session, at + 500, at + 20_000).unwrap();
    assert_eq!(at_last, at + 2_500, "the first report 2 s after it failed");
}

#[test]
fn r2_a_look_that_began_before_an_off_says_nothing_about_it() {
    let mut session = heating();
    let (at, conn) = until_look(&mut session, 500, 100_000).unwrap();
    tell(&mut session, at + 10, Input::Opened(conn, address()));
    let mut done = want(&mut session, at + 20, 0.0);
    let old = on();
    done.extend(tell(
        &mut session,
        at + 30,
        Input::Frame(conn, old.as_bytes()),
    ));
    assert_eq!(offs(&done), 1, "it was on when it was asked: {done:?}");
    assert!(!session.snapshot(at + 30).off_known);
    let (at, conn) = until_look(&mut session, at + 500, at + 5_000).unwrap();
    look(&mut session, at, conn, SNAPSHOT);
    assert!(session.snapshot(at + 10).off_known);
}

#[test]
fn r4_a_look_proves_an_off_from_one_second_after_it_on() {
    let mut session = heating();
    until_look(&mut session, 500, 5_000);
    assert_eq!(offs(&want(&mut session, 5_000, 0.0)), 1);
    let done = tell(&mut session, 5_999, Input::Frame(Conn(1), READING));
    assert_eq!(connects(&done), None, "{done:?}");
    let done = tell(&mut session, 6_000, Input::Frame(Conn(1), READING));
    let conn = connects(&done).unwrap();
    assert!(!session.snapshot(6_000).off_known);
    let done = look(&mut session, 6_000, conn, SNAPSHOT);
    assert!(session.snapshot(6_010).off_known, "{:?}", lines(&done));
}

#[test]
fn r9_a_report_within_a_second_of_a_write_is_nobodys_hand_but_looked_into() {
    let off = r#"{"settings":{"work_on":0,"warehouse_temper":31}}"#;
    let auto = r#"{"settings":{"work_mode":1,"warehouse_temper":31}}"#;
    for (at, text) in [(1_039, off), (500, auto)] {
        let mut session = heating();
        let done = tell(&mut session, at, Input::Frame(Conn(1), text.as_bytes()));
        assert_eq!(done, [], "{text}: nothing is set right");
        let reading = session.snapshot(at).reading.map(|reading| reading.at);
        assert_eq!(reading, Some(at), "what it measures is no doubt");
        let (looked_at, _) = until_look(&mut session, at + 250, at + 5_000).unwrap();
        assert!(looked_at >= at + 1_000, "{looked_at}: it would cross, too");
        assert!(looked_at < at + 2_000, "{looked_at}");
        until_look(&mut session, looked_at + 500, at + 5_000);
        assert_eq!(session.snapshot(at + 5_000).forced_offs, 0, "{text}");
    }
    let mut session = heating();
    tell(&mut session, 1_040, Input::Frame(Conn(1), off.as_bytes()));
    until_look(&mut session, 1_500, 5_000);
    assert_eq!(session.snapshot(5_000).forced_offs, 1, "this was a hand");
}

#[test]
fn r2_an_on_within_a_second_of_an_off_is_taken_at_once() {
    for (text, again) in [
        (r#"{"settings":{"work_on":1}}"#, 1),
        (r#"{"settings":{"work_on":0}}"#, 0),
    ] {
        let mut session = heating();
        until_look(&mut session, 500, 5_000);
        assert_eq!(offs(&want(&mut session, 5_000, 0.0)), 1);
        let done = tell(&mut session, 5_500, Input::Frame(Conn(1), text.as_bytes()));
        assert_eq!(offs(&done), again, "{text}: {done:?}");
    }
}

#[test]
fn r9_a_fault_that_comes_with_an_off_soon_after_a_write_is_a_fault() {
    let mut session = heating();
    let stopped = br#"{"settings":{"work_on":0,"ptc_heater_status":0}}"#;
    tell(&mut session, 500, Input::Frame(Conn(1), stopped));
    let forced = session.snapshot(500).forced_off.unwrap();
    assert_eq!(forced.reason, Reason::Fault(crate::dialect::Fault::Heater));
}

#[test]
fn r9_an_off_that_is_said_before_heat_was_sent_is_nobodys_hand() {
    let config = Config {
        guard: true,
        ..Config::default()
    };
    let mut session = live();
    tell(&mut session, 30, Input::Adopted(&config));
    assert_eq!(want(&mut session, 40, 45.0), [], "no guard yet");
    let off = br#"{"settings":{"work_on":0}}"#;
    for at in (500..5_000).step_by(500) {
        session.renew(at);
        tell(&mut session, at, Input::Frame(Conn(1), off));
    }
    assert_eq!(session.snapshot(5_000).forced_offs, 0);
}

#[test]
fn r2_a_device_below_its_target_is_looked_at_every_minute_and_a_warm_one_is_not() {
    for (celsius, from) in [(44, 60_000), (45, 300_000)] {
        let mut session = heating();
        let text = format!(r#"{{"settings":{{"warehouse_temper":{celsius}}}}}"#);
        let mut at = 0;
        let looked = (0..700).any(|_| {
            at += 500;
            session.renew(at);
            connects(&tell(
                &mut session,
                at,
                Input::Frame(Conn(1), text.as_bytes()),
            ))
            .is_some()
        });
        assert!(
            looked && (from..=from + 1_000).contains(&at),
            "{celsius}: {at}"
        );
    }
}

#[test]
fn r2_a_device_that_may_stay_on_is_looked_at_every_five_minutes() {
    let config = Config {
        on_external_on: OnExternalOn::Allow,
        ..Config::default()
    };
    let mut session = live();
    tell(&mut session, 30, Input::Adopted(&config));
    want(&mut session, 40, 0.0);
    let done = tell(&mut session, 500, Input::Frame(Conn(1), on().as_bytes()));
    assert!(lines(&done)[0].contains("stays on"), "{done:?}");
    let (at, _) = until_look(&mut session, 1_000, 400_000).unwrap();
    assert!((300_000..301_000).contains(&at), "{at}");
}

/// A device may go on talking and take no new connection: all it can still be told is off, on the
/// connection that there is.
#[test]
fn r2_off_that_cannot_be_asked_for_is_said_again() {
    let mut world = World::connected();
    world.run(10_000);
    world.unreachable = true;
    world.run(300_000); // off was known so long
    world.sent.clear();
    let heat = br#"{"settings":{"work_mode":2,"set_temp":70,"work_on":true}}"#;
    let _ = world.device.handle_text(heat);
    world.run(61_000 + 12_000);
    assert_eq!(world.state().0, 0, "{:?} {:?}", world.sent, world.lines);
    world.run(3_600_000);
    let offs = world.sent.len();
    assert!((55..=65).contains(&offs), "R6: {offs} in an hour");
    assert_eq!(world.snapshot().fault, Some(Trouble::CannotAsk));
    let told = world
        .lines
        .iter()
        .filter(|line| line.contains("no new connection reaches it"));
    assert_eq!(told.count(), 1, "{:?}", world.lines);
    world.unreachable = false;
    world.run(20_000);
    assert!(world.snapshot().off_known);
    assert_eq!(world.snapshot().fault, None);
}

#[test]
fn r10_off_that_is_known_is_not_said_because_a_look_failed() {
    let config = Config {
        guard: true,
        ..Config::default()
    };
    let mut session = live();
    tell(&mut session, 30, Input::Adopted(&config));
    assert_eq!(until_look(&mut session, 500, 58_000), None);
    assert_eq!(want(&mut session, 58_000, 45.0), [], "no guard yet");
    let (at, conn) = until_look(&mut session, 58_500, 65_000).unwrap();
    want(&mut session, at + 10, 0.0);
    assert!(session.snapshot(at + 10).off_known);
    let done = tell(&mut session, at + 20, Input::Closed(conn, "reset"));
    assert_eq!(offs(&done), 0, "{done:?}");
    assert!(session.snapshot(at + 20).off_known);
}
