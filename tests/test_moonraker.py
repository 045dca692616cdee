"""What front ends see of the module: real Moonraker on the klippy that KLIPPER_DIR names.

Mainsail, Fluidd and KlipperScreen know the printer only through Moonraker, so what they read and
write is tried over its HTTP API. None of their screens is looked at.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest
from moonraker import Moonraker, MoonrakerError
from printers import PINS, ROOT, SHIM, Printer, printer_from_environment
from simulator import Simulator

# The first of them installs Moonraker.
pytestmark = [pytest.mark.real_klippy, pytest.mark.timeout(300)]

HEATER = "heater_generic panda_breath"
CONFIG = """
[pause_resume]
[display_status]
[skew_correction]

[virtual_sdcard]
path: {gcodes}

[include m141_m191.cfg]

[gcode_macro CANCEL_PRINT]
rename_existing: BASE_CANCEL_PRINT
gcode:
    TURN_OFF_HEATERS
    BASE_CANCEL_PRINT

[gcode_macro PAUSE]
rename_existing: BASE_PAUSE
gcode:
    BASE_PAUSE

[gcode_macro RESUME]
rename_existing: BASE_RESUME
gcode:
    BASE_RESUME
"""


class Front:
    """All that a front end's user has: Moonraker, klippy, a device."""

    def __init__(self, moonraker: Moonraker, printer: Printer, simulator: Simulator) -> None:
        self.moonraker, self.printer, self.simulator = moonraker, printer, simulator

    def target(self) -> float:
        target: float = self.moonraker.query(HEATER)[HEATER]["target"]
        return target

    def wait_live(self, name: str = "panda_breath") -> None:
        """Until klippy is ready and has heard the device."""

        def live() -> bool:
            with contextlib.suppress(MoonrakerError):  # klippy restarts
                status = self.moonraker.query(name)[name]
                return self.moonraker.state() == "ready" and status["temperature"] is not None
            return False

        self.moonraker.wait_for(live, "a reading")

    def heat(self, target: int = 45) -> None:
        """Heat, as the field for the target does."""
        mark = self.simulator.mark()
        self.moonraker.gcode(f"SET_HEATER_TEMPERATURE HEATER=panda_breath TARGET={target}")
        self.simulator.wait_for("state", mark, work_on=1, set_temp=target)
        assert self.target() == target

    def console_has(self, *parts: str) -> bool:
        return any(all(part in line for part in parts) for line in self.moonraker.console())


FAN = """
[imagined_pins]
[heater_fan chamber_fan]
pin: imagined:fan
heater: panda_breath
heater_temp: 70
"""


def one_device(simulator: Simulator) -> str:
    return FAN + simulator.section(options="gcode_id: C")


def two_devices(simulator: Simulator) -> str:
    """One with a name, and one with a heater section of the user's own."""
    own = "[heater_generic chamber]\nheater_pin: panda_breath:pwm\nsensor_type: panda_breath\n"
    own += "control: watermark\nmin_temp: 0\nmax_temp: 70\n"
    return simulator.section(0, "panda_breath left") + simulator.section(1) + own


@contextlib.contextmanager
def fronts(
    folder: Path, *options: str, sections: Callable[[Simulator], str] = one_device, count: int = 1
) -> Iterator[Front]:
    """In a folder with a short name: Moonraker has a Unix socket in there."""
    data = folder / "data"
    options += ("--listen", "127.{}.{}.{}:0".format(*(1 + b % 250 for b in os.urandom(3))))
    with Simulator(folder / "simulator", *options, count=count) as simulator:
        mark = simulator.mark()
        simulator.inject("button power")  # a new device is on
        simulator.wait_for("state", mark, work_on=0)
        config = sections(simulator) + CONFIG.format(gcodes=data / "gcodes")
        printer = printer_from_environment(config, data / "config", (SHIM, PINS))
        example = ROOT / "examples" / "m141_m191.cfg"
        (printer.workdir / example.name).write_text(example.read_text())
        with printer, Moonraker(data, printer.api_path) as moonraker:
            front = Front(moonraker, printer, simulator)
            front.wait_live()
            yield front


@pytest.fixture
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    with fronts(tmp_path_factory.mktemp("front")) as front:
        yield front


@pytest.fixture
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    """With a chamber that is warm within seconds."""
    with fronts(tmp_path_factory.mktemp("quick"), "--speed", "100") as front:
        yield front


# What is read


def test_a_front_end_finds_the_heater_and_its_status(front: Front) -> None:
    moonraker = front.moonraker
    info = moonraker.get("/server/info")
    assert (info["failed_components"], info["warnings"]) == ([], [])
    names = moonraker.get("/printer/objects/list")["objects"]
    assert {HEATER, "panda_breath", "heater_fan chamber_fan"} <= set(names)
    status = moonraker.query(HEATER, "panda_breath", "heaters")
    assert HEATER in status["heaters"]["available_heaters"]
    assert status["heaters"]["available_sensors"].count(HEATER) == 1
    assert set(status[HEATER]) >= {"temperature", "target", "power"}
    assert status[HEATER]["temperature"] == pytest.approx(status["panda_breath"]["temperature"])
    assert status["panda_breath"]["link"] == "connected"
    assert status["panda_breath"]["dialect"] == "stock"


def test_a_front_end_reads_the_configuration(front: Front) -> None:
    # KlipperScreen lists the sections of `config`; limits come from there, or from `settings`.
    configfile = front.moonraker.query("configfile")["configfile"]
    section = configfile["config"][HEATER]
    assert (section["min_temp"], section["max_temp"]) == ("0", "80")
    assert section["control"] == "watermark"
    settings = configfile["settings"][HEATER]
    assert (settings["min_temp"], settings["max_temp"]) == (0, 80)
    assert configfile["settings"]["verify_heater panda_breath"]["check_gain_time"] == 360
    assert configfile["warnings"] == []
    assert configfile["save_config_pending"] is False


def test_names_and_sections_of_the_users_own(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("two")
    heaters = {"heater_generic left": 80, "heater_generic chamber": 70}
    with fronts(folder, sections=two_devices, count=2) as front:
        status = front.moonraker.query(
            "heaters", "configfile", "panda_breath", "panda_breath left", *heaters
        )
        assert set(heaters) == set(status["heaters"]["available_heaters"])
        assert "link" in status["panda_breath"]
        assert "link" in status["panda_breath left"]
        for device, (heater, max_temp) in enumerate(heaters.items()):
            assert status["configfile"]["config"][heater]["max_temp"] == str(max_temp)
            assert status["configfile"]["settings"][heater]["max_temp"] == max_temp
            front.wait_live("panda_breath" if device else "panda_breath left")
            mark = front.simulator.mark()
            name = heater.split()[-1]
            front.moonraker.gcode(f"SET_HEATER_TEMPERATURE HEATER={name} TARGET=45")
            front.simulator.wait_for("state", mark, device=device, work_on=1, set_temp=45)


def test_the_curves_have_temperature_and_target(front: Front) -> None:
    front.heat()

    wait_drawn(front)
    curves = front.moonraker.histories()[HEATER]
    assert set(curves) == {"temperatures", "targets", "powers"}
    reading = front.moonraker.query(HEATER)[HEATER]["temperature"]
    assert curves["temperatures"][-1] == pytest.approx(reading, abs=2)


def test_a_front_end_is_told_what_changes(front: Front) -> None:
    with front.moonraker.updates(HEATER, "panda_breath") as updates:
        whole = next(updates)
        assert whole["panda_breath"]["target"] == 0
        front.heat()
        waits = {HEATER: "target", "panda_breath": "device_target"}
        for update in updates:
            for name in [n for n, field in waits.items() if update.get(n, {}).get(field) == 45]:
                del waits[name]
            if not waits:
                break


def test_a_silent_device_is_0_in_the_curves_and_null_in_the_status(front: Front) -> None:
    front.simulator.inject("hang all")
    status = front.moonraker.wait_for(lambda: stale_status(front), "the reading is stale")
    assert (status["temperature"], status["device_temperature"]) == (None, None)
    front.moonraker.wait_for(
        lambda: front.moonraker.history(HEATER, "temperatures")[-1] == 0, "0 in the curve"
    )


def test_m105_reports_the_heater_by_its_gcode_id(front: Front) -> None:
    front.heat()
    front.moonraker.gcode("M105")
    front.moonraker.wait_for(lambda: front.console_has("C:", "/45.0"), "a report")


def test_the_console_shows_what_happens_at_the_device(front: Front) -> None:
    front.heat()
    mark = front.simulator.mark()
    front.simulator.inject("button power")
    front.simulator.wait_for("state", mark, work_on=0)
    front.moonraker.wait_for(
        lambda: front.console_has("was dropped", "SET_HEATER_TEMPERATURE HEATER=panda_breath"),
        "a line in the console",
    )
    assert front.target() == 0
    assert front.moonraker.query("panda_breath")["panda_breath"]["external_off"] is True


def test_a_fan_for_the_heater_runs_with_it(front: Front) -> None:
    def speed() -> Any:
        fan = "heater_fan chamber_fan"
        return front.moonraker.query(fan)[fan]["speed"]

    assert speed() == 0
    front.heat()
    front.moonraker.wait_for(lambda: speed() == 1, "the fan runs")
    front.moonraker.gcode("TURN_OFF_HEATERS")
    front.moonraker.wait_for(lambda: speed() == 0, "the fan stops")


# What is refused


def test_a_front_end_shows_why_a_target_is_refused(front: Front) -> None:
    with pytest.raises(MoonrakerError, match="max_target"):
        front.moonraker.gcode("SET_HEATER_TEMPERATURE HEATER=panda_breath TARGET=70")
    assert front.target() == 0
    front.moonraker.wait_for(lambda: front.console_has("!! ", "max_target"), "an error")
    assert front.moonraker.state() == "ready"


def test_pid_calibrate_is_refused_and_nothing_heats(front: Front) -> None:
    mark = front.simulator.mark()
    with pytest.raises(MoonrakerError, match="regulates by itself"):
        front.moonraker.gcode("PID_CALIBRATE HEATER=panda_breath TARGET=45")
    assert front.target() == 0
    assert front.simulator.frames(mark) == []
    configfile = front.moonraker.query("configfile")["configfile"]
    assert configfile["save_config_pending"] is False
    front.heat()


# What turns it off


def test_turn_off_heaters_turns_the_device_off(front: Front) -> None:
    front.heat()
    mark = front.simulator.mark()
    front.moonraker.gcode("TURN_OFF_HEATERS")
    front.simulator.wait_for("state", mark, work_on=0)
    assert front.target() == 0


def test_idle_timeout_turns_the_device_off(front: Front) -> None:
    front.heat()
    mark = front.simulator.mark()
    front.moonraker.gcode("SET_IDLE_TIMEOUT TIMEOUT=1")
    front.simulator.wait_for("state", mark, work_on=0)
    assert front.target() == 0
    status = front.moonraker.query("idle_timeout")["idle_timeout"]
    assert status["state"] == "Idle"


def test_an_emergency_stop_turns_the_device_off(front: Front) -> None:
    front.heat()
    mark = front.simulator.mark()
    front.moonraker.post("/printer/emergency_stop")
    front.simulator.wait_for("state", mark, work_on=0)
    front.moonraker.wait_for(lambda: front.moonraker.state() == "shutdown", "shutdown")
    front.printer.restart("FIRMWARE_RESTART")
    front.wait_live()
    assert front.target() == 0


def test_a_restart_turns_the_device_off_and_the_curves_go_on(front: Front) -> None:
    front.heat()
    mark = front.simulator.mark()
    wait_drawn(front)
    front.moonraker.post("/printer/restart")
    front.simulator.wait_for("state", mark, work_on=0)
    # Before that Moonraker may still ask the old one.
    front.printer.wait_for(lambda: "Restarting printer" in front.printer.log_text())
    front.wait_live()
    assert front.target() == 0
    assert 45 in front.moonraker.history(HEATER, "targets")
    front.heat()


# Files and prints


def test_save_config_writes_nothing_of_the_heater(front: Front) -> None:
    before = front.printer.config_path.read_text()
    # Something to save that needs no hardware.
    front.moonraker.gcode("SKEW_PROFILE SAVE=tried")
    status = front.moonraker.query("configfile")["configfile"]
    assert list(status["save_config_pending_items"]) == ["skew_correction tried"]
    front.printer.restart("SAVE_CONFIG")
    front.wait_live()
    after = front.printer.config_path.read_text()
    assert "tried" in after
    written = after.split("#*#", 1)
    assert written[0].split() == before.split()
    assert "panda" not in written[1]
    front.heat()


def test_a_print_is_paused_and_resumed_with_a_warm_chamber(front: Front) -> None:
    moonraker = front.moonraker
    start_print(front)
    mark = front.simulator.mark()
    moonraker.post("/printer/print/pause")
    moonraker.wait_for(lambda: print_state(front) == "paused", "paused")
    assert front.target() == 45
    moonraker.post("/printer/print/resume")
    moonraker.wait_for(lambda: print_state(front) == "printing", "printing")
    assert front.target() == 45
    assert front.simulator.frames(mark) == []  # it was never off


def test_a_pause_that_outlasts_idle_timeout_leaves_the_chamber_off(front: Front) -> None:
    moonraker = front.moonraker
    start_print(front)
    mark = front.simulator.mark()
    moonraker.post("/printer/print/pause")
    moonraker.gcode("SET_IDLE_TIMEOUT TIMEOUT=1")
    front.simulator.wait_for("state", mark, work_on=0)
    moonraker.post("/printer/print/resume")
    moonraker.wait_for(lambda: print_state(front) == "printing", "printing")
    assert front.target() == 0


def test_cancel_print_turns_the_device_off(front: Front) -> None:
    start_print(front)
    mark = front.simulator.mark()
    front.moonraker.post("/printer/print/cancel")
    front.simulator.wait_for("state", mark, work_on=0)
    front.moonraker.wait_for(lambda: print_state(front) == "cancelled", "cancelled")
    assert front.target() == 0


def test_a_device_that_is_turned_off_does_not_stop_the_print(front: Front) -> None:
    start_print(front)
    mark = front.simulator.mark()
    front.simulator.inject("button power")
    front.simulator.wait_for("state", mark, work_on=0)
    front.moonraker.wait_for(lambda: front.target() == 0, "the target is dropped")
    assert print_state(front) == "printing"


# As the slicers write them (docs/slicers.md), with a pause for the machine's start code.
ORCA = """
M191 S32 ;set chamber_temperature and wait for it to be reached
G4 P1500
M400
M141 S0;set chamber_temperature
"""
PRUSA = """
M141 S35 ; set chamber temperature
G4 P1500
M400
M191 S32 ; set chamber temperature and wait for it to be reached
M141 S35 ; set chamber temperature
G4 P1500
M400
TURN_OFF_HEATERS
"""


@pytest.mark.parametrize(("text", "targets"), [(ORCA, [32]), (PRUSA, [35, 32, 35])])
def test_the_lines_of_slicers_warm_the_chamber(quick: Front, text: str, targets: list[int]) -> None:
    mark = quick.simulator.mark()
    quick.moonraker.upload("lines.gcode", text)
    quick.moonraker.post("/printer/print/start", filename="lines.gcode")
    quick.moonraker.wait_for(lambda: print_state(quick) == "complete", "complete")
    quick.simulator.wait_for("state", mark, work_on=0)
    asked = [frame["set_temp"] for frame in quick.simulator.frames(mark) if "set_temp" in frame]
    assert asked == targets
    warmest = max(degrees or 0 for degrees in quick.moonraker.history(HEATER, "temperatures"))
    assert warmest >= 31


def test_a_file_that_asks_for_too_much_ends_with_the_reason(front: Front) -> None:
    front.moonraker.upload("hot.gcode", "M191 S80\nG4 P60000\n")
    front.moonraker.post("/printer/print/start", filename="hot.gcode")
    front.moonraker.wait_for(lambda: print_state(front) == "error", "the print ends")
    status = front.moonraker.query("print_stats")["print_stats"]
    assert "max_target" in status["message"]
    assert front.target() == 0


def stale_status(front: Front) -> dict[str, Any]:
    """The status, once it says that the reading is old."""
    status: dict[str, Any] = front.moonraker.query("panda_breath")["panda_breath"]
    return status if status["stale"] else {}


def wait_drawn(front: Front) -> None:
    """Until the target is in the curves."""
    front.moonraker.wait_for(
        lambda: 45 in front.moonraker.history(HEATER, "targets"), "45 in the curve"
    )


def start_print(front: Front) -> None:
    """Print a file that warms the chamber and then takes long."""
    front.moonraker.upload("warm.gcode", "M141 S45\n" + "G4 P100\n" * 3000)
    mark = front.simulator.mark()
    front.moonraker.post("/printer/print/start", filename="warm.gcode")
    front.simulator.wait_for("state", mark, work_on=1, set_temp=45)
    front.moonraker.wait_for(lambda: print_state(front) == "printing", "printing")


def print_state(front: Front) -> str:
    state: str = front.moonraker.query("print_stats")["print_stats"]["state"]
    return state
