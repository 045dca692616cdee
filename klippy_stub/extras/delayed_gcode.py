"""[delayed_gcode ID]: a script on a timer (klippy/extras/delayed_gcode.py).

The script runs inside the timer and waits there for the G-code mutex, so a long wait elsewhere
delays it and nothing else.
"""

from __future__ import annotations

import logging
from typing import Any

logger = logging.getLogger(__name__)


class DelayedGcode:
    """One script."""

    def __init__(self, config: Any) -> None:
        self.printer = config.get_printer()
        self.reactor = self.printer.get_reactor()
        self.name = config.get_name().split()[1]
        self.gcode = self.printer.lookup_object("gcode")
        gcode_macro = self.printer.load_object(config, "gcode_macro")
        self.timer_gcode = gcode_macro.load_template(config, "gcode")
        self.duration = config.getfloat("initial_duration", 0.0, minval=0.0)
        self.timer_handler: Any = None
        self.inside_timer = self.repeat = False
        self.printer.register_event_handler("klippy:ready", self._handle_ready)
        self.gcode.register_mux_command(
            "UPDATE_DELAYED_GCODE",
            "ID",
            self.name,
            self.cmd_UPDATE_DELAYED_GCODE,
            desc="Update the duration of a delayed_gcode",
        )

    def _waketime(self) -> float:
        if not self.duration:
            return float(self.reactor.NEVER)
        return float(self.reactor.monotonic() + self.duration)

    def _handle_ready(self) -> None:
        self.timer_handler = self.reactor.register_timer(self._event, self._waketime())

    def _event(self, eventtime: float) -> float:
        self.inside_timer = True
        try:
            self.gcode.run_script(self.timer_gcode.render())
        except Exception:
            logger.exception("Script running error")
        nextwake = eventtime + self.duration if self.repeat else self.reactor.NEVER
        self.inside_timer = self.repeat = False
        return float(nextwake)

    def cmd_UPDATE_DELAYED_GCODE(self, gcmd: Any) -> None:
        """Set the time until it runs; 0 means never."""
        self.duration = gcmd.get_float("DURATION", minval=0.0)
        if self.inside_timer:
            self.repeat = self.duration != 0.0
        else:
            self.reactor.update_timer(self.timer_handler, self._waketime())


def load_config_prefix(config: Any) -> DelayedGcode:
    """Make the object."""
    return DelayedGcode(config)
