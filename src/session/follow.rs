//! `follow_bed`: what the bed's target makes of the chamber's.
//!
//! It only says what Klipper's target is to become ([`Followed`]). The shim sets it, and then it is a
//! target like any other: a wish of Klipper's, with all that rule R3 asks of one.
//!
//! A target that somebody else sets, 0 included, and any forced off hold until the bed's target has
//! been 0. What is held then goes off with the bed. While filament dries nothing is followed.

use super::{Link, Millis, Session, refusal};

/// So much below its step the bed's target may be before the step is left, C: the first layer's bed
/// is often some degrees warmer than the others'.
const DROP: f64 = 5.0;

/// One line of the table: from this target of the bed on, this target of the chamber.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Step {
    /// Target of the bed, C.
    pub bed: f64,
    /// Target of the chamber, C.
    pub chamber: f64,
}

/// What Klipper's target is to become.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Followed {
    /// C; 0 is off.
    pub target: f64,
    /// Only if no target was set by anybody else after this one ([`super::Wish::hand`]).
    pub hand: u32,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Follow {
    /// Which line of the table the bed is on.
    step: Option<usize>,
    /// The bed has had a target since it was 0.
    hot: bool,
    /// Somebody else decides, until the bed's target has been 0.
    held: bool,
    /// What Klipper's target is to become.
    target: Option<f64>,
    /// Why it cannot be followed has been said.
    wait_told: bool,
}

impl Follow {
    /// Somebody else's target, or a forced off.
    pub(super) fn hold(&mut self) {
        self.held = true;
        self.target = None;
    }

    /// Takes note of the bed's target, and of Klipper's for the chamber.
    fn look(&mut self, table: &[Step], bed: f64, chamber: f64) {
        if bed > 0.0 {
            let before = self.step;
            let is_on = |(line, step): (usize, &Step)| {
                let drop = if Some(line) <= before { DROP } else { 0.0 };
                bed >= step.bed - drop
            };
            self.step = table.iter().enumerate().rposition(is_on);
            self.wait_told &= self.step == before;
            self.hot = true;
        } else {
            // A target for the chamber alone is not the bed's to end.
            self.held &= !self.hot && chamber > 0.0;
            (self.hot, self.step, self.wait_told) = (false, None, false);
        }
    }
}

impl Session {
    /// What Klipper's target is to become; `None`: whatever it is.
    pub(super) fn followed(&self) -> Option<Followed> {
        let target = self.follow.target?;
        let hand = self.wish.hand;
        Some(Followed { target, hand })
    }

    /// The bed's target.
    fn bed(&self) -> Option<f64> {
        self.around.bed.filter(|bed| bed.is_finite())
    }

    /// The bed's part of it. Said before a new wish is looked at, and again after.
    pub(super) fn look_at_bed(&mut self) {
        if let Some(bed) = self.bed() {
            let chamber = self.wish.target;
            self.follow.look(&self.config.follow, bed, chamber);
        }
    }

    pub(super) fn check_follow(&mut self, now: Millis) {
        if self.config.follow.is_empty() || !self.owned || !self.wish.armed {
            self.follow = Follow::default();
            return;
        }
        self.look_at_bed(); // it may go off while a forced off is not obeyed yet
        let (true, Some(bed)) = (self.wish.ack == self.forced_offs, self.bed()) else {
            self.follow.target = None;
            return;
        };
        if self.follow.held || self.wish.dry {
            self.follow.target = None;
            return;
        }
        let step = self
            .follow
            .step
            .and_then(|line| self.config.follow.get(line));
        let target = step.map_or(0.0, |step| step.chamber);
        let is_new = target.total_cmp(&self.wish.target).is_ne();
        if let (true, true, Some(why)) = (is_new, target > 0.0, self.cannot_follow(now)) {
            self.follow.target = None;
            if !std::mem::replace(&mut self.follow.wait_told, true) {
                let text = format!(
                    "the bed's target of {bed} C wants {target} C in the chamber (follow_bed), \
                     which has to wait: {why}"
                );
                self.tell(now, text);
            }
            return;
        }
        let said = self.follow.target.replace(target);
        if is_new && said != Some(target) {
            let text = if bed > 0.0 {
                format!("follow_bed: {target} C in the chamber for a bed of {bed} C")
            } else {
                "follow_bed: the bed is off, and so is the chamber".to_owned()
            };
            self.tell(now, text);
        }
    }

    /// Why a target above 0 would not be accepted now.
    fn cannot_follow(&self, now: Millis) -> Option<String> {
        let trouble = self.trouble().filter(super::Trouble::blocks_heat);
        if let Some(trouble) = trouble {
            return Some(trouble.text());
        }
        if self.link() == Link::Error || self.lost || self.reading.is_none() {
            let error = self.last_error.as_deref().unwrap_or("no reading yet");
            return Some(error.to_owned());
        }
        refusal(&self.config, &self.around, self.tripped, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follow_bed_a_step_is_left_five_degrees_below_it() {
        let table = [(80.0, 45.0), (100.0, 60.0)].map(|(bed, chamber)| Step { bed, chamber });
        let mut follow = Follow::default();
        for (bed, line) in [
            (79.9, None),
            (80.0, Some(0)),
            (75.0, Some(0)),
            (99.0, Some(0)),
            (100.0, Some(1)),
            (95.0, Some(1)),
            (94.9, Some(0)),
            (99.9, Some(0)),
            (110.0, Some(1)),
            (74.9, None),
            (79.0, None),
            (100.0, Some(1)),
            (0.0, None),
            (77.0, None),
        ] {
            follow.look(&table, bed, 0.0);
            assert_eq!(follow.step, line, "{bed}");
        }
    }
}
