"""follow_bed: the option, what the shim tells the driver, and how it obeys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import SECTION, Make
from fake_native import Driver, Session
from printers import printer_from_environment
from simulator import Simulator, wait_for

from klippy_stub import Host

HEATER = "heater_generic panda_breath"
BED = """
[heater_bed]
heater_pin: PA0
sensor_type: temperature_host
control: watermark
min_temp: 0
max_temp: 120
"""
FOLLOW = SECTION + "follow_bed: 80:45, 100:60\n"


@pytest.fixture
def session(driver: Driver) -> Session:
    session = driver.session()
    session.state.device_on = False
    return session


def printer(make: Make, session: Session, config: str = FOLLOW) -> Host:
    host = make(config + BED)
    assert host.state == "ready", host.message
    beat(host, session, 2)
    return host


def beat(host: Host, session: Session, seconds: int) -> None:
    """The device is there, and reports every second."""
    for _ in range(seconds):
        session.read(30.0)
        host.advance(1.0)


def target(host: Host) -> Any:
    return host.status(HEATER)["target"]


def error(make: Make, config: str) -> str:
    host = make(config)
    assert host.state == "error", host.state
    return str(host.message)


# Options


@pytest.mark.parametrize(
    ("table", "pairs"),
    [
        ("80:45, 100:60", [(80.0, 45.0), (100.0, 60.0)]),
        (" 60 : 40.5 ", [(60.0, 40.5)]),
        ("80:45,90:0", [(80.0, 45.0), (90.0, 0.0)]),
    ],
)
def test_the_table_goes_down_to_the_driver(
    make: Make, driver: Driver, session: Session, table: str, pairs: list[tuple[float, float]]
) -> None:
    printer(make, session, SECTION + f"follow_bed: {table}\n")
    assert driver.opened[0].options["follow"] == pairs


def test_without_the_option_the_driver_hears_of_no_bed(
    make: Make, driver: Driver, session: Session
) -> None:
    host = printer(make, session, SECTION)
    host.gcode("M140 S100")
    beat(host, session, 2)
    assert "follow" not in driver.opened[0].options
    assert session.around == []


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("", "give targets of the bed and of the chamber in C, such as 80:45, 100:60"),
        ("80", "such as 80:45, 100:60"),
        ("80:45,", "such as 80:45, 100:60"),
        ("80:45:3", "such as 80:45, 100:60"),
        ("-80:45", "such as 80:45, 100:60"),
        ("nan:45", "such as 80:45, 100:60"),
        ("0:45", "the bed's targets must be above 0 and rise"),
        ("100:60, 80:45", "the bed's targets must be above 0 and rise"),
        ("80:45, 80:50", "the bed's targets must be above 0 and rise"),
        ("80:61", "a chamber of 61 C is above max_target, which is 60 C"),
        (", ".join(f"{bed}:40" for bed in range(50, 71)), "at most 20 pairs"),
    ],
)
def test_a_table_that_makes_no_sense_is_an_error(
    make: Make, session: Session, value: str, words: str
) -> None:
    text = error(make, SECTION + f"follow_bed: {value}\n")
    assert "Option 'follow_bed' in section 'panda_breath' is not valid" in text
    assert words in text


def test_without_a_bed_it_is_an_error(make: Make, session: Session) -> None:
    text = error(make, FOLLOW)
    assert "Option 'follow_bed' in section 'panda_breath' needs a section [heater_bed]" in text


# The bed


def test_the_beds_target_goes_down_with_every_look_and_with_every_target(
    make: Make, session: Session
) -> None:
    host = printer(make, session)
    assert session.bed == 0.0
    host.gcode("M140 S100")
    beat(host, session, 1)
    assert session.bed == 100.0
    host.gcode("M140 S0\nSET_HEATER_TEMPERATURE HEATER=panda_breath TARGET=0")
    assert session.bed == 0.0, "the bed first, or the target would go off with it"


def test_what_is_asked_for_becomes_klippers_target(make: Make, session: Session) -> None:
    host = printer(make, session)
    hand = session.wish.hand
    session.state.follow = (60.0, hand)
    beat(host, session, 1)
    assert target(host) == 60.0
    wish = session.wish
    assert (wish.call, wish.target, wish.hand) == ("want", 60.0, hand), "at once, and nobody's hand"
    session.state.follow = (0.0, hand)
    beat(host, session, 1)
    assert target(host) == 0.0
    assert session.wish.hand == hand
    assert not [line for line in host.responses if "dropped" in line]


def test_r3_what_was_asked_for_before_somebody_set_a_target_is_void(
    make: Make, session: Session
) -> None:
    host = printer(make, session)
    session.state.follow = (60.0, session.wish.hand)
    host.gcode("SET_HEATER_TEMPERATURE HEATER=panda_breath TARGET=0")
    beat(host, session, 3)
    assert target(host) == 0.0
    assert session.heat == 0.0


def test_every_target_that_is_set_counts_the_same_one_too(make: Make, session: Session) -> None:
    host = printer(make, session)
    hands = [session.wish.hand]
    for line in ("TARGET=45", "TARGET=45", "TARGET=0", "TARGET=0"):
        host.gcode("SET_HEATER_TEMPERATURE HEATER=panda_breath " + line)
        hands.append(session.wish.hand)
    host.gcode("TURN_OFF_HEATERS")
    hands.append(session.wish.hand)
    assert hands == list(range(hands[0], hands[0] + 6))


def test_a_target_that_went_past_set_temp_counts(make: Make, session: Session) -> None:
    host = printer(make, session)
    session.state.follow = (60.0, session.wish.hand)
    beat(host, session, 1)
    host.lookup(HEATER).alter_target(30.0)
    beat(host, session, 3)
    assert target(host) == 30.0


def test_r3_a_forced_off_goes_before_what_is_asked_for(make: Make, session: Session) -> None:
    host = printer(make, session)
    session.state.follow = (60.0, session.wish.hand)
    beat(host, session, 1)
    session.force_off("the device was turned off by a button", failure=False)
    session.state.follow = None
    beat(host, session, 3)
    assert target(host) == 0.0
    assert session.heat == 0.0


def test_r7_what_a_stuck_driver_dropped_is_not_followed_again(make: Make, session: Session) -> None:
    host = printer(make, session)
    hand = session.wish.hand
    session.state.follow = (60.0, hand)
    beat(host, session, 1)
    assert session.heat == 60.0
    session.stuck = True
    beat(host, session, 1)
    assert target(host) == 0.0
    session.stuck = False  # before a second look, in which the target would be refused
    beat(host, session, 3)
    assert (target(host), session.heat) == (0.0, 0.0)
    assert session.wish.hand == hand + 1, "the session is told that it must wait"


def test_r3_nothing_is_followed_in_shutdown(make: Make, session: Session) -> None:
    host = printer(make, session)
    host.gcode("M112")
    session.state.follow = (60.0, session.wish.hand)
    beat(host, session, 2)
    assert target(host) == 0.0


def test_what_the_shim_must_refuse_waits_for_the_next_bed_and_is_said_once(
    make: Make, session: Session
) -> None:
    host = printer(make, session)
    hand = session.wish.hand
    session.state.target_limit = 50.0
    session.state.follow = (60.0, hand)
    beat(host, session, 5)
    assert target(host) == 0.0
    assert session.wish.hand == hand + 1, "the session is told that it must wait"
    said = [line for line in host.responses if "follow_bed has to wait" in line]
    assert len(said) == 1
    assert "the device itself takes at most 50 C" in said[0]


# Over simulated devices


def test_live_the_chamber_follows_the_bed(tmp_path: Path) -> None:
    chamber = Simulator(tmp_path / "chamber", "--identity", "02aabbcc0e05")
    bed = Simulator(tmp_path / "bed", "--identity", "02aabbcc0e06")
    # A bed that a second device heats: no real klippy has a pin to spare here.
    config = chamber.section(options="follow_bed: 40:45, 60:60\n")
    config += bed.section(name="panda_breath bed") + LIVE_BED
    printer = printer_from_environment(config, tmp_path / "printer")
    try:
        for device in (chamber, bed):
            device.inject("button power")
            device.wait_for("state", work_on=0)
        printer.start()
        for name in ("panda_breath", "panda_breath bed"):
            wait_for(lambda: printer.query({name: None})[name]["temperature"])  # noqa: B023
        mark = chamber.mark()
        printer.gcode("M140 S60")
        chamber.wait_for("state", mark, work_on=1, set_temp=60)
        assert printer.query({HEATER: ["target"]})[HEATER]["target"] == 60.0
        printer.gcode("SET_HEATER_TEMPERATURE HEATER=panda_breath TARGET=50")
        chamber.wait_for("state", work_on=1, set_temp=50)
        mark = chamber.mark()
        printer.gcode("M140 S0")
        chamber.wait_for("state", mark, work_on=0)
        mark = chamber.mark()
        printer.gcode("M140 S40")
        chamber.wait_for("state", mark, work_on=1, set_temp=45)
        mark = chamber.mark()
        printer.gcode("TURN_OFF_HEATERS")
        chamber.wait_for("state", mark, work_on=0)
        printer.restart()
    finally:
        printer.close()
        chamber.close()
        bed.close()


LIVE_BED = """
[heater_bed]
heater_pin: panda_breath bed:pwm
sensor_type: panda_breath bed
control: watermark
min_temp: 0
max_temp: 80
"""
