"""chamber_sensor and cutoff_sensor with the real driver, a simulated device and its cavity.

Over klippy_stub, or over the Klipper or Kalico that KLIPPER_DIR names; see printers.py. Klipper
reads the cavity as a user's would: a temperature_host with a sensor_path.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from printers import GcodeError, Printer, printer_from_environment
from simulator import Simulator, wait_for

HEATER = "heater_generic panda_breath"
OPTIONS = """
chamber_sensor: temperature_sensor cavity
cutoff_sensor: temperature_sensor top
cutoff_temp: 70
max_target: 75
"""
SENSOR = """
[temperature_sensor {name}]
sensor_type: temperature_host
sensor_path: {path}
"""


class Place:
    """A device in a chamber, and a printer with a sensor in it and one at its top."""

    def __init__(self, folder: Path) -> None:
        self.cavity = folder / "cavity"
        self.top = folder / "top"
        self.tops(40.0)
        self.device = Simulator(
            folder / "simulator",
            *("--cavity-file", str(self.cavity), "--speed", "60"),
        )
        self.device.inject("button power")
        self.device.wait_for("state", work_on=0)
        sensors = [SENSOR.format(name=p.name, path=p) for p in (self.cavity, self.top)]
        config = self.device.section(options=OPTIONS) + "".join(sensors)
        self.printer: Printer = printer_from_environment(config, folder / "printer")
        self.printer.start()
        wait_for(lambda: self.status()["temperature"] is not None)

    def tops(self, celsius: float) -> None:
        """What the sensor at the top reads from now on. Always as long, and in place."""
        text = f"{celsius * 1000:+08.0f}\n"
        with self.top.open("r+" if self.top.exists() else "w") as file:
            file.write(text)

    def status(self, name: str = "panda_breath") -> dict[str, Any]:
        found: dict[str, Any] = self.printer.query({name: None})[name]
        return found

    def heat(self, target: int) -> None:
        self.printer.gcode(f"SET_HEATER_TEMPERATURE HEATER=panda_breath TARGET={target}")

    def close(self) -> None:
        self.printer.close()
        self.device.close()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.close()


def test_the_heater_reads_the_cavity_and_the_device_goes_its_own_way(place: Place) -> None:
    place.heat(45)
    wait_for(lambda: place.status()["device_temperature"] >= 43.0)
    place.printer.wait_for(lambda: place.status(HEATER)["temperature"] >= 36.0)
    status = place.status()
    heater = place.status(HEATER)["temperature"]
    assert status["temperature"] < status["device_temperature"] - 2.0
    assert abs(heater - status["temperature"]) < 3.0
    assert (status["boost"], status["device_target"]) == (0, 45.0), "not within 120 s"
    assert place.device.frames() == [{"work_mode": 2, "set_temp": 45, "work_on": True}]


def test_cutoff_trips_refuses_and_lets_go(place: Place) -> None:
    place.heat(45)
    place.device.wait_for("state", work_on=1)
    mark = place.device.mark()
    place.tops(70.5)
    place.device.wait_for("state", mark, work_on=0)
    place.printer.wait_for(lambda: place.status(HEATER)["target"] == 0.0)
    why = "temperature_sensor top reads 70.5 C, and cutoff_temp is 70 C"
    place.printer.wait_for(lambda: any(why in line for line in place.printer.console()))
    with pytest.raises(GcodeError, match=r"temperature_sensor top reads 70\.5 C"):
        place.heat(45)
    place.tops(66.0)

    def refused() -> str:
        try:
            place.heat(45)
        except GcodeError as error:
            return str(error)
        return ""

    place.printer.wait_for(lambda: "has to cool down to 65 C first" in refused())
    place.tops(64.0)
    mark = place.device.mark()
    place.printer.wait_for(lambda: not refused())
    place.device.wait_for("state", mark, work_on=1)


def test_cutoff_by_a_sensor_that_dies(place: Place) -> None:
    place.heat(45)
    place.device.wait_for("state", work_on=1)
    mark = place.device.mark()
    place.top.write_text("nothing\n")  # ends a temperature_host for good
    place.device.wait_for("state", mark, work_on=0)
    why = "no reading from temperature_sensor top for 10 s (cutoff_sensor)"
    place.printer.wait_for(lambda: any(why in line for line in place.printer.console()))
    assert place.printer.info()["state"] == "ready"


def test_restart_keeps_it_all_working(place: Place) -> None:
    place.heat(45)
    place.device.wait_for("state", work_on=1)
    place.printer.restart()
    wait_for(lambda: place.status()["temperature"] is not None)
    mark = place.device.mark()
    place.printer.wait_for(lambda: place.status()["link"] == "connected")
    place.heat(40)
    place.device.wait_for("state", mark, work_on=1, set_temp=40)
    assert place.status("temperature_sensor cavity")["temperature"] > 20.0
