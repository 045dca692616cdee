//! Random histories of a device behind a broker: whatever happens in whatever order, no rule
//! breaks on the way (`BrokerWorld` checks every command), and in the end, in a world that works
//! again, off is off and heat is heat.

use std::cell::RefCell;

use proptest::prelude::*;
use proptest::test_runner::Config as ProptestConfig;

use super::super::{Config, Link, Millis};
use super::broker_world::BrokerWorld;
use super::coverage::{Coverage, Want};
use super::histories::{advance, cases, dry, is_nobodys, progress, runner, told};
use super::peer::Kind;
use super::reference::{SEEN, SILENT};
use crate::dialect::Dialect;
use crate::dialect::mqtt::Options;
use crate::sim::Fault;
use crate::sim::esphome::{BangBang, Discovery, Platform, Setup, Thermostat};

/// Where others command, and what.
const COMMANDS: [(&str, &str); 9] = [
    ("climate/chamber/mode/command", "heat"),
    ("climate/chamber/mode/command", "off"),
    ("climate/chamber/mode/command", "garbage"),
    ("climate/chamber/target_temperature/command", "20"),
    ("climate/chamber/target_temperature/command", "70"),
    ("climate/chamber/target_temperature_low/command", "20"),
    ("climate/chamber/target_temperature_high/command", "45"),
    ("climate/chamber/target_temperature_high/command", "70"),
    ("climate/chamber/target_temperature/command", "nan"),
];
const STOCK_COMMANDS: [&str; 6] = [
    r#"{"work_on":"ON"}"#,
    r#"{"work_on":"OFF"}"#,
    r#"{"target_temp":20}"#,
    r#"{"mode":"filament drying","drying_running":"ON"}"#,
    r#"{"drying_running":"OFF"}"#,
    "garbage",
];
const STOCK_STATES: [&str; 4] = [
    r#"{"chamber_temp":30,"work_on":"ON","mode":"power on","target_temp":45}"#,
    r#"{"chamber_temp":30,"work_on":"OFF"}"#,
    r#"{"chamber_temp":"warm","work_on":1}"#,
    "garbage",
];

#[derive(Clone, Debug)]
enum Step {
    Advance(Millis),
    Target(u16),
    /// The dryer gets this target, and so much time passes.
    Dry(u8, Millis),
    Cut,
    HalfOpen,
    Down(bool),
    BrokerFrozen(bool),
    BrokerRestart(bool),
    DeviceFrozen(bool),
    DropDevice,
    PowerCut,
    Reboot,
    Switch(bool),
    OtherClient(usize),
    Stranger(&'static str, &'static str),
    StockStranger(usize),
    Replay,
    SensorFault(bool),
    Stall(bool),
    Freeze(Millis),
    Armed(bool),
    Restart,
    Orphan,
    Kill,
    KillGuarded(Millis),
    Echo(bool),
    Impostor,
    Taken(bool),
}

const EVENTS: [&str; 28] = [
    "advance",
    "target",
    "cut",
    "halfopen",
    "down",
    "bfrozen",
    "brestart",
    "dfrozen",
    "drop",
    "power",
    "reboot",
    "switch",
    "other",
    "stranger",
    "state",
    "replay",
    "fault",
    "stall",
    "freeze",
    "armed",
    "restart",
    "orphan",
    "kill",
    "echo",
    "impostor",
    "taken",
    "kill, guarded",
    "dry",
];

impl Step {
    fn name(&self) -> &'static str {
        EVENTS[match self {
            Self::Advance(_) => 0,
            Self::Target(_) => 1,
            Self::Cut => 2,
            Self::HalfOpen => 3,
            Self::Down(_) => 4,
            Self::BrokerFrozen(_) => 5,
            Self::BrokerRestart(_) => 6,
            Self::DeviceFrozen(_) => 7,
            Self::DropDevice => 8,
            Self::PowerCut => 9,
            Self::Reboot => 10,
            Self::Switch(_) => 11,
            Self::OtherClient(_) => 12,
            Self::Stranger(..) => 13,
            Self::StockStranger(_) => 14,
            Self::Replay => 15,
            Self::SensorFault(_) => 16,
            Self::Stall(_) => 17,
            Self::Freeze(_) => 18,
            Self::Armed(_) => 19,
            Self::Restart => 20,
            Self::Orphan => 21,
            Self::Kill => 22,
            Self::KillGuarded(_) => 26,
            Self::Echo(_) => 23,
            Self::Impostor => 24,
            Self::Taken(_) => 25,
            Self::Dry(..) => 27,
        }]
    }

    /// For how long its consequences may be seen.
    fn settles(&self) -> Option<Millis> {
        match self {
            Self::Advance(_) | Self::Target(_) | Self::Dry(..) | Self::Armed(_) | Self::Orphan => {
                None
            }
            // What was said before, by whomever, may now arrive, or may never have been true.
            Self::OtherClient(_)
            | Self::Stranger(..)
            | Self::StockStranger(_)
            | Self::Replay
            | Self::Switch(_)
            | Self::SensorFault(_)
            | Self::Impostor
            | Self::BrokerFrozen(_)
            | Self::DeviceFrozen(_) => Some(SILENT),
            Self::Cut
            | Self::HalfOpen
            | Self::Down(_)
            | Self::BrokerRestart(_)
            | Self::DropDevice
            | Self::PowerCut
            | Self::Reboot
            | Self::Stall(_)
            | Self::Freeze(_)
            | Self::Restart
            | Self::Kill
            | Self::KillGuarded(_)
            | Self::Echo(_)
            | Self::Taken(_) => Some(SEEN),
        }
    }
}

/// Why a cell cannot be met.
fn unreachable(link: Link, want: Want, event: &str) -> Option<&'static str> {
    if link == Link::Pending {
        Some("the first turn connects, and nothing happens before it")
    } else if is_nobodys(want, event) {
        Some("nobody is there to do it")
    } else {
        None
    }
}

fn step() -> impl Strategy<Value = Step> {
    let topics = prop::sample::select(vec![
        "panda-breath/status",
        "panda-breath/climate/chamber/mode/state",
        "panda-breath/climate/chamber/action/state",
        "panda-breath/climate/chamber/target_temperature/state",
        "panda-breath/sensor/chamber_temperature/state",
    ]);
    let said = prop::sample::select(vec![
        "online", "offline", "heat", "off", "heating", "idle", "nan", "33.0", "", "garbage",
    ]);
    let lasts = || prop::bool::weighted(0.4);
    prop_oneof![
        26 => advance().prop_map(Step::Advance),
        9 => prop_oneof![1 => Just(0_u16), 2 => 200..=600_u16].prop_map(Step::Target),
        3 => dry().prop_map(|(target, time)| Step::Dry(target, time)),
        3 => Just(Step::Cut),
        3 => Just(Step::HalfOpen),
        4 => lasts().prop_map(Step::Down),
        3 => lasts().prop_map(Step::BrokerFrozen),
        3 => any::<bool>().prop_map(Step::BrokerRestart),
        3 => lasts().prop_map(Step::DeviceFrozen),
        3 => Just(Step::DropDevice),
        3 => Just(Step::PowerCut),
        3 => Just(Step::Reboot),
        4 => any::<bool>().prop_map(Step::Switch),
        3 => (0..9_usize).prop_map(Step::OtherClient),
        3 => (0..4_usize).prop_map(Step::StockStranger),
        3 => (topics, said).prop_map(|(topic, payload)| Step::Stranger(topic, payload)),
        3 => Just(Step::Replay),
        3 => lasts().prop_map(Step::SensorFault),
        4 => lasts().prop_map(Step::Stall),
        3 => (1..30_000_u64).prop_map(Step::Freeze),
        5 => any::<bool>().prop_map(Step::Armed),
        3 => Just(Step::Restart),
        4 => Just(Step::Orphan),
        3 => Just(Step::Kill),
        2 => advance().prop_map(Step::KillGuarded),
        3 => any::<bool>().prop_map(Step::Echo),
        6 => Just(Step::Impostor),
        4 => prop::bool::weighted(0.4).prop_map(Step::Taken),
    ]
}

/// Mostly anything; sometimes only what a quiet day brings, so that a false alarm shows.
fn steps() -> impl Strategy<Value = Vec<Step>> {
    let quiet = prop_oneof![
        6 => (1..60_000_u64).prop_map(Step::Advance),
        1 => prop_oneof![Just(0_u16), 200..=600_u16].prop_map(Step::Target),
    ];
    prop_oneof![
        19 => prop::collection::vec(step(), 20..120),
        1 => prop::collection::vec(quiet, 20..120),
    ]
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        3 => setup().prop_map(|setup| Kind::Esphome(Box::new(setup))),
        2 => Just(Kind::Stock),
    ]
}

fn setup() -> impl Strategy<Value = Setup> {
    let platform = prop_oneof![
        2 => Just(Platform::Thermostat(Thermostat::default())),
        1 => Just(Platform::Thermostat(Thermostat {
            restores: false,
            min_run_s: 12.0,
            ..Thermostat::default()
        })),
        1 => Just(Platform::BangBang(BangBang::default())),
    ];
    let discovery = prop::option::of(any::<bool>().prop_map(|abbreviated| Discovery {
        prefix: "homeassistant".into(),
        abbreviated,
    }));
    (platform, discovery).prop_map(|(platform, discovery)| Setup {
        platform,
        discovery,
        ..Setup::default()
    })
}

fn apply(world: &mut BrokerWorld, step: &Step) {
    if let Some(time) = step.settles() {
        world.reference.disturbed(world.now, time);
    }
    match step {
        Step::Advance(time) => world.run(*time),
        Step::Target(tenths) => world.set_target(f64::from(*tenths) / 10.0),
        Step::Dry(target, time) => {
            world.dry(f64::from(*target));
            world.run(*time);
        }
        Step::Cut => world.cut(),
        Step::HalfOpen => world.half_open(),
        Step::Down(is) => world.down = *is,
        Step::BrokerFrozen(is) => world.frozen = *is,
        Step::BrokerRestart(persistent) => world.restart_broker(*persistent),
        Step::DeviceFrozen(is) => world.device_frozen = *is,
        Step::DropDevice => world.drop_device(),
        Step::PowerCut => world.power_cut(),
        Step::Reboot => world.reboot_device(),
        Step::Switch(on) => world.node.switch(*on),
        Step::OtherClient(n) => {
            let (topic, value) = COMMANDS[*n];
            world.publish(&format!("panda-breath/{topic}"), value, false);
            let value = STOCK_COMMANDS[n % STOCK_COMMANDS.len()];
            world.publish("panda_breath/025042000001/command", value, false);
        }
        Step::StockStranger(n) => {
            world.publish("panda_breath/025042000001/state", STOCK_STATES[*n], false);
        }
        Step::Stranger(topic, payload) => world.publish(topic, payload, false),
        Step::Replay => world.replay(),
        Step::SensorFault(is) => {
            world.faulty = *is;
            if *is {
                world.node.fault(Fault::ChamberOpen);
            } else {
                world.node.clear_faults();
            }
        }
        Step::Stall(is) => world.klipper.stalled = *is,
        Step::Freeze(time) => world.freeze(*time),
        Step::Armed(true) => world.klipper.armed = true,
        Step::Armed(false) => world.shut_down(),
        Step::Restart => world.restart(),
        Step::Orphan => world.orphan(),
        Step::Kill => world.kill(),
        Step::KillGuarded(time) => world.kill_guarded(*time),
        Step::Echo(is) => world.echo = *is,
        Step::Impostor => {
            // Another device in the place of this one.
            let card = r#"{"name":"panda-breath","mac":"025042000002","version":"1"}"#;
            world.publish("esphome/discover/panda-breath", card, false);
            world.publish("panda_breath/025042000002/state", STOCK_STATES[1], false);
        }
        Step::Taken(is) => {
            world.taken = *is;
            world.cut(); // it is asked once for each connection
        }
    }
    if let Some(time) = step.settles() {
        world.reference.disturbed(world.now, time);
    }
}

fn mend(world: &mut BrokerWorld) {
    world.echo = false;
    world.taken = false;
    world.faulty = false;
    if world.klipper.gone {
        world.adopt();
    }
    world.down = false;
    world.frozen = false;
    world.device_frozen = false;
    world.klipper.stalled = false;
    world.klipper.armed = true;
    world.node.clear_faults();
    world.reference.disturbed(world.now, SILENT);
}

fn play(
    steps: &[Step],
    kind: &Kind,
    auto: bool,
    starts_alone: bool,
    coverage: &mut Coverage,
) -> Result<(), TestCaseError> {
    let config = Config {
        host: "192.0.2.20".into(),
        port: 1883,
        mqtt: Some(Options {
            dialect: (!auto).then_some(match kind {
                Kind::Esphome(_) => Dialect::Esphome,
                Kind::Stock => Dialect::StockMqtt,
            }),
            ..Options::default()
        }),
        drying_hours: 1,
        ..Config::default()
    };
    let mut world = BrokerWorld::absent(config, kind, starts_alone);
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
    if steps.iter().any(|step| matches!(step, Step::Impostor)) {
        world.cut(); // two devices of firmware 1.0.4 are two until the connection is another
        let pinned = world.snapshot().identity;
        if pinned.is_some_and(|identity| identity.last4() == "0002") {
            world.kill(); // it was met first: "restart the Klipper service"
        }
    }
    world.set_target(0.0);
    world.run(120_000); // a stranger is forgotten after 60 s
    let snapshot = world.snapshot();
    prop_assert_eq!(snapshot.link, Link::Connected, "{:?}", world.lines);
    let state = world.node.state();
    prop_assert!(
        !state.heat && !state.relay,
        "R2: still on; {:?}",
        world.lines
    );
    prop_assert!(
        snapshot.off_known,
        "R2: off is not known; {:?}",
        world.lines
    );

    // Safety alone is easy: never heat. It must also do what it is for.
    let forced_offs = world.snapshot().forced_offs;
    world.set_target(45.0);
    world.run(20_000);
    let state = world.node.state();
    prop_assert!(
        state.heat && (state.target_c - 45.0).abs() < 0.06,
        "does not heat; {:?} {:?}",
        world.lines,
        state
    );
    world.dry(50.0);
    world.run(20_000);
    let state = world.node.state();
    prop_assert!(
        state.dries && (state.dry_c - 50.0).abs() < 0.06,
        "does not dry; {:?} {:?}",
        world.lines,
        state
    );
    prop_assert_eq!(world.snapshot().forced_offs, forced_offs);

    let heats = world
        .sent
        .iter()
        .filter(|(_, text)| text.ends_with(" heat") || text.contains(r#""ON""#))
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
fn no_history_behind_a_broker_breaks_a_rule() {
    let coverage = RefCell::new(Coverage::default());
    let config = ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(cases())
    };
    let alone = prop::bool::weighted(0.15);
    runner(config)
        .run(
            &(steps(), kind(), any::<bool>(), alone),
            |(steps, kind, auto, alone)| {
                progress("broker", &coverage.borrow());
                play(&steps, &kind, auto, alone, &mut coverage.borrow_mut())
            },
        )
        .unwrap_or_else(|failure| panic!("{}", told(failure)));
    coverage.borrow().conclude("broker", &EVENTS, unreachable);
}

/// Found by chance: it heats already, in a band of somebody else's, up to what is wished.
#[test]
fn a_history_that_begins_in_somebody_elses_band() {
    let platform = Platform::BangBang(BangBang {
        low_c: 39.0,
        high_c: 41.0,
    });
    let kind = Kind::Esphome(Box::new(Setup {
        platform,
        ..Setup::default()
    }));
    for first in [Step::Dry(41, 0), Step::Target(41)] {
        let mut steps = vec![first, Step::Advance(60_000)];
        steps.extend((0..18).map(|_| Step::Advance(1)));
        play(&steps, &kind, false, false, &mut Coverage::default()).unwrap();
    }
}
