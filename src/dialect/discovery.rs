//! Discovery messages for Home Assistant, as far as a heater needs them: where its topics are and
//! what it takes. What is not understood is refused, never guessed.

mod harmless;

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::Identity;
use super::mqtt::Role;
pub(super) use harmless::{Usual, harmless};

/// More topics that say whether a device is there than any has.
const MOST_AVAILABILITY: usize = 8;

/// No topic of a heater is longer.
const LONGEST_TOPIC: usize = 256;

/// Which entity a message describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entity {
    Climate,
    Sensor,
}

/// What a discovery message says.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Discovered {
    pub(super) topics: BTreeMap<Role, String>,
    pub(super) availability: Vec<Availability>,
    pub(super) availability_mode: AvailabilityMode,
    pub(super) max: Option<f64>,
    pub(super) identity: Option<Identity>,
}

/// One topic that says whether the device is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Availability {
    pub(super) topic: String,
    there: String,
    gone: String,
}

/// How several of them make one word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum AvailabilityMode {
    All,
    Any,
    #[default]
    Latest,
}

impl Discovered {
    /// Whether it takes two targets instead of one, if it takes any.
    pub(super) fn is_two_point(&self) -> Option<bool> {
        if self.topics.contains_key(&Role::TargetCommand) {
            return Some(false);
        }
        self.topics.contains_key(&Role::LowCommand).then_some(true)
    }
}

impl Availability {
    pub(super) fn says(&self, text: &str) -> Option<bool> {
        if text == self.there {
            Some(true)
        } else {
            (text == self.gone).then_some(false)
        }
    }
}

/// Reads a discovery message; an empty one says that the entity is gone, and nothing else.
/// `prefix`: where command topics must be, if that matters.
pub(super) fn read(
    payload: &[u8],
    entity: Entity,
    prefix: Option<&str>,
) -> Result<Discovered, String> {
    if payload.is_empty() {
        return Ok(Discovered::default());
    }
    let Ok(Value::Object(raw)) = serde_json::from_slice(payload) else {
        return Err("its discovery message is not a JSON object".into());
    };
    let config = expand(&raw);
    if let Some(key) = config.keys().find(|key| key.ends_with("_template")) {
        let known = key.len() <= 40 && key.bytes().all(|byte| byte.is_ascii_graphic());
        let key = if known { key } else { "template" }; // its words go into a log (rule R6)
        return Err(format!(
            "its discovery message has a {key}, which is not supported; \
             set mqtt_discovery_prefix to nothing and name the topics yourself"
        ));
    }
    if config.get("temperature_unit").and_then(Value::as_str) == Some("F") {
        return Err("its discovery message says that it speaks Fahrenheit".into());
    }
    check_modes(&config, entity)?;
    let topics = topics(&config, entity);
    if let Some(prefix) = prefix {
        for (role, topic) in topics.iter().filter(|(role, _)| role.is_command()) {
            let is_inside = topic
                .strip_prefix(prefix)
                .is_some_and(|rest| rest.starts_with('/'));
            if !is_inside {
                return Err(format!(
                    "its discovery message puts {} outside of '{prefix}'; \
                     mqtt_foreign_topics: True allows that",
                    role.name()
                ));
            }
        }
    }
    Ok(Discovered {
        topics,
        availability: availability(&config)?,
        availability_mode: match config.get("availability_mode").and_then(Value::as_str) {
            Some("all") => AvailabilityMode::All,
            Some("any") => AvailabilityMode::Any,
            _ => AvailabilityMode::Latest,
        },
        max: config.get("max_temp").and_then(Value::as_f64),
        identity: identity(&config),
    })
}

/// Full names for abbreviated ones, then `~` for what it stands for: in this order, so that
/// `stat_t` is known to be a topic.
fn expand(raw: &Map<String, Value>) -> Map<String, Value> {
    let base = raw.get("~").and_then(Value::as_str).unwrap_or_default();
    let mut config = expand_one(raw, base);
    if let Some(Value::Array(list)) = config.get_mut("availability") {
        for entry in list.iter_mut().filter_map(Value::as_object_mut) {
            *entry = expand_one(entry, base);
        }
    }
    if let Some(Value::Object(device)) = config.get_mut("device") {
        *device = expand_one(device, base);
    }
    config
}

fn expand_one(raw: &Map<String, Value>, base: &str) -> Map<String, Value> {
    let pair = |(key, value): (&String, &Value)| {
        let key = full_name(key);
        let value = match value.as_str() {
            Some(text) if key.ends_with("topic") => Value::String(with_base(text, base)),
            _ => value.clone(),
        };
        (key.to_owned(), value)
    };
    raw.iter().map(pair).collect()
}

/// Too long a topic is none: a long base in many topics would be many times the message (rule R6).
fn with_base(topic: &str, base: &str) -> String {
    if topic.contains('~') && topic.len() + base.len() > LONGEST_TOPIC {
        String::new()
    } else if let Some(rest) = topic.strip_prefix('~') {
        format!("{base}{rest}")
    } else if let Some(rest) = topic.strip_suffix('~') {
        format!("{rest}{base}")
    } else {
        topic.to_owned()
    }
}

fn full_name(key: &str) -> &str {
    ABBREVIATIONS
        .iter()
        .find(|(short, _)| *short == key)
        .map_or(key, |(_, full)| full)
}

/// Home Assistant's, as far as they matter here. Every template is among them: one that is not
/// understood must not be overlooked.
const ABBREVIATIONS: [(&str, &str); 36] = [
    ("t", "topic"),
    ("act_t", "action_topic"),
    ("act_tpl", "action_template"),
    ("avty", "availability"),
    ("avty_mode", "availability_mode"),
    ("avty_t", "availability_topic"),
    ("avty_tpl", "availability_template"),
    ("cns", "connections"),
    ("dev", "device"),
    ("ids", "identifiers"),
    ("mode_cmd_t", "mode_command_topic"),
    ("mode_cmd_tpl", "mode_command_template"),
    ("mode_stat_t", "mode_state_topic"),
    ("mode_stat_tpl", "mode_state_template"),
    ("pl_avail", "payload_available"),
    ("pl_not_avail", "payload_not_available"),
    ("stat_t", "state_topic"),
    ("stat_tpl", "state_template"),
    ("temp_cmd_t", "temperature_command_topic"),
    ("temp_cmd_tpl", "temperature_command_template"),
    ("temp_hi_cmd_t", "temperature_high_command_topic"),
    ("temp_hi_cmd_tpl", "temperature_high_command_template"),
    ("temp_hi_stat_t", "temperature_high_state_topic"),
    ("temp_hi_stat_tpl", "temperature_high_state_template"),
    ("temp_lo_cmd_t", "temperature_low_command_topic"),
    ("temp_lo_cmd_tpl", "temperature_low_command_template"),
    ("temp_lo_stat_t", "temperature_low_state_topic"),
    ("temp_lo_stat_tpl", "temperature_low_state_template"),
    ("temp_stat_t", "temperature_state_topic"),
    ("temp_stat_tpl", "temperature_state_template"),
    ("temp_unit", "temperature_unit"),
    ("val_tpl", "value_template"),
    ("curr_temp_tpl", "current_temperature_template"),
    ("pow_cmd_tpl", "power_command_template"),
    ("pr_mode_cmd_tpl", "preset_mode_command_template"),
    ("pr_mode_val_tpl", "preset_mode_value_template"),
];

fn check_modes(config: &Map<String, Value>, entity: Entity) -> Result<(), String> {
    let Some(Value::Array(modes)) = config.get("modes") else {
        return Ok(());
    };
    let has = |mode: &str| modes.iter().any(|known| known.as_str() == Some(mode));
    if entity == Entity::Climate && !(has("off") && has("heat")) {
        return Err("its climate entity has no modes 'off' and 'heat'".into());
    }
    Ok(())
}

fn topics(config: &Map<String, Value>, entity: Entity) -> BTreeMap<Role, String> {
    let roles = keys(entity).iter();
    roles
        .filter_map(|(key, role)| Some((*role, topic_in(config, key)?)))
        .collect()
}

/// Which key names the topic for what.
fn keys(entity: Entity) -> &'static [(&'static str, Role)] {
    match entity {
        Entity::Sensor => &[("state_topic", Role::Temperature)],
        Entity::Climate => &[
            ("mode_command_topic", Role::ModeCommand),
            ("mode_state_topic", Role::ModeState),
            ("action_topic", Role::ActionState),
            ("temperature_command_topic", Role::TargetCommand),
            ("temperature_state_topic", Role::TargetState),
            ("temperature_low_command_topic", Role::LowCommand),
            ("temperature_low_state_topic", Role::LowState),
            ("temperature_high_command_topic", Role::HighCommand),
            ("temperature_high_state_topic", Role::HighState),
        ],
    }
}

/// A topic that could be subscribed to as it is: no wildcards, not longer than any is.
fn topic_in(config: &Map<String, Value>, key: &str) -> Option<String> {
    let topic = config.get(key)?.as_str()?;
    let usable =
        !topic.is_empty() && topic.len() <= LONGEST_TOPIC && !topic.contains(['+', '#', '\0']);
    usable.then(|| topic.to_owned())
}

fn availability(config: &Map<String, Value>) -> Result<Vec<Availability>, String> {
    let word = |config: &Map<String, Value>, key: &str, default: &str| {
        let word = config.get(key).and_then(Value::as_str);
        word.unwrap_or(default).to_owned()
    };
    let one = |config: &Map<String, Value>, key: &str| {
        Some(Availability {
            topic: topic_in(config, key)?,
            there: word(config, "payload_available", "online"),
            gone: word(config, "payload_not_available", "offline"),
        })
    };
    let mut found: Vec<Availability> = one(config, "availability_topic").into_iter().collect();
    if let Some(Value::Array(list)) = config.get("availability") {
        for entry in list.iter().take(MOST_AVAILABILITY) {
            let Value::Object(entry) = entry else {
                continue;
            };
            if entry.contains_key("value_template") {
                return Err(
                    "its discovery message has a value_template in its availability, \
                            which is not supported; set mqtt_discovery_prefix to nothing"
                        .into(),
                );
            }
            found.extend(one(entry, "topic"));
        }
    }
    Ok(found)
}

/// The MAC address among the device's connections, or what looks like one among its identifiers.
fn identity(config: &Map<String, Value>) -> Option<Identity> {
    let device = config.get("device")?;
    let connections = device.get("connections").and_then(Value::as_array);
    let mac = connections.into_iter().flatten().find_map(|pair| {
        (pair.get(0)?.as_str()? == "mac").then(|| Identity::of_mac(pair.get(1)?.as_str()?))?
    });
    mac.or_else(|| {
        let ids = device.get("identifiers")?;
        let one = ids.as_str().and_then(Identity::of_mac);
        let several = ids.as_array().into_iter().flatten();
        one.or_else(|| several.filter_map(Value::as_str).find_map(Identity::of_mac))
    })
}

#[cfg(test)]
mod tests;
