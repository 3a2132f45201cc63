"""YAML read as settings are meant: words, numbers, yes and no, lists and keys; nothing else.

In: text that anybody may have written. Out: plain values, or an error of one line. A date stays
text, a tag makes no object, and neither depth nor aliases can blow a small file up.
"""

import re
from collections.abc import Hashable
from typing import Any, ClassVar

import yaml

_DEEPEST = 20
_MAX_CHARACTERS = 1_000_000
_SCALARS = {
    "null": (r"~|null|Null|NULL|", "~nN\0"),
    "bool": (r"yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF",
             "yYnNtTfFoO"),
    "int": (r"[-+]?(?:0|[1-9][0-9_]{0,18})", "-+0123456789"),
    "float": (r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9]+)(?:[eE][-+][0-9]+)?"
              r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)", "-+0123456789."),
}  # fmt: skip
"""Kind → what it looks like, and the characters that it may begin with. All are so for PyYAML too:
what it writes as text is read as text. Its dates and its numbers of base 8, 16 and 60 are text."""


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with scalars of its own, no tags, no aliases, and an end to depth."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            raise _fault("an alias (*): write the value out", event)
        if getattr(event, "tag", None) is not None:
            raise _fault(f"the tag {event.tag!r}: leave it out", event)
        self._depth += 1
        if self._depth > _DEEPEST:
            raise _fault(f"more than {_DEEPEST} levels", event)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Hashable] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _fault("a key that is a list or holds keys", key)
            if key.value in seen:
                raise _fault(f"the key {key.value!r} a second time", key)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


for _kind, (_form, _first) in _SCALARS.items():
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_kind}", re.compile(rf"(?:{_form})\Z"), list(_first.rstrip("\0"))
    )
_Loader.yaml_implicit_resolvers.setdefault("", []).append(
    ("tag:yaml.org,2002:null", re.compile(r"\Z"))
)


def _fault(what: str, place: Any) -> yaml.YAMLError:
    mark = place.start_mark
    return yaml.YAMLError(f"line {mark.line + 1}, column {mark.column + 1} has {what}")


def parse_yaml(text: str) -> Any:
    """Return the plain values that a YAML document holds.

    Parameters
    ----------
    text : str
        One document, or none: None then.

    Raises
    ------
    yaml.YAMLError
        If it is no YAML, longer than a million characters or deeper than 20 levels, or holds a tag,
        an alias or a key twice.
    """
    if len(text) > _MAX_CHARACTERS:
        raise yaml.YAMLError(f"{len(text):,} characters are more than {_MAX_CHARACTERS:,}")
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()
