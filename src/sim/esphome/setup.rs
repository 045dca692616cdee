//! How a simulated node is configured, and where it stands.

use super::Platform;
use crate::sim::identity::Identity;
use crate::sim::thermal::Enclosure;

/// What a node is like: its configuration, and where it stands.
#[derive(Debug, Clone)]
pub struct Setup {
    /// `esphome: name`.
    pub node: String,
    /// `mqtt: topic_prefix`; none: the name of the node.
    pub prefix: Option<String>,
    /// MAC address, part of the client id.
    pub identity: Identity,
    /// Object id of the climate.
    pub climate: String,
    /// Object id of the chamber sensor.
    pub chamber_sensor: String,
    /// Object id of the sensor at the heating element.
    pub element_sensor: String,
    /// Object id of the fan.
    pub fan: String,
    /// What regulates.
    pub platform: Platform,
    /// Whether the relay is an entity of its own, which bypasses the climate.
    pub relay: bool,
    /// `publish_nan_as_none`: a broken sensor says `None` and not `nan`.
    pub nan_as_none: bool,
    /// Discovery messages for Home Assistant; none: `discovery: false`.
    pub discovery: Option<Discovery>,
    /// Whether the log goes to the broker as well, retained and in colours.
    pub debug: bool,
    /// `update_interval` of the sensors.
    pub update_s: f64,
    /// `preferences: flash_write_interval`.
    pub flash_s: f64,
    /// `mqtt: reboot_timeout`; 0: never.
    pub lonely_s: f64,
    /// How much faster than real time the node lives. Readings are still published every
    /// `update_s` of real time.
    pub speed: f64,
    /// Where the chamber starts.
    pub chamber_c: f64,
    /// The room around it.
    pub ambient_c: f64,
    /// Heater and enclosure.
    pub enclosure: Enclosure,
}

/// How a node announces itself to Home Assistant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Discovery {
    /// `discovery_prefix`.
    pub prefix: String,
    /// `use_abbreviations`.
    pub abbreviated: bool,
}

impl Setup {
    /// Below what all topics of the node are.
    pub fn prefix(&self) -> &str {
        self.prefix.as_deref().unwrap_or(&self.node)
    }

    /// The n-th of several, which have `name_add_mac_suffix`.
    #[must_use]
    pub fn numbered(&self, index: usize, count: usize) -> Self {
        let mut setup = self.clone();
        setup.identity = self.identity.offset(index);
        if count > 1 {
            let mac = setup.identity.to_string().to_lowercase();
            let suffix = &mac[6..];
            setup.node = format!("{}-{suffix}", self.node);
            // One prefix for all would mix them up; a real one does not help there.
            setup.prefix = self
                .prefix
                .as_ref()
                .map(|prefix| format!("{prefix}-{suffix}"));
        }
        setup
    }
}

impl Default for Setup {
    fn default() -> Self {
        Setup {
            node: "panda-breath".to_owned(),
            prefix: None,
            identity: Identity::default(),
            climate: "chamber".to_owned(),
            chamber_sensor: "chamber_temperature".to_owned(),
            element_sensor: "ptc_element_temperature".to_owned(),
            fan: "fan".to_owned(),
            platform: Platform::default(),
            relay: false,
            nan_as_none: false,
            discovery: None,
            debug: true,
            update_s: 5.0,
            flash_s: 60.0,
            lonely_s: 900.0,
            speed: 1.0,
            chamber_c: 22.0,
            ambient_c: 22.0,
            enclosure: Enclosure::default(),
        }
    }
}

impl Default for Discovery {
    fn default() -> Self {
        Discovery {
            prefix: "homeassistant".to_owned(),
            abbreviated: true,
        }
    }
}
