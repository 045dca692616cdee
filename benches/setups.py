"""The printers that are measured side by side: plain, with our module, with the community's."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from printers import SHIM, KlippyPrinter, Printer, PrinterError, StubPrinter
from simulated import Simulated

ROOT = Path(__file__).resolve().parent.parent
PLAIN, OURS, COMMUNITY = "plain", "ours", "community module"
LOCAL = "plain with a heater"  # of Klipper's own, see localheater.py
HEATER = "panda_breath"
LATENESS = Path(__file__).with_name("lateness.py")
SHIMCLOCK = Path(__file__).with_name("shimclock.py")
LOCAL_HEATER = Path(__file__).with_name("localheater.py")

LOCAL_CONFIG = """
[localheater]

[heater_generic panda_breath]
heater_pin: localheater:pwm
sensor_type: localheater
control: watermark
min_temp: 0
max_temp: 80

[verify_heater panda_breath]
check_gain_time: 360
max_error: 7200
"""

COMMUNITY_CONFIG = """
[panda_breath]
firmware: stock
host: {host}
port: {port}

[heater_generic panda_breath]
heater_pin: panda_breath:pwm
sensor_type: panda_breath
control: watermark
max_delta: 0.5
min_temp: 0
max_temp: 80

[verify_heater panda_breath]
check_gain_time: 360
hysteresis: 5
heating_gain: 1
max_error: 7200
"""


class _Prefixed(Printer):
    """A printer whose klippy is run by another command, which must end in exec."""

    prefix: Sequence[str] = ()

    def command(self) -> list[str]:
        return [*self.prefix, *super().command()]


class _Stub(_Prefixed, StubPrinter):
    pass


class _Klippy(_Prefixed, KlippyPrinter):
    pass


@dataclass
class Bench:
    """What all benchmarks of a run share."""

    folder: Path
    quick: bool = False
    klipper_dir: Path | None = None
    python: Path | None = None
    anchor: Path | None = None
    random: random.Random = field(default_factory=lambda: random.Random(1))
    _made: int = 0
    _copying: threading.Lock = field(default_factory=threading.Lock)

    @property
    def kinds(self) -> list[str]:
        """The setups of this run."""
        return [PLAIN, OURS, *([COMMUNITY] if self.anchor else [])]

    @property
    def rivals(self) -> list[str]:
        """Those of them that have a device."""
        return self.kinds[1:]

    def pick(self, full: int, quick: int) -> int:
        return quick if self.quick else full

    def config(self, kind: str, port: int, host: str = "127.0.0.1", extra: str = "") -> str:
        if kind == OURS:
            return f"[panda_breath]\nhost: {host}\nport: {port}\n{extra}"
        if kind == COMMUNITY:
            return COMMUNITY_CONFIG.format(host=host, port=port) + extra
        return (LOCAL_CONFIG if kind == LOCAL else "") + extra

    def printer(
        self,
        kind: str,
        config: str,
        extras: Sequence[Path] = (),
        prefix: Sequence[str] = (),
    ) -> Printer:
        """Not started yet."""
        self._made += 1
        workdir = self.folder / f"printer{self._made}"
        module = {OURS: SHIM, COMMUNITY: self.anchor, LOCAL: LOCAL_HEATER}.get(kind)
        modules = [path for path in (module, *extras) if path is not None]
        printer: _Prefixed
        if self.klipper_dir is None:
            # The stub is given folders, and the module's is among them in any case.
            printer = _Stub(config, workdir, [*modules, SHIM])
        else:
            assert self.python is not None
            printer = _Klippy(config, workdir, self._checkout(kind), self.python, modules)
        printer.prefix = prefix
        return printer

    def _checkout(self, kind: str) -> Path:
        """A copy per setup: they run at the same time, and the user's own stays untouched."""
        assert self.klipper_dir is not None
        copy = self.folder / ("klipper-" + kind.replace(" ", "-"))
        with self._copying:
            if not copy.exists():
                copy.mkdir()
                for entry in self.klipper_dir.iterdir():
                    if entry.name == "klippy":
                        shutil.copytree(entry, copy / "klippy", symlinks=True)
                    else:
                        (copy / entry.name).symlink_to(entry)
        return copy


def wait_connected(kind: str, printer: Printer, device: Simulated, timeout: float = 30.0) -> None:
    """Until the device's first reading has reached Klipper."""
    if kind == PLAIN:
        return

    def connected() -> bool:
        status = printer.query({"heater_generic " + HEATER: ["temperature"]})
        return bool(status["heater_generic " + HEATER]["temperature"])

    printer.wait_for(connected, timeout)


def set_target(printer: Printer, target: float, heater: str = HEATER) -> float:
    """Set a target; the time just before that was sent to klippy."""
    at = time.monotonic()
    printer.gcode(f"SET_HEATER_TEMPERATURE HEATER={heater} TARGET={target:g}")
    return at


def from_environment(folder: Path, quick: bool) -> Bench:
    """As `make bench` is told."""
    found = {
        name: Path(value).expanduser().absolute()
        for name in ("KLIPPER_DIR", "KLIPPY_PYTHON", "ANCHOR_MODULE")
        if (value := os.environ.get(name))
    }
    klipper_dir = found.get("KLIPPER_DIR")
    anchor = found.get("ANCHOR_MODULE")
    if klipper_dir is not None and "KLIPPY_PYTHON" not in found:
        raise PrinterError("KLIPPER_DIR is set but KLIPPY_PYTHON is not")
    if anchor is not None and klipper_dir is None:
        raise PrinterError("ANCHOR_MODULE needs KLIPPER_DIR and KLIPPY_PYTHON")
    for path in found.values():
        if not path.exists():
            raise PrinterError(f"{path} does not exist")
    return Bench(folder, quick, klipper_dir, found.get("KLIPPY_PYTHON"), anchor)


def stop(printer: Printer) -> None:
    """Close a printer whatever has become of it."""
    with contextlib.suppress(PrinterError):
        printer.close()
