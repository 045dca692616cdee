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
DIALECTS = ("stock", "esphome", "stock_mqtt")
OFF_WITHIN = 2.0  # s after Klipper's connection to the broker has ended
ON_WITHIN = 10.0  # s after the device is back at the broker


class Log:
    """What happened at the simulated device."""

    def __init__(self, entries: list[Entry], dialect: str) -> None:
        self.entries = entries
        self.dialect = dialect

    @classmethod
    def read(cls, path: Path, dialect: str) -> Log:
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        # The last one may still be in the writing.
        return cls([json.loads(line) for line in lines if line.endswith("\n")], dialect)

    @property
    def is_mqtt(self) -> bool:
        return self.dialect != "stock"

    def of(self, event: str) -> Iterator[Entry]:
        return (entry for entry in self.entries if entry["event"] == event)

    def switchings(self) -> list[tuple[float, float]]:
        """When a client turned the device on or off: the target, 0 for off."""
        if self.dialect == "esphome":
            return self._node_switchings()
        if self.dialect == "stock_mqtt":
            return self._published_switchings()
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

    def _published_switchings(self) -> list[tuple[float, float]]:
        found = []
        for entry in self.of("frame"):
            topic, _, payload = entry["text"].partition(" ")
            try:
                command = json.loads(payload)
                on, target = command.get("work_on"), command.get("target_temp", -1)
            except (ValueError, AttributeError):
                continue
            if topic.endswith("/command") and on in ("ON", "OFF"):
                found.append((entry["t"], target if on == "ON" else 0))
        return found

    def _node_switchings(self) -> list[tuple[float, float]]:
        """Mode and target have a topic each."""
        found = []
        target = -1.0
        is_on = False
        for entry in self.of("frame"):
            topic, _, payload = entry["text"].partition(" ")
            if topic.endswith("/target_temperature/command"):
                target = float(payload)
            elif topic.endswith("/mode/command"):
                is_on = payload == "heat"
            else:
                continue
            if is_on or topic.endswith("/mode/command"):
                found.append((entry["t"], target if is_on else 0))
        return found

    def states_told(self) -> Iterator[Entry]:
        """What the device was doing while there was somebody to tell it to."""
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
                yield entry

    def off_problem(self) -> str | None:
        """Why the device is not known to be off; None when it is."""
        states = list(self.of("state"))
        if not states or states[-1]["work_on"] != 0 or states[-1]["heater"]:
            return "it was still on at the end"
        switchings = self.switchings()
        if not switchings or switchings[-1][1] != 0:
            return "it turned itself off, no frame did"
        # Offs may follow it: when klippy has ended, its last will.
        heats = [t for t, value in switchings if value]
        off_at = next(t for t, value in switchings if not heats or t > heats[-1])
        if self.is_mqtt:
            # It publishes what it does, if it can.
            told = [e for e in self.states_told() if e["t"] >= off_at and not e["heater"]]
            return None if any(not e["work_on"] for e in told) else "it could not say so"
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
        self.without_broker = 0.0
        self.resynchronised_in = (
            self._obeyed_again_in() if log.is_mqtt else self._resynchronised_in()
        )
        problem = log.off_problem()
        if problem is not None:
            self.missing.append(f"off is not confirmed ({problem})")

    def _reached_in(self) -> float | None:
        if self.heat_at is None:
            self.missing.append(f"no frame asked the device for {self.target} C")
            return None
        highest = None
        for entry in self.log.states_told():
            t, reading = entry["t"], entry["reading"]
            if t < self.heat_at or reading is None:
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

    def _obeyed_again_in(self) -> float | None:
        """Over MQTT: Klipper's connection ends, its last will turns off, Klipper turns on again."""
        if self.heat_at is None:
            self.missing.append("the link was cut before the device heated")
            return None
        cut_at = next((e["t"] for e in self.log.of("close") if e["t"] > self.heat_at), None)
        if cut_at is None:
            self.missing.append("the link was never cut")
            return None
        opened_at = next((e["t"] for e in self.log.of("open") if e["t"] > cut_at), None)
        if opened_at is None:
            self.missing.append("the device did not come back to the broker")
            return None
        self.without_broker = opened_at - cut_at
        states = list(self.log.of("state"))
        # The will leaves right before the broker closes the connections.
        near = [t for t, value in self.log.switchings() if not value and abs(t - cut_at) < 1.0]
        off_at = next(
            (
                e["t"]
                for e in states
                if near and near[0] <= e["t"] < opened_at and not e["work_on"] and not e["heater"]
            ),
            None,
        )
        if off_at is None or off_at - cut_at > OFF_WITHIN:
            self.missing.append("the heater stayed on although Klipper's connection had ended")
            return None
        told = [t for t, value in self.log.switchings() if t > opened_at and value == self.target]
        for entry in states:
            if told and entry["t"] >= told[0] and entry["heater"] and entry["work_on"]:
                if entry["set_temp"] != self.target or entry["t"] - opened_at > ON_WITHIN:
                    break
                return float(entry["t"] - cut_at)
        self.missing.append(f"it was not heating again {ON_WITHIN:g} s after the cut had ended")
        return None

    def describe(self) -> None:
        print(f"Frames that the device was sent: {self.frames}")
        if self.reached_in is not None:
            simulated = self.reached_in * self.speed
            print(
                f"Heated for {self.reached_in:.1f} s, which are {simulated:.0f} s in the simulated"
                " chamber"
            )
        if self.without_broker and self.resynchronised_in is not None:
            print(
                f"Cut to heating again: {self.resynchronised_in * 1000:.0f} ms, of which the device"
                f" was without a broker for {self.without_broker * 1000:.0f} ms; off meanwhile"
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
    parser.add_argument("--dialect", choices=DIALECTS, default="stock", help="its --dialect")
    options = parser.parse_args()
    verdict = Verdict(Log.read(options.log, options.dialect), options.target, options.speed)
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
