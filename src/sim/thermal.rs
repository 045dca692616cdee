//! How warm it gets: heating element, chamber and the sensor in the airflow. Pure.
//!
//! The constants are ours: nobody has published measurements (PROTOCOL section 15). They give what
//! users report: a small enclosure needs about 13 min from 22 to 45 °C, the chamber goes on rising
//! by some degrees after the heater is cut, and above about 50 °C the element runs into its limit.
//!
//! With a [`Cavity`] there are two nodes: the warm air around the device, where its sensor sits, and
//! the rest of the chamber, where the print is. That one lags behind, and stays 5 to 9 °C cooler, as
//! users complain.

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
    /// Set, if the air around the device is warmer than the rest; `None`: all is one.
    pub cavity: Option<Cavity>,
}

/// How the rest of the chamber hangs on the air around the device.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cavity {
    /// Heat capacity of the air around the device: a part of [`Enclosure::chamber_j_per_k`].
    pub air_j_per_k: f64,
    /// From that air to the rest.
    pub mixing_w_per_k: f64,
}

impl Default for Cavity {
    fn default() -> Self {
        Cavity {
            air_j_per_k: 1_200.0,
            mixing_w_per_k: 12.0,
        }
    }
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
            cavity: None,
        }
    }
}

/// Temperatures in °C, and how they follow from one another.
#[derive(Debug, Clone)]
pub struct Thermal {
    enclosure: Enclosure,
    element_c: f64,
    chamber_c: f64,
    cavity_c: f64,
    sensor_c: f64,
    ambient_c: f64,
    door_is_open: bool,
}

impl Thermal {
    /// A chamber that has been at `chamber_c` for a while, in a room of `ambient_c`.
    pub fn new(enclosure: Enclosure, chamber_c: f64, ambient_c: f64) -> Self {
        Thermal {
            enclosure,
            element_c: chamber_c,
            chamber_c,
            cavity_c: chamber_c,
            sensor_c: chamber_c,
            ambient_c,
            door_is_open: false,
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
        self.cavity_c = chamber_c;
        self.sensor_c = chamber_c;
        self.element_c = self.element_c.max(chamber_c);
    }

    /// Opens the door, or closes it.
    pub fn set_door(&mut self, is_open: bool) {
        self.door_is_open = is_open;
    }

    /// The air in the chamber, around the device.
    pub fn chamber_c(&self) -> f64 {
        self.chamber_c
    }

    /// The rest of the chamber, if that is another temperature.
    pub fn cavity_c(&self) -> Option<f64> {
        self.enclosure.cavity.map(|_| self.cavity_c)
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
        let loss_w_per_k = if self.door_is_open {
            e.loss_w_per_k * OPEN_DOOR
        } else {
            e.loss_w_per_k
        };
        let out_w = |celsius: f64| loss_w_per_k * (celsius - self.ambient_c);
        self.sensor_c += (self.chamber_c - self.sensor_c) * seconds / e.sensor_s;
        self.element_c += (power_w - into_air_w) * seconds / e.element_j_per_k;
        let Some(cavity) = e.cavity else {
            self.chamber_c += (into_air_w - out_w(self.chamber_c)) * seconds / e.chamber_j_per_k;
            self.cavity_c = self.chamber_c;
            return;
        };
        let mixed_w = cavity.mixing_w_per_k * (self.chamber_c - self.cavity_c);
        let rest_j_per_k = e.chamber_j_per_k - cavity.air_j_per_k;
        let lost_w = out_w(self.cavity_c);
        self.chamber_c += (into_air_w - mixed_w) * seconds / cavity.air_j_per_k;
        self.cavity_c += (mixed_w - lost_w) * seconds / rest_j_per_k;
    }
}

const LONGEST_STEP_S: f64 = 0.5;
/// An open door loses so many times as much.
const OPEN_DOOR: f64 = 8.0;

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
    fn with_a_cavity_the_rest_of_the_chamber_stays_five_to_nine_degrees_cooler() {
        let mut enclosure = Enclosure::default();
        assert_eq!(Thermal::new(enclosure, 22.0, 22.0).cavity_c(), None);
        enclosure.cavity = Some(Cavity::default());
        for target_c in [45.0, 50.0, 60.0] {
            let mut thermal = Thermal::new(enclosure, 22.0, 22.0);
            let mut difference = 0.0;
            for second in 0..10_800 {
                let heating = thermal.sensor_c() < target_c && thermal.element_c() <= 104.0;
                thermal.advance(1.0, heating, true);
                if second >= 7_200 {
                    difference += (thermal.sensor_c() - thermal.cavity_c().unwrap()) / 3_600.0;
                }
            }
            assert!((4.5..9.5).contains(&difference), "{target_c}: {difference}");
        }
    }

    #[test]
    fn an_open_door_cools_and_a_closed_one_lets_it_come_back() {
        let enclosure = Enclosure {
            cavity: Some(Cavity::default()),
            ..Enclosure::default()
        };
        let mut thermal = Thermal::new(enclosure, 45.0, 22.0);
        thermal.set_door(true);
        thermal.advance(180.0, false, true);
        let cold = thermal.cavity_c().unwrap();
        assert!((26.0..36.0).contains(&cold), "{cold}");
        thermal.set_door(false);
        thermal.advance(300.0, true, true);
        assert!(thermal.cavity_c().unwrap() > cold + 3.0);
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
