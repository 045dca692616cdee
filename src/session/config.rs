//! What a session is told once: the options of one device.

use super::Millis;

/// The options of one device. Times in milliseconds, temperatures in C.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The section's name, for messages: `panda_breath` or `panda_breath NAME`.
    pub name: String,
    /// Host name or address, as the user wrote it.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// The last digits of the only device that is accepted here.
    pub device_id: Option<String>,
    /// Second line of defence: nothing above this is ever sent. The shim refuses it first.
    pub max_target: u8,
    /// No live reading for this long: stale.
    pub stale_after: Millis,
    /// No live reading for this long: lost.
    pub lost_after: Millis,
    /// How long a wish to heat is good for without the reactor being heard.
    pub lease: Millis,
    /// What happens when somebody turns the device off while Klipper wants heat.
    pub on_external_off: OnExternalOff,
    /// What happens when somebody turns the device on while Klipper wants it off.
    pub on_external_on: OnExternalOn,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            name: "panda_breath".into(),
            host: "PandaBreath.local".into(),
            port: 80,
            device_id: None,
            max_target: 60,
            stale_after: 7_000,
            lost_after: 120_000,
            lease: 10_000,
            on_external_off: OnExternalOff::Accept,
            on_external_on: OnExternalOn::Off,
        }
    }
}

/// Rule R9.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnExternalOff {
    /// Klipper's target becomes 0.
    Accept,
    /// The device is turned on again, at most 3 times in 10 minutes.
    Reassert,
}

/// Rule R2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnExternalOn {
    /// The device is turned off at once.
    Off,
    /// It may stay on until the next target.
    Allow,
}
