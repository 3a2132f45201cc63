"""Tests of missing labels: a row teaches what is known of it, and nothing else."""

import numpy as np
import pandas as pd
import pytest

tf = pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")

from helpers_image import tiny_config  # noqa: E402

from kaggle_pipeline.datasets import get_spec  # noqa: E402
from kaggle_pipeline.models.class_balance import oversampling_repeats, row_weights  # noqa: E402
from kaggle_pipeline.models.image.fit.losses import (  # noqa: E402
    MaskedLoss,
    make_loss,
    make_metrics,
    with_mask,
)
from kaggle_pipeline.models.image.fit.training import training_rows  # noqa: E402
from kaggle_pipeline.models.image.input.mixup import _among_known, mix_targets  # noqa: E402

SPEC = get_spec("isic_2017")
N, FEATURES = 12, 5
MISSING = [2, 5, 9]
"""Rows whose second label is not known."""


def case(seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(N, FEATURES)).astype(np.float32)
    targets = rng.integers(0, 2, (N, 2)).astype(np.float32)
    targets[MISSING, 1] = np.nan
    weights = rng.uniform(0.5, 2, N).astype(np.float32)
    return x, targets, weights


def gradients(loss, x, targets, weights):
    """Of a shared hidden layer and a sigmoid a class; summed over the rows, by variable."""
    keras.utils.set_random_seed(1)
    network = keras.Sequential(
        [keras.Input((FEATURES,)), keras.layers.Dense(4, "tanh"), keras.layers.Dense(2, "sigmoid")]
    )
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(loss.call(tf.constant(targets), network(x)) * weights)
    return [g.numpy() for g in tape.gradient(total, network.trainable_variables)]


@pytest.mark.parametrize("kind", ["crossentropy", "focal"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_masked_rows_give_the_gradients_that_there_would_be_without_them(kind, smoothing):
    config = tiny_config(loss=kind, label_smoothing=smoothing)
    plain = make_loss(config, "multilabel")
    masked = make_loss(config, "multilabel", labels_missing=True)
    x, targets, weights = case()
    found = gradients(masked, x, with_mask(targets), weights)
    known = np.setdiff1d(np.arange(N), MISSING)
    full = gradients(plain, x[known], targets[known], weights[known])
    # What the other rows say of the first class alone, by a network of both.
    zero = np.where(np.arange(2) == 1, np.nan, targets[MISSING])
    first = gradients(masked, x[MISSING], with_mask(zero), weights[MISSING])
    for one, whole, part in zip(found, full, first, strict=True):
        np.testing.assert_allclose(one, whole + part, rtol=1e-4, atol=1e-6)
    kernel, bias = 2, 3
    np.testing.assert_allclose(found[kernel][:, 1], full[kernel][:, 1], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found[bias][1], full[bias][1], rtol=1e-4, atol=1e-6)
    assert np.abs(first[kernel][:, 0]).max() > 1e-3 and not first[kernel][:, 1].any()


def test_without_a_missing_label_nothing_changes():
    x, targets, weights = case()
    targets = np.nan_to_num(targets)
    assert with_mask(targets) is targets
    masked = np.hstack([targets, np.ones_like(targets)])
    config = tiny_config(label_smoothing=0.05)
    plain, other = (
        gradients(loss, x, truth, weights)
        for loss, truth in (
            (make_loss(config, "multilabel"), targets),
            (make_loss(config, "multilabel", labels_missing=True), masked),
        )
    )
    for one, two in zip(plain, other, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6)


def test_mixed_rows_mix_what_is_known_of_each():
    _, targets, weights = case()
    rng = np.random.default_rng(3)
    share = rng.uniform(0.1, 0.9, N).astype(np.float32)
    said = tf.constant(rng.uniform(0.05, 0.95, (N, 2)).astype(np.float32))
    loss = MaskedLoss(make_loss(tiny_config(label_smoothing=0.1), "binary"))
    truth = with_mask(targets)
    mixed, total = mix_targets(tf.constant(truth), tf.constant(weights), tf.constant(share))
    found = np.asarray(total * loss.call(_among_known(mixed), said))
    own, other = (
        np.asarray(loss.call(tf.constant(one), said)) for one in (truth, np.roll(truth, 1, axis=0))
    )
    wanted = share * weights * own + (1 - share) * np.roll(weights, 1) * other
    np.testing.assert_allclose(found, wanted, rtol=1e-4)


def test_the_auc_counts_known_labels_alone():
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 2, (400, 2)).astype(np.float32)
    said = np.clip(0.3 * targets + rng.uniform(0, 0.7, targets.shape), 0, 1).astype(np.float32)
    untold = targets.copy()
    untold[::3, 1] = np.nan
    said[::3, 1] = 1 - said[::3, 1]  # nonsense where nobody knows
    (metric,) = make_metrics(tiny_config(), SPEC, labels_missing=True)
    for half in (slice(0, 200), slice(200, 400)):
        metric.update_state(with_mask(untold)[half], said[half])
    by_class = []
    for i, rows in enumerate((slice(None), ~np.isnan(untold[:, 1]))):
        one = keras.metrics.AUC(num_thresholds=1000)
        one.update_state(targets[rows, i], said[rows, i])
        by_class.append(float(one.result()))
    assert float(metric.result()) == pytest.approx(np.mean(by_class), abs=1e-5)
    metric.reset_state()
    assert float(metric.result()) == 0


def test_rows_of_missing_labels_count_in_no_class():
    targets = np.array([[1, 0]] * 4 + [[0, 1]] * 6 + [[0, 0]] * 20, np.float32)
    more = np.array([[0, np.nan]] * 50 + [[1, np.nan]] * 5, np.float32)
    both = np.vstack([targets, more])
    repeats = oversampling_repeats(both, 3.0, 0)
    assert (repeats[:30] == oversampling_repeats(targets, 3.0, 0)).all()
    assert (repeats[30:] == 1).all()
    weights, alone = row_weights(both, repeats), row_weights(targets, repeats[:30])
    np.testing.assert_allclose(weights[:30], alone)
    assert set(weights[30:80]) == {alone[-1]} and set(weights[80:]) == {alone[0]}


def test_training_rows_say_whether_a_label_is_missing():
    _, targets, _ = case()
    table = pd.DataFrame(targets, [f"i{n}" for n in range(N)], list(SPEC.classes))
    rows = training_rows(table, tiny_config(), SPEC, 0)
    assert rows.labels_missing and rows.targets.shape == (N, 4)
    assert np.isfinite(rows.targets).all() and np.isfinite(rows.weights).all()
    rows = training_rows(table.fillna(0), tiny_config(), SPEC, 0)
    assert not rows.labels_missing and rows.targets.shape == (N, 2)
