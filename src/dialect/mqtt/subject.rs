//! What topics are for, so that a message can be told again without the names that its user chose.

use super::{Mqtt, Options, Role, Speaker};
use crate::dialect::Dialect;
use crate::dialect::discovery::{self, Entity};
use crate::dialect::esphome::Esphome;

/// What a topic is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    /// ESPHome: a value, or a command.
    Role(Role),
    /// ESPHome: one of the topics that say whether the node is there.
    Available(usize),
    /// ESPHome: who the node is.
    Card,
    /// ESPHome: the climate entity's discovery message.
    Climate,
    /// ESPHome: the sensor's.
    Sensor,
    /// Stock: of the device with this id.
    Stock(String, Leaf),
}

/// The topics of a stock device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leaf {
    State,
    Availability,
    Command,
}

impl Leaf {
    fn name(self) -> &'static str {
        match self {
            Self::State => "state",
            Self::Availability => "availability",
            Self::Command => "command",
        }
    }
}

impl Mqtt {
    /// What this topic is for, by what is known so far.
    pub(crate) fn subject(&self, topic: &str) -> Option<Subject> {
        let stock = |stock: &super::StockMqtt| {
            let (id, leaf) = stock.split(topic)?;
            let leaves = [Leaf::State, Leaf::Availability, Leaf::Command];
            let leaf = leaves.into_iter().find(|known| known.name() == leaf)?;
            Some(Subject::Stock(id, leaf))
        };
        match &self.speaker {
            Speaker::Esphome(esphome) => esphome.subject(topic),
            Speaker::Stock(one) => stock(one),
            Speaker::Unknown(esphome, one) => esphome.subject(topic).or_else(|| stock(one)),
        }
    }

    /// What a message on one of several topics says about the node being there.
    pub(crate) fn says_available(&self, topic: &str, text: &str) -> Option<bool> {
        match &self.speaker {
            Speaker::Esphome(esphome) | Speaker::Unknown(esphome, _) => {
                esphome.says_available(topic, text)
            }
            Speaker::Stock(_) => None,
        }
    }
}

/// The topics that a device has whose user has chosen no names.
#[derive(Clone, Debug)]
pub(crate) struct Usual {
    esphome: Esphome,
    stock_prefix: String,
}

impl Usual {
    pub(crate) fn new(options: &Options) -> Self {
        Self {
            esphome: Esphome::new(options),
            stock_prefix: options.prefix_for(Dialect::StockMqtt),
        }
    }

    /// The name of the node.
    pub(crate) fn node(&self) -> &str {
        self.esphome.node()
    }

    /// The topic for a subject; `id`: what a stock device is called.
    pub(crate) fn topic(&self, subject: &Subject, id: &str) -> String {
        match subject {
            Subject::Role(role) => self.esphome.topic(*role).to_owned(),
            Subject::Available(number) => self.available(*number),
            Subject::Card => self.esphome.card_topic().to_owned(),
            Subject::Climate => self.esphome.config_topic(Entity::Climate).to_owned(),
            Subject::Sensor => self.esphome.config_topic(Entity::Sensor).to_owned(),
            Subject::Stock(_, leaf) => format!("{}/{id}/{}", self.stock_prefix, leaf.name()),
        }
    }

    fn available(&self, number: usize) -> String {
        let first = self.esphome.topic(Role::Availability);
        match number {
            0 => first.to_owned(),
            n => format!("{first}/{n}"),
        }
    }

    /// A discovery message that says the same of a device with these topics, and nothing that
    /// names anybody. `prefix`: the one that the real message's command topics must have.
    pub(crate) fn discovery(
        &self,
        payload: &[u8],
        subject: &Subject,
        prefix: &str,
        mac: Option<&str>,
    ) -> serde_json::Value {
        let entity = if *subject == Subject::Sensor {
            Entity::Sensor
        } else {
            Entity::Climate
        };
        let topics = discovery::Usual {
            role: &|role| self.esphome.topic(role).to_owned(),
            available: &|number| self.available(number),
            mac,
        };
        discovery::harmless(payload, entity, Some(prefix), &topics)
    }
}
