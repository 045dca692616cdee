//! What was concluded then, next to what is concluded now: both come in the order of their times, and
//! of either only what still waits for its counterpart is kept (rule R6).

use std::collections::VecDeque;

use super::observer::Conclusion;
use crate::session::Millis;

/// More differences than anybody reads.
const MOST_SHOWN: usize = 50;
/// More than a session concludes from one event to the next.
const MOST_WAITING: usize = 1_000;

pub(super) type At = (Millis, Conclusion);

/// Conclusions that are only on one side.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    then: VecDeque<At>,
    now: VecDeque<At>,
    /// How many there were then.
    pub(super) count: usize,
    /// How many differ, and the first of them: `-` then, `+` now.
    pub(super) different: usize,
    pub(super) shown: Vec<(char, At)>,
}

impl Comparison {
    pub(super) fn then(&mut self, one: At) {
        self.count += 1;
        meet(one, &mut self.now, &mut self.then);
        if self.then.len() > MOST_WAITING {
            let oldest = self.then.pop_front();
            self.differ(oldest.map(|one| ('-', one)));
        }
    }

    pub(super) fn now(&mut self, one: At) {
        meet(one, &mut self.then, &mut self.now);
        if self.now.len() > MOST_WAITING {
            let oldest = self.now.pop_front();
            self.differ(oldest.map(|one| ('+', one)));
        }
    }

    /// What is older than this waits in vain.
    pub(super) fn settle(&mut self, before: Millis) {
        let old = |waiting: &mut VecDeque<At>| -> Vec<At> {
            let count = waiting.partition_point(|(ms, _)| *ms < before);
            waiting.drain(..count).collect()
        };
        let then = old(&mut self.then).into_iter().map(|one| ('-', one));
        let now = old(&mut self.now).into_iter().map(|one| ('+', one));
        let mut all: Vec<_> = then.chain(now).collect();
        all.sort_by_key(|(_, (ms, _))| *ms);
        self.differ(all);
    }

    /// Nothing more comes. Whoever was killed while writing had not yet written all that follows from
    /// the last line.
    pub(super) fn finish(&mut self, killed: bool) {
        if killed {
            self.now.clear();
        }
        self.settle(Millis::MAX);
    }

    fn differ(&mut self, all: impl IntoIterator<Item = (char, At)>) {
        for one in all {
            self.different += 1;
            if self.shown.len() < MOST_SHOWN {
                self.shown.push(one);
            }
        }
    }
}

/// Takes its counterpart away, or begins to wait for it.
fn meet(one: At, others: &mut VecDeque<At>, waiting: &mut VecDeque<At>) {
    if let Some(at) = others.iter().position(|other| *other == one) {
        others.remove(at);
    } else {
        waiting.push_back(one);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(ms: Millis, text: &str) -> At {
        (ms, Conclusion::Says(text.to_owned()))
    }

    #[test]
    fn what_is_only_on_one_side_is_told_in_the_order_of_its_time() {
        let mut compared = Comparison::default();
        for one in [says(1, "a"), says(2, "gone"), says(4, "b")] {
            compared.then(one);
        }
        for one in [says(1, "a"), says(1, "new"), says(4, "b")] {
            compared.now(one);
        }
        compared.settle(4);
        compared.then(says(5, "other"));
        compared.now(says(5, "later"));
        compared.finish(false);
        assert_eq!(compared.count, 4);
        assert_eq!(compared.different, 4);
        let shown = [
            ('+', says(1, "new")),
            ('-', says(2, "gone")),
            ('-', says(5, "other")),
            ('+', says(5, "later")),
        ];
        assert_eq!(compared.shown, shown);
    }

    #[test]
    fn what_was_not_written_any_more_is_no_difference() {
        let mut compared = Comparison::default();
        compared.then(says(1, "a"));
        compared.now(says(1, "a"));
        compared.now(says(1, "b"));
        compared.finish(true);
        assert_eq!(compared.different, 0);
    }

    #[test]
    fn r6_what_differs_everywhere_is_counted_and_not_kept() {
        let mut compared = Comparison::default();
        for n in 0..10_000 {
            compared.then(says(7, &n.to_string()));
            compared.now(says(7, "now"));
        }
        let waiting = compared.then.len() + compared.now.len();
        assert!(waiting <= 2 * MOST_WAITING, "{waiting}");
        compared.finish(false);
        assert_eq!(
            (compared.different, compared.shown.len()),
            (20_000, MOST_SHOWN)
        );
    }
}
