"""The steps that test the wheel: what is in it, and the suite in Python."""

from __future__ import annotations

import json
import os
import sys
import xml.etree.ElementTree as ElementTree
import zipfile
from collections import Counter
from typing import Callable

from step import OUTPUT, ROOT, Result, command

WHEELS = ROOT / "target" / "wheels"
LARGEST_WHEEL = 3 * 1024 * 1024


# Most tests wait for the network's own time: more processes than processors, and each takes over
# what another has left. Then come, one by one, those that what runs beside them would disturb.
PASSES = (
    ("together", ("-n", "6", "--dist", "worksteal", "-m", "not alone")),
    ("alone", ("-m", "alone")),
)


def pytest(klippy: bool) -> Callable[[], Result]:
    """The suite over the stub; or over real klippy, where a skipped test is a failure."""

    def run() -> Result:
        if klippy and not os.environ.get("KLIPPER_DIR"):
            return Result(None, "KLIPPER_DIR is not set")
        env = {} if klippy else {"KLIPPER_DIR": "", "KLIPPY_PYTHON": ""}
        result = Result(True)
        cases: list[ElementTree.Element] = []
        for name, options in PASSES:
            report = OUTPUT / f"{'klippy' if klippy else 'stub'}-{name}.xml"
            report.unlink(missing_ok=True)
            arguments = ["-m", "pytest", "-v", "-rs", f"--junitxml={report}", *options]
            part = command(sys.executable, *arguments, env=env)()
            result.passed = result.passed and part.passed
            result.output += part.output
            if not report.exists():
                return Result(False, part.detail or f"no report of the tests {name}", result.output)
            cases += ElementTree.parse(report).getroot().iter("testcase")
        _judge(result, cases, klippy)
        return result

    return run


def _judge(result: Result, cases: list[ElementTree.Element], klippy: bool) -> None:
    """Count in words, and what was skipped."""
    failed = [case for case in cases if _has(case, "failure") or _has(case, "error")]
    skipped = [case for case in cases if _has(case, "skipped")]
    passed = len(cases) - len(failed) - len(skipped)
    result.detail = f"{passed} passed, {len(failed)} failed, {len(skipped)} skipped"
    if klippy and skipped:
        result.passed = False
        result.output += "\nwith KLIPPER_DIR set, a skipped test is a failure\n"
    if skipped and not klippy:
        reasons = Counter(_reason(case) for case in skipped)
        result.detail += " (" + "; ".join(f"{n}: {why}" for why, n in reasons.items()) + ")"


def _has(case: ElementTree.Element, tag: str) -> bool:
    return case.find(tag) is not None


def _reason(case: ElementTree.Element) -> str:
    skipped = case.find("skipped")
    return "" if skipped is None else skipped.get("message", "")


def wheel() -> Result:
    wheels = list(WHEELS.glob("*.whl"))
    if len(wheels) != 1:
        return Result(False, f"{len(wheels)} wheels in {WHEELS.relative_to(ROOT)}, not 1")
    size = wheels[0].stat().st_size
    found = []
    if size > LARGEST_WHEEL:
        found.append(f"{size} bytes, more than {LARGEST_WHEEL}")
    if "-abi3-" not in wheels[0].name:
        found.append("not abi3")
    with zipfile.ZipFile(wheels[0]) as archive:
        names = archive.namelist()
        metadata = next(name for name in names if name.endswith(".dist-info/METADATA"))
        lines = archive.read(metadata).decode().splitlines()
        boms = [archive.read(name) for name in names if name.endswith(".cyclonedx.json")]
    found += [f"has a dependency: {line}" for line in lines if line.startswith("Requires-Dist")]
    for name in (
        "panda_breath.py",
        "panda_breath_native/_core.pyi",
        "panda_breath_native/py.typed",
    ):
        if name not in names:
            found.append(f"does not contain {name}")
    crates = {f"{crate['name']} v{crate['version']}" for bom in boms for crate in _crates(bom)}
    missing = sorted(_linked_crates() - crates)
    if missing:
        found.append(f"its list of crates lacks {', '.join(missing)}")
    if any(b"file:///" in bom or b'"timestamp"' in bom for bom in boms):
        found.append("its list of crates tells where or when it was built")
    detail = f"{size / 1024 / 1024:.2f} MiB, abi3, no dependencies, names {len(crates)} crates"
    return Result(not found, "; ".join(found) or detail)


def _crates(bom: bytes) -> list[dict[str, str]]:
    """This one and all others, in CycloneDX."""
    read = json.loads(bom)
    return [read["metadata"]["component"], *read["components"]]


def _linked_crates() -> set[str]:
    tree = ("cargo", "tree", "--locked", "--features", "python", "--edges", "normal")
    result = command(*tree, "--prefix", "none", "--format", "{p}")()
    return {" ".join(line.split()[:2]) for line in result.output.splitlines() if line}
