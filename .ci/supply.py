"""Steps about what others made, and whether the wheel is what its source makes."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Callable

from step import ROOT, Result, command
from suite import WHEELS

# A program, not a module.
workflows = command(
    str(Path(sys.executable).parent / "zizmor"),
    *("--offline", "--strict-collection", "--no-progress", ".github"),
    summary=lambda output: output.strip().splitlines()[-1] if output.strip() else "",
)


def crates() -> Result:
    """Licences, duplicates and sources: what deny.toml can say without the network."""
    missing = _deny_missing()
    if missing:
        return Result(None, missing)
    return _deny("--offline", checks=("bans", "licenses", "sources"))


def advisories() -> Result:
    missing = _deny_missing()
    return Result(False, missing) if missing else _deny(checks=("advisories",))


def _deny_missing() -> str:
    if command("cargo", "deny", "--version")().passed:
        return ""
    return "cargo-deny is not installed: cargo install cargo-deny --locked"


def _deny(*options: str, checks: tuple[str, ...]) -> Result:
    result = command("cargo", "deny", "--locked", *options, "check", *checks)()
    if "failed to fetch advisory database" in result.output:
        result.detail = "nothing was checked: the database of advisories is out of reach"
    else:
        result.detail = "".join(result.output.strip().splitlines()[-1:])
    return result


def packages() -> Result:
    """pip-audit passes when it could look up nothing; this does not."""
    result = command(
        sys.executable, "-m", "pip_audit", "--format", "json", "--progress-spinner=off"
    )()
    found = re.search(r'^\{"dependencies".*$', result.output, flags=re.MULTILINE)
    if not found:
        result.passed, result.detail = False, "nothing was checked: see what pip-audit says"
        return result
    listed = [one for one in json.loads(found[0])["dependencies"] if one["name"] != "panda-breath"]
    unknown = [one["skip_reason"] for one in listed if "skip_reason" in one]
    guilty = [f"{one['name']} {one['version']}" for one in listed if one.get("vulns")]
    if unknown:
        detail = f"{len(unknown)} of {len(listed)} packages could not be looked up"
        return Result(False, "; ".join([detail, *guilty]), "\n".join(unknown))
    return Result(not guilty, ", ".join(guilty) or f"{len(listed)} packages", result.output)


def with_clone(run: Callable[[Path], Result]) -> Callable[[], Result]:
    """A step on a clone of HEAD in a folder elsewhere."""

    def step() -> Result:
        status = command("git", "status", "--porcelain")()
        if not status.passed or status.output:
            return Result(False, "commit first: this is done with a clone", status.output)
        with tempfile.TemporaryDirectory(prefix="panda breath ") as folder:
            cloned = command("git", "clone", "--quiet", str(ROOT), f"{folder}/clone")()
            return run(Path(folder) / "clone") if cloned.passed else cloned

    return step


def oldest_crates(clone: Path) -> Result:
    """The oldest versions that Cargo.toml allows will do: everything compiles, the rules hold."""
    where = ("--manifest-path", str(clone / "Cargo.toml"))
    output = ""
    for arguments in (
        ("+nightly", "update", "-Z", "direct-minimal-versions", *where),
        ("check", "--locked", "--all-features", "--all-targets", *where),
        ("test", "--locked", "--lib", *where, "--", "session::", "dialect::"),
    ):
        # Kept, so that the next time is quick.
        result = command(
            "cargo", *arguments, env={"CARGO_TARGET_DIR": str(ROOT / "target" / "oldest")}
        )()
        output += result.output
        if not result.passed:
            return Result(False, f"cargo {arguments[0]} failed", output)
    tests = re.search(r"(\d+) passed", result.output)
    return Result(True, f"compiles; {tests[1] if tests else 'no'} tests passed", output)


def reproducible(clone: Path) -> Result:
    """The wheel of `make setup`, built in another folder, with another home of Cargo's."""
    (wheel,) = WHEELS.glob("*.whl")
    cargo = clone.parent / "cargo"
    cargo.mkdir()
    here = Path(os.environ.get("CARGO_HOME") or Path.home() / ".cargo")
    for name in ("registry", "config.toml"):  # nothing is fetched anew
        if (here / name).exists():
            (cargo / name).symlink_to(here / name)
    again = WHEELS / "again"
    result = command(
        *(sys.executable, str(clone / ".ci" / "wheel.py"), str(again)),
        env={"CARGO_HOME": str(cargo), "CARGO_TARGET_DIR": str(clone / "target")},
    )()
    if not result.passed:
        return result
    ours, other = (
        hashlib.sha256(path.read_bytes()).hexdigest() for path in (wheel, again / wheel.name)
    )
    if ours == other:
        return Result(True, f"sha256 {ours}", result.output)
    return Result(False, f"{again.relative_to(ROOT)} has another wheel", result.output)
