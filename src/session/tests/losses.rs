//! Readings that stop, for a while or for good, and what Klipper makes of them.

use super::broker_world::BrokerWorld;
use super::peer::Kind;
use super::verify::Verify;
use super::*;
use crate::dialect::mqtt::Options;
use crate::sim::Firmware;

/// A chamber that is at its target of 60 C, and a Klipper that knows.
fn at_60(firmware: Firmware) -> (World, Verify) {
    let setup = &sim::Setup {
        firmware,
        ..sim::Setup::default()
    };
    let mut world = World::with(Config::default(), setup);
    world.run(4_000);
    world.device.set_chamber(58.0);
    world.set_target(60.0);
    world.run(120_000);
    let mut verify = Verify::new(&world.config);
    watch(&mut world, &mut verify, 5, |_| {});
    assert!((57.0..66.0).contains(&world.snapshot().reading.unwrap().celsius));
    assert_eq!(verify.blind, 0);
    world.sent.clear();
    world.lines.clear();
    (world, verify)
}

/// Lets time pass, and Klipper look once per second.
fn watch(world: &mut World, verify: &mut Verify, seconds: u64, mut each: impl FnMut(&mut World)) {
    for _ in 0..seconds {
        each(world);
        world.run(1_000);
        let target = world.klipper.target;
        verify.look(world.now, &world.snapshot(), target);
    }
}

/// A device that is there and says this in the place of its temperature, twice a second.
fn says(world: &mut World, what: &str, time: Millis) {
    world.mute = true;
    let text = format!(r#"{{"settings":{{"filtertemp":30,"warehouse_temper":{what}}}}}"#);
    for _ in 0..time / 500 {
        world.broadcast(&text);
        world.run(500);
    }
}

#[test]
fn r5_an_outage_of_a_minute_in_a_print_is_nothing_but_old_readings() {
    let (mut world, mut verify) = at_60(Firmware::V1_0_3);
    world.unreachable = true;
    world.hang();
    let last = world.snapshot().reading;
    watch(&mut world, &mut verify, 60, |world| {
        assert_eq!(world.snapshot().reading, last, "nothing is invented");
        assert_eq!(world.state(), (1, 60), "and it goes on by itself");
    });
    let blind = verify.blind;
    assert!(
        (53..=54).contains(&blind),
        "from 7 s on Klipper reads 0: {blind}"
    );
    world.unreachable = false;
    watch(&mut world, &mut verify, 10, |_| {});
    assert!(world.snapshot().reading.unwrap().number > last.unwrap().number);
    assert_eq!(world.snapshot().forced_offs, 0, "{:?}", world.lines);
    assert_eq!(world.texts(), Vec::<&str>::new(), "it does what it should");
    assert_eq!(
        world.klipper.target.total_cmp(&60.0),
        std::cmp::Ordering::Equal
    );
    assert!(!verify.has_tripped && verify.worst < 3_500.0, "{verify:?}");
    assert_eq!(world.lines.len(), 2, "gone, and back: {:?}", world.lines);
}

#[test]
fn r5_an_outage_of_a_minute_behind_a_broker_is_nothing_either() {
    for (dialect, kind) in [
        (Dialect::Esphome, Kind::Esphome(Box::default())),
        (Dialect::StockMqtt, Kind::Stock),
    ] {
        for ours in [false, true] {
            let config = Config {
                mqtt: Some(Options {
                    dialect: Some(dialect),
                    ..Options::default()
                }),
                ..Config::default()
            };
            let mut world = BrokerWorld::heating(config, &kind);
            world.frozen = ours; // the broker, for everybody; or only the device's network
            if !ours {
                world.drop_device();
                world.device_frozen = true;
            }
            world.run(1_000);
            let last = world.snapshot().reading;
            world.run(59_000);
            assert_eq!(
                world.snapshot().reading,
                last,
                "{dialect:?}: nothing is invented"
            );
            world.frozen = false;
            world.device_frozen = false;
            world.run(30_000);
            assert_eq!(
                world.snapshot().forced_offs,
                0,
                "{dialect:?} {ours}: {:?}",
                world.lines
            );
            assert!(
                world.node.state().heat,
                "{dialect:?} {ours}: {:?}",
                world.lines
            );
            assert!(world.snapshot().reading.unwrap().number > last.unwrap().number);
            assert_eq!(
                world.lines.len(),
                2,
                "{dialect:?} {ours}: {:?}",
                world.lines
            );
        }
    }
}

#[test]
#[expect(clippy::print_stdout, reason = "figures, for --nocapture")]
fn r5_a_door_open_for_three_minutes_stops_nothing() {
    // How cold it would get with the door open for long, and how quickly, s.
    for (falls_to, time) in [(32.0, 120.0), (35.0, 60.0)] {
        let (mut world, mut verify) = at_60(Firmware::V1_0_3);
        watch(&mut world, &mut verify, 180, |world| {
            let c = world.device.state().chamber;
            world.device.set_chamber(c + (falls_to - c) / time);
        });
        let lowest = world.snapshot().reading.unwrap().celsius;
        assert!(lowest < 42.0, "{lowest}");
        watch(&mut world, &mut verify, 1_800, |_| {});
        let reading = world.snapshot().reading.unwrap().celsius;
        println!(
            "door: 60 C down to {lowest} C; verify_heater at most {:.0} of {}",
            verify.worst, verify.max_error
        );
        assert!(reading >= 59.0, "warm again: {reading}");
        assert!(!verify.has_tripped, "{verify:?}");
        assert_eq!(world.snapshot().forced_offs, 0);
        assert_eq!(world.texts(), Vec::<&str>::new());
        assert_eq!(world.lines, Vec::<String>::new());
    }
}

#[test]
fn r5_a_heater_that_stays_cold_does_trip_verify_heater() {
    let (mut world, mut verify) = at_60(Firmware::V0_0_0); // which checks nothing
    world.device.fault(sim::Fault::Heater);
    watch(&mut world, &mut verify, 1_800, |_| {});
    assert!(verify.has_tripped, "{verify:?}");
}

#[test]
fn r5_a_sensor_that_firmware_0_0_0_does_not_check_ends_in_a_shutdown_of_klipper() {
    for (fault, reads) in [
        (sim::Fault::ChamberOpen, 10.0), // and heats for ever: verify_heater
        (sim::Fault::ChamberShort, 125.0), // above max_temp: the shim
    ] {
        let (mut world, mut verify) = at_60(Firmware::V0_0_0);
        world.device.fault(fault);
        watch(&mut world, &mut verify, 300, |_| {});
        let reading = world.snapshot().reading.unwrap();
        assert_eq!(reading.celsius.total_cmp(&reads), std::cmp::Ordering::Equal);
        assert_eq!(verify.has_tripped, reads < 60.0, "{verify:?}");
    }
}

#[test]
fn r5_a_dead_sensor_ends_in_a_forced_off_never_in_fine() {
    for what in [
        "null", "-41", "151", "1e300", "\"45\"", "\"nan\"", "true", "[45]",
    ] {
        let mut world = World::heating();
        world.mute = true;
        world.run(100);
        let last = world.snapshot().reading.unwrap();
        says(&mut world, what, 25_000);
        assert_eq!(world.snapshot().link, Link::Connected, "{what}");
        assert_eq!(world.snapshot().reading, Some(last), "{what} is no reading");
        assert_eq!(
            world.lines,
            Vec::<String>::new(),
            "{what}: not yet worth a line"
        );
        says(&mut world, what, 85_000);
        assert_eq!(world.lines.len(), 1, "{what}: said once: {:?}", world.lines);
        assert!(world.lines[0].contains("answers, but tells no temperature"));
        assert_eq!(world.snapshot().forced_offs, 0, "{what}");
        says(&mut world, what, 15_000);
        let snapshot = world.snapshot();
        assert!(snapshot.lost, "{what}");
        assert_eq!(snapshot.forced_off.unwrap().reason, Reason::Lost, "{what}");
        assert_eq!(snapshot.failures, 1, "{what}");
        assert_eq!(world.texts(), [OFF], "{what}");
        assert_eq!(world.state().0, 0, "{what}");
    }
}

#[test]
fn r5_a_sensor_fault_ends_in_a_forced_off_at_once() {
    for fault in [
        sim::Fault::PtcOpen,
        sim::Fault::PtcShort,
        sim::Fault::ChamberOpen,
        sim::Fault::ChamberShort,
    ] {
        let mut world = World::heating();
        world.device.fault(fault);
        world.run(2_000);
        let snapshot = world.snapshot();
        let forced = snapshot.forced_off.unwrap();
        assert!(
            matches!(forced.reason, Reason::Fault(f) if f.is_sensor()),
            "{fault:?}"
        );
        assert_eq!(snapshot.failures, 1, "{fault:?}");
        assert!(snapshot.fault.unwrap().blocks_heat(), "{fault:?}");
        assert!((world.klipper.target - 0.0).abs() < 1e-9);
        world.set_target(45.0); // whoever insists
        world.run(60_000);
        assert!(!world.texts().contains(&HEAT_45), "{fault:?}");
        world.device.clear_faults();
        world.run(5_000);
        assert_eq!(world.snapshot().fault, None);
    }
}

#[test]
fn r5_a_device_that_never_tells_a_temperature_is_lost_and_never_heats() {
    let mut world = World::new(Config::default());
    world.mute = true;
    for _ in 0..125 {
        world.broadcast(r#"{"settings":{"filtertemp":30}}"#);
        world.run(1_000);
    }
    let snapshot = world.snapshot();
    assert!(snapshot.lost && snapshot.reading.is_none());
    assert_eq!(snapshot.link, Link::Connected);
    world.set_target(45.0);
    world.run(5_000);
    assert!(!world.texts().contains(&HEAT_45));
    assert!(
        world
            .lines
            .iter()
            .any(|line| line.contains("tells no temperature"))
    );
}

#[test]
fn r5_a_temperature_now_and_then_is_said_once_and_never_lost() {
    let mut world = World::heating();
    world.mute = true;
    for seconds in 0..600 {
        let rare = seconds % 60 == 0;
        let text = if rare { "44" } else { "null" };
        says(&mut world, text, 1_000);
    }
    assert_eq!(world.lines.len(), 1, "{:?}", world.lines);
    assert_eq!(world.snapshot().forced_offs, 0);
}

#[test]
fn r5_lost_is_counted_from_the_last_reading_whatever_else_is_said() {
    let mut world = World::heating();
    let at = world.snapshot().reading.unwrap().at;
    for _ in 0..1_000 {
        world.cut(); // a connection now and then proves nothing
        world.mute = true;
        world.run(200);
        if world.snapshot().lost {
            break;
        }
    }
    let late = world.now - (at + world.config.lost_after);
    assert!(late <= 1_000, "{late}");
    assert_eq!(world.snapshot().forced_off.unwrap().reason, Reason::Lost);
}

#[test]
fn r5_a_sensor_fault_lasts_while_nobody_can_say_that_it_is_over() {
    let mut world = World::heating();
    world.device.fault(sim::Fault::ChamberOpen);
    world.run(2_000);
    world.unreachable = true;
    world.cut();
    world.lines.clear();
    world.run(60_000);
    assert!(world.snapshot().fault.is_some(), "{:?}", world.lines);
    world.unreachable = false;
    world.run(8_000);
    assert!(world.snapshot().fault.is_some());
    let said = |world: &World, part: &str| world.lines.iter().any(|line| line.contains(part));
    assert!(!said(&world, "sensor"), "nothing new: {:?}", world.lines);
    world.device.clear_faults();
    world.run(8_000);
    assert_eq!(world.snapshot().fault, None);
    assert!(said(&world, "no longer reports a sensor fault"));
}
