//! What the device's reports mean: readings, faults, and hands at the device.

use crate::dialect::{Fault, Firmware, Mode, Report, Setting, Settings};

use super::link::Phase;
use super::steer::Want;
use super::{Millis, OnExternalOff, OnExternalOn, Reading, Reason, Session, Trouble};

/// A sensor fault is repeated every 500 ms as long as it lasts.
const FAULT_LASTS: Millis = 3_000;
/// A protective stop is pushed before its reason: so long an unexplained off is not yet a hand.
const REASON_FOLLOWS: Millis = 1_200;
/// A reason that comes even later still corrects what was made of it.
const REASON_LATE: Millis = 5_000;
/// A sensor that stays stale for so long on a connection that works is worth a line.
const SILENT_SENSOR: Millis = 20_000;
/// A report this soon after a write may have been on its way before the device read it.
pub(super) const CROSSING: Millis = 1_000;

/// The device's state as far as it is known: what it said, and what was written since.
#[derive(Clone, Debug, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own, not a state"
)]
pub(super) struct Device {
    pub(super) on: Option<bool>,
    pub(super) mode: Option<Mode>,
    pub(super) heating: Option<bool>,
    pub(super) target: Option<f64>,
    /// How finely the target is told, C.
    pub(super) target_step: Option<f64>,
    pub(super) target_limit: Option<f64>,
    /// It has said that it heats since the last off: another off is no answer of its.
    pub(super) heat_confirmed: bool,
    /// It has connected anew, and has not yet said that it is on.
    pub(super) restarted: bool,
    pub(super) drying: Option<bool>,
    pub(super) remaining: Option<(u32, Millis)>,
    pub(super) settings: Settings,
    pub(super) firmware: Option<Firmware>,
    pub(super) trouble: Option<Trouble>,
    fault_at: Millis,
    pub(super) external_off: bool,
    pub(super) external_on_allowed: bool,
    /// It was turned off while heat is wanted, since when; the reason may follow.
    pub(super) declined_at: Option<Millis>,
    /// A report crossed one of our writes: only a fresh snapshot tells who was first.
    pub(super) doubt_at: Option<Millis>,
    pub(super) last_look: Millis,
    pub(super) last_sent: Option<Setting>,
}

impl Device {
    pub(super) fn is(&self, setting: Setting) -> bool {
        match setting {
            // Where there is a word for the element, it is the one that counts.
            Setting::Off => self.on == Some(false) && self.heating != Some(true),
            Setting::Heat(target) => {
                self.on == Some(true)
                    && self.mode == Some(Mode::On)
                    && self.is_near(target.celsius())
            }
            Setting::Dry { target, .. } => {
                self.on == Some(true)
                    && self.mode == Some(Mode::Drying)
                    && self.drying == Some(true)
                    && self.settings.custom_temp.map(u16::from) == Some(target.degrees())
            }
        }
    }

    /// Whether the device's target is this one, as finely as it tells it.
    pub(super) fn is_near(&self, celsius: f64) -> bool {
        let half_a_step = self.target_step.unwrap_or(1.0) / 2.0 + 1e-6;
        self.target
            .is_some_and(|told| (told - celsius).abs() <= half_a_step)
    }

    pub(super) fn assume(&mut self, setting: Setting) {
        match setting {
            Setting::Off => {
                self.on = Some(false);
                self.drying = self.drying.map(|_| false);
            }
            Setting::Heat(target) => {
                self.on = Some(true);
                self.mode = Some(Mode::On);
                self.target = Some(f64::from(target.degrees()));
            }
            Setting::Dry { target, .. } => {
                self.on = Some(true);
                self.mode = Some(Mode::Drying);
                self.drying = Some(true);
                self.settings.custom_temp = u8::try_from(target.degrees()).ok();
            }
        }
        self.last_sent = Some(setting);
    }

    /// What it heats to in the mode it is in, C.
    pub(super) fn target(&self) -> Option<f64> {
        match self.last_sent {
            Some(Setting::Dry { .. }) if self.mode == Some(Mode::Drying) => {
                self.settings.custom_temp.map(f64::from)
            }
            _ => self.target,
        }
    }

    /// Whatever it said may no longer be so.
    pub(super) fn forget_state(&mut self) {
        self.on = None;
        self.drying = None;
        self.heating = None;
        self.heat_confirmed = false;
    }

    /// A new target is a new try: it clears what was only said once.
    pub(super) fn new_target(&mut self) {
        self.external_off = false;
        self.declined_at = None;
        if !self.sensor_fault() {
            self.trouble = None;
        }
    }

    pub(super) fn sensor_fault(&self) -> bool {
        matches!(self.trouble, Some(Trouble::Device(fault)) if fault.is_sensor())
    }
}

impl Session {
    /// It is on although it was turned off; the third time that is a fault. Returns whether it is.
    pub(super) fn count_found_on(&mut self, now: Millis) -> bool {
        let fault = self.off.found_on();
        if fault && self.device.trouble.is_none() {
            self.device.trouble = Some(Trouble::WillNotStayOff);
            self.tell(now, Trouble::WillNotStayOff.text());
        }
        fault
    }

    /// Whether a hand may turn it on now.
    pub(super) fn may_stay_on(&self) -> bool {
        self.wants_nothing() && self.config.on_external_on == OnExternalOn::Allow
    }

    pub(super) fn external_on(&mut self, now: Millis, what: &str) {
        if self.config.on_external_on == OnExternalOn::LookOn && self.wants_nothing() {
            return;
        }
        if self.may_stay_on() {
            self.device.external_on_allowed = true;
            self.tell(
                now,
                format!("{what}; it stays on until the next target (on_external_on: allow)"),
            );
        } else {
            self.tell(now, format!("{what} while its target is 0; turning it off"));
        }
    }

    /// The device was turned off while heat is wanted. Why, is decided a little later.
    pub(super) fn declined(&mut self, now: Millis) {
        self.device.declined_at.get_or_insert(now);
    }

    /// Takes over what a report says, whoever asked for it.
    pub(super) fn take(&mut self, now: Millis, report: &Report) {
        if let Some(fault) = report.fault {
            self.fault(now, fault);
        }
        self.drying_told(now, report);
        let device = &mut self.device;
        if report.on == Some(true) {
            device.on = report.on;
        }
        device.mode = report.mode.or(device.mode);
        device.target = report.target.or(device.target);
        device.drying = report.drying.or(device.drying);
        if let Some(seconds) = report.remaining_seconds {
            device.remaining = Some((seconds, now));
        }
        let settings = &mut device.settings;
        settings.filter_temp = report.settings.filter_temp.or(settings.filter_temp);
        settings.bed_temp = report.settings.bed_temp.or(settings.bed_temp);
        settings.custom_temp = report.settings.custom_temp.or(settings.custom_temp);
        settings.custom_hours = report.settings.custom_hours.or(settings.custom_hours);
        settings.printer_type = report.settings.printer_type.or(settings.printer_type);
        settings.language = report.settings.language.or(settings.language);
        if let Some(celsius) = report.reading {
            self.live_reading(now, celsius);
        }
    }

    fn live_reading(&mut self, now: Millis, celsius: f64) {
        let live = self
            .main
            .as_ref()
            .is_some_and(|main| main.phase == Phase::Live);
        if !live || self.device.sensor_fault() {
            return self.ignored += 1;
        }
        let number = self.reading.map_or(0, |reading| reading.number) + 1;
        self.reading = Some(Reading {
            number,
            celsius,
            at: now,
        });
        self.lost = false;
        if self.want() == Want::Off && self.device.on == Some(false) {
            self.off.reading(celsius);
            if self.off.heats_on(now, celsius) && self.device.trouble.is_none() {
                self.device.trouble = Some(Trouble::HeatsOn);
                self.tell(now, Trouble::HeatsOn.text());
            }
        }
    }

    fn fault(&mut self, now: Millis, fault: Fault) {
        let known = self.device.trouble == Some(Trouble::Device(fault));
        self.device.trouble = Some(Trouble::Device(fault));
        self.device.fault_at = now;
        self.device.declined_at = None;
        let after_external_off = self
            .forced_off
            .as_ref()
            .is_some_and(|(last, at)| last.reason == Reason::ExternalOff && now < at + REASON_LATE);
        if self.wants_heat() || (after_external_off && !known) {
            self.force_off(
                now,
                Reason::Fault(fault),
                format!("the device reports: {}", fault.text()),
            );
        } else if !known {
            self.tell(now, format!("the device reports: {}", fault.text()));
        }
    }

    /// What only time can tell: no reason followed, no fault is repeated, no reading comes.
    pub(super) fn check_device(&mut self, now: Millis) {
        if self
            .device
            .declined_at
            .is_some_and(|at| now >= at + REASON_FOLLOWS)
        {
            self.device.declined_at = None;
            self.external_off(now);
        }
        self.check_corrections(now);
        if self.fault_over_at().is_some_and(|at| now >= at) {
            self.device.trouble = None;
            self.tell(
                now,
                "the device no longer reports a sensor fault".to_owned(),
            );
        }
        if self.silent_sensor_due().is_some_and(|at| now >= at) {
            if let Some(main) = self.main.as_mut() {
                main.silent_sensor_told = true;
            }
            let place = self.place();
            let lost_after = self.config.lost_after / 1000;
            let text = format!(
                "{place} answers, but tells no temperature; after {lost_after} s without one it \
                 counts as lost; check its sensor"
            );
            self.tell(now, text);
        }
        if !self.lost && now >= self.lost_at_latest() {
            self.lost = true;
            let seconds = self.config.lost_after / 1000;
            let place = self.place();
            let text = match &self.last_error {
                Some(error) => format!("no reading from {place} for {seconds} s ({error})"),
                None => format!("no reading from {place} for {seconds} s"),
            };
            if self.wants_heat() {
                self.force_off(now, Reason::Lost, text);
            } else if self.owned {
                self.tell(now, text);
            }
        }
    }

    fn external_off(&mut self, now: Millis) {
        if !self.wants_heat() {
            return;
        }
        if self.config.on_external_off == OnExternalOff::Reassert {
            if self.reassert_budget.take(now) {
                let text = "the device was turned off by a button or another client; \
                            turning it on again (on_external_off: reassert)";
                self.device.last_sent = None; // not a correction of somebody else's setting
                return self.tell(now, text.to_owned());
            }
            let text = "the device was turned off by a button or another client, \
                        too often to turn it on again";
            return self.force_off(now, Reason::ExternalOff, text.to_owned());
        }
        let text = "the device was turned off by a button or another client";
        self.force_off(now, Reason::ExternalOff, text.to_owned());
    }

    /// When a sensor fault is over that is not repeated. Where nobody can repeat it, it lasts.
    fn fault_over_at(&self) -> Option<Millis> {
        let main = self.main.as_ref()?;
        let said = self.device.sensor_fault() && main.phase == Phase::Live;
        said.then_some(self.device.fault_at.max(main.live_at) + FAULT_LASTS)
    }

    fn lost_at_latest(&self) -> Millis {
        self.reading.map_or(self.started_at, |reading| reading.at) + self.config.lost_after
    }

    /// When to say that a device that is there tells no temperature: once per connection.
    fn silent_sensor_due(&self) -> Option<Millis> {
        let main = self.main.as_ref()?;
        let silent = main.phase == Phase::Live && !self.lost && !self.device.sensor_fault();
        let since = main
            .live_at
            .max(self.reading.map_or(0, |reading| reading.at));
        let worth_it = since + self.config.stale_after + SILENT_SENSOR;
        (silent && !main.silent_sensor_told && self.owned).then_some(worth_it)
    }

    pub(super) fn device_deadline(&self) -> Option<Millis> {
        let declined = self.device.declined_at.map(|at| at + REASON_FOLLOWS);
        let fault = self.fault_over_at();
        let lost = (!self.lost).then(|| self.lost_at_latest());
        let silent = self.silent_sensor_due();
        [declined, fault, lost, silent].into_iter().flatten().min()
    }
}
