"""What all tests share: the shim over klippy_stub, and no skips where Klipper is there."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, Callable

import pytest

ROOT = Path(__file__).resolve().parent.parent
# klippy_stub, however pytest was started.
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

import reaper  # noqa: E402
from fake_native import Driver  # noqa: E402
from printers import PINS, SHIM, KlippyPrinter, PrinterError, printer_from_environment  # noqa: E402

from klippy_stub import Host, ManualClock  # noqa: E402

BASE = """
[mcu]
serial: /dev/null
[printer]
kinematics: none
max_velocity: 300
max_accel: 3000
"""

SECTION = """
[panda_breath]
host: 192.168.1.50
"""

Make = Callable[..., Host]


# A skip that nobody sees is a test that nobody has


def forbid_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("KLIPPER_DIR"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"skipped although KLIPPER_DIR is set: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    forbid_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    forbid_skip(report)
    return report


def pytest_configure(config: pytest.Config) -> None:
    for line in (
        "in_process: measures in the process of the tests, so not over the klippy of KLIPPER_DIR",
        "real_klippy: is about what klippy_stub does not have, so only over that of KLIPPER_DIR",
        "alone: what runs beside it disturbs it, so it comes after the tests that run at once",
    ):
        config.addinivalue_line("markers", line)
    if not hasattr(config, "workerinput"):  # pytest-xdist's; there it is held already
        hold_checkout(config)
    leave_nothing()


def hold_checkout(config: pytest.Config) -> None:
    """What the tests of several processes share in KLIPPER_DIR stays there until all have ended."""
    folder = tempfile.TemporaryDirectory()
    config.add_cleanup(folder.cleanup)
    with contextlib.suppress(PrinterError):  # the tests that need it say so
        printer = printer_from_environment("", Path(folder.name), (SHIM, PINS))
        if isinstance(printer, KlippyPrinter):
            config.add_cleanup(printer.close)
            printer.hold_checkout()


def leave_nothing() -> None:
    """Whatever the tests start ends with this process, even a guard that outlives its klippy."""
    mark = uuid.uuid4().hex
    os.environ[reaper.MARK] = mark
    reapers.append(reaper.start(mark))


reapers: list[subprocess.Popen[bytes]] = []  # kept: one that is forgotten would be let go


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    marker = "in_process" if os.environ.get("KLIPPER_DIR") else "real_klippy"
    out = [item for item in items if item.get_closest_marker(marker)]
    config.hook.pytest_deselected(items=out)
    items[:] = [item for item in items if item not in out]


def pytest_terminal_summary(terminalreporter: Any) -> None:
    klipper_dir = os.environ.get("KLIPPER_DIR")
    over = f"KLIPPER_DIR={klipper_dir}" if klipper_dir else "klippy_stub"
    counts = {
        outcome: len(terminalreporter.getreports(outcome))
        for outcome in ("passed", "failed", "skipped", "error")
    }
    terminalreporter.write_line(
        f"over {over}: " + ", ".join(f"{n} {outcome}" for outcome, n in counts.items())
    )


# The shim over the stub, with a scripted driver


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    """The scripted driver, in the place of the wheel's."""
    driver = Driver()
    monkeypatch.setitem(sys.modules, "panda_breath_native", driver.module())
    return driver


@pytest.fixture
def make(driver: Driver, tmp_path: Path) -> Iterator[Make]:
    """Builds printers on a clock that is cranked by hand, and starts them."""
    hosts: list[Host] = []

    def build(config: str = SECTION, **kwargs: Any) -> Host:
        kwargs.setdefault("clock", ManualClock())
        host = Host.from_text(BASE + config, tmp_path, **kwargs)
        hosts.append(host)
        driver.clock = host.clock.monotonic
        host.start()
        return host

    yield build
    for host in hosts:
        host.close()
