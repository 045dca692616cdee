"""The wheel's own Device with a broker: what it takes, what it says, what it never says."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

native = pytest.importorskip("panda_breath_native")

SECRET = "s3cret-Pa55"
DEVICE: dict[str, Any] = {
    "name": "panda_breath",
    "host": "127.0.0.1",
    "port": 1,
    "device_id": None,
    "max_target": 60,
    "stale_after": 7.0,
    "lost_after": 120.0,
    "lease": 10.0,
    "on_external_off": "accept",
    "on_external_on": "off",
}
MQTT: dict[str, Any] = {
    "dialect": "auto",
    "prefix": None,
    "device_id": None,
    "climate": "chamber",
    "sensor": "chamber_temperature",
    "topics": {},
    "discovery_prefix": "homeassistant",
    "foreign_topics": False,
    "username": "klipper",
    "password": SECRET,
    "tls": False,
    "ca_file": None,
    "cert_file": None,
    "key_file": None,
}


@pytest.fixture
def broker() -> Iterator[socket.socket]:
    """Something that listens, and never answers by itself."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(8.0)
        yield server


def device(broker: socket.socket, **mqtt: Any) -> Any:
    port = broker.getsockname()[1]
    return native.Device(**{**DEVICE, "port": port}, mqtt={**MQTT, **mqtt})


def greeting(broker: socket.socket) -> bytes:
    """The CONNECT of the next connection."""
    connection, _ = broker.accept()
    with connection:
        connection.settimeout(8.0)
        packet = connection.recv(4096)
        while len(packet) < 2 or len(packet) < 2 + packet[1]:
            packet += connection.recv(4096)
        return packet


def test_the_login_is_what_the_broker_is_told(broker: socket.socket) -> None:
    opened = device(broker)
    packet = greeting(broker)
    assert packet[0] == 0x10
    assert b"klipper" in packet
    assert SECRET.encode() in packet
    opened.close()


def test_without_a_login_the_broker_is_told_none(broker: socket.socket) -> None:
    opened = device(broker, username=None, password=None)
    assert b"klipper" not in greeting(broker)
    opened.close()


def test_another_password_is_used_at_once_after_a_restart(broker: socket.socket) -> None:
    before = device(broker)
    connection, _ = broker.accept()
    with connection:
        connection.settimeout(8.0)
        assert SECRET.encode() in connection.recv(4096)
        before.close()
        after = device(broker, password="an0ther")
        assert b"an0ther" in greeting(broker)
    after.close()


def test_what_is_known_before_the_device_speaks(broker: socket.socket) -> None:
    opened = device(broker)
    state = opened.drain(0.0, False, 0)
    assert (state.dialect, state.target_limit, state.device_target) == (None, None, None)
    assert (state.fault, state.cannot_heat) == (None, False)
    opened.close()


@pytest.mark.parametrize(
    ("mqtt", "words"),
    [
        ({"dialect": "klipper"}, "dialect: auto, esphome or stock_mqtt"),
        ({"topics": {"mode": "a"}}, "no topic mode"),
        ({"tls": True, "ca_file": "/no/ca"}, "'mqtt_ca_file': /no/ca: no such file"),
        ({"tls": True, "ca_file": "DIRECTORY"}, "'mqtt_ca_file': DIRECTORY: not a file"),
        ({"tls": True, "ca_file": "FILE"}, "'mqtt_ca_file': FILE: holds no certificate"),
    ],
)
def test_what_makes_no_sense_is_a_value_error(
    mqtt: dict[str, Any], words: str, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_text(SECRET)

    def filled(text: str) -> str:
        return text.replace("DIRECTORY", str(tmp_path)).replace("FILE", str(file))

    if "ca_file" in mqtt:
        mqtt = {**mqtt, "ca_file": filled(mqtt["ca_file"])}
    with pytest.raises(ValueError) as caught:
        native.Device(**DEVICE, mqtt={**MQTT, **mqtt})
    assert filled(words) in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "mqtt",
    [
        SECRET,
        {**MQTT, "password": [SECRET]},
        {**MQTT, "username": SECRET.encode()},
        {key: value for key, value in MQTT.items() if key != "tls"},
        {**MQTT, "dialect": "klipper"},
    ],
)
def test_r11_no_error_and_no_repr_shows_the_password(mqtt: Any) -> None:
    with pytest.raises((TypeError, ValueError, KeyError)) as caught:
        native.Device(**DEVICE, mqtt=mqtt)
    error: BaseException | None = caught.value
    while error is not None:
        assert SECRET not in repr(error)
        error = error.__cause__ or error.__context__


def test_r11_no_event_and_no_state_shows_the_password(broker: socket.socket) -> None:
    opened = device(broker)
    connection, _ = broker.accept()
    with connection:
        connection.recv(4096)
        connection.sendall(b"\x20\x02\x00\x04")  # bad user name or password
        state = opened.drain(0.0, False, 0)
        until = time.monotonic() + 8.0
        while state.last_error is None and time.monotonic() < until:
            time.sleep(0.01)
            state = opened.drain(0.0, False, 0)
    said = [*opened.events(), repr(opened), repr(state), str(state.last_error)]
    assert "mqtt_password_file" in str(state.last_error)
    assert not [text for text in said if SECRET in text]
    opened.close()
