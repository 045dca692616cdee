//! What to send, and when to look again (rules R2, R3, R4, R10).

use crate::dialect::Setting;

use super::device::CROSSING;
use super::link::Phase;
use super::off::KNOWN_FOR;
use super::{Command, Conn, Millis, Session};

/// While heating and below target another client's off would otherwise go unnoticed.
const LOOK_HEATING: Millis = 60_000;
/// After a look that failed.
const LOOK_AGAIN: Millis = 2_000;

/// What the rules make of Klipper's wish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    Heat(u8),
    Off,
    /// Somebody turned it on by hand, and the user allows that.
    LeaveOn,
}

impl Session {
    /// Heat only if every reason for it holds (rule R3); off in every other case.
    pub(super) fn want(&self) -> Want {
        if self.wants_heat() && !self.broken && !self.lost && !self.device.sensor_fault() {
            return Want::Heat(self.degrees());
        }
        if self.device.external_on_allowed
            && self.owned
            && self.wish.armed
            && self.wish.target <= 0.0
        {
            return Want::LeaveOn;
        }
        Want::Off
    }

    /// The device knows whole degrees, 8 bits of them, and no limit: this is the second line of
    /// defence behind the shim, which refuses what is too high.
    fn degrees(&self) -> u8 {
        let rounded = self
            .wish
            .target
            .round()
            .clamp(1.0, f64::from(self.config.max_target));
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "clamped to a u8"
        )]
        let degrees = rounded as u8;
        degrees
    }

    pub(super) fn steer(&mut self, now: Millis) {
        let Some(main) = self.main.as_ref().filter(|main| main.phase == Phase::Live) else {
            return;
        };
        let conn = main.conn;
        match self.want() {
            Want::LeaveOn => {}
            Want::Off if self.device.is(Setting::Off) => {}
            Want::Off => self.send_off(now, conn),
            Want::Heat(c) if self.device.is(Setting::Heat(c)) => {}
            Want::Heat(c) => {
                if self.heat_ready_at(now, c).is_some_and(|at| now >= at) {
                    self.send_heat(now, c);
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
    fn heat_ready_at(&mut self, now: Millis, target: u8) -> Option<Millis> {
        let main = self.main.as_ref()?;
        // Rule R4: one unanswered at the most. And why it was turned off is being waited for.
        if main.unanswered || self.device.declined_at.is_some() {
            return None;
        }
        let ready = self.heat_budget.ready_at(now);
        if !self.is_correction(target) {
            return Some(ready);
        }
        Some(ready.max(self.correction_budget.ready_at(now)))
    }

    /// The same wish once more on the same connection: somebody else changed the device. It is
    /// set right, but not for ever: each write is a flash save there.
    fn is_correction(&self, target: u8) -> bool {
        let written = self.main.as_ref().and_then(|main| main.heat_at);
        written.is_some_and(|at| self.wish_changed_at <= at)
            && self.device.last_sent == Some(Setting::Heat(target))
    }

    fn send_heat(&mut self, now: Millis, target: u8) {
        self.heat_budget.take(now);
        if self.is_correction(target) {
            self.correction_budget.take(now);
            self.tell(
                now,
                "the device was set to something else; setting it again".to_owned(),
            );
        }
        self.abort_probe(); // what it would tell is out of date
        let Some(main) = self.main.as_mut() else {
            return;
        };
        main.heat_at = Some(now);
        main.off_at = None; // what was said before says nothing about the next off
        main.unanswered = true;
        let setting = Setting::Heat(target);
        self.commands
            .push_back(Command::Send(main.conn, main.stock.encode(setting)));
        self.device.assume(setting);
        self.device.external_off = false;
        self.off.heat_sent();
    }

    /// A fresh snapshot could not be had.
    pub(super) fn look_failed(&mut self, now: Millis) {
        self.device.last_look = now;
    }

    /// From when on a connection must be opened so that its snapshot proves something: after our
    /// last write has been delivered, and after ended connections have drained.
    fn proof_from(&self) -> Option<Millis> {
        let main = self.main.as_ref()?;
        let written = match main.last_write() {
            Some(written) if main.delivered(written) => written + CROSSING,
            Some(_) => return None,
            None => 0,
        };
        Some(written.max(self.off.proof_from()))
    }

    fn look_due(&self) -> Option<Millis> {
        let earliest = self.proof_from()?.max(self.device.last_look + LOOK_AGAIN);
        let wanted = if let Some(doubt) = self.device.doubt_at {
            doubt
        } else {
            match self.want() {
                Want::Off if self.device.on == Some(false) => {
                    self.off.next_look(earliest, self.device.last_look)
                }
                Want::Off => return None, // off is about to be sent
                Want::Heat(c) if self.is_below(c) => self.device.last_look + LOOK_HEATING,
                Want::Heat(_) | Want::LeaveOn => self.device.last_look + KNOWN_FOR,
            }
        };
        Some(wanted.max(earliest))
    }

    fn is_below(&self, target: u8) -> bool {
        self.reading
            .is_none_or(|reading| reading.celsius < f64::from(target))
    }

    /// When something that had to wait may go on, or a look is due.
    pub(super) fn steer_deadline(&mut self, now: Millis) -> Option<Millis> {
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
            Want::Heat(c) if !self.device.is(Setting::Heat(c)) => self.heat_ready_at(now, c),
            Want::Heat(_) | Want::Off | Want::LeaveOn => None,
        };
        look.into_iter().chain(send).min()
    }
}
