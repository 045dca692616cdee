"""SAVE_CONFIG: values that modules want kept live in a block at the end of the main file.

The block's lines begin with ``#*# `` so that a text editor's user leaves them alone
(klippy/configfile.py, ConfigAutoSave).
"""

from __future__ import annotations

import configparser
import logging
import os
import re
import time
from typing import Any

from .configreader import ConfigFileReader
from .configwrapper import error

logger = logging.getLogger(__name__)

HEADER = (
    "\n#*# <---------------------- SAVE_CONFIG ---------------------->\n"
    "#*# DO NOT EDIT THIS BLOCK OR BELOW. The contents are auto-generated.\n#*#\n"
)


class ConfigAutoSave:
    """What is saved, and what waits to be saved."""

    def __init__(self, printer: Any) -> None:
        self.printer = printer
        self.fileconfig: configparser.RawConfigParser = ConfigFileReader()._create_fileconfig()
        self.status_save_pending: dict[str, Any] = {}
        self.save_config_pending = False
        printer.lookup_object("gcode").register_command(
            "SAVE_CONFIG", self.cmd_SAVE_CONFIG, desc="Overwrite config file and restart"
        )

    def load_main_config(
        self,
    ) -> tuple[configparser.RawConfigParser, configparser.RawConfigParser]:
        """Return the main configuration with the saved values in it, and those alone."""
        filename = self.printer.get_start_args()["config_file"]
        reader = ConfigFileReader()
        regular, saved = self._split(reader.read_config_file(filename))
        main = reader.build_fileconfig_with_includes(regular, filename)
        saved = self._comment_out(saved, main)
        self.fileconfig = reader.build_fileconfig(saved, filename)
        reader.append_fileconfig(main, saved, "*AUTOSAVE*")
        return main, self.fileconfig

    def get_status(self, eventtime: float) -> dict[str, Any]:
        """Return what Moonraker shows as pending."""
        return {
            "save_config_pending": self.save_config_pending,
            "save_config_pending_items": self.status_save_pending,
        }

    def set(self, section: str, option: str, value: Any) -> None:
        """Remember a value for the next SAVE_CONFIG."""
        if not self.fileconfig.has_section(section):
            self.fileconfig.add_section(section)
        self.fileconfig.set(section, option, str(value))
        options = dict(self.status_save_pending.get(section) or {})
        options[option] = str(value)
        self.status_save_pending = {**self.status_save_pending, section: options}
        self.save_config_pending = True
        logger.info("save_config: set [%s] %s = %s", section, option, value)

    def remove_section(self, section: str) -> None:
        """Forget a saved section at the next SAVE_CONFIG."""
        if self.fileconfig.has_section(section):
            self.fileconfig.remove_section(section)
            self.status_save_pending = {**self.status_save_pending, section: None}
            self.save_config_pending = True

    def cmd_SAVE_CONFIG(self, gcmd: Any) -> None:
        """Write the file anew, keep the old one under a dated name, restart."""
        if not self.fileconfig.sections():
            return
        reader = ConfigFileReader()
        name = self.printer.get_start_args()["config_file"]
        try:
            regular, _ = self._split(reader.read_config_file(name))
        except error:
            raise gcmd.error("Unable to read existing config on SAVE_CONFIG") from None
        block = [
            ("#*# " + line).strip()
            for line in reader.build_config_string(self.fileconfig).split("\n")
        ]
        regular = self._comment_out(regular, self.fileconfig).rstrip()
        self._refuse_conflicts(reader.build_fileconfig_with_includes(regular, name))
        self._replace(name, regular + "\n" + HEADER + "\n".join(block) + "\n")
        self.printer.lookup_object("gcode").request_restart("restart")

    def _refuse_conflicts(self, regular: configparser.RawConfigParser) -> None:
        for section in self.fileconfig.sections():
            for option in self.fileconfig.options(section):
                if regular.has_option(section, option):
                    raise self.printer.command_error(
                        f"SAVE_CONFIG section '{section}' option '{option}' conflicts "
                        "with included value"
                    )

    def _replace(self, name: str, data: str) -> None:
        stem, ext = (name[:-4], ".cfg") if name.endswith(".cfg") else (name, "")
        new = stem + "_autosave" + ext
        with open(new, "w", encoding="utf-8") as f:
            f.write(data)
        os.rename(name, stem + time.strftime("-%Y%m%d_%H%M%S") + ext)
        os.rename(new, name)

    def _split(self, data: str) -> tuple[str, str]:
        regular, found, block = data.partition(HEADER)
        if not found:
            return data, ""
        lines = block.strip().split("\n")
        if any(line != "#*#" and not line.startswith("#*# ") for line in lines):
            logger.warning("Can't read autosave from config file - modifications after header")
            return data, ""
        return regular, "\n".join(["", *(line[4:] for line in lines), ""])

    def _comment_out(self, data: str, other: configparser.RawConfigParser) -> str:
        """Turn the options that `other` has as well into comments."""
        lines = data.split("\n")
        section, in_duplicate = "", False
        for i, line in enumerate(lines):
            text = re.sub("[#;].*$", "", line).rstrip()
            if not text:
                continue
            if not text[0].isspace():
                if text[0] == "[":
                    section, in_duplicate = text[1:-1].strip(), False
                    continue
                in_duplicate = other.has_option(section, re.sub("[^A-Za-z0-9_].*$", "", text))
            if in_duplicate:
                lines[i] = "#" + line
        return "\n".join(lines)
