"""Check everything that must hold and print a table of it; `make test` and `make lint` run this.

A failed step does not stop the others. What a step printed is in target/check.
"""

from __future__ import annotations

import argparse
import ast
import os
import re
import signal
import subprocess
import sys
import time
import traceback
import xml.etree.ElementTree as ElementTree
import zipfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = ROOT / "target" / "check"
WHEELS = ROOT / "target" / "wheels"
TYPED = ["python", "tests", "klippy_stub", "demo", "benches", ".ci/check.py"]
LONGEST_STEP = 900  # s
LARGEST_WHEEL = 3 * 1024 * 1024
SHOWN = 60  # lines of a failed step's output

# The pure half names nothing that does I/O, tells the time, rolls dice or starts threads.
# An address is only a number.
PURE = ["src/session", "src/dialect"]
IMPURE = re.compile(
    r"std::net::(?!SocketAddr|IpAddr|Ipv[46]Addr)|std::(fs|io|process|env)\b|Instant::now"
    r"|SystemTime|\btokio\b|\brand\b|\bthread\b|\bpyo3\b"
)


@dataclass
class Result:
    """How a step ended. `passed` is None for a skipped one."""

    passed: bool | None
    detail: str = ""
    output: str = ""


@dataclass
class Step:
    name: str
    group: str
    run: Callable[[], Result]


def command(
    *arguments: str,
    env: dict[str, str] | None = None,
    summary: Callable[[str], str] = lambda output: "",
) -> Callable[[], Result]:
    """A step that is a command; `summary` makes the table's last column of its output."""

    def run() -> Result:
        try:
            process = subprocess.Popen(
                arguments,
                cwd=ROOT,
                env={**os.environ, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,  # so that all of it can be ended
            )
        except OSError as error:
            return Result(False, f"{arguments[0]}: {error.strerror}")
        try:
            output, _ = process.communicate(timeout=LONGEST_STEP)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
            return Result(False, f"ended after {LONGEST_STEP} s", output)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        return Result(process.returncode == 0, summary(output), output)

    return run


def python(*arguments: str) -> Callable[[], Result]:
    return command(sys.executable, "-m", *arguments)


# Rust


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


# Python


def pytest(klippy: bool) -> Callable[[], Result]:
    """The suite over the stub; or over real klippy, where a skipped test is a failure."""

    def run() -> Result:
        if klippy and not os.environ.get("KLIPPER_DIR"):
            return Result(None, "KLIPPER_DIR is not set")
        report = OUTPUT / ("klippy.xml" if klippy else "stub.xml")
        report.unlink(missing_ok=True)
        env = {} if klippy else {"KLIPPER_DIR": "", "KLIPPY_PYTHON": ""}
        arguments = ["-m", "pytest", "-v", "-rs", f"--junitxml={report}"]
        result = command(sys.executable, *arguments, env=env)()
        if not report.exists():
            return result
        cases = list(ElementTree.parse(report).getroot().iter("testcase"))
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
        return result

    return run


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
    found += [f"has a dependency: {line}" for line in lines if line.startswith("Requires-Dist")]
    for name in (
        "panda_breath.py",
        "panda_breath_native/_core.pyi",
        "panda_breath_native/py.typed",
    ):
        if name not in names:
            found.append(f"does not contain {name}")
    detail = "; ".join(found) or f"{size / 1024 / 1024:.2f} MiB, abi3, no dependencies"
    return Result(not found, detail)


# Documents


def documents() -> list[Path]:
    return sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def links() -> Result:
    """Every link to a file or heading of this project leads somewhere."""
    broken = []
    count = 0
    for path in documents():
        for target in re.findall(r"\]\(([^)\s]+)\)", _without_code(path.read_text())):
            if re.match(r"[a-z]+:", target):
                continue
            count += 1
            file, _, heading = target.partition("#")
            where = (path.parent / file).resolve() if file else path
            if not where.exists():
                broken.append(f"{path.relative_to(ROOT)}: {target} does not exist")
            elif heading and heading not in _headings(where):
                broken.append(f"{path.relative_to(ROOT)}: {target} has no such heading")
    return Result(not broken, f"{count} links", "\n".join(broken))


def _without_code(text: str) -> str:
    return re.sub(r"```.*?```", "", text, flags=re.DOTALL)


def _headings(path: Path) -> set[str]:
    """GitHub's anchors."""
    titles = re.findall(r"^#+ (.+)$", _without_code(path.read_text()), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def tests_named() -> Result:
    """Every test that docs/safety.md names exists."""
    code = "\n".join(
        path.read_text()
        for folder in ("src", "tests")
        for path in sorted((ROOT / folder).rglob("*"))
        if path.suffix in (".rs", ".py")
    )
    exist = set(re.findall(r"\b(?:fn|def) (\w+)", code))
    named = set(
        re.findall(
            r"`((?:test_)?(?:r\d+|identity)_\w+)`", (ROOT / "docs" / "safety.md").read_text()
        )
    )
    wrong = sorted(named - exist)
    return Result(not wrong, f"{len(named)} tests", "\n".join(f"{n} does not exist" for n in wrong))


def options() -> Result:
    """docs/configuration.md has a row for every option and status field, and for no other."""
    shim = ast.parse((ROOT / "python" / "panda_breath.py").read_text())
    text = (ROOT / "docs" / "configuration.md").read_text()
    wrong = []
    for what, in_code, heading in (
        ("option", _shim_options(shim), "Options"),
        ("heater option", _word_list(shim, "HEATER_OPTIONS"), "Heater options"),
        ("status field", _status_fields(shim), "Status"),
    ):
        in_docs = _table_names(text, heading)
        wrong += [f"{what} {name} is not in the docs" for name in sorted(in_code - in_docs)]
        wrong += [f"{what} {name} does not exist" for name in sorted(in_docs - in_code)]
    return Result(not wrong, "", "\n".join(wrong))


def _class(module: ast.Module, name: str) -> ast.ClassDef:
    return next(
        node for node in module.body if isinstance(node, ast.ClassDef) and node.name == name
    )


OPTION_READERS = ("_choice", "_seconds")  # of the class Options, beside Klipper's get...


def _shim_options(module: ast.Module) -> set[str]:
    """What the class Options reads: the first argument of whatever reads an option."""
    names = set()
    for node in ast.walk(_class(module, "Options")):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and (node.func.attr.startswith("get") or node.func.attr in OPTION_READERS)
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            names.add(str(node.args[0].value))
    return names


def _word_list(module: ast.Module, name: str) -> set[str]:
    """The words of a constant, be it a list or one string."""
    for node in module.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) == name:
            texts = [n.value for n in ast.walk(node.value) if isinstance(n, ast.Constant)]
            words = [word for text in texts for word in re.findall(r"\w+", str(text))]
            return set(words)
    return set()


def _status_fields(module: ast.Module) -> set[str]:
    """The keys of the status that the class PandaBreath makes."""
    names = _word_list(module, "STATE_FIELDS")
    function = next(
        node
        for node in ast.walk(_class(module, "PandaBreath"))
        if isinstance(node, ast.FunctionDef) and node.name == "get_status"
    )
    for node in ast.walk(function):
        if isinstance(node, ast.Dict):
            names |= {str(key.value) for key in node.keys if isinstance(key, ast.Constant)}
        elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
            names.add(str(node.slice.value))
    return names


def _table_names(text: str, heading: str) -> set[str]:
    """The names in the first column of the tables below a heading of the second level."""
    match = re.search(rf"^## {heading}$(.*?)(?=^## |\Z)", text, flags=re.MULTILINE | re.DOTALL)
    return set(re.findall(r"^\| `(\w+)`", match[1], flags=re.MULTILINE)) if match else set()


CARGO_TEST = command(
    *("cargo", "test", "--locked", "--no-fail-fast"),
    env={"RUST_TEST_THREADS": "16"},  # most of them wait for the network's own time
    summary=cargo_counts,
)
CLIPPY = ("clippy", "--locked", "--quiet", "--all-targets")
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
    Step("wheel", "test", wheel),
    Step("cargo test", "test", CARGO_TEST),
    Step("pytest, stub", "test", pytest(klippy=False)),
    Step("pytest, klippy", "test", pytest(klippy=True)),
]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=("lint", "test"), help="one group of steps")
    only = parser.parse_args().only
    OUTPUT.mkdir(parents=True, exist_ok=True)
    started_at = time.monotonic()
    rows = []
    totals: Counter[str] = Counter()
    for step in STEPS:
        if only not in (None, step.group):
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
