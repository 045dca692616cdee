//! What a command says to the device, read a second time.

use crate::dialect::mqtt::Message;

/// One command, or the part of one that comes first.
#[derive(Debug)]
pub(crate) enum Said {
    Off,
    /// Heat the chamber to so many C.
    Heat {
        celsius: f64,
        step: f64,
    },
    /// Dry filament at so many C for so many hours.
    Dry {
        celsius: f64,
        hours: u64,
    },
    /// The first half of a band around a target; the second is on its way.
    HalfBand {
        celsius: f64,
    },
    /// What makes a target that came before it heat.
    Go,
    /// Nothing that it does anything for.
    Question,
}

/// A frame for stock firmware.
pub(crate) fn in_frame(text: &str) -> Said {
    if text == r#"{"settings":{"work_on":false}}"# {
        return Said::Off;
    }
    let value: serde_json::Value = serde_json::from_str(text).expect("JSON");
    let settings = &value["settings"];
    assert_eq!(settings["work_on"].as_bool(), Some(true), "{text}");
    if settings["isrunning"].as_u64() == Some(1) {
        let mode = settings["work_mode"].as_u64();
        assert!(matches!(mode, Some(1 | 3)), "{text}");
        return Said::Dry {
            celsius: settings["filament_temp"].as_f64().expect("a target"),
            hours: settings["filament_timer"].as_u64().expect("hours"),
        };
    }
    assert_eq!(settings["work_mode"].as_u64(), Some(2), "{text}");
    let celsius = settings["set_temp"].as_f64().or(settings["temp"].as_f64());
    Said::Heat {
        celsius: celsius.expect("a target"),
        step: 0.0,
    }
}

/// A message that a broker passes on.
pub(crate) fn on_topic(message: &Message) -> Said {
    let (topic, payload) = (&*message.topic, &*message.payload);
    if topic.starts_with("esphome/ping/") {
        return Said::Question;
    }
    match payload {
        "off" | r#"{"work_on":"OFF"}"# => return Said::Off,
        "heat" => return Said::Go,
        _ => {}
    }
    if payload.starts_with('{') {
        let value: serde_json::Value = serde_json::from_str(payload).expect("JSON");
        if let Some(hours) = value["custom_timer"].as_u64() {
            let celsius = value["custom_temp"].as_f64().expect("a target");
            return Said::Dry { celsius, hours };
        }
        assert_eq!(value["work_on"], "ON", "{message}");
        if value["mode"] == "filament drying" {
            assert_eq!(value["drying_running"], "ON", "{message}");
            return Said::Go;
        }
        return Said::Heat {
            celsius: value["target_temp"].as_f64().expect("a target"),
            step: 0.0,
        };
    }
    let number: f64 = payload.parse().expect("a number");
    if topic.contains("_low") {
        Said::HalfBand {
            celsius: number + 0.5,
        }
    } else {
        let above = if topic.contains("_high") { 0.5 } else { 0.0 };
        Said::Heat {
            celsius: number - above,
            step: 0.5,
        }
    }
}
