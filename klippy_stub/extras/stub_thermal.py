"""A simulated thermistor, so that beds and other heaters on the stub's own MCU get warm.

Answers to ``sensor_type: stub_thermal`` and to the common thermistor names. The model is one
lump of mass: full power adds `heat_rate` degrees a second, and the difference to the room decays
with `time_constant`. It reads the power of the section's own ``heater_pin``.
"""

from __future__ import annotations

import math
from typing import Any

REPORT_TIME = 0.300
ROOM = 22.0
TYPES = (
    "stub_thermal",
    "EPCOS 100K B57560G104F",
    "ATC Semitec 104GT-2",
    "ATC Semitec 104NT-4-R025H42G",
    "Generic 3950",
    "NTC 100K MGB18-104F39050L32",
)


class StubThermal:
    """One sensor with the thing it is stuck to. `temp` can be set at any time."""

    def __init__(self, config: Any) -> None:
        self.printer = config.get_printer()
        self.reactor = self.printer.get_reactor()
        self.heater_pin = config.get("heater_pin", None, note_valid=False)
        config.get("sensor_pin", None)
        config.getfloat("pullup_resistor", 4700.0, above=0.0)
        self.heat_rate = 1.0
        self.time_constant = 300.0
        self.temp = self.room = ROOM
        self.is_mute = False
        self.min_temp, self.max_temp = -math.inf, math.inf
        self._callback: Any = None
        self._last = self.reactor.monotonic()
        self._beyond = 0
        if self.printer.get_start_args().get("debugoutput") is None:
            self.timer = self.reactor.register_timer(self._sample)
            self.printer.register_event_handler("klippy:connect", self._handle_connect)

    def _handle_connect(self) -> None:
        self.reactor.update_timer(self.timer, self.reactor.NOW)

    def setup_minmax(self, min_temp: float, max_temp: float) -> None:
        """Set the limits; four samples in a row beyond them shut the MCU down."""
        self.min_temp, self.max_temp = min_temp, max_temp

    def setup_callback(self, temperature_callback: Any) -> None:
        """Call it with each reading."""
        self._callback = temperature_callback

    def get_report_time_delta(self) -> float:
        """Return the time between readings."""
        return REPORT_TIME

    def _power(self, print_time: float) -> float:
        if self.heater_pin is None:
            return 0.0
        params = self.printer.lookup_object("pins").parse_pin(self.heater_pin, True)
        pin = getattr(params["chip"], "pins", {}).get(params["pin"])
        return float(pin.value_at(print_time)) if pin is not None else 0.0

    def _sample(self, eventtime: float) -> float:
        print_time = self.printer.lookup_object("mcu").estimated_print_time(eventtime)
        elapsed, self._last = eventtime - self._last, eventtime
        self.temp += self.heat_rate * self._power(print_time) * elapsed
        self.temp -= (self.temp - self.room) * (1.0 - math.exp(-elapsed / self.time_constant))
        if not self.is_mute:
            self._check_limits()
            self._callback(print_time, self.temp)
        return eventtime + REPORT_TIME

    def _check_limits(self) -> None:
        self._beyond = 0 if self.min_temp <= self.temp <= self.max_temp else self._beyond + 1
        if self._beyond == 4:
            self.printer.invoke_shutdown("MCU 'mcu' shutdown: ADC out of range")


def load_config(config: Any) -> None:
    """Make the sensor types known."""
    pheaters = config.get_printer().load_object(config, "heaters")
    for name in TYPES:
        pheaters.add_sensor_factory(name, StubThermal)
