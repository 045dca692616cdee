"""What the kernel counts about a process."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

DRIVER = "panda_breath"  # the name of the wheel's thread
TICK = os.sysconf("SC_CLK_TCK")


@dataclass
class Cpu:
    """CPU time so far, in seconds, and when that was."""

    at: float
    total: float
    driver: float


def cpu(pid: int) -> Cpu:
    """The time of all threads that live, and of the driver's among them.

    From schedstat, which counts nanoseconds; from stat, which counts ticks of 10 ms, where the
    kernel was built without it.
    """
    total = driver = 0.0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # ended meanwhile
            used = _thread_cpu(task)
            total += used
            if _name(task) == DRIVER:
                driver += used
    return Cpu(time.monotonic(), total, driver)


def share(before: Cpu, after: Cpu) -> tuple[float, float]:
    """Percent of one core: the whole process, the driver's thread."""
    elapsed = (after.at - before.at) / 100.0
    return (after.total - before.total) / elapsed, (after.driver - before.driver) / elapsed


def threads(pid: int) -> list[str]:
    """The names of its threads."""
    return [_name(task) for task in Path(f"/proc/{pid}/task").iterdir()]


@dataclass
class Memory:
    """Bytes."""

    rss: float
    pss: float
    private_dirty: float


def memory(pid: int) -> Memory:
    fields = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, value, *_ = line.split()
        fields[name.rstrip(":")] = float(value) * 1024
    return Memory(fields["Rss"], fields["Pss"], fields["Private_Dirty"])


def maps(pid: int) -> str:
    return Path(f"/proc/{pid}/maps").read_text()


def _name(task: Path) -> str:
    return (task / "comm").read_text().strip()


def _thread_cpu(task: Path) -> float:
    try:
        return int((task / "schedstat").read_text().split()[0]) / 1e9
    except FileNotFoundError:
        fields = (task / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICK
