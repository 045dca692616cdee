//! The climate component: what it regulates, and how often it says so. Pure; `now_us` is
//! simulated time since the node was made.
//!
//! Facts from ESPHome 2026.6.5, `thermostat_climate.cpp` and `bang_bang_climate.cpp`.

use serde::{Deserialize, Serialize};

use super::payload::Mode;

/// Which component regulates, and how it is configured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Platform {
    /// `thermostat`, heat only: a single target, clamped to the visual range.
    Thermostat(Thermostat),
    /// `bang_bang`: low and high targets, not clamped, and on from the first boot.
    BangBang(BangBang),
}

/// The options of `thermostat`, in °C and seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Thermostat {
    /// `visual: min_temperature`.
    pub min_c: f64,
    /// `visual: max_temperature`. 30 when the configuration says nothing.
    pub max_c: f64,
    /// Target of the default preset.
    pub target_c: f64,
    /// Heats when this much below the target.
    pub deadband_c: f64,
    /// Heats until this much above the target.
    pub overrun_c: f64,
    /// `min_heating_run_time`: off, and a broken sensor, wait for it. At least 1 s.
    pub min_run_s: f64,
    /// `min_heating_off_time`, and `min_idle_time`: heating waits for it. At least 1 s.
    pub min_off_s: f64,
    /// `on_boot_restore_from: memory`, which is the default; otherwise it always boots off.
    pub restores: bool,
}

/// The options of `bang_bang`, in °C.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BangBang {
    /// `default_target_temperature_low`.
    pub low_c: f64,
    /// `default_target_temperature_high`.
    pub high_c: f64,
}

/// What a command asks for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Change {
    /// None: a word that is no mode. It is published nevertheless.
    Mode(Option<Mode>),
    Target(f64),
    Low(f64),
    High(f64),
}

/// The word in `action/state`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Off,
    Idle,
    Heating,
}

/// What goes to flash with every burst. Infinite targets are null there, and come back as defaults.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Saved {
    heat: bool,
    target_c: Option<f64>,
    low_c: Option<f64>,
    high_c: Option<f64>,
}

#[derive(Debug)]
pub(super) struct Climate {
    platform: Platform,
    pub(super) mode: Mode,
    pub(super) action: Action,
    pub(super) current_c: f64,
    /// Only the thermostat's.
    pub(super) target_c: f64,
    /// Only `bang_bang`'s.
    pub(super) low_c: f64,
    /// Only `bang_bang`'s.
    pub(super) high_c: f64,
    /// Until then the action stays, whatever is asked for.
    held_until_us: u64,
    turned: bool,
}

impl Climate {
    /// As it boots.
    pub(super) fn boot(platform: Platform, saved: Option<Saved>) -> Self {
        let (first, mut target_c, mut low_c, mut high_c) = match platform {
            Platform::Thermostat(options) => (Mode::Off, options.target_c, f64::NAN, f64::NAN),
            // Heat, in spite of everything the configuration does in `on_boot`.
            Platform::BangBang(options) => (Mode::Heat, f64::NAN, options.low_c, options.high_c),
        };
        let restores = match platform {
            Platform::Thermostat(options) => options.restores,
            Platform::BangBang(_) => true,
        };
        let mut mode = first;
        if let Some(saved) = saved.filter(|_| restores) {
            mode = if saved.heat { Mode::Heat } else { Mode::Off };
            target_c = saved.target_c.unwrap_or(target_c);
            low_c = saved.low_c.unwrap_or(low_c);
            high_c = saved.high_c.unwrap_or(high_c);
        }
        Climate {
            platform,
            mode,
            action: Action::Off,
            current_c: f64::NAN,
            target_c,
            low_c,
            high_c,
            held_until_us: 0,
            turned: false,
        }
    }

    /// Obeys a command. Returns how often the states are published.
    pub(super) fn command(&mut self, change: Change, now_us: u64) -> usize {
        match change {
            Change::Mode(mode) => self.mode = mode.unwrap_or(self.mode),
            // `ClimateCall::validate_` drops NaN; the call itself goes on.
            Change::Target(c) if !c.is_nan() => self.target_c = c,
            Change::Low(c) if !c.is_nan() => self.low_c = c,
            Change::High(c) if !c.is_nan() => self.high_c = c,
            Change::Target(_) | Change::Low(_) | Change::High(_) => {}
        }
        self.regulate(now_us)
    }

    /// Takes a reading, NaN if there is none. Returns how often the states are published.
    pub(super) fn sample(&mut self, current_c: f64, now_us: u64) -> usize {
        self.current_c = current_c;
        self.regulate(now_us)
    }

    /// Looks whether something was held back until now. Returns how often the states are published.
    pub(super) fn look_at_timer(&mut self, now_us: u64) -> usize {
        let before = self.action;
        if self.held_until_us == 0 || now_us < self.held_until_us {
            return 0;
        }
        self.held_until_us = 0;
        self.act(now_us);
        usize::from(self.action != before)
    }

    /// When [`Climate::look_at_timer`] has something to look at.
    pub(super) fn timer_us(&self) -> Option<u64> {
        (self.held_until_us > 0).then_some(self.held_until_us)
    }

    /// Whether heating has begun or ended since the last call. In between the relay is whoever's
    /// switches it.
    pub(super) fn take_turn(&mut self) -> bool {
        std::mem::take(&mut self.turned)
    }

    pub(super) fn saved(&self) -> Saved {
        let finite = |c: f64| c.is_finite().then_some(c);
        Saved {
            heat: self.mode == Mode::Heat,
            target_c: finite(self.target_c),
            low_c: finite(self.low_c),
            high_c: finite(self.high_c),
        }
    }

    /// Whether there are two targets.
    pub(super) fn is_two_point(&self) -> bool {
        matches!(self.platform, Platform::BangBang(_))
    }

    /// The target, or the middle between two.
    pub(super) fn middle_c(&self) -> f64 {
        if self.is_two_point() {
            f64::midpoint(self.low_c, self.high_c)
        } else {
            self.target_c
        }
    }

    /// What it heats up to: the target, or the higher of two.
    pub(super) fn upper_c(&self) -> f64 {
        if self.is_two_point() {
            self.high_c
        } else {
            self.target_c
        }
    }

    fn regulate(&mut self, now_us: u64) -> usize {
        if let Platform::Thermostat(options) = self.platform {
            // At every command and at every reading: a target restored from flash is clamped late.
            self.target_c = self.target_c.clamp(options.min_c, options.max_c);
        }
        let before = self.action;
        self.act(now_us);
        // `bang_bang` publishes where the action changes, and then as always.
        1 + usize::from(self.is_two_point() && self.action != before)
    }

    fn act(&mut self, now_us: u64) {
        let wanted = self.wanted();
        if wanted == self.action {
            return;
        }
        let was_heating = self.action == Action::Heating;
        let is_heating = wanted == Action::Heating;
        if was_heating != is_heating {
            if now_us < self.held_until_us {
                return; // `idle_action_ready_` and `heating_action_ready_`
            }
            if let Platform::Thermostat(options) = self.platform {
                let hold_s = if is_heating {
                    options.min_run_s
                } else {
                    options.min_off_s
                };
                self.held_until_us = now_us + micros(hold_s.max(SHORTEST_HOLD_S));
            }
            self.turned = true;
        }
        self.action = wanted;
    }

    fn wanted(&self) -> Action {
        if self.mode == Mode::Off || self.current_c.is_nan() {
            return Action::Off;
        }
        let (low_c, high_c) = match self.platform {
            Platform::Thermostat(options) => (
                self.target_c - options.deadband_c,
                self.target_c + options.overrun_c,
            ),
            Platform::BangBang(_) => (self.low_c, self.high_c),
        };
        if self.current_c < low_c {
            Action::Heating
        } else if self.current_c > high_c || self.action != Action::Heating {
            Action::Idle
        } else {
            Action::Heating
        }
    }
}

impl Action {
    pub(super) fn word(self) -> &'static str {
        match self {
            Action::Off => "off",
            Action::Idle => "idle",
            Action::Heating => "heating",
        }
    }
}

impl Default for Platform {
    fn default() -> Self {
        Platform::Thermostat(Thermostat::default())
    }
}

impl Default for Thermostat {
    fn default() -> Self {
        Thermostat {
            min_c: 0.0,
            max_c: 80.0,
            target_c: 40.0,
            deadband_c: 0.5,
            overrun_c: 0.5,
            min_run_s: 0.0,
            min_off_s: 0.0,
            restores: true,
        }
    }
}

impl Thermostat {
    /// What a configuration without `visual:` gives: 10 to 30 °C.
    #[must_use]
    pub fn clamped() -> Self {
        Thermostat {
            min_c: 10.0,
            max_c: 30.0,
            ..Thermostat::default()
        }
    }
}

impl Default for BangBang {
    fn default() -> Self {
        BangBang {
            low_c: 39.0,
            high_c: 41.0,
        }
    }
}

/// Seconds as microseconds; what is no time at all is 0.
pub(super) fn micros(seconds: f64) -> u64 {
    std::time::Duration::try_from_secs_f64(seconds).map_or(0, |time| {
        u64::try_from(time.as_micros()).unwrap_or(u64::MAX / 4)
    })
}

/// `0s` is made 1 s.
const SHORTEST_HOLD_S: f64 = 1.0;

#[cfg(test)]
mod tests {
    use super::*;

    fn heating(platform: Platform) -> Climate {
        let mut climate = Climate::boot(platform, None);
        climate.sample(20.0, 1_000_000);
        climate.command(Change::Mode(Some(Mode::Heat)), 2_000_000);
        assert_eq!(climate.action, Action::Heating);
        climate
    }

    #[test]
    fn a_thermostat_clamps_its_target_to_the_visual_range() {
        let mut climate = heating(Platform::Thermostat(Thermostat::clamped()));
        for (sent, kept) in [
            (60.0, 30.0),
            (5.0, 10.0),
            (25.0, 25.0),
            (f64::NEG_INFINITY, 10.0),
        ] {
            assert_eq!(climate.command(Change::Target(sent), 3_000_000), 1);
            assert!((climate.target_c - kept).abs() < 1e-9, "{sent}");
        }
    }

    #[test]
    fn a_thermostat_that_boots_clamps_at_the_first_reading() {
        let mut climate = Climate::boot(Platform::Thermostat(Thermostat::clamped()), None);
        assert!((climate.target_c - 40.0).abs() < 1e-9);
        climate.sample(20.0, 1_000_000);
        assert!((climate.target_c - 30.0).abs() < 1e-9);
    }

    #[test]
    fn a_thermostat_stays_on_until_its_run_time_is_over() {
        let options = Thermostat {
            min_run_s: 20.0,
            ..Thermostat::default()
        };
        let mut climate = heating(Platform::Thermostat(options));
        assert_eq!(climate.command(Change::Mode(Some(Mode::Off)), 3_000_000), 1);
        assert_eq!((climate.mode, climate.action), (Mode::Off, Action::Heating));
        climate.sample(f64::NAN, 5_000_000);
        assert_eq!(climate.action, Action::Heating, "a broken sensor waits too");
        assert_eq!(climate.timer_us(), Some(22_000_000));
        assert_eq!(climate.look_at_timer(21_000_000), 0);
        assert_eq!(climate.look_at_timer(22_000_000), 1);
        assert_eq!(climate.action, Action::Off);
    }

    #[test]
    fn bang_bang_is_published_twice_when_the_action_changes_and_never_waits() {
        let mut climate = Climate::boot(Platform::BangBang(BangBang::default()), None);
        assert_eq!(climate.mode, Mode::Heat, "on from the first boot");
        assert_eq!(climate.sample(20.0, 1_000_000), 2);
        assert_eq!(climate.sample(21.0, 2_000_000), 1);
        assert_eq!(climate.command(Change::High(90.0), 2_000_000), 1);
        assert!((climate.high_c - 90.0).abs() < 1e-9, "not clamped");
        assert_eq!(climate.command(Change::Mode(Some(Mode::Off)), 2_000_001), 2);
        assert_eq!(climate.action, Action::Off);
    }

    #[test]
    fn regulation_has_a_hysteresis() {
        let mut climate = heating(Platform::default());
        let mut now_us = 100_000_000;
        for (current_c, action) in [
            (39.4, Action::Heating),
            (40.4, Action::Heating),
            (40.6, Action::Idle),
            (39.6, Action::Idle),
            (39.4, Action::Heating),
            (f64::NAN, Action::Off),
        ] {
            now_us += 100_000_000;
            climate.sample(current_c, now_us);
            assert_eq!(climate.action, action, "{current_c}");
        }
    }
}
