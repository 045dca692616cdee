"""Check everything that must hold and print a table of it; `make test` and `make lint` run this.

A failed step does not stop the others. What a step printed is in target/check.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import xml.etree.ElementTree as ElementTree
import zipfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = ROOT / "target" / "check"
WHEELS = ROOT / "target" / "wheels"
TYPED = ["python", "tests", "klippy_stub", "demo", "benches", ".ci/check.py"]
LONGEST_STEP = 1800  # s; tests at a broker wait for what a keep-alive takes
LARGEST_WHEEL = 3 * 1024 * 1024
SHOWN = 60  # lines of a failed step's output

# The pure half names nothing that does I/O, tells the time, rolls dice or starts threads.
# An address is only a number.
PURE = ["src/session", "src/dialect"]
IMPURE = re.compile(
    r"std::net::(?!SocketAddr|IpAddr|Ipv[46]Addr)|std::(fs|io|process|env)\b|Instant::now"
    r"|SystemTime|\btokio\b|\brand\b|\bthread\b|\bpyo3\b"
)


@dataclass
class Result:
    """How a step ended. `passed` is None for a skipped one."""

    passed: bool | None
    detail: str = ""
    output: str = ""


@dataclass
class Step:
    name: str
    group: str
    run: Callable[[], Result]


def command(
    *arguments: str,
    env: dict[str, str] | None = None,
    summary: Callable[[str], str] = lambda output: "",
) -> Callable[[], Result]:
    """A step that is a command; `summary` makes the table's last column of its output."""

    def run() -> Result:
        try:
            process = subprocess.Popen(
                arguments,
                cwd=ROOT,
                env={**os.environ, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,  # so that all of it can be ended
            )
        except OSError as error:
            return Result(False, f"{arguments[0]}: {error.strerror}")
        try:
            output, _ = process.communicate(timeout=LONGEST_STEP)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
            return Result(False, f"ended after {LONGEST_STEP} s", output)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        return Result(process.returncode == 0, summary(output), output)

    return run


def python(*arguments: str) -> Callable[[], Result]:
    return command(sys.executable, "-m", *arguments)


# Rust


def cargo_component(component: str, *arguments: str) -> Callable[[], Result]:
    """Cargo commands that not every Rust comes with."""

    def run() -> Result:
        result = command("cargo", *arguments)()
        if "no such command" in result.output or "is not installed" in result.output:
            result.detail = f"missing: rustup component add {component}"
        return result

    return run


def cargo_counts(output: str) -> str:
    counts: Counter[str] = Counter()
    for line in output.splitlines():
        if line.startswith("test result:"):
            for number, word in re.findall(r"(\d+) (passed|failed|ignored)", line):
                counts[word] += int(number)
    return ", ".join(f"{counts[word]} {word}" for word in ("passed", "failed", "ignored"))


def purity() -> Result:
    found = []
    files = 0
    for folder in PURE:
        if not (ROOT / folder).is_dir():
            found.append(f"{folder} does not exist")
        beside = ROOT / f"{folder}.rs"
        for path in [
            *sorted((ROOT / folder).rglob("*.rs")),
            *([beside] if beside.exists() else []),
        ]:
            relative = path.relative_to(ROOT)
            if "tests" in relative.with_suffix("").parts:
                continue  # tests bring a simulator along
            files += 1
            code = path.read_text().split("#[cfg(test)]")[0]
            for number, line in enumerate(code.splitlines(), 1):
                if IMPURE.search(line.split("//")[0]):
                    found.append(f"{relative}:{number}: {line.strip()}")
    if not files:
        found.append("no files")
    return Result(not found, f"{files} files", "\n".join(found))


def no_pyo3() -> Result:
    result = command("cargo", "tree", "--locked", "-e", "normal", "--prefix", "none")()
    crates = sorted({line.split()[0] for line in result.output.splitlines() if line})
    guilty = [crate for crate in crates if crate.startswith("pyo3")]
    passed = result.passed is True and not guilty
    detail = f"{len(crates)} crates" if passed else ", ".join(guilty)
    return Result(passed, detail, result.output)


FUZZ = ROOT / "fuzz"
FUZZ_TARGETS = (
    "stock",
    "mqtt",
    "wire",
    "session_stock",
    "session_esphome",
    "session_stock_mqtt",
)


def fuzz() -> Result:
    """Every target of fuzz/ for FUZZ_SECONDS (60), two at a time. What it finds is kept."""
    missing = _fuzz_missing()
    if missing:
        return Result(None, missing)
    seconds = os.environ.get("FUZZ_SECONDS", "60")
    # No sanitizer: the project has no unsafe code, and without one ten times as much is tried.
    build = ("cargo", "+nightly", "fuzz", "build", "--sanitizer", "none")
    built = command(*build, env={"CARGO_TARGET_DIR": str(FUZZ / "target")})()
    if not built.passed:
        return Result(False, "does not build", built.output)
    with ThreadPoolExecutor(max_workers=2) as pool:
        results = list(pool.map(lambda target: _fuzz_one(target, seconds), FUZZ_TARGETS))
    tried = [re.search(r"number_of_executed_units: (\d+)", one.output) for one in results]
    found = [t for t, one in zip(FUZZ_TARGETS, results) if not one.passed]
    detail = f"{sum(int(n[1]) for n in tried if n):,} inputs, {seconds} s each"
    return Result(
        not found,
        f"found: {', '.join(found)}; see fuzz/artifacts" if found else detail,
        "\n".join(one.output for one in results if not one.passed or not found),
    )


def _fuzz_missing() -> str:
    for what, arguments in (
        ("cargo-fuzz", ("cargo", "fuzz", "--version")),
        ("a nightly Rust", ("cargo", "+nightly", "--version")),
    ):
        if not command(*arguments)().passed:
            return f"{what} is not installed"
    return ""


def _fuzz_one(target: str, seconds: str) -> Result:
    new = FUZZ / "target" / "new" / target  # found on the way; not for git
    artifacts = FUZZ / "artifacts" / target
    new.mkdir(parents=True, exist_ok=True)
    artifacts.mkdir(parents=True, exist_ok=True)
    words = FUZZ / "dictionaries" / f"{target}.dict"
    return command(
        str(next(FUZZ.glob(f"target/*/release/{target}"))),
        *([f"-dict={words}"] if words.exists() else []),
        f"-max_total_time={seconds}",
        *("-timeout=10", "-rss_limit_mb=1024", "-print_final_stats=1", "-verbosity=0"),
        f"-artifact_prefix={artifacts}/",
        *(str(new), str(FUZZ / "corpus" / target)),
    )()


# Python


def pytest(klippy: bool) -> Callable[[], Result]:
    """The suite over the stub; or over real klippy, where a skipped test is a failure."""

    def run() -> Result:
        if klippy and not os.environ.get("KLIPPER_DIR"):
            return Result(None, "KLIPPER_DIR is not set")
        report = OUTPUT / ("klippy.xml" if klippy else "stub.xml")
        report.unlink(missing_ok=True)
        env = {} if klippy else {"KLIPPER_DIR": "", "KLIPPY_PYTHON": ""}
        arguments = ["-m", "pytest", "-v", "-rs", f"--junitxml={report}"]
        result = command(sys.executable, *arguments, env=env)()
        if not report.exists():
            return result
        cases = list(ElementTree.parse(report).getroot().iter("testcase"))
        failed = [case for case in cases if _has(case, "failure") or _has(case, "error")]
        skipped = [case for case in cases if _has(case, "skipped")]
        passed = len(cases) - len(failed) - len(skipped)
        result.detail = f"{passed} passed, {len(failed)} failed, {len(skipped)} skipped"
        if klippy and skipped:
            result.passed = False
            result.output += "\nwith KLIPPER_DIR set, a skipped test is a failure\n"
        if skipped and not klippy:
            reasons = Counter(_reason(case) for case in skipped)
            result.detail += " (" + "; ".join(f"{n}: {why}" for why, n in reasons.items()) + ")"
        return result

    return run


def _has(case: ElementTree.Element, tag: str) -> bool:
    return case.find(tag) is not None


def _reason(case: ElementTree.Element) -> str:
    skipped = case.find("skipped")
    return "" if skipped is None else skipped.get("message", "")


def wheel() -> Result:
    wheels = list(WHEELS.glob("*.whl"))
    if len(wheels) != 1:
        return Result(False, f"{len(wheels)} wheels in {WHEELS.relative_to(ROOT)}, not 1")
    size = wheels[0].stat().st_size
    found = []
    if size > LARGEST_WHEEL:
        found.append(f"{size} bytes, more than {LARGEST_WHEEL}")
    if "-abi3-" not in wheels[0].name:
        found.append("not abi3")
    with zipfile.ZipFile(wheels[0]) as archive:
        names = archive.namelist()
        metadata = next(name for name in names if name.endswith(".dist-info/METADATA"))
        lines = archive.read(metadata).decode().splitlines()
    found += [f"has a dependency: {line}" for line in lines if line.startswith("Requires-Dist")]
    for name in (
        "panda_breath.py",
        "panda_breath_native/_core.pyi",
        "panda_breath_native/py.typed",
    ):
        if name not in names:
            found.append(f"does not contain {name}")
    detail = "; ".join(found) or f"{size / 1024 / 1024:.2f} MiB, abi3, no dependencies"
    return Result(not found, detail)


# Documents


def documents() -> list[Path]:
    folders = (ROOT / "docs", ROOT / "examples")
    return sorted([*ROOT.glob("*.md"), *(path for f in folders for path in f.rglob("*.md"))])


def links() -> Result:
    """Every link to a file or heading of this project leads somewhere."""
    broken = []
    count = 0
    for path in documents():
        for target in re.findall(r"\]\(([^)\s]+)\)", _without_code(path.read_text())):
            if re.match(r"[a-z]+:", target):
                continue
            count += 1
            file, _, heading = target.partition("#")
            where = (path.parent / file).resolve() if file else path
            if not where.exists():
                broken.append(f"{path.relative_to(ROOT)}: {target} does not exist")
            elif heading and heading not in _headings(where):
                broken.append(f"{path.relative_to(ROOT)}: {target} has no such heading")
    return Result(not broken, f"{count} links", "\n".join(broken))


def _without_code(text: str) -> str:
    return re.sub(r"```.*?```", "", text, flags=re.DOTALL)


def _headings(path: Path) -> set[str]:
    """GitHub's anchors."""
    titles = re.findall(r"^#+ (.+)$", _without_code(path.read_text()), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def tests_named() -> Result:
    """Every test that docs/safety.md names exists."""
    code = "\n".join(
        path.read_text()
        for folder in ("src", "tests")
        for path in sorted((ROOT / folder).rglob("*"))
        if path.suffix in (".rs", ".py")
    )
    exist = set(re.findall(r"\b(?:fn|def) (\w+)", code))
    text = (ROOT / "docs" / "safety.md").read_text()
    named = set(re.findall(r"`((?:test|r\d+|identity|one_writer|boost_\w+|cutoff_\w+)_\w+)`", text))
    wrong = sorted(named - exist)
    return Result(not wrong, f"{len(named)} tests", "\n".join(f"{n} does not exist" for n in wrong))


def options() -> Result:
    """docs/configuration.md has a row for every option and status field, and for no other."""
    shim = ast.parse((ROOT / "python" / "panda_breath.py").read_text())
    text = (ROOT / "docs" / "configuration.md").read_text()
    wrong = []
    for what, in_code, heading in (
        ("option", _shim_options(shim), "Options"),
        ("heater option", _word_list(shim, "HEATER_OPTIONS"), "Heater options"),
        ("status field", _status_fields(shim), "Status"),
    ):
        in_docs = _table_names(text, heading)
        wrong += [f"{what} {name} is not in the docs" for name in sorted(in_code - in_docs)]
        wrong += [f"{what} {name} does not exist" for name in sorted(in_docs - in_code)]
    return Result(not wrong, "", "\n".join(wrong))


def _class(module: ast.Module, name: str) -> ast.ClassDef:
    return next(
        node for node in module.body if isinstance(node, ast.ClassDef) and node.name == name
    )


OPTION_READERS = (
    "_address",
    "_choice",
    "_name",
    "_path",
    "_seconds",
    "_sensor",
    "_topic",
)  # beside Klipper's get...


def _shim_options(module: ast.Module) -> set[str]:
    """What the classes with options read: the first argument of whatever reads an option."""
    names = {f"mqtt_{role}_topic" for role in _word_list(module, "TOPIC_ROLES")}
    readers = ("Options", "Mqtt")
    for node in (node for name in readers for node in ast.walk(_class(module, name))):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and (node.func.attr.startswith("get") or node.func.attr in OPTION_READERS)
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            names.add(str(node.args[0].value))
    return names


def _word_list(module: ast.Module, name: str) -> set[str]:
    """The words of a constant, be it a list or one string."""
    for node in module.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) == name:
            texts = [n.value for n in ast.walk(node.value) if isinstance(n, ast.Constant)]
            words = [word for text in texts for word in re.findall(r"\w+", str(text))]
            return set(words)
    return set()


def _status_fields(module: ast.Module) -> set[str]:
    """The keys of the status that the class PandaBreath makes."""
    names = _word_list(module, "STATE_FIELDS")
    function = next(
        node
        for node in ast.walk(_class(module, "PandaBreath"))
        if isinstance(node, ast.FunctionDef) and node.name == "get_status"
    )
    for node in ast.walk(function):
        if isinstance(node, ast.Dict):
            names |= {str(key.value) for key in node.keys if isinstance(key, ast.Constant)}
        elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
            names.add(str(node.slice.value))
    return names


def _table_names(text: str, heading: str) -> set[str]:
    """The names in the first column of the tables below a heading of the second level."""
    match = re.search(rf"^## {heading}$(.*?)(?=^## |\Z)", text, flags=re.MULTILINE | re.DOTALL)
    return set(re.findall(r"^\| `(\w+)`", match[1], flags=re.MULTILINE)) if match else set()


# The example for ESPHome

ESPHOME = "esphome>=2026.6.5,<2026.7"  # what it prints and warns of differs between versions
ESPHOME_ENV = ROOT / "target" / "esphome-env"
ESPHOME_EXAMPLE = ROOT / "examples" / "esphome"
# Not to be avoided: the heater and the strap are on the pins of the chip's own USB port.
ESPHOME_WARNINGS = [
    f"WARNING GPIO{pin} is used by the USB-Serial-JTAG interface."
    " Using this pin as GPIO will conflict with USB-Serial-JTAG."
    for pin in (18, 19)
]
# What makes the example safe, in what ESPHome makes of it. A path's words are keys, or the ids,
# names or numbers of a list's entries.
ESPHOME_SECTIONS = (  # one more, such as api or web_server, may be one more hand on the heater
    "binary_sensor climate esp32 esphome globals interval logger mqtt ota output script sensor"
    " substitutions switch text_sensor wifi"
)
STATUS = {"topic": "panda-breath/status", "qos": 0, "retain": True}
ESPHOME_IS: dict[str, object] = {
    "switch heater internal": True,
    "switch heater restore_mode": "ALWAYS_OFF",
    "switch heater pin number": 18,
    "switch heater pin inverted": False,
    "script broker_lost mode": "single",  # with restart, failed attempts put it off for ever
    "mqtt topic_prefix": "panda-breath",
    "mqtt birth_message": {**STATUS, "payload": "online"},
    "mqtt will_message": {**STATUS, "payload": "offline"},
    "mqtt username": "mqtt_username",  # the name of the secret
    "mqtt password": "mqtt_password",
    "mqtt clean_session": True,
    "mqtt discovery": False,
    "mqtt log_topic": None,
    "ota 0 password": "ota_password",
    "logger level": "INFO",
    "logger hardware_uart": "UART0",
    "climate chamber_climate platform": "thermostat",
    "climate chamber_climate name": "Chamber",
    "climate chamber_climate sensor": "chamber_temperature",
    "climate chamber_climate visual min_temperature": 0,
    "climate chamber_climate visual max_temperature": 80,
    "climate chamber_climate visual temperature_step target_temperature": 0.5,
    "climate chamber_climate on_boot_restore_from": "DEFAULT_PRESET",
    "climate chamber_climate default_preset": "Off",
    "climate chamber_climate preset Off mode": "OFF",
    "sensor chamber_temperature platform": "ntc",
    "sensor chamber_temperature name": "Chamber Temperature",
    "sensor chamber_temperature sensor": "chamber_resistance",
    "sensor chamber_resistance sensor": "chamber_volts",
    "sensor element_temperature platform": "ntc",
    "sensor element_temperature name": "PTC Element Temperature",
    "sensor element_temperature sensor": "element_resistance",
    "sensor element_resistance sensor": "element_volts",
    "output fan_power platform": "ac_dimmer",
    "output fan_power gate_pin number": 3,
    "output fan_power zero_cross_pin number": 7,
    "binary_sensor strap pin number": 19,
    "binary_sensor power_button pin number": 9,
    "binary_sensor power_button pin inverted": True,
    "binary_sensor power_button pin mode pullup": True,
}
for _name, _pin in (("chamber", 0), ("element", 1)):
    for _what, _raw in (("raw", True), ("volts", False)):
        ESPHOME_IS[f"sensor {_name}_{_what} raw"] = _raw
        ESPHOME_IS[f"sensor {_name}_{_what} pin number"] = _pin
        ESPHOME_IS[f"sensor {_name}_{_what} attenuation"] = "12db"
ESPHOME_AT_MOST = {  # s
    "sensor chamber_raw update_interval": 5.0,  # Klipper takes 7 s without a reading for stale
    "sensor chamber_volts update_interval": 5,
    "sensor element_raw update_interval": 5,
    "sensor element_volts update_interval": 5,
    "interval 0 interval": 1,
    "script broker_lost then 0 delay": 60,
    "mqtt keepalive": 15,
    "climate chamber_climate min_heating_run_time": 1,
    "climate chamber_climate min_heating_off_time": 5,
    "climate chamber_climate min_idle_time": 5,
}
RAW_FILTER = "const float raw = id({}_raw).state;\nreturn raw > 20 && raw < 4090 ? x : NAN;"
ALL_OFF = {"script.execute": {"id": "all_off"}}
ESPHOME_DOES: list[tuple[str, object]] = [
    ("mqtt on_connect", {"script.stop": {"id": "broker_lost"}}),
    ("mqtt on_disconnect", {"script.execute": {"id": "broker_lost"}}),
    ("script broker_lost", ALL_OFF),
    ("esphome on_shutdown", {"switch.turn_off": {"id": "heater"}}),
    ("ota 0 on_begin", ALL_OFF),
    ("binary_sensor power_button on_press", ALL_OFF),
    ("binary_sensor power_button on_click", {"lambda": 'id(tripped) = "";'}),
    ("climate chamber_climate idle_action", {"lambda": "id(wanted) = false;"}),
    ("climate chamber_climate idle_action", {"switch.turn_off": {"id": "heater"}}),
    ("climate chamber_climate heat_action", {"lambda": "id(wanted) = true;"}),
    ("script all_off", {"lambda": "id(wanted) = false;"}),
    ("script all_off", {"switch.turn_off": {"id": "heater"}}),
    ("script all_off", {"climate.control": {"id": "chamber_climate", "mode": "OFF"}}),
    ("sensor chamber_temperature filters", {"lambda": RAW_FILTER.format("chamber")}),
    ("sensor element_temperature filters", {"lambda": RAW_FILTER.format("element")}),
]
# What the watch says, the code that looks every second. The number in parentheses lies between.
ESPHOME_WATCH = [
    (r"if \(!\(element < (\d+)\)\) \{.*\n  paused = true;", 80, 105),
    (r"if \(element <= (\d+)\) \{\n  paused = false;", 0, 95),
    (r"if \(element >= (\d+)\) \{\n  id\(tripped\) = ", 100, 120),
    (r"if \(heated >= (\d+) && element < chamber \+ \d+\) \{\n  id\(tripped\) = ", 0, 120),
    (r"if \(heated >= 10 && chamber >= element \+ (\d+)\) \{\n  id\(tripped\) = ", 0, 30),
    (r"std::string why = id\(tripped\);", 0, 0),
    (r"if \(std::isnan\(chamber\)\) \{\n  why = ", 0, 0),
    (r"if \(std::isnan\(element\)\) \{\n  why = ", 0, 0),
    (r"if \(id\(strap\)\.state != \(33 == 33\)\) \{\n  why = ", 0, 0),
    (r"const bool heat = id\(wanted\) && !off && !paused && why\.empty\(\);", 0, 0),
    (r"if \(heat && !id\(heater\)\.state\) \{\n  id\(heater\)\.turn_on\(\);", 0, 0),
    (r"\} else if \(!heat\) \{\n  id\(heater\)\.turn_off\(\);", 0, 0),
    (r"if \(!why\.empty\(\) && !off\) \{\n  id\(all_off\)\.execute\(\);", 0, 0),
    (r"heated = heat \? heated \+ 1 : 0;", 0, 0),
    (r"const bool blow = rested < (\d+) \|\| element >= \d+;", 60, 3600),
    (r"id\(fan_power\)\.set_level\(blow \? 1\.0f : 0\.0f\);", 0, 0),
]
YAML_AS_JSON = """
import json, sys, yaml
yaml.SafeLoader.add_multi_constructor("!", lambda loader, tag, node: loader.construct_scalar(node))
json.dump(yaml.safe_load(sys.stdin), sys.stdout)
"""


def esphome_config() -> Result:
    """ESPHome takes the example, and what makes it safe is in what ESPHome made of it."""
    cannot = _esphome_env()
    if cannot:
        return cannot
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(ESPHOME_EXAMPLE / "panda-breath.yaml", folder)
        shutil.copy(ESPHOME_EXAMPLE / "secrets.yaml.example", Path(folder) / "secrets.yaml")
        printed = _esphome_run("esphome", "config", "panda-breath.yaml", cwd=folder)
    output = printed.stdout + printed.stderr
    if printed.returncode:
        return Result(False, "ESPHome refuses it", output)
    as_json = _esphome_run("python", "-c", YAML_AS_JSON, text=printed.stdout)
    if as_json.returncode:
        return Result(False, "what ESPHome printed is not YAML", output + as_json.stderr)
    said = re.sub(r"\x1b\[[\d;]*m", "", printed.stderr).splitlines()
    wrong = [x for x in said if x and not x.startswith("INFO ") and x not in ESPHOME_WARNINGS]
    facts = _esphome_facts(json.loads(as_json.stdout), printed.stdout)
    wrong += [f"does not hold: {fact}" for fact, holds in facts.items() if not holds]
    return Result(not wrong, f"{len(facts)} facts", "\n".join([output, *wrong]))


def _esphome_env() -> Result | None:
    """Makes the environment unless it is there; returns how the step ends if that fails."""
    marker = ESPHOME_ENV / ".installed"
    there = marker.exists() and marker.read_text() == ESPHOME
    if there and not _esphome_run("python", "-c", "import esphome, yaml").returncode:
        return None
    result = Result(False, "ESPHome needs Python 3.11 or later")
    if sys.version_info >= (3, 11):
        pip = (str(ESPHOME_ENV / "bin" / "python"), "-m", "pip", "install", "--quiet")
        result = command(sys.executable, "-m", "venv", "--clear", str(ESPHOME_ENV))()
        if result.passed:
            result = command(*pip, "--disable-pip-version-check", "--retries", "1", ESPHOME)()
        if result.passed:
            marker.write_text(ESPHOME)
            return None
        result.detail = f"{ESPHOME} cannot be installed"
    if os.environ.get("CI") != "true":
        result.passed = None
    return result


def _esphome_run(
    program: str, *arguments: str, cwd: str | None = None, text: str = ""
) -> subprocess.CompletedProcess[str]:
    path = str(ESPHOME_ENV / "bin" / program)
    try:
        return subprocess.run(
            [path, *arguments],
            cwd=cwd,
            env={**os.environ, "PYTHONUTF8": "1"},
            input=text,
            capture_output=True,
            encoding="utf-8",
            timeout=LONGEST_STEP,
        )
    except OSError as error:  # such as an interpreter that is gone
        return subprocess.CompletedProcess(path, 1, "", str(error))


def _esphome_facts(config: Any, printed: str) -> dict[str, bool]:
    """Each fact in words, and whether it holds."""
    lists = ("climate", "interval", "ota", "output", "switch")
    facts = {
        "sections": sorted(config) == ESPHOME_SECTIONS.split(),
        "entries": [len(config.get(name, [])) for name in lists] == [1, 1, 1, 3, 1],
        "no other command by MQTT": not {"on_message", "on_json_message"} & set(config["mqtt"]),
        "one place turns the heater on": printed.count("turn_on") == 1,
    }
    for path, value in ESPHOME_IS.items():
        facts[f"{path}: {value}"] = _look(config, path) == value
    for path, most in ESPHOME_AT_MOST.items():
        facts[f"{path}: at most {most} s"] = _duration(_look(config, path)) <= most
    for path, action in ESPHOME_DOES:
        facts[f"{path}: {action}"] = action in _actions(_look(config, path))
    watch = str(_look(config, "interval 0 then 0 lambda"))
    for pattern, least, most in ESPHOME_WATCH:
        match = re.search(pattern, watch)
        number = int(match[1]) if match and match.groups() else 0
        facts[f"watch: {pattern}: {least} to {most}"] = bool(match) and least <= number <= most
    return facts


def _look(config: Any, path: str) -> Any:
    """What stands at a path, or "nothing there"."""
    for word in path.split():
        if isinstance(config, list):
            config = {
                name: entry
                for number, entry in enumerate(config)
                for name in (str(number), entry.get("name"), entry.get("id"))
            }
        if not isinstance(config, dict) or word not in config:
            return "nothing there"
        config = config[word]
    return config


def _duration(text: Any) -> float:
    """ESPHome's durations, in seconds; what is none is endless."""
    match = re.fullmatch(r"(\d+)(ms|s|min|h|d)", str(text))
    units = {"ms": 0.001, "s": 1, "min": 60, "h": 3600, "d": 86400}
    return int(match[1]) * units[match[2]] if match else float("inf")


def _actions(automation: Any) -> list[Any]:
    """The steps of a list of steps, of an automation or of a list of automations."""
    automations = automation if isinstance(automation, list) else [automation]
    steps = []
    for entry in automations:
        if isinstance(entry, dict):
            steps += entry.get("then", [entry])
    return steps


CARGO_TEST = command(
    *("cargo", "test", "--locked", "--no-fail-fast"),
    env={"RUST_TEST_THREADS": "16"},  # most of them wait for the network's own time
    summary=cargo_counts,
)
HISTORIES = command(
    *("cargo", "test", "--locked", "--profile", "soak", "--lib", "--", "--nocapture", "histor"),
    env={"HISTORIES": "10000"},  # of a stock device, and as many behind a broker
    summary=lambda output: "; ".join(
        re.findall(r"^(\w+: \d+ histories, \d+ steps, mean \d+)", output, flags=re.MULTILINE)
    ),
)
CLIPPY = ("clippy", "--locked", "--quiet", "--all-targets")
STEPS = [
    Step("cargo fmt", "lint", cargo_component("rustfmt", "fmt", "--check")),
    Step("cargo clippy", "lint", cargo_component("clippy", *CLIPPY, "--", "-Dwarnings")),
    Step(
        "cargo clippy, python",
        "lint",
        cargo_component("clippy", *CLIPPY, "--features", "python", "--", "-Dwarnings"),
    ),
    Step(
        "cargo doc",
        "lint",
        command(
            *("cargo", "doc", "--locked", "--no-deps", "--document-private-items"),
            env={"RUSTDOCFLAGS": "-Dwarnings"},
        ),
    ),
    Step("session and dialect are pure", "lint", purity),
    Step("no pyo3 without the feature", "lint", no_pyo3),
    Step("ruff check", "lint", python("ruff", "check")),
    Step("ruff format", "lint", python("ruff", "format", "--check")),
    Step("mypy", "lint", python("mypy", "--strict", *TYPED)),
    Step("stubtest", "lint", python("mypy.stubtest", "panda_breath_native")),
    Step("links in documents", "lint", links),
    Step("options in documents", "lint", options),
    Step("tests in documents", "lint", tests_named),
    Step("wheel", "test", wheel),
    Step("cargo test", "test", CARGO_TEST),
    Step("random histories", "test", HISTORIES),
    Step("fuzz", "test", fuzz),
    Step("pytest, stub", "test", pytest(klippy=False)),
    Step("pytest, klippy", "test", pytest(klippy=True)),
    Step("esphome config", "test", esphome_config),
]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=("lint", "test"), help="one group of steps")
    only = parser.parse_args().only
    OUTPUT.mkdir(parents=True, exist_ok=True)
    started_at = time.monotonic()
    rows = []
    totals: Counter[str] = Counter()
    for step in STEPS:
        if only not in (None, step.group):
            continue
        print(f"{step.name} ...", flush=True)
        began_at = time.monotonic()
        try:
            result = step.run()
        except Exception:
            result = Result(False, "the check itself failed", traceback.format_exc())
        seconds = time.monotonic() - began_at
        word = {True: "passed", False: "FAILED", None: "skipped"}[result.passed]
        totals[word.lower()] += 1
        log = OUTPUT / (re.sub(r"\W+", "-", step.name) + ".log")
        log.write_text(result.output)
        rows.append((step.name, word, f"{seconds:.1f} s", result.detail))
        if result.passed is False:
            lines = result.output.splitlines()
            print(f"FAILED {step.name}: {result.detail}")
            if len(lines) > SHOWN:
                print(f"... {len(lines) - SHOWN} earlier lines are in {log.relative_to(ROOT)}")
            print("\n".join(lines[-SHOWN:]), flush=True)
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    print()
    for name, word, took, detail in rows:
        print(f"{name:<{widths[0]}}  {word:<{widths[1]}}  {took:>{widths[2]}}  {detail}".rstrip())
    print(f"\n{time.monotonic() - started_at:.0f} s in all")
    counts = [f"{totals[word]} {word}" for word in ("passed", "failed", "skipped")]
    print(", ".join(counts))
    return 1 if totals["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
