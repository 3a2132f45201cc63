"""Ensemble of finished predictions: our stages' and other people's files → a checked submission.

In: a :class:`Run` whose experiment says which scores. Out: the run's ``ensemble/`` (``oof.csv``,
``test.csv``, ``study.json``, evaluation) and ``submission.csv``.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from kaggle_pipeline.config.names import TEST_SCORE
from kaggle_pipeline.core.commit import begin, commit, renew
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.files import read_json, write_json
from kaggle_pipeline.core.tables import index_by, read_table, require_probabilities
from kaggle_pipeline.data.examples import split_rows
from kaggle_pipeline.data.patient_context import patient_context, require_patients
from kaggle_pipeline.data.predictions import AVERAGED, Predictions
from kaggle_pipeline.ensembling.comparison import Study, compare, make_candidates
from kaggle_pipeline.evaluation.gallery import write_gallery
from kaggle_pipeline.metrics.roc_bootstrap import roc_auc
from kaggle_pipeline.models.cross_validation import require_same_rows
from kaggle_pipeline.models.learned_rows import digest_rows
from kaggle_pipeline.report.report import write_report
from kaggle_pipeline.stages.make_submission import write_checked_submission
from kaggle_pipeline.stages.prepare import prepare_data
from kaggle_pipeline.stages.run import Run
from kaggle_pipeline.stages.run_folder import open_stage, remedy_of

STAGE = "ensemble"
_PERFECT = 0.9999
_LEAST = 0.5
"""Share of the training images that a score must know: what it lacks, it is not weighed by."""
_SLACK = 0.1
"""Share of the ids that a file may lack though it has others, and of the training part's coverage
that a test part may lack: more is no gap but a mistake."""


@dataclass(frozen=True)
class Scores:
    """Scores of one part of the images.

    Attributes
    ----------
    part : {"training", "test"}
    table : pandas.DataFrame
        Indexed by the part's image ids, a float column a model, NaN where it has no score.
    files : dict of str to pathlib.Path
        Where each column comes from.
    """

    part: str
    table: pd.DataFrame
    files: dict[str, Path]

    def lacking(self, model: str) -> pd.Index:
        """Return the ids that a model has no score of."""
        return self.table.index[self.table[model].isna()]

    def tell(self, model: str) -> str:
        """Return how many images a model has no score of, with one of them."""
        gap = self.lacking(model)
        return (
            f"{self.files[model]}: {model} has no score of {len(gap)} of {len(self.table)} "
            f"{self.part} photos, such as {gap[0]}"
        )


def blend_scores(run: Run) -> Path | None:
    """Compare ways to blend the scores, use the one that earns it, write the submission.

    Returns
    -------
    pathlib.Path or None
        None where there are no test rows or no test scores.

    Raises
    ------
    PipelineError
        If a file or column is missing, an id is listed twice, scores and images do not match, or
        the task has several classes.
    """
    with run.working_on(STAGE):
        return _blend_scores(run)


def _blend_scores(run: Run) -> Path | None:
    config, spec = run.config.ensemble, run.spec
    if len(spec.classes) > 1:
        raise PipelineError(f"ensemble: {spec.id} has {len(spec.classes)} classes; it takes one")
    if "context" in config.use:
        require_patients(spec, "ensemble.use: context")
    started = time.perf_counter()
    prepare_data(replace(run, overwrite=False), with_records=False, wait=True)
    examples = run.examples()
    if {"context", "metadata"} <= set(config.use):
        # Before any row goes: test patients keep all their images, too.
        examples = examples.join(patient_context(examples, spec))
    # Rows that the folds leave out stay out. Our own stages score what a fold judges.
    folds = run.folds()
    own = digest_rows(examples, spec, folds)
    for name in config.models:
        require_same_rows(own, run.run_dir / name)
    scores = read_scores(run, "oof", (folds.validated if config.models else folds.table).index)
    models = list(scores.table.columns)
    candidates = make_candidates(
        models, spec, config.use, run.config.seed, ablation=config.ablation
    )
    if config.method not in (None, *candidates):
        known = ", ".join(candidates)
        raise PipelineError(f"ensemble.method: {config.method!r} is none of {known}")
    tests, test_scores = split_rows(examples, "test"), None
    if len(tests) and (config.test or not config.oof):
        test_scores = read_scores(run, "test", tests.index)
    require_coverage(scores, test_scores, run.say)
    # An image that no model scored says nothing.
    known = scores.table.dropna(how="all")
    rows = examples.loc[known.index].join(known)
    _stop_on_perfect(rows, models, spec.classes[0])
    told = f" of {len(scores.table)}" if len(rows) < len(scores.table) else ""
    run.say(f"{len(models)} scores: {', '.join(models)}; {len(rows)}{told} photos")
    study = compare(
        candidates, rows, spec, folds=config.folds, repeats=config.repeats,
        seed=run.config.seed, say=run.say,
    )  # fmt: skip
    chosen = config.method or study.chosen
    folder = open_stage(run.run_dir, STAGE, resume=False, overwrite=True)
    if test_scores is not None:  # of the submission before, in whose place one comes
        (run.run_dir / TEST_SCORE).unlink(missing_ok=True)
        renew(run.run_dir, TEST_SCORE)
    begin(folder, remedy_of(STAGE))
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
    blended = None
    if test_scores is not None:
        answers = fitted.apply(tests.join(test_scores.table))
        blended = Predictions.build(
            pd.DataFrame({spec.classes[0]: answers}, tests.index), AVERAGED, "test"
        )
        blended.write(folder / "test.csv")
    run.evaluate(
        folder, nested, blended, examples, folds, seconds=seconds,
        epoch_chosen_on_judged_rows=any(
            read_json(run.run_dir / name / "metrics.json")["epoch_chosen_on_judged_rows"]
            for name in config.models
        ),
    )  # fmt: skip
    write_gallery(folder, examples, nested, spec, run.data_dir)
    commit(folder)
    run.say(f"report: {write_report(run.run_dir, spec)}")
    return write_checked_submission(run, blended, folder) if blended is not None else None


def read_scores(run: Run, split: str, wanted: pd.Index) -> Scores:
    """Return one column of scores a model, joined by id; NaN where a model has none.

    Parameters
    ----------
    run : Run
    split : {"oof", "test"}
    wanted : pandas.Index
        Image ids; a file's further rows are left out.

    Raises
    ------
    PipelineError
        If a file or column is missing, an id is listed twice, a score is not in [0, 1], a stage of
        the run does not predict exactly ``wanted``, or a file's ids are not those of the images.
    """
    config, spec = run.config.ensemble, run.spec
    part = "training" if split == "oof" else "test"
    found, files = [], []
    for model in config.models:
        path = run.run_dir / model / f"{split}.csv"
        predictions = Predictions.read(path, spec.classes)
        predictions.require(wanted, str(path))
        found.append(predictions.probabilities[spec.classes[0]].rename(model))
        files.append(path)
    name = config.oof if split == "oof" else config.test
    if name:
        path = run.data_dir / name  # an absolute name stays as it is
        id_column = spec.submission.id_column
        named = f"it is named by ensemble.{split}"
        needed = [id_column, *config.columns]
        table = read_table(path, needed, hint=named, text=[id_column], rows_needed=True)
        table = index_by(table, id_column, path)
        _require_ids(table.index, wanted, run.examples().index, part, path, run.say)
        found += [_checked(table[column], path) for column in config.columns]
        files += [path] * len(config.columns)
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
    joined = [column.reindex(wanted) for column in found]  # gaps are counted by require_coverage
    table = pd.concat(joined, axis=1).rename_axis("image_id")
    return Scores(part, table, dict(zip(names, files, strict=True)))


def _require_ids(
    ids: pd.Index, wanted: pd.Index, known: pd.Index, part: str, path: Path,
    say: Callable[[str], None],
) -> None:  # fmt: skip
    """Stop on a file whose ids are written otherwise than the images' or are other images'."""
    missing, strange = wanted.difference(ids), ids.difference(known)
    # A few strange ones are no sign: duplicates that were dropped, say.
    others = len(strange) > _SLACK * len(ids)
    if len(missing) == len(wanted) or (others and len(missing) > _SLACK * len(wanted)):
        other = strange if len(strange) else ids
        raise PipelineError(
            f"{path}: {len(missing)} of {len(wanted)} {part} photos have no row, such as "
            f"{missing[0]}, and {len(other)} rows are of no {part} photo, such as {other[0]}: "
            "write the ids as the photos' are"
        )
    if len(strange):
        say(f"{path}: {len(strange)} rows are of no photo here and left out, such as {strange[0]}")


def require_coverage(oof: Scores, test: Scores | None, say: Callable[[str], None]) -> None:
    """Say which images lack a score, and stop where that is no gap but a mistake.

    A missing score is left out of an image's mean. That is fair where the test part lacks no more
    than the training part did, by which the ways to blend are judged.

    Raises
    ------
    PipelineError
        If a model knows fewer than half of the training images, or less of the test images than of
        the training images, or no model knows a test image. The line names file, number and an id.
    """
    for scores in (oof, test):
        for model in scores.table.columns if scores else ():
            if len(scores.lacking(model)):
                say(f"{scores.tell(model)}: left to the other scores")
    coverage = oof.table.notna().mean()
    for model, share in coverage.items():
        if share < _LEAST:
            raise PipelineError(
                f"{oof.tell(model)}: too few to weigh it by: complete the file, or take {model} "
                "out of ensemble.columns"
            )
    if test is None:
        return
    nothing = test.table.index[test.table.isna().all(axis=1)]
    if len(nothing):
        files = " and ".join(map(str, dict.fromkeys(test.files.values())))
        raise PipelineError(
            f"{files}: no score at all of {len(nothing)} of {len(test.table)} test photos, such as "
            f"{nothing[0]}: complete the file"
        )
    for model, share in test.table.notna().mean().items():
        if share < (1 - _SLACK) * coverage[model]:
            raise PipelineError(
                f"{test.tell(model)}, though it knows {coverage[model]:.0%} of the training "
                f"images: complete the file, or take {model} out of ensemble.columns"
            )


def _checked(column: pd.Series, path: Path) -> pd.Series:
    """The scores as numbers, gaps left as they are."""
    known = require_probabilities(column.dropna().to_frame(), path)
    return known[column.name].reindex(column.index)


def _stop_on_perfect(rows: pd.DataFrame, models: Sequence[str], target: str) -> None:
    """Stop on scores that no model has out of fold: they were made from the answers."""
    for model in models:
        known = rows[rows[model].notna()]
        if roc_auc(known[target].to_numpy(int), known[model].to_numpy()) > _PERFECT:
            raise PipelineError(
                f"leak: the scores of {model} sort the training photos perfectly: they are not out "
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
