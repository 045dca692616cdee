"""The Printer: objects, events, states and the order things happen in (klippy/klippy.py).

Order at start: sections are loaded as they stand in the file, then the toolhead with its helpers,
then unread options are errors, then klippy:mcu_identify, klippy:connect, klippy:ready. The ready
and shutdown handlers run where pausing raises; klippy:disconnect runs when the reactor has
stopped, so pausing there is a real sleep.
"""

from __future__ import annotations

import logging
import time
from typing import Any, Callable

from . import configfile, gcode, gcode_io, loader, mcu, pins, query_status, toolhead, webhooks

logger = logging.getLogger(__name__)

message_ready = "Printer is ready"

message_startup = """
Printer is not ready
The klippy host software is attempting to connect.  Please
retry in a few moments.
"""

message_restart = """
Once the underlying issue is corrected, use the "RESTART"
command to reload the config and restart the host software.
Printer is halted
"""


class Printer:
    """One life of the host software, from reading the configuration to exit or restart."""

    config_error = configfile.error
    command_error = gcode.CommandError

    def __init__(self, main_reactor: Any, bglogger: Any, start_args: dict[str, Any]) -> None:
        self.bglogger = bglogger
        self.start_args = start_args
        self.reactor = main_reactor
        self.reactor.register_callback(self._connect)
        self.state_message = message_startup
        self.in_shutdown_state = False
        self.run_result: str | None = None
        self.event_handlers: dict[str, list[Callable[..., Any]]] = {}
        self.objects: dict[str, Any] = {}
        for module in (gcode, gcode_io, webhooks, query_status):
            module.add_early_printer_objects(self)

    def get_start_args(self) -> dict[str, Any]:
        """Return what the program was started with."""
        return self.start_args

    def get_reactor(self) -> Any:
        """Return the reactor."""
        return self.reactor

    def get_state_message(self) -> tuple[str, str]:
        """Return the state's words and its category."""
        if self.state_message == message_ready:
            category = "ready"
        elif self.state_message == message_startup:
            category = "startup"
        else:
            category = "shutdown" if self.in_shutdown_state else "error"
        return self.state_message, category

    def is_shutdown(self) -> bool:
        """Say whether the printer is in shutdown."""
        return self.in_shutdown_state

    def _set_state(self, msg: str) -> None:
        # The first error stays: it is the cause, later ones are consequences
        if self.state_message in (message_ready, message_startup):
            self.state_message = msg
        if msg != message_ready and self.start_args.get("debuginput") is not None:
            self.request_exit("error_exit")

    def update_error_msg(self, oldmsg: str, newmsg: str) -> None:
        """Replace an error's words by clearer ones, if it is still that error."""
        healthy = (message_ready, message_startup)
        if self.state_message == oldmsg and oldmsg not in healthy and newmsg not in healthy:
            self.state_message = newmsg
            logger.error(newmsg)

    # Objects
    def add_object(self, name: str, obj: Any) -> None:
        """Add a printer object under a new name."""
        if name in self.objects:
            raise self.config_error(f"Printer object '{name}' already created")
        self.objects[name] = obj

    def lookup_object(self, name: str, default: Any = configfile.sentinel) -> Any:
        """Return the object of that name."""
        if name in self.objects:
            return self.objects[name]
        if default is configfile.sentinel:
            raise self.config_error(f"Unknown config object '{name}'")
        return default

    def lookup_objects(self, module: str | None = None) -> list[tuple[str, Any]]:
        """Return name and object of all, or of those one module has made."""
        if module is None:
            return list(self.objects.items())
        named = [(n, o) for n, o in self.objects.items() if n.startswith(module + " ")]
        return [(module, self.objects[module]), *named] if module in self.objects else named

    def load_object(self, config: Any, section: str, default: Any = configfile.sentinel) -> Any:
        """Return a section's object; load its module first if that has not happened."""
        if section in self.objects:
            return self.objects[section]
        init = loader.find_init(section)
        if init is None:
            if default is configfile.sentinel:
                raise self.config_error(f"Unable to load module '{section}'")
            return default
        self.objects[section] = init(config.getsection(section))
        return self.objects[section]

    # Start
    def _read_config(self) -> None:
        self.objects["configfile"] = pconfig = configfile.PrinterConfig(self)
        config = pconfig.read_main_config()
        if self.bglogger is not None:
            pconfig.log_config(config)
        pins.add_printer_objects(config)
        mcu.add_printer_objects(config)
        # The list is taken once: a section added while loading is not loaded by this loop
        for section in config.get_prefix_sections(""):
            self.load_object(config, section.get_name(), None)
        toolhead.add_printer_objects(config)
        pconfig.check_unused_options(config)

    def _connect(self, eventtime: float) -> None:
        try:
            self._read_config()
            self.send_event("klippy:mcu_identify")
            for cb in self.event_handlers.get("klippy:connect", []):
                if self.state_message is not message_startup:
                    return
                cb()
        except (self.config_error, pins.error) as e:
            logger.exception("Config error")
            self._set_state(f"{e}\n{message_restart}")
            return
        except mcu.error as e:
            msg = "MCU error during connect"
            logger.exception(msg)
            self._set_state(msg)
            self.send_event("klippy:notify_mcu_error", msg, {"error": str(e)})
            return
        except Exception as e:
            logger.exception("Unhandled exception during connect")
            self._set_state(f"Internal error during connect: {e}\n{message_restart}")
            return
        try:
            self._set_state(message_ready)
            with self.reactor.assert_no_pause():
                for cb in self.event_handlers.get("klippy:ready", []):
                    if self.state_message is not message_ready:
                        return
                    cb()
        except Exception as e:
            logger.exception("Unhandled exception during ready callback")
            self.invoke_shutdown(f"Internal error during ready callback: {e}")

    # Running
    def run(self) -> str | None:
        """Run until exit or restart is asked for, and say which."""
        logger.info("Start printer at %s (%.1f)", time.asctime(), self.reactor.monotonic())
        self.guarded_run(self.reactor.run)
        return self.finish()

    def guarded_run(self, run: Callable[[], Any]) -> None:
        """Run the reactor; an exception that reaches it shuts the printer down, a second ends it.

        The exception is logged and does not come out of here, as in klippy.
        """
        try:
            run()
        except BaseException as e:
            if not self.reactor.came_from_inside(e):
                raise
            msg = "Unhandled exception during run"
            logger.exception(msg)
            try:
                self.reactor.register_callback(lambda e: self.invoke_shutdown(msg))
                run()
            except BaseException as e:
                if not self.reactor.came_from_inside(e):
                    raise
                logger.exception("Repeat unhandled exception during run")
                self.run_result = "error_exit"

    def finish(self) -> str | None:
        """Send the last events; the reactor no longer runs."""
        run_result = self.run_result
        try:
            if run_result == "firmware_restart":
                self.send_event("klippy:firmware_restart")
            self.send_event("klippy:disconnect")
        except BaseException:  # noqa: B036
            logger.exception("Unhandled exception during post run")
        return run_result

    def set_rollover_info(self, name: str, info: str | None, log: bool = True) -> None:
        """Write a fact to the log (klippy repeats it in each new log file)."""
        if log:
            logger.info(info)

    def invoke_shutdown(self, msg: str, details: dict[str, Any] = {}) -> None:  # noqa: B006
        """Stop everything that can hurt; only the first call counts."""
        if self.in_shutdown_state:
            return
        logger.error("Transition to shutdown state: %s", msg)
        self.in_shutdown_state = True
        self._set_state(msg)
        with self.reactor.assert_no_pause():
            for cb in self.event_handlers.get("klippy:shutdown", []):
                try:
                    cb()
                except BaseException:  # noqa: B036 - a Rust panic is one, and klippy catches it
                    logger.exception("Exception during shutdown handler")
            for cb in self.event_handlers.get("klippy:analyze_shutdown", []):
                try:
                    cb(msg, details)
                except BaseException:  # noqa: B036
                    logger.exception("Exception in analyze_shutdown handler")

    def invoke_async_shutdown(self, msg: str, details: dict[str, Any] = {}) -> None:  # noqa: B006
        """Shut down from any thread."""
        self.reactor.register_async_callback(lambda e: self.invoke_shutdown(msg, details))

    # Events
    def register_event_handler(self, event: str, callback: Callable[..., Any]) -> None:
        """Call `callback` at each such event, after those registered before it."""
        self.event_handlers.setdefault(event, []).append(callback)

    def send_event(self, event: str, *params: Any) -> list[Any]:
        """Call the handlers and return what they returned."""
        return [cb(*params) for cb in self.event_handlers.get(event, [])]

    def request_exit(self, result: str) -> None:
        """Leave `run` with this result; the first result counts."""
        if self.run_result is None:
            self.run_result = result
        self.reactor.end()
