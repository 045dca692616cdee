//! What Klipper's own sensors say: the one to regulate by, and the one that limits.

use super::{Config, Millis, Reason, Session};
use crate::dialect::is_temperature;

/// A sensor that says nothing for this long is silent. Klipper's slowest report every 3 to 5 s.
pub(super) const SILENT: Millis = 10_000;

/// What one of Klipper's sensors said last.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// C; may be any number.
    pub celsius: f64,
    /// When it arrived in Klipper.
    pub at: Millis,
}

/// The last word of each of the sensors, however old, and the bed's target; `None`: none since this
/// printer is there.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Surroundings {
    /// Of `chamber_sensor`.
    pub chamber: Option<Sample>,
    /// Of `cutoff_sensor`.
    pub cutoff: Option<Sample>,
    /// Target of the heated bed, C.
    pub bed: Option<f64>,
}

impl Sample {
    /// The temperature, if it is one (rule R5) and not older than so many milliseconds.
    pub(super) fn within(self, now: Millis, longest: Millis) -> Option<f64> {
        let fresh = now.saturating_sub(self.at) < longest;
        (fresh && is_temperature(self.celsius)).then_some(self.celsius)
    }
}

/// Why no target above 0 is accepted now, as far as the sensors are concerned. `tripped`: as in the
/// snapshot. This is for whoever sets a target and must be answered at once; what is sent is decided
/// by the session, which asks the same questions.
pub fn refusal(
    config: &Config,
    around: &Surroundings,
    tripped: bool,
    now: Millis,
) -> Option<String> {
    if let Some(why) = refusal_to_dry(config, around, tripped, now) {
        return Some(why);
    }
    let chamber = config.chamber.as_ref()?;
    let name = &chamber.sensor;
    match around.chamber {
        None => Some(format!("{name} has no reading yet (chamber_sensor)")),
        Some(sample) if now >= sample.at + config.lost_after => {
            let seconds = now.saturating_sub(sample.at) / 1000;
            Some(format!(
                "no reading from {name} for {seconds} s (chamber_sensor)"
            ))
        }
        Some(_) => None,
    }
}

/// The same for filament, which is dried by the device's own sensor.
pub fn refusal_to_dry(
    config: &Config,
    around: &Surroundings,
    tripped: bool,
    now: Millis,
) -> Option<String> {
    let cutoff = config.cutoff.as_ref()?;
    cutoff.check(around.cutoff, tripped, now).err()
}

impl Session {
    /// What the sensors say now. Like [`Session::renew`], say it before [`Session::handle`].
    pub fn surround(&mut self, around: Surroundings) {
        self.around = around;
    }

    /// The temperature at `chamber_sensor`, if there is a live one.
    pub(super) fn chamber(&self, now: Millis) -> Option<f64> {
        self.around.chamber?.within(now, SILENT)
    }

    /// When a sensor that goes on saying nothing will be too silent.
    pub(super) fn sensors_deadline(&self, now: Millis) -> Option<Millis> {
        if !self.wants_heat() {
            return None;
        }
        let at = |sample: Option<Sample>| Some(sample?.at + SILENT);
        let lost = self.config.chamber.as_ref().map(|_| {
            let heard = self.around.chamber.map(|sample| sample.at);
            heard.unwrap_or(self.wish_changed_at) + self.config.lost_after
        });
        let all = [at(self.around.chamber), at(self.around.cutoff), lost];
        all.into_iter().flatten().filter(|at| *at > now).min()
    }

    /// Without the sensor that Klipper regulates by, its wish cannot be fulfilled: the device alone
    /// is too hot or too cold there. The same patience as for the device itself.
    pub(super) fn check_chamber(&mut self, now: Millis) {
        let Some(name) = self.config.chamber.as_ref().map(|c| c.sensor.clone()) else {
            return;
        };
        let heard = self.around.chamber.map(|sample| sample.at);
        let regulates = self.wants_heat() && !self.wish.dry;
        if regulates {
            // One that never spoke is given the same time, from the target on.
            let since = heard.unwrap_or(self.wish_changed_at);
            if now >= since + self.config.lost_after {
                let seconds = self.config.lost_after / 1000;
                let text = format!("no reading from {name} for {seconds} s (chamber_sensor)");
                self.force_off(now, Reason::Lost, text);
            }
        }
        let live = self.chamber(now).is_some();
        if !live && !self.chamber_missing && regulates {
            self.chamber_missing = true;
            let text = format!("no reading from {name}; heating by the device's own sensor");
            self.tell(now, text);
        } else if live && std::mem::take(&mut self.chamber_missing) {
            self.tell(now, format!("{name} is back"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Chamber;
    use super::*;

    #[test]
    fn a_target_without_the_chamber_is_refused_in_words() {
        let config = Config {
            chamber: Some(Chamber {
                sensor: "temperature_sensor cavity".into(),
                max_boost: 15,
            }),
            ..Config::default()
        };
        let refused = |at: Option<Millis>| {
            let chamber = at.map(|at| Sample { celsius: 40.0, at });
            let around = Surroundings {
                chamber,
                ..Surroundings::default()
            };
            refusal(&config, &around, false, 200_000)
        };
        let why = refused(None).unwrap();
        assert_eq!(
            why,
            "temperature_sensor cavity has no reading yet (chamber_sensor)"
        );
        let why = refused(Some(80_000)).unwrap();
        assert!(
            why.contains("no reading from temperature_sensor cavity for 120 s"),
            "{why}"
        );
        assert_eq!(refused(Some(80_001)), None, "silent is not yet lost");
        assert_eq!(refused(Some(200_000)), None);
        let plain = Config::default();
        assert_eq!(refusal(&plain, &Surroundings::default(), true, 0), None);
    }

    #[test]
    fn a_sensor_that_is_silent_already_is_waited_for_no_more() {
        let config = Config {
            chamber: Some(Chamber {
                sensor: "temperature_sensor cavity".into(),
                max_boost: 15,
            }),
            ..Config::default()
        };
        let mut session = Session::new(config, 1);
        session.wish.armed = true;
        session.wish.target = 45.0;
        session.around.chamber = Some(Sample {
            celsius: 40.0,
            at: 5_000,
        });
        for (now, next) in [
            (5_000, Some(15_000)),
            (14_999, Some(15_000)),
            (15_000, Some(125_000)),
            (125_000, None),
        ] {
            assert_eq!(session.sensors_deadline(now), next, "{now}");
        }
    }

    #[test]
    fn r5_only_a_fresh_temperature_counts() {
        let sample = |celsius| Sample { celsius, at: 5_000 };
        assert_eq!(sample(45.5).within(14_999, SILENT), Some(45.5));
        assert_eq!(sample(45.5).within(15_000, SILENT), None);
        // The reactor's clock and ours may be read in either order.
        assert_eq!(sample(45.5).within(4_990, SILENT), Some(45.5));
        for absurd in [f64::NAN, f64::INFINITY, -40.1, 150.1] {
            assert_eq!(sample(absurd).within(5_000, SILENT), None, "{absurd}");
        }
    }
}
