//! Discovery messages for Home Assistant, as ESPHome 2026.6.5 sends them.

use serde_json::{Map, Value, json};

use super::publish::{BOARD, FRIENDLY_NAME, RELAY, VERSION, retained};
use super::{Discovery, Node, Platform};

impl Node {
    /// One message per entity, before its state on a real one; here before all states.
    pub(super) fn publish_discovery(&mut self) {
        let Some(discovery) = self.setup.discovery.clone() else {
            return;
        };
        let setup = &self.setup;
        let mut entities = vec![
            self.sensor(&setup.chamber_sensor, "Chamber Temperature"),
            self.sensor(&setup.element_sensor, "PTC Element Temperature"),
        ];
        if setup.relay {
            entities.push(self.relay());
        }
        entities.push(self.fan_entity());
        entities.push(self.climate_entity());
        for (kind, id, mut config) in entities {
            config.insert("availability_topic".into(), self.status("").topic.into());
            config.insert("unique_id".into(), format!("ESP{kind}{id}").into());
            config.insert("device".into(), self.device());
            let node = &self.setup.node;
            let topic = format!("{}/{kind}/{node}/{id}/config", discovery.prefix);
            let text = Value::Object(spelled(config, &discovery)).to_string();
            self.publish(retained(topic, &text));
        }
    }

    fn sensor(&self, id: &str, name: &str) -> Entity {
        let config = object(json!({
            "suggested_display_precision": 1,
            "unit_of_measurement": "°C",
            "state_class": "measurement",
            "device_class": "temperature",
            "name": name,
            "state_topic": self.topic("sensor", id, "", "state"),
        }));
        ("sensor", id.to_owned(), config)
    }

    fn relay(&self) -> Entity {
        let config = object(json!({
            "name": "PTC Heater Relay",
            "state_topic": self.topic("switch", RELAY, "", "state"),
            "command_topic": self.topic("switch", RELAY, "", "command"),
        }));
        ("switch", RELAY.to_owned(), config)
    }

    fn fan_entity(&self) -> Entity {
        let id = &self.setup.fan;
        let config = object(json!({
            "name": "Fan",
            "state_topic": self.topic("fan", id, "", "state"),
            "command_topic": self.topic("fan", id, "", "command"),
            "percentage_command_topic": self.topic("fan", id, "speed_level/", "command"),
            "percentage_state_topic": self.topic("fan", id, "speed_level/", "state"),
            "speed_range_max": 100,
        }));
        ("fan", id.clone(), config)
    }

    fn climate_entity(&self) -> Entity {
        let id = &self.setup.climate;
        let topic = |attribute: &str, suffix: &str| self.topic("climate", id, attribute, suffix);
        let (min_c, max_c) = match self.setup.platform {
            Platform::Thermostat(options) => (options.min_c, options.max_c),
            Platform::BangBang(_) => (10.0, 30.0), // shown, and without effect
        };
        let mut config = object(json!({
            "name": "Chamber",
            "current_temperature_topic": topic("current_temperature/", "state"),
            "mode_command_topic": topic("mode/", "command"),
            "mode_state_topic": topic("mode/", "state"),
            "modes": ["off", "heat"],
            "action_topic": topic("action/", "state"),
            "min_temp": min_c,
            "max_temp": max_c,
            "temp_step": 0.1,
            "precision": 0.1,
            "temperature_unit": "C",
        }));
        let targets: &[_] = if self.climate.is_two_point() {
            &[("temperature_low", "_low"), ("temperature_high", "_high")]
        } else {
            &[("temperature", "")]
        };
        for (key, suffix) in targets {
            let attribute = format!("target_temperature{suffix}/");
            let command = topic(&attribute, "command");
            config.insert(format!("{key}_command_topic"), command.into());
            config.insert(
                format!("{key}_state_topic"),
                topic(&attribute, "state").into(),
            );
        }
        ("climate", id.clone(), config)
    }

    fn device(&self) -> Value {
        let mac = self.setup.identity.to_string().to_lowercase();
        json!({
            "identifiers": mac,
            "name": FRIENDLY_NAME,
            "sw_version": format!("{VERSION} (config hash 0x00000000)"),
            "model": BOARD,
            "manufacturer": "Espressif",
            "connections": [["mac", mac]],
        })
    }
}

type Entity = (&'static str, String, Map<String, Value>);

fn object(value: Value) -> Map<String, Value> {
    let Value::Object(map) = value else {
        return Map::new();
    };
    map
}

/// With short keys, if they are wanted; the device has short ones as well.
fn spelled(config: Map<String, Value>, discovery: &Discovery) -> Map<String, Value> {
    if !discovery.abbreviated {
        return config;
    }
    let shorten = |(key, value): (String, Value)| {
        let short = ABBREVIATIONS.iter().find(|(long, _)| *long == key);
        let value = if let Value::Object(inner) = value {
            Value::Object(spelled(inner, discovery))
        } else {
            value
        };
        (short.map_or(key, |(_, short)| (*short).to_owned()), value)
    };
    config.into_iter().map(shorten).collect()
}

/// `mqtt_const.h`, as far as it is needed.
const ABBREVIATIONS: [(&str, &str); 28] = [
    ("action_topic", "act_t"),
    ("availability_topic", "avty_t"),
    ("command_topic", "cmd_t"),
    ("connections", "cns"),
    ("current_temperature_topic", "curr_temp_t"),
    ("device", "dev"),
    ("device_class", "dev_cla"),
    ("identifiers", "ids"),
    ("manufacturer", "mf"),
    ("mode_command_topic", "mode_cmd_t"),
    ("mode_state_topic", "mode_stat_t"),
    ("model", "mdl"),
    ("percentage_command_topic", "pct_cmd_t"),
    ("percentage_state_topic", "pct_stat_t"),
    ("speed_range_max", "spd_rng_max"),
    ("state_class", "stat_cla"),
    ("state_topic", "stat_t"),
    ("suggested_display_precision", "sug_dsp_prc"),
    ("sw_version", "sw"),
    ("temperature_command_topic", "temp_cmd_t"),
    ("temperature_high_command_topic", "temp_hi_cmd_t"),
    ("temperature_high_state_topic", "temp_hi_stat_t"),
    ("temperature_low_command_topic", "temp_lo_cmd_t"),
    ("temperature_low_state_topic", "temp_lo_stat_t"),
    ("temperature_state_topic", "temp_stat_t"),
    ("temperature_unit", "temp_unit"),
    ("unique_id", "uniq_id"),
    ("unit_of_measurement", "unit_of_meas"),
];
