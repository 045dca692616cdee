"""Klipper extra [lateness]: how late the reactor runs its timers.

Only for measuring; it is never installed with the product. A 10 ms timer notes how long after
its due time it was run; status and LATENESS_RESET give the worst and the 99th percentile.
"""

from __future__ import annotations

import math
from typing import Any

PERIOD = 0.010
# Counting in buckets keeps a run of days at one size, and get_status cheap enough not to
# disturb what it measures. Sixteen to the octave: a percentile is at most 4.5 % too high.
SMALLEST = 1e-6
PER_OCTAVE = 16
BUCKETS = 32 * PER_OCTAVE


class Lateness:
    def __init__(self, config: Any) -> None:
        self.printer = config.get_printer()
        self.reactor = self.printer.get_reactor()
        self.due = math.inf
        self.reset()
        # Not before ready: loading the configuration holds the reactor in plain Klipper too, and
        # a slow start is measured by its length. A slow ready handler after ours does count.
        self.printer.register_event_handler("klippy:ready", self.handle_ready)
        self.printer.lookup_object("gcode").register_command(
            "LATENESS_RESET", self.cmd_LATENESS_RESET, desc=self.cmd_LATENESS_RESET_help
        )

    def reset(self) -> None:
        self.worst = 0.0
        self.ticks = 0
        self.counts = [0] * BUCKETS

    def handle_ready(self) -> None:
        self.due = self.reactor.monotonic() + PERIOD
        self.reactor.register_timer(self.tick, self.due)

    def tick(self, eventtime: float) -> float:
        # Not eventtime: that is from before the other timers of this round, the slow one included.
        now: float = self.reactor.monotonic()
        late = max(now - self.due, SMALLEST)
        self.worst = max(self.worst, late)
        self.ticks += 1
        self.counts[min(int(math.log2(late / SMALLEST) * PER_OCTAVE), BUCKETS - 1)] += 1
        # From now, not from the old due time: one stall is one late tick.
        due = self.due = now + PERIOD
        return due

    def percentile(self, share: float) -> float:
        wanted = share * self.ticks
        seen = 0
        for bucket, count in enumerate(self.counts):
            seen += count
            if count and seen >= wanted:
                return min(SMALLEST * math.pow(2.0, (bucket + 1) / PER_OCTAVE), self.worst)
        return 0.0

    def get_status(self, eventtime: float) -> dict[str, Any]:
        return {"worst": self.worst, "p99": self.percentile(0.99), "ticks": self.ticks}

    cmd_LATENESS_RESET_help = "Forget the lateness seen so far"  # noqa: N815 (Klipper's name)

    def cmd_LATENESS_RESET(self, gcmd: Any) -> None:  # noqa: N802 (Klipper's name)
        self.reset()


def load_config(config: Any) -> Lateness:
    return Lateness(config)
