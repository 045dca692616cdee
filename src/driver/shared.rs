//! What the reactor's thread and the driver's thread have in common, and nothing that either of
//! them could ever wait for (rule R1).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam_queue::ArrayQueue;
use parking_lot::Mutex;

use crate::session::{Event, Millis, Snapshot, Surroundings, Wish};

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
    around: ArrayQueue<(u64, Surroundings)>,
    snapshot: ArrayQueue<Snapshot>,
    events: ArrayQueue<Event>,
    events_lost: AtomicU64,
    renewed_at: AtomicU64,
    /// The reactor has run without a gap since then.
    awake_since: AtomicU64,
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
            around: ArrayQueue::new(1),
            snapshot: ArrayQueue::new(1),
            events: ArrayQueue::new(EVENTS),
            events_lost: AtomicU64::new(0),
            renewed_at: AtomicU64::new(now),
            awake_since: AtomicU64::new(now),
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

    /// What the sensors of this handle's printer say. Read at the driver's next turn, which is
    /// within a second: nothing is woken for it.
    pub(super) fn surround(&self, handle: u64, around: Surroundings) {
        self.around.force_push((handle, around));
    }

    pub(super) fn renew(&self) {
        let now = clock::now();
        let before = self.renewed_at.swap(now, Ordering::AcqRel);
        if now > before + STUCK / 2 {
            self.awake_since.store(now, Ordering::Release);
        }
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
        let turned = self.turned_at.load(Ordering::Acquire);
        // Where all of us stood still, the driver may not have had its turn yet.
        let since = turned.max(self.awake_since.load(Ordering::Acquire));
        now.saturating_sub(since) > STUCK
    }

    // The driver's side.

    /// What the printer of this handle wants. The wish of a later one stays: it counts only once
    /// its order has been read, and that order starts with off.
    pub(super) fn take_wish(&self, handle: u64) -> Option<Wish> {
        take(&self.wish, handle)
    }

    /// What the sensors say, if anything since the last time.
    pub(super) fn take_surroundings(&self, handle: u64) -> Option<Surroundings> {
        take(&self.around, handle)
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

/// The latest value, if it is this handle's. What comes from a later one stays.
fn take<T: Copy>(slot: &ArrayQueue<(u64, T)>, handle: u64) -> Option<T> {
    let (by, value) = slot.pop()?;
    if by > handle {
        let _ = slot.push((by, value)); // unless there is a newer one by now
    }
    (by == handle).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::Sample;

    #[test]
    fn r5_what_a_later_printers_sensors_say_waits_and_an_earlier_ones_is_dropped() {
        let shared = Shared::new();
        let cutoff = Some(Sample {
            celsius: 50.0,
            at: 1,
        });
        let around = Surroundings {
            cutoff,
            ..Surroundings::default()
        };
        shared.surround(2, around);
        assert_eq!(shared.take_surroundings(1), None);
        assert_eq!(shared.take_surroundings(2), Some(around));
        assert_eq!(shared.take_surroundings(2), None);
        shared.surround(2, around);
        assert_eq!(shared.take_surroundings(3), None);
        assert_eq!(shared.take_surroundings(2), None);
    }

    #[test]
    fn r7_a_driver_that_does_not_turn_for_five_seconds_is_stuck_until_it_does() {
        let shared = Shared::new();
        let now = clock::now() + 1_000_000;
        shared.turned(now);
        assert!(!shared.is_stuck_at(now + STUCK));
        assert!(shared.is_stuck_at(now + 1 + STUCK));
        shared.turned(now + 2 + STUCK);
        assert!(!shared.is_stuck_at(now + 3 + STUCK));
        assert!(!shared.is_stuck_at(0), "time that goes back is no time");
    }

    #[test]
    fn r7_where_all_of_us_stood_still_the_driver_gets_its_turn_first() {
        let shared = Shared::new();
        let now = clock::now();
        shared.turned(now.saturating_sub(60_000));
        shared
            .renewed_at
            .store(now.saturating_sub(60_000), Ordering::Release);
        shared.awake_since.store(0, Ordering::Release);
        assert!(shared.is_stuck(), "the reactor ran all the time");
        shared.renew();
        assert!(!shared.is_stuck(), "it did not");
        assert!(shared.is_stuck_at(now + 1_000 + STUCK));
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
