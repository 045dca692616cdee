"""Where the reactor gets its time from: the machine, or a test's hand."""

from __future__ import annotations

import time


class RealClock:
    """CLOCK_MONOTONIC, as klippy uses."""

    manual = False

    def monotonic(self) -> float:
        """Return seconds since some fixed moment."""
        return time.monotonic()

    def sleep_until(self, waketime: float) -> None:
        """Sleep as klippy does when it pauses while its reactor is not running."""
        delay = waketime - time.monotonic()
        if delay > 0.0:
            time.sleep(delay)


class ManualClock:
    """A clock that stands still unless somebody moves it.

    Starts at 1000 s, not 0, so that "never" encoded as 0 does not look recent.
    """

    manual = True
    _still = 10_000  # questions at one moment after which time must go on

    def __init__(self, now: float = 1000.0) -> None:
        self.now = self._last = now
        self._asked = 0

    def monotonic(self) -> float:
        """Return the time the clock was last moved to.

        Moves it by 1 us where so much happens at one moment that it would never end: idle_timeout
        asks to be called after a time that rounding makes 0, and in klippy time goes on by itself.
        """
        self._asked = self._asked + 1 if self.now == self._last else 0
        if self._asked > self._still:
            self.now += 1e-6
        self._last = self.now
        return self.now

    def sleep_until(self, waketime: float) -> None:
        """Jump there; nothing else gets to run meanwhile, as with a real sleep."""
        self.now = max(self.now, waketime)
