//! Bugs, for tests of rule R7: what goes wrong in a device's next turn, and what becomes of it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::device::{Claims, Entry};
use super::shared::Shared;
use super::{Handle, REGISTRY, clock};
use crate::session::{Config, Link, Millis, Reason, Wish};

/// A panic, and one while everything that can be borrowed is.
const PANIC: u8 = 1;
const PANIC_OVER_BORROWS: u8 = 2;
/// A loop that does not end for a while.
const BUSY: u8 = 3;
const BUSY_FOR: Millis = 6_500;

pub(super) fn strike(entry: &Entry, claims: &Claims) {
    match entry.shared.bug.swap(0, Ordering::AcqRel) {
        PANIC => panic!("a bug, for the test"),
        PANIC_OVER_BORROWS => {
            let _everything = (
                claims.borrow_mut(),
                entry.orders.borrow_mut(),
                entry.config.borrow_mut(),
                entry.broker.borrow_mut(),
                entry.last.borrow_mut(),
            );
            panic!("a bug, for the test");
        }
        BUSY => {
            let end = clock::now() + BUSY_FOR;
            while clock::now() < end {
                std::hint::spin_loop();
            }
        }
        _ => {}
    }
}

/// A device at an address where nobody answers, on the real driver's thread.
fn handle(last: u8) -> Handle {
    let config = Config {
        host: format!("127.0.0.{last}"),
        port: 1,
        ..Config::default()
    };
    Handle::open(config, None, None).unwrap()
}

fn wait_until(what: &str, fits: impl Fn() -> bool) {
    let end = clock::now() + 30_000;
    while !fits() {
        assert!(clock::now() < end, "never {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

const HEAT: Wish = Wish {
    target: 45.0,
    dry: false,
    armed: true,
    ack: 0,
    hand: 0,
};

fn turns(shared: &Arc<Shared>) -> bool {
    !shared.is_stuck()
}

#[test]
fn r7_a_panic_in_a_turn_is_an_error_of_its_device_and_no_other() {
    let (sick, well) = (handle(71), handle(72));
    wait_until("started", || sick.drain(HEAT).link != Link::Pending);
    for (failures, bug) in [(1, PANIC), (2, PANIC_OVER_BORROWS)] {
        sick.shared.bug.store(bug, Ordering::Release);
        wait_until("failed", || sick.drain(HEAT).failures == failures);
        let snapshot = sick.drain(HEAT);
        assert_eq!(snapshot.link, Link::Error);
        assert_eq!(snapshot.forced_off.unwrap().reason, Reason::Internal);
        assert!(snapshot.last_error.unwrap().contains("internal error"));
        assert!(turns(&sick.shared), "its next session only turns it off");
    }
    // What was borrowed is free again, or this order would be the next panic.
    let again = handle(71);
    wait_until("adopted", || {
        again.drain(Wish::default()).link == Link::Error
    });
    assert_eq!(again.drain(Wish::default()).failures, 2);
    assert_eq!(well.drain(HEAT).failures, 0);
    assert_ne!(well.drain(HEAT).link, Link::Error);
}

#[test]
fn r7_a_panic_under_the_registrys_lock_leaves_it_usable() {
    let panics = std::thread::spawn(|| {
        let _registry = REGISTRY.lock();
        panic!("a bug, for the test");
    });
    assert!(panics.join().is_err());
    assert!(REGISTRY.try_lock_for(Duration::from_secs(10)).is_some());
}

#[test]
fn r7_a_busy_loop_is_a_stuck_driver_until_it_ends() {
    let handle = handle(73);
    wait_until("started", || handle.drain(HEAT).link != Link::Pending);
    assert!(!handle.is_stuck());
    handle.shared.bug.store(BUSY, Ordering::Release);
    wait_until("stuck", || handle.is_stuck());
    wait_until("back", || !handle.is_stuck());
    let snapshot = handle.drain(HEAT);
    assert_eq!(
        snapshot.forced_offs, 0,
        "the reactor was heard all the time"
    );
}
