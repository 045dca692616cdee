"""What happens to a print when the device is lost, stops itself or is touched: in real time.

The module, the wheel and a simulated device, over klippy_stub or over the Klipper or Kalico that
KLIPPER_DIR names. With short limits; long ones are in test_shim_outage.py and in the tests in Rust.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import test_shim_live as live
from printers import GcodeError, Printer
from simulator import Simulator
from test_shim_live import HEATER, OFF, Simulate, Start, heat, set_target, status

build, simulate, start = live.build, live.simulate, live.start  # the fixtures

SHORT = "stale_after: 2\nlost_after: 4\n"
DROPPED = "Its target of 45.0 C was dropped; to set it again: SET_HEATER_TEMPERATURE"


class Print:
    """A printer whose device heats to 45 C, and that prints a file."""

    def __init__(
        self,
        start: Start,
        simulator: Simulator,
        folder: Path,
        options: str,
        first: str = "",
        rest: str = "G4 P200\n" * 3000,
    ) -> None:
        (folder / "part.gcode").write_text(first + rest)
        config = f"[pause_resume]\n[virtual_sdcard]\npath: {folder}\n"
        self.simulator = simulator
        self.printer: Printer = start(simulator.section(options=options) + config)
        live.wait_live(self.printer)
        mark = simulator.mark()
        set_target(self.printer, 45)
        simulator.wait_for("state", mark, work_on=1, set_temp=45)
        self.mark = simulator.mark()
        reply = self.printer.gcode_later("SDCARD_PRINT_FILE FILENAME=part.gcode")
        self.printer.wait_for(lambda: self.query("idle_timeout")["state"] == "Printing")
        del reply

    def query(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.printer.query({name: None})[name]
        return found

    @property
    def target(self) -> float:
        return float(self.query(HEATER)["target"])

    def wait_paused(self) -> None:
        self.printer.wait_for(lambda: self.query("pause_resume")["is_paused"])
        assert self.target == 0.0
        assert self.printer.info()["state"] == "ready"

    def wait_shutdown(self, why: str) -> None:
        self.printer.wait_for(lambda: self.printer.info()["state"] == "shutdown")
        assert why in self.printer.info()["state_message"]

    def console(self) -> str:
        return live.all_console(self.printer)


def test_r5_an_outage_ends_no_print_and_invents_no_temperature(
    start: Start, simulate: Simulate, tmp_path: Path
) -> None:
    simulator = simulate("--chamber", "44")
    job = Print(start, simulator, tmp_path, "")
    job.printer.wait_for(lambda: job.query(HEATER)["temperature"] > 40.0)
    simulator.inject("hang all")
    job.printer.wait_for(lambda: status(job.printer)["stale"])
    shown = status(job.printer)
    assert shown["temperature"] is None
    assert shown["reading_age"] >= 7.0
    assert job.query(HEATER)["temperature"] == 0.0
    time.sleep(3.0)
    simulator.inject("resume")
    job.printer.wait_for(lambda: status(job.printer)["link"] == "connected")
    job.printer.wait_for(lambda: job.query(HEATER)["temperature"] > 40.0)
    assert job.target == 45.0
    assert job.query("virtual_sdcard")["is_active"]
    assert "dropped" not in job.console()
    assert simulator.frames(job.mark) == [], "it heated on by itself"


@pytest.mark.parametrize("how", ["hang all", "mute 3600"])
def test_r5_lost_in_a_print_is_target_zero_and_pause(
    start: Start, simulate: Simulate, tmp_path: Path, how: str
) -> None:
    simulator = simulate()
    job = Print(start, simulator, tmp_path, SHORT)
    simulator.inject(how)
    job.wait_paused()
    assert DROPPED in job.console()
    assert "no reading from" in job.console() and "for 4 s" in job.console()
    with pytest.raises(GcodeError, match="cannot be reached"):
        set_target(job.printer, 45)


@pytest.mark.parametrize("on_lost", ["shutdown", "warn"])
def test_r5_lost_in_a_print_is_what_was_chosen(
    start: Start, simulate: Simulate, tmp_path: Path, on_lost: str
) -> None:
    simulator = simulate()
    job = Print(start, simulator, tmp_path, SHORT + f"on_lost: {on_lost}\n")
    simulator.inject("hang all")
    if on_lost == "shutdown":
        job.wait_shutdown("panda_breath: no reading from")
    else:
        job.printer.wait_for(lambda: "verify_heater will end the print" in job.console())
        assert job.target == 45.0
        assert job.printer.info()["state"] == "ready"
    # Back again it is told to be off, whatever Klipper's target still says.
    simulator.inject("resume")
    simulator.wait_for("state", job.mark, work_on=0)
    assert heat(45) not in simulator.frames(job.mark)


def test_r5_pause_behind_a_wait_ends_in_a_shutdown_with_a_reason(
    start: Start, simulate: Simulate, tmp_path: Path
) -> None:
    wait = f'TEMPERATURE_WAIT SENSOR="{HEATER}" MINIMUM=44\n'
    simulator = simulate()
    job = Print(start, simulator, tmp_path, SHORT + "pause_timeout: 3\n", wait)
    simulator.inject("hang all")
    job.printer.wait_for(lambda: job.target == 0.0)
    assert job.printer.info()["state"] == "ready", "PAUSE has 3 s to begin"
    job.wait_shutdown("panda_breath: PAUSE could not begin within 3 s")


@pytest.mark.parametrize("fault", ["ptc-open", "chamber-short"])
def test_r9_a_protective_stop_in_a_print_is_target_zero_and_pause(
    start: Start, simulate: Simulate, tmp_path: Path, fault: str
) -> None:
    simulator = simulate()
    job = Print(start, simulator, tmp_path, "")
    simulator.inject(f"fault {fault}")
    job.wait_paused()
    place = "heating element" if fault.startswith("ptc") else "chamber"
    assert f"the device reports: {place} sensor" in job.console()
    assert status(job.printer)["fault"] is True
    with pytest.raises(GcodeError, match=f"the device cannot heat: {place} sensor"):
        set_target(job.printer, 45)
    simulator.inject("fault clear")
    job.printer.wait_for(lambda: status(job.printer)["fault"] is False)
    assert heat(45) not in simulator.frames(job.mark)
    set_target(job.printer, 44)
    simulator.wait_for("state", job.mark, work_on=1, set_temp=44)


PARKING = (
    "[gcode_macro PAUSE]\nrename_existing: BASE_PAUSE\n"
    "gcode:\n  RESPOND MSG=parking\n  BASE_PAUSE\n[respond]\n"
)


@pytest.mark.parametrize("end", ["", "CANCEL_PRINT"])
def test_a_print_that_ends_before_pause_can_begin_is_not_paused(
    start: Start, simulate: Simulate, tmp_path: Path, end: str
) -> None:
    simulator = simulate()
    job = Print(start, simulator, tmp_path, PARKING, rest="G4 P6000\n" * (2 if end else 1))
    if end:
        job.printer.gcode_later(end)  # waits for its turn
        time.sleep(0.5)
    simulator.inject("fault ptc-open")
    job.printer.wait_for(lambda: job.target == 0.0)
    assert job.query("virtual_sdcard")["is_active"], "G4 still runs"
    state = "cancelled" if end else "complete"
    job.printer.wait_for(lambda: job.query("print_stats")["state"] == state)
    time.sleep(1.0)
    assert not job.query("pause_resume")["is_paused"]
    assert not job.query("virtual_sdcard")["is_active"]
    assert "parking" not in job.console()
    assert job.printer.info()["state"] == "ready"


def test_a_print_that_is_paused_is_not_paused_again(
    start: Start, simulate: Simulate, tmp_path: Path
) -> None:
    simulator = simulate()
    job = Print(start, simulator, tmp_path, "pause_timeout: 2\n" + PARKING)
    job.printer.gcode("PAUSE")
    job.printer.gcode_later("G4 P5000")
    job.printer.wait_for(lambda: job.query("idle_timeout")["state"] == "Printing")
    simulator.inject("fault ptc-open")
    job.printer.wait_for(lambda: job.target == 0.0)
    job.printer.wait_for(lambda: job.query("idle_timeout")["state"] != "Printing")
    assert job.console().count("parking") == 1
    assert "still in the same command after 2 s" in job.console()
    assert job.query("pause_resume")["is_paused"]
    assert job.printer.info()["state"] == "ready"


def test_r9_the_mode_buttons_in_a_print(start: Start, simulate: Simulate, tmp_path: Path) -> None:
    """On changes nothing, Auto is set right, Off is accepted, and the print goes on."""
    simulator = simulate()
    job = Print(start, simulator, tmp_path, "")
    time.sleep(1.5)  # what is pressed within 1 s of a command is settled by a look
    simulator.inject("button on")
    simulator.inject("button auto")
    job.printer.wait_for(lambda: "set to something else; setting it again" in job.console())
    simulator.wait_for("state", job.mark, work_mode=2, work_on=1)
    assert simulator.frames(job.mark) == [heat(45)]
    assert job.target == 45.0
    time.sleep(1.5)
    simulator.inject("button power")
    job.printer.wait_for(lambda: job.target == 0.0)
    assert DROPPED in job.console()
    assert job.query("virtual_sdcard")["is_active"]
    assert simulator.frames(job.mark) in ([heat(45)], [heat(45), OFF])


STALL = """
[gcode_macro STALL]
gcode:
  {% for n in range(params.ROUNDS|int) %}{% endfor %}
"""


def test_r8_a_reactor_that_stalls_finds_its_target_dropped(
    start: Start, simulate: Simulate
) -> None:
    """A macro that computes for too long: nothing else of klippy runs meanwhile."""
    simulator = simulate()
    printer = start(simulator.section(options="lease: 3\n") + "[pause_resume]\n" + STALL)
    live.wait_live(printer)
    began = time.monotonic()
    printer.gcode("STALL ROUNDS=3000000")
    rounds = 3000000 * 8.0 / max(time.monotonic() - began, 0.02)
    set_target(printer, 45)
    simulator.wait_for("state", work_on=1, set_temp=45)
    mark = simulator.mark()
    began = time.monotonic()
    printer.gcode(f"STALL ROUNDS={rounds:.0f}", timeout=55.0)
    assert time.monotonic() - began > 4.0
    printer.wait_for(lambda: "Klipper did not answer for 3 s" in live.all_console(printer))
    assert DROPPED in live.all_console(printer)
    assert printer.query({HEATER: None})[HEATER]["target"] == 0.0
    assert printer.info()["state"] == "ready"
    assert simulator.frames(mark) == [OFF]
