"""Tests of the evaluation: equal to scikit-learn's, joined by id, no number without rows."""

import json
from dataclasses import replace
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from helpers_evaluation import SPECS, is_picture, make_examples, make_probabilities
from matplotlib.text import Text
from sklearn.metrics import (
    auc as area,
)
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    brier_score_loss,
    confusion_matrix,
    recall_score,
    roc_auc_score,
    roc_curve,
)

from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.data.spec import Number
from kaggle_pipeline.evaluation import plots
from kaggle_pipeline.evaluation.evaluate import ROC_POINTS, evaluate
from kaggle_pipeline.evaluation.plots import describe_score, write_evaluation
from kaggle_pipeline.evaluation.subgroups import subgroup_labels, subgroup_table
from kaggle_pipeline.metrics.roc_bootstrap import bootstrap_weights
from kaggle_pipeline.metrics.weighted_scores import roc_band

FEW = {"seed": 0, "n_replicates": 60}


@pytest.fixture(scope="module")
def cases():
    """By task: spec, examples, probabilities, evaluation."""
    made = {}
    for task, spec in SPECS.items():
        examples = make_examples(spec)
        probabilities = make_probabilities(examples, spec)
        made[task] = (
            spec, examples, probabilities, evaluate(examples, probabilities, spec, **FEW)
        )  # fmt: skip
    return made


@pytest.fixture(params=list(SPECS))
def case(request, cases):
    return cases[request.param]


def scores_in(content):
    """Every score of an evaluation, wherever it is."""
    if isinstance(content, dict):
        if "low" in content:
            yield content
        for value in content.values():
            yield from scores_in(value)
    elif isinstance(content, list):
        for value in content:
            yield from scores_in(value)


def test_scores_equal_scikit_learn(case):
    spec, examples, chances, found = case
    truth = examples.loc[chances.index, list(spec.classes)].astype(int)
    pairs = [(truth[name], chances[name]) for name in spec.classes]
    scores = found["scores"]
    expected = np.mean([roc_auc_score(*pair) for pair in pairs])
    assert scores["auc"]["value"] == pytest.approx(expected)
    expected = np.mean([average_precision_score(*pair) for pair in pairs])
    assert scores["average_precision"]["value"] == pytest.approx(expected)
    briers = [brier_score_loss(*pair) for pair in pairs]
    total = np.sum(briers) if spec.task == "multiclass" else np.mean(briers)
    assert scores["brier"]["value"] == pytest.approx(total)
    if spec.task == "multiclass":
        labels, guesses = truth.to_numpy().argmax(1), chances.to_numpy().argmax(1)
        assert scores["accuracy"]["value"] == pytest.approx((labels == guesses).mean())
        balanced = balanced_accuracy_score(labels, guesses)
    else:
        balanced = np.mean([balanced_accuracy_score(t, p >= 0.5) for t, p in pairs])
    assert scores["balanced_accuracy"]["value"] == pytest.approx(balanced)
    for name, (target, probability) in zip(spec.classes, pairs, strict=True):
        per_class = found["per_class"][name]
        assert per_class["auc"]["value"] == pytest.approx(roc_auc_score(target, probability))
        assert per_class["brier"]["value"] == pytest.approx(brier_score_loss(target, probability))


def test_threshold_gives_the_sensitivity_beside_it(case):
    spec, examples, chances, found = case
    for name in spec.classes:
        truth = examples.loc[chances.index, name].astype(int)
        score = found["per_class"][name]["sensitivity_at_90_specificity"]
        called = chances[name] >= score["threshold"]
        assert score["value"] == pytest.approx(recall_score(truth, called))
        assert recall_score(1 - truth, ~called) >= 0.9


def test_confusion_equals_scikit_learn(case):
    spec, examples, chances, found = case
    truth = examples.loc[chances.index, list(spec.classes)].astype(int)
    tables = found["confusion"]["tables"]
    if spec.task == "multiclass":
        expected = [
            confusion_matrix(truth.to_numpy().argmax(1), chances.to_numpy().argmax(1)).tolist()
        ]
    else:
        expected = [
            confusion_matrix(truth[name], chances[name] >= 0.5).tolist() for name in spec.classes
        ]
    assert [table["matrix"] for table in tables] == expected


def test_counts_and_size(case):
    spec, examples, chances, found = case
    rows = examples.loc[chances.index]
    assert found["n"] == len(rows) < len(examples)
    assert found["groups"] == rows["group_id"].nunique()
    for name in spec.classes:
        assert found["counts"][name]["positive"] == rows[name].sum()
        assert found["counts"][name]["negative"] == (rows[name] == 0).sum()


def test_result_is_plain_json(case):
    *_, found = case
    text = json.dumps(found, allow_nan=False)
    assert json.loads(text) == found
    assert "IP_" not in text and "img_" not in text


def test_intervals_bracket_their_values(case):
    *_, found = case
    known = [score for score in scores_in(found) if score["value"] is not None]
    assert len(known) > 20
    single = [*found["scores"].values()]
    single += [score for one in found["per_class"].values() for score in one.values()]
    for score in single:
        assert score["low"] <= score["value"] <= score["high"]
        assert score["low"] < score["high"]
    for score in scores_in(found):
        assert (score["value"] is None) == ("reason" in score)


def test_calibration_bins_add_up(case):
    spec, *_, found = case
    assert [one["of"] for one in found["calibration"]] == (
        ["top label"] if spec.task == "multiclass" else list(spec.classes)
    )
    for curve in found["calibration"]:
        filled = [one for one in curve["bins"] if one["count"]]
        assert sum(one["count"] for one in filled) == found["n"]
        ece = sum(one["count"] * abs(one["observed"]["value"] - one["predicted"]) for one in filled)
        assert curve["ece"]["value"] == pytest.approx(ece / found["n"])
        for one in filled:
            assert one["from"] <= one["predicted"] <= one["to"]


@pytest.mark.parametrize("task", ["binary", "multilabel"])
def test_calibration_error_of_a_calibrated_model_is_inside_its_interval(task):
    """Here resampling adds more error than there is: plain percentiles lie above the estimate."""
    spec = SPECS[task]
    rng = np.random.default_rng(0)
    examples = make_examples(spec, n=800).assign(split="train")
    chances = pd.DataFrame(rng.random((800, len(spec.classes))), examples.index, spec.classes)
    truth = (rng.random(chances.shape) < chances).astype(float)
    found = evaluate(examples, chances, spec, truth=truth, **FEW)
    for score in (found["scores"]["ece"], *(one["ece"] for one in found["calibration"])):
        assert score["low"] < score["value"] < score["high"] < 2 * score["value"]


def test_the_band_of_a_roc_curve_holds_it_and_is_that_of_redrawn_groups():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(60), 5)
    target = (rng.random(60) < 0.4).astype(int)[groups]
    score = rng.random(300) + 0.6 * target
    weights = bootstrap_weights(groups, 200, seed=1)
    at, low, high = roc_band(target, score, weights[1:])
    drawn = []
    for one in weights[1:]:
        false, true, _ = roc_curve(target, score, sample_weight=one, drop_intermediate=False)
        drawn.append(np.interp(at, false, true))
    inner = slice(1, -1)  # where the curve goes straight up, the two read another point of it
    assert np.abs(np.percentile(drawn, 2.5, axis=0) - low)[inner].max() < 0.02
    assert np.abs(np.percentile(drawn, 97.5, axis=0) - high)[inner].max() < 0.02
    false, true, _ = roc_curve(target, score)
    curve = np.interp(at, false, true)[inner]
    assert (low[inner] <= curve + 0.02).all() and (curve <= high[inner] + 0.02).all()
    assert (high - low)[inner].max() > 0.1
    one_kind = roc_band(np.ones(5), np.arange(5.0), np.ones((3, 5)))
    assert np.isnan(one_kind[1]).all()


def test_the_band_of_two_score_levels_begins_where_their_curve_does():
    """As a single category scores: the curve rises from (0, 0) to the first level on a slant."""
    rng = np.random.default_rng(0)
    target = (rng.random(2000) < 0.1).astype(int)
    score = np.where(rng.random(2000) < np.where(target, 0.7, 0.3), 0.8, 0.2)
    at, low, high = roc_band(target, score, bootstrap_weights(np.arange(2000), 300, seed=0)[1:])
    false, true, _ = roc_curve(target, score)
    curve = np.interp(at, false, true)
    assert low[0] == high[0] == 0
    assert (low <= curve + 1e-9).all() and (curve <= high + 1e-9).all()
    steep = roc_band([1, 1, 0, 0], [0.9, 0.4, 0.3, 0.3], np.ones((1, 4)))  # straight up at first
    assert steep[1][0] == steep[2][0] == 1


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_a_single_curve_has_its_band_and_every_class_its_words(task, cases, monkeypatch, tmp_path):
    spec, *_, found = cases[task]
    drawn = []
    monkeypatch.setattr(plots, "save_figure", lambda figure, path: drawn.append(figure))
    found = {**found, "class_labels": {name: f"{name} in words" for name in spec.classes}}
    plots.plot_class_roc(found, tmp_path / "roc.png")
    axes, legend = drawn[0].axes
    assert len(axes.collections) == (len(spec.classes) == 1)
    words = [text.get_text() for text in legend.get_legend().get_texts()]
    assert all(any(f"{name} in words: AUC" in one for one in words) for name in spec.classes)


def fits(figure):
    """Whether every text of a figure lies within it, and none on another."""
    figure.canvas.draw()
    renderer, inside = figure.canvas.get_renderer(), figure.bbox.padded(1)
    boxes = [one.get_window_extent(renderer) for one in figure.findobj(Text)
             if one.get_visible() and one.get_text().strip()]  # fmt: skip
    boxes = [one for one in boxes if one.width > 1]
    whole = all(inside.contains(*one.min) and inside.contains(*one.max) for one in boxes)
    apart = not any(a.padded(-2).overlaps(b.padded(-2)) for a, b in combinations(boxes, 2))
    return whole and apart


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_no_text_of_a_curve_or_a_subgroup_is_cut_or_lies_on_another(
    task, cases, monkeypatch, tmp_path
):
    spec, *_, found = cases[task]
    long = "actinic keratosis or Bowen’s disease"
    found = {**found, "class_labels": dict.fromkeys(spec.classes, long)}
    drawn = []
    monkeypatch.setattr(plots, "save_figure", lambda figure, path: drawn.append(figure))
    plots.plot_class_roc(found, tmp_path / "roc.png")
    plots.plot_subgroups(found, tmp_path / "subgroups.png")
    assert all(fits(figure) for figure in drawn)
    for axes in drawn[1].axes[::2]:  # no panel without an interval
        assert len(axes.lines) > 2


def test_a_panel_of_subgroups_that_has_no_score_is_left_out(cases):
    *_, found = cases["multiclass"]
    assert list(plots.subgroup_scores(found)) == ["auc", "accuracy"]
    bare = [{**one, "auc": {"value": None, "reason": "not enough rows"}}
            for one in found["subgroups"]]  # fmt: skip
    assert list(plots.subgroup_scores({**found, "subgroups": bare})) == ["accuracy"]
    for one in bare:
        one["accuracy"] = one["auc"]
    assert not plots.subgroup_scores({**found, "subgroups": bare})


def test_roc_is_thinned_between_its_ends():
    spec = SPECS["binary"]
    examples = make_examples(spec, n=3000)
    chances = make_probabilities(examples, spec)
    curve = evaluate(examples, chances, spec, **FEW)["roc"]["target"]
    false_rate, true_rate = curve["false_positive_rate"], curve["true_positive_rate"]
    assert len(false_rate) == len(true_rate) == ROC_POINTS
    assert (false_rate[0], true_rate[0]) == (0, 0)
    assert (false_rate[-1], true_rate[-1]) == (1, 1)
    auc = roc_auc_score(examples.loc[chances.index, "target"], chances["target"])
    assert area(false_rate, true_rate) == pytest.approx(auc, abs=0.003)


# ---------------------------------------------------------------------------- joining


def test_rows_are_joined_by_id(case):
    spec, examples, chances, found = case
    shuffled = examples.sample(frac=1, random_state=1)
    assert evaluate(shuffled, chances, spec, **FEW) == found
    moved = evaluate(examples, chances.sample(frac=1, random_state=2), spec, **FEW)
    assert moved["scores"]["auc"]["value"] == pytest.approx(found["scores"]["auc"]["value"])
    assert moved["confusion"] == found["confusion"]
    columns = evaluate(examples, chances[list(spec.classes)[::-1]], spec, **FEW)
    assert columns == found


def test_truth_may_come_from_elsewhere(case):
    spec, examples, chances, found = case
    truth = examples[list(spec.classes)].sample(frac=1, random_state=3)
    blind = examples.assign(**dict.fromkeys(spec.classes, np.nan))
    assert evaluate(blind, chances, spec, truth=truth, **FEW) == found


def test_bootstrap_draws_groups():
    """All rows of a group agree: drawn by group, the interval must be wider than by row."""
    spec = SPECS["binary"]
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(60), 10)
    target = (rng.random(60) < 0.4)[group].astype(float)
    chance = 1 / (1 + np.exp(-(rng.normal(0, 1, 60)[group] + target)))
    table = make_examples(spec).iloc[:600].assign(split="train", target=target)
    chances = pd.DataFrame({"target": chance}, table.index)
    widths = []
    for groups in (group, np.arange(600)):
        rows = table.assign(group_id=[f"g{one}" for one in groups])
        found = evaluate(rows, chances, spec, seed=0, n_replicates=200)
        one = found["scores"]["auc"]
        widths.append(one["high"] - one["low"])
    assert widths[0] > 1.8 * widths[1]


def test_interval_follows_the_seed(cases):
    spec, examples, chances, found = cases["binary"]
    other = evaluate(examples, chances, spec, seed=1, n_replicates=60)
    assert other["scores"]["auc"]["value"] == found["scores"]["auc"]["value"]
    assert other["scores"]["auc"]["low"] != found["scores"]["auc"]["low"]


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda e, p: (e, p.rename(index={p.index[0]: "stranger"})), "stranger is predicted"),
        (lambda e, p: (e, p.assign(target=np.nan)), "not in \\[0, 1\\]"),
        (lambda e, p: (e, p + 1), "not in \\[0, 1\\]"),
        (lambda e, p: (e, p.rename(columns={"target": "other"})), "lack the column 'target'"),
        (lambda e, p: (e, pd.concat([p, p[:1]])), "more than once"),
        (lambda e, p: (e, p[:0]), "no predictions"),
        (lambda e, p: (e.assign(target=np.nan), p), "not 0 or 1"),
        (lambda e, p: (e.assign(target=0.5), p), "not 0 or 1"),
    ],
)
def test_unusable_rows_are_named(cases, spoil, says):
    spec, examples, chances, _ = cases["binary"]
    with pytest.raises(PipelineError, match=says):
        evaluate(*spoil(examples, chances), spec, **FEW)


def test_a_softmax_row_has_one_class(cases):
    spec, examples, chances, _ = cases["multiclass"]
    truth = examples[list(spec.classes)].copy()
    truth.loc[chances.index[5]] = 1.0
    with pytest.raises(PipelineError, match=f"{chances.index[5]} is not exactly one class"):
        evaluate(examples, chances, spec, truth=truth, **FEW)


def test_a_lacking_class_gives_reasons_and_no_numbers(cases):
    spec, examples, chances, _ = cases["multiclass"]
    kept = chances[examples.loc[chances.index, "g"] == 0]
    found = evaluate(examples, kept, spec, **FEW)
    for name in ("auc", "balanced_accuracy", "average_precision"):
        assert found["scores"][name]["value"] is None
        assert found["scores"][name]["reason"] == "no positive row of g"
    assert found["scores"]["accuracy"]["value"] > 0
    assert found["per_class"]["g"]["auc"]["value"] is None
    assert found["per_class"]["g"]["sensitivity_at_90_specificity"]["threshold"] is None
    assert found["per_class"]["a"]["auc"]["value"] > 0.5
    assert found["roc"]["g"] is None
    json.dumps(found, allow_nan=False)


# ---------------------------------------------------------------------------- subgroups


def entry(found, feature, value):
    return next(
        one for one in found["subgroups"] if (one["feature"], one["value"]) == (feature, value)
    )


def test_subgroup_scores_are_those_of_its_rows(case):
    spec, examples, chances, found = case
    rows = examples.loc[chances.index]
    chosen = rows["sex"] == "male"
    one = entry(found, "sex", "male")
    assert one["n"] == chosen.sum()
    assert one["groups"] == rows.loc[chosen, "group_id"].nunique()
    aucs = {name: roc_auc_score(rows.loc[chosen, name], chances.loc[chosen, name])
            for name in spec.classes}  # fmt: skip
    assert one["auc"]["value"] == pytest.approx(np.mean(list(aucs.values())))
    assert one["auc"]["low"] <= one["auc"]["value"] <= one["auc"]["high"]
    assert one["positives"] == {name: rows.loc[chosen, name].sum() for name in spec.classes}
    for name, score in one.get("class_auc", {}).items():
        assert score["value"] == pytest.approx(aucs[name])
    assert ("accuracy" in one) == (spec.task == "multiclass")
    if spec.task == "multiclass":
        right = rows[list(spec.classes)].to_numpy().argmax(1) == chances.to_numpy().argmax(1)
        assert one["accuracy"]["value"] == pytest.approx(right[chosen].mean())


def test_subgroups_of_a_feature_hold_every_row_once(case):
    *_, found = case
    sizes = pd.DataFrame(found["subgroups"]).groupby("feature")["n"].sum()
    assert dict(sizes) == {"age": found["n"], "sex": found["n"], "site": found["n"]}


def test_too_few_rows_give_no_number(cases):
    *_, found = cases["binary"]
    toes = entry(found, "site", "toe")
    assert 0 < toes["n"] < 20
    assert toes["auc"] == {
        "value": None, "low": None, "high": None,
        "reason": f"not enough rows: {toes['positives']['target']} positive of target, 10 needed",
    }  # fmt: skip


def test_too_few_groups_give_no_number():
    spec = SPECS["binary"]
    target = np.tile([0, 1], 40)
    rows = pd.DataFrame({"group_id": np.repeat(list("abcd"), 20), "sex": "male", "site": np.nan})
    weights = bootstrap_weights(rows["group_id"].to_numpy(str), 20, 0)
    chances = np.linspace(0, 1, 80)[:, None]
    (one,) = subgroup_table(rows, target[:, None], chances, spec, weights, {})
    assert one["auc"]["value"] is None
    assert one["auc"]["reason"] == (
        "not enough patients: positive rows of target come from 4, 5 needed"
    )
    rows["group_id"] = np.repeat(list("abcde"), 16)
    weights = bootstrap_weights(rows["group_id"].to_numpy(str), 20, 0)
    (one,) = subgroup_table(rows, target[:, None], chances, spec, weights, {})
    assert one["auc"]["value"] is not None


def test_age_bands_and_missing():
    rows = pd.DataFrame({"age_years": [0, 29.9, 30, 44, 45, 59, 60, 74, 75, 90, np.nan],
                         "sex": np.nan, "site": np.nan})  # fmt: skip
    labels = subgroup_labels(rows, SPECS["binary"], {})
    assert list(labels) == ["age"]  # of sex and site nothing is known
    assert labels["age"].tolist() == [
        "under 30", "under 30", "30–44", "30–44", "45–59", "45–59", "60–74", "60–74",
        "75 and over", "75 and over", "missing",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (Number(), None),
        (Number(bands=(5,)), ["under 5", "5 and over", "missing"]),
        (Number(bands=(0.5, 5)), ["under 0.5", "5 and over", "missing"]),
        (Number(bands=(0.5, 5.5, 7)), ["under 0.5", "5.5 to under 7", "missing"]),
    ],
)
def test_the_spec_says_which_numbers_make_subgroups(number, words):
    spec = replace(SPECS["binary"], numeric={"size_mm": number}, categorical={})
    rows = pd.DataFrame({"size_mm": [0.1, 6, np.nan]})
    labels = subgroup_labels(rows, spec, {})
    assert {name: one.tolist() for name, one in labels.items()} == (
        {"size_mm": words} if words else {}
    )


def test_marks_are_further_subgroups_joined_by_id(cases):
    spec, examples, chances, _ = cases["binary"]
    seen = pd.Series([True, False, np.nan] * 200, examples.index, dtype=object)
    camera = pd.Series("old", examples.index)
    marks = {"seen": seen.sample(frac=1, random_state=0), "camera": camera}
    found = evaluate(examples, chances, spec, marks=marks, **FEW)
    assert entry(found, "seen", "yes")["n"] == (seen.loc[chances.index] == True).sum()  # noqa: E712
    assert entry(found, "seen", "no")["n"] == (seen.loc[chances.index] == False).sum()  # noqa: E712
    assert entry(found, "seen", "missing")["n"] == seen.loc[chances.index].isna().sum()
    assert entry(found, "camera", "old")["auc"] == found["scores"]["auc"]


# ---------------------------------------------------------------------------- files


def test_files_are_whole(case, tmp_path):
    *_, found = case
    files = write_evaluation(tmp_path, found)
    names = ["evaluation.json", "confusion.png", "reliability.png", "class_roc.png",
             "subgroups.png"]  # fmt: skip
    assert [path.name for path in files] == names
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    assert json.loads(files[0].read_text()) == found
    assert all(is_picture(path) for path in files[1:])


def test_files_of_a_test_part_have_a_prefix(cases, tmp_path):
    *_, found = cases["binary"]
    assert all(
        path.name.startswith("test_") for path in write_evaluation(tmp_path, found, prefix="test_")
    )


def test_pictures_without_curves_and_subgroups(cases, tmp_path):
    spec, examples, chances, _ = cases["binary"]
    bare = examples.assign(age_years=np.nan, sex=np.nan, site=np.nan)
    alike = chances[examples.loc[chances.index, "target"] == 0]
    found = evaluate(bare, alike, spec, **FEW)
    files = write_evaluation(tmp_path, found)
    assert [path.name for path in files] == ["evaluation.json", "confusion.png", "reliability.png"]


def test_pictures_of_names_with_signs_of_formulas(cases, tmp_path):
    *_, found = cases["binary"]
    odd = {
        **found,
        "roc": {r"a$\frac$": found["roc"]["target"]},
        "per_class": {r"a$\frac$": found["per_class"]["target"]},
    }
    assert all(is_picture(path) for path in write_evaluation(tmp_path, odd)[1:])


def test_a_score_in_words():
    assert describe_score({"value": 0.8614, "low": 0.85, "high": 0.8721}) == "0.861 [0.850, 0.872]"
    assert describe_score({"value": None, "low": None, "high": None, "reason": "x"}) == "–"
