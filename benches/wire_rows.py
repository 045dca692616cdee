"""What the device sees, and when: targets, and the wish after an outage."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from children import Child
from printers import Printer
from setups import COMMUNITY, OURS, Bench, set_target, wait_connected
from simulated import Event, Simulated, happens, settings, wants
from table import Row, percentile

# Slow enough for the module's own budget of 1 heat command in 2 s after the first 8.
CHANGES = (45, 50, 0)
BETWEEN = 1.4  # s
DOWN_TIMES = (0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.5, 8.0)
GOOD = 11.0  # s; a connection that lasted 10 s is retried at once
TWO = (45, 50)
FRAME = b'{"settings":{"work_mode":2,"set_temp":45,"work_on":true}}' + bytes(6)  # and its head


def target(bench: Bench) -> Iterator[Row]:
    """From SET_HEATER_TEMPERATURE to its frames at the device.

    The time is taken just before gcode/script is written to klippy's API socket, and by the
    simulator when it has read the frame, both with CLOCK_MONOTONIC. The setups take turns change by
    change. Turning on, changing and turning off, one after the other; frames are those until the
    next change. Contains the socket and klippy's own work, which are the same for both modules.

    The floor takes turns with them: as many bytes over a TCP connection on loopback, from just
    before the send() of this process to just after a blocking recv() of another (bare.py).
    """
    first: dict[str, list[float]] = {}
    last: dict[str, list[float]] = {}
    off: dict[str, list[float]] = {}
    frames: dict[str, list[float]] = {}
    floor: list[float] = []
    with contextlib.ExitStack() as stack:
        bare = stack.enter_context(Child(bench, "bare.py", "clock"))
        line = stack.enter_context(socket.create_connection(("127.0.0.1", bare.next())))
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        devices: dict[str, tuple[Simulated, Printer]] = {}
        for kind in bench.rivals:
            device = stack.enter_context(Simulated(bench.folder))
            printer = stack.enter_context(bench.printer(kind, bench.config(kind, device.port)))
            wait_connected(kind, printer, device)
            devices[kind] = device, printer
        time.sleep(3)  # past what the modules write when they connect
        for turn in range(bench.pick(25, 4) * len(CHANGES)):
            wanted = CHANGES[turn % len(CHANGES)]
            starts = {kind: device.look() for kind, (device, _) in devices.items()}
            sent = {}
            for kind, (_, printer) in devices.items():
                time.sleep(BETWEEN / len(devices) * bench.random.uniform(0.9, 1.1))
                sent[kind] = set_target(printer, wanted)
            # A change belongs to its kind until that kind's next one.
            time.sleep(BETWEEN / 2)
            sent_at = time.monotonic()
            line.sendall(FRAME)
            floor.append((bare.next() - sent_at) * 1e3)
            time.sleep(BETWEEN / 2)
            for kind, (device, _) in devices.items():
                device.look()
                events = [event for event in device.events[starts[kind] :] if settings(event)]
                times = [(event["t"] - sent[kind]) * 1e3 for event in events]
                frames.setdefault(kind, []).append(len(times))
                if not times:
                    continue
                (first if wanted else off).setdefault(kind, []).append(times[0])
                if wanted:
                    acts = [t for event, t in zip(events, times) if "work_on" in settings(event)]
                    last.setdefault(kind, []).append((acts or times)[0])
    best = first.get(COMMUNITY)
    goal = percentile(best, 0.5) + 0.1 if best else None
    ours = first[OURS]
    yield Row("target to its frame", "ms", ours, goal=goal, note=f"{len(ours)} changes")
    yield Row("target to its frame, p99", "ms", value=percentile(ours, 0.99), goal=2)
    yield Row("bare TCP on loopback, the floor of this", "ms", floor)
    if best:
        yield Row(f"target to its first frame ({COMMUNITY})", "ms", best)
        yield Row(f"target to the frame with work_on ({COMMUNITY})", "ms", last[COMMUNITY])
        yield Row(
            f"target to its first frame, p99 ({COMMUNITY})", "ms", value=percentile(best, 0.99)
        )
    for kind in bench.rivals:
        whose = "" if kind == OURS else f" ({kind})"
        yield Row(f"target 0 to its frame{whose}", "ms", off[kind])
    for kind in bench.rivals:
        whose = "" if kind == OURS else f" ({kind})"
        yield Row(
            f"frames per target change, most{whose}",
            "count",
            frames[kind],
            value=max(frames[kind]),
            goal=1 if kind == OURS else None,
        )


def resync(bench: Bench) -> Iterator[Row]:
    """From the device's return to the current wish being there.

    `reboot` resets the connections, refuses for the down time, then is up; meanwhile the target is
    changed, so that its frame shows when the device knows. `drop` resets the connections and
    nothing else: until the next is open, on which the device's own word comes first. Several
    devices in one printer, at random moments; the community module knows one device per printer,
    and runs beside.
    """
    with ThreadPoolExecutor(1) as pool:
        theirs = pool.submit(_community_reboots, bench) if bench.anchor else None
        reboots, drops = _our_reboots(bench)
        rows = [
            Row("device reboot to resynchronised", "s", reboots, goal=0.5, note=f"{len(reboots)}x"),
            Row(
                "device reboot to resynchronised, p95",
                "s",
                value=percentile(reboots, 0.95),
                goal=1.5,
            ),
            Row("connection reset to resynchronised", "s", drops, goal=0.5, note=f"{len(drops)}x"),
            Row(
                "connection reset to resynchronised, p95",
                "s",
                value=percentile(drops, 0.95),
                goal=1.5,
            ),
        ]
        yield from rows
        if theirs is not None:
            yield Row(f"device reboot to resynchronised ({COMMUNITY})", "s", theirs.result())


def powercut(bench: Bench) -> Iterator[Row]:
    """From the return after a silent loss of power to the wish of that time being there.

    The device says nothing any more and SYNs stay unanswered for 1 to 15 s, then it knows nothing
    of its old connections. One printer with a device for each of these. The target is changed
    during the cut, as above.
    """
    cuts = (1, 4, 8, 13) if bench.quick else tuple(range(1, 16))
    with ThreadPoolExecutor(1) as pool:
        theirs = pool.submit(_community_powercut, bench) if bench.anchor else None
        taken = []
        with Simulated(bench.folder, count=len(cuts)) as device:
            ports = range(device.port, device.port + len(cuts))
            with bench.printer(OURS, _many(ports)) as printer:
                _wait_live(printer, len(cuts))
                _set_all(printer, len(cuts), 45)
                for turn in range(bench.pick(3, 1)):
                    time.sleep(GOOD + bench.random.uniform(0, 0.5))
                    wanted = TWO[(turn + 1) % 2]
                    start = device.look()
                    for n, cut in enumerate(cuts):
                        device.inject(f"@{n} powercut {cut}")
                    time.sleep(0.3)
                    _set_all(printer, len(cuts), wanted)
                    for n in range(len(cuts)):
                        taken.append(_after_up(device, wanted, start, 40, n))
        back = [t for t in taken if t is not None]
        missing = len(taken) - len(back)
        note = f"{len(taken)} cuts of 1 to 15 s" + (f", {missing} not in 40 s" if missing else "")
        yield Row(
            "power cut to resynchronised, max", "s", back, value=max(back), goal=6.5, note=note
        )
        yield Row("power cut to resynchronised, median", "s", back)
        if theirs is not None:
            yield Row(f"power cut to resynchronised ({COMMUNITY})", "s", theirs.result())


def _many(ports: Sequence[int]) -> str:
    return "\n".join(
        f"[panda_breath d{n}]\nhost: 127.0.0.1\nport: {port}" for n, port in enumerate(ports)
    )


def _wait_live(printer: Printer, count: int) -> None:
    def live() -> bool:
        status = printer.query({f"panda_breath d{n}": ["temperature"] for n in range(count)})
        return all(device["temperature"] is not None for device in status.values())

    printer.wait_for(live)


def _set_all(printer: Printer, count: int, wanted: int) -> None:
    for n in range(count):
        set_target(printer, wanted, f"d{n}")


def _after_up(
    device: Simulated, wanted: int, start: int, timeout: float, number: int | None = None
) -> float | None:
    up = device.wait(happens("up", number), timeout, start)
    if up is None:
        return None

    def fits(event: Event) -> bool:
        return event["t"] >= up["t"] and wants(wanted, number)(event)

    frame = device.wait(fits, timeout, start)
    return None if frame is None else float(frame["t"] - up["t"])


def _our_reboots(bench: Bench) -> tuple[list[float], list[float]]:
    down_times = DOWN_TIMES[::2] if bench.quick else DOWN_TIMES
    reboots: list[float] = []
    drops: list[float] = []
    with contextlib.ExitStack() as stack:
        devices = []
        for n, down in enumerate(down_times):
            options = ["--reboot-seconds", str(down), "--identity", f"02:00:00:00:01:{n:02x}"]
            devices.append(stack.enter_context(Simulated(bench.folder, *options)))
        config = _many([device.port for device in devices])
        printer = stack.enter_context(bench.printer(OURS, config))
        _wait_live(printer, len(devices))
        _set_all(printer, len(devices), 45)
        for turn in range(bench.pick(3, 1)):
            time.sleep(GOOD)
            starts = [device.look() for device in devices]
            for device in devices:
                time.sleep(bench.random.uniform(0, 0.1))
                device.inject("drop")
            for device, start in zip(devices, starts):
                gone = device.wait(happens("inject"), 5, start)
                back = device.wait(happens("open"), 20, start)
                assert gone is not None
                if back is not None:
                    drops.append(back["t"] - gone["t"])
            time.sleep(GOOD)
            wanted = TWO[(turn + 1) % 2]
            starts = [device.look() for device in devices]
            for n, device in enumerate(devices):
                time.sleep(bench.random.uniform(0, 0.05))
                device.inject("reboot")
                device.wait(happens("down"), 5, starts[n])
                set_target(printer, wanted, f"d{n}")
            for device, start in zip(devices, starts):
                taken = _after_up(device, wanted, start, 40)
                if taken is not None:
                    reboots.append(taken)
    return reboots, drops


def _community_reboots(bench: Bench) -> list[float]:
    taken = []
    for down in DOWN_TIMES[2::4] if bench.quick else DOWN_TIMES:
        with Simulated(bench.folder, "--reboot-seconds", str(down)) as device:
            taken.append(_community_outage(bench, device, "reboot", 15))
    return [t for t in taken if t is not None]


def _community_powercut(bench: Bench) -> list[float]:
    taken = []
    for cut in (4,) if bench.quick else (2, 7):
        with Simulated(bench.folder) as device:
            taken.append(_community_outage(bench, device, f"powercut {cut}", 70))
    return [t for t in taken if t is not None]


def _community_outage(bench: Bench, device: Simulated, what: str, timeout: float) -> float | None:
    with bench.printer(COMMUNITY, bench.config(COMMUNITY, device.port)) as printer:
        wait_connected(COMMUNITY, printer, device)
        set_target(printer, 45)
        time.sleep(2)
        start = device.look()
        device.inject(what)
        device.wait(happens("down"), 5, start)
        set_target(printer, 50)
        return _after_up(device, 50, start, timeout)
