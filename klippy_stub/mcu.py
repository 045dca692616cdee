"""A micro-controller that exists only here (klippy/mcu.py).

Print time is a clock of its own in klippy: near zero when the connection is made, running beside
the machine's. Pins write down what they are told in `history`, as (print_time, value).
"""

from __future__ import annotations

from typing import Any

from . import pins

FREQUENCY = 1_000_000.0
EPOCH = 100.0  # print time at connect: a running MCU never reads 0


class error(Exception):  # noqa: N801, N818 - klippy's name
    """Trouble with a micro-controller."""


class _OutputPin:
    """A pin that writes down what it is told."""

    def __init__(self, mcu: MCU, pin_params: dict[str, Any]) -> None:
        self._mcu = mcu
        self.pin = pin_params["pin"]
        self.max_duration = 2.0
        self.history: list[tuple[float, float]] = []

    def get_mcu(self) -> MCU:
        """Return the chip."""
        return self._mcu

    def setup_max_duration(self, max_duration: float) -> None:
        """Say how long a value may stand without being repeated."""
        self.max_duration = max_duration

    def setup_start_value(self, start_value: float, shutdown_value: float) -> None:
        """Say what the pin is at start and in shutdown."""

    def _note(self, print_time: float, value: float) -> None:
        self.history.append((print_time, value))
        del self.history[:-1000]

    def value_at(self, print_time: float) -> float:
        """Return the level at that time: 0 once the last command is too old, or in shutdown."""
        if self._mcu.get_printer().is_shutdown():
            return 0.0
        for at, value in reversed(self.history):
            if at <= print_time:
                expired = self.max_duration and print_time - at > self.max_duration
                return 0.0 if expired else value
        return 0.0


class MCU_digital_out(_OutputPin):  # noqa: N801 - klippy's name
    """A pin that is on or off."""

    def set_digital(self, print_time: float, value: float) -> None:
        """Switch at `print_time`."""
        self._note(print_time, 1.0 if value else 0.0)


class MCU_pwm(_OutputPin):  # noqa: N801 - klippy's name
    """A pin with a level between 0 and 1."""

    def setup_cycle_time(self, cycle_time: float, hardware_pwm: bool = False) -> None:
        """Accept the cycle time."""

    def set_pwm(self, print_time: float, value: float) -> None:
        """Set the level from `print_time` on."""
        self._note(print_time, max(0.0, min(1.0, value)))


class MCU_adc:  # noqa: N801 - klippy's name
    """An analog input; nobody feeds it but a test."""

    def __init__(self, mcu: MCU, pin_params: dict[str, Any]) -> None:
        self._mcu = mcu
        self.pin = pin_params["pin"]
        self.callback: Any = None

    def get_mcu(self) -> MCU:
        """Return the chip."""
        return self._mcu

    def setup_adc_callback(self, callback: Any) -> None:
        """Call `callback([(print_time, value)])` with each sample."""
        self.callback = callback


class MCU:
    """The ``mcu`` object."""

    error = error

    def __init__(self, config: Any, clocksync: Any) -> None:
        self._printer = config.get_printer()
        self._name = config.get_name().split()[-1]
        if config.get("canbus_uuid", None) is None:
            config.get("serial")
        config.getint("baud", 250000, minval=2400)
        config.get("restart_method", None)
        self._zero = self._printer.get_reactor().monotonic() - EPOCH
        self.pins: dict[str, Any] = {}
        self._printer.lookup_object("pins").register_chip(self._name, self)
        self._printer.load_object(config, "error_mcu")

    def get_name(self) -> str:
        """Return ``mcu`` or what stands behind it."""
        return str(self._name)

    def get_printer(self) -> Any:
        """Return the printer."""
        return self._printer

    def is_fileoutput(self) -> bool:
        """Say whether this is batch mode."""
        return self._printer.get_start_args().get("debugoutput") is not None

    def setup_pin(self, pin_type: str, pin_params: dict[str, Any]) -> Any:
        """Make the object for a pin."""
        kinds = {"digital_out": MCU_digital_out, "pwm": MCU_pwm, "adc": MCU_adc}
        if pin_type not in kinds:
            raise pins.error(f"pin type {pin_type} not supported on mcu")
        pin = kinds[pin_type](self, pin_params)
        self.pins[pin_params["pin"]] = pin
        return pin

    def estimated_print_time(self, eventtime: float) -> float:
        """Turn reactor time into print time. In batch mode it stands at 0, as in klippy."""
        return 0.0 if self.is_fileoutput() else eventtime - self._zero

    def seconds_to_clock(self, time: float) -> int:
        """Turn seconds into ticks."""
        return int(time * FREQUENCY)

    def print_time_to_clock(self, print_time: float) -> int:
        """Turn print time into ticks."""
        return int(print_time * FREQUENCY)

    def clock_to_print_time(self, clock: int) -> float:
        """Turn ticks into print time."""
        return clock / FREQUENCY

    def min_schedule_time(self) -> float:
        """Return how far ahead a command has to be."""
        return 0.100

    def max_nominal_duration(self) -> float:
        """Return the longest time a timer can span."""
        return 3.0

    def get_status(self, eventtime: float | None = None) -> dict[str, Any]:
        """Return what the web interfaces look for."""
        return {
            "mcu_version": "stub",
            "mcu_build_versions": "",
            "mcu_constants": {"CLOCK_FREQ": FREQUENCY},
            "last_stats": {},
        }

    def stats(self, eventtime: float) -> tuple[bool, str]:
        """Return the log's word."""
        return False, f"{self._name}: freq={FREQUENCY:.0f}"


def add_printer_objects(config: Any) -> None:
    """Add ``mcu`` and every ``mcu NAME``; without [mcu] its missing serial is the error."""
    printer = config.get_printer()
    printer.add_object("mcu", MCU(config.getsection("mcu"), None))
    for section in config.get_prefix_sections("mcu "):
        printer.add_object(section.get_name(), MCU(section, None))
