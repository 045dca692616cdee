"""Ends what a process has started when that process ends, however that happens.

What is started carries a mark in its environment, as does what that starts in turn. The reaper is a
process of its own, which sees the end of the one that started it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

MARK = "PANDA_BREATH_PRINTER"  # the name of the mark
POLL = 0.01  # s


def start(mark: str, *left: Path) -> subprocess.Popen[bytes]:
    """A reaper for what carries this mark. Files and folders in `left` are removed then, too."""
    return subprocess.Popen(
        [sys.executable, "-I", "-S", __file__, mark, *map(str, left)],
        env={name: value for name, value in os.environ.items() if name != MARK},
        stdin=subprocess.PIPE,
        start_new_session=True,
    )


def end_marked(mark: str) -> None:
    """Kill every process that carries the mark in its environment.

    Not by parent or process group: what klippy starts may have left both, as a guard must that
    outlives it.
    """
    wanted = f"{MARK}={mark}".encode()
    deadline = time.monotonic() + 10.0
    while time.monotonic() < deadline:
        found = False
        for environ in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):  # ended meanwhile, or another user's
                if wanted in environ.read_bytes().split(b"\0"):
                    os.kill(int(environ.parent.name), signal.SIGKILL)
                    found = True
        if not found:
            return
        time.sleep(POLL)


def remove_module(path: Path) -> None:
    """Remove a Python file, and what Pythons have compiled of it, whatever they call that."""
    path.unlink(missing_ok=True)
    for compiled in path.parent.glob(f"__pycache__/{path.stem}.*.pyc"):
        compiled.unlink(missing_ok=True)


def reap(mark: str, *left: str) -> None:
    """A reaper's whole life: wait until the process that started it is gone, then clean up."""
    sys.stdin.buffer.read()
    end_marked(mark)
    for path in map(Path, left):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            remove_module(path)


if __name__ == "__main__":
    reap(*sys.argv[1:])
