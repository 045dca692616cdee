//! Random histories with Klipper's sensors and its bed: whatever they say, and whenever they go silent,
//! no rule breaks on the way (`World` checks every command), and in the end the chamber is heated, by
//! a target of its own and by the bed's.

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::super::{Chamber, Config, Cutoff, Link, Millis, Sample, Step as Line};
use super::histories::{Step as Other, apply, cases, mend, step as other};
use super::world::World;
use crate::sim::{Cavity, Enclosure, Setup};

#[derive(Clone, Debug)]
enum Step {
    Other(Other),
    /// The cavity's sensor reports so often, or not at all.
    Cavity(Option<Millis>),
    /// It says this once more and then nothing.
    Chamber(f64),
    /// The limiting sensor has said this so long ago.
    Cutoff(f64, Millis),
    /// It is well, and says so all the time from now on, or no more.
    CutoffIsWell(bool),
    Door(bool),
    /// The bed gets this target.
    Bed(f64),
    Heat(u8, Millis),
}

fn step() -> impl Strategy<Value = Step> {
    let odd = prop::sample::select(vec![
        f64::NAN,
        f64::INFINITY,
        -41.0,
        0.0,
        44.4,
        45.6,
        64.9,
        65.0,
        65.1,
        69.9,
        70.0,
        151.0,
    ]);
    let age = prop::sample::select(vec![0, 3_000, 9_999, 10_000, 60_000]);
    let every = prop::sample::select(vec![300, 1_000, 3_000, 9_000, 12_000]);
    prop_oneof![
        12 => other().prop_map(Step::Other),
        2 => prop::option::of(every).prop_map(Step::Cavity),
        1 => odd.clone().prop_map(Step::Chamber),
        2 => (odd, age).prop_map(|(celsius, age)| Step::Cutoff(celsius, age)),
        3 => any::<bool>().prop_map(Step::CutoffIsWell),
        1 => any::<bool>().prop_map(Step::Door),
        4 => prop::sample::select(vec![0.0, 0.0, 60.0, 80.0, 100.0]).prop_map(Step::Bed),
        3 => (30..=60_u8, 60_000..900_000_u64).prop_map(|(wish, time)| Step::Heat(wish, time)),
    ]
}

fn take(world: &mut World, step: &Step) {
    let now = world.now;
    let sample = |celsius, age| {
        Some(Sample {
            celsius,
            at: now - age,
        })
    };
    match step {
        Step::Other(other) => apply(world, other),
        Step::Cavity(every) => world.cavity_every = *every,
        Step::Chamber(celsius) => {
            world.cavity_every = None;
            world.around.chamber = sample(*celsius, 0);
        }
        Step::Cutoff(celsius, age) => {
            world.cutoff_is_well = false;
            world.around.cutoff = sample(*celsius, (*age).min(now));
        }
        Step::CutoffIsWell(is) => world.cutoff_is_well = *is,
        Step::Bed(target) => world.around.bed = Some(*target),
        Step::Door(is_open) => world.device.set_door(*is_open),
        Step::Heat(wish, time) => {
            world.set_target(f64::from(*wish));
            world.run(*time);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(1),
        ..ProptestConfig::with_cases(cases() / 15 + 1)
    })]

    #[test]
    fn no_history_with_klippers_sensors_breaks_a_rule(
        steps in prop::collection::vec(step(), 1..60)
    ) {
        let table = [(80.0, 40.0), (100.0, 45.0)];
        let config = Config {
            max_target: 70,
            chamber: Some(Chamber { sensor: "temperature_sensor cavity".into(), max_boost: 9 }),
            cutoff: Some(Cutoff { sensor: "temperature_sensor top".into(), celsius: 70.0 }),
            follow: table.map(|(bed, chamber)| Line { bed, chamber }).to_vec(),
            ..Config::default()
        };
        let enclosure = Enclosure { cavity: Some(Cavity::default()), ..Enclosure::default() };
        let mut world = World::with(config, &Setup { enclosure, ..Setup::default() });
        for step in &steps {
            take(&mut world, step);
        }
        mend(&mut world);
        world.device.set_door(false);
        world.cavity_every = Some(1_000);
        world.cutoff_is_well = true;
        world.around.bed = Some(0.0);
        world.set_target(0.0);
        world.run(345_000);
        prop_assert_eq!(world.snapshot().link, Link::Connected);
        prop_assert_eq!(world.state().0, 0, "R2: still on; {:?}", world.lines);

        let forced_offs = world.snapshot().forced_offs;
        world.device.set_chamber(30.0);
        world.around.bed = Some(100.0);
        world.run(20_000);
        prop_assert_eq!(world.state(), (1, 45), "does not follow; {:?}", world.lines);
        world.around.bed = Some(0.0);
        world.run(20_000);
        prop_assert_eq!(world.state().0, 0, "on without the bed; {:?}", world.lines);
        world.set_target(45.0);
        world.run(20_000);
        prop_assert_eq!(world.state(), (1, 45), "does not heat; {:?}", world.lines);
        world.run(3_600_000);
        prop_assert_eq!(world.snapshot().forced_offs, forced_offs);
        let cavity = world.device.state().cavity.unwrap();
        prop_assert!((44.0..=46.0).contains(&cavity), "{cavity}, {:?}", world.lines);
    }
}
