//! `chamber_sensor`: a slow loop around the device's own regulation.
//!
//! The device's sensor sits in its own warm air and reads 5 to 9 C more than a sensor beside the
//! print. So the device's target is raised above the wish, by whole degrees and slowly: every change
//! is a flash save there, and the chamber answers in minutes, not seconds.
//!
//! The chamber follows the device's air with a lag, as if through a filter. A second such filter in
//! here ([`Boost::arrived`]) is told what the device's air is at; what it has not reached yet is on
//! its way, and is not asked for a second time. This is what keeps the steps from running ahead of
//! the chamber. The loop has one state, a whole number between two limits, and raises it only when
//! the device has reached the target it has: nothing can wind up, behind an open door or at the end
//! of the heater's power.
//!
//! The boost belongs to one stretch of heating: it starts at 0. A higher wish keeps it, for more heat
//! needs more of it. A lower one keeps it if it is at most [`SIMILAR`] lower, and else starts at 0.

use super::link::Phase;
use super::{Millis, Session};
use crate::dialect::Setting;

/// Between two changes of the device's target that are ours.
const STEP: Millis = 120_000;
/// The chamber is where it should be if it is this near, C. A step of the device moves it by a
/// little less than 1 C, so that this much on each side is always to be had.
const NEAR: f64 = 0.5;
/// How the chamber is taken to lag behind the device's air, s. Chambers of half and of three times
/// this settle as well: see `docs/chamber-sensor.md`.
const LAG: f64 = 300.0;
/// Over how long the chamber's rise is measured.
const TREND: Millis = 60_000;
/// A wish that is this much lower still needs about the same boost, C.
const SIMILAR: f64 = 5.0;

/// A chamber that stays so much below the wish for so long at the highest target is told to people.
const SHORT: f64 = 2.0;
const PATIENCE: Millis = 900_000;
/// And does not rise by even a degree in a quarter of an hour, C/s.
const STILL: f64 = 1.0 / 900.0;

/// What one turn of the loop looks at. Temperatures in C.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    pub(super) wish: f64,
    pub(super) chamber: f64,
    /// Of the device's own sensor.
    pub(super) reading: f64,
    /// What the boost may be at most.
    pub(super) limit: u8,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Boost {
    degrees: u8,
    changed_at: Millis,
    /// The wish that it was found for.
    found_for: f64,
    /// How much of the device's heat has arrived in the chamber, as a temperature of its air; and
    /// when that was worked out.
    arrived: Option<(f64, Millis)>,
    /// The chamber a while ago, and by how much it has risen per second since one before that.
    before: Option<(f64, Millis)>,
    rise: f64,
    /// That it is not enough has been said.
    shortage_told: bool,
}

impl Boost {
    pub(super) fn degrees(&self) -> u8 {
        self.degrees
    }

    /// No boost; not one more before its time either.
    pub(super) fn clear(&mut self, now: Millis) {
        if self.degrees > 0 {
            self.degrees = 0;
            self.changed_at = now;
        }
    }

    /// Heating has ended, or something else begins.
    pub(super) fn reset(&mut self, now: Millis) {
        *self = Self {
            changed_at: now,
            ..Self::default()
        };
    }

    /// The wish has changed from one heat to another.
    pub(super) fn follow(&mut self, now: Millis, wish: f64) {
        if wish < self.found_for - SIMILAR {
            self.degrees = 0;
            self.found_for = wish;
        }
        self.found_for = self.found_for.max(wish);
        self.changed_at = now;
        self.shortage_told = false;
    }

    pub(super) fn step(&mut self, now: Millis, look: Look) {
        self.degrees = self.degrees.min(look.limit);
        let target = look.wish + f64::from(self.degrees);
        let ahead = target - self.arrive(now, look.reading.min(target));
        self.watch(now, look.chamber);
        if now < self.changed_at + STEP {
            return;
        }
        let reached = look.reading >= target;
        let wish = look.wish;
        // Whatever it is that warms it: a door that was closed is not in the filter.
        let coming = ahead.max(self.rise * LAG).max(0.0);
        if self.degrees < look.limit && reached && look.chamber + coming < wish - NEAR {
            self.degrees += 1;
        } else if self.degrees > 0 && look.chamber + ahead.min(0.0) > wish + NEAR {
            self.degrees -= 1;
        } else {
            return;
        }
        self.changed_at = now;
        self.found_for = wish;
    }

    /// Whether the chamber stays below the wish although nothing more can be done; once per wish.
    pub(super) fn falls_short(&mut self, now: Millis, look: Look) -> bool {
        let short = self.degrees >= look.limit
            && look.reading >= look.wish + f64::from(self.degrees)
            && look.chamber < look.wish - SHORT
            && self.rise < STILL
            && now >= self.changed_at + PATIENCE;
        short && !std::mem::replace(&mut self.shortage_told, true)
    }

    fn watch(&mut self, now: Millis, chamber: f64) {
        let (before, at) = *self.before.get_or_insert((chamber, now));
        if now >= at + TREND {
            #[expect(clippy::cast_precision_loss, reason = "about a minute")]
            let seconds = (now - at) as f64 / 1000.0;
            self.rise = (chamber - before) / seconds;
            self.before = Some((chamber, now));
        }
    }

    /// Lets the device's air, no warmer than its target, arrive in the chamber. Its overshoot is
    /// left out: it comes and goes with every stroke of the heater.
    fn arrive(&mut self, now: Millis, air: f64) -> f64 {
        let (before, at) = self.arrived.unwrap_or((air, now));
        #[expect(clippy::cast_precision_loss, reason = "milliseconds between two turns")]
        let share = 1.0 - (-(now.saturating_sub(at) as f64) / 1000.0 / LAG).exp();
        let arrived = before + (air - before) * share;
        self.arrived = Some((arrived, now));
        arrived
    }
}

impl Session {
    /// How much the device's target is above the wish now, C.
    pub(super) fn boost(&self) -> u8 {
        if self.wants_heat() {
            self.boost.degrees()
        } else {
            0
        }
    }

    pub(super) fn check_boost(&mut self, now: Millis) {
        let Some(chamber) = &self.config.chamber else {
            return self.boost.reset(now);
        };
        let most = chamber.max_boost;
        if !self.wants_heat() || self.wish.dry {
            return self.boost.reset(now);
        }
        let live = self.main.as_ref().filter(|m| m.phase == Phase::Live);
        let Some(live_at) = live.map(|main| main.live_at) else {
            return; // nothing can be sent, and the device goes on as it was told
        };
        let fresh = |at| now < at + self.config.stale_after;
        let reading = self.reading.filter(|reading| fresh(reading.at));
        let chamber = self.chamber(now);
        // Just connected again, it has not had the time for a reading. If it is where it was left,
        // nothing needs to be said before the first one.
        let goes_on = fresh(live_at) && self.device.is(Setting::Heat(self.target()));
        if reading.is_none() && chamber.is_some() && goes_on {
            return;
        }
        let (Some(reading), Some(chamber)) = (reading, chamber) else {
            return self.boost.clear(now);
        };
        // Beyond what the device takes, it would count as refused.
        let highest = f64::from(self.config.max_target);
        let highest = highest.min(self.device.target_limit.unwrap_or(highest));
        let room = (highest - self.wish.target).clamp(0.0, f64::from(most));
        let look = Look {
            wish: self.wish.target,
            chamber,
            reading: reading.celsius,
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "between 0 and a u8"
            )]
            limit: room as u8,
        };
        self.boost.step(now, look);
        if self.boost.falls_short(now, look) {
            let name = self.config.chamber.as_ref().map(|c| c.sensor.clone());
            let text = format!(
                "{} stays at {:.1} C: the device's target of {} C is the highest that max_boost, \
                 max_target and the device allow",
                name.unwrap_or_default(),
                look.chamber,
                self.target()
            );
            self.tell(now, text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A device that has long been at its target, and a chamber that does not move.
    fn steady(boost: &mut Boost, wish: f64, chamber: f64, from: Millis, to: Millis) {
        for now in (from..=to).step_by(1_000) {
            let look = Look {
                wish,
                chamber,
                reading: wish + f64::from(boost.degrees()),
                limit: 15,
            };
            boost.step(now, look);
        }
    }

    #[test]
    fn boost_waits_two_minutes_after_whatever_came_before() {
        let mut boost = Boost::default();
        boost.reset(1_000_000);
        steady(&mut boost, 45.0, 35.0, 1_000_000, 1_119_000);
        assert_eq!(boost.degrees(), 0);
        steady(&mut boost, 45.0, 35.0, 1_120_000, 1_239_000);
        assert_eq!(boost.degrees(), 1);
        boost.clear(1_239_000);
        steady(&mut boost, 45.0, 35.0, 1_240_000, 1_358_000);
        assert_eq!(boost.degrees(), 0);
        steady(&mut boost, 45.0, 35.0, 1_359_000, 1_360_000);
        assert_eq!(boost.degrees(), 1);
        boost.follow(1_400_000, 46.0);
        steady(&mut boost, 46.0, 35.0, 1_400_000, 1_519_000);
        assert_eq!(boost.degrees(), 1);
    }

    #[test]
    fn boost_is_found_anew_for_a_lower_wish_once_it_was_changed_there() {
        let mut boost = Boost::default();
        boost.follow(0, 45.0);
        steady(&mut boost, 45.0, 30.0, 0, 800_000);
        assert_eq!(boost.degrees(), 6);
        boost.follow(800_000, 41.0);
        steady(&mut boost, 41.0, 43.0, 800_000, 1_300_000);
        let found = boost.degrees();
        assert!((1..6).contains(&found), "{found}");
        boost.follow(2_000_000, 37.0); // 8 C below 45, but 4 C below 41
        assert_eq!(boost.degrees(), found);
        boost.follow(2_000_000, 35.0);
        assert_eq!(boost.degrees(), 0);
    }

    fn look(wish: f64, chamber: f64, reading: f64) -> Look {
        Look {
            wish,
            chamber,
            reading,
            limit: 15,
        }
    }

    /// A boost of so many degrees whose last change is long ago, and all of whose heat has arrived.
    fn found(degrees: u8) -> Boost {
        Boost {
            degrees,
            found_for: 45.0,
            ..Boost::default()
        }
    }

    #[test]
    fn boost_changes_by_one_outside_of_half_a_degree_and_only_when_the_device_is_there() {
        for (degrees, chamber, reading, then) in [
            (3, 44.5, 48.0, 3),
            (3, 44.4, 48.0, 4),
            (3, 44.4, 47.9, 3), // it heats still
            (3, 45.5, 48.0, 3),
            (3, 45.6, 48.0, 2),
            (3, 45.6, 40.0, 2), // less is right in any case
            (0, 60.0, 45.0, 0),
            (15, 30.0, 60.0, 15),
        ] {
            let mut boost = found(degrees);
            boost.step(1_000_000, look(45.0, chamber, reading));
            assert_eq!(boost.degrees(), then, "{degrees} {chamber} {reading}");
        }
        let mut boost = found(9);
        let less = Look {
            limit: 4,
            ..look(45.0, 45.0, 54.0)
        };
        boost.step(1_000, less);
        assert_eq!(boost.degrees(), 4, "a limit does not wait");
    }

    #[test]
    fn boost_of_what_is_on_its_way_nothing_is_asked_for_again() {
        // The air was at 35 C for long, and has just come to its target of 45 C: after 120 s a
        // third of that has arrived.
        for (chamber, raised) in [(37.7, true), (37.9, false)] {
            let mut boost = found(0);
            boost.step(0, look(45.0, chamber, 35.0));
            boost.step(120_000, look(45.0, chamber, 45.0));
            assert_eq!(boost.degrees(), u8::from(raised), "{chamber}");
        }
        // A chamber that warms up for another reason needs no more either.
        for (before, raised) in [(40.0, true), (39.2, true), (39.0, false), (36.0, false)] {
            let mut boost = found(0);
            boost.step(60_000, look(45.0, before, 45.0));
            boost.step(120_000, look(45.0, 40.0, 45.0));
            assert_eq!(boost.degrees(), u8::from(raised), "{before}");
        }
        // After a lower wish, what has arrived goes away by itself: 3 C, and 2 of them after 120 s.
        for (chamber, lowered) in [(44.4, false), (44.6, true)] {
            let mut boost = found(3);
            boost.step(0, look(45.0, 45.0, 48.0));
            boost.follow(1_000, 42.0);
            boost.step(121_000, look(42.0, chamber, 48.0));
            assert_eq!(boost.degrees(), 3 - u8::from(lowered), "{chamber}");
        }
    }

    #[test]
    fn boost_measures_the_rise_over_a_minute() {
        let mut boost = found(0);
        boost.watch(0, 30.0);
        boost.watch(59_999, 36.0);
        assert!(boost.rise.abs() < 1e-9);
        boost.watch(60_000, 36.0);
        assert!((boost.rise - 0.1).abs() < 1e-9, "6 C in 60 s");
        boost.watch(180_000, 30.0);
        assert!((boost.rise + 0.05).abs() < 1e-9, "down by 6 C in 120 s");
    }

    #[test]
    fn boost_that_is_not_enough_is_told_once_after_a_quarter_of_an_hour() {
        let short = |now, look: Look, rise: f64| {
            let mut boost = found(15);
            boost.rise = rise;
            boost.changed_at = 100_000;
            let told = boost.falls_short(now, look);
            assert!(!boost.falls_short(now, look), "once");
            boost.follow(now, look.wish);
            boost.changed_at = 100_000;
            assert_eq!(boost.falls_short(now, look), told, "once per wish");
            told
        };
        let cold = look(45.0, 42.9, 60.0);
        assert!(short(1_000_000, cold, 0.0));
        assert!(!short(999_999, cold, 0.0));
        assert!(!short(1_000_000, cold, 1.2 / 900.0), "it gets there");
        assert!(!short(1_000_000, cold, STILL), "just so");
        assert!(short(1_000_000, cold, 0.8 / 900.0));
        assert!(!short(1_000_000, look(45.0, 43.0, 60.0), 0.0), "near");
        assert!(!short(1_000_000, look(45.0, 42.9, 59.9), 0.0), "it heats");
        let more = Look { limit: 16, ..cold };
        assert!(!short(1_000_000, more, 0.0), "one more is to be had");
    }

    #[test]
    fn boost_that_was_none_is_not_held_back_by_a_sensor_that_comes_and_goes() {
        let mut boost = found(0);
        boost.reset(0);
        boost.clear(100_000);
        steady(&mut boost, 45.0, 35.0, 100_000, 120_000);
        assert_eq!(boost.degrees(), 1);
    }

    #[test]
    fn boost_is_kept_for_a_wish_that_is_five_degrees_lower() {
        for (wish, kept) in [(40.0, 6), (39.9, 0), (50.0, 6)] {
            let mut boost = found(6);
            boost.follow(0, wish);
            assert_eq!(boost.degrees(), kept, "{wish}");
        }
    }
}
