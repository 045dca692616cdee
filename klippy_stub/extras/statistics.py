"""Once a second every object's `stats` is called, under `assert_no_pause`
(klippy/extras/statistics.py). Loaded always. The list of objects is taken at klippy:ready.
"""

from __future__ import annotations

import logging
import os
import time
from typing import Any

logger = logging.getLogger(__name__)


class PrinterSysStats:
    """The ``system_stats`` object."""

    def __init__(self, config: Any) -> None:
        self.cputime = 0.0
        self.load = 0.0

    def stats(self, eventtime: float) -> tuple[bool, str]:
        """Return the log's word."""
        self.cputime = time.process_time()
        self.load = os.getloadavg()[0]
        return False, f"sysload={self.load:.2f} cputime={self.cputime:.3f}"

    def get_status(self, eventtime: float) -> dict[str, Any]:
        """Return the same as numbers."""
        return {"sysload": self.load, "cputime": self.cputime, "memavail": 0}


class PrinterStats:
    """Calls and logs."""

    def __init__(self, config: Any) -> None:
        self.printer = config.get_printer()
        self.reactor = self.printer.get_reactor()
        self.stats_timer = self.reactor.register_timer(self.generate_stats)
        self.stats_cb: list[Any] = []
        self.printer.register_event_handler("klippy:ready", self.handle_ready)

    def handle_ready(self) -> None:
        """Start."""
        self.stats_cb = [o.stats for _, o in self.printer.lookup_objects() if hasattr(o, "stats")]
        if self.printer.get_start_args().get("debugoutput") is None:
            self.reactor.update_timer(self.stats_timer, self.reactor.NOW)

    def generate_stats(self, eventtime: float) -> float:
        """Call everybody; log if anybody is active."""
        with self.reactor.assert_no_pause():
            stats = [cb(eventtime) for cb in self.stats_cb]
        if any(is_active for is_active, _ in stats):
            logger.info("Stats %.1f: %s", eventtime, " ".join(text for _, text in stats if text))
        return eventtime + 1.0


def load_config(config: Any) -> PrinterStats:
    """Make both objects."""
    config.get_printer().add_object("system_stats", PrinterSysStats(config))
    return PrinterStats(config)
