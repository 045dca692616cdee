"""Without klippy: a thousand devices in one process, messages no device should send, the heap."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import processes
from children import Child, Many
from setups import Bench
from simulated import Simulated, settings
from table import Row, percentile

MIB = 1024 * 1024
COUNTS = (1, 10, 100, 1_000)
# Between two changes of a target. The module's own budget is 1 heat command in 2 s per device after
# the first 8, and every second change turns one off.
GAPS = {1: 1.0, 10: 0.1, 100: 0.05, 1_000: 0.02}  # s
GOOD = 11  # s; a connection that lasted 10 s is retried at once
CUT = 5  # s without network
HERD = 0.1  # s
ALLOCATIONS = Path(__file__).with_name("allocations.c")


def many(bench: Bench) -> Iterator[Row]:
    """1 to 1,000 devices in one process: a script without klippy drains each at 1 Hz (many.py).

    Measured once each is known to be off, so without the connections of the first seconds. RSS is
    less that of the script before the first device. The latency is that from just before want()
    in Python to the simulator's reading of that device's frame, both with CLOCK_MONOTONIC, while
    the script drains them all.

    `drop` resets all connections at once; the simulator's log says when the last is open again.
    The latencies are taken 3 s after that.
    With `refuse` before it no connection is accepted for 5 s: from the end of these, how long until
    all are there, and how many of them at the most came within any 100 ms: all would be a herd.
    """
    for count in COUNTS:
        yield from _some(bench, count)


def _some(bench: Bench, count: int) -> Iterator[Row]:
    name = f"{count:,} device" + ("s" if count > 1 else "")
    most = count == COUNTS[-1]
    with (
        Simulated(bench.folder, count=count) as device,
        Many(bench, range(device.port, device.port + count)) as process,
    ):
        process.settle()
        settled = time.monotonic()
        threads = processes.threads(process.pid).count(processes.DRIVER)
        yield Row(f"{name}: driver threads", "count", value=threads, goal=1 if most else None)
        rss = (processes.memory(process.pid).rss - process.base_rss) / MIB
        yield Row(f"{name}: RSS growth", "MiB", value=rss, goal=32 if most else None)
        windows, seconds = (bench.pick(3, 1), bench.pick(20, 8)) if most else (1, GOOD)
        whole, thread = _shares(process.pid, windows, seconds)
        yield Row(f"{name}: CPU of the driver's thread", "% core", thread, goal=8 if most else None)
        yield Row(f"{name}: CPU with draining in Python", "% core", whole)
        time.sleep(max(0.0, settled + GOOD - time.monotonic()))
        start = device.look()
        device.inject("drop")
        back, note = _reconnected(device, count, start)
        yield Row(f"{name}: all connected again, max", "s", back, value=max(back), note=note)

        # The time until a connection counts as one that lasted is used for the latencies.
        reset = time.monotonic()
        time.sleep(3)
        taken, missing = _latencies(device, process, bench.pick(12, 6))
        note = f"{len(taken)} changes" + (f", {missing} not seen" if missing else "")
        yield Row(f"{name}: want() to its frame", "ms", taken, note=note)
        yield Row(
            f"{name}: want() to its frame, p99", "ms", value=percentile(taken, 0.99), note=note
        )

        time.sleep(max(0.0, reset + GOOD - time.monotonic()))
        start = device.look()
        device.inject(f"refuse {CUT}")
        device.inject("drop")
        back, note = _reconnected(device, count, start, CUT)
        yield Row(
            f"{name}: all connected after {CUT} s without network, max",
            "s",
            back,
            value=max(back),
            note=note,
        )
        if most:
            share = _herd(back) / count
            yield Row(f"{name}: share of these within any {HERD * 1e3:g} ms", "ratio", value=share)
            process.say("heat")
            time.sleep(10)
            _, thread = _shares(process.pid, 1, bench.pick(30, 8))
            yield Row(f"{name} heating: CPU of the driver's thread", "% core", thread)


def _latencies(device: Simulated, process: Many, seconds: int) -> tuple[list[float], int]:
    """Milliseconds, and how many frames were not seen."""
    start = device.look()
    process.say(f"change {seconds} {GAPS[process.count]}")
    changes = process.wait(lambda report: bool(report["changes"]), seconds + 10)["changes"]
    time.sleep(0.5)
    end = device.look()
    frames: dict[tuple[int, float], list[float]] = {}
    for event in device.events[start:end]:
        said = settings(event)
        if said.get("work_on") is not None:
            target = said.get("set_temp", 0.0) if said["work_on"] else 0.0
            frames.setdefault((event.get("device", 0), target), []).append(event["t"])
    taken = []
    for n, target, at in changes:
        # The next one with this target is at least four changes of this device away.
        fitting = [t for t in frames.get((n, target), []) if 0 <= t - at < 2 * GAPS[1]]
        taken += [(fitting[0] - at) * 1e3] if fitting else []
    return taken, len(changes) - len(taken)


def _reconnected(
    device: Simulated, count: int, start: int, after: float = 0.0
) -> tuple[list[float], str]:
    """Seconds to each device's next open connection, from so long after the next injection."""
    injected = device.wait(lambda event: event["event"] == "inject", 10, start)
    assert injected is not None
    began = injected["t"] + after
    back: dict[int, float] = {}
    deadline = time.monotonic() + 30
    while len(back) < count and time.monotonic() < deadline:
        time.sleep(0.1)
        end = device.look()
        for event in device.events[start:end]:
            if event["event"] == "open":
                back.setdefault(event.get("device", 0), event["t"] - began)
    note = "" if len(back) == count else f"{count - len(back)} not in 30 s"
    return list(back.values()), note


def _herd(times: Sequence[float]) -> int:
    """The most of these moments within any HERD seconds."""
    ordered = sorted(times)
    return max(
        sum(1 for other in ordered[n:] if other < first + HERD) for n, first in enumerate(ordered)
    )


def messages(bench: Bench) -> Iterator[Row]:
    """What no device should send, to a process without klippy (many.py), by a script (peer.py).

    64 KiB messages, the largest legal ones, back to back: as fast as both sides can, so that the
    figure is the CPU per message; that it is the link's speed on a real network. Reports in
    packets of one byte. A message of one byte too much: from before it is sent until the next
    connection is open; ten devices at once, whose connections have lasted for 10 s.
    """
    seconds = bench.pick(20, 6)
    yield from _stream(bench, "64 KiB messages", f"large {seconds}", seconds, "message")
    yield from _stream(bench, "one byte per packet", f"bytes {seconds} 1000", seconds, "packet")
    with Child(bench, "peer.py", "10") as peer, Many(bench, peer.next()) as process:
        process.settle()
        time.sleep(GOOD)
        peer.say("oversize")
        sent: dict[int, float] = {}
        back: dict[int, float] = {}
        while len(back) < process.count:
            event = peer.next(timeout=10)
            if event["event"] == "oversize":
                sent[event["device"]] = event["t"]
            elif event["event"] == "open" and event["device"] in sent:
                back.setdefault(event["device"], event["t"] - sent[event["device"]])
        ms = [t * 1e3 for t in back.values()]
        yield Row("oversize message to the next connection", "ms", ms, note=f"{len(ms)}x")
        time.sleep(1)
        connected = process.fresh()["connected"]
        yield Row("oversize message: links down afterwards", "count", value=10 - connected, goal=0)


def _stream(bench: Bench, name: str, order: str, seconds: int, unit: str) -> Iterator[Row]:
    with Child(bench, "peer.py", "1") as peer, Many(bench, peer.next()) as process:
        process.settle()
        start = process.fresh()
        peer.say(order)
        time.sleep(2)
        rss = processes.memory(process.pid).rss
        before = processes.cpu(process.pid)
        time.sleep(seconds - 3)
        after = processes.cpu(process.pid)
        grown = (processes.memory(process.pid).rss - rss) / MIB
        while (event := peer.next())["event"] != "sent":
            pass
        time.sleep(1)
        end = process.fresh()
        rate = event["count"] / event["seconds"]
        _, thread = processes.share(before, after)
        taken = end["readings"] - start["readings"]
        note = f"{event['count']} sent, {taken} readings"
        yield Row(f"{name}: {unit}s per second", "1/s", value=rate, note=note, more_is_better=True)
        yield Row(f"{name}: CPU of the driver's thread", "% core", value=thread)
        yield Row(f"{name}: CPU per {unit}", "us", value=thread / 100 / rate * 1e6)
        yield Row(f"{name}: RSS growth", "MiB", value=grown, goal=0.5)
        lost = end["reconnects"] - start["reconnects"]
        yield Row(f"{name}: reconnects", "count", value=lost, goal=0)
        ignored = end["ignored"] - start["ignored"]
        yield Row(f"{name}: messages ignored", "count", value=ignored, goal=0)


def allocations(bench: Bench) -> Iterator[Row]:
    """What one report takes from the heap, and whether it gives it back.

    Growth: what malloc has given out in the whole process (mallinfo2), after a flood of reports
    against before it, without klippy (many.py); a few KiB are Python's own. Allocations: how often
    the driver's thread calls malloc, calloc and realloc, to a hundredth, counted by allocations.c
    in LD_PRELOAD; at 2 Hz with everything else that the thread does meanwhile. Both need glibc, the
    latter a C compiler.
    """
    seconds = bench.pick(10, 5)
    with Simulated(bench.folder) as device, Many(bench, [device.port]) as process:
        process.settle()
        device.inject(f"flood {FLOOD} 2")  # what is kept once is not growth
        time.sleep(3)
        before = process.fresh()
        if "heap" in before:
            device.inject(f"flood {FLOOD} {seconds}")
            time.sleep(seconds + 2)
            after = process.fresh()
            reports = after["readings"] - before["readings"]
            grown = (after["heap"] - before["heap"]) / 1024
            name, note = "heap growth over a flood of reports", f"{reports} reports"
            yield Row(name, "KiB", value=grown, goal=16, note=note)
        else:
            yield Row("heap growth over a flood of reports", "KiB", skipped="no mallinfo2")
    library, obstacle = _counter(bench)
    names = {2: "allocations per report, 2 Hz", FLOOD: f"allocations per report, {FLOOD} Hz"}
    if library is None:
        for name in names.values():
            yield Row(name, "count", skipped=obstacle)
        return
    preload = {"LD_PRELOAD": str(library)}
    with Simulated(bench.folder) as device, Many(bench, [device.port], preload) as process:
        process.settle()
        for rate, name in names.items():
            per_report = []
            if rate != 2:
                device.inject(f"flood {rate} {3 * seconds}")
                time.sleep(1)
            before = process.fresh()
            for _ in range(2):
                time.sleep(seconds)
                after = process.fresh()
                count = after["allocations"] - before["allocations"]
                per_report.append(round(count / (after["readings"] - before["readings"]), 2))
                before = after
            yield Row(name, "count", per_report, goal=0)


FLOOD = 10_000  # Hz


def _counter(bench: Bench) -> tuple[Path | None, str]:
    """allocations.c, compiled, or why not."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None, "no C compiler"
    library = bench.folder / "allocations.so"
    command = [compiler, "-O2", "-shared", "-fPIC", "-o", str(library), str(ALLOCATIONS)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return None, (done.stderr.strip().splitlines() or ["cc failed"])[0]
    return library, ""


def _shares(pid: int, windows: int, seconds: float) -> tuple[list[float], list[float]]:
    shares = []
    for _ in range(windows):
        before = processes.cpu(pid)
        time.sleep(seconds)
        shares.append(processes.share(before, processes.cpu(pid)))
    return [whole for whole, _ in shares], [thread for _, thread in shares]
