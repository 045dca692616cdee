"""The stub's own printer modules, one per kind of section, named as Klipper names them."""
