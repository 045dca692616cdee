"""dryer: a second heater that dries filament, and how the two get along."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, SECTION, Make
from fake_native import Driver, Session
from printers import printer_from_environment
from simulator import Simulator, wait_for

from klippy_stub import Host
from klippy_stub.gcode import CommandError

CHAMBER = "heater_generic panda_breath"
DRYER = "heater_generic panda_breath_dryer"
DRY = SECTION + "dryer: True\ndrying_hours: 4\n"
SLICER = (ROOT / "examples" / "m141_m191.cfg").read_text()
DRYING = (ROOT / "examples" / "drying.cfg").read_text()


@pytest.fixture
def session(driver: Driver) -> Session:
    return driver.session()


@pytest.fixture
def host(make: Make, session: Session) -> Host:
    return printer(make, session)


def printer(make: Make, session: Session, config: str = DRY) -> Host:
    host = make(config)
    assert host.state == "ready", host.message
    beat(host, session, 2)
    return host


def beat(host: Host, session: Session, seconds: int, celsius: float = 30.0) -> None:
    """The device is there, and reports every second."""
    for _ in range(seconds):
        session.read(celsius)
        host.advance(1.0)


def heat(host: Host, target: float, heater: str = "panda_breath") -> list[str]:
    return host.gcode(f"SET_HEATER_TEMPERATURE HEATER={heater} TARGET={target}")


def dry(host: Host, target: float) -> list[str]:
    return heat(host, target, "panda_breath_dryer")


def targets(host: Host) -> tuple[Any, Any]:
    """Of the chamber and of the dryer."""
    return host.status(CHAMBER)["target"], host.status(DRYER)["target"]


def error(make: Make, config: str) -> str:
    host = make(config)
    assert host.state == "error", host.state
    return str(host.message)


# Options


def test_it_is_a_heater_of_its_own_with_a_sensor_and_a_watch(
    host: Host, driver: Driver, session: Session
) -> None:
    assert driver.opened[0].options["drying_hours"] == 4
    heaters = host.status("heaters")
    assert {CHAMBER, DRYER} <= set(heaters["available_heaters"])
    assert DRYER in heaters["available_sensors"]
    dryer, chamber = host.heater("panda_breath_dryer"), host.heater("panda_breath")
    assert dryer.sensor is not chamber.sensor
    beat(host, session, 1, 33.0)
    assert (dryer.last_temp, chamber.last_temp) == (33.0, 33.0)
    for name in ("panda_breath", "panda_breath_dryer"):
        check = host.lookup("verify_heater " + name)
        assert (check.check_gain_time, check.max_error) == (360.0, 7200.0)
    raw = host.status("configfile")["config"]
    assert raw[DRYER]["heater_pin"] == "panda_breath:dry"


def test_a_named_section_has_its_own(make: Make, driver: Driver) -> None:
    host = make("[panda_breath left]\nhost: 192.168.1.51\ndryer: True\n")
    assert host.state == "ready", host.message
    assert "heater_generic left_dryer" in host.status("heaters")["available_heaters"]


def test_there_is_none_without_the_option(make: Make, driver: Driver) -> None:
    for config in (SECTION, SECTION + "dryer: False\n"):
        host = make(config)
        assert host.status("heaters")["available_heaters"] == [CHAMBER]


def test_limits_are_the_chambers_and_a_section_of_ones_own_wins(make: Make) -> None:
    host = make(DRY + "max_temp: 70\nmin_temp: 5\nsmooth_time: 3\n")
    dryer = host.heater("panda_breath_dryer")
    assert (dryer.min_temp, dryer.max_temp) == (5.0, 70.0)
    own = "[heater_generic oven]\nheater_pin: panda_breath:dry\nsensor_type: panda_breath\n"
    own += "control: watermark\nmin_temp: 1\nmax_temp: 75\n"
    host = make(DRY + own)
    assert host.state == "ready", host.message
    assert set(host.status("heaters")["available_heaters"]) == {CHAMBER, "heater_generic oven"}
    assert host.heater("oven").max_temp == 75.0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("drying_hours: 4", "'drying_hours' in section 'panda_breath' is not valid: '4'; it needs "
         "dryer: True as well"),
        ("dryer: maybe", "Unable to parse option 'dryer' in section 'panda_breath': 'maybe'"),
        ("dryer: True\ndrying_hours: 0", "Option 'drying_hours' in section 'panda_breath' must"),
        ("dryer: True\ndrying_hours: 100", "Option 'drying_hours' in section 'panda_breath' must"),
        ("dryer: True\nmax_target: 39", "Option 'dryer' in section 'panda_breath' is not valid: "
         "'True'; drying needs at least 40 C, and max_target is 39 C"),
    ],
)  # fmt: skip
def test_options_that_make_no_sense_are_errors(make: Make, options: str, words: str) -> None:
    assert words in error(make, SECTION + options + "\n")


def test_its_pin_is_there_only_with_the_option(make: Make) -> None:
    own = "[heater_generic oven]\nheater_pin: panda_breath:dry\nsensor_type: panda_breath\n"
    own += "control: watermark\nmin_temp: 1\nmax_temp: 75\n"
    assert "The only pin of [panda_breath] is 'panda_breath:pwm'" in error(make, SECTION + own)


# Targets


def test_a_target_is_a_wish_to_dry_and_leaves_at_once(host: Host, session: Session) -> None:
    dry(host, 55)
    wish = session.wish
    assert (wish.call, wish.target, wish.dry) == ("want", 55.0, True)
    assert targets(host) == (0.0, 55.0)
    dry(host, 0)
    wish = session.wish
    assert (wish.call, wish.target, wish.dry) == ("want", 0.0, False)


@pytest.mark.parametrize("target", [39.9, 60.1, -5, 100])
def test_a_target_outside_of_40_to_60_is_an_error(
    host: Host, session: Session, target: float
) -> None:
    with pytest.raises(CommandError, match="filament is dried at 40 to 60 C"):
        dry(host, target)
    assert targets(host) == (0.0, 0.0)


def test_a_target_above_max_target_is_an_error(make: Make, session: Session) -> None:
    host = printer(make, session, DRY + "max_target: 50\n")
    with pytest.raises(CommandError, match="above the max_target of 50 C"):
        dry(host, 51)


def test_the_newer_target_wins_and_says_so(host: Host, session: Session) -> None:
    dry(host, 55)
    heat(host, 45)
    assert targets(host) == (45.0, 0.0)
    assert (session.wish.target, session.wish.dry) == (45.0, False)
    beat(host, session, 1)
    assert any(
        "the target of 55.0 C of panda_breath_dryer was dropped for panda_breath" in line
        for line in host.responses
    )
    dry(host, 50)
    assert targets(host) == (0.0, 50.0)
    assert (session.wish.target, session.wish.dry) == (50.0, True)
    beat(host, session, 1)
    assert any("45.0 C of panda_breath was dropped for panda" in line for line in host.responses)


def test_no_moment_without_either_on_the_way(host: Host, session: Session) -> None:
    dry(host, 55)
    before = len(session.wishes)
    heat(host, 45)
    assert all(wish.target > 0.0 for wish in session.wishes[before:])


def test_zero_never_stops_the_other_and_never_raises(host: Host, session: Session) -> None:
    dry(host, 55)
    heat(host, 0)
    assert targets(host) == (0.0, 55.0)
    assert (session.heat, session.wish.dry) == (55.0, True)
    heat(host, 45)
    dry(host, 0)
    assert (session.heat, session.wish.dry) == (45.0, False)
    session.bug = RuntimeError("a bug")
    heat(host, 0)
    dry(host, 0)
    assert targets(host) == (0.0, 0.0)


def test_a_zero_of_the_dryer_is_no_word_about_the_chamber(host: Host, session: Session) -> None:
    hand = session.wish.hand
    dry(host, 0)
    assert session.wish.hand == hand, "follow_bed goes on"


def test_r3_a_zero_of_the_other_revives_no_target_that_was_dropped(
    make: Make, session: Session
) -> None:
    host = printer(make, session, DRY + "on_lost: warn\n")
    heat(host, 45)
    printing = host.launch("G4 P5000")
    beat(host, session, 1)
    session.lose()
    beat(host, session, 2)
    session.state.lost = False
    assert targets(host) == (45.0, 0.0), "it stays, without effect"
    host.heater("panda_breath_dryer").set_temp(0.0)
    assert session.heat == 0.0
    del printing


def test_a_target_that_went_past_set_temp_wins_too(host: Host, session: Session) -> None:
    heat(host, 45)
    host.heater("panda_breath_dryer").alter_target(50.0)
    beat(host, session, 2)
    assert targets(host) == (0.0, 50.0)
    assert (session.wish.target, session.wish.dry) == (50.0, True)


def test_turn_off_heaters_and_idle_timeout_end_it(make: Make, session: Session) -> None:
    host = printer(make, session, DRY + "[idle_timeout]\ntimeout: 30\n")
    dry(host, 55)
    host.gcode("TURN_OFF_HEATERS")
    assert session.heat == 0.0
    dry(host, 55)
    beat(host, session, 60)
    assert targets(host) == (0.0, 0.0)
    assert session.heat == 0.0


def test_drying_longer_than_the_idle_timeout_says_so(make: Make, session: Session) -> None:
    host = printer(make, session)
    dry(host, 55)
    beat(host, session, 1)
    said = [line for line in host.responses if "idle_timeout" in line]
    assert len(said) == 1
    assert "dries for 4 h" in said[0] and "after 600 s: SET_IDLE_TIMEOUT TIMEOUT=15000" in said[0]
    host.responses.clear()
    host.gcode("SET_IDLE_TIMEOUT TIMEOUT=15000")
    dry(host, 50)
    beat(host, session, 1)
    assert not [line for line in host.responses if "turns all heaters off" in line]


def test_the_example_macros_set_the_timeout_and_put_it_back(make: Make, session: Session) -> None:
    host = printer(make, session, DRY + DRYING)
    for macro, target in (("DRY_PLA", 55.0), ("DRY_PETG", 60.0), ("DRY_FILAMENT TEMP=50", 50.0)):
        host.gcode(macro)
        assert targets(host) == (0.0, target)
        assert host.status("idle_timeout")["idle_timeout"] == 15000.0
    beat(host, session, 1)
    assert not [line for line in host.responses if "turns all heaters off" in line]
    host.gcode("DRY_STOP")
    assert targets(host) == (0.0, 0.0)
    assert host.status("idle_timeout")["idle_timeout"] == 600.0


def timeout(host: Host) -> Any:
    return host.status("idle_timeout")["idle_timeout"]


@pytest.mark.parametrize("end", ["hours", "button", "lost", "chamber", "off"])
def test_the_example_macros_put_the_timeout_back_however_drying_ends(
    make: Make, session: Session, end: str
) -> None:
    host = printer(make, session, DRY + DRYING)
    host.gcode("DRY_PLA")
    beat(host, session, 150)
    assert timeout(host) == 15000.0, "not before it ends"
    if end == "hours":
        session.force_off("filament drying has ended after 4 h; the heater is off", failure=False)
        session.state.dried = True
    elif end == "button":
        session.force_off("the device was turned off by a button", failure=False)
    elif end == "lost":
        session.force_off("no reading for 120 s")
    elif end == "chamber":
        heat(host, 45)
    else:
        host.gcode("TURN_OFF_HEATERS")
    beat(host, session, 61)
    assert targets(host)[1] == 0.0
    assert timeout(host) == 600.0
    host.gcode("SET_IDLE_TIMEOUT TIMEOUT=15000")
    beat(host, session, 61)
    assert timeout(host) == 15000.0, "nobody watches any longer"


def test_the_example_macros_change_no_timeout_for_a_target_that_is_refused(
    make: Make, session: Session
) -> None:
    host = printer(make, session, DRY + DRYING)
    with pytest.raises(CommandError, match="filament is dried at 40 to 60 C"):
        host.gcode("DRY_FILAMENT TEMP=70")
    assert timeout(host) == 600.0


def test_the_example_macros_leave_a_timeout_alone_that_somebody_else_has_set(
    make: Make, session: Session
) -> None:
    host = printer(make, session, DRY + DRYING)
    host.gcode("DRY_PLA")
    host.gcode("SET_IDLE_TIMEOUT TIMEOUT=86400\nTURN_OFF_HEATERS")  # as a print's start
    beat(host, session, 61)
    assert timeout(host) == 86400.0
    host = printer(make, session, DRY + DRYING + "[idle_timeout]\ntimeout: 90000\n")
    host.gcode("DRY_PLA")
    assert timeout(host) == 90000.0, "long enough"
    host.gcode("DRY_STOP")
    assert timeout(host) == 90000.0


@pytest.mark.parametrize("last", ["M141 S0", "M191 S0"])
def test_what_a_slicer_writes_after_its_end_code_does_not_stop_drying(
    make: Make, session: Session, last: str
) -> None:
    """OrcaSlicer writes M141 S0 behind the end code: that is the chamber's heater."""
    host = printer(make, session, DRY + SLICER + DRYING)
    host.gcode("M141 S45")
    assert targets(host) == (45.0, 0.0)
    before = len(session.wishes)
    host.gcode(f"TURN_OFF_HEATERS\nDRY_PLA\n{last}")
    assert targets(host) == (0.0, 55.0)
    beat(host, session, 60)
    assert targets(host) == (0.0, 55.0)
    wishes = session.wishes[before:]
    begun = next(n for n, wish in enumerate(wishes) if wish.target == 55.0)
    assert all((wish.target, wish.dry) == (55.0, True) for wish in wishes[begun:])


def after_print() -> str:
    """The macros of docs/macros.md, as they stand there."""
    text = (ROOT / "docs" / "macros.md").read_text()
    section = text.partition("## Dry filament after a print")[2]
    return section.partition("```ini\n")[2].partition("```")[0]


def test_drying_after_a_print_begins_after_the_slicers_last_line(
    make: Make, session: Session
) -> None:
    host = printer(make, session, DRY + SLICER + DRYING + after_print())
    host.gcode("M141 S45")
    host.gcode("TURN_OFF_HEATERS\nDRY_AFTER_PRINT\nM141 S0")
    assert targets(host) == (0.0, 0.0)
    beat(host, session, 62)
    assert targets(host) == (0.0, 55.0)
    assert session.wish.dry


# Ends


def test_it_ends_by_itself_without_alarm(host: Host, session: Session) -> None:
    dry(host, 55)
    host.responses.clear()
    session.force_off("filament drying has ended after 4 h; the heater is off", failure=False)
    session.state.dried = True
    beat(host, session, 2)
    assert targets(host) == (0.0, 0.0)
    assert [line for line in host.responses if "ended" in line or "dropped" in line] == [
        "// panda_breath: filament drying has ended after 4 h; the heater is off"
    ]
    session.state.dried = False
    heat(host, 45)
    assert session.heat == 45.0


def test_its_end_leaves_a_chamber_alone_that_was_set_just_then(
    host: Host, session: Session
) -> None:
    dry(host, 55)
    session.force_off("filament drying has ended after 4 h; the heater is off", failure=False)
    session.state.dried = True
    heat(host, 45)
    beat(host, session, 2)
    assert targets(host) == (45.0, 0.0)
    assert session.heat == 45.0


def test_its_end_leaves_a_target_alone_that_was_set_just_then(host: Host, session: Session) -> None:
    dry(host, 55)
    session.force_off("filament drying has ended after 4 h; the heater is off", failure=False)
    session.state.dried = True
    dry(host, 50)
    beat(host, session, 2)
    assert targets(host) == (0.0, 50.0)
    assert (session.heat, session.wish.dry) == (50.0, True)
    assert "// panda_breath: filament drying has ended after 4 h; the heater is off" in (
        host.responses
    )


def test_its_end_ends_a_target_that_was_set_just_before(host: Host, session: Session) -> None:
    dry(host, 50)
    beat(host, session, 2)
    dry(host, 55)
    session.force_off("filament drying has ended after 4 h; the heater is off", failure=False)
    session.state.dried = True
    beat(host, session, 2)
    assert targets(host) == (0.0, 0.0)
    assert session.heat == 0.0


def test_r3_a_forced_off_names_the_heater_that_was_dropped(host: Host, session: Session) -> None:
    dry(host, 55)
    session.force_off("the device was turned off by a button", failure=False)
    beat(host, session, 2)
    assert targets(host) == (0.0, 0.0)
    assert session.heat == 0.0
    line = next(line for line in host.responses if "dropped" in line)
    assert "55.0 C was dropped" in line
    assert "SET_HEATER_TEMPERATURE HEATER=panda_breath_dryer TARGET=55" in line


def test_r2_a_shutdown_ends_it(host: Host, session: Session) -> None:
    dry(host, 55)
    host.gcode("M112")
    assert session.heat == 0.0


def test_r5_a_silent_device_is_stale_for_the_dryer_as_well(host: Host, session: Session) -> None:
    assert host.status(DRYER)["temperature"] > 0.0
    host.advance(9.0)
    assert host.status(DRYER)["temperature"] == 0.0


def test_a_device_that_cannot_be_reached_is_refused_and_so_is_a_cutoff(
    host: Host, session: Session
) -> None:
    session.refusal = "temperature_sensor top reads 75.0 C, and cutoff_temp is 70 C"
    with pytest.raises(CommandError, match="cutoff_temp is 70 C"):
        dry(host, 55)
    session.refusal = None
    session.state.lost = True
    with pytest.raises(CommandError, match="cannot be reached"):
        dry(host, 55)


def test_it_cannot_be_calibrated(host: Host, session: Session) -> None:
    host.heater("panda_breath_dryer").set_control(object())
    with pytest.raises(CommandError, match="cannot be calibrated"):
        dry(host, 55)


# Over a simulated device


def test_live_filament_is_dried_and_that_ends(tmp_path: Path) -> None:
    speed = ("--speed", "600")  # an hour in 6 s
    device = Simulator(tmp_path / "simulator", "--identity", "02aabbcc0d01", *speed)
    config = device.section(options="dryer: True\ndrying_hours: 1\n")
    config += SLICER + DRYING
    printer = printer_from_environment(config, tmp_path / "printer")

    def status(name: str = "panda_breath") -> dict[str, Any]:
        found: dict[str, Any] = printer.query({name: None})[name]
        return found

    try:
        device.inject("button power")
        device.wait_for("state", work_on=0)
        printer.start()
        wait_for(lambda: status()["temperature"])
        mark = device.mark()
        printer.gcode("DRY_PLA")
        device.wait_for("state", mark, work_on=1, work_mode=3)
        assert device.frames()[-1] == {
            "work_mode": 3,
            "filament_temp": 55,
            "filament_timer": 1,
            "filament_drying_mode": 3,
            "isrunning": 1,
            "work_on": True,
        }
        printer.wait_for(lambda: status()["drying"] is True)
        assert 3_500 < status()["remaining_seconds"] <= 3_600
        printer.gcode("M141 S0")  # OrcaSlicer's last line; drying goes on until it ends by itself
        device.wait_for("state", mark, work_on=0)
        printer.wait_for(lambda: status(DRYER)["target"] == 0.0)
        # By our clock that is 59 min early. Said by itself it is its end all the same; seen first
        # by a look, on a busy machine, it is somebody's hand.
        words = ("ended filament drying", "was dropped")
        printer.wait_for(lambda: any(w in line for line in printer.console() for w in words))
        printer.gcode("_DRY_WATCH")  # as a minute later
        # Kalico does not tell what it is.
        assert printer.query({"idle_timeout": None})["idle_timeout"].get("idle_timeout", 600) == 600
        assert printer.info()["state"] == "ready"
    finally:
        printer.close()
        device.close()
