"""Steps about the Rust code."""

from __future__ import annotations

import re
from collections import Counter
from typing import Callable

from step import ROOT, Result, command

# The pure half names nothing that does I/O, tells the time, rolls dice or starts threads.
# An address is only a number.
PURE = ["src/session", "src/dialect"]
IMPURE = re.compile(
    r"std::net::(?!SocketAddr|IpAddr|Ipv[46]Addr)|std::(fs|io|process|env)\b|Instant::now"
    r"|SystemTime|\btokio\b|\brand\b|\bthread\b|\bpyo3\b"
)


def cargo_component(component: str, *arguments: str) -> Callable[[], Result]:
    """Cargo commands that not every Rust comes with."""

    def run() -> Result:
        result = command("cargo", *arguments)()
        if "no such command" in result.output or "is not installed" in result.output:
            result.detail = f"missing: rustup component add {component}"
        return result

    return run


def cargo_counts(output: str) -> str:
    counts: Counter[str] = Counter()
    for line in output.splitlines():
        if line.startswith("test result:"):
            for number, word in re.findall(r"(\d+) (passed|failed|ignored)", line):
                counts[word] += int(number)
    return ", ".join(f"{counts[word]} {word}" for word in ("passed", "failed", "ignored"))


def purity() -> Result:
    found = []
    files = 0
    for folder in PURE:
        if not (ROOT / folder).is_dir():
            found.append(f"{folder} does not exist")
        beside = ROOT / f"{folder}.rs"
        for path in [
            *sorted((ROOT / folder).rglob("*.rs")),
            *([beside] if beside.exists() else []),
        ]:
            relative = path.relative_to(ROOT)
            if "tests" in relative.with_suffix("").parts:
                continue  # tests bring a simulator along
            files += 1
            code = path.read_text().split("#[cfg(test)]")[0]
            for number, line in enumerate(code.splitlines(), 1):
                if IMPURE.search(line.split("//")[0]):
                    found.append(f"{relative}:{number}: {line.strip()}")
    if not files:
        found.append("no files")
    return Result(not found, f"{files} files", "\n".join(found))


def no_pyo3() -> Result:
    result = command("cargo", "tree", "--locked", "-e", "normal", "--prefix", "none")()
    crates = sorted({line.split()[0] for line in result.output.splitlines() if line})
    guilty = [crate for crate in crates if crate.startswith("pyo3")]
    passed = result.passed is True and not guilty
    detail = f"{len(crates)} crates" if passed else ", ".join(guilty)
    return Result(passed, detail, result.output)


CARGO_TEST = command(
    *("cargo", "test", "--locked", "--no-fail-fast"),
    env={"RUST_TEST_THREADS": "16"},  # most of them wait for the network's own time
    summary=cargo_counts,
)
HISTORIES = command(
    *("cargo", "test", "--locked", "--profile", "soak", "--lib", "--", "--nocapture", "histor"),
    env={"HISTORIES": "10000"},  # of a stock device, and as many behind a broker
    summary=lambda output: "; ".join(
        re.findall(r"^(\w+: \d+ histories, \d+ steps, mean \d+)", output, flags=re.MULTILINE)
    ),
)
CLIPPY = ("clippy", "--locked", "--quiet", "--all-targets")
