//! A device behind a broker, at each edge: whether it is there, what it is asked, and what it says
//! that it does. Told to the session itself.

use super::connections::{broker_session, connects, idle, next};
use super::edges::lines;
use super::found::{address, at_a_broker, publishes, say, say_off, tell, told_to_heat, want};
use super::*;

const MODE: &str = "climate/chamber/mode/state";
const ACTION: &str = "climate/chamber/action/state";
const TEMPERATURE: &str = "sensor/chamber_temperature/state";

/// The device has just shown that it is there, and is off. Its last word was at 1.1 s.
fn there() -> Session {
    let mut session = at_a_broker();
    say_off(&mut session, 30);
    say_off(&mut session, 1_100);
    assert_eq!(session.snapshot(1_100).link, Link::Connected);
    session
}

/// It is asked to say something.
fn asks(done: &[Command]) -> bool {
    let question =
        |one: &Command| matches!(one, Command::Publish(_, said) if said.payload == "ping");
    done.iter().any(question)
}

#[test]
fn r5_off_is_not_known_of_a_device_that_has_not_shown_that_it_is_there() {
    let mut session = at_a_broker(); // and was told off at 20
    let done = say_off(&mut session, 1_100);
    assert_eq!(session.snapshot(1_100).link, Link::Connecting, "{done:?}");
    assert!(!session.snapshot(1_100).off_known, "one word is none");
    say_off(&mut session, 2_100);
    assert_eq!(session.snapshot(2_100).link, Link::Connected);
    say_off(&mut session, 2_600);
    assert!(session.snapshot(2_600).off_known);
}

#[test]
fn r2_that_it_is_off_at_last_is_said_where_it_was_said_that_it_heats() {
    let mut session = told_to_heat();
    say(&mut session, 2_200, MODE, "heat");
    say(&mut session, 2_200, ACTION, "heating");
    want(&mut session, 3_000, 0.0);
    let mut done = Vec::new();
    for at in (3_500..33_001).step_by(500) {
        done.extend(say(&mut session, at, TEMPERATURE, "45"));
        done.extend(say(&mut session, at, ACTION, "heating"));
    }
    assert_eq!(lines(&done).len(), 1, "{done:?}");
    assert_eq!(session.snapshot(33_000).fault, Some(Trouble::StillHeats));
    let mut done = say_off(&mut session, 33_500);
    done.extend(say_off(&mut session, 34_000));
    assert_eq!(lines(&done), ["the device is off now"]);
    assert_eq!(session.snapshot(34_000).fault, None);

    // Three times switched on by hand was another fault, and is over without a word.
    let mut session = there();
    let mut said = Vec::new();
    for at in [10_000, 20_000, 30_000] {
        for early in (at - 9_000..at).step_by(1_000) {
            say_off(&mut session, early);
        }
        let done = say(&mut session, at, MODE, "heat");
        assert!(publishes(&done, "off"));
        said.extend(lines(&done).iter().map(|line| (*line).to_owned()));
    }
    assert_eq!(
        session.snapshot(30_000).fault,
        Some(Trouble::WillNotStayOff)
    );
    assert!(
        said.last().unwrap().contains("found on three times"),
        "{said:?}"
    );
    let mut done = Vec::new();
    for at in (31_000..36_000).step_by(500) {
        done.extend(say_off(&mut session, at));
    }
    assert_eq!(session.snapshot(36_000).fault, None);
    assert_eq!(lines(&done), [""; 0]);
}

#[test]
fn r6_what_cannot_be_read_of_a_device_behind_a_broker_is_counted() {
    let mut session = there();
    let fat = "x".repeat(65 * 1024);
    say(&mut session, 1_200, TEMPERATURE, &fat);
    assert_eq!(session.snapshot(1_200).ignored, 1);
    say(&mut session, 1_300, TEMPERATURE, "warm");
    assert_eq!(session.snapshot(1_300).ignored, 2);
    say(&mut session, 1_400, TEMPERATURE, "21");
    assert_eq!(session.snapshot(1_400).ignored, 2);
}

#[test]
fn r4_what_another_connection_delivers_is_nothing() {
    let mut session = there();
    let delivery = Delivery {
        topic: "panda-breath/sensor/chamber_temperature/state",
        payload: b"31",
        retained: false,
    };
    tell(&mut session, 1_200, Input::Delivered(Conn(9), delivery));
    assert_eq!(session.snapshot(1_200).reading, None);
    tell(&mut session, 1_200, Input::Delivered(Conn(1), delivery));
    assert_eq!(session.snapshot(1_200).reading.unwrap().number, 1);
}

#[test]
fn a_device_that_does_not_come_is_worth_a_line_after_ten_seconds() {
    let mut session = at_a_broker(); // opened at 20
    let done = idle(&mut session, 500, 10_020);
    assert_eq!(lines(&done), [""; 0]);
    let error = session.snapshot(10_019).last_error.unwrap();
    assert!(error.contains("waiting for the device"), "{error}");
    let done = tell(&mut session, 10_020, Input::Tick);
    assert!(lines(&done)[0].contains("nothing is heard from the device"));
    assert_eq!(lines(&idle(&mut session, 10_500, 60_000)), [""; 0], "once");

    let mut orphan = at_a_broker();
    tell(&mut orphan, 100, Input::Orphaned);
    assert_eq!(lines(&idle(&mut orphan, 500, 20_000)), [""; 0]);
}

#[test]
fn a_device_that_is_away_is_asked_every_ten_seconds_and_one_that_is_silent_every_three() {
    let mut session = at_a_broker(); // and is asked at 20
    assert_eq!(next(&mut session, 21, asks), 10_020);
    assert_eq!(next(&mut session, 10_021, asks), 20_020);
    // It has spoken: the second word is asked for.
    let mut session = at_a_broker();
    idle(&mut session, 500, 5_000);
    say_off(&mut session, 5_000);
    assert_eq!(next(&mut session, 5_001, asks), 6_000);
    assert_eq!(next(&mut session, 6_001, asks), 7_000);

    let mut session = there();
    assert_eq!(next(&mut session, 1_101, asks), 1_100 + 7_500);
    assert_eq!(next(&mut session, 8_601, asks), 8_600 + 3_000);
    say_off(&mut session, 12_000);
    assert_eq!(next(&mut session, 12_001, asks), 12_000 + 7_500);
}

#[test]
fn r5_silence_of_fifteen_seconds_is_an_absent_device() {
    let mut session = there();
    let mut done = idle(&mut session, 1_500, 16_100);
    assert_eq!(lines(&done), [""; 0]);
    assert_eq!(session.snapshot(16_099).link, Link::Connected);
    assert_eq!(session.deadline(16_000), 16_100);
    done = tell(&mut session, 16_100, Input::Tick);
    assert!(lines(&done)[0].contains("no word from the device for 15 s"));
    assert_eq!(session.snapshot(16_100).link, Link::Reconnecting);
    // Two words that prove it are less than that apart.
    for (gap, link) in [(14_999, Link::Connected), (15_000, Link::Reconnecting)] {
        let mut session = session.clone();
        say_off(&mut session, 17_000);
        idle(&mut session, 17_500, 17_000 + gap);
        say_off(&mut session, 17_000 + gap);
        assert_eq!(session.snapshot(17_000 + gap).link, link, "{gap}");
    }
    // And at least a second.
    for (gap, link) in [(999, Link::Reconnecting), (1_000, Link::Connected)] {
        let mut session = session.clone();
        say_off(&mut session, 17_000);
        say_off(&mut session, 17_000 + gap);
        assert_eq!(session.snapshot(17_000 + gap).link, link, "{gap}");
    }
}

#[test]
fn r5_a_device_that_was_said_to_be_gone_is_lost_from_then_on() {
    let mut session = at_a_broker();
    let done = say(&mut session, 100, "status", "offline");
    assert_eq!(lines(&done), [""; 0], "it was never there");
    let mut session = told_to_heat();
    tell(&mut session, 1_200, Input::Orphaned);
    let done = say(&mut session, 1_300, "status", "offline");
    assert_eq!(lines(&done), [""; 0], "nobody wants it");

    let mut session = there();
    let done = say(&mut session, 2_000, "status", "offline");
    let error = session.snapshot(2_000).last_error.unwrap();
    assert_eq!(&*error, "the broker says that the device is offline");
    let line = "connection to panda-breath on broker PandaBreath.local lost: the broker says that \
                the device is offline; waiting for it";
    assert_eq!(lines(&done), [line]);
    assert_eq!(session.snapshot(2_000).device_on, None);
    let done = say(&mut session, 2_100, "status", "offline");
    assert_eq!(lines(&done), [""; 0], "said once");
    say_off(&mut session, 3_500);
    let done = say_off(&mut session, 4_500);
    assert_eq!(lines(&done), ["connected again after 2.5 s"]);
}

#[test]
fn r6_a_broker_that_keeps_many_commands_is_told_once_each_and_eight_at_the_most() {
    let mut session = there();
    let topics = [
        "mode/command",
        "target_temperature/command",
        "target_temperature_low/command",
        "target_temperature_high/command",
    ];
    for topic in topics {
        let done = kept(&mut session, 1_200, topic, "heat");
        assert_eq!(lines(&done).len(), 1, "{topic}: {done:?}");
        let done = kept(&mut session, 1_300, topic, "heat");
        assert_eq!(lines(&done), [""; 0], "{topic}: known");
    }
    for (n, topic) in topics.iter().enumerate() {
        let fault = session.snapshot(1_400).fault;
        assert!(matches!(fault, Some(Trouble::RetainedCommand(_))), "{n}");
        let done = kept(&mut session, 1_400, topic, "");
        assert!(
            lines(&done)[0].contains("no longer keeps"),
            "{topic}: {done:?}"
        );
        let done = kept(&mut session, 1_400, topic, "");
        assert_eq!(lines(&done), [""; 0], "{topic}: it did not");
    }
    assert_eq!(session.snapshot(1_400).fault, None);
}

/// The broker has kept this on a command topic.
fn kept(session: &mut Session, now: Millis, topic: &str, payload: &str) -> Vec<Command> {
    let delivery = Delivery {
        topic: &format!("panda-breath/climate/chamber/{topic}"),
        payload: payload.as_bytes(),
        retained: true,
    };
    tell(session, now, Input::Delivered(Conn(1), delivery))
}

#[test]
fn a_command_that_the_broker_keeps_is_kept_in_mind_while_the_device_is_away() {
    let mut session = there();
    let (mode, target) = ("mode/command", "target_temperature/command");
    kept(&mut session, 1_200, mode, "heat");
    kept(&mut session, 1_200, target, "45");
    let mut at = 1_300;
    for (cleared, left) in [
        (None, Some(mode)),
        (Some(mode), Some(target)),
        (Some(target), None),
    ] {
        if let Some(topic) = cleared {
            kept(&mut session, at, topic, "");
        }
        say(&mut session, at, "status", "offline");
        say_off(&mut session, at + 1_000);
        say_off(&mut session, at + 2_000);
        assert_eq!(session.snapshot(at).link, Link::Connected);
        let said = match session.snapshot(at).fault {
            Some(Trouble::RetainedCommand(topic)) => Some(topic),
            _ => None,
        };
        let left = left.map(|left| format!("panda-breath/climate/chamber/{left}"));
        assert_eq!(said.as_deref(), left.as_deref());
        at += 3_000;
    }
}

#[test]
fn identity_a_stranger_is_feared_for_a_minute() {
    let card = |session: &mut Session, now, mac: &str| {
        let card = format!(r#"{{"name":"panda-breath","mac":"{mac}","version":"1"}}"#);
        let delivery = Delivery {
            topic: "esphome/discover/panda-breath",
            payload: card.as_bytes(),
            retained: false,
        };
        tell(session, now, Input::Delivered(Conn(1), delivery));
    };
    let (one, other) = ("aabbccddee01", "aabbccddee02");
    let claims = |done: &[Command]| done.iter().any(|one| matches!(one, Command::Claim(_)));
    for (at, believed) in [(61_999, false), (62_000, true)] {
        let mut session = at_a_broker();
        card(&mut session, 30, one);
        say_off(&mut session, 30);
        assert!(claims(&say_off(&mut session, 1_100)));
        let ours = Claim::Ours { doubt: false };
        let who = Identity::of_mac(one).unwrap();
        let done = tell(&mut session, 1_100, Input::Claimed(who, ours));
        assert!(lines(&done)[0].ends_with(", esphome, firmware 1, device ee01"));
        card(&mut session, 2_000, other);
        let mut asked = 0;
        for at in (3_000..61_500).step_by(500) {
            let done = if at % 1_500 == 0 {
                say_off(&mut session, at)
            } else {
                tell(&mut session, at, Input::Tick)
            };
            assert!(!claims(&done), "{at}");
            assert_eq!(session.snapshot(at).link, Link::Error);
            asked += u32::from(asks(&done));
        }
        assert!((5..=7).contains(&asked), "every ten seconds: {asked}");
        let done = say(&mut session, at, MODE, "off");
        assert_eq!(claims(&done), believed, "{at}");
    }
}

/// What Home Assistant is told: below this the commands are.
fn announce(session: &mut Session, now: Millis, conn: u32, below: &str) -> Vec<Command> {
    let text = format!(
        r#"{{"~":"panda-breath/{below}","mode_cmd_t":"~/mode/command","modes":["off","heat"],
        "mode_stat_t":"panda-breath/climate/chamber/mode/state",
        "temp_cmd_t":"~/target_temperature/command","max_temp":70}}"#
    );
    let delivery = Delivery {
        topic: "homeassistant/climate/panda-breath/chamber/config",
        payload: text.as_bytes(),
        retained: true,
    };
    tell(session, now, Input::Delivered(Conn(conn), delivery))
}

fn leaves(done: &[Command]) -> bool {
    done.iter().any(|one| matches!(one, Command::Leave(_)))
}

#[test]
fn r6_topics_that_move_again_and_again_are_followed_three_times_and_then_in_no_hurry() {
    let mut session = at_a_broker();
    let done = announce(&mut session, 100, 1, "climate/chamber");
    assert!(!leaves(&done), "where it was looked for: {done:?}");
    for n in 1..=3 {
        let done = announce(
            &mut session,
            100 * n,
            n.try_into().unwrap(),
            &format!("at/{n}"),
        );
        assert!(leaves(&done) && connects(&done), "{n}: {done:?}");
        let conn = Conn(u32::try_from(n).unwrap() + 1);
        tell(&mut session, 100 * n + 10, Input::Opened(conn, address()));
    }
    let done = announce(&mut session, 400, 4, "at/4");
    assert!(leaves(&done) && !connects(&done), "{done:?}");
    assert_eq!(next(&mut session, 401, connects), 3_400);
}

#[test]
fn r7_what_is_wrong_is_not_covered_by_a_broker_that_answers() {
    let config = at_a_broker().config;
    let mut session = Session::after_panic(config, 1, &Snapshot::default(), "a bug", 0);
    tell(&mut session, 0, Input::Tick);
    tell(&mut session, 20, Input::Opened(Conn(1), address()));
    let error = session.snapshot(20).last_error.unwrap();
    assert!(error.contains("a bug"), "{error}");
    say(&mut session, 30, "status", "offline");
    let error = session.snapshot(30).last_error.unwrap();
    assert!(error.contains("a bug"), "{error}");
}

/// It says this on that connection.
fn say_on(
    session: &mut Session,
    now: Millis,
    conn: u32,
    leaf: &str,
    payload: &str,
) -> Vec<Command> {
    session.renew(now);
    let delivery = Delivery {
        topic: &format!("panda-breath/{leaf}"),
        payload: payload.as_bytes(),
        retained: false,
    };
    tell(session, now, Input::Delivered(Conn(conn), delivery))
}

fn say_heating(session: &mut Session, now: Millis, conn: u32) {
    let target = "climate/chamber/target_temperature/state";
    for (leaf, payload) in [(target, "45"), (ACTION, "heating"), (MODE, "heat")] {
        say_on(session, now, conn, leaf, payload);
    }
}

#[test]
fn r8_an_off_is_our_own_wills_for_ten_seconds_after_the_device_is_back() {
    for (off_at, dropped) in [(14_099, 0), (14_100, 1)] {
        let mut session = told_to_heat();
        say_heating(&mut session, 2_200, 1);
        tell(&mut session, 3_000, Input::Closed(Conn(1), "reset"));
        tell(&mut session, 3_020, Input::Opened(Conn(2), address()));
        say_heating(&mut session, 3_100, 2);
        for at in (4_100..off_at).step_by(1_000) {
            say_heating(&mut session, at, 2);
        }
        assert_eq!(session.snapshot(off_at).link, Link::Connected);
        say_on(&mut session, off_at, 2, MODE, "off");
        session.renew(off_at + 1_200);
        tell(&mut session, off_at + 1_200, Input::Tick);
        assert_eq!(session.snapshot(off_at).forced_offs, dropped, "{off_at}");
    }
}

#[test]
fn r9_an_off_within_a_second_of_heat_may_answer_to_what_was_before() {
    for (off_at, dropped) in [(2_099, 0), (2_100, 1)] {
        let mut session = told_to_heat(); // at 1.1 s
        say(&mut session, 1_200, "status", "online"); // it has connected anew
        say_heating(&mut session, 1_300, 1);
        say_on(&mut session, off_at, 1, MODE, "off");
        session.renew(off_at + 1_200);
        tell(&mut session, off_at + 1_200, Input::Tick);
        assert_eq!(session.snapshot(off_at).forced_offs, dropped, "{off_at}");
    }
}

#[test]
fn identity_what_one_stray_message_has_taught_is_forgotten_after_half_a_minute() {
    let learnt = || {
        let mut session = broker_session(); // of no firmware in particular
        tell(&mut session, 0, Input::Tick);
        tell(&mut session, 20, Input::Opened(Conn(1), address()));
        say(&mut session, 100, TEMPERATURE, "21");
        assert_eq!(session.dialect(), Some(Dialect::Esphome));
        tell(&mut session, 120, Input::Opened(Conn(2), address()));
        session
    };
    let mut session = learnt();
    assert_eq!(next(&mut session, 121, leaves), 30_120);
    assert_eq!(session.dialect(), None);
    // Nothing is to be doubted of one that was there.
    let mut session = learnt();
    say_heating(&mut session, 200, 2);
    say_heating(&mut session, 1_200, 2);
    assert_eq!(session.snapshot(1_200).link, Link::Connected);
    let done = idle(&mut session, 1_500, 90_000);
    assert!(!leaves(&done), "{done:?}");
    assert_eq!(session.snapshot(90_000).link, Link::Reconnecting);
    assert_eq!(session.dialect(), Some(Dialect::Esphome));
}
