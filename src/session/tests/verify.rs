//! What Klipper makes of the readings: its heater reads 0 after 7 s without one, and
//! `verify_heater`, with the values that the shim gives it, may shut the printer down.

use super::super::{Config, Millis, Snapshot};

/// Klipper's own limit for a reading's age.
const NO_READING: Millis = 7_000;
const GAIN: f64 = 1.0;
const GAIN_TIME: Millis = 360_000;
const HYSTERESIS: f64 = 5.0;

/// `[verify_heater]`, looked at once per second.
#[derive(Clone, Debug)]
pub(crate) struct Verify {
    pub(crate) max_error: f64,
    /// The printer would have been shut down.
    pub(crate) has_tripped: bool,
    /// The largest sum of errors that there was.
    pub(crate) worst: f64,
    /// Looks at which the reading was too old.
    pub(crate) blind: u64,
    error: f64,
    approaching: bool,
    starting: bool,
    last_target: f64,
    goal: f64,
    goal_at: Millis,
}

impl Verify {
    /// As the shim sets it up for these options.
    pub(crate) fn new(config: &Config) -> Self {
        let per_second = f64::from(config.max_target.max(60));
        #[expect(clippy::cast_precision_loss, reason = "seconds")]
        let lost_after = config.lost_after as f64 / 1000.0;
        Self {
            max_error: per_second * lost_after,
            has_tripped: false,
            worst: 0.0,
            blind: 0,
            error: 0.0,
            approaching: false,
            starting: false,
            last_target: 0.0,
            goal: 0.0,
            goal_at: 0,
        }
    }

    pub(crate) fn look(&mut self, now: Millis, snapshot: &Snapshot, target: f64) {
        let fresh = snapshot.reading.filter(|r| now <= r.at + NO_READING);
        self.blind += u64::from(fresh.is_none());
        self.check(now, fresh.map_or(0.0, |r| r.celsius), target);
    }

    /// The same algorithm as Klipper's.
    pub(crate) fn check(&mut self, now: Millis, celsius: f64, target: f64) {
        let changed = target.total_cmp(&self.last_target).is_ne();
        self.last_target = target;
        if target <= 0.0 || celsius >= target - HYSTERESIS {
            self.approaching = false;
            self.starting = false;
            if celsius <= target + HYSTERESIS {
                self.error = 0.0;
            }
            return;
        }
        self.error += target - HYSTERESIS - celsius;
        if !self.approaching {
            if changed {
                self.approaching = true;
                self.starting = true;
                self.aim(now, celsius);
            } else {
                self.worst = self.worst.max(self.error);
                self.has_tripped |= self.error >= self.max_error;
            }
        } else if celsius >= self.goal {
            self.starting = false;
            self.error = 0.0;
            self.aim(now, celsius);
        } else if now >= self.goal_at {
            self.approaching = false;
        } else if self.starting {
            self.goal = self.goal.min(celsius + GAIN);
        }
    }

    fn aim(&mut self, now: Millis, celsius: f64) {
        self.goal = celsius + GAIN;
        self.goal_at = now + GAIN_TIME;
    }
}
