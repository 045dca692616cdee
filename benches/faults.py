"""What can be wrong between Klipper and the device, on loopback and without root."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

from simulated import Simulated

SECONDS = 3600  # longer than any benchmark
NAME = "panda-breath.example"


@dataclass(frozen=True)
class Fault:
    """`begin` and `end` are for the simulator; a fault of names is there from the start."""

    name: str
    begin: Callable[[Simulated], None]
    end: Callable[[Simulated], None]
    name_server: str = ""  # for silent_dns.py: the host is a name then

    def prefix(self, folder: Path) -> list[str]:
        """The command that a klippy with this fault is run by."""
        return _names(folder, self.name_server) if self.name_server else []

    def obstacle(self, folder: Path) -> str:
        """Why this machine cannot have it; empty if it can."""
        if not self.name_server:
            return ""
        try:
            done = subprocess.run(
                _names(folder, self.name_server), capture_output=True, text=True, timeout=10
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"no namespaces: {error}"
        return "" if done.returncode == 0 else "no namespaces: " + _last_line(done.stderr)


def _names(folder: Path, name_server: str) -> list[str]:
    unshare = ["unshare", "--user", "--map-root-user", "--mount", "--net"]
    script = str(Path(__file__).with_name("silent_dns.py"))
    return [*unshare, sys.executable, script, str(folder), name_server]


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no reason given"])[-1]


def _injecting(*commands: str) -> Callable[[Simulated], None]:
    def inject(device: Simulated) -> None:
        for command in commands:
            device.inject(command)

    return inject


NONE = Fault("device fine", _injecting(), _injecting())
FAULTS: Sequence[Fault] = (
    # Its SYNs stay unanswered because the accept queue is full, and what is sent on connections
    # that were open is never read.
    Fault("black-holed", _injecting(f"powercut {SECONDS}"), _injecting("powercut 0")),
    Fault("refusing", _injecting(f"refuse {SECONDS}", "drop"), _injecting("refuse 0")),
    # The kernel accepts and acknowledges for a process that is stopped.
    Fault("frozen", Simulated.freeze, Simulated.thaw),
    Fault("hangs after accept", _injecting("hang all", "drop"), _injecting("resume", "drop")),
    Fault("drips", _injecting("drip on", "drop"), _injecting("drip off", "drop")),
    Fault("name unknown", _injecting(), _injecting(), name_server="none"),
    Fault("name server silent", _injecting(), _injecting(), name_server="silent"),
)
