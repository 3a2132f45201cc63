"""Tests of the one loop over folds, with a model that remembers what it was shown."""

import os
import signal
import sys
import time
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kaggle_pipeline.config.experiment import Experiment, FoldsConfig, TabularConfig
from kaggle_pipeline.config.image import ImageConfig
from kaggle_pipeline.core.deadline import Deadline, OutOfTime
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.files import read_json, write_json
from kaggle_pipeline.data.examples import EXTERNAL, split_rows
from kaggle_pipeline.data.folds import Folds, make_folds
from kaggle_pipeline.data.predictions import Predictions
from kaggle_pipeline.metrics.roc_bootstrap import roc_auc
from kaggle_pipeline.models.cross_validation import (
    collect_folds,
    cross_validate,
    require_choices,
    train_on_all,
    unfinished,
)


class GroupMemory:
    """Answers with the mean target of the image's group, 0.5 where it has not met the group."""

    selection = "none"
    inner_share = 0.25

    def __init__(self, fold=0):
        self.fold = fold

    def fit(self, train, valid):
        self.train, self.valid = train, valid
        self.means_ = train.groupby("group_id")["target"].mean()
        return self

    def predict(self, examples):
        answer = examples["group_id"].map(self.means_).fillna(0.5)
        return pd.DataFrame({"target": answer.astype(float)})

    def save(self, folder):
        write_json(folder / "model.json", self.means_.to_dict())

    def load(self, folder):
        self.means_ = pd.Series(read_json(folder / "model.json"))
        return self


class FoldNumber(GroupMemory):
    """Answers with a tenth of its fold's number plus a little of the age: known by hand."""

    def predict(self, examples):
        age = examples["age_years"].fillna(0).to_numpy()
        answers = pd.DataFrame({"target": self.fold / 10 + age / 10000}, examples.index)
        return answers.iloc[::-1]  # a model may return its rows in any order


@pytest.fixture
def examples(small_examples):
    return small_examples(patients=24, images=5)


@pytest.fixture
def folds(examples, small_folds):
    return small_folds(examples)


def validate(examples, folds, spec, folder, model=GroupMemory, **options):
    """Run the loop; return the fitted models by fold and what was reported."""
    models, lines = {}, []

    def make(fold, place):
        assert place == folder / f"fold{fold}"
        models[fold] = model(fold)
        return models[fold]

    cross_validate(make, examples, spec, folds, folder, seed=0, report=lines.append, **options)
    return models, lines


def test_every_image_is_judged_once_by_a_model_that_saw_neither_it_nor_its_group(
    examples, folds, spec, tmp_path
):
    models, _ = validate(examples, folds, spec, tmp_path)
    oof, _ = collect_folds(folds, spec, examples, tmp_path)
    train = split_rows(examples, "train")
    assert sorted(oof.table.index) == sorted(train.index)
    for image_id, fold in oof.table["fold"].items():
        shown = models[fold].train
        assert image_id not in shown.index
        assert train.loc[image_id, "group_id"] not in set(shown["group_id"])


def test_no_model_learns_from_a_test_row(examples, folds, spec, tmp_path):
    models, _ = validate(examples, folds, spec, tmp_path)
    for model in models.values():
        assert set(model.train["split"]) == {"train"}
        assert model.train["target"].notna().all()


def test_a_model_that_memorises_patients_cannot_score(examples, folds, spec, tmp_path):
    validate(examples, folds, spec, tmp_path)
    oof, _ = collect_folds(folds, spec, examples, tmp_path)
    targets = examples.loc[oof.table.index, ["target"]]
    assert roc_auc(targets, oof.probabilities) == 0.5
    # The same model does score where patients are split: the memory works.
    split = GroupMemory().fit(examples.loc[oof.table.index], None)
    assert roc_auc(targets, split.predict(examples.loc[oof.table.index])) > 0.6


def test_rows_returned_in_another_order_are_joined_by_id(examples, folds, spec, tmp_path):
    validate(examples, folds, spec, tmp_path, FoldNumber)
    oof, test = collect_folds(folds, spec, examples, tmp_path)
    age = examples["age_years"].fillna(0) / 10000
    expected = folds.table["fold"] / 10 + age.loc[folds.table.index]
    np.testing.assert_allclose(oof.probabilities["target"], expected, atol=1e-15)
    assert list(oof.table.index) == list(folds.validated.index)
    ids = split_rows(examples, "test").index
    assert list(test.table.index) == list(ids)
    np.testing.assert_allclose(test.probabilities["target"], 0.1 + age.loc[ids], atol=1e-15)


def test_files_of_a_fold_and_of_all(examples, folds, spec, tmp_path):
    validate(examples, folds, spec, tmp_path)
    oof, test = collect_folds(folds, spec, examples, tmp_path)
    for fold in folds.numbers:
        place = tmp_path / f"fold{fold}"
        assert {path.name for path in place.iterdir()} == {
            "model.json",
            "metrics.json",
            "rows.json",
            "oof.csv",
            "test.csv",
            "written.json",
        }
        assert read_json(place / "metrics.json")["n"] == len(folds.valid_ids(fold))
    for name, found in (("oof", oof), ("test", test)):
        back = Predictions.read(tmp_path / f"{name}.csv", spec.classes).table
        pd.testing.assert_frame_equal(back, found.table, check_exact=True)


def test_resuming_skips_folds_that_are_done(examples, folds, spec, tmp_path):
    validate(examples, folds, spec, tmp_path)
    before = (tmp_path / "fold0" / "oof.csv").stat().st_mtime_ns
    (tmp_path / "fold1" / "oof.csv").unlink()
    assert unfinished(folds, tmp_path) == [1]
    models, lines = validate(examples, folds, spec, tmp_path)
    assert list(models) == [1]
    assert "fold 0: done already" in lines
    assert (tmp_path / "fold0" / "oof.csv").stat().st_mtime_ns == before
    assert unfinished(folds, tmp_path) == []


def test_a_fold_that_another_worker_lacks_is_done_again_by_all(examples, folds, spec, tmp_path):
    fitted = []

    def make_model(fold, folder):
        fitted.append(fold)
        return GroupMemory()

    run = {"seed": 0, "only": [0]}
    cross_validate(make_model, examples, spec, folds, tmp_path, **run)
    cross_validate(make_model, examples, spec, folds, tmp_path, **run, all_min=lambda number: 0)
    assert fitted == [0, 0]
    cross_validate(
        make_model, examples, spec, folds, tmp_path, **run, all_min=lambda number: number
    )
    assert fitted == [0, 0]


def test_no_fold_is_begun_after_the_deadline_of_any_worker(examples, folds, spec, tmp_path):
    late = {"seed": 0, "deadline": Deadline.after(0)}
    with pytest.raises(OutOfTime, match="before fold 0"):
        cross_validate(lambda *_: GroupMemory(), examples, spec, folds, tmp_path, **late)
    mine = {"seed": 0, "deadline": Deadline.after(None), "all_min": lambda number: 0}
    with pytest.raises(OutOfTime, match="before fold 0"):
        cross_validate(lambda *_: GroupMemory(), examples, spec, folds, tmp_path, **mine)
    assert not list(tmp_path.iterdir())


def remembering(fold, folder):
    return FoldNumber(fold)


def failing_in_fold_1(fold, folder):
    if fold == 1:
        raise PipelineError("fold 1 is broken")
    return FoldNumber(fold)


def killed(fold, folder):
    os.kill(os.getpid(), signal.SIGKILL)


def test_folds_side_by_side_leave_the_same_files(examples, folds, spec, tmp_path):
    lines = []
    for place, options in (("one", {}), ("two", {"processes": 2, "report": lines.append})):
        cross_validate(remembering, examples, spec, folds, tmp_path / place, seed=0, **options)
        collect_folds(folds, spec, examples, tmp_path / place)
    names = {path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.csv")}
    assert len(names) == 2 * len(folds.numbers) + 2
    for name in names:
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()
    ended = {line.split(":")[0] for line in lines if "done in" in line}
    assert ended == {f"fold {fold}" for fold in folds.numbers}
    again = []
    cross_validate(
        killed, examples, spec, folds, tmp_path / "two", seed=0, processes=2, report=again.append
    )
    assert again == [f"fold {fold}: done already" for fold in folds.numbers]


@pytest.mark.parametrize(
    ("make_model", "options", "error", "said"),
    [
        (failing_in_fold_1, {}, PipelineError, "fold 1 is broken"),
        (killed, {}, PipelineError, "killed, .*want of memory: run .* --resume to go on"),
        (remembering, {"deadline": Deadline.after(0)}, OutOfTime, "the time is up before fold"),
    ],
)
def test_what_ends_a_fold_in_a_process_of_its_own_is_told(
    examples, folds, spec, tmp_path, make_model, options, error, said
):
    run = {"seed": 0, "processes": 2, **options}
    with pytest.raises(error, match=said):
        cross_validate(make_model, examples, spec, folds, tmp_path, **run)


def slow_after_fold_0(fold, folder):
    (folder / "begun").touch()
    time.sleep(0 if fold == 0 else 900)
    return FoldNumber(fold)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_processes_end_with_the_one_that_started_them(examples, folds, spec, tmp_path):
    run = {"seed": 0, "processes": 2}
    parent = get_context("spawn").Process(
        target=cross_validate, args=(slow_after_fold_0, examples, spec, folds, tmp_path), kwargs=run
    )
    parent.start()
    begun = [tmp_path / f"fold{fold}" / "begun" for fold in (1, 2)]
    deadline = time.monotonic() + 120
    while not all(path.exists() for path in begun) and time.monotonic() < deadline:
        time.sleep(0.1)
    theirs = children_of(parent.pid)
    parent.terminate()
    parent.join()
    assert len(theirs) >= 2
    deadline = time.monotonic() + 120
    while any(map(is_running, theirs)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(is_running, theirs))
    assert not (tmp_path / "fold1" / "oof.csv").exists()


def children_of(pid):
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("step", ["fit", "save", "predict"])
def test_a_fold_that_fails_is_not_taken_for_done(examples, folds, spec, tmp_path, step):
    class Failing(GroupMemory):
        pass

    def fail(self, *_):
        if self.fold == 1:
            raise RuntimeError("the machine went away")
        return getattr(GroupMemory, step)(self, *_)

    setattr(Failing, step, fail)
    with pytest.raises(RuntimeError):
        validate(examples, folds, spec, tmp_path, Failing)
    assert unfinished(folds, tmp_path) == [1, 2]
    with pytest.raises(PipelineError, match=r"fold1/oof\.csv"):
        collect_folds(folds, spec, examples, tmp_path)
    models, _ = validate(examples, folds, spec, tmp_path)
    assert list(models) == [1, 2]


def test_only_the_folds_that_were_asked_for(examples, folds, spec, tmp_path):
    models, _ = validate(examples, folds, spec, tmp_path, only=[2, 0])
    assert sorted(models) == [0, 2]
    assert unfinished(folds, tmp_path) == [1]


def test_a_fold_that_there_is_not_is_named_before_anything_is_done(examples, folds, spec, tmp_path):
    with pytest.raises(PipelineError, match=r"--fold 7: this run has the folds \[0, 1, 2\]"):
        validate(examples, folds, spec, tmp_path, only=[0, 7])
    assert list(tmp_path.iterdir()) == []


def test_a_prediction_that_is_missing_is_named(examples, folds, spec, tmp_path):
    class Forgetful(GroupMemory):
        def predict(self, examples):
            return super().predict(examples).iloc[1:]

    with pytest.raises(PipelineError) as caught:
        validate(examples, folds, spec, tmp_path, Forgetful)
        collect_folds(folds, spec, examples, tmp_path)
    ids = [folds.valid_ids(fold)[0] for fold in folds.numbers]
    assert any(image_id in str(caught.value) for image_id in ids)


def test_predictions_of_other_folds_are_refused(examples, folds, spec, tmp_path, small_folds):
    validate(examples, folds, spec, tmp_path)
    other = small_folds(examples, seed=9)  # the same rows, dealt out otherwise
    assert not other.table["fold"].equals(folds.table["fold"])
    with pytest.raises(PipelineError, match=r"fold0 predicts (nothing for )?ISIC_"):
        collect_folds(other, spec, examples, tmp_path)


def test_a_fold_that_was_stopped_after_training_is_not_trained_again(
    examples, folds, spec, tmp_path
):
    class Stopped(Exception):
        pass

    class StopsBeforePredicting(GroupMemory):
        def predict(self, rows):
            raise Stopped

    with pytest.raises(Stopped):
        validate(examples, folds, spec, tmp_path, model=StopsBeforePredicting)

    class IsOnlyLoaded(GroupMemory):
        def fit(self, train, valid):
            raise AssertionError("trained again")

    validate(examples, folds, spec, tmp_path, model=IsOnlyLoaded, only=[0])
    assert (tmp_path / "fold0" / "oof.csv").exists()


def test_a_model_of_all_rows_predicts_the_test_part_and_is_judged_by_nothing(
    examples, folds, spec, tmp_path
):
    outside = examples.iloc[:4].assign(split=EXTERNAL).set_axis([f"X{i}" for i in range(4)])
    table, models, said = pd.concat([examples, outside]), [], []

    def make(number, place):
        models.append(FoldNumber(number / 20))
        return models[-1]

    validate(table, folds, spec, tmp_path, model=FoldNumber)
    oof, of_folds = collect_folds(folds, spec, table, tmp_path)
    train_on_all(make, table, spec, folds, tmp_path, report=said.append)
    (model,) = models
    assert set(model.train.index) == set(folds.table.index) | set(outside.index)
    assert model.valid is None and "none for validation" in said[0]
    assert read_json(tmp_path / "all" / "metrics.json")["seconds"] > 0
    again, of_all = collect_folds(folds, spec, table, tmp_path)
    assert again.table.equals(oof.table)
    expected = model.predict(split_rows(table, "test"))["target"]
    np.testing.assert_allclose(of_all.table["target"], expected.loc[of_all.table.index])
    assert not np.allclose(of_all.table["target"], of_folds.table["target"])
    train_on_all(make, table, spec, folds, tmp_path, report=said.append)
    assert len(models) == 1 and "done already" in said[-1]
    (tmp_path / "all" / "test.csv").unlink()  # stopped between training and predicting
    train_on_all(make, table, spec, folds, tmp_path)
    assert not hasattr(models[1], "train")
    assert collect_folds(folds, spec, table, tmp_path)[1].table.equals(of_all.table)
    (tmp_path / "all" / "test.csv").unlink()
    with pytest.raises(PipelineError, match=r"all.test\.csv"):  # never the folds' in its place
        collect_folds(folds, spec, table, tmp_path)


@pytest.mark.parametrize(
    "section", [{"image": ImageConfig(checkpoint="best_inner")},
                {"tabular": TabularConfig(patience=3)}],
)  # fmt: skip
def test_a_model_of_all_rows_has_none_to_choose_an_epoch_by(section):
    with pytest.raises(PipelineError, match="train_all is True, must be false where"):
        Experiment(name="x", dataset="synthetic", train_all=True, **section)


def test_without_a_test_split_there_are_no_test_predictions(examples, folds, spec, tmp_path):
    train = split_rows(examples, "train")
    validate(train, folds, spec, tmp_path)
    oof, test = collect_folds(folds, spec, train, tmp_path)
    assert test is None
    assert len(oof.table) == len(train)
    assert not list(tmp_path.rglob("test.csv"))


def test_train_only_rows_are_learnt_from_and_not_judged(examples, folds, spec, tmp_path):
    first = folds.table["group_id"] == folds.table["group_id"].iloc[0]
    table = folds.table.assign(fold=folds.table["fold"].mask(first, -1))
    models, _ = validate(examples, Folds(table), spec, tmp_path)
    oof, _ = collect_folds(Folds(table), spec, examples, tmp_path)
    extra = table.index[first]
    assert not set(extra) & set(oof.table.index)
    assert all(set(extra) <= set(model.train.index) for model in models.values())


def test_holdout_trains_one_model(examples, spec, tmp_path):
    folds = make_folds(split_rows(examples, "train"), spec, FoldsConfig(holdout=0.25), 0)
    models, _ = validate(examples, folds, spec, tmp_path)
    oof, test = collect_folds(folds, spec, examples, tmp_path)
    assert list(models) == [0]
    assert list(oof.table.index) == list(folds.valid_ids(0))
    assert len(test.table) == len(split_rows(examples, "test"))


class Inner(GroupMemory):
    """Chooses an epoch by rows held out of the training folds."""

    selection = "inner"


def test_inner_rows_share_no_group_with_the_judged_or_the_learnt(examples, folds, spec, tmp_path):
    models, _ = validate(examples, folds, spec, tmp_path, Inner)
    for fold, model in models.items():
        labelled = examples.loc[folds.valid_ids(fold)]
        parts = [set(rows["group_id"]) for rows in (model.train, model.valid, labelled)]
        assert all(parts)
        assert not parts[0] & parts[1]
        assert not parts[2] & (parts[0] | parts[1])
        ids = [*model.train.index, *model.valid.index]
        assert sorted(ids) == sorted(folds.train_ids(fold))
        assert len(parts[1]) / len(parts[0] | parts[1]) == pytest.approx(0.25, abs=0.1)


def test_inner_rows_follow_the_seed(examples, folds, spec, tmp_path):
    one, _ = validate(examples, folds, spec, tmp_path / "a", Inner)
    two, _ = validate(examples, folds, spec, tmp_path / "b", Inner)
    assert all(one[fold].valid.index.equals(two[fold].valid.index) for fold in folds.numbers)


def test_inner_rows_have_the_nearest_number_of_groups_of_either_class(
    examples, folds, spec, tmp_path
):
    models, _ = validate(examples, folds, spec, tmp_path, Inner)
    for model in models.values():
        rows = pd.concat([model.train, model.valid])
        for value in (0, 1):
            of, held_out = (
                part.loc[part["target"] == value, "group_id"].nunique()
                for part in (rows, model.valid)
            )
            assert abs(held_out - 0.25 * of) <= 0.5


INNER = ImageConfig(checkpoint="best_inner", inner_share=0.2)
FOLD = ImageConfig(checkpoint="best_fold")
LAST = r"say image\.checkpoint = last instead of best_"


@pytest.mark.parametrize(
    ("config", "positive", "message"),
    [
        (INNER, [0], rf"fold 1 have no image that is target: {LAST}inner, or raise image\.inner_s"),
        (FOLD, [0, 1, 2], rf"the 12 rows held out for fold 1 have no .* is target: {LAST}fold$"),
        (TabularConfig(patience=3), [0], r"fold 1 .*: say tabular\.patience = null, or raise tab"),
        (FOLD, range(12), rf"fold 0 have no image that is not target: {LAST}fold"),
    ],
)
def test_where_no_epoch_can_be_chosen_it_is_said_before_training(spec, config, positive, message):
    """Twelve patients of two images; the first six are in fold 0."""
    ids = pd.Index([f"ISIC_{i}" for i in range(24)], name="image_id")
    patient = np.arange(24) // 2
    rows = pd.DataFrame({"group_id": patient.astype(str), "split": "train"}, ids)
    rows["target"] = np.isin(patient, list(positive)).astype(float)
    folds = Folds(rows[["group_id"]].assign(fold=patient // 6))
    only = None if "fold 0" in message else [1]
    with pytest.raises(PipelineError, match=message):
        require_choices(config, rows, folds, spec, 0, only)
    for free in (ImageConfig(), TabularConfig()):
        require_choices(free, rows, folds, spec, 0, only)


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_every_class_is_needed_to_choose_an_epoch(spec, task):
    spec = replace(spec, task=task, classes=("a", "b", "c"))
    ids = pd.Index([f"ISIC_{i}" for i in range(30)], name="image_id")
    rows = pd.DataFrame(np.eye(3)[np.arange(30) % 3], ids, list("abc")).assign(split="train")
    rows["group_id"] = ids
    folds = Folds(rows[["group_id"]].assign(fold=np.arange(30) // 15))
    for config in (INNER, FOLD):
        require_choices(config, rows, folds, spec, 0)
    rows.loc[ids[15:], ["b", "c"]] = rows.loc[ids[15:], ["c", "b"]].to_numpy() * [0, 1]
    rows["a"] = np.maximum(rows["a"], 1 - rows[["b", "c"]].max(axis=1))
    for config in (INNER, FOLD):
        with pytest.raises(PipelineError, match=r"have no image that is b: say image\.checkpoint"):
            require_choices(config, rows, folds, spec, 0)


@pytest.mark.parametrize("selection", ["none", "fold"])
def test_other_models_learn_from_all_and_watch_the_judged(
    examples, folds, spec, tmp_path, selection
):
    models, _ = validate(
        examples, folds, spec, tmp_path, type("Model", (GroupMemory,), {"selection": selection})
    )
    for fold, model in models.items():
        assert list(model.train.index) == list(folds.train_ids(fold))
        assert list(model.valid.index) == list(folds.valid_ids(fold))
