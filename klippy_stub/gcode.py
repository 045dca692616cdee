"""Commands: parsing, dispatch, answers (klippy/gcode.py).

Two things matter to plugins. A command that raises anything but a command error shuts the printer
down. And the mutex is held for as long as a command runs, waits included, so whoever needs to run
a script while another one waits has to do so from a reactor callback.
"""

from __future__ import annotations

import logging
import operator
import re
import shlex
from collections.abc import Iterable
from typing import Any, Callable

from .gcode_command import CommandError, GCodeCommand
from .strands import StrandExit

logger = logging.getLogger(__name__)

__all__ = ["CommandError", "Coord", "GCodeCommand", "GCodeDispatch"]

Handler = Callable[[Any], Any]

BASE_COMMANDS = {
    "M110": None,
    "M112": None,
    "M115": None,
    "RESTART": "Reload config file and restart host software",
    "FIRMWARE_RESTART": "Restart firmware, host, and reload config",
    "ECHO": None,
    "STATUS": "Report the printer status",
    "HELP": "Report the list of available extended G-Code commands",
}


class Coord(tuple):  # type: ignore[type-arg]
    """A position of at least four axes with names for the first four."""

    __slots__ = ()

    def __new__(cls, t: Iterable[float]) -> Coord:
        """Fill up with zeros."""
        axes = tuple(t)
        return tuple.__new__(cls, axes + (0,) * (4 - len(axes)))

    x = property(operator.itemgetter(0))
    y = property(operator.itemgetter(1))
    z = property(operator.itemgetter(2))
    e = property(operator.itemgetter(3))


class GCodeDispatch:
    """The ``gcode`` object."""

    error = CommandError
    Coord = Coord

    def __init__(self, printer: Any) -> None:
        self.printer = printer
        self.is_fileinput = bool(printer.get_start_args().get("debuginput"))
        printer.register_event_handler("klippy:ready", self._handle_ready)
        printer.register_event_handler("klippy:shutdown", self._handle_shutdown)
        printer.register_event_handler("klippy:disconnect", self._handle_disconnect)
        self.is_printer_ready = False
        self.mutex = printer.get_reactor().mutex()
        self.output_callbacks: list[Callable[[str], Any]] = []
        self.base_gcode_handlers: dict[str, Handler] = {}
        self.ready_gcode_handlers: dict[str, Handler] = {}
        self.gcode_handlers = self.base_gcode_handlers
        self.mux_commands: dict[str, tuple[str, dict[str | None, Handler]]] = {}
        self.gcode_help: dict[str, str] = {}
        self.status_commands: dict[str, dict[str, str]] = {}
        for cmd, desc in BASE_COMMANDS.items():
            self.register_command(cmd, getattr(self, f"cmd_{cmd}"), True, desc)

    # Registering
    def is_traditional_gcode(self, cmd: str) -> bool:
        """Say whether it is a letter and a number."""
        words = cmd.upper().split()
        if not words or len(words[0]) < 2:
            return False
        try:
            float(words[0][1:])
        except ValueError:
            return False
        return words[0][0].isupper() and words[0][1].isdigit()

    def register_command(
        self,
        cmd: str,
        func: Handler | None,
        when_not_ready: bool = False,
        desc: str | None = None,
    ) -> Handler | None:
        """Register a command, or with None take it away and return what it was."""
        if func is None:
            old = self.ready_gcode_handlers.pop(cmd, None)
            self.base_gcode_handlers.pop(cmd, None)
            self._build_status_commands()
            return old
        if cmd in self.ready_gcode_handlers:
            raise self.printer.config_error(f"gcode command {cmd} already registered")
        handler: Handler = func
        if not self.is_traditional_gcode(cmd):
            plain = cmd.replace("_", "A").isalnum() and cmd.upper() == cmd
            if not plain or cmd[0].isdigit() or cmd[1:2].isdigit():
                raise self.printer.config_error(f"Can't register '{cmd}' as it is an invalid name")

            def handler(gcmd: GCodeCommand, func: Handler = func) -> Any:
                return func(self._with_extended_params(gcmd))

        self.ready_gcode_handlers[cmd] = handler
        if when_not_ready:
            self.base_gcode_handlers[cmd] = handler
        if desc is not None:
            self.gcode_help[cmd] = desc
        self._build_status_commands()
        return None

    def register_mux_command(
        self, cmd: str, key: str, value: str | None, func: Handler, desc: str | None = None
    ) -> None:
        """Register one of several handlers, told apart by the parameter `key`."""
        if cmd not in self.mux_commands:
            self.register_command(cmd, lambda gcmd: self._cmd_mux(cmd, gcmd), desc=desc)
            self.mux_commands[cmd] = (key, {})
        first_key, handlers = self.mux_commands[cmd]
        if first_key != key:
            raise self.printer.config_error(
                f"mux command {cmd} {key} {value} may have only one key ({first_key})"
            )
        if value in handlers:
            raise self.printer.config_error(
                f"mux command {cmd} {key} {value} already registered ({handlers})"
            )
        handlers[value] = func

    def get_command_help(self) -> dict[str, str]:
        """Return the help texts."""
        return dict(self.gcode_help)

    def get_status(self, eventtime: float) -> dict[str, Any]:
        """Return the commands that can be given now."""
        return {"commands": self.status_commands}

    def _build_status_commands(self) -> None:
        self.status_commands = {
            cmd: {"help": self.gcode_help[cmd]} if cmd in self.gcode_help else {}
            for cmd in self.gcode_handlers
        }

    def register_output_handler(self, cb: Callable[[str], Any]) -> None:
        """Call `cb(msg)` with every answer."""
        self.output_callbacks.append(cb)

    # States
    def _handle_ready(self) -> None:
        self.is_printer_ready = True
        self._use(self.ready_gcode_handlers, "Ready")

    def _handle_shutdown(self) -> None:
        if self.is_printer_ready:
            self.is_printer_ready = False
            self._use(self.base_gcode_handlers, "Shutdown")

    def _handle_disconnect(self) -> None:
        self._respond_state("Disconnect")

    def _use(self, handlers: dict[str, Handler], state: str) -> None:
        self.gcode_handlers = handlers
        self._build_status_commands()
        self._respond_state(state)

    # Running
    args_r = re.compile("([A-Z_]+|[A-Z*])")

    def _parse(self, line: str, need_ack: bool) -> GCodeCommand:
        text = line.strip()
        parts = self.args_r.split(text.partition(";")[0].upper())
        # A line number, N12, comes before the command's own letter and number
        first = 3 if "".join(parts[:2]) == "N" else 0
        cmd = "".join(parts[first : first + (2 if first else 3)]).strip()
        params = {parts[i]: parts[i + 1].strip() for i in range(1, len(parts), 2)}
        return GCodeCommand(self, cmd, text, params, need_ack)

    def _process_commands(self, commands: list[str], need_ack: bool = True) -> None:
        for line in commands:
            gcmd = self._parse(line, need_ack)
            handler = self.gcode_handlers.get(gcmd.get_command(), self.cmd_default)
            try:
                handler(gcmd)
            except self.error as e:
                self._respond_error(str(e))
                self.printer.send_event("gcode:command_error")
                if not need_ack:
                    raise
            except BaseException as e:  # noqa: B036 - klippy catches everything here
                msg = f'Internal error on command:"{gcmd.get_command()}"'
                logger.exception(msg)
                self.printer.invoke_shutdown(msg)
                self._respond_error(msg)
                if not need_ack or isinstance(e, StrandExit):
                    raise
            gcmd.ack()

    def run_script_from_command(self, script: str) -> None:
        """Run commands from within a command: the mutex is held already."""
        self._process_commands(script.split("\n"), need_ack=False)

    def run_script(self, script: str) -> None:
        """Run commands when the mutex is free; the first error is raised and ends the script."""
        with self.mutex:
            self._process_commands(script.split("\n"), need_ack=False)

    def get_mutex(self) -> Any:
        """Return the mutex that is held while commands run."""
        return self.mutex

    def create_gcode_command(
        self, command: str, commandline: str, params: dict[str, str]
    ) -> GCodeCommand:
        """Return a command object for calling a handler directly."""
        return GCodeCommand(self, command, commandline, params, False)

    # Answers
    def respond_raw(self, msg: str) -> None:
        """Send one line as it is."""
        for cb in self.output_callbacks:
            cb(msg)

    def respond_info(self, msg: str, log: bool = True) -> None:
        """Send lines for people, each marked ``//``."""
        if log:
            logger.info(msg)
        lines = [line.strip() for line in msg.strip().split("\n")]
        self.respond_raw("// " + "\n// ".join(lines))

    def _respond_error(self, msg: str) -> None:
        logger.warning(msg)
        lines = msg.strip().split("\n")
        if len(lines) > 1:
            self.respond_info("\n".join(lines), log=False)
        self.respond_raw(f"!! {lines[0].strip()}")
        if self.is_fileinput:
            self.printer.request_exit("error_exit")

    def _respond_state(self, state: str) -> None:
        self.respond_info(f"Klipper state: {state}", log=False)

    # Dispatch helpers
    def _with_extended_params(self, gcmd: GCodeCommand) -> GCodeCommand:
        words = shlex.shlex(gcmd.get_raw_command_parameters(), posix=True)
        words.whitespace_split = True
        words.commenters = "#;"
        try:
            params = {k.upper(): v for k, v in (word.split("=", 1) for word in words)}
        except ValueError:
            raise self.error(f"Malformed command '{gcmd.get_commandline()}'") from None
        gcmd._params.clear()
        gcmd._params.update(params)
        return gcmd

    def _cmd_mux(self, command: str, gcmd: GCodeCommand) -> None:
        key, handlers = self.mux_commands[command]
        chosen = gcmd.get(key, None) if None in handlers else gcmd.get(key)
        if chosen not in handlers:
            known = [value for value in handlers if value is not None]
            near = [value for value in known if chosen and chosen in value]
            options = ", ".join(f"'{value}'" for value in known)
            hint = f"Did you mean '{near[-1]}'?" if near else f"Options: {options}"
            raise gcmd.error(f"The value '{chosen}' is not valid for {key}. {hint}")
        handlers[chosen](gcmd)

    def cmd_default(self, gcmd: GCodeCommand) -> None:
        """Answer a command that nobody has registered."""
        cmd = gcmd.get_command()
        if cmd == "M105":
            gcmd.ack("T:0")
            return
        if cmd == "M21":
            return
        if not self.is_printer_ready:
            raise gcmd.error(self.printer.get_state_message()[0])
        if not cmd:
            return
        if " " in cmd:
            # A message such as "M117 5 of 7" has been taken for a longer command
            real = cmd.split()[0]
            handler = self.gcode_handlers.get(real)
            if real in ("M117", "M118", "M23") and handler is not None:
                gcmd._command = real
                handler(gcmd)
                return
        elif self._turns_off_what_is_not_there(gcmd):
            return
        gcmd.respond_info(f'Unknown command:"{cmd}"')

    def _turns_off_what_is_not_there(self, gcmd: GCodeCommand) -> bool:
        cmd = gcmd.get_command()
        if cmd in ("M140", "M104"):
            return not gcmd.get_float("S", 0.0)
        if cmd == "M106":
            return self.is_fileinput or not gcmd.get_float("S", 1.0)
        return cmd == "M107"

    # Commands that work without a configuration
    def cmd_M110(self, gcmd: GCodeCommand) -> None:
        """Set the line number: nothing to do."""

    def cmd_M112(self, gcmd: GCodeCommand | None) -> None:
        """Emergency stop."""
        self.printer.invoke_shutdown("Shutdown due to M112 command")

    def cmd_M115(self, gcmd: GCodeCommand) -> None:
        """Say who this is."""
        version = self.printer.get_start_args().get("software_version")
        msg = f"FIRMWARE_NAME:Klipper FIRMWARE_VERSION:{version}"
        if not gcmd.ack(msg):
            gcmd.respond_info(msg)

    def request_restart(self, result: str) -> None:
        """Finish moves, then leave the reactor with this result."""
        if self.is_printer_ready:
            toolhead = self.printer.lookup_object("toolhead")
            print_time = toolhead.get_last_move_time()
            self.printer.send_event("gcode:request_restart", print_time)
            toolhead.dwell(0.500)
            toolhead.wait_moves()
        self.printer.request_exit(result)

    def cmd_RESTART(self, gcmd: GCodeCommand) -> None:
        """Build a new printer in the same process."""
        self.request_restart("restart")

    def cmd_FIRMWARE_RESTART(self, gcmd: GCodeCommand) -> None:
        """The same, and reset the MCU."""
        self.request_restart("firmware_restart")

    def cmd_ECHO(self, gcmd: GCodeCommand) -> None:
        """Repeat the line."""
        gcmd.respond_info(gcmd.get_commandline(), log=False)

    def cmd_STATUS(self, gcmd: GCodeCommand) -> None:
        """Say whether the printer is ready."""
        if not self.is_printer_ready:
            msg = self.printer.get_state_message()[0].rstrip()
            raise gcmd.error(msg + "\nKlipper state: Not ready")
        self._respond_state("Ready")

    def cmd_HELP(self, gcmd: GCodeCommand) -> None:
        """List the commands that have a help text."""
        lines = (
            [] if self.is_printer_ready else ["Printer is not ready - not all commands available."]
        )
        lines.append("Available extended commands:")
        for cmd in sorted(self.gcode_handlers):
            if cmd in self.gcode_help:
                lines.append(f"{cmd:<10}: {self.gcode_help[cmd]}")
        gcmd.respond_info("\n".join(lines), log=False)


def add_early_printer_objects(printer: Any) -> None:
    """Add what exists before the configuration is read."""
    printer.add_object("gcode", GCodeDispatch(printer))
