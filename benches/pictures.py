"""Draw the two figures that matter most: `.venv/bin/python benches/pictures.py [JSON [FOLDER]]`.

From docs/performance.json to docs/images, or of another run: target/bench-samples.json has the same
form. How long Klipper stands still when the device or the network fails, and how long the heater
stays on when Klipper is killed.
"""

from __future__ import annotations

import math
import random
import re
import statistics
import sys
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from results import COMMITTED, ROOT, Results, read

IMAGES = ROOT / "docs" / "images"
WIDTH = 860
LEFT, RIGHT, TOP, BOTTOM = 220, 36, 84, 72  # around the plots
ROW = 24
FONT = "font-family='Helvetica, Arial, sans-serif'"
INK, GRID, MUTED = "#24292f", "#d8dee4", "#64748b"
OURS, COMMUNITY, PLAIN = "#2563eb", "#c2410c", "#15803d"

STOPS = {
    "emergency stop": "Emergency stop: from the request to its answer",
    "RESTART": "RESTART: until klippy is ready again",
}
MORE = re.compile(rf"({'|'.join(STOPS)}), (.+): more than plain(| \(community module\))$")
BASE = re.compile(rf"({'|'.join(STOPS)}), plain$")
SIGNAL = re.compile(r"(SIG\w+) to heater off$")
PHASE = re.compile(r"killed in phase '(.+)' to heater off$")


def is_drawn(name: str) -> bool:
    """Whether a figure's samples are needed here."""
    return any(pattern.match(name) for pattern in (MORE, BASE, SIGNAL, PHASE))


class Picture:
    def __init__(self, height: float, title: str) -> None:
        self.height = height
        self.parts: list[str] = []
        self.text(24, 34, title, "font-size='16' font-weight='bold'")

    def text(self, x: float, y: float, text: str, more: str = "") -> None:
        self.parts.append(f"<text x='{x:.1f}' y='{y:.1f}' {more}>{escape(text)}</text>")

    def line(self, x1: float, y1: float, x2: float, y2: float, color: str, more: str = "") -> None:
        self.parts.append(
            f"<line x1='{x1:.1f}' y1='{y1:.1f}' x2='{x2:.1f}' y2='{y2:.1f}' "
            f"stroke='{color}' {more}/>"
        )

    def dot(self, x: float, y: float, radius: float, color: str, more: str = "") -> None:
        self.parts.append(f"<circle cx='{x:.1f}' cy='{y:.1f}' r='{radius}' fill='{color}' {more}/>")

    def legend(self, entries: Sequence[tuple[str, str]]) -> None:
        x = 24.0
        for label, color in entries:
            self.dot(x + 5, 55, 5, color)
            self.text(x + 16, 59.5, label, f"fill='{color}'")
            x += 40 + 7 * len(label)

    def write(self, path: Path, *notes: str) -> None:
        for n, note in enumerate(reversed(notes)):
            self.text(24, self.height - 14 - 17 * n, note, f"fill='{MUTED}' font-size='12'")
        path.write_text(
            "\n".join(
                [
                    "<svg xmlns='http://www.w3.org/2000/svg' "
                    f"viewBox='0 0 {WIDTH} {self.height:g}' {FONT} font-size='13' fill='{INK}'>",
                    f"<rect width='{WIDTH}' height='{self.height:g}' rx='8' fill='#ffffff'/>",
                    *self.parts,
                    "</svg>\n",
                ]
            )
        )


def draw(found: Results, folder: Path = IMAGES) -> list[str]:
    """Each picture whose figures are there; their names."""
    folder.mkdir(parents=True, exist_ok=True)
    figures = found["figures"]
    place = f"{found['about']['klippy']}, {found['about']['processor']}"
    names = []
    if any(BASE.match(name) for name in figures):
        _draw_stops(figures, folder / "stops.svg", place)
        names.append("stops.svg")
    if any(SIGNAL.match(name) for name in figures):
        _draw_off(figures, folder / "off.svg", place)
        names.append("off.svg")
    return names


# How long Klipper stands still

FIRST, LAST = 1.0, 1e5  # ms


def _log_x(ms: float) -> float:
    share = math.log10(min(max(ms, FIRST), LAST) / FIRST) / math.log10(LAST / FIRST)
    return LEFT + share * (WIDTH - LEFT - RIGHT)


def _words(ms: float) -> str:
    return f"{ms:g} ms" if ms < 1000 else f"{ms / 1000:g} s"


def _draw_stops(figures: dict[str, Any], path: Path, place: str) -> None:
    panels: dict[str, dict[str, dict[str, list[float]]]] = {what: {} for what in STOPS}
    for name, figure in figures.items():
        match = MORE.match(name)
        if match and not figure.get("note", "").startswith("skipped"):
            whose = COMMUNITY if match[3] else OURS
            panels[match[1]].setdefault(match[2], {})[whose] = figure.get("samples", [])
    heights = {what: 58 + ROW * len(rows) for what, rows in panels.items()}
    picture = Picture(TOP + sum(heights.values()) + 52, "How long Klipper stands still")
    legend = [("with this module", OURS), ("without any: plain Klipper", PLAIN)]
    if any(COMMUNITY in row for rows in panels.values() for row in rows.values()):
        legend.insert(1, ("with the community module", COMMUNITY))
    picture.legend(legend)
    top = float(TOP)
    for what, rows in panels.items():
        base = figures.get(f"{what}, plain")
        if base is None or not rows:
            continue
        bottom = top + 26 + ROW * len(rows)
        picture.text(24, top + 14, STOPS[what], "font-weight='bold'")
        for power in range(6):
            x = _log_x(10.0**power)
            picture.line(x, top + 24, x, bottom, GRID)
            picture.text(x, bottom + 16, _words(10.0**power), "text-anchor='middle'")
        plain = base["value"]
        width = max(_log_x(base["max"]) - _log_x(base["min"]), 2.0)
        picture.parts.append(
            f"<rect x='{_log_x(base['min']):.1f}' y='{top + 24:.1f}' width='{width:.1f}' "
            f"height='{bottom - top - 24:.1f}' fill='{PLAIN}' fill-opacity='0.2'/>"
        )
        picture.line(_log_x(plain), top + 24, _log_x(plain), bottom, PLAIN, "stroke-width='1.5'")
        for n, (fault, row) in enumerate(rows.items()):
            y = top + 24 + ROW * (n + 0.5)
            picture.text(LEFT - 12, y + 4.5, fault, "text-anchor='end'")
            for whose, more in sorted(row.items()):
                place_y = y + (4 if whose == COMMUNITY else -4) * (len(row) > 1)
                if not more:
                    where = f"text-anchor='end' fill='{whose}'"
                    picture.text(WIDTH - RIGHT, y + 4.5, "never came to it", where)
                    continue
                taken = [plain + one for one in more]
                ends = _log_x(min(taken)), _log_x(max(taken))
                picture.line(ends[0], place_y, ends[1], place_y, whose, "stroke-width='2'")
                picture.dot(_log_x(statistics.median(taken)), place_y, 4.5, whose)
        top += heights[what]
    note = "Dots are medians, lines go from the smallest to the largest; the scale is logarithmic."
    picture.write(path, note, place)


# How long the heater stays on


def _draw_off(figures: dict[str, Any], path: Path, place: str) -> None:
    parts = {"by signal": SIGNAL, "by phase": PHASE}
    rows: list[tuple[str, list[float]]] = []  # a part's name has no samples
    for part, pattern in parts.items():
        rows.append((part, []))
        for name, figure in figures.items():
            match = pattern.match(name)
            if match and figure.get("samples"):
                rows.append((match[1], figure["samples"]))
    samples = [one for _, some in rows for one in some]
    last = max(1.2, math.ceil(max(samples) * 5) / 5)
    kills = len(samples) // len(parts)
    title = f"Klipper is killed: until the heater is off, {kills} kills"
    top, row_height = 70.0, ROW * 1.15
    bottom = top + row_height * len(rows)
    picture = Picture(bottom + BOTTOM, title)

    def x(seconds: float) -> float:
        return LEFT + seconds / last * (WIDTH - LEFT - RIGHT)

    for tick in range(round(last * 5) + 1):
        picture.line(x(tick / 5), top, x(tick / 5), bottom, GRID)
        picture.text(x(tick / 5), bottom + 18, f"{tick / 5:g} s", "text-anchor='middle'")
    picture.line(x(1.0), top - 8, x(1.0), bottom, MUTED, "stroke-dasharray='5 4'")
    picture.text(x(1.0), top - 13, "goal of the median", f"text-anchor='middle' fill='{MUTED}'")
    dice = random.Random(1)  # the same picture from the same figures
    for n, (label, some) in enumerate(rows):
        y = top + row_height * (n + 0.5)
        if not some:
            picture.text(24, y + 4.5, label, "font-weight='bold'")
            continue
        picture.text(LEFT - 12, y + 4.5, label, "text-anchor='end'")
        for taken in some:
            picture.dot(x(taken), y + dice.uniform(-7, 7), 3, OURS, "fill-opacity='0.45'")
        middle = x(statistics.median(some))
        picture.line(middle, y - 11, middle, y + 11, COMMUNITY, "stroke-width='2.5'")
    note = "A dot is a kill, once by signal and once by phase; bars are medians. "
    picture.write(path, note + "The simulated device switches every 250 ms.", place)


def main() -> None:
    arguments = [Path(argument) for argument in sys.argv[1:]]
    draw(read(arguments[0] if arguments else COMMITTED), *arguments[1:2])


if __name__ == "__main__":
    main()
