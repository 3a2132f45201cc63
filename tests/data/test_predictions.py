"""Tests of the predictions table: each rule, joins by id, exact files."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.data.predictions import AVERAGED, Predictions, average, join_by_id

IDS = ["ISIC_1", "ISIC_2", "ISIC_3", "ISIC_4"]


def frame(values, ids=IDS, column="target"):
    return pd.DataFrame({column: values}, index=pd.Index(ids))


def build(values, ids=IDS, fold=0, split="test"):
    return Predictions.build(frame(values, ids), fold, split)


def test_build_takes_classes_from_the_columns():
    probabilities = frame([0.1, 0.2, 0.3, 0.4]).assign(other=0.5)
    predictions = Predictions.build(probabilities, 2, "oof")
    assert predictions.classes == ("target", "other")
    assert predictions.table.index.name == "image_id"
    assert set(predictions.table["fold"]) == {2}
    pd.testing.assert_frame_equal(predictions.probabilities, probabilities, check_names=False)


def test_a_series_of_folds_is_joined_by_id():
    fold = pd.Series([3, 2, 1, 0], index=IDS[::-1])
    table = Predictions.build(frame([0.1, 0.2, 0.3, 0.4]), fold, "oof").table
    assert table["fold"].to_dict() == {"ISIC_1": 0, "ISIC_2": 1, "ISIC_3": 2, "ISIC_4": 3}


def test_duplicate_id_is_named():
    with pytest.raises(PipelineError, match="ISIC_2 more than once"):
        build([0.1, 0.2, 0.3, 0.4], ["ISIC_1", "ISIC_2", "ISIC_2", "ISIC_3"])


@pytest.mark.parametrize("bad", [np.nan, -1e-9, 1 + 1e-9, np.inf, -np.inf])
def test_value_that_is_no_probability_names_its_row(bad):
    with pytest.raises(PipelineError, match="ISIC_3"):
        build([0.1, 0.2, bad, 0.4])


def test_bad_value_in_a_second_class_is_found():
    probabilities = frame([0.1, 0.2, 0.3, 0.4]).assign(other=[0.1, 2.0, 0.1, 0.1])
    with pytest.raises(PipelineError, match="ISIC_2"):
        Predictions.build(probabilities, 0, "oof")


def test_zero_and_one_are_probabilities():
    assert build([0.0, 1.0, 0.5, 1e-300]).probabilities["target"].tolist() == [0, 1, 0.5, 1e-300]


def test_unknown_split_is_named():
    with pytest.raises(PipelineError, match="'valid'"):
        build([0.1, 0.2, 0.3, 0.4], split="valid")


@pytest.mark.parametrize("column", ["target", "fold", "split"])
def test_missing_column_is_named(column):
    table = build([0.1, 0.2, 0.3, 0.4]).table.drop(columns=column)
    with pytest.raises(PipelineError, match=repr(column)):
        Predictions(table, ("target",))


def test_probabilities_of_float32_are_kept_as_float64():
    values = np.array([0.1, 0.2, 0.3, 0.4], np.float32)
    probabilities = build(values).probabilities["target"]
    assert probabilities.dtype == np.float64
    np.testing.assert_array_equal(probabilities, values.astype(np.float64))


@given(values=st.lists(st.floats(0, 1, allow_subnormal=False), min_size=1, max_size=20))
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_file_round_trip_is_exact(tmp_path, values):
    before = build(values, [f"ISIC_{i:07d}" for i in range(len(values))], AVERAGED)
    before.write(tmp_path / "test.csv")
    after = Predictions.read(tmp_path / "test.csv", ["target"])
    pd.testing.assert_frame_equal(after.table, before.table, check_exact=True)


def test_file_of_many_random_numbers_is_exact(tmp_path):
    values = np.random.default_rng(0).random(5000)
    before = build(values, [f"ISIC_{i:07d}" for i in range(len(values))])
    before.write(tmp_path / "test.csv")
    after = Predictions.read(tmp_path / "test.csv", ["target"]).table
    np.testing.assert_array_equal(after["target"], values)


def test_file_keeps_ids_that_look_like_numbers(tmp_path):
    ids = ["007", "1e5", "12", "0.50"]
    build([0.1, 0.2, 0.3, 0.4], ids).write(tmp_path / "test.csv")
    assert list(Predictions.read(tmp_path / "test.csv", ["target"]).table.index) == ids


def test_failed_write_leaves_no_file(tmp_path, monkeypatch):
    def fail(self, path):
        path.write_text("half")
        raise OSError("disk full")

    monkeypatch.setattr(pd.DataFrame, "to_csv", fail)
    with pytest.raises(OSError, match="disk full"):
        build([0.1, 0.2, 0.3, 0.4]).write(tmp_path / "test.csv")
    assert list(tmp_path.iterdir()) == []


def test_missing_file_is_named(tmp_path):
    with pytest.raises(PipelineError, match=r"oof\.csv is missing"):
        Predictions.read(tmp_path / "oof.csv", ["target"])


@pytest.mark.parametrize(
    "content",
    [
        "image_id,target,fold,split\nISIC_1,2.0,0,oof\n",
        "image_id,target,fold,split\nISIC_1,,0,oof\n",
        "image_id,target,fold,split\nISIC_1,0.1,0,oof\nISIC_1,0.1,0,oof\n",
        "image_id,target,fold,split\nISIC_1,0.1,0,train\n",
        "image_id,fold,split\nISIC_1,0,oof\n",
        "image_id,target,fold,split\nISIC_1,high,0,oof\n",
        "name,target,fold,split\nISIC_1,0.1,0,oof\n",
        "",
    ],
    ids=["range", "nan", "twice", "split", "no target", "text", "no id", "empty"],
)
def test_file_that_breaks_a_rule_is_named(tmp_path, content):
    path = tmp_path / "oof.csv"
    path.write_text(content)
    with pytest.raises(PipelineError, match=r"oof\.csv"):
        Predictions.read(path, ["target"])


def test_join_by_id_follows_the_ids_and_not_the_rows():
    ids = pd.Index(IDS)
    models = {
        "image": build([0.1, 0.2, 0.3, 0.4]),
        "tabular": build([0.8, 0.7, 0.6, 0.5], IDS[::-1]),
    }
    joined = join_by_id(models, ids)
    assert joined["image"]["target"].tolist() == [0.1, 0.2, 0.3, 0.4]
    assert joined["tabular"]["target"].tolist() == [0.5, 0.6, 0.7, 0.8]
    assert all(list(part.index) == IDS for part in joined.values())


@given(order=st.permutations(range(4)), asked=st.permutations(range(4)))
def test_join_by_id_gives_the_same_under_any_order(order, asked):
    values = np.array([0.1, 0.2, 0.3, 0.4])
    shuffled = build(values[list(order)], [IDS[i] for i in order])
    joined = join_by_id({"m": shuffled}, pd.Index([IDS[i] for i in asked]))["m"]
    assert joined["target"].tolist() == values[list(asked)].tolist()


def test_join_names_the_model_and_the_id_it_lacks():
    with pytest.raises(PipelineError, match=r"tabular predicts nothing for ISIC_4 \(1 missing\)"):
        join_by_id({"tabular": build([0.1, 0.2, 0.3], IDS[:3])}, pd.Index(IDS))


def test_join_names_the_model_and_the_id_too_many():
    with pytest.raises(PipelineError, match="image predicts ISIC_4"):
        join_by_id({"image": build([0.1, 0.2, 0.3, 0.4])}, pd.Index(IDS[:3]))


def test_average_is_the_mean_by_id():
    one = build([0.0, 0.2, 0.4, 0.6], fold=0)
    two = build([0.2, 0.4, 0.6, 0.8], IDS[::-1], fold=1)
    mean = average([one, two])
    assert mean.probabilities["target"].tolist() == pytest.approx([0.4, 0.4, 0.4, 0.4])
    assert set(mean.table["fold"]) == {AVERAGED}
    assert set(mean.table["split"]) == {"test"}


def test_average_of_one_is_itself():
    one = build([0.1, 0.2, 0.3, 0.4])
    pd.testing.assert_frame_equal(average([one]).probabilities, one.probabilities)


def test_average_refuses_models_of_other_images():
    with pytest.raises(PipelineError, match="fold model 1 predicts nothing for ISIC_4"):
        average([build([0.1, 0.2, 0.3, 0.4]), build([0.1, 0.2, 0.3], IDS[:3])])
