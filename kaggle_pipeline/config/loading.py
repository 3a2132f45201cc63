"""Experiments as files: YAML in, resolved YAML out, strict both ways.

In: a YAML file and ``key=value`` overrides. Out: an ``Experiment``, or
an error that names the key and the nearest allowed one.
"""

import copy
import dataclasses
import math
import os
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml

from kaggle_pipeline.config.embedding import EncoderConfig
from kaggle_pipeline.config.experiment import Experiment
from kaggle_pipeline.config.names import HOME
from kaggle_pipeline.config.yaml_text import parse_yaml
from kaggle_pipeline.core.errors import PipelineError, closest, nearest
from kaggle_pipeline.core.files import atomic_path
from kaggle_pipeline.core.record import read_checked

_ALSO_CALLED = {"cuda": "gpu", "nvidia": "gpu", "mps": "gpu", "rocm": "gpu", "xla": "tpu"}
"""What other packages call a device."""
_MEANT = {
    f"table.{word}": f"table.{key}"
    for key, words in {
        "group": ("patient", "patient_id", "lesion", "lesion_id", "groups"),
        "target": ("label", "labels", "class", "classes", "diagnosis", "y"),
        "image": ("photo", "file", "filename", "file_name", "path", "id", "image_id"),
        "images": ("photos", "folder", "image_dir", "images_dir"),
    }.items()
    for word in words
}
"""What people call the columns of their own table, and the keys that name these."""
_FORMER = {"image": {"shuffle_buffer_mb"}}
"""Keys of runs made before, by section, that mean nothing any more and are not looked at."""
_CLOSE = 0.6
"""Likeness from which a config's name is taken for the one that was meant (difflib's ratio)."""
_MOVED = {("calibration", "sensitivities"): "decision"}
"""Keys of runs made before that stand in another section now."""
_SHORT = {EncoderConfig: "source"}
"""Sections that a word may stand for, and the key that it is then the value of."""


def load_experiment(path: Path, overrides: Sequence[str] = ()) -> Experiment:
    """Read a YAML file and apply ``key=value`` overrides.

    Parameters
    ----------
    path : pathlib.Path
        The file; keys are the fields of :class:`Experiment`, nested. Or the bare name of one that
        comes with this, such as ``demo``.
    overrides : sequence of str
        Such as ``"image.epochs=3"``; values are YAML.

    Raises
    ------
    PipelineError
        For a missing file, bad YAML, an unknown key, a wrong type or a value out of range; it says
        whether the file or an override is to blame.
    """
    path = _find(Path(path))
    try:
        content = parse_yaml(read_checked(path).decode())
    except FileNotFoundError:
        raise PipelineError(f"no config {path}{_nearest_config(path)}") from None
    except OSError as error:
        raise PipelineError(f"cannot read config {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise PipelineError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(content, dict):
        raise PipelineError(f"{path}: expected keys and values at the top")
    return parse_changed(content, overrides, path)


def parse_changed(content: dict[str, Any], overrides: Sequence[str], source: Path) -> Experiment:
    """Build an :class:`Experiment` of what ``source`` holds, changed by ``key=value``.

    Raises
    ------
    PipelineError
        As :func:`load_experiment`.
    """
    changed = copy.deepcopy(content)
    for override in overrides:
        _apply_override(changed, override)
    try:
        return parse_experiment(changed)
    except PipelineError as error:
        raise PipelineError(f"{_blame(source, content, overrides, error)}: {error}") from None


def _find(path: Path) -> Path:
    """The file; of a bare name such as ``demo`` that of the experiments that come with this."""
    shipped = HOME / "configs" / f"{path}.yaml"
    bare = path.name == str(path) and not path.suffix
    return shipped if bare and not path.exists() and shipped.exists() else path


def read_settings(path: Path) -> dict[str, Any]:
    """Return the resolved config that a stage keeps, as plain dicts.

    Raises
    ------
    PipelineError
        If it is damaged, or not what was written.
    """
    try:
        content = parse_yaml(read_checked(path).decode())
    except (yaml.YAMLError, UnicodeDecodeError):
        content = None
    if not isinstance(content, dict):
        raise PipelineError(
            f"{path} is damaged: bring it back from a copy, or run that stage anew with --overwrite"
        )
    return content


def _nearest_config(path: Path) -> str:
    """A hint: the file of this name in the folder where the user is, or a config of nearly this
    name beside ``path`` or of those that come with this.

    Else those that are there. Endings are alike, so they are not compared.
    """
    beside, shipped = (
        {one.stem: str(Path(os.path.relpath(folder)) / one.name)
         for one in sorted(folder.glob("*.yaml"))}
        for folder in (path.parent, HOME / "configs")
    )  # fmt: skip
    if str(path) == path.stem:  # as `_find` takes it
        shipped = {stem: stem for stem in shipped}
    if (here := Path(path.name)).is_file() and path.parent != Path():
        return f"; did you mean {str(here)!r}?"
    known = (beside, shipped)
    for names in known:
        if found := closest(path.stem, names, _CLOSE):
            return f"; did you mean {names[found]!r}?"
    names = next(filter(None, known), {})
    return f"; choose from {', '.join(names.values())}" if names else ""


def _blame(path: Path, content: dict[str, Any], overrides: Sequence[str], error: Exception) -> str:
    """Whose mistake it is: the file's, or that of what was said with ``--set``."""
    try:
        parse_experiment(content)
    except PipelineError:
        return str(path)
    named = [one for one in overrides if one.partition("=")[0] in str(error)]
    return f"--set {named[-1]}" if named else "--set"


def parse_experiment(content: Mapping[str, Any]) -> Experiment:
    """Build an :class:`Experiment` from nested mappings; see :func:`load_experiment`."""
    return _parse(Experiment, without_former_keys(content), "")


def without_former_keys(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a resolved config of any time without the keys that it has no more."""
    content = dict(content)
    for (section, key), now in _MOVED.items():
        if isinstance(content.get(section), Mapping) and key in content[section]:
            content[section] = dict(content[section])
            moved = {key: content[section].pop(key)}
            content[now] = moved | dict(content.get(now) or {})
    return {
        section: {key: value for key, value in inner.items() if key not in _FORMER[section]}
        if section in _FORMER and isinstance(inner, Mapping)
        else inner
        for section, inner in content.items()
    }


def to_mapping(config: Any) -> dict[str, Any]:
    """Return a config object as nested plain dicts and lists, defaults filled in."""
    return _plain(dataclasses.asdict(config))


def write_experiment(path: Path, config: Any) -> None:
    """Write the resolved config as YAML, atomically; reading it gives an equal object."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(resolved_yaml(config))


def resolved_yaml(config: Any) -> bytes:
    """Return what :func:`write_experiment` writes."""
    return yaml.safe_dump(to_mapping(config), sort_keys=False).encode()


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(inner) for inner in value]
    return value


def _apply_override(content: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise PipelineError(f"--set {override}: expected key=value, such as image.epochs=3")
    try:
        value = parse_yaml(text)
    except yaml.YAMLError as error:
        raise PipelineError(f"--set {override}: the value is not valid YAML: {error}") from None
    *sections, last = key.split(".")
    for section in sections:
        content = content.setdefault(section, {})
        if not isinstance(content, dict):
            raise PipelineError(f"--set {override}: {section!r} is a value, not a section")
    content[last] = value


def _parse(cls: type, content: Any, prefix: str) -> Any:
    """Build dataclass ``cls``; ``prefix`` is the dotted path for messages."""
    if not isinstance(content, Mapping):
        raise PipelineError(f"{prefix.rstrip('.')} is {content!r}, expected keys and values")
    hints = typing.get_type_hints(cls)
    for key in content:
        if key not in hints:
            places = [_MEANT[f"{prefix}{key}"]] if f"{prefix}{key}" in _MEANT else []
            places = places or ([] if prefix else _sections_with(hints, str(key)))
            hint = f"; did you mean {' or '.join(places)}?" if places else ""
            hint = hint or nearest(str(key), list(hints), prefix)
            raise PipelineError(f"unknown key '{prefix}{key}'{hint}")
    for needed in dataclasses.fields(cls):
        has_default = (needed.default, needed.default_factory) != (dataclasses.MISSING,) * 2
        if not has_default and needed.name not in content:
            raise PipelineError(f"the key '{prefix}{needed.name}' is missing")
    values = {key: _convert(hints[key], value, prefix + key) for key, value in content.items()}
    return cls(**values)


def _sections_with(hints: Mapping[str, Any], key: str) -> list[str]:
    """Dotted names of the settings called ``key`` in the sections of an experiment."""
    return [
        f"{section}.{key}"
        for section, hint in hints.items()
        if dataclasses.is_dataclass(hint) and key in {one.name for one in dataclasses.fields(hint)}
    ]


def _convert(hint: Any, value: Any, key: str) -> Any:
    """Return ``value`` as type ``hint`` or raise; YAML reads 1e-4 as text, so floats are parsed."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint in _SHORT and isinstance(value, str):
        value = {_SHORT[hint]: value}
    if dataclasses.is_dataclass(hint):
        return _parse(hint, value, key + ".")
    if origin is types.UnionType:
        if value is None:
            return None
        kinds = [one for one in arguments if one is not type(None)]
        if isinstance(value, list | tuple):  # where one or several may be said
            kinds.sort(key=lambda one: typing.get_origin(one) is not tuple)
        return _convert(kinds[0], value, key)
    if origin is Literal:
        return _one_of(value, list(arguments), key)
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_convert(arguments[0], item, f"{key}[{i}]") for i, item in enumerate(value))
    if hint is float and not isinstance(value, bool):
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise PipelineError(f"{key} is {value!r}, expected a number") from None
        if not math.isfinite(number):
            raise PipelineError(f"{key} is {value!r}, must be finite")
        return number
    if hint in (int, bool, str) and type(value) is hint:
        return value
    if origin is not None and origin is not tuple and isinstance(value, Mapping):
        return dict(value)
    text = "text: put it in quotes" if isinstance(value, bool | int | float) else "text"
    wanted = {float: "a number", int: "a whole number", bool: "true or false", str: text}
    listed = f"a list, such as [{value}]" if isinstance(value, str) else "a list"
    wish = wanted.get(hint, listed if origin is tuple else "keys and values")
    raise PipelineError(f"{key} is {value!r}, expected {wish}")


def _one_of(value: Any, allowed: list[Any], key: str) -> Any:
    if value not in allowed:
        meant = _ALSO_CALLED.get(str(value).lower(), str(value))
        raise PipelineError(f"{key} is {value!r}{nearest(meant, [str(a) for a in allowed])}")
    return value
