//! The control logic: mode, on/off regulation, drying and the checks for faults (PROTOCOL
//! section 8). None of it looks at the network: a heater that is on stays on without it.

use super::settings::Settings;
use super::{Device, Fault, Mode};

/// Everything a restart forgets.
#[derive(Debug)]
pub(super) struct Control {
    pub(super) isrunning: bool,
    pub(super) remaining_s: i64,
    pub(super) profile: Profile,
    /// When the drying countdown last looked at the time.
    pub(super) looked_us: u64,
    pub(super) heater: bool,
    pub(super) fan: bool,
    pub(super) faults: Vec<Fault>,
    pub(super) ptc_status: u8,
    pub(super) chamber_status: u8,
    heating_since: Option<Start>,
    samples: [i32; 5],
    filled: usize,
}

/// Drying temperature and time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Profile {
    pub(super) temp: u8,
    pub(super) hours: u8,
}

/// A moment at which the heater was switched on.
#[derive(Debug, Clone, Copy)]
struct Start {
    at_us: u64,
    element_c: f64,
    checked: bool,
}

impl Default for Control {
    fn default() -> Self {
        // The profile's boot values aren't known; 12 h is what the countdown shows (section 4).
        let profile = Profile {
            temp: 60,
            hours: 12,
        };
        Control {
            isrunning: false,
            remaining_s: profile.seconds(),
            profile,
            looked_us: 0,
            heater: false,
            fan: false,
            faults: Vec::new(),
            ptc_status: 0,
            chamber_status: 0,
            heating_since: None,
            samples: [0; 5],
            filled: 0,
        }
    }
}

impl Control {
    pub(super) fn broken(&self, fault: Fault) -> bool {
        self.faults.contains(&fault)
    }

    /// Mean of the last five samples, and 25 as long as there is none.
    pub(super) fn reading(&self) -> i32 {
        let samples = &self.samples[..self.filled];
        match i32::try_from(samples.len()) {
            Ok(count @ 1..) => samples.iter().sum::<i32>() / count,
            _ => 25,
        }
    }

    fn sample(&mut self, chamber_c: i32) {
        self.samples.rotate_right(1);
        self.samples[0] = chamber_c;
        self.filled = (self.filled + 1).min(self.samples.len());
    }
}

impl Profile {
    pub(super) fn seconds(self) -> i64 {
        i64::from(self.hours) * 3600
    }
}

impl Device {
    /// Every 200 ms: the drying countdown, and re-arming it while it does not run.
    pub(super) fn run_mode_logic(&mut self) {
        if !self.live.work_on {
            self.stop_drying();
        } else if self.mode() == Some(Mode::Drying) {
            if self.control.isrunning {
                self.count_down();
            } else {
                self.rearm();
            }
        }
    }

    /// Every 500 ms: samples, on/off regulation without hysteresis, checks.
    pub(super) fn run_heater_task(&mut self) {
        let chamber_c = self.chamber_sample();
        self.control.sample(chamber_c);
        self.check_sensors();
        let request = self.heat_requested();
        let faulty = self.control.ptc_status + self.control.chamber_status > 0;
        let limit_c = if self.firmware.is_prerelease() {
            105
        } else {
            104
        };
        self.control.heater = request
            && !faulty
            && self.control.reading() < i32::from(self.target())
            && self.element_sample() <= limit_c;
        self.control.fan = request || self.filter_requested();
        self.check_heater();
    }

    /// Stops a drying cycle and puts its countdown back.
    pub(super) fn stop_drying(&mut self) {
        self.control.isrunning = false;
        self.rearm();
    }

    /// Starts or stops a drying cycle, as `isrunning` does: only exactly 1 notes the time.
    pub(super) fn set_running(&mut self, value: i32) {
        self.control.isrunning = value != 0;
        if value == 1 {
            self.control.looked_us = self.now_us;
        }
    }

    pub(super) fn is_drying(&self) -> bool {
        self.live.work_on && self.control.isrunning && self.mode() == Some(Mode::Drying)
    }

    pub(super) fn programme(&self) -> (u8, u8) {
        let programme = self.active_profile();
        (programme.temp, programme.hours)
    }

    fn mode(&self) -> Option<Mode> {
        self.firmware.mode_of(self.live.work_mode)
    }

    fn heat_requested(&self) -> bool {
        let bed_c = self.network.bed_c;
        let threshold_c = self.live.hotbedtemp;
        self.live.work_on
            && match self.mode() {
                Some(Mode::Auto) if self.network.printer_state != super::CONNECTED => false,
                Some(Mode::Auto) if self.firmware.is_prerelease() => bed_c > threshold_c,
                Some(Mode::Auto) => bed_c >= threshold_c,
                Some(Mode::On) => true,
                Some(Mode::Drying) => self.control.isrunning,
                None => false,
            }
    }

    fn filter_requested(&self) -> bool {
        !self.firmware.is_prerelease()
            && self.live.work_on
            && self.mode() == Some(Mode::Auto)
            && self.network.printer_state == super::CONNECTED
            && self.network.bed_c >= self.live.filtertemp
    }

    fn target(&self) -> u8 {
        if self.mode() == Some(Mode::Drying) {
            self.active_profile().temp
        } else {
            self.live.target
        }
    }

    /// 0.0.0 has no profiles: there the custom values count at once.
    fn active_profile(&self) -> Profile {
        if self.firmware.is_prerelease() {
            custom(&self.live)
        } else {
            self.control.profile
        }
    }

    fn rearm(&mut self) {
        self.control.remaining_s = self.active_profile().seconds();
    }

    /// Whole seconds since the last look go off the countdown, also those spent in other modes.
    fn count_down(&mut self) {
        let passed_s = (self.now_us - self.control.looked_us) / 1_000_000;
        self.control.looked_us += passed_s * 1_000_000;
        self.control.remaining_s -= i64::try_from(passed_s).unwrap_or(i64::MAX);
        if self.control.remaining_s <= 0 {
            self.control.heater = false;
            self.stop_drying();
            self.dirty.settings = true;
        }
    }

    fn chamber_sample(&self) -> i32 {
        let broken = |fault| self.control.broken(fault);
        if broken(Fault::ChamberOpen) {
            TABLE_C.0
        } else if broken(Fault::ChamberShort) {
            TABLE_C.1
        } else {
            whole(self.thermal.sensor_c()).clamp(TABLE_C.0, TABLE_C.1)
        }
    }

    fn element_sample(&self) -> i32 {
        let broken = |fault| self.control.broken(fault);
        if broken(Fault::PtcOpen) {
            TABLE_C.0
        } else if broken(Fault::PtcShort) {
            TABLE_C.1
        } else {
            whole(self.thermal.element_c()).clamp(TABLE_C.0, TABLE_C.1)
        }
    }

    fn check_sensors(&mut self) {
        if self.firmware.is_prerelease() {
            return;
        }
        let status = |short, open| {
            let broken = |fault| self.control.broken(fault);
            if broken(short) {
                SHORT
            } else if broken(open) {
                OPEN
            } else {
                0
            }
        };
        let ptc = status(Fault::PtcShort, Fault::PtcOpen);
        let chamber = status(Fault::ChamberShort, Fault::ChamberOpen);
        let is_new = (ptc, chamber) != (self.control.ptc_status, self.control.chamber_status);
        self.control.ptc_status = ptc;
        self.control.chamber_status = chamber;
        if ptc + chamber > 0 && (is_new || self.live.work_on) {
            self.stop_for_a_fault();
        }
    }

    fn check_heater(&mut self) {
        let element_c = self.element_sample();
        if !self.control.heater {
            self.control.heating_since = None;
            return;
        }
        let now_us = self.now_us;
        let exact_c = self.thermal.element_c();
        let start = self.control.heating_since.get_or_insert(Start {
            at_us: now_us,
            element_c: exact_c,
            checked: false,
        });
        if self.firmware.is_prerelease() {
            return;
        }
        let heating_us = now_us - start.at_us;
        let first_check = !start.checked && heating_us >= RISE_US;
        start.checked |= first_check;
        let too_slow =
            first_check && element_c <= RISE_BELOW_C && exact_c - start.element_c < RISE_C;
        let too_cold = self.firmware.checks_for_cold()
            && heating_us > COLD_US
            && element_c <= COLD_C
            && self.control.reading() <= COLD_C;
        if too_slow || too_cold {
            self.dirty.heater_status = true;
            self.stop_for_a_fault();
        }
    }

    /// `work_on` goes to 0 and stays there. That this is saved is inferred.
    fn stop_for_a_fault(&mut self) {
        self.live.work_on = false;
        self.control.heater = false;
        self.control.heating_since = None;
        self.dirty.settings = true;
        self.save();
    }
}

/// What `filament_drying_mode` selects, if it is one of its values.
pub(super) fn profile(selected: i32, settings: &Settings) -> Option<Profile> {
    match selected {
        1 => Some(Profile {
            temp: 55,
            hours: 12,
        }),
        2 => Some(Profile {
            temp: 60,
            hours: 12,
        }),
        3 => Some(custom(settings)),
        _ => None,
    }
}

fn custom(settings: &Settings) -> Profile {
    Profile {
        temp: settings.custom_temp,
        hours: settings.custom_timer,
    }
}

fn whole(temperature_c: f64) -> i32 {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the thermal model stays far inside i32, and `as` saturates"
    )]
    let whole = temperature_c.round() as i32;
    whole
}

/// The firmware's sensor table ends here, on both sides.
const TABLE_C: (i32, i32) = (10, 125);
const SHORT: u8 = 1;
const OPEN: u8 = 2;
/// "Rises too little within 12 s"; how little is not known, a dead one doesn't rise at all.
const RISE_US: u64 = 12_000_000;
const RISE_C: f64 = 0.2;
const RISE_BELOW_C: i32 = 79;
const COLD_US: u64 = 60_000_000;
const COLD_C: i32 = 15;

#[cfg(test)]
mod tests {
    use super::super::tests::{device, run};
    use super::super::{Effect, Firmware, Setup};
    use super::*;

    fn send(device: &mut Device, settings: &str) {
        let text = format!("{{\"settings\":{settings}}}");
        assert_eq!(device.handle_text(text.as_bytes()), Effect::None);
    }

    #[test]
    fn the_reading_is_25_before_the_first_sample_and_then_a_mean_of_five() {
        let mut device = device(Firmware::V1_0_3);
        assert_eq!(device.state().reading, 25);
        run(&mut device, 3);
        assert_eq!(device.state().reading, 22);
        device.set_chamber(32.0);
        device.step(std::time::Duration::from_millis(500));
        assert_eq!(device.state().reading, 24);
        run(&mut device, 2);
        assert_eq!(device.state().reading, 32);
    }

    #[test]
    fn a_sensor_fault_turns_off_pushes_everything_and_repeats_its_status() {
        for firmware in [Firmware::V1_0_1, Firmware::V1_0_2, Firmware::V1_0_3] {
            for (fault, status) in [
                (Fault::PtcOpen, "\"ptc_sensor_status\":\t2"),
                (Fault::PtcShort, "\"ptc_sensor_status\":\t1"),
                (Fault::ChamberOpen, "\"warehouse_sensor_status\":\t2"),
                (Fault::ChamberShort, "\"warehouse_sensor_status\":\t1"),
            ] {
                let mut device = device(firmware);
                send(&mut device, r#"{"work_mode":2}"#);
                run(&mut device, 5);
                device.fault(fault);
                run(&mut device, 1);
                assert!(!device.state().work_on && !device.state().heater);
                device.mark_reading();
                let push = device.take_push().unwrap();
                assert!(
                    push.contains("\"work_on\":\t0") && push.contains(status),
                    "{push}"
                );
                device.mark_reading();
                let push = device.take_push().unwrap();
                assert!(!push.contains("work_on") && push.contains(status), "{push}");
                send(&mut device, r#"{"work_on":true}"#);
                run(&mut device, 1);
                assert!(!device.state().work_on, "off again while the fault lasts");
                device.clear_faults();
                send(&mut device, r#"{"work_on":true}"#);
                run(&mut device, 2);
                assert!(device.state().work_on);
            }
        }
    }

    #[test]
    fn an_element_fault_hides_a_chamber_fault() {
        let mut device = device(Firmware::V1_0_3);
        device.fault(Fault::PtcOpen);
        device.fault(Fault::ChamberOpen);
        run(&mut device, 1);
        device.mark_reading();
        let push = device.take_push().unwrap();
        assert!(push.contains("ptc_sensor_status") && !push.contains("warehouse_sensor_status"));
    }

    #[test]
    fn a_dead_heater_is_noticed_after_12_seconds_but_not_by_the_prerelease() {
        for firmware in Firmware::ALL {
            let mut device = device(firmware);
            device.fault(Fault::Heater);
            send(&mut device, r#"{"work_mode":2,"work_on":true}"#);
            run(&mut device, 12);
            assert!(device.state().work_on);
            run(&mut device, 1);
            assert_eq!(device.state().work_on, firmware.is_prerelease());
            if !firmware.is_prerelease() {
                let push = device.take_push().unwrap();
                assert!(push.contains("\"ptc_heater_status\":\t1"), "{push}");
            }
        }
    }

    #[test]
    fn a_cold_room_looks_like_a_broken_heater_from_1_0_2_on() {
        for firmware in Firmware::ALL {
            let mut cold = Setup {
                firmware,
                chamber_c: -20.0,
                ambient_c: -20.0,
                ..Setup::default()
            };
            cold.enclosure.element_j_per_k = 3_000.0; // slow enough to stay below 15 C
            let mut device = Device::new(&cold);
            send(&mut device, r#"{"work_mode":2,"work_on":true}"#);
            // Rises by 1 K in the first 12 s, as the other check wants.
            device.thermal = super::super::Thermal::new(cold.enclosure, 9.6, -20.0);
            run(&mut device, 30);
            assert!(device.state().work_on, "{firmware}");
            device.thermal = super::super::Thermal::new(cold.enclosure, -20.0, -20.0);
            run(&mut device, 40);
            assert_eq!(
                device.state().work_on,
                !firmware.checks_for_cold(),
                "{firmware}"
            );
        }
    }

    #[test]
    fn drying_counts_down_pushes_at_the_end_and_re_arms() {
        let mut device = device(Firmware::V1_0_3);
        send(
            &mut device,
            r#"{"filament_temp":50,"filament_timer":1,"work_mode":3}"#,
        );
        run(&mut device, 1);
        assert_eq!(
            device.control.remaining_s,
            12 * 3600,
            "the active profile's hours come back"
        );
        send(&mut device, r#"{"filament_drying_mode":3}"#);
        send(&mut device, r#"{"isrunning":1}"#);
        run(&mut device, 600);
        assert_eq!(device.control.remaining_s, 3000);
        assert!(device.state().heater);
        assert!(device.take_push().is_none(), "not pushed per second");
        run(&mut device, 3001);
        assert!(!device.control.isrunning && !device.state().heater);
        let push = device.take_push().unwrap();
        assert!(
            push.contains("\"isrunning\":\t0") && push.contains("\"remaining_seconds\":\t3600")
        );
        assert!(device.state().work_on);
    }

    #[test]
    fn time_away_from_the_drying_mode_is_deducted_on_return() {
        let mut device = device(Firmware::V1_0_3);
        send(&mut device, r#"{"work_mode":3,"isrunning":1}"#);
        run(&mut device, 10);
        send(&mut device, r#"{"work_mode":1}"#);
        run(&mut device, 1000);
        assert!(device.control.isrunning);
        assert_eq!(device.control.remaining_s, 12 * 3600 - 10);
        send(&mut device, r#"{"work_mode":3}"#);
        run(&mut device, 1);
        assert_eq!(device.control.remaining_s, 12 * 3600 - 1011);
    }

    #[test]
    fn isrunning_is_cleared_while_switched_off() {
        let mut device = device(Firmware::V1_0_3);
        send(
            &mut device,
            r#"{"work_on":false,"work_mode":3,"isrunning":1}"#,
        );
        run(&mut device, 1);
        send(&mut device, r#"{"work_on":true}"#);
        run(&mut device, 1);
        assert!(!device.control.isrunning && !device.state().heater);
    }

    #[test]
    fn auto_follows_the_bed_target_of_a_connected_printer() {
        for (firmware, threshold) in [(Firmware::V0_0_0, 101), (Firmware::V1_0_3, 80)] {
            let mut device = device(firmware);
            run(&mut device, 1);
            assert!(!device.state().heater, "not bound");
            device.set_bed(threshold - 1);
            run(&mut device, 1);
            assert!(!device.state().heater);
            assert_eq!(
                device.control.fan,
                !firmware.is_prerelease(),
                "filters from 30 C"
            );
            device.set_bed(threshold);
            run(&mut device, 1);
            assert!(device.state().heater);
        }
    }

    #[test]
    fn the_element_limit_interrupts_without_latching() {
        let mut device = device(Firmware::V1_0_3);
        send(&mut device, r#"{"work_mode":2,"set_temp":70}"#);
        device.set_chamber(58.0);
        let mut cuts = 0;
        let mut was_on = false;
        for _ in 0..1200 {
            device.step(std::time::Duration::from_millis(500));
            let on = device.state().heater;
            cuts += u32::from(was_on && !on);
            was_on = on;
            assert!(device.thermal.element_c() < 108.0);
        }
        assert!(cuts >= 3, "{cuts} cuts");
        assert!(device.state().work_on);
    }
}
