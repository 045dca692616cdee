"""One section of the configuration, as a module sees it: klippy/configfile.py, ConfigWrapper.

Every option that is read is noted, default values included, because what nobody read is an error
at the end of loading (`configvalidate`). The exception is ``configparser.Error`` itself.
"""

from __future__ import annotations

import configparser
from typing import Any, Callable

error = configparser.Error


class sentinel:  # noqa: N801 - klippy's name
    """Stands for "no default given"."""


class ConfigWrapper:
    """Typed access to the options of a section."""

    error = configparser.Error

    def __init__(
        self,
        printer: Any,
        fileconfig: configparser.RawConfigParser,
        access_tracking: dict[tuple[str, str], Any],
        section: str,
    ) -> None:
        self.printer = printer
        self.fileconfig = fileconfig
        self.access_tracking = access_tracking
        self.section = section

    def get_printer(self) -> Any:
        """Return the printer this configuration belongs to."""
        return self.printer

    def get_name(self) -> str:
        """Return the section's full name."""
        return self.section

    def _read(
        self,
        parser: Callable[..., Any],
        option: str,
        default: Any,
        minval: Any = None,
        maxval: Any = None,
        above: Any = None,
        below: Any = None,
        note_valid: bool = True,
    ) -> Any:
        seen = (self.section.lower(), option.lower())
        where = f"Option '{option}' in section '{self.section}'"
        if not self.fileconfig.has_option(self.section, option):
            if default is sentinel:
                raise error(f"{where} must be specified")
            if note_valid and default is not None:
                self.access_tracking[seen] = default
            return default
        try:
            value = parser(self.section, option)
        except error:
            raise
        except Exception:
            raise error(f"Unable to parse option '{option}' in section '{self.section}'") from None
        if note_valid:
            self.access_tracking[seen] = value
        if minval is not None and value < minval:
            raise error(f"{where} must have minimum of {minval}")
        if maxval is not None and value > maxval:
            raise error(f"{where} must have maximum of {maxval}")
        if above is not None and value <= above:
            raise error(f"{where} must be above {above}")
        if below is not None and value >= below:
            raise error(f"{where} must be below {below}")
        return value

    def get(self, option: str, default: Any = sentinel, note_valid: bool = True) -> Any:
        """Return the option as text."""
        return self._read(self.fileconfig.get, option, default, note_valid=note_valid)

    def getint(
        self,
        option: str,
        default: Any = sentinel,
        minval: Any = None,
        maxval: Any = None,
        note_valid: bool = True,
    ) -> Any:
        """Return the option as an integer within bounds."""
        return self._read(
            self.fileconfig.getint, option, default, minval, maxval, note_valid=note_valid
        )

    def getfloat(
        self,
        option: str,
        default: Any = sentinel,
        minval: Any = None,
        maxval: Any = None,
        above: Any = None,
        below: Any = None,
        note_valid: bool = True,
    ) -> Any:
        """Return the option as a number within bounds."""
        return self._read(
            self.fileconfig.getfloat,
            option,
            default,
            minval,
            maxval,
            above,
            below,
            note_valid=note_valid,
        )

    def getboolean(self, option: str, default: Any = sentinel, note_valid: bool = True) -> Any:
        """Return the option as a truth value in configparser's words."""
        return self._read(self.fileconfig.getboolean, option, default, note_valid=note_valid)

    def getchoice(
        self, option: str, choices: Any, default: Any = sentinel, note_valid: bool = True
    ) -> Any:
        """Return what `choices` has for the option's value."""
        table = {c: c for c in choices} if isinstance(choices, list) else choices
        numbers = bool(table) and type(next(iter(table))) is int
        read = self.getint if numbers else self.get
        chosen = read(option, default, note_valid=note_valid)
        if chosen not in table:
            raise error(
                f"Choice '{chosen}' for option '{option}' in section '{self.section}'"
                " is not a valid choice"
            )
        return table[chosen]

    def getlists(
        self,
        option: str,
        default: Any = sentinel,
        seps: tuple[str, ...] = (",",),
        count: int | None = None,
        parser: Callable[[str], Any] = str,
        note_valid: bool = True,
    ) -> Any:
        """Return the option as tuples nested once per separator, the last one outermost."""

        def split(text: str, level: int) -> tuple[Any, ...]:
            # An empty text is no elements, not one empty element
            parts = [p.strip() for p in text.split(seps[level])] if text.strip() else []
            if level:
                return tuple(split(p, level - 1) for p in parts if p)
            if count is not None and len(parts) != count:
                raise error(
                    f"Option '{option}' in section '{self.section}' must have {count} elements"
                )
            return tuple(parser(p) for p in parts)

        def read(section: str, option: str) -> tuple[Any, ...]:
            return split(self.fileconfig.get(section, option), len(seps) - 1)

        return self._read(read, option, default, note_valid=note_valid)

    def getlist(
        self,
        option: str,
        default: Any = sentinel,
        sep: str = ",",
        count: int | None = None,
        note_valid: bool = True,
    ) -> Any:
        """Return the option as a tuple of texts."""
        return self.getlists(option, default, (sep,), count, str, note_valid)

    def getintlist(
        self,
        option: str,
        default: Any = sentinel,
        sep: str = ",",
        count: int | None = None,
        note_valid: bool = True,
    ) -> Any:
        """Return the option as a tuple of integers."""
        return self.getlists(option, default, (sep,), count, int, note_valid)

    def getfloatlist(
        self,
        option: str,
        default: Any = sentinel,
        sep: str = ",",
        count: int | None = None,
        note_valid: bool = True,
    ) -> Any:
        """Return the option as a tuple of numbers."""
        return self.getlists(option, default, (sep,), count, float, note_valid)

    def getsection(self, section: str) -> ConfigWrapper:
        """Return another section of the same file, whether it exists or not."""
        return ConfigWrapper(self.printer, self.fileconfig, self.access_tracking, section)

    def has_section(self, section: str) -> bool:
        """Say whether the file has that section."""
        return self.fileconfig.has_section(section)

    def get_prefix_sections(self, prefix: str) -> list[ConfigWrapper]:
        """Return the sections whose names begin so, in file order; the list is taken now."""
        return [self.getsection(s) for s in self.fileconfig.sections() if s.startswith(prefix)]

    def get_prefix_options(self, prefix: str) -> list[str]:
        """Return the names of this section's options that begin so."""
        return [o for o in self.fileconfig.options(self.section) if o.startswith(prefix)]

    def deprecate(self, option: str, value: Any = None) -> None:
        """Put a warning into the configfile object's status, if the option is used."""
        if self.fileconfig.has_option(self.section, option):
            self.printer.lookup_object("configfile").deprecate(self.section, option, value)
