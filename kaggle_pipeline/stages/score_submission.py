"""Score a submission against truth that was kept apart.

In: two CSV files. Out: a line a class; beside a run's ``submission.csv`` also ``test_score.json``,
which the run's report shows.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd

from kaggle_pipeline.config.loading import load_experiment
from kaggle_pipeline.config.names import TEST_SCORE
from kaggle_pipeline.core.commit import renew
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.files import write_json
from kaggle_pipeline.core.record import require_written
from kaggle_pipeline.core.tables import index_by, read_table, require_probabilities
from kaggle_pipeline.metrics import weighted_scores
from kaggle_pipeline.metrics.roc_bootstrap import auc_with_interval, bootstrap_weights, score_of
from kaggle_pipeline.report.report import write_report
from kaggle_pipeline.stages.run import Run

_WEIGHT = "score_weight"
"""Column of the ISIC challenges' truth: images of weight 0 are not scored."""
_UNSCORED = "ISIC_0035068"
"""The challenge of 2018 does not score this one either, and its table does not say so."""
_DIGITS = 4
"""As on Kaggle's board, of which a place may hang on the last one."""


def _read_scored(path: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """A CSV of an id column and numbers in [0, 1], indexed by the former.

    ``columns`` (id first) must be there; by default all are taken.
    """
    require_written(path)
    table = read_table(path, columns or ())
    id_column, *scored = columns or table.columns
    table = index_by(table, id_column, path)
    return table.assign(**require_probabilities(table[scored], path))


def score_submission(submission_path: Path, truth_path: Path, seed: int) -> str:
    """Return one line a class with the AUC of a submission against kept-apart truth.

    Where each image is of one class of several, a last line has the balanced accuracy of the class
    with the highest number, by which ISIC 2018 and 2019 are scored. Where the submission is a
    run's, the scores are kept in the run and its report is made anew.

    Parameters
    ----------
    submission_path : pathlib.Path
        Id column, then a probability a class.
    truth_path : pathlib.Path
        The same columns; ``patient_id``, for the interval, where patients are known; and
        ``score_weight``, 0 for images that are not scored.
    seed : int
        Of the bootstrap.

    Raises
    ------
    PipelineError
        If a file is missing or an id is in one of them only.
    """
    submission_path = Path(submission_path)
    submission = _read_scored(submission_path)
    columns = list(submission.columns)
    if len(columns) < 2:
        raise PipelineError(f"{submission_path} has no column but {columns[0]!r}: nothing to score")
    truth = _read_scored(truth_path, columns)
    odd = submission.index.symmetric_difference(truth.index)
    if len(odd):
        raise PipelineError(f"{odd[0]} is in only one of {submission_path} and {truth_path}")
    scored = _scored(truth.loc[submission.index], truth_path)
    lines, scores = [], {}
    if apart := len(truth) - len(scored):
        lines.append(
            f"left out: {apart} of {len(truth)} photos, of {_WEIGHT} 0 or not scored by the "
            f"challenge ({_UNSCORED})"
        )
    truth, submission = scored, submission.loc[scored.index]
    groups = truth["patient_id"] if "patient_id" in truth else pd.Series(truth.index)
    for name in columns[1:]:
        if not truth[name].isin([0, 1]).all():
            raise PipelineError(f"{truth_path}: {name} must be 0 or 1")
        target = truth[name].to_numpy(int)
        if np.ptp(target) == 0:
            lines.append(f"test AUC {name}: none, all {len(target)} photos are {target[0]}")
            scores[name] = {"value": None, "positive": int(target.sum())}
            continue
        score = auc_with_interval(target, submission[name].to_numpy(), groups.to_numpy(), seed=seed)
        scores[name] = {**asdict(score), "positive": int(target.sum())}
        of_class = f" {name}" if len(columns) > 2 else ""
        lines.append(
            f"test AUC{of_class} {score.describe(_DIGITS)} on {len(truth)} photos, "
            f"{target.sum()} positive"
        )
    found = {"truth": Path(truth_path).name, "n": len(truth), "scores": scores}
    targets = truth[columns[1:]].to_numpy(int)
    if targets.shape[1] > 1 and (targets.sum(axis=1) == 1).all():
        weights = bootstrap_weights(groups.to_numpy(), 1000, seed)
        decided = weighted_scores.decide(submission[columns[1:]].to_numpy(), "multiclass")
        score = score_of(weighted_scores.balanced_accuracy(weights, targets, decided, "multiclass"))
        if score:
            lines.append(
                f"test balanced accuracy {score.describe(_DIGITS)} of {targets.shape[1]} classes"
            )
            found["balanced_accuracy"] = asdict(score)
    if (submission_path.parent / "prepare" / "config.yaml").exists():
        _keep(submission_path, found)
    return "\n".join(lines)


def _scored(truth: pd.DataFrame, path: Path) -> pd.DataFrame:
    """The rows that count."""
    weight = truth[_WEIGHT] if _WEIGHT in truth else pd.Series(1, truth.index)
    if not weight.isin([0, 1]).all():
        raise PipelineError(f"{path}: {_WEIGHT} must be 0 or 1")
    scored = truth[(weight == 1) & (truth.index != _UNSCORED)]
    if scored.empty:
        raise PipelineError(f"{path}: no photo is to be scored")
    return scored


def _keep(submission_path: Path, found: dict) -> None:
    """Write scores beside a run's submission, and the run's report with them."""
    run_dir = submission_path.parent
    digest = hashlib.sha256(submission_path.read_bytes()).hexdigest()
    # The digest tells whether the submission is still the one that was scored.
    write_json(run_dir / TEST_SCORE, {"submission_sha256": digest, **found})
    renew(run_dir, TEST_SCORE)
    config = load_experiment(run_dir / "prepare" / "config.yaml")
    write_report(run_dir, Run(config, run_dir, run_dir).spec)
