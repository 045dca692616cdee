//! What the scenarios pass by: both sides of each edge, told to the session itself. Every one of
//! these was missing once, and a mutant had survived (docs/mutants.md).

use super::broker_world::BrokerWorld;
use super::found::{
    SNAPSHOT, address, open, publishes, say, say_off, tell, told_to_heat, want, who,
};
use super::peer::Kind;
use super::*;
use crate::dialect::Fault;
use crate::dialect::mqtt::Options;

const CLIMATE: &str = "climate/chamber";

/// A session whose device is there, off, and has said so.
pub(super) fn live() -> Session {
    let mut session = open();
    tell(&mut session, 30, Input::Frame(Conn(1), SNAPSHOT.as_bytes()));
    tell(
        &mut session,
        30,
        Input::Claimed(who(SNAPSHOT), Claim::Ours { doubt: false }),
    );
    assert_eq!(session.snapshot(30).link, Link::Connected);
    session
}

pub(super) fn lines(done: &[Command]) -> Vec<&str> {
    done.iter()
        .filter_map(|one| {
            let Command::Tell(event) = one else {
                return None;
            };
            Some(event.text.as_str())
        })
        .collect()
}

pub(super) fn aborts(done: &[Command]) -> bool {
    done.iter().any(|one| matches!(one, Command::Abort(_)))
}

#[test]
fn r5_a_gap_of_two_seconds_is_none_and_a_longer_one_ends_the_connection() {
    for (gap, ends) in [(2_000, false), (2_001, true)] {
        let mut session = live();
        let done = tell(&mut session, 30 + gap, Input::Tick);
        assert_eq!(aborts(&done), ends, "{gap}: {done:?}");
    }
}

#[test]
fn r8_a_long_sleep_ends_a_lease_only_of_a_wish_to_heat() {
    let mut idle = live();
    tell(&mut idle, 60_000, Input::Tick);
    assert_eq!(idle.snapshot(60_000).forced_offs, 0, "nothing to force off");
    for (slept, forced_offs) in [(9_999, 0), (10_000, 1)] {
        let mut session = live();
        want(&mut session, 40, 45.0);
        session.renew(40 + slept); // the reactor woke up first
        tell(&mut session, 40 + slept, Input::Tick);
        let snapshot = session.snapshot(40 + slept);
        assert_eq!(snapshot.forced_offs, forced_offs, "{slept}");
    }
}

#[test]
fn a_new_target_clears_what_was_only_said_once_and_no_target_does_not() {
    let mut session = live();
    let stopped = br#"{"settings":{"ptc_heater_status":0}}"#;
    tell(&mut session, 100, Input::Frame(Conn(1), stopped));
    let fault = Some(Trouble::Device(Fault::Heater));
    assert_eq!(session.snapshot(100).fault, fault);
    want(&mut session, 110, -1.0);
    want(&mut session, 120, 0.0);
    assert_eq!(session.snapshot(120).fault, fault);
    want(&mut session, 130, 45.0);
    assert_eq!(session.snapshot(130).fault, None);
}

#[test]
fn another_way_in_at_the_broker_is_another_connection() {
    let mut session = live();
    let same = Config::default();
    assert!(!aborts(&tell(&mut session, 50, Input::Adopted(&same))));
    let other = Config {
        access: 7,
        ..Config::default()
    };
    assert!(aborts(&tell(&mut session, 60, Input::Adopted(&other))));
    let mut session = live();
    let other = Config {
        mqtt: Some(Options::default()),
        ..Config::default()
    };
    assert!(aborts(&tell(&mut session, 60, Input::Adopted(&other))));
}

#[test]
fn r6_what_cannot_be_read_and_what_is_not_said_is_counted() {
    let mut session = live();
    for at in [40, 50, 60] {
        tell(&mut session, at, Input::Unreadable(Conn(1)));
    }
    assert_eq!(session.snapshot(60).ignored, 3);
    tell(&mut session, 60, Input::Frame(Conn(1), b"{"));
    assert_eq!(session.snapshot(60).ignored, 4);
    let absurd = br#"{"settings":{"work_mode":[],"warehouse_temper":"warm"}}"#;
    tell(&mut session, 60, Input::Frame(Conn(1), absurd));
    assert_eq!(session.snapshot(60).ignored, 6, "each field that is none");
    for n in 0..30 {
        session.tell(70, format!("line {n}"));
    }
    while session.poll().is_some() {}
    session.tell(70 + 30_000, "the next".to_owned());
    let done: Vec<Command> = std::iter::from_fn(|| session.poll()).collect();
    // One line was said when it connected.
    assert_eq!(lines(&done), ["the next (11 earlier messages left out)"]);
}

#[test]
fn a_correction_is_told_and_a_new_target_is_none() {
    let mut session = live();
    want(&mut session, 40, 45.0);
    let other = br#"{"settings":{"work_on":1,"work_mode":2,"set_temp":20}}"#;
    let done = tell(&mut session, 1_100, Input::Frame(Conn(1), other));
    assert!(
        lines(&done)[0].contains("set to something else"),
        "{done:?}"
    );

    let mut session = told_to_heat();
    for leaf in [
        ("target_temperature/state", "45"),
        ("action/state", "heating"),
    ] {
        say(
            &mut session,
            2_200,
            &format!("{CLIMATE}/{}", leaf.0),
            leaf.1,
        );
    }
    say(
        &mut session,
        2_300,
        &format!("{CLIMATE}/mode/state"),
        "heat",
    );
    let done = want(&mut session, 2_400, 50.0);
    assert!(publishes(&done, "50"), "{done:?}");
    assert_eq!(lines(&done), [""; 0], "it is Klipper's own");
}

#[test]
fn a_new_target_waits_for_an_answer_and_for_nothing_else() {
    let mut session = told_to_heat();
    let done = want(&mut session, 1_200, 50.0);
    assert!(!publishes(&done, "50"), "one is unanswered");
    let done = say(
        &mut session,
        1_300,
        &format!("{CLIMATE}/target_temperature/state"),
        "45",
    );
    assert!(publishes(&done, "50"), "{done:?}");
}

#[test]
fn why_a_device_does_not_heat_is_said_as_it_is() {
    let refused = |what: &[(&str, &str)]| {
        let mut session = told_to_heat();
        for at in (2_200..20_000).step_by(500) {
            session.renew(at);
            for (leaf, payload) in what {
                say(&mut session, at, &format!("{CLIMATE}/{leaf}"), payload);
            }
            if let Some(forced) = session.snapshot(at).forced_off {
                assert_eq!(forced.reason, Reason::Refused);
                return forced.text.to_string();
            }
        }
        panic!("it is never given up");
    };
    let off = [("target_temperature/state", "45"), ("mode/state", "off")];
    assert!(refused(&off).contains("twice, and stays off"));
    let auto = [
        ("target_temperature/state", "45"),
        ("mode/state", "heat_cool"),
    ];
    assert!(refused(&auto).contains("does not answer to its target"));
    let clamped = [("target_temperature/state", "40"), ("mode/state", "heat")];
    assert!(refused(&clamped).contains("40 C instead of 45 C"));
}

#[test]
fn r4_off_behind_a_broker_is_not_known_before_old_heat_had_time_to_arrive() {
    let mut session = told_to_heat();
    tell(&mut session, 1_200, Input::Closed(Conn(1), "reset"));
    want(&mut session, 1_200, 0.0);
    tell(&mut session, 1_210, Input::Reached(Conn(2)));
    tell(&mut session, 1_220, Input::Opened(Conn(2), address()));
    let said = |session: &mut Session, now| {
        for (leaf, payload) in [("action/state", "idle"), ("mode/state", "off")] {
            let delivery = Delivery {
                topic: &format!("panda-breath/{CLIMATE}/{leaf}"),
                payload: payload.as_bytes(),
                retained: false,
            };
            tell(session, now, Input::Delivered(Conn(2), delivery));
        }
    };
    for at in (1_300..13_300).step_by(500) {
        said(&mut session, at);
        assert!(!session.snapshot(at).off_known, "{at}: it was undelivered");
    }
    for at in (13_300..16_000).step_by(500) {
        said(&mut session, at);
    }
    assert!(session.snapshot(16_000).off_known);
}

#[test]
fn r6_a_device_that_comes_many_times_is_told_off_a_few_times() {
    let mut session = told_to_heat();
    say_off(&mut session, 1_150);
    let mut offs = usize::from(publishes(&want(&mut session, 1_200, 0.0), "off"));
    assert_eq!(offs, 1, "it never waits");
    for n in 0..900 {
        let done = say(&mut session, 1_200 + n, "status", "online");
        offs += usize::from(publishes(&done, "off"));
    }
    assert_eq!(offs, 1 + 4, "the first is no repetition");
    // What has been used up is of the connection before: the first off of the next never waits.
    tell(&mut session, 2_150, Input::Closed(Conn(1), "reset"));
    let done = tell(&mut session, 2_160, Input::Opened(Conn(2), address()));
    assert!(publishes(&done, "off"), "{done:?}");
}

#[test]
fn r7_after_a_bug_a_device_that_was_never_met_is_not_given_up() {
    let before = Snapshot::default();
    let mut session = Session::after_panic(Config::default(), 1, &before, "a bug", 0);
    let mut done = tell(&mut session, 0, Input::Orphaned);
    for at in (1_000..60_000).step_by(1_000) {
        done.extend(tell(&mut session, at, Input::Tick));
    }
    assert!(
        !done.contains(&Command::End),
        "it may have left heat behind"
    );
}

#[test]
fn r10_corrections_that_are_used_up_hold_no_new_target_back() {
    let config = Config {
        mqtt: Some(Options::default()),
        ..Config::default()
    };
    let mut world = BrokerWorld::heating(config, &Kind::Esphome(Box::default()));
    let topic = "panda-breath/climate/chamber/target_temperature/command";
    for _ in 0..10 {
        world.publish(topic, "20", false);
        world.run(2_000);
    }
    assert!((world.node.state().target_c - 20.0).abs() < 0.1, "used up");
    world.set_target(50.0);
    world.run(100);
    let sent = world.texts();
    assert!(sent.last().unwrap().ends_with(" 50"), "{sent:?}");
}

#[test]
fn r9_a_late_answer_to_our_own_heat_is_nobodys_hand() {
    let mut session = told_to_heat();
    want(&mut session, 1_200, 0.0);
    let done = say(&mut session, 2_700, "climate/chamber/mode/state", "heat");
    assert_eq!(lines(&done), [""; 0], "off is still being waited for");
}

#[test]
fn r9_an_answer_to_an_off_that_was_taken_back_is_nobodys_hand() {
    let mut session = told_to_heat();
    for at in (2_200..20_000).step_by(1_000) {
        session.renew(at);
        for (leaf, payload) in [
            ("target_temperature/state", "45"),
            ("action/state", "heating"),
            ("mode/state", "heat"),
        ] {
            say(&mut session, at, &format!("{CLIMATE}/{leaf}"), payload);
        }
    }
    assert!(publishes(&want(&mut session, 20_000, 0.0), "off"));
    assert!(publishes(&want(&mut session, 20_100, 45.0), "heat"));
    say(&mut session, 20_300, "climate/chamber/mode/state", "off");
    for at in [21_000, 22_000] {
        session.renew(at);
        tell(&mut session, at, Input::Tick);
    }
    assert_eq!(session.snapshot(22_000).forced_offs, 0);
}
