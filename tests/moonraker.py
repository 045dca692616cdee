"""Moonraker, the real one from PyPI, for a test: its environment, its process, its HTTP API."""

from __future__ import annotations

import contextlib
import fcntl
import json
import socket
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Callable, TypeVar

from printers import ROOT
from simulator import wait_for

MOONRAKER = "moonraker==0.11.0"
ENV = ROOT / "target" / "moonraker-env"
LIMIT = 60.0  # s that an answer may take: G-code is answered when it is done

CONFIG = """
[server]
host: 127.0.0.1
port: {port}
klippy_uds_address: {klippy}
[machine]
provider: none
validate_service: False
validate_config: False
[authorization]
trusted_clients:
    127.0.0.1
[announcements]
# Else it asks the network.
dev_mode: True
[history]
"""

T = TypeVar("T")


class MoonrakerError(Exception):
    """Moonraker did not do what was asked of it; the text is its own, or klippy's."""


def environment() -> Path:
    """The Python of an environment with Moonraker in it, made unless it is there."""
    python = ENV / "bin" / "python"
    ENV.parent.mkdir(exist_ok=True)
    # Tests run in several processes at once.
    with (ENV.parent / "moonraker-env.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        marker = ENV / ".installed"
        works = python.exists() and not _run(python, "-c", "import moonraker").returncode
        if works and marker.exists() and marker.read_text() == MOONRAKER:
            return python
        pip = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--retries", "1")
        for command in (
            (sys.executable, "-m", "venv", "--clear", ENV),
            (python, *pip, MOONRAKER),
        ):
            result = _run(*command)
            if result.returncode:
                raise MoonrakerError(f"{MOONRAKER} cannot be installed: {result.stderr}")
        marker.write_text(MOONRAKER)
    return python


def _run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True)


class Moonraker:
    """One Moonraker on one klippy; `data` is its data folder."""

    def __init__(self, data: Path, klippy: Path) -> None:
        python = environment()
        self.data = data
        for name in ("config", "gcodes", "logs"):
            (data / name).mkdir(parents=True, exist_ok=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        config = data / "config" / "moonraker.conf"
        config.write_text(CONFIG.format(port=port, klippy=klippy))
        self.output = data / "moonraker.out"
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [python, "-m", "moonraker", "-d", data, "-c", config],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=data,
            )
        try:
            self.wait_for(self._answers, "Moonraker answers")
        except BaseException:
            self.close()
            raise

    def _answers(self) -> bool:
        if self.process.poll() is not None:
            raise MoonrakerError(f"Moonraker has ended: {self.output.read_text()}")
        with contextlib.suppress(OSError):
            self.get("/server/info")
            return True
        return False

    # Its API

    def get(self, path: str, **parameters: Any) -> Any:
        """The result of a GET request."""
        return self._ask("GET", path, parameters)

    def post(self, path: str, **parameters: Any) -> Any:
        """The result of a POST request."""
        return self._ask("POST", path, parameters)

    def _ask(
        self,
        method: str,
        path: str,
        parameters: dict[str, Any],
        body: bytes = b"",
        kind: str = "text/plain",
    ) -> Any:
        # A parameter without a value is asked for whole, as front ends do.
        query = "&".join(
            urllib.parse.quote(name) + ("" if value is None else "=" + urllib.parse.quote(value))
            for name, value in parameters.items()
        )
        request = urllib.request.Request(
            f"{self.url}{path}?{query}",
            method=method,
            data=body if method == "POST" else None,
            headers={"Content-Type": kind},
        )
        try:
            with urllib.request.urlopen(request, timeout=LIMIT) as response:
                # As a browser reads it: NaN, which Python would take, is not JSON.
                return json.loads(response.read(), parse_constant=_refuse)["result"]
        except urllib.error.HTTPError as error:
            with error:
                message = json.loads(error.read())["error"]["message"]
            raise MoonrakerError(message) from None

    def query(self, *names: str) -> dict[str, Any]:
        """The status of printer objects."""
        answer = self.get("/printer/objects/query", **dict.fromkeys(names))
        status: dict[str, Any] = answer["status"]
        return status

    def gcode(self, script: str) -> None:
        """Run G-code and wait until it is done."""
        self.post("/printer/gcode/script", script=script)

    def upload(self, name: str, text: str) -> None:
        """Put a file into the printer's list, as a slicer does."""
        mark = uuid.uuid4().hex
        body = (
            f'--{mark}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
            f"Content-Type: application/octet-stream\r\n\r\n{text}\r\n--{mark}--\r\n"
        ).encode()
        request = urllib.request.Request(
            f"{self.url}/server/files/upload",
            data=body,
            headers={"Content-Type": f"multipart/form-data; boundary={mark}"},
        )
        with urllib.request.urlopen(request, timeout=LIMIT):
            pass

    def console(self) -> list[str]:
        """What stands in the console of a front end: what was typed, and what klippy said."""
        return [entry["message"] for entry in self.get("/server/gcode_store")["gcode_store"]]

    def history(self, sensor: str, field: str) -> list[float | None]:
        """What a front end draws as a curve; empty until Moonraker has asked for the sensors."""
        values: list[float | None] = self.histories().get(sensor, {}).get(field, [])
        return values

    def histories(self) -> dict[str, dict[str, list[float | None]]]:
        """All curves, by sensor and field."""
        store: dict[str, dict[str, list[float | None]]] = self.get("/server/temperature_store")
        return store

    def wait_for(self, predicate: Callable[[], T], what: str, timeout: float = 45.0) -> T:
        """Call `predicate` until it gives something true, and return that."""
        return wait_for(predicate, what, timeout)

    def state(self) -> str:
        """Klippy's, as Moonraker knows it."""
        state: str = self.get("/server/info")["klippy_state"]
        return state

    @contextlib.contextmanager
    def updates(self, *names: str) -> Iterator[Iterator[dict[str, Any]]]:
        """What changes in printer objects, as it is pushed to front ends.

        Over Moonraker's Unix socket: the messages are the same as over its websocket.
        """
        ask = {
            "jsonrpc": "2.0",
            "method": "printer.objects.subscribe",
            "params": {"objects": dict.fromkeys(names)},
            "id": 1,
        }
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(LIMIT)
            client.connect(str(self.data / "comms" / "moonraker.sock"))
            client.sendall(json.dumps(ask).encode() + b"\x03")
            yield _updates(client)

    # Its end

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> Moonraker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _updates(client: socket.socket) -> Iterator[dict[str, Any]]:
    data = b""
    while True:
        received = client.recv(65536)
        if not received:
            raise MoonrakerError("Moonraker closed the connection")
        *messages, data = (data + received).split(b"\x03")
        for text in messages:
            message = json.loads(text, parse_constant=_refuse)
            if message.get("id") == 1:
                yield message["result"]["status"]
            elif message.get("method") == "notify_status_update":
                yield message["params"][0]


def _refuse(constant: str) -> None:
    raise MoonrakerError(f"{constant} is not JSON")
