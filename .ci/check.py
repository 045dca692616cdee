"""Check everything that must hold and print a table of it; `make test` and `make lint` run this.

`make audit` runs the steps that need the network or long builds, and belong before a release.

A failed step does not stop the others. What a step printed is in target/check.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
import traceback
from collections import Counter

from documents import links, options, tests_named
from esphome import esphome_config
from fuzzing import fuzz
from rust import CARGO_TEST, CLIPPY, HISTORIES, cargo_component, no_pyo3, purity
from step import OUTPUT, ROOT, Result, Step, command, python
from suite import pytest, wheel
from supply import (
    advisories,
    crates,
    oldest_crates,
    packages,
    reproducible,
    with_clone,
    workflows,
)

TYPED = ["python", "tests", "klippy_stub", "demo", "benches", ".ci"]
SHOWN = 60  # lines of a failed step's output

STEPS = [
    Step("cargo fmt", "lint", cargo_component("rustfmt", "fmt", "--check")),
    Step("cargo clippy", "lint", cargo_component("clippy", *CLIPPY, "--", "-Dwarnings")),
    Step(
        "cargo clippy, python",
        "lint",
        cargo_component("clippy", *CLIPPY, "--features", "python", "--", "-Dwarnings"),
    ),
    Step(
        "cargo doc",
        "lint",
        command(
            *("cargo", "doc", "--locked", "--no-deps", "--document-private-items"),
            env={"RUSTDOCFLAGS": "-Dwarnings"},
        ),
    ),
    Step("session and dialect are pure", "lint", purity),
    Step("no pyo3 without the feature", "lint", no_pyo3),
    Step("ruff check", "lint", python("ruff", "check")),
    Step("ruff format", "lint", python("ruff", "format", "--check")),
    Step("mypy", "lint", python("mypy", "--strict", *TYPED)),
    Step("stubtest", "lint", python("mypy.stubtest", "panda_breath_native")),
    Step("links in documents", "lint", links),
    Step("options in documents", "lint", options),
    Step("tests in documents", "lint", tests_named),
    Step("workflows", "lint", workflows),
    Step("cargo deny", "lint", crates),
    Step("wheel", "test", wheel),
    Step("cargo test", "test", CARGO_TEST),
    Step("random histories", "test", HISTORIES),
    Step("fuzz", "test", fuzz),
    Step("pytest, stub", "test", pytest(klippy=False)),
    Step("pytest, klippy", "test", pytest(klippy=True)),
    Step("esphome config", "test", esphome_config),
    Step("cargo deny, advisories", "audit", advisories),
    Step("pip-audit", "audit", packages),
    Step("oldest crates", "audit", with_clone(oldest_crates)),
    Step("the same wheel again", "audit", with_clone(reproducible)),
]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=("lint", "test", "audit"), help="one group of steps")
    only = parser.parse_args().only
    OUTPUT.mkdir(parents=True, exist_ok=True)
    started_at = time.monotonic()
    rows = []
    totals: Counter[str] = Counter()
    for step in STEPS:
        if step.group not in (("lint", "test") if only is None else (only,)):
            continue
        print(f"{step.name} ...", flush=True)
        began_at = time.monotonic()
        try:
            result = step.run()
        except Exception:
            result = Result(False, "the check itself failed", traceback.format_exc())
        seconds = time.monotonic() - began_at
        word = {True: "passed", False: "FAILED", None: "skipped"}[result.passed]
        totals[word.lower()] += 1
        log = OUTPUT / (re.sub(r"\W+", "-", step.name) + ".log")
        log.write_text(result.output)
        rows.append((step.name, word, f"{seconds:.1f} s", result.detail))
        if result.passed is False:
            lines = result.output.splitlines()
            print(f"FAILED {step.name}: {result.detail}")
            if len(lines) > SHOWN:
                print(f"... {len(lines) - SHOWN} earlier lines are in {log.relative_to(ROOT)}")
            print("\n".join(lines[-SHOWN:]), flush=True)
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    print()
    for name, word, took, detail in rows:
        print(f"{name:<{widths[0]}}  {word:<{widths[1]}}  {took:>{widths[2]}}  {detail}".rstrip())
    print(f"\n{time.monotonic() - started_at:.0f} s in all")
    counts = [f"{totals[word]} {word}" for word in ("passed", "failed", "skipped")]
    print(", ".join(counts))
    return 1 if totals["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
