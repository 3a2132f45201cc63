"""A network of random weights is pointed out, where it is no small one that is meant to be."""

import pytest

from kaggle_pipeline.config.experiment import Experiment
from kaggle_pipeline.config.loading import load_experiment, to_mapping
from kaggle_pipeline.config.names import HOME
from kaggle_pipeline.config.random_weights import (
    FROM_SCRATCH,
    random_weights,
    random_weights_of,
)

NOTHING = "worth next to nothing"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, ()),
        ({"weights": "some.h5", "frozen": True}, ()),
        ({"backbone": "LeNet", "weights": None}, ()),
        ({"backbone": "LeNet", "weights": None, "frozen": True}, ("frozen", NOTHING)),
        ({"backbone": "ResNet50", "weights": None}, ("ResNet50", "clearly lower")),
        ({"backbone": "ResNet50", "weights": None, "frozen": True}, ("ResNet50", NOTHING)),
        ({"backbone": "ResNet50", "weights": None, "train_from": "conv5"}, ("conv5", NOTHING)),
    ],
)
def test_what_an_image_model_begins_with_decides(settings, said):
    found = random_weights("image", {"image": settings})
    assert (found is None) == (said == ())
    assert all(word in found for word in said) and (not said or "image.weights: null" in found)


def test_encoders_that_are_run_here_count_and_other_stages_do_not():
    encoders = [
        {"source": "keras:ResNet50", "weights": None},
        {"source": "keras:LeNet", "weights": None},
        {"source": "timm:vit", "weights": "published"},
        {"source": "file:v.npz", "weights": None},
    ]
    config = {"embedding": {"encoders": encoders}, "image": {"weights": None}}
    found = random_weights("embedding", config)
    assert "keras:ResNet50, keras:LeNet has" in found and NOTHING in found
    assert "timm" not in found and "file:" not in found
    assert random_weights("tabular", config) is None and random_weights("embedding", {}) is None


def test_no_config_that_comes_with_this_has_such_a_frozen_network():
    for path in sorted((HOME / "configs").glob("*.yaml")):
        config = to_mapping(load_experiment(path))
        said = random_weights("image", config) or ""
        assert NOTHING not in said and random_weights("embedding", config) is None, path
        assert (said != "") == (path.stem == "ham10000_resnet50"), path


def test_a_small_network_is_one_of_the_registry_without_published_weights():
    from kaggle_pipeline.models.image.backbones.registry import list_backbones

    for name in FROM_SCRATCH:
        with pytest.raises(Exception, match="weights"):
            list_backbones()[name].build(input_shape=(32, 32, 3), weights="imagenet")


def test_a_run_of_any_version_is_read(tmp_path):
    assert random_weights_of(tmp_path / "image") is None
    (tmp_path / "image").mkdir()
    path = tmp_path / "image" / "config.yaml"
    path.write_text("name: old\n")
    assert random_weights_of(tmp_path / "image") is None
    path.write_text("image: {backbone: ResNet50, weights: null}\n")
    assert "ResNet50" in random_weights_of(tmp_path / "image")
    assert to_mapping(Experiment(name="x", dataset="y"))["image"]["weights"] == "imagenet"
