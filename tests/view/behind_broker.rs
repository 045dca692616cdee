//! Devices behind a broker. Skipped where mosquitto is not installed.

use std::io::Write as _;
use std::net::TcpListener;
use std::time::Duration;

use _core::cli::monitor::{Options, lines};
use _core::cli::record::{self, Recorded, record};
use _core::cli::report::page_of;
use _core::dialect::Dialect as Spoken;
use _core::dialect::mqtt::Options as Topics;
use _core::driver::mqtt::Broker;
use _core::driver::watch::{Heard, Spot, Watch};
use _core::sim::esphome::{self, Discovery, Platform, Thermostat};
use _core::sim::{Dialect, Entry, Event, Simulator};
use serde_json::Value;

use super::client::{self, plain, with_password};
use super::mosquitto::{Access, Mosquitto, Options as BrokerOptions, mosquitto_or_skip};
use super::recording::{File, replayed};
use super::{LIMIT, json, monitored};

const HEAT: &str = "button on";

fn start(change: impl FnOnce(&mut _core::sim::Options)) -> Simulator {
    let mut options = _core::sim::Options {
        keep_entries: true,
        ..Default::default()
    };
    change(&mut options);
    let simulator = Simulator::start(options).unwrap();
    let open = |entry: &Entry| matches!(entry.event, Event::Open { .. });
    simulator.wait_for(open, LIMIT).unwrap();
    simulator
}

fn node(broker: &Mosquitto, change: impl FnOnce(&mut esphome::Setup)) -> Simulator {
    let mut setup = esphome::Setup {
        update_s: 0.6,
        ..esphome::Setup::default()
    };
    change(&mut setup);
    start(|options| {
        options.dialect = Dialect::Esphome;
        options.broker = Some(plain(broker));
        options.node = setup;
    })
}

fn stock(broker: &Mosquitto, number: usize) -> Simulator {
    start(|options| {
        options.dialect = Dialect::StockMqtt;
        options.broker = Some(plain(broker));
        options.setup.identity = options.setup.identity.offset(number);
    })
}

fn spot(broker: Broker, change: impl FnOnce(&mut Topics)) -> Spot {
    let mut topics = Topics::default();
    change(&mut topics);
    Spot::Broker(Box::new(broker), Box::new(topics))
}

fn watching(place: Spot) -> Options {
    Options {
        place,
        refresh: None,
        time: None,
        json: true,
        every: Duration::from_millis(100),
    }
}

/// What was said to the broker by whoever only listens: nothing but that it listens.
#[track_caller]
fn assert_only_listens(broker: &Mosquitto) {
    let log = broker.log();
    let ours: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("pb-look-"))
        .collect();
    let connected = ours
        .iter()
        .find(|line| line.contains("New client connected"));
    let connected = connected.unwrap_or_else(|| panic!("{log}"));
    assert!(connected.contains("c1"), "a clean session: {connected}");
    for line in &ours {
        assert!(!line.contains("Received PUBLISH"), "{line}");
        assert!(!line.contains("will"), "{line}");
    }
}

#[tokio::test]
async fn an_esphome_node_is_shown_and_nothing_is_published() {
    let Some(broker) = mosquitto_or_skip(Access::Anonymous) else {
        return;
    };
    let simulator = node(&broker, |_| {});
    simulator.inject(HEAT).unwrap();
    let text = monitored(&watching(spot(plain(&broker), |_| {})), |line| {
        let line = json(line);
        line["heating"] == true && line["temperature"] != Value::Null
    })
    .await;
    let last = json(text.lines().last().unwrap());
    for (key, value) in [
        ("link", Value::from("connected")),
        ("dialect", "esphome".into()),
        ("device_on", true.into()),
        ("mode", "on".into()),
        ("target", last["device_target"].clone()),
        ("firmware_version", "2026.6.5".into()),
        ("device_id", "0001".into()),
        ("fault", Value::Null),
        ("kept", Value::Null),
        ("error", Value::Null),
        ("reconnects", 0.into()),
        ("not_understood", 0.into()),
    ] {
        assert_eq!(last[key], value, "{key}: {last}");
    }
    assert_eq!(text.matches("connected, ESPHome 2026.6.5").count(), 1);
    assert_only_listens(&broker);
    let frames = simulator.entries();
    let frame = frames
        .iter()
        .find(|entry| matches!(entry.event, Event::Frame { .. }));
    assert!(frame.is_none(), "{frame:?}");
}

#[tokio::test]
async fn a_stock_device_is_shown_and_so_is_what_others_command() {
    let Some(broker) = mosquitto_or_skip(Access::Password) else {
        return;
    };
    let simulator = start(|options| {
        options.dialect = Dialect::StockMqtt;
        options.broker = Some(with_password(&broker));
    });
    let mut commanded = false;
    let text = monitored(&watching(spot(with_password(&broker), |_| {})), |line| {
        let line = json(line);
        if !commanded && line["link"] == "connected" {
            commanded = true;
            simulator.inject(HEAT).unwrap();
        }
        line["mode"] == "on" && line["heating"] == true
    })
    .await;
    let last = json(text.lines().last().unwrap());
    assert_eq!(last["dialect"], "stock_mqtt");
    assert_eq!(last["device_on"], true);
    assert!(last["reading_age"].as_f64().unwrap() < 5.0, "{last}");
    assert!(
        text.contains("connected, stock firmware over MQTT"),
        "{text}"
    );
    assert!(text.contains("mode on"), "{text}");
    assert!(!text.contains("025042"), "r11: {text}");
    assert_only_listens(&broker);
}

#[tokio::test]
async fn topics_that_the_node_puts_elsewhere_are_followed() {
    let Some(broker) = mosquitto_or_skip(Access::Anonymous) else {
        return;
    };
    let _simulator = node(&broker, |setup| {
        setup.platform = Platform::Thermostat(Thermostat::clamped());
        setup.discovery = Some(Discovery::default());
    });
    let mut peer = client::Client::connect(&broker, &client::terms("peer", &["sync/#"])).await;
    let place = spot(plain(&broker), |topics| {
        topics.dialect = Some(Spoken::Esphome);
    });
    let mut moved = false;
    let text = monitored(&watching(place), |line| {
        let line = json(line);
        if line["link"] != "connected" {
            return false;
        }
        if !std::mem::replace(&mut moved, true) {
            // The message as the node publishes it, but for where the temperature is.
            peer.connection.publish(&client::retained(
                "homeassistant/sensor/panda-breath/chamber_temperature/config",
                r#"{"stat_t":"panda-breath/elsewhere"}"#,
            ));
        }
        let elsewhere = client::publication("panda-breath/elsewhere", "99.5");
        peer.connection.publish(&elsewhere);
        line["temperature"] == 99.5
    })
    .await;
    let last = json(text.lines().last().unwrap());
    assert_eq!(last["reconnects"], 0, "that is no lost connection");
    assert_only_listens(&broker);
}

#[tokio::test]
async fn a_device_that_leaves_the_broker_is_offline_and_comes_back() {
    let Some(broker) = mosquitto_or_skip(Access::Anonymous) else {
        return;
    };
    let simulator = start(|options| {
        options.dialect = Dialect::StockMqtt;
        options.broker = Some(plain(&broker));
        options.reconnect_s = 0.5;
    });
    let mut cut = false;
    let text = monitored(&watching(spot(plain(&broker), |_| {})), |line| {
        let line = json(line);
        if !cut && line["link"] == "connected" {
            cut = true;
            simulator.inject("drop").unwrap();
        }
        line["reconnects"] == 1 && line["link"] == "connected"
    })
    .await;
    let lost = "connection lost: the broker says that the device is offline";
    assert!(text.contains(lost), "{text}");
}

#[tokio::test]
async fn a_broker_that_goes_is_told_and_comes_back() {
    let Some(mut broker) = mosquitto_or_skip(Access::Anonymous) else {
        return;
    };
    let _simulator = start(|options| {
        options.dialect = Dialect::StockMqtt;
        options.broker = Some(plain(&broker));
        options.reconnect_s = 0.5;
    });
    let mut gone = false;
    let text = monitored(&watching(spot(plain(&broker), |_| {})), |line| {
        let line = json(line);
        if !gone && line["link"] == "connected" {
            gone = true;
            broker.restart();
        }
        line["reconnects"] == 1 && line["link"] == "connected"
    })
    .await;
    // It may have said before that the device has left.
    let why = ["closed by the broker", "connection reset"];
    assert!(why.iter().any(|why| text.contains(why)), "{text}");
}

/// What a monitor says that has to give up.
async fn fails(place: Spot) -> String {
    let options = Options {
        time: Some(Duration::from_millis(1_200)),
        ..watching(place)
    };
    let error = lines(&options, &mut Vec::new(), std::future::pending()).await;
    error.unwrap_err().to_string()
}

#[tokio::test]
async fn what_is_wrong_with_a_broker_is_said_in_the_words_of_the_command_line() {
    let Some(broker) = mosquitto_or_skip(Access::Password) else {
        return;
    };
    let at = |broker: Broker| spot(broker, |topics| topics.dialect = Some(Spoken::Esphome));
    let name = "panda-breath on broker 127.0.0.1: ";
    assert_eq!(
        fails(at(plain(&broker))).await,
        format!("{name}the broker wants a user name and password (--username, --password-file)")
    );
    let wrong = Broker {
        login: Some(client::login("wrong")),
        ..plain(&broker)
    };
    assert_eq!(
        fails(at(wrong)).await,
        format!(
            "{name}the broker refuses this user name or password (--username, --password-file)"
        )
    );
    // A broker, and nobody there.
    assert_eq!(
        fails(at(with_password(&broker))).await,
        format!("{name}the broker answers; waiting for the device to speak")
    );
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut gone = plain(&broker);
    gone.port = free.local_addr().unwrap().port();
    drop(free);
    assert_eq!(fails(at(gone)).await, format!("{name}connection refused"));
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut web = plain(&broker);
    web.port = other.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in other.incoming().map_while(Result::ok) {
            let _ = (&stream).write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    assert_eq!(
        fails(at(web)).await,
        format!("{name}it answers, but not as an MQTT broker does")
    );
    let named = spot(
        Broker {
            host: "no-such-host.invalid".to_owned(),
            ..plain(&broker)
        },
        |_| {},
    );
    let error = fails(named).await;
    assert!(error.contains("cannot be resolved"), "{error}");
}

#[tokio::test]
async fn a_broker_with_tls_lets_us_in_and_a_wrong_way_in_is_said() {
    let Some(broker) = mosquitto_or_skip(Access::Tls) else {
        return;
    };
    let with = |tls| Broker {
        host: "localhost".to_owned(),
        tls,
        ..with_password(&broker)
    };
    let at = |broker: Broker| spot(broker, |topics| topics.dialect = Some(Spoken::StockMqtt));
    let stranger = with(Some(client::tls("other-ca", None)));
    let error = fails(at(stranger)).await;
    let expected = "panda_breath on broker localhost: the broker's certificate is not signed by \
                    the CA in --ca-file";
    assert_eq!(error, expected);
    let error = fails(at(with(None))).await;
    assert!(
        error.starts_with("panda_breath on broker localhost: "),
        "{error}"
    );
    let error = fails(at(with(Some(client::tls("ca", None))))).await;
    assert!(
        error.ends_with("waiting for the device to speak"),
        "{error}"
    );
}

#[tokio::test]
async fn a_broker_that_does_not_let_us_read_is_told() {
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
    let path = path.join(format!("view-acl-{}", std::process::id()));
    std::fs::write(&path, "topic write panda_breath/#\n").unwrap();
    let Some(broker) = mosquitto_or_skip(BrokerOptions {
        extra: format!("acl_file {}\n", path.display()),
        ..BrokerOptions::default()
    }) else {
        return;
    };
    let _simulator = stock(&broker, 0);
    let place = spot(plain(&broker), |topics| {
        topics.dialect = Some(Spoken::StockMqtt);
    });
    let error = fails(place).await;
    // Some brokers say so, this one lets us listen in vain.
    assert!(
        error.contains("waiting for the device to speak") || error.contains("does not allow"),
        "{error}"
    );
    std::fs::remove_file(&path).unwrap();
}

#[tokio::test]
async fn r5_what_only_the_broker_remembers_is_no_device() {
    let Some(broker) = mosquitto_or_skip(Access::Anonymous) else {
        return;
    };
    let mut peer = client::Client::connect(&broker, &client::terms("peer", &["sync/#"])).await;
    for (topic, word) in [
        ("panda-breath/status", "online"),
        ("panda-breath/climate/chamber/mode/state", "heat"),
        (
            "panda-breath/climate/chamber/target_temperature/state",
            "45.0",
        ),
        ("panda-breath/sensor/chamber_temperature/state", "24.0"),
    ] {
        peer.connection.publish(&client::retained(topic, word));
    }
    peer.sync("peer").await;
    let place = || spot(plain(&broker), |_| {});
    let text = monitored(&watching(place()), |line| json(line)["kept"] != Value::Null).await;
    let last = json(text.lines().last().unwrap());
    let kept = serde_json::json!({"temperature": 24.0, "device_on": true, "device_target": 45.0});
    assert_eq!(last["kept"], kept, "{last}");
    for key in [
        "temperature",
        "device_on",
        "target",
        "device_target",
        "state_age",
    ] {
        assert_eq!(last[key], Value::Null, "{key}: {last}");
    }
    assert_eq!(last["link"], "connecting");
    let error = fails(place()).await;
    assert!(error.contains("waiting for the device to speak"), "{error}");
    let (_, recorded) = recorded(place(), 1, async {}).await;
    assert_eq!(recorded.messages, 0);
    assert_eq!(
        recorded.last_error.unwrap(),
        "the broker answers, but nothing was heard from the device"
    );
}

#[tokio::test]
async fn several_devices_below_one_prefix_are_told_and_one_can_be_chosen() {
    let Some(broker) = mosquitto_or_skip(Access::Anonymous) else {
        return;
    };
    let _devices = [stock(&broker, 0), stock(&broker, 1)];
    let stocks = |topics: &mut Topics| topics.dialect = Some(Spoken::StockMqtt);
    let several = watching(spot(plain(&broker), stocks));
    let text = monitored(&several, |line| line.contains("several devices answer")).await;
    assert!(
        text.contains("025042000001, 025042000002; choose one"),
        "{text}"
    );
    let chosen = watching(spot(plain(&broker), |topics| {
        stocks(topics);
        topics.device_id = Some("025042000002".to_owned());
    }));
    let text = monitored(&chosen, |line| json(line)["link"] == "connected").await;
    assert!(!text.contains("several"), "{text}");
    let last = json(text.lines().last().unwrap());
    assert_eq!(last["device_id"], "0002");
}

#[tokio::test]
async fn what_one_stray_message_has_taught_is_forgotten() {
    let Some(broker) = mosquitto_or_skip(Access::Anonymous) else {
        return;
    };
    let mut watch = Watch::new(&spot(plain(&broker), |_| {}), None);
    let mut opened = 0;
    let opens = async {
        let mut stranger = None;
        loop {
            if watch.next().await != Heard::Opened {
                continue;
            }
            opened += 1;
            match opened {
                1 => {
                    let mut peer =
                        client::Client::connect(&broker, &client::terms("stray", &[])).await;
                    let topic = "panda_breath/AABBCCDDEE01/state";
                    peer.connection
                        .publish(&client::publication(topic, r#"{"warehouse_temper":30}"#));
                    stranger = Some(peer);
                }
                2 => drop(stranger.take()), // now it listens to the stranger's topics only
                _ => return,
            }
        }
    };
    let doubted = tokio::time::timeout(2 * LIMIT, opens).await;
    assert!(doubted.is_ok(), "it goes on listening to the stranger");
    let _simulator = node(&broker, |_| {});
    let speaks = async {
        loop {
            if let Heard::Delivered(arrival) = watch.next().await {
                if arrival.topic.starts_with("panda-breath/climate") {
                    return;
                }
            }
        }
    };
    tokio::time::timeout(LIMIT, speaks).await.unwrap();
}

/// What is recorded of a device in so many seconds, while something is done to it.
async fn recorded(
    place: Spot,
    seconds: u64,
    doing: impl Future<Output = ()>,
) -> (String, Recorded) {
    let options = record::Options {
        place,
        refresh: Some(Duration::from_millis(1_300)),
        time: Some(Duration::from_secs(seconds)),
        most: 1_000_000,
    };
    let mut file = Vec::new();
    let doing = async {
        doing.await;
        std::future::pending::<()>().await;
    };
    let recorded = record(&options, &mut file, doing).await.unwrap();
    (String::from_utf8(file).unwrap(), recorded)
}

/// Does one thing after the other, with time to be seen in between.
async fn one_by_one(simulator: &Simulator, commands: &[&str]) {
    for command in commands {
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        simulator.inject(command).unwrap();
    }
}

#[track_caller]
fn assert_none_in(secrets: &[&str], text: &str) {
    for secret in secrets {
        assert!(!text.contains(secret), "{secret}: {text}");
    }
}

#[tokio::test]
async fn r11_a_node_is_recorded_played_back_and_drawn_and_no_name_is_in_it() {
    let Some(broker) = mosquitto_or_skip(Access::Anonymous) else {
        return;
    };
    let simulator = node(&broker, |setup| {
        setup.node = "geheim-node".to_owned();
        setup.prefix = Some("geheim/shop".to_owned());
        setup.discovery = Some(Discovery::default());
    });
    let place = spot(plain(&broker), |topics| {
        topics.prefix = Some("geheim/shop".to_owned());
        topics.device_id = Some("geheim-node".to_owned());
    });
    let doing = one_by_one(&simulator, &[HEAT, "button power"]);
    let (text, recorded) = recorded(place, 7, doing).await;
    assert!(recorded.messages > 10, "{recorded:?}");
    let secrets = [
        "geheim",
        "shop",
        "025042",
        "02:50",
        "127.0.0.1",
        "192.0.2.",
        "192.168",
    ];
    assert_none_in(&secrets, &text);
    assert_eq!(
        json(text.lines().next().unwrap())["mqtt"],
        serde_json::json!({"chosen": true})
    );
    let lines: Vec<Value> = text.lines().map(json).collect();
    for topic in [
        "homeassistant/climate/000000000001/chamber/config",
        "esphome/discover/000000000001",
        "panda-breath/climate/chamber/mode/state",
        "panda-breath/sensor/chamber_temperature/state",
    ] {
        let there = lines.iter().any(|line| line["topic"] == topic);
        assert!(there, "{topic}: {text}");
    }
    let kept = lines.iter().filter(|line| line["retained"] == true);
    assert!(kept.count() >= 5, "{text}");

    let (result, out) = replayed(&text, None);
    assert_eq!(result, Ok(()), "{out}");
    for part in [
        "connected to panda-breath, esphome, firmware 2026.6.5, device 0001",
        "link connected",
        "device on, mode on",
        "device off",
        "conclusions as in the recording",
    ] {
        assert!(out.contains(part), "{part}: {out}");
    }
    for wrong in ["turning it off", "fault", "still", "would send"] {
        assert!(!out.contains(wrong), "{wrong}: {out}");
    }
    // What it does is not what Klipper would want.
    let (result, out) = replayed(&text, Some(0));
    assert_eq!(result, Ok(()), "{out}");
    let off = "would send panda-breath/climate/chamber/mode/command off";
    assert!(out.contains(off), "{out}");

    let file = File::new("node-page", &text);
    let html = page_of(file.path()).unwrap();
    assert_none_in(&secrets, &html);
    for part in [
        "ESPHome 2026.6.5",
        ">heater<",
        "class=\"temperature\" points",
        "the device is off",
    ] {
        assert!(html.contains(part), "{part}: {html}");
    }
}

#[tokio::test]
async fn r11_a_stock_device_that_dries_is_recorded_played_back_and_drawn() {
    let Some(broker) = mosquitto_or_skip(Access::Anonymous) else {
        return;
    };
    let simulator = start(|options| {
        options.dialect = Dialect::StockMqtt;
        options.broker = Some(plain(&broker));
        options.setup.access_code = Some("geheim-code".to_owned());
        options.reconnect_s = 0.5;
    });
    let place = spot(plain(&broker), |_| {});
    let mut peer = client::Client::connect(&broker, &client::terms("peer", &["sync/#"])).await;
    let dry = r#"{"mode":"filament drying","filament_drying_mode":"custom","work_on":"ON","drying_running":"ON"}"#;
    let doing = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let topic = "panda_breath/025042000001/command";
        peer.connection.publish(&client::publication(topic, dry));
        peer.sync("peer").await;
        one_by_one(&simulator, &["drop"]).await;
    };
    let (text, recorded) = recorded(place, 8, doing).await;
    assert!(recorded.messages > 8, "{recorded:?}");
    assert_none_in(&["geheim", "025042", "127.0.0.1", "01S00"], &text);
    assert!(
        text.contains("\"panda_breath/000000000001/command\""),
        "{text}"
    );
    let (result, out) = replayed(&text, None);
    assert_eq!(result, Ok(()), "{out}");
    for part in ["mode auto", "mode drying", ", drying", "connected again"] {
        assert!(out.contains(part), "{part}: {out}");
    }
    for wrong in ["turning it off", "fault", "still", "by hand", "would send"] {
        assert!(!out.contains(wrong), "{wrong}: {out}");
    }
    let file = File::new("dry-page", &text);
    let html = page_of(file.path()).unwrap();
    for part in [
        "stock firmware over MQTT",
        "heater (calc.)",
        "drying has begun",
        "once",
    ] {
        assert!(html.contains(part), "{part}: {html}");
    }
}
