"""The module, the wheel and a simulated device together, inside a printer.

Over klippy_stub, or over the Klipper or Kalico that KLIPPER_DIR names; see printers.py. Only what
is measured in this process, at the end, is always over klippy_stub.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest
from printers import GcodeError, Printer, PrinterGoneError, printer_from_environment
from simulator import Simulator, wait_for

from klippy_stub import Host, ManualClock, RealClock, loader

HEATER = "heater_generic panda_breath"
OFF = {"work_on": False}
RESTARTS = int(os.environ.get("RESTARTS", "1000"))


def heat(target: int) -> dict[str, Any]:
    """The one frame that says so."""
    return {"work_mode": 2, "set_temp": target, "work_on": True}


def unique_address() -> str:
    """Not 127.0.0.1, where a row of free ports is hard to find."""
    return "127.{}.{}.{}:0".format(*(1 + byte % 250 for byte in os.urandom(3)))


Simulate = Callable[..., Simulator]
Start = Callable[..., Printer]


@pytest.fixture
def simulate(tmp_path: Path) -> Iterator[Simulate]:
    running: list[Simulator] = []

    def start(*options: str, count: int = 1) -> Simulator:
        folder = tmp_path / f"simulator{len(running)}"
        if "--listen" not in options:
            options += ("--listen", unique_address())
        simulator = Simulator(folder, *options, count=count)
        running.append(simulator)
        # A new device is on, and waits for a bed that is hot.
        mark = simulator.mark()
        simulator.inject("button power")
        for device in range(count):
            named = {"device": device} if count > 1 else {}
            simulator.wait_for("state", mark, work_on=0, **named)
        return simulator

    yield start
    for simulator in running:
        simulator.close()


@pytest.fixture
def build(tmp_path: Path) -> Iterator[Start]:
    printers: list[Printer] = []

    def make(config: str) -> Printer:
        printer = printer_from_environment(config, tmp_path / f"printer{len(printers)}")
        printers.append(printer)
        return printer

    yield make
    for printer in printers:
        printer.close()


@pytest.fixture
def start(build: Start) -> Start:
    def go(config: str) -> Printer:
        printer = build(config)
        printer.start()
        return printer

    return go


def status(printer: Printer, name: str = "panda_breath") -> dict[str, Any]:
    found: dict[str, Any] = printer.query({name: None})[name]
    return found


def wait_live(printer: Printer, name: str = "panda_breath") -> None:
    printer.wait_for(lambda: status(printer, name)["temperature"] is not None)


def set_target(printer: Printer, target: float, heater: str = "panda_breath") -> None:
    printer.gcode(f"SET_HEATER_TEMPERATURE HEATER={heater} TARGET={target}")


def heated(start: Start, simulator: Simulator, config: str = "[pause_resume]\n") -> Printer:
    """A printer whose device heats to 45 C."""
    printer = start(simulator.section() + config)
    wait_live(printer)
    mark = simulator.mark()
    set_target(printer, 45)
    simulator.wait_for("state", mark, work_on=1, set_temp=45)
    return printer


def all_console(printer: Printer) -> str:
    return "\n".join(printer.console())


# The wish reaches the device


def test_r10_a_target_is_one_frame_and_off_is_one_frame(start: Start, simulate: Simulate) -> None:
    simulator = simulate()
    printer = start(simulator.section())
    wait_live(printer)
    assert simulator.frames() == []
    set_target(printer, 45)
    simulator.wait_for("state", work_on=1, set_temp=45)
    mark = simulator.mark()
    set_target(printer, 0)
    simulator.wait_for("state", mark, work_on=0)
    # It is looked at once more before it is known to be off, and that writes nothing.
    printer.wait_for(lambda: status(printer)["device_on"] is False)
    assert simulator.frames() == [heat(45), OFF]


def test_the_status_shows_device_and_firmware(start: Start, simulate: Simulate) -> None:
    simulator = simulate("--chamber", "31", "--firmware", "1.0.2")
    printer = start(simulator.section())
    wait_live(printer)
    shown = status(printer)
    assert (shown["temperature"], shown["link"]) == (31.0, "connected")
    assert "1.0.2" in shown["firmware_version"]
    assert status(printer, HEATER)["temperature"] == pytest.approx(31.0, abs=1.0)
    assert HEATER in printer.query({"heaters": None})["heaters"]["available_heaters"]


@pytest.mark.parametrize("how", ["RESTART", "FIRMWARE_RESTART"])
def test_r2_a_restart_turns_it_off(start: Start, simulate: Simulate, how: str) -> None:
    simulator = simulate()
    printer = heated(start, simulator)
    mark = simulator.mark()
    printer.restart(how)
    simulator.wait_for("state", mark, work_on=0)
    assert simulator.frames(mark) == [OFF]
    assert status(printer, HEATER)["target"] == 0.0
    wait_live(printer)
    set_target(printer, 40)
    simulator.wait_for("state", mark, work_on=1, set_temp=40)


@pytest.mark.parametrize("how", ["M112", "emergency_stop", "TURN_OFF_HEATERS"])
def test_r2_every_stop_turns_it_off(start: Start, simulate: Simulate, how: str) -> None:
    simulator = simulate()
    printer = heated(start, simulator)
    mark = simulator.mark()
    if how == "emergency_stop":
        printer.emergency_stop()
    else:
        with contextlib.suppress(GcodeError):
            printer.gcode(how)
    simulator.wait_for("state", mark, work_on=0)
    assert simulator.frames(mark) == [OFF]
    stopped = how != "TURN_OFF_HEATERS"
    assert printer.info()["state"] == ("shutdown" if stopped else "ready")


def test_r2_after_a_shutdown_nothing_heats_until_a_restart(
    start: Start, simulate: Simulate
) -> None:
    simulator = simulate()
    printer = heated(start, simulator)
    printer.emergency_stop()
    simulator.wait_for("frame", text=json.dumps({"settings": OFF}, separators=(",", ":")))
    with pytest.raises(GcodeError):
        set_target(printer, 45)
    mark = simulator.mark()
    printer.restart("FIRMWARE_RESTART")
    wait_live(printer)
    set_target(printer, 41)
    simulator.wait_for("state", mark, work_on=1)
    assert simulator.frames(mark) == [heat(41)]


def test_r2_a_device_that_is_on_at_the_start_is_turned_off(
    start: Start, simulate: Simulate
) -> None:
    simulator = simulate()
    simulator.inject("button on")
    simulator.wait_for("state", work_on=1)
    mark = simulator.mark()
    printer = start(simulator.section())
    simulator.wait_for("state", mark, work_on=0)
    printer.wait_for(lambda: "the device is on; turning it off" in all_console(printer))
    assert simulator.frames(mark) == [OFF]


def test_r2_switched_on_by_hand_it_is_turned_off(start: Start, simulate: Simulate) -> None:
    simulator = simulate()
    printer = start(simulator.section())
    wait_live(printer)
    mark = simulator.mark()
    simulator.inject("button on")
    simulator.wait_for("state", mark, work_on=1)
    simulator.wait_for("state", mark, work_on=0)
    printer.wait_for(lambda: "turned on by hand while its target is 0" in all_console(printer))


def test_r9_a_button_is_accepted_and_heat_is_not_set_again(
    start: Start, simulate: Simulate
) -> None:
    simulator = simulate()
    printer = heated(start, simulator)
    mark = simulator.mark()
    simulator.inject("button power")
    printer.wait_for(lambda: status(printer, HEATER)["target"] == 0.0)
    assert status(printer)["external_off"] is True
    printer.wait_for(lambda: "SET_HEATER_TEMPERATURE HEATER=panda_breath" in all_console(printer))
    assert "turned off by a button or another client" in all_console(printer)
    assert heat(45) not in simulator.frames(mark)
    set_target(printer, 44)
    simulator.wait_for("state", mark, work_on=1, set_temp=44)
    printer.wait_for(lambda: status(printer)["external_off"] is False)


def test_r4_after_a_cut_only_the_current_wish_is_sent(start: Start, simulate: Simulate) -> None:
    simulator = simulate()
    printer = heated(start, simulator)
    mark = simulator.mark()
    simulator.inject("refuse 1.5")
    simulator.inject("drop")
    printer.wait_for(lambda: status(printer)["link"] == "reconnecting")
    for target in (30, 55, 50):
        set_target(printer, target)
    simulator.wait_for("state", mark, set_temp=50, work_on=1)
    assert simulator.frames(mark) == [heat(50)]
    printer.wait_for(lambda: "connected again after" in all_console(printer))
    assert status(printer)["reconnects"] == 1


def test_r2_off_wished_during_a_cut_is_sent_after_it(start: Start, simulate: Simulate) -> None:
    simulator = simulate()
    printer = heated(start, simulator)
    mark = simulator.mark()
    simulator.inject("refuse 1")
    simulator.inject("drop")
    printer.wait_for(lambda: status(printer)["link"] == "reconnecting")
    set_target(printer, 0)
    simulator.wait_for("state", mark, work_on=0)
    assert heat(45) not in simulator.frames(mark)


def test_two_devices_are_two_heaters(start: Start, simulate: Simulate) -> None:
    simulator = simulate(count=2)
    printer = start(
        simulator.section(0, "panda_breath left") + simulator.section(1, "panda_breath right")
    )
    wait_live(printer, "panda_breath left")
    wait_live(printer, "panda_breath right")
    set_target(printer, 41, "left")
    set_target(printer, 42, "right")
    simulator.wait_for("state", device=0, work_on=1, set_temp=41)
    simulator.wait_for("state", device=1, work_on=1, set_temp=42)
    printer.gcode("TURN_OFF_HEATERS")
    mark = simulator.mark()
    for device, target in ((0, 41), (1, 42)):
        simulator.wait_for("state", work_on=0, device=device, set_temp=target)
        assert simulator.frames(device=device) == [heat(target), OFF]
    assert heat(41) not in simulator.frames(mark)


def test_one_device_in_two_sections_heats_in_neither_twice(
    start: Start, simulate: Simulate
) -> None:
    """By its name and by its address: the configuration cannot tell, the device can."""
    simulator = simulate("--listen", "127.0.0.1:0")
    printer = start(
        simulator.section(0, "panda_breath a")
        + f"[panda_breath b]\nhost: localhost\nport: {simulator.port}\n"
    )
    names = ("panda_breath a", "panda_breath b")
    printer.wait_for(
        lambda: sorted(status(printer, n)["link"] for n in names) == ["connected", "error"]
    )
    wrong = next(n for n in names if status(printer, n)["link"] == "error")
    with pytest.raises(GcodeError, match="the same device as in"):
        set_target(printer, 45, wrong.split()[1])
    assert simulator.frames() == []


def test_temperature_wait_reaches_the_target(start: Start, simulate: Simulate) -> None:
    simulator = simulate("--speed", "120", "--chamber", "35")
    printer = heated(start, simulator)
    printer.gcode(f'TEMPERATURE_WAIT SENSOR="{HEATER}" MINIMUM=44', timeout=50.0)
    assert status(printer)["temperature"] >= 43.0


def test_a_delayed_gcode_that_heats_at_each_start(start: Start, simulate: Simulate) -> None:
    simulator = simulate()
    config = (
        "[pause_resume]\n[delayed_gcode warm]\ninitial_duration: 1.5\ngcode:\n"
        "  SET_HEATER_TEMPERATURE HEATER=panda_breath TARGET=45\n"
    )
    printer = start(simulator.section() + config)
    simulator.wait_for("state", work_on=1, set_temp=45)
    mark = simulator.mark()
    printer.restart()
    simulator.wait_for("state", mark, work_on=0)
    simulator.wait_for("state", mark, work_on=1, set_temp=45)
    assert simulator.frames(mark) == [OFF, heat(45)]


def test_r12_a_restart_leaves_one_connection(start: Start, simulate: Simulate) -> None:
    simulator = simulate()
    printer = heated(start, simulator)
    for _ in range(2):
        printer.restart()
        wait_live(printer)
    wait_for(lambda: simulator.open_sockets() == 1, "one connection")


def test_a_config_error_is_said_and_mended(build: Start, simulate: Simulate) -> None:
    simulator = simulate()
    printer = build("[panda_breath]\nhost: http://PandaBreath.local\n")
    printer.launch()

    def failed() -> bool:
        with contextlib.suppress(PrinterGoneError):
            return bool(printer.info()["state"] == "error")
        return False

    printer.wait_for(failed)
    assert "Option 'host' in section 'panda_breath'" in printer.info()["state_message"]
    printer.write_config(simulator.section())
    printer.restart()
    wait_live(printer)
    set_target(printer, 45)
    simulator.wait_for("state", work_on=1, set_temp=45)


def test_r2_a_restart_into_a_config_error_leaves_it_off(start: Start, simulate: Simulate) -> None:
    simulator = simulate()
    printer = heated(start, simulator)
    mark = simulator.mark()
    printer.write_config(simulator.section(options="lease: 1"))
    with pytest.raises(Exception, match="'lease'"):
        printer.restart()
    simulator.wait_for("state", mark, work_on=0)
    printer.write_config(simulator.section())
    printer.restart()
    wait_live(printer)
    assert simulator.frames(mark) == [OFF]
    assert status(printer, HEATER)["target"] == 0.0


# Faults: nothing waits (how long things take is measured by `make bench`)

FAULTS = {
    "hang": "hang all",
    "refuse": "refuse 3600",
    "drip": "drip on",
    "powercut": "powercut 3600",
    "no such host": None,
}


def faulty_section(simulator: Simulator, fault: str, options: str = "") -> str:
    """A section whose device has the fault from the start."""
    command = FAULTS[fault]
    if command is None:
        return f"[panda_breath]\nhost: no-such-host.invalid\n{options}\n"
    simulator.inject(command)
    return simulator.section(options=options)


@pytest.mark.parametrize("fault", FAULTS)
def test_r1_everything_works_with_a_device_that_does_not(
    start: Start, simulate: Simulate, fault: str
) -> None:
    simulator = simulate()
    printer = start(faulty_section(simulator, fault, "max_temp: 70"))
    set_target(printer, 0)
    printer.gcode("TURN_OFF_HEATERS")
    with pytest.raises(GcodeError, match="cannot be reached"):
        set_target(printer, 45)
    assert status(printer)["temperature"] is None
    assert status(printer)["link"] in ("pending", "connecting")
    printer.restart()
    set_target(printer, 0)
    printer.emergency_stop()
    assert printer.info()["state"] == "shutdown"
    printer.restart("FIRMWARE_RESTART")
    assert simulator.frames() == []


@pytest.mark.parametrize(
    ("fault", "cure"),
    [
        ("hang all", "resume"),
        ("refuse 2", None),
        ("drip on", "drip off"),
        ("powercut 2", None),
    ],
)
@pytest.mark.parametrize("stop", ["target 0", "RESTART", "emergency stop"])
def test_r2_a_stop_during_a_fault_is_off_when_it_ends(
    start: Start, simulate: Simulate, fault: str, cure: str | None, stop: str
) -> None:
    simulator = simulate("--reboot-seconds", "0.5")
    printer = heated(start, simulator)
    mark = simulator.mark()
    if fault.startswith("refuse"):
        simulator.inject("drop")
    simulator.inject(fault)
    if stop == "target 0":
        set_target(printer, 0)
    elif stop == "RESTART":
        printer.restart()
    else:
        printer.emergency_stop()
        assert printer.info()["state"] == "shutdown"
    if cure is not None:
        simulator.inject(cure)
    wait_for(lambda: simulator.frames(mark)[-1:] == [OFF], "off")
    assert heat(45) not in simulator.frames(mark)
    simulator.wait_for("state", mark, work_on=0)


# R11: secrets

SENTINELS = {
    "--wifi-ssid": "Sentinel-ssid-51f3",
    "--wifi-password": "Sentinel-wifi-password-9a77",
    "--ap-password": "Sentinel-ap-password-2c08",
    "--access-code": "Sentinel-code-77e1",
}


def test_r11_no_secret_of_the_device_appears_anywhere(
    start: Start, simulate: Simulate, tmp_path: Path
) -> None:
    options = [word for pair in SENTINELS.items() for word in pair]
    simulator = simulate(*options)
    told = "".join(simulator.snapshot().split("\n"))
    for secret in SENTINELS.values():
        assert secret in told, "the device does tell it"
    printer = heated(start, simulator)
    mark = simulator.mark()
    first = SENTINELS["--wifi-password"]
    for text in (
        told[:-1],
        told + "}",
        told.replace('"work_on"', f'"{first}"'),
        json.dumps({"settings": {"warehouse_temper": first}}),
        json.dumps({"settings": {"fw_version": first}}),
        first,
    ):
        simulator.inject("raw " + text)
    simulator.inject("garbage")
    simulator.inject("fault ptc-open")
    printer.wait_for(lambda: status(printer)["fault"])
    simulator.inject("drop")
    printer.wait_for(lambda: status(printer)["reconnects"])
    with contextlib.suppress(GcodeError):
        set_target(printer, 45)
    seen = {}
    names = [name for name in printer.objects() if name != "configfile"]
    seen["status"] = json.dumps(printer.query({name: None for name in names}))
    seen["settings"] = json.dumps(printer.query({"configfile": None}))
    printer.restart()
    # Not its temperature, which counts for nothing while the fault lasts.
    printer.wait_for(lambda: status(printer)["link"] == "connected")
    printer.emergency_stop()
    simulator.wait_for("close", mark)
    seen["status after"] = json.dumps(status(printer))
    seen["console"] = all_console(printer)
    seen["log"] = printer.log_text()
    seen["output"] = printer.output_path.read_text()
    seen["simulator's errors"] = simulator.error_path.read_text()
    for file in ("cmdline", "environ"):
        seen[file] = Path(f"/proc/{printer.pid}/{file}").read_bytes().decode(errors="replace")
    assert "panda_breath" in seen["console"] and "panda_breath" in seen["log"]
    for where, text in seen.items():
        for secret in SENTINELS.values():
            assert secret not in text, where


# R12: RESTART for ever


def process_state() -> dict[str, Any]:
    """What this process has: threads, descriptors, children, dead children."""
    me = os.getpid()
    children, zombies = 0, 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
            if int(parent) == me:
                children += 1
                zombies += state == "Z"
    return {
        "tasks": len(os.listdir("/proc/self/task")),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "children": children,
        "zombies": zombies,
    }


def threads() -> set[str]:
    names = set()
    for comm in Path("/proc/self/task").glob("*/comm"):
        with contextlib.suppress(OSError):
            names.add(comm.read_text().strip())
    return names


def rss() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


# A device that was just connected or heated has to say something before it is heated (again), which
# takes half a second, and one that is known to be off is left alone by a RESTART and connected to
# again: so many RESTARTs while heating need devices that take turns, and quickly.
DEVICES = 16


@pytest.mark.in_process
@pytest.mark.timeout(900)
def test_r12_a_thousand_restarts_while_heating_leave_nothing(
    simulate: Simulate, tmp_path: Path
) -> None:
    # The tests below leave heat behind that nobody ever sees off, for which the driver goes on.
    assert "panda_breath" not in threads(), "this test comes before those of R1"
    simulator = simulate(count=DEVICES)
    config = "[mcu]\nserial: /dev/null\n[printer]\nkinematics: none\nmax_velocity: 300\n"
    config += "max_accel: 3000\n[pause_resume]\n"
    config += "".join(simulator.section(n, f"panda_breath d{n}") for n in range(DEVICES))

    def state() -> dict[str, Any]:
        return {**process_state(), "sockets": simulator.open_sockets()}

    def settled() -> dict[str, Any]:
        """When every device has its connection and none has a second one."""
        wait_for(lambda: state()["sockets"] == DEVICES, "one connection each")
        wait_for(lambda: all(s.device.drain(0.0, True, s.ack).off_known for s in shims), "off")
        return state()

    before: dict[str, Any] = {}
    memory = 0
    with Host.from_text(config, tmp_path, clock=ManualClock(), restart_delay=0.0) as host:
        host.start()
        for restart in range(RESTARTS):
            assert host.state == "ready", host.message
            shims = [host.lookup(f"panda_breath d{n}") for n in range(DEVICES)]

            def are_live(devices: list[int], shims: list[Any] = shims) -> bool:
                looks = [shims[n].device.drain(0.0, True, shims[n].ack) for n in devices]
                return all(look.reading_number for look in looks)

            devices = [restart % DEVICES]
            if not host.wait_real(functools.partial(are_live, devices), 0.1):
                devices = list(range(DEVICES))
                assert host.wait_real(functools.partial(are_live, devices), 30.0), "no reading"
            mark = simulator.mark()
            for device in devices:
                host.gcode(f"SET_HEATER_TEMPERATURE HEATER=d{device} TARGET=45")
            for device in devices:
                simulator.wait_for("state", mark, device=device, work_on=1)
            mark = simulator.mark()
            host.restart()
            for device in devices:
                simulator.wait_for("state", mark, device=device, work_on=0)
                assert simulator.frames(mark, device) == [OFF]
            simulator.forget()
            if restart + 1 == 10:
                shims = [host.lookup(f"panda_breath d{n}") for n in range(DEVICES)]
                before, memory = settled(), rss()
        shims = [host.lookup(f"panda_breath d{n}") for n in range(DEVICES)]
        wait_for(lambda: settled() == before, f"what there was after RESTART 10: {before}")
        growth = rss() - memory
    assert before["zombies"] == 0
    assert growth <= 1024 * 1024
    wait_for(lambda: simulator.open_sockets() == 0, "no connection")
    wait_for(lambda: "panda_breath" not in threads(), "the driver's thread has ended")
    print(f"{RESTARTS} RESTARTs: RSS {growth / 1024:+.0f} KiB, {before}")


# R1: no call of the shim waits for anything; not for a processor that is busy either, so alone


class Switches:
    """Counts how often this thread gave up the processor because it had to wait."""

    def __init__(self) -> None:
        self.calls: dict[str, int] = {}
        self.waited: dict[str, int] = {}

    def counted(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            before = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
            try:
                return function(*args, **kwargs)
            finally:
                after = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
                self.calls[name] = self.calls.get(name, 0) + 1
                if after != before:
                    self.waited[name] = self.waited.get(name, 0) + after - before

        return call


CALLS = {
    "PandaBreath": (
        "__init__",
        "_look",
        "get_status",
        "_handle_connect",
        "_handle_ready",
        "_handle_shutdown",
        "_handle_disconnect",
    ),
    "Desire": ("_set_temp", "_get_status"),
}


def watched(replace: Callable[[Any, str, Any], None]) -> Switches:
    """Counts in every call that the shim gets from klippy.

    What is a greenlet in klippy is a thread in the stub. One that has handed over to another, and
    was interrupted before it slept, must not ask for the interpreter back: this is no wait of ours.
    """
    sys.setswitchinterval(60.0)
    switches = Switches()
    loader.set_path()
    shim = importlib.import_module("extras.panda_breath")
    for of, names in CALLS.items():
        for name in names:
            replace(
                getattr(shim, of), name, switches.counted(name, getattr(getattr(shim, of), name))
            )
    return switches


@pytest.fixture
def switches(monkeypatch: pytest.MonkeyPatch) -> Iterator[Switches]:
    """The same, until the test ends."""
    interval = sys.getswitchinterval()
    yield watched(monkeypatch.setattr)
    sys.setswitchinterval(interval)


@pytest.mark.alone
@pytest.mark.in_process
def test_r1_the_counter_sees_a_call_that_waits(simulate: Simulate, switches: Switches) -> None:
    simulator = simulate()

    def connect() -> None:
        with socket.create_connection(simulator.addresses[0]) as client:
            client.sendall(b"GET /ws HTTP/1.1\r\n\r\n")
            client.recv(1)

    switches.counted("sleep", time.sleep)(0.001)
    switches.counted("connect", connect)()
    switches.counted("nothing", lambda: None)()
    assert switches.waited.keys() == {"sleep", "connect"}


def exercise(host: Host, looks: int) -> None:
    """What a printer does to the module, much more often than it would."""
    device = host.lookup("panda_breath")
    for number in range(looks):
        host.reactor.call_without_pausing(lambda: device._look(host.reactor.monotonic()))
        host.status("panda_breath")
        host.status(HEATER)
        if number % 10 == 0:
            target = 40 + number % 7
            for degrees in (target, 0, target):
                with contextlib.suppress(host.printer.command_error):
                    device.heater.set_temp(float(degrees))
        host.run_until(lambda: False, 0.003)


PRINTER = (
    "[mcu]\nserial: /dev/null\n[printer]\nkinematics: none\nmax_velocity: 300\n"
    "max_accel: 3000\n[pause_resume]\n"
)

# A name that was there cannot be made to go away.
WHILE_HEATING = [None, *filter(None, FAULTS.values())]


@pytest.mark.alone
@pytest.mark.in_process
@pytest.mark.parametrize(
    ("fault", "when"),
    [(fault, "from the start") for fault in FAULTS]
    + [(command, "while heating") for command in WHILE_HEATING],
)
def test_r1_no_call_of_the_shim_waits(
    simulate: Simulate, switches: Switches, tmp_path: Path, fault: str | None, when: str
) -> None:
    simulator = simulate()
    if when == "from the start":
        assert fault is not None
        section = faulty_section(simulator, fault)
    else:
        section = simulator.section()
    config = PRINTER + section
    with Host.from_text(config, tmp_path, clock=RealClock(), restart_delay=0.0) as host:
        assert host.start() == "ready", host.message
        if when == "while heating":
            live = host.run_until(lambda: bool(host.lookup("panda_breath").readings), 10.0)
            assert live
            host.gcode("SET_HEATER_TEMPERATURE HEATER=panda_breath TARGET=45", limit=5.0)
            simulator.wait_for("state", work_on=1)
            if fault is not None:
                simulator.inject(fault)
        exercise(host, 200)
        host.restart()
        exercise(host, 100)
        host.gcode("M112", limit=5.0)
        exercise(host, 20)
        host.restart("FIRMWARE_RESTART")
    assert switches.calls["_look"] > 300
    assert set(switches.calls) == {name for names in CALLS.values() for name in names}
    assert switches.waited == {}


def exercise_with_a_silent_name_server(folder: str) -> None:
    """The same where no question for a name is ever answered; runs in a process of its own."""
    importlib.import_module("panda_breath_native")  # read from the disk once per process
    switches = watched(setattr)
    config = PRINTER + "[panda_breath]\nhost: heater.example\n"
    with Host.from_text(config, Path(folder), clock=RealClock(), restart_delay=0.0) as host:
        assert host.start() == "ready", host.message
        exercise(host, 200)
        # The kernel keeps 15 characters of a thread's name.
        assert "panda_breath_dn" in threads(), "nobody waits for the name server"
        host.restart()
        exercise(host, 100)
        host.gcode("M112", limit=5.0)
        exercise(host, 20)
        host.restart("FIRMWARE_RESTART")
    assert switches.calls["_look"] > 300
    assert switches.waited == {}


@pytest.mark.alone
@pytest.mark.in_process
def test_r1_no_call_of_the_shim_waits_for_a_silent_name_server(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parent.parent
    alone = ["unshare", "--user", "--map-root-user", "--mount", "--net", sys.executable]
    alone += [str(root / "benches" / "silent_dns.py"), str(tmp_path), "silent"]
    try:
        subprocess.run(alone, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a name server of our own needs namespaces: {error}")
    code = "import sys, test_shim_live as t; t.exercise_with_a_silent_name_server(sys.argv[1])"
    paths = os.pathsep.join([str(root), str(root / "tests")])
    done = subprocess.run(
        [*alone, sys.executable, "-c", code, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
