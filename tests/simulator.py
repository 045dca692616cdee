"""Simulated devices for a test: `panda-breath simulate`, commands to it, and its log."""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Callable, TypeVar

COMMAND = "import sys, panda_breath_native; sys.exit(panda_breath_native.main())"
POLL = 0.005  # s between two looks at something that cannot be waited for
LIMIT = 30.0  # s that anything may take; only a failing test waits so long

T = TypeVar("T")
Entry = dict[str, Any]


def wait_for(predicate: Callable[[], T], what: str = "", timeout: float = LIMIT) -> T:
    """Call `predicate` until it gives something true, and return that."""
    deadline = time.monotonic() + timeout
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {timeout:g} s: {what or predicate}")
        time.sleep(POLL)


def unique_mac() -> str:
    """Of a device that no Klipper has yet: one of them has each, whoever runs it."""
    return "02" + os.urandom(5).hex()


class Simulator:
    """One process with one or more simulated devices on consecutive ports."""

    def __init__(self, folder: Path, *options: str, count: int = 1) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        if "--identity" not in options:
            options += ("--identity", unique_mac())
        self.log_path = folder / "simulator.jsonl"
        self.error_path = folder / "simulator.err"
        command = [sys.executable, "-c", COMMAND, "simulate", "--count", str(count)]
        command += ["--log", str(self.log_path), "--inject", "-", *options]
        with self.error_path.open("wb") as errors:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, cwd=folder
            )
        self.addresses: list[tuple[str, int]] = []
        self._entries: list[Entry] = []
        self._open: dict[int | None, int] = {}
        self._read = 0
        assert self.process.stdout is not None
        # Each device says where it listens, where it publishes, or both.
        left = {"listening": count, "publishing": count}
        if "esphome" in options:
            del left["listening"]
        if "--broker" not in options:
            del left["publishing"]
        while any(left.values()):
            line = self.process.stdout.readline().decode()
            word = line.partition(" ")[0]
            if word not in left:
                self.close()
                raise RuntimeError(f"no simulator: {line!r} {self.error_path.read_text()}")
            left[word] -= 1
            if word == "listening":
                host, _, port = line.split("//")[1].split("/")[0].rpartition(":")
                self.addresses.append((host, int(port)))

    @property
    def host(self) -> str:
        """The first device's address."""
        return self.addresses[0][0]

    @property
    def port(self) -> int:
        """The first device's port."""
        return self.addresses[0][1]

    def section(self, device: int = 0, name: str = "panda_breath", options: str = "") -> str:
        """The section of printer.cfg for a device."""
        host, port = self.addresses[device]
        return f"[{name}]\nhost: {host}\nport: {port}\n{options}\n"

    def inject(self, command: str) -> None:
        """Make something happen to the devices; returns once it is in the log."""
        assert self.process.stdin is not None
        mark = self.mark()
        self.process.stdin.write(command.encode() + b"\n")
        self.process.stdin.flush()
        self.wait_for("inject", mark)

    # Its log

    def entries(self) -> list[Entry]:
        """Everything so far."""
        with self.log_path.open("rb") as log:
            log.seek(self._read)
            data = log.read()
        whole = data.rfind(b"\n") + 1
        self._read += whole
        new = [json.loads(line) for line in data[:whole].splitlines()]
        self._open.update({e.get("device"): e["open"] for e in new if "open" in e})
        self._entries += new
        return self._entries

    def forget(self) -> None:
        """Drop what was read so far, so that a long test does not collect it."""
        self.entries()
        self._entries = []

    def mark(self) -> int:
        """How long the log is now: where to look for what comes next."""
        return len(self.entries())

    def find(self, event: str, since: int = 0, **fields: Any) -> Entry | None:
        """The first entry from `since` on that has all these fields."""
        for entry in self.entries()[since:]:
            if entry["event"] == event and fields.items() <= entry.items():
                return entry
        return None

    def wait_for(self, event: str, since: int = 0, **fields: Any) -> Entry:
        """Wait for such an entry."""
        found = wait_for(lambda: self.find(event, since, **fields), f"{event} {fields}")
        assert found is not None
        return found

    def frames(self, since: int = 0, device: int | None = None) -> list[Any]:
        """What clients have written, as far as it is text."""
        return [
            json.loads(entry["text"])["settings"]
            for entry in self.entries()[since:]
            if entry["event"] == "frame"
            and entry["opcode"] == "text"
            and entry.get("device") == device
        ]

    def open_sockets(self) -> int:
        """How many connections its devices have, all together."""
        self.entries()
        return sum(self._open.values())

    def snapshot(self) -> str:
        """What the first device tells a client that connects."""
        with socket.create_connection(self.addresses[0], LIMIT) as client:
            key = base64.b64encode(os.urandom(16)).decode()
            client.sendall(
                f"GET /ws HTTP/1.1\r\nHost: {self.host}\r\nConnection: Upgrade\r\n"
                f"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                f"Sec-WebSocket-Key: {key}\r\n\r\n".encode()
            )
            stream = client.makefile("rb")
            while stream.readline().strip():
                pass
            length = stream.read(2)[1]
            if length == 126:
                length = int.from_bytes(stream.read(2), "big")
            return stream.read(length).decode()

    # Its end

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()

    def __enter__(self) -> Simulator:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
