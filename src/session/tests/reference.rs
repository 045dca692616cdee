//! What must be, said a second time and simply: from what Klipper wants, from whether the device
//! can be reached, and from what has happened to it. No states, no messages, no connections.
//!
//! * Wanted off, the device is off; and it is within a bounded time of being reached.
//! * Wanted to heat, it heats to that target, within a bounded time of being reached.
//! * A target is dropped only if something has happened: a false alarm is a bug too.
//!
//! What a guard must do will be said here too: Klipper is dead, so the device is off within 2 s.

use super::super::Millis;

/// Enough for the slowest lawful reaction when nothing is in the way: a doubt that only a second
/// connection settles, an answer that is waited for, a command that is said once more.
const REACTION: Millis = 12_000;
/// What another program does to a stock device in silence is found by the next look, at most 5 min
/// later; and what two programs do to each other in turns is set right at most every 200 s.
pub(crate) const SILENT: Millis = 520_000;
/// For what everybody can see.
pub(crate) const SEEN: Millis = 15_000;
/// So long after the last thing that happened no target is dropped any more.
const CALM: Millis = 330_000;

/// What a world knows at one moment.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(crate) struct Moment {
    pub(crate) now: Millis,
    /// What Klipper wants, if it is alive, ready, heard, and has obeyed every forced off.
    pub(crate) wanted: Option<f64>,
    /// It is filament that is to be warm.
    pub(crate) dry: bool,
    /// The session calls itself connected, and nothing is in the way of it.
    pub(crate) reached: bool,
    /// The device says that it cannot heat, or has said nothing for too long.
    pub(crate) excused: bool,
    /// The device really has a fault, and may say so at any time.
    pub(crate) faulty: bool,
    pub(crate) on: bool,
    pub(crate) target: f64,
    pub(crate) forced_offs: u32,
}

#[derive(Default)]
pub(crate) struct Reference {
    /// Told of everything that happens; elsewhere it has nothing to judge by.
    pub(crate) is_told: bool,
    wanted: (Option<f64>, bool),
    wanted_since: Millis,
    reached_since: Option<Millis>,
    excused_until: Millis,
    settled_at: Millis,
    disturbed_at: Millis,
    forced_offs: u32,
    /// How often each verdict was really passed: a judge that is never asked proves nothing.
    pub(crate) off_judged: u64,
    pub(crate) heat_judged: u64,
    pub(crate) calm_judged: u64,
}

impl Reference {
    /// Something has happened whose consequences may be seen until `settles` later.
    pub(crate) fn disturbed(&mut self, now: Millis, settles: Millis) {
        self.settled_at = self.settled_at.max(now + settles);
        self.disturbed_at = now;
    }

    /// It goes on not being calm, whatever is judged meanwhile.
    pub(crate) fn unrest(&mut self, now: Millis) {
        self.disturbed_at = now;
    }

    /// Another session, or another printer, counts its own.
    pub(crate) fn starts_anew(&mut self, forced_offs: u32) {
        self.forced_offs = forced_offs;
    }

    pub(crate) fn judge(&mut self, moment: &Moment) {
        if !self.is_told {
            return;
        }
        let now = moment.now;
        let wanted = (moment.wanted, moment.dry);
        if wanted != self.wanted {
            self.wanted = wanted;
            self.wanted_since = now;
        }
        if moment.excused {
            self.excused_until = now + REACTION;
        }
        if moment.faulty {
            self.disturbed_at = now;
        }
        if moment.forced_offs > self.forced_offs {
            let calm = now.saturating_sub(self.disturbed_at);
            assert!(calm <= CALM, "a target is dropped after {calm} ms of calm");
            self.forced_offs = moment.forced_offs;
        }
        if !moment.reached {
            self.reached_since = None;
            self.disturbed_at = now;
            return;
        }
        self.calm_judged += u64::from(now > self.disturbed_at + CALM);
        let reached_since = *self.reached_since.get_or_insert(now);
        let clear = self
            .wanted_since
            .max(reached_since)
            .max(self.settled_at)
            .saturating_add(REACTION);
        if now < clear {
            return;
        }
        match moment.wanted {
            None => {
                self.off_judged += 1;
                assert!(!moment.on, "R2: on, {} ms late", now - clear);
            }
            Some(target) if now >= self.excused_until => {
                self.heat_judged += 1;
                let is_so = moment.on && (moment.target - target).abs() <= 0.5 + 1e-6;
                let (on, is) = (moment.on, moment.target);
                assert!(is_so, "does not heat to {target}: {on} {is}");
            }
            Some(_) => {}
        }
    }
}

/// What is judged must be able to fail.
#[cfg(test)]
mod tests {
    use super::*;

    fn moment(now: Millis, wanted: Option<f64>, on: bool) -> Moment {
        Moment {
            now,
            wanted,
            dry: false,
            reached: true,
            excused: false,
            faulty: false,
            on,
            target: 45.0,
            forced_offs: 0,
        }
    }

    fn judges(moments: &[Moment]) -> bool {
        std::panic::catch_unwind(|| {
            let mut reference = Reference {
                is_told: true,
                ..Reference::default()
            };
            for moment in moments {
                reference.judge(moment);
            }
        })
        .is_ok()
    }

    #[test]
    fn the_reference_tells_right_from_wrong() {
        let late = REACTION + 2;
        assert!(judges(&[
            moment(1, None, true),
            moment(late - 2, None, true)
        ]));
        assert!(!judges(&[moment(1, None, true), moment(late, None, true)]));
        assert!(judges(&[moment(1, None, false), moment(late, None, false)]));
        let wanted = Some(45.0);
        assert!(judges(&[
            moment(1, wanted, true),
            moment(late, wanted, true)
        ]));
        assert!(!judges(&[
            moment(1, wanted, false),
            moment(late, wanted, false)
        ]));
        let other = Some(46.0);
        assert!(!judges(&[
            moment(1, other, true),
            moment(late, other, true)
        ]));
        let dropped = Moment {
            forced_offs: 1,
            ..moment(CALM + 1, None, false)
        };
        assert!(!judges(&[moment(0, None, false), dropped]));
    }
}
