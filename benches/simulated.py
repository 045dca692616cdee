"""One `panda-breath simulate` process, and what its log says."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sysconfig
import time
import uuid
from pathlib import Path
from types import TracebackType
from typing import Any, Callable

import reaper
from simulator import unique_mac

Event = dict[str, Any]
POLL = 0.01  # s; figures come from the log's own clock, not from when we look
COMMAND = Path(sysconfig.get_path("scripts")) / "panda-breath"


_mark = uuid.uuid4().hex
_reapers: list[subprocess.Popen[bytes]] = []


def environment(folder: Path) -> dict[str, str]:
    """For what must not outlive us: it and the folder are removed even if we are killed."""
    if not _reapers:
        _reapers.append(reaper.start(_mark, folder))
    return {**os.environ, reaper.MARK: _mark}


class SimulatorError(Exception):
    """The simulator does not do what the benchmark needs."""


class Simulated:
    """Simulated devices. `t` of their events is the clock of `time.monotonic()`."""

    _count = 0

    def __init__(self, folder: Path, *options: str, count: int = 1, port: int = 0) -> None:
        Simulated._count += 1
        self.log = folder / f"simulated{Simulated._count}.log"
        self.errors = folder / f"simulated{Simulated._count}.err"
        self.events: list[Event] = []
        self._read = 0
        if "--identity" not in options:
            options += ("--identity", unique_mac())
        command = [str(COMMAND), "simulate", "--listen", f"127.0.0.1:{port}"]
        command += ["--count", str(count), "--log", str(self.log), "--inject", "-", *options]
        with self.errors.open("wb") as errors:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
                text=True,
                env=environment(folder),
            )
        assert self.process.stdout is not None
        lines = [self.process.stdout.readline() for _ in range(count)]
        if not all(line.startswith("listening on ws://") for line in lines):
            self.close()
            raise SimulatorError(self.errors.read_text())
        self.port = int(lines[0].rsplit(":", 1)[1].split("/")[0])

    @property
    def pid(self) -> int:
        return self.process.pid

    def inject(self, command: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def look(self) -> int:
        """Read what is new in the log; how many events there are now."""
        with self.log.open("rb") as log:
            log.seek(self._read)
            data = log.read()
        complete = data[: data.rfind(b"\n") + 1]
        self._read += len(complete)
        self.events += [json.loads(line) for line in complete.splitlines()]
        return len(self.events)

    def wait(self, fits: Callable[[Event], bool], timeout: float, start: int = 0) -> Event | None:
        """The first event from number `start` on that fits; None when none comes in time."""
        deadline = time.monotonic() + timeout
        while True:
            end = self.look()
            for event in self.events[start:end]:
                if fits(event):
                    return event
            start = end
            if time.monotonic() > deadline:
                return None
            time.sleep(POLL)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        with contextlib.suppress(OSError):
            os.unlink(self.log)  # a flood's or a thousand devices' log is large

    def __enter__(self) -> Simulated:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def settings(event: Event) -> dict[str, Any]:
    """What a frame event writes to the device."""
    if event["event"] == "frame":
        with contextlib.suppress(ValueError):
            message = json.loads(event["text"])
            if isinstance(message, dict) and isinstance(message.get("settings"), dict):
                found: dict[str, Any] = message["settings"]
                return found
    return {}


def wants(target: int, device: int | None = None) -> Callable[[Event], bool]:
    """Fits the frame that brings this target; the device is named when there are several."""

    def fits(event: Event) -> bool:
        return event.get("device") == device and settings(event).get("set_temp") == target

    return fits


def happens(name: str, device: int | None = None) -> Callable[[Event], bool]:
    return lambda event: event["event"] == name and event.get("device") == device
