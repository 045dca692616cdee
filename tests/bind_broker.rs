//! `panda-breath bind-broker` and `unbind-broker` against simulated and scripted devices and a real
//! broker. Those with a broker are skipped where mosquitto is not installed.
#![expect(
    clippy::unwrap_used,
    reason = "a test's helpers may panic as its tests do"
)]

#[path = "broker/client.rs"]
#[allow(dead_code, reason = "it serves other tests as well")]
mod client;
mod mosquitto;

use std::ffi::OsString;
use std::net::{SocketAddr, SocketAddrV4, TcpListener};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use _core::cli::bind::{Order, Patience, Place, bind, unbind, visit};
use _core::sim::{Dialect, Event, Firmware, Options, Simulator};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use client::{LIMIT, login, terms};
use mosquitto::{Access, Mosquitto, PASSWORD, USERNAME, mosquitto_or_skip};

const ID: &str = "025042000001";
/// Nobody listens there.
const NO_BROKER: &str = "127.0.0.1:1";

/// A 1.0.4 that is off and bound to nothing.
fn device() -> Simulator {
    start(|_| {})
}

fn start(change: impl FnOnce(&mut Options)) -> Simulator {
    let mut options = Options {
        dialect: Dialect::StockMqtt,
        reconnect_s: 0.1,
        ..Options::default()
    };
    change(&mut options);
    let simulator = Simulator::start(options).unwrap();
    simulator.inject("button power").unwrap();
    simulator
}

fn place(address: SocketAddr) -> Place {
    address.to_string().parse().unwrap()
}

fn at(broker: &Mosquitto) -> SocketAddrV4 {
    broker.address.to_string().parse().unwrap()
}

fn order(device: SocketAddr, broker: SocketAddrV4) -> Order {
    Order {
        device: place(device),
        broker,
        login: None,
        again: false,
        while_on: false,
    }
}

/// As a person has it, but for waiting in vain.
fn patience() -> Patience {
    Patience {
        visit: visit::Patience {
            settle: Duration::from_millis(100),
            ..visit::Patience::default()
        },
        between: Duration::from_millis(100),
        most: LIMIT,
    }
}

/// For what never comes.
fn impatience() -> Patience {
    Patience {
        visit: visit::Patience {
            open: Duration::from_millis(500),
            snapshot: Duration::from_millis(500),
            ..patience().visit
        },
        most: Duration::from_secs(1),
        ..patience()
    }
}

async fn bound(order: &Order, patience: &Patience) -> (Result<(), String>, String) {
    let mut out = Vec::new();
    let result = bind(order, patience, &mut out).await;
    said(result, out)
}

async fn unbound(device: SocketAddr, patience: &Patience) -> (Result<(), String>, String) {
    let mut out = Vec::new();
    let result = unbind(&place(device), false, patience, &mut out).await;
    said(result, out)
}

fn said(result: std::io::Result<()>, out: Vec<u8>) -> (Result<(), String>, String) {
    let result = result.map_err(|error| error.to_string());
    if let Err(text) = &result {
        assert!(!text.contains('\n'), "{text}");
    }
    (result, String::from_utf8(out).unwrap())
}

/// The frames about a broker that a device got.
fn frames(simulator: &Simulator) -> Vec<Value> {
    let entries = simulator.entries();
    let texts = entries.iter().filter_map(|entry| {
        let Event::Frame { text, opcode, .. } = &entry.event else {
            return None;
        };
        assert!(
            ["text", "publish"].contains(opcode),
            "no ping, nothing else"
        );
        (*opcode == "text").then(|| serde_json::from_str(text).unwrap())
    });
    texts.collect()
}

/// Waits for the device to say at the broker whether it is there.
async fn availability(broker: &Mosquitto, word: &str) {
    let filter = format!("panda_breath/{ID}/availability");
    let mut peer = client::Client::connect(broker, &terms("peer", &[&filter])).await;
    while peer.message().await.1 != word {}
}

#[tokio::test]
async fn a_device_that_is_bound_is_at_the_broker() {
    let Some(broker) = mosquitto_or_skip(Access::Anonymous) else {
        return;
    };
    let simulator = device();
    let order = order(simulator.address(0), at(&broker));
    let (result, text) = bound(&order, &patience()).await;
    assert_eq!(result, Ok(()), "{text}");
    assert_eq!(
        text,
        format!(
            "{}: firmware V1.0.4, device {ID}\n\
             It is bound to {broker}, and connected.\n\n\
             In printer.cfg, in the section [panda_breath] and instead of its 'host':\n\n\
             firmware: stock_mqtt\nmqtt_broker: 127.0.0.1\nmqtt_port: {}\nmqtt_device_id: {ID}\n",
            order.device,
            order.broker.port(),
            broker = order.broker,
        )
    );
    let (ip, port) = ("127.0.0.1", order.broker.port());
    let frame = json!({"ha": {"ip": ip, "port": port, "user": "", "password": ""}});
    assert_eq!(frames(&simulator), [frame]);
    availability(&broker, "online").await;
}

#[tokio::test]
async fn r11_a_password_reaches_the_device_and_nobody_else() {
    let Some(broker) = mosquitto_or_skip(Access::Password) else {
        return;
    };
    let simulator = device();
    let mut order = order(simulator.address(0), at(&broker));
    order.login = Some(login("wrong"));
    let (result, _) = bound(&order, &impatience()).await;
    let text = result.unwrap_err();
    assert!(text.contains("user name and password"), "{text}");
    order.login = Some(login(PASSWORD));
    let (result, text) = bound(&order, &patience()).await;
    assert_eq!(result, Ok(()), "{text}");
    assert!(
        text.contains("It is bound to") && text.contains("already.\n"),
        "{text}"
    );
    assert!(text.contains("mqtt_password_file"), "{text}");
    for secret in [
        PASSWORD,
        USERNAME,
        "not-a-password",
        "987654321",
        "Simulated",
    ] {
        assert!(!text.contains(secret), "{secret}: {text}");
    }
    assert_eq!(frames(&simulator)[1]["ha"]["password"], PASSWORD);
}

#[tokio::test]
async fn a_broker_that_is_not_there_is_a_failure_that_says_how_to_do_it_by_hand() {
    let simulator = device();
    let order = order(simulator.address(0), NO_BROKER.parse().unwrap());
    let (result, text) = bound(&order, &impatience()).await;
    let error = result.unwrap_err();
    assert!(error.contains("has taken 127.0.0.1:1, but"), "{error}");
    assert!(error.contains("(state 0;"), "{error}");
    let page = format!("by hand: http://{}/", order.device);
    assert!(error.contains(&page), "{error}");
    assert!(!text.contains("stock_mqtt"), "{text}");
    assert_eq!(frames(&simulator).len(), 1);
}

#[tokio::test]
async fn a_device_that_is_bound_there_already_is_left_alone_unless_asked() {
    let Some(broker) = mosquitto_or_skip(Access::Anonymous) else {
        return;
    };
    let simulator = device();
    let mut order = order(simulator.address(0), at(&broker));
    bound(&order, &patience()).await.0.unwrap();
    // Even while it is on: nothing is done to it.
    simulator.inject("button on").unwrap();
    let (result, text) = bound(&order, &patience()).await;
    assert_eq!(result, Ok(()), "{text}");
    assert!(
        text.contains("already, and connected; nothing was sent"),
        "{text}"
    );
    assert!(text.contains(&format!("mqtt_device_id: {ID}")), "{text}");
    assert_eq!(frames(&simulator).len(), 1);
    simulator.inject("button power").unwrap();
    order.again = true;
    let (result, text) = bound(&order, &patience()).await;
    assert_eq!(result, Ok(()), "{text}");
    assert_eq!(frames(&simulator).len(), 2);
}

#[tokio::test]
async fn a_device_goes_from_one_broker_to_another() {
    let (Some(first), Some(second)) = (
        mosquitto_or_skip(Access::Anonymous),
        mosquitto_or_skip(Access::Anonymous),
    ) else {
        return;
    };
    let simulator = device();
    let here = order(simulator.address(0), at(&first));
    bound(&here, &patience()).await.0.unwrap();
    let there = order(simulator.address(0), at(&second));
    let (result, text) = bound(&there, &patience()).await;
    assert_eq!(result, Ok(()), "{text}");
    assert!(text.contains("It was bound to another broker.\n"), "{text}");
    assert!(!text.contains(&first.address.port().to_string()), "{text}");
    availability(&second, "online").await;
}

#[tokio::test]
async fn a_device_that_is_unbound_leaves_the_broker() {
    let Some(broker) = mosquitto_or_skip(Access::Anonymous) else {
        return;
    };
    let simulator = device();
    let address = simulator.address(0);
    bound(&order(address, at(&broker)), &patience())
        .await
        .0
        .unwrap();
    let (result, text) = unbound(address, &patience()).await;
    assert_eq!(result, Ok(()), "{text}");
    assert!(text.contains("bound to no broker any more"), "{text}");
    assert_eq!(frames(&simulator)[1], json!({"ha": {"disconnect": 1}}));
    let client = format!("panda_breath_{ID}");
    broker.wait_log(|line| line.contains(&client) && line.contains("disconnected"));
    let (result, text) = unbound(address, &patience()).await;
    assert_eq!(result, Ok(()), "{text}");
    assert!(
        text.contains("not bound to a broker; nothing was sent"),
        "{text}"
    );
    assert_eq!(frames(&simulator).len(), 2);
}

#[tokio::test]
async fn a_device_that_is_on_is_not_taken_away_from_whoever_heats_with_it() {
    let simulator = device();
    simulator.inject("button on").unwrap();
    let address = simulator.address(0);
    let mut order = order(address, NO_BROKER.parse().unwrap());
    let (result, _) = bound(&order, &impatience()).await;
    let error = result.unwrap_err();
    assert!(
        error.contains("the device is on (mode on). Binding it now"),
        "{error}"
    );
    assert!(
        error.contains("target 0 in Klipper") && error.contains("--while-on"),
        "{error}"
    );
    assert_eq!(frames(&simulator).len(), 0);
    order.while_on = true;
    bound(&order, &impatience()).await.0.unwrap_err(); // there is no broker
    assert_eq!(frames(&simulator).len(), 1);
    let error = unbound(address, &impatience()).await.0.unwrap_err();
    assert!(error.contains("Unbinding it now"), "{error}");
    assert_eq!(frames(&simulator).len(), 1);
}

#[tokio::test]
async fn firmware_without_mqtt_is_told_so() {
    let simulator = start(|options| {
        options.dialect = Dialect::Stock;
        options.setup.firmware = Firmware::V1_0_3;
    });
    let order = order(simulator.address(0), NO_BROKER.parse().unwrap());
    let error = bound(&order, &patience()).await.0.unwrap_err();
    assert!(
        error.contains("has firmware V1.0.3, which knows nothing of MQTT"),
        "{error}"
    );
    assert!(error.contains("1.0.4"), "{error}");
    let error = unbound(simulator.address(0), &patience())
        .await
        .0
        .unwrap_err();
    assert!(error.contains("V1.0.3"), "{error}");
    assert_eq!(frames(&simulator).len(), 0);
}

#[tokio::test]
async fn nobody_there_and_nobody_who_answers_are_told_apart() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let order = order(address, NO_BROKER.parse().unwrap());
    // The kernel takes the connection; nobody ever answers on it.
    let error = bound(&order, &impatience()).await.0.unwrap_err();
    assert_eq!(error, format!("{address}: no answer"));
    drop(listener);
    let error = bound(&order, &impatience()).await.0.unwrap_err();
    assert_eq!(error, format!("{address}: connection refused"));
    let error = unbound(address, &impatience()).await.0.unwrap_err();
    assert_eq!(error, format!("{address}: connection refused"));
}

/// What the simulator is too well-behaved for: says each time what comes next, the last for ever.
struct Scripted {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<Message>>>,
}

/// What a scripted device does once it has been sent something.
#[derive(Clone, Copy, PartialEq)]
enum Then {
    GoesOn,
    HangsUp,
    IsSilent,
}

impl Scripted {
    async fn new(snapshots: Vec<Value>) -> Self {
        Self::with(snapshots, Then::GoesOn).await
    }

    /// With what it does once something has come in on a connection.
    async fn with(snapshots: Vec<Value>, then: Then) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let ear = Arc::clone(&heard);
        tokio::spawn(async move {
            let mut snapshots = snapshots.into_iter();
            let mut snapshot = Value::Null;
            loop {
                // One at a time: a second connection beside it would wait for ever.
                let (stream, _) = listener.accept().await.unwrap();
                snapshot = snapshots.next().unwrap_or(snapshot);
                let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
                let text = Message::text(snapshot.to_string());
                if socket.send(text).await.is_err() {
                    continue;
                }
                let reading = || Message::text(r#"{"settings":{"warehouse_temper":22}}"#);
                let mut heard_any = false;
                let mut readings = tokio::time::interval(Duration::from_millis(50));
                loop {
                    tokio::select! {
                        message = socket.next() => match message {
                            Some(Ok(message)) => {
                                ear.lock().unwrap().push(message);
                                heard_any = true;
                                if then == Then::HangsUp {
                                    break;
                                }
                            }
                            Some(Err(_)) | None => break,
                        },
                        _ = readings.tick(), if !(heard_any && then == Then::IsSilent) => if socket.send(reading()).await.is_err() {
                            break;
                        },
                    }
                }
            }
        });
        Self { address, heard }
    }

    #[track_caller]
    fn assert_heard(&self, frames: usize) {
        let heard = self.heard.lock().unwrap();
        assert_eq!(heard.len(), frames, "{heard:?}");
        assert!(heard.iter().all(Message::is_text), "{heard:?}");
    }
}

fn snapshot(ssid: &str, ip: &str, state: u8) -> Value {
    json!({
        "ap": {"ssid": ssid, "password": "not-a-password"},
        "ha": {"ip": ip, "port": 1883, "user": "", "password": "", "state": state},
        "settings": {"fw_version": "V1.0.4", "work_on": 0, "work_mode": 1},
    })
}

#[tokio::test]
async fn a_device_that_does_not_understand_the_frame_is_a_failure() {
    let device = Scripted::new(vec![snapshot("Panda", "", 0)]).await;
    let order = order(device.address, "192.0.2.5:1883".parse().unwrap());
    let (result, text) = bound(&order, &impatience()).await;
    let error = result.unwrap_err();
    assert!(
        error.contains("does not have 192.0.2.5:1883 as its broker (state 0)"),
        "{error}"
    );
    assert!(
        error.contains("unconfirmed on real hardware. Bind it by hand: http://"),
        "{error}"
    );
    assert_eq!(
        text,
        format!("{}: firmware V1.0.4\n", device.address),
        "no id is known"
    );
    device.assert_heard(1);
    let device = Scripted::new(vec![snapshot("Panda", "192.0.2.5", 3)]).await;
    let error = unbound(device.address, &impatience()).await.0.unwrap_err();
    assert!(error.contains("still has a broker (state 3)"), "{error}");
    assert!(error.contains("Unbind it by hand: http://"), "{error}");
    device.assert_heard(1);
}

#[tokio::test]
async fn a_device_that_hangs_up_or_hangs_over_the_frame_is_asked_what_became_of_it() {
    for (then, part) in [
        (Then::HangsUp, "not certain: "),
        (Then::IsSilent, "not certain: the device has gone silent."),
    ] {
        let snapshots = vec![
            snapshot("Panda", "", 0),
            snapshot("Panda", "192.0.2.5", 2),
            snapshot("Panda", "192.0.2.5", 3),
        ];
        let device = Scripted::with(snapshots, then).await;
        let order = order(device.address, "192.0.2.5:1883".parse().unwrap());
        let mut patience = patience();
        patience.visit.later_report = Duration::from_millis(300);
        let (result, text) = bound(&order, &patience).await;
        assert_eq!(result, Ok(()), "{text}");
        assert!(text.contains(part), "{text}");
        let done = "It is bound to 192.0.2.5:1883, and connected.";
        assert!(text.contains(done), "{text}");
        assert!(
            !text.contains("mqtt_port") && !text.contains("mqtt_device_id"),
            "{text}"
        );
        device.assert_heard(1);
    }
}

#[tokio::test]
async fn the_connection_to_the_broker_before_is_not_taken_for_the_new_one() {
    let name = "Panda_Breath_025042000001";
    let device = Scripted::new(vec![
        snapshot(name, "192.0.2.4", 3),
        snapshot(name, "192.0.2.5", 3), // not noticed yet
        snapshot(name, "192.0.2.5", 2),
    ])
    .await;
    let order = order(device.address, "192.0.2.5:1883".parse().unwrap());
    let (result, text) = bound(&order, &impatience()).await;
    let error = result.unwrap_err();
    assert!(
        error.contains("has taken 192.0.2.5:1883, but"),
        "{error} {text}"
    );
    assert!(error.contains("(state 2;"), "{error}");
    device.assert_heard(1);
}

#[tokio::test]
async fn another_device_at_the_address_is_not_taken_for_the_one_that_was_bound() {
    let device = Scripted::new(vec![
        snapshot("Panda_Breath_025042000001", "", 0),
        snapshot("Panda_Breath_025042000002", "192.0.2.5", 3),
    ])
    .await;
    let order = order(device.address, "192.0.2.5:1883".parse().unwrap());
    let error = bound(&order, &impatience()).await.0.unwrap_err();
    assert!(
        error.contains("another device answers there now"),
        "{error}"
    );
    device.assert_heard(1);
}

#[tokio::test]
async fn somebody_who_says_nothing_a_device_says_is_none() {
    let device = Scripted::new(vec![json!({"hello": "world"})]).await;
    let order = order(device.address, "192.0.2.5:1883".parse().unwrap());
    let error = bound(&order, &impatience()).await.0.unwrap_err();
    assert!(
        error.contains("does not say what a Panda Breath says first"),
        "{error}"
    );
    device.assert_heard(0);
}

#[test]
fn the_command_binds_and_unbinds() {
    let Some(broker) = mosquitto_or_skip(Access::Password) else {
        return;
    };
    let simulator = device();
    let host = simulator.address(0).to_string();
    let broker = broker.address.to_string();
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bind-broker-password");
    std::fs::write(&file, format!("{PASSWORD}\n")).unwrap();
    let run = |words: &[&str]| {
        let words = std::iter::once(&"panda-breath").chain(words);
        _core::cli::run(words.map(OsString::from))
    };
    let bind = [
        "bind-broker",
        host.as_str(),
        "--broker",
        broker.as_str(),
        "--username",
        USERNAME,
        "--password-file",
        file.to_str().unwrap(),
    ];
    assert_eq!(run(&bind), 2, "a loopback address");
    assert_eq!(run(&[&bind[..], &["--loopback"]].concat()), 0);
    assert_eq!(frames(&simulator)[0]["ha"]["user"], USERNAME);
    assert_eq!(run(&["unbind-broker", &host]), 0);
    assert_eq!(frames(&simulator).len(), 2);
    simulator.inject("button on").unwrap();
    assert_eq!(run(&[&bind[..], &["--loopback"]].concat()), 1, "it is on");
}
