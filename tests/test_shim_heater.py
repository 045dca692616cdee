"""The heater: how Klipper's wish reaches the driver, and how its readings reach Klipper."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import SECTION, Make
from fake_native import Driver, Session

from klippy_stub import Host
from klippy_stub.loader import default_path

HEATER = "heater_generic panda_breath"
OTHER = """
[heater_generic other]
heater_pin: PA1
sensor_type: stub_thermal
control: watermark
min_temp: 0
max_temp: 120
"""


@pytest.fixture
def session(driver: Driver) -> Session:
    return driver.session()


@pytest.fixture
def host(make: Make, session: Session) -> Host:
    """Ready, with a device that reads 25 C."""
    host = make(SECTION + "[pause_resume]\n" + OTHER)
    assert host.state == "ready", host.message
    session.read(25.0)
    host.advance(2.0)
    session.wishes.clear()
    return host


def set_target(host: Host, target: float | str, heater: str = "panda_breath") -> None:
    host.gcode(f"SET_HEATER_TEMPERATURE HEATER={heater} TARGET={target}")


# A change leaves at once


def test_a_target_leaves_at_once_and_whole(host: Host, session: Session) -> None:
    session.wishes.clear()
    set_target(host, 45)
    last = session.wish
    assert (last.call, last.target, last.armed, last.ack) == ("want", 45.0, True, 0)
    assert last.at == host.clock.monotonic()
    assert len(session.wants()) == 1
    assert host.status(HEATER)["target"] == 45.0


def test_off_leaves_at_once(host: Host, session: Session) -> None:
    set_target(host, 45)
    set_target(host, 0)
    assert (session.wish.call, session.wish.target) == ("want", 0.0)
    assert session.heat == 0.0


def test_turn_off_heaters_turns_it_off(host: Host, session: Session) -> None:
    set_target(host, 45)
    set_target(host, 60, "other")
    host.gcode("TURN_OFF_HEATERS")
    assert session.wish.target == 0.0
    assert host.heater("other").target_temp == 0.0


def test_each_look_repeats_the_whole_wish_once_per_second(host: Host, session: Session) -> None:
    set_target(host, 45)
    session.wishes.clear()
    host.advance(10.0)
    assert [(w.call, w.target, w.armed) for w in session.wishes] == [("drain", 45.0, True)] * 10
    times = [w.at for w in session.wishes]
    assert [round(b - a, 6) for a, b in zip(times, times[1:])] == [1.0] * 9


def test_nothing_is_sent_twice_by_a_refused_target(host: Host, session: Session) -> None:
    set_target(host, 45)
    with pytest.raises(host.printer.command_error):
        set_target(host, 61)
    assert host.status(HEATER)["target"] == 45.0
    assert session.heat == 45.0


def test_set_temp_is_klippers_own_as_well(host: Host) -> None:
    """The range of the heater's section counts too, in Klipper's words."""
    with pytest.raises(host.printer.command_error, match=r"out of range \(0.0:80.0\)"):
        set_target(host, -5)


# Zero never raises


@pytest.mark.parametrize("bug", [RuntimeError("bug"), BaseException("PanicException")])
def test_r2_zero_never_raises_whatever_the_driver_does(
    host: Host, session: Session, bug: BaseException
) -> None:
    set_target(host, 45)
    set_target(host, 60, "other")
    session.bug = bug
    host.gcode("TURN_OFF_HEATERS")
    assert host.heater("panda_breath").target_temp == 0.0
    assert host.heater("other").target_temp == 0.0
    assert host.state == "ready"


@pytest.mark.parametrize(
    "change",
    [
        {"link": "error", "last_error": "device 1a2f answers"},
        {"lost": True},
        {"fault": "PTC sensor open", "cannot_heat": True},
        {"reading_number": 0, "temperature": None, "read_at": None},
    ],
)
def test_r2_zero_never_raises_whatever_the_device_says(
    host: Host, session: Session, change: dict[str, Any]
) -> None:
    set_target(host, 45)
    vars(session.state).update(change)
    set_target(host, 0)
    assert (session.wish.target, host.state) == (0.0, "ready")


def test_r2_zero_never_raises_while_calibrating(host: Host) -> None:
    heater = host.heater("panda_breath")
    heater.set_control(object())
    set_target(host, 0)
    assert heater.target_temp == 0.0


# What is refused, and in which words


@pytest.mark.parametrize("target", [60.5, 61, 200])
def test_above_max_target_is_a_command_error_and_never_lowered(
    host: Host, session: Session, target: float
) -> None:
    words = rf"Requested temperature \({target:.1f}\) is above the max_target of 60 C"
    with pytest.raises(host.printer.command_error, match=words):
        set_target(host, target)
    assert session.wants() == []


def test_max_target_itself_is_accepted(host: Host, session: Session) -> None:
    set_target(host, 60)
    assert session.heat == 60.0


@pytest.mark.parametrize("target", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_refused(host: Host, session: Session, target: float) -> None:
    error = host.printer.command_error
    with pytest.raises(error):
        host.heater("panda_breath").set_temp(target)
    assert host.heater("panda_breath").target_temp == 0.0
    assert session.wants() == []


def refusal(host: Host) -> str:
    with pytest.raises(host.printer.command_error) as caught:
        set_target(host, 45)
    assert host.status(HEATER)["target"] == 0.0
    return str(caught.value)


def test_while_calibrating_a_target_is_refused(host: Host) -> None:
    host.heater("panda_breath").set_control(object())
    assert "panda_breath regulates by itself and cannot be calibrated" in refusal(host)


def test_pid_calibrate_is_refused_and_leaves_everything_as_it_was(host: Host) -> None:
    heater = host.heater("panda_breath")
    control = heater.control
    with pytest.raises(host.printer.command_error, match="cannot be calibrated"):
        host.gcode("PID_CALIBRATE HEATER=panda_breath TARGET=45", limit=20.0)
    assert heater.control is control
    set_target(host, 45)


def test_never_seen_is_refused_with_host_and_last_error(make: Make, driver: Driver) -> None:
    host = make(SECTION)
    driver.session().state.link = "connecting"
    driver.session().state.last_error = "Connection refused (os error 111)"
    text = refusal(host)
    assert "192.168.1.50 cannot be reached: Connection refused (os error 111)" in text


def test_never_seen_without_an_error_says_so(make: Make) -> None:
    assert "192.168.1.50 cannot be reached: no reading yet" in refusal(make(SECTION))


def test_lost_is_refused_with_host_and_last_error(host: Host, session: Session) -> None:
    session.state.lost = True
    session.state.last_error = "no report for 5 s"
    assert "192.168.1.50 cannot be reached: no report for 5 s" in refusal(host)


def test_a_link_error_is_refused_in_the_drivers_words(host: Host, session: Session) -> None:
    session.state.link = "error"
    session.state.last_error = "device 1a2f answers at 192.168.1.50, but this was device 3b4c"
    assert "device 1a2f answers at 192.168.1.50" in refusal(host)


def test_a_fault_that_forbids_heat_is_refused_in_its_words(host: Host, session: Session) -> None:
    session.state.fault = "the PTC sensor is open"
    session.state.cannot_heat = True
    assert "the device cannot heat: the PTC sensor is open" in refusal(host)


def test_another_fault_does_not_stop_a_new_try(host: Host, session: Session) -> None:
    session.state.fault = "a protective stop"
    set_target(host, 45)
    assert session.heat == 45.0


@pytest.mark.parametrize(
    ("dialect", "remedy"),
    [
        ("esphome", "raise 'visual: max_temperature' of its climate entity"),
        ("stock_mqtt", "set a lower target"),
    ],
)
def test_a_target_that_the_device_itself_does_not_take_is_refused(
    host: Host, session: Session, dialect: str, remedy: str
) -> None:
    vars(session.state).update(dialect=dialect, target_limit=30.0)
    text = refusal(host)
    assert f"(45.0): the device itself takes at most 30 C: {remedy}" in text
    set_target(host, 30)
    assert session.heat == 30.0


MQTT = "[panda_breath]\nmqtt_broker: 10.0.0.2\n"


@pytest.mark.parametrize(
    ("more", "place"),
    [
        ("", "panda-breath or panda_breath on broker 10.0.0.2"),
        ("mqtt_topic_prefix: attic", "attic on broker 10.0.0.2"),
        ("firmware: esphome", "panda-breath on broker 10.0.0.2"),
        ("firmware: stock_mqtt", "panda_breath on broker 10.0.0.2"),
    ],
)
def test_behind_a_broker_a_refusal_names_prefix_and_broker(
    make: Make, more: str, place: str
) -> None:
    assert f"panda_breath: {place} cannot be reached: no reading yet" in refusal(make(MQTT + more))


def test_a_stuck_driver_is_refused(host: Host, session: Session) -> None:
    session.stuck = True
    assert "its background thread does not answer" in refusal(host)


def test_below_min_temp_is_refused(make: Make, driver: Driver) -> None:
    host = make(SECTION + "min_temp: 15\n")
    driver.session().read(12.0)
    text = refusal(host)
    assert f"{HEATER} reads 12.0 C, below its min_temp of 15.0 C" in text


def test_the_newest_state_decides_and_not_the_last_looks(host: Host, session: Session) -> None:
    session.state.lost = True
    refusal(host)
    session.read(25.0)
    set_target(host, 45)
    assert session.heat == 45.0


@pytest.mark.parametrize("age", [8.0, 60.0, 119.0])
def test_merely_stale_is_accepted(host: Host, session: Session, age: float) -> None:
    host.advance(age)
    assert host.status("panda_breath")["stale"]
    set_target(host, 45)
    assert session.heat == 45.0


# Klipper's ways around set_temp


def test_alter_target_is_caught_at_the_next_look(host: Host, session: Session) -> None:
    set_target(host, 45)
    host.heater("panda_breath").alter_target(30.0)
    host.advance(1.0)
    assert session.heat == 30.0
    host.heater("panda_breath").alter_target(0.0)
    host.advance(1.0)
    assert session.heat == 0.0


def test_set_control_is_caught_at_the_next_look(host: Host, session: Session) -> None:
    set_target(host, 45)
    host.heater("panda_breath").set_control(host.heater("panda_breath").control)
    host.advance(1.0)
    assert session.heat == 0.0


# When Klipper starts and ends


def test_the_device_is_asked_to_be_off_from_the_start(make: Make, driver: Driver) -> None:
    make(SECTION)
    first = driver.session().wishes[0]
    assert (first.target, first.armed) == (0.0, False)


def test_r3_armed_only_after_ready(make: Make, driver: Driver) -> None:
    """Nothing that something else sets at klippy:connect heats before klippy:ready."""
    session = driver.session()
    driver.opening = lambda session: session.read(25.0)
    host = make(SECTION)
    device = host.lookup("panda_breath")
    armed = [wish.armed for wish in session.wishes]
    assert armed[0] is False
    assert armed == sorted(armed), "once armed, it stays so"
    device.armed = False
    device.warmth.set_temp(45.0)
    host.advance(1.0)
    assert session.heat == 0.0
    assert session.wish.target == 0.0


EARLY = """
def load_config(config):
    printer = config.get_printer()
    def heat():
        printer.lookup_object("heaters").lookup_heater("panda_breath").set_temp(45.0)
    printer.register_event_handler("klippy:connect", heat)
"""


def test_r3_a_target_set_before_ready_does_not_heat_before_ready(
    make: Make, driver: Driver, tmp_path: Path
) -> None:
    (tmp_path / "early_for_test.py").write_text(EARLY)
    driver.opening = lambda session: session.read(25.0)
    host = make(SECTION + "[early_for_test]\n", extras=[*default_path(), tmp_path])
    assert host.state == "ready", host.message
    early = [wish for wish in driver.session().wishes if not wish.armed]
    assert [wish.call for wish in early] == ["drain", "drain", "want"]
    assert {wish.target for wish in early} == {0.0}


def test_r2_a_target_set_after_disconnect_does_not_heat(host: Host, session: Session) -> None:
    set_target(host, 45)
    heater = host.heater("panda_breath")
    host.close()
    heater.set_temp(44.0)
    assert session.heat == 0.0


def test_a_target_from_a_delayed_gcode_at_ready_is_heeded(make: Make, driver: Driver) -> None:
    driver.opening = lambda session: session.read(25.0)
    host = make(
        SECTION + "[delayed_gcode warm]\ninitial_duration: 0.01\ngcode:\n"
        "  SET_HEATER_TEMPERATURE HEATER=panda_breath TARGET=45\n"
    )
    host.advance(0.02)
    assert driver.session().heat == 45.0


@pytest.mark.parametrize("stop", ["M112", "reactor"])
def test_r2_shutdown_is_off_at_once(host: Host, session: Session, stop: str) -> None:
    set_target(host, 45)
    if stop == "M112":
        host.gcode("M112")
    else:
        host.printer.invoke_shutdown("something else")
    last = session.wish
    assert (last.call, last.target, last.armed) == ("want", 0.0, False)
    assert last.at == host.clock.monotonic()


def test_r2_after_a_shutdown_every_look_says_off(host: Host, session: Session) -> None:
    set_target(host, 45)
    host.gcode("M112")
    assert host.heater("panda_breath").target_temp == 45.0  # as for every Klipper heater
    session.wishes.clear()
    host.advance(5.0)
    assert len(session.wishes) == 5
    assert {(wish.target, wish.armed) for wish in session.wishes} == {(0.0, False)}


def test_r2_a_shutdown_in_which_the_driver_fails_still_reaches_the_others(
    host: Host, session: Session
) -> None:
    order: list[str] = []
    host.printer.register_event_handler("klippy:shutdown", lambda: order.append("reached"))
    session.bug = BaseException("PanicException")
    host.gcode("M112")
    assert order == ["reached"]
    assert host.state == "shutdown"


def test_r2_restart_is_off_at_once_and_lets_go(host: Host, driver: Driver) -> None:
    session = driver.session()
    set_target(host, 45)
    host.launch("RESTART")
    host.advance(0.0)
    assert (session.wish.call, session.wish.target) == ("want", 0.0)
    host.advance(5.0)
    assert [device.closed for device in driver.opened] == [1, 0]
    assert session.heat == 0.0
    assert host.heater("panda_breath").target_temp == 0.0


def test_r2_an_exit_lets_go(host: Host, driver: Driver) -> None:
    set_target(host, 45)
    host.close()
    assert driver.opened[0].closed == 1


def test_r2_a_restart_after_a_shutdown_lets_go(host: Host, driver: Driver) -> None:
    set_target(host, 45)
    host.gcode("M112")
    host.restart("FIRMWARE_RESTART")
    assert driver.opened[0].closed == 1
    assert driver.session().heat == 0.0
    assert host.state == "ready"


def test_a_driver_that_fails_at_disconnect_keeps_nobody_from_ending(
    host: Host, session: Session
) -> None:
    order: list[str] = []
    host.printer.register_event_handler("klippy:disconnect", lambda: order.append("reached"))
    session.bug = BaseException("PanicException")
    host.close()
    assert order == ["reached"]


def test_a_printer_that_never_became_ready_lets_go(
    make: Make, driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = make(SECTION + "[no_such_section]\n")
    assert host.state == "error"
    assert driver.opened == []
    host.close()


# Readings (R5)


@pytest.fixture
def fed(host: Host) -> Iterator[list[tuple[float, float]]]:
    """What reaches the heater: print time and temperature."""
    heater = host.heater("panda_breath")
    readings: list[tuple[float, float]] = []

    def note(read_time: float, celsius: float) -> None:
        readings.append((read_time, celsius))
        heater.temperature_callback(read_time, celsius)

    host.lookup("panda_breath").sensors[0].setup_callback(note)
    yield readings


def test_r5_each_reading_is_fed_once(
    host: Host, session: Session, fed: list[tuple[float, float]]
) -> None:
    for celsius in (26.0, 26.0, 27.0):
        session.read(celsius)
        host.advance(5.0)
    assert [c for _, c in fed] == [26.0, 26.0, 27.0]


def test_r5_a_reading_is_stamped_with_its_arrival_on_the_mcus_clock(
    host: Host, session: Session, fed: list[tuple[float, float]]
) -> None:
    host.advance(0.3)
    session.read(26.0, age=0.1)
    arrived = host.clock.monotonic() - 0.1
    host.advance(1.0)
    ((read_time, celsius),) = fed
    assert read_time == pytest.approx(host.lookup("mcu").estimated_print_time(arrived))
    assert celsius == 26.0


def test_r5_of_several_readings_between_two_looks_the_last_one_counts(
    host: Host, session: Session, fed: list[tuple[float, float]]
) -> None:
    for celsius in (26.0, 27.0, 28.0):
        session.read(celsius)
    host.advance(2.0)
    assert [c for _, c in fed] == [28.0]


def test_r5_a_reading_of_before_a_restart_is_not_fed_again(host: Host, session: Session) -> None:
    host.restart()
    host.advance(3.0)
    assert host.heater("panda_breath").last_temp_time == 0.0
    session.read(30.0)
    host.advance(1.0)
    assert host.heater("panda_breath").last_temp == 30.0


def test_r5_a_reading_that_a_refused_target_has_seen_is_fed_all_the_same(
    host: Host, session: Session, fed: list[tuple[float, float]]
) -> None:
    session.read(26.0)
    with pytest.raises(host.printer.command_error):
        set_target(host, 61)
    set_target(host, 45)
    host.advance(2.0)
    assert [c for _, c in fed] == [26.0]


def test_r5_a_driver_that_begins_anew_has_no_reading_to_feed(
    host: Host, session: Session, fed: list[tuple[float, float]]
) -> None:
    """After a RESTART the last thing fetched may be of a session that has ended since."""
    vars(session.state).update(reading_number=0, temperature=None, read_at=None)
    host.advance(2.0)
    assert host.state == "ready", host.message
    assert fed == []
    session.read(26.0)
    host.advance(1.0)
    assert [c for _, c in fed] == [26.0]


def test_r5_after_seven_seconds_of_silence_klipper_reads_zero(host: Host, session: Session) -> None:
    session.read(40.0)
    host.advance(1.0)
    heater = host.heater("panda_breath")
    assert heater.get_temp(host.clock.monotonic())[0] == 40.0
    host.advance(5.9)
    assert heater.get_temp(host.clock.monotonic())[0] == 40.0
    host.advance(1.0)
    assert heater.get_temp(host.clock.monotonic())[0] == 0.0


def test_r5_a_stale_heater_shows_zero_and_not_its_last_number(host: Host, session: Session) -> None:
    session.read(40.0)
    host.advance(6.9)
    assert host.status(HEATER)["temperature"] == 40.0
    host.advance(1.1)
    assert host.status(HEATER)["temperature"] == 0.0
    session.read(39.0)
    host.advance(1.0)
    assert host.status(HEATER)["temperature"] == 39.0


def test_above_max_temp_klipper_shuts_down_and_says_which_and_how_much(
    host: Host, session: Session
) -> None:
    set_target(host, 45)
    session.read(81.0)
    host.advance(1.0)
    assert host.state == "shutdown"
    assert f"{HEATER} at 81.0 C is above its max_temp of 80.0 C" in host.reason
    assert session.heat == 0.0


def test_max_temp_itself_is_no_shutdown(host: Host, session: Session) -> None:
    session.read(80.0)
    host.advance(1.0)
    assert host.state == "ready"


@pytest.mark.parametrize("celsius", [-5.0, 0.0, 9.9])
def test_below_min_temp_nothing_shuts_down(make: Make, driver: Driver, celsius: float) -> None:
    host = make(SECTION + "min_temp: 10\n")
    driver.session().read(celsius)
    host.advance(20.0)
    assert host.state == "ready"
    assert host.heater("panda_breath").last_temp == celsius


def test_a_device_that_turns_cold_while_heating_shuts_nothing_down(
    make: Make, driver: Driver
) -> None:
    host = make(SECTION + "min_temp: 10\n")
    driver.session().read(20.0)
    set_target(host, 45)
    driver.session().read(5.0)
    host.advance(5.0)
    assert host.state == "ready"
    assert driver.session().heat == 45.0


def test_temperature_wait_ends_when_the_reading_is_there(host: Host, session: Session) -> None:
    set_target(host, 45)
    run = host.launch(f'TEMPERATURE_WAIT SENSOR="{HEATER}" MINIMUM=44')
    for celsius in (30.0, 40.0):
        session.read(celsius)
        host.advance(2.0)
        assert not run.done
    host.advance(30.0)  # stale reads 0: it keeps waiting
    assert not run.done
    session.read(45.0)
    host.advance(4.0)
    assert run.done and run.error is None


def test_verify_heater_does_not_see_a_silence_shorter_than_lost_after(
    host: Host, session: Session
) -> None:
    set_target(host, 60)
    session.read(60.0)
    host.advance(118.0)
    assert host.state == "ready"


# R1 and R7: the look


def test_r1_a_look_never_pauses_and_never_runs_gcode(
    host: Host, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = host.lookup("panda_breath")
    for command in ("run_script", "run_script_from_command"):
        monkeypatch.setattr(host.lookup("gcode"), command, lambda script: pytest.fail(script))
    session.lines.append("a word")
    session.lose()
    host.reactor.call_without_pausing(lambda: device._look(host.clock.monotonic()))
    assert host.state == "ready"


def test_r7_a_bug_in_a_look_does_not_take_klippy_down(host: Host, session: Session) -> None:
    set_target(host, 45)
    session.bug = BaseException("PanicException")
    host.advance(3.0)
    assert host.state == "ready", host.message
    assert host.heater("panda_breath").target_temp == 0.0
    text = "\n".join(host.responses)
    assert "restart the Klipper service. Its target of 45.0 C was dropped" in text
    with pytest.raises(host.printer.command_error, match="restart the Klipper service"):
        set_target(host, 45)
    # Once is enough not to be trusted with heat any more; readings are still shown.
    session.bug = None
    session.read(30.0)
    host.advance(2.0)
    assert host.heater("panda_breath").last_temp == 30.0
    with pytest.raises(host.printer.command_error, match="restart the Klipper service"):
        set_target(host, 45)


def test_r7_a_lasting_bug_is_said_once(host: Host, session: Session) -> None:
    session.bug = RuntimeError("bug")
    host.advance(60.0)
    assert len([line for line in host.responses if "panda_breath" in line]) == 1
