"""Tests of scores: equal to scikit-learn's, intervals over groups, joins by id."""

from math import erf

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    brier_score_loss,
    roc_auc_score,
    roc_curve,
)

from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.metrics import weighted_scores
from kaggle_pipeline.metrics.roc_bootstrap import (
    MeanAuc,
    Score,
    WeightedAuc,
    auc_with_interval,
    bootstrap_weights,
    group_weights,
    roc_auc,
    score_mapping,
    score_of,
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


@pytest.mark.parametrize("row", range(4))
def test_a_score_that_is_nan_gives_no_auc(row):
    scores = np.array([0.1, 0.9, 0.2, 0.8])
    scores[row] = np.nan
    assert np.isnan(roc_auc(np.array([0, 1, 0, 1]), scores))


def test_a_class_that_no_row_has_gives_no_mean_auc():
    truth = np.array([[1, 0, 0], [0, 1, 0], [1, 0, 0]])
    with pytest.raises(PipelineError, match="no AUC exists"):
        auc_with_interval(truth, np.full((3, 3), 1 / 3), [1, 2, 3], seed=0)


def test_score_prints_value_and_interval():
    assert str(Score(0.91234, 0.9, 0.95)) == "0.912 [0.900, 0.950]"


# ---------------------------------------------------------------------------- further scores


def test_bootstrap_weights_begin_with_the_rows_themselves():
    groups = np.array(["b", "a", "b", "c"])
    weights = bootstrap_weights(groups, 7, seed=3)
    np.testing.assert_array_equal(weights[0], 1)
    np.testing.assert_array_equal(weights[1:], group_weights(groups, 7, seed=3))


def test_score_of_takes_estimate_and_percentiles():
    values = np.r_[0.5, np.linspace(0, 1, 201), [np.nan] * 9]
    assert score_of(values) == Score(0.5, pytest.approx(0.025), pytest.approx(0.975))
    assert score_of(np.array([np.nan, 0.1, 0.2])) is None
    assert score_of(np.array([0.1, np.nan, np.nan])) is None


def test_centred_interval_lies_around_the_estimate_and_not_below_zero():
    replicates = np.linspace(0.10, 0.20, 101)  # all above the estimate
    score = score_of(np.r_[0.03, replicates], centred=True)
    assert score.value == 0.03
    assert score.low == 0
    assert score.high == pytest.approx(0.03 + 0.0475)


def test_score_mapping_gives_a_reason_or_a_number_never_both():
    assert score_mapping(np.array([0.5, 0.5]), "why") == {"value": 0.5, "low": 0.5, "high": 0.5}
    nothing = score_mapping(np.array([np.nan, 0.5]), "why")
    assert nothing == {"value": None, "low": None, "high": None, "reason": "why"}


@given(rows=ROWS)
def test_rank_scores_equal_scikit_learn(rows):
    targets, scores, weights = map(np.array, zip(*rows, strict=True))
    assume(weights[targets == 1].sum() and weights[targets == 0].sum())
    found = weighted_scores.rank_scores(targets, scores, np.stack([np.ones_like(weights), weights]))
    expected = average_precision_score(targets, scores, sample_weight=weights)
    assert found["average_precision"][1] == pytest.approx(expected, abs=1e-12)
    expected = roc_auc_score(targets, scores, sample_weight=weights)
    assert found["auc"][1] == pytest.approx(expected, abs=1e-12)
    false_rate, true_rate, _ = roc_curve(
        targets, scores, sample_weight=weights, drop_intermediate=False
    )
    for percent in (80, 90):
        kept = false_rate <= 1 - percent / 100 + 1e-12
        name = f"sensitivity_at_{percent}_specificity"
        assert found[name][1] == pytest.approx(true_rate[kept].max(), abs=1e-12)


def test_rank_scores_of_many_rows_do_not_depend_on_chunks(monkeypatch):
    rng = np.random.default_rng(0)
    targets = rng.random(500) < 0.1
    scores = rng.normal(targets, 1).round(1)
    weights = bootstrap_weights(np.arange(500), 150, 0)
    whole = weighted_scores.rank_scores(targets, scores, weights)
    monkeypatch.setattr("kaggle_pipeline.metrics.roc_bootstrap._LEAST", 1)
    monkeypatch.setattr("kaggle_pipeline.metrics.roc_bootstrap._CHUNK", 1)
    for name, values in weighted_scores.rank_scores(targets, scores, weights).items():
        np.testing.assert_array_equal(values, whole[name])
    one_by_one = [WeightedAuc(targets, scores)(row) for row in weights]
    np.testing.assert_array_equal(whole["auc"], one_by_one)


def test_rank_scores_are_nan_when_a_replicate_lacks_a_class():
    weights = np.array([[1, 1, 1, 1], [0, 0, 1, 1], [1, 1, 0, 0]])
    found = weighted_scores.rank_scores([0, 0, 1, 1], [0.1, 0.6, 0.5, 0.9], weights)
    for name in ("auc", "sensitivity_at_80_specificity", "sensitivity_at_90_specificity"):
        np.testing.assert_array_equal(np.isnan(found[name]), [False, True, True])
    np.testing.assert_array_equal(np.isnan(found["average_precision"]), [False, False, True])


def test_sensitivity_at_a_specificity_of_a_known_case():
    # Ten negatives at 0.0 … 0.9: at 90 % specificity one of them, at 80 % two may be called.
    targets = np.r_[np.zeros(10), np.ones(4)]
    scores = np.r_[np.arange(10) / 10, [0.95, 0.85, 0.75, 0.05]]
    found = weighted_scores.rank_scores(targets, scores, np.ones((1, 14)))
    assert found["sensitivity_at_90_specificity"][0] == 0.5
    assert found["sensitivity_at_80_specificity"][0] == 0.75
    assert weighted_scores.threshold_at(targets, scores, 0.9) == 0.85
    assert weighted_scores.threshold_at(targets, scores, 0.8) == 0.75
    # Called from there on, the specificity is what was asked for.
    assert (scores[targets == 0] < 0.75).mean() == 0.8


def test_no_threshold_where_nothing_is_found():
    assert weighted_scores.threshold_at([1, 0, 0], [0.1, 0.9, 0.9], 0.9) is None
    assert weighted_scores.rank_scores([1, 0, 0], [0.1, 0.9, 0.9], np.ones((1, 3)))[
        "sensitivity_at_90_specificity"
    ] == [0]


@pytest.fixture
def softmax():
    """Truth (one-hot) and probabilities of 200 rows and 4 classes, and weights with zeros."""
    rng = np.random.default_rng(1)
    truth = np.eye(4, dtype=int)[rng.choice(4, 200, p=[0.6, 0.2, 0.15, 0.05])]
    odds = np.exp(rng.normal(0, 1, (200, 4)) + truth)
    weights = rng.integers(0, 4, (3, 200)).astype(np.uint16)
    return truth, odds / odds.sum(axis=1, keepdims=True), weights


def test_accuracies_of_a_softmax_equal_scikit_learn(softmax):
    truth, chances, weights = softmax
    decided = weighted_scores.decide(chances, "multiclass")
    labels, guesses = truth.argmax(axis=1), chances.argmax(axis=1)
    plain = weighted_scores.accuracy(weights, truth, decided, "multiclass")
    balanced = weighted_scores.balanced_accuracy(weights, truth, decided, "multiclass")
    for row, one, mean in zip(weights, plain, balanced, strict=True):
        assert one == pytest.approx(accuracy_score(labels, guesses, sample_weight=row))
        assert mean == pytest.approx(balanced_accuracy_score(labels, guesses, sample_weight=row))


def test_a_tie_is_decided_for_one_class_only():
    np.testing.assert_array_equal(
        weighted_scores.decide(np.full((1, 3), 1 / 3), "multiclass"), [[1, 0, 0]]
    )
    np.testing.assert_array_equal(
        weighted_scores.decide(np.array([[0.5, 0.49]]), "multilabel"), [[1, 0]]
    )


@pytest.mark.parametrize("task", ["binary", "multilabel"])
def test_accuracies_of_sigmoids_are_means_over_classes(task):
    rng = np.random.default_rng(2)
    k = 1 if task == "binary" else 3
    truth, chances = (rng.random((90, k)) < 0.3).astype(int), rng.random((90, k))
    weights = rng.integers(0, 3, (1, 90))
    decided = weighted_scores.decide(chances, task)
    single = [(truth[:, c], decided[:, c]) for c in range(k)]
    options = {"sample_weight": weights[0]}
    expected = np.mean([accuracy_score(*pair, **options) for pair in single])
    assert weighted_scores.accuracy(weights, truth, decided, task)[0] == pytest.approx(expected)
    expected = np.mean([balanced_accuracy_score(*pair, **options) for pair in single])
    assert weighted_scores.balanced_accuracy(weights, truth, decided, task)[0] == pytest.approx(
        expected
    )
    expected = np.mean([brier_score_loss(truth[:, c], chances[:, c], **options) for c in range(k)])
    assert weighted_scores.brier(weights, truth, chances, task)[0] == pytest.approx(expected)


def test_brier_of_a_softmax_sums_over_the_classes():
    truth, chances = np.array([[1, 0, 0]]), np.array([[0.5, 0.3, 0.2]])
    assert weighted_scores.brier(np.ones((1, 1)), truth, chances, "multiclass")[0] == pytest.approx(
        0.25 + 0.09 + 0.04
    )


def test_balanced_accuracy_is_nan_when_a_replicate_lacks_a_class(softmax):
    truth, chances, weights = softmax
    without = np.where(truth[:, 3] == 1, 0, weights[:1])
    decided = weighted_scores.decide(chances, "multiclass")
    assert np.isnan(weighted_scores.balanced_accuracy(without, truth, decided, "multiclass")).all()


def test_calibration_of_a_known_case():
    # Bins are a fifteenth wide: 0.62 and 0.66 share one, 0.05 has its own.
    chances, outcomes = np.array([0.62, 0.66, 0.05, 0.05]), np.array([1, 0, 0, 0])
    found = weighted_scores.reliability(np.ones((1, 4)), outcomes, chances)
    assert found.count[0].nonzero()[0].tolist() == [0, 9]
    assert found.predicted[0, 9] == pytest.approx(0.64)
    assert found.observed[0, 9] == 0.5
    assert found.ece[0] == pytest.approx((2 * 0.14 + 2 * 0.05) / 4)
    assert np.isnan(found.observed[0, 1])


def test_calibration_equals_scikit_learns_curve_and_counts_weights():
    rng = np.random.default_rng(3)
    chances = np.r_[rng.random(400), 0, 1, 1 / 15, 8 / 15]  # with edges of bins
    outcomes = rng.random(404) < chances**2
    weights = np.stack([np.ones(404, int), rng.integers(0, 3, 404)])
    found = weighted_scores.reliability(weights, outcomes, chances)
    observed, predicted = calibration_curve(outcomes, chances, n_bins=15)
    np.testing.assert_allclose(found.observed[0], observed)
    np.testing.assert_allclose(found.predicted[0], predicted)
    repeated = weighted_scores.reliability(
        np.ones((1, weights[1].sum())),
        np.repeat(outcomes, weights[1]),
        np.repeat(chances, weights[1]),
    )
    np.testing.assert_allclose(found.ece[1], repeated.ece[0])
    assert found.count.sum(axis=1).tolist() == [404, weights[1].sum()]


def test_top_label_is_the_most_probable_class():
    right, confidence = weighted_scores.top_label(
        np.array([[1, 0], [1, 0]]), np.array([[0.7, 0.3], [0.2, 0.8]])
    )
    assert right.tolist() == [1, 0]
    assert confidence.tolist() == [0.7, 0.8]
