"""sensor_type: temperature_host, with a value that a test sets (klippy/extras/temperature_host.py).

The rest is as in Klipper: one reading a second, its own checks of the limits, and a printer object
``temperature_host NAME``, which is where the value is set: `printer.lookup_object(...).value`.
With a ``sensor_path`` it is read from that file, in thousandths of a degree; a file that cannot be
read ends it for good, as in Klipper.
"""

from __future__ import annotations

import logging
from typing import Any

HOST_REPORT_TIME = 1.0
DEFAULT_VALUE = 25.0

logger = logging.getLogger(__name__)


class Temperature_HOST:  # noqa: N801 - klippy's name
    """A sensor on the host. A `value` of None stops the readings."""

    def __init__(self, config: Any) -> None:
        self.printer = config.get_printer()
        self.reactor = self.printer.get_reactor()
        self.name = config.get_name().split()[-1]
        self.path = config.get("sensor_path", None)
        self.value: float | None = DEFAULT_VALUE
        self.temp = self.min_temp = self.max_temp = 0.0
        self._callback: Any = None
        self.printer.add_object("temperature_host " + self.name, self)
        if self.printer.get_start_args().get("debugoutput") is not None:
            return
        self.sample_timer = self.reactor.register_timer(self._sample)
        self.printer.register_event_handler("klippy:connect", self.handle_connect)

    def handle_connect(self) -> None:
        """Start reading."""
        self.reactor.update_timer(self.sample_timer, self.reactor.NOW)

    def setup_minmax(self, min_temp: float, max_temp: float) -> None:
        """Set the limits that shut the printer down."""
        self.min_temp, self.max_temp = min_temp, max_temp

    def setup_callback(self, cb: Any) -> None:
        """Call `cb(print_time, temperature)` with each reading."""
        self._callback = cb

    def get_report_time_delta(self) -> float:
        """Return the time between readings."""
        return HOST_REPORT_TIME

    def _sample(self, eventtime: float) -> float:
        if self.path is not None:
            try:
                with open(self.path, encoding="ascii") as f:
                    self.value = float(f.read()) / 1000.0
            except Exception:
                logger.exception("temperature_host: Error reading data")
                self.temp = 0.0
                return float(self.reactor.NEVER)
        if self.value is None:
            return eventtime + HOST_REPORT_TIME
        self.temp = self.value
        for is_beyond, word, limit in (
            (self.temp < self.min_temp, "below minimum", self.min_temp),
            (self.temp > self.max_temp, "above maximum", self.max_temp),
        ):
            if is_beyond:
                self.printer.invoke_shutdown(
                    f"HOST temperature {self.temp:.1f} {word} temperature of {limit:.1f}."
                )
        now = self.reactor.monotonic()
        print_time = self.printer.lookup_object("mcu").estimated_print_time(now)
        self._callback(print_time, self.temp)
        return float(now + HOST_REPORT_TIME)

    def get_status(self, eventtime: float) -> dict[str, Any]:
        """Return the temperature."""
        return {"temperature": round(self.temp, 2)}


def load_config(config: Any) -> None:
    """Make the sensor type known."""
    pheaters = config.get_printer().load_object(config, "heaters")
    pheaters.add_sensor_factory("temperature_host", Temperature_HOST)
