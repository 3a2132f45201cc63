"""Tests of the experiment file: strict keys, types and ranges, overrides, round trip."""

import re
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kaggle_pipeline.config.experiment import Experiment, FoldsConfig
from kaggle_pipeline.config.image import ImageConfig
from kaggle_pipeline.config.loading import (
    load_experiment,
    parse_experiment,
    to_mapping,
    write_experiment,
)
from kaggle_pipeline.core.errors import PipelineError

CONFIGS = sorted((Path(__file__).resolve().parents[2] / "configs").glob("*.yaml"))
MINIMAL = {"name": "x", "dataset": "synthetic"}


@pytest.fixture
def minimal(tmp_path):
    path = tmp_path / "minimal.yaml"
    path.write_text("name: x\ndataset: synthetic\n")
    return path


def refusal(path, *overrides):
    """The message with which the file and overrides are refused."""
    with pytest.raises(PipelineError) as caught:
        load_experiment(path, overrides)
    return str(caught.value)


def test_minimal_file_gives_the_defaults(minimal):
    assert load_experiment(minimal) == Experiment("x", "synthetic")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_config_loads_and_survives_a_round_trip(path, tmp_path):
    config = load_experiment(path)
    assert config.name == path.stem
    write_experiment(tmp_path / "again.yaml", config)
    assert load_experiment(tmp_path / "again.yaml") == config


def test_there_are_shipped_configs():
    assert {"demo", "siim_isic_2020"} <= {path.stem for path in CONFIGS}


@given(
    k=st.integers(2, 100),
    rate=st.floats(1e-12, 1e3),
    weights=st.none() | st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"])),
    options=st.dictionaries(st.sampled_from(["alpha", "filters"]), st.floats(0, 2)),
    hidden=st.lists(st.integers(1, 999), max_size=4).map(tuple),
    frozen=st.booleans(),
)
@settings(
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_writing_then_loading_gives_an_equal_object(
    tmp_path, k, rate, weights, options, hidden, frozen
):
    image = {
        "learning_rate": rate,
        "weights": weights,
        "backbone_options": options,
        "frozen": frozen,
    }
    content = {**MINIMAL, "folds": {"k": k}, "image": image, "tabular": {"hidden": list(hidden)}}
    config = parse_experiment(content)
    write_experiment(tmp_path / "config.yaml", config)
    assert load_experiment(tmp_path / "config.yaml") == config


def test_override_reaches_a_nested_key(minimal):
    config = load_experiment(
        minimal, ["image.augment.zoom=0.25", "tabular.hidden=[8, 4]", "folds.holdout=0.2"]
    )
    assert config.image.augment.zoom == 0.25
    assert config.tabular.hidden == (8, 4)
    assert config.folds == FoldsConfig(holdout=0.2)


def test_last_override_wins_and_beats_the_file(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("name: x\ndataset: synthetic\nimage: {epochs: 2, tta: none}\n")
    config = load_experiment(path, ["image.epochs=3", "image.epochs=4"])
    assert config.image.epochs == 4
    assert config.image.tta == "none"


def test_override_with_null_removes_a_setting(minimal):
    assert load_experiment(minimal, ["image.weights=null"]).image.weights is None


@pytest.mark.parametrize("text", ["1e-4", "1E-4", "0.0001", "1.0e-4"])
def test_number_without_a_dot_is_still_a_number(minimal, text):
    assert load_experiment(minimal, [f"image.learning_rate={text}"]).image.learning_rate == 1e-4


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("positive=yes", "table.positive is True, expected text: put it in quotes"),
        ("group=7", "table.group is 7, expected text: put it in quotes"),
        ("numeric=age", r"table.numeric is 'age', expected a list, such as \[age\]"),
    ],
)
def test_a_value_of_another_kind_says_how_it_is_written(tmp_path, change, words):
    path = tmp_path / "c.yaml"
    table = "{train: a.csv, image: photo, target: what}"
    path.write_text(f"name: x\ndataset: table\ntable: {table}\n")
    assert load_experiment(path).table.positive is None
    with pytest.raises(PipelineError, match=words):
        load_experiment(path, [f"table.{change}"])


def test_whole_number_is_taken_for_a_float(minimal):
    value = load_experiment(minimal, ["image.warmup_epochs=2"]).image.warmup_epochs
    assert (value, type(value)) == (2.0, float)


def test_a_run_of_before_is_read_without_the_keys_that_mean_nothing_any_more(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("name: x\ndataset: synthetic\nimage: {epochs: 2, shuffle_buffer_mb: 64}\n")
    config = load_experiment(path)
    write_experiment(path, config)
    assert config.image.epochs == 2 and "shuffle" not in path.read_text()
    assert "tabular.shuffle_buffer_mb" in refusal(path, "tabular.shuffle_buffer_mb=1")


def test_unknown_key_is_named_with_the_nearest(minimal):
    message = refusal(minimal, "image.epcohs=3")
    assert "'image.epcohs'" in message
    assert "did you mean 'image.epochs'" in message
    assert message.startswith("--set image.epcohs=3: ") and str(minimal) not in message


def test_unknown_nested_key_is_named_with_its_whole_path(minimal):
    message = refusal(minimal, "image.augment.zom=0.1")
    assert "'image.augment.zom'" in message
    assert "'image.augment.zoom'" in message


def test_unknown_section_lists_the_choices_when_none_is_near(minimal):
    message = refusal(minimal, "qqq=1")
    assert "'qqq'" in message
    assert "tabular" in message


@pytest.mark.parametrize(
    ("override", "key", "wish"),
    [
        ("image.epochs=3.5", "image.epochs", "a whole number"),
        ("image.epochs=true", "image.epochs", "a whole number"),
        ("image.epochs=many", "image.epochs", "a whole number"),
        ("image.epochs=null", "image.epochs", "a whole number"),
        ("image.learning_rate=fast", "image.learning_rate", "a number"),
        ("image.learning_rate=true", "image.learning_rate", "a number"),
        ("image.frozen=1", "image.frozen", "true or false"),
        ("image.backbone=5", "image.backbone", "text"),
        ("image.backbone_options=[1]", "image.backbone_options", "keys and values"),
        ("image.augment=3", "image.augment", "keys and values"),
        ("image=null", "image", "keys and values"),
        ("tabular.hidden=64", "tabular.hidden", "a list"),
        ("tabular.hidden=[64, big]", "tabular.hidden[1]", "a whole number"),
        ("tabular.features=age_years", "tabular.features", "a list"),
    ],
)
def test_wrong_type_names_key_and_wish(minimal, override, key, wish):
    message = refusal(minimal, override)
    assert f"{key} is " in message
    assert f"expected {wish}" in message


@pytest.mark.parametrize(
    ("override", "near"),
    [("device=gpuu", "gpu"), ("image.tta=flip", "flips"), ("tabular.resampling=smot", "smote")],
)
def test_wrong_choice_names_the_nearest(minimal, override, near):
    message = refusal(minimal, override)
    assert override.split("=")[0] in message
    assert f"'{near}'" in message


@pytest.mark.parametrize(
    "override",
    [
        "folds.k=1",
        "folds.holdout=0",
        "folds.holdout=1",
        "folds.holdout=.nan",
        "leakage.near_bits=17",
        "leakage.near_bits=-1",
        "records.image_size_px=8",
        "records.quality=101",
        "records.records_per_shard=0",
        "records.workers=0",
        "image.epochs=0",
        "image.batch_size=-2",
        "image.steps_per_epoch=0",
        "image.learning_rate=0",
        "image.learning_rate=.nan",
        "image.dropout=1",
        "image.label_smoothing=-0.1",
        "image.pool_share=0",
        "image.pool_share=1.01",
        "image.augment.zoom=1",
        "image.augment.dropout_boxes=-1",
        "tabular.patience=0",
        "tabular.learning_rate=-1",
        "blend.models=[]",
    ],
)
def test_value_out_of_range_names_the_key(minimal, override):
    message = refusal(minimal, override)
    assert f"{override.split('=')[0]} is " in message
    assert "must be" in message


def test_values_at_the_edge_of_their_range_are_taken(minimal):
    config = load_experiment(
        minimal, ["folds.k=2", "leakage.near_bits=16", "image.pool_share=1", "image.dropout=0"]
    )
    assert config.folds.k == 2
    assert config.image.pool_share == 1.0


def test_holdout_and_column_exclude_each_other(minimal):
    assert "folds.holdout" in refusal(minimal, "folds.holdout=0.2", "folds.column=tfrecord")


@pytest.mark.parametrize("key", ["name", "dataset"])
def test_missing_key_is_named(tmp_path, key):
    path = tmp_path / "c.yaml"
    path.write_text("".join(f"{k}: {v}\n" for k, v in MINIMAL.items() if k != key))
    assert f"'{key}' is missing" in refusal(path)


@pytest.mark.parametrize("override", ["image.epochs", "=3", "image.tta=[", "name.x=1"])
def test_malformed_override_is_quoted(minimal, override):
    assert f"--set {override}" in refusal(minimal, override)


@pytest.mark.parametrize("content", ["", "just text", "- a\n- list\n", "name: [unclosed"])
def test_file_that_is_no_mapping_is_named(tmp_path, content):
    path = tmp_path / "broken.yaml"
    path.write_text(content)
    assert str(path) in refusal(path)


def test_missing_file_and_folder_are_named(tmp_path):
    assert str(tmp_path / "none.yaml") in refusal(tmp_path / "none.yaml")
    assert str(tmp_path) in refusal(tmp_path)


def test_binary_file_is_named(tmp_path):
    path = tmp_path / "photo.yaml"
    path.write_bytes(b"\xff\xd8\xff\xe0 not a config \x00")
    assert str(path) in refusal(path)


def test_experiment_is_frozen():
    config = Experiment("x", "synthetic")
    with pytest.raises(FrozenInstanceError):
        config.seed = 3
    with pytest.raises(FrozenInstanceError):
        config.image.epochs = 3


def test_mapping_is_plain_and_complete():
    mapping = to_mapping(ImageConfig())
    assert mapping["augment"]["zoom"] == 0.1
    assert to_mapping(Experiment("x", "y"))["tabular"]["hidden"] == [64, 32]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("epochs=3", "did you mean image.epochs or tabular.epochs?"),
        ("batch_size=8", "image.batch_size"),
        ("device=cuda", "did you mean 'gpu'?"),
    ],
)
def test_a_hint_is_what_was_meant(override, said):
    with pytest.raises(PipelineError, match=re.escape(said)):
        load_experiment(CONFIGS[0].with_name("demo.yaml"), [override])
