"""A step of the check, and what most of them are: a command."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = ROOT / "target" / "check"
LONGEST_STEP = 1800  # s; tests at a broker wait for what a keep-alive takes


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
