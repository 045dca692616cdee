//! What Klipper must know, as level: it stays true until it changes, however late it is read.

use std::sync::Arc;

use crate::dialect::{Dialect, Fault, Firmware, Identity, Mode, Settings};

use super::{Followed, Millis};

/// The state of the connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Link {
    /// Nothing tried yet.
    #[default]
    Pending,
    /// Never connected so far; trying.
    Connecting,
    /// The device has sent its state and is the right one.
    Connected,
    /// It was connected; trying again.
    Reconnecting,
    /// Something only the user can mend: the wrong device, or a bug in here.
    Error,
}

impl Link {
    /// The name used in logs and the status object.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Connecting => "connecting",
            Self::Connected => "connected",
            Self::Reconnecting => "reconnecting",
            Self::Error => "error",
        }
    }
}

/// One live temperature.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reading {
    /// Counts readings from 1, so that each is fed to Klipper once (rule R5).
    pub number: u64,
    /// C.
    pub celsius: f64,
    /// When it arrived.
    pub at: Millis,
}

/// Why Klipper's target was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A button or another client turned the device off.
    ExternalOff,
    /// The device stopped itself.
    Fault(Fault),
    /// No reading for `lost_after`.
    Lost,
    /// The reactor was not heard for `lease`.
    Lease,
    /// The device does not take what it is told, or must not be told anything.
    Refused,
    /// No guard process could be had.
    Unguarded,
    /// `cutoff_sensor` is too hot, silent or absurd.
    Cutoff,
    /// Drying has come to its end.
    Dried,
    /// A bug in here.
    Internal,
}

impl Reason {
    /// Whether `on_lost` applies: nobody chose this, and it may happen in a print.
    pub fn is_failure(self) -> bool {
        match self {
            Self::ExternalOff | Self::Dried => false,
            Self::Fault(_)
            | Self::Lost
            | Self::Lease
            | Self::Refused
            | Self::Unguarded
            | Self::Cutoff
            | Self::Internal => true,
        }
    }
}

/// The last time a target was dropped against Klipper's wish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForcedOff {
    /// Why, for the program.
    pub reason: Reason,
    /// Why, for people.
    pub text: Arc<str>,
}

/// Everything Klipper must act on or may show. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own, not a state"
)]
pub struct Snapshot {
    /// State of the connection.
    pub link: Link,
    /// The newest live reading.
    pub reading: Option<Reading>,
    /// No live reading for `lost_after`, since the start if there never was one.
    pub lost: bool,
    /// The device's master switch.
    pub device_on: Option<bool>,
    /// The device's target, C.
    pub device_target: Option<f64>,
    /// How much of the device's target is not Klipper's wish but for `chamber_sensor`, C.
    pub boost: u8,
    /// `cutoff_temp` was reached, and the sensor has not cooled down since.
    pub tripped: bool,
    /// What Klipper's target is to become, for `follow_bed`.
    pub follow: Option<Followed>,
    /// The highest target that the device says it takes, C.
    pub target_limit: Option<f64>,
    /// How the device speaks, once that is known.
    pub dialect: Option<Dialect>,
    /// The device's mode.
    pub mode: Option<Mode>,
    /// Whether a drying cycle runs.
    pub drying: Option<bool>,
    /// Seconds left of it, and when the device said so: it does not count down aloud.
    pub remaining: Option<(u32, Millis)>,
    /// The rest of its settings.
    pub settings: Settings,
    /// Its firmware.
    pub firmware: Option<Firmware>,
    /// Who it is.
    pub identity: Option<Identity>,
    /// What is wrong with the device now, or with its staying off.
    pub fault: Option<Trouble>,
    /// The device was last turned off by a button or another client.
    pub external_off: bool,
    /// How many times a target was dropped; a wish is good only if it knows this number (rule R3).
    pub forced_offs: u32,
    /// How many of these were failures to which `on_lost` applies.
    pub failures: u32,
    /// The last of them.
    pub forced_off: Option<ForcedOff>,
    /// Connections after the first.
    pub reconnects: u32,
    /// Messages or fields that could not be used.
    pub ignored: u64,
    /// Off has been confirmed by the device, and nothing has been said since that would change it.
    pub off_known: bool,
    /// Why there is no connection, or what was wrong last.
    pub last_error: Option<Arc<str>>,
}

/// What the status object calls a fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The device says so.
    Device(Fault),
    /// It was found on three times although it had been turned off.
    WillNotStayOff,
    /// It has been told to be off, and still heats.
    StillHeats,
    /// It says that it is off, and the chamber is being heated.
    HeatsOn,
    /// It takes no new connection, and without one nobody can say whether it is off.
    CannotAsk,
    /// Somebody else keeps setting it to something else.
    Overruled,
    /// The broker keeps a command on this topic and repeats it at every connect of the device.
    RetainedCommand(Arc<str>),
    /// Nobody would turn the device off after us, and why.
    Unguarded(Arc<str>),
}

impl Trouble {
    /// What to tell the user.
    pub fn text(&self) -> String {
        match self {
            Self::Device(fault) => fault.text().into(),
            Self::WillNotStayOff => "the device was found on three times after it had been \
                                     turned off; look for another program that controls it"
                .into(),
            Self::StillHeats => "the device has not confirmed for 30 s that it is off, and may \
                                 still heat; look at it, and at 'min_heating_run_time' if it \
                                 runs ESPHome"
                .into(),
            Self::HeatsOn => "the device says that it is off, but the chamber has become 15 C \
                              warmer since; if nothing else heats it, pull the plug of the device"
                .into(),
            Self::CannotAsk => {
                "nobody can say whether the device is off, because no new connection \
                                reaches it; it is told again every minute. Close other programs \
                                and web pages that use it, or look at it"
                    .into()
            }
            Self::Overruled => "the device was set to something else again and again; look for \
                                another program that controls it"
                .into(),
            Self::RetainedCommand(topic) => format!(
                "the broker keeps a command on {topic} and repeats it whenever the device \
                 connects; clear it: mosquitto_pub -r -n -t '{topic}'"
            ),
            Self::Unguarded(why) => format!(
                "the guard, which turns the device off when Klipper is killed, does not run: {why}"
            ),
        }
    }

    /// Whether the device cannot, or must not, heat as long as it lasts.
    pub fn blocks_heat(&self) -> bool {
        match self {
            Self::Device(fault) => fault.is_sensor(),
            Self::RetainedCommand(_) | Self::Unguarded(_) => true,
            Self::WillNotStayOff
            | Self::StillHeats
            | Self::HeatsOn
            | Self::CannotAsk
            | Self::Overruled => false,
        }
    }
}

/// A line for the console and the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What happened, in words, without the section's name.
    pub text: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_names_of_the_link_are_what_macros_compare_with() {
        let links = [
            Link::Pending,
            Link::Connecting,
            Link::Connected,
            Link::Reconnecting,
            Link::Error,
        ];
        let names = [
            "pending",
            "connecting",
            "connected",
            "reconnecting",
            "error",
        ];
        assert_eq!(links.map(Link::name), names);
    }

    #[test]
    fn what_is_in_the_way_of_heat_is_told_from_what_is_only_said() {
        for (trouble, blocks) in [
            (Trouble::Device(Fault::ChamberSensorShort), true),
            (Trouble::Device(Fault::Heater), false),
            (Trouble::RetainedCommand("a/b".into()), true),
            (Trouble::Unguarded("no memory".into()), true),
            (Trouble::WillNotStayOff, false),
            (Trouble::StillHeats, false),
            (Trouble::HeatsOn, false),
            (Trouble::CannotAsk, false),
            (Trouble::Overruled, false),
        ] {
            assert_eq!(trouble.blocks_heat(), blocks, "{trouble:?}");
        }
    }
}
