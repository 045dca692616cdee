//! What 1.0.4 adds: a broker it is bound to, a state it publishes there, and commands it takes
//! from there (PROTOCOL section 9).
//!
//! Topics, keys and words come from people who use it. Nobody has read its binary: whatever is
//! marked unconfirmed is a guess by analogy.

use serde_json::{Map, Value};

use super::super::json::{Object, print};
use super::receive::{low_byte, number, text};
use super::settings::{Ha, Settings};
use super::{CONNECTED, Control, Device, Effect, Mode, control};
use crate::driver::mqtt::{Broker, Login, Publication, Terms};

impl Device {
    /// The broker it is bound to.
    pub fn broker(&self) -> Option<Broker> {
        let ha = self.live.ha.as_ref()?;
        let login = (!ha.user.is_empty()).then(|| Login {
            username: ha.user.clone(),
            password: ha.password.clone(),
        });
        Some(Broker {
            host: ha.ip.clone(),
            port: ha.port,
            login,
            tls: None, // there is none in the firmware
        })
    }

    /// Binds it to a broker, as its web page would have done.
    pub fn bind(&mut self, broker: &Broker) {
        let login = broker.login.as_ref();
        self.live.ha = Some(Ha {
            ip: broker.host.clone(),
            port: broker.port,
            user: login.map_or(String::new(), |login| login.username.clone()),
            password: login.map_or(String::new(), |login| login.password.clone()),
        });
        self.save();
    }

    /// Whether it has a connection to its broker: `ha.state` in the snapshot. That 3 stands for
    /// connected is unconfirmed, and so is that a change is pushed.
    pub fn set_broker_connected(&mut self, connected: bool) {
        let state = if connected { CONNECTED } else { 0 };
        if std::mem::replace(&mut self.network.ha_state, state) != state {
            self.dirty.ha = true;
        }
    }

    /// How it connects. Client id, keep alive and session are unconfirmed: the defaults of the
    /// library it is built with.
    pub fn terms(&self) -> Terms {
        Terms {
            client_id: format!("panda_breath_{}", self.identity),
            keep_alive: std::time::Duration::from_secs(120),
            clean_session: true,
            will: Some(self.availability("offline")),
            subscriptions: vec![self.topic("command")],
        }
    }

    /// `online` or `offline`.
    pub fn availability(&self, word: &str) -> Publication {
        Publication {
            topic: self.topic("availability"),
            payload: word.into(),
            retain: true,
        }
    }

    /// What it publishes twice a second. That it is not retained is unconfirmed.
    pub fn published_state(&self) -> Publication {
        Publication {
            topic: self.topic("state"),
            payload: print(&self.mqtt_state()).into_bytes(),
            retain: false,
        }
    }

    /// Handles a message on its command topic: any of the keys, effective at once.
    pub fn handle_mqtt(&mut self, payload: &[u8]) -> Effect {
        let Ok(Value::Object(fields)) = serde_json::from_slice::<Value>(payload) else {
            return Effect::None;
        };
        if let Some(on) = switch(&fields, "work_on") {
            self.live.work_on = on;
        }
        let word = text(&fields, "mode");
        if let Some((mode, _)) = MODES.iter().find(|(_, name)| word == Some(name)) {
            self.live.work_mode = self.firmware.number_of(*mode);
        }
        // Nothing is clamped over WebSocket; that nothing is here either is unconfirmed.
        let byte = |name: &str| number(&fields, name).map(low_byte);
        let live = &mut self.live;
        for (name, field) in [
            ("target_temp", &mut live.target),
            ("filter_temp", &mut live.filtertemp),
            ("heater_temp", &mut live.hotbedtemp),
            ("custom_temp", &mut live.custom_temp),
            ("custom_timer", &mut live.custom_timer),
        ] {
            if let Some(value) = byte(name) {
                *field = value;
            }
        }
        let word = text(&fields, "filament_drying_mode");
        let selected = (1..).zip(PROFILES).find(|(_, name)| word == Some(name));
        if let Some((number, _)) = selected {
            if let Some(profile) = control::profile(number, &self.live) {
                self.control.profile = profile;
                self.control.remaining_s = profile.seconds();
            }
        }
        if let Some(running) = switch(&fields, "drying_running") {
            self.set_running(running.into());
        }
        if self.live != self.stored {
            self.save();
        }
        Effect::None
    }

    /// The bind frame on the WebSocket. Unconfirmed in all its parts.
    pub(super) fn receive_ha(&mut self, fields: &Map<String, Value>) {
        let bound = text(fields, "ip").filter(|ip| !ip.is_empty());
        let port = number(fields, "port").and_then(|port| u16::try_from(port).ok());
        if let (Some(ip), Some(port @ 1..)) = (bound, port) {
            let or_empty = |name| text(fields, name).unwrap_or_default().to_owned();
            self.live.ha = Some(Ha {
                ip: ip.to_owned(),
                port,
                user: or_empty("user"),
                password: or_empty("password"),
            });
            self.save();
            self.dirty.ha = true;
        }
        if number(fields, "disconnect").is_some_and(|value| value != 0) {
            self.live.ha = None;
            self.save();
            self.dirty.ha = true;
        }
    }

    /// The root `ha` of the snapshot, with its password in clear like all the others.
    pub(super) fn ha(&self) -> Object {
        let none = Ha::default();
        let ha = self.live.ha.as_ref().unwrap_or(&none);
        vec![
            ("ip", ha.ip.as_str().into()),
            ("port", ha.port.into()),
            ("user", ha.user.as_str().into()),
            ("password", ha.password.as_str().into()),
            ("state", self.network.ha_state.into()),
        ]
    }

    /// `<prefix>/<MAC>/<what>`.
    pub fn topic(&self, what: &str) -> String {
        format!("{}/{}/{what}", self.topic_prefix, self.identity)
    }

    fn mqtt_state(&self) -> Object {
        let live = &self.live;
        let mode = self.firmware.mode_of(live.work_mode);
        let mode = MODES.iter().find(|(known, _)| Some(*known) == mode);
        let bound = if live.printer.name.is_empty() {
            "unbind" // unconfirmed
        } else {
            "bind"
        };
        vec![
            ("chamber_temp", self.control.reading().into()),
            ("work_on", on_off(live.work_on).into()),
            ("mode", mode.map_or("", |(_, name)| name).into()),
            ("filament_drying_mode", selected(&self.control, live).into()),
            ("target_temp", live.target.into()),
            ("filter_temp", live.filtertemp.into()),
            ("heater_temp", live.hotbedtemp.into()),
            ("custom_temp", live.custom_temp.into()),
            ("custom_timer", live.custom_timer.into()),
            ("drying_running", on_off(self.control.isrunning).into()),
            (
                "drying_remaining_min",
                super::super::json::Json::Int(self.control.remaining_s / 60),
            ),
            ("printer_sn", live.printer.sn.as_str().into()),
            ("printer_bind", bound.into()),
            ("printer_ip", live.printer.ip.as_str().into()),
            ("printer_name", live.printer.name.as_str().into()),
        ]
    }
}

fn switch(fields: &Map<String, Value>, name: &str) -> Option<bool> {
    match text(fields, name)? {
        "ON" => Some(true),
        "OFF" => Some(false),
        _ => None,
    }
}

fn on_off(on: bool) -> &'static str {
    if on { "ON" } else { "OFF" }
}

/// The profile whose numbers are in force, the custom one last: theirs may be the same.
fn selected(control: &Control, settings: &Settings) -> &'static str {
    let in_force = |number| {
        control::profile(number, settings).is_some_and(|profile| {
            (profile.temp, profile.hours) == (control.profile.temp, control.profile.hours)
        })
    };
    let found = (1..).zip(PROFILES).find(|(number, _)| in_force(*number));
    found.map_or("custom", |(_, name)| name)
}

const MODES: [(Mode, &str); 3] = [
    (Mode::Auto, "auto mode"),
    (Mode::On, "power on"),
    (Mode::Drying, "filament drying"),
];
/// In the order of their numbers on the WebSocket, which begin at 1.
const PROFILES: [&str; 3] = ["pla", "petg", "custom"];

#[cfg(test)]
mod tests {
    use super::super::tests::{device, run};
    use super::super::{Fault, Firmware};
    use super::*;

    fn state(device: &Device) -> Value {
        serde_json::from_slice(&device.published_state().payload).unwrap()
    }

    fn after(text: &str) -> Device {
        let mut device = device(Firmware::V1_0_4);
        assert_eq!(device.handle_mqtt(text.as_bytes()), Effect::None);
        device
    }

    #[test]
    fn the_state_has_the_keys_and_types_that_users_have_seen() {
        let mut device = device(Firmware::V1_0_4);
        run(&mut device, 3);
        let state = state(&device);
        assert_eq!(state["chamber_temp"], 22);
        assert_eq!(
            (&state["work_on"], &state["mode"]),
            (&"ON".into(), &"auto mode".into())
        );
        assert_eq!(
            (&state["target_temp"], &state["heater_temp"]),
            (&60.into(), &80.into())
        );
        assert_eq!(state["filament_drying_mode"], "petg");
        assert_eq!(state["drying_running"], "OFF");
        assert_eq!(state.as_object().unwrap().len(), 15);
        assert_eq!(
            device.published_state().topic,
            "panda_breath/025042000001/state"
        );
    }

    #[test]
    fn a_command_is_visible_in_the_next_state_and_heats() {
        let mut device = after(r#"{"work_on":"ON","mode":"power on","target_temp":45}"#);
        let published = state(&device);
        assert_eq!(
            (&published["mode"], &published["target_temp"]),
            (&"power on".into(), &45.into())
        );
        run(&mut device, 5);
        assert!(device.state().heater);
        assert_eq!(device.handle_mqtt(br#"{"work_on":"OFF"}"#), Effect::None);
        run(&mut device, 1);
        assert!(!device.state().heater && !device.state().work_on);
        device.power_off();
        device.boot();
        assert_eq!(state(&device)["target_temp"], 45, "stored");
    }

    #[test]
    fn drying_can_be_chosen_and_started() {
        let device = after(
            r#"{"mode":"filament drying","filament_drying_mode":"pla","drying_running":"ON"}"#,
        );
        let published = state(&device);
        assert_eq!(published["filament_drying_mode"], "pla");
        assert_eq!(published["drying_running"], "ON");
        assert_eq!(published["drying_remaining_min"], 720);
    }

    #[test]
    fn what_a_command_does_not_mean_is_ignored() {
        let factory = state(&after("{}"));
        for text in [
            r#"{"work_on":false,"mode":2,"target_temp":"45","set_temp":45}"#,
            r#"{"work_on":"off","mode":"on"}"#,
            r#"{"settings":{"work_on":false}}"#,
            "[]",
            "OFF",
            "",
        ] {
            assert_eq!(state(&after(text)), factory, "{text}");
        }
    }

    #[test]
    fn its_will_says_that_it_is_offline() {
        let terms = device(Firmware::V1_0_4).terms();
        let will = terms.will.unwrap();
        assert_eq!(will.topic, "panda_breath/025042000001/availability");
        assert_eq!(
            (will.payload.as_slice(), will.retain),
            (b"offline".as_slice(), true)
        );
        assert_eq!(terms.subscriptions, ["panda_breath/025042000001/command"]);
    }

    #[test]
    fn binding_is_stored_shown_and_undone() {
        let mut device = device(Firmware::V1_0_4);
        assert_eq!(device.broker(), None);
        let bind = br#"{"ha":{"ip":"192.0.2.5","port":1883,"user":"u","password":"S5"}}"#;
        assert_eq!(device.handle_text(bind), Effect::None);
        device.power_off();
        device.boot();
        device.set_broker_connected(true);
        let broker = device.broker().unwrap();
        assert_eq!((broker.host.as_str(), broker.port), ("192.0.2.5", 1883));
        let snapshot: Value = serde_json::from_str(&device.snapshot()).unwrap();
        assert_eq!(snapshot["ha"]["password"], "S5");
        assert_eq!(snapshot["ha"]["state"], 3);
        assert!(device.take_push().unwrap().contains("\"ha\""));
        assert_eq!(
            device.handle_text(br#"{"ha":{"disconnect":1}}"#),
            Effect::None
        );
        assert_eq!(device.broker(), None);
    }

    #[test]
    fn older_firmware_knows_no_broker() {
        let mut device = device(Firmware::V1_0_3);
        let bind = br#"{"ha":{"ip":"192.0.2.5","port":1883,"user":"u","password":"p"}}"#;
        assert_eq!(device.handle_text(bind), Effect::None);
        assert_eq!(device.broker(), None);
        assert!(!device.snapshot().contains("\"ha\""));
    }

    #[test]
    fn a_fault_shows_in_the_state() {
        let mut device = after(r#"{"mode":"power on"}"#);
        device.fault(Fault::ChamberOpen);
        run(&mut device, 1);
        assert_eq!(state(&device)["work_on"], "OFF");
    }
}
