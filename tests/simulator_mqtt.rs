//! Simulated devices at a real broker. Skipped where mosquitto is not installed.
#![expect(
    clippy::unwrap_used,
    reason = "a test's helpers may panic as its tests do"
)]

#[path = "broker/client.rs"]
#[allow(dead_code, reason = "it serves other tests as well")]
mod client;
mod mosquitto;

use std::sync::atomic::{AtomicU32, Ordering};

use _core::driver::mqtt::Incoming;
use _core::sim::esphome::{BangBang, Platform};
use _core::sim::{Dialect, Entry, Event, Options, Simulator};
use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio_tungstenite::tungstenite::Message;

use client::{LIMIT, plain, publication, retained, terms, with_password};
use mosquitto::{Access, Mosquitto, mosquitto_or_skip};

const STATUS: &str = "panda-breath/status";
const MODE: &str = "panda-breath/climate/chamber/mode";
const ACTION: &str = "panda-breath/climate/chamber/action/state";
const TARGET: &str = "panda-breath/climate/chamber/target_temperature";
const READING: &str = "panda-breath/sensor/chamber_temperature/state";
const STOCK: &str = "panda_breath/025042000001";

/// Somebody else at the broker.
struct Peer(client::Client);

impl Peer {
    async fn new(broker: &Mosquitto) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let id = format!("peer{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let everything = terms(&id, &["panda-breath/#", "esphome/#", "panda_breath/#"]);
        Peer(client::Client::connect(broker, &everything).await)
    }

    fn send(&mut self, topic: &str, payload: &str) {
        self.0.connection.publish(&publication(topic, payload));
    }

    /// The next message on this topic: its payload, and whether it was kept.
    async fn on(&mut self, topic: &str) -> (String, bool) {
        loop {
            let (at, payload, retained) = self.0.message().await;
            if at == topic {
                return (payload, retained);
            }
        }
    }

    /// Waits for this payload on this topic.
    async fn until(&mut self, topic: &str, payload: &str) {
        while self.on(topic).await.0 != payload {}
    }
}

fn start(broker: &Mosquitto, dialect: Dialect, change: impl FnOnce(&mut Options)) -> Simulator {
    let mut options = Options {
        dialect,
        broker: Some(plain(broker)),
        reconnect_s: 0.1,
        reboot_s: 0.2,
        ..Options::default()
    };
    options.node.debug = false;
    options.node.update_s = 0.2;
    change(&mut options);
    Simulator::start(options).unwrap()
}

fn node(broker: &Mosquitto) -> Simulator {
    start(broker, Dialect::Esphome, |_| {})
}

fn wait(simulator: &Simulator, fits: impl Fn(&Event) -> bool) -> Entry {
    let entry = simulator.wait_for(|entry| fits(&entry.event), LIMIT);
    entry.unwrap_or_else(|| panic!("{:?}", simulator.entries()))
}

#[tokio::test]
async fn a_node_says_online_before_its_states_and_the_broker_keeps_them_all() {
    let Some(broker) = mosquitto_or_skip(Access::Anonymous) else {
        return;
    };
    let mut early = Peer::new(&broker).await;
    let _simulator = node(&broker);
    let mut topics = Vec::new();
    loop {
        let (topic, payload, retained) = early.0.message().await;
        assert!(!retained, "it is news");
        topics.push(topic.clone());
        if topic == ACTION {
            assert_eq!(payload, "off");
            break;
        }
    }
    assert_eq!(topics[0], "esphome/discover/panda-breath");
    assert_eq!(topics[1], STATUS);
    early.on(READING).await;
    let mut late = Peer::new(&broker).await;
    assert_eq!(late.on(STATUS).await, ("online".into(), true));
    let mut late = Peer::new(&broker).await;
    assert_eq!(
        late.on(&format!("{MODE}/state")).await,
        ("off".into(), true)
    );
}

#[tokio::test]
async fn a_node_connects_as_esphome_does() {
    let Some(broker) = mosquitto_or_skip(Access::Anonymous) else {
        return;
    };
    let _simulator = node(&broker);
    let line = broker.wait_log(|line| line.contains("New client connected"));
    // Session kept, keep alive of 15 s.
    assert!(
        line.contains("as panda-breath-025042000001 (p2, c0, k15"),
        "{line}"
    );
    broker.wait_log(|line| line.contains("climate/chamber/mode/command (QoS 0)"));
}

#[tokio::test]
async fn a_command_is_answered_with_the_set_and_logged() {
    let Some(broker) = mosquitto_or_skip(Access::Anonymous) else {
        return;
    };
    let simulator = node(&broker);
    let mut peer = Peer::new(&broker).await;
    peer.on(READING).await;
    peer.send(&format!("{TARGET}/command"), "45");
    peer.until(&format!("{TARGET}/state"), "45.0").await;
    peer.send(&format!("{MODE}/command"), "heat");
    peer.until(ACTION, "heating").await;
    wait(&simulator, |event| {
        let command = format!("{TARGET}/command 45");
        matches!(event, Event::Frame { text, opcode: "publish", .. } if *text == command)
    });
    wait(&simulator, |event| {
        matches!(
            event,
            Event::Node {
                work_on: 1,
                work_mode: 2,
                set_temp: 45.0,
                heater: true,
                ..
            }
        )
    });
}

#[tokio::test]
async fn a_ping_is_answered() {
    let Some(broker) = mosquitto_or_skip(Access::Anonymous) else {
        return;
    };
    let _simulator = node(&broker);
    let mut peer = Peer::new(&broker).await;
    peer.on(READING).await;
    peer.send("esphome/ping/panda-breath", "");
    let (info, kept) = peer.on("esphome/discover/panda-breath").await;
    let info: Value = serde_json::from_str(&info).unwrap();
    assert!(info["mac"] == "025042000001" && !kept);
}

#[tokio::test]
async fn a_retained_command_comes_again_with_every_connection() {
    let Some(broker) = mosquitto_or_skip(Access::Anonymous) else {
        return;
    };
    let mut peer = Peer::new(&broker).await;
    peer.0
        .connection
        .publish(&retained(&format!("{MODE}/command"), "heat"));
    let simulator = node(&broker);
    for _ in 0..2 {
        peer.until(&format!("{MODE}/state"), "heat").await;
        peer.send(&format!("{MODE}/command"), "off");
        peer.until(&format!("{MODE}/state"), "off").await;
        simulator.inject("drop").unwrap();
    }
    peer.until(&format!("{MODE}/state"), "heat").await;
}

#[tokio::test]
async fn a_dropped_connection_leaves_the_will_and_is_made_again() {
    let Some(broker) = mosquitto_or_skip(Access::Anonymous) else {
        return;
    };
    for dialect in [Dialect::Esphome, Dialect::StockMqtt] {
        let simulator = start(&broker, dialect, |_| {});
        let status = match dialect {
            Dialect::Esphome => STATUS.to_owned(),
            Dialect::Stock | Dialect::StockMqtt => format!("{STOCK}/availability"),
        };
        let mut peer = Peer::new(&broker).await;
        peer.until(&status, "online").await;
        simulator.inject("drop").unwrap();
        peer.until(&status, "offline").await;
        peer.until(&status, "online").await;
        wait(&simulator, |event| {
            *event == Event::Close { client: 1, open: 0 }
        });
        wait(&simulator, |event| {
            *event == Event::Open { client: 2, open: 1 }
        });
    }
}

#[tokio::test]
async fn a_broker_that_restarts_gets_everything_again() {
    let Some(mut broker) = mosquitto_or_skip(Access::Anonymous) else {
        return;
    };
    let simulator = node(&broker);
    wait(&simulator, |event| {
        *event == Event::Open { client: 1, open: 1 }
    });
    broker.restart();
    let mut peer = Peer::new(&broker).await;
    peer.until(STATUS, "online").await;
    peer.on(ACTION).await;
}

#[tokio::test]
async fn a_reboot_says_goodbye_and_brings_the_mode_back() {
    let Some(broker) = mosquitto_or_skip(Access::Anonymous) else {
        return;
    };
    let simulator = node(&broker);
    let mut peer = Peer::new(&broker).await;
    peer.on(READING).await;
    peer.send(&format!("{MODE}/command"), "heat");
    peer.until(ACTION, "heating").await;
    simulator.inject("reboot").unwrap();
    peer.until(STATUS, "offline").await;
    wait(&simulator, |event| *event == Event::Down);
    peer.until(STATUS, "online").await;
    peer.until(&format!("{MODE}/state"), "heat").await;
    wait(&simulator, |event| *event == Event::Up);
}

#[tokio::test]
async fn a_power_cut_loses_what_was_not_in_flash_yet() {
    let Some(broker) = mosquitto_or_skip(Access::Anonymous) else {
        return;
    };
    let simulator = node(&broker);
    let mut peer = Peer::new(&broker).await;
    peer.on(READING).await;
    peer.send(&format!("{MODE}/command"), "heat");
    peer.until(ACTION, "heating").await;
    let before = simulator.entries().len();
    simulator.inject("powercut 0.3").unwrap();
    peer.until(STATUS, "online").await;
    peer.until(&format!("{MODE}/state"), "off").await;
    let off = |entry: &Entry| {
        matches!(
            entry.event,
            Event::Node {
                heater: false,
                work_on: 0,
                ..
            }
        )
    };
    assert!(simulator.wait_for_new(before, off, LIMIT).is_some());
}

#[tokio::test]
async fn what_is_done_at_the_device_is_published() {
    let Some(broker) = mosquitto_or_skip(Access::Anonymous) else {
        return;
    };
    let simulator = node(&broker);
    let mut peer = Peer::new(&broker).await;
    peer.on(READING).await;
    simulator.inject("button on").unwrap();
    peer.until(&format!("{MODE}/state"), "heat").await;
    peer.until(ACTION, "heating").await;
    simulator.inject("fault chamber-open").unwrap();
    peer.until(READING, "nan").await;
    simulator.inject("fault clear").unwrap();
    simulator.inject("chamber 55").unwrap();
    peer.until(READING, "55.0").await;
    simulator.inject("raw some/thing a b").unwrap();
    simulator.inject("raw panda-breath/x a b").unwrap();
    assert_eq!(peer.on("panda-breath/x").await, ("a b".into(), false));
    simulator.inject("rawretain panda-breath/x c").unwrap();
    assert_eq!(peer.on("panda-breath/x").await.0, "c");
    let mut late = Peer::new(&broker).await;
    assert_eq!(late.on("panda-breath/x").await, ("c".into(), true));
    simulator.inject("garbage").unwrap();
    // Not all of it is text.
    loop {
        if let Incoming::Message { payload, .. } = peer.0.next().await {
            if payload == "30,5" {
                break;
            }
        }
    }
    simulator.inject("flood 1000 0.1").unwrap();
    simulator.inject("button power").unwrap();
    peer.until(&format!("{MODE}/state"), "off").await;
}

#[tokio::test]
async fn a_muted_device_stays_connected_and_a_hung_one_catches_up() {
    let Some(broker) = mosquitto_or_skip(Access::Anonymous) else {
        return;
    };
    let simulator = node(&broker);
    let mut peer = Peer::new(&broker).await;
    peer.on(READING).await;
    simulator.inject("mute 3600").unwrap();
    peer.send(&format!("{MODE}/command"), "heat");
    wait(&simulator, |event| {
        matches!(event, Event::Node { work_on: 1, .. })
    });
    simulator.inject("mute 0").unwrap();
    simulator.inject("hang").unwrap();
    peer.send(&format!("{MODE}/command"), "off");
    simulator.inject("resume").unwrap();
    peer.until(&format!("{MODE}/state"), "off").await;
    assert!(
        !simulator
            .entries()
            .iter()
            .any(|entry| matches!(entry.event, Event::Close { .. }))
    );
}

#[tokio::test]
async fn a_device_that_hangs_is_freed_by_a_reboot() {
    let Some(broker) = mosquitto_or_skip(Access::Anonymous) else {
        return;
    };
    for dialect in [Dialect::Esphome, Dialect::StockMqtt] {
        let simulator = start(&broker, dialect, |_| {});
        wait(&simulator, |event| {
            *event == Event::Open { client: 1, open: 1 }
        });
        simulator.inject("hang").unwrap();
        simulator.inject("reboot").unwrap();
        wait(&simulator, |event| {
            *event == Event::Open { client: 2, open: 1 }
        });
    }
}

#[tokio::test]
async fn a_device_can_stay_away_for_a_while() {
    let Some(broker) = mosquitto_or_skip(Access::Anonymous) else {
        return;
    };
    let simulator = node(&broker);
    let mut peer = Peer::new(&broker).await;
    peer.until(STATUS, "online").await;
    simulator.inject("refuse 0.5").unwrap();
    peer.until(STATUS, "offline").await;
    peer.until(STATUS, "online").await;
}

#[tokio::test]
async fn several_nodes_have_names_of_their_own() {
    let Some(broker) = mosquitto_or_skip(Access::Anonymous) else {
        return;
    };
    let simulator = start(&broker, Dialect::Esphome, |options| {
        options.count = 2;
        options.node.platform = Platform::BangBang(BangBang::default());
    });
    for device in [0, 1] {
        let connected = |entry: &Entry| {
            entry.device == Some(device) && entry.event == Event::Open { client: 1, open: 1 }
        };
        assert!(simulator.wait_for(connected, LIMIT).is_some());
    }
    broker.wait_log(|line| line.contains("as panda-breath-000002-025042000002 "));
    simulator.inject("@1 button power").unwrap();
    assert!(simulator.inject("@2 drop").is_err());
}

#[tokio::test]
async fn a_broker_that_refuses_is_named_once() {
    let Some(broker) = mosquitto_or_skip(Access::Password) else {
        return;
    };
    let simulator = start(&broker, Dialect::Esphome, |options| {
        options.reconnect_s = 0.01;
    });
    let refused = |event: &Event| matches!(event, Event::Unreachable { .. });
    wait(&simulator, refused);
    let count = |text: &str| broker.log().matches(text).count();
    while count("not authorised") < 3 {
        tokio::task::yield_now().await;
    }
    let entries = simulator.entries();
    assert_eq!(
        entries.iter().filter(|entry| refused(&entry.event)).count(),
        1
    );
    drop(simulator);
    let simulator = start(&broker, Dialect::Esphome, |options| {
        options.broker = Some(with_password(&broker));
    });
    wait(&simulator, |event| {
        *event == Event::Open { client: 1, open: 1 }
    });
}

#[tokio::test]
async fn the_stock_device_publishes_twice_a_second_and_obeys() {
    let Some(broker) = mosquitto_or_skip(Access::Anonymous) else {
        return;
    };
    let simulator = start(&broker, Dialect::StockMqtt, |_| {});
    let mut peer = Peer::new(&broker).await;
    peer.until(&format!("{STOCK}/availability"), "online").await;
    let command = r#"{"target_temp":45,"mode":"power on","work_on":"ON"}"#;
    peer.send(&format!("{STOCK}/command"), command);
    loop {
        let (state, _) = peer.on(&format!("{STOCK}/state")).await;
        let state: Value = serde_json::from_str(&state).unwrap();
        if state["target_temp"] == 45 {
            assert_eq!(state["mode"], "power on");
            break;
        }
    }
    wait(&simulator, |event| {
        matches!(
            event,
            Event::State {
                set_temp: 45,
                work_mode: 2,
                heater: true,
                ..
            }
        )
    });
    // A press of a button shows there, too, and on the WebSocket, which it still has.
    simulator.inject("button power").unwrap();
    loop {
        let (state, _) = peer.on(&format!("{STOCK}/state")).await;
        if state.contains("\"OFF\"") && !state.contains("\"work_on\":\t\"ON\"") {
            break;
        }
    }
}

#[tokio::test]
async fn a_stock_device_can_be_bound_over_its_websocket() {
    let Some(broker) = mosquitto_or_skip(Access::Password) else {
        return;
    };
    let simulator = start(&broker, Dialect::StockMqtt, |options| options.broker = None);
    let (mut socket, _) = tokio_tungstenite::client_async(
        format!("ws://{}/ws", simulator.address(0)),
        tokio::net::TcpStream::connect(simulator.address(0))
            .await
            .unwrap(),
    )
    .await
    .unwrap();
    let login = with_password(&broker).login.unwrap();
    let bind = serde_json::json!({"ha": {
        "ip": "127.0.0.1",
        "port": broker.address.port(),
        "user": login.username,
        "password": login.password,
    }});
    socket.send(Message::text(bind.to_string())).await.unwrap();
    wait(&simulator, |event| {
        *event == Event::Open { client: 2, open: 2 }
    });
    loop {
        let frame = socket.next().await.unwrap().unwrap();
        let frame: Value = serde_json::from_str(frame.to_text().unwrap()).unwrap();
        if frame["ha"]["state"] == 3 && frame["settings"].is_null() {
            break;
        }
    }
    let leave = r#"{"ha":{"disconnect":1}}"#;
    socket.send(Message::text(leave)).await.unwrap();
    wait(&simulator, |event| {
        *event == Event::Close { client: 2, open: 1 }
    });
}

#[test]
fn commands_that_do_not_fit_are_refused() {
    let Some(broker) = mosquitto_or_skip(Access::Anonymous) else {
        return;
    };
    let simulator = node(&broker);
    for line in ["rawhex 81", "drip", "bed 90", "button dry", "raw #  x"] {
        assert!(simulator.inject(line).is_err(), "{line}");
    }
    let options = Options {
        dialect: Dialect::Esphome,
        ..Options::default()
    };
    assert!(Simulator::start(options).is_err(), "without a broker");
    let stock = Simulator::start(Options::default()).unwrap();
    assert!(stock.inject("rawretain a b").is_err());
}
