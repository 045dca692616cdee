"""The scripts of this folder that run as processes of their own, and talk in lines."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Callable, TypeVar

from setups import Bench
from simulated import environment

C = TypeVar("C", bound="Child")
FOLDER = Path(__file__).parent


class Child:
    """One of them. It ends with the block that started it."""

    def __init__(
        self, bench: Bench, script: str, *arguments: str, environ: Mapping[str, str] | None = None
    ) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(FOLDER / script), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**environment(bench.folder), **(environ or {})},
        )
        self.lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put("")

    @property
    def pid(self) -> int:
        return self.process.pid

    def next(self, timeout: float = 60.0) -> Any:
        """Its next line, as JSON."""
        try:
            line = self.lines.get(timeout=timeout)
        except queue.Empty:
            raise RuntimeError(f"{self.process.args!r} says nothing") from None
        if not line:
            raise RuntimeError(f"{self.process.args!r} has ended")
        return json.loads(line)

    def say(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def __enter__(self: C) -> C:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.process.kill()
        self.process.wait()
        self.reader.join()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


class Many(Child):
    """many.py: devices without klippy, drained once per second, with a report each time."""

    def __init__(
        self, bench: Bench, ports: Sequence[int], environ: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(bench, "many.py", ",".join(map(str, ports)), environ=environ)
        self.count = len(ports)
        self.base_rss: float = self.next()["rss"]

    def wait(self, fits: Callable[[dict[str, Any]], bool], timeout: float) -> dict[str, Any]:
        """The first report that fits, or the last one in time."""
        deadline = time.monotonic() + timeout
        while True:
            report: dict[str, Any] = self.next()
            if fits(report) or time.monotonic() > deadline:
                return report

    def settle(self) -> None:
        """Until each is known to be off, and past the connections of the first seconds."""
        self.wait(lambda report: bool(report["off_known"] >= self.count), 60)
        time.sleep(3)
        self.fresh()

    def fresh(self) -> dict[str, Any]:
        """A report from after now: those that nobody has read are older."""
        now = time.monotonic()
        return self.wait(lambda report: bool(report["t"] > now), 60)
