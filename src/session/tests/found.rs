//! What fuzzing found, one case each, told to the session itself.

use super::broker_world::BrokerWorld;
use super::peer::Kind;
use super::*;
use crate::dialect::mqtt::Options;

pub(super) const SNAPSHOT: &str = r#"{"ap":{"ssid":"Panda_Breath_AABBCCDDEEFF"},
    "settings":{"fw_version":"V1.0.3","work_on":0,"work_mode":2,"set_temp":45}}"#;

/// Has it happen, and returns what is to be done.
pub(super) fn tell(session: &mut Session, now: Millis, input: Input<'_>) -> Vec<Command> {
    session.handle(now, input);
    std::iter::from_fn(|| session.poll()).collect()
}

pub(super) fn address() -> SocketAddr {
    "192.0.2.10:80".parse().unwrap()
}

/// Who a snapshot says the device is.
pub(super) fn who(snapshot: &str) -> Identity {
    let report = crate::dialect::stock::Stock::default().decode(snapshot.as_bytes());
    report.unwrap().identity.unwrap()
}

/// A session whose first connection is open.
pub(super) fn open() -> Session {
    let mut session = Session::new(Config::default(), 1);
    tell(&mut session, 0, Input::Tick);
    tell(&mut session, 10, Input::Reached(Conn(1)));
    tell(&mut session, 20, Input::Opened(Conn(1), address()));
    session
}

#[test]
fn identity_a_late_answer_about_an_earlier_connection_verifies_nobody() {
    let mut session = open();
    let asked = tell(&mut session, 30, Input::Frame(Conn(1), SNAPSHOT.as_bytes()));
    assert!(matches!(asked[..], [Command::Claim(_)]), "{asked:?}");
    tell(&mut session, 40, Input::Closed(Conn(1), "reset"));
    tell(&mut session, 50, Input::Reached(Conn(2)));
    tell(&mut session, 60, Input::Opened(Conn(2), address()));
    let ours = Claim::Ours { doubt: false };
    let done = tell(&mut session, 70, Input::Claimed(who(SNAPSHOT), ours));
    assert_eq!(session.snapshot(70).link, Link::Connecting, "{done:?}");
    let reading = br#"{"settings":{"warehouse_temper":31}}"#;
    tell(&mut session, 80, Input::Frame(Conn(2), reading));
    assert_eq!(session.snapshot(80).reading, None, "from nobody knows whom");
}

/// What the node says of itself.
pub(super) fn say(session: &mut Session, now: Millis, leaf: &str, payload: &str) -> Vec<Command> {
    let delivery = Delivery {
        topic: &format!("panda-breath/{leaf}"),
        payload: payload.as_bytes(),
        retained: false,
    };
    tell(session, now, Input::Delivered(Conn(1), delivery))
}

/// It is off.
pub(super) fn say_off(session: &mut Session, now: Millis) -> Vec<Command> {
    let mut done = say(
        session,
        now,
        "climate/chamber/target_temperature/state",
        "20",
    );
    done.extend(say(session, now, "climate/chamber/action/state", "idle"));
    done.extend(say(session, now, "climate/chamber/mode/state", "off"));
    done
}

pub(super) fn want(session: &mut Session, now: Millis, target: f64) -> Vec<Command> {
    let wish = Wish {
        target,
        dry: false,
        armed: true,
        ack: 0,
        hand: 0,
    };
    tell(session, now, Input::Wish(wish))
}

pub(super) fn publishes(done: &[Command], payload: &str) -> bool {
    done.iter()
        .any(|one| matches!(one, Command::Publish(_, said) if said.payload == payload))
}

/// A session whose broker has let it in.
pub(super) fn at_a_broker() -> Session {
    let config = Config {
        mqtt: Some(Options {
            dialect: Some(Dialect::Esphome),
            ..Default::default()
        }),
        ..Config::default()
    };
    let mut session = Session::new(config, 1);
    tell(&mut session, 0, Input::Tick);
    tell(&mut session, 10, Input::Reached(Conn(1)));
    tell(&mut session, 20, Input::Opened(Conn(1), address()));
    session
}

/// A session with a node that has said twice that it is off, and has just been told to heat.
pub(super) fn told_to_heat() -> Session {
    let mut session = at_a_broker();
    say_off(&mut session, 30);
    say_off(&mut session, 1_100);
    let done = want(&mut session, 1_100, 45.0);
    assert!(publishes(&done, "heat"), "{done:?}");
    session
}

#[test]
fn r2_what_was_told_before_off_was_asked_for_does_not_confirm_it() {
    let mut session = told_to_heat();
    let done = want(&mut session, 1_100, 0.0); // in the same millisecond
    assert!(publishes(&done, "off"), "{done:?}");
    tell(&mut session, 2_100, Input::Tick);
    assert!(!session.snapshot(2_100).off_known, "it has not answered");
}

#[test]
fn r2_heat_that_is_given_up_without_an_answer_is_turned_off() {
    let mut session = told_to_heat();
    let mut done = Vec::new();
    for at in (2_000..18_000).step_by(1_000) {
        session.renew(at);
        done = say(&mut session, at, "sensor/chamber_temperature/state", "21");
        if session.snapshot(at).forced_offs > 0 {
            break;
        }
        assert!(!publishes(&done, "off"), "{at} {done:?}");
    }
    assert!(publishes(&done, "off"), "{done:?}");
    assert!(!session.snapshot(18_000).off_known, "it has not answered");
}

#[test]
fn identity_an_answer_about_another_device_verifies_nobody() {
    let mut session = open();
    tell(&mut session, 30, Input::Frame(Conn(1), SNAPSHOT.as_bytes()));
    let other = Identity::of("another unit");
    let ours = Claim::Ours { doubt: false };
    tell(&mut session, 40, Input::Claimed(other, ours));
    assert_eq!(session.snapshot(40).link, Link::Connecting);
    tell(&mut session, 50, Input::Claimed(who(SNAPSHOT), ours));
    assert_eq!(session.snapshot(50).link, Link::Connected);
}

#[test]
fn r5_a_reading_that_waited_for_the_answer_to_a_claim_is_none() {
    let text = SNAPSHOT.replace("\"work_on\"", "\"warehouse_temper\":31,\"work_on\"");
    for (answered_at, readings) in [(30, 1), (1_030, 0)] {
        let mut session = open();
        tell(&mut session, 30, Input::Frame(Conn(1), text.as_bytes()));
        let ours = Claim::Ours { doubt: false };
        tell(
            &mut session,
            answered_at,
            Input::Claimed(who(SNAPSHOT), ours),
        );
        let snapshot = session.snapshot(answered_at);
        assert_eq!(snapshot.link, Link::Connected);
        assert_eq!(snapshot.reading.map_or(0, |one| one.number), readings);
    }
}

#[test]
fn identity_a_stray_card_before_the_devices_own_is_forgotten() {
    let mut session = at_a_broker();
    let card = |session: &mut Session, now, mac: &str| {
        let card = format!(r#"{{"name":"panda-breath","mac":"{mac}","version":"1"}}"#);
        let delivery = Delivery {
            topic: "esphome/discover/panda-breath",
            payload: card.as_bytes(),
            retained: false,
        };
        tell(session, now, Input::Delivered(Conn(1), delivery));
        say_off(session, now);
        let ours = Claim::Ours { doubt: false };
        let who = Identity::of_mac(mac).unwrap();
        tell(session, now, Input::Claimed(who, ours));
    };
    card(&mut session, 30, "aabbccddee02");
    for at in (1_000..120_000).step_by(1_000) {
        card(&mut session, at, "aabbccddee01");
        if at == 30_000 {
            assert_eq!(session.snapshot(at).link, Link::Error, "which is it?");
        }
    }
    let snapshot = session.snapshot(119_000);
    assert_eq!(snapshot.link, Link::Connected, "{:?}", snapshot.last_error);
    assert_eq!(snapshot.identity.unwrap().last4(), "ee01");

    // Two that both go on speaking are never believed.
    let mut session = at_a_broker();
    for at in (1_000..120_000).step_by(1_000) {
        card(&mut session, at, "aabbccddee01");
        card(&mut session, at, "aabbccddee02");
        assert_ne!(session.snapshot(at).link, Link::Connected, "{at}");
    }
}

#[test]
fn identity_a_stray_device_that_was_heard_first_is_forgotten_with_its_connection() {
    let config = Config {
        mqtt: Some(Options {
            dialect: Some(Dialect::StockMqtt),
            ..Options::default()
        }),
        ..Config::default()
    };
    let mut world = BrokerWorld::new(config, &Kind::Stock);
    world.drop_device();
    world.run(20);
    let state = r#"{"chamber_temp":30,"work_on":"OFF"}"#;
    for _ in 0..2 {
        world.publish("panda_breath/025042000002/state", state, false);
        world.run(20);
    }
    world.run(15_000);
    assert_eq!(world.snapshot().link, Link::Error, "which is it?");
    world.cut();
    world.run(15_000);
    let snapshot = world.snapshot();
    assert_eq!(snapshot.link, Link::Connected, "{:?}", world.lines);
    assert_eq!(snapshot.identity.unwrap().last4(), "0001");
}
