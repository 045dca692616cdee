"""The options for a device behind a broker: what reaches the driver, and every mistake."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from conftest import SECTION, Make
from fake_native import Driver

SECRET = "s3cret-Pa55"
ROLES = [
    "availability",
    "temperature_state",
    "mode_state",
    "mode_command",
    "action_state",
    "target_state",
    "target_command",
    "target_low_state",
    "target_low_command",
    "target_high_state",
    "target_high_command",
]
TOPIC_OPTIONS = [f"mqtt_{role}_topic" for role in ROLES]
BROKER = "mqtt_broker: 10.0.0.2\n"
LOGIN = BROKER + "mqtt_username: klipper\n"
ESPHOME = "firmware: esphome\n" + BROKER
STOCK = "firmware: stock_mqtt\n" + BROKER

# As the existing community module's own printer.cfg has it; that module also requires host.
COMMUNITY = """
[panda_breath]
firmware: esphome
host: 192.168.1.50
port: 80
mqtt_broker: 192.168.1.10
mqtt_port: 1883
mqtt_topic_prefix: panda-breath

[heater_generic panda_breath]
heater_pin: panda_breath:pwm
sensor_type: panda_breath
control: watermark
max_delta: 0.5
min_temp: 15
max_temp: 80

[verify_heater panda_breath]
check_gain_time: 360
hysteresis: 5
heating_gain: 1

[pause_resume]
"""

DEFAULTS: dict[str, Any] = {
    "dialect": "auto",
    "prefix": None,
    "device_id": None,
    "climate": "chamber",
    "sensor": "chamber_temperature",
    "topics": {},
    "discovery_prefix": "homeassistant",
    "foreign_topics": False,
    "username": None,
    "password": None,
    "tls": False,
    "ca_file": None,
    "cert_file": None,
    "key_file": None,
}


def section(lines: str, name: str = "panda_breath") -> str:
    return f"[{name}]\n{lines}\n"


def warnings(host: Any) -> list[str]:
    found = [warning["message"] for warning in host.status("configfile")["warnings"]]
    return [text for text in found if "pause_resume" not in text]


def opened(driver: Driver) -> dict[str, Any]:
    return driver.opened[0].options


def started(make: Make, lines: str) -> Any:
    host = make(section(lines))
    assert host.state == "ready", host.message
    return host


def error(make: Make, driver: Driver, lines: str) -> str:
    host = make(section(lines))
    assert host.state == "error"
    assert "panda_breath'" in host.reason or "[panda_breath]" in host.reason
    assert driver.opened == []
    reason: str = host.reason
    return reason


@pytest.fixture
def password(tmp_path: Path) -> Path:
    """A file with a password that nobody else may read."""
    file = tmp_path / "password"
    file.write_text(SECRET + "\n")
    file.chmod(0o600)
    return file


# What reaches the driver


def test_a_broker_alone_is_enough(make: Make, driver: Driver) -> None:
    host = started(make, BROKER)
    options = opened(driver)
    assert (options["host"], options["port"]) == ("10.0.0.2", 1883)
    assert options["mqtt"] == DEFAULTS
    assert warnings(host) == []
    driver.session("10.0.0.2:1883").read(25.0)
    host.gcode("SET_HEATER_TEMPERATURE HEATER=panda_breath TARGET=45")
    assert driver.session("10.0.0.2:1883").heat == 45.0


def test_without_a_broker_the_driver_hears_nothing_of_one(make: Make, driver: Driver) -> None:
    make(SECTION)
    assert "mqtt" not in opened(driver)


def test_all_options_reach_the_driver(make: Make, driver: Driver, password: Path) -> None:
    topics = "".join(f"{option}: attic/{option}\n" for option in TOPIC_OPTIONS)
    started(
        make,
        f"""firmware: esphome
mqtt_broker: broker.local
mqtt_port: 1234
mqtt_topic_prefix: house/attic
mqtt_device_id: attic-node
mqtt_username: klipper
mqtt_password_file: {password}
mqtt_tls: True
mqtt_ca_file: /etc/ca.pem
mqtt_cert_file: /etc/cert.pem
mqtt_key_file: /etc/key.pem
mqtt_climate: heater
mqtt_sensor: air
mqtt_discovery_prefix: ha/discovery
mqtt_foreign_topics: True
device_id: 1A2F
{topics}""",
    )
    options = opened(driver)
    assert (options["host"], options["port"]) == ("broker.local", 1234)
    assert options["device_id"] == "1a2f"
    assert options["mqtt"] == {
        "dialect": "esphome",
        "prefix": "house/attic",
        "device_id": "attic-node",
        "climate": "heater",
        "sensor": "air",
        "topics": {role: f"attic/mqtt_{role}_topic" for role in ROLES},
        "discovery_prefix": "ha/discovery",
        "foreign_topics": True,
        "username": "klipper",
        "password": SECRET,
        "tls": True,
        "ca_file": "/etc/ca.pem",
        "cert_file": "/etc/cert.pem",
        "key_file": "/etc/key.pem",
    }


def test_the_roles_of_topics_are_those_of_the_wheel() -> None:
    source = Path(__file__).resolve().parent.parent / "src" / "dialect" / "mqtt.rs"
    text = source.read_text()
    names = text[text.index("The name in the options: `mqtt_NAME_topic`") :].split("}\n    }")[0]
    assert sorted(ROLES) == sorted(part.split('"')[1] for part in names.split("=> ")[1:])


@pytest.mark.parametrize("firmware", ["auto", "esphome", "stock_mqtt"])
def test_the_firmware_is_the_dialect(make: Make, driver: Driver, firmware: str) -> None:
    started(make, BROKER + f"firmware: {firmware}\n")
    assert opened(driver)["mqtt"]["dialect"] == firmware


def test_with_tls_the_port_is_another(make: Make, driver: Driver) -> None:
    started(make, BROKER + "mqtt_tls: True\n")
    assert opened(driver)["port"] == 8883
    assert opened(driver)["mqtt"]["tls"] is True


@pytest.mark.parametrize(
    ("lines", "device_id"),
    [
        (STOCK + "mqtt_device_id: aabbccddeeff", "AABBCCDDEEFF"),
        (STOCK + "mqtt_device_id: aa:bb:cc:dd:ee:ff", "AABBCCDDEEFF"),
        (STOCK + "mqtt_device_id: AA-BB-CC-DD-EE-FF", "AABBCCDDEEFF"),
        (BROKER + "mqtt_device_id: aa:bb:cc:dd:ee:ff", "AABBCCDDEEFF"),
        (BROKER + "mqtt_device_id: attic-node", "attic-node"),
        (ESPHOME + "mqtt_device_id: aabbccddeeff", "aabbccddeeff"),
    ],
)
def test_a_device_id_is_made_what_the_topics_have(
    make: Make, driver: Driver, lines: str, device_id: str
) -> None:
    started(make, lines)
    assert opened(driver)["mqtt"]["device_id"] == device_id


def test_discovery_may_be_not_looked_at(make: Make, driver: Driver) -> None:
    started(make, BROKER + "mqtt_discovery_prefix:\n")
    assert opened(driver)["mqtt"]["discovery_prefix"] == ""


# The password


@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_the_password_is_read_without_the_end_of_its_line(
    make: Make, driver: Driver, password: Path, ending: str
) -> None:
    password.write_bytes((" pä ss\n" + ending).encode())
    started(make, LOGIN + f"mqtt_password_file: {password}")
    expected = " pä ss\n" if ending else " pä ss"
    assert opened(driver)["mqtt"]["password"] == expected


def test_the_home_folder_may_be_written_as_a_tilde(
    make: Make, driver: Driver, password: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(password.parent))
    started(make, LOGIN + "mqtt_password_file: ~/password\nmqtt_tls: True\nmqtt_ca_file: ~/ca")
    assert opened(driver)["mqtt"]["password"] == SECRET
    assert opened(driver)["mqtt"]["ca_file"] == str(password.parent / "ca")


def test_a_user_name_needs_no_password(make: Make, driver: Driver) -> None:
    started(make, LOGIN)
    mqtt = opened(driver)["mqtt"]
    assert (mqtt["username"], mqtt["password"]) == ("klipper", None)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644])
def test_a_password_that_others_may_read_is_a_warning(
    make: Make, driver: Driver, password: Path, mode: int
) -> None:
    password.chmod(mode)
    host = started(make, LOGIN + f"mqtt_password_file: {password}")
    (text,) = warnings(host)
    assert f"others may read the password in '{password}' (mqtt_password_file)" in text
    assert f"chmod 600 {password}" in text


def test_a_password_of_ones_own_is_no_warning(make: Make, password: Path) -> None:
    assert warnings(started(make, LOGIN + f"mqtt_password_file: {password}")) == []


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "the file is empty"),
        (b"\n", "the file is empty"),
        (b"s3cret-Pa55 \xff\xfe", "not UTF-8"),
        (b"s3cret-Pa55" * 6000, "too large"),
    ],
)
def test_a_file_that_holds_no_password_is_an_error(
    make: Make, driver: Driver, password: Path, content: bytes, why: str
) -> None:
    password.write_bytes(content)
    text = error(make, driver, LOGIN + f"mqtt_password_file: {password}")
    for word in ("'mqtt_password_file'", f"'{password}'", why):
        assert word in text
    assert SECRET not in text


def test_a_missing_password_file_is_an_error(make: Make, driver: Driver, tmp_path: Path) -> None:
    text = error(make, driver, LOGIN + f"mqtt_password_file: {tmp_path}/none")
    for word in ("'mqtt_password_file'", f"'{tmp_path}/none'", "No such file or directory"):
        assert word in text


def test_an_unreadable_password_file_is_an_error(
    make: Make, driver: Driver, password: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.stat

    def stat(path: Any, *args: Any, **kwargs: Any) -> os.stat_result:
        if str(path) == str(password):
            raise PermissionError(13, "Permission denied")
        return real(path, *args, **kwargs)

    monkeypatch.setattr(os, "stat", stat)
    text = error(make, driver, LOGIN + f"mqtt_password_file: {password}")
    for word in ("'mqtt_password_file'", f"'{password}'", "Permission denied"):
        assert word in text


def test_r1_a_pipe_in_place_of_a_password_keeps_nobody_waiting(
    make: Make, driver: Driver, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "is not a file" in error(
        make, driver, LOGIN + f"mqtt_password_file: {tmp_path / 'pipe'}"
    )
    assert "is not a file" in error(make, driver, LOGIN + f"mqtt_password_file: {tmp_path}")


def test_r11_a_password_in_the_configuration_is_refused_and_not_repeated(
    make: Make, driver: Driver
) -> None:
    for lines in (LOGIN, "host: 192.168.1.50\n", ESPHOME):
        text = error(make, driver, lines + f"mqtt_password: {SECRET}")
        assert "'mqtt_password'" in text
        assert "mqtt_password_file" in text
        assert "klippy.log" in text
        assert SECRET not in text


@pytest.mark.parametrize("content", [SECRET.encode(), SECRET.encode() + b"\xff"])
def test_r11_no_log_and_no_repr_shows_the_password(
    make: Make,
    driver: Driver,
    password: Path,
    caplog: pytest.LogCaptureFixture,
    content: bytes,
) -> None:
    password.write_bytes(content)
    password.chmod(0o644)

    def refuse(session: Any) -> None:
        raise ValueError("Option 'mqtt_ca_file': /etc/ca.pem: no such file")

    driver.opening = refuse
    with caplog.at_level(0):
        host = make(section(LOGIN + f"mqtt_password_file: {password}"))
    assert host.state == "error"
    device = host.printer.lookup_object("panda_breath", None)
    said = [host.message, caplog.text, repr(device), repr(vars(device) if device else None)]
    assert not [text for text in said if SECRET in text or "\\xff" in text]


# What the driver refuses


def test_what_the_driver_says_of_a_file_is_a_config_error(make: Make, driver: Driver) -> None:
    def refuse(session: Any) -> None:
        raise ValueError("Option 'mqtt_ca_file': /etc/ca.pem: no such file")

    driver.opening = refuse
    host = make(section(BROKER + "mqtt_tls: True\nmqtt_ca_file: /etc/ca.pem\n"))
    assert host.state == "error"
    assert "[panda_breath] cannot be started: Option 'mqtt_ca_file': /etc/ca.pem" in host.message


# Mistakes


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        # Which way leads to the device
        ("", ["'host'", "'mqtt_broker'", "must be specified"]),
        ("firmware: esphome", ["'mqtt_broker'", "must be specified", "esphome"]),
        ("firmware: stock_mqtt", ["'mqtt_broker'", "must be specified", "stock_mqtt"]),
        ("firmware: stock\n" + BROKER, ["'host'", "must be specified", "stock"]),
        ("host: x\n" + BROKER, ["'mqtt_broker'", "'10.0.0.2'", "'host'", "firmware:"]),
        (BROKER + "port: 80", ["'port'", "'80'", "mqtt_port", "remove it"]),
        # The broker
        ("mqtt_broker: mqtt://x", ["'mqtt_broker'", "'mqtt://x'", "without mqtt://"]),
        ("mqtt_broker: x:1883", ["'mqtt_broker'", "'x:1883'", "mqtt_port"]),
        ("mqtt_broker: a b", ["'mqtt_broker'", "'a b'", "give a name"]),
        ("mqtt_broker:", ["'mqtt_broker'", "give a name"]),
        (BROKER + "mqtt_port: 0", ["'mqtt_port'", "minimum of 1"]),
        (BROKER + "mqtt_port: 65536", ["'mqtt_port'", "maximum of 65535"]),
        (BROKER + "mqtt_port: mqtt", ["'mqtt_port'", "Unable to parse"]),
        # Where the device is there
        (BROKER + "mqtt_topic_prefix:", ["'mqtt_topic_prefix'", "remove the option"]),
        (BROKER + "mqtt_topic_prefix: a/+", ["'mqtt_topic_prefix'", "'a/+'", "wildcards"]),
        (BROKER + "mqtt_topic_prefix: +", ["'mqtt_topic_prefix'", "wildcards"]),
        (BROKER + "mqtt_topic_prefix: /a", ["'mqtt_topic_prefix'", "'/a'", "slash"]),
        (BROKER + "mqtt_topic_prefix: a/", ["'mqtt_topic_prefix'", "'a/'", "slash"]),
        (BROKER + "mqtt_topic_prefix: " + "a" * 65, ["'mqtt_topic_prefix'", "64 characters"]),
        (STOCK + "mqtt_device_id: attic", ["'mqtt_device_id'", "'attic'", "12 hex"]),
        (STOCK + "mqtt_device_id: aabbccddee", ["'mqtt_device_id'", "12 hex"]),
        (ESPHOME + "mqtt_device_id: a/b", ["'mqtt_device_id'", "'a/b'", "letters"]),
        (BROKER + "mqtt_device_id: a b", ["'mqtt_device_id'", "'a b'", "letters"]),
        (BROKER + "mqtt_climate: a.b", ["'mqtt_climate'", "'a.b'", "letters"]),
        (BROKER + "mqtt_climate:", ["'mqtt_climate'", "letters"]),
        (BROKER + "mqtt_sensor: a/b", ["'mqtt_sensor'", "'a/b'", "letters"]),
        (BROKER + "mqtt_discovery_prefix: a/+", ["'mqtt_discovery_prefix'", "wildcards"]),
        (BROKER + "mqtt_discovery_prefix: a/", ["'mqtt_discovery_prefix'", "slash"]),
        (BROKER + "mqtt_foreign_topics: maybe", ["'mqtt_foreign_topics'", "Unable to parse"]),
        # Who we are
        (BROKER + "mqtt_username:", ["'mqtt_username'", "remove the option"]),
        (BROKER + "mqtt_password_file: /p", ["'mqtt_password_file'", "'/p'", "mqtt_username"]),
        (LOGIN + "mqtt_password_file:", ["'mqtt_password_file'", "remove the option"]),
        (BROKER + "mqtt_tls: maybe", ["'mqtt_tls'", "Unable to parse"]),
        (BROKER + "mqtt_ca_file: /ca", ["'mqtt_ca_file'", "'/ca'", "mqtt_tls: True"]),
        (BROKER + "mqtt_cert_file: /c", ["'mqtt_cert_file'", "'/c'", "mqtt_tls: True"]),
        (BROKER + "mqtt_key_file: /k", ["'mqtt_key_file'", "'/k'", "mqtt_tls: True"]),
        (
            BROKER + "mqtt_tls: True\nmqtt_cert_file: /c",
            ["'mqtt_cert_file'", "'/c'", "give mqtt_key_file"],
        ),
        (
            BROKER + "mqtt_tls: True\nmqtt_key_file: /k",
            ["'mqtt_key_file'", "'/k'", "give mqtt_cert_file"],
        ),
        (BROKER + "mqtt_tls: True\nmqtt_ca_file:", ["'mqtt_ca_file'", "remove the option"]),
        (BROKER + "mqtt_topik_prefix: a", ["'mqtt_topik_prefix'", "not valid"]),
    ],
)
def test_a_mistake_is_a_config_error_with_a_remedy(
    make: Make, driver: Driver, lines: str, words: list[str]
) -> None:
    text = error(make, driver, lines)
    for word in words:
        assert word in text, text


@pytest.mark.parametrize("option", TOPIC_OPTIONS)
@pytest.mark.parametrize(
    ("value", "why"),
    [("a/+/b", "wildcards"), ("/a", "slash"), ("", "remove the option")],
)
def test_a_topic_that_is_none_is_an_error(
    make: Make, driver: Driver, option: str, value: str, why: str
) -> None:
    text = error(make, driver, ESPHOME + f"{option}: {value}")
    for word in (f"'{option}'", f"'{value}'", why):
        assert word in text


NEW = {
    "mqtt_device_id": "AABBCCDDEEFF",
    "mqtt_username": "klipper",
    "mqtt_password_file": "/p",
    "mqtt_tls": "False",
    "mqtt_ca_file": "/ca",
    "mqtt_cert_file": "/cert",
    "mqtt_key_file": "/key",
}
OF_ESPHOME = {
    "mqtt_climate": "chamber",
    "mqtt_sensor": "air",
    "mqtt_discovery_prefix": "homeassistant",
    "mqtt_foreign_topics": "False",
    **dict.fromkeys(TOPIC_OPTIONS, "a/b"),
}


@pytest.mark.parametrize("firmware", ["auto", "stock"])
@pytest.mark.parametrize(("option", "value"), [*NEW.items(), *OF_ESPHOME.items()])
def test_an_option_of_brokers_without_one_is_an_error(
    make: Make, driver: Driver, firmware: str, option: str, value: str
) -> None:
    text = error(make, driver, f"host: x\nfirmware: {firmware}\n{option}: {value}")
    for word in (f"'{option}'", f"'{value}'", "mqtt_broker", "remove it"):
        assert word in text


@pytest.mark.parametrize("option", ["mqtt_port: 1883", "mqtt_topic_prefix: a"])
def test_with_auto_the_community_modules_options_are_no_exception(
    make: Make, driver: Driver, option: str
) -> None:
    text = error(make, driver, f"host: x\n{option}")
    assert f"'{option.split(':')[0]}'" in text
    assert "remove it" in text


@pytest.mark.parametrize(("option", "value"), OF_ESPHOME.items())
def test_an_option_of_esphome_for_the_stock_firmware_is_an_error(
    make: Make, driver: Driver, option: str, value: str
) -> None:
    text = error(make, driver, STOCK + f"{option}: {value}")
    for word in (f"'{option}'", f"'{value}'", "firmware: esphome", "remove it"):
        assert word in text


# The community module's options load unchanged


def test_the_community_modules_esphome_configuration_loads_unchanged(
    make: Make, driver: Driver
) -> None:
    host = make(COMMUNITY)
    assert host.state == "ready", host.message
    options = opened(driver)
    assert (options["host"], options["port"]) == ("192.168.1.10", 1883)
    assert options["mqtt"] == {**DEFAULTS, "dialect": "esphome", "prefix": "panda-breath"}
    texts = warnings(host)
    assert len(texts) == 2
    for text, option in zip(texts, ("'host: 192.168.1.50'", "'port: 80'")):
        assert f"option {option} has no effect with firmware: esphome" in text
    session = driver.session("192.168.1.10:1883/panda-breath")
    session.read(20.0)
    host.advance(1.0)
    host.gcode("SET_HEATER_TEMPERATURE HEATER=panda_breath TARGET=45")
    assert session.heat == 45.0


def test_without_a_host_it_loads_without_a_warning(make: Make) -> None:
    host = make(COMMUNITY.replace("host: 192.168.1.50\nport: 80\n", ""))
    assert host.state == "ready", host.message
    assert warnings(host) == []


def test_the_community_modules_stock_configuration_may_still_name_its_broker(
    make: Make, driver: Driver
) -> None:
    host = make(COMMUNITY.replace("firmware: esphome", "firmware: stock"))
    assert host.state == "ready", host.message
    assert opened(driver)["host"] == "192.168.1.50"
    assert "mqtt" not in opened(driver)
    texts = warnings(host)
    assert len(texts) == 3
    for text, option in zip(texts, ("mqtt_broker", "mqtt_port", "mqtt_topic_prefix")):
        assert f"option '{option}: " in text
        assert "no effect with firmware: stock" in text


# One section, one device


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (BROKER, BROKER),
        (BROKER, "mqtt_broker: 10.0.0.2.\nmqtt_port: 1883\n"),
        (BROKER, ESPHOME),
        (STOCK, BROKER),
        (BROKER, BROKER + "mqtt_topic_prefix: panda-breath\n"),
        (BROKER + "mqtt_topic_prefix: a\n", ESPHOME + "mqtt_topic_prefix: a\n"),
        (
            STOCK + "mqtt_device_id: aabbccddeeff\n",
            STOCK + "mqtt_device_id: AA:BB:CC:DD:EE:FF\n",
        ),
    ],
)
def test_one_device_in_two_sections_is_an_error(
    make: Make, driver: Driver, first: str, second: str
) -> None:
    host = make(section(first) + section(second, "panda_breath left"))
    assert host.state == "error"
    for word in (
        "'mqtt_topic_prefix'",
        "'panda_breath left'",
        "[panda_breath] already uses",
        "on broker 10.0.0.2",
        "mqtt_device_id of its own",
    ):
        assert word in host.reason
    assert driver.opened == []


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (BROKER, BROKER + "mqtt_topic_prefix: other\n"),
        (BROKER, BROKER + "mqtt_port: 1884\n"),
        (BROKER, "mqtt_broker: 10.0.0.3\n"),
        (BROKER, "host: 10.0.0.2\nport: 1883\n"),
        (ESPHOME, STOCK),
        (
            STOCK + "mqtt_device_id: AABBCCDDEEFF\n",
            STOCK + "mqtt_device_id: AABBCCDDEE00\n",
        ),
    ],
)
def test_two_devices_on_one_broker_are_two(
    make: Make, driver: Driver, first: str, second: str
) -> None:
    host = make(section(first) + section(second, "panda_breath left"))
    assert host.state == "ready", host.message
    assert len(driver.opened) == 2


# Batch mode


def test_batch_mode_opens_no_device_and_still_warns(
    make: Make, driver: Driver, password: Path
) -> None:
    password.chmod(0o644)
    lines = section(LOGIN + f"mqtt_password_file: {password}")
    host = make(lines, debugoutput="out")
    assert host.state == "ready", host.message
    assert driver.opened == []
    assert len(warnings(host)) == 1
