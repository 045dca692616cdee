"""Look after many devices and drain each once per second: `many.py PORT[,PORT...]`, no klippy.

One JSON line on stdout before the first is opened, and one per second from then on. On stdin: the
line `heat` makes it want heat of all; `change SECONDS GAP` sets another target every GAP seconds,
device by device, on and off in turn. When that is over, the line's `changes` says what was wanted
of which device, and when (CLOCK_MONOTONIC), just before it was said.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import select
import sys
import time
from typing import Any, Callable

import panda_breath_native as native
import processes

PARTS = 10  # a thousand timers would spread by themselves


class Many:
    def __init__(self, ports: list[int]) -> None:
        self.devices = [_open(n, port) for n, port in enumerate(ports)]
        self.acks = [device.drain(0.0, True, 0).forced_offs for device in self.devices]
        self.targets = [0.0] * len(ports)
        self.hot = [50.0] * len(ports)
        self.changes: list[tuple[int, float, float]] = []
        self.gap = 0.0  # s
        self.next_change = self.last_change = 0.0
        self.next_device = 0

    def run(self) -> None:
        due = time.monotonic()
        while True:
            said = {"off_known": 0, "readings": 0, "reconnects": 0, "connected": 0, "ignored": 0}
            for part in range(PARTS):
                for n in range(part, len(self.devices), PARTS):
                    state = self.devices[n].drain(self.targets[n], True, self.acks[n])
                    self.acks[n] = state.forced_offs
                    said["off_known"] += state.off_known
                    said["readings"] += state.reading_number
                    said["reconnects"] += state.reconnects
                    said["connected"] += state.link == "connected"
                    said["ignored"] += state.ignored
                due += 1.0 / PARTS
                self._pass(due)
            over = self.changes and not self.gap
            changes = self.changes if over else []
            _say({"t": time.monotonic(), **said, **_heap(), "changes": changes})
            if over:
                self.changes = []

    def _pass(self, due: float) -> None:
        """What else there is to do until then."""
        while (now := time.monotonic()) < due:
            if self.gap and now >= self.next_change:
                self._change()
                continue
            until = min(due, self.next_change) if self.gap else due
            if select.select([sys.stdin], [], [], until - now)[0]:
                self._obey(*sys.stdin.readline().split())

    def _obey(self, word: str = "", *arguments: str) -> None:
        if word == "heat":
            self.targets = [45.0] * len(self.devices)
        elif word == "change":
            seconds, self.gap = map(float, arguments)
            self.next_change = time.monotonic()
            self.last_change = self.next_change + seconds
        else:
            sys.exit()  # whoever asked is gone

    def _change(self) -> None:
        n = self.next_device
        self.next_device = (n + 1) % len(self.devices)
        # Off and one of two targets in turn, so that a late frame is not taken for the next one's.
        on = not self.targets[n]
        if on:
            self.hot[n] = 95.0 - self.hot[n]
        target = self.targets[n] = self.hot[n] if on else 0.0
        at = time.monotonic()
        self.devices[n].want(target, True, self.acks[n])
        self.changes.append((n, target, at))
        self.next_change += self.gap
        if self.next_change >= self.last_change:
            self.gap = 0.0


class _Mallinfo2(ctypes.Structure):
    # In the order of malloc.h.
    _fields_ = [(f"field{n}", ctypes.c_size_t) for n in range(10)]

    @property
    def given_out(self) -> int:
        hblkhd, uordblks = self.field4, self.field7
        return int(hblkhd + uordblks)


def _heap() -> dict[str, int]:
    """Bytes that malloc has given out in all threads, and what allocations.c has counted."""
    found = {}
    if _mallinfo2 is not None:
        found["heap"] = _mallinfo2().given_out
    if _count is not None:
        found["allocations"] = _count.value
    return found


def _find_mallinfo2() -> Callable[[], Any] | None:
    function = getattr(ctypes.CDLL(None), "mallinfo2", None)  # glibc 2.33
    if function is not None:
        function.restype = _Mallinfo2
    return function


def _find_count() -> ctypes.c_ulong | None:
    try:
        return ctypes.c_ulong.in_dll(ctypes.CDLL(None), "panda_breath_allocations")
    except ValueError:
        return None


_mallinfo2 = _find_mallinfo2()
_count = _find_count()


def main() -> None:
    ports = [int(port) for port in sys.argv[1].split(",")]
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    _say({"rss": processes.memory(os.getpid()).rss})
    Many(ports).run()


def _open(number: int, port: int) -> native.Device:
    return native.Device(
        name=f"d{number}",
        host="127.0.0.1",
        port=port,
        device_id=None,
        max_target=60,
        stale_after=7.0,
        lost_after=120.0,
        lease=10.0,
        on_external_off="accept",
        on_external_on="off",
    )


def _say(what: dict[str, Any]) -> None:
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    main()
