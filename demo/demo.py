"""Heat a simulated chamber through Klipper, lose the link on the way, and turn off.

`make demo` runs this. The device is `panda-breath simulate`, a process of its own with real sockets
and a chamber that warms up faster than a real one. The printer is klippy_stub, or the Klipper or
Kalico that KLIPPER_DIR names. What came of it is not said here but by judge.py, which reads the
simulator's log and nothing else.

DIALECT in the environment chooses how the device speaks: stock over its own WebSocket, esphome or
stock_mqtt at a private MQTT broker. What is lost on the way is the connection to the device, or for
the latter two the broker: it is stopped, sends Klipper's last will, which turns the heater off, and
is started again.

FAULT breaks something on the way: mute, hang or fault.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from broker import Broker, BrokerError, missing  # noqa: E402
from judge import DIALECTS, Log  # noqa: E402
from printers import Printer, PrinterError, printer_from_environment  # noqa: E402

TARGET = 45
SPEED = 40  # simulated seconds per second
FIRMWARE = "1.0.3"
CUT_AT = 30  # C
REFUSED = 1  # s during which nobody takes a new connection after the cut
RECONNECT = 0.5  # s after which a device tries its broker again; real ones take longer
UPDATE = 1  # s between two readings of an ESPHome node
FAULT_AT = 36  # C
FAULTS = {"mute": "mute 600", "hang": "hang all", "fault": "fault ptc-open"}
NODE_FAULT = "fault chamber-open"  # of the faults it knows, the one that it can tell
NO_READING = 12.0  # s without one until the demo gives up
HEATING = 60.0  # s, at the most
CONFIRMING = 10.0  # s, at the most
HOLD = 3  # s at the target


class DemoError(Exception):
    """It went wrong, and why."""


class Simulator:
    """The simulated device's process."""

    def __init__(self, folder: Path, dialect: str, broker: Broker | None) -> None:
        self.dialect = dialect
        self.broker = broker
        self.port = 0  # its own; over MQTT it is not asked there
        self.log_path = folder / "simulator.log"
        command = [
            str(Path(sys.executable).parent / "panda-breath"),
            "simulate",
            *("--dialect", dialect),
            *("--identity", "02" + os.urandom(5).hex()),  # beside another demo, it is another
            *("--speed", str(SPEED)),
            *("--log", str(self.log_path)),
            *("--inject", "-"),
        ]
        if dialect == "stock":
            command += ["--firmware", FIRMWARE]
        if dialect == "esphome":
            command += ["--update-seconds", str(UPDATE)]
        if broker is not None:
            command += ["--broker", broker.url, "--reconnect-seconds", str(RECONNECT)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        try:
            self._wait_until_it_is_there()
        except DemoError:
            self.close()
            raise

    def _wait_until_it_is_there(self) -> None:
        assert self.process.stdout is not None
        first_line = self.process.stdout.readline().strip()
        match = re.match(r"listening on ws://127\.0\.0\.1:(\d+)/ws$", first_line)
        if match is not None:
            self.port = int(match[1])
        elif not first_line.startswith("publishing as "):
            raise DemoError(f"the simulator does not start: {first_line or 'no output'}")
        give_up_at = time.monotonic() + NO_READING
        while self.broker is not None and not any(self.log().of("open")):
            if time.monotonic() > give_up_at:
                raise DemoError("the simulated device does not reach the broker")
            time.sleep(0.05)

    @property
    def section(self) -> str:
        """Of printer.cfg."""
        if self.broker is None:
            return f"[panda_breath]\nhost: 127.0.0.1\nport: {self.port}\n"
        return (
            f"[panda_breath]\nfirmware: {self.dialect}\n"
            f"mqtt_broker: {self.broker.host}\nmqtt_port: {self.broker.port}\n"
        )

    def log(self) -> Log:
        return Log.read(self.log_path, self.dialect)

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
def simulator(folder: Path, dialect: str) -> Iterator[Simulator]:
    """A device, and the broker that it needs."""
    with ExitStack() as stack:
        broker = None
        if dialect != "stock":
            broker = stack.enter_context(Broker(folder / "broker"))
        device = Simulator(folder, dialect, broker)
        stack.callback(device.close)
        yield device


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
            device = f"on, {status['device_target'] or 0:g} C" if status["device_on"] else "off"
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
        self.broker_back_at: float | None = None

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
            self._mend()
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
                self._cut()
            if reading >= FAULT_AT and self.fault and not is_broken:
                is_broken = True
                command = FAULTS[self.fault]
                if self.fault == "fault" and self.device.dialect == "esphome":
                    command = NODE_FAULT
                self.screen.note(f"FAULT={self.fault}: the device gets '{command}'")
                self.device.inject(command)

    def _cut(self) -> None:
        broker = self.device.broker
        if broker is None:
            self.screen.note(f"the link is cut; the device takes no new one for {REFUSED} s")
            self.device.inject(f"refuse {REFUSED}")
            self.device.inject("drop")
            return
        self.screen.note(f"the broker is stopped, for {REFUSED} s")
        self.broker_back_at = time.monotonic() + REFUSED
        broker.stop()

    def _mend(self) -> None:
        if self.broker_back_at is not None and self.device.broker is not None:
            time.sleep(max(0.0, self.broker_back_at - time.monotonic()))
            self.broker_back_at = None
            self.device.broker.start()
            self.screen.note("the broker runs again")

    def _turn_off(self) -> None:
        """Off, and a look at whether that is known; the judge looks again."""
        self.screen.note("SET_HEATER_TEMPERATURE HEATER=panda_breath TARGET=0")
        self.printer.gcode("SET_HEATER_TEMPERATURE HEATER=panda_breath TARGET=0")
        give_up_at = time.monotonic() + CONFIRMING
        while time.monotonic() < give_up_at:
            self.screen.tick()
            if self.device.log().off_is_confirmed():
                by = "by the device" if self.device.broker else "over a fresh connection"
                self.screen.note(f"off, confirmed {by}")
                return


def start(folder: Path, device: Simulator) -> Printer:
    printer = printer_from_environment(device.section, folder / "printer")
    where = os.environ.get("KLIPPER_DIR") or "klippy_stub"
    kind = FIRMWARE if device.broker is None else f"with {device.dialect}, at a private broker"
    print(f"Simulated Panda Breath {kind}, {SPEED} times as fast. Printer: {where}, with\n")
    print("".join(f"    {line}\n" for line in device.section.splitlines()), flush=True)
    return printer


def main() -> int:
    fault = os.environ.get("FAULT", "")
    dialect = os.environ.get("DIALECT") or "stock"
    if dialect not in DIALECTS:
        print(f"demo: failed, DIALECT={dialect} is unknown; choose one of {', '.join(DIALECTS)}")
        return 2
    if fault and fault not in FAULTS:
        print(f"demo: failed, FAULT={fault} is unknown; choose one of {', '.join(FAULTS)}")
        return 2
    lacking = missing() if dialect != "stock" else None
    if lacking:
        print(f"demo: failed, {lacking}")
        return 2
    folder = ROOT / "target" / "demo"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    problem = None
    try:
        with simulator(folder, dialect) as device, start(folder, device) as printer:
            Demo(printer, device, fault).run()
    except (BrokerError, DemoError, PrinterError) as error:
        problem = str(error)
        print(f"Gave up: {problem}")
    except KeyboardInterrupt:
        return 130
    print(f"Logs: {folder.relative_to(ROOT)}", flush=True)
    judge = [sys.executable, str(ROOT / "demo" / "judge.py")]
    arguments = ["--target", str(TARGET), "--speed", str(SPEED), "--dialect", dialect]
    arguments.append(str(folder / "simulator.log"))
    code = subprocess.run([*judge, *arguments]).returncode
    if code == 0 and problem is not None:
        print(f"demo: failed, {problem}")
        return 1
    return code


if __name__ == "__main__":
    sys.exit(main())
