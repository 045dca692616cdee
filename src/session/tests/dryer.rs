//! Drying filament: when it begins, when it ends, and that no rule holds any less for it.

use super::super::{
    Bequest, Chamber, Config, Cutoff, OnExternalOff, Reason, Sample, Session, refusal,
    refusal_to_dry,
};
use super::world::World;
use super::{HEAT_45, OFF};
use crate::sim::{Button, Fault, Firmware, Setup};

const HOUR: u64 = 3_600_000;
const DRY_55: &str = r#"{"settings":{"work_mode":3,"filament_temp":55,"filament_timer":2,"filament_drying_mode":3,"isrunning":1,"work_on":true}}"#;
const DRY_50: &str = r#"{"settings":{"work_mode":3,"filament_temp":50,"filament_timer":2,"filament_drying_mode":3,"isrunning":1,"work_on":true}}"#;

fn config() -> Config {
    Config {
        drying_hours: 2, // six are a long time even on a virtual clock
        ..Config::default()
    }
}

fn drying() -> World {
    drying_with(config(), &Setup::default())
}

fn drying_with(config: Config, setup: &Setup) -> World {
    let mut world = World::with(config, setup);
    world.run(4_000);
    world.sent.clear();
    world.lines.clear();
    world.dry(55.0);
    world.run(3_000);
    assert!(world.device.state().drying, "{:?}", world.sent);
    world
}

#[track_caller]
fn forced_off(world: &World) -> (Reason, String) {
    let forced = world.snapshot().forced_off.expect("nothing was forced off");
    (forced.reason, forced.text.to_string())
}

#[track_caller]
fn is_off(world: &World) {
    assert_eq!(world.state().0, 0, "{:?}", world.lines);
    assert!(!world.device.state().heater);
    assert!(world.klipper.target <= 0.0);
}

#[test]
fn dryer_is_one_frame_and_the_rest_of_the_time_is_told() {
    let mut world = drying();
    assert_eq!(world.texts(), [DRY_55]);
    assert_eq!(world.device.state().programme, (55, 2));
    world.run(3_600_000 - 3_000);
    assert_eq!(
        world.texts(),
        [DRY_55],
        "the same state is not written twice"
    );
    let snapshot = world.snapshot();
    assert_eq!(snapshot.drying, Some(true));
    assert_eq!(snapshot.remaining.unwrap().0, 3_600);
    assert_eq!(snapshot.device_target, Some(55.0));
    let _ = world.device.press(Button::Power);
    world.run(2_000);
    assert_eq!(world.snapshot().drying, Some(false));
    assert_eq!(world.snapshot().remaining, None, "nothing is left of none");
}

#[test]
fn dryer_status_says_that_it_dries_only_while_it_does() {
    let mut world = World::new(config());
    world.run(4_000);
    assert_eq!(world.snapshot().drying, Some(false));
    world.set_target(45.0);
    world.run(3_000);
    assert_eq!(world.snapshot().drying, Some(false));
    world.dry(55.0);
    world.run(3_000);
    assert_eq!(world.snapshot().drying, Some(true));
    world.dry(0.0);
    world.run(3_000);
    assert_eq!(world.snapshot().drying, Some(false));
}

/// The firmware leaves its programme running when another mode is chosen.
#[test]
fn dryer_status_does_not_say_that_it_dries_while_the_chamber_is_heated() {
    for firmware in [Firmware::V1_0_3, Firmware::V0_0_0] {
        let setup = Setup {
            firmware,
            ..Setup::default()
        };
        let mut world = drying_with(config(), &setup);
        assert_ne!(world.snapshot().drying, Some(false), "{firmware:?}");
        world.set_target(45.0);
        for _ in 0..2 {
            world.run(70_000); // and after a look
            let snapshot = world.snapshot();
            assert_ne!(snapshot.drying, Some(true), "{firmware:?}");
            assert_eq!(snapshot.remaining, None, "{firmware:?}");
        }
    }
}

#[test]
fn dryer_ends_by_itself_and_nobody_is_alarmed() {
    let mut world = drying();
    let since = world.klipper.dry_since;
    world.run(2 * HOUR - 4_000);
    assert!(world.device.state().drying);
    world.run(8_000);
    is_off(&world);
    assert_eq!(world.sent[1].0, since + 2 * HOUR, "by our clock");
    let (reason, text) = forced_off(&world);
    assert_eq!(reason, Reason::Dried);
    assert_eq!(
        text,
        "filament drying has ended after 2 h; the heater is off"
    );
    assert_eq!(
        (world.snapshot().forced_offs, world.snapshot().failures),
        (1, 0)
    );
    world.run(60_000);
    assert_eq!(world.texts(), [DRY_55, OFF]);
    assert!(world.snapshot().off_known);
    assert!(!world.snapshot().external_off);
    // And what comes next is not held up by it.
    world.set_target(45.0);
    world.run(3_000);
    assert_eq!(world.texts(), [DRY_55, OFF, HEAT_45]);
}

#[test]
fn dryer_the_devices_own_end_is_the_end_and_it_is_switched_off_then() {
    let mut world = drying();
    // Somebody has shortened it on the page, which tells nobody.
    let shorter = br#"{"settings":{"filament_timer":1,"filament_drying_mode":3}}"#;
    let _ = world.device.handle_text(shorter);
    world.run(HOUR + 10_000);
    assert_eq!(forced_off(&world).0, Reason::Dried);
    is_off(&world);
}

#[test]
fn dryer_on_0_0_0_where_the_modes_are_swapped_and_nothing_is_told() {
    let setup = Setup {
        firmware: Firmware::V0_0_0,
        ..Setup::default()
    };
    let mut world = drying_with(config(), &setup);
    let dry = r#"{"settings":{"work_mode":1,"filament_temp":55,"filament_timer":2,"isrunning":1,"work_on":true}}"#;
    assert_eq!(world.texts(), [dry]);
    world.run(2 * HOUR + 4_000);
    assert_eq!(forced_off(&world).0, Reason::Dried);
    is_off(&world);
}

#[test]
fn dryer_zero_stops_it_and_a_new_target_begins_the_hours_anew() {
    let mut world = drying();
    world.run(HOUR / 2);
    world.dry(50.0);
    world.run(3_000);
    assert_eq!(world.texts(), [DRY_55, DRY_50]);
    assert_eq!(world.device.state().programme, (50, 2));
    world.run(HOUR + HOUR / 2);
    assert!(world.device.state().drying);
    world.dry(0.0);
    world.run(3_000);
    is_off(&world);
    assert_eq!(world.snapshot().forced_offs, 0);
}

#[test]
fn dryer_and_chamber_follow_each_other_without_an_off_between() {
    let mut world = drying();
    world.set_target(45.0);
    world.run(3_000);
    assert_eq!(world.texts(), [DRY_55, HEAT_45]);
    assert!(!world.device.state().drying);
    assert_eq!(world.state(), (1, 45));
    world.dry(55.0);
    world.run(3_000);
    assert_eq!(world.texts(), [DRY_55, HEAT_45, DRY_55]);
    assert!(world.device.state().drying);
    world.run(HOUR + HOUR / 2);
    assert!(world.device.state().drying, "its hours began anew");
}

#[test]
fn dryer_told_the_same_once_more_dries_no_longer() {
    let mut world = drying();
    world.run(HOUR);
    world.dry(55.0);
    world.run(5_000);
    let (left, _) = world.snapshot().remaining.unwrap();
    assert!(left < 3_600, "{left}");
    assert_eq!(world.texts(), [DRY_55]);
}

#[test]
fn dryer_that_the_device_ends_before_its_time_is_called_that() {
    let mut world = drying();
    world.run(HOUR);
    world.broadcast(r#"{"settings":{"work_on":1,"work_mode":3,"isrunning":0}}"#);
    world.run(3_000);
    let (reason, text) = forced_off(&world);
    assert_eq!(reason, Reason::Dried);
    assert_eq!(
        text,
        "the device ended filament drying 59 min before its time; the heater is off"
    );
}

#[test]
fn dryer_of_the_same_temperature_as_the_chamber_is_another_wish() {
    let mut world = World::new(config());
    world.run(4_000);
    world.sent.clear();
    world.set_target(55.0);
    world.run(HOUR);
    world.dry(55.0);
    world.run(3_000);
    assert_eq!(world.texts()[1], DRY_55);
    world.run(2 * HOUR - 10_000);
    assert!(world.device.state().drying, "its hours begin with it");
    world.run(10_000);
    assert_eq!(forced_off(&world).0, Reason::Dried);
}

#[test]
fn dryer_max_target_limits_it_too() {
    let config = Config {
        max_target: 50,
        ..config()
    };
    let mut world = World::new(config);
    world.run(4_000);
    world.sent.clear();
    world.klipper.dry(55.0); // past the shim's refusal
    world.run(3_000);
    assert_eq!(world.texts(), [DRY_50]);
}

#[test]
fn r2_a_shutdown_a_restart_and_a_zero_end_it_at_once() {
    for how in 0..3 {
        let mut world = drying();
        match how {
            0 => world.shut_down(),
            1 => world.restart(),
            _ => world.dry(0.0),
        }
        world.run(200);
        assert_eq!(world.texts(), [DRY_55, OFF], "{how}");
        assert!(!world.device.state().drying);
        world.run(5_000);
        assert!(world.snapshot().off_known);
    }
}

#[test]
fn r3_the_lease_ends_it() {
    let mut world = drying();
    world.klipper.stalled = true;
    world.run(11_000);
    assert_eq!(world.state().0, 0);
    assert_eq!(forced_off(&world).0, Reason::Lease);
}

#[test]
fn r4_a_device_that_restarts_is_told_what_is_left() {
    for firmware in [Firmware::V0_0_0, Firmware::V1_0_3] {
        let setup = Setup {
            firmware,
            ..Setup::default()
        };
        let mut world = drying_with(config(), &setup);
        world.run(HOUR + HOUR / 2);
        world.sent.clear();
        world.reboot();
        world.run(5_000);
        assert!(world.device.state().drying, "{firmware}");
        assert_eq!(world.device.state().programme, (55, 1), "{firmware}");
        assert_eq!(world.sent.len(), 1);
        world.run(HOUR / 2);
        assert_eq!(forced_off(&world).0, Reason::Dried);
        is_off(&world);
    }
}

#[test]
fn r9_one_that_had_not_begun_has_not_restarted() {
    let mut world = World::absent(config(), true);
    let stands = br#"{"settings":{"work_mode":3,"work_on":true}}"#;
    let _ = world.device.handle_text(stands);
    world.dry(55.0);
    world.run(3_000);
    world.unreachable = false;
    world.run(60_000);
    assert!(world.device.state().drying, "{:?}", world.lines);
    world.reboot();
    world.run(10_000);
    assert_eq!(world.snapshot().forced_offs, 0, "its first restart");
    assert!(world.device.state().drying);
}

#[test]
fn r9_a_device_that_restarts_again_and_again_is_somebodys_off() {
    let mut world = drying();
    world.reboot();
    world.run(5_000);
    assert!(world.device.state().drying);
    world.reboot();
    world.run(5_000);
    assert_eq!(forced_off(&world).0, Reason::ExternalOff);
    is_off(&world);
    world.dry(50.0);
    world.run(660_000);
    world.reboot();
    world.run(5_000);
    assert!(world.device.state().drying, "once in 10 min");
}

#[test]
fn r10_a_connection_that_was_cut_changes_nothing_for_a_device_that_goes_on() {
    let mut world = drying();
    world.cut();
    world.run(10_000);
    assert_eq!(world.texts(), [DRY_55]);
    assert!(world.snapshot().drying.unwrap());
}

#[test]
fn r4_hours_that_end_in_an_outage_are_over_and_off_is_the_next_word() {
    let mut world = drying();
    world.run(2 * HOUR - 60_000);
    world.unreachable = true;
    world.cut();
    world.run(80_000);
    assert_eq!(forced_off(&world).0, Reason::Dried);
    world.sent.clear();
    world.unreachable = false;
    world.run(20_000);
    assert!(world.texts().iter().all(|text| *text == OFF));
    is_off(&world);
    assert!(world.snapshot().off_known);
}

#[test]
fn lost_ends_it_like_any_heating() {
    let mut world = drying();
    world.unreachable = true;
    world.cut();
    world.run(125_000);
    assert_eq!(forced_off(&world).0, Reason::Lost);
    assert_eq!(world.snapshot().failures, 1);
    world.unreachable = false;
    world.run(20_000);
    is_off(&world);
}

#[test]
fn r8_whoever_comes_after_a_killed_klipper_knows_and_ends_it() {
    let mut world = drying();
    let bequest: Bequest = world.session.bequest();
    assert!(bequest.may_be_on);
    let good_until = world.session.good_until(world.now);
    assert!(good_until <= world.now + 13_000);
    world.die();
    world.run(5_000);
    assert_eq!(world.state().0, 0);
    assert!(!world.device.state().drying);
    world.run(20_000);
    assert!(world.ended);
}

#[test]
fn r7_a_bug_ends_it() {
    let mut world = drying();
    let before = world.snapshot();
    world.session = Session::after_panic(world.config.clone(), 1, &before, "a bug", world.now);
    world.cut();
    world.run(10_000);
    assert_eq!(world.state().0, 0);
}

#[test]
fn r9_the_off_button_ends_it_and_it_is_not_begun_again() {
    let mut world = drying();
    let _ = world.device.press(Button::Power);
    world.run(5_000);
    assert_eq!(forced_off(&world).0, Reason::ExternalOff);
    is_off(&world);
    world.run(400_000);
    assert_eq!(world.texts().iter().filter(|text| **text != OFF).count(), 1);
}

#[test]
fn r9_ended_on_the_devices_page_it_is_accepted_or_begun_again() {
    for (on_external_off, reason) in [
        (OnExternalOff::Accept, Some(Reason::ExternalOff)),
        (OnExternalOff::Reassert, None),
    ] {
        let config = Config {
            on_external_off,
            ..config()
        };
        let mut world = drying_with(config, &Setup::default());
        let _ = world.device.handle_text(br#"{"settings":{"isrunning":0}}"#);
        world.run(70_000);
        let forced = world.snapshot().forced_off;
        assert_eq!(forced.map(|forced| forced.reason), reason);
        assert_eq!(world.device.state().drying, reason.is_none());
    }
}

#[test]
fn r9_a_mode_button_is_set_right_with_what_is_left() {
    for button in [Button::Auto, Button::On] {
        let mut world = drying();
        world.run(HOUR + 1_000);
        world.sent.clear();
        let _ = world.device.press(button);
        world.run(5_000);
        assert!(world.device.state().drying, "{button:?}");
        assert_eq!(world.device.state().programme, (55, 1));
        assert_eq!(world.sent.len(), 1);
        assert_eq!(world.snapshot().forced_offs, 0);
        let line = "the device was set to something else; setting it again";
        assert_eq!(world.lines, [line], "fewer hours are no other wish");
    }
}

#[test]
fn dryer_status_names_the_target_of_the_mode_that_the_device_is_in() {
    let mut world = drying();
    for _ in 0..4 {
        let _ = world.device.press(Button::On);
        world.run(2_000);
    }
    let state = world.device.state();
    assert!(!state.drying, "corrections are used up: {:?}", world.lines);
    let target = world.snapshot().device_target;
    assert_eq!(target, Some(f64::from(state.set_temp)));
}

#[test]
fn a_fault_of_the_device_ends_it() {
    let mut world = drying();
    world.device.fault(Fault::PtcOpen);
    world.run(5_000);
    assert!(matches!(forced_off(&world).0, Reason::Fault(_)));
    assert_eq!(world.snapshot().failures, 1);
    is_off(&world);
}

#[test]
fn cutoff_holds_for_drying_and_chamber_sensor_does_not() {
    let cutoff = Cutoff {
        sensor: "temperature_sensor top".into(),
        celsius: 70.0,
    };
    let chamber = Chamber {
        sensor: "temperature_sensor cavity".into(),
        max_boost: 15,
    };
    let config = Config {
        cutoff: Some(cutoff),
        chamber: Some(chamber),
        ..config()
    };
    let mut world = World::new(config);
    world.cutoff_is_well = true;
    world.run(4_000);
    let why = |world: &World, why: fn(&_, &_, _, _) -> _| -> Option<String> {
        why(
            &world.config,
            &world.around,
            world.snapshot().tripped,
            world.now,
        )
    };
    assert!(why(&world, refusal).unwrap().contains("cavity"));
    assert_eq!(why(&world, refusal_to_dry), None);
    world.dry(55.0);
    world.run(HOUR);
    assert!(world.device.state().drying, "{:?}", world.lines);
    assert_eq!(world.snapshot().boost, 0);
    world.cutoff_is_well = false;
    let at = world.now;
    world.around.cutoff = Some(Sample { celsius: 70.0, at });
    world.run(2_000);
    assert_eq!(forced_off(&world).0, Reason::Cutoff);
    is_off(&world);
    assert!(why(&world, refusal_to_dry).is_some());
}

#[test]
fn follow_bed_leaves_filament_alone() {
    let config = Config {
        follow: vec![super::super::Step {
            bed: 80.0,
            chamber: 45.0,
        }],
        ..config()
    };
    let mut world = World::new(config);
    world.around.bed = Some(100.0);
    world.run(10_000);
    world.dry(55.0);
    world.run(3_000);
    for bed in [0.0, 100.0, 0.0, 100.0] {
        world.around.bed = Some(bed);
        world.run(5_000);
        assert!(world.device.state().drying, "{bed}");
    }
    world.run(2 * HOUR);
    is_off(&world);
    world.around.bed = Some(0.0);
    world.run(3_000);
    world.around.bed = Some(100.0);
    world.run(5_000);
    assert_eq!(world.state(), (1, 45));
}

#[test]
fn dryer_is_not_boosted_by_a_chamber_that_stays_cold() {
    let chamber = Chamber {
        sensor: "temperature_sensor cavity".into(),
        max_boost: 5,
    };
    let config = Config {
        chamber: Some(chamber),
        ..config()
    };
    let mut world = drying_with(config, &Setup::default());
    for _ in 0..120 {
        world.device.set_chamber(57.0); // the device is where it should be
        let at = world.now;
        world.around.chamber = Some(Sample { celsius: 30.0, at });
        world.run(5_000);
        assert_eq!(world.snapshot().boost, 0);
    }
    assert_eq!(world.texts(), [DRY_55]);
}
