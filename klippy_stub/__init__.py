"""The part of Klipper's host software that a heater plugin touches, without Klipper.

Written from Klipper's documented and observed behaviour (mainline, August 2026), standard library
only. Each module names the file of Klipper whose facts it keeps. Two uses:

* ``python3 -m klippy_stub printer.cfg``: a printer in real time, G-code on stdin;
* `Host`: a printer in a test, by default with a clock that only moves when told to.

``tests/test_stub_matches.py`` compares names and signatures with a real checkout.
"""

from __future__ import annotations

from .clock import ManualClock, RealClock
from .host import Host, ScriptRun
from .printer import Printer
from .reactor import Reactor
from .waiting import ReactorError

__all__ = ["Host", "ManualClock", "Printer", "RealClock", "Reactor", "ReactorError", "ScriptRun"]
