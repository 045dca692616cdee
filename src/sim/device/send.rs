//! What the firmware sends: the snapshot for a new client, and pushes that are merged from
//! everything that became due (PROTOCOL sections 1.3, 1.4 and 2).

use super::super::json::{Json, Object, print};
use super::network::SCAN_DONE;
use super::{Device, KLIPPER};

/// What waits for the sender loop.
#[derive(Debug, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "these are dirty flags, one per root"
)]
pub(super) struct Dirty {
    pub(super) settings: bool,
    pub(super) language: bool,
    pub(super) reading: bool,
    pub(super) heater_status: bool,
    pub(super) wifi: bool,
    pub(super) sta: bool,
    pub(super) printer: bool,
    pub(super) ha: bool,
    response: Option<(&'static str, bool)>,
}

impl Device {
    /// The first frame a new client gets. Holds passwords in clear, as the real one does.
    pub fn snapshot(&self) -> String {
        let mut settings: Object = vec![
            ("fw_version", self.firmware.reported().into()),
            ("language", self.live.language.as_str().into()),
        ];
        settings.extend(self.settings_group());
        let mut roots: Object = vec![
            ("wifi", self.wifi().into()),
            ("sta", self.sta().into()),
            ("ap", self.ap().into()),
            ("settings", settings.into()),
            ("printer", self.printer().into()),
        ];
        if !self.firmware.has_klipper() {
            roots.swap(3, 4);
        }
        if self.firmware.has_mqtt() {
            roots.push(("ha", self.ha().into())); // where it stands is unconfirmed
        }
        print(&roots)
    }

    /// Every 500 ms: the temperature is due, and with it the status of a broken sensor.
    pub fn mark_reading(&mut self) {
        self.dirty.reading |= self.powered;
    }

    /// Every 100 ms: one frame of everything that is due, or nothing.
    pub fn take_push(&mut self) -> Option<String> {
        let dirty = std::mem::take(&mut self.dirty);
        let mut roots = Object::new();
        if dirty.wifi {
            roots.push(("wifi", self.wifi().into()));
        }
        if dirty.sta {
            roots.push(("sta", self.sta().into()));
        }
        let settings = self.due_settings(&dirty);
        if !settings.is_empty() {
            roots.push(("settings", settings.into()));
        }
        if dirty.printer {
            roots.push(("printer", self.printer().into()));
        }
        if dirty.ha {
            roots.push(("ha", self.ha().into()));
        }
        if let Some((kind, ok)) = dirty.response {
            let response: Object = vec![("type", kind.into()), ("ok", ok.into())];
            roots.push(("response", response.into()));
        }
        (!roots.is_empty()).then(|| print(&roots))
    }

    /// A frame with nothing but the temperature.
    pub fn reading_frame(&self) -> String {
        let reading: Object = vec![("warehouse_temper", self.control.reading().into())];
        print(&vec![("settings", reading.into())])
    }

    pub(super) fn respond(&mut self, kind: &'static str, ok: bool) {
        self.dirty.response = Some((kind, ok));
    }

    fn due_settings(&self, dirty: &Dirty) -> Object {
        let mut settings = Object::new();
        if dirty.language {
            settings.push(("language", self.live.language.as_str().into()));
        }
        if dirty.settings {
            settings.extend(self.settings_group());
        }
        if dirty.reading {
            settings.push(("warehouse_temper", self.control.reading().into()));
            match (self.control.ptc_status, self.control.chamber_status) {
                (0, 0) => {}
                (0, chamber) => settings.push(("warehouse_sensor_status", chamber.into())),
                (ptc, _) => settings.push(("ptc_sensor_status", ptc.into())),
            }
        }
        if dirty.heater_status {
            settings.push(("ptc_heater_status", Json::Int(1)));
        }
        settings
    }

    /// All keys that are pushed together.
    fn settings_group(&self) -> Object {
        let live = &self.live;
        let old = self.firmware.is_prerelease();
        let mut group = Object::new();
        if self.firmware.has_klipper() {
            group.push(("printer_type", live.printer_type.into()));
        }
        group.push(("work_on", live.work_on.into()));
        group.push(("work_mode", live.work_mode.into()));
        group.push((self.firmware.target_key(), live.target.into()));
        if !old {
            group.push(("filtertemp", live.filtertemp.into()));
        }
        group.push(("hotbedtemp", live.hotbedtemp.into()));
        group.push(("custom_temp", live.custom_temp.into()));
        group.push(("custom_timer", live.custom_timer.into()));
        if !old {
            group.push(("isrunning", self.control.isrunning.into()));
            group.push(("remaining_seconds", Json::Int(self.control.remaining_s)));
        }
        group
    }

    fn wifi(&self) -> Object {
        let mut wifi: Object = vec![("ssid", self.live.wifi_ssid.as_str().into())];
        if !self.live.wifi_password.is_empty() {
            wifi.push(("password", self.live.wifi_password.as_str().into()));
        }
        wifi.push(("scan", self.network.wifi_scan.into()));
        if self.network.wifi_scan == SCAN_DONE {
            let network = |ssid: &str| -> Json { Object::from([("ssid", ssid.into())]).into() };
            let list = self.air.names().map(network).collect();
            wifi.push(("list", Json::List(list)));
        }
        wifi
    }

    fn sta(&self) -> Object {
        vec![
            ("hostname", self.live.hostname.as_str().into()),
            ("ip", "192.0.2.10".into()),
            ("state", self.network.sta_state.into()),
            ("auth_err_reason", Json::Int(0)),
        ]
    }

    fn ap(&self) -> Object {
        let default = self.identity.access_point();
        let ssid = self.live.ap_ssid.as_deref().unwrap_or(&default);
        vec![
            ("ssid", ssid.into()),
            ("password", self.live.ap_password.as_str().into()),
            ("ip", self.live.ap_ip.as_str().into()),
            ("on", self.live.ap_on.into()),
        ]
    }

    fn printer(&self) -> Object {
        let printer = &self.live.printer;
        let mut fields: Object = vec![("name", printer.name.as_str().into())];
        if self.firmware.has_klipper() && self.live.printer_type == KLIPPER {
            fields.push(("host", printer.ip.as_str().into()));
            fields.push(("port", printer.port.into()));
        } else {
            fields.push(("sn", printer.sn.as_str().into()));
            fields.push(("access_code", printer.access_code.as_str().into()));
            fields.push(("ip", printer.ip.as_str().into()));
        }
        fields.push(("state", self.network.printer_state.into()));
        fields.push(("scan", self.network.printer_scan.into()));
        if self.network.printer_scan == SCAN_DONE {
            fields.push(("list", Json::List(Vec::new())));
        }
        fields
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{device, run};
    use super::super::{Effect, Firmware, Setup};
    use super::*;

    /// Where each name stands in a text, which must be in the order given.
    fn assert_order(text: &str, names: &[&str]) {
        let at: Vec<_> = names
            .iter()
            .map(|name| {
                text.find(&format!("\"{name}\":\t"))
                    .unwrap_or_else(|| panic!("{name}"))
            })
            .collect();
        assert!(at.is_sorted(), "{names:?} in {text}");
    }

    #[test]
    fn the_snapshot_has_the_order_of_its_firmware() {
        for firmware in Firmware::ALL {
            let text = device(firmware).snapshot();
            assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok());
            assert!(!text.contains("warehouse_temper"));
            let fw_version = format!("\"fw_version\":\t\"{}\"", firmware.reported());
            assert!(text.contains(&fw_version), "{text}");
            match firmware {
                Firmware::V1_0_3 | Firmware::V1_0_4 => {
                    assert_order(&text, &["wifi", "sta", "ap", "settings", "printer"]);
                    assert_order(&text, &["language", "printer_type", "work_on", "work_mode"]);
                }
                Firmware::V0_0_0 | Firmware::V1_0_1 | Firmware::V1_0_2 => {
                    assert_order(&text, &["wifi", "sta", "ap", "printer", "settings"]);
                    assert!(!text.contains("printer_type"));
                }
            }
            if firmware.is_prerelease() {
                assert_order(&text, &["work_mode", "temp", "hotbedtemp", "custom_temp"]);
                assert!(!text.contains("filtertemp") && !text.contains("isrunning"));
            } else {
                assert_order(
                    &text,
                    &["work_mode", "set_temp", "filtertemp", "hotbedtemp"],
                );
                assert_order(&text, &["custom_timer", "isrunning", "remaining_seconds"]);
            }
        }
    }

    #[test]
    fn the_snapshot_shows_the_secrets_it_was_given() {
        let setup = Setup {
            wifi_ssid: "S1".into(),
            wifi_password: "S2".into(),
            ap_password: "S3".into(),
            access_code: Some("S4".into()),
            ..Setup::default()
        };
        let text = Device::new(&setup).snapshot();
        for secret in ["S1", "S2", "S3", "S4"] {
            assert!(text.contains(&format!("\"{secret}\"")), "{secret}");
        }
    }

    #[test]
    fn a_reading_is_an_integer_in_a_frame_of_its_own() {
        let mut device = device(Firmware::V1_0_3);
        run(&mut device, 3);
        assert_eq!(device.take_push(), None);
        device.mark_reading();
        let push = device.take_push().unwrap();
        assert_eq!(
            push,
            "{\n\t\"settings\":\t{\n\t\t\"warehouse_temper\":\t22\n\t}\n}"
        );
        assert_eq!(push, device.reading_frame());
        assert_eq!(device.take_push(), None);
    }

    #[test]
    fn what_is_due_together_is_merged() {
        let mut device = device(Firmware::V1_0_3);
        assert_eq!(device.press(super::super::Button::Power), Effect::None);
        assert_eq!(device.handle_text(br#"{"ap":{"on":1}}"#), Effect::None);
        device.mark_reading();
        let push = device.take_push().unwrap();
        assert_order(
            &push,
            &["settings", "work_on", "warehouse_temper", "response"],
        );
    }
}
