"""The scripted driver of the shim's tests has the real one's names and signatures."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from typing import Any

import fake_native
import pytest
from fake_native import Device, Driver, State

STUB = Path(__file__).resolve().parent.parent / "python" / "panda_breath_native" / "_core.pyi"
TREE = ast.parse(STUB.read_text())
FUNCTIONS = {
    (body.name, item.name): item
    for body in TREE.body
    if isinstance(body, ast.ClassDef)
    for item in body.body
    if isinstance(item, ast.FunctionDef)
}
NAMES_OF_TESTS = {"clock", "read_at"}


def parameters(function: ast.FunctionDef) -> list[tuple[str, str]]:
    """Names and types, without self."""
    args = function.args
    listed = [*args.args[1:], *args.kwonlyargs]
    # The stub is written for type checkers of Python 3.9, the tests for our own.
    typed = [(arg.arg, ast.unparse(arg.annotation) if arg.annotation else "") for arg in listed]
    return [(name, kind.replace("Optional[str]", "str | None")) for name, kind in typed]


def test_the_fake_device_has_the_methods_and_parameters_of_the_real_one() -> None:
    real = {name: function for (of, name), function in FUNCTIONS.items() if of == "Device"}
    real["__init__"] = real.pop("__new__")
    ours = {
        name: item
        for name, item in vars(Device).items()
        if inspect.isfunction(item) and (name == "__init__" or not name.startswith("_"))
    }
    assert set(ours) == set(real)
    for name, function in real.items():
        signature = list(inspect.signature(ours[name]).parameters.values())[1:]
        assert [(p.name, p.annotation) for p in signature] == parameters(function), name
        kinds = {p.kind for p in signature}
        keywords = bool(function.args.kwonlyargs)
        assert kinds <= {p.KEYWORD_ONLY if keywords else p.POSITIONAL_OR_KEYWORD for p in signature}


def test_the_fake_mqtt_has_the_keys_and_types_of_the_real_one() -> None:
    real = next(b for b in TREE.body if isinstance(b, ast.ClassDef) and b.name == "Mqtt")
    keys = {
        ast.unparse(item.target): ast.unparse(item.annotation)
        for item in real.body
        if isinstance(item, ast.AnnAssign)
    }
    assert fake_native.Mqtt.__annotations__.keys() == keys.keys()
    ours = {name: kind.__forward_arg__ for name, kind in fake_native.Mqtt.__annotations__.items()}
    assert ours == keys


def test_the_fake_state_has_the_fields_of_the_real_one() -> None:
    real = {name for (of, name) in FUNCTIONS if of == "State"}
    ours = {name for name in vars(State()) if name not in NAMES_OF_TESTS} | {"reading_age"}
    assert ours == real


def test_the_fake_module_has_the_names_of_the_real_one() -> None:
    real: set[Any] = {getattr(item, "name", None) for item in TREE.body}
    real |= {ast.unparse(item.target) for item in TREE.body if isinstance(item, ast.AnnAssign)}
    names = set(vars(Driver().module()))
    real -= {None, "Guard", "Mqtt"}  # types, for checkers only
    real -= {"_guard"}  # the other process calls it, not the shim
    assert {"INTERFACE", "__version__", "Device", "State", "main"} == real
    assert real <= names


def test_the_fake_speaks_the_shims_interface() -> None:
    shim = (STUB.parent.parent / "panda_breath.py").read_text()
    assert f"\nINTERFACE = {fake_native.INTERFACE} " in shim


@pytest.mark.parametrize("wish", [("45", True, 0), (45.0, 1, 0), (45.0, True, 0.0)])
def test_the_fake_refuses_types_that_the_real_one_refuses(wish: Any) -> None:
    with pytest.raises(TypeError):
        Driver().session().take("want", *wish)
