"""Draw docs/images/demo.svg from the log that `make demo` left behind:

.venv/bin/python demo/picture.py target/demo/simulator.log docs/images/demo.svg
"""

from __future__ import annotations

import argparse
import sys
from html import escape
from pathlib import Path

from judge import Log

WIDTH, HEIGHT = 860, 400
LEFT, RIGHT, TOP, BOTTOM = 58, 24, 64, 74  # around the plot
COLDEST, HOTTEST = 20, 50  # C
BEFORE = 0.8  # s shown before the target is set
FONT = "font-family='Helvetica, Arial, sans-serif'"
INK, GRID, READING, TARGET, CUT = "#24292f", "#d8dee4", "#c2410c", "#2563eb", "#64748b"


class Plot:
    def __init__(self, first: float, last: float) -> None:
        self.first = first
        self.last = last
        self.parts: list[str] = []

    def x(self, t: float) -> float:
        share = (t - self.first) / (self.last - self.first)
        return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)

    def y(self, celsius: float) -> float:
        share = (celsius - COLDEST) / (HOTTEST - COLDEST)
        return round(HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM), 1)

    def line(self, points: list[tuple[float, float]], color: str, more: str = "") -> None:
        text = " ".join(f"{x},{y}" for x, y in points)
        self.parts.append(
            f"<polyline points='{text}' fill='none' stroke='{color}' stroke-width='2' {more}/>"
        )

    def text(self, x: float, y: float, text: str, more: str = "") -> None:
        self.parts.append(f"<text x='{x}' y='{y}' {more}>{escape(text)}</text>")

    def box(self, x: float, y: float, width: float, height: float, color: str, more: str) -> None:
        self.parts.append(
            f"<rect x='{x}' y='{y}' width='{width:.1f}' height='{height:.1f}' fill='{color}' "
            f"{more}/>"
        )


def steps(points: list[tuple[float, float]], end: float) -> list[tuple[float, float]]:
    """A value that holds until the next one, as corners of a line."""
    corners = []
    for (x, y), (next_x, _) in zip(points, [*points[1:], (end, 0.0)]):
        corners += [(x, y), (next_x, y)]
    return corners


def draw(log: Log, speed: float) -> str:
    states = list(log.of("state"))
    switchings = log.switchings()
    heat_at = next(t for t, value in switchings if value)
    first, last = heat_at - BEFORE, states[-1]["t"] + 0.5
    states = [state for state in states if state["t"] >= first]
    plot = Plot(first, last)

    for celsius in range(COLDEST, HOTTEST + 1, 5):
        y = plot.y(celsius)
        plot.line([(LEFT, y), (WIDTH - RIGHT, y)], GRID, "stroke-opacity='0.8'")
        plot.text(LEFT - 8, y + 4, f"{celsius} C", "text-anchor='end'")
    for second in range(0, int(last - heat_at) + 1, 5):
        x = plot.x(heat_at + second)
        plot.text(x, HEIGHT - BOTTOM + 38, f"{second} s", "text-anchor='middle'")

    # When the heating element has power: a band below the plot.
    y = HEIGHT - BOTTOM + 8
    powered_at = None
    for t, heater in [*((state["t"], state["heater"]) for state in states), (last, False)]:
        if heater and powered_at is None:
            powered_at = t
        elif not heater and powered_at is not None:
            width = plot.x(t) - plot.x(powered_at)
            plot.box(plot.x(powered_at), y, width, 10, READING, "fill-opacity='0.55'")
            powered_at = None
    plot.text(LEFT - 8, y + 9, "power", "text-anchor='end'")

    cut_at = next((e["t"] for e in log.of("inject") if e["text"] == "drop"), None)
    if cut_at is not None:
        back_at = next(e["t"] for e in log.of("open") if e["t"] > cut_at)
        x, width = plot.x(cut_at), plot.x(back_at) - plot.x(cut_at)
        plot.box(x, TOP, width, HEIGHT - TOP - BOTTOM, CUT, "fill-opacity='0.25'")
        plot.text(x - 6, plot.y(47.5), f"link cut for {(back_at - cut_at) * 1000:.0f} ms",
                  f"text-anchor='end' fill='{CUT}'")  # fmt: skip

    wishes = [(first, 0), *((t, value) for t, value in switchings if t > first)]
    for (t, value), (until, _) in zip(wishes, [*wishes[1:], (last, 0)]):
        if value:
            y = plot.y(value)
            plot.line([(plot.x(t), y), (plot.x(until), y)], TARGET, "stroke-dasharray='7 4'")
            plot.text(plot.x(t) + 6, y - 7, f"target {value} C", f"fill='{TARGET}'")
        elif t > first:
            plot.text(plot.x(t) + 6, plot.y(24), "off", f"fill='{TARGET}'")
            plot.line([(plot.x(t), plot.y(COLDEST)), (plot.x(t), plot.y(HOTTEST))], TARGET,
                      "stroke-dasharray='2 4'")  # fmt: skip

    readings = [(plot.x(state["t"]), plot.y(state["reading"])) for state in states]
    plot.line(steps(readings, plot.x(last)), READING, "stroke-linejoin='round'")
    middle = next(state for state in states if state["reading"] >= 34)
    plot.text(plot.x(middle["t"]) + 8, plot.y(30.5), "reading", f"fill='{READING}'")

    title = f"make demo: Klipper heats a simulated Panda Breath, {speed:g} times as fast as real"
    head = f"<text x='{LEFT}' y='34' font-size='16' font-weight='bold'>{escape(title)}</text>"
    foot = f"x='{LEFT}' y='{HEIGHT - 10}' fill='{CUT}'"
    frames = len([t for t, _ in switchings if t >= first])
    note = f"Drawn from the simulator's log; real seconds. Frames sent to the device: {frames}."
    return "\n".join(
        [
            f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {HEIGHT}' {FONT} "
            f"font-size='13' fill='{INK}'>",
            f"<rect width='{WIDTH}' height='{HEIGHT}' rx='8' fill='#ffffff'/>",
            head,
            *plot.parts,
            f"<text {foot}>{escape(note)}</text>",
            "</svg>\n",
        ]
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("log", type=Path, help="the simulator's log")
    parser.add_argument("picture", type=Path, help="the SVG file to write")
    parser.add_argument("--speed", type=float, default=40.0, help="the simulator's --speed [40]")
    options = parser.parse_args()
    options.picture.parent.mkdir(parents=True, exist_ok=True)
    options.picture.write_text(draw(Log.read(options.log, "stock"), options.speed))
    return 0


if __name__ == "__main__":
    sys.exit(main())
