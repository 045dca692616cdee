"""Devices that send what no device should: `peer.py COUNT`.

Each has a port of its own, and all ports are in the first line on stdout. It says that it is off
and sends a report twice per second, to everybody who connects, until a line on stdin names
something else, for all of them at once, on the connection that each has had for the longest time:

    large SECONDS        the largest legal messages, back to back
    bytes SECONDS RATE   reports in packets of one byte each, so many packets per second
    oversize             one message of a byte more than is legal

Each connection that is open, and what was sent, is a JSON line on stdout, with CLOCK_MONOTONIC.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import queue
import socket
import sys
import threading
import time
from typing import Any

LARGEST = 64 * 1024  # bytes
REPORT_TIME = 0.5  # s
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def frame(payload: bytes) -> bytes:
    """A whole text message."""
    size = len(payload)
    if size < 126:
        head = bytes([0x81, size])
    elif size < 1 << 16:
        head = bytes([0x81, 126]) + size.to_bytes(2, "big")
    else:
        head = bytes([0x81, 127]) + size.to_bytes(8, "big")
    return head + payload


def padded(size: int) -> bytes:
    """A report of that many bytes."""
    empty = json.dumps({"settings": {"warehouse_temper": 30}, "padding": ""}).encode()
    return frame(empty[:-2] + b"x" * (size - len(empty)) + b'"}')


REPORT = frame(b'{"settings":{"warehouse_temper":30}}')
LARGE = padded(LARGEST)


class Device:
    def __init__(self, number: int) -> None:
        self.number = number
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.mac = "02" + os.urandom(5).hex().upper()
        self.connections: list[socket.socket] = []
        self.orders: queue.SimpleQueue[list[str]] = queue.SimpleQueue()
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        while True:
            connection, _ = self.listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self.serve, args=[connection], daemon=True).start()

    def serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            if not handshake(connection):
                return
            say("open", device=self.number)
            self.connections.append(connection)
            try:
                connection.sendall(frame(self.snapshot()))
                while True:
                    connection.sendall(REPORT)
                    time.sleep(REPORT_TIME)
                    if connection is self.connections[0] and not self.orders.empty():
                        self.obey(connection, *self.orders.get())
            finally:
                self.connections.remove(connection)

    def snapshot(self) -> bytes:
        settings = {
            **{"fw_version": "V1.0.3", "work_on": 0, "work_mode": 2, "set_temp": 45},
            **{"filtertemp": 30, "hotbedtemp": 80, "custom_temp": 60, "custom_timer": 12},
            **{"isrunning": 0, "remaining_seconds": 43200, "warehouse_temper": 30},
        }
        ap = {"ssid": "Panda_Breath_" + self.mac}
        return json.dumps({"ap": ap, "settings": settings}).encode()

    def obey(self, connection: socket.socket, word: str, *arguments: str) -> None:
        began = time.monotonic()
        sent = 0
        if word == "oversize":
            say("oversize", device=self.number)
            connection.sendall(padded(LARGEST + 1))
            while connection.recv(4096):
                pass
            raise OSError("closed, as it should be")
        end = began + float(arguments[0])
        try:
            if word == "large":
                while time.monotonic() < end:
                    connection.sendall(LARGE)
                    sent += 1
            elif word == "bytes":
                gap = 1.0 / float(arguments[1])
                while time.monotonic() < end:
                    for byte in REPORT:
                        connection.sendall(bytes([byte]))
                        sent += 1
                        time.sleep(max(0.0, began + sent * gap - time.monotonic()))
        finally:  # even if the other side has closed
            say("sent", device=self.number, count=sent, seconds=time.monotonic() - began)


def handshake(connection: socket.socket) -> bool:
    request = b""
    while b"\r\n\r\n" not in request:
        received = connection.recv(4096)
        if not received:
            return False
        request += received
    for line in request.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"sec-websocket-key":
            accept = base64.b64encode(hashlib.sha1(value.strip() + GUID).digest())
            connection.sendall(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                b"Connection: Upgrade\r\nSec-WebSocket-Accept: " + accept + b"\r\n\r\n"
            )
            return True
    return False


_saying = threading.Lock()


def say(event: str, **fields: Any) -> None:
    with _saying:
        print(json.dumps({"event": event, "t": time.monotonic(), **fields}), flush=True)


def main() -> None:
    devices = [Device(n) for n in range(int(sys.argv[1]))]
    print(json.dumps([device.port for device in devices]), flush=True)
    for line in sys.stdin:
        for device in devices:
            device.orders.put(line.split())


if __name__ == "__main__":
    main()
