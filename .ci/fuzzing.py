"""The step that fuzzes."""

from __future__ import annotations

import os
import re
from concurrent.futures import ThreadPoolExecutor

from step import ROOT, Result, command

FUZZ = ROOT / "fuzz"
FUZZ_TARGETS = (
    "stock",
    "mqtt",
    "wire",
    "session_stock",
    "session_esphome",
    "session_stock_mqtt",
)


def fuzz() -> Result:
    """Every target of fuzz/ for FUZZ_SECONDS (60), two at a time. What it finds is kept."""
    missing = _fuzz_missing()
    if missing:
        return Result(None, missing)
    seconds = os.environ.get("FUZZ_SECONDS", "60")
    # No sanitizer: the project has no unsafe code, and without one ten times as much is tried.
    build = ("cargo", "+nightly", "fuzz", "build", "--sanitizer", "none")
    built = command(*build, env={"CARGO_TARGET_DIR": str(FUZZ / "target")})()
    if not built.passed:
        return Result(False, "does not build", built.output)
    with ThreadPoolExecutor(max_workers=2) as pool:
        results = list(pool.map(lambda target: _fuzz_one(target, seconds), FUZZ_TARGETS))
    tried = [re.search(r"number_of_executed_units: (\d+)", one.output) for one in results]
    found = [t for t, one in zip(FUZZ_TARGETS, results) if not one.passed]
    detail = f"{sum(int(n[1]) for n in tried if n):,} inputs, {seconds} s each"
    return Result(
        not found,
        f"found: {', '.join(found)}; see fuzz/artifacts" if found else detail,
        "\n".join(one.output for one in results if not one.passed or not found),
    )


def _fuzz_missing() -> str:
    for what, arguments in (
        ("cargo-fuzz", ("cargo", "fuzz", "--version")),
        ("a nightly Rust", ("cargo", "+nightly", "--version")),
    ):
        if not command(*arguments)().passed:
            return f"{what} is not installed"
    return ""


def _fuzz_one(target: str, seconds: str) -> Result:
    new = FUZZ / "target" / "new" / target  # found on the way; not for git
    artifacts = FUZZ / "artifacts" / target
    new.mkdir(parents=True, exist_ok=True)
    artifacts.mkdir(parents=True, exist_ok=True)
    words = FUZZ / "dictionaries" / f"{target}.dict"
    return command(
        str(next(FUZZ.glob(f"target/*/release/{target}"))),
        *([f"-dict={words}"] if words.exists() else []),
        f"-max_total_time={seconds}",
        *("-timeout=10", "-rss_limit_mb=1024", "-print_final_stats=1", "-verbosity=0"),
        f"-artifact_prefix={artifacts}/",
        *(str(new), str(FUZZ / "corpus" / target)),
    )()
