//! What is known about the device being off (rules R2 and R4).
//!
//! The stock firmware acknowledges nothing. Only a snapshot that was asked for late enough says
//! that it is off, and only for a while, because what other clients write is not pushed.

use super::Millis;

/// Heat on a connection that has ended may still be in the device's buffers for this long.
const DRAIN: Millis = 2_000;
/// If that heat was never seen to arrive, one look is not enough: look again this much later.
const SECOND_LOOK: Millis = 10_000;
/// How long off stays known without another look.
pub(super) const KNOWN_FOR: Millis = 300_000;
/// A chamber that gets this much warmer while off is looked at, C.
const RISE: f64 = 3.0;
/// A chamber that gets so much warmer within so long after an off, and so far above the target of
/// before, is heated by something. The heat that is left in the element is worth a few degrees, and
/// a hot bed is slower.
const HEATS_ON: f64 = 15.0;
const HEATS_ON_ABOVE: f64 = 10.0;
const HEATS_ON_WITHIN: Millis = 600_000;
/// Being found on this often while off is a fault.
const FOUND_ON_LIMIT: u32 = 3;

#[derive(Clone, Debug, Default)]
pub(super) struct OffWatch {
    known_at: Option<Millis>,
    /// Since when it has been so: it is confirmed again and again.
    known_since: Option<Millis>,
    /// When the last connection that carried heat ended, and whether that heat was undelivered.
    heat_ended: Option<(Millis, bool)>,
    first_look: Option<Millis>,
    lowest: Option<f64>,
    risen: bool,
    found_on: u32,
    /// It has been seen off since the last heat.
    confirmed: bool,
    /// The target of the last heat, C.
    target: Option<f64>,
    /// When the device was first off after it, and how warm it was then.
    began: Option<(Millis, f64)>,
}

impl OffWatch {
    /// Heat was sent: nothing is known any more, and a new count begins.
    pub(super) fn heat_sent(&mut self, target: f64) {
        let heat_ended = self.heat_ended;
        *self = Self {
            heat_ended,
            target: Some(target),
            ..Self::default()
        };
    }

    /// A connection that carried heat is gone; its last bytes may still be on their way.
    pub(super) fn heat_connection_ended(&mut self, now: Millis, undelivered: bool) {
        let earlier = self.heat_ended.is_some_and(|(_, undelivered)| undelivered);
        self.heat_ended = Some((now, undelivered || earlier));
        self.known_at = None;
        self.known_since = None;
        self.first_look = None;
    }

    /// From when on a connection must have been opened to prove anything, as far as ended
    /// connections matter.
    pub(super) fn proof_from(&self) -> Millis {
        self.heat_ended.map_or(0, |(ended, _)| ended + DRAIN)
    }

    /// A snapshot that proves it says off. Returns whether off is now known.
    pub(super) fn seen_off(&mut self, now: Millis) -> bool {
        let twice = self.heat_ended.is_some_and(|(_, undelivered)| undelivered);
        match self.first_look {
            None if twice => {
                self.first_look = Some(now);
                false
            }
            Some(first) if now < first + SECOND_LOOK => false,
            _ => {
                self.known_at = Some(now);
                self.known_since.get_or_insert(now);
                self.confirmed = true;
                self.heat_ended = None;
                self.first_look = None;
                self.risen = false;
                self.lowest = None;
                true
            }
        }
    }

    /// The device is on, or may be. Returns whether being found on is a fault by now.
    pub(super) fn found_on(&mut self) -> bool {
        self.seen_on();
        self.found_on += 1;
        self.found_on >= FOUND_ON_LIMIT
    }

    /// Whether it obeyed the last off. If not, that may still be on its way, and nobody else need
    /// have turned the device on.
    pub(super) fn was_off(&self) -> bool {
        self.confirmed
    }

    /// The device is on for a reason that is no surprise.
    pub(super) fn seen_on(&mut self) {
        self.known_at = None;
        self.known_since = None;
        self.first_look = None;
        self.began = None;
    }

    /// Whether the chamber is being heated, although the device says that it is off.
    pub(super) fn heats_on(&mut self, now: Millis, celsius: f64) -> bool {
        let Some(target) = self.target else {
            return false;
        };
        let (at, from) = *self.began.get_or_insert((now, celsius));
        now <= at + HEATS_ON_WITHIN && celsius >= (from + HEATS_ON).max(target + HEATS_ON_ABOVE)
    }

    /// A temperature while the device should be off: getting warmer by itself is suspicious.
    pub(super) fn reading(&mut self, celsius: f64) {
        let lowest = self.lowest.unwrap_or(celsius).min(celsius);
        self.lowest = Some(lowest);
        if celsius >= lowest + RISE {
            self.risen = true;
            self.lowest = Some(celsius);
        }
    }

    /// Off was confirmed, and nothing has been seen or sent since that would change it.
    pub(super) fn was_seen(&self) -> bool {
        self.known_at.is_some()
    }

    pub(super) fn known_since(&self) -> Option<Millis> {
        self.known_since
    }

    /// Heat of an ended connection was never seen to arrive.
    pub(super) fn is_undelivered(&self) -> bool {
        self.heat_ended.is_some_and(|(_, undelivered)| undelivered)
    }

    pub(super) fn is_known(&self, now: Millis) -> bool {
        self.known_at.is_some_and(|at| now < at + KNOWN_FOR)
    }

    /// Nobody can say that it is off now: it was never seen, or too long ago, or the chamber has
    /// become warmer since.
    pub(super) fn is_doubtful(&self, now: Millis) -> bool {
        self.risen || !self.is_known(now)
    }

    /// When the next snapshot is wanted, given when one would prove something and when the last
    /// one was taken.
    pub(super) fn next_look(&self, proof_from: Millis, last_look: Millis) -> Millis {
        match (self.known_at, self.first_look) {
            (Some(_), _) if self.risen => last_look,
            (Some(at), _) => at + KNOWN_FOR,
            (None, Some(first)) => first + SECOND_LOOK,
            (None, None) => proof_from,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r4_undelivered_heat_needs_a_second_look_ten_seconds_later() {
        let mut off = OffWatch::default();
        off.heat_connection_ended(1_000, true);
        assert_eq!(off.proof_from(), 3_000);
        assert!(!off.seen_off(3_100));
        assert_eq!(off.next_look(0, 3_100), 13_100);
        assert!(!off.seen_off(13_099), "too early");
        assert!(off.seen_off(13_100));
    }

    #[test]
    fn r4_delivered_heat_needs_one_look() {
        let mut off = OffWatch::default();
        off.heat_connection_ended(1_000, false);
        assert!(off.seen_off(3_100));
        assert!(off.is_known(3_100));
    }

    #[test]
    fn r2_known_off_expires_after_five_minutes() {
        let mut off = OffWatch::default();
        assert!(off.seen_off(0));
        assert!(off.is_known(KNOWN_FOR - 1));
        assert!(!off.is_known(KNOWN_FOR));
        assert_eq!(off.next_look(0, 0), KNOWN_FOR);
    }

    #[test]
    fn r2_a_chamber_that_warms_by_three_degrees_while_off_is_looked_at_once() {
        let mut off = OffWatch::default();
        off.seen_off(0);
        for c in [30.0, 29.0, 31.9] {
            off.reading(c);
            assert_eq!(off.next_look(0, 7), KNOWN_FOR, "{c}");
        }
        off.reading(32.0);
        assert_eq!(off.next_look(0, 7), 7);
        off.seen_off(8_000);
        off.reading(32.0);
        assert_eq!(off.next_look(0, 8_000), 8_000 + KNOWN_FOR);
    }

    #[test]
    fn r2_a_chamber_that_is_heated_after_an_off_is_told_from_one_that_is_warm() {
        let mut off = OffWatch::default();
        assert!(!off.heats_on(0, 99.0), "it was never ours to heat");
        off.heat_sent(45.0);
        assert!(!off.heats_on(1_000, 44.0));
        assert!(!off.heats_on(300_000, 58.9), "what was left in the element");
        assert!(off.heats_on(300_000, 59.0));
        assert!(!off.heats_on(601_001, 59.0), "a hot bed, in time");
        off.seen_on();
        assert!(!off.heats_on(300_000, 59.0), "somebody had turned it on");
        off.heat_sent(45.0);
        assert!(!off.heats_on(0, 25.0));
        assert!(
            !off.heats_on(1_000, 54.9),
            "not even warmer than was wished"
        );
        assert!(off.heats_on(1_000, 55.0));
    }

    #[test]
    fn r2_the_third_time_found_on_is_a_fault() {
        let mut off = OffWatch::default();
        assert_eq!(
            [off.found_on(), off.found_on(), off.found_on()],
            [false, false, true]
        );
        off.heat_sent(45.0);
        assert!(!off.found_on(), "a new target counts anew");
    }

    #[test]
    fn r4_heat_on_a_new_connection_does_not_forget_the_old_one() {
        let mut off = OffWatch::default();
        off.heat_connection_ended(1_000, true);
        off.heat_sent(45.0);
        assert_eq!(off.proof_from(), 3_000);
        assert!(!off.seen_off(3_100), "one look is not enough");
    }

    #[test]
    fn r2_being_seen_on_is_the_end_of_known_off() {
        let mut off = OffWatch::default();
        off.seen_off(0);
        off.seen_on();
        assert!(!off.is_known(1));
    }
}
