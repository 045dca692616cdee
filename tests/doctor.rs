//! `panda-breath doctor` against simulated and scripted devices, and a real broker. A bad situation
//! has its finding, and the good one has none. Those with a broker are skipped where mosquitto is
//! not installed.
#![expect(
    clippy::unwrap_used,
    reason = "a test's helpers may panic as its tests do"
)]

#[path = "broker/client.rs"]
#[allow(dead_code, reason = "it serves other tests as well")]
mod client;
mod mosquitto;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use _core::cli::bind::visit::Patience;
use _core::cli::doctor::{Finding, Level, News, Plan, examine};
use _core::dialect::Dialect as Spoken;
use _core::dialect::mqtt::Options as Topics;
use _core::driver::mqtt::{Broker, Tls};
use _core::sim::esphome::{self, Platform, Thermostat};
use _core::sim::{Dialect, Entry, Event, Firmware, Options, Simulator};
use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::tungstenite::Message;

use client::{LIMIT, plain, tls, with_password};
use mosquitto::{Access, Mosquitto, Options as BrokerOptions, mosquitto_or_skip};

const ID: &str = "025042000001";
/// What a scripted device may say.
const OFF: &str = r#"{"settings":{"fw_version":"V1.0.3","work_on":0,"work_mode":2}}"#;
const READING: &str = r#"{"settings":{"warehouse_temper":24}}"#;
/// It ends the connection.
const CLOSE: &str = "";

fn device(change: impl FnOnce(&mut Options)) -> Arc<Simulator> {
    let mut options = Options {
        keep_entries: true,
        ..Options::default()
    };
    change(&mut options);
    let simulator = Simulator::start(options).unwrap();
    if simulator.addresses().is_empty() {
        let open = |entry: &Entry| matches!(entry.event, Event::Open { .. });
        simulator.wait_for(open, LIMIT).unwrap();
    } else {
        simulator.inject("button power").unwrap(); // on, as it comes out of its box, is a warning
    }
    Arc::new(simulator)
}

/// A computer on which there is no Klipper.
fn plan() -> Plan {
    Plan {
        group: None,
        time: Duration::from_millis(2600),
        patience: Patience {
            open: Duration::from_millis(1500),
            snapshot: Duration::from_millis(700),
            ..Patience::default()
        },
        home: None,
        proc: "/nonexistent".into(),
        ..Plan::default()
    }
}

fn at(address: SocketAddr) -> Plan {
    Plan {
        device: Some(address.to_string().parse().unwrap()),
        ..plan()
    }
}

/// What is not well.
async fn bad(plan: &Plan) -> Vec<(&'static str, Level, String)> {
    let mut told = 0;
    let found = examine(plan, |news| {
        told += usize::from(matches!(news, News::Found(_)));
    })
    .await;
    assert_eq!(told, found.len());
    assert!(found.len() > 1, "{found:?}");
    let bad = found.into_iter().filter(|one| one.level != Level::Ok);
    bad.map(|one: Finding| {
        assert!(one.remedy.is_some(), "{one:?}");
        for secret in [
            "not-a-password",
            "987654321",
            "Simulated",
            mosquitto::PASSWORD,
        ] {
            assert!(!one.line().contains(secret), "{one:?}");
        }
        (one.check, one.level, one.text)
    })
    .collect()
}

async fn says(plan: &Plan, check: &str, level: Level, part: &str) {
    let found = bad(plan).await;
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].0, found[0].1), (check, level), "{found:?}");
    assert!(found[0].2.contains(part), "{found:?}");
}

/// How often a device was connected to. Nothing may have been sent to it.
fn visits(simulator: &Simulator) -> usize {
    let mut visits = 0;
    for entry in simulator.entries() {
        assert!(!matches!(entry.event, Event::Frame { .. }), "{entry:?}");
        if let Event::Open { open, .. } = entry.event {
            assert_eq!(open, 1, "one connection at a time");
            visits += 1;
        }
    }
    visits
}

#[tokio::test]
async fn nothing_is_said_of_a_device_that_is_well_and_one_visit_is_enough() {
    for firmware in Firmware::ALL {
        let simulator = device(|options| options.setup.firmware = firmware);
        let found = bad(&at(simulator.address(0))).await;
        if firmware == Firmware::V0_0_0 {
            assert_eq!(found.len(), 1, "{found:?}");
            assert_eq!((found[0].0, found[0].1), ("firmware", Level::Warning));
        } else {
            assert_eq!(found, [], "{firmware:?}");
        }
        assert_eq!(visits(&simulator), 1);
    }
}

#[tokio::test]
async fn a_device_that_follows_a_bed_is_a_warning() {
    let simulator = device(|_| {});
    simulator.inject("button auto").unwrap();
    let plan = at(simulator.address(0));
    says(&plan, "state", Level::Warning, "it follows the bed").await;
}

#[tokio::test]
async fn a_fault_is_a_problem() {
    let simulator = device(|_| {});
    simulator.inject("fault ptc-open").unwrap();
    let plan = at(simulator.address(0));
    says(&plan, "state", Level::Problem, "reports a fault").await;
}

#[tokio::test]
async fn a_name_that_nobody_has_is_a_problem() {
    let plan = Plan {
        device: Some("no-such-host.invalid".parse().unwrap()),
        ..plan()
    };
    says(&plan, "resolves", Level::Problem, "cannot be resolved").await;
}

#[tokio::test]
async fn nobody_at_the_address_is_a_problem() {
    let gone = free();
    says(&at(gone), "connects", Level::Problem, "connection refused").await;
}

#[tokio::test]
async fn somebody_else_at_the_address_is_a_problem() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = std::io::Read::read(&mut stream, &mut [0; 1024]);
            let answer = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
            let _ = std::io::Write::write_all(&mut stream, answer);
        }
    });
    says(&at(address), "connects", Level::Problem, "HTTP 404").await;
}

#[tokio::test]
async fn a_device_that_hangs_is_a_problem() {
    let simulator = device(|_| {});
    simulator.inject("hang all").unwrap();
    let plan = at(simulator.address(0));
    says(&plan, "connects", Level::Problem, "no answer").await;
    let silent = scripted(&[]).await;
    says(&at(silent), "snapshot", Level::Problem, "does not say").await;
}

#[tokio::test]
async fn silence_and_an_end_are_found_while_it_is_listened_to() {
    let simulator = device(|_| {});
    let plan = at(simulator.address(0));
    once_visited(&simulator, "mute 2.2");
    says(&plan, "reports", Level::Warning, "longest silence 2").await;
    let address = scripted(&[OFF, READING, CLOSE]).await;
    let found = bad(&at(address)).await;
    assert_eq!(
        (found[0].0, found[0].1),
        ("reports", Level::Problem),
        "{found:?}"
    );
    assert!(found[0].2.contains("was over after"), "{found:?}");
}

#[tokio::test]
async fn what_a_device_says_wrongly_is_a_warning() {
    let strange = OFF.replace('2', "\"two\"");
    let address = scripted(&[&strange, READING]).await;
    says(
        &at(address),
        "snapshot",
        Level::Warning,
        "1 field of its snapshot",
    )
    .await;
    let newer = OFF.replace("1.0.3", "1.0.9");
    let address = scripted(&[&newer, READING]).await;
    says(&at(address), "firmware", Level::Warning, "newer than").await;
    let other = newer.replace("V1.0.9", "custom");
    let address = scripted(&[&other, READING]).await;
    says(&at(address), "firmware", Level::Warning, "not known").await;
}

#[tokio::test]
async fn a_device_that_tells_no_temperature_is_a_problem() {
    let address = scripted(&[OFF, r#"{"settings":{"remaining_seconds":1}}"#]).await;
    says(&at(address), "state", Level::Problem, "no temperature").await;
}

#[tokio::test]
async fn a_klipper_that_heats_is_not_disturbed() {
    let simulator = device(|_| {});
    let address = simulator.address(0);
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let url = format!("ws://{address}/ws");
    let (mut klipper, _) = tokio_tungstenite::client_async(url, stream).await.unwrap();
    let heat = r#"{"settings":{"work_on":true,"work_mode":2,"set_temp":45}}"#;
    klipper.send(Message::text(heat)).await.unwrap();
    let listening = tokio::spawn(async move {
        let mut heard = 0;
        while let Some(Ok(_)) = klipper.next().await {
            heard += 1;
        }
        heard
    });
    assert_eq!(bad(&at(address)).await, []);
    let entries = simulator.entries();
    let frames = entries.iter().filter_map(|entry| {
        let Event::Frame { text, client, .. } = &entry.event else {
            return None;
        };
        Some((*client, text.as_str()))
    });
    assert_eq!(frames.collect::<Vec<_>>(), [(1, heat)]);
    let most = entries.iter().filter_map(|entry| {
        let Event::Open { open, .. } = entry.event else {
            return None;
        };
        Some(open)
    });
    assert_eq!(most.max(), Some(2), "one extra connection");
    assert!(!listening.is_finished(), "it was thrown out");
    drop(simulator);
    assert!(
        listening.await.unwrap() >= 5,
        "it goes on to hear the device"
    );
}

#[tokio::test]
async fn a_device_whose_sockets_this_computer_has_taken_is_not_connected_to() {
    let simulator = device(|_| {});
    let proc = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("proc-{}", std::process::id()));
    std::fs::create_dir_all(proc.join("net")).unwrap();
    let here = u32::from_ne_bytes([127, 0, 0, 1]);
    let port = simulator.address(0).port();
    let line = |n| format!("{n}: {here:08X}:{n:04X} {here:08X}:{port:04X} 01 0\n");
    let table = |count| "header\n".to_owned() + &(0..count).map(line).collect::<String>();
    let plan = Plan {
        proc: proc.clone(),
        ..at(simulator.address(0))
    };
    std::fs::write(proc.join("net/tcp"), table(6)).unwrap();
    says(&plan, "sockets", Level::Problem, "not connected to").await;
    assert_eq!(visits(&simulator), 0);
    std::fs::write(proc.join("net/tcp"), table(3)).unwrap();
    says(&plan, "sockets", Level::Warning, "has 3 of the device's 7").await;
    std::fs::remove_dir_all(&proc).unwrap();
}

// printer.cfg

/// A printer.cfg that goes with this.
struct Config(PathBuf);

impl Config {
    fn new(name: &str, text: &str) -> Self {
        let name = format!("doctor-{}-{name}.cfg", std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::write(&path, text).unwrap();
        Self(path)
    }

    fn plan(&self) -> Plan {
        Plan {
            config: Some(self.0.clone()),
            ..plan()
        }
    }
}

impl Drop for Config {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn section(name: &str, host: &str, port: u16) -> String {
    format!("[panda_breath {name}]\nhost: {host}\nport: {port}\n[pause_resume]\n")
}

#[tokio::test]
async fn the_devices_of_a_configuration_are_looked_at() {
    let simulator = device(|_| {});
    let port = simulator.address(0).port();
    let config = Config::new("good", &section("a", "127.0.0.1", port));
    assert_eq!(bad(&config.plan()).await, []);
    assert_eq!(visits(&simulator), 1);
}

#[tokio::test]
async fn two_sections_that_lead_to_one_device_are_a_problem() {
    let simulator = device(|_| {});
    let port = simulator.address(0).port();
    let text = section("a", "127.0.0.1", port) + &section("b", "localhost", port);
    let config = Config::new("two", &text);
    let both = "[panda_breath a] and [panda_breath b] lead to one device";
    says(&config.plan(), "one_device", Level::Problem, both).await;
    assert_eq!(visits(&simulator), 2, "one after the other");
}

#[tokio::test]
async fn another_device_than_the_configured_one_is_a_problem() {
    let simulator = device(|_| {});
    let port = simulator.address(0).port();
    let config = |id: &str| {
        let text = format!("[panda_breath]\nhost: 127.0.0.1\nport: {port}\ndevice_id: {id}\n");
        Config::new(id, &(text + "[pause_resume]\n"))
    };
    let wrong = config("0000");
    says(&wrong.plan(), "identity", Level::Problem, "not 0000").await;
    let right = config("306D");
    assert_eq!(bad(&right.plan()).await, []);
}

#[tokio::test]
async fn a_configuration_that_cannot_be_read_is_a_problem() {
    let plan = Plan {
        config: Some("/nonexistent/printer.cfg".into()),
        ..plan()
    };
    says(&plan, "read", Level::Problem, "cannot be read").await;
}

// Behind a broker

fn node(broker: &Mosquitto, change: impl FnOnce(&mut esphome::Setup)) -> Arc<Simulator> {
    let mut setup = esphome::Setup {
        update_s: 0.5,
        ..esphome::Setup::default()
    };
    change(&mut setup);
    device(|options| {
        options.dialect = Dialect::Esphome;
        options.broker = Some(plain(broker));
        options.node = setup;
    })
}

fn stock(broker: &Mosquitto, number: usize) -> Arc<Simulator> {
    let simulator = device(|options| {
        options.dialect = Dialect::StockMqtt;
        options.broker = Some(plain(broker));
        options.setup.identity = options.setup.identity.offset(number);
    });
    let open = |entry: &Entry| matches!(entry.event, Event::Open { .. });
    simulator.wait_for(open, LIMIT).unwrap();
    simulator
}

fn behind(broker: Broker, dialect: Spoken) -> Plan {
    let options = Topics {
        dialect: Some(dialect),
        ..Topics::default()
    };
    Plan {
        broker: Some((broker, options)),
        ..plan()
    }
}

#[tokio::test]
async fn nothing_is_said_of_devices_behind_a_broker_that_are_well() {
    let Some(broker) = mosquitto_or_skip(Access::Anonymous) else {
        return;
    };
    let devices = [node(&broker, |_| {}), stock(&broker, 0)];
    for dialect in [Spoken::Esphome, Spoken::StockMqtt] {
        assert_eq!(
            bad(&behind(plain(&broker), dialect)).await,
            [],
            "{dialect:?}"
        );
    }
    // Nothing that is a command has reached them.
    for device in &devices {
        for entry in device.entries() {
            let Event::Frame { text, .. } = &entry.event else {
                continue;
            };
            let is_harmless = text.ends_with(" {}")
                || text.ends_with(" doctor")
                || text.starts_with("esphome/ping/");
            assert!(is_harmless, "{text}");
        }
    }
    let states = devices[1].entries();
    let on = states.iter().rev().find_map(|entry| {
        let Event::State { work_on, .. } = entry.event else {
            return None;
        };
        Some(work_on)
    });
    assert_eq!(on, Some(0));
}

#[tokio::test]
async fn a_broker_that_is_not_there_or_does_not_let_us_in_is_a_problem() {
    let Some(broker) = mosquitto_or_skip(Access::Password) else {
        return;
    };
    let mut gone = plain(&broker);
    gone.port = free().port();
    let esphome = |broker| behind(broker, Spoken::Esphome);
    says(
        &esphome(gone),
        "broker",
        Level::Problem,
        "connection refused",
    )
    .await;
    says(
        &esphome(plain(&broker)),
        "login",
        Level::Problem,
        "wants a user name",
    )
    .await;
    let wrong = Broker {
        login: Some(client::login("wrong")),
        ..plain(&broker)
    };
    says(
        &esphome(wrong),
        "login",
        Level::Problem,
        "refuses this user name",
    )
    .await;
    let let_in = esphome(with_password(&broker));
    says(
        &let_in,
        "heard",
        Level::Problem,
        "nothing is heard below panda-breath",
    )
    .await;
}

#[tokio::test]
async fn a_certificate_that_is_not_believed_is_a_problem() {
    let Some(broker) = mosquitto_or_skip(Access::Tls) else {
        return;
    };
    let with = |tls: Option<Tls>| {
        let broker = Broker {
            host: "localhost".into(),
            tls,
            ..with_password(&broker)
        };
        behind(broker, Spoken::Esphome)
    };
    let plain = with(None);
    let found = bad(&plain).await;
    assert_eq!(found[0].1, Level::Problem, "{found:?}");
    let stranger = with(Some(tls("other-ca", None)));
    says(&stranger, "tls", Level::Problem, "certificate").await;
    let believed = with(Some(tls("ca", None)));
    says(&believed, "heard", Level::Problem, "nothing is heard").await;
}

#[tokio::test]
async fn rights_that_are_missing_are_a_problem() {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let path = path.join(format!("acl-{}", std::process::id()));
    let broker = |rules: &str| {
        std::fs::write(&path, rules).unwrap();
        mosquitto_or_skip(BrokerOptions {
            extra: format!("acl_file {}\n", path.display()),
            ..BrokerOptions::default()
        })
    };
    let no_write = "topic readwrite panda_breath/+/state\n\
                    topic readwrite panda_breath/+/availability\n\
                    topic read panda_breath/+/command\n";
    let Some(one) = broker(no_write) else { return };
    let device = stock(&one, 0);
    let plan = behind(plain(&one), Spoken::StockMqtt);
    says(
        &plan,
        "rights",
        Level::Problem,
        &format!("panda_breath/{ID}/command"),
    )
    .await;
    drop((device, one));
    let no_read = "topic write panda_breath/#\ntopic read panda_breath/+/command\n";
    let other = broker(no_read).unwrap();
    let _device = stock(&other, 0);
    let plan = behind(plain(&other), Spoken::StockMqtt);
    says(&plan, "heard", Level::Problem, "nothing is heard").await;
    std::fs::remove_file(&path).unwrap();
}

#[tokio::test]
async fn a_command_that_the_broker_keeps_is_a_problem() {
    let Some(broker) = mosquitto_or_skip(Access::Anonymous) else {
        return;
    };
    let device = node(&broker, |_| {});
    let topic = "panda-breath/climate/chamber/mode/command";
    device.inject(&format!("rawretain {topic} off")).unwrap();
    let plan = behind(plain(&broker), Spoken::Esphome);
    says(&plan, "retained", Level::Problem, topic).await;
}

#[tokio::test]
async fn several_devices_behind_one_prefix_are_a_problem() {
    let Some(broker) = mosquitto_or_skip(Access::Anonymous) else {
        return;
    };
    let _devices = [stock(&broker, 0), stock(&broker, 1)];
    let plan = behind(plain(&broker), Spoken::StockMqtt);
    let found = bad(&plan).await;
    assert_eq!(
        (found[0].0, found[0].1),
        ("one_device", Level::Problem),
        "{found:?}"
    );
    let mut chosen = plan;
    if let Some((_, options)) = &mut chosen.broker {
        options.device_id = Some(ID.into());
    }
    assert_eq!(bad(&chosen).await, []);
}

#[tokio::test]
async fn a_device_that_has_left_the_broker_is_a_problem() {
    let Some(broker) = mosquitto_or_skip(Access::Anonymous) else {
        return;
    };
    let device = node(&broker, |_| {});
    drop(device);
    let mut peer = client::Client::connect(&broker, &client::terms("peer", &["+/status"])).await;
    while peer.message().await.1 != "offline" {}
    let plan = behind(plain(&broker), Spoken::Esphome);
    says(&plan, "heard", Level::Problem, "is offline").await;
}

#[tokio::test]
async fn r5_what_only_the_broker_remembers_is_nobody() {
    let Some(broker) = mosquitto_or_skip(Access::Anonymous) else {
        return;
    };
    let mut peer = client::Client::connect(&broker, &client::terms("peer", &["sync/#"])).await;
    for (topic, word) in [
        ("panda-breath/status", "online"),
        ("panda-breath/climate/chamber/mode/state", "off"),
        ("panda-breath/sensor/chamber_temperature/state", "24.0"),
    ] {
        peer.connection.publish(&client::retained(topic, word));
    }
    peer.sync("peer").await;
    let plan = behind(plain(&broker), Spoken::Esphome);
    says(&plan, "heard", Level::Problem, "nothing is heard").await;
}

#[tokio::test]
async fn a_node_with_other_names_is_a_problem_that_names_the_option() {
    let Some(broker) = mosquitto_or_skip(Access::Anonymous) else {
        return;
    };
    let _device = node(&broker, |setup| setup.climate = "other".into());
    let plan = behind(plain(&broker), Spoken::Esphome);
    says(&plan, "topics", Level::Problem, "mqtt_climate").await;
}

#[tokio::test]
async fn a_node_that_clamps_targets_is_a_warning_where_it_says_so() {
    let Some(broker) = mosquitto_or_skip(Access::Anonymous) else {
        return;
    };
    let _device = node(&broker, |setup| {
        setup.platform = Platform::Thermostat(Thermostat::clamped());
        setup.discovery = Some(esphome::Discovery::default());
    });
    let plan = behind(plain(&broker), Spoken::Esphome);
    says(&plan, "limit", Level::Warning, "up to 30 C").await;
}

#[tokio::test]
async fn a_node_without_a_reading_is_a_problem() {
    let Some(broker) = mosquitto_or_skip(Access::Anonymous) else {
        return;
    };
    let device = node(&broker, |_| {});
    device.inject("fault chamber-open").unwrap();
    let plan = behind(plain(&broker), Spoken::Esphome);
    says(&plan, "state", Level::Problem, "tells no temperature").await;
}

#[tokio::test]
async fn r2_nothing_is_written_to_a_device_that_is_on() {
    let Some(broker) = mosquitto_or_skip(Access::Anonymous) else {
        return;
    };
    let device = stock(&broker, 0);
    device.inject("button on").unwrap();
    assert_eq!(bad(&behind(plain(&broker), Spoken::StockMqtt)).await, []);
    let frames = device.entries();
    assert!(
        !frames
            .iter()
            .any(|entry| matches!(entry.event, Event::Frame { .. }))
    );
}

// The network

/// An address where nobody is.
fn free() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap()
}

/// Does this to a device once somebody has connected.
fn once_visited(simulator: &Arc<Simulator>, command: &'static str) {
    let simulator = Arc::clone(simulator);
    std::thread::spawn(move || {
        let open = |entry: &Entry| matches!(entry.event, Event::Open { .. });
        simulator.wait_for(open, LIMIT).unwrap();
        simulator.inject(command).unwrap();
    });
}

/// A device that says each of these once, and the last one again and again.
async fn scripted(says: &[&str]) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .unwrap();
    let address = listener.local_addr().unwrap();
    let says: Vec<String> = says.iter().map(|text| (*text).to_owned()).collect();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let says = says.clone();
            tokio::spawn(async move {
                let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
                for text in &says {
                    if text == CLOSE {
                        return;
                    }
                    socket.send(Message::text(text.clone())).await.unwrap();
                }
                let Some(last) = says.last() else {
                    return std::future::pending().await;
                };
                loop {
                    tokio::time::sleep(Duration::from_millis(500)).await;
                    if socket.send(Message::text(last.clone())).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}
