"""Blend, submission, the whole way, and scoring against kept-apart truth.

In: a :class:`Run` with trained models. Out: the run's ``blend/`` and ``submission.csv``.
"""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from kaggle_pipeline.blend import Blend, blend_test, check_blend, fit_nested
from kaggle_pipeline.config import LEARNERS
from kaggle_pipeline.crossval import unfinished
from kaggle_pipeline.errors import PipelineError
from kaggle_pipeline.examples import split_rows
from kaggle_pipeline.metrics import auc_with_interval
from kaggle_pipeline.predictions import Predictions
from kaggle_pipeline.report import write_report
from kaggle_pipeline.rundir import open_stage, read_json, write_json
from kaggle_pipeline.stages.look import compare_runs
from kaggle_pipeline.stages.prepare import PREPARED_BY, prepare_data, require_data
from kaggle_pipeline.stages.run import MODEL_STAGES, Run
from kaggle_pipeline.stages.train import check_image, train_image, train_tabular
from kaggle_pipeline.submission import (
    build_submission,
    check_submission,
    read_submission,
    write_submission,
)
from kaggle_pipeline.tables import index_by, read_table


def make_submission(run: Run) -> Path | None:
    """Blend the models' predictions and write ``submission.csv``.

    Returns
    -------
    pathlib.Path or None
        None where the data set has no test rows: the blend is judged, there is nothing to submit.

    Raises
    ------
    PipelineError
        If a model named in ``blend.models`` is not trained, or the result fails the check.
    """
    started = time.perf_counter()
    run.require_same(run.prepared, PREPARED_BY)  # another config could hide how rows were divided
    config, spec = run.config, run.spec
    check_blend(config.blend, spec)
    examples, folds = run.examples(), run.folds()
    oof = {name: _read_model(run, name, "oof") for name in config.blend.models}
    for name, predictions in oof.items():
        predictions.require(folds.judged.index, name)
        if not predictions.table["fold"].loc[folds.judged.index].equals(folds.judged["fold"]):
            raise PipelineError(f"the model {name!r} was judged on other folds than this run's")
    # Cheap and derived from files that are kept: it is simply made anew.
    folder = open_stage(run.run_dir, "blend", resume=False, overwrite=True)
    run.record_origin(folder)
    blend, nested = fit_nested(oof, examples, folds, spec, config.blend, seed=config.seed)
    nested.write(folder / "oof.csv")
    write_json(folder / "blend.json", blend.to_mapping())
    seconds = round(time.perf_counter() - started, 3)
    optimistic = any(
        read_json(run.run_dir / name / "metrics.json")["epoch_chosen_on_judged_rows"]
        for name in oof
    )
    test_ids = split_rows(examples, "test").index
    blended = _blend_test(run, blend, test_ids)
    run.judge(
        folder, nested, blended, examples, folds, seconds=seconds, weights=blend.weights,
        weights_method=blend.method, weights_why=blend.why,
        epoch_chosen_on_judged_rows=optimistic,
    )  # fmt: skip
    run.draw_roc(folder, {**oof, "blend": nested}, examples)
    run.say(compare_runs([run.run_dir]))
    shares = ", ".join(f"{name} {weight:.2f}" for name, weight in blend.weights.items())
    run.say(f"blend weights: {shares} (space: {blend.space}; {blend.why})")
    run.say(f"report: {write_report(run.run_dir, spec)}")
    if blended is None:
        run.say(f"{spec.id} has no test rows here, so there is nothing to submit")
        return None
    blended.write(folder / "test.csv")
    return write_checked_submission(run, blended)


def _blend_test(run: Run, blend: Blend, ids: pd.Index) -> Predictions | None:
    """The blend of the models' test predictions; None where nothing is to be predicted."""
    if not len(ids):
        return None
    test = {name: _read_model(run, name, "test") for name in run.config.blend.models}
    return blend_test(blend, test, ids)


def write_checked_submission(run: Run, blended: Predictions) -> Path:
    """Write ``submission.csv`` of test predictions, compared with the sample where there is one."""
    spec = run.spec
    sample_path = run.prepared / "sample_submission.csv"
    sample = read_submission(sample_path, spec) if sample_path.exists() else None
    submission = build_submission(blended, spec, sample)
    if sample is not None:
        check_submission(submission, spec, sample)
    path = run.run_dir / "submission.csv"
    write_submission(submission, path)
    checked = "no sample to check against" if sample is None else "checked against the sample"
    run.say(f"{path}: {len(submission)} rows, {checked}")
    return path


def _read_model(run: Run, name: str, split: str) -> Predictions:
    path = run.run_dir / name / f"{split}.csv"
    if not path.exists():
        folds = run.folds()
        missing = unfinished(folds, run.run_dir / name)
        if len(missing) < len(folds.numbers):
            script = "train_image" if name == "image" else "train_tabular"
            lacking = f"folds {missing} of the model {name!r} are not trained yet"
            how = "".join(f" --fold {fold}" for fold in missing)
            if not missing:
                lacking, how = f"the folds of the model {name!r} are not joined yet", " --resume"
            raise PipelineError(f"{lacking}: python scripts/{script}.py{how}")
        others = [stage for stage in MODEL_STAGES if (run.run_dir / stage / "oof.csv").exists()]
        hint = f", or say --set blend.models=[{','.join(others)}]" if others else ""
        raise PipelineError(f"the model {name!r} is not trained in {run.run_dir}: train it{hint}")
    return Predictions.read(path, run.spec.classes)


def run_pipeline(run: Run) -> Path | None:
    """Prepare, train the models that are blended; return the submission's path, if there is one."""
    wanted = run.config.blend.models
    check_blend(run.config.blend, run.spec)
    # What is missing is said now, not after the conversion; weights are downloaded last of all.
    if not (run.prepared / "folds.csv").exists():
        require_data(run)
    device = check_image(run) if "image" in wanted else None
    prepare_data(run, with_records="image" in wanted)
    if "image" in wanted:
        train_image(run, device=device)
    if {"tabular", *LEARNERS} & set(wanted):
        train_tabular(run)
    return make_submission(run)


def _read_scored(path: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """A CSV of an id column and numbers in [0, 1], indexed by the former.

    ``columns`` (id first) must be there; by default all are taken.
    """
    table = read_table(path, columns or ())
    id_column, *scored = columns or table.columns
    table = index_by(table, id_column, path)
    for column in scored:
        values = pd.to_numeric(table[column], errors="coerce")
        if not values.between(0, 1).all():
            row = table.index[~values.between(0, 1)][0]
            raise PipelineError(f"{path}: {column} of {row} is not in [0, 1]")
        table[column] = values
    return table


def score_submission(submission_path: Path, truth_path: Path, seed: int) -> str:
    """Return one line a class with the AUC of a submission against kept-apart truth.

    Parameters
    ----------
    submission_path : pathlib.Path
        Id column, then a probability a class.
    truth_path : pathlib.Path
        The same columns, and, for the interval, ``patient_id`` where patients are known.
    seed : int
        Of the bootstrap.

    Raises
    ------
    PipelineError
        If a file is missing or an id is in one of them only.
    """
    submission = _read_scored(submission_path)
    columns = list(submission.columns)
    if len(columns) < 2:
        raise PipelineError(f"{submission_path} has no column but {columns[0]!r}: nothing to score")
    truth = _read_scored(truth_path, columns)
    odd = submission.index.symmetric_difference(truth.index)
    if len(odd):
        raise PipelineError(f"{odd[0]} is in only one of {submission_path} and {truth_path}")
    truth = truth.loc[submission.index]
    groups = truth["patient_id"] if "patient_id" in truth else pd.Series(truth.index)
    lines = []
    for name in columns[1:]:
        if not truth[name].isin([0, 1]).all():
            raise PipelineError(f"{truth_path}: {name} must be 0 or 1")
        target = truth[name].to_numpy(int)
        if np.ptp(target) == 0:
            lines.append(f"test AUC {name}: none, all {len(target)} images are {target[0]}")
            continue
        score = auc_with_interval(target, submission[name].to_numpy(), groups.to_numpy(), seed=seed)
        of_class = f" {name}" if len(columns) > 2 else ""
        lines.append(f"test AUC{of_class} {score} on {len(truth)} images, {target.sum()} positive")
    return "\n".join(lines)
