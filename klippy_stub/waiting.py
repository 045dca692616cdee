"""What a reactor hands out: timers, completions, mutexes, and the ban on pausing.

klippy/reactor.py. A timer that is running cannot be moved by `update_timer`, only by its own return
value. Waiting for a completion or a mutex is a pause.
"""

from __future__ import annotations

from typing import Any, Callable

from .strands import Strand

_NEVER = 9999999999999999.0

TimerCallback = Callable[[float], float]


class ReactorError(Exception):
    """Somebody paused where pausing is forbidden."""


class ReactorTimer:
    """A callback and the time it is due."""

    def __init__(self, callback: TimerCallback, waketime: float) -> None:
        self.callback = callback
        self.waketime = waketime
        self.timer_is_running = False


class ReactorCompletion:
    """A result that is not there yet."""

    class sentinel:  # noqa: N801 - klippy's name
        """Stands for "no result yet"."""

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor
        self.result: Any = self.sentinel
        self.waiting: list[Strand] = []

    def test(self) -> bool:
        """Say whether the result is there."""
        return self.result is not self.sentinel

    def complete(self, result: Any) -> None:
        """Set the result and wake everybody who waits for it."""
        self.result = result
        for strand in self.waiting:
            self.reactor.update_timer(strand.timer, self.reactor.NOW)

    def wait(self, waketime: float = _NEVER, waketime_result: Any = None) -> Any:
        """Pause until the result is there, or return `waketime_result` at `waketime`."""
        if self.result is self.sentinel:
            strand = self.reactor.current_strand()
            self.waiting.append(strand)
            self.reactor.pause(waketime)
            self.waiting.remove(strand)
            if self.result is self.sentinel:
                return waketime_result
        return self.result


class ReactorCallback:
    """A timer that runs once and completes with what its callback returned."""

    def __init__(self, reactor: Any, callback: Callable[[float], Any], waketime: float) -> None:
        self.reactor = reactor
        self.callback = callback
        self.timer = reactor.register_timer(self.invoke, waketime)
        self.completion = ReactorCompletion(reactor)

    def invoke(self, eventtime: float) -> float:
        """Run the callback; the timer is gone before it starts."""
        self.reactor.unregister_timer(self.timer)
        self.completion.complete(self.callback(eventtime))
        return _NEVER


class ReactorFileHandler:
    """A file descriptor and who wants to know about it."""

    def __init__(self, fd: int, read_callback: Any, write_callback: Any) -> None:
        self.fd = fd
        self.read_callback = read_callback
        self.write_callback = write_callback


class ReactorMutex:
    """First come, first served. Waiting for it is a pause."""

    def __init__(self, reactor: Any, is_locked: bool) -> None:
        self.reactor = reactor
        self.is_locked = is_locked
        self.next_pending = False
        self.queue: list[Strand] = []
        self.lock = self.__enter__
        self.unlock = self.__exit__

    def test(self) -> bool:
        """Say whether somebody holds it."""
        return self.is_locked

    def __enter__(self) -> None:
        if not self.is_locked:
            self.is_locked = True
            return
        strand = self.reactor.current_strand()
        self.queue.append(strand)
        while not (self.next_pending and self.queue[0] is strand):
            self.reactor.pause(self.reactor.NEVER)
        self.next_pending = False
        self.queue.pop(0)

    def __exit__(self, type: Any = None, value: Any = None, tb: Any = None) -> None:
        if not self.queue:
            self.is_locked = False
            return
        self.next_pending = True
        self.reactor.update_timer(self.queue[0].timer, self.reactor.NOW)


class ReactorPreventPause:
    """While entered, `pause` raises. Nests."""

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor

    def __enter__(self) -> None:
        self.reactor._prevent_pause_count += 1

    def __exit__(self, type: Any = None, value: Any = None, tb: Any = None) -> None:
        self.reactor._prevent_pause_count -= 1
