"""The step about the example for ESPHome: what makes it safe is in what ESPHome makes of it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from step import LONGEST_STEP, ROOT, Result, command

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
        # Not the script of that name: in a checkout that was moved it would not start.
        config = ("-m", "esphome", "config", "panda-breath.yaml")
        printed = _esphome_run("python", *config, cwd=folder)
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
