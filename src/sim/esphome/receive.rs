//! What a node makes of a message: exact topics, and the parsing of `payload`.

use super::publish::RELAY;
use super::{Change, Node, payload};

impl Node {
    /// The topics it subscribes to. Two targets have no topic for a single one, nor the reverse.
    pub(super) fn command_topics(&self) -> Vec<String> {
        let setup = &self.setup;
        let climate = |attribute: &str| self.topic("climate", &setup.climate, attribute, "command");
        let mut topics = vec![
            format!("esphome/ping/{}", setup.node),
            "esphome/discover".to_owned(),
            self.topic("fan", &setup.fan, "", "command"),
            self.topic("fan", &setup.fan, "speed_level/", "command"),
            climate("mode/"),
        ];
        if self.climate.is_two_point() {
            topics.push(climate("target_temperature_low/"));
            topics.push(climate("target_temperature_high/"));
        } else {
            topics.push(climate("target_temperature/"));
        }
        if setup.relay {
            topics.push(self.topic("switch", RELAY, "", "command"));
        }
        topics
    }

    /// Obeys one message.
    pub(super) fn obey(&mut self, topic: &str, payload: &[u8]) {
        if topic == "esphome/discover" || topic == format!("esphome/ping/{}", self.setup.node) {
            self.publish_info();
            return;
        }
        let text = String::from_utf8_lossy(payload);
        let path = topic.strip_prefix(self.prefix());
        let Some(path) = path.and_then(|path| path.strip_prefix('/')) else {
            return;
        };
        let mut parts = path.split('/');
        let kind = parts.next().unwrap_or_default();
        let id = parts.next().unwrap_or_default().to_owned();
        let rest: Vec<&str> = parts.collect();
        if kind == "climate" && id == self.setup.climate {
            self.obey_climate(&rest, &text);
        } else if kind == "fan" && id == self.setup.fan {
            self.obey_fan(&rest, &text);
        } else if kind == "switch" && id == RELAY && self.setup.relay && rest == ["command"] {
            // Past the climate, which neither knows nor undoes it.
            match payload::switch(&text, self.relay) {
                Some(on) => self.relay = on,
                None => self.reject(&text),
            }
            self.publish_relay();
        }
    }

    fn obey_climate(&mut self, path: &[&str], text: &str) {
        let two_point = self.climate.is_two_point();
        let change = match path {
            // An unknown word is logged; the call is performed all the same.
            ["mode", "command"] => Some(Change::Mode(payload::mode(text))),
            ["target_temperature", "command"] if !two_point => {
                payload::number(text).map(Change::Target)
            }
            ["target_temperature_low", "command"] if two_point => {
                payload::number(text).map(Change::Low)
            }
            ["target_temperature_high", "command"] if two_point => {
                payload::number(text).map(Change::High)
            }
            _ => return,
        };
        match change {
            None => self.reject(text),
            Some(change) => {
                if change == Change::Mode(None) {
                    self.reject(text);
                }
                self.change(change);
            }
        }
    }

    fn obey_fan(&mut self, path: &[&str], text: &str) {
        match path {
            ["command"] => {
                let Some(on) = payload::switch(text, self.fan.on) else {
                    return self.reject(text);
                };
                self.fan.on = on;
                if on && self.fan.level == 0 {
                    self.fan.level = HIGHEST_LEVEL;
                }
            }
            ["speed_level", "command"] => {
                let level =
                    payload::level(text).filter(|level| (0..=HIGHEST_LEVEL).contains(level));
                let Some(level) = level else {
                    return self.reject(text);
                };
                // 0 becomes 1, and no level turns the fan on or off.
                self.fan.level = level.max(1);
            }
            _ => return,
        }
        self.publish_fan();
    }

    fn reject(&mut self, text: &str) {
        self.log_line("W", "mqtt", &format!("Can't convert '{text}'"));
    }
}

/// `speed_count`.
const HIGHEST_LEVEL: i64 = 100;
