//! Sensors and the bed of the fuzzer's printer, and what the rules make of them.

use crate::script::Script;
use crate::session::{Chamber, Config, Cutoff, Followed, Millis, Sample, Step, Surroundings, Wish};

const TEMPERATURES: [f64; 8] = [20.0, 30.0, 44.0, 46.0, 55.0, 75.0, f64::NAN, -300.0];
const BEDS: [f64; 6] = [0.0, 60.0, 80.0, 76.0, 110.0, f64::NAN];
/// From this age on nobody believes a sample.
const SILENT: Millis = 10_000;

/// The options for them, by the bits of a number.
pub(crate) fn options(which: u8, config: &mut Config) {
    let sensor = || "temperature_sensor top".to_owned();
    config.chamber = (which & 1 != 0).then(|| Chamber {
        sensor: sensor(),
        max_boost: 10,
    });
    config.cutoff = (which & 2 != 0).then(|| Cutoff {
        sensor: sensor(),
        celsius: 70.0,
    });
    if which & 4 != 0 {
        config.follow = [(80.0, 45.0), (100.0, 60.0)]
            .map(|(bed, chamber)| Step { bed, chamber })
            .to_vec();
    }
    config.drying_hours = if which & 8 != 0 { 99 } else { 1 };
}

/// What Klipper's sensors say.
pub(crate) struct Sensors {
    pub(crate) around: Surroundings,
    /// They go on saying it.
    speak: bool,
    /// A target of somebody's, or a forced off, holds against the bed.
    held: bool,
}

impl Default for Sensors {
    /// All is well, so that a fuzzer has something to break.
    fn default() -> Self {
        let sample = Some(Sample {
            celsius: 30.0,
            at: 0,
        });
        Self {
            around: Surroundings {
                chamber: sample,
                cutoff: sample,
                bed: None,
            },
            speak: true,
            held: false,
        }
    }
}

impl Sensors {
    /// One of them says something else, or all of them fall silent.
    pub(crate) fn change(&mut self, now: Millis, script: &mut Script<'_>) -> Option<()> {
        let which = script.byte()?;
        let celsius = script.pick(&TEMPERATURES)?;
        let sample = Some(Sample { celsius, at: now });
        match which % 5 {
            0 => self.around.chamber = sample,
            1 => self.around.cutoff = sample,
            2 => self.around.bed = Some(BEDS[usize::from(which >> 4) % BEDS.len()]),
            3 => self.around.bed = None,
            _ => self.speak ^= true,
        }
        Some(())
    }

    /// The bed gets a target.
    pub(crate) fn warm_bed(&mut self, script: &mut Script<'_>) -> Option<()> {
        self.around.bed = Some(script.pick(&BEDS)?);
        Some(())
    }

    /// Time passes.
    pub(crate) fn tick(&mut self, now: Millis) {
        if self.speak {
            for sample in [&mut self.around.chamber, &mut self.around.cutoff] {
                if let Some(sample) = sample {
                    sample.at = now;
                }
            }
        }
    }

    fn fresh(sample: Option<Sample>, now: Millis) -> Option<f64> {
        let sample = sample.filter(|sample| now < sample.at + SILENT)?;
        (-40.0..=150.0)
            .contains(&sample.celsius)
            .then_some(sample.celsius)
    }

    /// By how much more than the wish the device may be asked for, C.
    pub(crate) fn most_boost(&self, config: &Config, now: Millis) -> f64 {
        let heard = Self::fresh(self.around.chamber, now).is_some();
        let chamber = config.chamber.as_ref().filter(|_| heard);
        chamber.map_or(0.0, |chamber| f64::from(chamber.max_boost))
    }

    /// Whether there may be heat at all.
    pub(crate) fn are_cool(&self, config: &Config, now: Millis) -> bool {
        let limit = config.cutoff.as_ref().map(|cutoff| cutoff.celsius);
        limit.is_none_or(|limit| Self::fresh(self.around.cutoff, now).is_some_and(|c| c < limit))
    }

    /// Somebody has set a target, or heat was forced off.
    pub(crate) fn hold(&mut self) {
        self.held |= self.around.bed.is_some_and(|bed| bed > 0.0);
    }

    /// What `follow_bed` says is what the bed says.
    pub(crate) fn check(&mut self, config: &Config, wish: Wish, followed: Option<Followed>) {
        let bed = self.around.bed.filter(|bed| bed.is_finite());
        self.held &= wish.armed && bed != Some(0.0);
        let Some(followed) = followed else { return };
        assert!(wish.armed && !wish.dry, "R3: follows for nobody");
        assert!(!self.held, "follow_bed against somebody's target");
        assert_eq!(followed.hand, wish.hand, "follow_bed: of another time");
        let bed = bed.expect("a bed to follow");
        let steps = &config.follow;
        if followed.target > 0.0 {
            let step = steps.iter().find(|step| step.chamber == followed.target);
            let step = step.expect("a target of the table");
            assert!(bed >= step.bed - 5.0, "{bed} C is no bed for it");
        } else {
            assert!(bed < steps[0].bed, "{bed} C is a bed to follow");
        }
    }
}
