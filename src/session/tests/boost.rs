//! `chamber_sensor`: session, device and a chamber of two nodes, in closed loop.

use super::super::{Chamber, Config, Link, Millis, Reason};
use super::world::World;
use crate::sim::{Cavity, Enclosure, Setup};

const MINUTE: Millis = 60_000;

/// The temperature of the cavity and what the device was told, every 10 s.
struct Run {
    world: World,
    rows: Vec<Row>,
}

#[derive(Clone, Copy)]
struct Row {
    at: Millis,
    wish: f64,
    cavity: f64,
    reading: f64,
    boost: u8,
}

fn enclosure() -> Enclosure {
    Enclosure {
        cavity: Some(Cavity::default()),
        ..Enclosure::default()
    }
}

fn config(max_boost: u8) -> Config {
    Config {
        chamber: Some(Chamber {
            sensor: "temperature_sensor cavity".into(),
            max_boost,
        }),
        max_target: 75,
        ..Config::default()
    }
}

impl Run {
    fn new(config: Config, enclosure: Enclosure) -> Self {
        let setup = Setup {
            enclosure,
            ..Setup::default()
        };
        let mut world = World::with(config, &setup);
        world.cavity_every = Some(1_000);
        world.run(4_000);
        assert_eq!(world.snapshot().link, Link::Connected);
        world.sent.clear();
        world.lines.clear();
        Self {
            world,
            rows: Vec::new(),
        }
    }

    /// At 45 C for an hour.
    fn settled() -> Self {
        let mut run = Self::new(config(15), enclosure());
        run.heat(45.0, 60 * MINUTE);
        assert!((44.0..=46.0).contains(&run.cavity()), "{}", run.cavity());
        assert!(run.boost() >= 4);
        run.world.sent.clear();
        run.world.lines.clear();
        run
    }

    fn heat(&mut self, wish: f64, time: Millis) {
        self.world.set_target(wish);
        self.go_on(time);
    }

    fn go_on(&mut self, time: Millis) {
        let end = self.world.now + time;
        while self.world.now < end {
            self.world.run(10_000.min(end - self.world.now));
            self.rows.push(Row {
                at: self.world.now,
                wish: self.world.klipper.target,
                cavity: self.cavity(),
                reading: f64::from(self.world.device.state().reading),
                boost: self.boost(),
            });
        }
    }

    fn cavity(&self) -> f64 {
        self.world.device.state().cavity.unwrap()
    }

    fn boost(&self) -> u8 {
        self.world.snapshot().boost
    }

    fn device_target(&self) -> u8 {
        self.world.device.state().set_temp
    }

    fn highest(&self) -> f64 {
        self.rows.iter().map(|row| row.cavity).fold(0.0, f64::max)
    }

    /// When the cavity came within 1 C for good, after the beginning.
    fn settled_after(&self) -> Millis {
        let far = |row: &&Row| (row.cavity - row.wish).abs() > 1.0;
        let last = self.rows.iter().rev().find(far).map_or(0, |row| row.at);
        last.saturating_sub(self.rows[0].at)
    }
}

#[test]
fn boost_without_it_the_cavity_never_gets_there() {
    let mut run = Run::new(config(0), enclosure());
    run.heat(45.0, 120 * MINUTE);
    assert!(run.cavity() < 41.0, "{}", run.cavity());
    assert_eq!(run.world.sent.len(), 1);
}

#[test]
#[expect(clippy::print_stdout, reason = "figures, for whoever tunes it")]
fn boost_brings_the_cavity_to_the_wish_and_keeps_it_there_with_few_writes() {
    for wish in [40.0, 45.0, 55.0] {
        let mut run = Run::new(config(15), enclosure());
        let saves = run.world.device.saves();
        run.heat(wish, 180 * MINUTE);
        let over = run.highest() - wish;
        let settled = run.settled_after() / MINUTE;
        let saves = run.world.device.saves() - saves;
        println!("{wish}: {over:.2} C over, settled after {settled} min, {saves} saves");
        assert!(over <= 2.0, "{wish}: {over:.2} C over");
        assert!(settled <= 45, "{wish}: {settled} min");
        assert!(saves <= 25 * 3, "{wish}: {saves} flash writes"); // each frame has three settings
        assert_eq!(run.world.snapshot().forced_offs, 0);
    }
}

#[test]
#[expect(clippy::print_stdout, reason = "figures, for whoever tunes it")]
fn boost_settles_in_chambers_that_are_nothing_like_the_one_it_was_tuned_for() {
    let cavity = Cavity::default();
    let e = enclosure();
    let with = |chamber_j_per_k, loss_w_per_k, air_j_per_k, mixing_w_per_k| Enclosure {
        chamber_j_per_k,
        loss_w_per_k,
        cavity: Some(Cavity {
            air_j_per_k,
            mixing_w_per_k,
        }),
        ..e
    };
    let air = cavity.air_j_per_k;
    for (name, enclosure) in [
        ("half of the lag", with(3_600.0, 3.0, air, 12.0)),
        ("three times the lag", with(16_000.0, 3.0, air, 12.0)),
        ("12 C cooler", with(6_000.0, 5.0, air, 9.0)),
        ("2 C cooler", with(6_000.0, 1.5, air, 16.0)),
        ("much air", with(6_000.0, 3.0, 3_000.0, 12.0)),
    ] {
        let mut run = Run::new(config(15), enclosure);
        run.heat(45.0, 180 * MINUTE);
        let over = run.highest() - 45.0;
        let settled = run.settled_after() / MINUTE;
        println!("{name}: {over:.2} C over, settled after {settled} min");
        assert!(over <= 2.0, "{name}: {over:.2} C over");
        assert!(settled <= 70, "{name}: {settled} min");
    }
}

#[test]
fn boost_by_a_sensor_that_has_whole_degrees_only() {
    let slow = Enclosure {
        chamber_j_per_k: 16_000.0,
        ..enclosure()
    };
    for enclosure in [enclosure(), slow] {
        let mut run = Run::new(config(15), enclosure);
        run.world.cavity_step = 1.0;
        run.heat(45.0, 180 * MINUTE);
        assert!(run.highest() <= 47.0, "{}", run.highest());
        assert!((43.5..=46.5).contains(&run.cavity()), "{}", run.cavity());
        assert!(run.world.sent.len() <= 30, "{}", run.world.sent.len());
    }
}

#[test]
fn boost_does_not_wind_up_behind_an_open_door() {
    let mut run = Run::settled();
    let before = run.boost();
    run.world.device.set_door(true);
    run.go_on(3 * MINUTE);
    assert!(run.cavity() < 40.0, "{}", run.cavity());
    assert!(run.boost() <= before + 1, "{before} -> {}", run.boost());
    // Half an hour is no mishap, and regulated against. It must not be paid for afterwards.
    run.go_on(27 * MINUTE);
    run.world.device.set_door(false);
    run.rows.clear();
    run.go_on(60 * MINUTE);
    assert!(run.highest() <= 47.0, "{}", run.highest());
    assert!((44.0..=46.0).contains(&run.cavity()), "{}", run.cavity());
}

#[test]
fn boost_does_not_wind_up_at_the_end_of_the_heaters_power() {
    let weak = Enclosure {
        power_w: 60.0,
        ..enclosure()
    };
    let mut run = Run::new(config(15), weak);
    run.heat(55.0, 120 * MINUTE);
    assert!(run.cavity() < 45.0, "{}", run.cavity());
    assert_eq!(run.boost(), 0, "the device has not even reached the wish");
}

#[test]
fn boost_that_is_too_small_stays_at_its_limit_and_writes_no_more() {
    let mut run = Run::new(config(3), enclosure());
    run.heat(45.0, 60 * MINUTE);
    assert_eq!((run.boost(), run.device_target()), (3, 48));
    run.world.sent.clear();
    run.go_on(60 * MINUTE);
    assert_eq!((run.boost(), run.device_target()), (3, 48));
    assert!(run.world.sent.is_empty(), "{:?}", run.world.sent);
    assert!(run.cavity() < 43.0);
    // Which is said, once.
    let told = run.world.lines.iter().filter(|line| {
        line.starts_with("temperature_sensor cavity stays at 42.")
            && line.contains("the device's target of 48 C is the highest")
    });
    assert_eq!(told.count(), 1, "{:?}", run.world.lines);
    // And comes down as soon as less is enough: nothing was added up meanwhile.
    run.world.device.set_chamber(50.0);
    run.go_on(8 * MINUTE);
    assert!(run.boost() < 3);
}

#[test]
fn boost_that_is_too_small_is_no_complaint_while_the_chamber_still_rises() {
    let slow = Enclosure {
        chamber_j_per_k: 40_000.0,
        loss_w_per_k: 1.0,
        ..enclosure()
    };
    let mut run = Run::new(config(0), slow);
    run.heat(40.0, 45 * MINUTE);
    assert!(run.cavity() < 38.0, "{}", run.cavity());
    assert!(run.world.lines.is_empty(), "{:?}", run.world.lines);
}

#[test]
fn boost_never_goes_above_max_target() {
    let mut run = Run::new(
        Config {
            max_target: 50,
            ..config(15)
        },
        enclosure(),
    );
    run.heat(47.0, 90 * MINUTE);
    assert_eq!((run.boost(), run.device_target()), (3, 50));
    run.heat(49.6, 90 * MINUTE);
    assert_eq!((run.boost(), run.device_target()), (0, 50));
    run.heat(50.0, 30 * MINUTE);
    assert_eq!((run.boost(), run.device_target()), (0, 50));
}

#[test]
fn r5_a_sensor_that_dies_takes_the_boost_with_it_and_ends_as_lost() {
    let mut run = Run::settled();
    run.world.cavity_every = None;
    let died = run.world.now;
    run.world.run(9_000);
    assert!(run.world.sent.is_empty(), "{:?}", run.world.sent);
    run.world.run(3_000);
    assert_eq!((run.boost(), run.device_target()), (0, 45), "unboosted");
    let line = "no reading from temperature_sensor cavity; heating by the device's own sensor";
    assert_eq!(run.world.lines, [line]);
    run.world.run(died + 119_000 - run.world.now);
    assert_eq!(run.world.snapshot().forced_offs, 0);
    run.world.run(3_000);
    let forced = run.world.snapshot().forced_off.unwrap();
    assert_eq!(forced.reason, Reason::Lost);
    assert!(
        forced
            .text
            .contains("from temperature_sensor cavity for 120 s")
    );
    assert_eq!(run.world.snapshot().failures, 1);
    assert_eq!(run.world.state().0, 0);
}

#[test]
fn r5_an_absurd_chamber_is_no_reading() {
    for absurd in [f64::NAN, f64::INFINITY, -60.0, 400.0] {
        let mut run = Run::settled();
        run.world.cavity_every = None;
        for _ in 0..3 {
            let now = run.world.now;
            let sample = run.world.around.chamber.as_mut().unwrap();
            (sample.celsius, sample.at) = (absurd, now);
            run.world.run(2_000);
        }
        assert_eq!((run.boost(), run.device_target()), (0, 45), "{absurd}");
    }
}

#[test]
fn r10_a_sensor_that_comes_and_goes_is_few_writes() {
    let mut run = Run::settled();
    // Every 12 s: silent for 2 s of each, forever.
    run.world.cavity_every = Some(12_000);
    run.go_on(60 * MINUTE);
    let frames = run.world.sent.len();
    assert!(frames <= 2 * 30, "{frames} frames in an hour");
    assert_eq!(run.world.snapshot().forced_offs, 0);
}

#[test]
fn boost_with_a_sensor_of_every_three_seconds_is_the_same() {
    let mut run = Run::new(config(15), enclosure());
    run.world.cavity_every = Some(3_000);
    run.heat(45.0, 90 * MINUTE);
    assert!((44.0..=46.0).contains(&run.cavity()), "{}", run.cavity());
    assert!(run.world.lines.is_empty(), "{:?}", run.world.lines);
}

#[test]
fn boost_survives_a_short_outage_and_a_device_that_kept_its_target() {
    let mut run = Run::settled();
    let boost = run.boost();
    run.world.unreachable = true;
    run.world.cut();
    run.go_on(MINUTE);
    run.world.unreachable = false;
    run.go_on(MINUTE);
    assert_eq!(run.world.snapshot().link, Link::Connected);
    assert!(run.boost().abs_diff(boost) <= 1);
    assert!(run.world.sent.len() <= 1, "{:?}", run.world.sent);
}

#[test]
fn r5_after_an_outage_a_boost_is_not_kept_for_a_chamber_that_says_nothing() {
    let mut run = Run::settled();
    run.world.unreachable = true;
    run.world.cut();
    run.world.cavity_every = None;
    run.go_on(MINUTE);
    run.world.unreachable = false;
    while run.world.snapshot().link != Link::Connected {
        run.world.run(10);
    }
    assert_eq!(run.boost(), 0, "it does not wait for a reading");
}

#[test]
fn r5_with_a_mute_device_nothing_is_boosted() {
    let mut run = Run::new(
        Config {
            stale_after: 2_000,
            ..config(15)
        },
        enclosure(),
    );
    run.heat(45.0, 60 * MINUTE);
    assert!(run.boost() > 0);
    // Its connection is given up after 5 s; stale comes before that.
    run.world.mute = true;
    run.world.run(4_000);
    assert_eq!(run.boost(), 0);
}

#[test]
fn boost_a_wish_that_is_much_lower_starts_anew_and_a_little_lower_does_not() {
    let mut run = Run::settled();
    let boost = run.boost();
    run.heat(43.0, 1_000);
    assert_eq!(run.boost(), boost, "43 needs about as much as 45");
    assert_eq!(run.device_target(), 43 + boost);
    run.heat(30.0, 1_000);
    assert_eq!((run.boost(), run.device_target()), (0, 30), "at once");
    // In small steps it is the same in the end: what counts is what it was found for.
    let mut run = Run::settled();
    for wish in (30..45).rev() {
        run.heat(f64::from(wish), 5_000);
    }
    assert_eq!((run.boost(), run.device_target()), (0, 30));
}

#[test]
fn boost_a_higher_wish_keeps_what_was_found() {
    let mut run = Run::settled();
    let boost = run.boost();
    run.heat(55.0, 10_000);
    assert_eq!(run.device_target(), 55 + boost);
    run.rows.clear();
    run.go_on(90 * MINUTE);
    assert!(run.highest() <= 57.0, "{}", run.highest());
    assert!((54.0..=56.0).contains(&run.cavity()), "{}", run.cavity());
}

#[test]
fn boost_waits_for_a_chamber_that_cools_down_to_a_lower_wish() {
    let mut run = Run::settled();
    run.heat(55.0, 60 * MINUTE);
    let boost = run.boost();
    run.rows.clear();
    run.heat(50.5, 90 * MINUTE);
    let lowest = run.rows.iter().map(|row| row.cavity).fold(99.0, f64::min);
    assert!(lowest >= 49.5, "{lowest}");
    let least = run.rows.iter().map(|row| row.boost).min().unwrap();
    assert!(least + 2 >= boost, "{boost} -> {least}");
}

#[test]
fn r5_a_device_that_was_set_by_hand_meanwhile_is_told_the_wish_alone() {
    let mut run = Run::settled();
    run.world.unreachable = true;
    run.world.cut();
    run.go_on(MINUTE);
    let other = br#"{"settings":{"set_temp":30}}"#;
    let _ = run.world.device.handle_text(other);
    run.world.unreachable = false;
    run.go_on(MINUTE);
    assert_eq!((run.boost(), run.device_target()), (0, 45));
}

#[test]
fn boost_ends_with_the_heat_and_starts_from_nothing() {
    let mut run = Run::settled();
    run.heat(0.0, 10_000);
    assert_eq!((run.boost(), run.world.state().0), (0, 0));
    run.heat(45.0, 10_000);
    assert_eq!((run.boost(), run.device_target()), (0, 45));
}

#[test]
fn boost_a_restart_of_klipper_starts_from_nothing() {
    let mut run = Run::settled();
    run.world.restart();
    run.world.around.chamber = None;
    run.heat(45.0, 2_000);
    assert_eq!((run.boost(), run.device_target()), (0, 45));
}

#[test]
fn boost_of_a_device_that_is_set_by_hand_is_set_right_like_any_target() {
    let mut run = Run::settled();
    let target = run.device_target();
    let other = br#"{"settings":{"set_temp":30}}"#;
    let _ = run.world.device.handle_text(other);
    run.go_on(6 * MINUTE);
    assert!(run.device_target().abs_diff(target) <= 1);
}

/// What `docs/images/chamber-sensor.svg` shows: `docs/images/chamber_sensor.py` runs this.
#[test]
#[ignore = "writes the history that a picture is drawn from"]
fn boost_history_for_the_picture() {
    use std::fmt::Write;
    let mut run = Run::new(config(15), enclosure());
    run.heat(45.0, 90 * MINUTE);
    run.world.device.set_door(true);
    run.go_on(3 * MINUTE);
    run.world.device.set_door(false);
    run.go_on(47 * MINUTE);
    run.heat(55.0, 60 * MINUTE);
    let mut plain = Run::new(config(0), enclosure());
    plain.heat(45.0, 140 * MINUTE);
    plain.heat(55.0, 60 * MINUTE);
    let start = run.rows[0].at - 10_000;
    let mut text = String::from("second,wish,cavity,reading,device_target,cavity_without\n");
    for (row, without) in run.rows.iter().zip(&plain.rows) {
        let second = (row.at - start) / 1_000;
        let target = row.wish + f64::from(row.boost);
        let _ = writeln!(
            text,
            "{second},{},{:.2},{},{target},{:.2}",
            row.wish, row.cavity, row.reading, without.cavity
        );
    }
    let path = std::env::var("BOOST_HISTORY").expect("BOOST_HISTORY names a file");
    std::fs::write(path, text).unwrap();
}
