"""Sensors and heaters by name, and the commands that wait for them (klippy/extras/heaters.py)."""

from __future__ import annotations

from typing import Any, Callable

from .heater import KELVIN_TO_CELSIUS, MAX_HEAT_TIME, QUELL_STALE_TIME, Heater
from .heater_control import PID_PARAM_BASE, ControlBangBang, ControlPID

__all__ = [
    "KELVIN_TO_CELSIUS",
    "MAX_HEAT_TIME",
    "PID_PARAM_BASE",
    "QUELL_STALE_TIME",
    "ControlBangBang",
    "ControlPID",
    "Heater",
    "PrinterHeaters",
]

# Klipper loads these from temperature_sensors.cfg at the first setup_sensor
DEFAULT_SENSOR_MODULES = ("temperature_host", "temperature_combined", "stub_thermal")


class PrinterHeaters:
    """The ``heaters`` object."""

    def __init__(self, config: Any) -> None:
        self.printer = config.get_printer()
        self.sensor_factories: dict[str, Callable[[Any], Any]] = {}
        self.heaters: dict[str, Heater] = {}
        self.gcode_id_to_sensor: dict[str, Any] = {}
        self.available_heaters: list[str] = []
        self.available_sensors: list[str] = []
        self.available_monitors: list[str] = []
        self.has_started = self.have_load_sensors = False
        self.printer.register_event_handler("klippy:ready", self._handle_ready)
        self.printer.register_event_handler("gcode:request_restart", self.turn_off_all_heaters)
        gcode = self.printer.lookup_object("gcode")
        gcode.register_command(
            "TURN_OFF_HEATERS", self.cmd_TURN_OFF_HEATERS, desc="Turn off all heaters"
        )
        gcode.register_command("M105", self.cmd_M105, when_not_ready=True)

    def load_config(self, config: Any) -> None:
        """Load the sensors everybody has."""
        self.have_load_sensors = True
        for module in DEFAULT_SENSOR_MODULES:
            self.printer.load_object(config, module)

    def add_sensor_factory(self, sensor_type: str, sensor_factory: Callable[[Any], Any]) -> None:
        """Make `sensor_type` known; every section that asks for it gets its own object."""
        self.sensor_factories[sensor_type] = sensor_factory

    def setup_heater(self, config: Any, gcode_id: str | None = None) -> Heater:
        """Make the heater of a section."""
        heater_name = config.get_name().split()[-1]
        if heater_name in self.heaters:
            raise config.error(f"Heater {heater_name} already registered")
        sensor = self.setup_sensor(config)
        self.heaters[heater_name] = heater = Heater(config, sensor)
        self.register_sensor(config, heater, gcode_id)
        self.available_heaters.append(config.get_name())
        return heater

    def get_all_heaters(self) -> list[str]:
        """Return the full names of all heaters."""
        return self.available_heaters

    def lookup_heater(self, heater_name: str) -> Heater:
        """Return a heater by the last word of its name."""
        if heater_name not in self.heaters:
            raise self.printer.config_error(f"Unknown heater '{heater_name}'")
        return self.heaters[heater_name]

    def setup_sensor(self, config: Any) -> Any:
        """Make the sensor that a section asks for."""
        if not self.have_load_sensors:
            self.load_config(config)
        sensor_type = config.get("sensor_type")
        if sensor_type not in self.sensor_factories:
            raise self.printer.config_error(f"Unknown temperature sensor '{sensor_type}'")
        return self.sensor_factories[sensor_type](config)

    def register_sensor(self, config: Any, psensor: Any, gcode_id: str | None = None) -> None:
        """Make a sensor known to TEMPERATURE_WAIT, M105 and the web interfaces."""
        sensor_name = config.get_name()
        self.available_sensors.append(sensor_name)
        self.printer.lookup_object("gcode").register_mux_command(
            "TEMPERATURE_WAIT",
            "SENSOR",
            sensor_name,
            self.cmd_TEMPERATURE_WAIT,
            desc="Wait for a temperature on a sensor",
        )
        if gcode_id is None:
            gcode_id = config.get("gcode_id", None)
        if gcode_id is None:
            return
        if gcode_id in self.gcode_id_to_sensor:
            raise self.printer.config_error(f"G-Code sensor id {gcode_id} already registered")
        self.gcode_id_to_sensor[gcode_id] = psensor

    def register_monitor(self, config: Any) -> None:
        """Make a temperature known that is only shown."""
        self.available_monitors.append(config.get_name())

    def get_status(self, eventtime: float) -> dict[str, Any]:
        """Return the names of everything with a temperature."""
        return {
            "available_heaters": self.available_heaters,
            "available_sensors": self.available_sensors,
            "available_monitors": self.available_monitors,
        }

    def turn_off_all_heaters(self, print_time: float = 0.0) -> None:
        """Set every target to 0. One that raises leaves those behind it on."""
        for heater in self.heaters.values():
            heater.set_temp(0.0)

    def cmd_TURN_OFF_HEATERS(self, gcmd: Any) -> None:
        """Set every target to 0."""
        self.turn_off_all_heaters()

    def _handle_ready(self) -> None:
        self.has_started = True

    def _get_temp(self, eventtime: float) -> str:
        if not self.has_started or not self.gcode_id_to_sensor:
            return "T:0"
        out = []
        for gcode_id, sensor in sorted(self.gcode_id_to_sensor.items()):
            current, target = sensor.get_temp(eventtime)
            out.append(f"{gcode_id}:{current:.1f} /{target:.1f}")
        return " ".join(out)

    def cmd_M105(self, gcmd: Any) -> None:
        """Report temperatures."""
        msg = self._get_temp(self.printer.get_reactor().monotonic())
        if not gcmd.ack(msg):
            gcmd.respond_raw(msg)

    def _wait_while(self, is_waiting: Callable[[float], bool]) -> None:
        """Report once a second. Holds the G-code mutex; only a shutdown ends it early."""
        toolhead = self.printer.lookup_object("toolhead")
        gcode = self.printer.lookup_object("gcode")
        reactor = self.printer.get_reactor()
        eventtime = reactor.monotonic()
        while not self.printer.is_shutdown() and is_waiting(eventtime):
            toolhead.get_last_move_time()  # counts as activity for idle_timeout
            gcode.respond_raw(self._get_temp(eventtime))
            eventtime = reactor.pause(eventtime + 1.0)

    def _is_batch(self) -> bool:
        return self.printer.get_start_args().get("debugoutput") is not None

    def set_temperature(self, heater: Heater, temp: float, wait: bool = False) -> None:
        """Set a target after the queued moves, and wait for it if asked to."""
        self.printer.lookup_object("toolhead").register_lookahead_callback(lambda pt: None)
        heater.set_temp(temp)
        if wait and temp and not self._is_batch():
            self._wait_while(heater.check_busy)

    def cmd_TEMPERATURE_WAIT(self, gcmd: Any) -> None:
        """Wait until a sensor is within bounds; the heater's target does not matter."""
        sensor_name = gcmd.get("SENSOR")
        low = gcmd.get_float("MINIMUM", float("-inf"))
        high = gcmd.get_float("MAXIMUM", float("inf"), above=low)
        if low == float("-inf") and high == float("inf"):
            raise gcmd.error("Error on 'TEMPERATURE_WAIT': missing MINIMUM or MAXIMUM.")
        if self._is_batch():
            return
        if sensor_name in self.heaters:
            sensor: Any = self.heaters[sensor_name]
        else:
            sensor = self.printer.lookup_object(sensor_name)
        self._wait_while(lambda eventtime: not low <= sensor.get_temp(eventtime)[0] <= high)


def load_config(config: Any) -> PrinterHeaters:
    """Make the ``heaters`` object."""
    return PrinterHeaters(config)
