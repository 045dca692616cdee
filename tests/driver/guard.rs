//! No heat without a guard. The guard at work is tested with whole processes: `tests/test_guard.py`.

use std::time::Duration;

use _core::driver::Launch;
use _core::session::{Config, Reason, Trouble};

use crate::klipper::{Klipper, Rig};

#[test]
fn r8_where_no_guard_can_be_started_nothing_heats_and_the_reason_is_said() {
    let rig = Rig::new();
    let config = Config {
        guard: true,
        ..rig.config()
    };
    let launch = Launch {
        program: "/nonexistent/python".into(),
        arguments: Vec::new(),
        log: None,
    };
    let mut klipper = Klipper::guarded(config, launch);
    klipper.wait_off_known();
    let fault = klipper.wait_until("a fault", |snapshot| snapshot.fault.is_some());
    let fault = fault.fault.unwrap();
    assert!(matches!(fault, Trouble::Unguarded(_)), "{fault:?}");
    assert!(fault.blocks_heat());
    assert!(
        fault
            .text()
            .contains("/nonexistent/python cannot be started")
    );

    // The shim would refuse a target by now; whoever sets one all the same gets nothing either.
    let mark = rig.mark();
    klipper.want(45.0);
    klipper.drain_for(Duration::from_secs(1));
    let forced = klipper.wait_until("forced off", |snapshot| snapshot.forced_offs > 0);
    assert_eq!(forced.forced_off.unwrap().reason, Reason::Unguarded);
    assert_eq!(rig.frames_since(mark), [""; 0]);
}

#[test]
fn r8_where_a_guard_is_wanted_and_nobody_says_how_to_start_it_nothing_heats() {
    let rig = Rig::new();
    let config = Config {
        guard: true,
        ..rig.config()
    };
    let mut klipper = Klipper::ready(config);
    klipper.wait_off_known();
    let fault = klipper.wait_until("a fault", |snapshot| snapshot.fault.is_some());
    assert!(fault.fault.unwrap().text().contains("does not run"));
    let mark = rig.mark();
    klipper.want(45.0);
    klipper.wait_until("forced off", |snapshot| snapshot.forced_offs > 0);
    assert_eq!(rig.frames_since(mark), [""; 0]);
}
