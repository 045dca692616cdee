//! A false alarm is a bug too: 100 hours of printing over ordinary Wi-Fi, in which nothing happens
//! that anybody would have to be told to act on.

use super::broker_world::BrokerWorld;
use super::peer::Kind;
use super::verify::Verify;
use super::weather::Weather;
use super::world::World;
use super::*;
use crate::dialect::mqtt::Options;
use crate::sim::Firmware;

/// For each dialect; the variants have fewer.
const HOURS: Millis = 100;
const MINUTE: Millis = 60_000;
const HOUR: Millis = 60 * MINUTE;
/// One print, and what lies between it and the next.
const CYCLE: Millis = 150 * MINUTE;
const REBOOT_EVERY: Millis = 10 * HOUR;
const REBOOT: Millis = 5_000;

/// Either world.
trait Printer {
    fn now(&self) -> Millis;
    fn pass(&mut self, time: Millis);
    fn snapshot(&self) -> Snapshot;
    fn target(&self) -> f64;
    fn set_target(&mut self, target: f64);
    fn restart(&mut self);
    /// The device restarts, and nobody is told.
    fn reboot(&mut self);
    /// An outage begins or ends.
    fn outage(&mut self, is_out: bool);
    fn is_out(&self) -> bool;
    /// Whether the device heats to this target, or not at all for 0.
    fn does(&self, target: f64) -> bool;
    fn sent(&self) -> usize;
    fn lines(&self) -> &[String];
    fn saves(&self) -> u64;
}

impl Printer for World {
    fn now(&self) -> Millis {
        self.now
    }
    fn pass(&mut self, time: Millis) {
        self.run(time);
    }
    fn snapshot(&self) -> Snapshot {
        World::snapshot(self)
    }
    fn target(&self) -> f64 {
        self.klipper.target
    }
    fn set_target(&mut self, target: f64) {
        World::set_target(self, target);
    }
    fn restart(&mut self) {
        World::restart(self);
    }
    fn reboot(&mut self) {
        self.lose_power(REBOOT);
    }
    fn outage(&mut self, _: bool) {}
    fn is_out(&self) -> bool {
        self.weather.is_out(self.now)
    }
    fn does(&self, target: f64) -> bool {
        let (on, set) = self.state();
        (on == 1) == (target > 0.0) && (on == 0 || (f64::from(set) - target).abs() < 0.1)
    }
    fn sent(&self) -> usize {
        self.sent.len()
    }
    fn lines(&self) -> &[String] {
        &self.lines
    }
    fn saves(&self) -> u64 {
        self.device.saves()
    }
}

impl Printer for BrokerWorld {
    fn now(&self) -> Millis {
        self.now
    }
    fn pass(&mut self, time: Millis) {
        self.run(time);
    }
    fn snapshot(&self) -> Snapshot {
        BrokerWorld::snapshot(self)
    }
    fn target(&self) -> f64 {
        self.klipper.target
    }
    fn set_target(&mut self, target: f64) {
        BrokerWorld::set_target(self, target);
    }
    fn restart(&mut self) {
        BrokerWorld::restart(self);
    }
    fn reboot(&mut self) {
        self.restart_unnoticed();
    }
    /// Every other time the device's connection to the broker does not survive it; and if we are on
    /// the same Wi-Fi, neither does ours.
    fn outage(&mut self, is_out: bool) {
        if self.our_weather.is_out(self.now) || !is_out {
            self.frozen = is_out;
        }
        if !is_out && (self.now / HOUR) % 2 == 0 {
            self.drop_device();
        }
    }
    fn is_out(&self) -> bool {
        self.weather.is_out(self.now)
    }
    fn does(&self, target: f64) -> bool {
        let state = self.node.state();
        state.heat == (target > 0.0) && (!state.heat || (state.target_c - target).abs() < 0.1)
    }
    fn sent(&self) -> usize {
        self.sent.len()
    }
    fn lines(&self) -> &[String] {
        &self.lines
    }
    fn saves(&self) -> u64 {
        self.node.saves()
    }
}

/// What is asked for at this time, and whether the printer restarts right before.
fn plan(time: Millis) -> (f64, bool) {
    let print = time / CYCLE;
    let target = [60.0, 45.0, 55.0][usize::try_from(print % 3).unwrap()];
    match time % CYCLE / MINUTE {
        0 => (0.0, print % 4 == 3),
        1..=59 => (target, false),
        60..=119 => (target - 5.0, false), // after the first layers
        _ => (0.0, false),
    }
}

#[expect(clippy::print_stdout, reason = "figures, for --nocapture")]
fn print_for(hours: Millis, what: &str, printer: &mut dyn Printer, config: &Config) {
    let started = printer.now();
    let mut verify = Verify::new(config);
    let (mut wishes, mut restarts, mut reboots, mut outages) = (0, 0, 0, 0);
    let (mut wrong, mut longest_wrong, mut was_out) = (0, 0, false);
    while printer.now() < started + hours * HOUR {
        let time = printer.now() - started;
        let second = 1_000 - printer.now() % 1_000; // a moment after Klipper's own look
        if time % MINUTE < 1_000 {
            let (target, restart) = plan(time);
            if restart {
                restarts += 1;
                printer.restart();
            } else if (printer.target() - target).abs() > 0.01 {
                wishes += 1;
                printer.set_target(target);
            }
        }
        if time / REBOOT_EVERY > reboots {
            reboots += 1;
            printer.reboot();
        }
        if printer.is_out() != was_out {
            was_out = !was_out;
            outages += u64::from(was_out);
            printer.outage(was_out);
        }
        printer.pass(second);

        let snapshot = printer.snapshot();
        let story = || printer.lines().iter().rev().take(5).collect::<Vec<_>>();
        let hour = time / HOUR;
        assert_eq!(
            snapshot.forced_offs,
            0,
            "{what}, hour {hour}: {:?}",
            story()
        );
        assert_eq!(snapshot.fault, None, "{what}, hour {hour}: {:?}", story());
        assert!(!snapshot.lost, "{what}, hour {hour}: {:?}", story());
        assert!(!snapshot.external_off, "{what}, hour {hour}");
        verify.look(printer.now(), &snapshot, printer.target());
        assert!(!verify.has_tripped, "{what}, hour {hour}: verify_heater");
        wrong = if printer.does(printer.target()) {
            0
        } else {
            wrong + 1
        };
        longest_wrong = longest_wrong.max(wrong);
    }
    let lines = printer.lines();
    println!(
        "{what}: {hours} h, {wishes} targets, {restarts} RESTARTs, {outages} outages, {reboots} \
         reboots: {} commands, {} flash writes, {} lines, {} s without a reading, at most {} s \
         another state than wished, verify_heater at most {:.0} of {}; no forced off",
        printer.sent(),
        printer.saves(),
        lines.len(),
        verify.blind,
        longest_wrong,
        verify.worst,
        verify.max_error,
    );
    assert!(
        wishes >= hours
            && restarts >= hours / 12
            && outages + 5 >= hours
            && reboots + 1 == hours / 10
    );
    assert!(
        longest_wrong < 60,
        "{what}: the wish is obeyed: {longest_wrong} s"
    );
    let about_links = |line: &&String| {
        [
            "lost: ",
            "again after",
            "connected to",
            "cannot",
            "is on; turning it off",
        ]
        .iter()
        .any(|part| line.contains(part))
    };
    let others: Vec<_> = lines.iter().filter(|line| !about_links(line)).collect();
    assert!(others.is_empty(), "{what}: {others:?}");
}

fn stock(hours: Millis, firmware: Firmware, seed: u64) {
    let config = Config::default();
    let setup = sim::Setup {
        firmware,
        ..sim::Setup::default()
    };
    let mut world = World::with(config.clone(), &setup);
    world.run(10_000);
    world.weather = Weather::ordinary(seed);
    world.sent.clear();
    world.lines.clear();
    let name = format!("stock {firmware}");
    print_for(hours, &name, &mut world, &config);
}

fn behind_a_broker(hours: Millis, what: &str, dialect: Dialect, kind: &Kind, ours_too: bool) {
    let config = Config {
        mqtt: Some(Options {
            dialect: Some(dialect),
            ..Options::default()
        }),
        ..Config::default()
    };
    let mut world = BrokerWorld::connected(config.clone(), kind);
    world.step = 100;
    world.weather = Weather::ordinary(5);
    if ours_too {
        world.our_weather = Weather::ordinary(6);
    }
    print_for(hours, what, &mut world, &config);
}

#[test]
fn r5_a_hundred_hours_of_printing_over_ordinary_wifi_are_no_alarm() {
    stock(HOURS, Firmware::V1_0_3, 1);
}

#[test]
fn r5_hours_of_printing_with_the_oldest_firmware_are_no_alarm() {
    stock(20, Firmware::V0_0_0, 2);
}

#[test]
fn r5_a_hundred_hours_behind_a_broker_are_no_alarm() {
    let esphome = Kind::Esphome(Box::default());
    behind_a_broker(HOURS, "esphome", Dialect::Esphome, &esphome, false);
}

#[test]
fn r5_hours_with_the_broker_on_the_same_wifi_are_no_alarm() {
    let esphome = Kind::Esphome(Box::default());
    behind_a_broker(
        40,
        "esphome, all on Wi-Fi",
        Dialect::Esphome,
        &esphome,
        true,
    );
}

#[test]
fn r5_a_hundred_hours_of_stock_behind_a_broker_are_no_alarm() {
    behind_a_broker(HOURS, "stock_mqtt", Dialect::StockMqtt, &Kind::Stock, false);
}
