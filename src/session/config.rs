//! What a session is told once: the options of one device.

use serde::{Deserialize, Serialize};

use crate::dialect::{Dialect, mqtt};

use super::{Millis, Step};

/// The options of one device. Times in milliseconds, temperatures in C.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// The section's name, for messages: `panda_breath` or `panda_breath NAME`.
    pub name: String,
    /// Host name or address, as the user wrote it: the device's, or its broker's.
    pub host: String,
    /// TCP port there.
    pub port: u16,
    /// Where the device is on its broker; `None`: it is spoken to directly.
    pub mqtt: Option<mqtt::Options>,
    /// A number that changes when the way in at the broker does (who we are, whom we believe):
    /// a connection made another way is of no use then.
    pub access: u64,
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
    /// Whether heat needs a guard process that turns it off when this one cannot.
    pub guard: bool,
    /// How long the guard tries to turn off a device that cannot be reached.
    pub guard_retry: Millis,
    /// The sensor of Klipper's that is regulated by; `None`: the device's own.
    pub chamber: Option<Chamber>,
    /// The limit on any sensor of Klipper's.
    pub cutoff: Option<Cutoff>,
    /// What the bed's target makes of the chamber's, in rising order; empty: nothing.
    pub follow: Vec<Step>,
    /// How long filament is dried, hours.
    pub drying_hours: u8,
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
            mqtt: None,
            access: 0,
            device_id: None,
            max_target: 60,
            stale_after: 7_000,
            lost_after: 120_000,
            lease: 10_000,
            guard: false,
            guard_retry: 1_800_000,
            chamber: None,
            cutoff: None,
            follow: Vec::new(),
            drying_hours: 6,
            on_external_off: OnExternalOff::Accept,
            on_external_on: OnExternalOn::Off,
        }
    }
}

impl Config {
    /// What to call the device's place in messages, given what it was found to speak.
    pub(super) fn place(&self, found: Option<Dialect>) -> String {
        match &self.mqtt {
            None => self.host.clone(),
            Some(mqtt) => format!("{} on broker {}", mqtt.place(found), self.host),
        }
    }

    /// What to call the other end of the connection in messages.
    pub(super) fn peer(&self) -> String {
        match &self.mqtt {
            None => self.host.clone(),
            Some(_) => format!("broker {}", self.host),
        }
    }
}

/// `chamber_sensor`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chamber {
    /// Its full name in Klipper, for messages.
    pub sensor: String,
    /// The most that the device's target is raised above the wish, C.
    pub max_boost: u8,
}

/// `cutoff_sensor`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cutoff {
    /// Its full name in Klipper, for messages.
    pub sensor: String,
    /// From here on there is no heat, C.
    pub celsius: f64,
}

/// Rule R9.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnExternalOff {
    /// Klipper's target becomes 0.
    Accept,
    /// The device is turned on again, at most 3 times in 10 minutes.
    Reassert,
}

/// Rule R2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnExternalOn {
    /// The device is turned off at once.
    Off,
    /// It may stay on until the next target.
    Allow,
    /// Whatever it does without a target of Klipper's is none of our business: for a recording,
    /// which nobody can change any more. No option of Klipper's.
    LookOn,
}
