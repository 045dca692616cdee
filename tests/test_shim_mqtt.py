"""The module, the wheel and a simulated device at a private broker, inside a printer.

Over klippy_stub, or over the Klipper or Kalico that KLIPPER_DIR names; see printers.py. Skipped
where mosquitto is not installed; with CI=true they fail there.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest
from broker import PASSWORD, USERNAME, Access, Broker, need_broker
from printers import GcodeError, Printer, printer_from_environment
from simulator import Entry, Simulator, wait_for

HEATER = "heater_generic panda_breath"
DIALECTS = ("esphome", "stock_mqtt")
# What a simulated device is asked to do faster than a real one: to speak, and to come back.
OPTIONS = ("--reconnect-seconds", "0.5")
NODE_OPTIONS = ("--update-seconds", "0.5")
RETAINED = {
    "esphome": ("panda-breath/climate/chamber/mode/command", "off"),
    "stock_mqtt": ("panda_breath/{id}/command", '{"work_on":"OFF"}'),
}


class Place:
    """A broker, a device at it, and how a printer gets there."""

    def __init__(
        self, folder: Path, dialect: str, access: Access = Access.ANYONE, *options: str
    ) -> None:
        self.dialect = dialect
        self.folder = folder
        self.broker = Broker(folder / "broker", access)
        try:
            self._add_device(options)
        except BaseException:
            self.broker.close()
            raise

    def _add_device(self, options: tuple[str, ...]) -> None:
        identity = "02" + os.urandom(5).hex()
        self.topic_id = identity.upper()
        options += (*OPTIONS, *(NODE_OPTIONS if self.dialect == "esphome" else ()))
        self.device = Simulator(
            self.folder / "simulator",
            *("--dialect", self.dialect, "--broker", self.broker.url, "--identity", identity),
            *options,
        )
        self.device.wait_for("open")
        # A new stock device is on, and waits for a bed that is hot.
        if self.dialect == "stock_mqtt":
            mark = self.device.mark()
            self.device.inject("button power")
            self.device.wait_for("state", mark, work_on=0)

    def section(self, options: str = "") -> str:
        """The section of printer.cfg."""
        if self.broker.access in (Access.PASSWORD, Access.TLS):
            path = self.folder / "password"
            path.write_text(PASSWORD + "\n")
            path.chmod(0o600)
            options += f"\nmqtt_username: {USERNAME}\nmqtt_password_file: {path}"
        if self.broker.access in (Access.TLS, Access.CERTIFICATE):
            options += f"\nmqtt_tls: True\nmqtt_ca_file: {self._file('ca.pem')}"
        if self.broker.access is Access.CERTIFICATE:
            options += f"\nmqtt_cert_file: {self._file('client.pem')}"
            options += f"\nmqtt_key_file: {self._file('client.key')}"
        return (
            f"[panda_breath]\nfirmware: {self.dialect}\n"
            f"mqtt_broker: {self.broker.host}\nmqtt_port: {self.broker.port}\n{options}\n"
        )

    def _file(self, name: str) -> Path:
        return self.broker.certificates.folder / name

    def wishes(self, since: int = 0) -> list[float]:
        """Every heat or off that the device was sent: the target, 0 for off."""
        wishes = []
        target = -1.0
        for entry in self.device.entries()[since:]:
            if entry["event"] != "frame" or entry["opcode"] != "publish":
                continue
            topic, _, payload = entry["text"].partition(" ")
            if topic.endswith("/target_temperature/command"):
                target = float(payload)
            elif topic.endswith("/mode/command"):
                wishes.append(target if payload == "heat" else 0.0)
            elif self.dialect == "stock_mqtt":
                command = json.loads(payload)
                wishes.append(command["target_temp"] if command["work_on"] == "ON" else 0.0)
        return wishes

    def wait_off(self, since: int) -> Entry:
        """Wait until it is off, its heater too."""
        return self.device.wait_for("state", since, work_on=0, heater=False)

    def wait_on(self, since: int, target: float) -> Entry:
        return self.device.wait_for("state", since, work_on=1, set_temp=target, heater=True)

    def stays_off(self, since: int, seconds: float) -> None:
        """It never heats again, for so long."""
        time.sleep(seconds)
        found = self.device.find("state", since, heater=True)
        assert found is None, found

    def close(self) -> None:
        self.device.close()
        self.broker.close()


MakePlace = Callable[..., Place]
Start = Callable[..., Printer]


@pytest.fixture
def place_at(tmp_path: Path) -> Iterator[MakePlace]:
    need_broker()
    places: list[Place] = []

    def make(dialect: str, access: Access = Access.ANYONE, *options: str) -> Place:
        places.append(Place(tmp_path / f"place{len(places)}", dialect, access, *options))
        return places[-1]

    yield make
    for place in places:
        place.close()


@pytest.fixture(params=DIALECTS)
def place(place_at: MakePlace, request: pytest.FixtureRequest) -> Place:
    return place_at(request.param)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    printers: list[Printer] = []

    def go(config: str) -> Printer:
        printer = printer_from_environment(config, tmp_path / f"printer{len(printers)}")
        printers.append(printer)
        printer.start()
        return printer

    yield go
    for printer in printers:
        printer.close()


def status(printer: Printer) -> dict[str, Any]:
    found: dict[str, Any] = printer.query({"panda_breath": None})["panda_breath"]
    return found


def target(printer: Printer) -> float:
    found: float = printer.query({HEATER: None})[HEATER]["target"]
    return found


def wait_live(printer: Printer) -> None:
    printer.wait_for(lambda: status(printer)["temperature"] is not None)


def set_target(printer: Printer, degrees: float) -> None:
    printer.gcode(f"SET_HEATER_TEMPERATURE HEATER=panda_breath TARGET={degrees}")


def heated(start: Start, place: Place, options: str = "") -> Printer:
    """A printer whose device heats to 45 C."""
    printer = start(place.section(options) + "[pause_resume]\n")
    wait_live(printer)
    mark = place.device.mark()
    set_target(printer, 45)
    place.wait_on(mark, 45)
    return printer


def all_console(printer: Printer) -> str:
    return "\n".join(printer.console())


# The wish reaches the device


def test_a_target_heats_and_0_turns_it_off(start: Start, place: Place) -> None:
    printer = start(place.section())
    wait_live(printer)
    assert status(printer)["dialect"] == place.dialect
    assert set(place.wishes()) <= {0.0}
    mark = place.device.mark()
    set_target(printer, 45)
    place.wait_on(mark, 45)
    printer.wait_for(lambda: status(printer)["device_on"] is True)
    off = place.device.mark()
    set_target(printer, 0)
    place.wait_off(off)
    printer.wait_for(lambda: status(printer)["device_on"] is False)
    assert place.wishes(mark) == [45, 0]


def test_the_dialect_is_found(start: Start, place: Place) -> None:
    printer = start(place.section().replace(place.dialect, "auto"))
    wait_live(printer)
    assert status(printer)["dialect"] == place.dialect
    mark = place.device.mark()
    set_target(printer, 44)
    place.wait_on(mark, 44)


@pytest.mark.parametrize("how", ["M112", "TURN_OFF_HEATERS"])
def test_r2_every_stop_turns_it_off(start: Start, place: Place, how: str) -> None:
    printer = heated(start, place)
    mark = place.device.mark()
    with contextlib.suppress(GcodeError):
        printer.gcode(how)
    place.wait_off(mark)
    place.stays_off(place.device.mark(), 2.0)
    stopped = how != "TURN_OFF_HEATERS"
    assert printer.info()["state"] == ("shutdown" if stopped else "ready")


def test_r2_a_restart_turns_it_off_and_a_new_target_holds(start: Start, place: Place) -> None:
    printer = heated(start, place)
    mark = place.device.mark()
    printer.restart()
    place.wait_off(mark)
    assert target(printer) == 0.0
    wait_live(printer)
    mark = place.device.mark()
    set_target(printer, 40)
    place.wait_on(mark, 40)
    time.sleep(3.0)  # for as long as anything of the old session may still come
    assert place.wishes(mark) == [40]
    assert target(printer) == 40.0


def test_r2_a_restart_soon_followed_by_a_target_heats(start: Start, place: Place) -> None:
    printer = heated(start, place)
    mark = place.device.mark()
    printer.restart()
    printer.wait_for(lambda: _accepts(printer, 40))
    place.wait_on(mark, 40)
    heating = place.device.mark()
    time.sleep(3.0)
    assert place.wishes(mark)[-1] == 40
    assert place.device.find("state", heating, work_on=0) is None


def _accepts(printer: Printer, degrees: float) -> bool:
    with contextlib.suppress(GcodeError):
        set_target(printer, degrees)
        return True
    return False


# Klippy dies: the broker says off, in our name


def test_r8_killed_while_heating_the_will_turns_it_off(start: Start, place: Place) -> None:
    printer = heated(start, place)
    mark = place.device.mark()
    killed_at = time.monotonic()
    printer.signal(signal.SIGKILL)
    off_at: float = place.wait_off(mark)["t"]
    print(f"killed to off: {(off_at - killed_at) * 1000:.0f} ms")
    assert off_at - killed_at < 2.0
    assert set(place.wishes(mark)) == {0}, "the will's, and perhaps the guard's"
    place.stays_off(place.device.mark(), 3.0)


def test_r8_killed_while_an_off_is_unconfirmed(start: Start, place_at: MakePlace) -> None:
    place = place_at("esphome", Access.ANYONE, "--min-run-seconds", "20")
    printer = heated(start, place)
    mark = place.device.mark()
    printer.restart()
    place.device.wait_for("state", mark, work_on=0, heater=True)
    told = place.wishes(mark)
    assert told and set(told) == {0}
    printer.signal(signal.SIGKILL)
    wait_for(lambda: len(place.wishes(mark)) > len(told), "the will")
    assert set(place.wishes(mark)) == {0}
    place.wait_off(mark)
    place.stays_off(place.device.mark(), 3.0)


def test_r8_frozen_it_is_turned_off_and_stays_off_when_it_wakes(start: Start, place: Place) -> None:
    printer = heated(start, place)
    mark = place.device.mark()
    frozen_at = time.monotonic()
    printer.signal(signal.SIGSTOP)
    try:
        off_at: float = place.wait_off(mark)["t"]
        print(f"frozen to off: {off_at - frozen_at:.1f} s")
        time.sleep(max(0.0, frozen_at + 20.0 - time.monotonic()))
    finally:
        printer.signal(signal.SIGCONT)
    woken = place.device.mark()
    printer.wait_for(lambda: target(printer) == 0.0)
    printer.wait_for(lambda: "SET_HEATER_TEMPERATURE HEATER=panda_breath" in all_console(printer))
    place.stays_off(woken, 5.0)
    assert 45 not in place.wishes(woken)


# The broker, and who may use it


def test_r4_the_broker_restarts_and_the_wish_is_sent_again(start: Start, place: Place) -> None:
    printer = heated(start, place)
    mark = place.device.mark()
    place.broker.stop()
    place.wait_off(mark)  # our own will
    printer.wait_for(lambda: status(printer)["link"] == "reconnecting")
    mark = place.device.mark()
    place.broker.start()
    place.wait_on(mark, 45)
    printer.wait_for(lambda: status(printer)["link"] == "connected")
    assert target(printer) == 45.0
    assert status(printer)["external_off"] is False
    time.sleep(3.0)
    assert place.wishes(mark)[-1] == 45


def test_r2_off_wished_without_a_broker_holds_when_it_is_back(start: Start, place: Place) -> None:
    printer = heated(start, place)
    mark = place.device.mark()
    place.broker.kill()  # no will: the device heats on
    printer.wait_for(lambda: status(printer)["link"] == "reconnecting")
    set_target(printer, 0)
    place.broker.start()
    place.wait_off(mark)
    assert set(place.wishes(mark)) == {0}


def test_r4_a_broker_that_hangs_is_lost_and_nothing_old_is_sent(start: Start, place: Place) -> None:
    printer = heated(start, place)
    mark = place.device.mark()
    place.broker.freeze()
    set_target(printer, 50)
    set_target(printer, 0)
    printer.wait_for(lambda: status(printer)["link"] == "reconnecting")
    place.broker.thaw()
    place.wait_off(mark)
    place.stays_off(place.device.mark(), 3.0)
    assert place.wishes(mark)[-1] == 0


def test_r9_turned_off_at_the_device_it_stays_off(start: Start, place: Place) -> None:
    printer = heated(start, place)
    time.sleep(2.0)  # an off within 1 s of a command may have been on its way before
    mark = place.device.mark()
    place.device.inject("button power")
    printer.wait_for(lambda: target(printer) == 0.0)
    assert status(printer)["external_off"] is True
    place.stays_off(place.device.mark(), 2.0)
    assert 45 not in place.wishes(mark)


def test_a_retained_command_is_a_fault_that_says_how_to_clear_it(
    start: Start, place: Place
) -> None:
    topic, payload = RETAINED[place.dialect]
    topic = topic.format(id=place.topic_id)
    place.broker.publish(topic, payload, retain=True)
    printer = start(place.section())
    printer.wait_for(lambda: status(printer)["fault"])
    wait_live(printer)
    assert topic in status(printer)["fault_reason"]
    with pytest.raises(GcodeError, match="mosquitto_pub -r -n"):
        set_target(printer, 45)
    assert not place.device.find("state", work_on=1, heater=True)


def test_a_wrong_password_is_named_and_delays_nothing(start: Start, place_at: MakePlace) -> None:
    place = place_at("esphome", Access.PASSWORD)
    wrong = "wrong-sentinel-4711"
    section = place.section()
    (place.folder / "password").write_text(wrong + "\n")
    began_at = time.monotonic()
    printer = start(section)
    print(f"ready after {time.monotonic() - began_at:.1f} s")
    printer.wait_for(lambda: status(printer)["last_error"])
    for degrees in (45, 0):  # 0 is never refused
        with pytest.raises(GcodeError, match="password") if degrees else contextlib.nullcontext():
            set_target(printer, degrees)
    # R11
    assert wrong not in json.dumps(status(printer)) + all_console(printer) + printer.log_text()
    assert PASSWORD not in printer.log_text()


@pytest.mark.parametrize("access", [Access.PASSWORD, Access.TLS, Access.CERTIFICATE])
def test_a_broker_that_wants_to_know_who_we_are(
    start: Start, place_at: MakePlace, access: Access
) -> None:
    place = place_at("esphome", access)
    printer = heated(start, place)
    mark = place.device.mark()
    printer.signal(signal.SIGKILL)
    place.wait_off(mark)
    assert PASSWORD not in printer.log_text()


def test_a_broker_of_another_authority_is_refused(start: Start, place_at: MakePlace) -> None:
    place = place_at("esphome", Access.TLS)
    printer = start(place.section().replace("/ca.pem", "/other-ca.pem"))
    printer.wait_for(lambda: status(printer)["last_error"])
    with pytest.raises(GcodeError, match="mqtt_ca_file"):
        set_target(printer, 45)
    assert place.wishes() == []
