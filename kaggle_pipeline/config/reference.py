"""docs/configuration.md: every setting, from the dataclasses that define them.

``python -m kaggle_pipeline.config.reference docs/configuration.md`` (``make docs``) writes the part
between the two marks.
"""

import ast
import inspect
import sys
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import yaml

from kaggle_pipeline.config.experiment import Experiment
from kaggle_pipeline.config.names import HOME
from kaggle_pipeline.config.yaml_text import parse_yaml
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.files import replace_between

BEGIN = "<!-- settings: begin (written by make docs) -->"
END = "<!-- settings: end -->"
_PROBES = (-1, 0, 0.5, 1, 1.5, 2, 10, 1e9)
"""Values by which a number's range is found: a refused one says what it must be."""
_VALID = {("EncoderConfig", "source"): "keras:MobileNetV2"}
"""Of required fields that do not take any text."""


@dataclass(frozen=True)
class Setting:
    """One row of the table.

    Attributes
    ----------
    key : str
        Dotted, such as ``image.epochs``.
    kind : str
        Its type, or the words it may be.
    default : str
    allowed : str
        What a number must be; empty where any is.
    meaning : str
        The docstring of the field.
    """

    key: str
    kind: str
    default: str
    allowed: str
    meaning: str


def list_settings() -> list[Setting]:
    """Return every setting of an :class:`Experiment`, in its order."""
    return list(_settings_of(Experiment, ""))


def describe_settings(configs: Path = HOME / "configs") -> str:
    """Return all settings as Markdown, a table for each section.

    Parameters
    ----------
    configs : pathlib.Path
        Folder of the YAML files that the last column names.
    """
    used = _configs_by_key(configs)
    parts: dict[str, list[str]] = {}
    for one in list_settings():
        section = one.key.rpartition(".")[0]
        names = ", ".join(f"`{name}`" for name in used.get(one.key, ()))
        cells = [f"`{one.key}`", one.kind, f"`{one.default}`", one.allowed, one.meaning, names]
        escaped = [cell.replace("|", "\\|") for cell in cells]
        parts.setdefault(section, []).append("| " + " | ".join(escaped) + " |")
    head = "| key | type | default | allowed | meaning | set by |\n|---|---|---|---|---|---|\n"
    return "\n\n".join(
        f"### {f'`{section}`' if section else 'The experiment itself'}\n\n{head}" + "\n".join(rows)
        for section, rows in parts.items()
    )


def update_reference(path: Path) -> None:
    """Write the settings between the marks of a Markdown file.

    Raises
    ------
    PipelineError
        If the file or a mark is missing.
    """
    replace_between(path, BEGIN, END, f"\n\n{describe_settings()}\n\n")


def _settings_of(cls: type, prefix: str) -> Iterator[Setting]:
    hints, meanings = typing.get_type_hints(cls), _meanings(cls)
    sections = []
    for one in fields(cls):
        if is_dataclass(hints[one.name]):
            sections.append((hints[one.name], f"{prefix}{one.name}."))
            continue
        key = prefix + one.name
        row = typing.get_args(hints[one.name])[:1]
        meaning = meanings.get(one.name, "")
        yield Setting(key, _kind(hints[one.name]), _default(one), _allowed(cls, one.name), meaning)
        if row and is_dataclass(row[0]):  # a list of sections, or one that may be left out
            several = typing.get_origin(hints[one.name]) is tuple
            sections.append((row[0], f"{key}[]." if several else f"{key}."))
    for section, name in sections:
        yield from _settings_of(section, name)


def _meanings(cls: type) -> dict[str, str]:
    """Return the docstring below each field, in one line."""
    (tree,) = ast.parse(inspect.cleandoc(inspect.getsource(cls))).body
    found, name = {}, None
    for node in tree.body:
        if isinstance(node, ast.AnnAssign):
            name = node.target.id
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and name:
            found[name] = " ".join(str(node.value.value).replace("``", "`").split())
            name = None
        else:
            name = None
    return found


def _kind(hint: Any) -> str:
    arguments = typing.get_args(hint)
    if hint is type(None):
        return "null"
    if is_dataclass(hint):
        return "section"
    if typing.get_origin(hint) is typing.Literal:
        return ", ".join(f"`{word}`" for word in arguments)
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return " or ".join(_kind(one) for one in arguments)
    if typing.get_origin(hint) is tuple:
        inner = arguments[0]
        return "list of " + ("sections" if is_dataclass(inner) else _kind(inner))
    if typing.get_origin(hint) is not None:
        return "mapping"
    return {"str": "text", "int": "whole number", "float": "number", "bool": "true or false"}.get(
        getattr(hint, "__name__", ""), getattr(hint, "__name__", str(hint))
    )


def _default(one: Field) -> str:
    if one.default is MISSING and one.default_factory is MISSING:
        return "–"
    value = one.default if one.default is not MISSING else one.default_factory()
    if isinstance(value, tuple):
        value = list(value)
    return yaml.safe_dump(value, default_flow_style=True).partition("\n")[0]


def _allowed(cls: type, name: str) -> str:
    """Return what the class itself says of values that it refuses."""
    required = {
        one.name: _VALID.get((cls.__name__, one.name), "x")
        for one in fields(cls)
        if one.default is MISSING and one.default_factory is MISSING
    }
    hint = typing.get_type_hints(cls)[name]
    inside = () if typing.get_origin(hint) is Mapping else typing.get_args(hint)
    numeric = {int, float} & {hint, *inside}
    wishes: list[str] = []
    for probe in _PROBES if numeric else ():
        if float not in numeric and probe != int(probe):
            continue
        value = probe if float in numeric else int(probe)
        try:
            cls(**{**required, name: value})
        except PipelineError as error:
            text = str(error)
            place, _, wish = text.partition(", must be ")
            if wish and place.split(" is ")[0].endswith(name) and wish not in wishes:
                wishes.append(wish)
        except (TypeError, ValueError):
            continue
    return "; ".join(wishes)


def _configs_by_key(configs: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for path in sorted(configs.glob("*.yaml")):
        for key in _flat_keys(parse_yaml(path.read_text(encoding="utf-8")), ""):
            names = found.setdefault(key, [])
            if path.stem not in names:
                names.append(path.stem)
    return found


def _flat_keys(content: Any, prefix: str) -> Iterator[str]:
    if isinstance(content, dict) and content:
        for name, value in content.items():
            yield f"{prefix}{name}"
            yield from _flat_keys(value, f"{prefix}{name}.")
    elif isinstance(content, list):
        for value in content:
            if isinstance(value, dict):
                yield from _flat_keys(value, f"{prefix.rstrip('.')}[].")


if __name__ == "__main__":
    update_reference(Path(sys.argv[1]))
