"""The API socket: JSON messages that end in 0x03 (klippy/webhooks.py, ServerSocket and friends).

klippy listens with a backlog of 1 and answers from the reactor, so a reactor that stalls can be
felt here even by connect(). With msgspec, which klippy's environment has, NaN is sent as null.
"""

from __future__ import annotations

import json
import logging
import math
import os
import socket
from typing import Any

from .gcode_command import CommandError

logger = logging.getLogger(__name__)


def _finite(obj: Any) -> Any:
    if isinstance(obj, float):
        return obj if math.isfinite(obj) else None
    if isinstance(obj, dict):
        return {key: _finite(value) for key, value in obj.items()}
    return [_finite(value) for value in obj] if isinstance(obj, (list, tuple)) else obj


def json_dumps(obj: Any) -> bytes:
    """Encode as msgspec does."""
    try:
        text = json.dumps(obj, separators=(",", ":"), allow_nan=False)
    except ValueError:
        text = json.dumps(_finite(obj), separators=(",", ":"), allow_nan=False)
    return text.encode()


class WebRequestError(CommandError):
    """What is wrong with a request."""

    def __init__(self, message: str) -> None:
        Exception.__init__(self, message)

    def to_dict(self) -> dict[str, str]:
        """Return the answer."""
        return {"error": "WebRequestError", "message": str(self)}


class Sentinel:
    """Stands for "no default given"."""


class WebRequest:
    """One request and its answer."""

    error = WebRequestError

    def __init__(self, client_conn: Any, request: bytes) -> None:
        self.client_conn = client_conn
        base = json.loads(request)
        if not isinstance(base, dict):
            raise ValueError("Not a top-level dictionary")
        self.id = base.get("id")
        self.method = base.get("method")
        self.params = base.get("params", {})
        if type(self.method) is not str or type(self.params) is not dict:
            raise ValueError("Invalid request type")
        self.response: Any = None
        self.is_error = False

    def get_client_connection(self) -> Any:
        """Return who asked."""
        return self.client_conn

    def get(self, item: str, default: Any = Sentinel, types: Any = None) -> Any:
        """Return a parameter."""
        value = self.params.get(item, default)
        if value is Sentinel:
            raise WebRequestError(f"Missing Argument [{item}]")
        if types is not None and type(value) not in types and item in self.params:
            raise WebRequestError(f"Invalid Argument Type [{item}]")
        return value

    def get_str(self, item: str, default: Any = Sentinel) -> Any:
        """Return a parameter that is text."""
        return self.get(item, default, types=(str,))

    def get_int(self, item: str, default: Any = Sentinel) -> Any:
        """Return a parameter that is an integer."""
        return self.get(item, default, types=(int,))

    def get_float(self, item: str, default: Any = Sentinel) -> Any:
        """Return a parameter that is a number."""
        return float(self.get(item, default, types=(int, float)))

    def get_dict(self, item: str, default: Any = Sentinel) -> Any:
        """Return a parameter that is a dictionary."""
        return self.get(item, default, types=(dict,))

    def get_method(self) -> Any:
        """Return the endpoint's path."""
        return self.method

    def set_error(self, error: WebRequestError) -> None:
        """Answer with an error."""
        self.is_error = True
        self.response = error.to_dict()

    def send(self, data: Any) -> None:
        """Set the answer, once."""
        if self.response is not None:
            raise WebRequestError("Multiple calls to send not allowed")
        self.response = data

    def finish(self) -> dict[str, Any] | None:
        """Return the message to send, or None if nobody waits for one."""
        if self.id is None:
            return None
        kind = "error" if self.is_error else "result"
        return {"id": self.id, kind: {} if self.response is None else self.response}


class ClientConnection:
    """One connected client."""

    def __init__(self, server: ServerSocket, sock: socket.socket) -> None:
        self.printer = server.printer
        self.webhooks = server.webhooks
        self.reactor = server.reactor
        self.server = server
        self.uid = id(self)
        self.sock = sock
        self.fd_handle = self.reactor.register_fd(
            sock.fileno(), self.process_received, self._do_send
        )
        self.partial_data = self.send_buffer = b""
        self.is_blocking = False
        self.blocking_count = 0

    def set_client_info(self, client_info: Any, state_msg: str | None = None) -> None:
        """Note who this is."""
        logger.info("webhooks client %s: %s", self.uid, state_msg or f"Client info {client_info}")

    def close(self) -> None:
        """Hang up."""
        if self.fd_handle is None:
            return
        self.reactor.unregister_fd(self.fd_handle)
        self.fd_handle = None
        self.sock.close()
        self.server.pop_client(self.uid)

    def is_closed(self) -> bool:
        """Say whether it has hung up."""
        return self.fd_handle is None

    def process_received(self, eventtime: float) -> None:
        """Read; every request gets a callback of its own, so one that waits blocks no other."""
        try:
            data = self.sock.recv(4096)
        except OSError:
            return
        if not data:
            self.close()
            return
        *requests, self.partial_data = (self.partial_data + data).split(b"\x03")
        for request in requests:
            try:
                web_request = WebRequest(self, request)
            except Exception:
                logger.exception("webhooks: Error decoding Server Request %s", request)
                continue
            self.reactor.register_callback(
                lambda e, web_request=web_request: self._process_request(web_request)
            )

    def _process_request(self, web_request: WebRequest) -> None:
        try:
            self.webhooks.get_callback(web_request.get_method())(web_request)
        except self.printer.command_error as e:
            web_request.set_error(WebRequestError(str(e)))
        except Exception as e:
            msg = f"Internal Error on WebRequest: {web_request.get_method()}"
            logger.exception(msg)
            web_request.set_error(WebRequestError(str(e)))
            self.printer.invoke_shutdown(msg)
        result = web_request.finish()
        if result is not None:
            self.send(result)

    def send(self, data: Any) -> None:
        """Send a message. One that is no JSON shuts the printer down, as in klippy."""
        try:
            self.send_buffer += json_dumps(data) + b"\x03"
        except (TypeError, ValueError) as e:
            msg = f"json encoding error: {e}"
            logger.exception(msg)
            self.printer.invoke_shutdown(msg)
            return
        if not self.is_blocking:
            self._do_send()

    def _do_send(self, eventtime: float | None = None) -> None:
        if self.fd_handle is None:
            return
        try:
            sent = self.sock.send(self.send_buffer)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.close()
            return
        blocked = sent < len(self.send_buffer)
        if blocked != self.is_blocking:
            self.reactor.set_fd_wake(self.fd_handle, not blocked, blocked)
            self.is_blocking = blocked
            self.blocking_count = 5
        self.send_buffer = self.send_buffer[sent:]


class ServerSocket:
    """The listening socket, if the start arguments name one."""

    def __init__(self, webhooks: Any, printer: Any) -> None:
        self.printer = printer
        self.webhooks = webhooks
        self.reactor = printer.get_reactor()
        self.clients: dict[int, ClientConnection] = {}
        self.fd_handle: Any = None
        address = printer.get_start_args().get("apiserver")
        if not address:
            return
        if os.path.exists(address):
            os.remove(address)
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.setblocking(False)
        self.sock.bind(address)
        self.sock.listen(1)
        self.fd_handle = self.reactor.register_fd(self.sock.fileno(), self._handle_accept)
        printer.register_event_handler("klippy:disconnect", self._handle_disconnect)

    def _handle_accept(self, eventtime: float) -> None:
        try:
            sock, _ = self.sock.accept()
        except OSError:
            return
        sock.setblocking(False)
        client = ClientConnection(self, sock)
        self.clients[client.uid] = client

    def _handle_disconnect(self) -> None:
        for client in list(self.clients.values()):
            client.close()
        self.reactor.unregister_fd(self.fd_handle)
        self.sock.close()

    def pop_client(self, client_id: int) -> None:
        """Forget a client."""
        self.clients.pop(client_id, None)

    def stats(self, eventtime: float) -> tuple[bool, str]:
        """Hang up on clients that have not read for five seconds."""
        for client in list(self.clients.values()):
            if client.is_blocking:
                client.blocking_count -= 1
                if client.blocking_count < 0:
                    client.close()
        return False, ""
