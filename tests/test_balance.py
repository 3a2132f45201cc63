"""Tests of class weights and oversampling against published numbers and their limits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaggle_pipeline.balance import class_index, class_weights, oversampling_repeats, row_weights


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


def test_class_index_of_one_column_and_of_several():
    assert class_index(np.array([[0.0], [1.0], [1.0]])).tolist() == [0, 1, 1]
    assert class_index(one_hot([2, 0, 1], 3)).tolist() == [2, 0, 1]


def test_repeats_show_only_the_rare_class_more_often():
    targets = np.array([[0]] * 98 + [[1]] * 2)
    repeats = oversampling_repeats(targets, 10)
    assert repeats.dtype == np.int64
    assert (repeats[:98] == 1).all()
    assert (repeats[98:] == 10).all()


def test_repeats_stop_before_the_rare_class_is_the_commonest():
    targets = np.array([[0]] * 9 + [[1]] * 4)
    assert oversampling_repeats(targets, 10)[-1] == 2  # 4 * 3 would be more than 9


def test_factor_one_changes_nothing():
    assert (oversampling_repeats(np.array([[0], [0], [1]]), 1) == 1).all()


def test_repeats_work_when_positives_are_the_commoner():
    assert oversampling_repeats(np.array([[1]] * 6 + [[0]] * 2), 5).tolist() == [1] * 6 + [3] * 2


@pytest.mark.parametrize("value", [0, 1])
def test_repeats_of_one_class_alone_are_one(value):
    assert oversampling_repeats(np.full((5, 1), value), 4).tolist() == [1] * 5


@given(classes=st.lists(st.integers(0, 4), min_size=1, max_size=60), factor=st.integers(1, 30))
def test_no_class_overtakes_and_none_is_lost(classes, factor):
    targets = one_hot(classes, 5)
    repeats = oversampling_repeats(targets, factor)
    assert repeats.min() >= 1
    assert repeats.max() <= factor
    before, after = np.bincount(classes, minlength=5), np.bincount(classes, repeats, 5)
    assert after.max() == before.max()


@pytest.mark.parametrize("factor", [1, 3, 20])
def test_row_weights_even_out_what_is_shown(factor):
    targets = np.array([[0]] * 90 + [[1]] * 10)
    repeats = oversampling_repeats(targets, factor)
    weights = row_weights(targets, repeats)
    assert weights.dtype == np.float32
    shown = weights * repeats
    assert shown[:90].sum() == pytest.approx(shown[90:].sum(), rel=1e-5)
    assert shown.sum() == pytest.approx(repeats.sum(), rel=1e-5)


def test_row_weights_after_oversampling_by_hand():
    # 8 negatives; 2 positives shown 3 times make 6: weights 14/2/8 and 14/2/6.
    targets = np.array([[0]] * 8 + [[1]] * 2)
    weights = row_weights(targets, oversampling_repeats(targets, 3))
    np.testing.assert_allclose(weights, [0.875] * 8 + [7 / 6] * 2, rtol=1e-6)


def test_row_weights_of_several_classes_count_a_class_that_is_not_there():
    weights = row_weights(one_hot([0, 0, 0, 1], 3), np.ones(4, int))
    np.testing.assert_allclose(weights, [4 / 9] * 3 + [4 / 3], rtol=1e-6)
