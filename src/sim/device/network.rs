//! The network side of a device, as far as it shows on the wire (PROTOCOL sections 2.2, 2.3, 3.2
//! and 4): Wi-Fi, its own access point, and the printer it is bound to.

use super::settings::Settings;
use super::{CONNECTED, Device};

/// What goes on between the device and others.
#[derive(Debug, Clone)]
pub(super) struct Network {
    pub(super) sta_state: u8,
    pub(super) wifi_scan: u8,
    pub(super) printer_state: u8,
    pub(super) printer_scan: u8,
    /// The bed *target* of the printer, which is what mode Auto looks at.
    pub(super) bed_c: u8,
    pub(super) ha_state: u8,
    /// The printer answers nobody.
    pub(super) printer_away: bool,
    scanned_at_us: Option<u64>,
    joined_at_us: Option<u64>,
    printed_at_us: Option<u64>,
    /// How often in a row it could not get into its network.
    failures: u8,
}

/// The networks there are, with their passwords.
#[derive(Debug, Clone)]
pub(super) struct Air(Vec<(String, String)>);

impl Air {
    /// The one the device is in, and another.
    pub(super) fn around(settings: &Settings) -> Self {
        let own = (settings.wifi_ssid.clone(), settings.wifi_password.clone());
        Air(vec![own, (NEIGHBOUR.0.to_owned(), NEIGHBOUR.1.to_owned())])
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        let names = self.0.iter().map(|(ssid, _)| ssid.as_str());
        names.filter(|ssid| !ssid.is_empty())
    }

    /// What comes of an attempt to join, as `sta.state`.
    fn join(&self, ssid: &str, password: &str) -> u8 {
        match self.0.iter().find(|(name, _)| name == ssid) {
            _ if ssid.is_empty() => NO_SSID,
            Some((_, right)) if right == password => CONNECTED,
            Some(_) => WRONG_PASSWORD,
            None => RECONNECTING,
        }
    }
}

impl Network {
    pub(super) fn after_boot(settings: &Settings, air: &Air) -> Self {
        let bound = !settings.printer.name.is_empty();
        let sta_state = air.join(&settings.wifi_ssid, &settings.wifi_password);
        Network {
            sta_state,
            wifi_scan: 0,
            printer_state: if bound { CONNECTED } else { 0 },
            printer_scan: 0,
            bed_c: 0,
            ha_state: 0,
            printer_away: false,
            scanned_at_us: None,
            // The first attempt counts as made while it booted.
            joined_at_us: matches!(sta_state, RECONNECTING | WRONG_PASSWORD).then_some(0),
            printed_at_us: None,
            failures: 0,
        }
    }
}

impl Device {
    /// Whether its server can be reached: it runs while the device is in a network, or has its
    /// own access point (section 1.1). Who is where is not simulated: with the access point on,
    /// everybody is in it.
    pub(crate) fn is_served(&self) -> bool {
        let network = &self.network;
        network.sta_state == CONNECTED || self.live.ap_on || network.failures > FAILURES_TO_AP
    }

    pub(super) fn start_scan(&mut self) {
        self.network.wifi_scan = SCANNING;
        self.network.scanned_at_us = Some(self.now_us + SCAN_US);
        self.dirty.wifi = true;
    }

    /// Leaves the network, and tries to get into the one that is set.
    pub(super) fn start_join(&mut self) {
        let network = &mut self.network;
        network.failures = 0;
        network.sta_state = CONNECTING;
        network.joined_at_us = Some(self.now_us + JOIN_US);
        self.dirty.sta = true;
    }

    /// Tries to reach the printer that is set.
    pub(super) fn start_printer(&mut self) {
        self.network.printer_state = CONNECTING;
        self.network.printed_at_us = Some(self.now_us + PRINTER_US);
        self.dirty.printer = true;
    }

    /// Forgets an attempt to reach a printer.
    pub(super) fn stop_printer(&mut self, state: u8) {
        self.network.printer_state = state;
        self.network.printed_at_us = None;
        self.dirty.printer = true;
    }

    /// Lets the printer answer nobody, or again.
    pub fn set_printer_away(&mut self, away: bool) {
        self.network.printer_away = away;
    }

    /// Every 200 ms.
    pub(super) fn run_network(&mut self) {
        let is_due = |at: Option<u64>| at.is_some_and(|at| at <= self.now_us);
        if is_due(self.network.scanned_at_us) {
            self.network.scanned_at_us = None;
            self.network.wifi_scan = SCAN_DONE;
            self.dirty.wifi = true;
        }
        if is_due(self.network.printed_at_us) {
            self.network.printed_at_us = None;
            let away = self.network.printer_away;
            self.network.printer_state = if away { NO_PRINTER } else { CONNECTED };
            self.dirty.printer = true;
        }
        if is_due(self.network.joined_at_us) {
            let (ssid, password) = (&self.live.wifi_ssid, &self.live.wifi_password);
            self.network.sta_state = self.air.join(ssid, password);
            let failed = self.network.sta_state != CONNECTED;
            self.network.failures = self.network.failures.saturating_add(u8::from(failed));
            self.network.joined_at_us = failed.then_some(self.now_us + REJOIN_US);
            self.dirty.sta = true;
        }
    }
}

/// `wifi.scan`.
const SCANNING: u8 = 1;
pub(super) const SCAN_DONE: u8 = 2;
/// `sta.state`; 3 is connected.
const NO_SSID: u8 = 1;
const CONNECTING: u8 = 2;
const RECONNECTING: u8 = 4;
const WRONG_PASSWORD: u8 = 5;
/// `printer.state` of a Klipper that cannot be reached.
const NO_PRINTER: u8 = 4;
/// How long a real one takes is not known.
const SCAN_US: u64 = 2_000_000;
const JOIN_US: u64 = 1_000_000;
const PRINTER_US: u64 = 1_000_000;
/// Section 4: the access point comes up by itself after more than 3 attempts, 5 s apart.
const REJOIN_US: u64 = 5_000_000;
const FAILURES_TO_AP: u8 = 3;
/// A second network, to have one to change to.
const NEIGHBOUR: (&str, &str) = ("Neighbour", "not-their-password");

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tests::{device, run};
    use super::super::{Effect, Firmware};
    use super::*;

    fn told(device: &mut Device, text: &str) {
        assert_eq!(device.handle_text(text.as_bytes()), Effect::None, "{text}");
    }

    #[test]
    fn a_scan_says_that_it_runs_and_then_what_it_has_found() {
        let mut device = device(Firmware::V1_0_3);
        told(&mut device, r#"{"wifi":{"scan":1}}"#);
        let push = device.take_push().unwrap();
        assert!(
            push.contains("\"scan\":\t1") && !push.contains("list"),
            "{push}"
        );
        run(&mut device, 3);
        let push = device.take_push().unwrap();
        assert!(push.contains("\"scan\":\t2"), "{push}");
        assert!(
            push.contains("Simulated") && push.contains("Neighbour"),
            "{push}"
        );
    }

    #[test]
    fn a_device_without_a_network_is_served_only_by_its_access_point() {
        let mut device = device(Firmware::V1_0_3);
        assert!(device.is_served());
        told(
            &mut device,
            r#"{"wifi":{"ssid":"Neighbour","password":"not-their-password"}}"#,
        );
        assert!(!device.is_served(), "it has left the old one");
        run(&mut device, 2);
        assert!(device.is_served());
        for (ssid, state) in [("Neighbour", 5), ("Nowhere", 4)] {
            let text = format!(r#"{{"wifi":{{"ssid":"{ssid}","password":"wrong"}}}}"#);
            told(&mut device, &text);
            run(&mut device, 2);
            assert!(!device.is_served(), "{ssid}");
            let push = device.take_push().unwrap();
            assert!(push.contains(&format!("\"state\":\t{state}")), "{push}");
            device.step(Duration::from_secs(13));
            assert!(!device.is_served(), "{ssid}");
            device.step(Duration::from_secs(3));
            assert!(
                device.is_served(),
                "{ssid}: more than 3 attempts, so its access point is up"
            );
        }
    }

    #[test]
    fn a_printer_is_reached_after_a_moment_or_not_at_all() {
        for (away, state) in [(false, 3), (true, 4)] {
            let mut device = device(Firmware::V1_0_3);
            device.live.printer_type = super::super::KLIPPER;
            device.set_printer_away(away);
            told(
                &mut device,
                r#"{"printer":{"name":"voron","ip":"192.0.2.20","port":7125}}"#,
            );
            assert!(device.take_push().unwrap().contains("\"state\":\t2"));
            run(&mut device, 2);
            let push = device.take_push().unwrap();
            assert!(push.contains(&format!("\"state\":\t{state}")), "{push}");
        }
    }
}
