"""The words that follow a shutdown's own (klippy/extras/error_mcu.py). Loaded always.

They are added at klippy:analyze_shutdown, so a klippy:shutdown handler sees the bare message.
"""

from __future__ import annotations

from typing import Any

message_shutdown = """
Once the underlying issue is corrected, use the
"FIRMWARE_RESTART" command to reset the firmware, reload the
config, and restart the host software.
Printer is shutdown
"""


class PrinterMCUError:
    """Adds the words."""

    def __init__(self, config: Any) -> None:
        self.printer = config.get_printer()
        self.printer.register_event_handler(
            "klippy:analyze_shutdown", self._handle_analyze_shutdown
        )

    def _handle_analyze_shutdown(self, msg: str, details: Any) -> None:
        self.printer.update_error_msg(msg, msg + message_shutdown)


def load_config(config: Any) -> PrinterMCUError:
    """Make the object."""
    return PrinterMCUError(config)
