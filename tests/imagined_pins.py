"""A module for klippy: pins that lead nowhere. A host-process MCU has none on most machines."""

from __future__ import annotations

from typing import Any


class Pin:
    """Takes whatever is asked of an output."""

    def __init__(self, printer: Any) -> None:
        self.printer = printer

    def get_mcu(self) -> Any:
        return self.printer.lookup_object("mcu")

    def setup_max_duration(self, max_duration: float) -> None:
        pass

    def setup_cycle_time(self, cycle_time: float, hardware_pwm: bool = False) -> None:
        pass

    def setup_start_value(self, start_value: float, shutdown_value: float) -> None:
        pass

    def set_pwm(self, print_time: float, value: float, *others: Any) -> None:
        pass


class Pins:
    def __init__(self, config: Any) -> None:
        self.printer = config.get_printer()
        self.printer.lookup_object("pins").register_chip("imagined", self)

    def setup_pin(self, pin_type: str, pin_params: dict[str, Any]) -> Pin:
        return Pin(self.printer)


def load_config(config: Any) -> Pins:
    return Pins(config)
