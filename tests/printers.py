"""One interface over two kinds of printer, for the tests and the demo.

`StubPrinter` runs klippy_stub, `KlippyPrinter` a real Klipper or Kalico with Klipper's host-process
MCU. Both are spoken to over klippy's API socket. `printer_from_environment` picks one:

    KLIPPER_DIR    a Klipper or Kalico checkout with out/klipper.elf built; the stub when unset
    KLIPPY_PYTHON  the interpreter klippy runs with; our wheel must be installed in it
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Callable, TypeVar

import reaper

ROOT = Path(__file__).resolve().parent.parent
SHIM = ROOT / "python" / "panda_breath.py"
PINS = ROOT / "tests" / "imagined_pins.py"  # for sections that want a pin, on real klippy
POLL = 0.01  # s between two looks at something that cannot be waited for

T = TypeVar("T")
P = TypeVar("P", bound="Printer")


class PrinterError(Exception):
    """The printer did not do what was asked of it."""


class GcodeError(PrinterError):
    """Klippy refused the G-code; the text is klippy's own."""


class PrinterTimeoutError(PrinterError):
    """No answer, or not the awaited state, in time."""


class PrinterGoneError(PrinterError):
    """Klippy closed the connection, as it does at each RESTART."""


class Reply:
    """The answer to one request, now or later."""

    def __init__(self, request: str) -> None:
        self.request = request
        self.arrived = threading.Event()
        self.message: dict[str, Any] = {}

    def done(self) -> bool:
        return self.arrived.is_set()

    def wait(self, timeout: float = 30.0) -> dict[str, Any]:
        """The result, or the error raised."""
        if not self.arrived.wait(timeout):
            raise PrinterTimeoutError(f"no answer to {self.request} within {timeout:g} s")
        if "gone" in self.message:
            raise PrinterGoneError(
                f"klippy closed the connection before it answered {self.request}"
            )
        error = self.message.get("error")
        if error is not None:
            text = str(error.get("message", error))
            if self.request == "gcode/script":
                raise GcodeError(text)
            raise PrinterError(f"{self.request}: {text}")
        result: dict[str, Any] = self.message.get("result", {})
        return result


class Connection:
    """One connection to klippy's API socket: JSON objects, each ended by 0x03."""

    def __init__(self, path: Path, on_console: Callable[[str], None]) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # Not blocking yet: klippy listens with a backlog of 1, and connect() could wait for as
            # long as its reactor stands still.
            self.sock.setblocking(False)
            self.sock.connect(str(path))
            self.sock.setblocking(True)
        except OSError:
            self.sock.close()
            raise
        self.on_console = on_console
        self.lock = threading.Lock()
        self.pending: dict[int, Reply] = {}
        self.last_id = 0
        self.closed = threading.Event()
        self.reader = threading.Thread(target=self._read, name="klippy-api", daemon=True)
        self.reader.start()

    def send(self, method: str, params: Mapping[str, Any]) -> Reply:
        reply = Reply(method)
        with self.lock:
            if self.closed.is_set():
                raise PrinterGoneError(f"klippy closed the connection before {method} was sent")
            self.last_id += 1
            self.pending[self.last_id] = reply
            request = {"id": self.last_id, "method": method, "params": params}
            try:
                self.sock.sendall(json.dumps(request).encode() + b"\x03")
            except OSError as error:
                del self.pending[self.last_id]
                raise PrinterGoneError(f"{method} could not be sent: {error}") from error
        return reply

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.reader.join()

    def _read(self) -> None:
        data = b""
        try:
            with contextlib.suppress(OSError):
                while received := self.sock.recv(65536):
                    *messages, data = (data + received).split(b"\x03")
                    for message in messages:
                        self._take(json.loads(message))
        finally:
            with self.lock:
                self.closed.set()
                self.sock.close()
                left, self.pending = self.pending, {}
            for reply in left.values():
                reply.message = {"gone": True}
                reply.arrived.set()

    def _take(self, message: dict[str, Any]) -> None:
        if "id" not in message:
            self.on_console(str(message["params"]["response"]))
            return
        with self.lock:
            reply = self.pending.pop(message["id"])
        reply.message = message
        reply.arrived.set()


class Printer:
    """A klippy, real or not, and what was started along with it."""

    def __init__(self, config_text: str, workdir: Path) -> None:
        self.workdir = Path(workdir).resolve()
        self.workdir.mkdir(parents=True, exist_ok=True)
        self.config_path = self.workdir / "printer.cfg"
        self.log_path = self.workdir / "klippy.log"
        self.output_path = self.workdir / "klippy.out"  # stdout and stderr
        # A folder of its own: a Unix socket's path has at most 107 characters, which the work
        # folder of a test may exceed, and Klipper knows the pseudo-terminal of a host-process MCU
        # by this beginning of its name (klippy/mcu.py).
        self._mark = uuid.uuid4().hex
        self._run_dir = Path(f"/tmp/klipper_host_{self._mark[:12]}")
        self._reaper: subprocess.Popen[bytes] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._others: list[subprocess.Popen[bytes]] = []
        self._claimed: list[Path] = []
        self._connection: Connection | None = None
        self._connecting = threading.Lock()
        self._console: list[str] = []
        self._news = threading.Condition()
        self.write_config(config_text)

    # What differs between the kinds

    def complete_config(self, text: str) -> str:
        """The configuration with what this printer needs besides to become ready."""
        sections = {line.split("]")[0] for line in text.splitlines() if line.startswith("[")}
        if "[printer" not in sections:
            text = f"[printer]\nkinematics: none\nmax_velocity: 300\nmax_accel: 3000\n\n{text}"
        if "[mcu" not in sections:
            text = f"[mcu]\nserial: {self._run_dir / 'mcu'}\n\n{text}"
        return text

    def installs(self) -> Mapping[Path, Path]:
        """Files to be in place while the printer runs: the source, by its place."""
        return {}

    def start_mcu(self, timeout: float) -> None:
        """Start what klippy needs to run before it."""

    def command(self) -> list[str]:
        """The command that runs klippy, without API socket and log."""
        raise NotImplementedError

    def environment(self) -> Mapping[str, str]:
        """Environment variables for klippy besides the inherited ones."""
        return {}

    # Start and end

    def start(self, timeout: float = 30.0) -> None:
        """Start klippy and wait until it is ready. Where that fails, nothing is left running."""
        deadline = time.monotonic() + timeout
        try:
            self.launch(timeout)
            self.wait_ready(deadline - time.monotonic())
        except BaseException:
            self.close()
            raise

    def launch(self, timeout: float = 30.0) -> None:
        """Start klippy, also after it has ended, and do not wait for it."""
        if self._process is not None and self._process.poll() is None:
            raise PrinterError("the printer is already running")
        self._disconnect()
        if self._process is not None:
            _bury(self._process)
        self.prepare()
        self.start_mcu(timeout)
        command = [*self.command(), "-a", str(self.api_path), "-l", str(self.log_path)]
        self._process = self._spawn(command, self.environment())

    def restart(self, kind: str = "RESTART", timeout: float = 30.0) -> None:
        """RESTART or FIRMWARE_RESTART, then wait until klippy is ready."""
        deadline = time.monotonic() + timeout
        self._begin_restart(kind, deadline, timeout)
        try:
            self.wait_ready(deadline - time.monotonic())
        except PrinterError as error:
            # Klippy leaves the MCU 15 ms for its reset: too few where many run. As it then says:
            if kind != "FIRMWARE_RESTART" or "config as it is shutdown" not in str(error):
                raise
            self._begin_restart(kind, deadline, timeout)
            self.wait_ready(deadline - time.monotonic())

    def _begin_restart(self, kind: str, deadline: float, timeout: float) -> None:
        connection = self._connect(deadline)
        reply = connection.send("gcode/script", {"script": kind})
        # Accepted when the connection ends; whether klippy answers before is up to chance.
        while not connection.closed.wait(POLL):
            if reply.done():
                with contextlib.suppress(PrinterGoneError):
                    reply.wait(0.0)
            if time.monotonic() > deadline:
                raise PrinterTimeoutError(
                    self._report(f"{kind} was not begun within {timeout:g} s")
                )

    def wait_ready(self, timeout: float = 30.0) -> None:
        """Wait until klippy is ready; raise if it gives up."""
        deadline = time.monotonic() + timeout
        while True:
            # Klippy closes the connection and begins anew when it finds the MCU in a state that
            # only a restart of the MCU can end.
            with contextlib.suppress(PrinterGoneError):
                reply = self._connect(deadline).send("info", {})
                if reply.arrived.wait(max(0.0, deadline - time.monotonic())):
                    info = reply.wait()
                    if info["state"] == "ready":
                        return
                    if info["state"] != "startup":
                        text = f"{info['state']}: {info['state_message']}"
                        raise PrinterError(self._report(text))
            if time.monotonic() > deadline:
                raise PrinterTimeoutError(self._report(f"not ready within {timeout:g} s"))
            time.sleep(POLL)

    def close(self) -> None:
        """End everything that was started, whatever state it is in."""
        self._disconnect()
        if self._reaper is None:
            return
        reaper.end_marked(self._mark)
        # The reaper last, and killed, not let go: the files may by then be another printer's.
        _release(self._claimed)
        shutil.rmtree(self._run_dir, ignore_errors=True)
        self._reaper.kill()
        for process in (self._process, *self._others, self._reaper):
            if process is not None:
                _bury(process)
        self._others.clear()
        self._reaper = None

    def __enter__(self: P) -> P:
        if self._reaper is None:
            self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def prepare(self) -> None:
        """Put in place what klippy needs. It stays there until close()."""
        if self._reaper is not None:
            return
        self._run_dir.mkdir(mode=0o700)
        try:
            self._claimed = _claim(self.installs())
        except BaseException:
            self._run_dir.rmdir()
            raise
        # Ends what we started when this process is killed and close() never runs.
        self._reaper = reaper.start(self._mark, *self._claimed, self._run_dir)

    def _spawn(
        self, command: Sequence[str], environment: Mapping[str, str]
    ) -> subprocess.Popen[bytes]:
        with self.output_path.open("ab") as output:
            return subprocess.Popen(
                command,
                cwd=self.workdir,
                env={**os.environ, **environment, reaper.MARK: self._mark},
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C at the terminal is for the tests, not klippy
            )

    # Talking to it

    def send(self, method: str, params: Mapping[str, Any] | None = None) -> Reply:
        """Send any request of klippy's API server."""
        return self._connect(time.monotonic() + 5.0).send(method, params or {})

    def gcode(self, script: str, timeout: float = 30.0) -> None:
        """Run G-code and wait until it is done."""
        self.gcode_later(script).wait(timeout)

    def gcode_later(self, script: str) -> Reply:
        """Run G-code; the reply says when it is done."""
        return self.send("gcode/script", {"script": script})

    def query(
        self, objects: Mapping[str, Sequence[str] | None], timeout: float = 10.0
    ) -> dict[str, Any]:
        """The status of printer objects: whole for None, else the named fields."""
        answer = self.send("objects/query", {"objects": objects}).wait(timeout)
        status: dict[str, Any] = answer["status"]
        return status

    def objects(self, timeout: float = 10.0) -> list[str]:
        """The names of all printer objects that have a status."""
        names: list[str] = self.send("objects/list").wait(timeout)["objects"]
        return names

    def info(self, timeout: float = 10.0) -> dict[str, Any]:
        """What klippy says about itself; `state` and `state_message` among it."""
        return self.send("info").wait(timeout)

    def emergency_stop(self, timeout: float = 10.0) -> None:
        """Stop as the button of a front end does; klippy is in shutdown afterwards."""
        self.send("emergency_stop").wait(timeout)

    def console(self) -> list[str]:
        """What klippy has written to the console so far, one item per response."""
        with self._news:
            return list(self._console)

    def wait_for(self, predicate: Callable[[], T], timeout: float = 30.0) -> T:
        """Call `predicate` until it gives something true, and return that."""
        deadline = time.monotonic() + timeout
        while True:
            value = predicate()
            if value:
                return value
            if time.monotonic() > deadline:
                name = getattr(predicate, "__name__", "condition")
                raise PrinterTimeoutError(self._report(f"{name} not met within {timeout:g} s"))
            with self._news:
                self._news.wait(POLL)

    # Its process

    @property
    def api_path(self) -> Path:
        """Klippy's API socket, for others to connect to."""
        return self._run_dir / "api"

    @property
    def pid(self) -> int:
        """Klippy's process id; the same one after a RESTART."""
        if self._process is None:
            raise PrinterError("the printer was not started")
        return self._process.pid

    def signal(self, sig: int) -> None:
        """Send klippy, and nothing that it started, a signal."""
        if self._process is None:
            raise PrinterError("the printer was not started")
        self._process.send_signal(sig)

    def wait_exit(self, timeout: float = 30.0) -> int:
        """Wait until klippy's process has ended; its return code."""
        if self._process is None:
            raise PrinterError("the printer was not started")
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise PrinterTimeoutError(self._report(f"still running after {timeout:g} s")) from None

    def log_text(self) -> str:
        """Klippy's log so far."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def write_config(self, text: str) -> None:
        """A new configuration; in force after a RESTART."""
        self.config_path.write_text(self.complete_config(text))

    # Below

    def _connect(self, deadline: float) -> Connection:
        """The connection; a new one after klippy closed the last."""
        with self._connecting:
            if self._connection is not None and not self._connection.closed.is_set():
                return self._connection
            if self._process is None:
                raise PrinterError("the printer was not started")
            while True:
                code = self._process.poll()
                if code is not None:
                    raise PrinterError(self._report(f"klippy has ended with code {code}"))
                try:
                    connection = Connection(self.api_path, self._hear)
                    break
                except OSError as error:
                    if time.monotonic() > deadline:
                        raise PrinterTimeoutError(
                            self._report(f"no API socket: {error}")
                        ) from error
                time.sleep(POLL)
            self._connection = connection
            # Not waited for: klippy takes requests in order.
            connection.send("gcode/subscribe_output", {"response_template": {}})
            return connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _hear(self, text: str) -> None:
        with self._news:
            self._console.append(text)
            self._news.notify_all()

    def _report(self, message: str) -> str:
        """The message, and what klippy wrote last."""
        parts = [message]
        for path in (self.log_path, self.output_path):
            lines = path.read_text(errors="replace").splitlines() if path.exists() else []
            if lines:
                parts += [f"--- last lines of {path.name}", *lines[-25:]]
        return "\n".join(parts)


class StubPrinter(Printer):
    """klippy_stub: all of klippy that the module touches, and nothing else."""

    def __init__(self, config_text: str, workdir: Path, extras: Sequence[Path] = (SHIM,)) -> None:
        # Not copied: the stub is told where to look.
        self._folders = list(dict.fromkeys(str(Path(module).parent) for module in extras))
        super().__init__(config_text, workdir)

    def command(self) -> list[str]:
        return [sys.executable, "-m", "klippy_stub", str(self.config_path)]

    def environment(self) -> Mapping[str, str]:
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        return {
            "PYTHONPATH": os.pathsep.join(paths),
            "KLIPPY_STUB_EXTRAS": os.pathsep.join(self._folders),
        }


class KlippyPrinter(Printer):
    """Klipper or Kalico from a checkout, on Klipper's host-process MCU."""

    def __init__(
        self,
        config_text: str,
        workdir: Path,
        klipper_dir: Path,
        python: Path,
        extras: Sequence[Path] = (SHIM,),
    ) -> None:
        self.klipper_dir = Path(klipper_dir).resolve()
        self.python = Path(python).absolute()  # not resolved: it would leave its environment
        self.klippy = self.klipper_dir / "klippy" / "klippy.py"
        self.firmware = self.klipper_dir / "out" / "klipper.elf"
        if not self.klippy.is_file():
            raise PrinterError(f"{self.klipper_dir} is no Klipper checkout: no klippy/klippy.py")
        if not os.access(self.python, os.X_OK):
            raise PrinterError(f"{self.python} is not an executable Python")
        if not self.firmware.is_file():
            raise PrinterError(
                f"{self.firmware} is not built: in {self.klipper_dir} run 'make menuconfig', "
                "choose the micro-controller architecture 'Linux process', then run 'make'"
            )
        # Kalico has a folder for foreign modules; in mainline they go among its own.
        plugins = self.klipper_dir / "klippy" / "plugins"
        self.is_kalico = plugins.is_dir()
        folder = plugins if self.is_kalico else self.klipper_dir / "klippy" / "extras"
        self._installs = {folder / Path(source).name: Path(source) for source in extras}
        super().__init__(config_text, workdir)

    def complete_config(self, text: str) -> str:
        text = super().complete_config(text)
        if self.is_kalico and "[telemetry]" not in text:
            # Else it asks in the console at each start, between the lines that tests look for.
            text = f"[telemetry]\nenabled: False\n\n{text}"
        return text

    def installs(self) -> Mapping[Path, Path]:
        return self._installs

    def hold_checkout(self) -> None:
        """For printers of several processes: what they share in the checkout stays until close().

        Else each process would remove the module when it has no printer any more, and klippys that
        start for the first time would compile into one file at once.
        """
        self.prepare()
        subprocess.run(
            [str(self.python), str(self.klippy.parent / "chelper" / "__init__.py")],
            stdin=subprocess.DEVNULL,
            capture_output=True,  # klippy says it better
        )

    def start_mcu(self, timeout: float) -> None:
        # A new one each time: one left in shutdown would make a new klippy report an error.
        for mcu in self._others:
            mcu.kill()
            _bury(mcu)
        serial = self._run_dir / "mcu"
        serial.unlink(missing_ok=True)
        self._others = [self._spawn([str(self.firmware), "-I", str(serial)], {})]
        deadline = time.monotonic() + timeout
        while not serial.exists():
            if self._others[0].poll() is not None or time.monotonic() > deadline:
                raise PrinterError(self._report(f"{self.firmware} does not start"))
            time.sleep(POLL)

    def command(self) -> list[str]:
        return [
            str(self.python),
            str(self.klippy),
            str(self.config_path),
            "-I",  # else a terminal shared by all klippys of the machine
            str(self._run_dir / "tty"),
        ]


def printer_from_environment(
    config_text: str,
    workdir: Path,
    extras: Sequence[Path] = (SHIM,),
    environ: Mapping[str, str] = os.environ,
) -> Printer:
    """The printer that KLIPPER_DIR names, with these modules installed; or the stub."""
    klipper_dir = environ.get("KLIPPER_DIR")
    if not klipper_dir:
        return StubPrinter(config_text, workdir, extras)
    python = environ.get("KLIPPY_PYTHON")
    if not python:
        raise PrinterError(
            "KLIPPER_DIR is set but KLIPPY_PYTHON is not: it names the Python that runs klippy, "
            "such as ~/klippy-env/bin/python"
        )
    return KlippyPrinter(
        config_text, workdir, Path(klipper_dir).expanduser(), Path(python).expanduser(), extras
    )


_claims: dict[Path, int] = {}
_claims_lock = threading.Lock()


def _claim(installs: Mapping[Path, Path]) -> list[Path]:
    """Put the files in place and return those that are ours to remove.

    One that is there already must be the same, and stays.
    """
    with _claims_lock:
        for target, source in installs.items():
            if not source.is_file():
                raise PrinterError(f"{source} does not exist")
            if target.exists() and target.read_bytes() != source.read_bytes():
                raise PrinterError(f"{target} is in the way and is not {source}: remove it")
        ours = [target for target in installs if target in _claims or not target.exists()]
        for target in ours:
            if target not in _claims:
                shutil.copyfile(installs[target], target)
            _claims[target] = _claims.get(target, 0) + 1
        return ours


def _release(claimed: Sequence[Path]) -> None:
    """Remove the files that no printer of this process needs any more."""
    with _claims_lock:
        for target in claimed:
            _claims[target] -= 1
            if not _claims[target]:
                del _claims[target]
                reaper.remove_module(target)


def _bury(process: subprocess.Popen[bytes]) -> None:
    """Collect a process that was killed."""
    process.wait()
    if process.stdin is not None:
        process.stdin.close()
