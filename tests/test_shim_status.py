"""The status object: the same fields of the same types in every state, and always JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Callable

import pytest
from conftest import SECTION, Make
from fake_native import Driver, Session

FIELDS: dict[str, tuple[type, ...]] = {
    "temperature": (float, type(None)),
    "device_temperature": (float, type(None)),
    "target": (float,),
    "device_target": (float, type(None)),
    "device_on": (bool, type(None)),
    "link": (str,),
    "firmware_version": (str, type(None)),
    "dialect": (str, type(None)),
    "stale": (bool,),
    "reading_age": (float, type(None)),
    "mode": (str, type(None)),
    "drying": (bool, type(None)),
    "remaining_seconds": (float, type(None)),
    "fault": (bool,),
    "fault_reason": (str, type(None)),
    "external_off": (bool,),
    "reconnects": (int,),
    "last_error": (str, type(None)),
    "boost": (int,),
    "device_id": (str, type(None)),
}


def unknown(session: Session) -> None:
    pass


def heating(session: Session) -> None:
    session.read(41.0)
    vars(session.state).update(
        device_on=True,
        device_target=45.0,
        dialect="stock",
        mode="on",
        drying=False,
        remaining_seconds=0.0,
        firmware_version="1.0.3",
        device_id="0001",
    )


def stale(session: Session) -> None:
    heating(session)
    assert session.state.read_at is not None
    session.state.read_at -= 30.0


def lost(session: Session) -> None:
    stale(session)
    session.lose()
    session.state.last_error = "no report for 5 s"


def wrong(session: Session) -> None:
    vars(session.state).update(link="error", last_error="device 1a2f answers at 192.168.1.50")


def faulty(session: Session) -> None:
    heating(session)
    vars(session.state).update(fault="the PTC sensor is open", cannot_heat=True)


def broken(session: Session) -> None:
    heating(session)
    session.bug = BaseException("PanicException")


STATES: list[Callable[[Session], None]] = [unknown, heating, stale, lost, wrong, faulty, broken]


def check(status: dict[str, Any]) -> None:
    json.dumps(status, allow_nan=False)
    assert set(status) == set(FIELDS)
    for field, types in FIELDS.items():
        assert type(status[field]) in types, (field, status[field])


@pytest.mark.parametrize("enter", STATES)
def test_the_types_never_change(
    make: Make, driver: Driver, enter: Callable[[Session], None]
) -> None:
    host = make(SECTION)
    enter(driver.session())
    host.advance(2.0)
    check(host.status("panda_breath"))
    heater = host.status("heater_generic panda_breath")
    json.dumps(heater, allow_nan=False)
    assert set(heater) == {"temperature", "target", "power"}
    assert {type(value) for value in heater.values()} == {float}


@pytest.mark.parametrize("state", ["batch mode", "config error", "shutdown", "before connect"])
def test_the_types_are_the_same_where_there_is_no_device(
    make: Make, driver: Driver, state: str
) -> None:
    if state == "batch mode":
        host = make(SECTION, debugoutput="out")
    elif state == "config error":
        host = make(SECTION + "max_temp: 50\n")
        assert host.state == "error"
    elif state == "shutdown":
        host = make(SECTION)
        host.gcode("M112")
    else:
        seen: list[dict[str, Any]] = []
        driver.opening = lambda session: seen.append(
            host.lookup("panda_breath").get_status(host.clock.monotonic())
        )
        host = make("")
        host.close()
        host = make(SECTION)
        check(host.status("panda_breath"))
        return
    host.advance(2.0)
    check(host.status("panda_breath"))


def test_a_status_before_the_driver_was_started_has_the_same_types(
    make: Make, driver: Driver
) -> None:
    host = make(SECTION)
    device = host.lookup("panda_breath")
    device.state = device.heater = None
    status = device.get_status(host.clock.monotonic())
    check(status)
    assert (status["link"], status["stale"], status["target"]) == ("pending", True, 0.0)


def test_what_is_not_known_is_null(make: Make) -> None:
    host = make(SECTION)
    host.advance(2.0)
    status = host.status("panda_breath")
    nullable = {field for field, types in FIELDS.items() if type(None) in types} - {"dialect"}
    assert {field for field in status if status[field] is None} == nullable
    assert status["stale"] is True


def test_what_is_known_is_shown(make: Make, driver: Driver) -> None:
    host = make(SECTION)
    heating(driver.session())
    host.gcode("SET_HEATER_TEMPERATURE HEATER=panda_breath TARGET=45")
    host.advance(1.5)
    status = host.status("panda_breath")
    assert status["temperature"] == status["device_temperature"] == 41.0
    assert (status["target"], status["device_target"], status["device_on"]) == (45.0, 45.0, True)
    assert (status["link"], status["firmware_version"]) == ("connected", "1.0.3")
    assert (status["stale"], status["fault"], status["fault_reason"]) == (False, False, None)
    assert status["reading_age"] == pytest.approx(1.5)


def test_a_stale_temperature_is_null_and_never_the_last_number(make: Make, driver: Driver) -> None:
    host = make(SECTION + "stale_after: 4\n")
    heating(driver.session())
    host.advance(3.9)
    assert host.status("panda_breath")["temperature"] == 41.0
    host.advance(0.2)
    status = host.status("panda_breath")
    assert status["stale"] is True
    assert status["temperature"] is status["device_temperature"] is None
    assert status["reading_age"] == pytest.approx(4.1)


def test_a_fault_is_shown_in_words(make: Make, driver: Driver) -> None:
    host = make(SECTION)
    faulty(driver.session())
    host.advance(1.0)
    status = host.status("panda_breath")
    assert (status["fault"], status["fault_reason"]) == (True, "the PTC sensor is open")


def test_r9_an_external_off_is_shown(make: Make, driver: Driver) -> None:
    host = make(SECTION)
    heating(driver.session())
    driver.session().force_off("a button", failure=False)
    host.advance(1.0)
    assert host.status("panda_breath")["external_off"] is True


def test_r1_a_status_asks_the_driver_nothing(make: Make, driver: Driver) -> None:
    host = make(SECTION)
    host.advance(1.0)
    wishes = len(driver.session().wishes)
    for _ in range(100):
        host.status("panda_breath")
        host.status("heater_generic panda_breath")
    assert len(driver.session().wishes) == wishes


def test_each_status_is_an_object_of_its_own(make: Make) -> None:
    """Klipper compares it with the last one to find what has changed."""
    host = make(SECTION)
    assert host.status("panda_breath") is not host.status("panda_breath")
    first = host.status("heater_generic panda_breath")
    assert first is not host.status("heater_generic panda_breath")


@pytest.mark.parametrize(
    ("section", "before", "found", "after"),
    [
        ("host: 192.168.1.50", "stock", "stock", "stock"),
        ("mqtt_broker: 192.168.1.50\nmqtt_port: 80", None, "esphome", "esphome"),
        ("mqtt_broker: 192.168.1.50\nmqtt_port: 80", None, "stock_mqtt", "stock_mqtt"),
        ("firmware: esphome\nmqtt_broker: 192.168.1.50\nmqtt_port: 80", "esphome", None, "esphome"),
    ],
)
def test_the_dialect_is_the_configured_one_until_the_device_shows_it(
    make: Make, driver: Driver, section: str, before: str | None, found: str | None, after: str
) -> None:
    host = make(f"[panda_breath]\n{section}\n")
    status = host.status("panda_breath")
    check(status)
    assert status["dialect"] == before
    driver.session().state.dialect = found
    host.advance(1.0)
    assert host.status("panda_breath")["dialect"] == after


def test_r11_no_status_shows_the_password(make: Make, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("s3cret\n")
    host = make(
        "[panda_breath]\nmqtt_broker: 10.0.0.2\nmqtt_username: klipper\n"
        f"mqtt_password_file: {file}\n"
    )
    assert host.state == "ready", host.message
    for name in ("panda_breath", "configfile", "heater_generic panda_breath", "webhooks"):
        assert "s3cret" not in json.dumps(host.status(name))
