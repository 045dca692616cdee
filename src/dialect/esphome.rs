//! An ESPHome node with a climate entity and a temperature sensor, over MQTT. Facts:
//! `docs/protocol-mqtt.md`.
//!
//! There is no topic that carries the whole state, and no `…/set`: mode, action and target each
//! have their own. A node answers every command with all of them, accepted or not, so what counts
//! is the value that comes back.

use serde_json::Value;

use super::discovery::{self, Availability, AvailabilityMode, Discovered, Entity};
use super::mqtt::subject::Subject;
use super::mqtt::{Delivery, Message, Options, Role, Terms, command_seen, text};
use super::{
    BrokerNews, DecodeError, Dialect, Firmware, Identity, Mode, PLAUSIBLE, Report, Setting,
};

/// A two-point climate heats between target - BAND and target + BAND, C.
const BAND: f64 = 0.5;

/// Reads and writes for one node.
#[derive(Clone, Debug)]
pub struct Esphome {
    options: Options,
    prefix: String,
    node: String,
    /// Where everything is, by what is known so far.
    topics: Vec<(Role, String)>,
    card_topic: String,
    climate_config: Option<String>,
    sensor_config: Option<String>,
    /// From its discovery messages: the climate entity's and the sensor's.
    climate: Discovered,
    sensor: Discovered,
    refused: Option<String>,
    changed: bool,
    /// One target or two; a live message is a better witness than one that the broker had kept.
    shape: Option<(Shape, bool)>,
    /// Whether a mode was ever told, so that there is such an entity.
    has_mode: bool,
    low: Option<f64>,
    high: Option<f64>,
    step: f64,
    /// Of each topic that says whether the node is there: what it says.
    available: Vec<(String, bool)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Single,
    TwoPoint,
}

impl Esphome {
    /// Nothing is learnt yet.
    pub fn new(options: &Options) -> Self {
        let prefix = options.prefix_for(Dialect::Esphome);
        let node = options.device_id.clone().unwrap_or_else(|| prefix.clone());
        let config = |kind: &str, object_id: &str| {
            let base = &options.discovery_prefix;
            (!base.is_empty()).then(|| format!("{base}/{kind}/{node}/{object_id}/config"))
        };
        let mut esphome = Self {
            card_topic: format!("esphome/discover/{node}"),
            climate_config: config("climate", &options.climate),
            sensor_config: config("sensor", &options.sensor),
            options: options.clone(),
            node,
            prefix,
            topics: Vec::new(),
            climate: Discovered::default(),
            sensor: Discovered::default(),
            refused: None,
            changed: false,
            shape: None,
            has_mode: false,
            low: None,
            high: None,
            step: 0.1,
            available: Vec::new(),
        };
        esphome.find_topics();
        esphome
    }

    pub(super) fn forget_state(&mut self) {
        self.low = None;
        self.high = None;
        self.available.clear();
    }

    /// Where to find everything: as the user says, else as the node says, else where ESPHome has
    /// it.
    fn find_topics(&mut self) {
        let find = |role: Role| {
            let said = [&self.climate, &self.sensor]
                .into_iter()
                .find_map(|discovered| discovered.topics.get(&role));
            let chosen = self.options.topics.get(&role).or(said).cloned();
            (role, chosen.unwrap_or_else(|| self.default_topic(role)))
        };
        self.topics = Role::ALL.map(find).into();
    }

    /// What a topic is for, by what is known so far: in the order in which it is read.
    pub(super) fn subject(&self, topic: &str) -> Option<Subject> {
        if topic == self.card_topic {
            return Some(Subject::Card);
        }
        if self.climate_config.as_deref() == Some(topic) {
            return Some(Subject::Climate);
        }
        if self.sensor_config.as_deref() == Some(topic) {
            return Some(Subject::Sensor);
        }
        let mut listed = self.listed().iter();
        if let Some(number) = listed.position(|place| place.topic == topic) {
            return Some(Subject::Available(number));
        }
        let role = self.topics.iter().find(|(_, other)| other == topic);
        role.map(|(role, _)| Subject::Role(*role))
    }

    pub(super) fn node(&self) -> &str {
        &self.node
    }

    pub(super) fn card_topic(&self) -> &str {
        &self.card_topic
    }

    pub(super) fn config_topic(&self, entity: Entity) -> &str {
        let topic = match entity {
            Entity::Climate => &self.climate_config,
            Entity::Sensor => &self.sensor_config,
        };
        topic.as_deref().unwrap_or_default()
    }

    pub(super) fn topic(&self, role: Role) -> &str {
        let found = self.topics.iter().find(|(other, _)| *other == role);
        found.map_or("", |(_, topic)| topic)
    }

    pub(super) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    fn default_topic(&self, role: Role) -> String {
        let prefix = &self.prefix;
        let leaf = match role {
            Role::Availability => return format!("{prefix}/status"),
            Role::Temperature => return format!("{prefix}/sensor/{}/state", self.options.sensor),
            Role::ModeState => "mode/state",
            Role::ModeCommand => "mode/command",
            Role::ActionState => "action/state",
            Role::TargetState => "target_temperature/state",
            Role::TargetCommand => "target_temperature/command",
            Role::LowState => "target_temperature_low/state",
            Role::LowCommand => "target_temperature_low/command",
            Role::HighState => "target_temperature_high/state",
            Role::HighCommand => "target_temperature_high/command",
        };
        format!("{prefix}/climate/{}/{leaf}", self.options.climate)
    }

    pub(super) fn terms(&self) -> Terms {
        let mut subscriptions: Vec<String> =
            self.topics.iter().map(|(_, topic)| topic.clone()).collect();
        subscriptions.extend(self.listed().iter().map(|listed| listed.topic.clone()));
        subscriptions.push(self.card_topic.clone());
        subscriptions.extend(self.climate_config.clone());
        subscriptions.extend(self.sensor_config.clone());
        subscriptions.sort();
        subscriptions.dedup();
        Terms {
            will: self.encode(Setting::Off, true).pop(),
            subscriptions,
        }
    }

    pub(super) fn decode(&mut self, delivery: Delivery<'_>) -> Result<Report, DecodeError> {
        let topic = delivery.topic;
        if topic == self.card_topic {
            return self.card(&delivery);
        }
        if self.climate_config.as_deref() == Some(topic) {
            return Ok(self.discovered(&delivery, Entity::Climate));
        }
        if self.sensor_config.as_deref() == Some(topic) {
            return Ok(self.discovered(&delivery, Entity::Sensor));
        }
        if let Some(present) = self.availability(&delivery) {
            return Ok(Report {
                present: Some(present),
                ..Report::default()
            });
        }
        let role = self.topics.iter().find(|(_, other)| other == topic);
        let role = role.ok_or(DecodeError::Meaningless)?.0;
        if role.is_command() {
            return Ok(command_seen(delivery));
        }
        let report = self.state(role, &delivery)?;
        Ok(if delivery.retained {
            Report::default()
        } else {
            Report {
                heard: true,
                ..report
            }
        })
    }

    fn state(&mut self, role: Role, delivery: &Delivery<'_>) -> Result<Report, DecodeError> {
        let text = text(delivery)?;
        let mut report = Report::default();
        match role {
            Role::Temperature => report.reading = reading(text)?,
            Role::ModeState => {
                let on = match text.to_ascii_lowercase().as_str() {
                    "off" => false,
                    "heat" | "auto" | "heat_cool" | "cool" | "dry" | "fan_only" => true,
                    _ => return Err(DecodeError::Meaningless),
                };
                self.has_mode = true;
                report.on = Some(on);
                report.mode = on.then_some(if text.eq_ignore_ascii_case("heat") {
                    Mode::On
                } else {
                    Mode::Auto
                });
            }
            Role::ActionState => {
                report.heating = Some(match text.to_ascii_lowercase().as_str() {
                    "heating" | "preheating" => true,
                    "off" | "idle" | "fan" | "drying" | "cooling" | "defrosting" => false,
                    _ => return Err(DecodeError::Meaningless),
                });
            }
            Role::TargetState | Role::LowState | Role::HighState => {
                let (value, step) = number(text)?;
                if !PLAUSIBLE.contains(&value) {
                    return Err(DecodeError::Meaningless);
                }
                self.step = step;
                report.target_step = Some(step);
                report.target = self.target(role, value, !delivery.retained);
            }
            Role::Availability
            | Role::ModeCommand
            | Role::TargetCommand
            | Role::LowCommand
            | Role::HighCommand => return Err(DecodeError::Meaningless),
        }
        report.target_limit = self.climate.max;
        Ok(report)
    }

    /// What a told target, or one of the two, means for the whole.
    fn target(&mut self, role: Role, value: f64, live: bool) -> Option<f64> {
        let shape = if role == Role::TargetState {
            Shape::Single
        } else {
            Shape::TwoPoint
        };
        if live || self.shape.is_none_or(|(_, was_live)| !was_live) {
            self.shape = Some((shape, live));
        }
        if role == Role::LowState {
            self.low = Some(value);
        } else if role == Role::HighState {
            self.high = Some(value);
        } else {
            return Some(value);
        }
        let (low, high) = (self.low?, self.high?);
        let is_our_band = (high - low - 2.0 * BAND).abs() <= self.step + 1e-6;
        // Another band has no target of ours; its upper end is what it heats to.
        Some(if is_our_band {
            f64::midpoint(low, high)
        } else {
            high
        })
    }

    /// Where its discovery message says that it says whether it is there; the user's word counts
    /// more.
    fn listed(&self) -> &[Availability] {
        if self.options.topics.contains_key(&Role::Availability) {
            &[]
        } else {
            &self.climate.availability
        }
    }

    /// What one topic says about the node being there, if that is what it is for.
    pub(super) fn says_available(&self, topic: &str, text: &str) -> Option<bool> {
        let listed = self.listed();
        if listed.is_empty() {
            return match text {
                "online" if topic == self.topic(Role::Availability) => Some(true),
                "offline" if topic == self.topic(Role::Availability) => Some(false),
                _ => None,
            };
        }
        listed.iter().find(|place| place.topic == topic)?.says(text)
    }

    /// What is said about the node being there, if that is what the topic is for.
    fn availability(&mut self, delivery: &Delivery<'_>) -> Option<bool> {
        let text = std::str::from_utf8(delivery.payload).ok()?.trim();
        let says = self.says_available(delivery.topic, text)?;
        self.available.retain(|(topic, _)| topic != delivery.topic);
        self.available.push((delivery.topic.to_owned(), says));
        let told = self.available.iter().map(|(_, says)| *says);
        Some(match self.climate.availability_mode {
            AvailabilityMode::Latest => says,
            AvailabilityMode::All => told.into_iter().all(|says| says),
            AvailabilityMode::Any => told.into_iter().any(|says| says),
        })
    }

    /// The node's own card: who it is. It comes at its connect, and whenever it is asked.
    fn card(&self, delivery: &Delivery<'_>) -> Result<Report, DecodeError> {
        if delivery.payload.is_empty() {
            return Ok(Report::default());
        }
        let card: Value = serde_json::from_slice(delivery.payload)
            .map_err(|error| DecodeError::NotJson(error.column()))?;
        if card["name"].as_str() != Some(&self.node) {
            return Err(DecodeError::Meaningless);
        }
        let mac = card["mac"].as_str().and_then(Identity::of_mac);
        Ok(Report {
            identity: mac,
            firmware: card["version"].as_str().map(Firmware::new),
            heard: !delivery.retained,
            ignored: u32::from(mac.is_none()),
            ..Report::default()
        })
    }

    fn discovered(&mut self, delivery: &Delivery<'_>, entity: Entity) -> Report {
        let command_prefix = (!self.options.foreign_topics).then_some(self.prefix.as_str());
        match discovery::read(delivery.payload, entity, command_prefix) {
            Ok(discovered) => {
                self.refused = None;
                let place = match entity {
                    Entity::Climate => &mut self.climate,
                    Entity::Sensor => &mut self.sensor,
                };
                self.changed |= *place != discovered;
                *place = discovered;
                self.find_topics();
                if let Some(shape) = self.climate.is_two_point() {
                    let shape = if shape {
                        Shape::TwoPoint
                    } else {
                        Shape::Single
                    };
                    self.shape = Some((shape, true));
                }
                Report {
                    identity: self.climate.identity,
                    target_limit: self.climate.max,
                    ..Report::default()
                }
            }
            Err(why) => {
                let known = self.refused.as_ref() == Some(&why);
                self.refused = Some(why.clone());
                Report {
                    broker: (!known).then_some(BrokerNews::Refused(why)),
                    ignored: 1,
                    ..Report::default()
                }
            }
        }
    }

    pub(super) fn encode(&self, setting: Setting, on: bool) -> Vec<Message> {
        let message = |role, payload: &str| Message {
            topic: self.topic(role).to_owned(),
            payload: payload.to_owned(),
        };
        let target = match setting {
            Setting::Off => return vec![message(Role::ModeCommand, "off")],
            // It has no word for drying: whoever asks ends it.
            Setting::Heat(target) | Setting::Dry { target, .. } => target,
        };
        let mut messages = match self.shape {
            None => return Vec::new(),
            Some((Shape::Single, _)) => vec![message(Role::TargetCommand, &target.to_string())],
            Some((Shape::TwoPoint, _)) => {
                let low = message(Role::LowCommand, &format!("{:.1}", target.celsius() - BAND));
                let high = message(
                    Role::HighCommand,
                    &format!("{:.1}", target.celsius() + BAND),
                );
                // Never the lower above the upper, not even for the moment between the two.
                if self
                    .high
                    .is_some_and(|high| target.celsius() - BAND <= high)
                {
                    vec![low, high]
                } else {
                    vec![high, low]
                }
            }
        };
        // The target first: heating to the one before, even for a moment, is not wanted.
        if !on {
            messages.push(message(Role::ModeCommand, "heat"));
        }
        messages
    }

    pub(super) fn question(&self) -> Message {
        Message {
            topic: format!("esphome/ping/{}", self.node),
            payload: "ping".into(),
        }
    }

    pub(super) fn what_is_missing(&self) -> Option<String> {
        if let Some(why) = &self.refused {
            return Some(why.clone());
        }
        if !self.has_mode {
            return Some(format!(
                "no climate entity found: nothing on {} (mqtt_climate names its object id)",
                self.topic(Role::ModeState)
            ));
        }
        self.shape.is_none().then(|| {
            format!(
                "its climate entity has no target: nothing on {} or {}",
                self.topic(Role::TargetState),
                self.topic(Role::LowState)
            )
        })
    }
}

/// `nan` and `None` are what a node says of a broken sensor: no reading, and no mistake either.
fn reading(text: &str) -> Result<Option<f64>, DecodeError> {
    if text.eq_ignore_ascii_case("nan") || text.eq_ignore_ascii_case("none") {
        return Ok(None);
    }
    let (celsius, _) = number(text)?;
    if PLAUSIBLE.contains(&celsius) {
        Ok(Some(celsius))
    } else {
        Err(DecodeError::Meaningless)
    }
}

/// A decimal number, and how finely it was written.
fn number(text: &str) -> Result<(f64, f64), DecodeError> {
    let value: f64 = text.parse().map_err(|_| DecodeError::Meaningless)?;
    if !value.is_finite() {
        return Err(DecodeError::Meaningless);
    }
    let decimals = text.split_once('.').map_or(0, |(_, digits)| digits.len());
    let decimals = i32::try_from(decimals.min(6)).unwrap_or(6);
    Ok((value, 10_f64.powi(-decimals)))
}

#[cfg(test)]
mod tests;
