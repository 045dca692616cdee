"""Positions, without anything that moves (klippy/extras/gcode_move.py). Loaded always.

Enough for a file of real G-code to run through and for PAUSE to save and restore its state.
"""

from __future__ import annotations

from typing import Any


class GCodeMove:
    """The ``gcode_move`` object."""

    def __init__(self, config: Any) -> None:
        self.printer = config.get_printer()
        gcode = self.printer.lookup_object("gcode")
        self.Coord = gcode.Coord
        self.absolute_coord = self.absolute_extrude = True
        self.position = [0.0, 0.0, 0.0, 0.0]
        self.speed = 25.0
        self.speed_factor = self.extrude_factor = 1.0
        self.saved_states: dict[str, Any] = {}
        for cmd in ("SAVE_GCODE_STATE", "RESTORE_GCODE_STATE"):
            gcode.register_command(cmd, getattr(self, f"cmd_{cmd}"))
        for cmd in ("G0", "G1"):
            gcode.register_command(cmd, self.cmd_G1)
        for cmd in ("G21", "G92", "M82", "M83", "G90", "G91", "M220", "M221"):
            gcode.register_command(cmd, self.cmd_mode)
        gcode.register_command("M114", self.cmd_M114, True)

    def get_status(self, eventtime: float | None = None) -> dict[str, Any]:
        """Return the position."""
        coord = self.Coord(self.position)
        return {
            "speed_factor": self.speed_factor,
            "speed": self.speed,
            "extrude_factor": self.extrude_factor,
            "absolute_coordinates": self.absolute_coord,
            "absolute_extrude": self.absolute_extrude,
            "homing_origin": self.Coord([0.0] * 4),
            "position": coord,
            "gcode_position": coord,
        }

    def cmd_G1(self, gcmd: Any) -> None:
        """Be there at once; counts as activity."""
        for i, axis in enumerate("XYZE"):
            value = gcmd.get_float(axis, None)
            if value is not None:
                is_absolute = self.absolute_coord and (axis != "E" or self.absolute_extrude)
                self.position[i] = value if is_absolute else self.position[i] + value
        self.printer.lookup_object("toolhead").get_last_move_time()

    def cmd_mode(self, gcmd: Any) -> None:
        """Switch a mode."""
        cmd = gcmd.get_command()
        if cmd in ("G90", "G91"):
            self.absolute_coord = cmd == "G90"
        elif cmd in ("M82", "M83"):
            self.absolute_extrude = cmd == "M82"
        elif cmd == "G92":
            for i, axis in enumerate("XYZE"):
                self.position[i] = gcmd.get_float(axis, self.position[i])
        elif cmd == "M220":
            self.speed_factor = gcmd.get_float("S", 100.0, above=0.0) / 100.0
        elif cmd == "M221":
            self.extrude_factor = gcmd.get_float("S", 100.0, above=0.0) / 100.0

    def cmd_M114(self, gcmd: Any) -> None:
        """Report the position."""
        gcmd.respond_raw("X:{:.3f} Y:{:.3f} Z:{:.3f} E:{:.3f}".format(*self.position))

    def cmd_SAVE_GCODE_STATE(self, gcmd: Any) -> None:
        """Remember modes and position."""
        state = (self.absolute_coord, self.absolute_extrude, list(self.position))
        self.saved_states[gcmd.get("NAME", "default")] = state

    def cmd_RESTORE_GCODE_STATE(self, gcmd: Any) -> None:
        """Go back to them."""
        name = gcmd.get("NAME", "default")
        if name not in self.saved_states:
            raise gcmd.error(f"Unknown g-code state: {name}")
        self.absolute_coord, self.absolute_extrude, position = self.saved_states[name]
        self.position = list(position)


def load_config(config: Any) -> GCodeMove:
    """Make the object."""
    return GCodeMove(config)
