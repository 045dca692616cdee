"""A long life in a short time: `make soak`, or `benches/soak.py [--hours 24] [--reconnects N]`.

A printer (klippy_stub, or the Klipper of KLIPPER_DIR) heats a simulated device whose chamber lives
60 times as fast; once per second, a minute there, something goes wrong: the link is cut, hung or
refused, the device reboots or loses power, its buttons are pressed, it sends garbage, the guard is
killed, Klipper is restarted or stands still. Then many devices are cut off until all of them
together have been connected that often. Memory, threads and descriptors must not grow, and in the
end every device must be off.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import processes
from killing import guards
from printers import GcodeError, Printer, PrinterError, printer_from_environment
from simulator import Simulator, wait_for

SPEED = 60
HOUR = 3600 / SPEED  # s
SETTLE = 30.0  # s without faults, until everything has come back
MIB = 1024 * 1024
GROWTH = 1.0  # MiB that memory may differ between two quiet moments
DEVICES = 100

INJECTED = (
    "drop",
    "hang",
    "hang all",
    "resume",
    "refuse 2",
    "reboot",
    "powercut 3",
    "garbage",
    "mute 2",
    "button power",
    "button on",
    "button auto",
    "fault ptc-open",
    "fault heater",
    "fault clear",
    "flood 500 1",
)
WISHED = ("target", "target", "target", "off")


class State:
    """What must not grow, of klippy and its guard."""

    def __init__(self, printer: Printer) -> None:
        pids = [printer.pid, *guards(printer.pid)]
        self.rss = sum(processes.memory(pid).rss for pid in pids) / MIB
        self.threads = sum(len(processes.threads(pid)) for pid in pids)
        self.files = sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids)
        self.guards = len(pids) - 1

    def __str__(self) -> str:
        return (
            f"{self.rss:.2f} MiB, {self.threads} threads, {self.files} descriptors, "
            f"{self.guards} guard"
        )


def main() -> int:
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory(prefix="panda-soak-") as folder:
        failures = live(Path(folder), arguments.hours, random.Random(arguments.seed))
        failures += reconnect(Path(folder), arguments.reconnects)
    for failure in failures:
        print(f"FAILED: {failure}")
    print("soak: failed" if failures else "soak: ok")
    return 1 if failures else 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=24.0, help="hours of the device's [24]")
    parser.add_argument("--reconnects", type=int, default=10_000, help="[10000]")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


def live(folder: Path, hours: float, dice: random.Random) -> list[str]:
    """The printer with its one device."""
    with Simulator(folder / "device", "--speed", str(SPEED)) as device:
        config = device.section(options="lease: 5\n") + "[pause_resume]\n"
        with printer_from_environment(config, folder / "printer") as printer:
            wait_for(lambda: _temperature(printer) is not None, "a reading")
            disturb(printer, device, dice, 20)  # everything that is only made once
            states = [settled(printer, device)]
            print(f"after a warm-up: {states[0]}", flush=True)
            faults: Counter[str] = Counter()
            for hour in range(1, round(hours) + 1):
                faults += disturb(printer, device, dice, round(HOUR))
                device.forget()
                if hour % 6 == 0 or hour == round(hours):
                    states.append(settled(printer, device))
                    print(f"after hour {hour}: {states[-1]}", flush=True)
            print(", ".join(f"{name} {count}" for name, count in sorted(faults.items())))
            return compare(states)


def disturb(printer: Printer, device: Simulator, dice: random.Random, seconds: int) -> Counter[str]:
    """Something each second."""
    done: Counter[str] = Counter()
    for _ in range(seconds):
        due = time.monotonic() + 1.0
        name = dice.choice(
            [*INJECTED, "target", "target", "target", "off", "RESTART", "guard", "stop"]
        )
        done[name] += 1
        try:
            if name in INJECTED:
                device.inject(name)
            elif name == "target":
                target = dice.randint(30, 60)
                printer.gcode_later(f"SET_HEATER_TEMPERATURE HEATER=panda_breath TARGET={target}")
            elif name == "off":
                printer.gcode_later("TURN_OFF_HEATERS")
            elif name == "RESTART":
                printer.restart()
            elif name == "guard":
                for guard in guards(printer.pid):
                    os.kill(guard, signal.SIGKILL)
            else:
                printer.signal(signal.SIGSTOP)
                time.sleep(dice.choice([0.1, 3.0, 11.0]))
                printer.signal(signal.SIGCONT)
        except PrinterError:
            restore(printer)
        time.sleep(max(0.0, due - time.monotonic()))
    return done


def restore(printer: Printer) -> None:
    """A printer that is in shutdown, as after a fault without a print, goes on."""
    for _ in range(5):
        try:
            printer.restart("FIRMWARE_RESTART")
        except PrinterError:
            time.sleep(1.0)
        else:
            return


def settled(printer: Printer, device: Simulator) -> State:
    """What there is when nothing has gone wrong for a while, and the heater is off."""
    device.inject("resume")
    device.inject("fault clear")
    restore(printer)
    wait_for(lambda: _link(printer) == "connected", "the link", SETTLE)
    for _ in range(3):
        try:
            printer.gcode("TURN_OFF_HEATERS")
            break
        except (GcodeError, PrinterError):
            restore(printer)
    time.sleep(SETTLE)
    if '"work_on":\t0' not in device.snapshot():
        raise PrinterError("the device is not off")
    return State(printer)


def compare(states: list[State]) -> list[str]:
    first, failures = states[0], []
    for state in states[1:]:
        if state.rss > first.rss + GROWTH:
            failures.append(f"memory: {first} became {state}")
        # A look at the device that is open at that moment is a descriptor more.
        if (state.threads, state.guards) != (first.threads, first.guards) or abs(
            state.files - first.files
        ) > 1:
            failures.append(f"threads, descriptors or guards: {first} became {state}")
    return failures


def _status(printer: Printer) -> dict[str, object]:
    found: dict[str, object] = printer.query({"panda_breath": None})["panda_breath"]
    return found


def _temperature(printer: Printer) -> object:
    return _status(printer)["temperature"]


def _link(printer: Printer) -> object:
    try:
        return _status(printer)["link"]
    except PrinterError:
        return None


def reconnect(folder: Path, wanted: int) -> list[str]:
    """Many devices, cut off again and again, looked after by this process."""
    import panda_breath_native as native

    with Simulator(folder / "many", count=DEVICES) as simulator:
        devices = [
            native.Device(
                name=f"d{n}",
                host=host,
                port=port,
                device_id=None,
                max_target=60,
                stale_after=7.0,
                lost_after=120.0,
                lease=10.0,
                on_external_off="accept",
                on_external_on="off",
            )
            for n, (host, port) in enumerate(simulator.addresses)
        ]

        def drain() -> list[native.State]:
            return [device.drain(0.0, True, 0) for device in devices]

        def connected() -> bool:
            return all(state.link == "connected" for state in drain())

        def count() -> int:
            return sum(state.reconnects for state in drain())

        wait_for(connected, "all devices")
        pid = os.getpid()
        first = None
        while count() < wanted:
            simulator.inject("drop")
            simulator.forget()
            wait_for(connected, "all devices again")
            files = len(os.listdir(f"/proc/{pid}/fd"))
            now = (files, len(processes.threads(pid)), processes.memory(pid).rss / MIB)
            if first is None and count() >= wanted / 10:
                first = now
        total = count()
        wait_for(lambda: all(state.off_known for state in drain()), "all devices off", 60.0)
        for device in devices:
            device.close()
    print(
        f"{total} reconnects: {now[0]} descriptors, {now[1]} threads, {now[2]:.2f} MiB; "
        f"after a tenth of them {first}"
    )
    if first is None:
        return ["too few reconnects"]
    # A look that is open at that moment is a descriptor more for each device.
    grown = now[0] > first[0] + DEVICES or now[1] != first[1] or now[2] > first[2] + GROWTH
    return [f"reconnects: {first} became {now}"] if grown else []


if __name__ == "__main__":
    sys.exit(main())
