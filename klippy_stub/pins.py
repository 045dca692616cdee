"""Pin descriptions and the chips behind them (klippy/pins.py).

A chip is anything with `setup_pin(pin_type, pin_params)`; its name may hold a space.
"""

from __future__ import annotations

from typing import Any


class error(Exception):  # noqa: N801, N818 - klippy's name
    """A pin that does not exist or is used twice. Ends in state error, not shutdown."""


class PrinterPins:
    """The ``pins`` object."""

    error = error

    def __init__(self) -> None:
        self.chips: dict[str, Any] = {}
        self.active_pins: dict[str, dict[str, Any]] = {}
        self.allow_multi_use_pins: dict[str, bool] = {}

    def parse_pin(
        self, pin_desc: str, can_invert: bool = False, can_pullup: bool = False
    ) -> dict[str, Any]:
        """Split ``[^~][!]chip:pin`` into its parts."""
        desc = pin_desc.strip()
        pullup = invert = 0
        if can_pullup and desc[:1] in ("^", "~"):
            pullup = 1 if desc[0] == "^" else -1
            desc = desc[1:].strip()
        if can_invert and desc[:1] == "!":
            invert = 1
            desc = desc[1:].strip()
        chip_name, colon, pin = (part.strip() for part in desc.partition(":"))
        if not colon:
            chip_name, pin = "mcu", desc
        if chip_name not in self.chips:
            raise error(f"Unknown pin chip name '{chip_name}'")
        if set("^~!: \t\n") & set(pin):
            marks = ("[^~] " if can_pullup else "") + ("[!] " if can_invert else "")
            raise error(
                f"Invalid pin description '{pin_desc}'\nFormat is: {marks}[chip_name:] pin_name"
            )
        return {
            "chip": self.chips[chip_name],
            "chip_name": chip_name,
            "pin": pin,
            "invert": invert,
            "pullup": pullup,
        }

    def lookup_pin(
        self,
        pin_desc: str,
        can_invert: bool = False,
        can_pullup: bool = False,
        share_type: str | None = None,
    ) -> dict[str, Any]:
        """Reserve a pin; using it twice is an error unless both name the same `share_type`."""
        params = self.parse_pin(pin_desc, can_invert, can_pullup)
        name = f"{params['chip_name']}:{params['pin']}"
        shared = self.active_pins.get(name)
        if shared is None:
            params["share_type"] = share_type
            self.active_pins[name] = params
            return params
        if name not in self.allow_multi_use_pins:
            if share_type is None or share_type != shared["share_type"]:
                raise error(f"pin {params['pin']} used multiple times in config")
            if any(params[key] != shared[key] for key in ("invert", "pullup")):
                raise error(f"Shared pin {params['pin']} must have same polarity")
        return shared

    def setup_pin(self, pin_type: str, pin_desc: str) -> Any:
        """Reserve a pin and have its chip make the object for it."""
        params = self.lookup_pin(
            pin_desc,
            can_invert=pin_type in ("endstop", "digital_out", "pwm"),
            can_pullup=pin_type == "endstop",
        )
        return params["chip"].setup_pin(pin_type, params)

    def reset_pin_sharing(self, pin_params: dict[str, Any]) -> None:
        """Give a pin back."""
        del self.active_pins[f"{pin_params['chip_name']}:{pin_params['pin']}"]

    def register_chip(self, chip_name: str, chip: Any) -> None:
        """Add a chip under a new name."""
        chip_name = chip_name.strip()
        if chip_name in self.chips:
            raise error(f"Duplicate chip name '{chip_name}'")
        self.chips[chip_name] = chip

    def allow_multi_use_pin(self, pin_desc: str) -> None:
        """Let a pin be used any number of times."""
        params = self.parse_pin(pin_desc)
        self.allow_multi_use_pins[f"{params['chip_name']}:{params['pin']}"] = True


def add_printer_objects(config: Any) -> None:
    """Add the ``pins`` object."""
    config.get_printer().add_object("pins", PrinterPins())
