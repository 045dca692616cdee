"""The compiled half of Panda Breath for Klipper. What is in here: _core.pyi."""

from ._core import INTERFACE, Device, State, __version__, main

__all__ = ["INTERFACE", "Device", "State", "__version__", "main"]
