"""Tests of the network: heads, cuts, frozen bodies, views and weights from a file."""

from dataclasses import replace

import numpy as np
import pytest
from helpers_image import tiny_config

from kaggle_pipeline.config.image import ImageConfig
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.datasets.synthetic import SPEC

tf = pytest.importorskip("tensorflow")

import h5py  # noqa: E402
import keras  # noqa: E402
from keras.src.legacy.saving import legacy_h5_format  # noqa: E402

from kaggle_pipeline.core.private_api import calls_within  # noqa: E402
from kaggle_pipeline.hardware.accelerator import choose_accelerator  # noqa: E402
from kaggle_pipeline.models.image.backbones.registry import get_backbone  # noqa: E402
from kaggle_pipeline.models.image.backbones.weights import load_weights  # noqa: E402
from kaggle_pipeline.models.image.inference.predictor import Predictor  # noqa: E402
from kaggle_pipeline.models.image.inference.tta import VIEWS, stacked_views, with_views  # noqa: E402
from kaggle_pipeline.models.image.network import build_body, build_network, check_backbone  # noqa: E402

THREE = ("melanoma", "naevus", "other")
MULTICLASS = replace(SPEC, task="multiclass", classes=THREE)
MULTILABEL = replace(SPEC, task="multilabel", classes=THREE)


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(0)


def noise(count=5, side=32):
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3)).astype(np.uint8)


def shaken(model):
    """The model with batch-normalisation statistics as a trained one has."""
    rng = np.random.default_rng(1)
    for weight in model.weights:
        if "moving_mean" in weight.path:
            weight.assign(rng.uniform(-0.2, 0.2, weight.shape))
        if "moving_variance" in weight.path:
            weight.assign(rng.uniform(0.1, 0.3, weight.shape))
    return model


def lenet_file(path, **options):
    """Weights of a LeNet, as a file; the backbone beside it."""
    backbone = get_backbone("LeNet").build(input_shape=(32, 32, 3), weights=None, **options)
    shaken(backbone).save_weights(path)
    return backbone


class TestHead:
    """Shape and sort of the answer."""

    @pytest.mark.parametrize(
        ("spec", "classes"), [(SPEC, 1), (MULTILABEL, 3)], ids=["binary", "multilabel"]
    )
    def test_sigmoids(self, spec, classes):
        network = build_network(tiny_config(), spec)
        answers = np.asarray(network(noise()))
        assert answers.shape == (5, classes) and answers.dtype == np.float32
        layer = network.get_layer("head").get_layer("probability")
        assert layer.activation is keras.activations.sigmoid

    def test_softmax(self):
        answers = np.asarray(build_network(tiny_config(), MULTICLASS)(noise()))
        assert answers.shape == (5, 3)
        np.testing.assert_allclose(answers.sum(axis=1), 1, rtol=1e-5)

    def test_images_come_as_bytes_and_are_scaled_by_the_backbones_own_rule(self):
        network = build_network(tiny_config(), SPEC)
        assert network.input_shape == (None, 32, 32, 3) and network.input.dtype == "uint8"
        body = network.get_layer("body")
        images = noise()
        features = body.get_layer("lenet")(images / 127.5 - 1)
        np.testing.assert_allclose(body(images), np.mean(features, axis=(1, 2)), atol=1e-5)

    def test_dropout_acts_in_training_only(self):
        network = build_network(tiny_config(dropout=0.5, frozen_batch_norm=True), SPEC)
        images = noise()
        np.testing.assert_array_equal(network(images), network(images))
        assert np.abs(network(images, training=True) - network(images)).max() > 1e-4

    def test_a_copy_standardises_as_the_network_does(self, tmp_path):
        """A frozen body's head on several replicas, and every network on several workers."""
        config = tiny_config(frozen=True)
        network = build_network(config, SPEC)
        features = np.random.default_rng(3).normal(40, 7, (30, 16)).astype(np.float32)
        network.get_layer("head").get_layer("standardise").adapt(features)
        wanted = network.get_layer("head").predict(features, verbose=0)
        device = replace(choose_accelerator("cpu"), replicas=2)
        answerer = Predictor(config, SPEC, lambda ids: [], device, tmp_path, False, 0)
        copy = answerer.own_head(network)
        assert copy is not network.get_layer("head") and np.ptp(wanted) > 0.1
        np.testing.assert_array_equal(copy.predict(features, verbose=0), wanted)

    def test_the_penalty_is_on_the_head_alone(self):
        assert not build_network(tiny_config(), SPEC).losses
        network = build_network(tiny_config(head_l2=0.5), SPEC)
        kernel = network.get_layer("head").get_layer("probability").kernel
        (penalty,) = network.losses
        assert float(penalty) == pytest.approx(0.5 * float(np.square(kernel).sum()), rel=1e-5)


class TestBody:
    """Where the features are taken from."""

    def test_a_layer_may_be_cut_at_fold_after_fold(self):
        config = tiny_config(backbone_layer="stage1_pool")
        for _ in range(2):  # a second network in one process: automatic names would count on
            body = build_body(config, load_published=False)
            assert body.output_shape == (None, 8)

    def test_an_unknown_layer_gives_the_nearest(self):
        config = tiny_config(backbone_layer="stage1_pol")
        with pytest.raises(PipelineError, match=r"backbone_layer 'stage1_pol'.*'stage1_pool'"):
            build_body(config, load_published=False)

    def test_pool_share_pools_the_centre(self):
        config = tiny_config(image_size_px=64, pool_share=0.5)
        body = shaken(build_body(config, load_published=False))
        images = noise(side=64)
        features = np.asarray(body.get_layer("lenet")(images / 127.5 - 1))
        assert features.shape[1:3] == (8, 8)
        np.testing.assert_allclose(
            body(images), features[:, 2:6, 2:6].mean(axis=(1, 2)), rtol=1e-4, atol=1e-5
        )

    @pytest.mark.parametrize("frozen", [True, False])
    def test_frozen_leaves_the_head_to_train(self, frozen):
        network = build_network(tiny_config(frozen=frozen), SPEC)
        shapes = [tuple(weight.shape) for weight in network.trainable_weights]
        head = [(16, 1), (1,)]
        assert shapes == head if frozen else (shapes[-2:] == head and len(shapes) == 2 + 3 * 3)

    @pytest.mark.parametrize("changes", [{"frozen": True}, {"frozen_batch_norm": True}, {}])
    def test_still_batch_norm_keeps_its_statistics_in_training(self, changes):
        network = build_network(tiny_config(**changes), SPEC)
        before = moving(network)
        network(noise(), training=True)
        same = [np.array_equal(a, b) for a, b in zip(before, moving(network), strict=True)]
        assert len(same) == 6
        assert all(same) if changes else not any(same)

    def test_train_from_leaves_what_comes_before_as_it_was(self):
        network = build_network(tiny_config(train_from="stage0_pool"), SPEC)
        states = {
            layer.name: layer.trainable
            for layer in network.get_layer("body").get_layer("lenet").layers
        }
        start = list(states).index("stage0_pool")
        assert list(states.values()) == [False] * start + [True] * (len(states) - start)
        before = moving(network)
        network(noise(), training=True)
        same = [np.array_equal(a, b) for a, b in zip(before, moving(network), strict=True)]
        assert same == [True] * 2 + [False] * 4

    def test_train_from_an_unknown_layer_gives_the_nearest(self):
        with pytest.raises(PipelineError, match=r"train_from 'stage0_pol'.*'stage0_pool'"):
            build_body(tiny_config(train_from="stage0_pol"), load_published=False)

    def test_the_memory_of_batch_norm_is_the_configs(self):
        means = []
        for momentum in (None, 0.5):
            keras.utils.set_random_seed(0)
            network = build_network(tiny_config(batch_norm_momentum=momentum), SPEC)
            network(noise(), training=True)
            means.append(np.concatenate(moving(network)[::2]))
        # One step moves a mean of 0 by (1 - momentum) of the batch's: LeNet's own momentum is 0.9.
        np.testing.assert_allclose(means[1][:4], 5 * means[0][:4], rtol=1e-4)


def moving(network):
    body = network.get_layer("body")
    return [np.array(weight.numpy()) for weight in body.weights if "moving" in weight.path]


class TestViews:
    """Test-time augmentation."""

    def hand_made(self, images, views):
        mirrored = [images, images[:, :, ::-1]]
        if views == "none":
            return [images]
        turns = (0, 2) if views == "flips" else range(4)
        return [np.rot90(side, k, axes=(1, 2)) for side in mirrored for k in turns]

    @pytest.mark.parametrize(("views", "count"), [("none", 1), ("flips", 4), ("dihedral", 8)])
    def test_views_are_averaged_and_rows_pass_through(self, views, count):
        network = shaken(build_network(tiny_config(), MULTICLASS))
        images, row = noise(), np.array([3, -1, 0, 7, 1], np.int32)
        tta_model = with_views(network, VIEWS[views])
        found = tta_model({"image": images, "row": row})
        by_hand = [np.asarray(network(view.copy())) for view in self.hand_made(images, views)]
        assert len(by_hand) == count == len(VIEWS[views])
        assert set(found) == {"probability", "row"}
        np.testing.assert_allclose(found["probability"], np.mean(by_hand, axis=0), atol=1e-6)
        np.testing.assert_array_equal(found["row"], row)
        calls = [call.operation for call in calls_within(tta_model)]
        assert calls.count(network) == 1  # all views are one batch: compiled once, memory bounded
        if count > 1:
            assert np.ptp(by_hand, axis=0).max() > 1e-4  # the views do differ

    def test_features_of_the_views_stand_side_by_side(self):
        body = shaken(build_body(tiny_config(), load_published=False))
        images, row = noise(), np.arange(5, dtype=np.int32)
        found = stacked_views(body, VIEWS["dihedral"])({"image": images, "row": row})
        assert found["features"].shape == (5, 8, 16)
        by_hand = [np.asarray(body(view.copy())) for view in self.hand_made(images, "dihedral")]
        np.testing.assert_allclose(found["features"], np.stack(by_hand, axis=1), atol=1e-6)
        np.testing.assert_array_equal(found["row"], row)


class TestWeights:
    """A file in place of the published weights."""

    def test_a_file_gives_the_backbone_its_features(self, tmp_path):
        path = tmp_path / "pretrained.weights.h5"
        backbone = lenet_file(path, filters=4)
        body = build_body(tiny_config(weights=str(path)), load_published=True)
        images = noise()
        wanted = np.mean(backbone(images / 127.5 - 1), axis=(1, 2))
        np.testing.assert_allclose(body(images), wanted, rtol=1e-5, atol=1e-6)
        untrained = build_body(tiny_config(weights=str(path)), load_published=False)
        assert np.abs(untrained(images) - wanted).max() > 1e-2

    def test_a_file_of_another_network_is_named(self, tmp_path):
        path = tmp_path / "wide.weights.h5"
        lenet_file(path, filters=8)
        with pytest.raises(PipelineError, match=rf"image\.weights: {path} does not fit"):
            build_body(tiny_config(weights=str(path)), load_published=True)

    def test_a_file_of_other_layers_is_named(self, tmp_path):
        path = tmp_path / "dense.weights.h5"
        keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).save_weights(path)
        with pytest.raises(PipelineError, match=rf"{path} does not fit"):
            build_body(tiny_config(weights=str(path)), load_published=True)

    @pytest.mark.parametrize("content", [b"", b"no hdf5 at all"])
    def test_a_damaged_file_is_named(self, tmp_path, content):
        path = tmp_path / "damaged.weights.h5"
        path.write_bytes(content)
        with pytest.raises(PipelineError, match=rf"{path} does not fit"):
            load_weights(build_network(tiny_config(), SPEC), path)

    def test_a_missing_file_is_named(self, tmp_path):
        path = tmp_path / "nowhere.weights.h5"
        with pytest.raises(PipelineError, match=rf"image\.weights: {path} does not exist"):
            build_body(tiny_config(weights=str(path)), load_published=True)

    def test_what_cannot_be_downloaded_is_told_by_the_check(self, monkeypatch):
        def no_network(name, *_, **__):
            raise Exception(f"URL fetch failure on {name}")

        monkeypatch.setattr("keras.src.utils.file_utils.get_file", no_network)
        config = tiny_config(backbone="MobileNetV2", backbone_options={}, weights="imagenet")
        with pytest.raises(
            PipelineError, match=r"MobileNetV2 .*URL fetch failure.*without internet"
        ):
            check_backbone(config)
        check_backbone(replace(config, weights=None))

    def test_published_weights_can_be_checked_without_making_numbers(self, monkeypatch, tmp_path):
        path = tmp_path / "published_notop.h5"
        options = {"include_top": False, "alpha": 0.35, "weights": None}
        published = keras.applications.MobileNetV2(**options)
        with h5py.File(path, "w") as file:
            legacy_h5_format.save_weights_to_hdf5_group(file, published)
        asked = []
        monkeypatch.setattr(
            "keras.src.utils.file_utils.get_file", lambda *_, **__: asked.append(1) or str(path)
        )
        config = tiny_config(
            backbone="MobileNetV2", backbone_options={"alpha": 0.35}, weights="imagenet",
            train_from="block_6_expand",
        )  # fmt: skip
        check_backbone(config)
        assert asked
        body = build_body(config, load_published=True)
        (network,) = [layer for layer in body.layers if isinstance(layer, keras.Model)]
        for ours, theirs in zip(network.get_weights(), published.get_weights(), strict=True):
            np.testing.assert_array_equal(ours, theirs)

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"backbone_options": {"filtres": 4}}, "LeNet.*filtres"),
            ({"weights": "imagenet"}, "LeNet has no published weights"),
            ({"backbone": "LeNett"}, "'LeNett'; did you mean 'LeNet'"),
            ({"backbone": "MobileNetV2", "backbone_options": {"alpah": 1}}, "MobileNetV2.*alpah"),
        ],
    )
    def test_a_backbone_that_cannot_be_had_is_named(self, changes, said):
        with pytest.raises(PipelineError, match=said):
            build_network(tiny_config(**changes), SPEC)


def test_weights_of_another_network_are_refused_before_any_conversion(tmp_path):
    path = tmp_path / "other.weights.h5"
    get_backbone("PrimitiveCNN").build((64, 64, 3)).save_weights(path)
    config = ImageConfig(weights=str(path), image_size_px=64, train_from=None)
    check_backbone(replace(config, backbone="PrimitiveCNN"))
    with pytest.raises(PipelineError, match=r"other\.weights\.h5 does not fit lenet"):
        check_backbone(replace(config, backbone="LeNet"))


def test_the_format_of_images_is_ours_whatever_keras_json_says():
    keras.config.set_image_data_format("channels_first")
    try:
        choose_accelerator("cpu")
        assert keras.config.image_data_format() == "channels_last"
    finally:
        keras.config.set_image_data_format("channels_last")
