//! Random histories: whatever happens in whatever order, no rule breaks on the way (`World` checks
//! every command), and in the end, in a world that works again, off is off and heat is heat.

use proptest::prelude::*;

use super::super::{Config, Link, Millis};
use super::world::World;
use crate::sim::{Button, Fault};

#[derive(Clone, Debug)]
pub(super) enum Step {
    Advance(Millis),
    Target(u8),
    Cut,
    Unreachable(bool),
    Hang,
    Thaw,
    Mute(bool),
    Latency(Millis),
    Reboot,
    Press(Button),
    OtherClient(&'static str),
    Fault(Option<Fault>),
    Say(&'static str),
    Stall(bool),
    Freeze(Millis),
    Armed(bool),
    Restart,
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    // Time is only interesting beside a limit, so most of it is drawn from there.
    let limits = prop::sample::select(vec![
        1, 99, 250, 999, 1_000, 1_001, 1_199, 1_200, 1_999, 2_001, 4_999, 5_000, 5_001, 9_999,
        10_001, 60_000, 119_000, 121_000, 300_001,
    ]);
    let button = prop::sample::select(vec![Button::Power, Button::Auto, Button::On, Button::Dry]);
    let fault = prop::sample::select(vec![Fault::PtcOpen, Fault::ChamberShort, Fault::Heater]);
    let other = prop::sample::select(vec![
        r#"{"settings":{"work_on":false}}"#,
        r#"{"settings":{"work_mode":2,"set_temp":70,"work_on":true}}"#,
        r#"{"settings":{"set_temp":20}}"#,
        r#"{"settings":{"work_mode":3,"isrunning":1}}"#,
    ]);
    let said = prop::sample::select(vec![
        "garbage",
        "[1,2]",
        "{}",
        r#"{"settings":null}"#,
        r#"{"settings":{"warehouse_temper":"NaN","work_on":7}}"#,
        r#"{"settings":{"work_on":1}}"#,
        r#"{"settings":{"work_on":0}}"#,
        r#"{"settings":{"ptc_sensor_status":2}}"#,
    ]);
    prop_oneof![
        6 => limits.prop_map(Step::Advance),
        6 => (1..8_000_u64).prop_map(Step::Advance),
        5 => prop_oneof![Just(0_u8), 20..=60_u8].prop_map(Step::Target),
        2 => Just(Step::Cut),
        2 => any::<bool>().prop_map(Step::Unreachable),
        2 => Just(Step::Hang),
        2 => Just(Step::Thaw),
        1 => any::<bool>().prop_map(Step::Mute),
        1 => prop::sample::select(vec![1, 5, 200, 900, 1_500]).prop_map(Step::Latency),
        1 => Just(Step::Reboot),
        2 => button.prop_map(Step::Press),
        2 => other.prop_map(Step::OtherClient),
        1 => prop::option::of(fault).prop_map(Step::Fault),
        2 => said.prop_map(Step::Say),
        1 => any::<bool>().prop_map(Step::Stall),
        1 => (1..30_000_u64).prop_map(Step::Freeze),
        1 => any::<bool>().prop_map(Step::Armed),
        1 => Just(Step::Restart),
    ]
}

pub(super) fn apply(world: &mut World, step: &Step) {
    match step {
        Step::Advance(time) => world.run(*time),
        Step::Target(target) => world.set_target(f64::from(*target)),
        Step::Cut => world.cut(),
        Step::Unreachable(is) => world.unreachable = *is,
        Step::Hang => world.hang(),
        Step::Thaw => world.thaw(),
        Step::Mute(is) => world.mute = *is,
        Step::Latency(time) => world.latency = *time,
        Step::Reboot => world.reboot(),
        Step::Press(button) => drop(world.device.press(*button)),
        Step::OtherClient(text) => drop(world.device.handle_text(text.as_bytes())),
        Step::Fault(Some(fault)) => world.device.fault(*fault),
        Step::Fault(None) => world.device.clear_faults(),
        Step::Say(text) => world.broadcast(text),
        Step::Stall(is) => world.klipper.stalled = *is,
        Step::Freeze(time) => world.freeze(*time),
        Step::Armed(true) => world.klipper.armed = true,
        Step::Armed(false) => world.shut_down(),
        Step::Restart => world.restart(),
    }
}

/// Everything works again; what was left in hung sockets arrives.
pub(super) fn mend(world: &mut World) {
    world.unreachable = false;
    world.mute = false;
    world.latency = 5;
    world.klipper.stalled = false;
    world.klipper.armed = true;
    world.device.clear_faults();
    world.thaw();
}

/// Enough for every day; `PROPTEST_CASES` sets another number.
pub(super) fn cases() -> u32 {
    std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(1_500)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]

    #[test]
    fn no_history_breaks_a_rule(steps in prop::collection::vec(step(), 1..60)) {
        let mut world = World::new(Config::default());
        let started = world.now;
        for step in &steps {
            apply(&mut world, step);
        }
        mend(&mut world);
        world.set_target(0.0);
        world.run(345_000); // what another client does in silence is found within 5 min
        let snapshot = world.snapshot();
        prop_assert_eq!(snapshot.link, Link::Connected);
        prop_assert_eq!(world.state().0, 0, "R2: still on; {:?}", world.lines);
        prop_assert!(snapshot.off_known, "R2: off is not known");

        // Safety alone is easy: never heat. It must also do what it is for.
        let forced_offs = world.snapshot().forced_offs;
        world.set_target(45.0);
        world.run(20_000);
        prop_assert_eq!(world.state(), (1, 45), "does not heat; {:?}", world.lines);
        prop_assert_eq!(world.snapshot().forced_offs, forced_offs);

        let heats = world.sent.iter().filter(|(_, text)| text.contains("true")).count();
        let most = 11 + usize::try_from((world.now - started) / 100).unwrap();
        prop_assert!(heats <= most, "R6: {heats} heat commands");
    }
}
