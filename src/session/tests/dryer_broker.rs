//! Drying filament behind a broker: firmware 1.0.4 says what it does, and an ESPHome node does not
//! know what it is for.

use super::super::{Claim, Config, Conn, Input, Link, Reason, Session, Wish};
use super::broker_world::BrokerWorld;
use super::found::{address, tell};
use super::peer::Kind;
use crate::dialect::mqtt::{Delivery, Options};
use crate::dialect::{Dialect, Identity};

const HOUR: u64 = 3_600_000;

fn kinds() -> [Kind; 2] {
    [Kind::Stock, Kind::Esphome(Box::default())]
}

fn drying(kind: &Kind) -> BrokerWorld {
    drying_for(1, kind)
}

fn drying_for(drying_hours: u8, kind: &Kind) -> BrokerWorld {
    let config = Config {
        mqtt: Some(Options::default()),
        drying_hours,
        ..Config::default()
    };
    let mut world = BrokerWorld::connected(config, kind);
    world.dry(50.0);
    world.run(8_000);
    let state = world.node.state();
    assert!(
        state.dries && (state.dry_c - 50.0).abs() < 0.06,
        "{state:?}"
    );
    assert_eq!(world.snapshot().drying, Some(true));
    world
}

fn reason(world: &BrokerWorld) -> Option<Reason> {
    world.snapshot().forced_off.map(|forced| forced.reason)
}

#[test]
fn dryer_behind_a_broker_ends_by_itself() {
    for kind in kinds() {
        let mut world = drying(&kind);
        let said = world.sent.len();
        world.run(HOUR / 2);
        assert_eq!(world.sent.len(), said, "{:?}", world.texts());
        let left = world.snapshot().remaining.unwrap().0;
        assert!((1_780..1_800).contains(&left), "{left}");
        world.run(HOUR / 2);
        assert_eq!(reason(&world), Some(Reason::Dried), "{kind:?}");
        assert_eq!(world.snapshot().failures, 0);
        let state = world.node.state();
        assert!(!state.heat && !state.relay);
        world.run(10_000);
        assert!(world.snapshot().off_known);
        assert!(world.klipper.target <= 0.0);
    }
}

#[test]
fn dryer_behind_a_broker_the_devices_own_end_is_the_end() {
    let mut world = drying_for(2, &Kind::Stock);
    let shorter = r#"{"custom_timer":1,"filament_drying_mode":"custom"}"#;
    world.publish("panda_breath/025042000001/command", shorter, false);
    world.run(HOUR + 20_000);
    assert_eq!(reason(&world), Some(Reason::Dried));
    assert!(!world.node.state().heat);
}

#[test]
fn r4_a_device_behind_a_broker_that_restarts_dries_on_and_no_longer() {
    for kind in kinds() {
        let mut world = drying(&kind);
        world.run(HOUR / 2);
        world.reboot_device();
        world.run(30_000);
        assert!(world.node.state().dries, "{:?}", world.lines);
        assert_eq!(reason(&world), None);
        world.run(HOUR / 2);
        assert_eq!(reason(&world), Some(Reason::Dried));
        assert!(!world.node.state().heat);
    }
}

#[test]
fn r9_ended_by_another_client_it_is_not_begun_again() {
    let mut world = drying(&Kind::Stock);
    world.run(60_000);
    let topic = "panda_breath/025042000001/command";
    world.publish(topic, r#"{"drying_running":"OFF"}"#, false);
    world.run(10_000);
    assert_eq!(reason(&world), Some(Reason::ExternalOff));
    assert!(!world.node.state().heat, "R2: off is off");
    assert!(world.snapshot().external_off);
}

#[test]
fn r8_the_broker_ends_it_when_klipper_is_killed() {
    for kind in kinds() {
        let mut world = drying(&kind);
        world.die();
        world.run(5_000);
        let state = world.node.state();
        assert!(!state.heat && !state.relay, "{kind:?}");
    }
}

#[test]
fn dryer_behind_a_broker_a_chamber_that_is_heated_does_not_dry() {
    for (kind, dries) in kinds().into_iter().zip([Some(false), None]) {
        let config = Config {
            mqtt: Some(Options::default()),
            ..Config::default()
        };
        let world = BrokerWorld::heating(config, &kind);
        assert_eq!(world.snapshot().drying, dries, "{kind:?}");
    }
}

/// A session with a device that was off, and has just been told to dry.
fn told_to_dry() -> Session {
    let config = Config {
        mqtt: Some(Options {
            dialect: Some(Dialect::StockMqtt),
            device_id: Some("aabbccddee01".into()),
            ..Options::default()
        }),
        ..Config::default()
    };
    let mut session = Session::new(config, 1);
    tell(&mut session, 0, Input::Tick);
    tell(&mut session, 10, Input::Reached(Conn(1)));
    tell(&mut session, 20, Input::Opened(Conn(1), address()));
    let off = r#"{"work_on":"OFF","chamber_temp":21}"#;
    for at in [30, 1_100] {
        say(&mut session, at, off);
    }
    let identity = Identity::of_mac("AABBCCDDEE01").unwrap();
    let ours = Claim::Ours { doubt: false };
    tell(&mut session, 1_100, Input::Claimed(identity, ours));
    assert_eq!(session.snapshot(1_100).link, Link::Connected);
    let wish = Wish {
        target: 50.0,
        dry: true,
        armed: true,
        ..Wish::default()
    };
    let done = tell(&mut session, 1_100, Input::Wish(wish));
    assert!(
        format!("{done:?}").contains("filament_drying_mode"),
        "{done:?}"
    );
    session
}

fn say(session: &mut Session, now: u64, payload: &str) {
    let delivery = Delivery {
        topic: "panda_breath/AABBCCDDEE01/state",
        payload: payload.as_bytes(),
        retained: false,
    };
    tell(session, now, Input::Delivered(Conn(1), delivery));
}

#[test]
fn why_a_device_does_not_dry_is_said_as_it_is() {
    for (payload, why) in [
        (
            r#"{"work_on":"ON","mode":"power on","target_temp":50,"drying_running":"OFF"}"#,
            "the device does not begin to dry",
        ),
        (
            r#"{"work_on":"OFF","mode":"filament drying","drying_running":"OFF"}"#,
            "the device was told to heat, twice, and stays off",
        ),
    ] {
        let mut session = told_to_dry();
        for at in (2_200..20_000).step_by(500) {
            session.renew(at);
            say(&mut session, at, payload);
        }
        let forced = session.snapshot(20_000).forced_off.expect(payload);
        assert_eq!((forced.reason, &*forced.text), (Reason::Refused, why));
    }
}

#[test]
fn dryer_and_chamber_behind_a_broker_follow_each_other() {
    for kind in kinds() {
        let mut world = drying(&kind);
        world.set_target(45.0);
        world.run(5_000);
        let state = world.node.state();
        assert!(state.heat && (state.target_c - 45.0).abs() < 0.06);
        world.dry(55.0);
        world.run(5_000);
        let state = world.node.state();
        assert!(state.dries && (state.dry_c - 55.0).abs() < 0.06);
        assert_eq!(world.snapshot().forced_offs, 0);
    }
}
