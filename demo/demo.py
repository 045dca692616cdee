"""Heat a simulated chamber through Klipper, lose the link on the way, and turn off.

`make demo` runs this. The device is `panda-breath simulate`, a process of its own with real sockets
and a chamber that warms up faster than a real one. The printer is klippy_stub, or the Klipper or
Kalico that KLIPPER_DIR names. What came of it is not said here but by judge.py, which reads the
simulator's log and nothing else.

FAULT in the environment breaks something on the way: mute, hang or fault.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from judge import Log  # noqa: E402
from printers import Printer, PrinterError, printer_from_environment  # noqa: E402

TARGET = 45
SPEED = 40  # simulated seconds per second
FIRMWARE = "1.0.3"
SECTION = "[panda_breath]\nhost: 127.0.0.1\n"
CUT_AT = 30  # C
REFUSED = 1  # s during which the device takes no new connection after the cut
FAULT_AT = 36  # C
FAULTS = {"mute": "mute 600", "hang": "hang all", "fault": "fault ptc-open"}
NO_READING = 12.0  # s without one until the demo gives up
HEATING = 60.0  # s, at the most
CONFIRMING = 10.0  # s, at the most
HOLD = 3  # s at the target


class DemoError(Exception):
    """It went wrong, and why."""


class Simulator:
    """The simulated device's process."""

    def __init__(self, folder: Path) -> None:
        self.log_path = folder / "simulator.log"
        command = [
            str(Path(sys.executable).parent / "panda-breath"),
            "simulate",
            *("--firmware", FIRMWARE),
            *("--speed", str(SPEED)),
            *("--log", str(self.log_path)),
            *("--inject", "-"),
        ]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        first_line = self.process.stdout.readline()
        match = re.match(r"listening on ws://127\.0\.0\.1:(\d+)/ws$", first_line.strip())
        if match is None:
            self.close()
            raise DemoError(f"the simulator does not start: {first_line.strip() or 'no output'}")
        self.port = int(match[1])

    def inject(self, command: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


@contextmanager
def simulator(folder: Path) -> Iterator[Simulator]:
    device = Simulator(folder)
    try:
        yield device
    finally:
        device.close()


class Screen:
    """One line per second, and what Klipper's console says in between."""

    def __init__(self, printer: Printer) -> None:
        self.printer = printer
        self.started_at = time.monotonic()
        self.console_seen = 0
        print("  time   target   reading   device        link")

    def now(self) -> float:
        return time.monotonic() - self.started_at

    def note(self, text: str) -> None:
        print(f"{self.now():5.1f} s  ** {text}", flush=True)

    def tick(self) -> dict[str, Any]:
        """Wait for the next full second and show what Klipper's status says then."""
        time.sleep(1.0 - self.now() % 1.0)
        status: dict[str, Any] = self.printer.query({"panda_breath": None})["panda_breath"]
        console = self.printer.console()
        for text in console[self.console_seen :]:
            for line in text.splitlines():
                print(f"           {line}")
        self.console_seen = len(console)
        reading = "-" if status["temperature"] is None else f"{status['temperature']:.0f} C"
        device = "-"
        if status["device_on"] is not None:
            device = f"on, {status['device_target']} C" if status["device_on"] else "off"
        print(
            f"{self.now():5.0f} s   {status['target']:4.0f} C   {reading:>7}   {device:<12}  "
            f"{status['link']}",
            flush=True,
        )
        return status


class Demo:
    def __init__(self, printer: Printer, device: Simulator, fault: str) -> None:
        self.printer = printer
        self.device = device
        self.fault = fault
        self.screen = Screen(printer)

    def run(self) -> None:
        self._connect()
        try:
            self._heat()
            for _ in range(HOLD):
                self.screen.tick()
        finally:
            self._turn_off()

    def _connect(self) -> None:
        give_up_at = time.monotonic() + NO_READING
        while self.screen.tick()["temperature"] is None:
            if time.monotonic() > give_up_at:
                raise DemoError(f"no reading within {NO_READING:g} s")

    def _heat(self) -> None:
        self.screen.note(f"SET_HEATER_TEMPERATURE HEATER=panda_breath TARGET={TARGET}")
        self.printer.gcode(f"SET_HEATER_TEMPERATURE HEATER=panda_breath TARGET={TARGET}")
        give_up_at = time.monotonic() + HEATING
        reading_at = time.monotonic()
        is_cut = is_broken = False
        while True:
            status = self.screen.tick()
            now = time.monotonic()
            reading = status["temperature"]
            if status["target"] == 0.0:
                raise DemoError("Klipper's target was dropped")
            if reading is not None and status["reading_age"] < 2.0:
                reading_at = now
            elif now - reading_at > NO_READING:
                raise DemoError(f"no reading for {NO_READING:g} s")
            elif now > give_up_at:
                raise DemoError(f"not at {TARGET} C after {HEATING:g} s")
            if reading is None:
                continue
            if reading >= TARGET:
                return
            if reading >= CUT_AT and not is_cut:
                is_cut = True
                self.screen.note(f"the link is cut; the device takes no new one for {REFUSED} s")
                self.device.inject(f"refuse {REFUSED}")
                self.device.inject("drop")
            if reading >= FAULT_AT and self.fault and not is_broken:
                is_broken = True
                self.screen.note(f"FAULT={self.fault}: the device gets '{FAULTS[self.fault]}'")
                self.device.inject(FAULTS[self.fault])

    def _turn_off(self) -> None:
        """Off, and a look at whether that is known; the judge looks again."""
        self.screen.note("SET_HEATER_TEMPERATURE HEATER=panda_breath TARGET=0")
        self.printer.gcode("SET_HEATER_TEMPERATURE HEATER=panda_breath TARGET=0")
        give_up_at = time.monotonic() + CONFIRMING
        while time.monotonic() < give_up_at:
            self.screen.tick()
            if Log.read(self.device.log_path).off_is_confirmed():
                self.screen.note("off, confirmed over a fresh connection")
                return


def start(folder: Path, device: Simulator) -> Printer:
    config = f"{SECTION}port: {device.port}\n"
    printer = printer_from_environment(config, folder / "printer")
    where = os.environ.get("KLIPPER_DIR") or "klippy_stub"
    print(f"Simulated Panda Breath {FIRMWARE}, {SPEED} times as fast. Printer: {where}, with\n")
    print("".join(f"    {line}\n" for line in config.splitlines()), flush=True)
    return printer


def main() -> int:
    fault = os.environ.get("FAULT", "")
    dialect = os.environ.get("DIALECT") or "stock"
    if dialect != "stock":
        print(f"demo: failed, DIALECT={dialect} is not built yet; choose stock")
        return 2
    if fault and fault not in FAULTS:
        print(f"demo: failed, FAULT={fault} is unknown; choose one of {', '.join(FAULTS)}")
        return 2
    folder = ROOT / "target" / "demo"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    problem = None
    try:
        with simulator(folder) as device, start(folder, device) as printer:
            Demo(printer, device, fault).run()
    except (DemoError, PrinterError) as error:
        problem = str(error)
        print(f"Gave up: {problem}")
    except KeyboardInterrupt:
        return 130
    print(f"Logs: {folder.relative_to(ROOT)}", flush=True)
    judge = [sys.executable, str(ROOT / "demo" / "judge.py")]
    arguments = ["--target", str(TARGET), "--speed", str(SPEED), str(folder / "simulator.log")]
    code = subprocess.run([*judge, *arguments]).returncode
    if code == 0 and problem is not None:
        print(f"demo: failed, {problem}")
        return 1
    return code


if __name__ == "__main__":
    sys.exit(main())
