//! The stock firmware's WebSocket JSON, 0.0.0 and 1.x. Facts: `docs/protocol.md`.
//!
//! Reading is lenient field by field (a field of the wrong type is counted and left out, the rest
//! of the message is used); writing is strict, because the firmware silently ignores wrong types.

pub mod ha;
pub mod page;

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{
    DecodeError, Fault, Firmware, Identity, Language, MAX_MESSAGE, Mode, PLAUSIBLE, Report,
    Setting, Settings,
};

/// 0.0.0 and 1.x disagree about what the numbers mean, so a reader must know which it talks to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Generation {
    /// 0.0.0, which calls itself `V1.0.0`: target in `temp`, modes 1 drying, 2 on, 3 auto.
    Pre,
    /// 1.0.1 and later: target in `set_temp`, modes 1 auto, 2 on, 3 drying.
    #[default]
    One,
}

/// Reads and writes for one connection; learns the generation from its snapshot.
#[derive(Clone, Debug, Default)]
pub struct Stock {
    generation: Generation,
}

impl Stock {
    /// Which generation the last snapshot showed.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// Reads one message of the device.
    pub fn decode(&mut self, message: &[u8]) -> Result<Report, DecodeError> {
        if message.len() > MAX_MESSAGE {
            return Err(DecodeError::TooLarge(message.len()));
        }
        let Root { settings, ap_ssid } =
            serde_json::from_slice(message).map_err(|error| decode_error(message, &error))?;
        if let Some(generation) = settings.generation() {
            self.generation = generation;
        }
        Ok(settings.report(self.generation, ap_ssid))
    }

    /// One frame that carries the whole wish, so that the device passes through nothing else.
    ///
    /// The firmware takes `work_on`, `work_mode` and the target in one parse, in that order, and
    /// ignores a `work_on` that is not a JSON boolean. The target is 8 bits and unclamped there.
    pub fn encode(&self, setting: Setting) -> String {
        let target = match self.generation {
            Generation::Pre => "temp",
            Generation::One => "set_temp",
        };
        match setting {
            Setting::Off => r#"{"settings":{"work_on":false}}"#.to_owned(),
            // Mode 2 is "on" in every firmware.
            Setting::Heat(wanted) => {
                let c = wanted.degrees();
                format!(r#"{{"settings":{{"work_mode":2,"{target}":{c},"work_on":true}}}}"#)
            }
            // The firmware takes `work_on` first here, too, and starts last. What was written to
            // `filament_` counts once the user's own programme, 3, is chosen; 0.0.0 has no other.
            Setting::Dry { target, hours } => {
                let (mode, programme) = match self.generation {
                    Generation::Pre => (1, ""),
                    Generation::One => (3, r#""filament_drying_mode":3,"#),
                };
                let c = target.degrees();
                format!(
                    r#"{{"settings":{{"work_mode":{mode},"filament_temp":{c},"filament_timer":{hours},{programme}"isrunning":1,"work_on":true}}}}"#
                )
            }
        }
    }
}

fn decode_error(message: &[u8], error: &serde_json::Error) -> DecodeError {
    if error.is_data() {
        return DecodeError::NotAnObject;
    }
    let line_starts = message.split_inclusive(|&b| b == b'\n').map(<[u8]>::len);
    let before: usize = line_starts.take(error.line().saturating_sub(1)).sum();
    DecodeError::NotJson(before + error.column())
}

/// The two roots that are read. Everything else in a snapshot is the user's own business (R11).
#[derive(Default)]
struct Root {
    settings: RawSettings,
    ap_ssid: Option<Identity>,
}

#[derive(Default)]
struct RawSettings {
    firmware: Option<Firmware>,
    language: Option<Language>,
    work_on: Option<bool>,
    work_mode: Option<u8>,
    set_temp: Option<u8>,
    temp: Option<u8>,
    filter_temp: Option<u8>,
    bed_temp: Option<u8>,
    custom_temp: Option<u8>,
    custom_hours: Option<u8>,
    printer_type: Option<u8>,
    running: Option<bool>,
    remaining_seconds: Option<u32>,
    cal_chamber: Option<f64>,
    chamber: Option<f64>,
    warehouse: Option<f64>,
    element_sensor: Option<u8>,
    chamber_sensor: Option<u8>,
    heater: Option<u8>,
    ignored: u32,
}

impl RawSettings {
    fn generation(&self) -> Option<Generation> {
        let firmware = self.firmware?;
        let pre = firmware.as_str() == "V1.0.0" || (self.temp.is_some() && self.set_temp.is_none());
        Some(if pre {
            Generation::Pre
        } else {
            Generation::One
        })
    }

    fn report(self, generation: Generation, identity: Option<Identity>) -> Report {
        let mode = match (self.work_mode, generation) {
            (Some(1), Generation::One) | (Some(3), Generation::Pre) => Some(Mode::Auto),
            (Some(2), _) => Some(Mode::On),
            (Some(3), Generation::One) | (Some(1), Generation::Pre) => Some(Mode::Drying),
            _ => None,
        };
        let fault = match (self.element_sensor, self.chamber_sensor, self.heater) {
            (Some(1), ..) => Some(Fault::ElementSensorShort),
            (Some(2), ..) => Some(Fault::ElementSensorOpen),
            (_, Some(1), _) => Some(Fault::ChamberSensorShort),
            (_, Some(2), _) => Some(Fault::ChamberSensorOpen),
            (_, _, Some(_)) => Some(Fault::Heater), // whatever its value
            _ => None,
        };
        Report {
            firmware: self.firmware,
            identity,
            reading: self.cal_chamber.or(self.chamber).or(self.warehouse),
            on: self.work_on,
            mode,
            target: match generation {
                Generation::Pre => self.temp,
                Generation::One => self.set_temp,
            }
            .map(f64::from),
            drying: self.running,
            remaining_seconds: self.remaining_seconds,
            settings: Settings {
                filter_temp: self.filter_temp,
                bed_temp: self.bed_temp,
                custom_temp: self.custom_temp,
                custom_hours: self.custom_hours,
                printer_type: self.printer_type,
                language: self.language,
            },
            fault,
            ignored: self.ignored,
            ..Report::default()
        }
    }

    /// Takes one field, or counts it as meaningless.
    fn set(&mut self, key: Key, value: &Scalar) {
        fn put<T>(slot: &mut Option<T>, value: Option<T>) -> bool {
            let understood = value.is_some();
            if understood {
                *slot = value;
            }
            understood
        }
        let understood = match key {
            Key::FwVersion => put(&mut self.firmware, value.firmware()),
            Key::Language => put(&mut self.language, value.language()),
            Key::WorkOn => put(&mut self.work_on, value.switch()),
            Key::WorkMode => put(&mut self.work_mode, value.integer()),
            Key::SetTemp => put(&mut self.set_temp, value.integer()),
            Key::Temp => put(&mut self.temp, value.integer()),
            Key::Filtertemp => put(&mut self.filter_temp, value.integer()),
            Key::Hotbedtemp => put(&mut self.bed_temp, value.integer()),
            Key::CustomTemp => put(&mut self.custom_temp, value.integer()),
            Key::CustomTimer => put(&mut self.custom_hours, value.integer()),
            Key::PrinterType => put(&mut self.printer_type, value.integer()),
            Key::Isrunning => put(&mut self.running, value.switch()),
            Key::RemainingSeconds => put(&mut self.remaining_seconds, value.integer()),
            Key::CalWarehouseTemp => put(&mut self.cal_chamber, value.temperature()),
            Key::ChamberTemp => put(&mut self.chamber, value.temperature()),
            Key::WarehouseTemper => put(&mut self.warehouse, value.temperature()),
            Key::PtcSensorStatus => put(&mut self.element_sensor, value.integer()),
            Key::WarehouseSensorStatus => put(&mut self.chamber_sensor, value.integer()),
            Key::PtcHeaterStatus => put(&mut self.heater, value.integer()),
            Key::Other => true,
        };
        self.ignored += u32::from(!understood);
    }
}

#[derive(Clone, Copy, Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Key {
    FwVersion,
    Language,
    WorkOn,
    WorkMode,
    SetTemp,
    Temp,
    Filtertemp,
    Hotbedtemp,
    CustomTemp,
    CustomTimer,
    PrinterType,
    Isrunning,
    RemainingSeconds,
    CalWarehouseTemp,
    ChamberTemp,
    WarehouseTemper,
    PtcSensorStatus,
    WarehouseSensorStatus,
    PtcHeaterStatus,
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum RootKey {
    Settings,
    Ap,
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum ApKey {
    Ssid,
    #[serde(other)]
    Other,
}

/// A JSON value, as far as any setting needs it.
enum Scalar {
    Number(f64),
    Bool(bool),
    Text(Text),
    Other,
}

/// The texts that mean something; no other text is kept.
struct Text {
    firmware: Firmware,
    language: Option<Language>,
}

impl Scalar {
    fn integer<T: TryFrom<i64>>(&self) -> Option<T> {
        let Self::Number(n) = *self else { return None };
        if n.fract() != 0.0 || n.abs() >= 1e9 {
            return None;
        }
        #[expect(
            clippy::cast_possible_truncation,
            reason = "checked to be whole and small"
        )]
        T::try_from(n as i64).ok()
    }

    /// The firmware sends its switches as numbers 0 and 1 and reads them as booleans.
    fn switch(&self) -> Option<bool> {
        if let Self::Bool(on) = *self {
            return Some(on);
        }
        match self.integer::<u8>() {
            Some(0) => Some(false),
            Some(1) => Some(true),
            _ => None,
        }
    }

    fn temperature(&self) -> Option<f64> {
        let Self::Number(c) = *self else { return None };
        PLAUSIBLE.contains(&c).then_some(c)
    }

    fn firmware(&self) -> Option<Firmware> {
        let Self::Text(text) = self else { return None };
        (!text.firmware.as_str().is_empty()).then_some(text.firmware)
    }

    fn language(&self) -> Option<Language> {
        let Self::Text(text) = self else { return None };
        text.language
    }
}

/// Which shapes a visitor takes; every other JSON value is read to its end and left out.
trait Shape<'de>: Sized {
    fn other() -> Self;
    fn number(_: f64) -> Self {
        Self::other()
    }
    fn boolean(_: bool) -> Self {
        Self::other()
    }
    fn text(_: &str) -> Self {
        Self::other()
    }
    fn object<A: MapAccess<'de>>(mut map: A) -> Result<Self, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Self::other())
    }
}

struct Lenient<T>(T);

impl<'de, T: Shape<'de>> Deserialize<'de> for Lenient<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any<T>(std::marker::PhantomData<T>);
        impl<'de, T: Shape<'de>> Visitor<'de> for Any<T> {
            type Value = T;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any JSON value")
            }
            fn visit_bool<E>(self, v: bool) -> Result<T, E> {
                Ok(T::boolean(v))
            }
            #[expect(
                clippy::cast_precision_loss,
                reason = "such large numbers mean nothing here"
            )]
            fn visit_i64<E>(self, v: i64) -> Result<T, E> {
                Ok(T::number(v as f64))
            }
            #[expect(
                clippy::cast_precision_loss,
                reason = "such large numbers mean nothing here"
            )]
            fn visit_u64<E>(self, v: u64) -> Result<T, E> {
                Ok(T::number(v as f64))
            }
            fn visit_f64<E>(self, v: f64) -> Result<T, E> {
                Ok(T::number(v))
            }
            fn visit_str<E>(self, v: &str) -> Result<T, E> {
                Ok(T::text(v))
            }
            fn visit_unit<E>(self) -> Result<T, E> {
                Ok(T::other())
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<T, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(T::other())
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
                T::object(map)
            }
        }
        deserializer
            .deserialize_any(Any(std::marker::PhantomData))
            .map(Lenient)
    }
}

impl Shape<'_> for Scalar {
    fn other() -> Self {
        Self::Other
    }
    fn number(n: f64) -> Self {
        Self::Number(n)
    }
    fn boolean(b: bool) -> Self {
        Self::Bool(b)
    }
    fn text(text: &str) -> Self {
        Self::Text(Text {
            firmware: Firmware::new(text),
            language: match text {
                "en" => Some(Language::English),
                "zh" => Some(Language::Chinese),
                _ => None,
            },
        })
    }
}

impl<'de> Shape<'de> for RawSettings {
    fn other() -> Self {
        Self {
            ignored: 1,
            ..Self::default()
        }
    }
    fn object<A: MapAccess<'de>>(mut map: A) -> Result<Self, A::Error> {
        let mut settings = Self::default();
        while let Some(key) = map.next_key::<Key>()? {
            let Lenient(value) = map.next_value::<Lenient<Scalar>>()?;
            settings.set(key, &value);
        }
        Ok(settings)
    }
}

/// The name of the device's own access point, which ends in its MAC; hashed at once.
struct Ssid(Option<Identity>);

impl Shape<'_> for Ssid {
    fn other() -> Self {
        Self(None)
    }
    fn text(text: &str) -> Self {
        Self((!text.is_empty()).then(|| Identity::of(text)))
    }
}

struct Ap(Option<Identity>);

impl<'de> Shape<'de> for Ap {
    fn other() -> Self {
        Self(None)
    }
    fn object<A: MapAccess<'de>>(mut map: A) -> Result<Self, A::Error> {
        let mut ssid = None;
        while let Some(key) = map.next_key::<ApKey>()? {
            match key {
                ApKey::Ssid => ssid = map.next_value::<Lenient<Ssid>>()?.0.0,
                ApKey::Other => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(Self(ssid))
    }
}

impl<'de> Deserialize<'de> for Root {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Root;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Root, A::Error> {
                let mut root = Root::default();
                while let Some(key) = map.next_key::<RootKey>()? {
                    match key {
                        RootKey::Settings => root.settings = map.next_value::<Lenient<_>>()?.0,
                        RootKey::Ap => root.ap_ssid = map.next_value::<Lenient<Ap>>()?.0.0,
                        RootKey::Other => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(root)
            }
        }
        deserializer.deserialize_map(Object)
    }
}

#[cfg(test)]
mod tests;
