"""Tests of the blend: identities, spaces, nesting, and the file that carries it."""

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit, softmax

from kaggle_pipeline.config.experiment import BlendConfig, CalibrationConfig, DecisionConfig
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.data.folds import Folds
from kaggle_pipeline.data.predictions import AVERAGED, Predictions
from kaggle_pipeline.datasets.synthetic import SPEC
from kaggle_pipeline.ensembling.blend import Blend, blend_test, check_blend, fit_blend, fit_nested
from kaggle_pipeline.evaluation.calibration.calibration import Calibration
from kaggle_pipeline.evaluation.decision.decision import Decision
from kaggle_pipeline.evaluation.labelled import join_truth
from kaggle_pipeline.metrics.roc_bootstrap import roc_auc

N, K = 240, 3
SPACES = ["mean", "rank", "logit"]
IDS = pd.Index([f"ISIC_{i:04d}" for i in range(N)], name="image_id")


def as_frame(values, ids=IDS):
    return pd.DataFrame({"target": np.asarray(values, float)}, ids)


@pytest.fixture
def targets():
    return as_frame(np.random.default_rng(0).random(N) < 0.3)


@pytest.fixture
def frames(targets):
    """A good model, a fair one, and one that knows nothing."""
    rng = np.random.default_rng(1)
    truth = targets["target"].to_numpy()
    return {
        "good": as_frame(expit(rng.normal(2 * truth, 1))),
        "fair": as_frame(expit(rng.normal(truth, 1) - 3)),
        "noise": as_frame(rng.random(N)),
    }


@pytest.fixture
def folds():
    fold = np.arange(N) % K
    return Folds(pd.DataFrame({"group_id": [f"IP_{i}" for i in range(N)], "fold": fold}, IDS))


def oof(frame):
    return Predictions.build(frame, 0, "oof")


def pick(frames, *names):
    return {name: frames[name] for name in names}


@pytest.mark.parametrize("space", ["mean", "logit"])
def test_blending_a_model_with_itself_gives_it_back(frames, targets, space):
    twins = {"one": frames["good"], "two": frames["good"].copy()}
    blended = fit_blend(twins, targets, BlendConfig(space=space)).apply(twins)
    pd.testing.assert_frame_equal(blended, frames["good"], rtol=1e-12)


def test_blending_a_model_with_itself_by_rank_gives_its_rank(frames, targets):
    twins = {"one": frames["good"], "two": frames["good"].copy()}
    config = BlendConfig(space="rank")
    blended = fit_blend(twins, targets, config).apply(twins)
    ranks = frames["good"].rank() - 1
    np.testing.assert_allclose(blended, ranks / (N - 1), atol=1e-9)
    assert roc_auc(targets, blended) == pytest.approx(roc_auc(targets, frames["good"]))


@pytest.mark.parametrize("space", SPACES)
def test_a_single_model_keeps_its_order(frames, targets, space):
    blend = fit_blend(pick(frames, "fair"), targets, BlendConfig(space=space))
    assert blend.weights == {"fair": 1.0}
    blended = blend.apply(pick(frames, "fair"))["target"]
    assert (blended.rank() == frames["fair"]["target"].rank()).all()


@pytest.mark.parametrize("space", SPACES)
def test_a_model_that_knows_nothing_gets_next_to_no_weight(frames, targets, space):
    blend = fit_blend(pick(frames, "good", "noise"), targets, BlendConfig(space=space))
    assert blend.weights["noise"] <= 0.15
    assert sum(blend.weights.values()) == pytest.approx(1)


@pytest.mark.parametrize("space", SPACES)
def test_fitted_weights_are_not_worse_than_equal_ones_or_any_model(frames, targets, space):
    blended = fit_blend(frames, targets, BlendConfig(space=space)).apply(frames)
    equal = fit_blend(frames, targets, BlendConfig(space=space, weights="equal")).apply(frames)
    others = [equal, *frames.values()]
    assert roc_auc(targets, blended) >= max(roc_auc(targets, one) for one in others) - 1e-12


def test_equal_weights_are_equal(frames, targets):
    blend = fit_blend(frames, targets, BlendConfig(weights="equal"))
    assert blend.weights == dict.fromkeys(frames, pytest.approx(1 / 3))


def test_models_that_are_equally_good_share_the_weight(frames, targets):
    twins = {"one": frames["good"], "two": frames["good"].copy()}
    assert fit_blend(twins, targets, BlendConfig(space="mean")).weights == {"one": 0.5, "two": 0.5}


def test_spaces_by_hand():
    frames = {"a": as_frame([0.2, 0.9], ["x", "y"]), "b": as_frame([0.6, 0.5], ["x", "y"])}
    weights = {"a": 0.25, "b": 0.75}
    mean = Blend("mean", weights, {}).apply(frames)["target"]
    assert mean.tolist() == pytest.approx([0.5, 0.6])
    logits = Blend("logit", weights, {}).apply(frames)["target"]
    expected = expit(0.25 * logit([0.2, 0.9]) + 0.75 * logit([0.6, 0.5]))
    assert logits.tolist() == pytest.approx(expected.tolist())
    knots = {"a": [[0.0, 0.2, 1.0]], "b": [[0.5, 0.6, 0.7]]}
    ranks = Blend("rank", weights, knots).apply(frames)["target"]
    assert ranks.tolist() == pytest.approx([0.25 * 0.5 + 0.75 * 0.5, 0.25 * 0.9375 + 0.75 * 0.0])


@pytest.mark.parametrize("space", SPACES)
def test_zero_and_one_stay_probabilities(targets, space):
    hard = targets.copy()
    frames = {"hard": hard, "soft": as_frame(np.linspace(0, 1, N))}
    blended = fit_blend(frames, targets, BlendConfig(space=space, weights="equal")).apply(frames)
    assert blended["target"].between(0, 1).all()


@given(
    known=st.lists(
        st.sampled_from([0, 0.1, 0.1, 0.25, 0.5, 1]) | st.floats(0, 1), min_size=2, max_size=40
    ),
    new=st.lists(st.floats(0, 1), min_size=2, max_size=10).map(sorted),
)
@settings(max_examples=60)
def test_rank_is_monotone_and_between_0_and_1(known, new):
    ids = [f"i{n}" for n in range(len(known))]
    frames = dict.fromkeys(("m", "n"), as_frame(known, ids))
    blend = fit_blend(frames, as_frame(np.zeros(len(known)), ids), BlendConfig(space="rank"))
    ranks = blend.apply(dict.fromkeys(("m", "n"), as_frame(new, range(len(new)))))["target"]
    assert all(a <= b + 1e-12 for a, b in pairwise(ranks))
    assert ranks.between(0, 1).all()


def test_rank_of_a_single_new_row_is_what_it_is_among_many(frames, targets):
    blend = fit_blend(frames, targets, BlendConfig(space="rank"))
    together = blend.apply(frames)
    one = {name: frame.iloc[[17]] for name, frame in frames.items()}
    assert blend.apply(one).iloc[0, 0] == together.iloc[17, 0]
    assert 0 < blend.apply(one).iloc[0, 0] < 1


def test_ranks_are_spread_evenly(frames, targets):
    twins = {"one": frames["good"], "other": frames["good"]}
    blend = fit_blend(twins, targets, BlendConfig(space="rank"))
    ranks = np.sort(blend.apply(twins)["target"])
    np.testing.assert_allclose(ranks, np.linspace(0, 1, N), atol=0.01)


def test_tied_training_values_share_their_middle_rank():
    frames = dict.fromkeys(("m", "n"), as_frame([0, 0, 0, 0, 1], list("abcde")))
    blend = fit_blend(frames, as_frame([0, 0, 0, 0, 1], list("abcde")), BlendConfig(space="rank"))
    assert blend.apply(frames)["target"].tolist() == pytest.approx([0.375] * 4 + [1.0])


@pytest.mark.parametrize("space", SPACES)
def test_order_of_the_rows_does_not_matter(frames, targets, space):
    config = BlendConfig(space=space)
    shuffled = targets.sample(frac=1, random_state=5).index
    one = fit_blend(frames, targets, config)
    two = fit_blend({n: f.loc[shuffled] for n, f in frames.items()}, targets.loc[shuffled], config)
    assert one == two


@pytest.mark.parametrize("space", SPACES)
def test_blend_survives_its_json(frames, targets, space):
    blend = fit_blend(frames, targets, BlendConfig(space=space))
    again = Blend(**json.loads(json.dumps(blend.to_mapping(), allow_nan=False)))
    assert again == blend
    pd.testing.assert_frame_equal(again.apply(frames), blend.apply(frames), check_exact=True)


def test_no_positive_leaves_equal_weights(frames):
    nobody = as_frame(np.zeros(N))
    assert fit_blend(pick(frames, "good", "fair"), nobody, BlendConfig()).weights == {
        "good": 0.5,
        "fair": 0.5,
    }


# ---------------------------------------------------------------------------- nested


def blend_and_nested(frames, targets, folds, spec, config):
    fold = folds.validated["fold"]
    models = {
        name: Predictions.build(frame.loc[fold.index].sample(frac=1, random_state=1), fold, "oof")
        for name, frame in frames.items()
    }
    examples = targets.assign(group_id=folds.table["group_id"])
    return fit_nested(models, examples, folds, spec, config, seed=0)


def nested(*arguments):
    return blend_and_nested(*arguments)[1]


@pytest.mark.parametrize("space", SPACES)
def test_nested_blend_covers_every_judged_row_once_in_order(frames, targets, folds, spec, space):
    blended = nested(frames, targets, folds, spec, BlendConfig(space=space))
    assert list(blended.table.index) == list(folds.validated.index)
    assert (blended.table["fold"] == folds.table["fold"]).all()
    assert set(blended.table["split"]) == {"oof"}


def test_nested_blend_does_not_learn_from_the_rows_it_blends(frames, targets, folds, spec):
    config = BlendConfig(space="rank")
    before = nested(frames, targets, folds, spec, config).probabilities
    changed = targets.copy()
    inside = folds.valid_ids(1)
    changed.loc[inside] = 1 - changed.loc[inside]
    after = nested(frames, changed, folds, spec, config).probabilities
    pd.testing.assert_frame_equal(after.loc[inside], before.loc[inside], check_exact=True)
    # The same change does reach the other folds, or this test would prove nothing.
    assert (after != before).any(axis=None)


def test_nested_ranks_come_from_the_other_folds(frames, targets, folds, spec):
    config = BlendConfig(space="rank", weights="equal")
    before = nested(frames, targets, folds, spec, config).probabilities
    changed = {name: frame.copy() for name, frame in frames.items()}
    one = folds.valid_ids(2)[0]
    for frame in changed.values():
        frame.loc[one] = 1.0
    after = nested(changed, targets, folds, spec, config).probabilities
    others = folds.valid_ids(2).drop(one)
    pd.testing.assert_frame_equal(after.loc[others], before.loc[others], check_exact=True)
    assert after.loc[one, "target"] == 1.0


def test_nested_score_of_noise_is_not_better_than_chance(targets, folds, spec):
    rng = np.random.default_rng(3)
    frames = {f"noise{i}": as_frame(rng.random(N)) for i in range(3)}
    config = BlendConfig(space="mean")
    fitted = roc_auc(targets, fit_blend(frames, targets, config).apply(frames))
    honest = roc_auc(targets, nested(frames, targets, folds, spec, config).probabilities)
    assert honest < fitted
    assert honest < 0.58


# ----------------------------------------------------------------- what is judged is what is used


def draw_planted(n, seed, *, images=5, rate=0.1):
    """A good image model, a metadata model that knows nothing, the truth, patients of 5 photos."""
    rng = np.random.default_rng(seed)
    ids = pd.Index([f"{seed}_{i:05d}" for i in range(n)], name="image_id")
    truth = rng.random(n) < rate
    frames = {
        "image": as_frame(expit(rng.normal(1.75 * truth, 1) - 2.2), ids),
        "tabular": as_frame(expit(rng.normal(0, 1.4, n)), ids),
    }
    targets = as_frame(truth, ids)
    groups = pd.Series([f"IP_{seed}_{i // images}" for i in range(n)], ids)
    return frames, targets, groups


def as_folds(groups, k):
    number = groups.groupby(groups).ngroup() % k
    return Folds(pd.DataFrame({"group_id": groups, "fold": number}))


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("k", [1, 2, 5])
def test_score_calibration_and_thresholds_are_those_of_the_blend_that_is_used(spec, space, k):
    """Fitted weights far from equal ones: whoever judges the one and uses the other shows."""
    frames, targets, groups = draw_planted(2000, seed=0)
    folds = as_folds(groups, k)
    blend, labelled = blend_and_nested(frames, targets, folds, spec, BlendConfig(space=space))
    assert blend.method == "nested" and blend.weights["image"] >= 0.9
    assert ("one fold" in blend.why) == (k == 1)
    calibration = Calibration.fit(
        labelled.probabilities, targets, groups, spec, CalibrationConfig(), seed=0, n_replicates=20
    )
    new, truth, _ = draw_planted(40_000, seed=1)
    served = blend.apply(new)
    told = roc_auc(targets, labelled.probabilities)
    assert told == pytest.approx(roc_auc(truth, served), abs=0.03)  # 0.15 and more before
    calibrated = calibration.apply(served)["target"].to_numpy()
    hit = truth["target"].to_numpy() == 1
    gap = abs(calibrated.mean() - hit.mean())
    assert gap < 0.01
    in_bins = np.minimum((calibrated * 15).astype(int), 14)
    ece = np.abs(np.bincount(in_bins, calibrated - hit)).sum() / len(hit)
    assert ece < 0.02  # 0.048 and more before
    rows = join_truth(targets.assign(group_id=groups), labelled.probabilities, spec, 0, 20, None)
    decision = Decision.fit(rows, calibration, DecisionConfig(), seed=0)
    limit = decision.thresholds["target"][0]
    reached = limit["nested"]
    assert np.mean(calibrated[hit] >= limit["threshold"]) == pytest.approx(
        reached["sensitivity"]["value"], abs=0.08
    )
    assert np.mean(calibrated[~hit] < limit["threshold"]) == pytest.approx(
        reached["specificity"]["value"], abs=0.08
    )


@pytest.mark.parametrize("space", SPACES)
def test_one_fold_with_too_few_positives_is_judged_and_used_with_equal_weights(spec, space):
    frames, targets, groups = draw_planted(200, seed=0, rate=0.0)
    targets.iloc[[0, 50, 100, 150], 0] = 1.0  # of 4 patients
    folds = as_folds(groups, 1)
    blend, labelled = blend_and_nested(frames, targets, folds, spec, BlendConfig(space=space))
    assert blend.method == "equal" and blend.weights == {"image": 0.5, "tabular": 0.5}
    assert "4 patients have a positive photo of target, 5 are needed" in blend.why
    pd.testing.assert_frame_equal(labelled.probabilities, blend.apply(frames), check_exact=True)


def test_folds_that_leave_no_positive_to_fit_on_are_judged_and_used_with_equal_weights(spec):
    frames, targets, groups = draw_planted(200, seed=0, rate=0.0)
    folds = as_folds(groups, 4)
    targets.loc[folds.valid_ids(2)[:9]] = 1.0
    config = BlendConfig(space="mean")
    blend, labelled = blend_and_nested(frames, targets, folds, spec, config)
    assert blend.method == "equal" and blend.weights == {"image": 0.5, "tabular": 0.5}
    assert "no positive photo of target lies outside fold 2" in blend.why
    pd.testing.assert_frame_equal(labelled.probabilities, blend.apply(frames), check_exact=True)


def test_in_one_fold_a_patient_has_no_part_in_the_weights_of_its_photos(spec):
    frames, targets, groups = draw_planted(600, seed=3)
    folds, config = as_folds(groups, 1), BlendConfig(space="rank")
    before = nested(frames, targets, folds, spec, config).probabilities
    one = groups.index[groups == groups.iloc[0]]
    changed = {name: frame.copy() for name, frame in frames.items()}
    changed["image"].loc[one[1:]] = 1.0
    after = nested(changed, targets, folds, spec, config).probabilities
    pd.testing.assert_frame_equal(after.loc[one[:1]], before.loc[one[:1]], check_exact=True)
    assert (after.drop(one) != before.drop(one)).any(axis=None)  # the other patients' do


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("space", SPACES)
def test_a_single_model_and_equal_weights_are_judged_as_they_are_used(spec, space, k):
    frames, targets, groups = draw_planted(300, seed=4)
    folds = as_folds(groups, k)
    alone = pick(frames, "tabular")
    blend, labelled = blend_and_nested(alone, targets, folds, spec, BlendConfig(space=space))
    assert blend.method == "single"
    pd.testing.assert_frame_equal(labelled.probabilities, frames["tabular"], check_exact=True)
    equal = BlendConfig(space=space, weights="equal")
    blend, labelled = blend_and_nested(frames, targets, folds, spec, equal)
    assert blend.method == "equal" and set(blend.weights.values()) == {0.5}
    apart = np.abs(labelled.probabilities - blend.apply(frames)).max(axis=None)
    assert apart == 0 if k == 1 or space != "rank" else apart < 0.1  # ranks among other folds


def test_a_blend_of_before_is_read_and_known_to_be_judged_otherwise():
    old = {"space": "logit", "knots": {}, "sums_to_one": False}
    fitted = Blend(**old, weights={"image": 0.3, "tabular": 0.7})
    assert fitted.judged_as_used(folds=5) and not fitted.judged_as_used(folds=1)
    assert Blend(**old, weights={"image": 0.5, "tabular": 0.5}).judged_as_used(folds=1)
    assert replace(fitted, method="nested").judged_as_used(folds=1)


def test_nested_blend_names_model_and_id_that_is_missing(frames, targets, folds, spec):
    models = {"good": oof(frames["good"]), "fair": oof(frames["fair"].drop(IDS[4]))}
    examples = targets.assign(group_id=folds.table["group_id"])
    with pytest.raises(PipelineError, match="fair predicts nothing for ISIC_0004"):
        fit_nested(models, examples, folds, spec, BlendConfig(), seed=0)


def test_nested_blend_of_several_classes(frames, targets, folds, spec):
    spec = replace(spec, task="multilabel", classes=("a", "b"))
    rng = np.random.default_rng(0)
    truth = pd.DataFrame(rng.random((N, 2)) < 0.4, IDS, ["a", "b"]).astype(float)
    models = {
        name: oof(pd.DataFrame(expit(rng.normal(2 * truth, 1)), IDS, ["a", "b"])) for name in "xy"
    }
    examples = truth.assign(group_id=folds.table["group_id"])
    _, blended = fit_nested(models, examples, folds, spec, BlendConfig(space="rank"), seed=0)
    best = max(roc_auc(truth, model.probabilities) for model in models.values())
    assert roc_auc(truth, blended.probabilities) > best


def test_test_predictions_are_joined_by_id(frames, targets):
    two = pick(frames, "good", "fair")
    blend = fit_blend(two, targets, BlendConfig(space="logit"))
    models = {
        "fair": Predictions.build(frames["fair"][::-1], AVERAGED, "test"),
        "good": Predictions.build(frames["good"], AVERAGED, "test"),
    }
    blended = blend_test(blend, models, IDS)
    pd.testing.assert_frame_equal(blended.probabilities, blend.apply(two), check_exact=True)
    assert set(blended.table["split"]) == {"test"}


# ---------------------------------------------------------------------------- several classes


def seven(n=60, seed=0):
    """Two models' distributions over three classes, and the truth."""
    rng = np.random.default_rng(seed)
    ids = pd.Index([f"ISIC_{i}" for i in range(n)])
    classes = rng.integers(0, 3, n)
    names = ["a", "b", "c"]
    frames = {
        name: pd.DataFrame(softmax(2 * np.eye(3)[classes] + rng.normal(0, 1, (n, 3)), axis=1),
                           ids, names)
        for name in ("image", "tabular")
    }  # fmt: skip
    return frames, pd.DataFrame(np.eye(3)[classes], ids, names)


@pytest.mark.parametrize("space", ["mean", "rank", "logit"])
def test_a_single_model_stays_as_it_is(space):
    frames, truth = seven()
    alone = {"image": frames["image"]}
    blend = fit_blend(alone, truth, BlendConfig(models=("image",), space=space), sums_to_one=True)
    pd.testing.assert_frame_equal(blend.apply(alone), frames["image"])


@pytest.mark.parametrize("space", ["mean", "logit"])
@pytest.mark.parametrize("weights", ["auc", "equal"])
def test_classes_that_exclude_each_other_sum_to_one(space, weights):
    frames, truth = seven()
    config = BlendConfig(space=space, weights=weights)
    found = fit_blend(frames, truth, config, sums_to_one=True).apply(frames)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    right = (found.to_numpy().argmax(axis=1) == truth.to_numpy().argmax(axis=1)).mean()
    alone = (frames["image"].to_numpy().argmax(axis=1) == truth.to_numpy().argmax(axis=1)).mean()
    assert right >= alone


def test_ranks_of_classes_that_exclude_each_other_are_refused():
    spec = replace(SPEC, task="multiclass", classes=("a", "b", "c"))
    with pytest.raises(PipelineError, match=r"blend\.space.*logit"):
        check_blend(BlendConfig(space="rank"), spec)
    check_blend(BlendConfig(space="rank", models=("image",)), spec)
    check_blend(BlendConfig(space="logit"), spec)


def test_effective_shares_are_weights_times_spreads():
    wide, close = pd.DataFrame({"y": [0.1, 0.9, 0.2, 0.8]}), pd.DataFrame({"y": [0.5, 0.51] * 2})
    blend = Blend("mean", {"wide": 0.4, "close": 0.6}, {})
    shares = blend.effective_shares({"wide": wide, "close": close})
    moved = 0.4 * wide["y"].std(ddof=0), 0.6 * close["y"].std(ddof=0)
    assert shares["wide"] == pytest.approx(moved[0] / sum(moved))
    assert sum(shares.values()) == pytest.approx(1)
    flat = pd.DataFrame({"y": [0.5] * 4})
    assert blend.effective_shares({"wide": flat, "close": flat}) == blend.weights
