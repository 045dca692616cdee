"""[heater_generic NAME]: a heater and nothing else (klippy/extras/heater_generic.py)."""

from __future__ import annotations

from typing import Any


def load_config_prefix(config: Any) -> Any:
    """Make the heater; it is the printer object itself."""
    return config.get_printer().load_object(config, "heaters").setup_heater(config)
