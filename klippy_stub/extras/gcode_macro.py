"""[gcode_macro NAME]: commands made of commands (klippy/extras/gcode_macro.py).

Klipper's templates are Jinja2. It is used here when it is installed; without it a script has to
be plain, and one with braces is a config error that says so. Templates call `get_status` under
`assert_no_pause`.
"""

from __future__ import annotations

import ast
import copy
import json
import logging
from collections.abc import Iterator
from typing import Any

logger = logging.getLogger(__name__)

try:
    import jinja2
except ImportError:
    jinja2 = None  # type: ignore[assignment]


class GetStatusWrapper:
    """The ``printer`` of a template: status by object name, asked for once each."""

    def __init__(self, printer: Any, eventtime: float | None = None) -> None:
        self.printer = printer
        self.reactor = printer.get_reactor()
        self.eventtime = self.reactor.monotonic() if eventtime is None else eventtime
        self.cache: dict[str, Any] = {}

    def __getitem__(self, val: Any) -> Any:
        name = str(val).strip()
        if name not in self.cache:
            obj = self.printer.lookup_object(name, None)
            if obj is None or not hasattr(obj, "get_status"):
                raise KeyError(val)
            with self.reactor.assert_no_pause():
                status = obj.get_status(self.eventtime)
            self.cache[name] = copy.deepcopy(status)
        return self.cache[name]

    def __contains__(self, val: Any) -> bool:
        try:
            self[val]
        except KeyError:
            return False
        return True

    def __iter__(self) -> Iterator[str]:
        return (name for name, _ in self.printer.lookup_objects() if name in self)


class TemplateWrapper:
    """One script."""

    def __init__(self, printer: Any, env: Any, name: str, script: str) -> None:
        self.printer = printer
        self.name = name
        self.script = script
        self.gcode = printer.lookup_object("gcode")
        self.gcode_macro = printer.lookup_object("gcode_macro")
        self.template: Any = None
        if env is None:
            if "{" in script:
                raise printer.config_error(
                    f"Error loading template '{name}': the stub needs jinja2 for it"
                )
            return
        try:
            self.template = env.from_string(script)
        except Exception as e:
            msg = f"Error loading template '{name}': {type(e).__name__}: {e}"
            logger.exception(msg)
            raise printer.config_error(msg) from None

    def render(self, context: dict[str, Any] | None = None) -> str:
        """Return the commands."""
        if self.template is None:
            return self.script
        if context is None:
            context = self.gcode_macro.create_template_context()
        try:
            return str(self.template.render(context))
        except Exception as e:
            msg = f"Error evaluating '{self.name}': {type(e).__name__}: {e}"
            logger.exception(msg)
            raise self.gcode.error(msg) from None

    def run_gcode_from_command(self, context: dict[str, Any] | None = None) -> None:
        """Run the commands from within a command."""
        self.gcode.run_script_from_command(self.render(context))


class PrinterGCodeMacro:
    """The ``gcode_macro`` object, which makes templates for others as well."""

    def __init__(self, config: Any) -> None:
        self.printer = config.get_printer()
        self.env = None if jinja2 is None else jinja2.Environment("{%", "%}", "{", "}")

    def load_template(self, config: Any, option: str, default: str | None = None) -> Any:
        """Make a template of an option's text."""
        script = config.get(option) if default is None else config.get(option, default)
        return TemplateWrapper(self.printer, self.env, f"{config.get_name()}:{option}", script)

    def _emergency_stop(self, msg: str = "action_emergency_stop") -> str:
        self.printer.invoke_shutdown(f"Shutdown due to {msg}")
        return ""

    def _respond_info(self, msg: str) -> str:
        self.printer.lookup_object("gcode").respond_info(msg)
        return ""

    def _raise_error(self, msg: str) -> str:
        raise self.printer.command_error(msg)

    def _call_remote_method(self, method: str, **kwargs: Any) -> str:
        try:
            self.printer.lookup_object("webhooks").call_remote_method(method, **kwargs)
        except self.printer.command_error:
            logger.exception("Remote Call Error")
        return ""

    def create_template_context(self, eventtime: float | None = None) -> dict[str, Any]:
        """Return the names a template can use."""
        return {
            "printer": GetStatusWrapper(self.printer, eventtime),
            "action_emergency_stop": self._emergency_stop,
            "action_respond_info": self._respond_info,
            "action_raise_error": self._raise_error,
            "action_call_remote_method": self._call_remote_method,
        }


class GCodeMacro:
    """One macro."""

    def __init__(self, config: Any) -> None:
        words = config.get_name().split()
        if len(words) > 2:
            raise config.error(f"Name of section '{config.get_name()}' contains illegal whitespace")
        self.alias = words[1].upper()
        self.printer = config.get_printer()
        gcode_macro = self.printer.load_object(config, "gcode_macro")
        self.template = gcode_macro.load_template(config, "gcode")
        self.create_context = gcode_macro.create_template_context
        self.gcode = self.printer.lookup_object("gcode")
        self.rename_existing = config.get("rename_existing", None)
        self.cmd_desc = config.get("description", "G-Code macro")
        if self.rename_existing is None:
            self.gcode.register_command(self.alias, self.cmd, desc=self.cmd_desc)
        else:
            kinds = [self.gcode.is_traditional_gcode(c) for c in (self.alias, self.rename_existing)]
            if kinds[0] != kinds[1]:
                raise config.error(
                    "G-Code macro rename of different types"
                    f" ('{self.alias}' vs '{self.rename_existing}')"
                )
            self.printer.register_event_handler("klippy:connect", self.handle_connect)
        self.gcode.register_mux_command(
            "SET_GCODE_VARIABLE",
            "MACRO",
            words[1],
            self.cmd_SET_GCODE_VARIABLE,
            desc="Set the value of a G-Code macro variable",
        )
        self.in_script = False
        self.variables: dict[str, Any] = {}
        for option in config.get_prefix_options("variable_"):
            try:
                value = ast.literal_eval(config.get(option))
                json.dumps(value)
            except (SyntaxError, TypeError, ValueError) as e:
                raise config.error(
                    f"Option '{option}' in section '{config.get_name()}'"
                    f" is not a valid literal: {e}"
                ) from None
            self.variables[option[len("variable_") :]] = value

    def handle_connect(self) -> None:
        """Take the place of a command that exists."""
        previous = self.gcode.register_command(self.alias, None)
        if previous is None:
            raise self.printer.config_error(
                f"Existing command '{self.alias}' not found in gcode_macro rename"
            )
        desc = f"Renamed builtin of '{self.alias}'"
        self.gcode.register_command(self.rename_existing, previous, desc=desc)
        self.gcode.register_command(self.alias, self.cmd, desc=self.cmd_desc)

    def get_status(self, eventtime: float) -> dict[str, Any]:
        """Return the variables."""
        return self.variables

    def cmd_SET_GCODE_VARIABLE(self, gcmd: Any) -> None:
        """Set a variable."""
        name, text = gcmd.get("VARIABLE"), gcmd.get("VALUE")
        if name not in self.variables:
            raise gcmd.error(f"Unknown gcode_macro variable '{name}'")
        try:
            value = ast.literal_eval(text)
            json.dumps(value)
        except (SyntaxError, TypeError, ValueError) as e:
            raise gcmd.error(f"Unable to parse '{text}' as a literal: {e}") from None
        self.variables = {**self.variables, name: value}

    def cmd(self, gcmd: Any) -> None:
        """Run the macro."""
        if self.in_script:
            raise gcmd.error(f"Macro {self.alias} called recursively")
        context = {**self.variables, **self.create_context()}
        context["params"] = gcmd.get_command_parameters()
        context["rawparams"] = gcmd.get_raw_command_parameters()
        self.in_script = True
        try:
            self.template.run_gcode_from_command(context)
        finally:
            self.in_script = False


def load_config(config: Any) -> PrinterGCodeMacro:
    """Make the object that makes templates."""
    return PrinterGCodeMacro(config)


def load_config_prefix(config: Any) -> GCodeMacro:
    """Make a macro."""
    return GCodeMacro(config)
