"""Deciding how much to heat: watermark and PID (klippy/extras/heaters.py).

Not a section; Klipper has these classes in heaters.py, which re-exports them here too.
"""

from __future__ import annotations

from typing import Any

PID_PARAM_BASE = 255.0
AMBIENT_TEMP = 25.0
PID_SETTLE_DELTA = 1.0
PID_SETTLE_SLOPE = 0.1


class ControlBangBang:
    """Full power until `max_delta` above the target, none until `max_delta` below it."""

    def __init__(self, heater: Any, config: Any) -> None:
        self.heater = heater
        self.heater_max_power = heater.get_max_power()
        self.max_delta = config.getfloat("max_delta", 2.0, above=0.0)
        self.heating = False

    def temperature_update(self, read_time: float, temp: float, target_temp: float) -> None:
        """Decide anew after a reading."""
        if temp >= target_temp + self.max_delta:
            self.heating = False
        elif temp <= target_temp - self.max_delta:
            self.heating = True
        self.heater.set_pwm(read_time, self.heater_max_power if self.heating else 0.0)

    def check_busy(self, eventtime: float, smoothed_temp: float, target_temp: float) -> bool:
        """Say whether M190 and friends still have to wait: only from below."""
        return bool(smoothed_temp < target_temp - self.max_delta)


class ControlPID:
    """Power from error, accumulated error and slope."""

    def __init__(self, heater: Any, config: Any) -> None:
        self.heater = heater
        self.heater_max_power = heater.get_max_power()
        self.Kp = config.getfloat("pid_Kp") / PID_PARAM_BASE
        self.Ki = config.getfloat("pid_Ki") / PID_PARAM_BASE
        self.Kd = config.getfloat("pid_Kd") / PID_PARAM_BASE
        self.min_deriv_time = heater.get_smooth_time()
        self.temp_integ_max = self.heater_max_power / self.Ki if self.Ki else 0.0
        self.prev_temp = AMBIENT_TEMP
        self.prev_temp_time = 0.0
        self.prev_temp_deriv = 0.0
        self.prev_temp_integ = 0.0

    def temperature_update(self, read_time: float, temp: float, target_temp: float) -> None:
        """Decide anew after a reading."""
        elapsed = read_time - self.prev_temp_time
        change = temp - self.prev_temp
        if elapsed >= self.min_deriv_time:
            slope = change / elapsed
        else:
            rest = self.min_deriv_time - elapsed
            slope = (self.prev_temp_deriv * rest + change) / self.min_deriv_time
        missing = target_temp - temp
        integral = self.prev_temp_integ + missing * elapsed
        integral = max(0.0, min(self.temp_integ_max, integral))
        wanted = self.Kp * missing + self.Ki * integral - self.Kd * slope
        power = max(0.0, min(self.heater_max_power, wanted))
        self.heater.set_pwm(read_time, power)
        self.prev_temp, self.prev_temp_time, self.prev_temp_deriv = temp, read_time, slope
        if power == wanted:
            self.prev_temp_integ = integral

    def check_busy(self, eventtime: float, smoothed_temp: float, target_temp: float) -> bool:
        """Say whether the temperature has yet to settle."""
        return (
            abs(target_temp - smoothed_temp) > PID_SETTLE_DELTA
            or abs(self.prev_temp_deriv) > PID_SETTLE_SLOPE
        )
