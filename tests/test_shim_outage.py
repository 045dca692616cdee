"""Readings that stop and come back, and a reactor that stalls: what the printer makes of it.

Over klippy_stub on a clock that is cranked by hand, with a scripted driver.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Make
from fake_native import Driver, Session
from test_shim_lost import HEATER, LONG_PRINT, WAIT, Setup


@pytest.fixture
def session(driver: Driver) -> Session:
    return driver.session()


def warm(setup: Setup, target: float) -> None:
    """The chamber is at this target, and verify_heater knows."""
    setup.session.read(target)
    setup.host.gcode(f"SET_HEATER_TEMPERATURE HEATER=panda_breath TARGET={target}")
    follow(setup, [target] * 10)
    assert setup.host.lookup("verify_heater panda_breath").approaching_target is False


def follow(setup: Setup, readings: list[float | None]) -> None:
    """One reading per second; none where there is none."""
    for reading in readings:
        if reading is not None:
            setup.session.read(reading)
        setup.host.advance(1.0)


def fed(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Every temperature that Klipper is given from now on."""
    (sensor,) = setup.host.lookup("panda_breath").sensors
    given: list[float] = []
    callback = sensor.callback

    def note(read_time: float, temp: float) -> None:
        given.append(temp)
        callback(read_time, temp)

    monkeypatch.setattr(sensor, "callback", note)
    return given


# Outages


@pytest.mark.parametrize("seconds", [20, 60, 115])
def test_r5_an_outage_ends_no_print_and_feeds_nothing(
    make: Make, session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: int
) -> None:
    setup = Setup(make, session, tmp_path)
    warm(setup, 60.0)
    setup.print(LONG_PRINT)
    given = fed(setup, monkeypatch)
    follow(setup, [60.0, *[None] * seconds])
    assert given == [60.0]
    assert setup.host.status(HEATER)["temperature"] == 0.0, "as TEMPERATURE_WAIT sees it"
    shown = setup.host.status("panda_breath")
    assert (shown["temperature"], shown["stale"]) == (None, True)
    follow(setup, [59.0] * 30)
    assert given == [60.0, *[59.0] * 30]
    assert setup.host.state == "ready", setup.host.reason
    assert setup.host.status("virtual_sdcard")["is_active"]
    assert setup.target == 60.0
    assert session.heat == 60.0
    assert "dropped" not in setup.console()
    assert setup.host.status("panda_breath")["stale"] is False


def test_r5_an_outage_in_a_wait_prolongs_it(make: Make, session: Session, tmp_path: Path) -> None:
    setup = Setup(make, session, tmp_path)
    setup.host.gcode("SET_HEATER_TEMPERATURE HEATER=panda_breath TARGET=60")
    run = setup.host.launch(WAIT)
    follow(setup, [*[50.0] * 5, *[None] * 60])
    assert not run.done
    follow(setup, [61.0] * 10)
    assert run.done
    assert setup.host.state == "ready", setup.host.reason


@pytest.mark.parametrize(
    ("target", "options"),
    [(45, ""), (60, ""), (80, "max_target: 80\nmax_temp: 85\n"), (60, "lost_after: 20\n")],
)
def test_r5_on_lost_acts_before_verify_heater_does(
    make: Make, session: Session, tmp_path: Path, target: float, options: str
) -> None:
    """Whatever the target: nothing is read for `lost_after`, and then on_lost decides."""
    setup = Setup(make, session, tmp_path, "on_lost: pause\n" + options)
    warm(setup, target)
    setup.print(LONG_PRINT)
    lost_after = 20 if "lost_after" in options else 120
    follow(setup, [None] * lost_after)
    assert setup.host.state == "ready", setup.host.reason
    session.lose()
    setup.host.advance(3.0)
    assert setup.is_paused
    assert setup.target == 0.0
    setup.host.advance(600.0)
    assert setup.host.state == "ready", "a paused print that is not heated is left alone"


# Doors


def door(falls_to: float, time: float) -> list[float | None]:
    """60 C, three minutes with the door open, and back: whole degrees, as the device tells them."""
    celsius, curve = 60.0, []
    for _ in range(180):
        celsius += (falls_to - celsius) / time
        curve.append(celsius)
    while celsius < 60.0:
        celsius += (85.0 - celsius) / 900.0
        curve.append(celsius)
    return [float(round(c)) for c in curve]


@pytest.mark.parametrize(("falls_to", "time"), [(32.0, 120.0), (35.0, 60.0)])
def test_r5_a_door_open_for_three_minutes_stops_nothing(
    make: Make, session: Session, tmp_path: Path, falls_to: float, time: float
) -> None:
    setup = Setup(make, session, tmp_path)
    warm(setup, 60.0)
    setup.print(LONG_PRINT * 4)
    follow(setup, door(falls_to, time))
    assert setup.host.state == "ready", setup.host.reason
    assert setup.target == 60.0
    assert setup.host.status("virtual_sdcard")["is_active"]


def test_r5_klippers_own_defaults_would_stop_it(
    make: Make, session: Session, tmp_path: Path
) -> None:
    """But does verify_heater look at all? With Klipper's defaults, yes."""
    setup = Setup(make, session, tmp_path, "[verify_heater panda_breath]\nmax_error: 120\n")
    warm(setup, 60.0)
    setup.print(LONG_PRINT * 4)
    follow(setup, door(35.0, 60.0))
    assert setup.host.state == "shutdown"
    assert "not heating at expected rate" in setup.host.reason


# Sensors that lie


def test_r5_a_reading_above_max_temp_shuts_down(
    make: Make, session: Session, tmp_path: Path
) -> None:
    """As the shorted sensor of firmware 0.0.0 reads, which does not check it."""
    setup = Setup(make, session, tmp_path)
    setup.print(LONG_PRINT)
    follow(setup, [45.0, 125.0])
    assert setup.host.state == "shutdown"
    assert "125.0 C is above its max_temp of 80.0 C" in setup.host.reason
    assert session.wish.armed is False


def test_r5_a_sensor_that_reads_cold_for_ever_shuts_down(
    make: Make, session: Session, tmp_path: Path
) -> None:
    setup = Setup(make, session, tmp_path)
    warm(setup, 60.0)
    setup.print(LONG_PRINT)
    follow(setup, [10.0] * 160)
    assert setup.host.state == "ready", "not at once"
    follow(setup, [10.0] * 10)
    assert setup.host.state == "shutdown"
    assert "not heating at expected rate" in setup.host.reason
    assert session.wish.armed is False


# A reactor that stalls: the driver drops the target when the lease ends


def stall(setup: Setup, seconds: float) -> None:
    """Nothing of Klipper runs for so long; the driver, with a lease of 10 s, does."""
    host, session = setup.host, setup.session

    def hold_up(eventtime: float) -> None:
        began = host.clock.monotonic()
        if seconds > 10.0:
            host.clock.sleep_until(began + 10.0)
            session.force_off("Klipper did not answer for 10 s")
        host.clock.sleep_until(began + seconds)

    host.reactor.register_callback(hold_up)
    host.advance(seconds + 3.0)


@pytest.mark.parametrize("on_lost", ["pause", "shutdown"])
@pytest.mark.parametrize("seconds", [5.0, 15.0, 60.0])
def test_r8_a_reactor_that_stalls_finds_its_target_dropped(
    make: Make, session: Session, tmp_path: Path, seconds: float, on_lost: str
) -> None:
    setup = Setup(make, session, tmp_path, f"on_lost: {on_lost}")
    setup.host.launch("G4 P500\n" * 2000)  # printing, over the console
    setup.host.advance(3.0)
    assert setup.host.status("idle_timeout")["state"] == "Printing"
    looks = [setup.host.clock.monotonic()]
    session.before_drain = lambda: looks.append(setup.host.clock.monotonic())
    stall(setup, seconds)
    assert max(b - a for a, b in zip(looks, looks[1:])) >= seconds - 1.0
    dropped = "Klipper did not answer for 10 s. Its target of 45.0 C was dropped"
    if seconds < 10.0:
        assert (setup.host.state, setup.target, session.heat) == ("ready", 45.0, 45.0)
        assert "dropped" not in setup.console()
        return
    assert setup.target == 0.0
    assert session.heat == 0.0
    assert setup.console().count(dropped) == 1
    if on_lost == "shutdown":
        assert setup.host.reason == "panda_breath: Klipper did not answer for 10 s"
    else:
        assert setup.host.state == "ready"
        assert "// action:paused" in setup.host.responses


def test_r8_a_stall_without_a_print_is_target_zero_and_words(
    make: Make, session: Session, tmp_path: Path
) -> None:
    setup = Setup(make, session, tmp_path, "on_lost: shutdown")
    stall(setup, 15.0)
    assert (setup.host.state, setup.target) == ("ready", 0.0)
    assert "Klipper did not answer for 10 s. Its target of 45.0 C was dropped" in setup.console()


# A queue of lines that overflows


def test_r7_what_was_dropped_behind_an_hour_of_lines_is_obeyed_in_the_first_look(
    make: Make, session: Session, tmp_path: Path
) -> None:
    setup = Setup(make, session, tmp_path, "on_lost: shutdown")
    setup.host.launch("G4 P500\n" * 2000)
    setup.host.advance(3.0)

    def hour(eventtime: float) -> None:
        session.force_off("the device reports: heater abnormal")
        session.lines = ["7136 messages were lost", *(f"line {n}" for n in range(64))]
        setup.host.clock.sleep_until(setup.host.clock.monotonic() + 3600.0)

    setup.host.reactor.register_callback(hour)
    setup.host.advance(3602.0)
    assert setup.host.state == "shutdown"
    assert setup.host.reason == "panda_breath: the device reports: heater abnormal"
    assert setup.target == 0.0
    assert "// panda_breath: 7136 messages were lost" in setup.host.responses
    assert sum("panda_breath: line " in line for line in setup.host.responses) == 64
