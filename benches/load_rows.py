"""CPU and memory under load: a flood, an hour of heating."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Iterator

import processes
from children import Child
from printers import Printer
from setups import COMMUNITY, LOCAL, OURS, PLAIN, SHIMCLOCK, Bench, set_target, wait_connected
from simulated import Simulated, happens
from table import Row

MIB = 1024 * 1024
RATE = 10_000


def flood(bench: Bench) -> Iterator[Row]:
    """10,000 reports per second: CPU of klippy's process, and whether its memory stays.

    Nanoseconds of CPU from schedstat, over the flood without its first and last 2 s. The setups
    take turns. RSS is read after these 2 s and again at the end.

    The floor is a Python loop that receives the same reports from the same simulator and does
    nothing with them (bare.py): one recv() per wake-up, almost all of it the kernel's.
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
    floor = _bare_flood(bench, bench.pick(20, 8))
    yield Row("flood: CPU of a bare recv() loop, the floor", "% core", floor)
    ratios = [cpu / statistics.median(floor) for cpu in driver]
    yield Row("flood: CPU, the driver's thread / floor", "ratio", ratios)
    yield Row("flood: readings taken per second", "1/s", rates, more_is_better=True)
    yield Row("flood: RSS growth", "MiB", grown[OURS], goal=0.5)
    if bench.anchor:
        yield Row(f"flood: CPU of klippy ({COMMUNITY})", "% core", total[COMMUNITY])
        ratios = [ours / theirs for ours, theirs in zip(total[OURS], total[COMMUNITY])]
        yield Row(f"flood: CPU, ours / {COMMUNITY}", "ratio", ratios, goal=0.6)
        yield Row(f"flood: RSS growth ({COMMUNITY})", "MiB", grown[COMMUNITY])


def _bare_flood(bench: Bench, seconds: int) -> list[float]:
    with (
        Simulated(bench.folder) as device,
        Child(bench, "bare.py", "ws", str(device.port)) as bare,
    ):
        device.wait(happens("open"), 10)
        device.inject(f"flood {RATE} {seconds}")
        time.sleep(2)
        shares = []
        for _ in range(2):
            before = processes.cpu(bare.pid)
            time.sleep((seconds - 4) / 2)
            shares.append(processes.share(before, processes.cpu(bare.pid))[0])
        return shares


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


def _readings(printer: Printer, kind: str) -> int:
    if kind != OURS:
        return 0
    return int(printer.query({"shimclock": ["readings"]})["shimclock"]["readings"])
