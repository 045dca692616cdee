//! What the reactor's thread and the driver's thread have in common, and nothing that either of
//! them could ever wait for (rule R1).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam_queue::ArrayQueue;
use parking_lot::Mutex;

use crate::session::{Event, Millis, Snapshot, Wish};

use super::clock;

/// More lines than a device can produce between two drains; the oldest goes first.
const EVENTS: usize = 64;
/// A driver that has not turned for this long is stuck (rule R7); it turns at least once a second.
const STUCK: Millis = 5_000;

/// One device, seen from both threads.
#[derive(Debug)]
pub(super) struct Shared {
    /// Slots for the latest value: pushing replaces what was not fetched.
    wish: ArrayQueue<(u64, Wish)>,
    snapshot: ArrayQueue<Snapshot>,
    events: ArrayQueue<Event>,
    events_lost: AtomicU64,
    renewed_at: AtomicU64,
    turned_at: AtomicU64,
    /// Set with every change for the driver, so that it need not look at all devices.
    pub(super) changed: AtomicBool,
    /// Which handle may speak for the device: the last one that was opened.
    pub(super) handle: AtomicU64,
    /// The reactor's side only, never locked by the driver: the last snapshot that was fetched.
    fetched: Mutex<Snapshot>,
    /// What goes wrong in the next turn.
    #[cfg(test)]
    pub(super) bug: std::sync::atomic::AtomicU8,
}

impl Shared {
    pub(super) fn new() -> Self {
        let now = clock::now();
        Self {
            wish: ArrayQueue::new(1),
            snapshot: ArrayQueue::new(1),
            events: ArrayQueue::new(EVENTS),
            events_lost: AtomicU64::new(0),
            renewed_at: AtomicU64::new(now),
            turned_at: AtomicU64::new(now),
            changed: AtomicBool::new(false),
            handle: AtomicU64::new(0),
            fetched: Mutex::new(Snapshot::default()),
            #[cfg(test)]
            bug: std::sync::atomic::AtomicU8::default(),
        }
    }

    // The reactor's side.

    /// What the printer of this handle wants.
    pub(super) fn want(&self, handle: u64, wish: Wish) {
        self.wish.force_push((handle, wish));
        self.changed.store(true, Ordering::Release);
    }

    pub(super) fn renew(&self) {
        self.renewed_at.store(clock::now(), Ordering::Release);
    }

    pub(super) fn fetch(&self) -> Snapshot {
        let mut fetched = self.fetched.lock();
        if let Some(snapshot) = self.snapshot.pop() {
            *fetched = snapshot;
        }
        fetched.clone()
    }

    pub(super) fn events(&self) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        while let Some(event) = self.events.pop() {
            lines.push(event.text);
        }
        let lost = self.events_lost.swap(0, Ordering::AcqRel);
        if lost > 0 {
            lines.insert(0, format!("{lost} messages were lost"));
        }
        lines
    }

    pub(super) fn is_stuck(&self) -> bool {
        self.is_stuck_at(clock::now())
    }

    fn is_stuck_at(&self, now: Millis) -> bool {
        now.saturating_sub(self.turned_at.load(Ordering::Acquire)) > STUCK
    }

    // The driver's side.

    /// What the printer of this handle wants. The wish of a later one stays: it counts only once
    /// its order has been read, and that order starts with off.
    pub(super) fn take_wish(&self, handle: u64) -> Option<Wish> {
        let (by, wish) = self.wish.pop()?;
        if by > handle {
            let _ = self.wish.push((by, wish)); // unless there is a newer one by now
        }
        (by == handle).then_some(wish)
    }

    pub(super) fn renewed_at(&self) -> Millis {
        self.renewed_at.load(Ordering::Acquire)
    }

    pub(super) fn turned(&self, now: Millis) {
        self.turned_at.store(now, Ordering::Release);
    }

    pub(super) fn publish(&self, snapshot: Snapshot) {
        self.snapshot.force_push(snapshot);
    }

    pub(super) fn tell(&self, event: Event) {
        if self.events.force_push(event).is_some() {
            self.events_lost.fetch_add(1, Ordering::AcqRel);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r7_a_driver_that_does_not_turn_for_five_seconds_is_stuck_until_it_does() {
        let shared = Shared::new();
        shared.turned(1_000_000);
        assert!(!shared.is_stuck_at(1_000_000 + STUCK));
        assert!(shared.is_stuck_at(1_000_001 + STUCK));
        shared.turned(1_000_002 + STUCK);
        assert!(!shared.is_stuck_at(1_000_003 + STUCK));
        assert!(!shared.is_stuck_at(0), "time that goes back is no time");
    }

    #[test]
    fn r7_a_queue_full_for_an_hour_loses_lines_and_counts_them_but_no_forced_off() {
        let shared = Shared::new();
        let line = |n: u32| Event {
            text: format!("line {n}"),
        };
        for n in 0..7_200 {
            shared.tell(line(n));
            let stopped = u32::from(n >= 10); // a protective stop, early in that hour
            shared.publish(Snapshot {
                forced_offs: stopped,
                failures: stopped,
                ..Snapshot::default()
            });
        }
        let snapshot = shared.fetch();
        assert_eq!((snapshot.forced_offs, snapshot.failures), (1, 1));
        let lines = shared.events();
        assert_eq!(lines.len(), 1 + EVENTS);
        assert_eq!(lines[0], "7136 messages were lost");
        assert_eq!(lines[1], "line 7136");
        assert_eq!(shared.events(), Vec::<String>::new());
        shared.tell(line(1));
        assert_eq!(shared.events(), ["line 1"], "counted once");
    }
}
