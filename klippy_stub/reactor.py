"""Timers, callbacks, completions and mutexes in the manner of klippy/reactor.py.

Faithful where a plugin can tell: timers that are due run in the order they were registered; a
timer that is running cannot be moved by `update_timer`, only by its own return value; a callback
that pauses lets everything else run; `pause` under `assert_no_pause` raises `ReactorError`; and
`pause` while the reactor is not running is a plain sleep in which nothing else happens.
"""

from __future__ import annotations

import collections
import contextlib
import logging
import os
import select
from typing import Any, Callable, Union

from .clock import ManualClock, RealClock
from .strands import Strand, World
from .waiting import (
    _NEVER,
    ReactorCallback,
    ReactorCompletion,
    ReactorError,
    ReactorFileHandler,
    ReactorMutex,
    ReactorPreventPause,
    ReactorTimer,
    TimerCallback,
)

logger = logging.getLogger(__name__)

_NOW = 0.0
_READ, _WRITE = select.POLLIN | select.POLLHUP, select.POLLOUT

Clock = Union[RealClock, ManualClock]


class Reactor:
    """The event loop of one printer."""

    NOW = _NOW
    NEVER = _NEVER

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock: Clock = RealClock() if clock is None else clock
        self.monotonic = self.clock.monotonic
        self._process = False
        self._timers: list[ReactorTimer] = []
        self._next_timer = self.NEVER
        self._prevent_pause_count = 0
        self._poll = select.poll()
        self._fds: dict[int, ReactorFileHandler] = {}
        self._async: collections.deque[tuple[Callable[..., Any], tuple[Any, ...]]] = (
            collections.deque()
        )
        self._pipe: tuple[int, int] | None = None
        self._world = World()
        self._dispatcher: Strand | None = None
        self._idle_strands: list[Strand] = []
        self._all_strands: list[Strand] = []
        self._until: Callable[[], bool] | None = None
        self._until_time = self.NEVER

    # Timers
    def register_timer(self, callback: TimerCallback, waketime: float = _NEVER) -> ReactorTimer:
        """Call `callback(eventtime)` at `waketime`; it returns its next time."""
        timer = ReactorTimer(callback, waketime)
        self._timers = [*self._timers, timer]
        self._next_timer = min(self._next_timer, waketime)
        return timer

    def update_timer(self, timer_handler: ReactorTimer, waketime: float) -> None:
        """Move a timer; one that is running right now keeps its own counsel."""
        if timer_handler.timer_is_running:
            return
        timer_handler.waketime = waketime
        self._next_timer = min(self._next_timer, waketime)

    def unregister_timer(self, timer_handler: ReactorTimer) -> None:
        """Forget a timer; ValueError if it is not registered, as in klippy."""
        timer_handler.waketime = self.NEVER
        timers = list(self._timers)
        timers.remove(timer_handler)
        self._timers = timers

    # Callbacks
    def completion(self) -> ReactorCompletion:
        """Return an empty completion."""
        return ReactorCompletion(self)

    def register_callback(
        self, callback: Callable[[float], Any], waketime: float = _NOW
    ) -> ReactorCompletion:
        """Run `callback(eventtime)` once, in a place where it may pause."""
        return ReactorCallback(self, callback, waketime).completion

    def register_async_callback(
        self, callback: Callable[[float], Any], waketime: float = _NOW
    ) -> None:
        """Like `register_callback`, from any thread."""
        self._async.append((ReactorCallback, (self, callback, waketime)))
        self._kick()

    def async_complete(self, completion: ReactorCompletion, result: Any) -> None:
        """Complete from any thread."""
        self._async.append((completion.complete, (result,)))
        self._kick()

    def _kick(self) -> None:
        if self._pipe is not None:
            with contextlib.suppress(OSError):
                os.write(self._pipe[1], b".")

    def _drain_async(self, eventtime: float) -> None:
        if self._pipe is not None:
            with contextlib.suppress(OSError):
                os.read(self._pipe[0], 4096)
        while self._async:
            func, args = self._async.popleft()
            func(*args)

    # Pausing
    def current_strand(self) -> Strand:
        """Return the calling strand; a foreign thread has no business here."""
        strand = self._world.here()
        if strand is None:
            raise ReactorError("Internal error - reactor used from a foreign thread")
        return strand

    def pause(self, waketime: float) -> float:
        """Let others run until `waketime`; returns the time it went on."""
        if self._dispatcher is None:
            self.clock.sleep_until(waketime)
            return self.monotonic()
        self.verify_can_pause()
        strand = self.current_strand()
        if strand is not self._dispatcher:
            # It was resumed by a timer of its own; going back there is that timer's return value
            return float(self._dispatcher.switch(waketime))
        strand.timer = self.register_timer(strand.switch, waketime)
        self._next_timer = self.NOW
        idle = self._idle_strands
        return float(idle.pop().switch() if idle else self._world.root.switch())

    def _retire(self, old: Strand) -> None:
        """The callback that paused has ended: keep its strand for the next one that pauses."""
        assert self._dispatcher is not None
        self.unregister_timer(old.timer)
        old.timer = None
        self._idle_strands.append(old)
        self._dispatcher.switch(self.NEVER)
        self._dispatcher = old

    def assert_no_pause(self) -> ReactorPreventPause:
        """Return a context in which `pause` raises."""
        return ReactorPreventPause(self)

    def verify_can_pause(self) -> None:
        """Raise if pausing is forbidden right now."""
        if self._prevent_pause_count:
            raise ReactorError("Internal error - reactor pause disabled")

    def call_without_pausing(self, func: Callable[[], Any]) -> Any:
        """Call `func` from outside as status queries are called inside: a pause raises."""
        outside = self._dispatcher is None
        if outside:
            self._dispatcher = self._world.root
        try:
            with self.assert_no_pause():
                return func()
        finally:
            if outside:
                self._dispatcher = None

    def mutex(self, is_locked: bool = False) -> ReactorMutex:
        """Return a mutex."""
        return ReactorMutex(self, is_locked)

    # File descriptors
    def register_fd(
        self, fd: int, read_callback: Any, write_callback: Any = None
    ) -> ReactorFileHandler:
        """Call `read_callback(eventtime)` whenever `fd` can be read."""
        handler = ReactorFileHandler(fd, read_callback, write_callback)
        self._fds[fd] = handler
        self._poll.register(fd, _READ)
        return handler

    def unregister_fd(self, file_handler: ReactorFileHandler) -> None:
        """Stop looking at it."""
        self._poll.unregister(file_handler.fd)
        del self._fds[file_handler.fd]

    def set_fd_wake(
        self,
        file_handler: ReactorFileHandler,
        is_readable: bool = True,
        is_writeable: bool = False,
    ) -> None:
        """Say which of the two callbacks are wanted."""
        flags = select.POLLHUP
        flags |= select.POLLIN if is_readable else 0
        flags |= select.POLLOUT if is_writeable else 0
        self._poll.modify(file_handler.fd, flags)

    # The loop
    def _check_timers(self, eventtime: float) -> None:
        self._next_timer = self.NEVER
        me = self._dispatcher
        for timer in self._timers:
            if eventtime >= timer.waketime:
                timer.waketime = self.NEVER
                timer.timer_is_running = True
                timer.waketime = timer.callback(eventtime)
                timer.timer_is_running = False
                if me is not self._dispatcher:
                    assert me is not None
                    self._next_timer = min(self._next_timer, timer.waketime)
                    self._retire(me)
                    return
            self._next_timer = min(self._next_timer, timer.waketime)

    def _check_fds(self, timeout: float) -> bool:
        """Wait for file events and dispatch them; True if there were any."""
        events = self._poll.poll(int(timeout * 1000.0 + 0.999))
        me = self._dispatcher
        now = self.monotonic()
        for fd, event in events:
            for mask, name in ((_READ, "read_callback"), (_WRITE, "write_callback")):
                handler = self._fds.get(fd)
                if handler is None or not event & mask:
                    continue
                getattr(handler, name)(now)
                if me is not self._dispatcher:
                    assert me is not None
                    self._retire(me)
                    return True
        return bool(events)

    def _idle_time(self) -> float:
        """Return how long to sleep; a manual clock is moved instead."""
        now = self.monotonic()
        wake = min(self._next_timer, self._until_time)
        if isinstance(self.clock, ManualClock):
            if not self._async:
                self.clock.now = max(now, min(wake, now + 1.0))
            return 0.0
        longest = 1.0 if self._until is None else 0.005
        return min(longest, max(0.001, wake - now))

    def _dispatch_loop(self) -> None:
        busy = True
        while self._process:
            if self._until is not None and self._until():
                self._process = False
                break
            if not busy and self.monotonic() >= self._until_time:
                self._process = False
                break
            timeout = 0.0 if busy else self._idle_time()
            busy = self._check_fds(timeout)
            if self._async:
                self._drain_async(self.monotonic())
                busy = True
            eventtime = self.monotonic()
            if eventtime >= self._next_timer:
                busy = True
                self._check_timers(eventtime)

    def run(self) -> None:
        """Run until `end` is called."""
        if self._pipe is None:
            self._pipe = os.pipe()
            os.set_blocking(self._pipe[0], False)
            os.set_blocking(self._pipe[1], False)
            self.register_fd(self._pipe[0], self._drain_async)
        self._world.enter()
        self._process = True
        self._prevent_pause_count = 0
        try:
            while self._process:
                # Here once at the start, and again whenever a pause finds no idle strand
                strand = self._world.spawn(self._dispatch_loop)
                self._all_strands.append(strand)
                self._dispatcher = strand
                strand.switch()
        finally:
            self._dispatcher = None
            for strand in self._all_strands:
                strand.join()
            self._all_strands = [s for s in self._all_strands if not s.dead]

    def run_until(self, predicate: Callable[[], bool] | None, limit: float) -> bool:
        """Run until `predicate()` holds or `limit` seconds of this clock have passed.

        Calls that are paused stay paused, and go on in the next `run_until`.
        """
        self._until, self._until_time = predicate, self.monotonic() + limit
        try:
            self.run()
        finally:
            self._until, self._until_time = None, self.NEVER
        return True if predicate is None else bool(predicate())

    def advance(self, seconds: float) -> None:
        """Run everything that is due in the next `seconds`, each thing at its exact time."""
        self.run_until(None, seconds)

    def end(self) -> None:
        """Make `run` return."""
        self._process = False

    def came_from_inside(self, error: BaseException) -> bool:
        """Say whether a callback raised it, and not whoever runs the reactor."""
        return error is self._world.last_error

    def finalize(self) -> None:
        """Unwind what is still paused and give back threads and descriptors."""
        self._dispatcher = None
        self._idle_strands = []
        self._world.enter()
        for strand in self._all_strands:
            try:
                strand.throw()
            except BaseException:  # noqa: B036 - the others still have to end
                logger.exception("reactor finalize strand terminate")
        self._all_strands = []
        if self._pipe is not None:
            os.close(self._pipe[0])
            os.close(self._pipe[1])
            self._pipe = None
