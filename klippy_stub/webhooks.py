"""Endpoints of the API socket (klippy/webhooks.py, WebHooks and GCodeHelper)."""

from __future__ import annotations

import os
import socket
import sys
from typing import Any, Callable

from .api_socket import ServerSocket, WebRequestError

Endpoint = Callable[[Any], Any]


class WebHooks:
    """The ``webhooks`` object."""

    def __init__(self, printer: Any) -> None:
        self.printer = printer
        self._endpoints: dict[str, Endpoint] = {}
        self._mux_endpoints: dict[str, tuple[str, dict[Any, Endpoint]]] = {}
        self._remote_methods: dict[str, dict[Any, dict[str, Any]]] = {}
        self.register_endpoint("list_endpoints", self._handle_list_endpoints)
        self.register_endpoint("info", self._handle_info_request)
        self.register_endpoint("emergency_stop", self._handle_estop_request)
        self.register_endpoint("register_remote_method", self._handle_rpc_registration)
        self.sconn = ServerSocket(self, printer)

    def register_endpoint(self, path: str, callback: Endpoint) -> None:
        """Answer requests for `path`."""
        if path in self._endpoints:
            raise WebRequestError("Path already registered to an endpoint")
        self._endpoints[path] = callback

    def register_mux_endpoint(self, path: str, key: str, value: Any, callback: Endpoint) -> None:
        """Answer requests for `path` whose parameter `key` is `value`."""
        if path not in self._mux_endpoints:
            self.register_endpoint(path, self._handle_mux)
            self._mux_endpoints[path] = (key, {})
        first_key, callbacks = self._mux_endpoints[path]
        if first_key != key:
            raise self.printer.config_error(
                f"mux endpoint {path} {key} {value} may have only one key ({first_key})"
            )
        if value in callbacks:
            raise self.printer.config_error(
                f"mux endpoint {path} {key} {value} already registered ({callbacks})"
            )
        callbacks[value] = callback

    def _handle_mux(self, web_request: Any) -> None:
        key, callbacks = self._mux_endpoints[web_request.get_method()]
        value = web_request.get(key, None) if None in callbacks else web_request.get(key)
        if value not in callbacks:
            raise web_request.error(f"The value '{value}' is not valid for {key}")
        callbacks[value](web_request)

    def _handle_list_endpoints(self, web_request: Any) -> None:
        web_request.send({"endpoints": list(self._endpoints)})

    def _handle_info_request(self, web_request: Any) -> None:
        client_info = web_request.get_dict("client_info", None)
        if client_info is not None:
            web_request.get_client_connection().set_client_info(client_info)
        message, state = self.printer.get_state_message()
        args = self.printer.get_start_args()
        web_request.send(
            {
                "state": state,
                "state_message": message,
                "hostname": socket.gethostname(),
                "klipper_path": os.path.dirname(os.path.dirname(os.path.abspath(__file__))),
                "python_path": sys.executable,
                "process_id": os.getpid(),
                "user_id": os.getuid(),
                "group_id": os.getgid(),
                **{
                    key: args.get(key)
                    for key in ("log_file", "config_file", "software_version", "cpu_info")
                },
            }
        )

    def _handle_estop_request(self, web_request: Any) -> None:
        self.printer.invoke_shutdown("Shutdown due to webhooks request")

    def _handle_rpc_registration(self, web_request: Any) -> None:
        template = web_request.get_dict("response_template")
        method = web_request.get_str("remote_method")
        connections = self._remote_methods.setdefault(method, {})
        connections[web_request.get_client_connection()] = template

    def get_connection(self) -> ServerSocket:
        """Return the listening socket."""
        return self.sconn

    def get_callback(self, path: str) -> Endpoint:
        """Return an endpoint's function."""
        if path not in self._endpoints:
            raise WebRequestError(f"webhooks: No registered callback for path '{path}'")
        return self._endpoints[path]

    def get_status(self, eventtime: float) -> dict[str, Any]:
        """Return the printer's state."""
        message, state = self.printer.get_state_message()
        return {"state": state, "state_message": message}

    def stats(self, eventtime: float) -> tuple[bool, str]:
        """Look after slow clients."""
        return self.sconn.stats(eventtime)

    def call_remote_method(self, method: str, **kwargs: Any) -> None:
        """Call a method that clients have registered."""
        if method not in self._remote_methods:
            raise self.printer.command_error(f"Remote method '{method}' not registered")
        alive = {c: t for c, t in self._remote_methods[method].items() if not c.is_closed()}
        if not alive:
            del self._remote_methods[method]
            raise self.printer.command_error(f"No active connections for method '{method}'")
        self._remote_methods[method] = alive
        for connection, template in alive.items():
            connection.send({"params": kwargs, **template})


class GCodeHelper:
    """G-code through the API socket. Scripts wait for the mutex like everybody else."""

    def __init__(self, printer: Any) -> None:
        self.printer = printer
        self.gcode = printer.lookup_object("gcode")
        self.clients: dict[Any, dict[str, Any]] = {}
        webhooks = printer.lookup_object("webhooks")
        webhooks.register_endpoint("gcode/help", self._handle_help)
        webhooks.register_endpoint("gcode/script", self._handle_script)
        webhooks.register_endpoint("gcode/restart", self._handle_restart)
        webhooks.register_endpoint("gcode/firmware_restart", self._handle_firmware_restart)
        webhooks.register_endpoint("gcode/subscribe_output", self._handle_subscribe_output)

    def _handle_help(self, web_request: Any) -> None:
        web_request.send(self.gcode.get_command_help())

    def _handle_script(self, web_request: Any) -> None:
        self.gcode.run_script(web_request.get_str("script"))

    def _handle_restart(self, web_request: Any) -> None:
        self.gcode.run_script("restart")

    def _handle_firmware_restart(self, web_request: Any) -> None:
        self.gcode.run_script("firmware_restart")

    def _handle_subscribe_output(self, web_request: Any) -> None:
        if not self.clients:
            self.gcode.register_output_handler(self._output)
        template = web_request.get_dict("response_template", {})
        self.clients[web_request.get_client_connection()] = template

    def _output(self, msg: str) -> None:
        for connection, template in list(self.clients.items()):
            if not connection.is_closed():
                connection.send({**template, "params": {"response": msg}})


def add_early_printer_objects(printer: Any) -> None:
    """Add what exists before the configuration is read."""
    printer.add_object("webhooks", WebHooks(printer))
    GCodeHelper(printer)
