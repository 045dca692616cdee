//! A bound on how often something may be done (rule R6).

use super::Millis;

/// A token bucket: `burst` at once, then one per `refill`.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    burst: u32,
    refill: Millis,
    left: u32,
    since: Millis,
}

impl Budget {
    pub(super) fn new(burst: u32, refill: Millis) -> Self {
        Self {
            burst,
            refill,
            left: burst,
            since: 0,
        }
    }

    /// Takes one, if there is one.
    pub(super) fn take(&mut self, now: Millis) -> bool {
        self.fill(now);
        let some = self.left > 0;
        self.left = self.left.saturating_sub(1);
        some
    }

    /// When there will be one; `now` or earlier if there is one already.
    pub(super) fn ready_at(&mut self, now: Millis) -> Millis {
        self.fill(now);
        if self.left > 0 {
            now
        } else {
            self.since + self.refill
        }
    }

    /// Whether none was taken for so long that all are back.
    pub(super) fn is_full(&mut self, now: Millis) -> bool {
        self.fill(now);
        self.left == self.burst
    }

    fn fill(&mut self, now: Millis) {
        let earned = now.saturating_sub(self.since) / self.refill;
        let room = u64::from(self.burst - self.left);
        if earned >= room {
            self.left = self.burst;
            self.since = now;
        } else {
            self.left += u32::try_from(earned).unwrap_or(self.burst);
            self.since += earned * self.refill;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn burst_then_one_per_refill() {
        let mut budget = Budget::new(3, 100);
        assert!((0..3).all(|_| budget.take(1_000)));
        assert!(!budget.take(1_050));
        assert_eq!(budget.ready_at(1_050), 1_100);
        assert!(budget.take(1_100));
        assert!(!budget.take(1_199));
        assert!((0..3).all(|_| budget.take(9_000)));
        assert!(!budget.take(9_000));
    }

    #[test]
    fn nothing_is_earned_while_all_are_there() {
        let mut budget = Budget::new(3, 100);
        assert!((0..3).all(|_| budget.take(450)));
        assert!(!budget.take(450));
    }

    #[test]
    fn what_was_earned_meanwhile_is_counted_and_no_more_than_that() {
        let mut budget = Budget::new(3, 100);
        assert!((0..3).all(|_| budget.take(1_000)));
        assert!(!budget.is_full(1_250));
        assert!(budget.take(1_250) && budget.take(1_250));
        assert!(!budget.take(1_299), "two were earned in 250 ms");
        assert_eq!(budget.ready_at(1_299), 1_300);
        assert!(budget.take(1_300));
        assert!(!budget.is_full(1_599));
        assert!(budget.is_full(1_600));
        assert_eq!(budget.ready_at(1_700), 1_700);
    }
}
