"""What a benchmark found, as a table for people and as JSON for programs."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

WIDTHS = (54, 32, 6, 10)


@dataclass
class Row:
    """One figure. `samples` give the spread, and the value where that is their median."""

    name: str
    unit: str
    samples: Sequence[float] = ()
    value: float | None = None
    goal: float | None = None  # at most
    note: str = ""
    skipped: str = ""
    more_is_better: bool = False
    group: str = ""  # set by the table

    def __post_init__(self) -> None:
        if self.value is None and self.samples:
            self.value = statistics.median(self.samples)

    def met(self) -> str:
        if self.skipped:
            return "skipped: " + self.skipped
        if self.value is None:
            return "no value" + (f": {self.note}" if self.note else "")
        verdict = ""
        if self.goal is not None:
            verdict = "yes" if self.value <= self.goal else "NO"
        return "  ".join(filter(None, [verdict, self.note]))

    def cells(self) -> tuple[str, str, str, str, str]:
        value = ""
        if self.value is not None:
            value = number(self.value)
            if len(self.samples) > 1:
                value += f" [{number(min(self.samples))}..{number(max(self.samples))}]"
        goal = "" if self.goal is None else f"<= {number(self.goal)}"
        return self.name, value, self.unit, goal, self.met()


@dataclass
class Table:
    """Prints rows as they come and keeps them."""

    rows: list[Row] = field(default_factory=list)

    def head(self) -> None:
        _print(("name", "value [min..max]", "unit", "goal", "met?"))
        print("-" * (sum(WIDTHS) + 12), flush=True)

    def add(self, row: Row, group: str) -> None:
        row.group = group
        self.rows.append(row)
        _print(row.cells())

    def write(self, path: Path) -> None:
        """As JSON; what was skipped or has no value is not in it."""
        figures = {
            row.name: {"value": row.value, "unit": row.unit, "goal": row.goal}
            for row in self.rows
            if row.value is not None
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(figures, indent=1) + "\n")


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of all values does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def number(value: float) -> str:
    """Three digits that mean something; a count stays whole."""
    if value == int(value) and abs(value) < 1e6:
        return str(int(value))
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{min(digits, 4)}f}"


def _print(cells: Sequence[str]) -> None:
    padded = [cell.ljust(width) for cell, width in zip(cells, WIDTHS)]
    print(" ".join([*padded, *cells[len(WIDTHS) :]]).rstrip(), flush=True)
