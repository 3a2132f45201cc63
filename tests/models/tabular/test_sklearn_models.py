"""Tests of the learners beside the dense network: they answer as scikit-learn does, and reload."""

import shutil
from functools import partial

import numpy as np
import pandas as pd
import pytest
from helpers_evaluation import make_examples, make_spec
from scipy.special import expit
from sklearn.ensemble import ExtraTreesClassifier, HistGradientBoostingClassifier

from kaggle_pipeline.cli.main import main
from kaggle_pipeline.config.experiment import TabularConfig
from kaggle_pipeline.config.names import LEARNERS as NAMES
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.private_api import boosting_baseline
from kaggle_pipeline.data.examples import split_rows
from kaggle_pipeline.datasets import get_spec
from kaggle_pipeline.metrics.roc_bootstrap import roc_auc
from kaggle_pipeline.models.tabular.sklearn_models import LEARNERS, LearnerModel
from kaggle_pipeline.models.tabular.tree_arrays import from_boosting, from_forest
from kaggle_pipeline.stages import train_folds

RNG = np.random.default_rng(0)
X = RNG.random((400, 6)).astype(np.float32)
Y = (X[:, 0] + X[:, 1] * X[:, 2] + 0.2 * RNG.normal(size=400) > 0.8).astype(int)
KINDS = (X[:, 0] * 3).astype(int)


@pytest.mark.parametrize("answers", [Y, KINDS], ids=["two", "three"])
def test_a_forests_arrays_answer_as_the_forest(answers):
    forest = ExtraTreesClassifier(20, min_samples_leaf=3, random_state=0).fit(X, answers)
    np.testing.assert_allclose(from_forest(forest).total(X), forest.predict_proba(X), atol=1e-12)


@pytest.mark.parametrize("answers", [Y, KINDS], ids=["two", "three"])
def test_a_boostings_arrays_answer_as_the_boosting(answers):
    model = HistGradientBoostingClassifier(max_iter=20, random_state=0).fit(X, answers)
    raw = from_boosting(model).total(X) + boosting_baseline(model)
    wanted = model.decision_function(X).reshape(len(X), -1)
    np.testing.assert_allclose(raw, wanted, atol=1e-9)
    if raw.shape[1] == 1:
        np.testing.assert_allclose(expit(raw[:, 0]), model.predict_proba(X)[:, 1], atol=1e-9)


@pytest.fixture
def make(spec):
    return lambda learner: LearnerModel(learner, TabularConfig(), spec, spec.features, seed=3)


@pytest.mark.parametrize("learner", NAMES)
class TestLearnerModel:
    """What every model keeps, for each learner."""

    def test_what_is_saved_answers_the_same(self, learner, make, small_examples, tmp_path):
        examples = small_examples(patients=24, images=8)
        model = make(learner).fit(split_rows(examples, "train"), None)
        answers = model.predict(examples)
        model.save(tmp_path)
        pd.testing.assert_frame_equal(make(learner).load(tmp_path).predict(examples), answers)
        assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".npz"}

    def test_it_learns(self, learner, make, small_examples):
        examples = small_examples(patients=60, images=10)
        examples["target"] = (examples["age_years"].fillna(0) > 45).astype(float)
        train = split_rows(examples, "train")
        answers = make(learner).fit(train, None).predict(train)
        assert roc_auc(train[["target"]].to_numpy(int), answers.to_numpy()) > 0.95

    def test_the_order_of_rows_to_answer_for_changes_nothing(self, learner, make, small_examples):
        examples = small_examples(patients=24, images=8)
        model = make(learner).fit(split_rows(examples, "train"), None)
        shuffled = examples.sample(frac=1, random_state=1)
        pd.testing.assert_frame_equal(
            model.predict(shuffled).loc[examples.index], model.predict(examples)
        )

    def test_watched_rows_change_nothing(self, learner, make, small_examples):
        examples = small_examples(patients=24, images=8)
        train = split_rows(examples, "train")
        one, two = make(learner).fit(train, None), make(learner).fit(train, train.iloc[:9])
        pd.testing.assert_frame_equal(one.predict(examples), two.predict(examples))

    def test_a_class_without_rows_is_one_line(self, learner, make, small_examples):
        train = split_rows(small_examples(), "train").assign(target=0.0)
        with pytest.raises(PipelineError, match=rf"{learner}: all \d+ training rows .* target = 0"):
            make(learner).fit(train, None)

    def test_damage_is_one_line(self, learner, make, small_examples, tmp_path):
        model = make(learner).fit(split_rows(small_examples(24, 8), "train"), None)
        model.save(tmp_path)
        (tmp_path / "learner.npz").write_bytes(b"no archive")
        with pytest.raises(PipelineError, match=r"learner\.npz cannot be read"):
            make(learner).load(tmp_path)


@pytest.mark.parametrize("learner", NAMES)
@pytest.mark.parametrize("dataset", ["ham10000", "isic_2017"])
def test_softmax_and_several_questions(learner, dataset):
    spec = get_spec(dataset)
    rng = np.random.default_rng(1)
    n, k = 300, len(spec.classes)
    kinds = rng.integers(0, k + (spec.task == "multilabel"), n)
    table = pd.DataFrame({name: (kinds == i).astype(float) for i, name in enumerate(spec.classes)})
    table["age_years"] = kinds * 10.0 + rng.normal(size=n)
    for name, words in spec.categorical.items():
        table[name] = rng.choice(np.array(words, object), n)
    model = LearnerModel(learner, TabularConfig(), spec, spec.features, seed=0).fit(table, None)
    answers = model.predict(table)
    assert list(answers.columns) == list(spec.classes)
    assert answers.to_numpy().min() >= 0 and answers.to_numpy().max() <= 1
    if spec.task == "multiclass":
        np.testing.assert_allclose(answers.sum(axis=1), 1, atol=1e-9)
    assert roc_auc(table[list(spec.classes)].to_numpy(int), answers.to_numpy()) > 0.8


@pytest.mark.parametrize("learner", NAMES)
def test_two_classes_that_exclude_each_other(learner):
    spec = make_spec("multiclass", ("mel", "nev"))
    table = split_rows(make_examples(spec, 300), "train").copy()
    table["age_years"] = 30.0 + 30 * table["mel"]
    answers = LearnerModel(learner, TabularConfig(), spec, spec.features, seed=0).fit(table, None)
    answers = answers.predict(table)
    np.testing.assert_allclose(answers.sum(axis=1), 1, atol=1e-9)
    assert ((answers["mel"] > 0.5) == (table["mel"] == 1)).mean() > 0.95


def test_every_learner_can_be_asked_for():
    assert set(NAMES) == set(LEARNERS)


def test_stages_of_their_own_with_context_and_a_blend_of_them(competition, tmp_path, capsys):
    sets = ("folds.k=2", "tabular.context=true", "tabular.learners=[forest,logistic]",
            "blend.models=[forest,logistic]", "leakage.fingerprints=false")  # fmt: skip
    words = [word for change in sets for word in ("--set", change)]
    common = ["--config", "configs/demo.yaml", "--data-dir", str(competition / "competition")]
    call = partial(lambda command, *more: main([command, *common, *words, *more]))
    run = tmp_path / "run"
    assert call("run-pipeline", "--run-dir", str(run)) == 0, capsys.readouterr().err
    oof = {name: pd.read_csv(run / name / "oof.csv") for name in ("forest", "logistic", "blend")}
    assert oof["forest"]["image_id"].equals(oof["logistic"]["image_id"])
    assert (run / "submission.csv").exists() and not (run / "tabular").exists()
    assert "Tabular model: forest" in (run / "report.html").read_text()
    code = call(
        "train-tabular", "--run-dir", str(run), "--resume", "--set", "tabular.context=false"
    )
    assert code == 2 and "tabular.context" in capsys.readouterr().err


def test_context_of_data_without_patients_is_refused_before_anything(tmp_path, capsys):
    words = ["--config", "configs/ham10000_lenet.yaml", "--set", "tabular.context=true"]
    assert main(["train-tabular", *words, "--run-dir", str(tmp_path / "run")]) == 2
    assert "ham10000 tells the lesion of an image" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_patients_context_counts_incomplete_rows_in_train_as_in_test(
    competition, tmp_path, monkeypatch
):
    data, run = tmp_path / "data", tmp_path / "run"
    data.mkdir()
    rng = np.random.default_rng(0)
    raw = {}
    for name in ("train", "test"):
        raw[name] = pd.read_csv(competition / "competition" / f"{name}.csv")
        holes = rng.random(len(raw[name])) < 0.2
        raw[name]["sex"] = raw[name]["sex"].mask(holes)
        raw[name].to_csv(data / f"{name}.csv", index=False)
    shown = []
    monkeypatch.setattr(
        train_folds, "cross_validate", lambda make, rows, *_, **__: shown.append(rows)
    )
    words = ["folds.k=2", "tabular.context=true", "examples.missing=drop"]
    words += ["leakage.fingerprints=false", "leakage.duplicates=keep"]
    sets = [word for change in words for word in ("--set", change)]
    places = ["--data-dir", str(data), "--run-dir", str(run)]
    assert main(["train-tabular", "--config", "configs/demo.yaml", *places, *sets]) == 0
    (rows,) = shown
    learned = pd.read_csv(run / "prepare" / "folds.csv", index_col="image_id").index
    assert 0 < len(learned) < len(raw["train"])
    for name, ids in (("train", learned), ("test", rows.index[rows["split"] == "test"])):
        images = raw[name].set_index("image_name")["patient_id"]
        counts = images.groupby(images).transform("size")
        assert (rows.loc[ids, "patient_images"] == counts[ids]).all()


@pytest.mark.parametrize(
    ("command", "change", "words"),
    [
        ("train-tabular", "tabular.patience=3", "say tabular.patience = null"),
        ("prepare-data", "image.checkpoint=best_inner", "say image.checkpoint = last"),
        ("run-pipeline", "image.checkpoint=best_fold", "say image.checkpoint = last"),
    ],
)
def test_an_epoch_that_cannot_be_chosen_is_said_before_anything_is_converted(
    competition, tmp_path, capsys, command, change, words
):
    data, run = few_melanomas(competition, tmp_path), tmp_path / "run"
    sets = [word for one in ("folds.holdout=0.2", change) for word in ("--set", one)]
    places = ["--data-dir", str(data), "--run-dir", str(run)]
    assert main([command, "--config", "configs/demo.yaml", *places, *sets]) == 2
    said = capsys.readouterr().err
    assert "no epoch can be chosen" in said and "no image that is target" in said and words in said
    assert (run / "prepare" / "folds.csv").exists()
    assert not (run / "records").exists() and not list(run.glob("*/fold?"))


def test_where_no_image_model_is_wanted_none_has_to_choose_an_epoch(competition, tmp_path):
    data, run = few_melanomas(competition, tmp_path), tmp_path / "run"
    changes = ("folds.holdout=0.2", "image.checkpoint=best_inner", "blend.models=[tabular]")
    sets = [word for one in changes for word in ("--set", one)]
    places = ["--data-dir", str(data), "--run-dir", str(run)]
    assert main(["prepare-data", "--config", "configs/demo.yaml", *places, *sets]) == 0
    assert list((run / "records").glob("train*.tfrec"))


def few_melanomas(competition, tmp_path):
    """A copy with all melanomas but one patient's made benign: a holdout has none of them."""
    data = tmp_path / "data"
    shutil.copytree(competition / "competition", data)
    raw = pd.read_csv(data / "train.csv")
    first = raw.loc[raw["target"] == 1, "patient_id"].iloc[0]
    other = raw["patient_id"] != first
    raw["target"] = raw["target"].mask(other, 0)
    raw["benign_malignant"] = raw["benign_malignant"].mask(other, "benign")
    raw["diagnosis"] = raw["diagnosis"].mask(other, "unknown")
    raw.to_csv(data / "train.csv", index=False)
    return data
