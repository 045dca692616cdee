//! `cutoff_sensor`: a limit on any sensor of Klipper's, independent of the device.
//!
//! It trips at `cutoff_temp`, and while heat is wanted also when the sensor is silent or says
//! something absurd. Once it has tripped by heat it stays so until the sensor is [`COOLER`] below,
//! and then a new target is needed, as after every forced off (rule R3). While nothing is to be
//! turned off, it only refuses.

use super::config::Cutoff;
use super::surroundings::{SILENT, Sample};
use super::{Millis, Reason, Session};
use crate::dialect::is_temperature;

/// So much below the limit it must have been before heat is accepted again, C.
const COOLER: f64 = 5.0;

impl Cutoff {
    /// Whether heat is acceptable; if not, why.
    pub(super) fn check(
        &self,
        sample: Option<Sample>,
        tripped: bool,
        now: Millis,
    ) -> Result<(), String> {
        let (name, limit) = (&self.sensor, self.celsius);
        let Some(Sample { celsius, at }) = sample else {
            return Err(format!("{name} has no reading yet (cutoff_sensor)"));
        };
        if now >= at + SILENT {
            let seconds = now.saturating_sub(at) / 1000;
            return Err(format!(
                "no reading from {name} for {seconds} s (cutoff_sensor)"
            ));
        }
        if !is_temperature(celsius) {
            return Err(format!(
                "{name} reads {celsius} C, which cannot be (cutoff_sensor)"
            ));
        }
        if celsius >= limit {
            return Err(format!(
                "{name} reads {celsius:.1} C, and cutoff_temp is {limit} C"
            ));
        }
        if tripped && celsius > limit - COOLER {
            let cool = limit - COOLER;
            return Err(format!(
                "{name} reads {celsius:.1} C; after it was at {limit} C (cutoff_temp) it has to \
                 cool down to {cool} C first"
            ));
        }
        Ok(())
    }
}

impl Session {
    pub(super) fn check_cutoff(&mut self, now: Millis) {
        let Some(cutoff) = &self.config.cutoff else {
            self.tripped = false;
            return;
        };
        let sample = self.around.cutoff;
        if let Some(celsius) = sample.and_then(|sample| sample.within(now, SILENT)) {
            let is_cool = celsius <= cutoff.celsius - COOLER;
            self.tripped = celsius >= cutoff.celsius || (self.tripped && !is_cool);
        }
        let Err(why) = cutoff.check(sample, self.tripped, now) else {
            return;
        };
        if self.wants_heat() {
            self.force_off(now, Reason::Cutoff, why);
        } else if std::mem::take(&mut self.device.external_on_allowed) {
            self.tell(now, format!("{why}; turning the device off"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(celsius: f64, tripped: bool, age: Millis) -> Result<(), String> {
        let cutoff = Cutoff {
            sensor: "temperature_sensor top".into(),
            celsius: 70.0,
        };
        let sample = Sample {
            celsius,
            at: 100_000,
        };
        cutoff.check(Some(sample), tripped, 100_000 + age)
    }

    #[test]
    fn cutoff_names_sensor_reading_and_limit() {
        for (celsius, tripped, age, part) in [
            (70.0, false, 0, "top reads 70.0 C, and cutoff_temp is 70 C"),
            (66.0, true, 0, "cool down to 65 C first"),
            (f64::NAN, false, 0, "top reads NaN C, which cannot be"),
            (-41.0, false, 0, "which cannot be"),
            (
                50.0,
                false,
                10_000,
                "no reading from temperature_sensor top for 10 s",
            ),
        ] {
            let why = check(celsius, tripped, age).unwrap_err();
            assert!(why.contains(part), "{why}");
        }
        for (celsius, tripped, age) in [(69.9, false, 0), (65.0, true, 0), (50.0, false, 9_999)] {
            assert_eq!(check(celsius, tripped, age), Ok(()));
        }
    }
}
