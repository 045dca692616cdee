//! How warm it gets: heating element, chamber and the sensor in the airflow. Pure.
//!
//! The constants are ours: nobody has published measurements (PROTOCOL section 15). They give what
//! users report: a small enclosure needs about 13 min from 22 to 45 °C, the chamber goes on rising
//! by some degrees after the heater is cut, and above about 50 °C the element runs into its limit.

/// What an enclosure and its heater are made of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Enclosure {
    /// Power of the element while it is below [`Enclosure::taper_c`].
    pub power_w: f64,
    /// From here on a PTC draws less, down to nothing at [`Enclosure::choke_c`].
    pub taper_c: f64,
    /// Where the element draws nothing any more.
    pub choke_c: f64,
    /// Heat capacity of the element and its fins.
    pub element_j_per_k: f64,
    /// From element to air while the fans run.
    pub blown_w_per_k: f64,
    /// From element to air while they don't.
    pub still_w_per_k: f64,
    /// Heat capacity of the air and what warms up with it.
    pub chamber_j_per_k: f64,
    /// From the chamber to the room.
    pub loss_w_per_k: f64,
    /// Time constant of the sensor.
    pub sensor_s: f64,
}

impl Default for Enclosure {
    fn default() -> Self {
        Enclosure {
            power_w: 300.0,
            taper_c: 110.0,
            choke_c: 160.0,
            element_j_per_k: 900.0,
            blown_w_per_k: 5.0,
            still_w_per_k: 0.8,
            chamber_j_per_k: 6_000.0,
            loss_w_per_k: 3.0,
            sensor_s: 25.0,
        }
    }
}

/// Temperatures in °C, and how they follow from one another.
#[derive(Debug, Clone)]
pub struct Thermal {
    enclosure: Enclosure,
    element_c: f64,
    chamber_c: f64,
    sensor_c: f64,
    ambient_c: f64,
}

impl Thermal {
    /// A chamber that has been at `chamber_c` for a while, in a room of `ambient_c`.
    pub fn new(enclosure: Enclosure, chamber_c: f64, ambient_c: f64) -> Self {
        Thermal {
            enclosure,
            element_c: chamber_c,
            chamber_c,
            sensor_c: chamber_c,
            ambient_c,
        }
    }

    /// Lets `seconds` pass.
    pub fn advance(&mut self, seconds: f64, heating: bool, blowing: bool) {
        // Explicit steps: short against the fastest time constant, which is the sensor's.
        let mut left = seconds;
        while left > 0.0 {
            let step = left.min(LONGEST_STEP_S);
            self.advance_a_bit(step, heating, blowing);
            left -= step;
        }
    }

    /// Puts the chamber at a temperature, as somebody with a hair dryer or an open door would.
    pub fn set_chamber(&mut self, chamber_c: f64) {
        self.chamber_c = chamber_c;
        self.sensor_c = chamber_c;
        self.element_c = self.element_c.max(chamber_c);
    }

    /// The air in the chamber.
    pub fn chamber_c(&self) -> f64 {
        self.chamber_c
    }

    /// The chamber sensor, which lags behind the air.
    pub fn sensor_c(&self) -> f64 {
        self.sensor_c
    }

    /// The heating element.
    pub fn element_c(&self) -> f64 {
        self.element_c
    }

    fn advance_a_bit(&mut self, seconds: f64, heating: bool, blowing: bool) {
        let e = self.enclosure;
        let power_w = if heating {
            let tapered = (e.choke_c - self.element_c) / (e.choke_c - e.taper_c);
            e.power_w * tapered.clamp(0.0, 1.0)
        } else {
            0.0
        };
        let exchange = if blowing {
            e.blown_w_per_k
        } else {
            e.still_w_per_k
        };
        let into_air_w = exchange * (self.element_c - self.chamber_c);
        let out_w = e.loss_w_per_k * (self.chamber_c - self.ambient_c);
        self.sensor_c += (self.chamber_c - self.sensor_c) * seconds / e.sensor_s;
        self.element_c += (power_w - into_air_w) * seconds / e.element_j_per_k;
        self.chamber_c += (into_air_w - out_w) * seconds / e.chamber_j_per_k;
    }
}

const LONGEST_STEP_S: f64 = 0.5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_enclosure_takes_ten_to_fifteen_minutes_to_45_degrees_and_overshoots() {
        let mut thermal = Thermal::new(Enclosure::default(), 22.0, 22.0);
        let mut seconds = 0;
        while thermal.sensor_c() < 45.0 {
            thermal.advance(1.0, thermal.element_c() <= 104.0, true);
            seconds += 1;
        }
        assert!((600..=900).contains(&seconds), "{seconds} s");
        let mut highest = 0.0_f64;
        for _ in 0..600 {
            thermal.advance(1.0, false, true);
            highest = highest.max(thermal.chamber_c());
        }
        assert!((47.5..52.0).contains(&highest), "{highest} C");
    }

    #[test]
    fn it_cools_down_to_the_room_and_no_further() {
        let mut thermal = Thermal::new(Enclosure::default(), 60.0, 20.0);
        thermal.advance(1_000.0, false, false);
        assert!((30.0..50.0).contains(&thermal.chamber_c()));
        thermal.advance(40_000.0, false, false);
        assert!((thermal.chamber_c() - 20.0).abs() < 0.1);
        assert!((thermal.sensor_c() - 20.0).abs() < 0.1);
    }

    #[test]
    fn a_ptc_element_limits_itself_even_without_fans() {
        let mut thermal = Thermal::new(Enclosure::default(), 60.0, 22.0);
        thermal.advance(20_000.0, true, false);
        assert!(thermal.element_c() < 160.0);
    }
}
