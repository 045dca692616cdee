//! Random histories of a device behind a broker: whatever happens in whatever order, no rule
//! breaks on the way (`BrokerWorld` checks every command), and in the end, in a world that works
//! again, off is off and heat is heat.

use proptest::prelude::*;

use super::super::{Config, Link, Millis};
use super::broker_world::BrokerWorld;
use super::histories::cases;
use super::peer::Kind;
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
const STOCK_COMMANDS: [&str; 5] = [
    r#"{"work_on":"ON"}"#,
    r#"{"work_on":"OFF"}"#,
    r#"{"target_temp":20}"#,
    r#"{"mode":"filament drying","drying_running":"ON"}"#,
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
}

fn step() -> impl Strategy<Value = Step> {
    let limits = prop::sample::select(vec![
        1, 20, 99, 999, 1_000, 1_001, 1_199, 1_201, 2_999, 3_001, 4_999, 5_001, 7_501, 9_999,
        10_001, 15_001, 29_999, 30_001, 119_000, 121_000, 300_001,
    ]);
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
    prop_oneof![
        6 => limits.prop_map(Step::Advance),
        6 => (1..8_000_u64).prop_map(Step::Advance),
        5 => prop_oneof![Just(0_u16), 200..=600_u16].prop_map(Step::Target),
        2 => Just(Step::Cut),
        1 => Just(Step::HalfOpen),
        2 => any::<bool>().prop_map(Step::Down),
        2 => any::<bool>().prop_map(Step::BrokerFrozen),
        1 => any::<bool>().prop_map(Step::BrokerRestart),
        2 => any::<bool>().prop_map(Step::DeviceFrozen),
        1 => Just(Step::DropDevice),
        1 => Just(Step::PowerCut),
        1 => Just(Step::Reboot),
        2 => any::<bool>().prop_map(Step::Switch),
        2 => (0..9_usize).prop_map(Step::OtherClient),
        1 => (0..4_usize).prop_map(Step::StockStranger),
        2 => (topics, said).prop_map(|(topic, payload)| Step::Stranger(topic, payload)),
        1 => Just(Step::Replay),
        1 => any::<bool>().prop_map(Step::SensorFault),
        1 => any::<bool>().prop_map(Step::Stall),
        1 => (1..30_000_u64).prop_map(Step::Freeze),
        1 => any::<bool>().prop_map(Step::Armed),
        1 => Just(Step::Restart),
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
    match step {
        Step::Advance(time) => world.run(*time),
        Step::Target(tenths) => world.set_target(f64::from(*tenths) / 10.0),
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
        Step::SensorFault(true) => world.node.fault(Fault::ChamberOpen),
        Step::SensorFault(false) => world.node.clear_faults(),
        Step::Stall(is) => world.klipper.stalled = *is,
        Step::Freeze(time) => world.freeze(*time),
        Step::Armed(true) => world.klipper.armed = true,
        Step::Armed(false) => world.shut_down(),
        Step::Restart => world.restart(),
    }
}

fn mend(world: &mut BrokerWorld) {
    world.down = false;
    world.frozen = false;
    world.device_frozen = false;
    world.klipper.stalled = false;
    world.klipper.armed = true;
    world.node.clear_faults();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]

    #[test]
    fn no_history_behind_a_broker_breaks_a_rule(
        steps in prop::collection::vec(step(), 1..60),
        kind in kind(),
        auto in any::<bool>(),
    ) {
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
            ..Config::default()
        };
        let mut world = BrokerWorld::new(config, &kind);
        let started = world.now;
        for step in &steps {
            apply(&mut world, step);
        }
        mend(&mut world);
        world.set_target(0.0);
        world.run(60_000);
        let snapshot = world.snapshot();
        prop_assert_eq!(snapshot.link, Link::Connected, "{:?}", world.lines);
        let state = world.node.state();
        prop_assert!(!state.heat && !state.relay, "R2: still on; {:?}", world.lines);
        prop_assert!(snapshot.off_known, "R2: off is not known; {:?}", world.lines);

        // Safety alone is easy: never heat. It must also do what it is for.
        let forced_offs = world.snapshot().forced_offs;
        world.set_target(45.0);
        world.run(20_000);
        let state = world.node.state();
        prop_assert!(
            state.heat && (state.target_c - 45.0).abs() < 0.06,
            "does not heat; {:?} {:?}", world.lines, state
        );
        prop_assert_eq!(world.snapshot().forced_offs, forced_offs);

        let heats = world.sent.iter().filter(|(_, text)| {
            text.ends_with(" heat") || text.contains(r#""ON""#)
        }).count();
        let most = 11 + usize::try_from((world.now - started) / 100).unwrap();
        prop_assert!(heats <= most, "R6: {heats} heat commands");
    }
}
