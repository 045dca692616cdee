//! Connections: how long one is waited for, what ends it, and what is said about it. Told to the
//! session itself.

use super::edges::{aborts, lines, live};
use super::found::{SNAPSHOT, address, at_a_broker, open, say_off, tell, want, who};
use super::*;
use crate::dialect::mqtt::Options;

const READING: &[u8] = br#"{"settings":{"warehouse_temper":30}}"#;

pub(super) fn connects(done: &[Command]) -> bool {
    let connect = |one: &Command| matches!(one, Command::Connect { .. });
    done.iter().any(connect)
}

/// Nothing happens for a while; returns what it does of itself.
pub(super) fn idle(session: &mut Session, from: Millis, to: Millis) -> Vec<Command> {
    let mut done = Vec::new();
    for at in (from..to).step_by(500) {
        done.extend(tell(session, at, Input::Tick));
    }
    done
}

/// The connection opens, and the device on it is the one.
fn live_on(session: &mut Session, now: Millis, conn: Conn) -> Vec<Command> {
    tell(session, now, Input::Opened(conn, address()));
    tell(session, now, Input::Frame(conn, SNAPSHOT.as_bytes()));
    let ours = Claim::Ours { doubt: false };
    let done = tell(session, now, Input::Claimed(who(SNAPSHOT), ours));
    assert_eq!(session.snapshot(now).link, Link::Connected);
    done
}

pub(super) fn broker_session() -> Session {
    let config = Config {
        mqtt: Some(Options::default()),
        ..Config::default()
    };
    Session::new(config, 1)
}

fn polled(session: &mut Session) -> Vec<Command> {
    std::iter::from_fn(|| session.poll()).collect()
}

/// The next time, from then on, that it does this when nothing happens.
#[track_caller]
pub(super) fn next(session: &mut Session, from: Millis, is_it: fn(&[Command]) -> bool) -> Millis {
    let mut at = from;
    loop {
        if is_it(&tell(session, at, Input::Tick)) {
            return at;
        }
        assert!(at < from + 100_000, "never");
        at = session.deadline(at);
    }
}

#[test]
fn link_is_pending_until_something_is_tried() {
    let mut session = Session::new(Config::default(), 1);
    assert_eq!(session.snapshot(0).link, Link::Pending);
    tell(&mut session, 0, Input::Tick);
    assert_eq!(session.snapshot(0).link, Link::Connecting);
}

#[test]
fn a_first_attempt_waits_for_a_name_server_and_a_later_one_for_an_answer() {
    let mut session = Session::new(Config::default(), 1);
    tell(&mut session, 0, Input::Tick);
    assert_eq!(idle(&mut session, 1, 10_000), []);
    let done = tell(&mut session, 10_000, Input::Tick);
    assert!(aborts(&done));
    assert!(lines(&done)[0].contains(": no answer;"), "{done:?}");
    let mut session = live();
    tell(&mut session, 1_000, Input::Closed(Conn(1), "reset"));
    let at = next(&mut session, 1_001, aborts);
    assert!((1_000 + 3_200..1_000 + 3_500).contains(&at), "{at}");
}

#[test]
fn a_handshake_and_the_first_state_have_five_seconds() {
    let mut session = Session::new(Config::default(), 1);
    idle(&mut session, 0, 9_000);
    tell(&mut session, 9_000, Input::Reached(Conn(1)));
    assert_eq!(next(&mut session, 9_001, aborts), 14_000);

    let mut session = open(); // reached at 10
    let done = idle(&mut session, 1_000, 5_010);
    assert_eq!(done, []);
    let done = tell(&mut session, 5_010, Input::Tick);
    assert!(aborts(&done));
    assert!(
        lines(&done)[0].contains("does not send its state"),
        "{done:?}"
    );
}

#[test]
fn a_claim_that_nobody_answers_ends_the_connection_to_a_device_and_not_the_one_to_a_broker() {
    let mut session = open();
    tell(&mut session, 30, Input::Frame(Conn(1), SNAPSHOT.as_bytes()));
    assert_eq!(next(&mut session, 31, aborts), 5_010);

    let mut session = at_a_broker();
    let card = r#"{"name":"panda-breath","mac":"aabbccddee01","version":"1"}"#;
    let mut claims = 0;
    for at in (1_000..30_000).step_by(500) {
        let delivery = Delivery {
            topic: "esphome/discover/panda-breath",
            payload: card.as_bytes(),
            retained: false,
        };
        let mut done = tell(&mut session, at, Input::Delivered(Conn(1), delivery));
        done.extend(say_off(&mut session, at));
        assert!(!aborts(&done), "{at}");
        let claim = |one: &&Command| matches!(one, Command::Claim(_));
        claims += done.iter().filter(claim).count();
    }
    assert_eq!(claims, 1);
}

#[test]
fn r4_what_was_not_delivered_is_not_what_the_device_does() {
    for (closed_at, on) in [(500, None), (1_500, Some(true))] {
        let mut session = live();
        want(&mut session, 40, 45.0);
        tell(&mut session, closed_at - 1, Input::Frame(Conn(1), READING));
        tell(&mut session, closed_at, Input::Closed(Conn(1), "reset"));
        assert_eq!(session.snapshot(closed_at).device_on, on, "{closed_at}");
    }
}

#[test]
fn after_a_good_connection_the_next_one_is_tried_at_once() {
    for (lasts, at_once) in [(9_999, false), (10_000, true)] {
        let mut session = Session::new(Config::default(), 1);
        tell(&mut session, 0, Input::Tick);
        let done = tell(&mut session, 10, Input::Closed(Conn(1), "refused"));
        assert!(connects(&done), "a second attempt at once");
        live_on(&mut session, 20, Conn(2));
        for at in (500..20 + lasts).step_by(500) {
            tell(&mut session, at, Input::Frame(Conn(2), READING));
        }
        let done = tell(&mut session, 20 + lasts, Input::Closed(Conn(2), "reset"));
        assert_eq!(connects(&done), at_once, "{lasts}");
    }
    // Behind a broker it is the broker that was there, whatever the device does.
    for (lasts, at_once) in [(9_999, false), (10_000, true)] {
        let mut session = broker_session();
        tell(&mut session, 0, Input::Tick);
        tell(&mut session, 10, Input::Closed(Conn(1), "refused"));
        tell(&mut session, 20, Input::Opened(Conn(2), address()));
        idle(&mut session, 500, 20 + lasts);
        let done = tell(&mut session, 20 + lasts, Input::Closed(Conn(2), "reset"));
        assert_eq!(connects(&done), at_once, "{lasts}");
    }
}

#[test]
fn a_broker_that_answers_and_lets_nobody_in_is_left_alone_for_two_seconds() {
    for (reached, opened, again_at) in
        [(false, false, 100), (true, false, 2_100), (true, true, 100)]
    {
        let mut session = broker_session();
        tell(&mut session, 0, Input::Tick);
        if reached {
            tell(&mut session, 10, Input::Reached(Conn(1)));
        }
        if opened {
            tell(&mut session, 20, Input::Opened(Conn(1), address()));
        }
        let mut done = tell(&mut session, 100, Input::Closed(Conn(1), "not authorised"));
        let line = if opened { "lost" } else { "cannot connect to" };
        assert!(lines(&done)[0].contains(line), "{done:?}");
        let mut at = 100;
        while !connects(&done) {
            at = session.deadline(at);
            done = tell(&mut session, at, Input::Tick);
        }
        assert_eq!(at, again_at);
    }
    let mut session = Session::new(Config::default(), 1);
    tell(&mut session, 0, Input::Tick);
    tell(&mut session, 10, Input::Reached(Conn(1)));
    let done = tell(&mut session, 100, Input::Closed(Conn(1), "reset"));
    assert!(connects(&done), "a device is no broker");
}

#[test]
fn how_long_it_was_away_is_said_as_it_was() {
    let mut session = live();
    let done = tell(&mut session, 1_000, Input::Closed(Conn(1), "reset"));
    assert_eq!(
        lines(&done),
        ["connection to PandaBreath.local lost: reset; trying again"]
    );
    assert!(connects(&done), "it was the first to be lost");
    let done = tell(&mut session, 2_000, Input::Closed(Conn(2), "refused"));
    assert_eq!(lines(&done), [""; 0], "said once");
    let at = next(&mut session, 2_001, connects);
    let done = live_on(&mut session, 3_500, Conn(3));
    assert_eq!(lines(&done), ["connected again after 2.5 s"], "{at}");
    assert_eq!(session.snapshot(3_500).reconnects, 1);
}

#[test]
fn a_device_that_nobody_wants_is_turned_off_without_a_word() {
    let mut session = live();
    want(&mut session, 40, 45.0);
    tell(&mut session, 50, Input::Orphaned);
    let done = tell(&mut session, 100, Input::Closed(Conn(1), "reset"));
    assert_eq!(lines(&done), [""; 0]);
    assert!(connects(&done));
}

#[test]
fn r8_a_goodbye_needs_a_broker_that_has_let_us_in() {
    let mut session = broker_session();
    tell(&mut session, 0, Input::Tick);
    tell(&mut session, 5, Input::Orphaned);
    session.end(10);
    assert_eq!(
        polled(&mut session),
        [Command::Abort(Conn(1)), Command::End]
    );
    let mut session = at_a_broker();
    tell(&mut session, 30, Input::Orphaned);
    session.end(30);
    assert_eq!(
        polled(&mut session),
        [Command::Leave(Conn(1)), Command::End]
    );
    let mut session = live();
    let done = tell(&mut session, 40, Input::Orphaned);
    assert_eq!(done, [Command::Abort(Conn(1)), Command::End]);
    assert_eq!(idle(&mut session, 1_000, 20_000), [], "it has ended");
}

#[test]
fn identity_who_it_is_and_where_is_said_once() {
    for (host, line) in [
        (
            "PandaBreath.local",
            "connected to PandaBreath.local at 192.0.2.10, firmware V1.0.3, device ed05",
        ),
        (
            "192.0.2.10",
            "connected to 192.0.2.10, firmware V1.0.3, device ed05",
        ),
    ] {
        let config = Config {
            host: host.into(),
            ..Config::default()
        };
        let mut session = Session::new(config, 1);
        tell(&mut session, 0, Input::Tick);
        tell(&mut session, 10, Input::Closed(Conn(1), "refused"));
        assert_eq!(session.snapshot(10).last_error.as_deref(), Some("refused"));
        let done = live_on(&mut session, 20, Conn(2));
        assert_eq!(lines(&done), [line]);
        assert_eq!(session.snapshot(20).last_error, None);
    }
}

#[test]
fn identity_each_reason_to_refuse_a_device_is_said_once() {
    let mut session = live();
    let mut at = 100;
    let mut said = Vec::new();
    tell(&mut session, at, Input::Closed(Conn(1), "reset"));
    let other = |end: &str| SNAPSHOT.replace("AABBCCDDEEFF", end);
    let answers = [
        other("000000000001"),
        other("000000000001"),
        other("000000000002"),
    ];
    for (conn, answer) in (2..).map(Conn).zip(&answers) {
        tell(&mut session, at + 10, Input::Opened(conn, address()));
        let done = tell(&mut session, at + 20, Input::Frame(conn, answer.as_bytes()));
        said.push(lines(&done).len());
        assert_eq!(session.snapshot(at).link, Link::Error);
        at = next(&mut session, at + 21, connects);
    }
    assert_eq!(said, [1, 0, 1]);
    let held = Claim::Held {
        pid: 1234,
        answers: false,
    };
    tell(&mut session, at + 10, Input::Opened(Conn(5), address()));
    tell(
        &mut session,
        at + 20,
        Input::Frame(Conn(5), SNAPSHOT.as_bytes()),
    );
    let done = tell(&mut session, at + 20, Input::Claimed(who(SNAPSHOT), held));
    assert_eq!(
        lines(&done),
        [
            "device ed05 is controlled by another process (1234) and does not answer; \
             only one Klipper may have a section for it"
        ]
    );
}

#[test]
fn r7_why_a_session_only_turns_off_is_still_said_when_the_device_is_back() {
    let before = live().snapshot(30);
    let mut session = Session::after_panic(Config::default(), 1, &before, "a bug", 1_000);
    tell(&mut session, 1_000, Input::Tick);
    tell(&mut session, 1_010, Input::Opened(Conn(1), address()));
    tell(
        &mut session,
        1_020,
        Input::Frame(Conn(1), SNAPSHOT.as_bytes()),
    );
    let ours = Claim::Ours { doubt: false };
    tell(&mut session, 1_030, Input::Claimed(who(SNAPSHOT), ours));
    let error = session.snapshot(1_030).last_error.unwrap();
    assert!(error.contains("a bug"), "{error}");
}

#[test]
fn r4_a_device_that_says_nothing_for_five_seconds_has_lost_its_connection() {
    let mut session = live(); // at 30
    let text = br#"{"settings":{"work_mode":2}}"#;
    tell(&mut session, 500, Input::Frame(Conn(1), text));
    assert_eq!(idle(&mut session, 1_000, 5_500), []);
    assert_eq!(session.deadline(5_000), 5_500);
    let done = tell(&mut session, 5_500, Input::Tick);
    assert!(aborts(&done));
    assert!(lines(&done)[0].contains("no report for 5 s"), "{done:?}");
}
