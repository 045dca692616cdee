"""What has become of the print (klippy/extras/print_stats.py)."""

from __future__ import annotations

from typing import Any


class PrintStats:
    """The ``print_stats`` object. State: standby, printing, paused, complete, cancelled, error."""

    def __init__(self, config: Any) -> None:
        self.reactor = config.get_printer().get_reactor()
        self.reset()

    def reset(self) -> None:
        """Forget the file."""
        self.filename = self.error_message = ""
        self.state = "standby"
        self.print_start_time: float | None = None
        self.last_pause_time: float | None = None
        self.paused_for = self.total_duration = 0.0

    def set_current_file(self, filename: str) -> None:
        """Note a new file."""
        self.reset()
        self.filename = filename

    def note_start(self) -> None:
        """Note a start, or that it goes on."""
        now = self.reactor.monotonic()
        if self.print_start_time is None:
            self.print_start_time = now
        elif self.last_pause_time is not None:
            self.paused_for += now - self.last_pause_time
            self.last_pause_time = None
        self.state = "printing"
        self.error_message = ""

    def note_pause(self) -> None:
        """Note a pause."""
        if self.last_pause_time is None:
            self.last_pause_time = self.reactor.monotonic()
        if self.state != "error":
            self.state = "paused"

    def note_complete(self) -> None:
        """Note the end of the file."""
        self._note_finish("complete")

    def note_error(self, message: str) -> None:
        """Note a command that failed."""
        self._note_finish("error", message)

    def note_cancel(self) -> None:
        """Note that the user gave up."""
        self._note_finish("cancelled")

    def _note_finish(self, state: str, error_message: str = "") -> None:
        if self.print_start_time is None:
            return
        self.state = state
        self.error_message = error_message
        self.total_duration = self.reactor.monotonic() - self.print_start_time
        self.print_start_time = None

    def get_status(self, eventtime: float) -> dict[str, Any]:
        """Return it."""
        paused = self.paused_for
        if self.print_start_time is not None:
            self.total_duration = eventtime - self.print_start_time
            if self.last_pause_time is not None:
                paused += eventtime - self.last_pause_time
        return {
            "filename": self.filename,
            "total_duration": self.total_duration,
            "print_duration": self.total_duration - paused,
            "filament_used": 0.0,
            "state": self.state,
            "message": self.error_message,
            "info": {"total_layer": None, "current_layer": None},
        }


def load_config(config: Any) -> PrintStats:
    """Make the object."""
    return PrintStats(config)
