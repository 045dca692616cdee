"""Say from the simulator's log alone whether the demo did what it should.

The last line is the verdict, and the exit code is 0 only if it says ok. Times are real seconds
unless they are called simulated.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Entry = dict[str, Any]


class Log:
    """What happened at the simulated device."""

    def __init__(self, entries: list[Entry]) -> None:
        self.entries = entries

    @classmethod
    def read(cls, path: Path) -> Log:
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        # The last one may still be in the writing.
        return cls([json.loads(line) for line in lines if line.endswith("\n")])

    def of(self, event: str) -> Iterator[Entry]:
        return (entry for entry in self.entries if entry["event"] == event)

    def switchings(self) -> list[tuple[float, int]]:
        """When a client turned the device on or off: the target, 0 for off."""
        found = []
        for entry in self.of("frame"):
            try:
                settings = json.loads(entry["text"])["settings"]
            except (ValueError, KeyError, TypeError):
                continue
            # The firmware takes nothing but a JSON boolean.
            if settings.get("work_on") is True:
                found.append((entry["t"], settings.get("set_temp", -1)))
            elif settings.get("work_on") is False:
                found.append((entry["t"], 0))
        return found

    def readings_told(self) -> Iterator[tuple[float, int]]:
        """The readings while there was a client to tell them to."""
        clients: set[int] = set()
        hung: set[int] = set()
        all_hung = False
        mute_until = 0.0
        for entry in self.entries:
            event, now = entry["event"], entry["t"]
            if event == "open":
                clients.add(entry["client"])
            elif event == "close":
                clients.discard(entry["client"])
            elif event == "inject":
                word, _, argument = entry["text"].partition(" ")
                if word == "mute":
                    mute_until = now + float(argument)
                elif word == "hang":
                    hung, all_hung = set(clients), argument == "all"
                elif word == "resume":
                    hung, all_hung = set(), False
            elif event == "state" and clients - hung and not all_hung and now >= mute_until:
                yield now, entry["reading"]

    def off_problem(self) -> str | None:
        """Why the device is not known to be off; None when it is."""
        states = list(self.of("state"))
        if not states or states[-1]["work_on"] != 0 or states[-1]["heater"]:
            return "it was still on at the end"
        switchings = self.switchings()
        if not switchings or switchings[-1][1] != 0:
            return "it turned itself off, no frame did"
        off_at = switchings[-1][0]
        if not any(entry["t"] > off_at for entry in self.of("open")):
            return "no fresh connection asked it afterwards"
        return None

    def off_is_confirmed(self) -> bool:
        return self.off_problem() is None


class Verdict:
    def __init__(self, log: Log, target: int, speed: float) -> None:
        self.log = log
        self.target = target
        self.speed = speed
        self.missing: list[str] = []
        switchings = log.switchings()
        self.heat_at = next((t for t, value in switchings if value == target), None)
        self.frames = len(list(log.of("frame")))
        self.reached_in = self._reached_in()
        self.resynchronised_in = self._resynchronised_in()
        problem = log.off_problem()
        if problem is not None:
            self.missing.append(f"off is not confirmed ({problem})")

    def _reached_in(self) -> float | None:
        if self.heat_at is None:
            self.missing.append(f"no frame asked the device for {self.target} C")
            return None
        highest = None
        for t, reading in self.log.readings_told():
            if t < self.heat_at:
                continue
            if reading >= self.target:
                return float(t - self.heat_at)
            highest = max(reading, highest or reading)
        told = "no reading" if highest is None else f"{highest} C at the most"
        self.missing.append(f"{self.target:.1f} C was not reached (a client was told {told})")
        return None

    def _resynchronised_in(self) -> float | None:
        cut_at = next((e["t"] for e in self.log.of("inject") if e["text"] == "drop"), None)
        if cut_at is None:
            self.missing.append("the link was never cut")
            return None
        if not any(entry["t"] >= cut_at for entry in self.log.of("close")):
            self.missing.append("the cut ended no connection")
            return None
        opened_at = next((e["t"] for e in self.log.of("open") if e["t"] > cut_at), None)
        if opened_at is None:
            self.missing.append("the link did not come back after the cut")
            return None
        # In step again: on with this target, be it that it stayed so or that it was told to.
        for entry in self.log.of("state"):
            if entry["t"] > opened_at and entry["work_on"] and entry["set_temp"] == self.target:
                told = [t for t, value in self.log.switchings() if opened_at < t <= entry["t"]]
                return float(max([opened_at, *told]) - cut_at)
        self.missing.append("the device did not have its target after the cut")
        return None

    def describe(self) -> None:
        print(f"Frames that the device was sent: {self.frames}")
        if self.reached_in is not None:
            simulated = self.reached_in * self.speed
            print(
                f"Heated for {self.reached_in:.1f} s, which are {simulated:.0f} s in the simulated"
                " chamber"
            )
        refused = [e["text"] for e in self.log.of("inject") if e["text"].startswith("refuse ")]
        if refused and self.resynchronised_in is not None:
            print(
                f"Cut to back in step: {self.resynchronised_in * 1000:.0f} ms, of which the device"
                f" refused connections for {float(refused[0].split()[1]) * 1000:.0f} ms"
            )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("log", type=Path, help="the simulator's log")
    parser.add_argument("--target", type=int, default=45, help="C [45]")
    parser.add_argument("--speed", type=float, default=1.0, help="the simulator's --speed [1]")
    options = parser.parse_args()
    verdict = Verdict(Log.read(options.log), options.target, options.speed)
    verdict.describe()
    if verdict.reached_in is None or verdict.resynchronised_in is None or verdict.missing:
        print(f"demo: failed, {'; '.join(verdict.missing)}")
        return 1
    print(
        f"demo: ok reached {options.target:.1f} C in {verdict.reached_in:.1f} s, resynchronised in"
        f" {verdict.resynchronised_in * 1000:.0f} ms, off confirmed"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
