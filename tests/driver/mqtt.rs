//! Devices behind a real broker: mosquitto, the simulated devices, and the driver between.

use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use _core::dialect::{self, mqtt};
use _core::driver::mqtt::Broker;
use _core::session::{Config, Link, Reason, Snapshot};
use _core::sim::esphome::{Platform, Thermostat};
use _core::sim::{Dialect, Entry, Event, Options, Simulator};

use crate::client::{login, plain, tls, with_password};
use crate::klipper::{Klipper, LIMIT, mac, now_s};
use crate::mosquitto::{Access, Mosquitto, PASSWORD, mosquitto_or_skip};

/// A simulated device at a broker of its own.
struct Site {
    broker: Mosquitto,
    simulator: Simulator,
    config: Config,
    way_in: Broker,
}

impl Site {
    /// Nothing where there is no mosquitto.
    #[track_caller]
    fn new(dialect: Dialect) -> Option<Self> {
        let broker = mosquitto_or_skip(Access::Anonymous)?;
        Some(Self::with(dialect, broker, plain, |_| {}))
    }

    #[track_caller]
    fn with(
        dialect: Dialect,
        broker: Mosquitto,
        way_in: impl FnOnce(&Mosquitto) -> Broker,
        change: impl FnOnce(&mut Options),
    ) -> Self {
        let way_in = way_in(&broker);
        let mut options = Options {
            dialect,
            broker: Some(way_in.clone()),
            listen: "127.0.0.1:0".parse().unwrap(),
            reconnect_s: 0.5,
            reboot_s: 0.5,
            keep_entries: true,
            ..Options::default()
        };
        options.setup.identity = mac();
        options.node.identity = mac();
        options.node.update_s = 0.5;
        change(&mut options);
        let config = Config {
            host: way_in.host.clone(),
            port: way_in.port,
            mqtt: Some(mqtt::Options {
                dialect: Some(match dialect {
                    Dialect::Esphome => dialect::Dialect::Esphome,
                    Dialect::StockMqtt | Dialect::Stock => dialect::Dialect::StockMqtt,
                }),
                ..mqtt::Options::default()
            }),
            ..Config::default()
        };
        Self {
            simulator: Simulator::start(options).unwrap(),
            broker,
            config,
            way_in,
        }
    }

    fn klipper(&self) -> Klipper {
        Klipper::ready_at(self.config.clone(), self.way_in.clone())
    }

    /// A printer that knows that the device is off.
    #[track_caller]
    fn off(&self) -> Klipper {
        let mut klipper = self.klipper();
        klipper.wait_off_known();
        klipper
    }

    /// A printer that heats to 45 C, which the device has confirmed.
    #[track_caller]
    fn heating(&self) -> Klipper {
        let mut klipper = self.off();
        klipper.want(45.0);
        klipper.wait_until("heating to 45 C", is_heating);
        klipper
    }

    fn mark(&self) -> usize {
        self.simulator.entries().len()
    }

    #[track_caller]
    fn wait(&self, mark: usize, what: &str, fits: impl Fn(&Event) -> bool) -> Entry {
        let found = self
            .simulator
            .wait_for_new(mark, |entry| fits(&entry.event), LIMIT);
        found.unwrap_or_else(|| panic!("never {what}: {:#?}", &self.simulator.entries()[mark..]))
    }

    #[track_caller]
    fn wait_heater(&self, mark: usize, wanted: bool) -> Entry {
        self.wait(mark, "the heater", |event| heater_of(event) == Some(wanted))
    }

    fn heater(&self) -> bool {
        let entries = self.simulator.entries();
        entries
            .iter()
            .rev()
            .find_map(|entry| heater_of(&entry.event))
            .unwrap_or_default()
    }

    /// What the device was told since, as `topic payload`.
    fn commands_since(&self, mark: usize) -> Vec<String> {
        let entries = self.simulator.entries();
        let texts = entries[mark..].iter().filter_map(|entry| {
            let Event::Frame { text, .. } = &entry.event else {
                return None;
            };
            Some(text.clone())
        });
        texts.filter(|text| text.contains("/command ")).collect()
    }
}

fn heater_of(event: &Event) -> Option<bool> {
    let (Event::State { heater, .. } | Event::Node { heater, .. }) = event else {
        return None;
    };
    Some(*heater)
}

fn is_heating(snapshot: &Snapshot) -> bool {
    let target = snapshot.device_target.unwrap_or_default();
    snapshot.device_on == Some(true) && (target - 45.0).abs() < 0.1
}

const BOTH: [Dialect; 2] = [Dialect::Esphome, Dialect::StockMqtt];

#[test]
fn r2_both_dialects_heat_and_are_known_to_be_off() {
    for dialect in BOTH {
        let Some(site) = Site::new(dialect) else {
            return;
        };
        let mut klipper = site.heating();
        site.wait_heater(0, true);
        klipper.wait_readings(2);
        let mark = site.mark();
        klipper.want(0.0);
        klipper.wait_off_known();
        site.wait_heater(mark, false);
        let snapshot = klipper.drain();
        assert_eq!(snapshot.forced_offs, 0, "{:?}", klipper.lines);
        assert_eq!(
            site.commands_since(mark).len(),
            1,
            "one change, one message"
        );
    }
}

#[test]
fn auto_finds_either_dialect_by_what_speaks() {
    for dialect in BOTH {
        let Some(mut site) = Site::new(dialect) else {
            return;
        };
        site.config.mqtt = Some(mqtt::Options::default());
        let mut klipper = site.heating();
        let found = klipper.drain().dialect.unwrap().name();
        assert_eq!(
            found,
            if dialect == Dialect::Esphome {
                "esphome"
            } else {
                "stock_mqtt"
            }
        );
        klipper.wait_line(found);
        let mark = site.mark();
        klipper.want(0.0);
        site.wait_heater(mark, false);
    }
}

#[test]
fn r4_a_hundred_targets_while_the_broker_is_away_and_then_the_last_one() {
    for dialect in BOTH {
        let Some(mut site) = Site::new(dialect) else {
            return;
        };
        let mut klipper = site.heating();
        site.broker.stop();
        klipper.wait_until("cut off", |snapshot| snapshot.link != Link::Connected);
        let mark = site.mark();
        for n in 1..=100 {
            klipper.want(f64::from(20 + n % 40));
        }
        klipper.want(50.0);
        site.broker.launch();
        klipper.wait_until("heating to 50 C", |snapshot| {
            snapshot.device_on == Some(true) && snapshot.device_target == Some(50.0)
        });
        let targets: Vec<_> = site
            .commands_since(mark)
            .into_iter()
            .filter(|text| text.contains("target"))
            .collect();
        assert_eq!(targets.len(), 1, "{targets:?}");
        assert_eq!(klipper.drain().forced_offs, 0);
    }
}

#[test]
fn r3_a_broker_frozen_for_12_s_is_survived() {
    let Some(site) = Site::new(Dialect::StockMqtt) else {
        return;
    };
    let mut klipper = site.heating();
    site.broker.freeze();
    let frozen = now_s();
    klipper.wait_until("noticed", |snapshot| snapshot.link != Link::Connected);
    assert!(
        now_s() - frozen <= 10.5,
        "noticed after {} s",
        now_s() - frozen
    );
    klipper.drain_for(Duration::from_secs_f64((frozen + 12.0 - now_s()).max(0.0)));
    let mark = site.mark();
    site.broker.thaw();
    klipper.wait_connected();
    klipper.wait_until("heating again", is_heating);
    site.wait_heater(mark, true);
    assert_eq!(klipper.drain().forced_offs, 0, "{:?}", klipper.lines);
}

#[test]
fn r4_a_broker_restart_leaves_the_current_wish_with_and_without_memory() {
    for persistent in [true, false] {
        let options = crate::mosquitto::Options {
            persistent,
            ..Access::Anonymous.into()
        };
        let Some(broker) = mosquitto_or_skip(options) else {
            return;
        };
        let mut site = Site::with(Dialect::Esphome, broker, plain, |_| {});
        let mut klipper = site.heating();
        site.broker.restart();
        klipper.wait_until("cut off", |snapshot| snapshot.link != Link::Connected);
        klipper.wait_connected();
        klipper.wait_until("heating again", is_heating);
        site.broker.restart();
        klipper.want(0.0);
        klipper.wait_connected();
        klipper.wait_off_known();
        assert!(!site.heater());
        assert_eq!(klipper.drain().forced_offs, 0, "{:?}", klipper.lines);
    }
}

#[test]
fn r6_a_megabyte_that_the_broker_has_kept_does_no_harm() {
    let Some(site) = Site::new(Dialect::Esphome) else {
        return;
    };
    for topic in [
        "panda-breath/climate/chamber/action/state",
        "panda-breath/climate/chamber/target_temperature_low/state",
        "homeassistant/sensor/panda-breath/chamber_temperature/config",
    ] {
        keep(&site.broker, topic, &"[".repeat(1024 * 1024));
    }
    let mut klipper = site.heating();
    klipper.wait_readings(3);
    assert!(klipper.drain().ignored >= 1);
    assert_eq!(klipper.drain().reconnects, 0, "{:?}", klipper.lines);
}

#[test]
fn r8_the_brokers_word_when_we_leave_comes_only_while_off_is_not_known() {
    for dialect in BOTH {
        let Some(site) = Site::new(dialect) else {
            return;
        };
        let mut klipper = site.heating();
        let mark = site.mark();
        klipper.want(0.0);
        klipper.wait_off_known();
        klipper.handle.close();
        let log = site
            .broker
            .wait_log(|line| line.contains("Received DISCONNECT from pb-"));
        assert!(!log.is_empty());
        assert_eq!(site.commands_since(mark).len(), 1, "off, once, and no will");
    }
}

#[test]
fn r12_a_restart_keeps_the_connection() {
    let Some(site) = Site::new(Dialect::StockMqtt) else {
        return;
    };
    let klipper = site.heating();
    let mark = site.mark();
    klipper.handle.close();
    let mut next = site.klipper();
    site.wait_heater(mark, false);
    next.wait_off_known();
    next.want(45.0);
    next.wait_until("heating again", is_heating);
    let log = site.broker.log();
    let ours = log
        .lines()
        .filter(|line| line.contains("New client connected") && line.contains(" as pb-"));
    // The first has found out the id, the second has the will that needs it.
    assert_eq!(ours.count(), 2, "{log}");
}

#[test]
fn r9_an_off_at_the_device_is_accepted() {
    for dialect in BOTH {
        let Some(site) = Site::new(dialect) else {
            return;
        };
        let mut klipper = site.heating();
        klipper.drain_for(Duration::from_secs(10)); // our own will might explain it until then
        site.simulator.inject("button power").unwrap();
        let snapshot = klipper.wait_until("external", |snapshot| snapshot.external_off);
        assert_eq!(snapshot.forced_off.unwrap().reason, Reason::ExternalOff);
        klipper.wait_off_known();
        assert!(!site.heater());
    }
}

#[test]
fn a_clamped_target_names_the_option() {
    let Some(broker) = mosquitto_or_skip(Access::Anonymous) else {
        return;
    };
    let clamped = |options: &mut Options| {
        options.node.platform = Platform::Thermostat(Thermostat::clamped());
    };
    let site = Site::with(Dialect::Esphome, broker, plain, clamped);
    let mut klipper = site.off();
    klipper.want(60.0);
    let snapshot = klipper.wait_until("refused", |snapshot| snapshot.forced_off.is_some());
    let text = snapshot.forced_off.unwrap().text;
    assert!(text.contains("visual: max_temperature"), "{text}");
    klipper.wait_off_known();
}

#[test]
fn it_heats_over_tls_with_a_password_or_a_certificate() {
    type WayIn = fn(&Mosquitto) -> Broker;
    let ways: [(Access, WayIn); 3] = [
        (Access::Password, with_password),
        (Access::Tls, |broker| Broker {
            tls: Some(tls("ca", None)),
            ..with_password(broker)
        }),
        (Access::ClientCertificate, |broker| Broker {
            tls: Some(tls("ca", Some("client"))),
            ..plain(broker)
        }),
    ];
    for (access, way_in) in ways {
        let Some(broker) = mosquitto_or_skip(access) else {
            return;
        };
        // A stock device has no TLS of its own.
        let site = Site::with(Dialect::Esphome, broker, way_in, |_| {});
        let mut klipper = site.heating();
        klipper.want(0.0);
        klipper.wait_off_known();
    }
}

#[test]
fn what_keeps_us_out_is_said_within_10_s_and_not_tried_in_a_storm() {
    type WayIn = fn(&Mosquitto) -> Broker;
    let cases: [(Access, WayIn, &str); 5] = [
        (
            Access::Password,
            |b| Broker {
                login: Some(login("wrong")),
                ..plain(b)
            },
            "refuses this user name or password",
        ),
        (Access::Password, plain, "wants a user name and password"),
        (
            Access::Tls,
            |b| Broker {
                tls: Some(tls("other-ca", None)),
                ..with_password(b)
            },
            "not signed by the CA in mqtt_ca_file",
        ),
        (
            Access::Anonymous,
            |b| Broker {
                tls: Some(tls("ca", None)),
                ..plain(b)
            },
            "does not speak TLS",
        ),
        (
            Access::ClientCertificate,
            |b| Broker {
                tls: Some(tls("ca", None)),
                ..plain(b)
            },
            "client certificate",
        ),
    ];
    for (access, way_in, text) in cases {
        let Some(broker) = mosquitto_or_skip(access) else {
            return;
        };
        let way_in = way_in(&broker);
        let mut klipper = Klipper::ready_at(away(&way_in, way_in.port), way_in.clone());
        let start = now_s();
        klipper.wait_line(text);
        assert!(now_s() - start < 10.0);
        assert!(
            !klipper.lines.iter().any(|line| line.contains(PASSWORD)),
            "R11"
        );
        klipper.drain_for(Duration::from_secs(3));
        let tries = broker
            .log()
            .lines()
            .filter(|line| line.contains("New connection"))
            .count();
        assert!(tries <= 4, "{tries} in {} s: {}", now_s() - start, text);
        assert_eq!(klipper.lines.len(), 1, "{:?}", klipper.lines);
    }
}

#[test]
fn a_broker_that_is_not_there_is_named() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address: SocketAddr = free.local_addr().unwrap();
    drop(free);
    for (host, text) in [
        (
            "127.0.0.1",
            "cannot connect to broker 127.0.0.1: connection refused",
        ),
        (
            "no-such-broker.invalid",
            "the name 'no-such-broker.invalid' cannot be resolved",
        ),
    ] {
        let way_in = Broker {
            host: host.into(),
            port: address.port(),
            login: None,
            tls: None,
        };
        let mut klipper = Klipper::ready_at(away(&way_in, address.port()), way_in.clone());
        let start = now_s();
        klipper.wait_line(text);
        assert!(now_s() - start < 10.0);
    }
}

/// Has the broker keep a message of any size.
fn keep(broker: &Mosquitto, topic: &str, payload: &str) {
    let mut publisher = Command::new("mosquitto_pub")
        .args([
            "-p",
            &broker.address.port().to_string(),
            "-r",
            "-s",
            "-t",
            topic,
        ])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = publisher.stdin.take().unwrap();
    stdin.write_all(payload.as_bytes()).unwrap();
    drop(stdin);
    assert!(publisher.wait().unwrap().success());
}

/// The options of a section whose device is never met.
fn away(way_in: &Broker, port: u16) -> Config {
    Config {
        host: way_in.host.clone(),
        port,
        mqtt: Some(mqtt::Options::default()),
        ..Config::default()
    }
}
