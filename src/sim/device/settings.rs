//! What a device stores in its flash (PROTOCOL sections 3.1 and 4).

use serde::{Deserialize, Serialize};

use crate::sim::firmware::{Firmware, Mode};

/// Everything that survives a restart. Temperatures and hours are 8 bits wide, unclamped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Settings {
    pub(crate) language: String,
    pub(crate) printer_type: u8,
    pub(crate) work_on: bool,
    pub(crate) work_mode: u8,
    pub(crate) target: u8,
    pub(crate) filtertemp: u8,
    pub(crate) hotbedtemp: u8,
    pub(crate) custom_temp: u8,
    pub(crate) custom_timer: u8,
    pub(crate) hostname: String,
    pub(crate) wifi_ssid: String,
    pub(crate) wifi_password: String,
    pub(crate) ap_on: bool,
    pub(crate) ap_password: String,
    pub(crate) ap_ip: String,
    /// Set only when somebody renamed the access point; the default shows the identity.
    pub(crate) ap_ssid: Option<String>,
    pub(crate) printer: Printer,
    /// From 1.0.4 on.
    #[serde(default)]
    pub(crate) ha: Option<Ha>,
}

/// The printer a device is bound to; an empty name is none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Printer {
    pub(crate) name: String,
    pub(crate) sn: String,
    pub(crate) access_code: String,
    pub(crate) ip: String,
    pub(crate) port: u16,
}

/// The broker a device is bound to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ha {
    pub(crate) ip: String,
    pub(crate) port: u16,
    pub(crate) user: String,
    pub(crate) password: String,
}

impl Settings {
    /// Factory settings: enabled, Auto, 60 °C, bound to nothing.
    pub(crate) fn factory(firmware: Firmware) -> Self {
        Settings {
            language: "en".to_owned(),
            printer_type: BAMBU,
            work_on: true,
            work_mode: firmware.number_of(Mode::Auto),
            target: 60,
            filtertemp: 30,
            hotbedtemp: if firmware.is_prerelease() { 100 } else { 80 },
            custom_temp: 60,
            custom_timer: 12,
            hostname: "PandaBreath".to_owned(),
            wifi_ssid: String::new(),
            wifi_password: String::new(),
            ap_on: false,
            ap_password: "987654321".to_owned(),
            ap_ip: "192.168.254.1".to_owned(),
            ap_ssid: None,
            printer: Printer::default(),
            ha: None,
        }
    }
}

pub(crate) const BAMBU: u8 = 1;
pub(crate) const KLIPPER: u8 = 2;
