//! What a node publishes: topics, the climate's bursts, and everything anew after a connect.

use super::payload::celsius;
use super::{Node, Publication};

impl Node {
    /// Below what all topics of the node are.
    pub fn prefix(&self) -> &str {
        self.setup.prefix()
    }

    /// Birth, will and goodbye.
    pub(super) fn status(&self, word: &str) -> Publication {
        retained(format!("{}/status", self.prefix()), word)
    }

    /// The order of a connect: device info, birth, and then per entity its discovery message and
    /// its state. Sensors without a value have none.
    pub(super) fn publish_everything(&mut self) {
        self.publish_info();
        let birth = self.status("online");
        self.publish(birth);
        self.publish_discovery();
        self.publish_sensors();
        self.publish_relay();
        self.publish_fan();
        self.publish_climate();
    }

    /// The answer to a ping, and what a connect begins with, even with `discovery: false`.
    pub(super) fn publish_info(&mut self) {
        let info = serde_json::json!({
            "ip": "192.0.2.20",
            "name": self.setup.node,
            "friendly_name": FRIENDLY_NAME,
            "version": VERSION,
            "mac": self.setup.identity.to_string().to_lowercase(),
            "platform": "ESP32",
            "board": BOARD,
            "network": "wifi",
        });
        // Sent with quality of service 2 by a real one; a subscriber cannot tell.
        let topic = format!("esphome/discover/{}", self.setup.node);
        self.publish(retained(topic, &info.to_string()));
    }

    pub(super) fn publish_sensors(&mut self) {
        self.told_c = self.chamber_c.map(|c| (c * 10.0).round() / 10.0);
        let chamber = (self.setup.chamber_sensor.clone(), self.chamber_c);
        let element = (self.setup.element_sensor.clone(), self.element_c);
        for (id, value) in [chamber, element] {
            let Some(value) = value else { continue };
            let text = if value.is_nan() && self.setup.nan_as_none {
                "None".to_owned()
            } else {
                celsius(value)
            };
            let line = format!("'{id}': Sending state {text} °C with 1 decimals of accuracy");
            self.log_line("D", "sensor", &line);
            self.publish_state("sensor", &id, "", &text);
        }
    }

    /// The whole set, in this order. The temperature is left out while there is none, so that a
    /// broker goes on handing out the last one.
    pub(super) fn publish_climate(&mut self) {
        let id = self.setup.climate.clone();
        let climate = &self.climate;
        let mut set = vec![("mode/", climate.mode.word().to_owned())];
        if !climate.current_c.is_nan() {
            set.push(("current_temperature/", celsius(climate.current_c)));
        }
        if climate.is_two_point() {
            set.push(("target_temperature_low/", celsius(climate.low_c)));
            set.push(("target_temperature_high/", celsius(climate.high_c)));
        } else {
            set.push(("target_temperature/", celsius(climate.target_c)));
        }
        set.push(("action/", climate.action.word().to_owned()));
        self.log_line("D", "climate", &format!("'{id}' - Sending state:"));
        for (attribute, text) in set {
            self.publish_state("climate", &id, attribute, &text);
        }
    }

    pub(super) fn publish_fan(&mut self) {
        let id = self.setup.fan.clone();
        let word = if self.fan.on { "ON" } else { "OFF" };
        self.publish_state("fan", &id, "", word);
        let level = self.fan.level.to_string();
        self.publish_state("fan", &id, "speed_level/", &level);
    }

    pub(super) fn publish_relay(&mut self) {
        if self.setup.relay {
            let word = if self.relay { "ON" } else { "OFF" };
            self.publish_state("switch", RELAY, "", word);
        }
    }

    /// The retained `debug` topic, which is as noisy on a real one.
    pub(super) fn log_line(&mut self, level: &str, tag: &str, text: &str) {
        if self.setup.debug {
            let line = format!("\x1b[0;36m[{level}][{tag}:093]: {text}\x1b[0m");
            let topic = format!("{}/debug", self.prefix());
            self.publish(retained(topic, &line));
        }
    }

    /// Without a connection everything is lost: a connect publishes it all anyway.
    pub(super) fn publish(&mut self, publication: Publication) {
        if self.connected {
            self.outbox.push(publication);
        }
    }

    /// `<prefix>/<type>/<object id>/<attribute>`, where the attribute ends in `/` or is empty.
    pub(super) fn topic(&self, kind: &str, id: &str, attribute: &str, suffix: &str) -> String {
        format!("{}/{kind}/{id}/{attribute}{suffix}", self.prefix())
    }

    /// The topics on which it says what it measures and does; `garbage` goes there.
    pub(crate) fn state_topics(&self) -> Vec<String> {
        let setup = &self.setup;
        let climate = |attribute: &str| self.topic("climate", &setup.climate, attribute, "state");
        let mut topics = vec![
            self.topic("sensor", &setup.chamber_sensor, "", "state"),
            self.topic("fan", &setup.fan, "", "state"),
            climate("mode/"),
            climate("current_temperature/"),
            climate("action/"),
        ];
        if self.climate.is_two_point() {
            topics.push(climate("target_temperature_low/"));
            topics.push(climate("target_temperature_high/"));
        } else {
            topics.push(climate("target_temperature/"));
        }
        topics
    }

    /// One more reading, as `flood` sends them.
    pub(crate) fn reading(&self) -> Publication {
        let topic = self.topic("sensor", &self.setup.chamber_sensor, "", "state");
        retained(topic, &celsius(self.chamber_c.unwrap_or(f64::NAN)))
    }

    fn publish_state(&mut self, kind: &str, id: &str, attribute: &str, text: &str) {
        let topic = self.topic(kind, id, attribute, "state");
        self.publish(retained(topic, text));
    }
}

/// Every state of every entity is retained.
pub(super) fn retained(topic: String, text: &str) -> Publication {
    Publication {
        topic,
        payload: text.as_bytes().to_vec(),
        retain: true,
    }
}

pub(super) const RELAY: &str = "ptc_heater_relay";
pub(super) const FRIENDLY_NAME: &str = "Panda Breath";
pub(super) const VERSION: &str = "2026.6.5";
pub(super) const BOARD: &str = "esp32-c3-devkitm-1";
