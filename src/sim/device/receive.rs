//! What the firmware makes of a client's text (PROTOCOL section 3): fixed order of roots and
//! fields, strict JSON types, no range checks, silence about everything it doesn't know.

use serde_json::{Map, Value};

use super::settings::Printer;
use super::{Device, Effect, control};

type Object = Map<String, Value>;

impl Device {
    /// Handles one text or binary frame from a client.
    pub fn handle_text(&mut self, text: &[u8]) -> Effect {
        let Ok(Value::Object(root)) = serde_json::from_slice(text) else {
            return Effect::None;
        };
        let part = |name: &str| root.get(name).and_then(Value::as_object);
        if let Some(wifi) = part("wifi") {
            self.receive_wifi(wifi);
        }
        if let Some(sta) = part("sta") {
            self.receive_sta(sta);
        }
        if let Some(ap) = part("ap") {
            self.receive_ap(ap);
        }
        let printer_first = !self.firmware.has_klipper();
        if let (true, Some(printer)) = (printer_first, part("printer")) {
            self.receive_printer(printer);
        }
        if let Some(settings) = part("settings") {
            let effect = self.receive_settings(settings);
            if effect != Effect::None {
                return effect;
            }
        }
        if let (false, Some(printer)) = (printer_first, part("printer")) {
            self.receive_printer(printer);
        }
        if let (true, Some(ha)) = (self.firmware.has_mqtt(), part("ha")) {
            self.receive_ha(ha);
        }
        Effect::None
    }

    fn receive_settings(&mut self, fields: &Object) -> Effect {
        if let Some(language @ ("en" | "zh")) = text(fields, "language") {
            language.clone_into(&mut self.live.language);
            self.dirty.language = true; // the only write that is echoed
            self.save();
        }
        if set(fields, "factory_reset").is_some() {
            return self.reset_to_factory();
        }
        if set(fields, "reset").is_some() {
            return Effect::Restart;
        }
        if let (true, Some(kind)) = (self.firmware.has_klipper(), set(fields, "printer_type")) {
            self.live.printer_type = low_byte(kind);
            self.save();
            self.respond("printer_type", true);
            return Effect::RestartAfterPush;
        }
        // JSON true or false only: a number is ignored (section 3.1).
        if let Some(on) = fields.get("work_on").and_then(Value::as_bool) {
            self.live.work_on = on;
            self.save();
        }
        if let Some(mode) = set(fields, "work_mode") {
            self.live.work_mode = low_byte(mode);
            self.save();
        }
        if let Some(target) = number(fields, self.firmware.target_key()) {
            self.live.target = low_byte(target);
            self.save();
        }
        if let (false, Some(bed)) = (self.firmware.is_prerelease(), number(fields, "filtertemp")) {
            self.live.filtertemp = low_byte(bed);
            self.save();
        }
        if let Some(bed) = set(fields, "hotbedtemp") {
            self.live.hotbedtemp = low_byte(bed);
            self.save();
        }
        self.receive_drying(fields);
        Effect::None
    }

    fn receive_drying(&mut self, fields: &Object) {
        if let Some(temp) = number(fields, "filament_temp") {
            self.live.custom_temp = low_byte(temp);
            self.save();
        }
        if let Some(hours) = number(fields, "filament_timer") {
            self.live.custom_timer = low_byte(hours);
            self.control.remaining_s = i64::from(self.live.custom_timer) * 3600;
            self.save();
        }
        // Neither of the next two is stored.
        if let (false, Some(selected)) = (
            self.firmware.is_prerelease(),
            number(fields, "filament_drying_mode"),
        ) {
            if let Some(profile) = control::profile(selected, &self.live) {
                self.control.profile = profile;
                self.control.remaining_s = profile.seconds();
            }
        }
        if let Some(running) = number(fields, "isrunning") {
            self.set_running(running);
        }
    }

    fn receive_wifi(&mut self, fields: &Object) {
        if set(fields, "scan").is_some() {
            self.start_scan();
        }
        if let (Some(ssid), Some(password)) = (text(fields, "ssid"), text(fields, "password")) {
            ssid.clone_into(&mut self.live.wifi_ssid);
            password.clone_into(&mut self.live.wifi_password);
            self.save();
            self.start_join();
        }
    }

    fn receive_sta(&mut self, fields: &Object) {
        if let Some(hostname) = text(fields, "hostname") {
            // Stored, but effective only after a restart.
            hostname.clone_into(&mut self.stored.hostname);
            self.saves += 1;
            self.respond("set_hostname", true);
        }
    }

    fn receive_ap(&mut self, fields: &Object) {
        if let Some(on) = number(fields, "on") {
            self.live.ap_on = on != 0;
            self.save();
            self.respond("set_ap", true);
        }
        let Some(ip) = text(fields, "ip") else { return };
        let (Some(ssid), Some(password)) = (text(fields, "ssid"), text(fields, "password")) else {
            return;
        };
        if ip.parse::<std::net::Ipv4Addr>().is_err() {
            self.respond("set_ap", false);
            return;
        }
        let moved = ip != self.live.ap_ip;
        self.live.ap_ssid = Some(ssid.to_owned());
        password.clone_into(&mut self.live.ap_password);
        ip.clone_into(&mut self.live.ap_ip);
        self.save();
        self.respond(if moved { "set_hotspot_ip" } else { "set_ap" }, true);
    }

    fn receive_printer(&mut self, fields: &Object) {
        let klipper = self.uses_klipper();
        let scans = if klipper {
            number(fields, "scan_port").is_some_and(|port| (1..=65_535).contains(&port))
        } else {
            set(fields, "scan").is_some()
        };
        if scans {
            self.network.printer_scan = 2;
            self.dirty.printer = true;
        }
        let field = |name: &str| text(fields, name).map(str::to_owned);
        let bound = if klipper {
            let port = number(fields, "port").and_then(|port| u16::try_from(port).ok());
            let name = field("name").filter(|name| !name.is_empty());
            name.zip(field("ip"))
                .zip(port)
                .map(|((name, ip), port)| Printer {
                    name,
                    ip,
                    port,
                    ..Printer::default()
                })
        } else {
            let secret = field("sn").zip(field("access_code"));
            field("name")
                .zip(field("ip"))
                .zip(secret)
                .map(|((name, ip), (sn, access_code))| Printer {
                    name,
                    sn,
                    access_code,
                    ip,
                    port: 0,
                })
        };
        if let Some(printer) = bound {
            let valid = !printer.ip.is_empty()
                && (klipper || !(printer.sn.is_empty() || printer.access_code.is_empty()));
            self.live.printer = printer;
            self.save();
            if valid {
                self.start_printer();
            } else {
                self.stop_printer(1);
            }
        }
        if set(fields, "disconnect").is_some() {
            self.live.printer = Printer::default();
            self.save();
            self.stop_printer(0);
        }
    }
}

pub(super) fn text<'a>(fields: &'a Object, name: &str) -> Option<&'a str> {
    fields.get(name)?.as_str()
}

/// A number as cJSON converts it: towards zero, and saturating.
pub(super) fn number(fields: &Object, name: &str) -> Option<i32> {
    let Value::Number(number) = fields.get(name)? else {
        return None;
    };
    #[expect(
        clippy::cast_possible_truncation,
        reason = "what the firmware does; `as` saturates"
    )]
    let whole = number.as_f64()? as i32;
    Some(whole)
}

/// A number that is ignored when it is 0.
fn set(fields: &Object, name: &str) -> Option<i32> {
    number(fields, name).filter(|value| *value != 0)
}

/// What is left of a number in a variable of 8 bits.
pub(super) fn low_byte(value: i32) -> u8 {
    value.to_le_bytes()[0]
}

#[cfg(test)]
mod tests {
    use super::super::tests::device;
    use super::super::{Firmware, Setup};
    use super::*;

    fn after(firmware: Firmware, text: &str) -> Device {
        let mut device = device(firmware);
        assert_eq!(device.handle_text(text.as_bytes()), Effect::None, "{text}");
        device
    }

    #[test]
    fn work_on_must_be_a_json_boolean() {
        for firmware in Firmware::ALL {
            for text in [
                r#"{"settings":{"work_on":0}}"#,
                r#"{"settings":{"work_on":"false"}}"#,
            ] {
                let device = after(firmware, text);
                assert!(device.state().work_on, "{text}");
                assert_eq!(device.saves(), 0);
            }
            assert!(
                !after(firmware, r#"{"settings":{"work_on":false}}"#)
                    .state()
                    .work_on
            );
        }
    }

    #[test]
    fn numbers_are_cut_to_8_bits_and_not_clamped() {
        for (sent, stored) in [
            ("300", 44),
            ("100", 100),
            ("-1", 255),
            ("45.9", 45),
            ("1e9", 0),
        ] {
            let text = format!(r#"{{"settings":{{"set_temp":{sent}}}}}"#);
            assert_eq!(
                after(Firmware::V1_0_3, &text).state().set_temp,
                stored,
                "{sent}"
            );
        }
    }

    #[test]
    fn wrong_types_and_unknown_names_are_ignored() {
        for text in [
            r#"{"settings":{"set_temp":"45","work_mode":true,"temp":45,"target_temp":45}}"#,
            r#"{"settings":{"work_mode":0,"hotbedtemp":0,"custom_temp":1,"custom_timer":1}}"#,
            r#"{"settings":[]}"#,
            r#"{"settings":null,"what":1}"#,
            "[1,2]",
            "42",
            "",
            "not json",
        ] {
            let device = after(Firmware::V1_0_3, text);
            assert_eq!(device.live, Setup::default().pristine(), "{text}");
            assert_eq!(device.saves(), 0, "{text}");
        }
    }

    #[test]
    fn the_prerelease_takes_temp_and_the_others_set_temp() {
        for firmware in Firmware::ALL {
            let text = r#"{"settings":{"temp":41,"set_temp":42}}"#;
            let expected = if firmware.is_prerelease() { 41 } else { 42 };
            assert_eq!(
                after(firmware, text).state().set_temp,
                expected,
                "{firmware}"
            );
        }
    }

    #[test]
    fn writes_are_not_echoed_except_the_language() {
        let text = r#"{"settings":{"work_on":true,"work_mode":2,"set_temp":45,"isrunning":1}}"#;
        let mut device = after(Firmware::V1_0_3, text);
        assert_eq!(device.take_push(), None);
        assert_eq!(
            device.saves(),
            3,
            "each stored field asks for a save, isrunning does not"
        );
        let mut device = after(Firmware::V1_0_3, r#"{"settings":{"language":"zh"}}"#);
        assert_eq!(
            device.take_push().unwrap(),
            "{\n\t\"settings\":\t{\n\t\t\"language\":\t\"zh\"\n\t}\n}"
        );
    }

    #[test]
    fn a_reset_hides_what_comes_after_it() {
        let mut device = device(Firmware::V1_0_3);
        let text = br#"{"settings":{"set_temp":45,"reset":1,"language":"zh"}}"#;
        assert_eq!(device.handle_text(text), Effect::Restart);
        device.boot();
        assert_eq!(device.state().set_temp, 60);
        assert!(device.snapshot().contains("\"language\":\t\"zh\""));
    }

    #[test]
    fn printer_type_restarts_from_1_0_3_on() {
        let text = br#"{"settings":{"printer_type":2}}"#;
        for firmware in Firmware::ALL {
            let expected = if firmware.has_klipper() {
                Effect::RestartAfterPush
            } else {
                Effect::None
            };
            assert_eq!(device(firmware).handle_text(text), expected, "{firmware}");
        }
    }

    #[test]
    fn a_klipper_printer_needs_a_name() {
        let mut device = device(Firmware::V1_0_3);
        assert_eq!(
            device.handle_text(br#"{"settings":{"printer_type":2}}"#),
            Effect::RestartAfterPush
        );
        device.boot();
        let nameless = br#"{"printer":{"ip":"192.0.2.20","port":7125}}"#;
        assert_eq!(device.handle_text(nameless), Effect::None);
        assert_eq!(device.take_push(), None);
        let named = br#"{"printer":{"name":"voron","ip":"192.0.2.20","port":7125}}"#;
        assert_eq!(device.handle_text(named), Effect::None);
        device.step(std::time::Duration::from_secs(2));
        let push = device.take_push().unwrap();
        assert!(push.contains("\"host\":\t\"192.0.2.20\"") && push.contains("\"state\":\t3"));
    }

    #[test]
    fn a_hostname_counts_after_a_restart() {
        let mut device = after(Firmware::V1_0_3, r#"{"sta":{"hostname":"Breath2"}}"#);
        assert!(device.take_push().unwrap().contains("set_hostname"));
        assert!(device.snapshot().contains("PandaBreath\""));
        // What is stored in between does not take it back.
        assert_eq!(device.handle_text(br#"{"ap":{"on":1}}"#), Effect::None);
        device.boot();
        assert!(device.snapshot().contains("Breath2"));
        let reset = br#"{"settings":{"factory_reset":1}}"#;
        assert_eq!(device.handle_text(reset), Effect::RestartAfterPush);
        device.boot();
        assert!(device.snapshot().contains("PandaBreath\""));
    }

    impl Setup {
        fn pristine(&self) -> super::super::Settings {
            Device::new(self).stored
        }
    }
}
