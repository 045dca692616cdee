"""Klipper extra [localheater]: what a heater of Klipper's own needs to run on a host-process MCU.

Only for measuring; it is never installed with the product. Sensor type and pin chip `localheater`:
one reading per second, always the same, and an output that goes nowhere. What it costs klippy is
what any heater does: control, verify_heater, and the statistics in the log, which Klipper writes
once per second while a heater is on.
"""

from __future__ import annotations

from typing import Any, Callable

READING = 22.0  # C; a heater that stays cold long enough for a benchmark
PERIOD = 1.0


class LocalHeater:
    def __init__(self, config: Any) -> None:
        self.printer = config.get_printer()
        self.reactor = self.printer.get_reactor()
        self.mcu = self.printer.lookup_object("mcu")
        self.callback: Callable[[float, float], None] = _nobody
        heaters = self.printer.load_object(config, "heaters")
        heaters.add_sensor_factory("localheater", lambda config: self)
        self.printer.lookup_object("pins").register_chip("localheater", self)
        self.printer.register_event_handler("klippy:ready", self.handle_ready)

    def handle_ready(self) -> None:
        self.reactor.register_timer(self.feed, self.reactor.NOW)

    def feed(self, eventtime: float) -> float:
        self.callback(self.mcu.estimated_print_time(eventtime), READING)
        return eventtime + PERIOD

    # The sensor

    def setup_minmax(self, min_temp: float, max_temp: float) -> None:
        pass

    def setup_callback(self, callback: Callable[[float, float], None]) -> None:
        self.callback = callback

    def get_report_time_delta(self) -> float:
        return PERIOD

    # The pin

    def setup_pin(self, pin_type: str, pin_params: dict[str, Any]) -> LocalHeater:
        return self

    def get_mcu(self) -> Any:
        return self.mcu

    def setup_max_duration(self, max_duration: float) -> None:
        pass

    def setup_cycle_time(self, cycle_time: float, hardware_pwm: bool = False) -> None:
        pass

    def set_pwm(self, print_time: float, value: float, cycle_time: Any = None) -> None:
        pass


def _nobody(read_time: float, temp: float) -> None:
    pass


def load_config(config: Any) -> LocalHeater:
    return LocalHeater(config)
