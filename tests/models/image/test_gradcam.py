"""Tests of Grad-CAM: its gradient, its place in the photo, that it tells what was learned."""

import numpy as np
import pytest

pytest.importorskip("tensorflow")

from dataclasses import replace

import keras
from helpers_image import tiny_config

from kaggle_pipeline.datasets import get_spec
from kaggle_pipeline.hardware.accelerator import choose_accelerator
from kaggle_pipeline.models.image.backbones.registry import list_backbones
from kaggle_pipeline.models.image.inference.gradcam import Explainer, logit_gradients
from kaggle_pipeline.models.image.inference.tta import VIEWS, views_of, with_views
from kaggle_pipeline.models.image.label_mapping import class_probabilities
from kaggle_pipeline.models.image.network import build_head, build_network
from kaggle_pipeline.synthetic import lesion_painter
from kaggle_pipeline.synthetic.looks import draw_looks, draw_skin

HAM, SIIM = get_spec("ham10000"), get_spec("siim_isic_2020")
SIDE_PX = 32


@pytest.fixture(scope="module")
def device():
    return choose_accelerator("cpu")


def photos(count, seed=0, side_px=SIDE_PX):
    return np.random.default_rng(seed).integers(0, 255, (count, side_px, side_px, 3), np.uint8)


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("spec", [HAM, SIIM], ids=["softmax", "sigmoid"])
def test_gradient_of_a_dense_head_is_its_kernel(spec, samples):
    head = build_head(tiny_config(dropout_samples=samples), spec, 5)
    found = logit_gradients(head, np.random.default_rng(0).random((3, 5), np.float32))
    kernel = head.get_layer("probability" if samples == 1 else "logit").get_weights()[0]
    np.testing.assert_allclose(found, np.tile(kernel.T, (3, 1, 1)), rtol=1e-5)


def test_gradient_goes_through_the_standardising_of_a_frozen_backbone():
    head = build_head(tiny_config(frozen=True), HAM, 5)
    head.get_layer("standardise").adapt(np.random.default_rng(1).normal(3, 2, (500, 5)))
    found = logit_gradients(head, np.ones((1, 5), np.float32))
    _, variance, _ = head.get_layer("standardise").get_weights()
    kernel = head.get_layer("probability").get_weights()[0]
    np.testing.assert_allclose(found[0], kernel.T / np.sqrt(variance), rtol=1e-4)


def test_gradient_of_a_bent_head_is_that_of_small_steps():
    x = inputs = keras.Input((4,))
    x = keras.layers.Dense(6, activation="tanh")(x)
    head = keras.Model(inputs, keras.layers.Dense(2, activation="sigmoid")(x))
    at = np.random.default_rng(2).normal(size=(1, 4)).astype(np.float32)

    def score(row):
        return np.log(head(row) / (1 - head(row)))

    steps = 1e-2 * np.eye(4, dtype=np.float32)
    slopes = [(score(at + step) - score(at - step))[0] / 2e-2 for step in steps]
    np.testing.assert_allclose(logit_gradients(head, at)[0], np.transpose(slopes), atol=2e-3)


def test_probabilities_are_those_of_prediction(device):
    config = tiny_config(tta="flips")
    network = build_network(config, HAM)
    found = Explainer(network, config, HAM, device).answer(photos(3))
    rows = {"image": photos(3), "row": np.arange(3, dtype=np.int32)}
    known = with_views(network, VIEWS["flips"]).predict_on_batch(rows)["probability"]
    np.testing.assert_allclose(found.probabilities, known, atol=1e-6)
    assert found.heat.shape == (3, 7, 4, 4) and found.heat.min() >= 0
    body = network.get_layer("body")(photos(3), training=False)
    np.testing.assert_allclose(found.embeddings, body, atol=1e-5)


def test_a_network_of_diagnoses_is_asked_about_its_class(device):
    config = tiny_config(target="diagnosis", tta="random", tta_views=3)
    network = build_network(config, SIIM)
    kernel, bias = network.get_layer("head").get_weights()
    network.get_layer("head").set_weights([np.abs(kernel), bias])  # some heat, whatever was drawn
    found = Explainer(network, config, SIIM, device).answer(photos(2))
    rows = {"image": photos(2), "row": np.arange(2, dtype=np.int32)}
    known = with_views(network, views_of(config)).predict_on_batch(rows)["probability"]
    expected = class_probabilities(known, config, SIIM)
    assert known.shape == (2, 9) and expected.shape == (2, 1)
    np.testing.assert_allclose(found.probabilities, expected, atol=1e-6)
    # Of its heat, what speaks for the melanoma among the nine answers, in the photo as it is.
    plain = tiny_config(target="diagnosis", tta="none")
    heat = Explainer(network, plain, SIIM, device).answer(photos(2)).heat
    assert heat.shape == (2, 1, 4, 4) and heat.max() > 0
    np.testing.assert_allclose(found.heat, heat, atol=1e-5 * heat.max())


def test_heat_turns_with_the_photo(device):
    config = tiny_config(tta="dihedral")
    explainer = Explainer(build_network(config, HAM), config, HAM, device)
    photo = photos(1)
    heat = explainer.answer(photo).heat[0]
    assert np.ptp(heat) > 1e-3 * heat.max() > 0
    for mirrored, turns in [(False, 1), (False, 2), (True, 0), (True, 3)]:
        turned = np.rot90(photo[:, :, ::-1] if mirrored else photo, turns, axes=(1, 2))
        expected = np.rot90(heat[:, :, ::-1] if mirrored else heat, turns, axes=(1, 2))
        found = explainer.answer(turned).heat[0]
        np.testing.assert_allclose(found, expected, atol=1e-4 * heat.max())


def test_margins_that_are_not_pooled_stay_cold(device):
    config = tiny_config(pool_share=0.5)
    network = build_network(config, HAM)
    heat = Explainer(network, config, HAM, device).answer(photos(2)).heat
    assert heat.shape == (2, 7, 4, 4)
    assert heat[:, :, 1:3, 1:3].max() > 0
    assert heat[:, :, [0, 3]].max() == heat[:, :, :, [0, 3]].max() == 0


def draw(count, seed):
    """Half lesions, half bare skin: photos, truth, and the lesions' masks."""
    rng = np.random.default_rng(seed)
    pictures, masks = [], []
    for number in range(count):
        looks = draw_looks("mel", rng)
        if number % 2:  # nothing but skin
            looks = replace(looks, darkness=0.0, network=0.0, veil=0.0, blood=0.0, scar=0.0)
            looks = replace(looks, colour_variety=0.0, diameter=0.0)
        picture, mask = lesion_painter.draw_lesion(looks, draw_skin(rng), SIDE_PX, rng)
        pictures.append(picture)
        masks.append(mask)
    return np.stack(pictures), (np.arange(count) % 2 == 0).astype(float), np.stack(masks)


def share_inside(heat, masks):
    """Mean share of the heat (n, h, w) that lies inside the masks (n, side, side)."""
    times = masks.shape[1] // heat.shape[1]
    spread = heat.repeat(times, axis=1).repeat(times, axis=2)
    warm = spread.sum(axis=(1, 2)) > 0
    return float(((spread * masks).sum(axis=(1, 2))[warm] / spread.sum(axis=(1, 2))[warm]).mean())


@pytest.fixture(scope="module")
def learned():
    """A small network that was taught to tell a lesion from bare skin, and its settings."""
    keras.utils.set_random_seed(0)
    # Two stages: a map of 8 × 8.
    config = tiny_config(backbone_options={"filters": 8}, backbone_layer="stage1_pool")
    network = build_network(config, SIIM)
    network.compile(keras.optimizers.Adam(3e-3), "binary_crossentropy")
    pictures, truth, _ = draw(128, seed=1)
    for _ in range(8):
        for start in range(0, len(pictures), 16):
            network.train_on_batch(pictures[start : start + 16], truth[start : start + 16])
    return network, config


def test_heat_lies_on_the_lesion_and_is_about_what_was_learned(device, learned):
    network, config = learned
    pictures, truth, masks = draw(40, seed=2)
    pictures, masks = pictures[truth == 1], masks[truth == 1]
    answers = Explainer(network, config, SIIM, device).answer(pictures)
    assert answers.probabilities.mean() > 0.8  # it did learn
    inside, area = share_inside(answers.heat[:, 0], masks), float(masks.mean())
    assert inside > 1.5 * area, (inside, area)
    # Adebayo et al. 2018 (arXiv:1810.03292): an explanation of other weights is another one.
    alike = []
    for seed in range(3):
        keras.utils.set_random_seed(seed)
        other = Explainer(build_network(config, SIIM), config, SIIM, device)
        heat = other.answer(pictures[:8]).heat[:, 0]
        pairs = zip(answers.heat[:8, 0], heat, strict=True)
        alike += [
            np.corrcoef(one.ravel(), two.ravel())[0, 1]
            for one, two in pairs
            if np.ptp(one) > 0 and np.ptp(two) > 0
        ]
    assert not alike or np.mean(alike) < 0.6, np.mean(alike)


@pytest.mark.slow
@pytest.mark.parametrize("name", list_backbones())
def test_any_backbone_can_be_explained(device, name):
    keras.backend.clear_session()
    config = tiny_config(backbone=name, backbone_options={}, image_size_px=96)
    network = build_network(config, SIIM, load_published=False)
    found = Explainer(network, config, SIIM, device).answer(photos(1, side_px=96))
    assert found.heat.shape[:2] == (1, 1) and np.isfinite(found.heat).all()
    known = network.predict(photos(1, side_px=96), verbose=0)
    np.testing.assert_allclose(found.probabilities, known, atol=1e-5)
