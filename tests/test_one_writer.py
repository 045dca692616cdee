"""One writer: whoever commands the device, nobody else does, across RESTARTs and kills.

Over klippy_stub, or over the Klipper or Kalico that KLIPPER_DIR names.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from killing import guard_of
from printers import SHIM, GcodeError, printer_from_environment
from simulator import wait_for
from test_guard import kill
from test_shim_live import (
    OFF,
    Simulate,
    Start,
    build,
    heat,
    heated,
    set_target,
    simulate,
    start,
    status,
    wait_live,
)

__all__ = ["build", "simulate", "start"]  # fixtures

# A module that makes Klipper drop the rest of its klippy:disconnect handlers.
RUDE = """
def load_config(config):
    def disconnect():
        raise ValueError("rude")
    config.get_printer().register_event_handler("klippy:disconnect", disconnect)
"""


@pytest.mark.parametrize("delay", [0.0, 0.05, 0.5])
def test_after_a_kill_and_a_start_heat_stays_on(
    start: Start, simulate: Simulate, delay: float
) -> None:
    simulator = simulate()
    printer = heated(start, simulator)
    guard_of(printer)
    kill(printer)
    time.sleep(delay)  # how long whoever restarts klippy takes
    printer.start()
    wait_live(printer)
    printer.wait_for(lambda: status(printer)["link"] == "connected")
    mark = simulator.mark()
    set_target(printer, 50)
    simulator.wait_for("state", mark, work_on=1, set_temp=50)
    # As long as the first guard would have taken to look twice.
    mark = simulator.mark()
    printer.gcode("G4 P13000")
    assert OFF not in simulator.frames(mark)
    assert simulator.find("state", mark, work_on=0) is None
    assert status(printer)["target"] == 50.0


def test_of_two_klippies_only_the_first_has_the_device(start: Start, simulate: Simulate) -> None:
    simulator = simulate()
    first = heated(start, simulator)
    second = start(simulator.section())
    second.wait_for(lambda: status(second)["link"] == "error")
    assert f"is controlled by another process ({first.pid})" in status(second)["last_error"]
    mark = simulator.mark()
    with pytest.raises(GcodeError, match="controlled by another process"):
        set_target(second, 50)
    second.gcode("TURN_OFF_HEATERS")
    second.emergency_stop()
    set_target(first, 46)
    simulator.wait_for("state", mark, work_on=1, set_temp=46)
    assert OFF not in simulator.frames(mark)
    # When the first has gone, it is the second's.
    kill(second)
    second.start()
    second.wait_for(lambda: status(second)["link"] == "error")
    kill(first)
    second.wait_for(lambda: status(second)["link"] == "connected")
    mark = simulator.mark()
    set_target(second, 50)
    simulator.wait_for("state", mark, work_on=1, set_temp=50)


def test_a_restart_that_heats_at_ready_with_a_device_that_answers_late(
    start: Start, simulate: Simulate
) -> None:
    simulator = simulate()
    config = (
        "[pause_resume]\n[delayed_gcode warm]\ninitial_duration: 1.5\ngcode:\n"
        "  SET_HEATER_TEMPERATURE HEATER=panda_breath TARGET=45\n"
    )
    printer = start(simulator.section() + config)
    simulator.wait_for("state", work_on=1, set_temp=45)
    mark = simulator.mark()
    simulator.inject("hang all")
    printer.restart()
    printer.gcode("G4 P3000")
    simulator.inject("resume")
    simulator.wait_for("frame", mark)
    wait_for(lambda: simulator.frames(mark)[-1:] == [heat(45)], "the wish of the new printer")
    mark = simulator.mark()
    printer.gcode("G4 P13000")
    assert simulator.frames(mark) == [], "no off after it"
    assert status(printer)["device_on"] is True


def test_r8_a_handler_before_ours_that_raises_at_disconnect_is_survived(
    simulate: Simulate, tmp_path: Path
) -> None:
    simulator = simulate()
    rude = tmp_path / "extras" / "panda_breath_test_rude.py"
    rude.parent.mkdir()
    rude.write_text(RUDE)
    config = f"[panda_breath_test_rude]\n{simulator.section()}[pause_resume]\n"
    printer = printer_from_environment(config, tmp_path / "rude", (SHIM, rude))
    with printer:
        wait_live(printer)
        mark = simulator.mark()
        set_target(printer, 45)
        simulator.wait_for("state", mark, work_on=1, set_temp=45)
        mark = simulator.mark()
        printer.restart()  # the next printer takes it over, and begins with off
        simulator.wait_for("state", mark, work_on=0)
        wait_live(printer)
        set_target(printer, 50)
        simulator.wait_for("state", mark, work_on=1, set_temp=50)

        # Into a printer that never starts: nobody takes it over, and the lease ends.
        mark = simulator.mark()
        printer.write_config("[panda_breath_test_rude]\nunknown: 1\n")
        with pytest.raises(Exception, match="unknown"):
            printer.restart()
        simulator.wait_for("state", mark, work_on=0)
        assert simulator.frames(mark) == [OFF]
