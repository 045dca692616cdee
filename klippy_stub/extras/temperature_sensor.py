"""[temperature_sensor NAME]: a temperature to look at (klippy/extras/temperature_sensor.py).

Unlike a heater it never calls an old reading stale.
"""

from __future__ import annotations

from typing import Any

KELVIN_TO_CELSIUS = -273.15


class PrinterSensorGeneric:
    """Shows the last reading and the extremes."""

    def __init__(self, config: Any) -> None:
        self.printer = config.get_printer()
        self.name = config.get_name().split()[-1]
        pheaters = self.printer.load_object(config, "heaters")
        self.sensor = pheaters.setup_sensor(config)
        self.min_temp = config.getfloat("min_temp", KELVIN_TO_CELSIUS, minval=KELVIN_TO_CELSIUS)
        self.max_temp = config.getfloat("max_temp", 99999999.9, above=self.min_temp)
        self.sensor.setup_minmax(self.min_temp, self.max_temp)
        self.sensor.setup_callback(self.temperature_callback)
        pheaters.register_sensor(config, self)
        self.last_temp = 0.0
        self.measured_min = 99999999.0
        self.measured_max = 0.0

    def temperature_callback(self, read_time: float, temp: float) -> None:
        """Take a reading."""
        self.last_temp = temp
        if temp:
            self.measured_min = min(self.measured_min, temp)
            self.measured_max = max(self.measured_max, temp)

    def get_temp(self, eventtime: float) -> tuple[float, float]:
        """Return the last reading, however old, and no target."""
        return self.last_temp, 0.0

    def stats(self, eventtime: float) -> tuple[bool, str]:
        """Return the log's word."""
        return False, f"{self.name}: temp={self.last_temp:.1f}"

    def get_status(self, eventtime: float) -> dict[str, Any]:
        """Return what the web interfaces show."""
        return {
            "temperature": round(self.last_temp, 2),
            "measured_min_temp": round(self.measured_min, 2),
            "measured_max_temp": round(self.measured_max, 2),
        }


def load_config_prefix(config: Any) -> PrinterSensorGeneric:
    """Make the sensor's object."""
    return PrinterSensorGeneric(config)
