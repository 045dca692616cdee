//! What one device's task leaves on the board of the guard, and how it sees the guard at work.

use std::rc::Rc;

use crate::session::{Bequest, Guard, Millis, Session};

use super::device::Entry;
use super::guard::board::{Duty, Way, Work};
use super::keeper::Keeper;

/// How often the guard is told that we are well.
const RENEW: Millis = 1_000;

/// What the guard has been told.
#[derive(Debug, Default)]
pub(super) struct Testament {
    told: Option<Told>,
}

#[derive(Debug)]
struct Told {
    keeper: Rc<Keeper>,
    slot: usize,
    bequest: Bequest,
    /// By when we must be heard of again.
    until: Millis,
}

impl Testament {
    /// To be called before anything is sent: by then the board says what would be left behind
    /// (rule R8). Returns how it stands with the guard where that has changed.
    pub(super) fn tell(
        &mut self,
        key: &str,
        entry: &Entry,
        session: &Session,
        now: Millis,
    ) -> Option<Guard> {
        let keeper = entry.keeper.borrow().clone()?;
        let bequest = session.bequest();
        let until = session.good_until(now);
        let Some(told) = self.told.as_mut().filter(|told| told.bequest == bequest) else {
            return self.write(key, entry, keeper, bequest, until);
        };
        if !bequest.may_be_on || (until < told.until + RENEW && now <= told.until) {
            return None;
        }
        let lapsed = std::mem::replace(&mut told.until, until) < now;
        let board = told.keeper.board();
        let _ = board.good_until(told.slot, until); // unwritten, it lapses: the guard turns off
        // In that order: either the guard sees that we are back, or we see that it is at work.
        match board.work(told.slot) {
            Work::Busy if lapsed => Some(Guard::Busy),
            Work::Settled => {
                board.unsettle(told.slot);
                None
            }
            Work::Busy | Work::Idle => None,
        }
    }

    fn write(
        &mut self,
        key: &str,
        entry: &Entry,
        keeper: Rc<Keeper>,
        bequest: Bequest,
        until: Millis,
    ) -> Option<Guard> {
        let board = keeper.board();
        let duty = Duty {
            key: key.to_owned(),
            config: entry.config.borrow().clone(),
            broker: entry.broker.borrow().as_ref().map(Way::of),
            bequest,
            abandoned: false,
        };
        entry.bequest.set(bequest);
        let written = board.slot(key).and_then(|slot| {
            board.good_until(slot, until).ok()?;
            board.set(slot, &duty).ok()?;
            Some(slot)
        });
        let Some(slot) = written else {
            return Some(Guard::Gone("it cannot be told about this device".into()));
        };
        self.told = Some(Told {
            keeper,
            slot,
            bequest,
            until,
        });
        None
    }

    /// Whether the guard is turning the device off.
    pub(super) fn is_guard_busy(&self) -> bool {
        let work = |told: &Told| told.keeper.board().work(told.slot);
        self.told.as_ref().map(work) == Some(Work::Busy)
    }

    /// The device's options have changed: it is written anew, or, if it is to have no guard any
    /// more, taken off the board.
    pub(super) fn changed(&mut self, key: &str, entry: &Entry) {
        let told = self.told.take();
        if let (Some(told), None) = (told, &*entry.keeper.borrow()) {
            let _ = told.keeper.board().clear(key); // what stays there only turns off
        }
    }
}
