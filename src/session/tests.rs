//! The rules, one scenario each, on a virtual clock. `world` plays everybody else.

mod boost;
mod broker;
mod broker_histories;
mod broker_world;
mod connections;
mod contained;
mod coverage;
mod cutoff;
mod deadlines;
mod dryer;
mod dryer_broker;
mod edges;
mod follow_bed;
mod found;
mod guard;
mod hands;
mod histories;
mod klipper;
mod left_on;
mod looks;
mod losses;
mod ordinary;
mod peer;
mod reference;
mod reports;
mod sensor_histories;
mod sensors;
mod verify;
mod voice;
mod weather;
mod world;

use super::*;
use crate::dialect::Fault;
use crate::sim;
use world::World;

const HEAT_45: &str = r#"{"settings":{"work_mode":2,"set_temp":45,"work_on":true}}"#;
const OFF: &str = r#"{"settings":{"work_on":false}}"#;

#[test]
fn r2_a_device_that_is_on_at_the_start_is_turned_off_and_known_to_be() {
    let mut world = World::new(Config::default());
    assert_eq!(world.state().0, 1, "first boot: on, in auto mode");
    world.run(3_000);
    assert_eq!(world.texts(), [OFF]);
    assert!(world.snapshot().off_known);
    assert!(
        world.lines[1].contains("is on; turning it off"),
        "{:?}",
        world.lines
    );
}

#[test]
fn a_change_is_one_frame_and_the_same_state_is_not_written_twice() {
    let mut world = World::connected();
    world.set_target(44.6);
    world.run(5_000);
    world.set_target(45.2); // the same whole degree
    world.run(60_000);
    assert_eq!(world.texts(), [HEAT_45]);
    assert_eq!(world.state(), (1, 45));
    world.set_target(0.0);
    world.run(400_000);
    assert_eq!(world.texts(), [HEAT_45, OFF]);
}

#[test]
fn r2_off_never_waits_not_even_right_after_another_off() {
    let mut world = World::connected();
    for target in [45.0, 0.0, 50.0, 0.0] {
        world.set_target(target);
        world.run(300);
    }
    world.run(500);
    assert_eq!(world.texts().last(), Some(&OFF));
    let (heat_at, off_at) = (
        world.sent[world.sent.len() - 2].0,
        world.sent.last().unwrap().0,
    );
    assert!(off_at - heat_at <= 300, "{:?}", world.sent);
}

#[test]
fn r3_no_heat_before_ready_in_shutdown_or_after_it() {
    let mut world = World::connected();
    world.klipper.armed = false;
    world.set_target(45.0);
    world.run(5_000);
    assert!(world.sent.is_empty());
    world.klipper.armed = true;
    world.run(2_000);
    assert_eq!(world.texts(), [HEAT_45]);
    world.shut_down();
    world.run(10);
    assert_eq!(world.texts(), [HEAT_45, OFF]);
    world.run(60_000);
    assert_eq!(world.texts(), [HEAT_45, OFF]);
}

#[test]
fn r3_a_target_of_a_klipper_that_is_not_ready_is_no_wish() {
    let mut world = World::connected();
    let wish = Wish {
        target: 45.0,
        dry: false,
        armed: false,
        ack: 0,
        hand: 0,
    };
    world.session.handle(world.now, Input::Wish(wish));
    assert_eq!(world.session.poll(), None);
}

#[test]
fn r3_the_lease_ends_when_the_reactor_is_not_heard() {
    let mut world = World::heating();
    let heard = world.now;
    world.klipper.stalled = true;
    world.run(9_000);
    assert!(world.sent.is_empty(), "not before its time");
    world.run(2_000);
    assert_eq!(world.texts(), [OFF]);
    assert!(world.sent[0].0 <= heard + 10_000);
    let forced = world.snapshot().forced_off.unwrap();
    assert_eq!(forced.reason, Reason::Lease);
    assert_eq!(world.snapshot().failures, 1);
    // The reactor comes back: its target is 0, and stays so.
    world.klipper.stalled = false;
    world.run(20_000);
    assert_eq!(world.texts(), [OFF]);
    world.set_target(45.0);
    world.run(1_000);
    assert_eq!(world.texts(), [OFF, HEAT_45], "a new target is a new wish");
}

#[test]
fn r8_a_lease_that_ended_while_all_slept_has_ended_whoever_wakes_first() {
    let mut world = World::heating();
    world.freeze(20_000);
    world.session.renew(world.now); // the reactor was a moment faster than we
    world.run(1);
    let forced = world.snapshot().forced_off.unwrap();
    assert_eq!(forced.reason, Reason::Lease);
}

#[test]
fn r4_after_a_reconnect_the_current_wish_only() {
    let mut world = World::heating();
    world.unreachable = true;
    world.cut();
    for target in 1..100 {
        world.set_target(f64::from(target % 50));
        world.run(100);
    }
    world.set_target(45.0);
    world.set_target(50.0);
    world.unreachable = false;
    world.run(6_000);
    assert_eq!(
        world.texts(),
        [r#"{"settings":{"work_mode":2,"set_temp":50,"work_on":true}}"#]
    );
}

#[test]
fn r4_sixty_thousand_changes_to_a_hung_device_are_two_frames() {
    let mut world = World::connected();
    world.hang();
    for n in 0..60_000 {
        world.set_target(f64::from(20 + n % 40));
    }
    world.set_target(0.0);
    assert!(world.sent.len() <= 2, "{}", world.sent.len());
    world.thaw();
    world.run(5_000);
    assert_eq!(world.state().0, 0);
}

#[test]
fn r4_heat_left_in_a_hung_socket_is_off_in_the_end() {
    let mut world = World::connected();
    world.hang();
    world.set_target(45.0);
    world.run(5_500); // the silence rule gives the socket up; a new one sees it off
    assert_eq!(world.snapshot().link, Link::Connected);
    world.set_target(0.0);
    world.run(1_000);
    world.thaw(); // the device reads what was left in the old socket
    assert_eq!(world.state().0, 1);
    world.run(15_000);
    assert_eq!(world.state().0, 0);
    assert!(world.snapshot().off_known);
}

#[test]
fn r4_off_is_not_known_before_undelivered_heat_had_time_to_arrive() {
    let mut world = World::connected();
    world.hang();
    world.set_target(45.0);
    world.set_target(0.0);
    world.run(5_100);
    assert_eq!(world.snapshot().link, Link::Connected);
    assert!(!world.snapshot().off_known, "right after the reconnect");
    world.run(9_000);
    assert!(!world.snapshot().off_known, "one look is not enough");
    world.run(6_000);
    assert!(world.snapshot().off_known);
}

#[test]
fn r5_silence_of_five_seconds_is_a_dead_link() {
    let mut world = World::heating();
    world.hang();
    let at = world.snapshot().reading.unwrap().at;
    world.run(4_000);
    assert_eq!(world.snapshot().link, Link::Connected);
    world.unreachable = true;
    world.run(2_000);
    let snapshot = world.snapshot();
    assert_eq!(snapshot.link, Link::Reconnecting);
    assert_eq!(snapshot.reading.unwrap().at, at, "no reading is invented");
    assert!(
        world.lines[0].contains("no report for 5 s"),
        "{:?}",
        world.lines
    );
}

#[test]
fn r5_a_gap_in_our_own_time_makes_everything_buffered_worthless() {
    let mut world = World::heating();
    let before = world.snapshot().reading.unwrap();
    world.freeze(3_000);
    world.run(1);
    assert_ne!(world.snapshot().link, Link::Connected);
    assert_eq!(
        world.snapshot().reading.unwrap(),
        before,
        "the buffered ones are not believed"
    );
    world.run(1_500);
    assert!(world.snapshot().reading.unwrap().at > before.at + 3_000);
}

#[test]
fn r5_readings_of_somebody_who_has_not_said_who_he_is_are_nothing() {
    let mut session = Session::new(Config::default(), 1);
    session.handle(0, Input::Tick);
    session.handle(1, Input::Opened(Conn(1), "192.0.2.1:80".parse().unwrap()));
    session.handle(
        2,
        Input::Frame(Conn(1), br#"{"settings":{"warehouse_temper":30}}"#),
    );
    assert_eq!(session.snapshot(2).reading, None);
}

#[test]
fn lost_drops_the_target_and_heat_needs_a_new_one() {
    let mut world = World::heating();
    world.unreachable = true;
    world.cut();
    world.run(118_000);
    assert!(!world.snapshot().lost);
    assert_eq!(world.snapshot().forced_offs, 0);
    world.run(3_000);
    assert!(world.snapshot().lost);
    assert_eq!(world.snapshot().forced_off.unwrap().reason, Reason::Lost);
    assert!((world.klipper.target - 0.0).abs() < 1e-9);
    world.unreachable = false;
    world.run(10_000);
    assert_eq!(
        world.texts(),
        [OFF],
        "the device is still heating when it comes back"
    );
    assert!(!world.snapshot().lost);
}

#[test]
fn lost_is_lost_even_on_a_live_connection_and_no_target_heats_blindly() {
    let mut world = World::connected();
    world.mute = true;
    for _ in 0..70 {
        world.broadcast(r#"{"settings":{"filtertemp":30}}"#); // alive, but says no temperature
        world.run(2_000);
    }
    let snapshot = world.snapshot();
    assert!(snapshot.lost);
    assert_eq!(snapshot.link, Link::Connected);
    world.set_target(45.0);
    world.run(3_000);
    assert!(world.sent.is_empty(), "{:?}", world.sent);
}

#[test]
fn r9_the_power_button_is_accepted_and_heat_is_not_armed_again() {
    let mut world = World::heating();
    let _ = world.device.press(sim::Button::Power);
    world.run(5_000);
    let snapshot = world.snapshot();
    assert_eq!(snapshot.forced_off.unwrap().reason, Reason::ExternalOff);
    assert!(snapshot.external_off);
    assert_eq!(snapshot.failures, 0, "somebody chose this");
    world.run(400_000);
    assert!(world.sent.is_empty(), "{:?}", world.sent);
    world.set_target(45.0);
    world.run(1_000);
    assert_eq!(world.texts(), [HEAT_45]);
    assert!(!world.snapshot().external_off);
}

#[test]
fn r9_reassert_turns_it_on_again_but_not_for_ever() {
    let config = Config {
        on_external_off: OnExternalOff::Reassert,
        ..Config::default()
    };
    let mut world = World::new(config);
    world.run(4_000);
    world.set_target(45.0);
    world.run(3_000);
    for presses in 1..=4 {
        let _ = world.device.press(sim::Button::Power);
        world.run(5_000);
        assert_eq!(world.state().0, u8::from(presses < 4), "press {presses}");
    }
    assert_eq!(
        world.snapshot().forced_off.unwrap().reason,
        Reason::ExternalOff
    );
}

#[test]
fn r9_an_off_that_crosses_our_heat_is_settled_by_a_look() {
    let mut world = World::connected();
    world.latency = 300;
    world.set_target(45.0);
    world.run(100); // the heat is under way
    let _ = world.device.press(sim::Button::Power);
    world.run(10_000);
    // The heat came after the press: it heats, and nobody was overruled twice.
    assert_eq!(world.state(), (1, 45));
    assert_eq!(world.snapshot().forced_offs, 0);
    assert_eq!(world.texts(), [HEAT_45]);
}

#[test]
fn r9_a_silent_off_by_another_client_is_found_within_a_minute() {
    let mut world = World::heating();
    let _ = world.device.handle_text(OFF.as_bytes()); // not pushed to us
    world.run(65_000);
    assert_eq!(
        world.snapshot().forced_off.unwrap().reason,
        Reason::ExternalOff
    );
}

#[test]
fn r9_an_undelivered_heat_found_off_is_simply_sent_again() {
    let mut world = World::connected();
    world.set_target(45.0); // sent, still under way
    world.cut();
    world.run(3_000);
    assert_eq!(world.texts(), [HEAT_45, HEAT_45]);
    assert_eq!(world.snapshot().forced_offs, 0);
    assert_eq!(world.state(), (1, 45));
}

#[test]
fn a_protective_stop_is_a_failure_and_never_turned_on_again() {
    for (fault, expected) in [
        (sim::Fault::PtcOpen, Fault::ElementSensorOpen),
        (sim::Fault::PtcShort, Fault::ElementSensorShort),
        (sim::Fault::ChamberOpen, Fault::ChamberSensorOpen),
        (sim::Fault::Heater, Fault::Heater),
    ] {
        let config = Config {
            on_external_off: OnExternalOff::Reassert,
            ..Config::default()
        };
        let mut world = World::new(config);
        world.run(4_000);
        if fault == sim::Fault::Heater {
            world.device.fault(fault); // it is noticed by what does not happen
        }
        world.set_target(45.0);
        world.run(3_000);
        world.sent.clear();
        world.device.fault(fault);
        world.run(20_000); // which takes 12 s
        let snapshot = world.snapshot();
        let reason = snapshot.forced_off.map(|forced| forced.reason);
        assert_eq!(reason, Some(Reason::Fault(expected)), "{:?}", world.lines);
        assert_eq!(snapshot.failures, 1, "one stop is one failure");
        world.run(30_000);
        assert!(!world.texts().contains(&HEAT_45), "{fault:?}");
    }
}

#[test]
fn r5_readings_during_a_sensor_fault_are_none() {
    let mut world = World::heating();
    world.device.fault(sim::Fault::ChamberOpen);
    world.run(1_000);
    let last = world.snapshot().reading.unwrap().number;
    world.run(10_000);
    assert_eq!(world.snapshot().reading.unwrap().number, last);
    world.device.clear_faults();
    world.run(5_000);
    assert_eq!(world.snapshot().fault, None);
    assert!(world.snapshot().reading.unwrap().number > last);
}

#[test]
fn r2_a_button_that_turns_it_on_is_undone_with_one_line_per_press() {
    let mut world = World::connected();
    for press in 1..=3 {
        let _ = world.device.press(sim::Button::On);
        world.run(300);
        assert_eq!(world.state().0, 0, "press {press}");
        world.run(10_000);
    }
    assert_eq!(world.texts(), [OFF, OFF, OFF]);
    assert_eq!(world.lines.len(), 3, "{:?}", world.lines);
}

#[test]
fn r2_allow_leaves_it_on_until_the_next_target() {
    let config = Config {
        on_external_on: OnExternalOn::Allow,
        ..Config::default()
    };
    let mut world = World::new(config);
    world.run(4_000);
    assert_eq!(
        world.state().0,
        0,
        "at the start it is turned off all the same"
    );
    world.sent.clear();
    let _ = world.device.press(sim::Button::On);
    world.run(400_000);
    assert!(world.sent.is_empty());
    world.set_target(45.0);
    world.run(2_000);
    world.set_target(0.0);
    world.run(2_000);
    assert_eq!(world.state().0, 0);
    let _ = world.device.press(sim::Button::On);
    world.run(2_000);
    world.shut_down();
    world.run(2_000);
    assert_eq!(world.state().0, 0, "a shutdown turns it off");
}

#[test]
fn r2_found_on_by_a_silent_client_is_off_again_and_the_third_time_a_fault() {
    let mut world = World::connected();
    for time in 1..=3 {
        let _ = world.device.handle_text(HEAT_45.as_bytes());
        world.run(310_000);
        assert_eq!(world.state().0, 0, "time {time}");
        let fault = world
            .lines
            .iter()
            .any(|line| *line == Trouble::WillNotStayOff.text());
        assert_eq!(fault, time == 3, "{:?}", world.lines);
    }
}

#[test]
fn r2_a_chamber_that_warms_while_off_is_looked_at_at_once() {
    let mut world = World::connected();
    let _ = world.device.handle_text(HEAT_45.as_bytes());
    world.device.set_chamber(28.0);
    let connects = world.connects.len();
    world.run(60_000);
    assert!(world.connects.len() > connects);
    assert_eq!(world.state().0, 0);
}

#[test]
fn another_clients_setting_is_set_right_but_not_for_ever() {
    let mut world = World::heating();
    for _ in 0..30 {
        let _ = world.device.press(sim::Button::Auto);
        world.run(5_000);
    }
    assert!(
        world.sent.len() >= 3 && world.sent.len() <= 5,
        "{}",
        world.sent.len()
    );
}

#[test]
fn r6_a_storm_of_targets_is_two_flash_writes_per_second_and_the_last_one_counts() {
    let mut world = World::connected();
    for n in 0..600 {
        world.set_target(f64::from(20 + n % 30));
        world.run(100);
    }
    assert!(world.sent.len() <= 2 * 60 + 2, "{}", world.sent.len());
    world.set_target(55.0);
    world.run(1_000);
    assert_eq!(world.state(), (1, 55));
}

#[test]
fn r6_a_device_that_floods_reports_is_not_written_to_as_often() {
    let mut world = World::connected();
    for n in 0..6_000 {
        world.broadcast(r#"{"settings":{"warehouse_temper":22}}"#);
        world.set_target(f64::from(20 + n % 30));
        world.run(5);
    }
    assert!(world.sent.len() <= 10 + 300 + 1, "{}", world.sent.len());
}

#[test]
fn r6_a_device_that_insists_on_being_on_is_told_off_at_once_but_not_without_end() {
    let mut world = World::connected();
    for _ in 0..60_000 {
        world.broadcast(r#"{"settings":{"work_on":1}}"#);
        world.run(1);
        if world.sent.is_empty() {
            assert!(world.now < 20_000, "at once");
        }
    }
    assert!(
        world.sent.len() >= 50 && world.sent.len() <= 66,
        "{}",
        world.sent.len()
    );
    assert!(world.lines.len() <= 25, "{}", world.lines.len());
}

#[test]
fn r6_a_flapping_device_fills_no_log() {
    let mut world = World::connected();
    for _ in 0..2_000 {
        world.cut();
        world.run(400);
    }
    assert!(world.lines.len() < 60, "{}", world.lines.len());
}

#[test]
fn reconnects_grow_apart_with_the_outage() {
    let mut world = World::heating();
    world.run(20_000);
    world.unreachable = true;
    world.connects.clear();
    let cut = world.now;
    world.cut();
    // A refusal is as quick as a reset.
    while world.now < cut + 120_000 {
        world.run(1);
        world.cut();
    }
    let waits: Vec<_> = world
        .connects
        .windows(2)
        .map(|pair| pair[1] - pair[0])
        .collect();
    assert!(world.connects[0] - cut <= 1, "the first retry is at once");
    assert!(
        waits
            .iter()
            .skip(1)
            .all(|&wait| (187..=5_010).contains(&wait)),
        "{waits:?}"
    );
    for pair in world.connects.windows(2) {
        let away = pair[0] - cut;
        assert!(
            pair[1] - pair[0] <= 260.max(away / 8 + 10),
            "after {away} ms: {waits:?}"
        );
    }
    assert!(waits.iter().rev().take(3).all(|&wait| wait > 3_700));
}

#[test]
fn identity_another_device_at_the_address_gets_no_heat_and_no_belief() {
    let mut world = World::heating();
    world.run(15_000);
    let number = world.snapshot().reading.unwrap().number;
    world.device.set_identity("AABBCCDDEE99".parse().unwrap());
    world.cut();
    world.run(20_000);
    let snapshot = world.snapshot();
    assert_eq!(snapshot.link, Link::Error);
    assert!(snapshot.last_error.unwrap().contains("this was device"));
    assert_eq!(snapshot.reading.unwrap().number, number);
    assert!(world.sent.is_empty());
    assert!(world.connects.len() < 60, "no hurry");
}

#[test]
fn identity_a_look_that_meets_another_device_proves_nothing() {
    let mut world = World::connected();
    world.device.set_identity("AABBCCDDEE99".parse().unwrap());
    let _ = world.device.handle_text(HEAT_45.as_bytes()); // that one is on, and none of ours
    world.mute = true;
    for _ in 0..110 {
        world.broadcast(r#"{"settings":{"warehouse_temper":22}}"#);
        world.run(3_000);
    }
    // All there is to say to the one that is known, now that five minutes have passed.
    assert_eq!(world.texts(), [OFF]);
    assert!(!world.snapshot().off_known);
}

#[test]
fn identity_device_id_refuses_every_other_device() {
    let config = Config {
        device_id: Some("0000".into()),
        ..Config::default()
    };
    let mut world = World::new(config);
    world.set_target(45.0);
    world.run(10_000);
    assert_eq!(world.snapshot().link, Link::Error);
    assert!(world.sent.is_empty());
    assert_eq!(world.lines.len(), 1, "said once: {:?}", world.lines);
    assert!(world.lines[0].contains("'device_id'"), "{:?}", world.lines);
}

#[test]
fn identity_a_device_of_another_section_is_an_error_that_names_it() {
    let mut session = Session::new(Config::default(), 1);
    let mut device = sim::Device::new(&sim::Setup::default());
    session.handle(0, Input::Tick);
    session.handle(1, Input::Opened(Conn(1), "192.0.2.1:80".parse().unwrap()));
    let snapshot = device.snapshot();
    session.handle(2, Input::Frame(Conn(1), snapshot.as_bytes()));
    let taken = Claim::Taken("panda_breath left");
    session.handle(2, Input::Claimed(found::who(&snapshot), taken));
    assert_eq!(session.snapshot(2).link, Link::Error);
    assert!(
        session
            .snapshot(2)
            .last_error
            .unwrap()
            .contains("[panda_breath left]")
    );
    let _ = device.take_push();
}

#[test]
fn r12_a_restart_keeps_the_connection_and_turns_off_first() {
    let mut world = World::heating();
    world.run(5_000);
    let connects = world.connects.len();
    world.restart();
    world.run(2_500);
    assert_eq!(world.texts(), [OFF]);
    world.set_target(45.0);
    world.run(5_000);
    assert_eq!(world.texts(), [OFF, HEAT_45]);
    assert_eq!(world.state(), (1, 45));
    assert!(world.connects.len() <= connects + 1, "at most one look");
}

#[test]
fn r12_without_a_printer_it_ends_once_off_is_known() {
    let mut world = World::heating();
    world.orphan();
    world.run(200);
    assert!(!world.ended);
    world.run(4_000);
    assert!(world.ended);
    assert_eq!(world.state().0, 0);
    assert_eq!(world.open_wires(), 0);
}

#[test]
fn r12_without_a_printer_an_unreachable_device_is_not_given_up() {
    let mut world = World::heating();
    world.unreachable = true;
    world.cut();
    world.orphan();
    world.run(3_600_000);
    assert!(!world.ended);
    assert_eq!(world.state().0, 1);
    world.unreachable = false;
    world.run(10_000);
    assert_eq!(world.state().0, 0);
    world.run(20_000);
    assert!(world.ended);
}

#[test]
fn r12_a_device_that_was_never_there_is_forgotten_at_once() {
    let mut world = World::new(Config::default());
    world.unreachable = true;
    world.cut();
    world.run(500);
    let mut session = world.session.clone();
    session.handle(world.now, Input::Orphaned);
    let commands: Vec<_> = std::iter::from_fn(|| session.poll()).collect();
    assert!(commands.contains(&Command::End));
}

#[test]
fn r7_after_a_bug_the_next_session_only_turns_off() {
    let mut world = World::heating();
    let before = world.snapshot();
    world.session = Session::after_panic(Config::default(), 1, &before, "test", world.now);
    world.cut();
    world.run(20_000);
    let snapshot = world.snapshot();
    assert_eq!(snapshot.link, Link::Error);
    assert_eq!(snapshot.failures, before.failures + 1);
    assert_eq!(snapshot.forced_off.unwrap().reason, Reason::Internal);
    assert_eq!(world.texts(), [OFF]);
    world.set_target(45.0);
    world.run(5_000);
    assert_eq!(world.texts(), [OFF]);
}

#[test]
fn the_target_is_clamped_to_max_target_as_a_second_line_of_defence() {
    let mut world = World::connected();
    world.set_target(300.0);
    world.run(1_000);
    assert_eq!(world.state(), (1, 60));
}
