"""A printer in a test: build it, turn its clock, give it G-code, look at its status.

::

    with Host.from_text(CONFIG, tmp_path) as host:
        host.start()
        host.gcode("SET_HEATER_TEMPERATURE HEATER=panda_breath TARGET=45")
        host.advance(10)
        assert host.status("heater_generic panda_breath")["target"] == 45
"""

from __future__ import annotations

import functools
import gc
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Callable

from . import loader
from .clock import ManualClock, RealClock
from .printer import Printer
from .reactor import Reactor


class ScriptRun:
    """A script that runs in a reactor callback, where it may wait."""

    def __init__(self, host: Host, script: str) -> None:
        self.error: BaseException | None = None
        self.done = False
        self._gcode = host.printer.lookup_object("gcode")
        self._script = script
        host.reactor.register_callback(self._run)

    def _run(self, eventtime: float) -> None:
        try:
            self._gcode.run_script(self._script)
        except Exception as e:
            self.error = e
        finally:
            self.done = True


class Host:
    """One process' worth of printers: the current one, and those RESTART makes of it."""

    def __init__(
        self,
        config_file: str | os.PathLike[str],
        *,
        clock: ManualClock | RealClock | None = None,
        extras: Iterable[str | os.PathLike[str]] | None = None,
        apiserver: str | None = None,
        restart_delay: float = 1.0,
        **start_args: Any,
    ) -> None:
        loader.set_path(None if extras is None else [os.fspath(d) for d in extras])
        self.clock = ManualClock() if clock is None else clock
        self.start_args: dict[str, Any] = {
            "config_file": os.fspath(config_file),
            "apiserver": apiserver,
            "start_reason": "startup",
            "software_version": "stub",
            **start_args,
        }
        self.restart_delay = restart_delay
        self._is_closed = False
        self._build()

    @classmethod
    def from_text(cls, config: str, directory: str | os.PathLike[str], **kwargs: Any) -> Host:
        """Write the configuration to ``printer.cfg`` in `directory` and build its printer."""
        path = Path(directory) / "printer.cfg"
        path.write_text(config)
        return cls(path, **kwargs)

    def _build(self) -> None:
        self.reactor = Reactor(self.clock)
        self.printer = Printer(self.reactor, None, self.start_args)
        self.responses: list[str] = []  # of this printer; RESTART begins a new list
        self.printer.lookup_object("gcode").register_output_handler(self.responses.append)

    # Turning
    def start(self) -> str:
        """Let the printer connect; return the category of its state. Time stands still."""
        self.printer.guarded_run(lambda: self.reactor.run_until(None, 0.0))
        return self.state

    def advance(self, seconds: float) -> None:
        """Run everything that is due in the next `seconds`, each thing at its exact time.

        A RESTART on the way builds the next printer, which runs for what is left.
        """
        self.run_until(lambda: False, seconds)

    def run_until(self, predicate: Callable[[], bool], limit: float) -> bool:
        """Run until `predicate()` holds, at most `limit` seconds of this clock."""
        end = self.clock.monotonic() + limit
        while True:
            left = max(0.0, end - self.clock.monotonic())
            self.printer.guarded_run(functools.partial(self.reactor.run_until, predicate, left))
            result = self.printer.run_result
            if result is None or result in ("exit", "error_exit"):
                return predicate()
            self._restart()

    def wait_real(self, predicate: Callable[[], bool], seconds: float = 5.0) -> bool:
        """Wait for another thread in real time; a manual clock stands still meanwhile."""
        end = time.monotonic() + seconds
        while not self.run_until(predicate, 0.0):
            if time.monotonic() > end:
                return False
            time.sleep(0.001)
        return True

    def _restart(self) -> None:
        result = self.printer.finish()
        # klippy sleeps for a second here, with the old printer's threads still about
        self.clock.sleep_until(self.clock.monotonic() + self.restart_delay)
        self.reactor.finalize()
        self.start_args["start_reason"] = result
        self.reactor = self.printer = None  # type: ignore[assignment]
        gc.collect()  # klippy does: without it memory creeps up a little before it levels out
        self._build()

    def restart(self, command: str = "RESTART", limit: float = 10.0) -> str:
        """RESTART or FIRMWARE_RESTART, and let the next printer connect."""
        old = self.printer
        self.launch(command)
        self.run_until(lambda: self.printer is not old, limit)
        assert self.printer is not old, f"{command} did not happen in {limit} s"
        return self.start()

    def close(self) -> None:
        """End this printer as an exit does: klippy:disconnect, then no threads are left."""
        if not self._is_closed:
            self._is_closed = True
            self.printer.request_exit("exit")
            self.printer.finish()
            self.reactor.finalize()

    def __enter__(self) -> Host:
        return self

    def __exit__(self, *exc: Any) -> None:
        self.close()

    # G-code
    def launch(self, script: str) -> ScriptRun:
        """Queue a script and return at once; it runs while the clock is turned."""
        return ScriptRun(self, script)

    def gcode(self, script: str, limit: float = 0.0) -> list[str]:
        """Run a script to its end and return what was answered meanwhile.

        A script that waits needs a `limit` in seconds of this clock. Errors are raised.
        """
        responses = self.responses
        first = len(responses)
        old = self.printer
        run = self.launch(script)
        self.run_until(lambda: run.done or self.printer is not old, limit)
        if run.error is not None:
            raise run.error
        if not run.done and self.printer is old:
            raise TimeoutError(f"G-code still runs after {limit} s: {script!r}")
        return responses[first:]

    # Looking
    @property
    def state(self) -> str:
        """The category of the printer's state: startup, ready, error, shutdown."""
        return self.printer.get_state_message()[1]

    @property
    def message(self) -> str:
        """The words of the printer's state."""
        return self.printer.get_state_message()[0]

    @property
    def reason(self) -> str:
        """The first line of those words, without klippy's advice."""
        return self.message.strip().split("\n")[0]

    def lookup(self, name: str) -> Any:
        """Return a printer object."""
        return self.printer.lookup_object(name)

    def heater(self, name: str) -> Any:
        """Return a heater by the last word of its name."""
        return self.lookup("heaters").lookup_heater(name)

    def status(self, name: str) -> dict[str, Any]:
        """Return an object's status, asked for as the API socket asks."""
        obj = self.lookup(name)
        status: dict[str, Any] = self.reactor.call_without_pausing(
            lambda: obj.get_status(self.reactor.monotonic())
        )
        return status
