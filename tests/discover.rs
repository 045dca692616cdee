//! `panda-breath discover` against simulated devices, a scripted mDNS responder, and a real broker.
//! Those with a broker are skipped where mosquitto is not installed.
#![expect(
    clippy::unwrap_used,
    reason = "a test's helpers may panic as its tests do"
)]

#[path = "broker/client.rs"]
#[allow(dead_code, reason = "it serves other tests as well")]
mod client;
mod mosquitto;

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::time::Duration;

use _core::cli::bind::visit::Patience;
use _core::cli::discover::{Device, Found, Plan, discover};
use _core::dialect::{Dialect as Spoken, Mode};
use _core::driver::mqtt::Broker;
use _core::sim::esphome;
use _core::sim::{Dialect, Event, Firmware, Identity, Options, Simulator};
use simple_dns::rdata::{A, AAAA, PTR, RData, SRV, TXT};
use simple_dns::{CLASS, Name, Packet, PacketFlag, QTYPE, ResourceRecord, TYPE};
use tokio::net::UdpSocket;

use client::{plain, with_password};
use mosquitto::{Access, Mosquitto, mosquitto_or_skip};

const SERVICE: &str = "_http._tcp.local";

fn device(change: impl FnOnce(&mut Options)) -> Simulator {
    let mut options = Options {
        keep_entries: true,
        ..Options::default()
    };
    change(&mut options);
    Simulator::start(options).unwrap()
}

fn numbered(number: usize) -> Simulator {
    device(|options| options.setup.identity = Identity::default().offset(number))
}

/// As a person has it, but for waiting in vain.
fn plan() -> Plan {
    Plan {
        time: Duration::from_millis(400),
        patience: Patience {
            open: Duration::from_millis(800),
            snapshot: Duration::from_millis(500),
            ..Patience::default()
        },
        ..Plan::default()
    }
}

fn at(hosts: &[SocketAddr]) -> Plan {
    Plan {
        hosts: hosts
            .iter()
            .map(|address| address.to_string().parse().unwrap())
            .collect(),
        ..plan()
    }
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
async fn every_firmware_is_named_with_what_it_does() {
    for firmware in Firmware::ALL {
        let simulator = device(|options| options.setup.firmware = firmware);
        let found = discover(&at(&[simulator.address(0)])).await;
        let [device] = &found.devices[..] else {
            panic!("{found:?}");
        };
        assert_eq!(device.firmware.as_deref(), Some(firmware.reported()));
        assert_eq!(device.dialect, Spoken::Stock);
        assert_eq!(device.report.mode, Some(Mode::Auto), "{firmware:?}");
        assert!(device.report.reading.is_some());
        let port = simulator.address(0).port();
        let text = found.text(&plan());
        let section = format!("    [panda_breath]\n    host: 127.0.0.1\n    port: {port}\n\n");
        assert!(text.ends_with(&section), "{text}");
        assert!(
            text.contains("on, mode auto, target 60 C, chamber 2"),
            "{text}"
        );
        assert_eq!(visits(&simulator), 1);
    }
}

#[tokio::test]
async fn r11_what_is_secret_is_not_printed() {
    let simulator = device(|options| options.setup.access_code = Some("12345678".into()));
    let found = discover(&at(&[simulator.address(0)])).await;
    let text = found.text(&plan()) + &found.json();
    for secret in [
        "not-a-password",
        "987654321",
        "12345678",
        "Simulated",
        "025042",
    ] {
        assert!(!text.contains(secret), "{secret}: {text}");
    }
}

#[tokio::test]
async fn what_is_no_device_is_said_of_an_address_that_the_user_names() {
    let closed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let gone = closed.local_addr().unwrap();
    drop(closed);
    let (web, _) = web_server();
    let hanging = device(|_| {});
    hanging.inject("hang all").unwrap();
    for (address, why) in [
        (gone, "connection refused"),
        (web, "it answers, but not as a Panda Breath does (HTTP 404)"),
        (hanging.address(0), "no answer"),
    ] {
        let found = discover(&at(&[address])).await;
        assert_eq!(found.failures, [(address.to_string(), why.to_owned())]);
        let text = found.text(&plan());
        assert!(text.contains(&format!("{address}: {why}\n")), "{text}");
        assert!(text.contains("Is it on Wi-Fi?"), "{text}");
    }
    let named = Plan {
        hosts: vec!["no-such-host.invalid".parse().unwrap()],
        ..plan()
    };
    let found = discover(&named).await;
    assert!(
        found.failures[0].1.contains("cannot be resolved"),
        "{found:?}"
    );
}

#[tokio::test]
async fn one_device_is_one_device_however_often_it_is_named() {
    let simulator = device(|_| {});
    let address = simulator.address(0);
    let group = responder(vec![announced("PandaBreath", "PandaBreath.local", address)]).await;
    let twice = Plan {
        group: Some(group),
        ..at(&[address, address])
    };
    let found = discover(&twice).await;
    assert_eq!((found.devices.len(), found.others), (1, 0), "{found:?}");
    assert_eq!(visits(&simulator), 1);
}

#[tokio::test]
async fn one_device_at_two_addresses_is_one_device() {
    // With one identity, as one with IPv4 and IPv6 has.
    let simulators = [numbered(0), numbered(0)];
    let found = discover(&at(&simulators.each_ref().map(|one| one.address(0)))).await;
    assert_eq!(found.devices.len(), 1, "{found:?}");
}

#[tokio::test]
async fn two_devices_get_sections_that_do_not_mix_them_up() {
    let simulators = [numbered(0), numbered(1)];
    let answers = simulators
        .iter()
        .zip(["", "-2"])
        .map(|(simulator, suffix)| {
            let name = format!("PandaBreath{suffix}");
            announced(&name, &format!("{name}.local"), simulator.address(0))
        });
    let found = browsed(answers.collect()).await;
    assert_eq!(found.devices.len(), 2, "{found:?}");
    let ids: Vec<_> = found
        .devices
        .iter()
        .map(|device| device.id.clone().unwrap())
        .collect();
    assert_ne!(ids[0], ids[1]);
    let text = found.text(&plan());
    for (device, id) in found.devices.iter().zip(&ids) {
        let port = &device.options[1].1;
        let section = format!(
            "    [panda_breath {id}]\n    host: 127.0.0.1\n    port: {port}\n    device_id: {id}\n"
        );
        assert!(text.contains(&section), "{text}");
    }
    // The same for programs.
    let json: serde_json::Value = serde_json::from_str(&found.json()).unwrap();
    assert_eq!(json["devices"][1]["device_id"], ids[1].as_str());
    assert_eq!(json["devices"][0]["on"], true);
}

#[tokio::test]
async fn an_announcement_may_come_in_pieces_and_in_ipv6() {
    if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        return;
    }
    let simulator = device(|options| options.listen = (Ipv6Addr::LOCALHOST, 0).into());
    let whole = announced("PandaBreath", "PandaBreath.local", simulator.address(0));
    // Only what was asked for, one record per packet.
    let group = responder(whole.into_iter().map(|record| vec![record]).collect()).await;
    let found = discover(&Plan {
        group: Some(group),
        time: Duration::from_secs(2), // three times something is asked
        ..plan()
    })
    .await;
    assert_eq!(found.devices.len(), 1, "{found:?}");
    assert_eq!(found.devices[0].options[0].1, "::1");
}

#[tokio::test]
async fn a_device_that_only_answers_to_its_name_is_found() {
    let simulator = device(|_| {});
    let group = responder(vec![vec![address_of("PandaBreath.local", LOCALHOST)]]).await;
    let pages = _core::driver::browse::browse(&["PandaBreath.local"], group, plan().time)
        .await
        .unwrap();
    assert_eq!(pages.len(), 1);
    assert_eq!(
        (pages[0].port, &pages[0].addresses[..]),
        (80, &[LOCALHOST][..])
    );
    drop(simulator);
}

#[tokio::test]
async fn a_renamed_device_is_known_by_what_it_says_of_its_board() {
    let simulator = device(|_| {});
    let mut answer = announced("heater", "chamber.local", simulator.address(0));
    answer.push(Record::Text("heater", &["board=esp32c3", "path=/"]));
    let found = browsed(vec![answer]).await;
    assert_eq!(found.devices.len(), 1, "{found:?}");
}

#[tokio::test]
async fn other_web_pages_are_left_alone() {
    let (web, connections) = web_server();
    let found = browsed(vec![announced("NAS", "nas.local", web)]).await;
    assert_eq!((found.devices.len(), found.others), (0, 1), "{found:?}");
    assert_eq!(found.failures, []);
    assert!(connections.try_recv().is_err(), "nobody has called there");
    assert!(found.text(&plan()).contains("1 other announcement"));
}

#[tokio::test]
async fn a_responder_that_lies_hides_nothing_and_sends_us_nowhere() {
    let simulator = device(|_| {});
    let (web, _) = web_server();
    let closed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let gone = closed.local_addr().unwrap();
    drop(closed);
    let mut garbage = vec![
        announced("PandaBreath-3", "PandaBreath-3.local", web),
        announced("PandaBreath-4", "PandaBreath-4.local", gone),
        // Another address for the real one's name, said first.
        vec![address_of(
            "PandaBreath.local",
            "127.0.0.77".parse().unwrap(),
        )],
        vec![address_of(
            "PandaBreath.local",
            "224.0.0.251".parse().unwrap(),
        )],
        vec![address_of("PandaBreath.local", "0.0.0.0".parse().unwrap())],
    ];
    garbage.push(announced(
        "PandaBreath",
        "PandaBreath.local",
        simulator.address(0),
    ));
    let found = browsed(garbage).await;
    assert_eq!(found.devices.len(), 1, "{found:?}");
    assert_eq!(found.devices[0].options[0].1, "127.0.0.1");
    assert_eq!(found.failures.len(), 2, "{found:?}");
    assert_eq!(visits(&simulator), 1);
}

#[tokio::test]
async fn nothing_found_is_an_empty_list_in_its_time() {
    let start = tokio::time::Instant::now();
    let found = browsed(Vec::new()).await;
    assert_eq!(found, Found::default());
    assert!(start.elapsed() < Duration::from_secs(2));
    assert!(found.text(&plan()).contains("Nothing was found"));
}

// Behind a broker

fn behind(broker: Broker) -> Plan {
    Plan {
        broker: Some(broker),
        ..plan()
    }
}

fn node(broker: &Mosquitto, change: impl FnOnce(&mut esphome::Setup)) -> Simulator {
    let mut setup = esphome::Setup::default();
    change(&mut setup);
    device(|options| {
        options.dialect = Dialect::Esphome;
        options.broker = Some(plain(broker));
        options.node = setup;
    })
}

fn stock(broker: &Mosquitto, number: usize) -> Simulator {
    device(|options| {
        options.dialect = Dialect::StockMqtt;
        options.broker = Some(plain(broker));
        options.setup.identity = Identity::default().offset(number);
    })
}

fn options(device: &Device) -> Vec<(&str, &str)> {
    let options = device.options.iter();
    options
        .map(|(option, value)| (*option, value.as_str()))
        .collect()
}

/// Waits until the simulated device is at its broker.
fn connected(simulator: &Simulator) {
    let open = |entry: &_core::sim::Entry| matches!(entry.event, Event::Open { .. });
    simulator.wait_for(open, client::LIMIT).unwrap();
}

#[tokio::test]
async fn both_kinds_are_found_at_a_broker_and_told_apart() {
    let Some(broker) = mosquitto_or_skip(Access::Anonymous) else {
        return;
    };
    let port = broker.address.port().to_string();
    let devices = [node(&broker, |_| {}), stock(&broker, 7)];
    devices.iter().for_each(connected);
    let found = discover(&behind(plain(&broker))).await;
    assert_eq!(found.failures, []);
    let [stock, node] = &found.devices[..] else {
        panic!("{found:?}");
    };
    assert_eq!(
        (stock.dialect, node.dialect),
        (Spoken::StockMqtt, Spoken::Esphome)
    );
    let common = [("mqtt_broker", "127.0.0.1"), ("mqtt_port", port.as_str())];
    let mut wanted = common.to_vec();
    wanted.extend([
        ("firmware", "stock_mqtt"),
        ("mqtt_device_id", "025042000008"),
    ]);
    assert_eq!(options(stock), wanted);
    let mut wanted = common.to_vec();
    wanted.push(("firmware", "esphome"));
    assert_eq!(options(node), wanted);
    assert_eq!(stock.report.on, Some(true));
    assert!(stock.report.reading.is_some());
    assert_eq!(node.report.on, Some(false));
    assert!(node.report.reading.is_some());
    assert!(
        node.firmware.as_ref().unwrap().starts_with("ESPHome 20"),
        "{node:?}"
    );
}

#[tokio::test]
async fn one_device_that_is_found_both_ways_is_said_to_be_one() {
    let Some(broker) = mosquitto_or_skip(Access::Anonymous) else {
        return;
    };
    let bound = stock(&broker, 0);
    connected(&bound);
    let found = discover(&Plan {
        broker: Some(plain(&broker)),
        ..at(&[bound.address(0)])
    })
    .await;
    let [direct, behind] = &found.devices[..] else {
        panic!("{found:?}");
    };
    assert_eq!(
        (direct.dialect, behind.dialect),
        (Spoken::Stock, Spoken::StockMqtt)
    );
    assert_eq!(
        (&direct.same_as, &behind.same_as),
        (&None, &Some(direct.name.clone()))
    );
    let text = found.text(&plan());
    assert!(text.contains("instead of the other section"), "{text}");
}

#[tokio::test]
async fn nodes_that_are_something_else_are_counted_only() {
    let Some(broker) = mosquitto_or_skip(Access::Anonymous) else {
        return;
    };
    let devices = [
        node(&broker, |setup| setup.node = "my-panda".into()),
        node(&broker, |setup| {
            setup.node = "lamp".into();
            setup.climate = "other".into();
            setup.identity = Identity::default().offset(1);
        }),
        node(&broker, |setup| {
            setup.node = "panda-two".into();
            setup.climate = "other".into();
            setup.identity = Identity::default().offset(2);
        }),
    ];
    devices.iter().for_each(connected);
    let found = discover(&behind(plain(&broker))).await;
    assert_eq!((found.devices.len(), found.others), (1, 1), "{found:?}");
    assert!(options(&found.devices[0]).contains(&("mqtt_topic_prefix", "my-panda")));
    assert!(found.failures[0].0.starts_with("panda-two"), "{found:?}");
    // What only the broker remembers is nobody.
    drop(devices);
    let found = discover(&behind(plain(&broker))).await;
    assert_eq!((found.devices.len(), found.others), (0, 0), "{found:?}");
}

#[tokio::test]
async fn a_broker_that_does_not_let_us_in_says_why() {
    let Some(broker) = mosquitto_or_skip(Access::Password) else {
        return;
    };
    let found = discover(&behind(plain(&broker))).await;
    assert!(
        found.failures[0]
            .1
            .contains("wants a user name and password"),
        "{found:?}"
    );
    let found = discover(&behind(with_password(&broker))).await;
    assert_eq!(found.failures, []);
}

// The network

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// What may be said about a name.
#[derive(Clone)]
enum Record {
    /// A service has this title.
    Title(String),
    /// It is there.
    Place(String, String, u16),
    Text(&'static str, &'static [&'static str]),
    Address(String, IpAddr),
}

fn address_of(host: &str, ip: IpAddr) -> Record {
    Record::Address(host.to_owned(), ip)
}

/// Everything that this firmware announces.
fn announced(title: &str, host: &str, at: SocketAddr) -> Vec<Record> {
    vec![
        Record::Title(title.to_owned()),
        Record::Place(title.to_owned(), host.to_owned(), at.port()),
        address_of(host, at.ip()),
    ]
}

impl Record {
    fn name(&self) -> String {
        match self {
            Self::Title(_) => SERVICE.to_owned(),
            Self::Place(title, ..) => format!("{title}.{SERVICE}"),
            Self::Text(title, _) => format!("{title}.{SERVICE}"),
            Self::Address(host, _) => host.clone(),
        }
    }

    fn kind(&self) -> TYPE {
        match self {
            Self::Title(_) => TYPE::PTR,
            Self::Place(..) => TYPE::SRV,
            Self::Text(..) => TYPE::TXT,
            Self::Address(_, IpAddr::V4(_)) => TYPE::A,
            Self::Address(_, IpAddr::V6(_)) => TYPE::AAAA,
        }
    }

    fn data(&self) -> RData<'static> {
        let name = |text: String| Name::new(&text).unwrap().into_owned();
        match self {
            Self::Title(title) => RData::PTR(PTR(name(format!("{title}.{SERVICE}")))),
            Self::Place(_, host, port) => RData::SRV(SRV {
                priority: 0,
                weight: 0,
                port: *port,
                target: name(host.clone()),
            }),
            Self::Text(_, strings) => {
                let mut text = TXT::new();
                for string in *strings {
                    text.add_string(string).unwrap();
                }
                RData::TXT(text)
            }
            Self::Address(_, IpAddr::V4(ip)) => RData::A(A::from(*ip)),
            Self::Address(_, IpAddr::V6(ip)) => RData::AAAA(AAAA::from(*ip)),
        }
    }
}

async fn browsed(packets: Vec<Vec<Record>>) -> Found {
    let group = responder(packets).await;
    discover(&Plan {
        group: Some(group),
        ..plan()
    })
    .await
}

/// Says each of these packets to whoever asks for a record in it, and garbage before.
async fn responder(packets: Vec<Vec<Record>>) -> SocketAddr {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 9000];
        loop {
            let (len, from) = socket.recv_from(&mut buffer).await.unwrap();
            let asked = Packet::parse(&buffer[..len]).unwrap();
            assert!(
                asked
                    .questions
                    .iter()
                    .all(|question| question.unicast_response)
            );
            for garbage in [&b"garbage"[..], b"", &[0xff; 1400]] {
                socket.send_to(garbage, from).await.unwrap();
            }
            // Our own question, as whoever listens in the group gets it.
            socket.send_to(&buffer[..len], from).await.unwrap();
            for records in &packets {
                let is_asked = |record: &Record| {
                    asked.questions.iter().any(|question| {
                        let name = question.qname.to_string();
                        name.eq_ignore_ascii_case(&record.name())
                            && question.qtype == QTYPE::TYPE(record.kind())
                    })
                };
                if !records.iter().any(is_asked) {
                    continue;
                }
                let mut packet = Packet::new_reply(0);
                packet.set_flags(PacketFlag::AUTHORITATIVE_ANSWER);
                for record in records {
                    let name = record.name();
                    let name = Name::new(&name).unwrap().into_owned();
                    let record = ResourceRecord::new(name, CLASS::IN, 120, record.data());
                    packet.answers.push(record);
                }
                let bytes = packet.build_bytes_vec().unwrap();
                socket.send_to(&bytes, from).await.unwrap();
            }
        }
    });
    address
}

/// Somebody else's web page; says when it is called.
fn web_server() -> (SocketAddr, std::sync::mpsc::Receiver<()>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let (send, receive) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = send.send(());
            let _ = std::io::Read::read(&mut stream, &mut [0; 1024]);
            let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
        }
    });
    (address, receive)
}
