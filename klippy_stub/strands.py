"""Hand one baton between OS threads, so that code can stop in mid-call and go on later.

klippy uses greenlets for this. They are not in the standard library, and the stub has to run on a
bare Python, so each stack of calls that may stop is a real thread here. Exactly one of them holds
the baton; the others sleep on a lock of their own. Code that never stops never changes threads.
"""

from __future__ import annotations

import threading
from typing import Any, Callable


class StrandExit(BaseException):
    """Raised inside a stopped strand to unwind it, as ``GreenletExit`` is in klippy."""


class Strand:
    """One stack of calls; ``switch`` runs it until it switches elsewhere itself."""

    def __init__(self, world: World, run: Callable[[], None] | None) -> None:
        self.world = world
        self.timer: Any = None
        self._run = run
        self._gate = threading.Lock()
        self._gate.acquire()
        self._value: Any = None
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None
        self.dead = False

    def switch(self, value: Any = None) -> Any:
        """Give the baton to this strand and sleep until somebody gives it back."""
        return self.world.hand_over(self, value, None)

    def throw(self) -> None:
        """Unwind this strand with `StrandExit` and come back when its thread has ended."""
        if self.dead:
            return
        if self._thread is None:
            self.dead = True
            return
        self.world.hand_over(self, None, StrandExit())
        self.join()

    def join(self) -> None:
        """Wait for the thread of a dead strand, so that it is gone from the process too."""
        if self.dead and self._thread is not None:
            self._thread.join()
            self._thread = None

    def _receive(self) -> Any:
        self._gate.acquire()
        value, error = self._value, self._error
        self._value = self._error = None
        if error is not None:
            raise error
        return value

    def _deliver(self, value: Any, error: BaseException | None) -> None:
        self._value, self._error = value, error
        self.world.current = self
        if self._thread is None and self._run is not None:
            self._thread = threading.Thread(target=self._main, name="klippy-strand", daemon=True)
            self._thread.start()
        else:
            self._gate.release()

    def _main(self) -> None:
        assert self._run is not None
        self.world.idents[threading.get_ident()] = self
        error: BaseException | None = None
        try:
            self._run()
        except StrandExit:
            pass
        except BaseException as e:  # noqa: B036 - it is raised again in the root strand
            error = self.world.last_error = e
        self.dead = True
        del self.world.idents[threading.get_ident()]
        self.world.ended.append(self)
        self.world.root._deliver(None, error)


class World:
    """The strands of one reactor. The root is the thread that runs or turns the reactor."""

    def __init__(self) -> None:
        self.idents: dict[int, Strand] = {}
        self.root = Strand(self, None)
        self.current = self.root
        self.last_error: BaseException | None = None
        self.ended: list[Strand] = []

    def enter(self) -> None:
        """Make the calling thread the root."""
        self.idents = {i: s for i, s in self.idents.items() if s is not self.root}
        self.idents[threading.get_ident()] = self.root
        self.current = self.root

    def spawn(self, run: Callable[[], None]) -> Strand:
        """Prepare a strand; its thread starts with the first switch to it."""
        return Strand(self, run)

    def here(self) -> Strand | None:
        """Return the strand that the calling thread is, or None for a foreign thread."""
        return self.idents.get(threading.get_ident())

    def hand_over(self, to: Strand, value: Any, error: BaseException | None) -> Any:
        """Wake `to` and put the calling strand to sleep until it is woken in turn."""
        me = self.current
        to._deliver(value, error)
        try:
            return me._receive()
        finally:
            # A greenlet leaves no thread behind that still gives its memory back, under the locks
            # of malloc, while the next one runs: R1's tests would see that as a wait of theirs.
            while self.ended and me is self.root:
                self.ended.pop().join()
