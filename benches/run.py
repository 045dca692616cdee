"""Measure: `make bench`, or `.venv/bin/python benches/run.py [--quick] [--only PATTERN]`.

Prints a table, and what is worse than the committed figures; writes target/bench.json and
target/bench-samples.json. Asserts nothing: figures depend on the machine, and only those of one run
can be compared. Environment:

    KLIPPER_DIR, KLIPPY_PYTHON  measure inside this Klipper or Kalico; else inside klippy_stub
    ANCHOR_MODULE               panda_breath.py of the community module, measured beside ours
"""

from __future__ import annotations

import argparse
import fnmatch
import os
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import commit
import kill_rows
import load_rows
import reactor_rows
import results
import scale_rows
import static_rows
import wire_rows
from printers import PrinterError
from setups import ROOT, Bench, from_environment
from table import Row, Table

GROUPS: tuple[Callable[[Bench], Iterator[Row]], ...] = (
    static_rows.wheel,
    static_rows.unconfigured,
    static_rows.memory,
    static_rows.guard,
    static_rows.startup,
    wire_rows.target,
    reactor_rows.lateness,
    reactor_rows.shim,
    reactor_rows.stops,
    wire_rows.resync,
    wire_rows.powercut,
    load_rows.flood,
    load_rows.heating,
    scale_rows.many,
    scale_rows.messages,
    scale_rows.allocations,
    kill_rows.kill,
    kill_rows.service_stop,
)
JSON = ROOT / "target" / "bench.json"


def main() -> int:
    arguments = parse_arguments()
    # As on a printer: Python compiles a module once. Compiling ours takes 3 MB for a moment, which
    # then count as klippy's.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything is closed
    groups = [group for group in GROUPS if is_chosen(group.__name__, arguments.only)]
    if not groups:
        print(f"--only {arguments.only}: no such group; there are: {names()}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="panda-bench-") as folder:
        try:
            bench = from_environment(Path(folder), arguments.quick)
        except PrinterError as error:
            print(error, file=sys.stderr)
            return 2
        print(describe(bench))
        about = results.describe(bench)
        table = Table()
        table.head()
        done: list[str] = []
        failed = 0
        for group in groups:
            began = time.monotonic()
            try:
                for row in group(bench):
                    table.add(row, group.__name__)
                done.append(group.__name__)
            except Exception as error:  # the others can still be measured
                failed += 1
                print(f"{group.__name__}: {type(error).__name__}: {error}", flush=True)
            print(f"({group.__name__}: {time.monotonic() - began:.0f} s)", flush=True)
            table.write(JSON)
            results.keep(table, about, done)
    missed = [row.name for row in table.rows if row.met().startswith("NO")]
    print(f"{len(missed)} goals missed, {failed} groups failed; figures in {JSON}")
    print(results.report(results.read(results.LAST)))
    if arguments.commit:
        try:
            commit.commit()
        except commit.NotCommittedError as error:
            failed += 1
            print(f"not committed: {error}")
    return 1 if failed else 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--only", metavar="PATTERN", default="*", help=f"of these groups: {names()}"
    )
    parser.add_argument("--quick", action="store_true", help="a few minutes, coarse figures")
    parser.add_argument(
        "--commit", action="store_true", help="write the figures to docs: see benches/commit.py"
    )
    arguments = parser.parse_args()
    if arguments.commit and arguments.quick:
        parser.error("the figures of a quick run are not for committing")
    return arguments


def names() -> str:
    return ", ".join(group.__name__ for group in GROUPS)


def is_chosen(name: str, pattern: str) -> bool:
    return any(fnmatch.fnmatch(name, part.strip()) for part in pattern.split(","))


def describe(bench: Bench) -> str:
    """What ran where: without it no figure means anything."""
    host = bench.klipper_dir.name if bench.klipper_dir else "klippy_stub"
    load = os.getloadavg()[0]
    lines = [
        f"{host}, Python {platform.python_version()}, {platform.machine()}, "
        f"{os.cpu_count()} cores, load {load:.2f}",
        "community module beside ours"
        if bench.anchor
        else "community module: skipped: needs KLIPPER_DIR and ANCHOR_MODULE",
    ]
    if load > 0.3:
        lines.append("this machine is busy: times are worth little now")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
