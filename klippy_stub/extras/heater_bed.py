"""[heater_bed]: a heater with M140 and M190 (klippy/extras/heater_bed.py)."""

from __future__ import annotations

from typing import Any


class PrinterHeaterBed:
    """The ``heater_bed`` object."""

    def __init__(self, config: Any) -> None:
        self.printer = config.get_printer()
        self.heater = self.printer.load_object(config, "heaters").setup_heater(config, "B")
        self.get_status = self.heater.get_status
        self.stats = self.heater.stats
        gcode = self.printer.lookup_object("gcode")
        gcode.register_command("M140", self.cmd_M140)
        gcode.register_command("M190", self.cmd_M190)

    def cmd_M140(self, gcmd: Any, wait: bool = False) -> None:
        """Set the bed's target."""
        temp = gcmd.get_float("S", 0.0)
        self.printer.lookup_object("heaters").set_temperature(self.heater, temp, wait)

    def cmd_M190(self, gcmd: Any) -> None:
        """Set the bed's target and wait for it."""
        self.cmd_M140(gcmd, wait=True)


def load_config(config: Any) -> PrinterHeaterBed:
    """Make the bed."""
    return PrinterHeaterBed(config)
