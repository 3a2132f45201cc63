"""Tests of every reader with input that nobody meant: taken, or refused in one line.

``make fuzz`` goes on for minutes, by coverage, with the same readers.
"""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.readers import CORPUS, READERS, attempt, corpus
from kaggle_pipeline.core.errors import PipelineError, one_line

ODD = st.sampled_from([
    "", " ", "nan", "inf", "-1", "1e400", "1" * 400, "0x1", "true", "=1+1", "2020-01-01", "1,5",
    "\u202e", "\u2028", "\x00", "\ufeff", "ISIC_1", "a/../b", ".hidden", "50 years", "İ", "\udcff",
    '"', "''", "\n", "[", "{a: ", "*a", "&a b", "!!int x", "!!python/name:os.system", "? [a]",
])  # fmt: skip
CELLS = st.one_of(ODD, st.text(max_size=8), st.integers().map(str), st.floats().map(str))
EDITS = st.lists(
    st.tuples(st.floats(0, 1), st.integers(0, 40), st.binary(max_size=8)), min_size=1, max_size=6
)


def some(examples):
    return settings(
        max_examples=examples, deadline=None, derandomize=True, database=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip


def encoded(text):
    return text.encode(errors="surrogateescape" if text.isprintable() else "replace")


@st.composite
def tables(draw, name):
    """A well-formed table of the reader's, with cells, rows and names that are not."""
    seed = draw(st.sampled_from(READERS[name].seeds())).decode()
    rows = [line.split(",") for line in seed.splitlines()]
    for _ in range(draw(st.integers(1, 5))):
        row = draw(st.sampled_from(rows))
        column = draw(st.integers(0, len(row)))
        row[column : column + draw(st.integers(0, 1))] = draw(st.lists(CELLS, max_size=2))
    if draw(st.booleans()):
        del rows[draw(st.integers(0, len(rows) - 1))]
    if draw(st.booleans()):
        rows.append(list(draw(st.sampled_from(rows))) if rows else [])
    comma = draw(st.sampled_from([",", ";", "\t"]))
    end = draw(st.sampled_from(["\n", "\r\n", "\r"]))
    text = end.join(comma.join(row) for row in rows) + end
    encoding = draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "latin-1"]))
    return text.encode(encoding, "replace")


KEYS = st.sampled_from([
    "name", "dataset", "image", "folds", "tabular", "epochs", "augment", "k", "hidden", "table",
    "blend", "models", "external", "embedding", "encoders", "backbone_options", "decision",
])  # fmt: skip
VALUES = st.recursive(
    CELLS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]"),
        st.dictionaries(KEYS, inner, max_size=3).map(
            lambda pairs: "{" + ", ".join(f"{k}: {v}" for k, v in pairs.items()) + "}"
        ),
    ),
    max_leaves=12,
)
DOCUMENTS = st.lists(st.tuples(KEYS, VALUES), max_size=5).map(
    lambda pairs: "name: x\ndataset: synthetic\n" + "".join(f"{k}: {v}\n" for k, v in pairs)
)
WORDS = st.tuples(st.lists(KEYS | ODD, min_size=1, max_size=3).map(".".join), VALUES)


@st.composite
def files(draw, name):
    """A well-formed file with some bytes cut out, overwritten or put in."""
    content = bytearray(draw(st.sampled_from(SEEDS.setdefault(name, READERS[name].seeds()))))
    for place, cut, put in draw(EDITS):
        at = int(place * len(content))
        content[at : at + cut] = put
    return bytes(content)


SEEDS: dict[str, list[bytes]] = {}


@given(content=DOCUMENTS.map(encoded))
@some(100)
def test_experiments(content, tmp_path):
    attempt(READERS["yaml"], tmp_path, content)


@given(word=WORDS)
@some(100)
def test_settings(word, tmp_path):
    attempt(READERS["set"], tmp_path, encoded("=".join(word)))


@pytest.mark.parametrize("name", ["competition", "own_table", "kept", "submission"])
def test_tables(name, tmp_path):
    @given(content=tables(name))
    @some(25)
    def read(content):
        attempt(READERS[name], tmp_path, content)

    read()


@pytest.mark.parametrize("name", ["upload", "photo", "dicom", "shard"])
def test_photos_and_shards(name, tmp_path):
    pytest.importorskip({"dicom": "pydicom", "shard": "tensorflow"}.get(name, "PIL"))

    @given(content=files(name))
    @some(50)
    def read(content):
        attempt(READERS[name], tmp_path, content)

    read()


@pytest.mark.parametrize("name", sorted(path.name for path in CORPUS.iterdir()))
def test_what_once_was_a_traceback_is_taken_or_one_line(name, tmp_path):
    pytest.importorskip({"dicom": "pydicom", "shard": "tensorflow"}.get(name, "pandas"))
    for content in corpus(name):
        attempt(READERS[name], tmp_path, content)


@pytest.mark.parametrize("name", READERS)
def test_well_formed_ones_are_taken(name, tmp_path):
    pytest.importorskip({"dicom": "pydicom", "shard": "tensorflow"}.get(name, "pandas"))
    for seed in READERS[name].seeds():
        said = attempt(READERS[name], tmp_path, seed)
        assert said is None or name in ("set", "submission"), said


@given(st.text())
@some(100)
def test_every_error_is_one_line_that_can_be_shown(text):
    line = str(PipelineError(text))
    assert len(line.splitlines()) <= 1 and line.isprintable() and one_line(line) == line
