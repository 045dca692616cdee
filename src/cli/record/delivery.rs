//! What of a message of a broker may be kept (rule R11): a new message is made, from the topics that
//! a device has whose user has chosen no names, and of values that are known to be harmless.
//!
//! Topics hold prefixes and names that people choose, and MAC addresses; the node's card and its
//! discovery messages hold addresses and more. In a recording all of them are the usual ones.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::clean::{Units, is_version, number};
use crate::dialect::mqtt::subject::{Leaf, Subject, Usual};
use crate::dialect::mqtt::{Delivery, Mqtt, Options, Role};
use crate::dialect::{Dialect, Identity};
use crate::driver::stay::Arrival;

/// Stands where there was a text that is not kept.
const TEXT: &str = "...";
/// Of a stock device's state: numbers, and words with their values.
const NUMBERS: [&str; 7] = [
    "chamber_temp",
    "target_temp",
    "filter_temp",
    "heater_temp",
    "custom_temp",
    "custom_timer",
    "drying_remaining_min",
];
const WORDS: [(&str, &[&str]); 4] = [
    ("work_on", &["ON", "OFF"]),
    ("drying_running", &["ON", "OFF"]),
    ("mode", &["auto mode", "power on", "filament drying"]),
    ("filament_drying_mode", &["pla", "petg", "custom"]),
];
/// What a climate entity may be, or do.
const MODES: [&str; 7] = [
    "off",
    "heat",
    "auto",
    "heat_cool",
    "cool",
    "dry",
    "fan_only",
];
const ACTIONS: [&str; 9] = [
    "off",
    "idle",
    "heating",
    "preheating",
    "fan",
    "drying",
    "cooling",
    "defrosting",
    "humidifying",
];

/// What a recording says of how its device was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Behind {
    /// What it was said to speak.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    firmware: Option<Firmware>,
    /// Whether it was named.
    #[serde(default)]
    chosen: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Firmware {
    Esphome,
    StockMqtt,
}

impl Behind {
    pub(crate) fn of(options: &Options) -> Self {
        Self {
            firmware: match options.dialect {
                Some(Dialect::Esphome) => Some(Firmware::Esphome),
                Some(Dialect::Stock | Dialect::StockMqtt) => Some(Firmware::StockMqtt),
                None => None,
            },
            chosen: options.device_id.is_some(),
        }
    }

    /// How to find the device in the recording.
    pub(crate) fn options(&self) -> Options {
        Options {
            dialect: self.firmware.map(|firmware| match firmware {
                Firmware::Esphome => Dialect::Esphome,
                Firmware::StockMqtt => Dialect::StockMqtt,
            }),
            device_id: self.chosen.then(|| mac(1)),
            ..Options::default()
        }
    }
}

/// What stands for the address of the unit with this number.
fn mac(number: usize) -> String {
    format!("{number:012}")
}

/// A message without secrets.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Clean {
    pub(crate) topic: String,
    /// An object, or the text that was the payload.
    pub(crate) payload: Value,
    /// What is left out: known parts by name, the rest by number.
    pub(crate) removed: Vec<String>,
}

/// Makes the messages of one device clean.
#[derive(Debug)]
pub(crate) struct Deliveries {
    mqtt: Mqtt,
    prefix: String,
    usual: Usual,
    units: Units,
}

impl Deliveries {
    pub(crate) fn new(options: &Options) -> Self {
        Self {
            mqtt: Mqtt::new(options),
            prefix: options.prefix_for(Dialect::Esphome),
            usual: Usual::new(&Behind::of(options).options()),
            units: Units::default(),
        }
    }

    /// A new connection.
    pub(crate) fn opened(&mut self) {
        self.mqtt.forget_state();
    }

    /// What may be kept of a message; `None`: it is not of the device.
    pub(crate) fn clean(&mut self, arrival: &Arrival) -> Option<Clean> {
        // It may say where the others are.
        let report = self.mqtt.decode(Delivery {
            topic: &arrival.topic,
            payload: &arrival.payload,
            retained: arrival.retained,
        });
        let is_understood = report.is_ok();
        let identity = report.ok().and_then(|report| report.identity);
        let subject = self.mqtt.subject(&arrival.topic)?;
        let id = match &subject {
            Subject::Stock(id, _) => {
                let who = Identity::of_mac(id).unwrap_or_else(|| Identity::of(id));
                self.units.number(who)
            }
            Subject::Role(_)
            | Subject::Available(_)
            | Subject::Card
            | Subject::Climate
            | Subject::Sensor => identity.map_or(1, |identity| self.units.number(identity)),
        };
        let id = mac(id);
        let topic = self.usual.topic(&subject, &id);
        let mut removed = Vec::new();
        let payload = std::str::from_utf8(&arrival.payload).ok().map(str::trim);
        let payload = match (&subject, payload) {
            (_, None) => TEXT.into(),
            (_, Some("")) => "".into(),
            (Subject::Role(Role::Availability), Some(text)) => word(text, &["online", "offline"]),
            (Subject::Role(role), Some(text)) => value(*role, text),
            (Subject::Available(_), Some(text)) => {
                match self.mqtt.says_available(&arrival.topic, text) {
                    Some(true) => "online".into(),
                    Some(false) => "offline".into(),
                    None => TEXT.into(),
                }
            }
            (Subject::Card, Some(text)) => {
                removed.push("names".to_owned());
                // One of another name is another's.
                let name = is_understood.then(|| self.usual.node());
                card(text, name, identity.map(|_| &*id))
            }
            (Subject::Climate | Subject::Sensor, Some(_)) => {
                removed.push("names".to_owned());
                let mac = identity.map(|_| &*id);
                let prefix = &self.prefix;
                self.usual
                    .discovery(&arrival.payload, &subject, prefix, mac)
            }
            (Subject::Stock(_, Leaf::Availability), Some(text)) => {
                word(text, &["online", "offline"])
            }
            (Subject::Stock(_, Leaf::State | Leaf::Command), Some(text)) => {
                state(text, &mut removed)
            }
        };
        Some(Clean {
            topic,
            payload,
            removed,
        })
    }
}

/// Who a node says it is.
fn card(text: &str, name: Option<&str>, mac: Option<&str>) -> Value {
    let Ok(Value::Object(card)) = serde_json::from_str(text) else {
        return TEXT.into();
    };
    let version = card.get("version").and_then(Value::as_str);
    let version = version.map(|text| if is_version(text) { text } else { TEXT });
    let told = [("name", name), ("mac", mac), ("version", version)];
    let told = told.into_iter();
    let told = told.filter_map(|(key, text)| Some((key.to_owned(), text?.into())));
    Value::Object(told.collect())
}

/// A value or a command on a topic of its own.
fn value(role: Role, text: &str) -> Value {
    match role {
        Role::ModeState | Role::ModeCommand => word(text, &MODES),
        Role::ActionState => word(text, &ACTIONS),
        Role::Temperature
        | Role::TargetState
        | Role::TargetCommand
        | Role::LowState
        | Role::LowCommand
        | Role::HighState
        | Role::HighCommand
        | Role::Availability => {
            let is_number = text.len() <= 20 && text.parse::<f64>().is_ok();
            let text = if is_number || text.eq_ignore_ascii_case("none") {
                text // how many decimals it has says how finely it is told
            } else {
                TEXT
            };
            text.into()
        }
    }
}

fn word(text: &str, known: &[&str]) -> Value {
    let known = known.iter().find(|word| word.eq_ignore_ascii_case(text));
    if known.is_some() { text } else { TEXT }.into()
}

/// What a stock device says, or is told.
fn state(text: &str, removed: &mut Vec<String>) -> Value {
    let fields = match serde_json::from_str(text) {
        Ok(Value::Object(fields)) => fields,
        Ok(_) => return json!([]),
        Err(_) => return TEXT.into(),
    };
    let mut told = Map::new();
    let (mut printer, mut others) = (false, 0);
    for (key, value) in fields {
        let words = WORDS.iter().find(|(known, _)| *known == key);
        let value = match (words, value) {
            (None, value) if NUMBERS.contains(&key.as_str()) => number(value),
            // Name, address, serial number.
            (None, _) if key.starts_with("printer_") => {
                printer = true;
                continue;
            }
            (None, _) => {
                others += 1;
                continue;
            }
            (Some((_, words)), Value::String(text)) if words.contains(&text.as_str()) => {
                Value::String(text)
            }
            (Some(_), value) => number(value),
        };
        told.insert(key, value);
    }
    removed.extend(printer.then(|| "printer".to_owned()));
    if others > 0 {
        removed.push(format!("{others} unknown"));
    }
    Value::Object(told)
}

#[cfg(test)]
mod tests;
