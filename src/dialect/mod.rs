//! How a firmware speaks: pure functions between bytes and words.
//!
//! No sockets, clocks, threads or Python here. A dialect turns what the device sends into a
//! [`Report`] and what Klipper wants into bytes; it decides nothing.
//!
//! * [`stock`]: BIQU's firmware over its own WebSocket
//! * [`mqtt`]: what the dialects behind a broker have in common, and which of them it is
//! * [`esphome`], with `discovery`: an ESPHome node
//! * [`stock_mqtt`]: BIQU's firmware 1.0.4 over MQTT

mod discovery;
pub mod esphome;
pub mod mqtt;
pub mod stock;
pub mod stock_mqtt;

use std::fmt;

use serde::{Deserialize, Serialize};

/// No device sends more than about 3 KiB; a longer message is somebody else's (rule R6).
pub const MAX_MESSAGE: usize = 64 * 1024;

/// Outside of this a number is not a chamber temperature, C (rule R5).
const PLAUSIBLE: std::ops::RangeInclusive<f64> = -40.0..=150.0;

/// Whether a number can be a temperature here at all (rule R5).
pub(crate) fn is_temperature(celsius: f64) -> bool {
    PLAUSIBLE.contains(&celsius)
}

/// The firmware families this crate knows by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Dialect {
    /// BIQU's own firmware over its WebSocket (0.0.0 and 1.x).
    Stock,
    /// BIQU's own firmware over MQTT (1.0.4 and later).
    StockMqtt,
    /// ESPHome over MQTT.
    Esphome,
}

impl Dialect {
    /// The name used in options, logs and the status object.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stock => "stock",
            Self::StockMqtt => "stock_mqtt",
            Self::Esphome => "esphome",
        }
    }
}

/// One message of the device in our words; `None` where it does not say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// Firmware version as the device spells it, for example `V1.0.3`. Only a snapshot has it.
    pub firmware: Option<Firmware>,
    /// Who the device is. Only a snapshot has it.
    pub identity: Option<Identity>,
    /// Chamber temperature, C.
    pub reading: Option<f64>,
    /// The master switch: whether the device is enabled. In [`Mode::On`] it then heats to its target.
    pub on: Option<bool>,
    /// What the device does while it is on.
    pub mode: Option<Mode>,
    /// Whether the heating element has power, where the firmware says so apart from the switch.
    pub heating: Option<bool>,
    /// The device's chamber target, C.
    pub target: Option<f64>,
    /// How finely the device tells its target, C.
    pub target_step: Option<f64>,
    /// The highest target the device takes, C, where it says so.
    pub target_limit: Option<f64>,
    /// Whether a drying cycle runs.
    pub drying: Option<bool>,
    /// What is left of the drying cycle, seconds.
    pub remaining_seconds: Option<u32>,
    /// Settings this project shows but never regulates by.
    pub settings: Settings,
    /// The device stopped itself, or cannot measure.
    pub fault: Option<Fault>,
    /// The device has spoken, even if there is nothing in it to act on.
    pub heard: bool,
    /// The broker says that the device is there, or not.
    pub present: Option<bool>,
    /// Something on the broker that only a human can put right.
    pub broker: Option<BrokerNews>,
    /// How many known fields had a type or value that means nothing and were left out.
    pub ignored: u32,
}

/// What is found on a broker beside the device's own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BrokerNews {
    /// The broker keeps a command on this topic and gives it to the device at every connect.
    RetainedCommand(String),
    /// That command is gone.
    CommandCleared(String),
    /// A discovery message that must not be followed, and why.
    Refused(String),
    /// Several devices answer where one should; their names.
    SeveralDevices(String),
}

impl Report {
    /// Whether this message is the full state that a device sends to a new connection.
    pub fn is_snapshot(&self) -> bool {
        self.firmware.is_some()
    }

    /// Whether the device itself says anything in it. Out of step with a stream, a reader finds
    /// messages that say nothing for ever.
    pub fn is_from_device(&self) -> bool {
        let nothing = Self {
            ignored: self.ignored,
            broker: self.broker.clone(),
            ..Self::default()
        };
        *self != nothing
    }
}

/// The rest of the device's settings, as it reports them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Auto mode: bed target from which the fan runs, C.
    pub filter_temp: Option<u8>,
    /// Auto mode: bed target from which the chamber is heated, C.
    pub bed_temp: Option<u8>,
    /// Custom drying temperature, C.
    pub custom_temp: Option<u8>,
    /// Custom drying time, hours.
    pub custom_hours: Option<u8>,
    /// Which printer the device itself is bound to: 1 Bambu, 2 Klipper.
    pub printer_type: Option<u8>,
    /// The web page's language, `en` or `zh`.
    pub language: Option<Language>,
}

/// The languages of the device's web page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// `en`
    English,
    /// `zh`
    Chinese,
}

/// What the device does while its master switch is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Heats when the bed target of the printer it is bound to is high enough.
    Auto,
    /// Heats to its target.
    On,
    /// Dries filament while a cycle runs.
    Drying,
}

impl Mode {
    /// The name used in logs and the status object.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::On => "on",
            Self::Drying => "drying",
        }
    }
}

/// Why a device stopped itself, or why its temperature cannot be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The heating element's sensor is shorted.
    ElementSensorShort,
    /// The heating element's sensor is disconnected.
    ElementSensorOpen,
    /// The chamber sensor is shorted.
    ChamberSensorShort,
    /// The chamber sensor is disconnected.
    ChamberSensorOpen,
    /// The element does not get warm, or the room is colder than 15 C (1.0.2 and later).
    Heater,
}

impl Fault {
    /// What to tell the user, with what to do.
    pub fn text(self) -> &'static str {
        match self {
            Self::ElementSensorShort => "heating element sensor shorted; check its plug and cable",
            Self::ElementSensorOpen => {
                "heating element sensor disconnected; check its plug and cable"
            }
            Self::ChamberSensorShort => "chamber sensor shorted; check its plug and cable",
            Self::ChamberSensorOpen => "chamber sensor disconnected; check its plug and cable",
            Self::Heater => {
                "heater abnormal: it does not get warm, or the chamber is colder than 15 C"
            }
        }
    }

    /// A sensor fault lasts as long as the device repeats it, and its readings mean nothing;
    /// a heater fault is said once, when the device stops.
    pub fn is_sensor(self) -> bool {
        self != Self::Heater
    }
}

/// Firmware version, bounded whatever the device sends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Firmware {
    bytes: [u8; Self::MAX],
    len: u8,
}

impl Firmware {
    const MAX: usize = 23;

    /// Keeps the printable ASCII of what the device sent, at most 23 characters.
    pub fn new(text: &str) -> Self {
        let mut firmware = Self {
            bytes: [0; Self::MAX],
            len: 0,
        };
        for byte in text.bytes().filter(u8::is_ascii_graphic).take(Self::MAX) {
            firmware.bytes[usize::from(firmware.len)] = byte;
            firmware.len += 1;
        }
        firmware
    }

    /// The version as the device spells it.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..usize::from(self.len)]).unwrap_or_default()
    }
}

impl fmt::Debug for Firmware {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

/// Which physical device this is: a hash of something only that unit has.
///
/// A hash, because the only such thing in the stock snapshot lives among secrets (rule R11).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Identity(pub u64);

impl Identity {
    /// A MAC address as its hexadecimal digits, with or without separators: its own last digits
    /// are shown then.
    pub fn of_mac(text: &str) -> Option<Self> {
        let digits: String = text.chars().filter(|c| !matches!(c, ':' | '-')).collect();
        let is_mac = digits.len() == 12 && digits.bytes().all(|b| b.is_ascii_hexdigit());
        let number = is_mac.then(|| u64::from_str_radix(&digits, 16).ok())?;
        number.map(Self)
    }

    /// FNV-1a, 64 bits, with the two halves folded in once more so that the last digits depend on
    /// all of the input. Not a secret-keeping hash: only its last 4 digits are ever shown.
    pub fn of(text: &str) -> Self {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for byte in text.bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        Self(hash ^ (hash >> 32) ^ (hash >> 17))
    }

    /// What the user sees and may write as `device_id`.
    pub fn last4(self) -> String {
        format!("{:04x}", self.0 & 0xffff)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "…{}", self.last4())
    }
}

/// A chamber target as it is sent: above 0, in tenths of a degree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    tenths: u16,
}

impl Target {
    /// The nearest target to so many degrees C, in steps of so many tenths, from one step up to a
    /// whole number of degrees.
    pub fn nearest(celsius: f64, step_tenths: u8, most: u8) -> Self {
        let step = f64::from(step_tenths.max(1)) / 10.0;
        let rounded = ((celsius / step).round() * step).clamp(step, f64::from(most));
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "clamped to at most 255 degrees"
        )]
        let tenths = (rounded * 10.0).round() as u16;
        Self { tenths }
    }

    /// A whole number of degrees C.
    pub fn whole(celsius: u8) -> Self {
        Self {
            tenths: u16::from(celsius) * 10,
        }
    }

    /// C.
    pub fn celsius(self) -> f64 {
        f64::from(self.tenths) / 10.0
    }

    /// The nearest whole number of degrees C.
    pub fn degrees(self) -> u16 {
        (self.tenths + 5) / 10
    }
}

/// As people and devices write it: `45`, `45.5`.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.tenths % 10 {
            0 => write!(f, "{}", self.tenths / 10),
            tenth => write!(f, "{}.{tenth}", self.tenths / 10),
        }
    }
}

/// What the device is asked to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// Off.
    Off,
    /// Heat the chamber to this target.
    Heat(Target),
    /// Dry filament.
    Dry {
        /// The chamber's target.
        target: Target,
        /// For so many hours.
        hours: u8,
    },
}

impl Setting {
    /// What the chamber is heated to, if it is.
    pub fn target(self) -> Option<Target> {
        match self {
            Self::Off => None,
            Self::Heat(target) | Self::Dry { target, .. } => Some(target),
        }
    }

    /// Whether the two differ in nothing but the time that is left.
    pub fn is_like(self, other: Self) -> bool {
        match (self, other) {
            (Self::Dry { target, .. }, Self::Dry { target: other, .. }) => target == other,
            _ => self == other,
        }
    }
}

/// Why a message could not be read at all. The link is kept: the next message may be fine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// Not JSON; the number is the byte it stopped making sense at.
    NotJson(usize),
    /// JSON, but not an object.
    NotAnObject,
    /// Larger than any message a device sends.
    TooLarge(usize),
    /// A word or number that means nothing on its topic.
    Meaningless,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotJson(at) => write!(f, "message is not JSON (at byte {at})"),
            Self::NotAnObject => write!(f, "message is not a JSON object"),
            Self::TooLarge(len) => write!(f, "message of {len} bytes is larger than 64 KiB"),
            Self::Meaningless => write!(f, "message means nothing on its topic"),
        }
    }
}

impl std::error::Error for DecodeError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn firmware_keeps_only_what_can_be_printed() {
        assert_eq!(Firmware::new("V1.0.3").as_str(), "V1.0.3");
        assert_eq!(Firmware::new("V1\n\u{1b}[31m.0").as_str(), "V1[31m.0");
        assert_eq!(
            Firmware::new(&"9".repeat(500)).as_str().len(),
            Firmware::MAX
        );
    }

    #[test]
    fn identity_differs_in_its_last_digits_when_the_mac_does() {
        let ids: std::collections::BTreeSet<_> = (0..64)
            .map(|n| Identity::of(&format!("Panda_Breath_AABBCCDDEE{n:02X}")).last4())
            .collect();
        assert!(ids.len() > 62, "{} of 64 differ", ids.len());
    }

    #[test]
    fn identity_a_device_id_that_was_written_down_stays_valid() {
        for (ssid, id) in [
            ("Panda_Breath_AABBCCDDEEFF", "ed05"),
            ("Panda_Breath_AABBCCDDEEFE", "911c"),
            ("Panda_Breath_025042000001", "306d"),
        ] {
            assert_eq!(Identity::of(ssid).last4(), id, "{ssid}");
        }
    }

    #[test]
    fn identity_of_a_mac_is_its_own_digits_and_nothing_else_is_one() {
        for mac in ["AA:BB:CC:DD:EE:01", "aa-bb-cc-dd-ee-01", "aabbccddee01"] {
            assert_eq!(Identity::of_mac(mac), Some(Identity(0xaabb_ccdd_ee01)));
        }
        for text in ["", "ee01", "aabbccddee0", "aabbccddee011", "aabbccddeeg1"] {
            assert_eq!(Identity::of_mac(text), None, "{text}");
        }
    }

    #[test]
    fn a_target_is_the_nearest_step_between_one_step_and_the_limit() {
        for (celsius, step, written) in [
            (44.4, 10, "44"),
            (44.5, 10, "45"),
            (0.2, 10, "1"),
            (99.0, 10, "60"),
            (44.44, 1, "44.4"),
            (44.46, 1, "44.5"),
            (0.01, 1, "0.1"),
            (45.3, 5, "45.5"),
            (45.0, 0, "45"),
        ] {
            let target = Target::nearest(celsius, step, 60);
            assert_eq!(target.to_string(), written, "{celsius} in {step}");
            let again: f64 = written.parse().unwrap();
            assert!((target.celsius() - again).abs() < 1e-9, "{written}");
        }
        assert_eq!(Target::whole(45), Target::nearest(45.0, 1, 60));
        for (celsius, degrees) in [(44.4, 44), (44.5, 45), (45.0, 45)] {
            assert_eq!(Target::nearest(celsius, 1, 60).degrees(), degrees);
        }
    }

    #[test]
    fn r5_a_temperature_is_between_40_below_and_150_above() {
        for (celsius, is) in [(-40.0, true), (150.0, true), (-40.1, false), (150.1, false)] {
            assert_eq!(is_temperature(celsius), is, "{celsius}");
        }
        assert!(!is_temperature(f64::NAN));
    }

    #[test]
    fn a_message_without_anything_of_the_device_is_not_its_word() {
        let nothing = Report {
            ignored: 3,
            broker: Some(BrokerNews::Refused("no".into())),
            ..Report::default()
        };
        assert!(!nothing.is_from_device() && !nothing.is_snapshot());
        let heard = Report {
            heard: true,
            ..Report::default()
        };
        assert!(heard.is_from_device() && !heard.is_snapshot());
        let snapshot = Report {
            firmware: Some(Firmware::new("V1.0.3")),
            ..Report::default()
        };
        assert!(snapshot.is_snapshot());
    }

    #[test]
    fn status_names_are_what_macros_compare_with() {
        let modes = [Mode::Auto, Mode::On, Mode::Drying].map(Mode::name);
        assert_eq!(modes, ["auto", "on", "drying"]);
        let dialects = [Dialect::Stock, Dialect::StockMqtt, Dialect::Esphome];
        assert_eq!(
            dialects.map(Dialect::name),
            ["stock", "stock_mqtt", "esphome"]
        );
    }

    #[test]
    fn r5_a_fault_is_told_apart_and_one_of_a_sensor_lasts() {
        let all = [
            (Fault::ElementSensorShort, "element sensor shorted"),
            (Fault::ElementSensorOpen, "element sensor disconnected"),
            (Fault::ChamberSensorShort, "chamber sensor shorted"),
            (Fault::ChamberSensorOpen, "chamber sensor disconnected"),
            (Fault::Heater, "heater abnormal"),
        ];
        for (fault, part) in all {
            assert!(fault.text().contains(part), "{fault:?}");
            assert_eq!(fault.is_sensor(), part.contains("sensor"), "{fault:?}");
        }
    }
}
