"""Tests of what a model learned from: told apart by kind, whatever the order of the rows."""

import pandas as pd
import pytest

from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.data.examples import EXTERNAL, read_examples, write_examples
from kaggle_pipeline.data.folds import Folds
from kaggle_pipeline.models.learned_rows import FILE, digest_rows, keep_rows, require_rows


@pytest.fixture
def case(small_examples, small_folds, spec, tmp_path):
    """Examples and folds as a run reads them, and a folder that learned from them."""
    examples, folds = small_examples(), small_folds(small_examples())
    write_examples(examples, tmp_path / "examples.csv")
    folds.write(tmp_path / "folds.csv")
    examples = read_examples(tmp_path / "examples.csv", spec)
    folds = Folds.read(tmp_path / "folds.csv")
    keep_rows(tmp_path, digest_rows(examples, spec, folds))
    return examples, folds, tmp_path


def test_order_further_columns_and_other_collections_are_the_same_rows(case, spec):
    examples, folds, folder = case
    outside = examples.iloc[:3].assign(split=EXTERNAL)
    outside.index = ["X1", "X2", "X3"]
    same = examples.iloc[::-1].assign(context=1.0)
    require_rows(folder, digest_rows(same, spec, Folds(folds.table.iloc[::-1])))
    require_rows(folder, digest_rows(pd.concat([examples, outside]), spec, folds))


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (lambda t: t.assign(target=1 - t["target"]), "the labels in"),
        (lambda t: t.assign(age_years=t["age_years"] + 5), "the metadata in"),
        (lambda t: t.assign(sex="male"), "the metadata in"),
        (lambda t: t.assign(group_id=t["group_id"] + "x"), "the patients in"),
        (lambda t: t.iloc[1:], "the photos and labels and patients and metadata in"),
    ],
    ids=["labels", "ages", "sexes", "patients", "rows"],
)
def test_what_changed_is_named(case, spec, changed, words):
    examples, folds, folder = case
    with pytest.raises(PipelineError, match=f"learned before {words} prepare/ changed"):
        require_rows(folder, digest_rows(changed(examples), spec, folds))
    with pytest.raises(PipelineError, match="--overwrite"):  # nor is it written down anew
        keep_rows(folder, digest_rows(changed(examples), spec, folds))


def test_other_folds_are_named_and_an_earlier_version_says_nothing(case, spec):
    examples, folds, folder = case
    other = Folds(folds.table.assign(fold=2 - folds.table["fold"]))
    with pytest.raises(PipelineError, match="the folds in"):
        require_rows(folder, digest_rows(examples, spec, other))
    (folder / FILE).unlink()
    require_rows(folder, digest_rows(examples, spec, other))
