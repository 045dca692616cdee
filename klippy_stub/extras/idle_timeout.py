"""Idle, Ready or Printing (klippy/extras/idle_timeout.py).

Printing means that somebody asked for print time lately or holds the G-code mutex; half a second
after that it is Ready. After `timeout` seconds in Ready, 600 by default, a script runs that turns
the heaters off, whatever they are for.
"""

from __future__ import annotations

import logging
from typing import Any

logger = logging.getLogger(__name__)

PIN_MIN_TIME = 0.100
READY_TIMEOUT = 0.500


class IdleTimeout:
    """The ``idle_timeout`` object."""

    def __init__(self, config: Any) -> None:
        self.printer = config.get_printer()
        self.reactor = self.printer.get_reactor()
        self.gcode = self.printer.lookup_object("gcode")
        self.toolhead: Any = None
        self.timeout_timer: Any = None
        self.printer.register_event_handler("klippy:ready", self.handle_ready)
        self.idle_timeout = config.getfloat("timeout", 600.0, above=0.0)
        self.idle_gcode = None
        if config.get("gcode", None) is not None:
            gcode_macro = self.printer.load_object(config, "gcode_macro")
            self.idle_gcode = gcode_macro.load_template(config, "gcode")
        self.gcode.register_command(
            "SET_IDLE_TIMEOUT", self.cmd_SET_IDLE_TIMEOUT, desc="Set the idle timeout in seconds"
        )
        self.state = "Idle"
        self.last_print_start_systime = 0.0

    def get_status(self, eventtime: float) -> dict[str, Any]:
        """Return the state."""
        is_printing = self.state == "Printing"
        return {
            "state": self.state,
            "printing_time": eventtime - self.last_print_start_systime if is_printing else 0.0,
            "idle_timeout": self.idle_timeout,
        }

    def handle_ready(self) -> None:
        """Start looking."""
        self.toolhead = self.printer.lookup_object("toolhead")
        self.timeout_timer = self.reactor.register_timer(self.timeout_handler)
        self.printer.register_event_handler("toolhead:sync_print_time", self.handle_sync_print_time)

    def _script(self) -> str:
        if self.idle_gcode is not None:
            return str(self.idle_gcode.render())
        has_heaters = self.printer.lookup_object("heaters", None) is not None
        return "TURN_OFF_HEATERS\nM84" if has_heaters else "M84"

    def transition_idle_state(self, eventtime: float) -> float:
        """Run the script."""
        self.state = "Printing"
        try:
            self.gcode.run_script(self._script())
        except Exception:
            logger.exception("idle timeout gcode execution")
            self.state = "Ready"
            return eventtime + 1.0
        print_time = self.toolhead.get_last_move_time()
        self.state = "Idle"
        self.printer.send_event("idle_timeout:idle", print_time)
        return float(self.reactor.NEVER)

    def check_idle_timeout(self, eventtime: float) -> float:
        """Look whether Ready has lasted long enough."""
        print_time, est_print_time, lookahead_empty = self.toolhead.check_busy(eventtime)
        idle_time = est_print_time - print_time
        if not lookahead_empty or idle_time < 1.0:
            return float(eventtime + self.idle_timeout)
        if idle_time < self.idle_timeout:
            return float(eventtime + self.idle_timeout - idle_time)
        if self.gcode.get_mutex().test():
            return eventtime + 1.0
        return self.transition_idle_state(eventtime)

    def timeout_handler(self, eventtime: float) -> float:
        """Look whether the state changes."""
        if self.printer.is_shutdown():
            return float(self.reactor.NEVER)
        if self.state == "Ready":
            return self.check_idle_timeout(eventtime)
        print_time, est_print_time, lookahead_empty = self.toolhead.check_busy(eventtime)
        buffer_time = min(2.0, print_time - est_print_time)
        if not lookahead_empty:
            return float(eventtime + READY_TIMEOUT + max(0.0, buffer_time))
        if buffer_time > -READY_TIMEOUT:
            return float(eventtime + READY_TIMEOUT + buffer_time)
        if self.gcode.get_mutex().test():
            return eventtime + READY_TIMEOUT
        self.state = "Ready"
        self.printer.send_event("idle_timeout:ready", est_print_time + PIN_MIN_TIME)
        return float(eventtime + self.idle_timeout)

    def handle_sync_print_time(
        self, curtime: float, print_time: float, est_print_time: float
    ) -> None:
        """Somebody wants to do something at a certain print time."""
        if self.state == "Printing":
            return
        self.state = "Printing"
        self.last_print_start_systime = curtime
        check_time = READY_TIMEOUT + print_time - est_print_time
        self.reactor.update_timer(self.timeout_timer, curtime + check_time)
        self.printer.send_event("idle_timeout:printing", est_print_time + PIN_MIN_TIME)

    def cmd_SET_IDLE_TIMEOUT(self, gcmd: Any) -> None:
        """Change the time."""
        timeout = gcmd.get_float("TIMEOUT", self.idle_timeout, above=0.0)
        self.idle_timeout = timeout
        gcmd.respond_info(f"idle_timeout: Timeout set to {timeout:.2f} s")
        if self.state == "Ready":
            self.reactor.update_timer(self.timeout_timer, self.reactor.monotonic() + timeout)


def load_config(config: Any) -> IdleTimeout:
    """Make the object; klippy does so even without a section."""
    return IdleTimeout(config)
