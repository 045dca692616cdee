"""[display_status]: progress and a message (klippy/extras/display_status.py)."""

from __future__ import annotations

from typing import Any


class DisplayStatus:
    """The ``display_status`` object."""

    def __init__(self, config: Any) -> None:
        self.printer = config.get_printer()
        self.progress: float | None = None
        self.message: str | None = None
        gcode = self.printer.lookup_object("gcode")
        gcode.register_command("M73", self.cmd_M73)
        gcode.register_command("M117", self.cmd_M117)
        gcode.register_command(
            "SET_DISPLAY_TEXT", self.cmd_SET_DISPLAY_TEXT, desc="Set or clear the display message"
        )

    def get_status(self, eventtime: float) -> dict[str, Any]:
        """Return both."""
        sdcard = self.printer.lookup_object("virtual_sdcard", None)
        from_file = sdcard.progress() if sdcard is not None else 0.0
        progress = from_file if self.progress is None else self.progress
        return {"progress": progress, "message": self.message}

    def cmd_M73(self, gcmd: Any) -> None:
        """Set the progress."""
        percent = gcmd.get_float("P", None)
        if percent is not None:
            self.progress = min(1.0, max(0.0, percent / 100.0))

    def cmd_M117(self, gcmd: Any) -> None:
        """Set the message."""
        self.message = gcmd.get_raw_command_parameters() or None

    def cmd_SET_DISPLAY_TEXT(self, gcmd: Any) -> None:
        """Set the message."""
        self.message = gcmd.get("MSG", None)


def load_config(config: Any) -> DisplayStatus:
    """Make the object."""
    return DisplayStatus(config)
