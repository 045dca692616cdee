"""Find the module behind a section: the stub's own first, then the search path.

klippy imports ``extras.<name>`` with its own folder on ``sys.path``. Here ``extras`` is a made
package: its path is the search path, and the stub's own modules are entered into it, so that a
plugin's ``from . import heaters`` works. Modules stay in ``sys.modules`` over a RESTART, as in
klippy: an edited plugin is not reloaded.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys
import types
from collections.abc import Iterable
from typing import Any, Callable

from . import extras as own

DEFAULT_PATH = [os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "python")]


def default_path() -> list[str]:
    """Return KLIPPY_STUB_EXTRAS, or the folder ``python`` beside this package."""
    given = os.environ.get("KLIPPY_STUB_EXTRAS")
    return given.split(os.pathsep) if given else DEFAULT_PATH


def set_path(directories: Iterable[str] | None = None) -> None:
    """Say where modules are looked for that the stub has none of."""
    package = sys.modules.get("extras")
    if package is None or not hasattr(package, "_klippy_stub"):
        package = types.ModuleType("extras", "Klipper's modules, as far as the stub has them.")
        vars(package)["_klippy_stub"] = True
        sys.modules["extras"] = package
        for info in pkgutil.iter_modules(own.__path__):
            module = importlib.import_module(f"{own.__name__}.{info.name}")
            sys.modules[f"extras.{info.name}"] = module
            setattr(package, info.name, module)
    path = default_path() if directories is None else list(directories)
    package.__path__ = [os.path.abspath(d) for d in path]


def find_init(section: str) -> Callable[[Any], Any] | None:
    """Return the function that makes a section's object, or None if nobody has one.

    A module that exists but fails to import is an error here, as in klippy.
    """
    if "extras" not in sys.modules:
        set_path()
    name, *rest = section.split()
    if f"extras.{name}" not in sys.modules and not _exists(name):
        return None
    module = importlib.import_module(f"extras.{name}")
    return getattr(module, "load_config_prefix" if rest else "load_config", None)


def _exists(name: str) -> bool:
    return any(
        os.path.exists(os.path.join(d, name + ".py"))
        or os.path.exists(os.path.join(d, name, "__init__.py"))
        for d in sys.modules["extras"].__path__
    )
