//! What to send, and when to look again (rules R2, R3, R4, R10).

use crate::dialect::mqtt::Mqtt;
use crate::dialect::{Setting, Target};

use super::link::Phase;
use super::{Command, Conn, Millis, OnExternalOn, Session, Trouble};

/// What the rules make of Klipper's wish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    /// Heat the chamber, or dry.
    Heat(Setting),
    Off,
    /// Somebody turned it on by hand, and the user allows that.
    LeaveOn,
}

impl Session {
    /// Heat only if every reason for it holds (rule R3); off in every other case.
    pub(super) fn want(&self) -> Want {
        // Behind a broker, another device in its place hears the same commands.
        let mixed_up = self.mqtt.is_some() && (self.wrong || !self.retained.is_empty());
        if self.wants_heat()
            && !self.broken
            && !self.lost
            && !mixed_up
            && !self.device.sensor_fault()
        {
            return Want::Heat(if self.wish.dry {
                self.drying_setting()
            } else {
                Setting::Heat(self.target())
            });
        }
        let was_left_on = self.device.external_on_allowed && self.device.on != Some(false);
        let looks_on = self.config.on_external_on == OnExternalOn::LookOn;
        if (self.may_stay_on() && was_left_on) || (looks_on && self.wants_nothing()) {
            return Want::LeaveOn;
        }
        Want::Off
    }

    /// A printer that is ready has no target. One that is not ready wants the device off.
    pub(super) fn wants_nothing(&self) -> bool {
        self.owned && self.wish.armed && self.wish.target <= 0.0
    }

    /// Klipper's wish, and what it takes to get there. The device knows no limit: this is the
    /// second line of defence behind the shim, which refuses what is too high.
    pub(super) fn target(&self) -> Target {
        let step = self.mqtt.as_ref().map_or(10, Mqtt::step_tenths);
        Target::nearest(
            self.wish.target + f64::from(self.boost()),
            step,
            self.config.max_target,
        )
    }

    pub(super) fn steer(&mut self, now: Millis) {
        match self.main.as_ref().map(|main| &main.phase) {
            None | Some(Phase::Opening) => {}
            Some(_) if self.mqtt.is_some() => self.steer_broker(now),
            Some(Phase::Live) => self.steer_socket(now),
            Some(Phase::Waiting | Phase::Claiming(_)) => {}
        }
    }

    fn steer_socket(&mut self, now: Millis) {
        let Some(main) = &self.main else { return };
        let conn = main.conn;
        match self.want() {
            Want::LeaveOn => {}
            Want::Off if self.device.is(Setting::Off) => {}
            Want::Off => self.send_off(now, conn),
            Want::Heat(setting) if self.device.is(setting) => {}
            Want::Heat(setting) => {
                let ready = self.heat_ready_at(now, setting);
                if ready.is_some_and(|at| now >= at) {
                    self.send_heat(now, setting);
                }
            }
        }
        if self.probe.is_none() && self.look_due().is_some_and(|at| now >= at) {
            self.connect_probe(now);
        }
    }

    /// Off never waits. Only an off after an off, because the device says that it is on all the
    /// same, is bounded: each is a flash save, and the device may say so ten thousand times.
    fn send_off(&mut self, now: Millis, conn: Conn) {
        if self.off_ready_at(now) > now {
            return;
        }
        let Some(main) = self.main.as_mut() else {
            return;
        };
        if main.off_at.is_some() {
            self.repeat_budget.take(now);
        }
        main.off_at = Some(now);
        let text = main.stock.encode(Setting::Off);
        self.commands.push_back(Command::Send(conn, text));
        self.device.assume(Setting::Off);
    }

    fn off_ready_at(&mut self, now: Millis) -> Millis {
        match self.main.as_ref().and_then(|main| main.off_at) {
            Some(_) => self.repeat_budget.ready_at(now),
            None => now,
        }
    }

    /// When heat may be written; `None` while it waits for something that is not time.
    fn heat_ready_at(&mut self, now: Millis, setting: Setting) -> Option<Millis> {
        let main = self.main.as_ref()?;
        // Rule R4: one unanswered at the most. And why it was turned off is being waited for.
        if main.unanswered || self.device.declined_at.is_some() || !self.is_guarded() {
            return None;
        }
        let ready = self.heat_budget.ready_at(now);
        if !self.is_correction(setting) {
            return Some(ready);
        }
        Some(ready.max(self.correction_budget.ready_at(now)))
    }

    /// The same wish once more on the same connection: somebody else changed the device. It is
    /// set right, but not for ever: each write is a flash save there.
    pub(super) fn is_correction(&self, setting: Setting) -> bool {
        let written = self.main.as_ref().and_then(|main| main.heat_at);
        written.is_some_and(|at| self.wish_changed_at <= at)
            && self
                .device
                .last_sent
                .is_some_and(|sent| sent.is_like(setting))
    }

    /// Notes that somebody else's setting is being set right. Having to, again and again, is a
    /// fault until it has not been necessary for 10 min.
    pub(super) fn correct(&mut self, now: Millis) {
        self.correction_budget.take(now);
        let exhausted = self.correction_budget.ready_at(now) > now;
        let text = if exhausted && self.device.trouble.is_none() {
            self.device.trouble = Some(Trouble::Overruled);
            Trouble::Overruled.text()
        } else {
            "the device was set to something else; setting it again".to_owned()
        };
        self.tell(now, text);
    }

    pub(super) fn check_corrections(&mut self, now: Millis) {
        let is_fault = self.device.trouble == Some(Trouble::Overruled);
        if is_fault && self.correction_budget.is_full(now) {
            self.device.trouble = None;
        }
    }

    fn send_heat(&mut self, now: Millis, setting: Setting) {
        self.heat_budget.take(now);
        if self.is_correction(setting) {
            self.correct(now);
        }
        self.abort_probe(); // what it would tell is out of date
        let Some(main) = self.main.as_mut() else {
            return;
        };
        main.heat_at = Some(now);
        main.off_at = None; // what was said before says nothing about the next off
        main.unanswered = true;
        self.commands
            .push_back(Command::Send(main.conn, main.stock.encode(setting)));
        self.device.assume(setting);
        self.device.external_off = false;
        self.off
            .heat_sent(setting.target().map_or(0.0, Target::celsius));
    }

    /// When something that had to wait may go on, or a look is due.
    pub(super) fn steer_deadline(&mut self, now: Millis) -> Option<Millis> {
        if self.mqtt.is_some() {
            return self.ask_deadline(now);
        }
        self.main
            .as_ref()
            .filter(|main| main.phase == Phase::Live)?;
        let look = if self.probe.is_none() {
            self.look_due()
        } else {
            None
        };
        let send = match self.want() {
            Want::Off if !self.device.is(Setting::Off) => Some(self.off_ready_at(now)),
            Want::Heat(setting) if !self.device.is(setting) => self.heat_ready_at(now, setting),
            Want::Heat(_) | Want::Off | Want::LeaveOn => None,
        };
        look.into_iter().chain(send).min()
    }
}
