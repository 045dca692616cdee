"""Turn configuration files into a RawConfigParser: klippy/configfile.py, ConfigFileReader.

klippy cuts everything after a ``#`` before parsing, wherever it stands in the line, and lets a
later section of the same name add to or override an earlier one (``strict=False``).
"""

from __future__ import annotations

import configparser
import glob
import io
import logging
import os

from .configwrapper import error

logger = logging.getLogger(__name__)


def _without_comment(line: str) -> str:
    return line.split("#", 1)[0]


class ConfigFileReader:
    """Reads files and follows ``[include ...]``."""

    def read_config_file(self, filename: str) -> str:
        """Return the file's text."""
        try:
            with open(filename, encoding="utf-8", newline="") as f:
                data = f.read()
        except (OSError, UnicodeDecodeError):
            msg = f"Unable to open config file {filename}"
            logger.exception(msg)
            raise error(msg) from None
        return data.replace("\r\n", "\n")

    def build_config_string(self, fileconfig: configparser.RawConfigParser) -> str:
        """Write a parser's content as text."""
        out = io.StringIO()
        fileconfig.write(out)
        return out.getvalue().strip()

    def append_fileconfig(
        self, fileconfig: configparser.RawConfigParser, data: str, filename: str
    ) -> None:
        """Add text to a parser."""
        if data:
            fileconfig.read_file(
                io.StringIO("\n".join(_without_comment(line) for line in data.split("\n"))),
                filename,
            )

    def build_fileconfig(self, data: str, filename: str) -> configparser.RawConfigParser:
        """Parse text that includes nothing."""
        fileconfig = self._create_fileconfig()
        self.append_fileconfig(fileconfig, data, filename)
        return fileconfig

    def build_fileconfig_with_includes(
        self, data: str, filename: str
    ) -> configparser.RawConfigParser:
        """Parse text and what it includes, in the order in which it stands."""
        fileconfig = self._create_fileconfig()
        self._parse(data, filename, fileconfig, [])
        return fileconfig

    def _create_fileconfig(self) -> configparser.RawConfigParser:
        return configparser.RawConfigParser(strict=False, inline_comment_prefixes=(";", "#"))

    def _parse(
        self,
        data: str,
        filename: str,
        fileconfig: configparser.RawConfigParser,
        parents: list[str],
    ) -> None:
        path = os.path.abspath(filename)
        if path in parents:
            raise error(f"Recursive include of config file '{filename}'")
        pending: list[str] = []
        for line in data.split("\n"):
            line = _without_comment(line)
            header = configparser.RawConfigParser.SECTCRE.match(line)
            name = header.group("header") if header else ""
            if not name.startswith("include "):
                pending.append(line)
                continue
            self.append_fileconfig(fileconfig, "\n".join(pending), filename)
            pending.clear()
            for included in self._matches(filename, name[len("include ") :].strip()):
                self._parse(self.read_config_file(included), included, fileconfig, [*parents, path])
        self.append_fileconfig(fileconfig, "\n".join(pending), filename)

    def _matches(self, source: str, pattern: str) -> list[str]:
        wanted = os.path.join(os.path.dirname(source), pattern)
        found = sorted(glob.glob(wanted))
        if not found and not glob.has_magic(wanted):
            raise error(f"Include file '{wanted}' does not exist")
        return found
