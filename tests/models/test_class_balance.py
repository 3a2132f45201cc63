"""Tests of class weights and oversampling against published numbers and their limits."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaggle_pipeline.config.loading import load_experiment
from kaggle_pipeline.models.class_balance import (
    class_weights,
    label_sets,
    oversampling_repeats,
    resampling_repeats,
    row_weights,
)

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def one_hot(classes, size):
    return np.eye(size, dtype=int)[np.asarray(classes)]


def test_published_class_weights():
    """32,542 benign and 6,619 malignant images: published as 0.6017 and 2.9583 (2.95823)."""
    weights = class_weights([32542, 6619])
    np.testing.assert_allclose(weights, [0.6017, 2.9583], atol=1e-4)
    np.testing.assert_allclose(weights, [39161 / 2 / 32542, 39161 / 2 / 6619], rtol=1e-12)


def test_equal_classes_weigh_one():
    assert class_weights([7, 7]).tolist() == [1, 1]
    assert class_weights([5, 5, 5]).tolist() == [1, 1, 1]


def test_class_without_rows_weighs_nothing():
    assert class_weights([10, 0]).tolist() == [0.5, 0]


@given(counts=st.lists(st.integers(1, 40000), min_size=2, max_size=9))
def test_every_class_weighs_the_same_in_sum(counts):
    total = class_weights(counts) * counts
    np.testing.assert_allclose(total, sum(counts) / len(counts))


def test_label_sets_of_one_column_of_a_softmax_and_of_two_sigmoids():
    assert label_sets(np.array([[0.0], [1.0], [1.0]]))[1].tolist() == [0, 1, 1]
    sets, codes = label_sets(one_hot([2, 0, 1, 2], 3))
    assert (sets[codes] == one_hot([2, 0, 1, 2], 3)).all() and len(sets) == 3
    both = np.array([[0, 0], [1, 0], [0, 1], [0, 0], [1, 1]])
    sets, codes = label_sets(both)
    # Both labels are as common: the first counts.
    assert sets.tolist() == [[0, 0], [0, 1], [1, 0]] and codes.tolist() == [0, 2, 1, 0, 2]


def test_a_row_with_two_labels_counts_for_the_rarer_and_outweighs_nobody():
    targets = np.array([[0, 0]] * 1372 + [[1, 0]] * 374 + [[0, 1]] * 253 + [[1, 1]])
    sets, codes = label_sets(targets)
    assert len(sets) == 3 and sets[codes[-1]].tolist() == [0, 1]
    weights = row_weights(targets, np.ones(len(targets), int))
    assert weights[-1] == weights[-2] == weights.max() < 3


def test_the_published_oversampling_shows_6619_of_584_melanomas():
    """siim_isic_2020_seed: 32,542 benign and 584 malignant images, shown 32,542 and 6,619 times."""
    config = load_experiment(CONFIGS / "siim_isic_2020_seed.yaml").image
    targets = np.repeat([[0.0], [1.0]], [32542, 584], axis=0)
    repeats = oversampling_repeats(targets, config.oversample, seed=2020)
    assert repeats[:32542].sum() == 32542 and repeats[32542:].sum() == 6619
    assert set(repeats[32542:].tolist()) == {11, 12}
    weights = row_weights(targets, repeats, config.class_weight_power)
    np.testing.assert_allclose([weights[0], weights[-1]], [0.6017, 2.9583], atol=1e-4)


def test_a_factor_with_a_fraction_shows_some_rows_once_more():
    targets = np.array([[0]] * 90 + [[1]] * 10)
    repeats = oversampling_repeats(targets, 2.5, seed=3)
    assert sorted(repeats[90:].tolist()) == [2] * 5 + [3] * 5
    assert (repeats == oversampling_repeats(targets, 2.5, seed=3)).all()
    assert (repeats != oversampling_repeats(targets, 2.5, seed=4)).any()


def test_rows_without_any_label_are_a_class_of_their_own():
    # ISIC 2017: 12 nevi (no label), 4 melanomas, 2 keratoses.
    targets = np.array([[0, 0]] * 12 + [[1, 0]] * 4 + [[0, 1]] * 2)
    assert oversampling_repeats(targets, 3, seed=0).tolist() == [1] * 12 + [3] * 6
    weights = row_weights(targets, np.ones(18, int))
    np.testing.assert_allclose(weights, [0.5] * 12 + [1.5] * 4 + [3.0] * 2, rtol=1e-6)


def test_resampling_draws_so_many_of_each_class_with_return():
    classes = np.repeat([0, 1, 2], [500, 40, 3])
    repeats = resampling_repeats(one_hot(classes, 3), 100, seed=1)
    assert np.bincount(classes, repeats).tolist() == [100, 100, 100]
    assert (repeats[:500] == 0).any() and repeats[-1] > 10
    assert (repeats == resampling_repeats(one_hot(classes, 3), 100, seed=1)).all()


def test_half_power_weighs_less_and_keeps_the_mean_at_one():
    targets = np.array([[0]] * 90 + [[1]] * 10)
    ones = np.ones(100, int)
    full, half, none = (row_weights(targets, ones, power) for power in (1.0, 0.5, 0.0))
    assert full[-1] / full[0] == pytest.approx(9) and half[-1] / half[0] == pytest.approx(3)
    assert (none == 1).all() and half.mean() == pytest.approx(1)


def test_repeats_show_only_the_rare_class_more_often():
    targets = np.array([[0]] * 98 + [[1]] * 2)
    repeats = oversampling_repeats(targets, 10, seed=0)
    assert repeats.dtype == np.int64
    assert (repeats[:98] == 1).all()
    assert (repeats[98:] == 10).all()


def test_repeats_stop_before_the_rare_class_is_the_commonest():
    targets = np.array([[0]] * 9 + [[1]] * 4)
    assert oversampling_repeats(targets, 10, seed=0)[-1] == 2  # 4 * 3 would be more than 9


def test_factor_one_changes_nothing():
    assert (oversampling_repeats(np.array([[0], [0], [1]]), 1, seed=0) == 1).all()


def test_repeats_work_when_positives_are_the_commoner():
    assert (
        oversampling_repeats(np.array([[1]] * 6 + [[0]] * 2), 5, seed=0).tolist()
        == [1] * 6 + [3] * 2
    )


@pytest.mark.parametrize("value", [0, 1])
def test_repeats_of_one_class_alone_are_one(value):
    assert oversampling_repeats(np.full((5, 1), value), 4, seed=0).tolist() == [1] * 5


@given(classes=st.lists(st.integers(0, 4), min_size=1, max_size=60), factor=st.integers(1, 30))
def test_no_class_overtakes_and_none_is_lost(classes, factor):
    targets = one_hot(classes, 5)
    repeats = oversampling_repeats(targets, factor, seed=0)
    assert repeats.min() >= 1
    assert repeats.max() <= factor
    before, after = np.bincount(classes, minlength=5), np.bincount(classes, repeats, 5)
    assert after.max() == before.max()


@pytest.mark.parametrize("factor", [1, 3, 20])
def test_row_weights_even_out_what_is_shown(factor):
    targets = np.array([[0]] * 90 + [[1]] * 10)
    repeats = oversampling_repeats(targets, factor, seed=0)
    weights = row_weights(targets, repeats)
    assert weights.dtype == np.float32
    shown = weights * repeats
    assert shown[:90].sum() == pytest.approx(shown[90:].sum(), rel=1e-5)
    assert shown.sum() == pytest.approx(repeats.sum(), rel=1e-5)


def test_row_weights_after_oversampling_by_hand():
    # 8 negatives; 2 positives shown 3 times make 6: weights 14/2/8 and 14/2/6.
    targets = np.array([[0]] * 8 + [[1]] * 2)
    weights = row_weights(targets, oversampling_repeats(targets, 3, seed=0))
    np.testing.assert_allclose(weights, [0.875] * 8 + [7 / 6] * 2, rtol=1e-6)


def test_row_weights_leave_out_a_class_that_is_not_there():
    weights = row_weights(one_hot([0, 0, 0, 1], 3), np.ones(4, int))
    np.testing.assert_allclose(weights, [4 / 6] * 3 + [4 / 2], rtol=1e-6)
