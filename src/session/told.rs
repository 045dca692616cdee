//! What a device behind a broker says that it does: its answers to what was asked, its restarts,
//! our own will, and the hands of others.

use crate::dialect::Report;

use super::device::CROSSING;
use super::link::{Main, Phase};
use super::steer::Want;
use super::{Millis, Session};

/// An off so soon after our own connection came back, and the device with it, is our own will's.
const OWN_WILL: Millis = 10_000;

impl Session {
    /// What the device says that it does.
    pub(super) fn state_told(&mut self, now: Millis, report: &Report) {
        if report.on.is_none() && report.heating.is_none() && report.target.is_none() {
            return;
        }
        match report.on {
            Some(true) => self.told_on(now, report),
            Some(false) => self.told_off(now),
            None => {}
        }
        if let Some(main) = self.main.as_mut() {
            main.unanswered = false;
        }
        if let Some(asked) = self.asked.as_mut() {
            asked.told = true;
        }
        let device = &mut self.device;
        device.on = report.on.or(device.on);
        device.heating = report.heating.or(device.heating);
        device.mode = report.mode.or(device.mode);
        device.target = report.target.or(device.target);
        device.target_step = report.target_step.or(device.target_step);
    }

    fn told_on(&mut self, now: Millis, report: &Report) {
        self.device.restarted = false;
        // Switched on it stays when drying is ended by hand.
        if !self.dries() || report.drying != Some(false) {
            self.device.declined_at = None; // the last press counts
        }
        let was = self.device.on;
        match self.want() {
            Want::Heat(_) => return,
            Want::LeaveOn => return self.off.seen_on(),
            Want::Off if was == Some(true) => return,
            Want::Off => {}
        }
        self.off.seen_on();
        if was.is_none() {
            self.tell(now, "the device is on; turning it off".to_owned());
        } else if self.asked.is_none() {
            self.external_on(now, "the device was turned on by hand or by another client");
            self.count_found_on(now);
        }
    }

    fn told_off(&mut self, now: Millis) {
        let was = self.device.on;
        if !self.wants_heat() {
            return;
        }
        if was.is_none() && std::mem::take(&mut self.device.restarted) {
            // What a restart makes of it is nobody's wish; again so soon, it is somebody's.
            if !self.restart_budget.take(now) {
                self.declined(now);
            }
            return;
        }
        let in_between = self.asked.is_some() || self.is_crossing(now);
        if was != Some(true) || (in_between && !self.device.heat_confirmed) {
            return; // it has not read the latest command yet, and may answer to an earlier off
        }
        let own_will = self.main.as_mut().is_some_and(|main| {
            // On a bad network it is heard late, like everything.
            let back = main.phase == Phase::Live;
            let soon = !back || now < main.opened_at.max(main.live_at) + OWN_WILL;
            soon && !std::mem::replace(&mut main.voice.will_seen, true)
        });
        if !own_will {
            self.declined(now);
        }
    }

    /// Whether what is told now may have been on its way when the last command was published.
    fn is_crossing(&self, now: Millis) -> bool {
        let written = self.main.as_ref().and_then(Main::last_write);
        written.is_some_and(|written| now < written + CROSSING)
    }
}
