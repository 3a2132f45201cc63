"""Ensemble of finished predictions: our stages' and other people's files → a checked submission.

In: a :class:`Run` whose experiment says which scores. Out: the run's ``ensemble/`` (``oof.csv``,
``test.csv``, ``study.json``, evaluation) and ``submission.csv``.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from kaggle_pipeline.context import patient_context, require_patients
from kaggle_pipeline.ensemble import Study, compare, make_candidates
from kaggle_pipeline.errors import PipelineError
from kaggle_pipeline.examples import split_rows
from kaggle_pipeline.metrics import roc_auc
from kaggle_pipeline.predictions import AVERAGED, Predictions
from kaggle_pipeline.report import write_report
from kaggle_pipeline.rundir import open_stage, read_json, write_json
from kaggle_pipeline.stages.prepare import prepare_data
from kaggle_pipeline.stages.run import Run
from kaggle_pipeline.stages.submit import write_checked_submission
from kaggle_pipeline.tables import index_by, read_table

STAGE = "ensemble"
_PERFECT = 0.9999


def blend_scores(run: Run) -> Path | None:
    """Compare ways to blend the scores, use the one that earns it, write the submission.

    Returns
    -------
    pathlib.Path or None
        None where there are no test rows or no test scores.

    Raises
    ------
    PipelineError
        If a file or column is missing, an id is listed twice, or the task has several classes.
    """
    config, spec = run.config.ensemble, run.spec
    if len(spec.classes) > 1:
        raise PipelineError(f"ensemble: {spec.id} has {len(spec.classes)} classes; it takes one")
    if "context" in config.use:
        require_patients(spec, "ensemble.use: context")
    started = time.perf_counter()
    prepare_data(replace(run, overwrite=False), with_records=False)
    examples = run.examples()
    if {"context", "metadata"} <= set(config.use):
        examples = examples.join(patient_context(examples, spec))  # of rows in no fold too
    scores = read_scores(run, "oof")
    models = list(scores.columns)
    candidates = make_candidates(
        models, spec, config.use, run.config.seed, ablation=config.ablation
    )
    if config.method not in (None, *candidates):
        known = ", ".join(candidates)
        raise PipelineError(f"ensemble.method: {config.method!r} is none of {known}")
    # Rows that the folds leave out stay out, and one that no model scored says nothing.
    train = split_rows(examples, "train")
    train = train[train.index.isin(run.folds().table.index)]
    rows = train[train.index.isin(scores.index[scores.notna().any(axis=1)])].join(scores)
    if rows.empty:
        raise PipelineError(f"ensemble: no training image of {run.prepared} has a score")
    _stop_on_perfect(rows, models, spec.classes[0])
    told = f" of {len(train)}" if len(rows) < len(train) else ""
    run.say(f"{len(models)} scores: {', '.join(models)}; {len(rows)}{told} images")
    study = compare(
        candidates, rows, spec, folds=config.folds, repeats=config.repeats,
        seed=run.config.seed, say=run.say,
    )  # fmt: skip
    chosen = config.method or study.chosen
    folder = open_stage(run.run_dir, STAGE, resume=False, overwrite=True)
    run.record_origin(folder)
    for line in describe(study, chosen):
        run.say(line)
    fitted = candidates[chosen]().fit(rows)
    weights = getattr(fitted, "weights_", {})
    if weights:
        run.say("weights: " + ", ".join(f"{name} {weight:.2f}" for name, weight in weights.items()))
    seconds = round(time.perf_counter() - started, 1)
    write_json(folder / "study.json", to_mapping(study, chosen, weights, seconds))
    # The first repeat's: one nested prediction a row, as every other stage has.
    oof = study.predictions[chosen][[0]].set_axis(list(spec.classes), axis=1)
    nested = Predictions.build(oof, AVERAGED, "oof")
    nested.write(folder / "oof.csv")
    tests = split_rows(examples, "test")
    blended = None
    if len(tests) and (config.test or not config.oof):
        told = tests.join(read_scores(run, "test"))
        values = pd.DataFrame({spec.classes[0]: fitted.apply(told)}, tests.index)
        blended = Predictions.build(values, AVERAGED, "test")
        blended.write(folder / "test.csv")
    run.judge(
        folder, nested, blended, examples, run.folds(), seconds=seconds,
        epoch_chosen_on_judged_rows=any(
            read_json(run.run_dir / name / "metrics.json")["epoch_chosen_on_judged_rows"]
            for name in config.models
        ),
    )  # fmt: skip
    run.say(f"report: {write_report(run.run_dir, spec)}")
    return write_checked_submission(run, blended) if blended is not None else None


def read_scores(run: Run, split: str) -> pd.DataFrame:
    """Return one column of scores a model, indexed by image id; NaN where a model has none.

    Parameters
    ----------
    run : Run
    split : {"oof", "test"}

    Raises
    ------
    PipelineError
        If a file or column is missing, an id is listed twice, or a score is not in [0, 1].
    """
    config, spec = run.config.ensemble, run.spec
    found = []
    for model in config.models:
        table = Predictions.read(run.run_dir / model / f"{split}.csv", spec.classes)
        found.append(table.probabilities[spec.classes[0]].rename(model))
    name = config.oof if split == "oof" else config.test
    if name:
        path = run.data_dir / name  # an absolute name stays as it is
        id_column = spec.submission.id_column
        named = f"it is named by ensemble.{split}"
        table = read_table(path, [id_column, *config.columns], hint=named)
        table = index_by(table, id_column, path)
        found += [_checked(table[column], path) for column in config.columns]
    names = [column.name for column in found]
    for name in names:
        if names.count(name) > 1 or name in (*run.spec.classes, *run.spec.features, "group_id"):
            raise PipelineError(
                f"ensemble: a score called {name!r} is there twice or is a column of the examples: "
                "rename it"
            )
    if not found:
        raise PipelineError(
            "ensemble: no scores: name ensemble.models, or ensemble.oof and columns"
        )
    return pd.concat(found, axis=1).rename_axis("image_id")


def _checked(column: pd.Series, path: Path) -> pd.Series:
    values = pd.to_numeric(column, errors="coerce").astype(float)
    odd = (values.isna() & column.notna()) | values.lt(0) | values.gt(1)
    if odd.any():
        row = column.index[odd][0]
        raise PipelineError(f"{path}: {column.name} of {row} is {column[row]!r}, not in [0, 1]")
    return values


def _stop_on_perfect(rows: pd.DataFrame, models: Sequence[str], target: str) -> None:
    """Stop on scores that no model has out of fold: they were made from the answers."""
    for model in models:
        known = rows[rows[model].notna()]
        if roc_auc(known[target].to_numpy(int), known[model].to_numpy()) > _PERFECT:
            raise PipelineError(
                f"leak: the scores of {model} sort the training images perfectly: they are not out "
                "of fold, or the target itself"
            )


def describe(study: Study, chosen: str) -> list[str]:
    """Return the comparison as lines for a person."""
    head = "nested, patients apart"
    width = max(map(len, [head, *study.auc]))
    lines = [f"{head:>{width}}  AUC                       over rank mean"]
    for name, score in study.auc.items():
        gain = study.over[name].get("rank mean")
        beside = f"{gain.value:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]" if gain else ""
        lines.append(f"{name:>{width}}  {score}  {beside}{'  <- used' if name == chosen else ''}")
    best = max(study.auc, key=lambda name: study.auc[name].value)
    if chosen != best and chosen == study.chosen:
        gain = study.over[best][chosen]
        lines.append(
            f"{best} is {gain.value:.4f} [{gain.low:.4f}, {gain.high:.4f}] better than {chosen}: "
            "within the noise, so the simpler one is used"
        )
    return lines


def to_mapping(study: Study, chosen: str, weights: dict[str, float], seconds: float) -> dict:
    """Return the comparison as plain JSON types."""

    def plain(score: object) -> dict[str, float]:
        return {key: float(np.round(value, 6)) for key, value in vars(score).items()}

    return {
        "chosen": chosen,
        "repeats": next(iter(study.predictions.values())).shape[1],
        "seconds": seconds,
        "weights": weights,
        "auc": {name: plain(score) for name, score in study.auc.items()},
        "over": {
            name: {other: plain(score) for other, score in others.items()}
            for name, others in study.over.items()
        },
    }
