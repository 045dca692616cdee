"""[respond]: M118 and RESPOND (klippy/extras/respond.py)."""

from __future__ import annotations

from typing import Any

PREFIXES = {"echo": "echo:", "command": "//", "error": "!!"}


class HostResponder:
    """The ``respond`` object."""

    def __init__(self, config: Any) -> None:
        self.printer = config.get_printer()
        prefix = config.getchoice("default_type", PREFIXES, "echo")
        self.default_prefix = config.get("default_prefix", prefix)
        gcode = self.printer.lookup_object("gcode")
        gcode.register_command("M118", self.cmd_M118, True)
        gcode.register_command(
            "RESPOND", self.cmd_RESPOND, True, desc="Echo the message prepended with a prefix"
        )

    def cmd_M118(self, gcmd: Any) -> None:
        """Repeat the text."""
        gcmd.respond_raw(f"{self.default_prefix} {gcmd.get_raw_command_parameters()}")

    def cmd_RESPOND(self, gcmd: Any) -> None:
        """Repeat the text with a chosen prefix."""
        prefix, space = self.default_prefix, " "
        kind = gcmd.get("TYPE", None)
        if kind is not None:
            kind = kind.lower()
            if kind == "echo_no_space":
                prefix, space = "echo:", ""
            elif kind in PREFIXES:
                prefix = PREFIXES[kind]
            else:
                raise gcmd.error(
                    f"RESPOND TYPE '{kind}' is invalid. Must be one"
                    " of 'echo', 'command', or 'error'"
                )
        gcmd.respond_raw(f"{gcmd.get('PREFIX', prefix)}{space}{gcmd.get('MSG', '')}")


def load_config(config: Any) -> HostResponder:
    """Make the object."""
    return HostResponder(config)
