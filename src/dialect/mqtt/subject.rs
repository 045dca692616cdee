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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::mqtt::Delivery;

    const ID: &str = "AABBCCDDEE01";

    /// One whose user has chosen every name.
    fn chosen(dialect: Option<Dialect>) -> Mqtt {
        Mqtt::new(&Options {
            dialect,
            prefix: Some("shop".into()),
            climate: "warm".into(),
            sensor: "air".into(),
            ..Options::default()
        })
    }

    fn usual() -> Usual {
        Usual::new(&Options::default())
    }

    const CLIMATE: &str = "homeassistant/climate/shop/warm/config";
    const SENSOR: &str = "homeassistant/sensor/shop/air/config";

    #[test]
    fn r11_each_topic_has_a_usual_one_that_names_nobody() {
        for (topic, told) in [
            ("esphome/discover/shop", "esphome/discover/panda-breath"),
            (CLIMATE, "homeassistant/climate/panda-breath/chamber/config"),
            (
                SENSOR,
                "homeassistant/sensor/panda-breath/chamber_temperature/config",
            ),
            (
                "shop/climate/warm/mode/command",
                "panda-breath/climate/chamber/mode/command",
            ),
            ("shop/status", "panda-breath/status"),
            ("shop/aabbccddee01/state", "panda_breath/1/state"),
            (
                "shop/AABBCCDDEE01/availability",
                "panda_breath/1/availability",
            ),
            ("shop/AABBCCDDEE01/command", "panda_breath/1/command"),
        ] {
            let subject = chosen(None).subject(topic).expect(topic);
            assert_eq!(usual().topic(&subject, "1"), told);
        }
        assert_eq!(usual().node(), "panda-breath");
    }

    #[test]
    fn a_topic_of_another_device_or_dialect_is_for_nothing() {
        let command = "shop/climate/warm/mode/command";
        let state = format!("shop/{ID}/state");
        for (dialect, topic) in [
            (None, "elsewhere/status"),
            (None, "shop/AABBCCDDEE01/elsewhere"),
            (None, "homeassistant/climate/other/warm/config"),
            (Some(Dialect::StockMqtt), command),
            (Some(Dialect::Esphome), &state),
        ] {
            assert_eq!(chosen(dialect).subject(topic), None, "{topic}");
        }
        let subject = chosen(Some(Dialect::StockMqtt)).subject(&state);
        assert_eq!(subject, Some(Subject::Stock(ID.into(), Leaf::State)));
    }

    #[test]
    fn which_of_several_topics_says_that_it_is_there() {
        let mut mqtt = chosen(None);
        assert_eq!(mqtt.says_available("shop/status", "online"), Some(true));
        assert_eq!(mqtt.says_available("shop/status", "offline"), Some(false));
        assert_eq!(mqtt.says_available("elsewhere", "online"), None);
        let payload = br#"{"avty":[{"t":"shop/status"},{"t":"shop/socket"}]}"#;
        let report = mqtt.decode(Delivery {
            topic: CLIMATE,
            payload,
            retained: true,
        });
        assert!(report.is_ok());
        let second = mqtt.subject("shop/socket").unwrap();
        assert_eq!(second, Subject::Available(1));
        assert_eq!(usual().topic(&second, ""), "panda-breath/status/1");
        let first = mqtt.subject("shop/status").unwrap();
        assert_eq!(usual().topic(&first, ""), "panda-breath/status");
        let mqtt = chosen(Some(Dialect::StockMqtt));
        assert_eq!(mqtt.says_available("shop/status", "online"), None);
    }

    #[test]
    fn r11_each_discovery_message_is_told_as_its_own_entity() {
        let payload = br#"{"stat_t":"shop/state","mode_cmd_t":"shop/mode"}"#;
        for (subject, topic) in [
            (
                Subject::Climate,
                r#"{"mode_command_topic":"panda-breath/climate/chamber/mode/command"}"#,
            ),
            (
                Subject::Sensor,
                r#"{"state_topic":"panda-breath/sensor/chamber_temperature/state"}"#,
            ),
        ] {
            let told = usual().discovery(payload, &subject, "shop", None);
            assert_eq!(told.to_string(), topic);
        }
    }
}
