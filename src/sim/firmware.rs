//! The firmware versions that can be simulated, and how they differ (PROTOCOL section 11).

use std::fmt;
use std::str::FromStr;

/// A stock firmware.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Firmware {
    /// The pre-release: calls itself `V1.0.0`, has its own mode numbers and no fault checks.
    V0_0_0,
    /// The first that ships.
    V1_0_1,
    /// Adds the check for a heater that stays cold.
    V1_0_2,
    /// Adds Klipper printers.
    V1_0_3,
    /// Adds MQTT. Known from its users only.
    V1_0_4,
}

/// What the device was told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Heats while the printer's bed target is high enough.
    Auto,
    /// Always heats.
    On,
    /// Dries filament, once the cycle is started.
    Drying,
}

impl Firmware {
    /// All of them, oldest first.
    pub const ALL: [Firmware; 5] = [
        Firmware::V0_0_0,
        Firmware::V1_0_1,
        Firmware::V1_0_2,
        Firmware::V1_0_3,
        Firmware::V1_0_4,
    ];

    /// `settings.fw_version` on the wire.
    pub fn reported(self) -> &'static str {
        match self {
            Firmware::V0_0_0 => "V1.0.0",
            Firmware::V1_0_1 => "V1.0.1",
            Firmware::V1_0_2 => "V1.0.2",
            Firmware::V1_0_3 => "V1.0.3",
            Firmware::V1_0_4 => "V1.0.4",
        }
    }

    /// The number this firmware has for a mode: 0.0.0 swaps 1 and 3.
    pub fn number_of(self, mode: Mode) -> u8 {
        match (mode, self == Firmware::V0_0_0) {
            (Mode::On, _) => 2,
            (Mode::Auto, false) | (Mode::Drying, true) => 1,
            (Mode::Auto, true) | (Mode::Drying, false) => 3,
        }
    }

    /// The mode behind a number. There is no range check when it is written, so there may be none.
    pub fn mode_of(self, number: u8) -> Option<Mode> {
        [Mode::Auto, Mode::On, Mode::Drying]
            .into_iter()
            .find(|mode| self.number_of(*mode) == number)
    }

    /// The key of the target, both ways.
    pub fn target_key(self) -> &'static str {
        if self.is_prerelease() {
            "temp"
        } else {
            "set_temp"
        }
    }

    /// Whether this is 0.0.0, which has neither fault checks nor a readable drying cycle.
    pub fn is_prerelease(self) -> bool {
        self == Firmware::V0_0_0
    }

    /// Whether a heater with which both temperatures stay at 15 °C for 60 s is a fault.
    pub fn checks_for_cold(self) -> bool {
        self >= Firmware::V1_0_2
    }

    /// Whether `printer_type` and Klipper printers exist.
    pub fn has_klipper(self) -> bool {
        self >= Firmware::V1_0_3
    }

    /// Whether it can be bound to a broker.
    pub fn has_mqtt(self) -> bool {
        self >= Firmware::V1_0_4
    }

    fn name(self) -> &'static str {
        match self {
            Firmware::V0_0_0 => "0.0.0",
            Firmware::V1_0_1 => "1.0.1",
            Firmware::V1_0_2 => "1.0.2",
            Firmware::V1_0_3 => "1.0.3",
            Firmware::V1_0_4 => "1.0.4",
        }
    }
}

impl fmt::Display for Firmware {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Firmware {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Firmware::ALL
            .into_iter()
            .find(|firmware| firmware.name() == text)
            .ok_or_else(|| "not one of 0.0.0, 1.0.1, 1.0.2, 1.0.3, 1.0.4".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prerelease_swaps_auto_and_drying() {
        assert_eq!(Firmware::V0_0_0.mode_of(1), Some(Mode::Drying));
        assert_eq!(Firmware::V0_0_0.mode_of(3), Some(Mode::Auto));
        for firmware in Firmware::ALL {
            assert_eq!(firmware.mode_of(2), Some(Mode::On));
            assert_eq!(firmware.mode_of(9), None);
        }
        assert_eq!(Firmware::V1_0_3.mode_of(1), Some(Mode::Auto));
    }

    #[test]
    fn names_are_read_back() {
        for firmware in Firmware::ALL {
            assert_eq!(firmware.to_string().parse(), Ok(firmware));
        }
        assert!("1.0.5".parse::<Firmware>().is_err());
    }
}
