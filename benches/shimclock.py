"""Klipper extra [shimclock]: what each call of the panda_breath module costs the reactor's thread.

Only for measuring; it is never installed with the product. It wraps every entry point of
[panda_breath], which must come before it in the configuration, and between klippy:ready and
klippy:disconnect it calls them itself, much more often than Klipper does. At klippy:disconnect one
JSON line goes to `file`: by entry point, a list of [voluntary context switches, CPU seconds,
seconds, CPU seconds of these in respond_info]. `respond_info` in it is Klipper's own, as far as the
module called it.
"""

from __future__ import annotations

import contextlib
import json
import resource
import time
from typing import Any, Callable

OWN = ("_look", "get_status")
HEATERS = ("set_temp", "get_status")  # which the module puts in place of the heater's own
PERIODIC = (*OWN, *("heater." + name for name in HEATERS))
EVENTS = ("connect", "ready", "shutdown", "disconnect")
TARGETS = (45.0, 0.0, 50.0, 47.0)
CHANGE_EVERY = 4  # calls


class ShimClock:
    def __init__(self, config: Any) -> None:
        self.printer = config.get_printer()
        self.reactor = self.printer.get_reactor()
        self.shim = self.printer.lookup_object("panda_breath")
        self.period = config.getfloat("period", 0.005, minval=0.0)  # 0: only count readings
        self.file = config.get("file", None)
        self.samples: dict[str, list[tuple[int, float, float, float]]] = {}
        self.calls = 0
        self.depth = 0  # of our calls within each other
        self.console = 0.0  # CPU seconds in respond_info so far
        self.connect = 0.0  # when klippy:connect was handled, on the simulator's clock
        for name in OWN:
            # Klippy asks the object for these at klippy:connect or later.
            setattr(self.shim, name, self.timed(name, getattr(self.shim, name)))
        for event in EVENTS:
            self.wrap_handler(event)
        self.wrap_console()
        self.printer.register_event_handler("klippy:ready", self.handle_ready)
        self.printer.register_event_handler("klippy:disconnect", self.handle_disconnect)

    def wrap_handler(self, event: str) -> None:
        handlers = self.printer.event_handlers["klippy:" + event]
        name = "_handle_" + event
        handler = getattr(self.shim, name)
        handlers[handlers.index(handler)] = self.timed(name, handler)
        if event == "connect":
            handlers.insert(0, self.note_connect)
            handlers.append(self.wrap_heater)

    def note_connect(self) -> None:
        self.connect = time.monotonic()

    def wrap_heater(self) -> None:
        heater = self.shim.heater
        for name in HEATERS:
            setattr(heater, name, self.timed("heater." + name, getattr(heater, name)))

    def wrap_console(self) -> None:
        gcode = self.printer.lookup_object("gcode")
        inner = gcode.respond_info
        timed = self.timed("respond_info", inner)
        gcode.respond_info = lambda *args, **kw: (timed if self.depth else inner)(*args, **kw)

    def timed(self, name: str, inner: Callable[..., Any]) -> Callable[..., Any]:
        samples = self.samples.setdefault(name, [])

        def call(*args: Any, **kw: Any) -> Any:
            self.depth += 1
            console = self.console
            switches = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
            wall = time.perf_counter()
            cpu = time.thread_time()
            try:
                return inner(*args, **kw)
            finally:
                cpu = time.thread_time() - cpu
                wall = time.perf_counter() - wall
                switches = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw - switches
                if name == "respond_info":
                    self.console += cpu
                samples.append((switches, cpu, wall, self.console - console))
                self.depth -= 1

        return call

    def handle_ready(self) -> None:
        if self.period:
            self.reactor.register_timer(self.tick, self.reactor.monotonic() + self.period)

    def tick(self, eventtime: float) -> float:
        self.calls += 1
        self.shim._look(eventtime)
        self.shim.get_status(eventtime)
        self.shim.heater.get_status(eventtime)
        if self.calls % CHANGE_EVERY == 0:
            target = TARGETS[self.calls // CHANGE_EVERY % len(TARGETS)]
            # An unreachable device refuses targets; that is a call, too.
            with contextlib.suppress(self.printer.command_error):
                self.shim.heater.set_temp(target)
        due: float = self.reactor.monotonic() + self.period
        return due

    def handle_disconnect(self) -> None:
        if self.file is not None:
            with open(self.file, "a") as file:
                file.write(json.dumps(self.samples) + "\n")

    def get_status(self, eventtime: float) -> dict[str, Any]:
        state = self.shim.state
        return {
            "readings": 0 if state is None else state.reading_number,
            "calls": self.calls,
            "connect": self.connect,
        }


def load_config(config: Any) -> ShimClock:
    return ShimClock(config)
