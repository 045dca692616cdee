//! The driver's thread ends when nothing is left to do. A binary of its own: the driver is
//! process-wide, and other tests would keep it alive.
#![expect(
    clippy::unwrap_used,
    reason = "a test's helpers may panic as its tests do"
)]

#[allow(dead_code, reason = "driver.rs uses the rest")]
#[path = "driver/klipper.rs"]
mod klipper;

use _core::session::Link;
use _core::sim::Event;

use klipper::{Klipper, LIMIT, OFF, Rig, now_s, pause};

/// How many threads the driver has.
fn threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let name = |task: std::io::Result<std::fs::DirEntry>| {
        std::fs::read_to_string(task.ok()?.path().join("comm")).ok()
    };
    tasks
        .filter_map(name)
        .filter(|name| name.trim_end() == "panda_breath")
        .count()
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Waits until nothing of the driver is left; the limit is for a machine under load.
#[track_caller]
fn wait_ended(rig: &Rig, mark: usize) {
    let end = now_s() + LIMIT.as_secs_f64();
    while threads() > 0 {
        assert!(now_s() < end, "the thread goes on: {:#?}", rig.story(mark));
        pause();
    }
}

#[test]
fn r12_closed_while_heating_it_is_turned_off_and_the_thread_ends() {
    assert_eq!(threads(), 0);
    let rig = Rig::new();
    let mut before = 0;
    for round in 0..3 {
        let mark = rig.mark();
        let klipper = rig.heating();
        assert_eq!(threads(), 1);
        let closed = rig.mark();
        klipper.handle.close();
        rig.wait_frame_since(closed, OFF);
        let off = rig.wait_since(closed, "the last connection closed", |event| {
            matches!(event, Event::Close { open: 0, .. })
        });
        wait_ended(&rig, mark);
        let took = now_s() - off.t;
        assert!(took < 1.0, "{took} s after off was known");
        assert!(!rig.is_on());
        assert_eq!(rig.frames_since(closed), [OFF]);
        drop(klipper);
        assert_eq!(threads(), 0);
        if round == 0 {
            before = descriptors(); // what the process opens once and for all
        }
    }
    let end = now_s() + LIMIT.as_secs_f64();
    while descriptors() > before {
        assert!(now_s() < end, "{before} became {}", descriptors());
        pause();
    }

    // One that never connected owes nothing.
    rig.inject("refuse 60");
    let mut klipper = Klipper::ready(rig.config());
    klipper.wait_until("refused", |snapshot| snapshot.last_error.is_some());
    klipper.handle.close();
    wait_ended(&rig, rig.mark());

    // Opened and closed at every moment of the end of the one before, it is served, and only once.
    for n in 0..3_000_u32 {
        let mut klipper = Klipper::ready(rig.config());
        klipper.wait_until("served", |snapshot| snapshot.link != Link::Pending);
        drop(klipper);
        for _ in 0..(n * 7) % 400 {
            std::hint::spin_loop();
        }
    }
    rig.inject("refuse 0");
    let mark = rig.mark();
    let mut klipper = rig.off();
    klipper.wait_readings(2);
    assert_eq!(rig.opened_since(mark).len(), 1, "{:#?}", rig.story(mark));
    drop(klipper);
    wait_ended(&rig, mark);
}
