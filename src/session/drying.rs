//! `dryer`: drying filament for some hours.
//!
//! A wish like any other, at a temperature of its own and for so long. The stock firmware has a mode
//! for it and ends by itself; an ESPHome node is heated for as long. Here the time is kept for all of
//! them: a device that was restarted on the way is told what is left, and one whose own clock does not
//! end it, or whose end is not heard of, is turned off when the hours are over.
//!
//! The end is a forced off that nobody has to be alarmed about ([`Reason::Dried`]).

use super::{Millis, Reason, Session};
use crate::dialect::mqtt::Mqtt;
use crate::dialect::{Dialect, Mode, Report, Setting, Target};

const HOUR: Millis = 3_600_000;
/// The device's clock and ours may differ by this much; nearer to the end a drying that has stopped
/// has come to its end.
const NEARLY: Millis = 120_000;
/// What the firmware's own page allows, C.
const HIGHEST: u8 = 60;

#[derive(Clone, Debug, Default)]
pub(super) struct Drying {
    /// When the hours are over, of a wish to dry.
    until: Millis,
    /// It ran when the connection ended.
    ran: bool,
}

impl Session {
    /// A new wish begins its hours, should it be one to dry.
    pub(super) fn drying_wish(&mut self, now: Millis) {
        self.drying.until = now + Millis::from(self.config.drying_hours) * HOUR;
    }

    /// Whether it is filament that Klipper wants heat for.
    pub(super) fn dries(&self) -> bool {
        self.wants_heat() && self.wish.dry
    }

    /// What the device is asked to be in order to fulfil the wish to dry.
    pub(super) fn drying_setting(&self) -> Setting {
        let step = self.mqtt.as_ref().map_or(10, Mqtt::step_tenths);
        let most = self.config.max_target.min(HIGHEST);
        let target = Target::nearest(self.wish.target, step, most);
        if self.dialect() == Some(Dialect::Esphome) {
            return Setting::Heat(target);
        }
        let hours = self.drying_left().div_ceil(HOUR).clamp(1, 99);
        Setting::Dry {
            target,
            hours: u8::try_from(hours).unwrap_or(1),
        }
    }

    fn drying_left(&self) -> Millis {
        self.drying
            .until
            .saturating_sub(self.last_turn.unwrap_or(0))
    }

    /// Whether a drying cycle runs, as far as is known.
    pub(super) fn is_drying(&self) -> Option<bool> {
        if self.dries() && self.dialect() == Some(Dialect::Esphome) {
            return self.device.on; // it has no word for it
        }
        let device = &self.device;
        // The firmware goes on saying that the programme runs while it does something else.
        let in_mode = device.on == Some(true) && device.mode == Some(Mode::Drying);
        device.drying.map(|runs| runs && in_mode)
    }

    /// What is left of it, seconds, and when that was so. While it stands still the firmware tells
    /// how long the next one would take; that is not what is left.
    pub(super) fn drying_remaining(&self, now: Millis) -> Option<(u32, Millis)> {
        if !self.dries() {
            let runs = self.is_drying() == Some(true);
            return self.device.remaining.filter(|_| runs);
        }
        let left = self.drying.until.saturating_sub(now).div_ceil(1_000);
        Some((u32::try_from(left).unwrap_or(u32::MAX), now))
    }

    pub(super) fn check_drying(&mut self, now: Millis) {
        if self.drying_deadline().is_some_and(|at| now >= at) {
            self.dried(now);
        }
    }

    pub(super) fn drying_deadline(&self) -> Option<Millis> {
        self.dries().then_some(self.drying.until)
    }

    fn dried(&mut self, now: Millis) {
        let hours = self.config.drying_hours;
        let left = self.drying_left();
        let text = if left <= NEARLY {
            format!("filament drying has ended after {hours} h; the heater is off")
        } else {
            let minutes = left / 60_000;
            format!(
                "the device ended filament drying {minutes} min before its time; the heater is off"
            )
        };
        self.force_off(now, Reason::Dried, text);
    }

    /// The connection is gone. Whoever restarts dries no more, and 0.0.0 does not say so.
    pub(super) fn drying_unheard(&mut self) {
        if self.dries() {
            self.drying.ran |= self.device.drying == Some(true);
            self.device.drying = None;
        } else {
            self.drying.ran = false;
        }
    }

    /// The device says what it does. One that was drying, is still switched on, and dries no more has
    /// come to the end; or somebody has ended it on its page (rule R9).
    pub(super) fn drying_told(&mut self, now: Millis, report: &Report) {
        let ran = report.is_snapshot() && std::mem::take(&mut self.drying.ran);
        let stands_still = report.drying == Some(false)
            && report.on == Some(true)
            && report.mode == Some(Mode::Drying);
        if !stands_still || !self.dries() {
            return;
        }
        if self.device.drying != Some(true) {
            // What a restart makes of it is nobody's wish; again so soon, it is somebody's.
            if ran && !self.restart_budget.take(now) {
                self.declined(now);
            }
            return;
        }
        let told = self.device.remaining.map(|(seconds, _)| u64::from(seconds));
        let told_left = told.filter(|_| self.mqtt.is_some()); // the other does not count aloud
        let left = told_left.map_or(self.drying_left(), |seconds| seconds * 1_000);
        // Of other clients' writes it tells nobody: what it says by itself is the end.
        let is_said = self.mqtt.is_none() && !report.is_snapshot();
        if is_said || left.min(self.drying_left()) <= NEARLY {
            self.dried(now);
        } else {
            self.declined(now);
        }
    }
}
