"""sensor_type: temperature_combined (klippy/extras/temperature_combined.py).

It asks the status of its members, which goes on showing what a dead sensor said last, and calls
with that as if it were new.
"""

from __future__ import annotations

import math
from typing import Any

REPORT_TIME = 0.300


class PrinterSensorCombined:
    """The smallest, greatest or mean temperature of other objects."""

    def __init__(self, config: Any) -> None:
        self.printer = config.get_printer()
        self.reactor = self.printer.get_reactor()
        self.name = config.get_name().split()[-1]
        self.sensor_names = [name.strip() for name in config.get("sensor_list").split(",")]
        self.max_deviation = config.getfloat("maximum_deviation", above=0.0)
        self.sensor = self
        self.sensors: list[Any] = []
        algorithms = {"min": min, "max": max, "mean": mean}
        self.apply_mode = config.getchoice("combination_method", algorithms)
        self.last_temp = 0.0
        self.min_temp, self.max_temp = -math.inf, math.inf
        self.temperature_callback: Any = None
        self.printer.add_object("temperature_combined " + self.name, self)
        self.temperature_update_timer = self.reactor.register_timer(self._temperature_update_event)
        self.printer.register_event_handler("klippy:connect", self._handle_connect)
        self.printer.register_event_handler("klippy:ready", self._handle_ready)

    def _handle_connect(self) -> None:
        for name in self.sensor_names:
            sensor = self.printer.lookup_object(name)
            if "temperature" not in sensor.get_status(self.reactor.monotonic()):
                raise self.printer.config_error(f"'{name}' does not report a temperature.")
            self.sensors.append(sensor)

    def _handle_ready(self) -> None:
        self.reactor.update_timer(self.temperature_update_timer, self.reactor.monotonic() + 1.0)

    def setup_minmax(self, min_temp: float, max_temp: float) -> None:
        """Set the limits that shut the printer down."""
        self.min_temp, self.max_temp = min_temp, max_temp

    def setup_callback(self, temperature_callback: Any) -> None:
        """Call it with each update."""
        self.temperature_callback = temperature_callback

    def get_report_time_delta(self) -> float:
        """Return the time between updates."""
        return REPORT_TIME

    def get_temp(self, eventtime: float) -> tuple[float, float]:
        """Return the last one, and no target."""
        return self.last_temp, 0.0

    def get_status(self, eventtime: float) -> dict[str, Any]:
        """Return the last one."""
        return {"temperature": round(self.last_temp, 2)}

    def _temperature_update_event(self, eventtime: float) -> float:
        values = [sensor.get_status(eventtime)["temperature"] for sensor in self.sensors]
        if max(values) - min(values) > self.max_deviation:
            self.printer.invoke_shutdown(
                "COMBINED SENSOR maximum deviation exceeded limit of "
                f"{self.max_deviation:0.1f}, max sensor value {max(values):0.1f}, "
                f"min sensor value {min(values):0.1f}."
            )
        temp = self.apply_mode(values)
        if temp:
            self.last_temp = temp
        for is_beyond, word, limit in (
            (self.last_temp < self.min_temp, "below minimum", self.min_temp),
            (self.last_temp > self.max_temp, "above maximum", self.max_temp),
        ):
            if is_beyond:
                self.printer.invoke_shutdown(
                    f"COMBINED SENSOR temperature {self.last_temp:0.1f} {word}"
                    f" temperature of {limit:0.1f}."
                )
        now = self.reactor.monotonic()
        mcu = self.printer.lookup_object("mcu")
        self.temperature_callback(mcu.estimated_print_time(now), self.last_temp)
        return float(now + REPORT_TIME)


def mean(values: Any) -> Any:
    """Return the mean, or nothing of nothing."""
    if not values:
        return None
    return sum(values) / len(values)


def load_config(config: Any) -> None:
    """Make the sensor type known."""
    pheaters = config.get_printer().load_object(config, "heaters")
    pheaters.add_sensor_factory("temperature_combined", PrinterSensorCombined)
