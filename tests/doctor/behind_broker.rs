//! Devices behind a broker. Skipped where mosquitto is not installed.

use std::path::Path;
use std::sync::Arc;

use _core::cli::doctor::{Level, Plan};
use _core::dialect::Dialect as Spoken;
use _core::dialect::mqtt::Options as Topics;
use _core::driver::mqtt::{Broker, Tls};
use _core::sim::esphome::{self, Platform, Thermostat};
use _core::sim::{Dialect, Entry, Event, Simulator};

use crate::client::{self, LIMIT, plain, tls, with_password};
use crate::mosquitto::{Access, Mosquitto, Options as BrokerOptions, mosquitto_or_skip};
use crate::{bad, device, free, plan, says};

const ID: &str = "025042000001";

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
