"""Tests of the exploratory pictures: right counts, nothing made up, no look at the test labels."""

import json
from dataclasses import replace

import numpy as np
import pytest
from helpers_evaluation import SPECS, is_picture, make_examples
from PIL import Image

from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.data.explore import class_groups, explore, missing_shares, summarise
from kaggle_pipeline.data.explore_figures import draw_categorical

PICTURES = {"classes.png", "age_years.png", "sex.png", "site.png", "groups.png", "missing.png"}


@pytest.fixture(params=list(SPECS))
def case(request):
    spec = SPECS[request.param]
    return spec, make_examples(spec, n=120)


def with_photos(examples, folder, n=40):
    """Examples of which the first ``n`` have a photo of one colour, different for each."""
    examples = examples.assign(image_path=np.nan)
    examples["image_path"] = examples["image_path"].astype(object)
    for number, image_id in enumerate(examples.index[:n]):
        examples.loc[image_id, "image_path"] = f"jpeg/{image_id}.jpg"
        path = folder / "jpeg" / f"{image_id}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (60, 40), (5 * number, 100, 255 - 5 * number)).save(path)
    return examples


def test_pictures_and_counts_of_every_task(case, tmp_path):
    spec, examples = case
    files = explore(examples, spec, tmp_path, tmp_path / "out")
    expected = PICTURES - (set() if spec.group else {"groups.png"})
    assert {path.name for path in files} == expected | {"summary.json"}
    assert sorted(files) == sorted((tmp_path / "out").iterdir())
    assert all(is_picture(path) for path in files if path.suffix == ".png")
    assert json.loads(files[0].read_text()) == summarise(examples, spec)


def test_summary_counts(case):
    spec, examples = case
    summary = summarise(examples, spec)
    train = examples[examples["split"] == "train"]
    assert summary["images"] == {"train": len(train), "test": len(examples) - len(train)}
    for name in spec.classes:
        assert summary["classes"][name] == train[name].sum()
    assert sum(summary["features"]["sex"].values()) == len(train)
    assert summary["features"]["sex"]["missing"] == train["sex"].isna().sum()
    assert summary["features"]["age_years"]["mean"] == pytest.approx(
        train["age_years"].mean(), abs=1e-3
    )
    assert summary["missing"]["age_years"]["train"] == pytest.approx(
        train["age_years"].isna().mean(), abs=1e-4
    )
    sizes = train["group_id"].value_counts()
    assert summary["images_per_group"]["largest"] == sizes.max()
    text = json.dumps(summary, allow_nan=False)
    assert "IP_" not in text and "img_" not in text


def test_groups_of_classes_cover_every_training_row(case):
    spec, examples = case
    groups = class_groups(examples[examples["split"] == "train"], spec)
    train = examples.index[examples["split"] == "train"]
    assert set().union(*groups.values()) == set(train)
    names = {"binary": ["not target"], "multilabel": ["none of these"], "multiclass": []}
    assert list(groups) == [*names[spec.task], *spec.classes]
    both = examples.loc[train, list(spec.classes)].sum(axis=1).max() > 1
    assert both == (spec.task == "multilabel")
    assert (sum(map(len, groups.values())) > len(train)) == both


def test_labels_of_the_test_split_change_nothing(tmp_path):
    spec = SPECS["binary"]
    examples = make_examples(spec, n=120)
    told = examples.copy()
    told.loc[told["split"] == "test", "target"] = 1.0
    for name, table in (("blind", examples), ("told", told)):
        explore(table, spec, tmp_path, tmp_path / name)
    for path in sorted((tmp_path / "blind").iterdir()):
        assert path.read_bytes() == (tmp_path / "told" / path.name).read_bytes(), path.name


def test_samples_are_drawn_where_photos_are(case, tmp_path):
    spec, examples = case
    files = explore(with_photos(examples, tmp_path), spec, tmp_path, tmp_path / "out")
    assert files[-1].name == "samples.png" and is_picture(files[-1])


def test_samples_follow_the_seed(tmp_path):
    spec = replace(SPECS["binary"], group=None, numeric={}, categorical={})  # fewer other pictures
    examples = with_photos(make_examples(SPECS["binary"], n=120), tmp_path)
    pictures = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        files = explore(examples, spec, tmp_path, tmp_path / name, seed=seed)
        pictures.append(files[-1].read_bytes())
    assert pictures[0] == pictures[1] != pictures[2]


def test_a_photo_that_cannot_be_read_is_named(tmp_path):
    spec = SPECS["binary"]
    examples = make_examples(spec, n=60).assign(image_path="jpeg/gone.jpg")
    with pytest.raises(PipelineError, match=r"gone\.jpg does not exist"):
        explore(examples, spec, tmp_path, tmp_path / "out")


def test_features_of_which_nothing_is_known_have_no_picture(case, tmp_path):
    spec, examples = case
    bare = examples.assign(age_years=np.nan, sex=np.nan)
    names = {path.name for path in explore(bare, spec, tmp_path, tmp_path / "out")}
    assert not names & {"age_years.png", "sex.png"}
    assert "site.png" in names
    assert summarise(bare, spec)["features"]["age_years"] == {}


def test_a_data_set_without_features(tmp_path):
    spec = replace(SPECS["binary"], numeric={}, categorical={})
    examples = make_examples(SPECS["binary"], n=60).drop(columns=["age_years", "sex", "site"])
    names = {path.name for path in explore(examples, spec, tmp_path, tmp_path / "out")}
    assert names == {"summary.json", "classes.png", "groups.png", "missing.png"}


def test_missing_shares_by_split():
    spec = SPECS["binary"]
    examples = make_examples(spec, n=60)
    examples["age_years"] = 50.0
    examples.loc[examples["split"] == "test", "age_years"] = np.nan
    shares = missing_shares(examples, spec)
    assert shares.loc["age_years"].to_dict() == {"train": 0, "test": 1}
    train_only = missing_shares(examples[examples["split"] == "train"], spec)
    assert list(train_only) == ["train"]


@pytest.mark.parametrize("largest", [20, 21, 300])
def test_groups_of_any_size_are_drawn(largest, tmp_path):
    spec = SPECS["binary"]
    table = make_examples(spec, n=360)
    table["group_id"] = ["big"] * largest + [f"g{i}" for i in range(360 - largest)]
    files = explore(table, spec, tmp_path, tmp_path / "out")
    assert is_picture(next(path for path in files if path.name == "groups.png"))


def test_the_axis_of_a_share_ends_at_all_of_them():
    spec = SPECS["binary"]
    train = make_examples(spec, n=40).assign(sex=["male", "female"] * 20)
    groups = {"benign": train.index[1::2], "melanoma": train.index[::2]}
    axes = draw_categorical(train, groups, "sex", spec).axes[0]
    assert max(axes.get_xticks()) == 1 < axes.get_xlim()[1]  # room for "100.0%" beside the bar


def test_no_training_rows_are_an_error(tmp_path):
    spec = SPECS["binary"]
    with pytest.raises(PipelineError, match="no training row"):
        explore(make_examples(spec).assign(split="test"), spec, tmp_path, tmp_path)
