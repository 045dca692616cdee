//! Discovery messages told again without anything that names a device, a user or a place (rule
//! R11): made anew of what is understood. One that is refused is made so that it is refused for the
//! same reason.

use serde_json::{Map, Value, json};

use super::super::mqtt::Role;
use super::{
    ABBREVIATIONS, AvailabilityMode, Discovered, Entity, MOST_AVAILABILITY, expand, keys, read,
    topics,
};

/// Stands where there was something that is not kept.
const LEFT_OUT: &str = "...";

/// The names that are written instead.
pub(in crate::dialect) struct Usual<'a> {
    /// The topic for this.
    pub(in crate::dialect) role: &'a dyn Fn(Role) -> String,
    /// One of several topics that say whether the device is there.
    pub(in crate::dialect) available: &'a dyn Fn(usize) -> String,
    /// What stands for the MAC address.
    pub(in crate::dialect) mac: Option<&'a str>,
}

/// The same message without names.
pub(in crate::dialect) fn harmless(
    payload: &[u8],
    entity: Entity,
    prefix: Option<&str>,
    usual: &Usual<'_>,
) -> Value {
    if payload.is_empty() {
        return Value::String(String::new());
    }
    match read(payload, entity, prefix) {
        Ok(discovered) => accepted(&discovered, entity, usual),
        Err(_) => match serde_json::from_slice(payload) {
            Ok(Value::Object(raw)) => refused(&expand(&raw), entity, prefix, usual),
            _ => Value::Null,
        },
    }
}

fn accepted(discovered: &Discovered, entity: Entity, usual: &Usual<'_>) -> Value {
    let mut config = Map::new();
    for (key, role) in keys(entity) {
        if discovered.topics.contains_key(role) {
            config.insert((*key).to_owned(), (usual.role)(*role).into());
        }
    }
    if !discovered.availability.is_empty() {
        let places = 0..discovered.availability.len();
        let places = places.map(|number| json!({ "topic": (usual.available)(number) }));
        config.insert("availability".to_owned(), places.collect());
        let mode = match discovered.availability_mode {
            AvailabilityMode::All => "all",
            AvailabilityMode::Any => "any",
            AvailabilityMode::Latest => "latest",
        };
        config.insert("availability_mode".to_owned(), mode.into());
    }
    if let Some(max) = discovered.max {
        config.insert("max_temp".to_owned(), max.into());
    }
    if let (Some(_), Some(mac)) = (discovered.identity, usual.mac) {
        config.insert("device".to_owned(), json!({ "identifiers": mac }));
    }
    Value::Object(config)
}

fn refused(
    config: &Map<String, Value>,
    entity: Entity,
    prefix: Option<&str>,
    usual: &Usual<'_>,
) -> Value {
    let mut told = Map::new();
    if let Some(key) = config.keys().find(|key| key.ends_with("_template")) {
        let known = ABBREVIATIONS.iter().find(|(_, full)| full == key);
        let key = known.map_or("value_template", |(_, full)| full);
        told.insert(key.to_owned(), LEFT_OUT.into());
    }
    if config.get("temperature_unit").and_then(Value::as_str) == Some("F") {
        told.insert("temperature_unit".to_owned(), "F".into());
    }
    if let Some(Value::Array(modes)) = config.get("modes") {
        let has = |mode: &&str| modes.iter().any(|known| known.as_str() == Some(mode));
        let known = ["off", "heat"].into_iter().filter(has);
        told.insert("modes".to_owned(), known.collect());
    }
    let topics = topics(config, entity);
    for (key, role) in keys(entity) {
        let Some(topic) = topics.get(role) else {
            continue;
        };
        let rest = prefix.and_then(|prefix| topic.strip_prefix(prefix));
        let is_inside = prefix.is_none() || rest.is_some_and(|rest| rest.starts_with('/'));
        let topic = if is_inside || !role.is_command() {
            (usual.role)(*role)
        } else {
            format!("elsewhere/{}", role.name())
        };
        told.insert((*key).to_owned(), topic.into());
    }
    if let Some(Value::Array(list)) = config.get("availability") {
        let list = list.iter().take(MOST_AVAILABILITY);
        let has = list.clone().any(|one| one.get("value_template").is_some());
        if has {
            let one = json!({ "value_template": LEFT_OUT });
            told.insert("availability".to_owned(), json!([one]));
        }
    }
    Value::Object(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRETS: [&str; 5] = ["geheim", "shop", "aabbcc", "192.0.2", "Klaus"];

    fn told(text: &str, entity: Entity) -> Value {
        let usual = Usual {
            role: &|role| format!("panda-breath/{}", role.name()),
            available: &|number| format!("panda-breath/status/{number}"),
            mac: Some("000000000001"),
        };
        let value = harmless(text.as_bytes(), entity, Some("shop"), &usual);
        for secret in SECRETS {
            assert!(!value.to_string().contains(secret), "{secret}: {value}");
        }
        value
    }

    #[test]
    fn r11_a_discovery_message_says_the_same_and_names_nobody() {
        let text = r#"{"~":"shop/climate/geheim","mode_cmd_t":"~/mode","mode_stat_t":"~/m",
            "temp_cmd_t":"~/t","modes":["off","heat"],"max_temp":60,"avty_mode":"all",
            "avty":[{"t":"shop/status","pl_avail":"geheim"},{"t":"shop/geheim"}],
            "name":"geheim","uniq_id":"geheim","geheim":"geheim",
            "dev":{"ids":"aabbccddee01","name":"Klaus","sw":"geheim","cu":"http://192.0.2.1"}}"#;
        let value = told(text, Entity::Climate);
        assert_eq!(
            value,
            json!({
                "mode_command_topic": "panda-breath/mode_command",
                "mode_state_topic": "panda-breath/mode_state",
                "temperature_command_topic": "panda-breath/target_command",
                "availability": [{"topic": "panda-breath/status/0"}, {"topic": "panda-breath/status/1"}],
                "availability_mode": "all",
                "max_temp": 60.0,
                "device": {"identifiers": "000000000001"},
            })
        );
        let before = read(text.as_bytes(), Entity::Climate, Some("shop")).unwrap();
        let after = value.to_string();
        let after = read(after.as_bytes(), Entity::Climate, Some("panda-breath")).unwrap();
        assert_eq!(before.topics.len(), after.topics.len());
        assert_eq!(
            (before.max, before.availability_mode),
            (after.max, after.availability_mode)
        );
    }

    #[test]
    fn r11_a_message_that_is_refused_is_refused_for_the_same_reason() {
        for text in [
            "geheim",
            "[\"geheim\"]",
            r#"{"geheim_template":"geheim"}"#,
            r#"{"temp_stat_tpl":"geheim"}"#,
            r#"{"temp_unit":"F","name":"geheim"}"#,
            r#"{"modes":["off","geheim"]}"#,
            r#"{"mode_cmd_t":"geheim/mode","temp_cmd_t":"shop/t"}"#,
            r#"{"mode_cmd_t":"shop/t","avty":[{"t":"geheim","val_tpl":"geheim"}]}"#,
        ] {
            let before = read(text.as_bytes(), Entity::Climate, Some("shop")).unwrap_err();
            let value = told(text, Entity::Climate).to_string();
            let after = read(value.as_bytes(), Entity::Climate, Some("panda-breath")).unwrap_err();
            let before = before.replace("shop", "panda-breath");
            let before = before.replace("geheim_template", "value_template");
            assert_eq!(before, after, "{text}");
        }
    }

    #[test]
    fn an_entity_that_is_gone_stays_gone() {
        assert_eq!(told("", Entity::Sensor), "");
        let value = told(r#"{"stat_t":"shop/geheim"}"#, Entity::Sensor);
        assert_eq!(
            value,
            json!({ "state_topic": "panda-breath/temperature_state" })
        );
    }
}
