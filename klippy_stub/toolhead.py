"""Print time and waiting, without any motion (klippy/toolhead.py).

What is left is what heaters and idle_timeout look at: asking for the time of the last move counts
as activity (``toolhead:sync_print_time`` makes idle_timeout say Printing), and more than a second
of queued time makes G-code wait.
"""

from __future__ import annotations

from typing import Any, Callable

BUFFER_TIME_START = 0.250
BUFFER_TIME_HIGH = 1.0


class ToolHead:
    """The ``toolhead`` object."""

    def __init__(self, config: Any) -> None:
        self.printer = config.get_printer()
        self.reactor = self.printer.get_reactor()
        self.mcu = self.printer.lookup_object("mcu")
        self.max_velocity = config.getfloat("max_velocity", above=0.0)
        self.max_accel = config.getfloat("max_accel", above=0.0)
        self.min_cruise_ratio = config.getfloat("minimum_cruise_ratio", 0.5, below=1.0, minval=0.0)
        self.square_corner_velocity = config.getfloat("square_corner_velocity", 5.0, minval=0.0)
        kinematics = config.get("kinematics")
        if kinematics != "none":
            raise config.error(f"Error loading kinematics '{kinematics}': the stub has only 'none'")
        self.Coord = self.printer.lookup_object("gcode").Coord
        self.commanded_pos = [0.0, 0.0, 0.0, 0.0]
        self.print_time = 0.0
        self.can_pause = not self.mcu.is_fileoutput()
        self.printer.register_event_handler("klippy:shutdown", self._handle_shutdown)

    def _handle_shutdown(self) -> None:
        self.can_pause = False

    def get_last_move_time(self) -> float:
        """Return when the last move ends, at the earliest a little ahead of now."""
        now = self.reactor.monotonic()
        estimated = self.mcu.estimated_print_time(now)
        if estimated + BUFFER_TIME_START > self.print_time:
            self.print_time = estimated + BUFFER_TIME_START
            self.printer.send_event("toolhead:sync_print_time", now, estimated, self.print_time)
        return self.print_time

    def register_lookahead_callback(self, callback: Callable[[float], Any]) -> None:
        """Call `callback(print_time)` after the queued moves; there never are any."""
        callback(self.get_last_move_time())

    def dwell(self, delay: float) -> None:
        """Let print time pass; waits for all but the last second of it."""
        self.print_time = self.get_last_move_time() + max(0.0, delay)
        eventtime = self.reactor.monotonic()
        while self.can_pause:
            ahead = self.print_time - self.mcu.estimated_print_time(eventtime) - BUFFER_TIME_HIGH
            if ahead <= 0.0:
                break
            eventtime = self.reactor.pause(eventtime + max(0.005, min(1.0, ahead)))

    def wait_moves(self) -> None:
        """Wait until print time has been reached."""
        eventtime = self.reactor.monotonic()
        while self.can_pause and self.print_time >= self.mcu.estimated_print_time(eventtime):
            eventtime = self.reactor.pause(eventtime + 0.100)

    def flush_step_generation(self) -> None:
        """Nothing is ever pending."""

    def check_busy(self, eventtime: float) -> tuple[float, float, bool]:
        """Return print time, estimated print time, and that no moves are queued."""
        return self.print_time, self.mcu.estimated_print_time(eventtime), True

    def get_position(self) -> list[float]:
        """Return the position."""
        return list(self.commanded_pos)

    def stats(self, eventtime: float) -> tuple[bool, str]:
        """Return the log's word; active for a minute after the last move."""
        estimated = self.mcu.estimated_print_time(eventtime)
        ahead = self.print_time - estimated
        return ahead > -60.0, f"print_time={self.print_time:.3f} buffer_time={max(ahead, 0.0):.3f}"

    def get_status(self, eventtime: float) -> dict[str, Any]:
        """Return what the web interfaces look for."""
        return {
            "homed_axes": "",
            "axis_minimum": self.Coord([0.0] * 4),
            "axis_maximum": self.Coord([0.0] * 4),
            "print_time": self.print_time,
            "stalls": 0,
            "estimated_print_time": self.mcu.estimated_print_time(eventtime),
            "extruder": "",
            "position": self.Coord(self.commanded_pos),
            "max_velocity": self.max_velocity,
            "max_accel": self.max_accel,
            "minimum_cruise_ratio": self.min_cruise_ratio,
            "square_corner_velocity": self.square_corner_velocity,
            "extra_axes": {},
        }


class ToolHeadCommandHelper:
    """The commands that wait."""

    def __init__(self, config: Any) -> None:
        printer = config.get_printer()
        self.toolhead = printer.lookup_object("toolhead")
        gcode = printer.lookup_object("gcode")
        gcode.register_command("G4", self.cmd_G4)
        gcode.register_command("M400", self.cmd_M400)

    def cmd_G4(self, gcmd: Any) -> None:
        """Dwell."""
        self.toolhead.dwell(gcmd.get_float("P", 0.0, minval=0.0) / 1000.0)

    def cmd_M400(self, gcmd: Any) -> None:
        """Wait for moves."""
        self.toolhead.wait_moves()


def add_printer_objects(config: Any) -> None:
    """Add the toolhead and what klippy loads after it, whatever the file says."""
    printer = config.get_printer()
    printer.add_object("toolhead", ToolHead(config))
    ToolHeadCommandHelper(config)
    for name in ("gcode_move", "idle_timeout", "statistics"):
        printer.load_object(config, name)
