//! `panda-breath doctor` against simulated and scripted devices, and a real broker. A bad situation
//! has its finding, and the good one has none. Those with a broker are skipped where mosquitto is
//! not installed.
#![expect(
    clippy::unwrap_used,
    reason = "a test's helpers may panic as its tests do"
)]

#[path = "doctor/behind_broker.rs"]
mod behind_broker;
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
use _core::sim::{Entry, Event, Firmware, Options, Simulator};
use futures_util::{SinkExt, StreamExt};
use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, ResourceRecord};
use tokio::net::UdpSocket;
use tokio_tungstenite::tungstenite::Message;

use client::LIMIT;

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
        units: "/nonexistent".into(),
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
async fn a_name_that_two_devices_have_is_a_warning() {
    let simulator = device(|_| {});
    let port = simulator.address(0).port();
    let plan = |group| Plan {
        device: Some(format!("Doctor.local:{port}").parse().unwrap()),
        group: Some(group),
        ..plan()
    };
    let one = responder(&[[127, 0, 0, 1]]).await;
    assert_eq!(bad(&plan(one)).await, []);
    let two = responder(&[[127, 0, 0, 77], [127, 0, 0, 1]]).await;
    says(
        &plan(two),
        "resolves",
        Level::Warning,
        "perhaps 2 devices with one name",
    )
    .await;
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

// The network

/// An address where nobody is.
fn free() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap()
}

/// Answers to `Doctor.local`, from several devices.
async fn responder(addresses: &[[u8; 4]]) -> SocketAddr {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = socket.local_addr().unwrap();
    let answer = |ip: &[u8; 4]| {
        let mut packet = Packet::new_reply(0);
        let name = Name::new("Doctor.local").unwrap();
        let data = RData::A(Ipv4Addr::from(*ip).into());
        let record = ResourceRecord::new(name, CLASS::IN, 120, data);
        packet.answers.push(record);
        packet.build_bytes_vec().unwrap()
    };
    let answers: Vec<_> = addresses.iter().map(answer).collect();
    tokio::spawn(async move {
        loop {
            let (_, from) = socket.recv_from(&mut [0; 1500]).await.unwrap();
            for answer in &answers {
                socket.send_to(answer, from).await.unwrap();
            }
        }
    });
    address
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
