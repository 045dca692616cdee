"""What is there whether or not anything happens: memory, the import, the wheel."""

from __future__ import annotations

import contextlib
import statistics
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import processes
from setups import LOCAL, OURS, PLAIN, ROOT, Bench, wait_connected
from simulated import Simulated
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
