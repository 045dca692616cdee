//! What the dialects behind a broker have in common, and which of them it is.
//!
//! Facts: `docs/protocol-mqtt.md`. Only what is delivered live says anything about the device; what a
//! broker had kept is history (rule R5) and is used for nothing but to learn how the device
//! speaks and whether the broker has seen it leave.

pub(crate) mod subject;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::esphome::Esphome;
use super::stock_mqtt::StockMqtt;
use super::{BrokerNews, DecodeError, Dialect, MAX_MESSAGE, Report, Setting};

/// A message as a broker delivers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery<'a> {
    /// Its topic.
    pub topic: &'a str,
    /// Its payload.
    pub payload: &'a [u8],
    /// The broker had kept it from before the subscription: it is history.
    pub retained: bool,
}

/// A message to publish; never retained (rule R4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its topic.
    pub topic: String,
    /// Its payload.
    pub payload: String,
}

/// What a connection to the broker is made with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// What the broker says in our place when we are gone: off (rule R8).
    pub will: Option<Message>,
    /// The topic filters to subscribe to.
    pub subscriptions: Vec<String>,
}

/// How to find a device on a broker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    /// What it speaks; `None`: whatever is found.
    pub dialect: Option<Dialect>,
    /// First level or levels of its topics; `None`: the firmware's own default.
    pub prefix: Option<String>,
    /// Stock: its id, 12 hexadecimal digits. ESPHome: the node's name, where it is not the prefix.
    pub device_id: Option<String>,
    /// ESPHome: object id of the climate entity.
    pub climate: String,
    /// ESPHome: object id of the chamber temperature sensor.
    pub sensor: String,
    /// ESPHome: topics that are not where they are by default.
    pub topics: BTreeMap<Role, String>,
    /// ESPHome: below this the discovery messages for Home Assistant are; empty: not looked at.
    pub discovery_prefix: String,
    /// ESPHome: whether a discovery message may name command topics outside of the prefix.
    pub foreign_topics: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            dialect: None,
            prefix: None,
            device_id: None,
            climate: "chamber".into(),
            sensor: "chamber_temperature".into(),
            topics: BTreeMap::new(),
            discovery_prefix: "homeassistant".into(),
            foreign_topics: false,
        }
    }
}

impl Options {
    /// The prefix a dialect has if the user names none.
    pub fn prefix_for(&self, dialect: Dialect) -> String {
        let default = match dialect {
            Dialect::Stock | Dialect::StockMqtt => "panda_breath",
            Dialect::Esphome => "panda-breath",
        };
        self.prefix.clone().unwrap_or_else(|| default.to_owned())
    }

    /// What to call the device in messages, without its broker. `found`: what it was found to
    /// speak.
    pub fn place(&self, found: Option<Dialect>) -> String {
        match (&self.prefix, found.or(self.dialect)) {
            (Some(prefix), _) => prefix.clone(),
            (None, Some(dialect)) => self.prefix_for(dialect),
            (None, None) => "panda-breath or panda_breath".into(),
        }
    }
}

/// What a topic is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Role {
    /// Whether the device is there.
    Availability,
    /// The chamber temperature.
    Temperature,
    /// The climate entity's mode, told.
    ModeState,
    /// The climate entity's mode, asked for.
    ModeCommand,
    /// What the heating element does.
    ActionState,
    /// The target, told.
    TargetState,
    /// The target, asked for.
    TargetCommand,
    /// Two-point: the lower target, told.
    LowState,
    /// Two-point: the lower target, asked for.
    LowCommand,
    /// Two-point: the upper target, told.
    HighState,
    /// Two-point: the upper target, asked for.
    HighCommand,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Availability,
        Self::Temperature,
        Self::ModeState,
        Self::ModeCommand,
        Self::ActionState,
        Self::TargetState,
        Self::TargetCommand,
        Self::LowState,
        Self::LowCommand,
        Self::HighState,
        Self::HighCommand,
    ];

    /// The name in the options: `mqtt_NAME_topic`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Availability => "availability",
            Self::Temperature => "temperature_state",
            Self::ModeState => "mode_state",
            Self::ModeCommand => "mode_command",
            Self::ActionState => "action_state",
            Self::TargetState => "target_state",
            Self::TargetCommand => "target_command",
            Self::LowState => "target_low_state",
            Self::LowCommand => "target_low_command",
            Self::HighState => "target_high_state",
            Self::HighCommand => "target_high_command",
        }
    }

    /// Whether the device listens there.
    pub fn is_command(self) -> bool {
        matches!(
            self,
            Self::ModeCommand | Self::TargetCommand | Self::LowCommand | Self::HighCommand
        )
    }
}

/// What one stray message has taught is to be forgotten if no device has come of it for so long, ms.
pub const LEARNT_WRONG: u64 = 30_000;

/// Reads and writes for one device behind a broker; what it learns outlives a connection.
#[derive(Clone, Debug)]
pub struct Mqtt {
    speaker: Speaker,
    /// The speaker was found, not named.
    found: bool,
    changed: bool,
}

#[derive(Clone, Debug)]
enum Speaker {
    Esphome(Box<Esphome>),
    Stock(Box<StockMqtt>),
    /// Whichever speaks first.
    Unknown(Box<Esphome>, Box<StockMqtt>),
}

impl Mqtt {
    /// Nothing is learnt yet.
    pub fn new(options: &Options) -> Self {
        let esphome = || Box::new(Esphome::new(options));
        let stock = || Box::new(StockMqtt::new(options));
        Self {
            speaker: match options.dialect {
                Some(Dialect::Esphome) => Speaker::Esphome(esphome()),
                Some(Dialect::StockMqtt | Dialect::Stock) => Speaker::Stock(stock()),
                None => Speaker::Unknown(esphome(), stock()),
            },
            found: false,
            changed: false,
        }
    }

    /// Whether [`Mqtt::terms`] may have changed since this was asked last.
    pub fn take_changed(&mut self) -> bool {
        let learnt = match &mut self.speaker {
            Speaker::Esphome(esphome) => esphome.take_changed(),
            Speaker::Stock(stock) => stock.take_changed(),
            Speaker::Unknown(..) => false,
        };
        std::mem::take(&mut self.changed) || learnt
    }

    /// Whether it knows more of where the device is than the user has said.
    pub fn has_learnt(&self) -> bool {
        self.found
            || match &self.speaker {
                Speaker::Stock(stock) => stock.has_found(),
                Speaker::Esphome(_) | Speaker::Unknown(..) => false,
            }
    }

    /// Which dialect it is, once that is known.
    pub fn dialect(&self) -> Option<Dialect> {
        match &self.speaker {
            Speaker::Esphome(_) => Some(Dialect::Esphome),
            Speaker::Stock(_) => Some(Dialect::StockMqtt),
            Speaker::Unknown(..) => None,
        }
    }

    /// What the next connection is made with. Changes as more is learnt: a connection that was
    /// made with other terms has the wrong will.
    pub fn terms(&self) -> Terms {
        match &self.speaker {
            Speaker::Esphome(esphome) => esphome.terms(),
            Speaker::Stock(stock) => stock.terms(),
            Speaker::Unknown(esphome, stock) => {
                let mut subscriptions = esphome.terms().subscriptions;
                subscriptions.extend(stock.terms().subscriptions);
                Terms {
                    will: None,
                    subscriptions,
                }
            }
        }
    }

    /// A new connection: what was told on the one before is history.
    pub fn forget_state(&mut self) {
        match &mut self.speaker {
            Speaker::Esphome(esphome) => esphome.forget_state(),
            Speaker::Stock(stock) => stock.forget_state(),
            Speaker::Unknown(esphome, stock) => {
                esphome.forget_state();
                stock.forget_state();
            }
        }
    }

    /// Reads one message.
    pub fn decode(&mut self, delivery: Delivery<'_>) -> Result<Report, DecodeError> {
        if delivery.payload.len() > MAX_MESSAGE {
            return Err(DecodeError::TooLarge(delivery.payload.len()));
        }
        let (esphome, stock) = match &mut self.speaker {
            Speaker::Esphome(esphome) => return esphome.decode(delivery),
            Speaker::Stock(stock) => return stock.decode(delivery),
            Speaker::Unknown(esphome, stock) => (esphome, stock),
        };
        // What a broker has kept may be left over from another firmware: only a device that
        // speaks now says which it is. The topics of the two never meet.
        let found = esphome.decode(delivery);
        if found
            .as_ref()
            .is_ok_and(|report| is_voice(report, delivery))
        {
            self.changed = true;
            self.found = true;
            self.speaker = Speaker::Esphome(esphome.clone());
            return found;
        }
        let other = stock.decode(delivery);
        if other
            .as_ref()
            .is_ok_and(|report| is_voice(report, delivery))
        {
            self.changed = true;
            self.found = true;
            self.speaker = Speaker::Stock(stock.clone());
            return other;
        }
        found.or(other)
    }

    /// The messages that carry a wish, in their order. None: the device takes no such wish, or
    /// it is not known how to say it. `on`: the device says that it is on already.
    pub fn encode(&self, setting: Setting, on: bool) -> Vec<Message> {
        match &self.speaker {
            Speaker::Esphome(esphome) => esphome.encode(setting, on),
            Speaker::Stock(stock) => stock.encode(setting),
            Speaker::Unknown(..) => Vec::new(),
        }
    }

    /// Why a wish to heat cannot even be said; told to a user who waits for it.
    pub fn what_is_missing(&self) -> Option<String> {
        match &self.speaker {
            Speaker::Esphome(esphome) => esphome.what_is_missing(),
            Speaker::Stock(stock) => stock.what_is_missing(),
            Speaker::Unknown(..) => Some("nothing was found under its prefix".into()),
        }
    }

    /// Whether there is a [`Mqtt::question`].
    pub fn answers(&self) -> bool {
        !matches!(self.speaker, Speaker::Stock(_))
    }

    /// What a device answers to whenever it is asked, for firmwares that have such a thing.
    pub fn question(&self) -> Option<Message> {
        match &self.speaker {
            Speaker::Esphome(esphome) | Speaker::Unknown(esphome, _) => Some(esphome.question()),
            Speaker::Stock(_) => None,
        }
    }

    /// So much finer than a degree are targets, in tenths.
    pub fn step_tenths(&self) -> u8 {
        match &self.speaker {
            Speaker::Esphome(_) => 1,
            Speaker::Stock(_) | Speaker::Unknown(..) => 10,
        }
    }

    /// How long a device that is well may be silent, milliseconds.
    pub fn silence(&self) -> u64 {
        match &self.speaker {
            // A sample every 5 s, and it answers when it is asked.
            Speaker::Esphome(_) | Speaker::Unknown(..) => 15_000,
            // Its state, twice a second.
            Speaker::Stock(_) => 5_000,
        }
    }

    /// What to do about a target that the device lowers.
    pub fn limit_remedy(&self) -> &'static str {
        match &self.speaker {
            Speaker::Esphome(_) => "raise 'visual: max_temperature' of its climate entity",
            Speaker::Stock(_) | Speaker::Unknown(..) => "set a lower target",
        }
    }
}

/// Whether the device itself speaks in it, now.
fn is_voice(report: &Report, delivery: Delivery<'_>) -> bool {
    !delivery.retained && report.is_from_device() && report.present != Some(false)
}

/// A message on a topic that the device listens to: ours come back to us, others' do, and what the
/// broker has kept there is given to the device at each of its connects.
pub(super) fn command_seen(delivery: Delivery<'_>) -> Report {
    let topic = || delivery.topic.to_owned();
    Report {
        broker: if delivery.payload.is_empty() {
            Some(BrokerNews::CommandCleared(topic()))
        } else if delivery.retained {
            Some(BrokerNews::RetainedCommand(topic()))
        } else {
            None
        },
        ..Report::default()
    }
}

/// A payload as text without spaces around it.
pub(super) fn text<'a>(delivery: &Delivery<'a>) -> Result<&'a str, DecodeError> {
    let text = std::str::from_utf8(delivery.payload).map_err(|_| DecodeError::Meaningless)?;
    Ok(text.trim())
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.topic, self.payload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn say(mqtt: &mut Mqtt, topic: &str, payload: &str, retained: bool) {
        let _ = mqtt.decode(Delivery {
            topic,
            payload: payload.as_bytes(),
            retained,
        });
    }

    #[test]
    fn r5_only_a_device_that_speaks_now_says_what_it_speaks() {
        let mut mqtt = Mqtt::new(&Options::default());
        let card = r#"{"name":"panda-breath","mac":"aabbccddee01","version":"2026.6.5"}"#;
        let state = r#"{"chamber_temp":30,"work_on":"OFF"}"#;
        say(&mut mqtt, "esphome/discover/panda-breath", card, true);
        say(
            &mut mqtt,
            "panda-breath/climate/chamber/mode/state",
            "heat",
            true,
        );
        say(&mut mqtt, "panda-breath/status", "online", true);
        say(&mut mqtt, "panda-breath/status", "offline", false); // the broker's word
        say(&mut mqtt, "panda_breath/AABBCCDDEE01/state", state, true);
        assert_eq!(mqtt.dialect(), None);
        assert!(mqtt.terms().will.is_none(), "nobody to turn off");
        assert!(mqtt.encode(Setting::Off, true).is_empty());
        say(&mut mqtt, "panda_breath/AABBCCDDEE01/state", state, false);
        assert_eq!(mqtt.dialect(), Some(Dialect::StockMqtt));
        assert!(mqtt.take_changed() && mqtt.has_learnt());
        assert!(mqtt.terms().will.is_some());
    }

    #[test]
    fn both_firmwares_are_listened_to_until_one_speaks() {
        let mut mqtt = Mqtt::new(&Options {
            prefix: Some("shop".into()),
            ..Options::default()
        });
        let subscriptions = mqtt.terms().subscriptions;
        for topic in ["shop/status", "shop/+/state", "esphome/discover/shop"] {
            assert!(subscriptions.iter().any(|one| one == topic), "{topic}");
        }
        say(
            &mut mqtt,
            "shop/sensor/chamber_temperature/state",
            "24.0",
            false,
        );
        assert_eq!(mqtt.dialect(), Some(Dialect::Esphome));
        assert!(
            !mqtt
                .terms()
                .subscriptions
                .iter()
                .any(|one| one == "shop/+/state")
        );
    }

    #[test]
    fn r6_a_message_over_64_kib_is_an_error() {
        let mut mqtt = Mqtt::new(&Options::default());
        let fat = "x".repeat(MAX_MESSAGE + 1);
        let delivery = Delivery {
            topic: "panda-breath/status",
            payload: fat.as_bytes(),
            retained: false,
        };
        assert_eq!(mqtt.decode(delivery), Err(DecodeError::TooLarge(fat.len())));
        assert_eq!(fat.len(), 65_537);
        let just = Delivery {
            payload: &fat.as_bytes()[1..],
            ..delivery
        };
        assert_eq!(mqtt.decode(just), Err(DecodeError::Meaningless));
    }

    fn named(dialect: Option<Dialect>) -> Mqtt {
        Mqtt::new(&Options {
            dialect,
            ..Options::default()
        })
    }

    #[test]
    fn what_is_known_of_each_firmware_before_it_speaks() {
        let esphome = named(Some(Dialect::Esphome));
        let stock = named(Some(Dialect::StockMqtt));
        let unknown = named(None);
        let steps = [&esphome, &stock, &unknown].map(Mqtt::step_tenths);
        assert_eq!(steps, [1, 10, 10], "tenths of a degree");
        let silences = [&esphome, &stock, &unknown].map(Mqtt::silence);
        assert_eq!(silences, [15_000, 5_000, 15_000]);
        for (mqtt, answers) in [(&esphome, true), (&stock, false), (&unknown, true)] {
            assert_eq!(mqtt.answers(), answers);
            assert_eq!(mqtt.question().is_some(), answers);
            assert!(!mqtt.has_learnt());
        }
        assert!(esphome.limit_remedy().contains("visual: max_temperature"));
        assert_eq!(stock.limit_remedy(), "set a lower target");
        let missing = unknown.what_is_missing().unwrap();
        assert_eq!(missing, "nothing was found under its prefix");
        assert!(esphome.what_is_missing().unwrap().contains("mqtt_climate"));
        assert!(stock.what_is_missing().is_some(), "its id");
        assert!(!esphome.encode(Setting::Off, true).is_empty());
    }

    #[test]
    fn what_changes_the_terms_is_told_once() {
        let mut mqtt = named(None);
        assert!(!mqtt.take_changed());
        say(
            &mut mqtt,
            "panda-breath/sensor/chamber_temperature/state",
            "24.0",
            false,
        );
        assert!(mqtt.has_learnt());
        assert!(mqtt.take_changed());
        assert!(!mqtt.take_changed());
        let mut stock = named(Some(Dialect::StockMqtt));
        let state = r#"{"chamber_temp":30,"work_on":"OFF"}"#;
        say(&mut stock, "panda_breath/AABBCCDDEE01/state", state, false);
        assert!(stock.take_changed() && stock.has_learnt());
        assert!(!stock.take_changed());
    }

    #[test]
    fn who_was_heard_on_an_earlier_connection_is_forgotten() {
        let mut mqtt = named(Some(Dialect::StockMqtt));
        let several = |mqtt: &mut Mqtt, id: &str| {
            let delivery = Delivery {
                topic: &format!("panda_breath/{id}/state"),
                payload: br#"{"chamber_temp":30,"work_on":"OFF"}"#,
                retained: false,
            };
            mqtt.decode(delivery).unwrap().broker.is_some()
        };
        assert!(!several(&mut mqtt, "AABBCCDDEE01"));
        assert!(several(&mut mqtt, "AABBCCDDEE02"));
        mqtt.forget_state();
        assert!(!several(&mut mqtt, "AABBCCDDEE01"));
    }

    #[test]
    fn a_place_is_the_prefix_or_what_it_would_be() {
        let mut options = Options::default();
        assert_eq!(options.place(None), "panda-breath or panda_breath");
        assert_eq!(options.place(Some(Dialect::StockMqtt)), "panda_breath");
        options.dialect = Some(Dialect::Esphome);
        assert_eq!(options.place(None), "panda-breath");
        options.prefix = Some("shop".into());
        assert_eq!(options.place(None), "shop");
    }

    #[test]
    fn topics_are_named_as_in_the_options() {
        let names = Role::ALL.map(Role::name);
        let all = "availability temperature_state mode_state mode_command action_state \
                   target_state target_command target_low_state target_low_command \
                   target_high_state target_high_command";
        assert_eq!(names.join(" "), all);
        for role in Role::ALL {
            assert_eq!(role.is_command(), role.name().ends_with("_command"));
        }
    }
}
