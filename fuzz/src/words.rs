//! What the fuzzer's devices and printers say, so that it need not find every word by itself.

use crate::dialect::Dialect;
use crate::dialect::mqtt::Options;
use crate::session::Millis;

/// No line for people is longer (rule R6).
pub const LONGEST_LINE: usize = 600;
/// In every message of the fuzzer's device that has secrets.
pub(crate) const SECRET: &str = "a-password-of-wifi";
pub(crate) const TIMES: [Millis; 20] = [
    0, 1, 99, 250, 500, 999, 1_000, 1_001, 1_200, 2_001, 3_001, 5_000, 5_001, 10_001, 15_001,
    30_001, 60_001, 120_001, 300_001, 600_001,
];
pub(crate) const TARGETS: [f64; 12] = [
    0.0,
    45.0,
    45.5,
    60.0,
    20.0,
    60.4,
    0.3,
    300.0,
    -1.0,
    f64::NAN,
    f64::INFINITY,
    1e300,
];

pub(crate) const FRAMES: [&str; 20] = [
    r#"{"wifi":{"ssid":"n","password":"a-password-of-wifi"},"ap":{"ssid":"Panda_Breath_AABBCCDDEEFF","password":"a-password-of-wifi"},"settings":{"fw_version":"V1.0.3","work_on":0,"work_mode":2,"set_temp":45}}"#,
    r#"{"ap":{"ssid":"Panda_Breath_AABBCCDDEEFF"},"settings":{"fw_version":"V1.0.3","work_on":1,"work_mode":2,"set_temp":45}}"#,
    r#"{"settings":{"warehouse_temper":31,"cal_warehouse_temp":30}}"#,
    r#"{"settings":{"warehouse_temper":35}}"#,
    r#"{"settings":{"work_on":1}}"#,
    r#"{"settings":{"work_on":0}}"#,
    r#"{"settings":{"work_mode":1,"set_temp":20,"work_on":1}}"#,
    r#"{"settings":{"ptc_sensor_status":2}}"#,
    r#"{"settings":{"ptc_heater_status":0}}"#,
    r#"{"ap":{"ssid":"Panda_Breath_AABBCCDDEE00"},"settings":{"fw_version":"V1.0.3","work_on":1,"work_mode":2,"set_temp":45}}"#,
    r#"{"ap":{"ssid":"Panda_Breath_AABBCCDDEEFF"},"settings":{"fw_version":"V1.0.0","work_on":0,"work_mode":2,"temp":45}}"#,
    r#"{"settings":{"fw_version":"V1.0.2","work_on":0}}"#,
    r#"{"settings":{"isrunning":1,"remaining_seconds":60}}"#,
    r#"{"settings":null}"#,
    "{}",
    "garbage",
    r#"{"ap":{"ssid":"Panda_Breath_AABBCCDDEEFF"},"settings":{"fw_version":"V1.0.3","work_on":1,"work_mode":3,"isrunning":1,"filament_temp":50,"filament_timer":1,"remaining_seconds":3600}}"#,
    r#"{"ap":{"ssid":"Panda_Breath_AABBCCDDEEFF"},"settings":{"fw_version":"V1.0.3","work_on":1,"work_mode":3,"isrunning":0}}"#,
    r#"{"settings":{"work_on":1,"work_mode":3,"isrunning":0}}"#,
    r#"{"settings":{"work_mode":3,"isrunning":1,"work_on":1}}"#,
];

/// Topics of all dialects, as the options of [`mqtt_options`] have them.
pub const TOPICS: [&str; 18] = [
    "panda-breath/status",
    "panda-breath/sensor/chamber_temperature/state",
    "panda-breath/climate/chamber/mode/state",
    "panda-breath/climate/chamber/action/state",
    "panda-breath/climate/chamber/target_temperature/state",
    "panda-breath/climate/chamber/target_temperature_low/state",
    "panda-breath/climate/chamber/target_temperature_high/state",
    "panda-breath/climate/chamber/mode/command",
    "panda-breath/climate/chamber/target_temperature/command",
    "esphome/discover/panda-breath",
    "homeassistant/climate/panda-breath/chamber/config",
    "homeassistant/sensor/panda-breath/chamber_temperature/config",
    "panda_breath/AABBCCDDEE01/state",
    "panda_breath/AABBCCDDEE01/availability",
    "panda_breath/AABBCCDDEE01/command",
    "panda_breath/AABBCCDDEE02/state",
    "panda_breath/AABBCCDDEE02/availability",
    "panda-breath/c/there",
];

/// Messages by the number of their topic.
pub(crate) const MESSAGES: [(usize, &str); 29] = [
    (0, "online"),
    (0, "offline"),
    (1, "30.5"),
    (1, "nan"),
    (2, "off"),
    (2, "heat"),
    (3, "idle"),
    (3, "heating"),
    (4, "45"),
    (4, "20.5"),
    (5, "44.5"),
    (6, "45.5"),
    (7, "heat"),
    (8, "70"),
    (8, ""),
    (
        9,
        r#"{"name":"panda-breath","version":"2026.6.5","mac":"aabbccddee01"}"#,
    ),
    (
        9,
        r#"{"name":"panda-breath","version":"2026.6.5","mac":"aabbccddee02"}"#,
    ),
    (
        10,
        r#"{"mode_cmd_t":"panda-breath/climate/chamber/mode/command","temp_cmd_t":"panda-breath/t","max_temp":50,"avty_t":"panda-breath/c/there"}"#,
    ),
    (10, r#"{"mode_cmd_tpl":"{{ value }}"}"#),
    (10, ""),
    (
        12,
        r#"{"chamber_temp":31,"work_on":"ON","mode":"power on","target_temp":45}"#,
    ),
    (
        12,
        r#"{"chamber_temp":30,"work_on":"OFF","mode":"power on","target_temp":45}"#,
    ),
    (13, "online"),
    (13, "offline"),
    (15, r#"{"chamber_temp":30,"work_on":"OFF"}"#),
    (14, r#"{"work_on":"ON"}"#),
    (17, "online"),
    (
        12,
        r#"{"chamber_temp":50,"work_on":"ON","mode":"filament drying","drying_running":"ON","drying_remaining_min":60}"#,
    ),
    (
        12,
        r#"{"chamber_temp":50,"work_on":"ON","mode":"filament drying","drying_running":"OFF","drying_remaining_min":1}"#,
    ),
];

/// Where a device is on a broker, one of a few ways.
pub fn mqtt_options(how: u8) -> Options {
    Options {
        dialect: match how & 3 {
            0 => None,
            1 => Some(Dialect::StockMqtt),
            _ => Some(Dialect::Esphome),
        },
        device_id: (how & 7 == 5).then(|| "AABBCCDDEE01".into()),
        foreign_topics: how & 8 != 0,
        ..Options::default()
    }
}

/// Whether a topic filter without `#` takes a topic.
pub(crate) fn takes(filter: &str, topic: &str) -> bool {
    let (mut filter, mut topic) = (filter.split('/'), topic.split('/'));
    loop {
        match (filter.next(), topic.next()) {
            (None, None) => return true,
            (Some("+"), Some(_)) => {}
            (Some(a), Some(b)) if a == b => {}
            _ => return false,
        }
    }
}
