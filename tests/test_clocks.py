"""No rule depends on the time of day, which jumps when a computer without a clock learns it."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RUST = re.compile(r"SystemTime::now|UNIX_EPOCH|ClockId::Realtime\b|\bUtc::now|\bLocal::now")
PYTHON = re.compile(r"\btime\.time\(|^\s*(?:import|from) (?:time|datetime)\b", re.MULTILINE)


def test_r5_nothing_asks_for_the_time_of_day() -> None:
    sources = [
        path
        for folder in ("session", "dialect", "driver")
        for path in (ROOT / "src" / folder).rglob("*.rs")
    ]
    assert len(sources) > 40
    # The guard's log is for people, and nothing reads it.
    log = ROOT / "src" / "driver" / "guard" / "record.rs"
    assert log in sources
    found = [str(path) for path in sources if path != log and RUST.search(path.read_text())]
    found += ["python"] * bool(PYTHON.search((ROOT / "python" / "panda_breath.py").read_text()))
    assert found == []


def test_r5_the_time_of_day_would_be_found() -> None:
    assert RUST.search("let now = std::time::SystemTime::now();")
    assert PYTHON.search("import os\nimport time\n")
    assert PYTHON.search("x = time.time()")
