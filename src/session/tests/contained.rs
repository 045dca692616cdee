//! A reactor that stalls, a clock that jumps, and what nobody reads for an hour.

use super::broker_world::BrokerWorld;
use super::peer::Kind;
use super::*;
use crate::dialect::mqtt::Options;

/// What the lease of 10 s makes of a stall of so long: whether the target is dropped.
const STALLS: [(Millis, bool); 3] = [(5_000, false), (15_000, true), (60_000, true)];

#[test]
fn r8_a_reactor_that_stalls_for_5_15_and_60_s() {
    for (time, dropped) in STALLS {
        let mut world = World::heating();
        let heard = world.now;
        world.klipper.stalled = true;
        world.run(time);
        assert_eq!(world.state().0, u8::from(!dropped), "{time} ms");
        if dropped {
            let (at, _) = world.sent[0];
            assert!(at <= heard + 10_000, "{time} ms: at {} ms", at - heard);
        }
        world.klipper.stalled = false;
        world.run(30_000);
        let snapshot = world.snapshot();
        let sent: &[&str] = if dropped { &[OFF] } else { &[] };
        assert_eq!(world.texts(), sent, "{time} ms");
        assert_eq!(snapshot.failures, u32::from(dropped), "{time} ms");
        let reason = snapshot.forced_off.map(|forced| forced.reason);
        assert_eq!(reason, dropped.then_some(Reason::Lease), "{time} ms");
        assert_eq!(world.klipper.target > 0.0, !dropped, "{time} ms");
        assert_eq!(snapshot.link, Link::Connected, "the driver was well");
    }
}

#[test]
fn r8_a_reactor_that_stalls_behind_a_broker() {
    for (dialect, kind) in [
        (Dialect::Esphome, Kind::Esphome(Box::default())),
        (Dialect::StockMqtt, Kind::Stock),
    ] {
        for (time, dropped) in STALLS {
            let config = Config {
                mqtt: Some(Options {
                    dialect: Some(dialect),
                    ..Options::default()
                }),
                ..Config::default()
            };
            let mut world = BrokerWorld::heating(config, &kind);
            world.klipper.stalled = true;
            world.run(time);
            assert_eq!(world.node.state().heat, !dropped, "{dialect:?}, {time} ms");
            world.klipper.stalled = false;
            world.run(30_000);
            let snapshot = world.snapshot();
            assert_eq!(
                snapshot.failures,
                u32::from(dropped),
                "{dialect:?}, {time} ms"
            );
            assert_eq!(
                world.texts().len(),
                usize::from(dropped),
                "{dialect:?}, {time} ms"
            );
            assert_eq!(
                world.klipper.target > 0.0,
                !dropped,
                "{dialect:?}, {time} ms"
            );
        }
    }
}

#[test]
fn r7_a_protective_stop_is_known_after_an_hour_in_which_nobody_looked() {
    let mut world = World::heating();
    world.run(4_000); // the heater's first check is passed
    world.klipper.stalled = true;
    world.run(2_000);
    world.device.fault(sim::Fault::PtcOpen);
    world.run(2_000);
    for _ in 0..3_600 {
        world.cut(); // and words enough to fill any queue
        world.run(1_000);
    }
    assert!(world.lines.len() > 64, "{}", world.lines.len());
    assert!(world.lines.len() < 20 + 125, "R6: {}", world.lines.len());
    world.klipper.stalled = false;
    world.run(1_000);
    let snapshot = world.snapshot();
    let reason = snapshot.forced_off.unwrap().reason;
    assert_eq!(reason, Reason::Fault(Fault::ElementSensorOpen));
    assert_eq!(
        (snapshot.forced_offs, snapshot.failures),
        (1, 1),
        "one stop, one failure"
    );
    assert!((world.klipper.target - 0.0).abs() < 1e-9);
    assert!(snapshot.fault.unwrap().blocks_heat());
}

#[test]
fn r5_time_that_goes_back_is_no_time() {
    let mut world = World::heating();
    let before = world.snapshot();
    for back in [1, 1_000, 5_000, u64::MAX] {
        world
            .session
            .handle(world.now.saturating_sub(back), Input::Tick);
        world.session.renew(world.now.saturating_sub(back));
        assert_eq!(world.session.poll(), None, "{back} ms");
        assert!(world.session.deadline(world.now) <= world.now + 1_000);
    }
    world.run(60_000);
    assert_eq!(world.snapshot().link, Link::Connected);
    assert_eq!(world.snapshot().forced_offs, before.forced_offs);
    assert_eq!(world.texts(), Vec::<&str>::new());
}

#[test]
fn r5_time_that_jumps_forward_drops_what_was_buffered_and_the_lease() {
    for (gap, lease_ended) in [
        (900, false),
        (3_000, false),
        (9_000, false),
        (10_001, true),
        (3_600_000, true),
    ] {
        let mut world = World::heating();
        let last = world.snapshot().reading;
        world.freeze(gap);
        world.session.renew(world.now); // the reactor slept as long, and is back first
        world.run(1);
        let kept = world.snapshot().link == Link::Connected;
        assert_eq!(kept, gap < 1_000, "{gap} ms");
        if !kept {
            assert_eq!(
                world.snapshot().reading,
                last,
                "{gap} ms: what was buffered is old"
            );
        }
        world.run(20_000);
        assert_eq!(
            world.snapshot().failures,
            u32::from(lease_ended),
            "{gap} ms"
        );
        assert_eq!(world.state().0, u8::from(!lease_ended), "{gap} ms");
        assert_eq!(world.snapshot().link, Link::Connected, "{gap} ms");
    }
}
