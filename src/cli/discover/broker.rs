//! Devices behind a broker: ESPHome nodes, which answer to `esphome/discover`, and stock firmware
//! 1.0.4, which never stops talking.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use super::{Device, Found, Plan, merge, printable};
use crate::dialect::mqtt::{Delivery, Mqtt, Options};
use crate::dialect::{Dialect, Identity, Report};
use crate::driver::mqtt::Broker;
use crate::driver::stay::{Arrival, Stay};

/// For how long everybody is listened to: an answer takes 30 ms, a state comes twice a second.
const LISTEN: Duration = Duration::from_millis(2500);
/// Until the broker has given what it keeps of the nodes.
const STATES: Duration = Duration::from_millis(1500);
const OPEN: Duration = Duration::from_secs(10);
/// More nodes than are looked at (rule R6).
const MOST: usize = 16;

/// Who speaks at the broker, by what its topics begin with.
#[derive(Default)]
struct Voices {
    /// Stock: prefix and id.
    stock: BTreeMap<(String, String), Report>,
    /// ESPHome nodes: what they say of themselves.
    nodes: BTreeMap<String, Value>,
}

pub(super) async fn look(at: &Broker, plan: &Plan, found: &mut Found) {
    let place = format!("broker {}", at.host);
    let result = async {
        let mut voices = Voices::default();
        let mut stocks = vec!["panda_breath".to_owned()];
        stocks.extend(plan.prefix.clone());
        let mut subscriptions = vec!["esphome/discover/+".to_owned()];
        for prefix in &stocks {
            subscriptions.push(format!("{prefix}/+/state"));
            subscriptions.push(format!("{prefix}/+/availability"));
        }
        let mut stay = Stay::at(at, subscriptions, OPEN).await?;
        // Every node answers to it, and does nothing else; one that has just connected may not
        // listen yet.
        for _ in 0..2 {
            stay.publish("esphome/discover", "");
            let hear = |arrival: &Arrival| voices.hear(&stocks, arrival);
            listen(&mut stay, LISTEN / 2, hear).await?;
        }
        stay.leave();
        for ((prefix, id), report) in std::mem::take(&mut voices.stock) {
            found.devices.push(stock(at, &prefix, &id, report));
        }
        let nodes = look_at_nodes(at, plan, &voices.nodes).await?;
        for (name, (prefix, card, report)) in nodes {
            let is_named = name.contains("panda") || name.contains("breath");
            if report.on.is_some() {
                found.devices.push(node(at, &name, &prefix, card, report));
            } else if is_named {
                found.failures.push((
                    format!("{} on {place}", printable(&name)),
                    "an ESPHome node, but without a climate entity 'chamber' below its name; \
                     docs/mqtt.md says which options name another one"
                        .into(),
                ));
            } else {
                found.others += 1;
            }
        }
        Ok::<_, String>(())
    };
    if let Err(why) = result.await {
        found.failures.push((place, why));
    }
}

/// Listens for so long.
async fn listen(
    stay: &mut Stay,
    time: Duration,
    mut hear: impl FnMut(&Arrival),
) -> Result<(), String> {
    let end = Instant::now() + time;
    while let Ok(next) = timeout_at(end, stay.next()).await {
        if let Some(arrival) = next? {
            hear(&arrival);
        }
    }
    Ok(())
}

impl Voices {
    fn hear(&mut self, stocks: &[String], arrival: &Arrival) {
        if let Some(name) = arrival.topic.strip_prefix("esphome/discover/") {
            // What the broker has kept may be of a node that is long gone.
            let card = serde_json::from_slice::<Value>(&arrival.payload).ok();
            if let (false, Some(card)) = (arrival.retained, card) {
                if card["name"].as_str() == Some(name) && self.nodes.len() < MOST {
                    self.nodes.insert(name.to_owned(), card);
                }
            }
            return;
        }
        let split = stocks.iter().find_map(|prefix| {
            let rest = arrival.topic.strip_prefix(prefix.as_str())?;
            let (id, _) = rest.strip_prefix('/')?.split_once('/')?;
            Some((prefix.clone(), id.to_ascii_uppercase()))
        });
        let Some((prefix, id)) = split.filter(|(_, id)| Identity::of_mac(id).is_some()) else {
            return;
        };
        if arrival.retained {
            return;
        }
        let mut dialect = Mqtt::new(&Options {
            dialect: Some(Dialect::StockMqtt),
            prefix: Some(prefix.clone()),
            device_id: Some(id.clone()),
            ..Options::default()
        });
        if let Ok(report) = dialect.decode(delivery(arrival)) {
            if self.stock.len() < MOST || self.stock.contains_key(&(prefix.clone(), id.clone())) {
                merge(self.stock.entry((prefix, id)).or_default(), &report);
            }
        }
    }
}

fn delivery(arrival: &Arrival) -> Delivery<'_> {
    Delivery {
        topic: &arrival.topic,
        payload: &arrival.payload,
        retained: arrival.retained,
    }
}

/// What nodes do that are there: their states are as the broker keeps them, because they say them
/// when they change.
async fn look_at_nodes<'a>(
    at: &Broker,
    plan: &Plan,
    cards: &'a BTreeMap<String, Value>,
) -> Result<BTreeMap<String, (String, &'a Value, Report)>, String> {
    let prefix = |name: &String| match &plan.prefix {
        Some(prefix) if cards.len() == 1 => prefix.clone(),
        _ => name.clone(),
    };
    let mut nodes: BTreeMap<_, _> = cards
        .iter()
        .map(|(name, card)| {
            let dialect = Mqtt::new(&Options {
                dialect: Some(Dialect::Esphome),
                prefix: Some(prefix(name)),
                device_id: Some(name.clone()),
                ..Options::default()
            });
            (name.clone(), (dialect, card, Report::default()))
        })
        .collect();
    if nodes.is_empty() {
        return Ok(BTreeMap::new());
    }
    let mut subscriptions = Vec::new();
    for (dialect, ..) in nodes.values() {
        subscriptions.extend(dialect.terms().subscriptions);
    }
    let mut stay = Stay::at(at, subscriptions, OPEN).await?;
    let hear = |arrival: &Arrival| {
        for (dialect, _, report) in nodes.values_mut() {
            let live = Delivery {
                retained: false,
                ..delivery(arrival)
            };
            if let Ok(said) = dialect.decode(live) {
                merge(report, &said);
            }
        }
    };
    listen(&mut stay, STATES, hear).await?;
    stay.leave();
    let nodes = nodes.into_iter();
    Ok(nodes
        .map(|(name, (_, card, report))| (name.clone(), (prefix(&name), card, report)))
        .collect())
}

fn at_broker(at: &Broker) -> Vec<(&'static str, String)> {
    let mut options = vec![("mqtt_broker", at.host.clone())];
    let usual = if at.tls.is_some() { 8883 } else { 1883 };
    if at.tls.is_some() {
        options.push(("mqtt_tls", "True".into()));
    }
    if at.port != usual {
        options.push(("mqtt_port", at.port.to_string()));
    }
    options
}

fn stock(at: &Broker, prefix: &str, id: &str, report: Report) -> Device {
    let mut options = at_broker(at);
    options.push(("firmware", "stock_mqtt".into()));
    options.push(("mqtt_device_id", id.to_owned()));
    if prefix != "panda_breath" {
        options.push(("mqtt_topic_prefix", prefix.to_owned()));
    }
    Device {
        name: id.to_owned(),
        place: format!("{prefix}/{id} on broker {}", at.host),
        dialect: Dialect::StockMqtt,
        firmware: Some("1.0.4 or later".into()),
        id: report.identity.map(Identity::last4),
        mac: Some(id.to_owned()),
        same_as: None,
        report,
        options,
    }
}

fn node(at: &Broker, name: &str, prefix: &str, card: &Value, report: Report) -> Device {
    let mut options = at_broker(at);
    options.push(("firmware", "esphome".into()));
    if prefix != "panda-breath" {
        options.push(("mqtt_topic_prefix", printable(prefix)));
    }
    if prefix != name {
        options.push(("mqtt_device_id", printable(name)));
    }
    let mac = card["mac"].as_str().and_then(Identity::of_mac);
    let version = card["version"].as_str();
    Device {
        name: printable(name),
        place: format!("{} on broker {}", printable(prefix), at.host),
        dialect: Dialect::Esphome,
        firmware: version.map(|version| format!("ESPHome {}", printable(version))),
        id: mac.map(Identity::last4),
        mac: card["mac"].as_str().map(str::to_ascii_uppercase),
        same_as: None,
        report,
        options,
    }
}
