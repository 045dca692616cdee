//! BIQU's firmware 1.0.4 over its own MQTT. Facts: `docs/protocol-mqtt.md`.
//!
//! **Everything here is the community's word, not seen in the firmware itself**: topics and keys
//! were read off a live device by others; quality of service, the retain flag of the state, and
//! what becomes of a key of the wrong type are unknown. So nothing is believed that a later state
//! does not confirm, reading is lenient field by field, and what is not understood is no reading
//! and no sign of off.

use serde_json::{Map, Value};

use super::mqtt::{Delivery, Message, Options, Terms, command_seen, text};
use super::{
    BrokerNews, DecodeError, Dialect, Identity, Mode, PLAUSIBLE, Report, Setting, Settings,
};

/// More devices than anybody has under one prefix; their names are kept only up to here.
const MOST_DEVICES: usize = 8;

/// Reads and writes for one device.
#[derive(Clone, Debug)]
pub struct StockMqtt {
    prefix: String,
    /// Named by the user.
    configured: Option<String>,
    /// The one that answers, named or found.
    id: Option<String>,
    /// All that answer, on this connection.
    seen: Vec<String>,
    changed: bool,
}

impl StockMqtt {
    /// Nothing is learnt yet.
    pub fn new(options: &Options) -> Self {
        let configured = options.device_id.as_ref().map(|id| id.to_ascii_uppercase());
        Self {
            prefix: options.prefix_for(Dialect::StockMqtt),
            id: configured.clone(),
            configured,
            seen: Vec::new(),
            changed: false,
        }
    }

    pub(super) fn has_found(&self) -> bool {
        self.configured.is_none() && self.id.is_some()
    }

    pub(super) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    pub(super) fn forget_state(&mut self) {
        self.seen.clear();
    }

    pub(super) fn terms(&self) -> Terms {
        // Until the user has named one, the others are listened to as well: two devices where
        // one should be must not go unnoticed.
        let id = self.configured.as_deref().unwrap_or("+");
        let filter = |leaf: &str| format!("{}/{id}/{leaf}", self.prefix);
        Terms {
            will: self.encode(Setting::Off).pop(),
            subscriptions: vec![filter("state"), filter("availability"), filter("command")],
        }
    }

    pub(super) fn decode(&mut self, delivery: Delivery<'_>) -> Result<Report, DecodeError> {
        let (id, leaf) = self.split(delivery.topic).ok_or(DecodeError::Meaningless)?;
        let is_ours = self.id.as_ref().is_none_or(|ours| *ours == id);
        if leaf == "command" {
            return Ok(if is_ours {
                command_seen(delivery)
            } else {
                Report::default()
            });
        }
        let mut report = match leaf {
            "availability" => availability(&delivery)?,
            "state" => state(&delivery)?,
            _ => return Err(DecodeError::Meaningless),
        };
        if report.present == Some(false) {
            self.seen.retain(|seen| *seen != id);
        }
        if !delivery.retained && report.is_from_device() && report.present != Some(false) {
            if let Some(several) = self.heard(&id) {
                report.broker = Some(BrokerNews::SeveralDevices(several));
                return Ok(report);
            }
        }
        if !is_ours {
            return Ok(Report::default());
        }
        if delivery.retained {
            // History, but for what the broker itself has said about the device's leaving.
            return Ok(Report {
                present: report.present,
                ..Report::default()
            });
        }
        report.identity = Identity::of_mac(&id);
        Ok(report)
    }

    /// `PREFIX/ID/LEAF` as the id and the leaf.
    pub(super) fn split<'a>(&self, topic: &'a str) -> Option<(String, &'a str)> {
        let rest = topic.strip_prefix(&self.prefix)?.strip_prefix('/')?;
        let (id, leaf) = rest.split_once('/')?;
        let id = id.to_ascii_uppercase();
        (Identity::of_mac(&id).is_some() || Some(&id) == self.configured.as_ref())
            .then_some((id, leaf))
    }

    /// A device speaks. Returns the names of all, if they are several and none was chosen.
    fn heard(&mut self, id: &str) -> Option<String> {
        if !self.seen.iter().any(|seen| seen == id) && self.seen.len() < MOST_DEVICES {
            self.seen.push(id.to_owned());
            self.seen.sort();
        }
        if self.configured.is_none() && self.seen.len() > 1 {
            return Some(self.seen.join(", "));
        }
        self.changed |= self.id.is_none();
        self.id.get_or_insert_with(|| id.to_owned());
        None
    }

    pub(super) fn encode(&self, setting: Setting) -> Vec<Message> {
        let Some(id) = &self.id else {
            return Vec::new();
        };
        let payloads = match setting {
            Setting::Off => vec![r#"{"work_on":"OFF"}"#.to_owned()],
            Setting::Heat(target) => vec![format!(
                r#"{{"mode":"power on","target_temp":{},"work_on":"ON"}}"#,
                target.degrees()
            )],
            // The order in which it takes what is in one message is not known, and choosing the
            // programme must come after what it consists of.
            Setting::Dry { target, hours } => vec![
                format!(
                    r#"{{"custom_temp":{},"custom_timer":{hours}}}"#,
                    target.degrees()
                ),
                r#"{"mode":"filament drying","filament_drying_mode":"custom","work_on":"ON","drying_running":"ON"}"#
                    .to_owned(),
            ],
        };
        let message = |payload| Message {
            topic: format!("{}/{id}/command", self.prefix),
            payload,
        };
        payloads.into_iter().map(message).collect()
    }

    pub(super) fn what_is_missing(&self) -> Option<String> {
        let nobody = self.id.is_none();
        nobody.then(|| format!("no device speaks below '{}'", self.prefix))
    }
}

fn availability(delivery: &Delivery<'_>) -> Result<Report, DecodeError> {
    let present = match text(delivery)? {
        "online" => true,
        "offline" => false,
        _ => return Err(DecodeError::Meaningless),
    };
    Ok(Report {
        present: Some(present),
        ..Report::default()
    })
}

fn state(delivery: &Delivery<'_>) -> Result<Report, DecodeError> {
    let value: Value = serde_json::from_slice(delivery.payload)
        .map_err(|error| DecodeError::NotJson(error.column()))?;
    let Value::Object(object) = value else {
        return Err(DecodeError::NotAnObject);
    };
    let mut fields = Fields {
        object: &object,
        ignored: 0,
    };
    let on = fields.switch("work_on");
    let mut report = Report {
        reading: fields.take("chamber_temp", |value| {
            value.as_f64().filter(|c| PLAUSIBLE.contains(c))
        }),
        on,
        // There is no word of its own for the heating element.
        heating: on.filter(|on| !on),
        mode: fields.take("mode", |value| match value.as_str()? {
            "auto mode" => Some(Mode::Auto),
            "power on" => Some(Mode::On),
            "filament drying" => Some(Mode::Drying),
            _ => None,
        }),
        target: fields.take("target_temp", |value| small(value).map(f64::from)),
        drying: fields.switch("drying_running"),
        remaining_seconds: fields.take("drying_remaining_min", |value| {
            let minutes = u32::try_from(value.as_u64()?).ok()?;
            minutes.checked_mul(60)
        }),
        settings: Settings {
            filter_temp: fields.take("filter_temp", small),
            bed_temp: fields.take("heater_temp", small),
            custom_temp: fields.take("custom_temp", small),
            custom_hours: fields.take("custom_timer", small),
            ..Settings::default()
        },
        ..Report::default()
    };
    report.target_step = report.target.map(|_| 1.0);
    report.ignored = fields.ignored;
    Ok(report)
}

/// Fields of the wrong type are counted and left out; the rest of the message is used.
struct Fields<'a> {
    object: &'a Map<String, Value>,
    ignored: u32,
}

impl Fields<'_> {
    fn take<T>(&mut self, key: &str, read: impl FnOnce(&Value) -> Option<T>) -> Option<T> {
        let value = self.object.get(key)?;
        let understood = read(value);
        self.ignored += u32::from(understood.is_none());
        understood
    }

    fn switch(&mut self, key: &str) -> Option<bool> {
        self.take(key, |value| match value.as_str()? {
            "ON" => Some(true),
            "OFF" => Some(false),
            _ => None,
        })
    }
}

fn small(value: &Value) -> Option<u8> {
    u8::try_from(value.as_u64()?).ok()
}

#[cfg(test)]
mod tests;
