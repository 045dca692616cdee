"""One heater (klippy/extras/heaters.py, Heater).

A reading older than 7 s in *print time* counts as 0 in `get_temp`, while `get_status` goes on
showing the last one. Power above 0 needs a live main thread: `stats` allows five more seconds.
"""

from __future__ import annotations

import threading
from typing import Any

from .heater_control import ControlBangBang, ControlPID

KELVIN_TO_CELSIUS = -273.15
MAX_HEAT_TIME = 3.0
MAX_MAINTHREAD_TIME = 5.0
QUELL_STALE_TIME = 7.0
MIN_PWM_CHANGE_RATIO = 0.05
LONG_AGO = -999.0


class Heater:
    """Keeps a sensor at a target by means of a pin."""

    def __init__(self, config: Any, sensor: Any) -> None:
        self.printer = config.get_printer()
        self.name = config.get_name()
        self.short_name = self.name.split()[-1]
        self.sensor = sensor
        self.min_temp = config.getfloat("min_temp", minval=KELVIN_TO_CELSIUS)
        self.max_temp = config.getfloat("max_temp", above=self.min_temp)
        sensor.setup_minmax(self.min_temp, self.max_temp)
        sensor.setup_callback(self.temperature_callback)
        self.pwm_delay = sensor.get_report_time_delta()
        self.min_extrude_temp = config.getfloat(
            "min_extrude_temp", 170.0, minval=self.min_temp, maxval=self.max_temp
        )
        is_fileoutput = self.printer.get_start_args().get("debugoutput") is not None
        self.can_extrude = self.min_extrude_temp <= 0.0 or is_fileoutput
        self.max_power = config.getfloat("max_power", 1.0, above=0.0, maxval=1.0)
        self.min_pwm_change = self.max_power * MIN_PWM_CHANGE_RATIO
        self.smooth_time = config.getfloat("smooth_time", 1.0, above=0.0)
        self.inv_smooth_time = 1.0 / self.smooth_time
        self.verify_mainthread_time = LONG_AGO
        self.lock = threading.Lock()
        self.last_temp = self.smoothed_temp = self.target_temp = 0.0
        self.last_temp_time = 0.0
        self.next_pwm_time = 0.0
        self.last_pwm_value = 0.0
        algorithms = {"watermark": ControlBangBang, "pid": ControlPID}
        self.control = config.getchoice("control", algorithms)(self, config)
        pins = self.printer.lookup_object("pins")
        self.mcu_pwm = pins.setup_pin("pwm", config.get("heater_pin"))
        self.mcu_pwm.setup_cycle_time(
            config.getfloat("pwm_cycle_time", 0.100, above=0.0, maxval=self.pwm_delay)
        )
        self.mcu_pwm.setup_max_duration(MAX_HEAT_TIME)
        self.printer.load_object(config, f"verify_heater {self.short_name}")
        self.printer.load_object(config, "pid_calibrate")
        self.printer.lookup_object("gcode").register_mux_command(
            "SET_HEATER_TEMPERATURE",
            "HEATER",
            self.short_name,
            self.cmd_SET_HEATER_TEMPERATURE,
            desc="Sets a heater temperature",
        )
        self.printer.register_event_handler("klippy:shutdown", self._handle_shutdown)

    def _handle_shutdown(self) -> None:
        self.verify_mainthread_time = LONG_AGO

    # Called with the lock held, from temperature_callback
    def set_pwm(self, read_time: float, value: float) -> None:
        """Tell the pin, unless it would change nothing and the last word is still good."""
        if self.target_temp <= 0.0 or read_time > self.verify_mainthread_time:
            value = 0.0
        fresh = read_time < self.next_pwm_time or not self.last_pwm_value
        if fresh and abs(value - self.last_pwm_value) < self.min_pwm_change:
            return
        pwm_time = read_time + self.pwm_delay
        self.next_pwm_time = pwm_time + MAX_HEAT_TIME - (3.0 * self.pwm_delay + 0.001)
        self.last_pwm_value = value
        self.mcu_pwm.set_pwm(pwm_time, value)

    def temperature_callback(self, read_time: float, temp: float) -> None:
        """Take a reading, stamped in print time. Any thread may call this."""
        with self.lock:
            elapsed = read_time - self.last_temp_time
            self.last_temp = temp
            self.last_temp_time = read_time
            self.control.temperature_update(read_time, temp, self.target_temp)
            share = min(elapsed * self.inv_smooth_time, 1.0)
            self.smoothed_temp += (temp - self.smoothed_temp) * share
            self.can_extrude = self.smoothed_temp >= self.min_extrude_temp

    def get_name(self) -> str:
        """Return the section's full name."""
        return str(self.name)

    def get_pwm_delay(self) -> float:
        """Return how far ahead the pin is set."""
        return float(self.pwm_delay)

    def get_max_power(self) -> float:
        """Return the highest power allowed."""
        return float(self.max_power)

    def get_smooth_time(self) -> float:
        """Return over how long readings are averaged."""
        return float(self.smooth_time)

    def set_temp(self, degrees: float) -> None:
        """Set the target; 0 always works."""
        if degrees and (degrees < self.min_temp or degrees > self.max_temp):
            raise self.printer.command_error(
                f"Requested temperature ({degrees:.1f}) out of range"
                f" ({self.min_temp:.1f}:{self.max_temp:.1f})"
            )
        with self.lock:
            self.target_temp = degrees

    def get_temp(self, eventtime: float) -> tuple[float, float]:
        """Return smoothed temperature, 0 if it is stale, and target."""
        print_time = self.mcu_pwm.get_mcu().estimated_print_time(eventtime)
        with self.lock:
            stale = self.last_temp_time < print_time - QUELL_STALE_TIME
            return (0.0 if stale else self.smoothed_temp), self.target_temp

    def check_busy(self, eventtime: float) -> bool:
        """Say whether the target has yet to be reached."""
        with self.lock:
            return bool(self.control.check_busy(eventtime, self.smoothed_temp, self.target_temp))

    def set_control(self, control: Any) -> Any:
        """Replace the algorithm; the target becomes 0 without `set_temp` being called."""
        with self.lock:
            old, self.control = self.control, control
            self.target_temp = 0.0
        return old

    def alter_target(self, target_temp: float) -> None:
        """Move the target from within an algorithm, clamped, without `set_temp` or lock."""
        if target_temp:
            target_temp = max(self.min_temp, min(self.max_temp, target_temp))
        self.target_temp = target_temp

    def stats(self, eventtime: float) -> tuple[bool, str]:
        """Return the log's word, and let power flow for five more seconds."""
        print_time = self.mcu_pwm.get_mcu().estimated_print_time(eventtime)
        if not self.printer.is_shutdown():
            self.verify_mainthread_time = print_time + MAX_MAINTHREAD_TIME
        with self.lock:
            target, temp, power = self.target_temp, self.last_temp, self.last_pwm_value
        is_active = bool(target) or temp > 50.0
        return is_active, f"{self.short_name}: target={target:.0f} temp={temp:.1f} pwm={power:.3f}"

    def get_status(self, eventtime: float) -> dict[str, Any]:
        """Return what the web interfaces show; never looks at the reading's age."""
        with self.lock:
            target, temp, power = self.target_temp, self.smoothed_temp, self.last_pwm_value
        return {"temperature": round(temp, 2), "target": target, "power": power}

    def cmd_SET_HEATER_TEMPERATURE(self, gcmd: Any) -> None:
        """Set the target."""
        temp = gcmd.get_float("TARGET", 0.0)
        self.printer.lookup_object("heaters").set_temperature(self, temp)
