"""Tests of the decision: what each metric asks for, leaks that must show, files that come back."""

import json

import numpy as np
import pandas as pd
import pytest
from helpers_evaluation import SPECS, is_picture, make_examples, make_probabilities, make_spec
from sklearn.metrics import balanced_accuracy_score, recall_score

from kaggle_pipeline.config.experiment import CalibrationConfig, DecisionConfig
from kaggle_pipeline.config.loading import parse_experiment
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.evaluation.calibration.calibration import Calibration
from kaggle_pipeline.evaluation.decision.decision import Decision, read_decision, read_thresholds
from kaggle_pipeline.evaluation.decision.fitting import (
    exponent_rule,
    exponent_threshold,
    fit_rule,
    threshold_for,
)
from kaggle_pipeline.evaluation.decision.plots import plot_decision
from kaggle_pipeline.evaluation.decision.rules import check_decision, cost_matrix, plain_rule
from kaggle_pipeline.evaluation.labelled import join_truth

NAMES = ("a", "b", "c")
SHARES = np.array([0.85, 0.12, 0.03])


def softmax_case(n=6000, seed=0):
    """Truth and calibrated probabilities of three classes, of which two are rare."""
    rng = np.random.default_rng(seed)
    truth = np.eye(3, dtype=int)[rng.choice(3, n, p=SHARES)]
    evidence = rng.normal(size=(n, 3)) + 1.2 * truth  # log likelihood: 1.2 * evidence - 0.72
    odds = SHARES * np.exp(1.2 * evidence)
    return truth, odds / odds.sum(axis=1, keepdims=True)


def mean_recall(truth, decided):
    return balanced_accuracy_score(truth.argmax(axis=1), decided.argmax(axis=1))


def settings(**given):
    return DecisionConfig(**given)


# ---------------------------------------------------------------------------- rules


def test_the_exponent_of_calibrated_probabilities_is_nearly_one():
    truth, found = softmax_case()
    rule = fit_rule(truth, found, "multiclass", NAMES, settings())
    plain = plain_rule("multiclass", 3)
    assert 0.7 <= rule.exponent <= 1.3
    assert mean_recall(truth, rule.decide(found)) > mean_recall(truth, plain.decide(found)) + 0.1
    # On new rows too, and near the best there is, which knows the shares.
    truth, found = softmax_case(seed=1)
    best = exponent_rule(truth, 1.0, rule.costs)
    assert mean_recall(truth, rule.decide(found)) == pytest.approx(
        mean_recall(truth, best.decide(found)), abs=0.02
    )


def test_accuracy_keeps_to_the_most_probable_class():
    truth, found = softmax_case()
    rule = fit_rule(truth, found, "multiclass", NAMES, settings(metric="accuracy"))
    assert rule.exponent <= 0.15


def test_offsets_are_no_worse_on_the_rows_they_were_learned_on():
    truth, found = softmax_case()
    one, several = (
        fit_rule(truth, found, "multiclass", NAMES, settings(parameters=name))
        for name in ("exponent", "offsets")
    )
    assert mean_recall(truth, several.decide(found)) >= mean_recall(truth, one.decide(found))


def test_a_dear_miss_is_decided_for_sooner():
    truth, found = softmax_case()
    cheap, dear = (
        fit_rule(truth, found, "multiclass", NAMES, settings(metric="cost", costs=costs))
        for costs in ({"c": {"missed": 1}}, {"c": {"missed": 30, "b": 60}})
    )
    assert cost_matrix(settings(metric="cost", costs={"c": {"missed": 30, "b": 60}}), NAMES) == (
        (0, 1, 1), (1, 0, 1), (30, 60, 0)
    )  # fmt: skip
    recalls = [recall_score(truth[:, 2], rule.decide(found)[:, 2]) for rule in (cheap, dear)]
    assert recalls[1] > recalls[0] + 0.3


def test_costs_of_a_calibrated_softmax_are_bayes_decisions():
    """By hand: calling it b costs 0.2 * 5 = 1.0, calling it a 0.8 * 1."""
    costs = cost_matrix(settings(metric="cost", costs={"a": {"b": 5}}), ("a", "b"))
    rule = plain_rule("multiclass", 2).__class__((1.0, 1.0), costs)
    assert rule.decide(np.array([[0.2, 0.8]])).tolist() == [[1, 0]]
    assert rule.decide(np.array([[0.16, 0.84]])).tolist() == [[0, 1]]


def test_scores_sum_to_one_and_their_highest_is_the_decision():
    truth, found = softmax_case(500)
    config = settings(metric="cost", costs={"c": {"missed": 9}, "a": {"b": 3}})
    for rule in (fit_rule(truth, found, "multiclass", NAMES, config),
                 fit_rule(truth, found, "multiclass", NAMES, settings())):  # fmt: skip
        scores = rule.scores(found)
        np.testing.assert_allclose(scores.sum(axis=1), 1)
        assert (scores >= 0).all()
        assert (scores.argmax(axis=1) == rule.decide(found).argmax(axis=1)).all()
    np.testing.assert_allclose(plain_rule("multiclass", 3).scores(found), found)


@pytest.mark.parametrize("parameters", ["exponent", "offsets"])
def test_a_wanted_sensitivity_is_reached_and_hardly_passed(parameters):
    truth, found = softmax_case()
    config = settings(sensitivity={"c": 0.9}, parameters=parameters)
    decided = fit_rule(truth, found, "multiclass", NAMES, config).decide(found)
    assert 0.9 <= recall_score(truth[:, 2], decided[:, 2]) < 0.93
    yes = fit_rule(truth[:, 2:], found[:, 2:], "binary", NAMES[2:], config)
    assert 0.9 <= recall_score(truth[:, 2], yes.decide(found[:, 2:])[:, 0]) < 0.95


def test_thresholds_of_a_question_follow_the_metric():
    truth, found = softmax_case(20_000)
    truth, found = truth[:, 1:2], found[:, 1:2]
    share = truth.mean()
    limits = {
        metric: fit_rule(truth, found, "binary", ("b",), settings(metric=metric)).thresholds[0]
        for metric in ("accuracy", "balanced_accuracy")
    }
    assert limits["accuracy"] == pytest.approx(0.5, abs=0.1)
    assert limits["balanced_accuracy"] == pytest.approx(share, abs=0.06)
    costs = settings(metric="cost", costs={"b": {"missed": 4}})
    dear = fit_rule(truth, found, "binary", ("b",), costs).thresholds[0]
    assert dear == pytest.approx(1 / 5, abs=0.05)  # false alarm / (false alarm + missed)
    assert exponent_threshold(truth[:, 0], 1.0, 1, 1) == pytest.approx(share)
    free = fit_rule(truth, found, "binary", ("b",), settings(parameters="offsets")).thresholds[0]
    assert free == pytest.approx(share, abs=0.06)


@pytest.mark.parametrize("parameters", ["exponent", "offsets"])
def test_where_every_call_costs_more_than_it_saves_none_is_called(parameters):
    truth, found = np.array([[0], [1], [0], [0]]), np.array([[0.9], [0.6], [0.2], [0.1]])
    dear = settings(metric="cost", costs={"mel": {"false_alarm": 100}}, parameters=parameters)
    rule = fit_rule(truth, found, "binary", ("mel",), dear)
    assert not rule.decide(found).any()


@pytest.mark.parametrize(("wanted", "threshold"), [(0.9, 0.2), (0.91, 0.1), (0.05, 1.0)])
def test_a_threshold_counts_positives_exactly(wanted, threshold):
    scores = np.arange(1, 11) / 10
    assert threshold_for(np.ones(10), scores, wanted) == threshold


# ---------------------------------------------------------------------------- nested


def learn(task, replicates=40, truth=None, **given):
    """Frame, labelled rows, calibration and decision of made-up predictions."""
    spec = SPECS[task]
    examples = make_examples(spec)
    frame = make_probabilities(examples, spec)
    truth = examples.loc[frame.index, list(spec.classes)] if truth is None else truth
    groups = examples["group_id"]
    calibration = Calibration.fit(
        frame, truth, groups, spec, CalibrationConfig(), seed=0, n_replicates=replicates
    )
    rows = truth.assign(group_id=groups.reindex(truth.index))
    labelled = join_truth(rows, frame, spec, 0, replicates, None)
    return (
        frame,
        labelled,
        calibration,
        Decision.fit(labelled, calibration, settings(**given), seed=0),
    )


@pytest.mark.parametrize("task", SPECS)
def test_it_says_what_it_reaches_and_what_that_costs(task):
    frame, _, calibration, found = learn(task)
    assert found.learned and found.task == task
    for name in ("accuracy", "balanced_accuracy"):
        plain, learned = (found.study["scores"][when][name] for when in ("plain", "learned"))
        assert learned["low"] <= learned["value"] <= learned["high"]
        difference = found.study["change"][name]
        assert difference["value"] == pytest.approx(learned["value"] - plain["value"])
    counts = np.array([one["matrix"] for one in found.study["confusion"]])
    assert counts.sum() == len(frame) * (1 if task == "multiclass" else len(found.classes))
    words = found.decide(calibration.apply(frame))
    assert words.index.equals(frame.index)
    assert {part for one in words for part in one.split(" + ")} <= {*found.classes, "none"}
    first = found.study["trade_off"][0]
    if task == "multiclass":
        assert first["accuracy"] == pytest.approx(
            found.study["scores"]["plain"]["accuracy"]["value"]
        )
    else:
        assert first["threshold"][found.classes[0]] == 0.5


def test_a_rule_of_pure_chance_is_not_flattered():
    """Six offsets learned on noise look good on the rows that they saw, and are not."""
    spec = SPECS["multiclass"]
    rng = np.random.default_rng(0)
    ids = pd.Index([f"i{n}" for n in range(240)], name="image_id")
    values = rng.dirichlet(np.ones(len(spec.classes)), len(ids))
    frame = pd.DataFrame(values, ids, list(spec.classes))
    truth = np.eye(len(spec.classes))[rng.integers(0, len(spec.classes), len(ids))]
    rows = pd.DataFrame(truth, ids, list(spec.classes)).assign(group_id=ids)
    labelled = join_truth(rows, frame, spec, 0, 100, None)
    calibration = Calibration.fit(
        frame, rows[list(spec.classes)], rows["group_id"], spec, CalibrationConfig(method="none"),
        seed=0, n_replicates=100,
    )  # fmt: skip
    found = Decision.fit(labelled, calibration, settings(parameters="offsets"), seed=0)
    seen = mean_recall(truth, found.rule.decide(values))
    honest = found.study["scores"]["learned"]["balanced_accuracy"]
    chance = 1 / len(spec.classes)
    assert seen > chance + 0.03 and honest["value"] < seen - 0.02
    assert honest["low"] < chance + 0.01


def test_two_classes_that_exclude_each_other_are_decided_as_one_question(monkeypatch):
    monkeypatch.setitem(SPECS, "two", make_spec("multiclass", ("mel", "nev")))
    frame, _, calibration, found = learn("two", replicates=5)
    decided = found.rule.decide(calibration.apply(frame).to_numpy())
    assert (decided.sum(axis=1) == 1).all() and decided.sum(axis=0).min() > 0


def test_thresholds_reach_what_was_wanted_and_fall_with_it():
    wanted = (0.5, 0.8, 0.9)
    frame, labelled, calibration, found = learn("binary", sensitivities=wanted)
    (name,) = found.classes
    entries = found.thresholds[name]
    assert [one["sensitivity"] for one in entries] == list(wanted)
    limits = [one["threshold"] for one in entries]
    assert limits == sorted(limits, reverse=True)
    positives = calibration.apply(frame)[name].to_numpy()[labelled.truth[:, 0] == 1]
    for one in entries:
        assert (positives >= one["threshold"]).mean() >= one["sensitivity"]
        told = one["nested"]
        assert told["sensitivity"]["low"] <= told["sensitivity"]["value"]
        assert told["photos_per_find"]["value"] == pytest.approx(1 / told["precision"]["value"])


def test_a_test_part_is_judged_by_the_final_rule():
    frame, labelled, calibration, found = learn("binary")
    calibrated = calibration.apply(frame).to_numpy()
    told = found.evaluate(labelled, calibrated)
    decided = calibrated[:, 0] >= found.rule.thresholds[0]
    assert told["scores"]["learned"]["balanced_accuracy"]["value"] == pytest.approx(
        balanced_accuracy_score(labelled.truth[:, 0], decided)
    )
    one = told["thresholds"][found.classes[0]][1]
    called = calibrated[:, 0] >= one["threshold"]
    assert one["reached"]["sensitivity"]["value"] == recall_score(labelled.truth[:, 0], called)


def test_too_few_images_keep_the_plain_decision_and_it_says_why(tmp_path):
    spec = SPECS["multilabel"]
    examples = make_examples(spec)
    truth = examples.loc[:, list(spec.classes)].loc[make_probabilities(examples, spec).index]
    _, _, _, found = learn("multilabel", truth=truth.assign(melanoma=0.0, keratosis=0.0))
    assert not found.learned and "positive" in found.why and not found.thresholds
    assert found.rule == plain_rule("multilabel", 2)
    _, _, _, half = learn("multilabel", truth=truth.assign(keratosis=0.0))
    assert half.learned and set(half.thresholds) == {"melanoma"}
    assert half.rule.thresholds[1] == 0.5 != half.rule.thresholds[0]
    plot_decision(found.to_mapping(), tmp_path / "few.png")
    assert not (tmp_path / "few.png").exists()


# ---------------------------------------------------------------------------- as a file


@pytest.mark.parametrize("task", SPECS)
def test_json_gives_the_same_decisions_back(task, tmp_path):
    frame, _, calibration, found = learn(task, replicates=10)
    path = tmp_path / "decision.json"
    path.write_text(json.dumps(found.to_mapping(), allow_nan=False))
    again, calibrated = read_decision(tmp_path), calibration.apply(frame)
    assert again.rule == found.rule and again.decide(calibrated).equals(found.decide(calibrated))
    turned = calibrated[calibrated.columns[::-1]]  # joined by name, whatever the columns' order
    assert again.decide(turned).equals(found.decide(calibrated))
    assert read_thresholds(tmp_path) == json.loads(json.dumps(found.thresholds))
    plot_decision(json.loads(path.read_text()), tmp_path / "decision.png")
    assert is_picture(tmp_path / "decision.png")


@pytest.mark.parametrize(
    "damage",
    [
        lambda m: m.pop("rule"),
        lambda m: m["rule"].pop("weights"),
        lambda m: m["rule"].update(weights=[1, 2]),
        lambda m: m["rule"].update(weights=[-1, 1, 1]),
    ],
)
def test_a_damaged_file_is_said_in_one_line(damage):
    mapping = json.loads(json.dumps(learn("multiclass", replicates=5)[-1].to_mapping()))
    damage(mapping)
    with pytest.raises(PipelineError, match="decision: damaged"):
        Decision.from_mapping(mapping)


def test_thresholds_of_a_run_made_before_are_read(tmp_path):
    assert read_thresholds(tmp_path) == {}
    old = {"thresholds": {"mel": [{"sensitivity": 0.9, "threshold": 0.1}]}}
    (tmp_path / "calibration.json").write_text(json.dumps(old))
    assert read_thresholds(tmp_path) == old["thresholds"]


# ---------------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ({"sensitivities": [0.8, 0.8]}, r"decision\.sensitivities"),
        ({"sensitivities": [1.0]}, r"decision\.sensitivities"),
        ({"sensitivity": {"mel": 1.2}}, r"decision\.sensitivity\.mel"),
        ({"metric": "cost"}, r"decision\.costs"),
        ({"metric": "cost", "costs": {"mel": {"nv": -1}}}, r"decision\.costs\.mel\.nv"),
        ({"metric": "cost", "costs": {"mel": 3}}, r"decision\.costs\.mel"),
    ],
)
def test_settings_are_checked_by_key(given, key):
    with pytest.raises(PipelineError, match=key):
        parse_experiment({"name": "x", "dataset": "ham10000", "decision": given})


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ({"sensitivity": {"mle": 0.9}}, r"decision\.sensitivity\.mle.*mel"),
        ({"metric": "cost", "costs": {"mel": {"nw": 1}}}, r"decision\.costs\.mel\.nw.*nv"),
        ({"metric": "cost", "costs": {"mel": {"missed": 0}, "nv": {"missed": 0}}}, "every cost"),
    ],
)
def test_a_class_that_is_not_there_is_named(given, key):
    with pytest.raises(PipelineError, match=key):
        check_decision(settings(**given), "multiclass", ("mel", "nv"))


@pytest.mark.parametrize("task", ["binary", "multilabel"])
def test_a_question_without_any_cost_is_named_before_training(task):
    given = settings(metric="cost", costs={"mel": {"missed": 0, "false_alarm": 0}})
    with pytest.raises(PipelineError, match=r"decision\.costs\.mel: every cost is 0"):
        check_decision(given, task, ("mel", "sk")[: 1 if task == "binary" else 2])


def test_sensitivities_of_a_config_made_before_move_here():
    old = {"name": "x", "dataset": "ham10000", "calibration": {"sensitivities": [0.7]}}
    assert parse_experiment(old).decision.sensitivities == (0.7,)
    assert old["calibration"] == {"sensitivities": [0.7]}
