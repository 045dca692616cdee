"""The guard (R8): however klippy ends or stands still, the device goes off.

Over klippy_stub, or over the Klipper or Kalico that KLIPPER_DIR names.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from killing import PHASES, guard_of, guards, heat, is_alive, kill_at
from printers import Printer
from simulator import COMMAND, Simulator, wait_for
from test_shim_live import (
    OFF,
    Simulate,
    Start,
    all_console,
    build,
    heated,
    set_target,
    simulate,
    start,
    status,
    wait_live,
)

__all__ = ["build", "simulate", "start"]  # fixtures


def guard_log(printer: Printer) -> str:
    path = printer.workdir / "panda_breath_guard.log"
    return path.read_text() if path.exists() else ""


def kill(printer: Printer, sig: int = signal.SIGKILL) -> float:
    """End klippy, and return when it had ended, on the simulator's clock."""
    printer.signal(sig)
    printer.wait_exit()
    return time.monotonic()


def heated_for_a_while(start: Start, simulator: Simulator) -> Printer:
    """One whose heat is known to have arrived: then one look is enough to know that it is off."""
    printer = heated(start, simulator)
    printer.gcode("G4 P2000")
    return printer


def heat_frames(simulator: Simulator, since: int) -> list[Any]:
    return [frame for frame in simulator.frames(since) if frame.get("work_on")]


# Klippy ends


@pytest.mark.parametrize("sig", ["SIGKILL", "SIGTERM", "SIGSEGV", "SIGINT"])
def test_r8_when_klippy_is_ended_by_a_signal_the_heater_goes_off(
    start: Start, simulate: Simulate, sig: str
) -> None:
    simulator = simulate()
    printer = heated_for_a_while(start, simulator)
    guard = guard_of(printer)
    mark = simulator.mark()
    kill(printer, getattr(signal, sig))
    simulator.wait_for("state", mark, work_on=0)
    wait_for(lambda: not is_alive(guard), "the guard's end")
    assert simulator.frames(mark) == [OFF]
    assert "has ended; turning off the device" in guard_log(printer)
    assert "the device has confirmed off" in guard_log(printer)
    wait_for(lambda: simulator.open_sockets() == 0, "no connection")


@pytest.mark.parametrize("phase", PHASES)
def test_r8_killed_at_any_moment_the_heater_goes_off(
    start: Start, simulate: Simulate, phase: str
) -> None:
    simulator = simulate()
    printer = start(simulator.section() + "[pause_resume]\n")
    wait_live(printer)
    guard_of(printer)
    heat(printer, simulator)
    seconds = kill_at(printer, simulator, phase, "SIGKILL", random.Random(0))
    assert seconds < 20.0, "the figures are in make bench"


def test_r8_a_guard_that_gets_ready_when_nobody_is_left_to_tell_turns_off(
    start: Start, simulate: Simulate
) -> None:
    simulator = simulate()
    printer = heated_for_a_while(start, simulator)
    first = guard_of(printer)
    command = Path(f"/proc/{first}/cmdline").read_bytes().split(b"\0")[:-1]
    mark = simulator.mark()
    printer.signal(signal.SIGSTOP)  # it starts none itself
    unheard, words = os.pipe()
    os.close(unheard)
    with open(f"/proc/{first}/fd/0", "r+b") as board:
        second = subprocess.Popen(command, stdin=board, stdout=words)
    os.close(words)
    with second:
        os.kill(first, signal.SIGKILL)
        kill(printer)
        simulator.wait_for("state", mark, work_on=0)
        assert second.wait(30) == 0
    assert "the device has confirmed off" in guard_log(printer)


def test_r8_it_does_nothing_when_off_was_known(start: Start, simulate: Simulate) -> None:
    simulator = simulate()
    printer = start(simulator.section())
    wait_live(printer)
    guard = guard_of(printer)
    mark = simulator.mark()
    kill(printer)
    wait_for(lambda: not is_alive(guard), "the guard's end")
    assert simulator.find("open", mark) is None
    assert guard_log(printer) == ""


def test_r8_it_holds_no_connection_and_says_nothing_while_klippy_lives(
    start: Start, simulate: Simulate
) -> None:
    simulator = simulate()
    printer = heated(start, simulator)
    guard_of(printer)
    assert simulator.open_sockets() == 1
    assert guard_log(printer) == ""


def test_r8_a_device_that_cannot_be_reached_is_turned_off_when_it_can(
    start: Start, simulate: Simulate
) -> None:
    simulator = simulate()
    printer = heated_for_a_while(start, simulator)
    guard_of(printer)
    mark = simulator.mark()
    simulator.inject("refuse 3")
    simulator.inject("drop")
    kill(printer)
    simulator.wait_for("state", mark, work_on=0)
    wait_for(lambda: "has confirmed off" in guard_log(printer))
    assert "connection refused" in guard_log(printer)


def test_r8_one_guard_for_all_devices_and_across_restarts(start: Start, simulate: Simulate) -> None:
    simulator = simulate(count=2)
    printer = start(simulator.section(0) + simulator.section(1, "panda_breath second"))
    wait_live(printer)
    guard = guard_of(printer)
    for _ in range(3):
        printer.restart()
    wait_live(printer)
    assert guards(printer.pid) == [guard]
    wait_live(printer, "panda_breath second")
    mark = simulator.mark()
    set_target(printer, 45)
    set_target(printer, 50, "second")
    simulator.wait_for("state", mark, work_on=1, device=0)
    simulator.wait_for("state", mark, work_on=1, device=1)
    mark = simulator.mark()
    kill(printer)
    simulator.wait_for("state", mark, work_on=0, device=0)
    simulator.wait_for("state", mark, work_on=0, device=1)


def test_r8_it_is_small_and_inherits_nothing(start: Start, simulate: Simulate) -> None:
    simulator = simulate()
    printer = heated(start, simulator)
    guard = Path(f"/proc/{guard_of(printer)}")
    blocked = [line for line in (guard / "status").read_text().splitlines() if "SigBlk" in line]
    mask = int(blocked[0].split()[1], 16)
    for sig in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE, signal.SIGUSR1):
        assert mask >> (sig - 1) & 1, sig
    assert len(list((guard / "task").iterdir())) == 1
    files = [os.readlink(fd) for fd in (guard / "fd").iterdir()]
    assert not [name for name in files if "api" in name or "klippy" in name or "tty" in name]
    sockets = [name for name in files if name.startswith("socket:")]
    assert sockets == [], "no connection while klippy lives"


# Klippy stands still


def test_r8_a_frozen_klippy_is_turned_off_and_finds_a_forced_off_when_it_wakes(
    start: Start, simulate: Simulate
) -> None:
    simulator = simulate()
    printer = heated(start, simulator, "lease: 3\n[pause_resume]\n")
    guard = guard_of(printer)
    mark = simulator.mark()
    printer.signal(signal.SIGSTOP)
    try:
        simulator.wait_for("state", mark, work_on=0)
        assert "was not heard of; turning off" in guard_log(printer)
        wait_for(lambda: "has confirmed off" in guard_log(printer))
    finally:
        printer.signal(signal.SIGCONT)
    dropped = "Klipper did not answer for 3 s. Its target of 45.0 C was dropped"
    printer.wait_for(lambda: dropped in all_console(printer))
    assert heat_frames(simulator, mark) == []
    # And it is klippy's again, with the same guard.
    printer.wait_for(lambda: status(printer)["link"] == "connected")
    mark = simulator.mark()
    set_target(printer, 50)
    simulator.wait_for("state", mark, work_on=1, set_temp=50)
    assert guard_of(printer) == guard
    mark = simulator.mark()
    kill(printer)
    simulator.wait_for("state", mark, work_on=0)


def test_r8_a_klippy_that_wakes_while_the_guard_is_at_work_gets_the_device_back(
    start: Start, simulate: Simulate
) -> None:
    simulator = simulate()
    printer = heated(start, simulator, "lease: 3\n[pause_resume]\n")
    guard_of(printer)
    simulator.inject("hang all")
    printer.signal(signal.SIGSTOP)
    try:
        wait_for(lambda: "was not heard of; turning off" in guard_log(printer))
    finally:
        printer.signal(signal.SIGCONT)
    wait_for(lambda: "Klipper is back; leaving the device to it" in guard_log(printer))
    dropped = "Klipper did not answer for 3 s. Its target of 45.0 C was dropped"
    printer.wait_for(lambda: dropped in all_console(printer))
    mark = simulator.mark()
    simulator.inject("resume")
    simulator.wait_for("state", mark, work_on=0)
    printer.wait_for(lambda: status(printer)["link"] == "connected")
    set_target(printer, 50)
    simulator.wait_for("state", mark, work_on=1, set_temp=50)


# The guard ends


def test_r8_a_guard_that_is_killed_is_replaced_and_the_next_one_does_its_duty(
    start: Start, simulate: Simulate
) -> None:
    simulator = simulate()
    printer = heated(start, simulator)
    first = guard_of(printer)
    mark = simulator.mark()
    os.kill(first, signal.SIGKILL)
    second = wait_for(lambda: [pid for pid in guards(printer.pid) if pid != first])[0]
    assert not Path(f"/proc/{first}").exists(), "a zombie"
    printer.wait_for(lambda: "the guard has ended (signal: 9" in all_console(printer))
    assert simulator.frames(mark) == [], "heating goes on"
    mark = simulator.mark()
    set_target(printer, 50)  # waits for the new one
    simulator.wait_for("state", mark, set_temp=50)
    kill(printer)
    simulator.wait_for("state", mark, work_on=0)
    wait_for(lambda: not is_alive(second), "the guard's end")


def test_r8_no_guard_is_said_once_and_obeyed(start: Start, simulate: Simulate) -> None:
    simulator = simulate()
    printer = start(simulator.section(options="guard: False") + "[pause_resume]\n")
    wait_live(printer)
    assert guards(printer.pid) == []
    assert "without a guard (guard: False) the device stays on" in printer.log_text()
    mark = simulator.mark()
    set_target(printer, 45)
    simulator.wait_for("state", mark, work_on=1)


# SIGTERM, as from systemd, to everybody


def test_r8_a_stop_waits_5_s_for_a_device_that_cannot_be_reached_and_says_what_may_be_on(
    start: Start, simulate: Simulate
) -> None:
    simulator = simulate()
    printer = heated(start, simulator)
    guard = guard_of(printer)
    simulator.inject("hang all")
    began = time.monotonic()
    os.kill(guard, signal.SIGTERM)
    kill(printer, signal.SIGTERM)
    wait_for(lambda: not is_alive(guard), "the guard's end")
    assert time.monotonic() - began > 4.0
    assert "no time is left; the device at" in guard_log(printer)


def test_r8_a_sigterm_for_the_guard_alone_is_not_obeyed(start: Start, simulate: Simulate) -> None:
    simulator = simulate()
    printer = heated(start, simulator)
    guard = guard_of(printer)
    os.kill(guard, signal.SIGTERM)
    printer.gcode("G4 P6000")  # longer than it would take to end
    assert guards(printer.pid) == [guard]
    mark = simulator.mark()
    kill(printer)
    simulator.wait_for("state", mark, work_on=0)


# The guard service. A user has only one, which goes for all guards that there are: so it is alone.


class Service:
    """A running guard service."""

    def __init__(self, log_path: Path) -> None:
        self.log_path = log_path
        with log_path.open("wb") as log:
            self.process = subprocess.Popen([*SERVICE], stderr=log)
        wait_for(lambda: "\n" in self.log(), "the service")

    def log(self) -> str:
        return self.log_path.read_text()

    def holds(self, board: tuple[int, int]) -> bool:
        """Whether it has this board, which is for as long as it knows of the guard."""
        for fd in Path(f"/proc/{self.process.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                if file_of(fd) == board:
                    return True
        return False


SERVICE = (sys.executable, "-c", COMMAND, "guard-service")


def file_of(path: Path) -> tuple[int, int]:
    found = path.stat()
    return (found.st_dev, found.st_ino)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    service = Service(tmp_path / "service.log")
    try:
        assert service.log().startswith("the guard service is running\n")
        yield service
    finally:
        service.process.kill()
        service.process.wait()


def introduced(guard: int, service: Service) -> tuple[int, int]:
    """Waits until the service knows of this guard; returns the board that they share."""
    board = file_of(Path(f"/proc/{guard}/fd/0"))
    wait_for(lambda: service.holds(board), "the guard at the service")
    return board


@pytest.mark.alone
def test_r8_the_service_turns_off_when_klippy_and_its_guard_are_killed_together(
    start: Start, simulate: Simulate, service: Service
) -> None:
    simulator = simulate()
    printer = heated_for_a_while(start, simulator)
    guard = guard_of(printer)
    board = introduced(guard, service)
    mark = simulator.mark()
    os.kill(guard, signal.SIGSTOP)  # so that it does not see klippy die first
    os.kill(printer.pid, signal.SIGKILL)
    os.kill(guard, signal.SIGKILL)
    simulator.wait_for("state", mark, work_on=0)
    wait_for(lambda: not service.holds(board), "the end of that watch")
    assert simulator.frames(mark) == [OFF]
    assert f"the guard of Klipper (process {printer.pid}) has ended" in service.log()


@pytest.mark.alone
def test_r8_what_the_guard_had_no_time_for_the_service_does(
    start: Start, simulate: Simulate, service: Service
) -> None:
    simulator = simulate()
    printer = heated(start, simulator)
    guard = guard_of(printer)
    introduced(guard, service)
    simulator.inject("hang all")
    os.kill(guard, signal.SIGTERM)
    kill(printer, signal.SIGTERM)
    wait_for(lambda: not is_alive(guard), "the guard's end")
    mark = simulator.mark()
    simulator.inject("resume")
    simulator.wait_for("state", mark, work_on=0)


@pytest.mark.alone
def test_r8_what_the_guard_has_done_the_service_does_not_do_again(
    start: Start, simulate: Simulate, service: Service
) -> None:
    simulator = simulate()
    printer = heated_for_a_while(start, simulator)
    guard = guard_of(printer)
    board = introduced(guard, service)
    mark = simulator.mark()
    kill(printer)
    wait_for(lambda: not is_alive(guard), "the guard's end")
    wait_for(lambda: not service.holds(board), "the end of that watch")
    assert simulator.frames(mark) == [OFF]
    assert "the device has confirmed off" in guard_log(printer)
    assert f"(process {printer.pid})" not in service.log(), "it left it to the guard"


@pytest.mark.alone
def test_r8_while_a_guard_lives_the_service_leaves_a_frozen_klippy_to_it(
    start: Start, simulate: Simulate, service: Service
) -> None:
    simulator = simulate()
    printer = heated(start, simulator, "lease: 3\n[pause_resume]\n")
    introduced(guard_of(printer), service)
    mark = simulator.mark()
    printer.signal(signal.SIGSTOP)
    try:
        simulator.wait_for("state", mark, work_on=0)
        wait_for(lambda: "has confirmed off" in guard_log(printer))
    finally:
        printer.signal(signal.SIGCONT)
    assert f"(process {printer.pid})" not in service.log()


@pytest.mark.alone
def test_the_service_ends_at_once_when_nothing_is_on_and_is_only_one(service: Service) -> None:
    second = subprocess.run([*SERVICE], capture_output=True, check=False)
    assert second.returncode == 1
    assert b"a guard service of this user is already running" in second.stderr
    service.process.terminate()
    assert service.process.wait(5) == 0
