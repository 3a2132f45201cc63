"""Tests of the ensemble: identities, missing scores, nesting, and that noise earns nothing."""

import json
import re
import shutil
from functools import partial

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from kaggle_pipeline.cli.main import main
from kaggle_pipeline.data.examples import split_rows
from kaggle_pipeline.data.patient_context import patient_context
from kaggle_pipeline.datasets.synthetic import SPEC
from kaggle_pipeline.ensembling.comparison import Averaged, compare, make_candidates
from kaggle_pipeline.ensembling.ranks import (
    Weighted,
    choose_best,
    choose_equal,
    choose_forward,
    weighted_mean,
)
from kaggle_pipeline.ensembling.stackers import STACKERS, Stacked
from kaggle_pipeline.metrics.roc_bootstrap import roc_auc

MODELS = ("good", "fair", "noise")


@pytest.fixture
def rows(small_examples):
    """Training rows with a good model's scores, a fair one's and noise."""
    table = split_rows(small_examples(patients=80, images=6), "train")
    rng = np.random.default_rng(0)
    truth = table["target"].to_numpy()
    return table.assign(
        good=expit(rng.normal(2 * truth, 1)),
        fair=expit(rng.normal(1.2 * truth, 1) - 3),
        noise=rng.random(len(table)),
    ).join(patient_context(table, SPEC))


def fitted(rows, choose, models=MODELS):
    return Weighted(models, "target", choose).fit(rows)


def auc(rows, scores):
    return roc_auc(rows[["target"]].to_numpy(int), np.asarray(scores)[:, None])


def test_the_best_is_taken_alone_and_noise_gets_no_weight(rows):
    assert fitted(rows, choose_best).weights_ == {"good": 1, "fair": 0, "noise": 0}
    weights = fitted(rows, choose_forward).weights_
    assert weights["good"] > weights["fair"] > 0 and weights["noise"] < 0.1
    assert sum(weights.values()) == pytest.approx(1)


@pytest.mark.parametrize("choose", [choose_equal, choose_best, choose_forward])
def test_a_model_beside_a_copy_of_itself_is_itself(rows, choose):
    twice = rows.assign(copy=rows["good"])
    alone = fitted(twice, choose, ["good"]).apply(twice)
    np.testing.assert_allclose(fitted(twice, choose, ["good", "copy"]).apply(twice), alone)
    assert auc(rows, alone) == auc(rows, rows["good"])


@pytest.mark.parametrize("choose", [choose_equal, choose_best, choose_forward])
def test_only_the_order_of_scores_counts(rows, choose):
    bent = rows.assign(**{name: rows[name] ** 3 / 7 for name in MODELS})
    np.testing.assert_allclose(fitted(rows, choose).apply(rows), fitted(bent, choose).apply(bent))


def test_missing_scores_leave_their_weight_to_the_others():
    ranks = np.array([[0.2, 0.8], [np.nan, 0.8], [0.2, np.nan], [np.nan, np.nan]])
    assert weighted_mean(ranks, np.array([0.75, 0.25])).round(6).tolist() == [0.35, 0.8, 0.2, 0.5]
    assert weighted_mean(ranks, np.array([1.0, 0.0])).round(6).tolist() == [0.2, 0.8, 0.2, 0.5]


def test_an_ablation_adds_what_sees_less(rows):
    every = make_candidates(MODELS, SPEC, ("scores", "context", "metadata"), 0, ablation=True)
    assert list(every)[3:6] == ["splines on scores", "boosting on scores", "their mean on scores"]
    assert len(every) == 3 + 4 * 3
    assert list(every)[-1] == "their mean on scores + context + metadata"
    alone = make_candidates(MODELS, SPEC, ("scores",), 0, ablation=True)
    assert len(alone) == 3 + 3  # there is no less
    _, names = every["splines on scores"]().fit(rows).features(rows)
    assert not [name for name in names if name.startswith(("beside_", "patient_", "age"))]
    assert every["splines on scores + metadata"]().use == ("scores", "metadata")


@pytest.mark.parametrize("learner", list(STACKERS))
def test_the_target_as_a_score_shows_and_a_shuffled_one_does_not(rows, spec, learner):
    """A model that was given the answer towers above all: the study cannot miss such a leak."""
    rng = np.random.default_rng(1)
    leak = rows.assign(leak=np.clip(rows["target"] * 0.9 + 0.05, 0, 1))
    noise = rows.assign(leak=rng.permutation(leak["leak"]))
    found = [
        compare(
            {"x": partial(Stacked, ["leak"], spec, learner, ("scores",), 0)}, table, spec,
            folds=3, repeats=1,
        ).auc["x"].value
        for table in (leak, noise)
    ]  # fmt: skip
    # Trees with leaves of forty rows round off what 360 rows say.
    assert found[0] > 0.93 and abs(found[1] - 0.5) < 0.15


def test_boosting_only_rises_with_a_score(rows, spec):
    model = Stacked(["good", "fair"], spec, "boosting", ("scores",), 0).fit(rows)
    line = rows.iloc[[0] * 50].assign(good=np.linspace(0, 1, 50), fair=0.1)
    assert (np.diff(model.apply(line)) >= -1e-12).all()


def test_no_row_is_dropped_for_a_missing_score(rows):
    holes = rows.assign(good=rows["good"].where(np.arange(len(rows)) % 3 > 0))
    for make in make_candidates(MODELS, SPEC, ("scores", "context", "metadata"), 0).values():
        answers = make().fit(holes).apply(holes)
        assert answers.shape == (len(rows),) and np.isfinite(answers).all()
        assert answers.min() >= 0 and answers.max() <= 1


def test_the_patients_context_helps_where_it_decides(rows, spec):
    """A patient's scores are all shifted: only beside each other do they tell."""
    shift = rows["group_id"].map({name: i % 7 for i, name in enumerate(rows["group_id"].unique())})
    rng = np.random.default_rng(3)
    noise = rng.normal(0, 0.3, len(rows))
    shifted = rows.assign(good=expit(2 * rows["target"] + 3 * shift - 9 + noise))
    found = {}
    for use in (("scores",), ("scores", "context")):
        study = compare(
            {"stack": partial(Stacked, ["good"], spec, "splines", use, 0)},
            shifted, spec, folds=3, repeats=1,
        )  # fmt: skip
        found[use] = study.auc["stack"].value
    assert found["scores", "context"] > found[("scores",)] + 0.05


@pytest.mark.parametrize("learner", list(STACKERS))
def test_a_patients_scores_do_not_depend_on_who_else_is_in_the_table(rows, spec, learner):
    model = Stacked(MODELS, spec, learner, ("scores", "context", "metadata"), 0).fit(rows)
    together = pd.Series(model.apply(rows), rows.index)
    for _, mine in rows.sample(frac=1, random_state=1).groupby("group_id"):
        np.testing.assert_allclose(model.apply(mine), together.loc[mine.index], atol=1e-6)
    turned = rows.iloc[::-1]
    np.testing.assert_allclose(model.apply(turned), together.loc[turned.index], atol=1e-6)


class Memory:
    """Remembers the truth of rows it has seen; says 0.5 of others. It cannot score when nested."""

    def fit(self, rows):
        self.seen = rows["target"].to_dict()
        self.patients = set(rows["group_id"])
        return self

    def apply(self, rows):
        assert not self.patients & set(rows["group_id"]), "a patient was split"
        return np.array([self.seen.get(name, 0.5) for name in rows.index])


def test_nothing_is_judged_on_rows_it_was_fitted_on(rows, spec):
    study = compare({"memory": Memory}, rows, spec, folds=4, repeats=2)
    assert study.auc["memory"].value == 0.5
    assert study.predictions["memory"].notna().all(axis=None)


def test_the_simpler_one_is_used_where_the_gain_is_noise(rows, spec):
    def scores(name):
        return partial(Weighted, [name], "target", choose_equal)

    jitter = np.random.default_rng(2).normal(0, 0.05, len(rows))
    by_luck = max((rows["good"] + jitter, rows["good"] - jitter), key=partial(auc, rows))
    slightly = rows.assign(better=by_luck)
    study = compare(
        {"noise": scores("noise"), "good": scores("good"), "better": scores("better")},
        slightly, spec, folds=3, repeats=2,
    )  # fmt: skip
    assert study.chosen == "good"
    assert study.over["good"]["noise"].low > 0
    gain = study.over["better"]["good"]
    assert gain.low <= gain.value <= gain.high


def test_the_mean_of_candidates_is_the_same_nested_and_fitted(rows, spec):
    parts = {name: partial(Weighted, [name], "target", choose_equal) for name in MODELS}
    mean = partial(Averaged, parts)
    together = compare({**parts, "mean": mean}, rows, spec, folds=3, repeats=1)
    alone = compare({"mean": mean}, rows, spec, folds=3, repeats=1)
    pd.testing.assert_frame_equal(together.predictions["mean"], alone.predictions["mean"])


# ------------------------------------------------------------------- the command


@pytest.fixture
def scored(competition, tmp_path):
    """The made-up competition with files of other people's scores beside its tables."""
    data = tmp_path / "data"
    shutil.copytree(competition / "competition", data)
    rng = np.random.default_rng(5)
    train, test = pd.read_csv(data / "train.csv"), pd.read_csv(data / "test.csv")
    for table, name in ((train, "oof.csv"), (test, "their_test.csv")):
        lift = 1.5 * table["target"] if "target" in table else 0.0
        scores = pd.DataFrame({"image_name": table["image_name"]})
        for model in ("a", "b"):
            scores[model] = expit(rng.normal(lift, 1, len(table)))
        scores.loc[3, "b"] = np.nan
        scores.sample(frac=1, random_state=0).to_csv(data / name, index=False)
    return data


def blend(data, run, *sets):
    changes = ("ensemble.oof=oof.csv", "ensemble.test=their_test.csv", "ensemble.columns=[a,b]",
               "ensemble.repeats=1", "ensemble.folds=3", "leakage.fingerprints=false")  # fmt: skip
    words = [word for change in (*changes, *sets) for word in ("--set", change)]
    common = ["--config", "configs/demo.yaml", "--data-dir", str(data), "--run-dir", str(run)]
    return main(["blend-scores", *common, *words])


def test_files_of_others_become_a_checked_submission(scored, tmp_path, capsys):
    run = tmp_path / "run"
    assert blend(scored, run) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    assert "<- used" in said and "over rank mean" in said
    study = json.loads((run / "ensemble" / "study.json").read_text())
    assert study["chosen"] in study["auc"] and study["repeats"] == 1
    submission = pd.read_csv(run / "submission.csv")
    assert list(submission["image_name"]) == list(
        pd.read_csv(scored / "sample_submission.csv")["image_name"]
    )
    assert "Ensemble of finished scores" in (run / "report.html").read_text()


def test_a_patients_images_without_a_score_count_in_the_context(scored, tmp_path, monkeypatch):
    path = scored / "oof.csv"
    table = pd.read_csv(path)
    train = pd.read_csv(scored / "train.csv").set_index("image_name")
    patient = train.loc[table["image_name"], "patient_id"].to_numpy()
    one = pd.Series(patient).value_counts().index[0]
    mine = np.flatnonzero(patient == one)
    table.loc[mine[1:], ["a", "b"]] = np.nan
    table.to_csv(path, index=False)
    seen = []
    fit = Stacked.fit
    monkeypatch.setattr(Stacked, "fit", lambda self, rows: seen.append(rows) or fit(self, rows))
    assert blend(scored, tmp_path / "run") == 0
    rows = pd.concat(seen)
    rows = rows[rows["group_id"] == one]
    assert set(rows["patient_images"]) == {len(mine)}


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda t: t.rename(columns={"b": "c"}), "has no column 'b'"),
        (lambda t: pd.concat([t, t.iloc[:1]]), "more than once"),
        (lambda t: t.assign(a=t["a"] + 1), "not in [0, 1]"),
        (lambda t: t.assign(a="high"), "not in [0, 1]"),
        (lambda t: t.assign(a=np.nan, b=np.nan), "a has no score of 93 of 93 training photos"),
        (lambda t: t.iloc[:0], "has no rows"),
    ],
)
def test_a_file_that_is_wrong_is_one_line(scored, tmp_path, change, error, capsys):
    path = scored / "oof.csv"
    change(pd.read_csv(path)).to_csv(path, index=False)
    assert blend(scored, tmp_path / "run") == 2
    assert error in capsys.readouterr().err.strip().splitlines()[-1]


def jpg(share):
    """Ids that end in .jpg, of a share of the rows."""
    return lambda table: table.assign(
        image_name=table["image_name"].where(np.arange(len(table)) >= share * len(table),
                                             table["image_name"] + ".jpg")
    )  # fmt: skip


def spoil(path, change):
    change(pd.read_csv(path)).to_csv(path, index=False)


@pytest.mark.parametrize(
    ("name", "change", "error"),
    [
        ("their_test.csv", jpg(1), r"28 of 28 test photos have no row, such as ISIC_\d{7}, and 28 "
         r"rows are of no test photo, such as ISIC_\d{7}\.jpg"),
        ("their_test.csv", jpg(0.5), r"14 of 28 test photos have no row.*\d\.jpg"),
        ("oof.csv", jpg(1), r"93 of 93 training photos have no row.*\d\.jpg"),
        ("oof.csv", jpg(0.3), r"2\d of 93 training photos have no row.*\d\.jpg"),
        ("their_test.csv", lambda t: t.iloc[::2],
         r"no score at all of 14 of 28 test photos, such as ISIC_\d{7}"),
        ("their_test.csv", lambda t: t.assign(a=t["a"].where(t.index % 5 > 0)),
         r"a has no score of 6 of 28 test photos, such as ISIC_\d{7}, though it knows 100%"),
        ("oof.csv", lambda t: t.iloc[:40],
         r"a has no score of 5\d of 93 training photos, such as ISIC_\d{7}: too few"),
    ],
)  # fmt: skip
def test_a_file_that_does_not_match_the_images_is_one_line(
    scored, tmp_path, name, change, error, capsys
):
    spoil(scored / name, change)
    run = tmp_path / "run"
    assert blend(scored, run) == 2
    said = capsys.readouterr()
    line = said.err.strip().splitlines()[-1]
    assert re.search(error, line) and str(scored / name) in line
    assert not (run / "submission.csv").exists() and "repeat 1" not in said.out  # before the work


def test_gaps_that_both_parts_have_are_counted_and_left_to_the_others(scored, tmp_path, capsys):
    for name in ("oof.csv", "their_test.csv"):
        spoil(scored / name, lambda t: t.assign(b=t["b"].where(np.arange(len(t)) % 3 > 0)))
    spoil(scored / "oof.csv", lambda t: pd.concat([t, t.iloc[:2].assign(image_name=["X1", "X2"])]))
    run = tmp_path / "run"
    assert blend(scored, run) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    assert re.search(r"oof\.csv: b has no score of 3\d of 93 training photos, such as ISIC_", said)
    assert re.search(r"test\.csv: b has no score of \d+ of 28 test photos, such as ISIC_", said)
    assert re.search(r"oof\.csv: \d rows are of no photo here and left out, such as", said)
    assert pd.read_csv(run / "submission.csv")["target"].nunique() > 20


@pytest.mark.ci
def test_a_few_dropped_duplicates_do_not_make_a_gap_a_mistake(scored, tmp_path, capsys):
    """An honest file of three quarters of the photos, with one that the run has dropped."""
    spoil(scored / "oof.csv", lambda t: pd.concat(
        [t.iloc[: 3 * len(t) // 4], t.iloc[:1].assign(image_name="dropped")]))  # fmt: skip
    assert blend(scored, tmp_path / "run") == 0, capsys.readouterr().err
    assert "a has no score of 24 of 93 training photos" in capsys.readouterr().out


def test_with_a_holdout_a_stage_is_blended_with_others_on_what_it_was_judged_by(
    scored, tmp_path, capsys
):
    run, holdout = tmp_path / "run", "folds={holdout: 0.5}"
    words = ["--config", "configs/demo.yaml", "--data-dir", str(scored), "--run-dir", str(run)]
    for change in (holdout, "tabular.learners=[logistic]", "leakage.fingerprints=false"):
        words += ["--set", change]
    assert main(["prepare-data", *words]) == 0 and main(["train-tabular", *words]) == 0
    capsys.readouterr()
    assert blend(scored, run, holdout, "ensemble.models=[logistic]", "ensemble.use=[scores]") == 0
    labelled = len(pd.read_csv(run / "logistic" / "oof.csv"))
    assert (
        labelled < 60 and f"3 scores: logistic, a, b; {labelled} photos" in capsys.readouterr().out
    )


def test_answers_in_the_place_of_scores_are_caught(scored, tmp_path, capsys):
    path = scored / "oof.csv"
    truth = pd.read_csv(scored / "train.csv").set_index("image_name")["target"]
    table = pd.read_csv(path)
    blur = np.random.default_rng(0).uniform(0, 0.4, len(table))
    table["a"] = truth.loc[table["image_name"]].to_numpy() * 0.5 + blur
    table.to_csv(path, index=False)
    assert blend(scored, tmp_path / "run") == 2
    assert "leak: the scores of a sort the training photos perfectly" in capsys.readouterr().err


def test_a_score_that_is_called_like_a_column_is_refused(scored, tmp_path, capsys):
    path = scored / "oof.csv"
    pd.read_csv(path).rename(columns={"a": "target"}).to_csv(path, index=False)
    assert blend(scored, tmp_path / "run", "ensemble.columns=[target,b]") == 2
    assert "a score called 'target' is there twice or is a column" in capsys.readouterr().err


def test_an_unknown_way_is_refused(scored, tmp_path, capsys):
    assert blend(scored, tmp_path / "run", "ensemble.method=magic") == 2
    assert "ensemble.method: 'magic' is none of best single" in capsys.readouterr().err


def test_data_without_patients_has_no_context(tmp_path, capsys):
    words = ["--config", "configs/isic_2017.yaml", "--run-dir", str(tmp_path / "run")]
    assert main(["blend-scores", *words]) == 2
    assert "ensemble: isic_2017 has 2 classes; it takes one" in capsys.readouterr().err
