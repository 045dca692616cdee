"""What the module costs the reactor: shim calls, emergency stop, RESTART, start, lateness."""

from __future__ import annotations

import contextlib
import json
import signal
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from faults import FAULTS, NAME, NONE, Fault
from printers import Printer, PrinterError, PrinterTimeoutError
from setups import (
    COMMUNITY,
    LATENESS,
    OURS,
    PLAIN,
    SHIMCLOCK,
    Bench,
    set_target,
    stop,
    wait_connected,
)
from shimclock import PERIODIC
from simulated import Simulated
from table import Row, percentile

Samples = dict[str, list[list[float]]]
GIVE_UP = 45.0  # s; the community module does not end at all under some faults
SETTLE = 1.0  # s between the begin of a fault and what is measured under it


def shim(bench: Bench) -> Iterator[Row]:
    """What one call of our module costs the reactor's thread, under every fault.

    [shimclock] calls the entry points every 5 ms and changes the target every 20 ms, for 20 s per
    fault; RESTART, then an emergency stop add the event handlers. Voluntary context switches are
    the thread's own count (RUSAGE_THREAD): a call that waited for anything would show there,
    however busy the machine is. CPU is the thread's own, so it includes nobody else's either, but
    interrupts and cold caches; a call's figure contains about 1 us of the clock itself.
    """
    calls: dict[str, list[list[float]]] = {}
    handlers: list[list[float]] = []
    waited: list[str] = []
    console = 0.0
    for fault in (NONE, *FAULTS):
        obstacle = fault.obstacle(bench.folder)
        if obstacle:
            yield Row(f"shim call: CPU p99.9, {fault.name}", "us", skipped=obstacle)
            continue
        calls[fault.name] = []
        tails: dict[str, float] = {}
        for run in _shim_calls(bench, fault):
            console += sum(sample[0] for sample in run.pop("respond_info"))
            for name, samples in run.items():
                if name in PERIODIC:
                    calls[fault.name] += samples
                    tail = percentile([sample[1] * 1e6 for sample in samples], 0.999)
                    tails[name] = max(tail, tails.get(name, 0.0))
                else:
                    handlers += samples
                switches = sum(sample[0] for sample in samples)
                if switches:
                    waited.append(f"{name} {switches:g}x ({fault.name})")
        cpu = [sample[1] * 1e6 for sample in calls[fault.name]]
        worst = max(tails, key=lambda name: tails[name])
        yield Row(
            f"shim call: CPU p99.9, {fault.name}",
            "us",
            value=percentile(cpu, 0.999),
            goal=100,
            note=f"{len(cpu)} calls, median {statistics.median(cpu):.1f}, max {max(cpu):.0f}, "
            f"worst {worst}",
        )
    cpu = [sample[1] * 1e6 for samples in calls.values() for sample in samples]
    each = [percentile([s[1] * 1e6 for s in samples], 0.999) for samples in calls.values()]
    every = [sample for samples in calls.values() for sample in samples] + handlers
    yield Row(
        "shim call: CPU p99.9, all faults", "us", each, value=percentile(cpu, 0.999), goal=100
    )
    own = [(sample[1] - sample[3]) * 1e6 for samples in calls.values() for sample in samples]
    yield Row(
        "shim call: CPU p99.9, all faults, less respond_info", "us", value=percentile(own, 0.999)
    )
    yield Row("shim call: CPU max, all faults", "us", value=max(cpu))
    yield Row(
        "shim handlers (connect, ready, shutdown, disconnect): CPU",
        "us",
        [sample[1] * 1e6 for sample in handlers],
        note=f"{len(handlers)} calls",
    )
    yield Row(
        "shim calls and handlers: voluntary context switches",
        "count",
        value=sum(sample[0] for sample in every),
        goal=0,
        note=", ".join([f"{len(every)} calls", *waited])
        + (f"; {console:g} of them inside Klipper's respond_info" if waited else ""),
    )


def stops(bench: Bench) -> Iterator[Row]:
    """Emergency stop, restarts and start under each fault, and how much longer than without us.

    Emergency stop: from the request on the API socket to its answer. The others: until `info` says
    ready, looked at every 10 ms. Plain Klipper and each fault take turns in every round. The spread
    of a difference is that of our times against the median of plain Klipper's.
    """
    times: dict[tuple[str, str], _Times] = {}
    obstacles = {fault.name: fault.obstacle(bench.folder) for fault in FAULTS}
    # The community module needs minutes for some faults.
    rounds = {PLAIN: bench.pick(6, 2), OURS: bench.pick(6, 2), COMMUNITY: 1}
    for turn in range(max(rounds.values())):
        for kind in bench.kinds:
            if turn >= rounds[kind]:
                continue
            for fault in (NONE, *FAULTS) if kind != PLAIN else (NONE,):
                if not obstacles.get(fault.name):
                    found = times.setdefault((kind, fault.name), _Times())
                    _time_stops(bench, kind, fault, found)
    plain = times[PLAIN, NONE.name]
    for what, goal in GOALS.items():
        base = plain.of[what]
        yield Row(f"{what}, plain", "ms", base)
        for fault in (NONE, *FAULTS):
            obstacle = obstacles.get(fault.name, "")
            if obstacle:
                yield Row(f"{what}, {fault.name}: more than plain", "ms", skipped=obstacle)
                continue
            for kind in bench.rivals:
                found = times[kind, fault.name]
                more = [taken - statistics.median(base) for taken in found.of[what]]
                whose = "" if kind == OURS else f" ({kind})"
                yield Row(
                    f"{what}, {fault.name}: more than plain{whose}",
                    "ms",
                    more,
                    goal=goal if kind == OURS else None,
                    note=found.notes.get(what, ""),
                )


def lateness(bench: Bench) -> Iterator[Row]:
    """How late the reactor runs a 10 ms timer while the device heats; all setups at once."""
    with contextlib.ExitStack() as stack:
        printers = {}
        for kind in bench.kinds:
            device = stack.enter_context(Simulated(bench.folder))
            config = bench.config(kind, device.port, extra="\n[lateness]\n")
            printer = bench.printer(kind, config, [LATENESS])
            printers[kind] = stack.enter_context(printer)
            wait_connected(kind, printer, device)
            if kind != PLAIN:
                set_target(printer, 45)
        for printer in printers.values():
            printer.gcode("LATENESS_RESET")
        time.sleep(bench.pick(60, 8))
        for kind, printer in printers.items():
            status = printer.query({"lateness": None})["lateness"]
            note = f"{status['ticks']} ticks, worst {status['worst'] * 1e3:.1f} ms"
            yield Row(f"reactor lateness p99, {kind}", "ms", value=status["p99"] * 1e3, note=note)


GOALS = {"emergency stop": 1.0, "RESTART": 50.0, "FIRMWARE_RESTART": 50.0, "start": 50.0}


@dataclass
class _Times:
    """Milliseconds, by what was done."""

    of: dict[str, list[float]] = field(default_factory=lambda: {what: [] for what in GOALS})
    notes: dict[str, str] = field(default_factory=dict)

    @contextlib.contextmanager
    def measure(self, what: str) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        except PrinterTimeoutError:
            self.notes[what] = f"gave up after {GIVE_UP:g} s"
            self.of[what].append((time.monotonic() - began) * 1e3)
            raise
        except PrinterError as error:
            # A host-process MCU sometimes comes back from its reset still shut down.
            self.notes[what] = "once at least: " + str(error).splitlines()[0]
            raise
        self.of[what].append((time.monotonic() - began) * 1e3)


def _time_stops(bench: Bench, kind: str, fault: Fault, times: _Times) -> None:
    with Simulated(bench.folder) as device:
        host = NAME if fault.name_server else "127.0.0.1"
        printer = bench.printer(
            kind, bench.config(kind, device.port, host), prefix=fault.prefix(bench.folder)
        )
        begun = False
        try:
            if not fault.name_server:
                printer.start(GIVE_UP)
                wait_connected(kind, printer, device)
                fault.begin(device)
                begun = True
                time.sleep(SETTLE)
                _stop_and_restart(printer, times)
                printer.signal(signal.SIGKILL)
                printer.wait_exit()
            with times.measure("start"):
                printer.launch()
                printer.wait_ready(GIVE_UP)
            if fault.name_server:
                time.sleep(SETTLE)
                _stop_and_restart(printer, times)
        except PrinterError:
            if not times.notes:
                raise
        finally:
            if begun:
                fault.end(device)
            stop(printer)


def _stop_and_restart(printer: Printer, times: _Times) -> None:
    with times.measure("emergency stop"):
        printer.emergency_stop(GIVE_UP)
    with times.measure("FIRMWARE_RESTART"):
        printer.restart("FIRMWARE_RESTART", GIVE_UP)
    time.sleep(SETTLE)
    with times.measure("RESTART"):
        printer.restart("RESTART", GIVE_UP)


def _shim_calls(bench: Bench, fault: Fault) -> list[Samples]:
    file = bench.folder / f"shimclock-{fault.name.replace(' ', '-')}.json"
    with Simulated(bench.folder) as device:
        host = NAME if fault.name_server else "127.0.0.1"
        extra = f"\n[shimclock]\nfile: {file}\n"
        config = bench.config(OURS, device.port, host, extra)
        printer = bench.printer(OURS, config, [SHIMCLOCK], fault.prefix(bench.folder))
        try:
            printer.start()
            if not fault.name_server:
                wait_connected(OURS, printer, device)
            fault.begin(device)
            time.sleep(bench.pick(20, 4))
            printer.restart()
            time.sleep(SETTLE)
            printer.emergency_stop()
            printer.restart("FIRMWARE_RESTART")  # for what was counted until then
        finally:
            fault.end(device)
            printer.close()
    return _read(file)


def _read(file: Path) -> list[Samples]:
    return [json.loads(line) for line in file.read_text().splitlines()]
