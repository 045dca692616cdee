"""What the stub offers exists in klippy under the same name with the same parameters.

Needs ``KLIPPER_DIR``, a checkout of Klipper or Kalico. The sources are parsed, not imported,
because klippy's modules build a C library when imported.
"""

from __future__ import annotations

import ast
import os
from dataclasses import dataclass
from pathlib import Path

import pytest

STUB = Path(__file__).resolve().parent.parent / "klippy_stub"
KLIPPER_DIR = os.environ.get("KLIPPER_DIR", "")

pytestmark = pytest.mark.skipif(
    not KLIPPER_DIR, reason="KLIPPER_DIR does not name a checkout of Klipper"
)

# The stub's file -> klippy's, where the names differ; None: nothing in klippy to compare with
ELSEWHERE: dict[str, str | None] = {
    "printer.py": "klippy.py",
    "configwrapper.py": "configfile.py",
    "configreader.py": "configfile.py",
    "autosave.py": "configfile.py",
    "gcode_command.py": "gcode.py",
    "gcode_io.py": "gcode.py",
    "api_socket.py": "webhooks.py",
    "query_status.py": "webhooks.py",
    "waiting.py": "reactor.py",
    "extras/heater.py": "extras/heaters.py",
    "extras/heater_control.py": "extras/heaters.py",
    "__init__.py": None,
    "__main__.py": None,
    "clock.py": None,
    "extras/__init__.py": None,
    "extras/stub_thermal.py": None,
    "host.py": None,
    "loader.py": None,
    "strands.py": None,
}

# Classes under another name in klippy
RENAMED = {"Reactor": "SelectReactor"}

# Public names that klippy does not have, and why the stub needs them
OURS = {
    "Reactor.__init__": "takes the clock",
    "Reactor.current_strand": "greenlet.getcurrent() in klippy",
    "Reactor.advance": "turns the clock in a test",
    "Reactor.run_until": "turns the clock in a test",
    "Reactor.came_from_inside": "tells a callback's exception from the runner's",
    "Reactor.call_without_pausing": "a test's status query",
    "Printer.guarded_run": "klippy's run(), in parts so that a test can turn the clock",
    "Printer.finish": "klippy's run(), in parts so that a test can turn the clock",
    "MCU_digital_out.value_at": "the simulated bed looks at its pin",
    "MCU_pwm.value_at": "the simulated bed looks at its pin",
    "json_dumps": "klippy takes msgspec's or json's, whichever is installed",
    "GCodeMove.cmd_mode": "one handler for the commands that only switch a mode",
}

# The same in Kalico (August 2026) is different on purpose; a plugin has to cope with both
KALICO = {
    "Printer.invoke_shutdown": "takes no details",
    "Printer.invoke_async_shutdown": "takes no details",
    "Printer.update_error_msg": "mainline only",
    "Reactor.assert_no_pause": "mainline only",
    "Reactor.verify_can_pause": "mainline only",
    "ReactorError": "mainline only",
    "ReactorPreventPause": "mainline only",
    "Coord": "a namedtuple, not a class",
    "MCU_adc.setup_adc_callback": "takes the report time as well",
    "PrinterConfig.check_unused_options": "can be told not to raise",
    "PrinterConfig.deprecate_gcode": "mainline only",
    "ConfigAutoSave": "part of PrinterConfig",
    "ConfigValidate": "part of PrinterConfig",
    "ConfigFileReader": "part of PrinterConfig",
    "GetStatusWrapper": "another name",
    "TemplateWrapper": "another name",
    "ControlAutoTune": "reworked",
    "ToolHeadCommandHelper": "part of ToolHead",
    "ControlBangBang.__init__": "takes (profile, heater, load_clean)",
    "ControlPID.__init__": "takes (profile, heater, load_clean)",
    "Heater.set_control": "can keep the target",
}

# Files that only mainline has
KALICO_LACKS = {"extras/error_mcu.py"}


@dataclass(frozen=True)
class Signature:
    """Names of parameters, and which of them may be left out."""

    names: tuple[str, ...]
    defaults: int
    star: bool

    @classmethod
    def of(cls, node: ast.FunctionDef) -> Signature:
        args = node.args
        names = tuple(a.arg for a in (*args.posonlyargs, *args.args))
        star = args.vararg is not None or args.kwarg is not None
        return cls(names, len(args.defaults), star)


Table = dict[str, "Signature | None"]


def table_of(path: Path) -> Table:
    """Return the public names of a file: functions with signatures, classes, attributes."""
    found: Table = {}
    classes: dict[str, ast.ClassDef] = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef):
            found[node.name] = Signature.of(node)
        elif isinstance(node, ast.ClassDef):
            classes[node.name] = node
            bases = [b.id for b in node.bases if isinstance(b, ast.Name) and b.id in classes]
            for base in [*bases, None]:
                for name, what in members(classes[base] if base else node).items():
                    found[f"{node.name}.{name}"] = what
            found[node.name] = None
    return found


def members(node: ast.ClassDef) -> Table:
    found: Table = {}
    for item in node.body:
        if isinstance(item, ast.FunctionDef):
            found[item.name] = Signature.of(item)
            for inner in ast.walk(item):
                if isinstance(inner, ast.Assign):
                    for target in inner.targets:
                        for name in attributes(target):
                            found.setdefault(name, None)
        elif isinstance(item, ast.Assign):
            for target in item.targets:
                if isinstance(target, ast.Name):
                    found[target.id] = None
        elif isinstance(item, ast.ClassDef):
            found[item.name] = None
    return found


def attributes(target: ast.expr) -> list[str]:
    if isinstance(target, ast.Tuple):
        return [name for element in target.elts for name in attributes(element)]
    if isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name):
        return [target.attr] if target.value.id == "self" else []
    return []


def stub_functions() -> list[tuple[str, str, Signature | None]]:
    """Return klippy's file, name and signature of everything public in the stub."""
    rows = []
    for path in sorted([*STUB.glob("*.py"), *STUB.glob("extras/*.py")]):
        own = path.relative_to(STUB).as_posix()
        theirs = ELSEWHERE.get(own, own)
        if theirs is None:
            continue
        for name, what in table_of(path).items():
            last = name.split(".")[-1]
            is_public = name[0] != "_" and (last[0] != "_" or last == "__init__")
            if is_public and (what is not None or "." not in name):
                rows.append((theirs, name, what))
    return rows


def klippy_file(name: str) -> Path:
    path = Path(KLIPPER_DIR) / "klippy" / name
    if name == "klippy.py" and is_kalico():
        path = path.with_name("printer.py")
    return path


def is_kalico() -> bool:
    return (Path(KLIPPER_DIR) / "klippy" / "printer.py").exists()


def problem(theirs: Table, name: str, what: Signature | None) -> str | None:
    first, dot, rest = name.partition(".")
    real_name = RENAMED.get(first, first) + dot + rest
    if real_name not in theirs:
        return "is not there"
    real = theirs[real_name]
    if what is None or real is None or what.star or real.star:
        return None
    if what.names != real.names:
        return f"takes {real.names}, the stub {what.names}"
    if what.defaults != real.defaults:
        return f"has {real.defaults} optional parameters, the stub {what.defaults}"
    return None


def test_every_allowance_is_needed() -> None:
    names = {name for _, name, _ in stub_functions()}
    assert {n for n in OURS if n not in names} == set()
    assert {n for n in KALICO if n not in names} == set()


def test_names_and_parameters_are_those_of_klippy() -> None:
    allowed = {**OURS, **(KALICO if is_kalico() else {})}
    tables: dict[str, Table] = {}
    problems = []
    compared = 0
    for file, name, what in stub_functions():
        if name in allowed or name.partition(".")[0] in allowed:
            continue
        if is_kalico() and file in KALICO_LACKS:
            continue
        path = klippy_file(file)
        if not path.exists():
            problems.append(f"{file}: no such file")
            continue
        found = problem(tables.setdefault(file, table_of(path)), name, what)
        compared += 1
        if found is not None:
            problems.append(f"{file}: {name} {found}")
    print(f"{compared} names compared with {KLIPPER_DIR}")
    assert problems == []
    assert compared > 250


@pytest.mark.parametrize(
    ("file", "name", "value"),
    [
        ("extras/heaters.py", "QUELL_STALE_TIME", 7.0),
        ("extras/heaters.py", "MAX_HEAT_TIME", 3.0),
        ("extras/heaters.py", "MAX_MAINTHREAD_TIME", 5.0),
        ("extras/idle_timeout.py", "READY_TIMEOUT", 0.5),
        ("toolhead.py", "BUFFER_TIME_START", 0.25),
        ("toolhead.py", "BUFFER_TIME_HIGH", None),
        ("webhooks.py", "SUBSCRIPTION_REFRESH_TIME", 0.25),
        ("reactor.py", "_NEVER", 9999999999999999.0),
    ],
)
def test_the_numbers_are_those_of_klippy(file: str, name: str, value: float | None) -> None:
    values = {
        target.id: ast.literal_eval(node.value)
        for node in ast.parse(klippy_file(file).read_text(encoding="utf-8")).body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    assert name in values
    assert value is None or values[name] == value
