"""Make the last run the project's committed figures: `make bench-commit`, which measures nothing.

From target/bench-samples.json to docs/performance.json, the table in docs/performance.md and the
pictures beside it. A run of some groups replaces theirs; the others stay as they are.
"""

from __future__ import annotations

import re
import sys
from typing import Any

import pictures
import results
from results import COMMITTED, LAST, MACHINE, ROOT, Results
from table import number

DOCUMENT = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- written by benches/commit.py -->", "<!-- end of it -->"
WORDS = {
    "processor": "processor",
    "cores": "cores",
    "kernel": "kernel",
    "klippy": "klippy",
    "python": "its Python",
    "panda_breath": "commit of this repository",
    "date": "date",
    "load": "load when it began",
}


class NotCommittedError(Exception):
    """These figures are not for the project's documents."""


def commit() -> None:
    last = results.read(LAST)
    if last["about"]["quick"]:
        raise NotCommittedError("the last run was a quick one")
    nothing: Results = {"about": {}, "groups": [], "figures": {}}
    merged = merge(last, results.read(COMMITTED) if COMMITTED.exists() else nothing)
    for name, figure in merged["figures"].items():
        if not pictures.is_drawn(name):
            figure.pop("samples", None)
    results.write(COMMITTED, merged)
    document = DOCUMENT.read_text()
    before, _, rest = document.partition(BEGIN)
    _, _, after = rest.partition(END)
    for name in pictures.draw(merged):
        # Only now: a link to a picture that is not there yet would be a broken one.
        before = re.sub(rf"<!-- {name}: (.+?) -->", rf"![\1](images/{name})", before)
    DOCUMENT.write_text(f"{before}{BEGIN}\n\n{describe(merged)}\n{END}{after}")
    print(f"written: {COMMITTED.name}, {DOCUMENT.name} and its pictures, in docs")


def merge(last: Results, committed: Results) -> Results:
    """The last run in the place of the same groups of the committed one."""
    measured = last["groups"]  # without those that failed
    found = {
        **{n: row for n, row in committed["figures"].items() if row["group"] not in measured},
        **{n: row for n, row in last["figures"].items() if row["group"] in measured},
    }
    groups = [*committed["groups"], *(g for g in measured if g not in committed["groups"])]
    about = dict(last["about"])
    if set(groups) != set(measured):
        for what in MACHINE:
            if about[what] != committed["about"][what]:
                raise NotCommittedError(
                    f"{what} is another than that of the committed figures; run all groups"
                )
        about["load"] = max(about["load"], committed["about"]["load"])
    else:
        groups = measured  # in their order of now
    figures = dict(sorted(found.items(), key=lambda item: groups.index(item[1]["group"])))
    return {"about": about, "groups": groups, "figures": figures}


def describe(found: Results) -> str:
    """The machine and the table, for the document."""
    about = found["about"]
    lines = ["| | |", "|---|---|"]
    lines += [f"| {word} | {about[what]} |" for what, word in WORDS.items()]
    group = ""
    for name, figure in found["figures"].items():
        if figure["group"] != group:
            group = figure["group"]
            lines += ["", f"### {group}", "", "| what | value | smallest to largest | goal | |"]
            lines += ["|---|---|---|---|---|"]
        lines.append("| " + " | ".join(_cells(name, figure)) + " |")
    return "\n".join([*lines, ""])


def _cells(name: str, figure: dict[str, Any]) -> list[str]:
    value, unit = figure["value"], figure["unit"]
    note = figure.get("note", "").replace("|", "/")
    if value is None:
        return [name, "", "", "", note]
    spread = ""
    if "min" in figure and figure["min"] != figure["max"]:
        spread = f"{number(figure['min'])} to {number(figure['max'])}"
    goal = verdict = ""
    if "goal" in figure:
        goal = f"at most {number(figure['goal'])}"
        verdict = "met" if value <= figure["goal"] else "**missed**"
    unit = "" if unit in ("count", "ratio") else " " + unit
    return [name, number(value) + unit, spread, goal, "; ".join(filter(None, [verdict, note]))]


if __name__ == "__main__":
    try:
        commit()
    except (NotCommittedError, OSError) as error:
        sys.exit(f"not committed: {error}")
