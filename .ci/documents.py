"""Steps that hold the documents against what they tell of."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from step import ROOT, Result


def documents() -> list[Path]:
    folders = (ROOT / "docs", ROOT / "examples")
    return sorted([*ROOT.glob("*.md"), *(path for f in folders for path in f.rglob("*.md"))])


def links() -> Result:
    """Every link to a file or heading of this project leads somewhere."""
    broken = []
    count = 0
    for path in documents():
        for target in re.findall(r"\]\(([^)\s]+)\)", _without_code(path.read_text())):
            if re.match(r"[a-z]+:", target):
                continue
            count += 1
            file, _, heading = target.partition("#")
            where = (path.parent / file).resolve() if file else path
            if not where.exists():
                broken.append(f"{path.relative_to(ROOT)}: {target} does not exist")
            elif heading and heading not in _headings(where):
                broken.append(f"{path.relative_to(ROOT)}: {target} has no such heading")
    return Result(not broken, f"{count} links", "\n".join(broken))


def _without_code(text: str) -> str:
    return re.sub(r"```.*?```", "", text, flags=re.DOTALL)


def _headings(path: Path) -> set[str]:
    """GitHub's anchors."""
    titles = re.findall(r"^#+ (.+)$", _without_code(path.read_text()), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def tests_named() -> Result:
    """Every test that docs/safety.md names exists."""
    code = "\n".join(
        path.read_text()
        for folder in ("src", "tests")
        for path in sorted((ROOT / folder).rglob("*"))
        if path.suffix in (".rs", ".py")
    )
    exist = set(re.findall(r"\b(?:fn|def) (\w+)", code))
    text = (ROOT / "docs" / "safety.md").read_text()
    rules = r"test|r\d+|identity|one_writer"
    options = r"boost|cutoff|dryer|follow_bed"
    named = set(re.findall(rf"`((?:{rules}|(?:{options})_\w+)_\w+)`", text))
    wrong = sorted(named - exist)
    return Result(not wrong, f"{len(named)} tests", "\n".join(f"{n} does not exist" for n in wrong))


def options() -> Result:
    """docs/configuration.md has a row for every option and status field, and for no other."""
    shim = ast.parse((ROOT / "python" / "panda_breath.py").read_text())
    text = (ROOT / "docs" / "configuration.md").read_text()
    wrong = []
    for what, in_code, heading in (
        ("option", _shim_options(shim), "Options"),
        ("heater option", _word_list(shim, "HEATER_OPTIONS"), "Heater options"),
        ("status field", _status_fields(shim), "Status"),
    ):
        in_docs = _table_names(text, heading)
        wrong += [f"{what} {name} is not in the docs" for name in sorted(in_code - in_docs)]
        wrong += [f"{what} {name} does not exist" for name in sorted(in_docs - in_code)]
    wrong += _kinds_differ(shim, text)
    return Result(not wrong, "", "\n".join(wrong))


def _kinds_differ(shim: ast.Module, text: str) -> list[str]:
    """Options that the docs call something else than a boolean or a number within these limits."""
    wrong = []
    for node in (node for name in OPTION_CLASSES for node in ast.walk(_class(shim, name))):
        if not isinstance(node, ast.Call) or getattr(node.func, "attr", None) != "_read":
            continue
        option, kind = (ast.literal_eval(argument) for argument in node.args[:2])
        if kind not in ("boolean", "int"):
            continue
        limits = {k.arg: ast.literal_eval(k.value) for k in node.keywords if k.arg}
        words = f"{limits.get('minval')} to {limits.get('maxval')}" if kind == "int" else kind
        row = re.search(rf"^\| `{option}` \| ([^|]*) \|", text, flags=re.MULTILINE)
        if row is None or not row[1].endswith(words):
            wrong.append(f"option {option} is {words} in the module, not in the docs")
    return wrong


def _class(module: ast.Module, name: str) -> ast.ClassDef:
    return next(
        node for node in module.body if isinstance(node, ast.ClassDef) and node.name == name
    )


OPTION_CLASSES = ("Options", "Mqtt")
OPTION_READERS = (
    "_address",
    "_choice",
    "_name",
    "_path",
    "_read",
    "_seconds",
    "_sensor",
    "_table",
    "_topic",
)  # beside Klipper's get...


def _shim_options(module: ast.Module) -> set[str]:
    """What the classes with options read: the first argument of whatever reads an option."""
    names = {f"mqtt_{role}_topic" for role in _word_list(module, "TOPIC_ROLES")}
    for node in (node for name in OPTION_CLASSES for node in ast.walk(_class(module, name))):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and (node.func.attr.startswith("get") or node.func.attr in OPTION_READERS)
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            names.add(str(node.args[0].value))
    return names


def _word_list(module: ast.Module, name: str) -> set[str]:
    """The words of a constant, be it a list or one string."""
    for node in module.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) == name:
            texts = [n.value for n in ast.walk(node.value) if isinstance(n, ast.Constant)]
            words = [word for text in texts for word in re.findall(r"\w+", str(text))]
            return set(words)
    return set()


def _status_fields(module: ast.Module) -> set[str]:
    """The keys of the status that the class PandaBreath makes."""
    names = _word_list(module, "STATE_FIELDS")
    function = next(
        node
        for node in ast.walk(_class(module, "PandaBreath"))
        if isinstance(node, ast.FunctionDef) and node.name == "get_status"
    )
    for node in ast.walk(function):
        if isinstance(node, ast.Dict):
            names |= {str(key.value) for key in node.keys if isinstance(key, ast.Constant)}
        elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
            names.add(str(node.slice.value))
    return names


def _table_names(text: str, heading: str) -> set[str]:
    """The names in the first column of the tables below a heading of the second level."""
    match = re.search(rf"^## {heading}$(.*?)(?=^## |\Z)", text, flags=re.MULTILINE | re.DOTALL)
    return set(re.findall(r"^\| `(\w+)`", match[1], flags=re.MULTILINE)) if match else set()
