"""Klippy killed while its device heats, in every phase that may make a difference.

For tests and benchmarks. A phase brings a printer that heats to the moment, and the kill follows.
"""

from __future__ import annotations

import base64
import contextlib
import os
import random
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

from printers import Printer
from simulator import Entry, Simulator, wait_for

GUARD = b"panda_breath_guard"
SIGNALS = ("SIGKILL", "SIGTERM", "SIGSEGV", "SIGINT")
SOCKETS = 6  # which, with klippy's own, are all that a device has

Phase = Callable[[Printer, Simulator, random.Random], "contextlib.AbstractContextManager[None]"]


def guards(pid: int) -> list[int]:
    """The guards that this process has started and that have not ended."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
            arguments = (stat.parent / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue  # ended meanwhile
        if int(fields[1]) == pid and fields[0] not in "ZX" and GUARD in arguments:
            found.append(int(stat.parent.name))
    return found


def guard_of(printer: Printer) -> int:
    return wait_for(lambda: guards(printer.pid), "a guard")[0]


def is_alive(pid: int) -> bool:
    """Whether a process has not ended; a zombie has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def heat(printer: Printer, simulator: Simulator) -> None:
    """Until the element has power."""
    mark = simulator.mark()
    printer.gcode("SET_HEATER_TEMPERATURE HEATER=panda_breath TARGET=60")
    simulator.wait_for("state", mark, work_on=1, heater=True)


# Phases


@contextlib.contextmanager
def steady(printer: Printer, simulator: Simulator, dice: random.Random) -> Iterator[None]:
    time.sleep(dice.uniform(0.0, 2.5))  # before and after the heat counts as delivered
    yield


@contextlib.contextmanager
def handshake(printer: Printer, simulator: Simulator, dice: random.Random) -> Iterator[None]:
    simulator.inject("drop")  # it comes back within milliseconds
    time.sleep(dice.uniform(0.0, 0.02))
    yield


@contextlib.contextmanager
def between_wish_and_frame(
    printer: Printer, simulator: Simulator, dice: random.Random
) -> Iterator[None]:
    printer.gcode_later("SET_HEATER_TEMPERATURE HEATER=panda_breath TARGET=50")
    time.sleep(dice.uniform(0.0, 0.003))
    yield


@contextlib.contextmanager
def restart(printer: Printer, simulator: Simulator, dice: random.Random) -> Iterator[None]:
    printer.gcode_later("RESTART")
    time.sleep(dice.uniform(0.0, 0.05))
    yield


@contextlib.contextmanager
def guard_start(printer: Printer, simulator: Simulator, dice: random.Random) -> Iterator[None]:
    os.kill(guard_of(printer), signal.SIGKILL)
    # One that was never started cannot do anything: see guard_killed_with_klippy.
    wait_for(lambda: guards(printer.pid), "another guard")
    time.sleep(dice.uniform(0.0, 0.1))
    yield


@contextlib.contextmanager
def seven_sockets(printer: Printer, simulator: Simulator, dice: random.Random) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for _ in range(SOCKETS):
            client = stack.enter_context(socket.create_connection(simulator.addresses[0], 5))
            key = base64.b64encode(os.urandom(16)).decode()
            client.sendall(
                f"GET /ws HTTP/1.1\r\nHost: {simulator.host}\r\nConnection: Upgrade\r\n"
                f"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                f"Sec-WebSocket-Key: {key}\r\n\r\n".encode()
            )
        wait_for(lambda: simulator.open_sockets() > SOCKETS, "seven sockets")
        time.sleep(dice.uniform(0.0, 0.5))
        yield


PHASES: dict[str, Phase] = {
    "steady": steady,
    "handshake": handshake,
    "between wish and frame": between_wish_and_frame,
    "RESTART": restart,
    "guard start": guard_start,
    "seven sockets": seven_sockets,
    "whole group": steady,
}


def kill_at(
    printer: Printer, simulator: Simulator, phase: str, sig: str, dice: random.Random
) -> float:
    """Kill klippy in a phase; seconds from then until the element has no power.

    The printer heats when this begins, and is killed when it ends. Zero if the element had no power
    any more, as after a RESTART.
    """
    with PHASES[phase](printer, simulator, dice):
        mark = simulator.mark()
        was_on = _heater(simulator.entries()[:mark])
        began = time.monotonic()
        if phase == "whole group":
            os.killpg(os.getpgid(printer.pid), getattr(signal, sig))
        else:
            printer.signal(getattr(signal, sig))
        printer.wait_exit()
        # Whatever was on its way: in the end it is off, and stays so.
        wait_for(lambda: not _is_on(simulator), f"off after {sig} in phase {phase}")
    entries = simulator.entries()
    off = [entry for entry in entries[mark:] if entry["event"] == "state" and not entry["heater"]]
    if not was_on and not any(entry.get("heater") for entry in entries[mark:]):
        return 0.0
    return max(0.0, float(off[0]["t"]) - began) if off else 0.0


def _heater(entries: list[Entry]) -> bool:
    states = [entry for entry in entries if entry["event"] == "state"]
    return bool(states and states[-1]["heater"])


def _is_on(simulator: Simulator) -> bool:
    states = [entry for entry in simulator.entries() if entry["event"] == "state"]
    return bool(states[-1]["heater"] or states[-1]["work_on"])
