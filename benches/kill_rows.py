"""However klippy ends: how long the heater stays on."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

from killing import PHASES, SIGNALS, guard_of, heat, is_alive, kill_at
from printers import Printer
from setups import OURS, PLAIN, Bench, stop, wait_connected
from simulated import Simulated, SimulatorError
from simulator import Simulator, wait_for
from table import Row, percentile


def kill(bench: Bench) -> Iterator[Row]:
    """Klippy killed while it heats, by each signal in each phase in turn.

    From just before the kill to the simulator's own `heater: false`, both with CLOCK_MONOTONIC. The
    simulated device switches its element four times per second, as it reads its sensors, so that
    an off takes 0 to 250 ms to get there. Where a RESTART had turned it off already the time is 0.
    """
    times: dict[str, list[float]] = {name: [] for name in SIGNALS}
    phases = list(PHASES)
    by_phase: dict[str, list[float]] = {}
    for turn in range(bench.pick(50, 7)):
        for name in SIGNALS:
            phase = phases[turn % len(phases)]
            folder = bench.folder / f"kill-{name}-{turn}"
            with Simulator(folder) as simulator:
                printer = bench.printer(OURS, simulator.section() + "[pause_resume]\n")
                try:
                    printer.start()
                    _wait_live(printer)
                    guard_of(printer)
                    heat(printer, simulator)
                    taken = kill_at(printer, simulator, phase, name, bench.random)
                    times[name].append(taken)
                    by_phase.setdefault(phase, []).append(taken)
                finally:
                    stop(printer)
    for name in SIGNALS:
        yield Row(f"{name} to heater off", "s", times[name], goal=1, note=f"{len(phases)} phases")
    for phase, some in by_phase.items():
        yield Row(f"killed in phase '{phase}' to heater off", "s", some, goal=1)
    every = [one for some in times.values() for one in some]
    yield Row("killed to heater off, max of all", "s", value=max(every), goal=2)
    yield Row("killed to heater off, p95 of all", "s", value=percentile(every, 0.95))


def _wait_live(printer: Printer) -> None:
    def is_live() -> bool:
        return printer.query({"panda_breath": None})["panda_breath"]["temperature"] is not None

    printer.wait_for(is_live)


def service_stop(bench: Bench) -> Iterator[Row]:
    """As `systemctl stop` or `restart` does: SIGTERM to all of Klipper's processes, and wait.

    The device does not answer, and heats; against a plain klippy, which has only itself to end.
    """
    taken: dict[str, list[float]] = {PLAIN: [], OURS: []}
    for _ in range(bench.pick(7, 2)):
        for kind in taken:
            taken[kind].append(_stop(bench, kind))
    plain = percentile(taken[PLAIN], 0.5)
    more = [one - plain for one in taken[OURS]]
    yield Row("service stop, device black-holed, minus plain", "s", more, goal=6)


def _stop(bench: Bench, kind: str) -> float:
    with (
        Simulated(bench.folder) as device,
        bench.printer(kind, bench.config(kind, device.port)) as printer,
    ):
        wait_connected(kind, printer, device)
        processes = [printer.pid]
        if kind == OURS:
            processes.append(guard_of(printer))
            printer.gcode("SET_HEATER_TEMPERATURE HEATER=panda_breath TARGET=45")
            if device.wait(lambda event: event.get("heater") is True, 10.0) is None:
                raise SimulatorError("it does not heat")
            device.freeze()
        began = time.monotonic()
        for pid in processes:
            os.kill(pid, signal.SIGTERM)
        printer.wait_exit()
        wait_for(lambda: not any(map(is_alive, processes)), "the end of the service")
        taken = time.monotonic() - began
        device.thaw()
        return taken
