//! One simulated device, without sockets and without a clock: text goes in, text comes out, and
//! time passes when [`Device::step`] says so.
//!
//! Two clocks drive it. `step` is *simulated* time: heat, drying and the checks of the heater.
//! [`Device::mark_reading`] and [`Device::take_push`] are the rates on the wire, which stay those
//! of the firmware (every 500 ms and every 100 ms, PROTOCOL section 1.3) however fast a
//! simulation runs.

mod control;
mod ha;
mod network;
mod receive;
mod send;
mod settings;

use std::str::FromStr;
use std::time::Duration;

use super::firmware::{Firmware, Mode};
use super::identity::Identity;
use super::thermal::{Enclosure, Thermal};
use control::Control;
use network::{Air, Network};
use send::Dirty;
pub(crate) use settings::Settings;
use settings::{KLIPPER, Printer};

/// A simulated Panda Breath.
#[derive(Debug)]
pub struct Device {
    firmware: Firmware,
    identity: Identity,
    topic_prefix: String,
    /// In flash: what a restart brings back.
    stored: Settings,
    /// In memory: what counts until then.
    live: Settings,
    control: Control,
    thermal: Thermal,
    network: Network,
    air: Air,
    dirty: Dirty,
    powered: bool,
    now_us: u64,
    saves: u64,
}

/// What a device is like when it is taken out of the box.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Its firmware.
    pub firmware: Firmware,
    /// Its MAC address.
    pub identity: Identity,
    /// The network it is in: `wifi.ssid` in the snapshot.
    pub wifi_ssid: String,
    /// In clear in the snapshot, as in the real one.
    pub wifi_password: String,
    /// In clear in the snapshot, as in the real one.
    pub ap_password: String,
    /// Access code of a Bambu printer it is bound to; none: bound to nothing.
    pub access_code: Option<String>,
    /// First level of its topics at a broker.
    pub topic_prefix: String,
    /// Where the chamber starts.
    pub chamber_c: f64,
    /// The room around it.
    pub ambient_c: f64,
    /// Heater and enclosure.
    pub enclosure: Enclosure,
}

/// What a text from a client led to, beyond a change of settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Effect {
    /// Nothing.
    None,
    /// The device restarts now, and what it was about to send is lost.
    Restart,
    /// What it was about to send leaves first, then it restarts.
    RestartAfterPush,
}

/// The buttons on the device (PROTOCOL section 8.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Button {
    /// Off.
    Power,
    /// Held down: factory settings.
    PowerLong,
    /// On, in mode Auto.
    Auto,
    /// On, always heating.
    On,
    /// On, in mode Drying; doesn't start the cycle.
    Dry,
}

/// What can break (PROTOCOL section 8.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The sensor of the heating element is not connected.
    PtcOpen,
    /// The sensor of the heating element is short-circuited.
    PtcShort,
    /// The chamber sensor is not connected.
    ChamberOpen,
    /// The chamber sensor is short-circuited.
    ChamberShort,
    /// The heating element stays cold.
    Heater,
}

/// What a device is doing, in the words of the log.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct State {
    /// Master switch.
    pub work_on: bool,
    /// Mode, in the numbers of this firmware.
    pub work_mode: u8,
    /// Target of the modes Auto and On.
    pub set_temp: u8,
    /// Filament is being dried: switched on, in that mode, and the cycle runs.
    pub drying: bool,
    /// Target and hours of the drying programme that counts.
    pub programme: (u8, u8),
    /// Whether the heating element has power.
    pub heater: bool,
    /// The air in the chamber, °C.
    pub chamber: f64,
    /// The rest of the chamber, °C, if that is another temperature.
    pub cavity: Option<f64>,
    /// The temperature the device reports, °C.
    pub reading: i32,
}

impl Device {
    /// A device that has just been switched on for the first time.
    pub fn new(setup: &Setup) -> Self {
        let mut stored = Settings::factory(setup.firmware);
        stored.wifi_ssid.clone_from(&setup.wifi_ssid);
        stored.wifi_password.clone_from(&setup.wifi_password);
        stored.ap_password.clone_from(&setup.ap_password);
        if let Some(access_code) = &setup.access_code {
            stored.printer = Printer {
                name: "bambu".to_owned(),
                sn: "01S00A000000000".to_owned(),
                access_code: access_code.clone(),
                ip: "192.0.2.30".to_owned(),
                port: 0,
            };
        }
        let air = Air::around(&stored);
        Device {
            firmware: setup.firmware,
            identity: setup.identity,
            topic_prefix: setup.topic_prefix.clone(),
            live: stored.clone(),
            network: Network::after_boot(&stored, &air),
            air,
            stored,
            control: Control::default(),
            thermal: Thermal::new(setup.enclosure, setup.chamber_c, setup.ambient_c),
            dirty: Dirty::default(),
            powered: true,
            now_us: 0,
            saves: 0,
        }
    }

    /// Lets simulated time pass: the chamber warms up or cools down, and the tasks of the firmware
    /// run when they are due.
    pub fn step(&mut self, time: Duration) {
        let end = self.now_us + u64::try_from(time.as_micros()).unwrap_or(u64::MAX / 2);
        while self.now_us < end {
            let next = end
                .min(after(self.now_us, MODE_US))
                .min(after(self.now_us, HEATER_US));
            let seconds = Duration::from_micros(next - self.now_us).as_secs_f64();
            let heating = self.control.heater && !self.control.broken(Fault::Heater);
            self.thermal.advance(seconds, heating, self.control.fan);
            self.now_us = next;
            if !self.powered {
                continue;
            }
            if next % MODE_US == 0 {
                self.run_mode_logic();
                self.run_network();
            }
            if next % HEATER_US == 0 {
                self.run_heater_task();
            }
        }
    }

    /// Presses a button. Unlike a write, that is pushed to every client.
    pub fn press(&mut self, button: Button) -> Effect {
        match button {
            // 0.0.0 has no long press.
            Button::PowerLong if self.firmware.is_prerelease() => return Effect::None,
            Button::PowerLong => return self.reset_to_factory(),
            Button::Power => {
                self.live.work_on = false;
                self.stop_drying();
            }
            Button::Auto | Button::On => {
                let mode = if button == Button::On {
                    Mode::On
                } else {
                    Mode::Auto
                };
                self.switch_on(mode);
                self.stop_drying();
            }
            Button::Dry => self.switch_on(Mode::Drying),
        }
        self.dirty.settings = true;
        if !self.firmware.is_prerelease() {
            self.save();
        }
        Effect::None
    }

    /// Breaks something.
    pub fn fault(&mut self, fault: Fault) {
        self.control.faults.push(fault);
    }

    /// Mends everything. The device stays off until somebody turns it on.
    pub fn clear_faults(&mut self) {
        self.control.faults.clear();
    }

    /// Takes the power away. Only the chamber goes on, by cooling down.
    pub fn power_off(&mut self) {
        self.powered = false;
        self.control.heater = false;
        self.control.fan = false;
        self.dirty = Dirty::default();
    }

    /// Boots: what was stored counts again, everything else starts anew.
    pub fn boot(&mut self) {
        self.powered = true;
        self.live = self.stored.clone();
        let faults = std::mem::take(&mut self.control.faults);
        self.control = Control::default();
        self.control.faults = faults;
        self.control.looked_us = self.now_us;
        let away = self.network.printer_away;
        self.network = Network::after_boot(&self.live, &self.air);
        self.network.printer_away = away;
        self.dirty = Dirty::default();
    }

    /// Changes the MAC address, as a DHCP mix-up that swaps two devices would.
    pub fn set_identity(&mut self, identity: Identity) {
        self.identity = identity;
    }

    /// Puts the chamber at a temperature.
    pub fn set_chamber(&mut self, chamber_c: f64) {
        self.thermal.set_chamber(chamber_c);
    }

    /// Opens the chamber's door, or closes it.
    pub fn set_door(&mut self, is_open: bool) {
        self.thermal.set_door(is_open);
    }

    /// Lets a connected printer ask for a bed temperature, which mode Auto follows.
    pub fn set_bed(&mut self, bed_c: u8) {
        self.network.printer_state = CONNECTED;
        self.network.bed_c = bed_c;
        self.dirty.printer = true;
    }

    /// Announces the end of a firmware upload, which only a good image survives (section 7).
    pub fn finish_upload(&mut self, known_type: bool, good_image: bool) -> Effect {
        self.respond(
            if known_type { "ota_fw" } else { "ota_unknown" },
            known_type && good_image,
        );
        if known_type && good_image {
            Effect::RestartAfterPush
        } else {
            Effect::None
        }
    }

    /// Loses everything it was about to send.
    pub(crate) fn say_nothing(&mut self) {
        self.dirty = Dirty::default();
    }

    /// What it is doing.
    pub fn state(&self) -> State {
        State {
            work_on: self.live.work_on,
            work_mode: self.live.work_mode,
            set_temp: self.live.target,
            drying: self.is_drying(),
            programme: self.programme(),
            heater: self.control.heater,
            chamber: self.thermal.chamber_c(),
            cavity: self.thermal.cavity_c(),
            reading: self.control.reading(),
        }
    }

    /// How often settings went to flash: every setting written is one save, changed or not.
    pub fn saves(&self) -> u64 {
        self.saves
    }

    /// What is in flash.
    pub(crate) fn stored(&self) -> &Settings {
        &self.stored
    }

    /// Replaces what is in flash and boots from it.
    pub(crate) fn restore(&mut self, stored: Settings) {
        self.air = Air::around(&stored); // it got into its network last time
        self.stored = stored;
        self.boot();
    }

    fn save(&mut self) {
        // A new name waits for the next restart, whatever else is stored before.
        let hostname = std::mem::take(&mut self.stored.hostname);
        self.stored = Settings {
            hostname,
            ..self.live.clone()
        };
        self.saves += 1;
    }

    fn switch_on(&mut self, mode: Mode) {
        self.live.work_on = true;
        self.live.work_mode = self.firmware.number_of(mode);
    }

    fn reset_to_factory(&mut self) -> Effect {
        let kept = self.stored.clone();
        self.live = Settings {
            // A real one would be gone from the network; the simulator's stays reachable.
            wifi_ssid: kept.wifi_ssid,
            wifi_password: kept.wifi_password,
            ..Settings::factory(self.firmware)
        };
        self.save();
        self.stored.hostname.clone_from(&self.live.hostname);
        self.respond("factory_reset", true);
        Effect::RestartAfterPush
    }

    fn uses_klipper(&self) -> bool {
        self.firmware.has_klipper() && self.live.printer_type == KLIPPER
    }
}

impl Default for Setup {
    fn default() -> Self {
        Setup {
            firmware: Firmware::V1_0_3,
            identity: Identity::default(),
            wifi_ssid: "Simulated".to_owned(),
            wifi_password: "not-a-password".to_owned(),
            ap_password: "987654321".to_owned(),
            access_code: None,
            topic_prefix: "panda_breath".to_owned(),
            chamber_c: 22.0,
            ambient_c: 22.0,
            enclosure: Enclosure::default(),
        }
    }
}

impl FromStr for Button {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "power" => Ok(Button::Power),
            "power-long" => Ok(Button::PowerLong),
            "auto" => Ok(Button::Auto),
            "on" => Ok(Button::On),
            "dry" => Ok(Button::Dry),
            _ => Err(format!(
                "unknown button '{text}': power, power-long, auto, on or dry"
            )),
        }
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "ptc-open" => Ok(Fault::PtcOpen),
            "ptc-short" => Ok(Fault::PtcShort),
            "chamber-open" => Ok(Fault::ChamberOpen),
            "chamber-short" => Ok(Fault::ChamberShort),
            "heater" => Ok(Fault::Heater),
            _ => Err(format!(
                "unknown fault '{text}': ptc-open, ptc-short, chamber-open, chamber-short, heater or clear"
            )),
        }
    }
}

/// The next multiple of `period` after `now`.
fn after(now: u64, period: u64) -> u64 {
    (now / period + 1) * period
}

/// Button and mode task (section 1.3).
const MODE_US: u64 = 200_000;
/// Temperature and heater tasks (section 1.3).
const HEATER_US: u64 = 500_000;
/// `sta.state` and `printer.state` of a connection that works.
const CONNECTED: u8 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn device(firmware: Firmware) -> Device {
        Device::new(&Setup {
            firmware,
            ..Setup::default()
        })
    }

    pub(super) fn run(device: &mut Device, seconds: u64) {
        device.step(Duration::from_secs(seconds));
    }

    #[test]
    fn on_heats_to_the_target_and_overshoots_in_every_firmware() {
        for firmware in Firmware::ALL {
            let mut device = device(firmware);
            let key = firmware.target_key();
            let text = format!(r#"{{"settings":{{"work_on":true,"work_mode":2,"{key}":45}}}}"#);
            assert_eq!(device.handle_text(text.as_bytes()), Effect::None);
            run(&mut device, 5);
            assert!(device.state().heater, "{firmware}");
            run(&mut device, 900);
            assert!(
                device.state().reading >= 45,
                "{firmware}: {:?}",
                device.state()
            );
            run(&mut device, 60);
            assert!(!device.state().heater, "{firmware}");
            assert!(
                device.state().chamber > 46.5,
                "{firmware}: {:?}",
                device.state()
            );
        }
    }

    #[test]
    fn a_power_cut_keeps_what_was_stored_and_stops_the_heater() {
        let mut device = device(Firmware::V1_0_3);
        let on = br#"{"settings":{"work_on":true,"work_mode":2,"set_temp":45}}"#;
        assert_eq!(device.handle_text(on), Effect::None);
        run(&mut device, 5);
        device.power_off();
        run(&mut device, 5);
        assert!(!device.state().heater);
        device.boot();
        run(&mut device, 5);
        let state = device.state();
        assert!(
            state.heater && state.work_on,
            "resumes by itself: {state:?}"
        );
        assert_eq!((state.work_mode, state.set_temp), (2, 45));
    }

    #[test]
    fn a_drying_cycle_does_not_survive_a_power_cut() {
        let mut device = device(Firmware::V1_0_3);
        let dry = br#"{"settings":{"work_on":true,"work_mode":3,"isrunning":1}}"#;
        assert_eq!(device.handle_text(dry), Effect::None);
        run(&mut device, 5);
        assert!(device.state().heater);
        device.power_off();
        device.boot();
        run(&mut device, 5);
        assert!(!device.state().heater);
        assert_eq!(device.state().work_mode, 3);
    }

    #[test]
    fn buttons_push_everything_and_save_except_on_the_prerelease() {
        for firmware in Firmware::ALL {
            let mut device = device(firmware);
            assert_eq!(device.press(Button::On), Effect::None);
            let push = device.take_push().unwrap();
            assert!(push.contains("\"work_on\":\t1") && push.contains("\"custom_timer\":\t12"));
            assert_eq!(device.saves(), u64::from(!firmware.is_prerelease()));
            device.boot();
            let mode = if firmware.is_prerelease() {
                Mode::Auto
            } else {
                Mode::On
            };
            assert_eq!(
                device.state().work_mode,
                firmware.number_of(mode),
                "{firmware}"
            );
        }
    }

    #[test]
    fn the_dry_button_does_not_start_the_cycle() {
        let mut device = device(Firmware::V1_0_3);
        assert_eq!(device.press(Button::Dry), Effect::None);
        run(&mut device, 5);
        assert!(device.state().work_on && !device.state().heater);
    }

    #[test]
    fn a_long_press_restores_factory_settings_and_restarts() {
        let mut device = device(Firmware::V1_0_3);
        assert_eq!(
            device.handle_text(br#"{"settings":{"set_temp":45}}"#),
            Effect::None
        );
        assert_eq!(device.press(Button::PowerLong), Effect::RestartAfterPush);
        assert!(device.take_push().unwrap().contains("factory_reset"));
        device.boot();
        assert_eq!(device.state().set_temp, 60);
    }
}
