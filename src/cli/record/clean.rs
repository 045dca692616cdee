//! What of a message of the device may be kept (rule R11): only what is known to be harmless.
//!
//! Nothing is looked for and blacked out. A new message is made of the fields of a list; the snapshot's
//! networks, addresses, serial numbers and passwords are not on it, and neither is whatever a later
//! firmware may add.

use serde_json::{Map, Value, json};

use crate::dialect::{Identity, MAX_MESSAGE};

/// Settings that are numbers or switches.
const NUMBERS: [&str; 18] = [
    "printer_type",
    "work_on",
    "work_mode",
    "temp",
    "set_temp",
    "filtertemp",
    "hotbedtemp",
    "custom_temp",
    "custom_timer",
    "isrunning",
    "remaining_seconds",
    "warehouse_temper",
    "chamber_temp",
    "cal_warehouse_temp",
    "ptc_sensor_status",
    "warehouse_sensor_status",
    "ptc_heater_status",
    "filament_drying_mode",
];
/// What the device answers to.
const ANSWERS: [&str; 9] = [
    "set_hostname",
    "set_ap",
    "set_hotspot_ip",
    "factory_reset",
    "printer_type",
    "ota_fw",
    "ota_unknown",
    "ota_img",
    "ota_gif",
];
/// Roots that are left out, and may be named.
const SECRET: [&str; 5] = ["wifi", "sta", "ap", "printer", "ha"];
/// Stands where there was a text that is not kept.
const TEXT: &str = "...";
/// More units than one name leads to.
const MOST_UNITS: usize = 64;

/// A message without secrets.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Clean {
    /// What is left of it.
    pub(crate) message: Value,
    /// What is not: known roots by name, the rest by number.
    pub(crate) removed: Vec<String>,
}

/// Knows units apart without keeping who they are.
#[derive(Debug, Default)]
pub(crate) struct Units(Vec<Identity>);

impl Units {
    /// What to call this one: 1 for the first.
    pub(crate) fn number(&mut self, identity: Identity) -> usize {
        let known = self.0.iter().position(|unit| *unit == identity);
        let place = known.unwrap_or_else(|| {
            self.0.truncate(MOST_UNITS - 1);
            self.0.push(identity);
            self.0.len() - 1
        });
        place + 1
    }
}

/// Makes messages clean.
#[derive(Debug, Default)]
pub(crate) struct Cleaner {
    /// By hashes of the names of their access points, which end in their MAC addresses.
    units: Units,
}

impl Cleaner {
    /// What may be kept of a message; the error says why it is none, without quoting it.
    pub(crate) fn clean(&mut self, message: &[u8]) -> Result<Clean, String> {
        if message.len() > MAX_MESSAGE {
            return Err("larger than 64 KiB".to_owned());
        }
        // The library's own error texts may quote.
        let value = serde_json::from_slice(message).map_err(|_| "not JSON".to_owned())?;
        let Value::Object(roots) = value else {
            return Err("not a JSON object".to_owned());
        };
        let mut clean = Map::new();
        let mut removed = Vec::new();
        let mut others = 0;
        for (root, value) in roots {
            match (root.as_str(), value) {
                ("settings", Value::Object(fields)) => {
                    let (fields, unknown) = settings(fields);
                    others += unknown;
                    clean.insert(root, Value::Object(fields));
                }
                ("response", Value::Object(fields)) => {
                    clean.insert(root, answer(&fields));
                }
                ("settings" | "response", _) => {
                    clean.insert(root, Value::Null);
                }
                (name, value) if SECRET.contains(&name) => {
                    removed.push(name.to_owned());
                    if let ("ap", Some(unit)) = (name, self.unit(&value)) {
                        clean.insert(root, json!({ "ssid": unit }));
                    }
                }
                _ => others += 1,
            }
        }
        if others > 0 {
            removed.push(format!("{others} unknown"));
        }
        Ok(Clean {
            message: Value::Object(clean),
            removed,
        })
    }

    /// What to call the unit whose access point this is.
    fn unit(&mut self, access_point: &Value) -> Option<String> {
        let ssid = access_point.get("ssid")?.as_str()?;
        let identity = (!ssid.is_empty()).then(|| Identity::of(ssid))?;
        Some(format!("unit {}", self.units.number(identity)))
    }
}

fn settings(fields: Map<String, Value>) -> (Map<String, Value>, usize) {
    let mut clean = Map::new();
    let mut unknown = 0;
    for (key, value) in fields {
        let value = match key.as_str() {
            name if NUMBERS.contains(&name) => number(value),
            "fw_version" => known_text(value, is_version),
            "language" => known_text(value, |text| ["en", "zh"].contains(&text)),
            _ => {
                unknown += 1;
                continue;
            }
        };
        clean.insert(key, value);
    }
    (clean, unknown)
}

/// A number or a switch; of what is neither only the kind, so that it is still not understood.
pub(super) fn number(value: Value) -> Value {
    match value {
        Value::Number(_) | Value::Bool(_) | Value::Null => value,
        Value::String(_) => TEXT.into(),
        Value::Array(_) | Value::Object(_) => Value::Null,
    }
}

fn known_text(value: Value, is_known: impl Fn(&str) -> bool) -> Value {
    match value {
        Value::String(ref text) if is_known(text) => value,
        Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::String(_)
        | Value::Array(_)
        | Value::Object(_) => number(value),
    }
}

/// `V1.0.3`, `V1.1.0-rc1`: no room for anything else.
pub(super) fn is_version(text: &str) -> bool {
    let mut characters = text.chars();
    text.len() <= 12
        && characters
            .next()
            .is_some_and(|c| c == 'V' || c.is_ascii_digit())
        && characters
            .next()
            .is_some_and(|c| c == '.' || c.is_ascii_digit())
        && characters.all(|c| c.is_ascii_alphanumeric() || ".-+".contains(c))
}

fn answer(fields: &Map<String, Value>) -> Value {
    let kind = fields.get("type").and_then(Value::as_str);
    let kind = kind.filter(|kind| ANSWERS.contains(kind)).unwrap_or(TEXT);
    let ok = fields.get("ok").and_then(Value::as_u64);
    json!({"type": kind, "ok": ok})
}

#[cfg(test)]
mod tests {
    use super::*;

    const SNAPSHOT: &str = r#"{
        "wifi":{"ssid":"geheim-1","password":"geheim-2","scan":2,"list":[{"ssid":"geheim-3"}]},
        "sta":{"hostname":"geheim-4","ip":"192.0.2.10","state":3},
        "ap":{"ssid":"Panda_Breath_AABBCCDDEEFF","password":"geheim-5","ip":"192.0.2.11"},
        "settings":{"fw_version":"V1.0.3","language":"en","work_on":1,"set_temp":50,
            "custom_temp":"geheim-6","later":"geheim-7","temp":{"geheim-8":1}},
        "printer":{"name":"geheim-9","sn":"01S00","access_code":"geheim-10","ip":"192.0.2.12"},
        "ha":{"ip":"192.0.2.13","user":"geheim-11","password":"geheim-12","state":3},
        "response":{"type":"geheim-13","ok":1,"gif":"geheim-14"},
        "geheim-15":{"settings":{"work_on":1}}
    }"#;

    #[test]
    fn r11_only_what_is_harmless_is_kept() {
        let clean = Cleaner::default().clean(SNAPSHOT.as_bytes()).unwrap();
        assert_eq!(
            clean.message,
            json!({
                "ap": {"ssid": "unit 1"},
                "settings": {"fw_version": "V1.0.3", "language": "en", "work_on": 1,
                    "set_temp": 50, "custom_temp": "...", "temp": null},
                "response": {"type": "...", "ok": 1},
            })
        );
        assert_eq!(
            clean.removed,
            ["ap", "ha", "printer", "sta", "wifi", "2 unknown"]
        );
        let all = format!("{clean:?}");
        for secret in ["geheim", "192.0.2", "AABBCC", "01S00"] {
            assert!(!all.contains(secret), "{secret}: {all}");
        }
    }

    #[test]
    fn r11_a_secret_where_a_version_or_a_language_belongs_is_not_kept() {
        for text in [
            "geheim",
            "Vgeheim",
            "V1 geheim",
            "1.0.3 of my very own",
            "en ",
        ] {
            let message = json!({"settings": {"fw_version": text, "language": text}});
            let clean = Cleaner::default().clean(message.to_string().as_bytes());
            let expected = json!({"settings": {"fw_version": "...", "language": "..."}});
            assert_eq!(clean.unwrap().message, expected, "{text}");
        }
        assert!(is_version("V1.0.3") && is_version("1.1.0-rc1"));
    }

    #[test]
    fn r11_what_is_no_message_is_not_quoted() {
        for (text, why) in [
            ("geheim", "not JSON"),
            ("[\"geheim\"]", "not a JSON object"),
        ] {
            let error = Cleaner::default().clean(text.as_bytes()).unwrap_err();
            assert_eq!(error, why);
        }
        let large = vec![b' '; MAX_MESSAGE + 1];
        assert!(Cleaner::default().clean(&large).is_err());
    }

    #[test]
    fn units_are_told_apart() {
        let mut cleaner = Cleaner::default();
        let mut unit = |ssid: &str| {
            let message = json!({"ap": {"ssid": ssid}}).to_string();
            let clean = cleaner.clean(message.as_bytes()).unwrap();
            clean.message["ap"]["ssid"].clone()
        };
        assert_eq!(
            [unit("a"), unit("b"), unit("a")],
            ["unit 1", "unit 2", "unit 1"]
        );
    }
}
