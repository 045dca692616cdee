//! Random histories: whatever happens in whatever order, no rule breaks on the way (`World` checks
//! every command, `reference` everything else), and in the end, in a world that works again, off is
//! off and heat is heat.
//!
//! `HISTORIES` says how many; enough of them print what they have met, and are held to it.

use std::cell::RefCell;

use proptest::prelude::*;
use proptest::test_runner::{
    Config as ProptestConfig, RngAlgorithm, TestError, TestRng, TestRunner,
};

use super::super::{Config, Link, Millis};
use super::coverage::{Coverage, Want};
use super::reference::{SEEN, SILENT};
use super::world::World;
use crate::sim::{Button, Fault};

/// From so many on, every cell must have been met often enough.
pub(super) const IN_NUMBER: u64 = 10_000;

#[derive(Clone, Debug)]
pub(super) enum Step {
    Advance(Millis),
    Target(u8),
    /// The dryer gets this target, and so much time passes.
    Dry(u8, Millis),
    Cut,
    Unreachable(bool),
    Hang,
    Thaw,
    Mute(bool),
    Echo(bool),
    Latency(Millis),
    Reboot,
    Swap(bool),
    Taken(bool),
    Press(Button),
    OtherClient(&'static str),
    Fault(Option<Fault>),
    Say(&'static str),
    Stall(bool),
    Freeze(Millis),
    Armed(bool),
    Restart,
    Orphan,
    Kill,
    KillGuarded(Millis),
}

const EVENTS: [&str; 24] = [
    "advance",
    "target",
    "cut",
    "unreachable",
    "hang",
    "thaw",
    "mute",
    "echo",
    "latency",
    "reboot",
    "swap",
    "taken",
    "press",
    "other",
    "fault",
    "say",
    "stall",
    "freeze",
    "armed",
    "restart",
    "orphan",
    "kill",
    "kill, guarded",
    "dry",
];

impl Step {
    fn name(&self) -> &'static str {
        EVENTS[match self {
            Self::Advance(_) => 0,
            Self::Target(_) => 1,
            Self::Cut => 2,
            Self::Unreachable(_) => 3,
            Self::Hang => 4,
            Self::Thaw => 5,
            Self::Mute(_) => 6,
            Self::Echo(_) => 7,
            Self::Latency(_) => 8,
            Self::Reboot => 9,
            Self::Swap(_) => 10,
            Self::Taken(_) => 11,
            Self::Press(_) => 12,
            Self::OtherClient(_) => 13,
            Self::Fault(_) => 14,
            Self::Say(_) => 15,
            Self::Stall(_) => 16,
            Self::Freeze(_) => 17,
            Self::Armed(_) => 18,
            Self::Restart => 19,
            Self::Orphan => 20,
            Self::Kill => 21,
            Self::KillGuarded(_) => 22,
            Self::Dry(..) => 23,
        }]
    }

    /// For how long its consequences may be seen.
    fn settles(&self) -> Option<Millis> {
        match self {
            Self::Advance(_) | Self::Target(_) | Self::Dry(..) | Self::Armed(_) | Self::Orphan => {
                None
            }
            // What was said before, by whomever, may now arrive, or may never have been true.
            Self::Thaw
            | Self::OtherClient(_)
            | Self::Say(_)
            | Self::Press(_)
            | Self::Latency(_)
            | Self::Swap(_)
            | Self::Fault(_) => Some(SILENT),
            Self::Cut
            | Self::Unreachable(_)
            | Self::Hang
            | Self::Mute(_)
            | Self::Echo(_)
            | Self::Reboot
            | Self::Taken(_)
            | Self::Stall(_)
            | Self::Freeze(_)
            | Self::Restart
            | Self::Kill
            | Self::KillGuarded(_) => Some(SEEN),
        }
    }
}

/// Whether nobody could do this: a printer that is not there sets no target.
pub(super) fn is_nobodys(want: Want, event: &str) -> bool {
    let of_a_printer = matches!(
        event,
        "target" | "dry" | "stall" | "armed" | "orphan" | "kill" | "kill, guarded"
    );
    want == Want::Gone && of_a_printer
}

/// Why a cell cannot be met.
fn unreachable(link: Link, want: Want, event: &str) -> Option<&'static str> {
    if link == Link::Pending {
        Some("the first turn connects, and nothing happens before it")
    } else if is_nobodys(want, event) {
        Some("nobody is there to do it")
    } else if link == Link::Connecting && want == Want::Gone {
        Some("a device that was never there is forgotten at once")
    } else {
        None
    }
}

pub(super) fn advance() -> impl Strategy<Value = Millis> {
    // Time is only interesting beside a limit, so most of it is drawn from there.
    let limits = prop::sample::select(vec![
        1, 20, 99, 250, 999, 1_000, 1_001, 1_199, 1_201, 1_999, 2_001, 2_999, 3_001, 4_999, 5_001,
        7_501, 9_999, 10_001, 15_001, 29_999, 30_001,
    ]);
    let long = prop::sample::select(vec![60_000, 119_000, 121_000, 300_001]);
    prop_oneof![10 => limits, 10 => 1..8_000_u64, 1 => long]
}

/// Filament, mostly only begun, and sometimes to the end.
pub(super) fn dry() -> impl Strategy<Value = (u8, Millis)> {
    let target = prop_oneof![1 => Just(0_u8), 3 => 40..=60_u8];
    let time = prop_oneof![60 => 0..8_000_u64, 1 => Just(3_600_001)];
    (target, time)
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    let button = prop::sample::select(vec![Button::Power, Button::Auto, Button::On, Button::Dry]);
    let fault = prop::sample::select(vec![Fault::PtcOpen, Fault::ChamberShort, Fault::Heater]);
    let other = prop::sample::select(vec![
        r#"{"settings":{"work_on":false}}"#,
        r#"{"settings":{"work_mode":2,"set_temp":70,"work_on":true}}"#,
        r#"{"settings":{"set_temp":20}}"#,
        r#"{"settings":{"work_mode":3,"isrunning":1}}"#,
        r#"{"settings":{"isrunning":0}}"#,
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
    // What lasts is mostly ended soon, else it is all that there is.
    let lasts = || prop::bool::weighted(0.4);
    prop_oneof![
        24 => advance().prop_map(Step::Advance),
        9 => prop_oneof![1 => Just(0_u8), 2 => 20..=60_u8].prop_map(Step::Target),
        3 => dry().prop_map(|(target, time)| Step::Dry(target, time)),
        3 => Just(Step::Cut),
        3 => lasts().prop_map(Step::Unreachable),
        3 => Just(Step::Hang),
        4 => Just(Step::Thaw),
        3 => lasts().prop_map(Step::Mute),
        3 => any::<bool>().prop_map(Step::Echo),
        3 => prop::sample::select(vec![1, 5, 200, 900, 1_500]).prop_map(Step::Latency),
        3 => Just(Step::Reboot),
        5 => prop::bool::weighted(0.6).prop_map(Step::Swap),
        4 => prop::bool::weighted(0.3).prop_map(Step::Taken),
        3 => button.prop_map(Step::Press),
        4 => other.prop_map(Step::OtherClient),
        3 => prop::option::weighted(0.4, fault).prop_map(Step::Fault),
        4 => said.prop_map(Step::Say),
        4 => lasts().prop_map(Step::Stall),
        3 => (1..30_000_u64).prop_map(Step::Freeze),
        5 => prop::bool::weighted(0.5).prop_map(Step::Armed),
        3 => Just(Step::Restart),
        4 => Just(Step::Orphan),
        2 => Just(Step::Kill),
        2 => advance().prop_map(Step::KillGuarded),
    ]
}

/// Mostly anything; sometimes only what a quiet day brings, so that a false alarm shows.
fn steps() -> impl Strategy<Value = Vec<Step>> {
    let quiet = prop_oneof![
        6 => (1..60_000_u64).prop_map(Step::Advance),
        1 => prop_oneof![Just(0_u8), 20..=60_u8].prop_map(Step::Target),
        1 => dry().prop_map(|(target, time)| Step::Dry(target, time)),
    ];
    prop_oneof![
        19 => prop::collection::vec(step(), 20..120),
        1 => prop::collection::vec(quiet, 20..120),
    ]
}

pub(super) fn apply(world: &mut World, step: &Step) {
    if let Some(time) = step.settles() {
        world.reference.disturbed(world.now, time);
    }
    match step {
        Step::Advance(time) => world.run(*time),
        Step::Target(target) => world.set_target(f64::from(*target)),
        Step::Dry(target, time) => {
            world.dry(f64::from(*target));
            world.run(*time);
        }
        Step::Cut => world.cut(),
        Step::Unreachable(is) => world.unreachable = *is,
        Step::Hang => world.hang(),
        Step::Thaw => world.thaw(),
        Step::Mute(is) => world.mute = *is,
        Step::Echo(is) => world.echo = *is,
        Step::Latency(time) => world.latency = *time,
        Step::Reboot => world.reboot(),
        Step::Swap(other) => world.swap(usize::from(*other)),
        Step::Taken(is) => {
            world.taken = *is;
            world.cut(); // it is asked once for each connection
        }
        Step::Press(button) => drop(world.device.press(*button)),
        Step::OtherClient(text) => drop(world.device.handle_text(text.as_bytes())),
        Step::Fault(fault) => {
            world.faulty = fault.is_some();
            match fault {
                Some(fault) => world.device.fault(*fault),
                None => world.device.clear_faults(),
            }
        }
        Step::Say(text) => world.broadcast(text),
        Step::Stall(is) => world.klipper.stalled = *is,
        Step::Freeze(time) => world.freeze(*time),
        Step::Armed(true) => world.klipper.armed = true,
        Step::Armed(false) => world.shut_down(),
        Step::Restart => world.restart(),
        Step::Orphan => world.orphan(),
        Step::Kill => world.kill(),
        Step::KillGuarded(time) => world.kill_guarded(*time),
    }
    if let Some(time) = step.settles() {
        world.reference.disturbed(world.now, time);
    }
}

/// Everything works again; what was left in hung sockets arrives.
pub(super) fn mend(world: &mut World) {
    world.unreachable = false;
    world.mute = false;
    world.echo = false;
    world.taken = false;
    world.latency = 5;
    if world.klipper.gone {
        world.adopt();
    }
    world.klipper.stalled = false;
    world.klipper.armed = true;
    world.faulty = false;
    world.device.clear_faults();
    if world.is_swapped() {
        world.swap_back();
    }
    world.thaw();
    world.reference.disturbed(world.now, SILENT);
}

/// A few for every day; `HISTORIES` sets another number.
pub(super) fn cases() -> u32 {
    let number = |name| std::env::var(name).ok().and_then(|n| n.parse().ok());
    number("HISTORIES")
        .or_else(|| number("PROPTEST_CASES"))
        .unwrap_or(100)
}

/// The same histories each time, so that what lands was seen to hold. A million and more are others
/// each time: that is where to look for what nobody has thought of.
pub(super) fn runner(config: ProptestConfig) -> TestRunner {
    if config.cases > 100_000 {
        return TestRunner::new(config);
    }
    let dice = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    TestRunner::new_with_rng(config, dice)
}

/// Says from time to time how far it has come.
pub(super) fn progress(what: &str, coverage: &Coverage) {
    if coverage.histories % 20_000 == 0 {
        #[expect(clippy::print_stdout, reason = "for whoever waits for a million")]
        {
            println!(
                "{what}: {} histories, {} steps",
                coverage.histories, coverage.steps
            );
        }
    }
}

/// What failed, on few lines.
pub(super) fn told<T: std::fmt::Debug>(failure: TestError<T>) -> String {
    match failure {
        TestError::Fail(why, history) => format!("{why}: {history:?}"),
        TestError::Abort(why) => why.to_string(),
    }
}

fn play(steps: &[Step], starts_alone: bool, coverage: &mut Coverage) -> Result<(), TestCaseError> {
    let config = Config {
        drying_hours: 1,
        ..Config::default()
    };
    let mut world = World::absent(config, starts_alone);
    let started = world.now;
    world.reference.is_told = true;
    coverage.histories += 1;
    for step in steps {
        if world.ended {
            world.adopt(); // nothing more would happen to it
        }
        let want = world.klipper.want();
        if is_nobodys(want, step.name()) {
            continue;
        }
        coverage.met(world.snapshot().link, want, step.name());
        apply(&mut world, step);
    }
    mend(&mut world);
    world.set_target(0.0);
    world.run(345_000); // what another client does in silence is found within 5 min
    let snapshot = world.snapshot();
    prop_assert_eq!(snapshot.link, Link::Connected, "{:?}", world.lines);
    prop_assert_eq!(world.state().0, 0, "R2: still on; {:?}", world.lines);
    prop_assert!(snapshot.off_known, "R2: off is not known");

    // Safety alone is easy: never heat. It must also do what it is for.
    let forced_offs = world.snapshot().forced_offs;
    world.set_target(45.0);
    world.run(20_000);
    prop_assert_eq!(world.state(), (1, 45), "does not heat; {:?}", world.lines);
    world.dry(50.0);
    world.run(20_000);
    let state = world.device.state();
    let is = (state.drying, state.programme.0);
    prop_assert_eq!(is, (true, 50), "does not dry; {:?}", world.lines);
    prop_assert_eq!(world.snapshot().forced_offs, forced_offs);

    let heats = world
        .sent
        .iter()
        .filter(|(_, text)| text.contains("true"))
        .count();
    let most = 11 + usize::try_from((world.now - started) / 100).unwrap();
    prop_assert!(heats <= most, "R6: {heats} heat commands");
    let judge = &world.reference;
    coverage.judged[0] += judge.off_judged;
    coverage.judged[1] += judge.heat_judged;
    coverage.judged[2] += judge.calm_judged;
    Ok(())
}

#[test]
fn no_history_breaks_a_rule() {
    let coverage = RefCell::new(Coverage::default());
    let config = ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(cases())
    };
    runner(config)
        .run(&(steps(), prop::bool::weighted(0.15)), |(steps, alone)| {
            progress("stock", &coverage.borrow());
            play(&steps, alone, &mut coverage.borrow_mut())
        })
        .unwrap_or_else(|failure| panic!("{}", told(failure)));
    coverage.borrow().conclude("stock", &EVENTS, unreachable);
}

/// Found by chance: the chamber's target was too soon after the first to be written, and so the
/// device's clock is a little ahead.
#[test]
fn a_history_in_which_drying_begins_twice() {
    let mut steps = vec![
        Step::Dry(52, 201),
        Step::Target(20),
        Step::Dry(52, 3_600_001),
    ];
    steps.extend((0..20).map(|_| Step::Advance(1)));
    play(&steps, false, &mut Coverage::default()).unwrap();
}
