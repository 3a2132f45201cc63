"""Tests of the canonical table: each broken rule names its row, files keep values and dtypes."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.data.examples import (
    read_examples,
    require_images,
    split_rows,
    validate_examples,
    write_examples,
)


@pytest.fixture
def raw():
    """Three training rows and one test row as ``read_raw`` gives them, all in order."""
    return pd.DataFrame(
        {
            "image_id": ["A", "B", "C", "D"],
            "group_id": ["p1", "p1", "p2", "p3"],
            "split": ["train", "train", "train", "test"],
            "target": [0, 1, 0, np.nan],
            "age_years": [40, np.nan, 55.5, 70],
            "sex": ["female", "male", np.nan, "male"],
            "site": ["torso", np.nan, "head/neck", "torso"],
        }
    )


def change(table, row, column, value):
    """A copy of the table with one cell changed."""
    table = table.astype({column: object})
    table.loc[row, column] = value
    return table


def refusal(table, spec):
    with pytest.raises(PipelineError) as caught:
        validate_examples(table, spec)
    return str(caught.value)


def test_valid_table_gets_index_and_dtypes(raw, spec):
    table = validate_examples(raw, spec)
    assert table.index.name == "image_id"
    assert list(table.index) == ["A", "B", "C", "D"]
    assert table["target"].dtype == table["age_years"].dtype == float
    assert table["target"].tolist()[:3] == [0, 1, 0]
    assert table["image_path"].isna().all()


def test_input_is_not_changed(raw, spec):
    before = raw.copy(deep=True)
    validate_examples(raw, spec)
    pd.testing.assert_frame_equal(raw, before)


def test_numbers_as_ids_and_as_text_are_taken(raw, spec):
    raw["image_id"] = [1, 2, 3, 4]
    raw["age_years"] = ["40", None, "55.5", "70"]
    table = validate_examples(raw, spec)
    assert list(table.index) == ["1", "2", "3", "4"]
    assert table.loc["3", "age_years"] == 55.5


def test_targets_of_test_rows_are_forgotten(raw, spec):
    table = validate_examples(change(raw, 3, "target", 1), spec)
    assert np.isnan(table.loc["D", "target"])


def test_further_columns_are_kept_for_the_audit(raw, spec):
    table = validate_examples(raw.assign(diagnosis=["a", "b", "c", "d"]), spec)
    assert table["diagnosis"].tolist() == ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    "column", ["image_id", "group_id", "split", "target", "age_years", "sex", "site"]
)
def test_missing_column_is_named(raw, spec, column):
    assert repr(column) in refusal(raw.drop(columns=column), spec)


def test_id_listed_twice_is_named_with_its_splits(raw, spec):
    assert "A is listed more than once (train)" in refusal(change(raw, 1, "image_id", "A"), spec)
    both = refusal(change(raw, 3, "image_id", "A"), spec)
    assert "A is listed more than once (test and train)" in both


@pytest.mark.parametrize("odd", ["../B", "a\\b", ".hidden", "..", "", " b", "a\n", "a\tb", "a//b"])
def test_id_that_is_no_plain_name_is_refused(raw, spec, odd):
    assert f"{odd!r} is not a plain name" in refusal(change(raw, 1, "image_id", odd), spec)


@pytest.mark.parametrize("name", ["IMG 001", "photo (1)", "Müller+1", "a/b", "1.2.840.10008"])
def test_names_as_phones_and_hospitals_give_them_are_ids(raw, spec, name):
    assert validate_examples(change(raw, 1, "image_id", name), spec).index[1] == name


def test_missing_id_is_refused(raw, spec):
    assert "image id" in refusal(change(raw, 1, "image_id", None), spec)


@pytest.mark.parametrize(
    ("row", "column", "value", "wish"),
    [
        (1, "split", "valid", "train, test, external"),
        (1, "split", None, "train, test, external"),
        (1, "target", 2, "0 or 1"),
        (1, "target", 0.5, "0 or 1"),
        (1, "target", None, "0 or 1"),
        (1, "target", "yes", "0 or 1"),
        (1, "age_years", "old", "a number"),
        (1, "age_years", np.inf, "a number"),
        (1, "sex", "Male", "female, male"),
        (1, "site", "tail", "torso"),
        (1, "group_id", None, "a patient"),
    ],
)
def test_broken_cell_names_column_row_value_and_wish(raw, spec, row, column, value, wish):
    message = refusal(change(raw, row, column, value), spec)
    assert f"{column} of image B" in message
    assert wish in message.partition("expected")[2]
    if value is not None:
        assert repr(value) in message


def test_a_test_row_is_checked_too(raw, spec):
    assert "sex of image D is 'x'" in refusal(change(raw, 3, "sex", "x"), spec)


def test_without_groups_each_image_is_its_own(raw, spec):
    raw["group_id"] = np.nan
    table = validate_examples(raw, replace(spec, group=None))
    assert table["group_id"].tolist() == ["A", "B", "C", "D"]


def test_validating_again_changes_nothing(small_examples, spec):
    table = small_examples()
    again = validate_examples(table.reset_index(), spec)
    pd.testing.assert_frame_equal(again, table)


def test_file_round_trip_keeps_values_and_dtypes(competition, spec, tmp_path):
    table = validate_examples(spec.read_raw(competition / "competition").examples, spec)
    write_examples(table, tmp_path / "examples.csv")
    back = read_examples(tmp_path / "examples.csv", spec)
    pd.testing.assert_frame_equal(back, table, check_exact=True)


def test_file_round_trip_without_images(small_examples, spec, tmp_path):
    table = small_examples()
    write_examples(table, tmp_path / "examples.csv")
    back = read_examples(tmp_path / "examples.csv", spec)
    assert back.pop("image_path").isna().all()
    pd.testing.assert_frame_equal(back, table.drop(columns="image_path"), check_exact=True)


def test_file_round_trip_keeps_odd_numbers_and_ids(raw, spec, tmp_path):
    raw["age_years"] = [0.1 + 0.2, 1 / 3, np.nan, 1e-17]
    raw["group_id"] = ["007", "1e3", "12", "-1"]
    raw["image_id"] = ["001", "1e5", "1_000", "0.5"]
    table = validate_examples(raw, spec)
    write_examples(table, tmp_path / "examples.csv")
    back = read_examples(tmp_path / "examples.csv", spec)
    assert list(back.index) == list(table.index)
    assert list(back["group_id"]) == list(table["group_id"])
    np.testing.assert_array_equal(back["age_years"], table["age_years"])


def test_a_feature_that_is_missing_everywhere_survives_the_file(raw, spec, tmp_path):
    raw["age_years"], raw["site"] = np.nan, np.nan
    table = validate_examples(raw, spec)
    write_examples(table, tmp_path / "examples.csv")
    back = read_examples(tmp_path / "examples.csv", spec)
    assert back["age_years"].dtype == float
    assert back[["age_years", "site"]].isna().all(axis=None)


def test_missing_file_is_named(spec, tmp_path):
    with pytest.raises(PipelineError, match=r"examples\.csv is missing: run prepare_data"):
        read_examples(tmp_path / "examples.csv", spec)


def test_require_images_names_the_first_row_without_one(raw, spec):
    raw["image_path"] = ["a.jpg", "b.jpg", np.nan, np.nan]
    table = validate_examples(raw, spec)
    with pytest.raises(PipelineError, match=r"train row C \(2 of 4 rows"):
        require_images(table, spec)
    require_images(table.iloc[:2], spec)
    require_images(table, spec, drop=True)
    with pytest.raises(PipelineError, match=r"test row D .*sample") as caught:
        require_images(table, spec, drop=True, listed=["D"])
    assert "unreadable" not in str(caught.value)
    with pytest.raises(PipelineError, match=r"train row C \(1 of 1 .*add them$"):
        require_images(table.iloc[2:3], spec, drop=True)


def test_split_rows_keep_their_order(raw, spec):
    table = validate_examples(raw.iloc[[3, 2, 0, 1]], spec)
    assert list(split_rows(table, "train").index) == ["C", "A", "B"]
    assert list(split_rows(table, "test").index) == ["D"]
