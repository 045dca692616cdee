"""chamber_sensor and cutoff_sensor: Klipper's own sensors, as the shim reads them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from conftest import SECTION, Make
from fake_native import Driver, Sample, Session

from klippy_stub import Host

HEATER = "heater_generic panda_breath"
SENSOR = """
[temperature_sensor {name}]
sensor_type: temperature_host
"""
CAVITY = SENSOR.format(name="cavity")
TOP = SENSOR.format(name="top")
CHAMBER = SECTION + "chamber_sensor: temperature_sensor cavity\n"
CUTOFF = SECTION + "cutoff_sensor: temperature_sensor top\ncutoff_temp: 70\n"
BOTH = CHAMBER + "cutoff_sensor: temperature_sensor top\ncutoff_temp: 70\n" + CAVITY + TOP


@pytest.fixture
def session(driver: Driver) -> Session:
    return driver.session()


def says(host: Host, celsius: float | None, name: str = "cavity") -> None:
    """What a sensor says from now on; None: nothing any more."""
    host.lookup("temperature_host " + name).value = celsius


def fed(host: Host, section: str = HEATER) -> list[tuple[float, float]]:
    """What arrives at an object of Klipper's from now on: age in seconds, and temperature."""
    readings: list[tuple[float, float]] = []
    mcu = host.lookup("mcu")
    consumer = host.lookup(section)
    take = consumer.temperature_callback

    def note(read_time: float, temp: float) -> None:
        now = mcu.estimated_print_time(host.clock.monotonic())
        readings.append((round(now - read_time, 3), temp))
        take(read_time, temp)

    consumer.sensor.setup_callback(note)
    return readings


def beat(host: Host, session: Session, seconds: int, celsius: float = 50.0) -> None:
    """The device is there, and reports every second."""
    for _ in range(seconds):
        session.read(celsius)
        host.advance(1.0)


def error(make: Make, config: str) -> str:
    host = make(config)
    assert host.state == "error", host.state
    return str(host.message)


# Options


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("cutoff_temp: 70", "Option 'cutoff_temp' in section 'panda_breath' is not valid: '70'; "
         "it needs cutoff_sensor as well"),
        ("cutoff_sensor: temperature_sensor top", "'cutoff_sensor' in section 'panda_breath' is "
         "not valid: 'temperature_sensor top'; give cutoff_temp as well, in C"),
        ("max_boost: 5", "'max_boost' in section 'panda_breath' is not valid: '5'; "
         "it needs chamber_sensor as well"),
        ("chamber_sensor:", "'chamber_sensor' in section 'panda_breath' is not valid: ''; "
         "name a sensor"),
        ("chamber_sensor: temperature_sensor cavity\nmax_boost: 41", "'max_boost'"),
        ("chamber_sensor: temperature_sensor cavity\nmax_boost: -1", "'max_boost'"),
        ("cutoff_sensor: temperature_sensor top\ncutoff_temp: 151", "'cutoff_temp'"),
        ("cutoff_sensor: temperature_sensor top\ncutoff_temp: nan", "cutoff_temp"),
        ("cutoff_sensor: temperature_sensor top\ncutoff_temp: 0", "'cutoff_temp'"),
        ("chamber_sensor: temperature_sensor cavty", "'chamber_sensor' in section 'panda_breath' "
         "is not valid: 'temperature_sensor cavty'; there is no such sensor; choose one of: "
         "temperature_sensor cavity, temperature_sensor top"),
        ("chamber_sensor: cavity", "there is no such sensor; choose one of: temperature_sensor"),
        ("chamber_sensor: gcode_move", "its age cannot be told; choose one of: temperature_sensor"),
        ("chamber_sensor: heater_generic panda_breath", "that is the device's own; choose one of: "
         "temperature_sensor cavity, temperature_sensor top"),
        ("chamber_sensor: panda_breath", "that is the device's own"),
        ("chamber_sensor: temperature_sensor air", "that is the device's own"),
        ("cutoff_sensor: heater_generic panda_breath\ncutoff_temp: 70", "'cutoff_sensor' in section"
         " 'panda_breath' is not valid: 'heater_generic panda_breath'; that is the device's own"),
        ("chamber_sensor: temperature_sensor both", "'heater_generic panda_breath'; that is the "
         "device's own"),
        ("chamber_sensor: temperature_sensor loop", "its age cannot be told"),
    ],
)  # fmt: skip
def test_a_mistake_is_an_error_that_names_section_option_and_value(
    make: Make, options: str, words: str
) -> None:
    combined = "sensor_type: temperature_combined\nmaximum_deviation: 999\ncombination_method: max"
    sections = (
        f"[temperature_sensor air]\nsensor_type: panda_breath\n"
        f"[temperature_sensor both]\n{combined}\n"
        f"sensor_list: temperature_sensor cavity, {HEATER}\n"
        f"[temperature_sensor loop]\n{combined}\nsensor_list: temperature_sensor loop\n"
    )
    assert words in error(make, SECTION + options + "\n" + CAVITY + TOP + sections)


def test_a_section_of_ones_own_must_use_the_devices_sensor(make: Make) -> None:
    own = (
        "[heater_generic chamber]\nheater_pin: panda_breath:pwm\ncontrol: watermark\n"
        "sensor_type: temperature_host\nmin_temp: 0\nmax_temp: 80\n"
    )
    words = error(make, CHAMBER + own + CAVITY)
    assert "'chamber_sensor' in section 'panda_breath'" in words
    assert "[heater_generic chamber]" in words
    assert "set its sensor_type to: panda_breath" in words


def test_a_sensor_that_is_too_slow_is_an_error_that_says_so(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    from klippy_stub.extras.temperature_host import Temperature_HOST

    # HTU21D and AHT10: 30 s, unless they are told.
    monkeypatch.setattr(Temperature_HOST, "get_report_time_delta", lambda self: 30.0)
    assert "it reports every 30 s only; set its report time to 5 s or less" in error(
        make, CUTOFF + TOP
    )


def test_the_driver_knows_sensors_limits_and_nothing_more(make: Make, driver: Driver) -> None:
    make(BOTH.replace("chamber_sensor: temperature_sensor cavity",
                      "chamber_sensor:  temperature_sensor   cavity\nmax_boost: 8"))  # fmt: skip
    options = driver.opened[0].options
    assert options["chamber"] == ("temperature_sensor cavity", 8)
    assert options["cutoff"] == ("temperature_sensor top", 70.0)


def test_without_them_nothing_is_said_about_sensors(
    make: Make, driver: Driver, session: Session
) -> None:
    host = make(SECTION + CAVITY)
    host.advance(5.0)
    assert session.around == []
    assert {"chamber", "cutoff"}.isdisjoint(driver.opened[0].options)
    assert host.lookup("verify_heater panda_breath").hysteresis == 5.0


def test_verify_heater_allows_for_a_chamber_that_is_cooler_until_the_boost_is_found(
    make: Make,
) -> None:
    host = make(CHAMBER + CAVITY)
    assert host.lookup("verify_heater panda_breath").hysteresis == 15.0
    own = "[verify_heater panda_breath]\nhysteresis: 7\n"
    host = make(CHAMBER + CAVITY + own)
    assert host.lookup("verify_heater panda_breath").hysteresis == 7.0


@pytest.mark.parametrize("name", ["temperature_host cavity", "temperature_sensor cavity"])
def test_a_sensor_is_found_by_its_own_name_as_well(make: Make, session: Session, name: str) -> None:
    host = make(SECTION + f"chamber_sensor: {name}\n" + CAVITY)
    assert host.state == "ready", host.message
    says(host, 33.0)
    host.advance(2.0)
    assert session.around[-1][0] is not None
    assert host.status("temperature_sensor cavity")["temperature"] == 33.0


# What is passed down


def sample(session: Session) -> tuple[Sample | None, Sample | None]:
    return session.around[-1]


def test_r5_readings_go_down_with_their_age_and_nothing_is_invented(
    make: Make, session: Session
) -> None:
    host = make(BOTH)
    says(host, 40.0)
    says(host, 60.0, "top")
    host.advance(3.0)
    chamber, cutoff = sample(session)
    assert chamber is not None and cutoff is not None
    assert (chamber[0], cutoff[0]) == (40.0, 60.0)
    assert chamber[1] <= 1.0 and cutoff[1] <= 1.0
    # It dies. Its status goes on showing what it said.
    says(host, None)
    host.advance(12.0)
    assert host.status("temperature_sensor cavity")["temperature"] == 40.0
    chamber, cutoff = sample(session)
    assert chamber is not None and cutoff is not None
    assert chamber[0] == 40.0
    assert 11.0 <= chamber[1] <= 14.0
    assert cutoff[1] <= 1.0


def test_r5_a_combination_is_as_old_as_its_oldest_member(make: Make, session: Session) -> None:
    host = make(
        SECTION
        + "chamber_sensor: temperature_sensor mean\n"
        + CAVITY
        + TOP
        + "[temperature_sensor mean]\nsensor_type: temperature_combined\n"
        "combination_method: mean\nmaximum_deviation: 99\n"
        "sensor_list: temperature_sensor cavity, temperature_sensor top\n"
    )
    assert session.around[0] == (None, None), "it has not spoken yet"
    says(host, 40.0)
    says(host, 50.0, "top")
    host.advance(4.0)
    chamber, _ = sample(session)
    assert chamber is not None
    assert chamber[0] == 45.0
    assert chamber[1] <= 2.0
    says(host, None, "top")
    host.advance(20.0)
    chamber, _ = sample(session)
    assert chamber is not None
    assert chamber[1] >= 19.0, "it goes on calling, with what a dead sensor said"


def test_r5_a_combination_has_no_reading_before_each_member_has_one(
    make: Make, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Its status shows 0.0 until then, and that is combined.
    monkeypatch.setattr("klippy_stub.extras.temperature_host.DEFAULT_VALUE", None)
    host = make(
        SECTION
        + "chamber_sensor: temperature_sensor least\n"
        + CAVITY
        + TOP
        + "[temperature_sensor least]\nsensor_type: temperature_combined\n"
        "combination_method: min\nmaximum_deviation: 99\n"
        "sensor_list: temperature_sensor cavity, temperature_sensor top\n"
    )
    says(host, 40.0)
    host.advance(5.0)
    assert host.state == "ready"
    assert sample(session) == (None, None)
    says(host, 50.0, "top")
    host.advance(3.0)
    chamber, _ = sample(session)
    assert chamber is not None
    assert chamber[0] == 40.0


def test_the_devices_own_sensors_are_not_offered(make: Make) -> None:
    air = "[temperature_sensor air]\nsensor_type: panda_breath\n"
    words = error(make, SECTION + "chamber_sensor: no\n" + CAVITY + air)
    assert words.rstrip().splitlines()[0].endswith("choose one of: temperature_sensor cavity")
    words = error(make, SECTION + "chamber_sensor: no\n" + air)
    assert "choose one of: (there are none)" in words


def test_the_same_sensor_twice_and_by_two_devices(make: Make, driver: Driver) -> None:
    use = (
        "chamber_sensor: temperature_sensor cavity\n"
        "cutoff_sensor: temperature_sensor cavity\ncutoff_temp: 70\n"
    )
    host = make(SECTION + use + "[panda_breath two]\nhost: 192.168.1.51\n" + use + CAVITY)
    assert host.state == "ready", host.message
    says(host, 44.0)
    host.advance(3.0)
    for address in ("192.168.1.50:80", "192.168.1.51:80"):
        for each in sample(driver.session(address)):
            assert each is not None
            assert each[0] == 44.0
            assert each[1] <= 1.0
    assert host.status("temperature_sensor cavity")["temperature"] == 44.0


# The heater's temperature


def test_r5_the_heater_reads_the_chamber_each_reading_once_while_the_device_is_there(
    make: Make, session: Session
) -> None:
    host = make(CHAMBER + CAVITY)
    readings = fed(host)
    says(host, 40.0)
    host.advance(5.0)
    assert readings == [], "no device, no temperature"
    beat(host, session, 10)
    assert 9 <= len(readings) <= 10
    assert {temp for _, temp in readings} == {40.0}
    assert all(0.0 <= age <= 1.0 for age, _ in readings), readings
    assert len({round(host.clock.monotonic() - age, 3) for age, _ in readings}) >= 1
    # The sensor goes silent, the device is still there: nothing is repeated.
    says(host, None)
    host.advance(1.0)
    readings.clear()
    beat(host, session, 8)
    assert readings == []
    assert host.lookup(HEATER).get_temp(host.clock.monotonic())[0] == 0.0
    assert host.status(HEATER)["temperature"] == 0.0


def test_r5_the_chamber_is_not_fed_when_the_device_is_stale(make: Make, session: Session) -> None:
    host = make(CHAMBER + "stale_after: 5\n" + CAVITY)
    says(host, 40.0)
    beat(host, session, 3)
    readings = fed(host)
    host.advance(5.0)
    assert len(readings) >= 4
    readings.clear()
    host.advance(20.0)
    assert readings == []
    assert host.lookup(HEATER).get_temp(host.clock.monotonic())[0] == 0.0
    session.read(50.0)
    host.advance(2.0)
    assert readings and readings[0][0] <= 1.0, "the newest, none of those in between"


@pytest.mark.parametrize("absurd", [math.nan, math.inf, -41.0, 151.0])
def test_r5_what_cannot_be_is_not_fed_and_not_shown(
    make: Make, session: Session, absurd: float
) -> None:
    host = make(CHAMBER + CAVITY)
    says(host, 40.0)
    beat(host, session, 3)
    readings = fed(host)
    says(host, absurd)
    host.advance(1.0)
    readings.clear()
    beat(host, session, 3)
    assert readings == []
    chamber, _ = sample(session)
    assert chamber is not None
    assert str(chamber[0]) == str(absurd), "the driver decides what that means"
    status = host.status("panda_breath")
    assert (status["temperature"], status["stale"]) == (None, True)
    json.dumps(status, allow_nan=False)


def test_other_sections_still_read_the_devices_own_sensor(make: Make, session: Session) -> None:
    air = "[temperature_sensor air]\nsensor_type: panda_breath\n"
    host = make(CHAMBER + CAVITY + air)
    says(host, 40.0)
    beat(host, session, 3, 48.0)
    assert host.status("temperature_sensor air")["temperature"] == 48.0
    assert host.status(HEATER)["temperature"] == 40.0


def test_the_status_has_both_temperatures_and_the_boost(make: Make, session: Session) -> None:
    host = make(CHAMBER + CAVITY)
    status = host.status("panda_breath")
    assert (status["temperature"], status["device_temperature"]) == (None, None)
    says(host, 40.5)
    session.state.boost = 6
    beat(host, session, 3, 48.0)
    status = host.status("panda_breath")
    assert (status["temperature"], status["device_temperature"]) == (40.5, 48.0)
    assert (status["boost"], status["stale"]) == (6, False)
    says(host, None)
    beat(host, session, 9, 48.0)
    status = host.status("panda_breath")
    assert (status["temperature"], status["device_temperature"]) == (None, 48.0)
    assert status["stale"]


@pytest.mark.parametrize(("chamber", "device"), [(60.0, 81.0), (81.0, 60.0)])
def test_max_temp_holds_for_both(
    make: Make, session: Session, chamber: float, device: float
) -> None:
    host = make(CHAMBER + CAVITY)
    says(host, 40.0)
    beat(host, session, 3)
    says(host, chamber)
    beat(host, session, 3, device)
    assert host.state == "shutdown"
    assert "81.0 C is above its max_temp of 80.0 C" in host.message


@pytest.mark.parametrize(("chamber", "device"), [(3.0, 20.0), (20.0, 3.0)])
def test_min_temp_holds_for_both(
    make: Make, session: Session, chamber: float, device: float
) -> None:
    host = make(CHAMBER + "min_temp: 5\n" + CAVITY)
    says(host, chamber)
    beat(host, session, 3, device)
    with pytest.raises(Exception, match=r"reads 3\.0 C, below its min_temp of 5\.0 C"):
        host.gcode("SET_HEATER_TEMPERATURE HEATER=panda_breath TARGET=45")


# What is refused, and what is dropped


def test_a_refusal_of_the_driver_is_a_command_error_and_zero_is_never_refused(
    make: Make, session: Session
) -> None:
    host = make(BOTH)
    beat(host, session, 3)
    session.refusal = "temperature_sensor top reads 71.0 C, and cutoff_temp is 70 C"
    with pytest.raises(Exception, match=r"panda_breath: temperature_sensor top reads 71\.0 C"):
        host.gcode("SET_HEATER_TEMPERATURE HEATER=panda_breath TARGET=45")
    assert host.status(HEATER)["target"] == 0.0
    host.gcode("SET_HEATER_TEMPERATURE HEATER=panda_breath TARGET=0")
    host.gcode("TURN_OFF_HEATERS")
    session.refusal = None
    host.gcode("SET_HEATER_TEMPERATURE HEATER=panda_breath TARGET=45")
    assert session.heat == 45.0


def test_a_refusal_is_asked_for_with_the_newest_readings(make: Make, session: Session) -> None:
    host = make(BOTH)
    beat(host, session, 3)
    says(host, 66.6, "top")
    host.advance(1.0)
    before = len(session.around)
    host.gcode("SET_HEATER_TEMPERATURE HEATER=panda_breath TARGET=45")
    assert len(session.around) > before
    cutoff = session.around[-1][1]
    assert cutoff is not None
    assert cutoff[0] == 66.6


@pytest.mark.parametrize("on_lost", ["pause", "shutdown", "warn"])
def test_cutoff_while_printing_does_what_on_lost_says(
    make: Make, session: Session, tmp_path: Path, on_lost: str
) -> None:
    files = f"[pause_resume]\n[virtual_sdcard]\npath: {tmp_path}\n"
    host = make(CUTOFF + f"on_lost: {on_lost}\n" + TOP + files)
    beat(host, session, 2)
    host.gcode("SET_HEATER_TEMPERATURE HEATER=panda_breath TARGET=45")
    (tmp_path / "part.gcode").write_text("G4 P400\n" * 2000)
    host.gcode("SDCARD_PRINT_FILE FILENAME=part.gcode")
    beat(host, session, 2)
    assert host.status("idle_timeout")["state"] == "Printing"
    session.force_off("temperature_sensor top reads 70.0 C, and cutoff_temp is 70 C")
    beat(host, session, 3)
    console = "\n".join(host.responses)
    if on_lost == "shutdown":
        assert host.state == "shutdown"
        assert "cutoff_temp is 70 C" in host.message
    else:
        assert "temperature_sensor top reads 70.0 C, and cutoff_temp is 70 C" in console
        assert host.status("pause_resume")["is_paused"] == (on_lost == "pause")
    assert session.heat == 0.0


def test_r7_a_bug_with_the_sensors_ends_nothing_but_heat(make: Make, session: Session) -> None:
    host = make(BOTH)
    beat(host, session, 3)
    session.bug = BaseException("PanicException")
    with pytest.raises(Exception, match="does not answer"):
        host.gcode("SET_HEATER_TEMPERATURE HEATER=panda_breath TARGET=45")
    host.advance(3.0)
    assert host.state == "ready"


def test_batch_mode_needs_no_sensor(make: Make, tmp_path: Path) -> None:
    host = make(BOTH, debugoutput=str(tmp_path / "out"))
    assert host.state == "ready", host.message


def test_a_sensor_may_call_from_another_thread(make: Make, session: Session) -> None:
    import threading

    host = make(CHAMBER + CAVITY)
    beat(host, session, 2)
    says(host, None)
    sensor: Any = host.lookup("temperature_host cavity")
    mcu = host.lookup("mcu")
    print_time = mcu.estimated_print_time(host.clock.monotonic())
    thread = threading.Thread(target=sensor._callback, args=(print_time, 41))
    thread.start()
    thread.join()
    beat(host, session, 1)
    chamber, _ = sample(session)
    assert chamber is not None
    assert chamber[0] == 41.0
