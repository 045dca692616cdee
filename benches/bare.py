"""What the machine itself takes: a peer that does nothing but receive.

bare.py clock      print its port; then the time (CLOCK_MONOTONIC) of each thing received
bare.py ws PORT    connect to the simulated device there, receive, and do nothing with it
"""

from __future__ import annotations

import base64
import os
import socket
import sys
import time


def main() -> None:
    if sys.argv[1] == "clock":
        with socket.create_server(("127.0.0.1", 0)) as listener:
            print(listener.getsockname()[1], flush=True)
            connection, _ = listener.accept()
        with connection:
            while connection.recv(4096):
                print(time.monotonic(), flush=True)
        return
    port = int(sys.argv[2])
    with socket.create_connection(("127.0.0.1", port)) as connection:
        key = base64.b64encode(os.urandom(16)).decode()
        connection.sendall(
            f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\n"
            f"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Key: {key}\r\n\r\n".encode()
        )
        buffer = bytearray(64 * 1024)
        while connection.recv_into(buffer):
            pass


if __name__ == "__main__":
    main()
