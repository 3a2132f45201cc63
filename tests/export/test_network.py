"""Tests of a run as one network: what it says is what the run's own functions say."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from helpers_image import tiny_config

pytest.importorskip("tensorflow")

from kaggle_pipeline.config.image import ImageConfig
from kaggle_pipeline.data.metadata_encoder import blank_metadata
from kaggle_pipeline.datasets import get_spec
from kaggle_pipeline.evaluation.calibration.calibration import Calibration
from kaggle_pipeline.evaluation.decision.decision import Decision
from kaggle_pipeline.evaluation.decision.rules import SoftmaxRule, ThresholdRule, equal_costs
from kaggle_pipeline.export.network import serving_network
from kaggle_pipeline.hardware.accelerator import choose_accelerator
from kaggle_pipeline.models.composite import OneModelPerClass, SeedEnsemble
from kaggle_pipeline.models.image.inference.tta import views_of, with_views
from kaggle_pipeline.models.image.label_mapping import class_probabilities
from kaggle_pipeline.models.image.metadata_branch import metadata_encoder
from kaggle_pipeline.models.image.model import ImageModel
from kaggle_pipeline.models.image.network import build_network

# From dark to bright: what differs by pixel alone is averaged away over a network's views.
PHOTOS = np.linspace(40, 255, 6)[:, None, None, None] * np.random.default_rng(0).random((32, 32, 3))
PHOTOS = PHOTOS.astype(np.uint8)
HAM = get_spec("ham10000")
TWO = replace(HAM, classes=("mel", "nv"))
SIIM = get_spec("siim_isic_2020")
ISIC_2017 = get_spec("isic_2017")


def model_of(config: ImageConfig, spec, seed=0):
    """A model whose answers differ from photo to photo, not trained."""
    device = choose_accelerator("cpu")
    model = ImageModel(config, spec, lambda ids: [], device, "unused", seed=seed)
    model.encoder_ = None
    if config.metadata:
        rows = blank_metadata(pd.DataFrame(index=list("ab")), spec)
        model.encoder_ = metadata_encoder(spec).fit(rows.assign(age_years=[40.0, 60.0]))
    model.network_ = build_network(config, spec)
    rng = np.random.default_rng(seed)
    weights = model.network_.get_weights()
    model.network_.set_weights([one + rng.normal(0, 0.3, one.shape) for one in weights])
    return model


def answers(model):
    """What the model itself says of PHOTOS."""
    inputs = {"image": PHOTOS, "row": np.arange(len(PHOTOS))}
    if model.encoder_ is not None:
        rows = blank_metadata(pd.DataFrame(index=range(len(PHOTOS))), model.spec)
        inputs["metadata"] = model.encoder_.transform(rows)
    network = with_views(model.network_, views_of(model.config))
    found = np.asarray(network(inputs)["probability"], float)
    return class_probabilities(found, model.config, model.spec)


def ask(network):
    return {name: np.asarray(one) for name, one in network(PHOTOS).items()}


def calibration(method, spec, maps):
    return Calibration(method, "a test", spec.task, spec.classes, maps, {}, {}, {})


def decision(rule, spec):
    return Decision({}, spec.task, spec.classes, rule, True, "a test", {}, {})


@pytest.mark.parametrize(
    ("spec", "changes"),
    [
        (SIIM, {"tta": "dihedral"}),
        (SIIM, {"tta": "random", "tta_views": 3}),
        (HAM, {"tta": "flips"}),
        (TWO, {"tta": "flips"}),
        (SIIM, {"metadata": True}),
        (SIIM, {"target": "diagnosis"}),
        (SIIM, {"weights": None, "frozen": True}),
    ],
    ids=["dihedral", "random", "softmax", "softmax of two", "metadata", "diagnosis", "frozen"],
)
def test_scores_are_the_mean_of_the_folds_over_their_views(spec, changes):
    models = [model_of(tiny_config(**changes), spec, seed) for seed in range(2)]
    found = ask(serving_network(models, spec, None, None, 32))
    expected = np.mean([answers(model) for model in models], axis=0)
    assert np.ptp(np.log(expected / (1 - expected)), axis=0).max() > 0.01  # photos differ
    np.testing.assert_allclose(found["score"], expected, atol=2e-6)
    np.testing.assert_array_equal(found["probability"], found["score"])
    assert "decision" not in found


def test_a_frozen_network_is_a_graph_of_the_photo_alone():
    """tf2onnx makes a further input of every tensor that lies outside of it and is no variable."""
    import tensorflow as tf

    model = model_of(tiny_config(weights=None, frozen=True), SIIM)
    expected = answers(model)
    network = serving_network([model], SIIM, None, None, 32)
    ask_graph = tf.function(lambda image: network(image, training=False)["score"])
    graph = ask_graph.get_concrete_function(tf.TensorSpec((None, 32, 32, 3), tf.uint8))
    assert {one.dtype for one in graph.captured_inputs} == {tf.resource}
    np.testing.assert_allclose(graph(tf.constant(PHOTOS)), expected, atol=2e-6)


def test_models_a_class_and_a_seed_stand_side_by_side():
    config = tiny_config(tta="flips")
    seeds = iter(range(99))

    def one(spec):
        made = SeedEnsemble(lambda seed, folder: model_of(config, spec, next(seeds)), 0, 2, "x")
        made.models_ = made._models
        return made

    model = OneModelPerClass(lambda spec, folder: one(spec), ISIC_2017, "x")
    model.models_ = model._models
    found = ask(serving_network([model], ISIC_2017, None, None, 32))["score"]
    expected = [
        np.mean([answers(member)[:, 0] for member in model.models_[name].models_.values()], axis=0)
        for name in ISIC_2017.classes
    ]
    np.testing.assert_allclose(found, np.stack(expected, 1), atol=2e-6)


STEPS = {"knots": [[0.0, 0.4, 0.4 + 1e-9, 0.6, 1.0], [0.1, 0.1, 0.5, 0.5, 0.9]]}


@pytest.mark.parametrize(
    ("spec", "maps"),
    [
        (SIIM, {"target": {"slope": 0.7, "intercept": -2.0}}),
        (SIIM, {"target": STEPS}),
        (SIIM, {"target": {"knots": [[0.5], [0.25]]}}),
        (SIIM, {}),
        (HAM, {"all classes": {"temperature": 1.7}}),
        (HAM, {name: {"slope": 1.2, "intercept": 0.3} for name in HAM.classes[:3]}),
        (HAM, {name: STEPS for name in HAM.classes}),
    ],
    ids=["platt", "steps", "one knot", "none", "temperature", "some classes", "steps of all"],
)
def test_probabilities_are_what_the_calibration_makes_of_the_scores(spec, maps):
    fitted = calibration("isotonic", spec, maps)
    models = [model_of(tiny_config(), spec, seed) for seed in range(2)]
    found = ask(serving_network(models, spec, fitted, None, 32))
    scores = pd.DataFrame(found["score"].astype(float), columns=list(spec.classes))
    np.testing.assert_allclose(found["probability"], fitted.apply(scores), atol=1e-6)


def test_a_score_of_0_or_1_has_a_finite_probability():
    model = model_of(tiny_config(), SIIM)
    *others, bias = model.network_.get_weights()
    platt = calibration("temperature", SIIM, {"target": {"slope": 0.3, "intercept": 0.0}})
    for way in (-1e3, 1e3):
        model.network_.set_weights([*others, bias + way])
        found = ask(serving_network([model], SIIM, platt, None, 32))
        expected = platt.apply(pd.DataFrame(found["score"].astype(float), columns=["target"]))
        np.testing.assert_allclose(found["probability"], expected, atol=1e-6)


def test_decisions_are_the_rules():
    models = [model_of(tiny_config(), HAM, seed) for seed in range(2)]
    count = len(HAM.classes)
    costs = np.random.default_rng(1).uniform(0.5, 2, (count, count)) * (1 - np.eye(count))
    rule = SoftmaxRule(tuple(np.linspace(0.5, 3, count)), tuple(map(tuple, costs)))
    found = ask(serving_network(models, HAM, None, decision(rule, HAM), 32))
    np.testing.assert_array_equal(found["decision"], rule.decide(found["probability"]))
    assert found["decision"].sum() == len(PHOTOS)


def test_a_rule_allows_what_rounding_decides_and_nothing_else():
    limit = ThresholdRule((0.5, 0.2))
    found = np.array([[0.5 - 1e-6, 0.1], [0.3, 0.1], [0.7, 0.3]])
    np.testing.assert_array_equal(
        limit.allows(found, np.array([[1, 0], [1, 0], [1, 1]]), 1e-4), [True, False, True]
    )
    weighed = SoftmaxRule((1.0, 2.0), ((0.0, 1.0), (1.0, 0.0)))
    found = np.array([[2 / 3, 1 / 3], [0.9, 0.1], [0.9, 0.1]])
    decided = np.array([[0, 1], [0, 1], [1, 0]])
    np.testing.assert_array_equal(weighed.allows(found, decided, 1e-4), [True, False, True])


def test_a_threshold_that_is_a_photos_own_probability_is_reached():
    models = [model_of(tiny_config(), SIIM)]
    platt = calibration("temperature", SIIM, {"target": {"slope": 0.7, "intercept": -0.3}})
    scores = answers(models[0])
    exact = np.sort(platt.apply(pd.DataFrame(scores, columns=["target"])).to_numpy()[:, 0])
    rule = ThresholdRule((float(exact[2]),))
    found = ask(serving_network(models, SIIM, platt, decision(rule, SIIM), 32))
    assert found["decision"].sum() == len(PHOTOS) - 2


def test_a_decision_needs_no_operator_that_onnx_lacks():
    """Keras' argmax does, which no ONNX Runtime then loads."""
    import tensorflow as tf

    rule = SoftmaxRule((1.0,) * len(HAM.classes), equal_costs(len(HAM.classes)), 0.0)
    network = serving_network([model_of(tiny_config(), HAM)], HAM, None, decision(rule, HAM), 32)
    spec = tf.TensorSpec((None, 32, 32, 3), tf.uint8)
    graph = tf.function(lambda image: network(image, training=False)).get_concrete_function(spec)
    kinds = {one.type for one in graph.graph.get_operations()}
    assert "MatMul" in kinds and "Bitcast" not in kinds
