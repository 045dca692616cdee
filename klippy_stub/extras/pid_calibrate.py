"""PID_CALIBRATE (klippy/extras/pid_calibrate.py).

While it runs, `heater.control` is another object, and `alter_target` moves the target up and down
by five degrees without `set_temp`. Twelve turns and it has its numbers.
"""

from __future__ import annotations

import math
from typing import Any

from .heater_control import PID_PARAM_BASE

TUNE_PID_DELTA = 5.0
TURNS = 12


class ControlAutoTune:
    """Swings around the target and notes the peaks."""

    def __init__(self, heater: Any, target: float) -> None:
        self.heater = heater
        self.heater_max_power = heater.get_max_power()
        self.calibrate_temp = target
        self.heating = False
        self.peak = self.peak_time = 0.0
        self.peaks: list[tuple[float, float]] = []

    def temperature_update(self, read_time: float, temp: float, target_temp: float) -> None:
        """Turn around at the target, note how far it swings."""
        if self.heating and temp >= target_temp:
            self._turn(False, self.calibrate_temp - TUNE_PID_DELTA)
        elif not self.heating and temp <= target_temp:
            self._turn(True, self.calibrate_temp)
        if (temp < self.peak) if self.heating else (temp > self.peak):
            self.peak, self.peak_time = temp, read_time
        self.heater.set_pwm(read_time, self.heater_max_power if self.heating else 0.0)

    def _turn(self, heating: bool, target: float) -> None:
        self.heating = heating
        self.peaks.append((self.peak, self.peak_time))
        self.peak = math.inf if heating else -math.inf
        self.heater.alter_target(target)

    def check_busy(self, eventtime: float, smoothed_temp: float, target_temp: float) -> bool:
        """Say whether there are too few peaks yet."""
        return self.heating or len(self.peaks) < TURNS

    def calc_final_pid(self) -> tuple[float, float, float]:
        """Return the numbers for the median swing, after Ziegler and Nichols."""
        turns = range(4, len(self.peaks))
        times = sorted((self.peaks[i][1] - self.peaks[i - 2][1], i) for i in turns)
        period, i = times[len(times) // 2]
        amplitude = 0.5 * abs(self.peaks[i][0] - self.peaks[i - 1][0])
        gain = 4.0 * self.heater_max_power / (math.pi * amplitude)
        kp = 0.6 * gain * PID_PARAM_BASE
        return kp, kp / (0.5 * period), kp * 0.125 * period


class PIDCalibrate:
    """The ``pid_calibrate`` object; every heater loads it."""

    def __init__(self, config: Any) -> None:
        self.printer = config.get_printer()
        self.printer.lookup_object("gcode").register_command(
            "PID_CALIBRATE", self.cmd_PID_CALIBRATE, desc="Run PID calibration test"
        )

    def cmd_PID_CALIBRATE(self, gcmd: Any) -> None:
        """Calibrate."""
        name, target = gcmd.get("HEATER"), gcmd.get_float("TARGET")
        gcmd.get_int("WRITE_FILE", 0)
        pheaters = self.printer.lookup_object("heaters")
        try:
            heater = pheaters.lookup_heater(name)
        except self.printer.config_error as e:
            raise gcmd.error(str(e)) from None
        self.printer.lookup_object("toolhead").get_last_move_time()
        calibrate = ControlAutoTune(heater, target)
        old_control = heater.set_control(calibrate)
        try:
            pheaters.set_temperature(heater, target, True)
        except self.printer.command_error:
            heater.set_control(old_control)
            raise
        heater.set_control(old_control)
        if calibrate.check_busy(0.0, 0.0, 0.0):
            raise gcmd.error("pid_calibrate interrupted")
        values = dict(zip(("pid_Kp", "pid_Ki", "pid_Kd"), calibrate.calc_final_pid()))
        text = " ".join(f"{key}={value:.3f}" for key, value in values.items())
        gcmd.respond_info(
            f"PID parameters: {text}\n"
            "The SAVE_CONFIG command will update the printer config file\n"
            "with these parameters and restart the printer."
        )
        configfile = self.printer.lookup_object("configfile")
        configfile.set(heater.get_name(), "control", "pid")
        for key, value in values.items():
            configfile.set(heater.get_name(), key, f"{value:.3f}")


def load_config(config: Any) -> PIDCalibrate:
    """Make the object."""
    return PIDCalibrate(config)
