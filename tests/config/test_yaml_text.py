"""Tests of YAML as settings are meant."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from kaggle_pipeline.config.names import HOME
from kaggle_pipeline.config.yaml_text import parse_yaml

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**18), 10**18) | st.text(max_size=12)
    | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) |
    st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(PLAIN)
def test_what_is_written_is_read(value):
    """Dumped as the resolved config of a run is: what is text stays text."""
    assert parse_yaml(yaml.safe_dump([value], sort_keys=False)) == [value]


@pytest.mark.parametrize("path", sorted((HOME / "configs").glob("*.yaml")), ids=lambda p: p.stem)
def test_experiments_mean_what_they_meant(path):
    text = path.read_text(encoding="utf-8")
    assert parse_yaml(text) == yaml.safe_load(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [("2020-01-01", "2020-01-01"), ("1:30", "1:30"), ("010", "010"), ("0x1f", "0x1f"), ("=", "="),
     ("1_000", 1000), ("yes", True), ("~", None), ("", None), (".5", 0.5), ("1.5e+3", 1500.0),
     ("9" * 30, "9" * 30), ("'5'", "5")],
)  # fmt: skip
def test_scalars_are_words_numbers_yes_and_no(text, value):
    found = parse_yaml(text)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "said"),
    [("a: !!int x", "line 1, column 4 has the tag"), ("!!python/name:os.system ''", "the tag"),
     ("[&a 1, *a]", "an alias"), ("&a [*a]", "an alias"), ("k: 1\nk: 2", "line 2.*'k' a second"),
     ("? [a]\n: 1", "a key that is a list"), ("[" * 999, "20 levels"), ("{a: " * 99, "20 levels"),
     ("x" * 1_000_001, "1,000,001 char"), ("a\n---\nb", "single document"), ("\x01", "#x0001")],
)  # fmt: skip
def test_what_else_yaml_can_is_refused(text, said):
    with pytest.raises(yaml.YAMLError, match=f"(?s){said}"):
        parse_yaml(text)
