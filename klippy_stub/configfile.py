"""The ``configfile`` object: reading, validating and showing the configuration.

klippy/configfile.py, PrinterConfig and ConfigValidate. `status_raw_config` is built before any
module is loaded, so a section that a module adds while loading is not in it on mainline; a module
that wants it shown has to put it there itself.
"""

from __future__ import annotations

import configparser
import logging
from typing import Any

from .autosave import ConfigAutoSave
from .configreader import ConfigFileReader
from .configwrapper import ConfigWrapper, error, sentinel

logger = logging.getLogger(__name__)

__all__ = ["ConfigValidate", "ConfigWrapper", "PrinterConfig", "error", "sentinel"]


class ConfigValidate:
    """Finds what is in the file but was read by nobody."""

    def __init__(self, printer: Any) -> None:
        self.printer = printer
        self.status_settings: dict[str, dict[str, Any]] = {}
        self.access_tracking: dict[tuple[str, str], Any] = {}
        self.autosave_options: set[tuple[str, str]] = set()

    def start_access_tracking(
        self, autosave_fileconfig: configparser.RawConfigParser
    ) -> dict[tuple[str, str], Any]:
        """Return the dict that every ConfigWrapper notes its reads in."""
        self.autosave_options = {
            (section.lower(), option.lower())
            for section in autosave_fileconfig.sections()
            for option in autosave_fileconfig.options(section)
        }
        self.access_tracking = {}
        return self.access_tracking

    def check_unused(self, fileconfig: configparser.RawConfigParser) -> None:
        """Raise for the first section or option that nobody knows."""
        known = set(self.access_tracking) | self.autosave_options
        sections = {name for name, _ in self.printer.lookup_objects()} | {s for s, _ in known}
        for name in fileconfig.sections():
            section = name.lower()
            if section not in sections:
                raise error(f"Section '{section}' is not a valid config section")
            for option in fileconfig.options(name):
                if (section, option.lower()) not in known:
                    raise error(f"Option '{option.lower()}' is not valid in section '{section}'")
        for (section, option), value in self.access_tracking.items():
            self.status_settings.setdefault(section, {})[option] = value
        self.access_tracking.clear()
        self.autosave_options.clear()

    def get_status(self, eventtime: float) -> dict[str, Any]:
        """Return the values modules have read."""
        return {"settings": self.status_settings}


class PrinterConfig:
    """The printer's configuration as a printer object."""

    def __init__(self, printer: Any) -> None:
        self.printer = printer
        self.autosave = ConfigAutoSave(printer)
        self.validate = ConfigValidate(printer)
        self.status_raw_config: dict[str, dict[str, str]] = {}
        self.status_warnings: list[dict[str, Any]] = []

    def get_printer(self) -> Any:
        """Return the printer."""
        return self.printer

    def read_config(self, filename: str) -> ConfigWrapper:
        """Read another file, apart from the main configuration and untracked."""
        reader = ConfigFileReader()
        fileconfig = reader.build_fileconfig(reader.read_config_file(filename), filename)
        return ConfigWrapper(self.printer, fileconfig, {}, "printer")

    def read_main_config(self) -> ConfigWrapper:
        """Read the main file with its includes and saved values."""
        fileconfig, saved = self.autosave.load_main_config()
        tracking = self.validate.start_access_tracking(saved)
        config = ConfigWrapper(self.printer, fileconfig, tracking, "printer")
        self.status_raw_config = {
            section.get_name(): {
                option: section.get(option, note_valid=False)
                for option in section.get_prefix_options("")
            }
            for section in config.get_prefix_sections("")
        }
        return config

    def log_config(self, config: ConfigWrapper) -> None:
        """Write the whole configuration to the log, as klippy does: no place for secrets."""
        text = ConfigFileReader().build_config_string(config.fileconfig)
        self.printer.set_rollover_info(
            "config", f"===== Config file =====\n{text}\n======================="
        )

    def check_unused_options(self, config: ConfigWrapper) -> None:
        """Raise for what nobody read."""
        self.validate.check_unused(config.fileconfig)

    def runtime_warning(self, msg: str) -> None:
        """Warn once about something found while running."""
        if self._warn({"type": "runtime_warning", "message": msg}):
            logger.warning(msg)

    def deprecate(
        self, section: str, option: str, value: Any = None, msg: str | None = None
    ) -> None:
        """Warn once about an option, or about one value of it."""
        where = f"ption '{option}' in section '{section}' is deprecated."
        if value is None:
            entry, text = {"type": "deprecated_option"}, "O" + where
        else:
            entry = {"type": "deprecated_value", "value": value}
            text = f"Value '{value}' in o" + where
        self._warn({**entry, "message": msg or text, "section": section, "option": option})

    def deprecate_gcode(
        self, cmd: str, param: Any = None, value: Any = None, msg: str | None = None
    ) -> None:
        """Warn once about a command or a parameter of it."""
        what = f"Command '{cmd}'"
        if param is not None:
            named = f"Parameter '{param}'" if value is None else f"Value '{param}={value}'"
            what = f"{named} in command '{cmd}'"
        self._warn(
            {
                "type": "deprecated_gcode",
                "message": msg or f"{what} is deprecated.",
                "command": cmd,
                "parameter": param,
                "value": str(value),
            }
        )

    def _warn(self, entry: dict[str, Any]) -> bool:
        if entry in self.status_warnings:
            return False
        self.status_warnings = [*self.status_warnings, entry]
        return True

    def get_status(self, eventtime: float) -> dict[str, Any]:
        """Return raw text, read values, warnings, and what waits for SAVE_CONFIG."""
        return {
            "config": self.status_raw_config,
            "warnings": self.status_warnings,
            **self.autosave.get_status(eventtime),
            **self.validate.get_status(eventtime),
        }

    def set(self, section: str, option: str, value: Any) -> None:
        """Remember a value for the next SAVE_CONFIG."""
        self.autosave.set(section, option, value)

    def remove_section(self, section: str) -> None:
        """Forget a saved section at the next SAVE_CONFIG."""
        self.autosave.remove_section(section)
