"""The stub behaves as klippy does, one fact at a time, on a clock that moves when told to."""

from __future__ import annotations

import functools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest

from klippy_stub import Host, ManualClock, Reactor, ReactorError, RealClock

ROOT = Path(__file__).resolve().parent.parent

BASE = """
[mcu]
serial: /dev/null
[printer]
kinematics: none
max_velocity: 300
max_accel: 3000
"""

CHAMBER = """
[heater_generic chamber]
gcode_id: C
heater_pin: PA1
sensor_type: temperature_host
control: watermark
min_temp: 0
max_temp: 80
"""

BED = """
[heater_bed]
heater_pin: PB1
sensor_type: Generic 3950
sensor_pin: PB2
control: watermark
min_temp: 0
max_temp: 120
"""

PLUGIN = """
class Probe:
    def __init__(self, config):
        self.printer = config.get_printer()
        self.reactor = self.printer.get_reactor()
        self.log = []
        for event in ("mcu_identify", "connect", "ready", "shutdown", "disconnect"):
            self.printer.register_event_handler(
                "klippy:" + event, lambda event=event: self.on(event)
            )
        self.action = config.get("action", "")
    def on(self, event):
        self.log.append(event)
        if self.action == "pause in " + event:
            try:
                self.reactor.pause(self.reactor.monotonic() + 1)
                self.log.append("paused")
            except Exception as e:
                self.log.append(type(e).__name__)
        if self.action == "raise in " + event:
            raise ValueError("probe")
    def get_status(self, eventtime):
        if self.action == "pause in status":
            self.reactor.pause(eventtime + 1)
        return {"log": list(self.log), "nan": float("nan")}

def load_config(config):
    return Probe(config)
"""

Make = Callable[..., Host]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    hosts: list[Host] = []

    def build(config: str, **kwargs: Any) -> Host:
        host = Host.from_text(BASE + config, tmp_path, **kwargs)
        hosts.append(host)
        host.start()
        return host

    yield build
    for host in hosts:
        host.close()


@pytest.fixture
def probe_dir(tmp_path: Path) -> Iterator[str]:
    """A folder with a module that klippy does not have; forgotten again afterwards."""
    folder = tmp_path / "more_extras"
    folder.mkdir()
    (folder / "probe_for_test.py").write_text(PLUGIN)
    yield str(folder)
    sys.modules.pop("extras.probe_for_test", None)


# The reactor


def test_due_timers_run_at_their_exact_times_in_order() -> None:
    reactor = Reactor(ManualClock(0.0))
    seen: list[tuple[str, float]] = []

    def repeat(eventtime: float) -> float:
        seen.append(("repeat", eventtime))
        return eventtime + 2.0

    reactor.register_timer(repeat, 1.0)
    reactor.register_callback(lambda e: seen.append(("once", e)), 2.5)
    reactor.advance(5.0)
    assert seen == [("repeat", 1.0), ("once", 2.5), ("repeat", 3.0), ("repeat", 5.0)]
    assert reactor.monotonic() == 5.0
    reactor.finalize()


def test_a_pause_lets_others_run_and_goes_on_at_its_time() -> None:
    reactor = Reactor(ManualClock(0.0))
    seen: list[Any] = []

    def sleeper(eventtime: float) -> None:
        seen.append("before")
        seen.append(reactor.pause(3.0))

    reactor.register_callback(sleeper)
    reactor.register_callback(lambda e: seen.append("other"), 1.0)
    reactor.advance(2.0)
    assert seen == ["before", "other"]
    reactor.advance(2.0)
    assert seen == ["before", "other", 3.0]
    reactor.finalize()


def test_a_callback_that_does_not_pause_changes_no_threads() -> None:
    reactor = Reactor(ManualClock(0.0))
    threads: list[int] = []

    def tick(eventtime: float) -> float:
        threads.append(threading.get_ident())
        return eventtime + 1.0

    reactor.register_timer(tick, 0.0)
    reactor.advance(10.0)
    assert len(threads) == 11
    assert len(set(threads)) == 1
    reactor.finalize()


def test_a_paused_timer_does_not_tick_meanwhile() -> None:
    reactor = Reactor(ManualClock(0.0))
    ticks: list[float] = []

    def tick(eventtime: float) -> float:
        ticks.append(eventtime)
        if eventtime == 1.0:
            reactor.pause(5.0)
        return max(eventtime, reactor.monotonic()) + 1.0

    reactor.register_timer(tick, 0.0)
    reactor.advance(6.0)
    assert ticks == [0.0, 1.0, 6.0]
    reactor.finalize()


def test_a_running_timer_cannot_be_moved() -> None:
    reactor = Reactor(ManualClock(0.0))
    ticks: list[float] = []

    def tick(eventtime: float) -> float:
        ticks.append(eventtime)
        reactor.update_timer(timer, eventtime + 0.5)
        return eventtime + 2.0

    timer = reactor.register_timer(tick, 1.0)
    reactor.advance(3.0)
    assert ticks == [1.0, 3.0]
    reactor.finalize()


def test_the_mutex_is_handed_on_in_the_order_of_asking() -> None:
    reactor = Reactor(ManualClock(0.0))
    mutex = reactor.mutex()
    seen: list[str] = []

    def hold(name: str, until: float, eventtime: float) -> None:
        with mutex:
            seen.append(name)
            reactor.pause(until)

    for i, name in enumerate("abc"):
        reactor.register_callback(functools.partial(hold, name, i + 1.0))
    reactor.advance(0.5)
    assert seen == ["a"]
    assert mutex.test()
    reactor.advance(3.0)
    assert seen == ["a", "b", "c"]
    assert not mutex.test()
    reactor.finalize()


def test_a_completion_wakes_its_waiter_or_times_out() -> None:
    reactor = Reactor(ManualClock(0.0))
    results: list[Any] = []
    completion = reactor.completion()
    reactor.register_callback(lambda e: results.append(completion.wait(1.0, "late")))
    reactor.register_callback(lambda e: results.append(completion.wait()))
    reactor.register_callback(lambda e: completion.complete("done"), 2.0)
    reactor.advance(3.0)
    assert results == ["late", "done"]
    assert completion.test()
    reactor.finalize()


def test_another_thread_reaches_the_reactor_only_by_async_calls() -> None:
    reactor = Reactor(ManualClock(0.0))
    seen: list[int] = []
    me: list[int] = []
    reactor.register_callback(lambda e: me.append(threading.get_ident()))
    thread = threading.Thread(
        target=lambda: reactor.register_async_callback(lambda e: seen.append(threading.get_ident()))
    )
    thread.start()
    thread.join()
    assert not seen
    reactor.advance(0.1)
    assert seen == me
    reactor.finalize()


def test_pause_raises_where_it_is_forbidden() -> None:
    reactor = Reactor(ManualClock(0.0))
    errors: list[str] = []

    def callback(eventtime: float) -> None:
        with reactor.assert_no_pause():
            try:
                reactor.pause(1.0)
            except ReactorError as e:
                errors.append(str(e))

    reactor.register_callback(callback)
    reactor.advance(1.0)
    assert errors == ["Internal error - reactor pause disabled"]
    reactor.finalize()


def test_finalize_leaves_no_threads_and_no_descriptors() -> None:
    threads, fds = threading.active_count(), len(os.listdir("/proc/self/fd"))
    reactor = Reactor(ManualClock(0.0))
    for _ in range(5):
        reactor.register_callback(lambda e: reactor.pause(reactor.NEVER))
    reactor.advance(1.0)
    assert threading.active_count() > threads
    reactor.finalize()
    assert threading.active_count() == threads
    assert len(os.listdir("/proc/self/fd")) == fds


def test_an_exception_in_a_timer_shuts_the_printer_down(make: Make) -> None:
    host = make(CHAMBER)

    def broken(eventtime: float) -> float:
        raise ValueError("broken")

    host.reactor.register_timer(broken, host.reactor.NOW)
    host.advance(1.0)
    assert (host.state, host.reason) == ("shutdown", "Unhandled exception during run")


# Configuration


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("[nobody]\nx: 1", "Section 'nobody' is not a valid config section"),
        (CHAMBER + "colour: red", "Option 'colour' is not valid in section"),
        ("[heater_generic a]", "Option 'sensor_type' in section 'heater_generic a' must be spec"),
        (CHAMBER + "max_power: 2", "Option 'max_power' in section 'heater_generic chamber' must h"),
        (CHAMBER + "max_delta: x", "Unable to parse option 'max_delta' in section"),
        (CHAMBER.replace("watermark", "magic"), "Choice 'magic' for option 'control' in section"),
        (CHAMBER.replace("temperature_host", "no"), "Unknown temperature sensor 'no'"),
        (CHAMBER.replace("PA1", "moon:PA1"), "Unknown pin chip name 'moon'"),
        (CHAMBER + CHAMBER.replace("chamber", "b"), "pin PA1 used multiple times in config"),
        ("[include nothing.cfg]", "Include file '"),
        ("x", "Source contains parsing errors"),
    ],
)
def test_a_bad_configuration_is_state_error(make: Make, config: str, message: str) -> None:
    host = make(config)
    assert host.state == "error"
    assert message in host.message
    assert "Printer is halted" in host.message
    with pytest.raises(host.printer.command_error):
        host.gcode("G28")


def test_a_section_given_twice_is_merged_and_comments_are_cut(make: Make) -> None:
    host = make(CHAMBER + "[heater_generic chamber]\nmax_temp: 60 # degrees\nmax_delta: 3 ; x\n")
    assert host.state == "ready", host.message
    assert host.heater("chamber").max_temp == 60.0
    assert host.heater("chamber").control.max_delta == 3.0
    settings = host.status("configfile")["settings"]["heater_generic chamber"]
    assert settings["max_temp"] == 60.0
    assert host.status("configfile")["config"]["heater_generic chamber"]["max_temp"] == "60"


def test_options_are_read_with_bounds_and_as_lists(make: Make, tmp_path: Path) -> None:
    host = make(CHAMBER)
    other = tmp_path / "other.cfg"
    other.write_text("[s]\nn: 5\npairs: 80:45, 100:60\nflag: yes\nempty:\n")
    config = host.lookup("configfile").read_config(str(other)).getsection("s")
    assert config.getint("n", minval=5, maxval=5) == 5
    with pytest.raises(config.error, match="Option 'n' in section 's' must be above 5"):
        config.getfloat("n", above=5)
    pairs = config.getlists("pairs", seps=(":", ","), count=2, parser=float)
    assert pairs == ((80.0, 45.0), (100.0, 60.0))
    assert config.getlist("empty") == ()
    assert config.getboolean("flag") is True
    assert config.get("none", None) is None
    assert config.getchoice("n", {5: "five"}) == "five"


def test_includes_and_saved_values_are_merged(make: Make, tmp_path: Path) -> None:
    (tmp_path / "more.cfg").write_text(CHAMBER)
    host = make("[include mo*.cfg]\n")
    assert host.state == "ready", host.message
    host.lookup("configfile").set("heater_generic chamber", "control", "pid")
    for key in ("pid_kp", "pid_ki", "pid_kd"):
        host.lookup("configfile").set("heater_generic chamber", key, "1.5")
    assert host.status("configfile")["save_config_pending"]
    with pytest.raises(host.printer.command_error, match="conflicts with included value"):
        host.gcode("SAVE_CONFIG", limit=5)


def test_save_config_restarts_with_the_saved_values(make: Make, tmp_path: Path) -> None:
    host = make(CHAMBER)
    for key, value in (("control", "pid"), ("pid_kp", 20), ("pid_ki", 1), ("pid_kd", 1)):
        host.lookup("configfile").set("heater_generic chamber", key, value)
    host.restart("SAVE_CONFIG")
    assert host.state == "ready", host.message
    assert type(host.heater("chamber").control).__name__ == "ControlPID"
    assert "#control: watermark" in (tmp_path / "printer.cfg").read_text()
    assert not host.status("configfile")["save_config_pending"]
    host.restart()
    assert host.state == "ready", host.message


def test_a_warning_is_shown_once(make: Make) -> None:
    host = make(CHAMBER)
    for _ in range(2):
        host.lookup("configfile").runtime_warning("mind the step")
    assert [w["message"] for w in host.status("configfile")["warnings"]] == ["mind the step"]


# Modules and events


def test_modules_come_from_the_search_path_and_events_in_order(make: Make, probe_dir: str) -> None:
    host = make("[probe_for_test]", extras=[probe_dir])
    assert host.state == "ready", host.message
    assert type(host.lookup("probe_for_test")).__module__ == "extras.probe_for_test"
    log = host.lookup("probe_for_test").log
    host.gcode("M112")
    host.close()
    assert log == ["mcu_identify", "connect", "ready", "shutdown", "disconnect"]


@pytest.mark.parametrize("event", ["ready", "shutdown"])
def test_pausing_in_ready_and_shutdown_raises(make: Make, probe_dir: str, event: str) -> None:
    host = make(f"[probe_for_test]\naction: pause in {event}", extras=[probe_dir])
    host.gcode("M112")
    log = host.lookup("probe_for_test").log
    assert log[log.index(event) + 1] == "ReactorError"


def test_pausing_in_disconnect_is_a_plain_sleep(make: Make, probe_dir: str) -> None:
    host = make("[probe_for_test]\naction: pause in disconnect", extras=[probe_dir])
    before = host.clock.monotonic()
    log = host.lookup("probe_for_test").log
    host.close()
    assert log[-1] == "paused"
    assert host.clock.monotonic() == before + 1.0


def test_pausing_in_get_status_raises(make: Make, probe_dir: str) -> None:
    host = make("[probe_for_test]\naction: pause in status", extras=[probe_dir])
    with pytest.raises(ReactorError):
        host.status("probe_for_test")


def test_connect_may_pause_and_ready_comes_after_it(make: Make, probe_dir: str) -> None:
    host = make("[probe_for_test]\naction: pause in connect", extras=[probe_dir])
    assert host.state == "startup"
    host.advance(1.0)
    assert host.state == "ready"


@pytest.mark.parametrize(
    ("event", "state", "message"),
    [
        ("connect", "error", "Internal error during connect: probe"),
        ("ready", "shutdown", "Internal error during ready callback: probe"),
    ],
)
def test_an_exception_at_start_is_an_internal_error(
    make: Make, probe_dir: str, event: str, state: str, message: str
) -> None:
    host = make(f"[probe_for_test]\naction: raise in {event}", extras=[probe_dir])
    assert host.state == state
    assert message in host.message


def test_an_exception_in_a_shutdown_handler_stops_nobody_else(make: Make, probe_dir: str) -> None:
    host = make("[probe_for_test]\naction: raise in shutdown" + CHAMBER, extras=[probe_dir])
    host.advance(1)
    host.gcode("M112")
    assert host.heater("chamber").verify_mainthread_time < 0


def test_the_first_shutdown_counts(make: Make) -> None:
    host = make(CHAMBER)
    host.printer.invoke_shutdown("first")
    host.printer.invoke_shutdown("second")
    assert (host.state, host.reason) == ("shutdown", "first")


def test_modules_stay_loaded_over_a_restart(make: Make, probe_dir: str) -> None:
    host = make("[probe_for_test]", extras=[probe_dir])
    first = host.lookup("probe_for_test")
    host.restart()
    second = host.lookup("probe_for_test")
    assert first is not second
    assert type(first) is type(second)
    assert first.log[-1] == "disconnect"
    assert host.printer.get_start_args()["start_reason"] == "restart"


def test_a_restart_into_a_broken_file_can_restart_again(make: Make, tmp_path: Path) -> None:
    host = make(CHAMBER)
    good = (tmp_path / "printer.cfg").read_text()
    (tmp_path / "printer.cfg").write_text(good + "[nobody]\n")
    assert host.restart() == "error"
    (tmp_path / "printer.cfg").write_text(good)
    assert host.restart("FIRMWARE_RESTART") == "ready"


def test_restarts_leave_nothing_behind(make: Make) -> None:
    host = make(CHAMBER + BED)
    host.restart()
    threads, fds = threading.active_count(), len(os.listdir("/proc/self/fd"))
    for _ in range(50):
        host.gcode("SET_HEATER_TEMPERATURE HEATER=chamber TARGET=50")
        assert host.restart() == "ready"
    assert threading.active_count() <= threads
    assert len(os.listdir("/proc/self/fd")) == fds


# G-code


def test_commands_answer_as_klippy_does(make: Make) -> None:
    host = make(CHAMBER + "[respond]")
    assert "// Klipper state: Ready" in host.responses
    host.advance(3)
    assert host.gcode("M105") == ["C:25.0 /0.0"]
    assert host.gcode("NOBODY") == ['// Unknown command:"NOBODY"']
    assert host.gcode("M104 S0\nM107") == []
    assert host.gcode("M118 5 of 7") == ["echo: 5 of 7"]
    assert host.gcode("echo a=b") == ["// echo a=b"]
    assert "SET_HEATER_TEMPERATURE: Sets a heater temperature" in host.gcode("HELP")[0]
    assert host.gcode("N12 M105*93") == ["C:25.0 /0.0"]


def test_a_mux_command_names_the_choices(make: Make) -> None:
    host = make(CHAMBER)
    with pytest.raises(host.printer.command_error, match="missing HEATER"):
        host.gcode("SET_HEATER_TEMPERATURE TARGET=5")
    with pytest.raises(host.printer.command_error, match=r"not valid for HEATER. Options: 'chamb"):
        host.gcode("SET_HEATER_TEMPERATURE HEATER=x TARGET=5")
    with pytest.raises(host.printer.command_error, match=r"Did you mean 'chamber'\?"):
        host.gcode("SET_HEATER_TEMPERATURE HEATER=cham TARGET=5")
    with pytest.raises(host.printer.command_error, match="unable to parse warm"):
        host.gcode("SET_HEATER_TEMPERATURE HEATER=chamber TARGET=warm")
    assert host.state == "ready"


def test_anything_but_a_command_error_shuts_down(make: Make) -> None:
    host = make(CHAMBER)

    def broken(gcmd: Any) -> None:
        raise KeyError("oops")

    host.lookup("gcode").register_command("BREAK", broken)
    with pytest.raises(KeyError):
        host.gcode("BREAK")
    assert (host.state, host.reason) == ("shutdown", 'Internal error on command:"BREAK"')
    with pytest.raises(host.printer.command_error, match="Internal error on command"):
        host.gcode("G1 X1")


def test_registering_a_command_twice_is_a_config_error(make: Make) -> None:
    host = make(CHAMBER)
    gcode = host.lookup("gcode")
    with pytest.raises(host.printer.config_error, match="already registered"):
        gcode.register_command("M105", lambda gcmd: None)
    with pytest.raises(host.printer.config_error, match="invalid name"):
        gcode.register_command("lower", lambda gcmd: None)
    assert gcode.register_command("M105", None) is not None


def test_a_wait_holds_the_mutex_and_never_looks_at_the_target(make: Make) -> None:
    host = make(CHAMBER + "[pause_resume]")
    host.advance(2)
    host.gcode("SET_HEATER_TEMPERATURE HEATER=chamber TARGET=45")
    wait = host.launch('TEMPERATURE_WAIT SENSOR="heater_generic chamber" MINIMUM=44')
    host.advance(5)
    host.heater("chamber").set_temp(0)
    pause = host.launch("PAUSE")
    host.advance(15)
    assert not wait.done
    assert not pause.done
    assert host.status("idle_timeout")["state"] == "Printing"
    host.lookup("temperature_host chamber").value = 44.5
    host.advance(12)
    assert wait.done
    assert pause.done
    assert host.status("pause_resume")["is_paused"]


def test_a_script_run_inside_a_timer_stops_the_timer_until_the_mutex_is_free(make: Make) -> None:
    host = make(CHAMBER)
    ticks: list[float] = []

    def tick(eventtime: float) -> float:
        ticks.append(eventtime)
        host.lookup("gcode").run_script("M105")
        return host.reactor.monotonic() + 1.0

    host.launch("G4 P10000")
    host.advance(0.1)
    host.reactor.register_timer(tick, host.reactor.NOW)
    host.advance(8)
    assert len(ticks) == 1
    host.advance(5)
    assert len(ticks) > 3


def test_a_shutdown_ends_a_wait(make: Make) -> None:
    host = make(CHAMBER)
    wait = host.launch('TEMPERATURE_WAIT SENSOR="heater_generic chamber" MINIMUM=70')
    host.advance(2)
    host.printer.invoke_shutdown("enough")
    host.advance(1.1)
    assert wait.done


def test_macros_rename_and_wait(make: Make) -> None:
    host = make(
        CHAMBER
        + "[pause_resume]\n[gcode_macro PAUSE]\nrename_existing: BASE_PAUSE\ngcode:\n"
        + "  BASE_PAUSE\n  ECHO A=done\n"
    )
    assert host.state == "ready", host.message
    assert host.gcode("PAUSE") == ["// action:paused", "// ECHO A=done"]
    assert host.status("pause_resume")["is_paused"]


def test_templates_see_status_and_parameters(make: Make) -> None:
    pytest.importorskip("jinja2", reason="templates need jinja2")
    host = make(
        CHAMBER
        + "[gcode_macro HEAT]\nvariable_extra: 5\ngcode:\n"
        + "  {% set t = params.S|int + extra %}\n"
        + "  SET_HEATER_TEMPERATURE HEATER=chamber TARGET={t}\n"
        + "  ECHO T={printer['heater_generic chamber'].target}\n"
    )
    assert host.gcode("HEAT S=40") == ["// ECHO T=0.0"]
    assert host.status("heater_generic chamber")["target"] == 45.0


def test_a_delayed_script_runs_and_repeats(make: Make) -> None:
    host = make(
        "[delayed_gcode x]\ninitial_duration: 2\ngcode:\n  ECHO A=tick\n"
        "  UPDATE_DELAYED_GCODE ID=x DURATION=3\n"
    )
    host.advance(9)
    assert host.responses.count("// ECHO A=tick") == 3


# Heaters


def test_a_reading_is_stale_after_seven_seconds_of_print_time(make: Make) -> None:
    host = make(CHAMBER + "[verify_heater chamber]\nmax_error: 7200\n")
    host.advance(5)
    heater, sensor = host.heater("chamber"), host.lookup("temperature_host chamber")
    assert heater.get_temp(host.reactor.monotonic())[0] > 24.0
    sensor.value = None
    host.advance(7)
    assert heater.get_temp(host.reactor.monotonic())[0] > 24.0
    host.advance(0.1)
    assert heater.get_temp(host.reactor.monotonic())[0] == 0.0
    assert host.status("heater_generic chamber")["temperature"] == 25.0


def test_targets_out_of_range_are_command_errors_and_zero_never_is(make: Make) -> None:
    host = make(CHAMBER)
    with pytest.raises(
        host.printer.command_error,
        match=r"Requested temperature \(90.0\) out of range \(0.0:80.0\)",
    ):
        host.gcode("SET_HEATER_TEMPERATURE HEATER=chamber TARGET=90")
    host.gcode("SET_HEATER_TEMPERATURE HEATER=chamber")
    assert host.status("heater_generic chamber")["target"] == 0.0


def test_watermark_switches_the_pin_and_repeats_it(make: Make) -> None:
    host = make(CHAMBER)
    host.advance(2)
    host.gcode("SET_HEATER_TEMPERATURE HEATER=chamber TARGET=45")
    host.advance(10)
    history = host.heater("chamber").mcu_pwm.history
    assert [value for _, value in history] == [1.0] * len(history)
    gaps = [b[0] - a[0] for a, b in zip(history, history[1:])]
    assert gaps
    assert max(gaps) <= 3.0
    host.lookup("temperature_host chamber").value = 47.0
    host.advance(2)
    assert history[-1][1] == 0.0
    assert host.status("heater_generic chamber")["power"] == 0.0


def test_no_power_once_the_main_thread_is_five_seconds_late(make: Make) -> None:
    host = make(CHAMBER)
    host.advance(2)
    heater = host.heater("chamber")
    heater.set_temp(45)
    now = host.lookup("mcu").estimated_print_time(host.reactor.monotonic())
    heater.temperature_callback(now + 4.0, 25.0)
    assert heater.last_pwm_value == 1.0
    heater.temperature_callback(now + 7.0, 25.0)
    assert heater.last_pwm_value == 0.0


def test_set_control_and_alter_target_bypass_set_temp(make: Make) -> None:
    host = make(CHAMBER)
    heater = host.heater("chamber")
    calls: list[float] = []
    real = heater.set_temp

    def set_temp(degrees: float) -> None:
        calls.append(degrees)
        real(degrees)

    heater.set_temp = set_temp
    heater.set_temp(40)
    old = heater.set_control(heater.control)
    assert old is heater.control
    assert heater.target_temp == 0.0
    heater.alter_target(500)
    assert heater.target_temp == 80.0
    assert calls == [40]


def test_one_raising_set_temp_leaves_the_heaters_behind_it_on(make: Make) -> None:
    host = make(CHAMBER + BED)
    host.advance(1)
    chamber, bed = host.heater("chamber"), host.heater("heater_bed")
    bed.set_temp(60)

    def refuse(degrees: float) -> None:
        raise host.printer.command_error("no")

    chamber.set_temp = refuse
    with pytest.raises(host.printer.command_error):
        host.gcode("TURN_OFF_HEATERS")
    assert bed.target_temp == 60
    with pytest.raises(host.printer.command_error):
        host.gcode("RESTART", limit=5)
    assert host.state == "ready"


def test_pid_calibrate_replaces_the_control_while_it_runs(make: Make) -> None:
    host = make(BED)
    host.advance(2)
    heater = host.heater("heater_bed")
    original = heater.control
    run = host.launch("PID_CALIBRATE HEATER=heater_bed TARGET=50")
    host.advance(5)
    assert heater.control is not original
    assert heater.target_temp in (45.0, 50.0)
    assert host.run_until(lambda: run.done, 3600)
    assert run.error is None
    assert heater.control is original
    assert heater.target_temp == 0.0
    assert host.status("configfile")["save_config_pending_items"]["heater_bed"]["control"] == "pid"


def test_a_bed_gets_warm_and_holds(make: Make) -> None:
    host = make(BED)
    host.advance(1)
    host.gcode("M190 S60", limit=200)
    host.advance(120)
    assert 56 < host.status("heater_bed")["temperature"] < 64


def test_pid_holds_a_bed_too(make: Make) -> None:
    host = make(BED.replace("watermark", "pid\npid_kp: 70\npid_ki: 2\npid_kd: 500"))
    host.advance(1)
    host.gcode("M140 S60")
    host.advance(300)
    assert 58 < host.status("heater_bed")["temperature"] < 62


def test_sensor_limits_shut_the_printer_down(make: Make) -> None:
    host = make(CHAMBER)
    host.lookup("temperature_host chamber").value = 81.0
    host.advance(2)
    assert host.state == "shutdown"
    assert host.reason == "HOST temperature 81.0 above maximum temperature of 80.0."


def test_silence_at_target_ends_in_verify_heater(make: Make) -> None:
    host = make(CHAMBER)
    sensor = host.lookup("temperature_host chamber")
    sensor.value = 45.0
    host.advance(10)
    host.gcode("SET_HEATER_TEMPERATURE HEATER=chamber TARGET=45")
    host.advance(5)
    sensor.value = None
    start = host.reactor.monotonic()
    assert host.run_until(lambda: host.state == "shutdown", 60)
    # 7 s until the reading is stale, then 40 degrees of error a second against 120
    assert 9.0 <= host.reactor.monotonic() - start <= 11.5
    assert "Heater chamber not heating at expected rate" in host.message


def test_a_large_max_error_outlives_a_minute_of_silence(make: Make) -> None:
    host = make(CHAMBER + "[verify_heater chamber]\nmax_error: 7200\ncheck_gain_time: 360\n")
    sensor = host.lookup("temperature_host chamber")
    sensor.value = 45.0
    host.advance(10)
    host.gcode("SET_HEATER_TEMPERATURE HEATER=chamber TARGET=45")
    host.advance(5)
    sensor.value = None
    host.advance(62)
    sensor.value = 45.0
    host.advance(200)
    assert host.state == "ready"


def test_a_heater_can_be_made_from_a_section_added_while_loading(
    make: Make, tmp_path: Path
) -> None:
    folder = tmp_path / "made"
    folder.mkdir()
    (folder / "made_for_test.py").write_text(
        "def load_config(config):\n"
        "    fc, name = config.fileconfig, 'heater_generic made'\n"
        "    fc.add_section(name)\n"
        "    values = {'heater_pin': 'PA7', 'sensor_type': 'temperature_host',\n"
        "              'control': 'watermark', 'min_temp': '0', 'max_temp': '80'}\n"
        "    for option, value in values.items():\n"
        "        fc.set(name, option, value)\n"
        "    config.get_printer().load_object(config, name)\n"
        "    return object()\n"
    )
    host = make("[made_for_test]", extras=[str(folder)])
    sys.modules.pop("extras.made_for_test", None)
    assert host.state == "ready", host.message
    assert host.status("heaters")["available_heaters"] == ["heater_generic made"]
    assert "heater_generic made" in host.status("configfile")["settings"]
    assert "heater_generic made" not in host.status("configfile")["config"]
    assert "verify_heater made" in host.printer.objects


# Printing


def test_idle_timeout_goes_from_idle_to_printing_to_ready_to_idle(make: Make) -> None:
    host = make(CHAMBER + "[idle_timeout]\ntimeout: 30\ngcode: TURN_OFF_HEATERS\n")
    assert host.status("idle_timeout")["state"] == "Idle"
    host.advance(1)
    host.gcode("SET_HEATER_TEMPERATURE HEATER=chamber TARGET=27")
    assert host.status("idle_timeout")["state"] == "Printing"
    host.advance(2)
    assert host.status("idle_timeout")["state"] == "Ready"
    host.advance(35)
    assert host.status("idle_timeout")["state"] == "Idle"
    assert host.heater("chamber").target_temp == 0.0


def test_a_file_prints_pauses_and_goes_on(make: Make, tmp_path: Path) -> None:
    (tmp_path / "job.gcode").write_text("G4 P3000\n" * 10)
    host = make(CHAMBER + f"[pause_resume]\n[virtual_sdcard]\npath: {tmp_path}\n")
    host.gcode("SDCARD_PRINT_FILE FILENAME=job.gcode")
    host.advance(5)
    assert host.status("print_stats")["state"] == "printing"
    assert host.status("virtual_sdcard")["is_active"]
    host.lookup("pause_resume").pause_command_sent = False
    host.gcode("PAUSE", limit=10)
    host.advance(1)
    assert host.status("print_stats")["state"] == "paused"
    host.gcode("RESUME", limit=10)
    assert host.run_until(lambda: host.status("print_stats")["state"] == "complete", 60)


def test_an_error_in_a_file_ends_the_print_and_turns_heaters_off(
    make: Make, tmp_path: Path
) -> None:
    (tmp_path / "bad.gcode").write_text("SET_HEATER_TEMPERATURE HEATER=chamber TARGET=900\n")
    host = make(CHAMBER + f"[virtual_sdcard]\npath: {tmp_path}\n")
    host.heater("chamber").set_temp(40)
    host.gcode("SDCARD_PRINT_FILE FILENAME=bad.gcode")
    host.advance(1)
    assert host.status("print_stats")["state"] == "error"
    assert host.heater("chamber").target_temp == 0.0


def test_restart_takes_the_half_second_of_a_dwell(make: Make) -> None:
    host = make(CHAMBER, restart_delay=0.0)
    host.heater("chamber").set_temp(45)
    before, old = host.clock.monotonic(), host.heater("chamber")
    host.restart()
    assert 0.5 <= host.clock.monotonic() - before <= 1.0
    assert old.target_temp == 0.0


# The program


class Client:
    """Speaks the API socket's protocol."""

    def __init__(self, path: Path) -> None:
        deadline = time.monotonic() + 10
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(10)
        while True:
            try:
                self.sock.connect(str(path))
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
        self.data = b""
        self.number = 0

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc: Any) -> None:
        self.sock.close()

    def read(self) -> dict[str, Any]:
        while b"\x03" not in self.data:
            more = self.sock.recv(65536)
            assert more, "closed"
            self.data += more
        message, _, self.data = self.data.partition(b"\x03")
        result: dict[str, Any] = json.loads(message)
        return result

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        self.number += 1
        request = {"id": self.number, "method": method, "params": params}
        self.sock.sendall(json.dumps(request).encode() + b"\x03")
        while True:
            answer = self.read()
            if answer.get("id") == self.number:
                return answer


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []

    def start(config: str, *args: str) -> subprocess.Popen[str]:
        (tmp_path / "printer.cfg").write_text(BASE + config)
        log = str(tmp_path / "klippy.log")
        command = [sys.executable, "-m", "klippy_stub", str(tmp_path / "printer.cfg"), "-l", log]
        process = subprocess.Popen(
            [*command, "--restart-delay", "0", *args],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def test_the_program_reads_stdin_and_ends_in_order(program: Any, probe_dir: str) -> None:
    process = program("[probe_for_test]", "-x", probe_dir)
    out, _ = process.communicate("M105\nG4 P10\nRESTART\nSTATUS\nNOBODY", timeout=20)
    assert process.returncode == 0
    assert out.count("// Klipper state: Disconnect") == 2
    assert '// Unknown command:"NOBODY"' in out
    assert "T:0" in out


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_kill_without_disconnect(program: Any, number: signal.Signals) -> None:
    process = program(CHAMBER)
    assert process.stdout.readline() == "// Klipper state: Ready\n"
    process.send_signal(number)
    out, _ = process.communicate(timeout=10)
    assert process.returncode == -number
    assert "Disconnect" not in out


def test_the_api_socket_answers_and_outlives_stdin(
    program: Any, tmp_path: Path, probe_dir: str
) -> None:
    config = CHAMBER + "[pause_resume]\n[probe_for_test]\n"
    program(config, "-a", str(tmp_path / "sock"), "-x", probe_dir).stdin.close()
    with Client(tmp_path / "sock") as client:
        talk(client)
    with Client(tmp_path / "sock") as client:
        client.sock.sendall(b'{"id":1,"method":"gcode/firmware_restart"}\x03')
        while client.sock.recv(65536):
            pass
    deadline = time.monotonic() + 10
    while True:
        try:
            with Client(tmp_path / "sock") as client:
                assert client.ask("info")["result"]["state"] in ("startup", "ready")
                break
        except ConnectionError:  # the old printer's socket, about to close
            assert time.monotonic() < deadline


def talk(client: Client) -> None:
    deadline = time.monotonic() + 10
    while client.ask("info")["result"]["state"] != "ready":
        assert time.monotonic() < deadline
    assert client.ask("info")["result"]["state_message"] == "Printer is ready"
    assert "heater_generic chamber" in client.ask("objects/list")["result"]["objects"]
    status = client.ask("objects/query", objects={"probe_for_test": ["nan"], "heaters": None})
    assert status["result"]["status"]["probe_for_test"] == {"nan": None}
    assert client.ask("nobody")["error"]["message"].endswith("for path 'nobody'")
    client.ask("gcode/subscribe_output", response_template={"method": "out"})
    answer = client.ask("gcode/script", script="SET_HEATER_TEMPERATURE HEATER=chamber TARGET=900")
    assert "out of range" in answer["error"]["message"]
    client.ask("objects/subscribe", objects={"heater_generic chamber": None}, response_template={})
    client.ask("gcode/script", script="SET_HEATER_TEMPERATURE HEATER=chamber TARGET=45")
    while True:
        params = client.read().get("params", {}).get("status", {})
        if params.get("heater_generic chamber", {}).get("target") == 45.0:
            break
    client.ask("emergency_stop")
    info = client.ask("info")["result"]
    assert info["state"] == "shutdown"
    assert info["state_message"].startswith("Shutdown due to webhooks request\nOnce the")


def test_an_m112_behind_a_wait_is_seen_at_once(program: Any) -> None:
    process = program(CHAMBER)
    process.stdin.write("G4 P60000\nM112\n")
    process.stdin.flush()
    out, _ = process.communicate(timeout=20)
    assert "// Shutdown due to M112 command" in out or "Klipper state: Shutdown" in out


def test_a_printer_runs_on_the_real_clock_too(make: Make) -> None:
    host = make(CHAMBER, clock=RealClock())
    assert host.state == "ready"
    assert host.run_until(lambda: host.status("heater_generic chamber")["temperature"] > 20, 5)
