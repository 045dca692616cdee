"""Draw docs/images/chamber-sensor.svg: how the boost brings a chamber to its target.

.venv/bin/python demo/chamber_picture.py docs/images/chamber-sensor.svg

The numbers come from the session and the simulated device on a virtual clock: a test of the Rust
half writes them. The same code draws the same picture.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TEST = "session::tests::boost::boost_history_for_the_picture"
WIDTH, HEIGHT = 860, 450
LEFT, RIGHT, TOP, BOTTOM = 58, 36, 64, 102  # around the plot
COLDEST, HOTTEST = 20.0, 70.0  # C
NEAR = 1.0  # C; this near counts as settled
FONT = "font-family='Helvetica, Arial, sans-serif'"
INK, GRID, DOOR = "#24292f", "#d8dee4", "#64748b"
CAVITY, AIR, TOLD, WISH, WITHOUT = "#c2410c", "#f5b895", "#7c3aed", "#2563eb", "#94a3b8"
DOOR_OPEN, DOOR_CLOSED, SECOND_WISH = 90 * 60, 93 * 60, 140 * 60  # as in the test, s

Row = dict[str, float]


def history() -> list[Row]:
    """Run the test that writes it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "history.csv"
        command = ["cargo", "test", "--quiet", "--locked", "--lib", "--", "--ignored", TEST]
        environment = {**os.environ, "BOOST_HISTORY": str(path)}
        subprocess.run(command, check=True, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
        with path.open(newline="") as file:
            return [{name: float(value) for name, value in row.items()}
                    for row in csv.DictReader(file)]  # fmt: skip


def settled(rows: list[Row], start: int, end: int) -> tuple[float, float]:
    """Minutes until the chamber is there for good, and by how much it went beyond at most."""
    part = [row for row in rows if start < row["second"] <= end]
    far = [row["second"] for row in part if abs(row["cavity"] - row["wish"]) > NEAR]
    return (far[-1] - start) / 60, max(row["cavity"] - row["wish"] for row in part)


class Plot:
    def __init__(self, last: float) -> None:
        self.last = last
        self.parts: list[str] = []

    def x(self, second: float) -> float:
        return round(LEFT + second / self.last * (WIDTH - LEFT - RIGHT), 1)

    def y(self, celsius: float) -> float:
        share = (celsius - COLDEST) / (HOTTEST - COLDEST)
        return round(HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM), 1)

    def line(self, points: list[tuple[float, float]], color: str, more: str = "") -> None:
        text = " ".join(f"{self.x(t)},{self.y(celsius)}" for t, celsius in points)
        self.parts.append(f"<polyline points='{text}' fill='none' stroke='{color}' {more}/>")

    def curve(self, rows: list[Row], name: str, color: str, more: str) -> None:
        self.line([(row["second"], row[name]) for row in rows[::3]], color, more)

    def text(self, x: float, y: float, text: str, more: str = "") -> None:
        self.parts.append(f"<text x='{x}' y='{y}' {more}>{escape(text)}</text>")


def stairs(rows: list[Row], name: str) -> list[tuple[float, float]]:
    """Corners only."""
    corners = [(0.0, rows[0][name])]
    for row in rows:
        if row[name] != corners[-1][1]:
            corners += [(row["second"], corners[-1][1]), (row["second"], row[name])]
    return [*corners, (rows[-1]["second"], rows[-1][name])]


def draw(rows: list[Row]) -> str:
    last = rows[-1]["second"]
    plot = Plot(last)
    for celsius in range(int(COLDEST), int(HOTTEST) + 1, 10):
        plot.line([(0, celsius), (last, celsius)], GRID)
        plot.text(LEFT - 8, plot.y(celsius) + 4, f"{celsius} C", "text-anchor='end'")
    for minute in range(0, int(last / 60) + 1, 20):
        x = plot.x(minute * 60)
        plot.text(x, HEIGHT - BOTTOM + 20, f"{minute} min", "text-anchor='middle'")

    x, width = plot.x(DOOR_OPEN), plot.x(DOOR_CLOSED) - plot.x(DOOR_OPEN)
    plot.parts.append(
        f"<rect x='{x}' y='{TOP}' width='{width:.1f}' height='{HEIGHT - TOP - BOTTOM}' "
        f"fill='{DOOR}' fill-opacity='0.3'/>"
    )
    plot.text(x + width / 2, TOP + 14, "door open for 3 min", f"text-anchor='middle' fill='{DOOR}'")

    plot.curve(rows, "reading", AIR, "stroke-width='1'")
    plot.curve(rows, "cavity_without", WITHOUT, "stroke-width='2' stroke-dasharray='2 3'")
    plot.line(stairs(rows, "wish"), WISH, "stroke-width='2' stroke-dasharray='7 4'")
    plot.line(stairs(rows, "device_target"), TOLD, "stroke-width='1.5'")
    plot.curve(rows, "cavity", CAVITY, "stroke-width='2.5' stroke-linejoin='round'")

    key = [
        ("the chamber's sensor", CAVITY, ""),
        ("its target", WISH, "stroke-dasharray='7 4'"),
        ("the device's own sensor", AIR, ""),
        ("the device's target", TOLD, ""),
        ("the chamber without boost", WITHOUT, "stroke-dasharray='2 3'"),
    ]
    x = float(LEFT)
    y = HEIGHT - BOTTOM + 44
    for name, color, more in key:
        plot.parts.append(
            f"<line x1='{x}' y1='{y - 4}' x2='{x + 20}' y2='{y - 4}' stroke='{color}' "
            f"stroke-width='2.5' {more}/>"
        )
        plot.text(x + 24, y, name, "font-size='11'")
        x += 38 + 5.7 * len(name)

    parts = [(0, DOOR_OPEN), (DOOR_CLOSED, SECOND_WISH), (SECOND_WISH, int(last))]
    times = [settled(rows, start, end) for start, end in parts]
    changes = sum(a["device_target"] != b["device_target"] for a, b in zip(rows, rows[1:]))
    notes = [
        "Within 1 C for good after {:.0f} min; after the door {:.0f} min; after the second target "
        "{:.0f} min.".format(*(minutes for minutes, _ in times))
        + f" Highest overshoot: {max(0.0, *(over for _, over in times)):.1f} C.",
        f"The device was told {1 + changes} targets in {last / 60:.0f} min. "
        "Simulated: 22 C around, 300 W, a chamber that lags by about 5 min.",
    ]
    title = "chamber_sensor: the device's target is raised until the chamber is where it should be"
    return "\n".join(
        [
            f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {HEIGHT}' {FONT} "
            f"font-size='13' fill='{INK}'>",
            f"<rect width='{WIDTH}' height='{HEIGHT}' rx='8' fill='#ffffff'/>",
            f"<text x='{LEFT}' y='34' font-size='16' font-weight='bold'>{escape(title)}</text>",
            *plot.parts,
            *(
                f"<text x='{LEFT}' y='{HEIGHT - 28 + 18 * row}' fill='{DOOR}'>{escape(note)}</text>"
                for row, note in enumerate(notes)
            ),
            "</svg>\n",
        ]
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("picture", type=Path, help="the SVG file to write")
    options = parser.parse_args()
    options.picture.parent.mkdir(parents=True, exist_ok=True)
    options.picture.write_text(draw(history()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
