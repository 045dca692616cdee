"""CPU and memory under load: a flood, a thousand devices, an hour of heating."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import processes
from printers import Printer
from setups import COMMUNITY, LOCAL, OURS, PLAIN, SHIMCLOCK, Bench, set_target, wait_connected
from simulated import Simulated, environment, happens
from table import Row

MIB = 1024 * 1024
RATE = 10_000
DEVICES = 1_000
THOUSAND = Path(__file__).with_name("thousand.py")


def flood(bench: Bench) -> Iterator[Row]:
    """10,000 reports per second: CPU of klippy's process, and whether its memory stays.

    Nanoseconds of CPU from schedstat, over the flood without its first and last 2 s. The setups
    take turns. RSS is read after these 2 s and again at the end.
    """
    seconds = bench.pick(60, 10)
    total: dict[str, list[float]] = {kind: [] for kind in bench.rivals}
    driver: list[float] = []
    grown: dict[str, list[float]] = {kind: [] for kind in bench.rivals}
    rates: list[float] = []
    for _ in range(bench.pick(2, 1)):
        for kind in bench.rivals:
            with Simulated(bench.folder) as device:
                extra = "\n[shimclock]\nperiod: 0\n" if kind == OURS else ""
                config = bench.config(kind, device.port, extra=extra)
                with bench.printer(kind, config, [SHIMCLOCK] if kind == OURS else []) as printer:
                    wait_connected(kind, printer, device)
                    time.sleep(3)
                    device.inject(f"flood {RATE} {seconds}")
                    time.sleep(2)
                    before = processes.cpu(printer.pid)
                    memory = processes.memory(printer.pid).rss
                    readings = _readings(printer, kind)
                    time.sleep(seconds - 4)
                    after = processes.cpu(printer.pid)
                    grown[kind].append((processes.memory(printer.pid).rss - memory) / MIB)
                    if kind == OURS:
                        rate = (_readings(printer, kind) - readings) / (after.at - before.at)
                        rates.append(rate)
                    whole, thread = processes.share(before, after)
                    total[kind].append(whole)
                    if kind == OURS:
                        driver.append(thread)
    yield Row("flood: CPU of klippy", "% core", total[OURS], goal=7)
    yield Row("flood: CPU of the driver's thread", "% core", driver)
    yield Row("flood: readings taken per second", "1/s", rates)
    yield Row("flood: RSS growth", "MiB", grown[OURS], goal=0.5)
    if bench.anchor:
        yield Row(f"flood: CPU of klippy ({COMMUNITY})", "% core", total[COMMUNITY])
        ratios = [ours / theirs for ours, theirs in zip(total[OURS], total[COMMUNITY])]
        yield Row(f"flood: CPU, ours / {COMMUNITY}", "ratio", ratios, goal=0.6)
        yield Row(f"flood: RSS growth ({COMMUNITY})", "MiB", grown[COMMUNITY])


def thousand(bench: Bench) -> Iterator[Row]:
    """1,000 devices in one process: a script without klippy opens them and drains each at 1 Hz.

    Measured once each is known to be off, so without the connections of the first seconds. `drop`
    resets all of them at once; the simulator's log says when the last is open again.
    """
    count = DEVICES
    with (
        Simulated(bench.folder, count=count) as device,
        _Drainer(bench, device.port, count) as drainer,
    ):
        base = drainer.next()["rss"]
        deadline = time.monotonic() + 60
        while drainer.next()["off_known"] < count and time.monotonic() < deadline:
            pass
        time.sleep(3)
        names = processes.threads(drainer.pid)
        yield Row(
            "1,000 devices: driver threads", "count", value=names.count(processes.DRIVER), goal=1
        )
        rss = processes.memory(drainer.pid).rss
        yield Row("1,000 devices: RSS growth", "MiB", value=(rss - base) / MIB, goal=32)
        whole, thread = _shares(drainer.pid, bench.pick(3, 1), bench.pick(20, 8))
        yield Row("1,000 devices: CPU of the driver's thread", "% core", thread, goal=8)
        yield Row("1,000 devices: CPU with draining in Python", "% core", whole)
        start = device.look()
        device.inject("drop")
        gone = device.wait(happens("inject", 0), 10, start)
        assert gone is not None
        back: dict[int, float] = {}
        deadline = time.monotonic() + 30
        while len(back) < count and time.monotonic() < deadline:
            time.sleep(0.1)
            for event in device.events[start : device.look()]:
                if event["event"] == "open":
                    back.setdefault(event["device"], event["t"] - gone["t"])
        note = "" if len(back) == count else f"{count - len(back)} not in 30 s"
        taken = list(back.values())
        yield Row(
            "1,000 devices: all connected again, max", "s", taken, value=max(taken), note=note
        )
        drainer.heat()
        time.sleep(10)
        _, thread = _shares(drainer.pid, 1, bench.pick(60, 8))
        yield Row("1,000 devices heating: CPU of the driver's thread", "% core", thread)


def heating(bench: Bench) -> Iterator[Row]:
    """CPU of klippy with one device that heats and reports at 2 Hz, against plain Klipper.

    All setups run at the same time and are measured over the same windows, so that they share
    whatever the machine does; per hour by multiplication. Klipper itself does more while any heater
    is on (control, verify_heater, a line of statistics in the log each second): the difference to
    "plain with a heater" is the module's own.
    """
    window = bench.pick(60, 15)
    per_hour: dict[str, list[float]] = {kind: [] for kind in (*bench.kinds, LOCAL)}
    driver: list[float] = []
    with contextlib.ExitStack() as stack:
        pids = {}
        for kind in per_hour:
            device = stack.enter_context(Simulated(bench.folder))
            printer = bench.printer(kind, bench.config(kind, device.port))
            stack.enter_context(printer)
            if kind != PLAIN:
                wait_connected(kind, printer, device)
                set_target(printer, 60)
            pids[kind] = printer.pid
        time.sleep(bench.pick(20, 5))
        for _ in range(bench.pick(5, 2)):
            before = {kind: processes.cpu(pid) for kind, pid in pids.items()}
            time.sleep(window)
            for kind, pid in pids.items():
                after = processes.cpu(pid)
                scale = 3600 / (after.at - before[kind].at)
                per_hour[kind].append((after.total - before[kind].total) * scale)
                if kind == OURS:
                    driver.append((after.driver - before[kind].driver) * scale)
    for base, goal in ((PLAIN, 0.5), (LOCAL, None)):
        for kind in bench.rivals:
            whose = "" if kind == OURS else f" ({kind})"
            more = [mine - theirs for mine, theirs in zip(per_hour[kind], per_hour[base])]
            name = f"heating: CPU per hour more than {base}{whose}"
            yield Row(name, "s", more, goal=goal if kind == OURS else None)
    yield Row("heating: CPU per hour of the driver's thread", "s", driver)
    for kind in (PLAIN, LOCAL):
        yield Row(f"heating: CPU per hour, {kind}", "s", per_hour[kind])


class _Drainer:
    """The process with a thousand devices; it reports once per second."""

    def __init__(self, bench: Bench, port: int, count: int) -> None:
        command = [sys.executable, str(THOUSAND), str(port), str(count)]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env=environment(bench.folder),
        )

    @property
    def pid(self) -> int:
        return self.process.pid

    def next(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        report: dict[str, Any] = json.loads(self.process.stdout.readline())
        return report

    def heat(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("heat\n")
        self.process.stdin.flush()

    def __enter__(self) -> _Drainer:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


def _shares(pid: int, windows: int, seconds: float) -> tuple[list[float], list[float]]:
    shares = []
    for _ in range(windows):
        before = processes.cpu(pid)
        time.sleep(seconds)
        shares.append(processes.share(before, processes.cpu(pid)))
    return [whole for whole, _ in shares], [thread for _, thread in shares]


def _readings(printer: Printer, kind: str) -> int:
    if kind != OURS:
        return 0
    return int(printer.query({"shimclock": ["readings"]})["shimclock"]["readings"])
