//! When the guard acts, and when it lets go: pure, time comes in as an argument.
//!
//! It writes to a device only when its process has ended, or was not heard of for longer than the
//! lease, or has given the device up; and it lets go as soon as that process is heard of again.

use std::collections::BTreeMap;

use crate::session::Millis;

/// Two turns further apart than this: the guard itself was not running.
const LONGEST_TURN: Millis = 2_000;
/// After that the driver, which was not running either, may speak first.
const YIELD: Millis = 3_000;
/// How often the board is looked at when nothing happens.
const LOOK: Millis = 1_000;
/// After SIGTERM a guard stays no longer, or a stop of Klipper would have to wait.
const GUARD_TERM: Millis = 5_000;
/// The machine that shuts down waits for the service this long.
const SERVICE_TERM: Millis = 15_000;

/// Who watches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Role {
    /// The guard of one process, which needs it for as long as it lives.
    #[default]
    Guard,
    /// The service, which goes on where a guard had to end.
    Service,
}

/// What the board says of one device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) may_be_on: bool,
    pub(crate) abandoned: bool,
    pub(crate) good_until: Millis,
    /// How long it may be tried.
    pub(crate) retry: Millis,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Turn the device of this slot off.
    Act(usize),
    /// Leave it to the driver, which is back.
    LetGo(usize),
    /// It could not be turned off for as long as the user wants it to be tried.
    GiveUp(usize),
    /// There is nothing left to do, or no time.
    End,
}

#[derive(Debug, Default)]
pub(crate) struct Watch {
    role: Role,
    last_turn: Option<Millis>,
    awake_since: Millis,
    ended_at: Option<Millis>,
    term_at: Option<Millis>,
    /// What is being turned off, since when.
    acting: BTreeMap<usize, Millis>,
    over: bool,
}

impl Watch {
    pub(crate) fn new(role: Role) -> Self {
        Self {
            role,
            ..Self::default()
        }
    }

    /// One look. `alive`: the process that is watched.
    pub(crate) fn turn(
        &mut self,
        now: Millis,
        alive: bool,
        seen: &BTreeMap<usize, Seen>,
    ) -> Vec<Decision> {
        let slept = self.last_turn.is_none_or(|last| now > last + LONGEST_TURN);
        if slept {
            self.awake_since = now;
        }
        self.last_turn = Some(now);
        if !alive {
            self.ended_at.get_or_insert(now);
        } else if self.role == Role::Guard && self.term_due().is_some_and(|at| now >= at) {
            self.term_at = None; // it was meant for us alone
        }
        let mut decisions = Vec::new();
        for (slot, seen) in seen {
            decisions.extend(self.device(now, *slot, *seen));
        }
        self.acting.retain(|slot, _| {
            let gone = !seen.contains_key(slot);
            if gone {
                decisions.push(Decision::LetGo(*slot));
            }
            !gone
        });
        if self.is_over(now, seen) && !self.over {
            self.over = true;
            decisions.push(Decision::End);
        }
        decisions
    }

    fn device(&mut self, now: Millis, slot: usize, seen: Seen) -> Option<Decision> {
        let due = self.is_due(now, seen);
        match self.acting.get(&slot) {
            Some(since) if due && now < since + seen.retry => None,
            Some(_) => {
                self.acting.remove(&slot);
                Some(if due {
                    Decision::GiveUp(slot)
                } else {
                    Decision::LetGo(slot)
                })
            }
            None => due.then(|| {
                self.acting.insert(slot, now);
                Decision::Act(slot)
            }),
        }
    }

    fn is_due(&self, now: Millis, seen: Seen) -> bool {
        let heard = seen.good_until >= now || now < self.awake_since + YIELD;
        seen.may_be_on && (self.ended_at.is_some() || seen.abandoned || !heard)
    }

    /// Nothing more is to be done for the device of this slot: it is off, given up, or somebody
    /// else's. The board says so from now on.
    pub(crate) fn done(&mut self, slot: usize) {
        self.acting.remove(&slot);
    }

    /// SIGTERM: either the whole service ends, or somebody ends just us.
    pub(crate) fn term(&mut self, now: Millis) {
        self.term_at = Some(now);
    }

    fn is_over(&self, now: Millis, seen: &BTreeMap<usize, Seen>) -> bool {
        if self.ended_at.is_none() {
            // Whoever sent a SIGTERM, the process still needs its guard. It has one besides us.
            return self.role == Role::Service && self.term_at.is_some();
        }
        let hurry = self.term_due().is_some_and(|at| now >= at);
        let busy = seen.values().any(|seen| seen.may_be_on);
        hurry || !busy
    }

    fn term_due(&self) -> Option<Millis> {
        let time = match self.role {
            Role::Guard => GUARD_TERM,
            Role::Service => SERVICE_TERM,
        };
        self.term_at.map(|at| at + time)
    }

    /// When to look again at the latest.
    pub(crate) fn deadline(&self, now: Millis, seen: &BTreeMap<usize, Seen>) -> Millis {
        let lapses = seen.values().filter(|seen| seen.may_be_on);
        let lapses = lapses.map(|seen| seen.good_until + 1);
        let yields = [self.awake_since + YIELD];
        let all = lapses
            .chain(self.term_due())
            .chain(yields)
            .filter(|at| *at > now);
        all.min().unwrap_or(Millis::MAX).min(now + LOOK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ON: Seen = Seen {
        may_be_on: true,
        abandoned: false,
        good_until: 20_000,
        retry: 60_000,
    };

    /// Known to be off, or settled by a guard.
    const OFF: Seen = Seen {
        may_be_on: false,
        ..ON
    };

    fn board(seen: Seen) -> BTreeMap<usize, Seen> {
        BTreeMap::from([(7, seen)])
    }

    /// A watch that has been awake for a while at 10 s.
    fn awake() -> Watch {
        let mut watch = Watch::default();
        for now in (0..=10_000).step_by(1_000) {
            assert_eq!(watch.turn(now, true, &board(ON)), []);
        }
        watch
    }

    #[test]
    fn r8_it_does_nothing_while_its_process_lives_and_is_heard_of() {
        let mut watch = awake();
        for now in (11_000..200_000).step_by(1_000) {
            let seen = board(Seen {
                good_until: now + 9_000,
                ..ON
            });
            assert_eq!(watch.turn(now, true, &seen), []);
            assert_eq!(watch.deadline(now, &seen), now + 1_000);
        }
    }

    #[test]
    fn r8_it_acts_when_its_process_has_ended_and_ends_when_off_is_known() {
        let mut watch = awake();
        assert_eq!(watch.turn(10_500, false, &board(ON)), [Decision::Act(7)]);
        assert_eq!(watch.turn(11_000, false, &board(ON)), []);
        watch.done(7);
        assert_eq!(watch.turn(11_100, false, &board(OFF)), [Decision::End]);
    }

    #[test]
    fn r8_it_does_nothing_where_off_was_known() {
        let mut watch = awake();
        assert_eq!(watch.turn(10_500, false, &board(OFF)), [Decision::End]);
    }

    #[test]
    fn r8_it_acts_when_its_process_was_not_heard_of_and_lets_go_when_it_is_back() {
        let mut watch = awake();
        for now in (11_000..=20_000).step_by(1_000) {
            assert_eq!(watch.turn(now, true, &board(ON)), []);
        }
        assert_eq!(watch.deadline(20_000, &board(ON)), 20_001);
        assert_eq!(watch.turn(20_001, true, &board(ON)), [Decision::Act(7)]);
        let back = board(Seen {
            good_until: 40_000,
            ..ON
        });
        assert_eq!(watch.turn(21_000, true, &back), [Decision::LetGo(7)]);
        assert_eq!(watch.turn(22_000, true, &back), []);
    }

    #[test]
    fn r8_what_was_turned_off_for_a_frozen_process_is_not_turned_off_for_ever() {
        let mut watch = awake();
        for now in (11_000..=20_000).step_by(1_000) {
            watch.turn(now, true, &board(ON));
        }
        assert_eq!(watch.turn(20_001, true, &board(ON)), [Decision::Act(7)]);
        watch.done(7);
        assert_eq!(watch.turn(21_000, true, &board(OFF)), []);
        assert_eq!(
            watch.turn(21_100, false, &board(OFF)),
            [Decision::End],
            "and it is not begun anew when the frozen process is killed"
        );
    }

    #[test]
    fn r5_after_a_sleep_of_the_machine_the_driver_may_speak_first() {
        let mut watch = awake();
        assert_eq!(watch.turn(90_000, true, &board(ON)), []);
        assert_eq!(watch.turn(91_500, true, &board(ON)), []);
        assert_eq!(watch.turn(92_999, true, &board(ON)), []);
        assert_eq!(watch.deadline(92_999, &board(ON)), 93_000);
        assert_eq!(watch.turn(93_000, true, &board(ON)), [Decision::Act(7)]);
    }

    #[test]
    fn r5_two_seconds_between_two_looks_are_no_sleep() {
        let mut watch = awake();
        for now in (12_000..=20_000).step_by(2_000) {
            assert_eq!(watch.turn(now, true, &board(ON)), []);
        }
        assert_eq!(watch.turn(22_000, true, &board(ON)), [Decision::Act(7)]);
    }

    #[test]
    fn r8_a_sleep_is_no_reason_to_wait_when_the_process_has_ended() {
        let mut watch = awake();
        assert_eq!(watch.turn(90_000, false, &board(ON)), [Decision::Act(7)]);
    }

    #[test]
    fn r7_a_device_that_was_given_up_by_its_driver_is_turned_off() {
        let mut watch = awake();
        let given_up = board(Seen {
            abandoned: true,
            ..ON
        });
        assert_eq!(watch.turn(10_500, true, &given_up), [Decision::Act(7)]);
    }

    #[test]
    fn r8_a_device_that_cannot_be_reached_is_given_up_after_guard_retry() {
        let mut watch = awake();
        assert_eq!(watch.turn(10_500, false, &board(ON)), [Decision::Act(7)]);
        assert_eq!(watch.turn(70_499, false, &board(ON)), []);
        assert_eq!(watch.turn(70_500, false, &board(ON)), [Decision::GiveUp(7)]);
        assert_eq!(watch.turn(70_600, false, &board(OFF)), [Decision::End]);
    }

    #[test]
    fn r8_after_sigterm_it_is_gone_within_5_s_but_never_before_its_process() {
        let mut watch = awake();
        watch.term(10_000);
        for now in (11_000..=16_000).step_by(1_000) {
            let seen = board(Seen {
                good_until: 60_000,
                ..ON
            });
            assert_eq!(watch.turn(now, true, &seen), []);
        }
        let lapsed = watch.turn(21_000, false, &board(ON));
        assert_eq!(lapsed, [Decision::Act(7)], "it has all the time again");

        let mut watch = awake();
        watch.term(10_000);
        assert_eq!(watch.turn(10_500, false, &board(ON)), [Decision::Act(7)]);
        assert_eq!(watch.turn(12_000, false, &board(ON)), []);
        assert_eq!(watch.deadline(14_500, &board(ON)), 15_000);
        assert_eq!(watch.turn(15_000, false, &board(ON)), [Decision::End]);
    }

    #[test]
    fn r8_sigterm_is_not_forgotten_before_its_time_is_over() {
        let mut watch = awake();
        watch.term(10_000);
        let seen = board(Seen {
            good_until: 60_000,
            ..ON
        });
        assert_eq!(watch.turn(11_000, true, &seen), []);
        assert_eq!(watch.turn(12_000, false, &board(ON)), [Decision::Act(7)]);
        assert_eq!(watch.turn(14_000, false, &board(ON)), []);
        assert_eq!(watch.turn(15_000, false, &board(ON)), [Decision::End]);
    }

    #[test]
    fn r8_the_service_stays_15_s_for_a_device_that_is_on_and_not_at_all_for_a_guarded_process() {
        let mut watch = Watch::new(Role::Service);
        assert_eq!(watch.turn(0, true, &board(ON)), []);
        watch.term(1_000);
        assert_eq!(watch.turn(1_000, true, &board(ON)), [Decision::End]);

        let mut watch = Watch::new(Role::Service);
        assert_eq!(watch.turn(0, false, &board(ON)), [Decision::Act(7)]);
        watch.term(1_000);
        for now in (1_000..16_000).step_by(1_000) {
            assert_eq!(watch.turn(now, false, &board(ON)), []);
        }
        assert_eq!(watch.turn(16_000, false, &board(ON)), [Decision::End]);
    }

    #[test]
    fn what_is_due_already_is_not_looked_for_again_at_once() {
        let watch = awake();
        assert_eq!(watch.deadline(2_999, &board(ON)), 3_000);
        assert_eq!(watch.deadline(3_000, &board(ON)), 4_000);
    }

    #[test]
    fn a_device_that_is_taken_off_the_board_is_let_go() {
        let mut watch = awake();
        let abandoned = board(Seen {
            abandoned: true,
            ..ON
        });
        assert_eq!(watch.turn(10_500, true, &abandoned), [Decision::Act(7)]);
        assert_eq!(
            watch.turn(11_000, true, &BTreeMap::new()),
            [Decision::LetGo(7)]
        );
    }
}
