"""Tests of scores: equal to scikit-learn's, intervals over groups, joins by id."""

from math import erf

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from kaggle_pipeline.errors import PipelineError
from kaggle_pipeline.metrics import (
    MeanAuc,
    Score,
    WeightedAuc,
    auc_with_interval,
    group_weights,
    roc_auc,
    summarise_oof,
)

# Scores from seven values only, so that most are tied; weights with zeros, as a bootstrap has.
ROWS = st.lists(
    st.tuples(st.integers(0, 1), st.integers(0, 6).map(lambda i: i / 6), st.integers(0, 4)),
    min_size=2,
    max_size=40,
)


@given(rows=ROWS)
def test_weighted_auc_equals_scikit_learn(rows):
    targets, scores, weights = map(np.array, zip(*rows, strict=True))
    assume(weights[targets == 1].sum() and weights[targets == 0].sum())
    expected = roc_auc_score(targets, scores, sample_weight=weights)
    assert WeightedAuc(targets, scores)(weights) == pytest.approx(expected, abs=1e-12)


@given(rows=ROWS)
def test_weights_count_rows_as_if_repeated(rows):
    targets, scores, weights = map(np.array, zip(*rows, strict=True))
    assume(weights[targets == 1].sum() and weights[targets == 0].sum())
    repeated = WeightedAuc(np.repeat(targets, weights), np.repeat(scores, weights))()
    assert WeightedAuc(targets, scores)(weights) == pytest.approx(repeated, abs=1e-12)


def test_auc_without_ties_equals_scikit_learn_on_many_rows():
    rng = np.random.default_rng(0)
    targets = rng.random(3000) < 0.02
    scores = rng.normal(targets, 1)
    assert roc_auc(targets, scores) == pytest.approx(roc_auc_score(targets, scores), abs=1e-12)


def test_auc_of_known_cases():
    assert roc_auc([0, 1], [0.1, 0.9]) == 1.0
    assert roc_auc([0, 1], [0.9, 0.1]) == 0.0
    assert roc_auc([0, 1, 0, 1], [0.5] * 4) == 0.5


def test_auc_is_nan_when_a_class_has_no_weight():
    auc = WeightedAuc([0, 1, 1], [0.1, 0.2, 0.3])
    assert np.isnan(auc(np.array([0, 1, 1])))
    assert np.isnan(auc(np.array([1, 0, 0])))
    assert auc(np.array([1, 1, 0])) == 1.0


def test_mean_auc_is_the_mean_over_classes():
    rng = np.random.default_rng(0)
    truth = np.eye(3, dtype=int)[rng.integers(0, 3, 60)]
    scores = rng.random((60, 3)) + 0.3 * truth
    weights = rng.integers(1, 4, 60)
    expected = np.mean(
        [roc_auc_score(truth[:, c], scores[:, c], sample_weight=weights) for c in range(3)]
    )
    assert MeanAuc(truth, scores)(weights) == pytest.approx(expected, abs=1e-12)


def test_one_column_is_the_same_as_a_vector():
    targets, scores = np.array([0, 1, 0, 1]), np.array([0.2, 0.3, 0.4, 0.5])
    assert roc_auc(targets[:, None], scores[:, None]) == roc_auc(targets, scores) == 0.75


def test_mean_auc_refuses_columns_that_do_not_match():
    with pytest.raises(ValueError, match="zip"):
        MeanAuc(np.eye(3), np.ones((3, 2)))


def test_group_weights_draw_whole_groups_with_replacement():
    groups = np.array(["b", "a", "b", "c", "a", "b"])
    weights = group_weights(groups, 200, seed=1)
    assert weights.shape == (200, 6)
    assert weights.dtype == np.uint16
    one_row_a_group = weights[:, [0, 1, 3]]
    assert (one_row_a_group.sum(axis=1) == 3).all()
    for name in "abc":
        rows = weights[:, groups == name]
        assert (rows == rows[:, :1]).all()
    assert one_row_a_group.mean() == pytest.approx(1, abs=1e-9)
    assert one_row_a_group.max() > 1
    assert one_row_a_group.min() == 0


def test_group_weights_follow_the_seed():
    groups = np.arange(50)
    np.testing.assert_array_equal(group_weights(groups, 9, 3), group_weights(groups, 9, 3))
    assert (group_weights(groups, 9, 3) != group_weights(groups, 9, 4)).any()


def clustered(n_groups=60, size=8, seed=0):
    """Rows of a group are alike: all share one target and nearly one score."""
    rng = np.random.default_rng(seed)
    targets = np.repeat(rng.random(n_groups) < 0.3, size).astype(int)
    scores = (
        np.repeat(rng.normal(0, 1, n_groups), size) + targets + rng.normal(0, 0.1, len(targets))
    )
    return targets, scores, np.repeat(np.arange(n_groups), size)


def width(score):
    return score.high - score.low


def test_interval_by_group_is_wider_than_by_row_for_clustered_data():
    targets, scores, groups = clustered()
    by_group = auc_with_interval(targets, scores, groups, seed=0, n_replicates=300)
    by_row = auc_with_interval(targets, scores, np.arange(len(groups)), seed=0, n_replicates=300)
    assert by_group.value == by_row.value
    assert width(by_group) > 1.8 * width(by_row)  # sqrt(8) = 2.8 if rows were equal


def test_interval_covers_the_true_value_about_as_often_as_it_says():
    true = 0.5 * (1 + erf(1 / 2))  # normal scores, one standard deviation apart
    rng = np.random.default_rng(5)
    covered, runs = 0, 100
    for seed in range(runs):
        targets = np.repeat([0, 1], [80, 40])
        scores = rng.normal(targets, 1)
        score = auc_with_interval(targets, scores, np.arange(120), seed=seed, n_replicates=200)
        assert score.low <= score.value <= score.high
        covered += score.low <= true <= score.high
    assert 0.88 * runs <= covered <= 0.99 * runs


def test_interval_follows_the_seed():
    targets, scores, groups = clustered(20, 3)
    one, two = (auc_with_interval(targets, scores, groups, seed=s, n_replicates=50) for s in (1, 1))
    other = auc_with_interval(targets, scores, groups, seed=2, n_replicates=50)
    assert one == two != other


def test_interval_survives_replicates_without_a_positive():
    # One group holds all the positives: a third of the replicates miss it and have no AUC.
    targets, groups = np.array([1, 1, 0, 0, 0, 0]), np.array([0, 0, 1, 1, 2, 2])
    score = auc_with_interval(
        targets, np.array([3, 1, 0, 2, 0, 0]), groups, seed=0, n_replicates=99
    )
    assert score.low <= score.value == 0.875 <= score.high


@pytest.mark.parametrize("targets", [[0, 0, 0], [1, 1, 1]])
def test_one_class_alone_has_no_auc(targets):
    with pytest.raises(PipelineError, match="no AUC exists"):
        auc_with_interval(targets, [0.1, 0.2, 0.3], [1, 2, 3], seed=0)


def test_a_class_that_no_row_has_gives_no_mean_auc():
    truth = np.array([[1, 0, 0], [0, 1, 0], [1, 0, 0]])
    with pytest.raises(PipelineError, match="no AUC exists"):
        auc_with_interval(truth, np.full((3, 3), 1 / 3), [1, 2, 3], seed=0)


def test_score_prints_value_and_interval():
    assert str(Score(0.91234, 0.9, 0.95)) == "0.9123 [0.9000, 0.9500]"


@pytest.fixture
def oof():
    """Targets, probabilities and groups of 40 images."""
    rng = np.random.default_rng(0)
    ids = pd.Index([f"ISIC_{i}" for i in range(40)])
    targets = pd.DataFrame({"target": (rng.random(40) < 0.4).astype(float)}, ids)
    probabilities = pd.DataFrame({"target": rng.random(40)}, ids)
    return targets, probabilities, pd.Series(np.arange(40) // 4, ids)


def test_summary_joins_by_id(oof):
    targets, probabilities, groups = oof
    expected = summarise_oof(targets, probabilities, groups, seed=0)
    shuffled = summarise_oof(
        targets.sample(frac=1, random_state=1), probabilities, groups[::-1], seed=0
    )
    assert shuffled == expected
    assert expected["oof_auc"] == pytest.approx(roc_auc_score(targets, probabilities))
    assert expected["n"] == 40
    assert expected["n_positive"] == targets["target"].sum()


def test_summary_judges_only_what_was_predicted(oof):
    targets, probabilities, groups = oof
    part = summarise_oof(targets, probabilities.iloc[:30], groups, seed=0)
    assert part["n"] == 30
    assert part["n_positive"] == targets["target"].iloc[:30].sum()


def test_summary_of_several_classes_counts_each():
    ids = pd.Index(list("abcdef"))
    truth = pd.DataFrame(np.eye(3)[[0, 1, 2, 0, 1, 0]], ids, ["x", "y", "z"])
    summary = summarise_oof(truth, truth[["z", "x", "y"]], pd.Series(range(6), ids), seed=0)
    assert summary["n_positive"] == [1, 3, 2]  # in the order of the probabilities' columns
    assert summary["oof_auc"] == 1.0
