"""Tests of the calibration: curves that are known, leaks that must show, files that come back."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from helpers_evaluation import SPECS, is_picture, make_examples, make_probabilities, make_spec
from scipy.special import expit, logit

from kaggle_pipeline.config.experiment import CalibrationConfig
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.evaluation.calibration import nested as study
from kaggle_pipeline.evaluation.calibration.calibration import Calibration
from kaggle_pipeline.evaluation.calibration.maps import (
    SOFTMAX,
    apply_maps,
    fit_isotonic,
    fit_maps,
    fit_platt,
    fit_temperature,
)
from kaggle_pipeline.evaluation.calibration.plots import plot_calibration
from kaggle_pipeline.evaluation.decision.fitting import threshold_for
from kaggle_pipeline.evaluation.decision.rules import ThresholdRule
from kaggle_pipeline.evaluation.labelled import join_truth
from kaggle_pipeline.metrics import weighted_scores
from kaggle_pipeline.metrics.roc_bootstrap import roc_auc

BINARY = SPECS["binary"]


def made_up(n=3000, slope=1.0, intercept=0.0, images=3, seed=0):
    """Scores, truth and groups: the true log odds are slope × logit(score) + intercept."""
    rng = np.random.default_rng(seed)
    ids = pd.Index([f"img_{i}" for i in range(n)], name="image_id")
    scores = expit(rng.normal(-1, 1.5, n))
    truth = rng.random(n) < expit(slope * logit(scores) + intercept)
    groups = pd.Series([f"p{i // images}" for i in range(n)], ids)
    frame = pd.DataFrame({"target": scores}, ids)
    return frame, pd.DataFrame({"target": truth.astype(float)}, ids), groups


def fit(frame, truth, groups, spec=BINARY, replicates=60, **settings):
    config = CalibrationConfig(**settings)
    return Calibration.fit(frame, truth, groups, spec, config, seed=0, n_replicates=replicates)


def fit_case(task, **settings):
    spec = SPECS[task]
    examples = make_examples(spec)
    frame = make_probabilities(examples, spec)
    truth = examples.loc[frame.index, list(spec.classes)]
    return frame, fit(frame, truth, examples["group_id"], spec, **settings)


@pytest.mark.parametrize("method", ["temperature", "platt", "isotonic"])
def test_two_classes_that_exclude_each_other_stay_so(method, monkeypatch):
    monkeypatch.setitem(SPECS, "two", make_spec("multiclass", ("mel", "nev")))
    frame, found = fit_case("two", method=method)
    calibrated = found.apply(frame)
    np.testing.assert_allclose(calibrated.sum(axis=1), 1)
    assert list(calibrated.columns) == ["mel", "nev"]
    assert np.corrcoef(calibrated["mel"], frame["mel"])[0, 1] > 0.8


# ---------------------------------------------------------------------------- curves


def test_platt_recovers_a_known_slope_and_intercept():
    frame, truth, _ = made_up(60_000, slope=0.6, intercept=-1.2)
    found = fit_platt(frame["target"].to_numpy(), truth["target"].to_numpy())
    assert found["slope"] == pytest.approx(0.6, abs=0.02)
    assert found["intercept"] == pytest.approx(-1.2, abs=0.03)


def test_temperature_recovers_a_known_one():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (20_000, 4))
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    drawn = (chances.cumsum(axis=1) < rng.random((len(chances), 1))).sum(axis=1)
    truth = np.eye(4)[np.minimum(drawn, 3)]
    sharp = np.exp(2.5 * logits) / np.exp(2.5 * logits).sum(axis=1, keepdims=True)
    assert fit_temperature(sharp, truth)["temperature"] == pytest.approx(2.5, rel=0.03)


def test_a_perfect_separation_has_a_finite_curve_that_is_never_certain():
    scores, truth = np.array([0.0, 0.0, 0.4, 0.6, 1.0, 1.0]), np.array([0, 0, 0, 1, 1, 1])
    for one in (fit_platt(scores, truth), fit_isotonic(scores, truth)):
        found = apply_maps({"target": one}, pd.DataFrame({"target": scores}), "binary")[:, 0]
        assert (np.diff(found) >= 0).all() and 0 < found[0] < 0.3 and 0.7 < found[-1] < 1


def test_scores_that_are_all_alike_become_about_the_share():
    scores, truth = np.full(1000, 0.9), np.arange(1000) < 100
    for one in (fit_platt(scores, truth), fit_isotonic(scores, truth)):
        found = apply_maps({"target": one}, pd.DataFrame({"target": scores}), "binary")
        np.testing.assert_allclose(found, 0.1, atol=0.01)


def test_scores_that_rank_the_wrong_way_are_not_turned_round():
    frame, truth, _ = made_up(2000, slope=-1.0)
    values = (frame["target"].to_numpy(), truth["target"].to_numpy())
    for one in (fit_platt(*values), fit_isotonic(*values)):
        found = apply_maps({"target": one}, frame.sort_values("target"), "binary")[:, 0]
        assert (np.diff(found) >= 0).all()


def test_the_order_stays_with_platt_and_isotonic_makes_ties():
    frame, truth, _ = made_up(2000, slope=0.5)
    values = {m: apply_maps(fit_maps(m, frame, truth, "binary"), frame, "binary")[:, 0]
              for m in ("temperature", "isotonic")}  # fmt: skip
    raw = frame["target"].to_numpy()
    assert (np.argsort(values["temperature"]) == np.argsort(raw)).all()
    assert len(np.unique(values["isotonic"])) < 0.9 * len(raw)


# ---------------------------------------------------------------------------- honest numbers


def test_overconfident_scores_are_mended_nested():
    frame, truth, groups = made_up(6000, slope=0.4, intercept=-0.5)
    found = fit(frame, truth, groups)
    before, after = (found.study["scores"][name] for name in ("none", found.method))
    assert found.method == "temperature"
    assert after["ece"]["value"] < 0.03 < 0.1 < before["ece"]["value"]
    for name in ("log_loss", "brier"):
        assert found.study["change"][name]["high"] < 0
    assert abs(found.study["change"]["auc"]["value"]) < 0.003


@pytest.fixture(scope="module")
def hopeless():
    """Scores that know nothing, alike within a patient, of whom each is wholly ill or not."""
    rng = np.random.default_rng(3)
    patients, images = 150, 6
    ids = pd.Index([f"i{i}" for i in range(patients * images)], name="image_id")
    frame = pd.DataFrame({"target": np.repeat(rng.random(patients), images)}, ids)
    truth = pd.DataFrame({"target": np.repeat(rng.integers(0, 2, patients), images)}, ids)
    groups = pd.Series(np.repeat([f"p{i}" for i in range(patients)], images), ids)
    rows = truth.assign(group_id=groups)
    return join_truth(rows, frame, BINARY, 0, 50, None)


def log_loss(labelled, probabilities):
    ones = np.ones((1, len(probabilities)))
    return weighted_scores.log_loss(ones, labelled.truth, probabilities, "binary")[0]


def test_a_calibrator_that_saw_the_judged_rows_is_found_out(hopeless):
    truth = pd.DataFrame(hopeless.truth, hopeless.rows.index, ["target"])
    frame = pd.DataFrame(hopeless.probabilities, hopeless.rows.index, ["target"])
    seen = apply_maps(fit_maps("isotonic", frame, truth, "binary"), frame, "binary")
    nested = study.nest("isotonic", hopeless, study.divide(hopeless, 0))
    constant = log_loss(hopeless, np.full(seen.shape, hopeless.truth.mean()))
    assert log_loss(hopeless, seen) < constant - 0.01  # the leak flatters
    assert log_loss(hopeless, nested.probabilities) > constant - 0.002
    assert roc_auc(hopeless.truth, nested.probabilities) < 0.55


def test_splitting_patients_would_flatter_and_does_not_happen(hopeless):
    honest = study.divide(hopeless, 0)
    assert honest.table.groupby("group_id")["fold"].nunique().max() == 1
    assert honest.numbers == list(range(study.FOLDS))
    by_image = hopeless.rows.assign(group_id=hopeless.rows.index)
    leaking = study.divide(replace(hopeless, rows=by_image), 0)
    apart, split = (
        log_loss(hopeless, study.nest("isotonic", hopeless, one).probabilities)
        for one in (honest, leaking)
    )
    assert split < apart - 0.005


def test_no_row_has_a_part_in_its_own_curve_or_rule(hopeless):
    def fit_rule(truth, probabilities):
        limit = threshold_for(truth[:, 0], probabilities[:, 0], 0.9)
        return ThresholdRule((limit,)).decide

    folds, rules = study.divide(hopeless, 0), {"one": fit_rule}
    first = study.nest("isotonic", hopeless, folds, rules=rules)
    inside = (folds.table["fold"].loc[hopeless.rows.index] == 2).to_numpy()
    turned = np.where(inside[:, None], 1 - hopeless.truth, hopeless.truth)
    again = study.nest("isotonic", replace(hopeless, truth=turned), folds, rules=rules)
    assert (first.probabilities[inside] == again.probabilities[inside]).all()
    assert (first.decided["one"][inside] == again.decided["one"][inside]).all()
    assert (first.probabilities[~inside] != again.probabilities[~inside]).any()


def test_auto_keeps_to_the_simple_one_unless_another_is_clearly_better():
    frame, truth, groups = made_up(4000, slope=0.5)
    assert fit(frame, truth, groups).method == "temperature"
    # A kink that no sigmoid follows: nothing between 0.1 and 0.5 is positive, half of the rest.
    raw = frame["target"].to_numpy()
    rng = np.random.default_rng(1)
    odd = np.where(raw < 0.5, 0.02, 0.5) > rng.random(len(raw))
    found = fit(frame, truth.assign(target=odd.astype(float)), groups)
    assert found.method == "isotonic" and "better than that of temperature" in found.why


def test_auto_leaves_alone_what_calibration_clearly_hurts():
    kept = {"log_loss": np.full(50, 0.1)}
    values = {"none": kept, "temperature": {"log_loss": np.full(50, 0.2)},
              "isotonic": {"log_loss": np.full(50, 0.15)}}  # fmt: skip
    assert study.choose("auto", values)[0] == "none"
    assert study.choose("temperature", values)[0] == "temperature"


@pytest.mark.parametrize("method", ["temperature", "isotonic"])
def test_rows_of_a_softmax_sum_to_one(method):
    frame, found = fit_case("multiclass", method=method)
    calibrated = found.apply(frame)
    np.testing.assert_allclose(calibrated.sum(axis=1), 1, atol=1e-12)
    assert list(calibrated.columns) == list(frame.columns)
    assert (set(found.maps) == {SOFTMAX}) == (method == "temperature")


# ---------------------------------------------------------------------------- as a file


@pytest.mark.parametrize("task", SPECS)
@pytest.mark.parametrize("method", ["auto", "isotonic", "none"])
def test_json_gives_the_same_numbers_back(task, method):
    frame, found = fit_case(task, method=method, replicates=10)
    again = Calibration.from_mapping(json.loads(json.dumps(found.to_mapping(), allow_nan=False)))
    assert again.apply(frame).equals(found.apply(frame)) and again == found
    calibrated = found.apply(frame)
    for name, levels in again.population.items():
        assert len(levels) == 101 and levels == sorted(levels)
        assert levels[0] == calibrated[name].min() and levels[-1] == calibrated[name].max()
    if method == "none":
        assert calibrated.equals(frame)


@pytest.mark.parametrize(
    "damage",
    [
        lambda m: m.pop("maps"),
        lambda m: m["maps"]["target"].update(slope=-1.0),
        lambda m: m["maps"].update(target={"knots": [[0.1, 0.2], [0.9, 0.3]]}),
        lambda m: m["maps"].update(target={"knots": [[0.1], []]}),
        lambda m: m["maps"].update(target="a curve"),
        lambda m: m["maps"].update(other={"slope": 1.0, "intercept": 0.0}),
    ],
)
def test_a_damaged_file_is_said_in_one_line(damage):
    mapping = fit(*made_up(300), method="temperature", replicates=5).to_mapping()
    mapping = json.loads(json.dumps(mapping))
    damage(mapping)
    with pytest.raises(PipelineError, match="damaged"):
        Calibration.from_mapping(mapping)


def test_probabilities_that_are_none_are_refused():
    frame, truth, groups = made_up(300)
    found = fit(frame, truth, groups, replicates=5)
    with pytest.raises(PipelineError, match="'target'"):
        found.apply(frame.rename(columns={"target": "other"}))
    with pytest.raises(PipelineError, match="img_7"):
        found.apply(frame.assign(target=frame["target"].where(frame.index != "img_7")))


# ---------------------------------------------------------------------------- too little


@pytest.mark.parametrize(("positives", "groups"), [(0, 40), (3, 40), (40, 40), (2, 3)])
def test_too_few_images_are_left_as_they_are_and_it_says_why(positives, groups):
    frame, truth, _ = made_up(40)
    truth["target"] = (np.arange(40) < positives).astype(float)
    of = pd.Series([f"p{i % groups}" for i in range(40)], frame.index)
    found = fit(frame, truth, of, replicates=10)
    assert found.method == "none" and "needed" in found.why
    assert found.apply(frame).equals(frame)
    mapping = json.loads(json.dumps(found.to_mapping(), allow_nan=False))
    assert Calibration.from_mapping(mapping) == found


def test_a_class_without_images_has_no_curve_but_the_others_do():
    spec = SPECS["multilabel"]
    examples = make_examples(spec)
    frame = make_probabilities(examples, spec)
    truth = examples.loc[frame.index, list(spec.classes)].assign(keratosis=0.0)
    found = fit(frame, truth, examples["group_id"], spec, replicates=10)
    assert set(found.maps) == {"melanoma"}
    assert "positive" in found.lacking["keratosis"]
    assert found.apply(frame)["keratosis"].equals(frame["keratosis"])


def test_an_unknown_id_is_named():
    frame, truth, groups = made_up(300)
    with pytest.raises(PipelineError, match="img_0"):
        fit(frame, truth.iloc[1:], groups)


# ---------------------------------------------------------------------------- elsewhere


def test_a_test_part_is_judged_with_the_final_curve():
    frame, truth, groups = made_up(4000, slope=0.4)
    learned, rest = frame.index[:3000], frame.index[3000:]
    found = fit(frame.loc[learned], truth.loc[learned], groups)
    told = found.evaluate(frame.loc[rest], truth.loc[rest], groups, BINARY, seed=0, n_replicates=50)
    assert told["n"] == 1000
    assert told["scores"]["after"]["ece"]["value"] < told["scores"]["before"]["ece"]["value"]
    assert told["change"]["auc"]["value"] == pytest.approx(0, abs=1e-12)


def test_log_loss_equals_scikit_learns():
    from sklearn.metrics import log_loss as reference

    frame, truth, _ = made_up(200)
    ones = np.ones((1, 200))
    found = weighted_scores.log_loss(ones, truth.to_numpy(), frame.to_numpy(), "binary")[0]
    assert found == pytest.approx(reference(truth["target"], frame["target"]))


def test_the_picture_is_drawn_also_where_nothing_was_learned(tmp_path):
    _, learned = fit_case("multilabel", replicates=10)
    few = fit(*made_up(4), replicates=10)
    assert few.method == "none" and learned.method == "temperature"
    for name, found in {"learned.png": learned, "few.png": few}.items():
        plot_calibration(found.to_mapping(), tmp_path / name)
        assert is_picture(tmp_path / name)


def test_a_row_of_no_known_group_is_refused_and_not_put_with_other_such_rows():
    frame, truth, groups = made_up(600)
    with pytest.raises(PipelineError, match=r"image img_7 is predicted but not in the .*\(1 such"):
        fit(frame, truth, groups.drop("img_7"))
