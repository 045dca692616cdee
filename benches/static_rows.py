"""What is there whether or not anything happens: memory, the guard, the import, the wheel."""

from __future__ import annotations

import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import processes
from killing import guard_of
from printers import SHIM
from setups import LOCAL, OURS, PLAIN, ROOT, SHIMCLOCK, Bench, wait_connected
from simulated import Simulated, happens
from table import Row

MB = 1_000_000
MIB = 1024 * 1024
NATIVE = "panda_breath_native"


def memory(bench: Bench) -> Iterator[Row]:
    """RSS and private dirty pages of klippy with one device, against plain Klipper.

    A new klippy for each sample, 10 s after its first reading; the setups take turns. From
    smaps_rollup. Plain Klipper has no heater: the difference to "plain with a heater" is the
    module's own.
    """
    found: dict[str, list[processes.Memory]] = {kind: [] for kind in (*bench.kinds, LOCAL)}
    for _ in range(bench.pick(5, 2)):
        for kind in found:
            with contextlib.ExitStack() as stack:
                device = stack.enter_context(Simulated(bench.folder))
                printer = bench.printer(kind, bench.config(kind, device.port))
                stack.enter_context(printer)
                wait_connected(kind, printer, device)
                time.sleep(bench.pick(10, 3))
                found[kind].append(processes.memory(printer.pid))
    yield Row("RSS of klippy, plain", "MB", [memory.rss / MB for memory in found[PLAIN]])
    for base in (PLAIN, LOCAL):
        base_rss = statistics.median(memory.rss for memory in found[base])
        base_dirty = statistics.median(memory.private_dirty for memory in found[base])
        for kind in bench.rivals:
            whose = "" if kind == OURS else f" ({kind})"
            rss = [(memory.rss - base_rss) / MB for memory in found[kind]]
            dirty = [(memory.private_dirty - base_dirty) / MB for memory in found[kind]]
            is_goal = kind == OURS and base == PLAIN
            yield Row(f"RSS more than {base}{whose}", "MB", rss, goal=3 if is_goal else None)
            name = f"private dirty more than {base}{whose}"
            yield Row(name, "MB", dirty, goal=1 if is_goal else None)


def guard(bench: Bench) -> Iterator[Row]:
    """The guard beside a klippy with one device: its memory, and how long one takes to be ready.

    From smaps_rollup, 3 s after the first reading. PSS counts a page that is shared as a part of
    one; klippy's Python and wheel are the same files, so that a guard costs about that much more.
    Ready: another guard is started just as the driver has started the first, with the same command
    and the same memory to look at, from just before that to its one byte that it is ready. It does
    nothing while klippy is there, and is ended at once.
    """
    found: list[processes.Memory] = []
    ready: list[float] = []
    for _ in range(bench.pick(4, 2)):
        with (
            Simulated(bench.folder) as device,
            bench.printer(OURS, bench.config(OURS, device.port)) as printer,
        ):
            wait_connected(OURS, printer, device)
            time.sleep(3)
            pid = guard_of(printer)
            found.append(processes.memory(pid))
            ready += [_guard_start(pid) for _ in range(5)]
    yield Row("guard: RSS", "MB", [memory.rss / MB for memory in found], goal=12)
    yield Row("guard: PSS", "MB", [memory.pss / MB for memory in found], goal=7)
    yield Row("guard: private dirty", "MB", [memory.private_dirty / MB for memory in found])
    yield Row("guard: start to ready", "ms", [t * 1e3 for t in ready])


def _guard_start(pid: int) -> float:
    command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:-1]
    with open(f"/proc/{pid}/fd/0", "rb") as board:
        began = time.monotonic()
        with subprocess.Popen(command, stdin=board, stdout=subprocess.PIPE) as other:
            assert other.stdout is not None
            word = other.stdout.read(1)
            taken = time.monotonic() - began
            other.kill()
    if word != b"r":
        raise RuntimeError("another guard does not get ready")
    return taken


def startup(bench: Bench) -> Iterator[Row]:
    """What klippy waits for when it starts, and how soon there is a reading.

    The import: a new interpreter, klippy's own where there is one, that has imported what klippy
    has in any case, with bytecode in place; not configured: panda_breath.py alone, which Kalico
    imports at each start; configured: and the wheel.

    Connect: from the call of our klippy:connect handler ([shimclock]) to the device's open
    connection in the simulator's log, and until the heater has a reading, looked at every 10 ms;
    Klipper takes readings once per second.
    """
    modules = bench.folder / "modules"
    modules.mkdir(exist_ok=True)
    shutil.copy(SHIM, modules)
    python = str(bench.python or sys.executable)
    rounds = bench.pick(20, 5)
    for name, what in (("not configured", "panda_breath"), ("configured", NATIVE)):
        taken = [_import(python, modules, what) for _ in range(rounds + 1)][1:]
        yield Row(f"{name}: import of {what}", "ms", [ms for ms, _ in taken])
        loaded = max(count for _, count in taken)
        yield Row(f"{name}: modules that come with {what}", "count", value=loaded)
    opened: list[float] = []
    live: list[float] = []
    for _ in range(bench.pick(7, 3)):
        with Simulated(bench.folder) as device:
            config = bench.config(OURS, device.port, extra="\n[shimclock]\nperiod: 0\n")
            with bench.printer(OURS, config, [SHIMCLOCK]) as printer:
                wait_connected(OURS, printer, device)
                now = time.monotonic()
                began = printer.query({"shimclock": ["connect"]})["shimclock"]["connect"]
                connection = device.wait(happens("open"), 10)
                assert connection is not None
                opened.append((connection["t"] - began) * 1e3)
                live.append(now - began)
    yield Row("klippy:connect to the open connection", "ms", opened)
    yield Row("klippy:connect to the heater's first reading", "s", live)


IMPORT = """
import configparser, json, logging, os, re, sys, time, traceback
sys.path.insert(0, sys.argv[1])
before = set(sys.modules)
began = time.perf_counter()
__import__(sys.argv[2])
taken = time.perf_counter() - began
print(taken * 1e3, len(set(sys.modules) - before))
"""


def _import(python: str, folder: Path, what: str) -> tuple[float, int]:
    """Milliseconds, and how many modules were loaded that klippy has not loaded before."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    command = [python, "-c", IMPORT, str(folder), what]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    taken, loaded = done.stdout.split()
    return float(taken), int(loaded)


def unconfigured(bench: Bench) -> Iterator[Row]:
    """Whether klippy loads anything of the wheel when panda_breath.py is there but no section is.

    Kalico imports every module that it finds.
    """
    with bench.printer(OURS, "") as printer:
        lines = [line for line in processes.maps(printer.pid).splitlines() if NATIVE in line]
        yield Row("not configured: mappings of the wheel", "count", value=len(lines), goal=0)


def wheel(bench: Bench) -> Iterator[Row]:
    """The newest wheel in target/wheels: its size, its ABI tag and what it requires."""
    wheels = sorted(
        (ROOT / "target" / "wheels").glob("*.whl"), key=lambda path: path.stat().st_mtime
    )
    if not wheels:
        yield Row("wheel: size", "MiB", skipped="no wheel in target/wheels: make setup")
        return
    newest = wheels[-1]
    tag = newest.stem.split("-")[-2]
    yield Row("wheel: size", "MiB", value=newest.stat().st_size / MIB, goal=3, note=newest.name)
    yield Row("wheel: not abi3", "count", value=float(tag != "abi3"), goal=0)
    yield Row("wheel: Python dependencies", "count", value=len(_requires(newest)), goal=0)


def _requires(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        head = archive.read(name).decode().split("\n\n")[0]
    return [line for line in head.splitlines() if line.startswith("Requires-Dist:")]
