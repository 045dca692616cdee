"""The figures of a run and the committed ones: what is kept of a run, and what has got worse.

target/bench-samples.json has the last run: which machine, and of each row value, extremes, and all
samples. docs/performance.json has the same of the run that the project shows, with the samples of
what is drawn only.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from table import Table, number

if TYPE_CHECKING:
    from setups import Bench

ROOT = Path(__file__).resolve().parent.parent
LAST = ROOT / "target" / "bench-samples.json"
COMMITTED = ROOT / "docs" / "performance.json"
# From run to run on one machine; more is worse.
RATIO = 1.15
ABSOLUTE = 2.0
MACHINE = ("processor", "cores", "kernel", "klippy", "python")

Results = dict[str, Any]


def describe(bench: Bench) -> dict[str, Any]:
    """The machine and what runs on it; no names, no paths."""
    python = str(bench.python) if bench.python else None
    return {
        "date": time.strftime("%Y-%m-%d"),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "kernel": f"{platform.system()} {_number(platform.release())}, {platform.machine()}",
        "klippy": _klippy(bench.klipper_dir),
        "python": _said([python, "--version"]) if python else "Python " + platform.python_version(),
        "panda_breath": _said(["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]),
        "community_module": bench.anchor is not None,
        "quick": bench.quick,
        "load": round(os.getloadavg()[0], 2),
    }


def _processor() -> str:
    text = Path("/proc/cpuinfo").read_text()
    virtual = ", virtual" if re.search(r"^flags\s*:.* hypervisor\b", text, re.MULTILINE) else ""
    found = re.search(r"^(?:model name|Model|Hardware)\s*: *(.+)$", text, re.MULTILINE)
    return (found[1].strip() if found else platform.machine()) + virtual


def _number(release: str) -> str:
    """Of a kernel's release; what follows may name whose it is."""
    found = re.match(r"\d+(\.\d+)*", release)
    return found[0] if found else ""


def _klippy(checkout: Path | None) -> str:
    if checkout is None:
        return "klippy_stub"
    name = "Kalico" if (checkout / "klippy" / "plugins").is_dir() else "Klipper"
    return f"{name} {_said(['git', '-C', str(checkout), 'rev-parse', '--short', 'HEAD'])}".strip()


def _said(command: list[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()
    except OSError:
        return ""


def keep(table: Table, about: dict[str, Any], groups: list[str], path: Path = LAST) -> None:
    """Write what this run has found so far."""
    figures: dict[str, dict[str, Any]] = {}
    for row in table.rows:
        figure: dict[str, Any] = {"group": row.group, "unit": row.unit}
        figure["value"] = row.value
        if row.goal is not None:
            figure["goal"] = row.goal
        if row.samples:
            figure.update(min=min(row.samples), max=max(row.samples), samples=list(row.samples))
        if row.more_is_better:
            figure["more_is_better"] = True
        if row.note or row.skipped:
            figure["note"] = row.note or "skipped: " + row.skipped
        figures[row.name] = figure
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, {"about": about, "groups": groups, "figures": figures})


def read(path: Path) -> Results:
    found: Results = json.loads(path.read_text())
    return found


def write(path: Path, results: Results) -> None:
    """One figure per line."""
    parts = [
        f"{json.dumps(name)}: {json.dumps(_short(figure))}"
        for name, figure in results["figures"].items()
    ]
    about, groups = json.dumps(results["about"], indent=1), json.dumps(results["groups"])
    figures = ",\n".join(parts)
    path.write_text(
        f'{{\n"about": {about},\n"groups": {groups},\n"figures": {{\n{figures}\n}}\n}}\n'
    )


def _short(value: Any) -> Any:
    """Numbers with five digits: the rest is noise."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: _short(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_short(item) for item in value]
    return value


def worse(last: Results, committed: Results) -> Iterator[str]:
    """What is worse in this run than in the committed one, a line each.

    Ratios and counts are compared whatever the machine: a ratio when it is 15 % more, a count when
    it is more at all. Times, CPU and bytes do not carry over from one machine to another, and vary
    on one; they are named when they are twice as much. Nothing that is within the committed
    samples is worse. A row that one of both does not have is not compared.
    """
    for name, figure in last["figures"].items():
        before = committed["figures"].get(name)
        if before is None or before["value"] is None or figure["value"] is None:
            continue
        old, new, unit = before["value"], figure["value"], figure["unit"]
        if figure.get("more_is_better"):
            is_worse = new < min(old / ABSOLUTE, before.get("min", old))
        else:
            factor = {"ratio": RATIO, "count": 1.0}.get(unit, ABSOLUTE)
            limit = old + abs(old) * (factor - 1.0)
            is_worse = new > max(limit, before.get("max", old))
        if is_worse:
            times = f", {new / old:.1f} times" if old > 0 and new > 0 else ""
            yield f"{name}: {number(new)} {unit}, was {number(old)}{times}"


def report(last: Results) -> str:
    """The list for the end of a run."""
    if not COMMITTED.exists():
        return "no committed figures to compare with: make bench-commit"
    committed = read(COMMITTED)
    lines = list(worse(last, committed))
    head = f"{len(lines)} figures are worse than the committed ones (docs/performance.json)"
    differ = [
        f"{what} {committed['about'].get(what)}"
        for what in MACHINE
        if committed["about"].get(what) != last["about"].get(what)
    ]
    if differ:
        head += "\nwhich were taken elsewhere (" + "; ".join(differ)
        head += "): only ratios and counts mean something"
    if last["about"]["quick"]:
        head += "\na quick run: its figures are coarse"
    return "\n".join([head, *("  " + line for line in lines)])
