"""One command with its parameters (klippy/gcode.py, GCodeCommand)."""

from __future__ import annotations

from typing import Any, Callable


class CommandError(Exception):
    """A command that cannot be obeyed. Anything else that is raised shuts the printer down."""


class GCodeCommand:
    """What a command handler gets."""

    error = CommandError

    class sentinel:  # noqa: N801 - klippy's name
        """Stands for "no default given"."""

    def __init__(
        self,
        gcode: Any,
        command: str,
        commandline: str,
        params: dict[str, str],
        need_ack: bool,
    ) -> None:
        self._command = command
        self._commandline = commandline
        self._params = params
        self._need_ack = need_ack
        self.respond_info: Callable[..., None] = gcode.respond_info
        self.respond_raw: Callable[[str], None] = gcode.respond_raw

    def get_command(self) -> str:
        """Return the command's name."""
        return self._command

    def get_commandline(self) -> str:
        """Return the whole line."""
        return self._commandline

    def get_command_parameters(self) -> dict[str, str]:
        """Return the parameters as text."""
        return self._params

    def get_raw_command_parameters(self) -> str:
        """Return what stands after the command, untouched but for line number and checksum."""
        line, command = self._commandline, self._command
        start, end = len(command), len(line)
        if line[:start].upper() != command:
            start += line.upper().find(command)
            star = line.rfind("*")
            if star >= 0 and line[star + 1 :].isdigit():
                end = star
        if line[start : start + 1].isspace():
            start += 1
        return line[start:end]

    def ack(self, msg: str | None = None) -> bool:
        """Answer ``ok`` once, if anybody waits for it."""
        if not self._need_ack:
            return False
        self.respond_raw(f"ok {msg}" if msg else "ok")
        self._need_ack = False
        return True

    def get(
        self,
        name: str,
        default: Any = sentinel,
        parser: Callable[[str], Any] = str,
        minval: Any = None,
        maxval: Any = None,
        above: Any = None,
        below: Any = None,
    ) -> Any:
        """Return a parameter, parsed and within bounds."""
        text = self._params.get(name)
        where = f"Error on '{self._commandline}':"
        if text is None:
            if default is self.sentinel:
                raise self.error(f"{where} missing {name}")
            return default
        try:
            value = parser(text)
        except Exception:
            raise self.error(f"{where} unable to parse {text}") from None
        if minval is not None and value < minval:
            raise self.error(f"{where} {name} must have minimum of {minval}")
        if maxval is not None and value > maxval:
            raise self.error(f"{where} {name} must have maximum of {maxval}")
        if above is not None and value <= above:
            raise self.error(f"{where} {name} must be above {above}")
        if below is not None and value >= below:
            raise self.error(f"{where} {name} must be below {below}")
        return value

    def get_int(
        self, name: str, default: Any = sentinel, minval: Any = None, maxval: Any = None
    ) -> Any:
        """Return a parameter as an integer."""
        return self.get(name, default, int, minval, maxval)

    def get_float(
        self,
        name: str,
        default: Any = sentinel,
        minval: Any = None,
        maxval: Any = None,
        above: Any = None,
        below: Any = None,
    ) -> Any:
        """Return a parameter as a number. NaN and inf pass, as in klippy."""
        return self.get(name, default, float, minval, maxval, above, below)
