"""What the training of every model shares: folds in turn, then scores and pictures."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path
from typing import Any

import pandas as pd

from kaggle_pipeline.config.experiment import TabularConfig
from kaggle_pipeline.config.names import LEARNERS, PREPARED_BY, TOOK
from kaggle_pipeline.core.commit import begin, commit
from kaggle_pipeline.core.environment import peak_memory_mb
from kaggle_pipeline.core.files import read_json
from kaggle_pipeline.core.record import is_done
from kaggle_pipeline.core.tables import read_own
from kaggle_pipeline.data.examples import EXTERNAL
from kaggle_pipeline.data.spec import DatasetSpec
from kaggle_pipeline.models.cross_validation import (
    ALL_ROWS,
    LAST,
    METRICS,
    collect_folds,
    cross_validate,
    require_same_rows,
    train_on_all,
    trained_on_all,
    unfinished,
)
from kaggle_pipeline.models.learned_rows import digest_rows
from kaggle_pipeline.models.learning_curves import plot_histories
from kaggle_pipeline.models.protocols import Model
from kaggle_pipeline.records.geometry import RecordFit
from kaggle_pipeline.report.report import write_report
from kaggle_pipeline.report.results import OPTIMISTIC, describe_guessing
from kaggle_pipeline.report.run_tables import compare_runs, describe_memory
from kaggle_pipeline.stages.made_up import MadeUp
from kaggle_pipeline.stages.run import Run
from kaggle_pipeline.stages.run_folder import open_stage, remedy_of, require_free
from kaggle_pipeline.stages.took import Stopwatch, write_took

Enrich = Callable[[pd.DataFrame], pd.DataFrame]
"""Adds columns to the examples before a model sees them."""
_RECORDS = [f"records.{name}" for name in ("source", "image_size_px", "fit", "channel_order")]
DECIDING = {
    "image": ["image", *_RECORDS],
    "tabular": [
        f"tabular.{field.name}" for field in fields(TabularConfig) if field.name != "learners"
    ],
    "embedding": ["embedding", *_RECORDS],
    **{name: ["tabular.features", "tabular.context"] for name in LEARNERS},
}
"""Settings that a stage's folds must agree in."""


def require_trainable(run: Run, stages: Sequence[str], only: Sequence[int] | None = None) -> None:
    """Stop before any work where a stage's folder cannot be trained into.

    Raises
    ------
    PipelineError
        If another process works there, it holds results and nothing says what is to become of
        them, or those were made with other settings.
    """
    for stage in stages:
        with ExitStack() as held:
            for part in _parts(stage, only):
                held.enter_context(run.working_on(part))
            _require_trainable(run, stage, only)


def _parts(stage: str, only: Sequence[int] | None) -> list[str]:
    return [f"{stage}/fold{fold}" for fold in only or ()] or [stage]


def _require_trainable(run: Run, stage: str, only: Sequence[int] | None) -> None:
    # A stage of which some folds are done is open for the others; a fold is never done twice.
    again = {"resume": run.resume or bool(only), "overwrite": run.overwrite and not only}
    held = require_free(run.run_dir, stage, **again)
    # A stage without results binds nobody.
    if held and not again["overwrite"] and _holds_models(run.run_dir / stage):
        run.require_same(run.run_dir / stage, [*PREPARED_BY, *DECIDING[stage]])
        if not run.overwrite and (run.prepared / "folds.csv").exists():
            rows = digest_rows(run.examples(), run.spec, run.folds())
            require_same_rows(rows, run.run_dir / stage, only)


def _holds_models(folder: Path) -> bool:
    """Whether a fold, or the model of all rows, has been begun."""
    return any(folder.glob("fold*/*")) or any(folder.glob(f"{ALL_ROWS}/*"))


def train_folds(
    run: Run,
    stage: str,
    make_model: Callable[[int, Path], Model],
    only: Sequence[int] | None,
    all_min: Callable[[int], int] = int,
    enrich: Enrich | None = None,
    side_by_side: Mapping[str, Any] | None = None,
    fit: RecordFit | None = None,
    device_memory_mb: Callable[[], float | None] = lambda: None,
    made_up: MadeUp | None = None,
) -> None:
    """Cross-validate and, once every fold is done, finish the stage.

    Single folds may be trained beside each other by several processes, on several machines.

    Parameters
    ----------
    run : Run
    stage : str
        One of ``MODEL_STAGES``.
    make_model : callable
        ``make_model(fold, folder) -> Model``.
    only : sequence of int or None
        These folds alone.
    all_min : callable
        As for :func:`~kaggle_pipeline.models.cross_validation.cross_validate`.
    enrich : callable, optional
        Adds columns to the examples, such as a patient's context.
    side_by_side : mapping, optional
        ``processes`` and ``start_process`` of ``cross_validate``.
    fit : RecordFit, optional
        How the photos were made square; kept in the stage's folder.
    device_memory_mb : callable
        Asked at the end; MiB, None where the device does not tell.
    made_up : MadeUp, optional
        Photos whose answers each fold keeps, for ``verify_run``.

    Raises
    ------
    PipelineError
        If the stage holds results and neither ``--resume`` nor ``--overwrite`` was said, or models
        that learned with other settings or from other rows.
    OutOfTime
        If the deadline comes first.
    """
    with ExitStack() as held:
        for part in _parts(stage, only):
            held.enter_context(run.working_on(part))
        _require_trainable(run, stage, only)
        folder = run.run_dir / stage
        kept = _kept(run, folder, only)
        all_rows_are_new = run.config.train_all and (run.overwrite or not trained_on_all(folder))
        watch = Stopwatch()
        if not _train_folds(
            run, stage, make_model, only, all_min, enrich, side_by_side, fit, made_up
        ):
            return
        numbers = run.folds().numbers
        trained = set(only or numbers) - kept
        if not trained and not all_rows_are_new and (folder / TOOK).exists():
            return  # it is known already, and better: a fold's own time is without the joining
        # Those of earlier calls, and of processes beside this one.
        others = [folder / f"fold{fold}" for fold in numbers if fold not in trained]
        device = device_memory_mb()
        took = watch.read([read_json(place / "metrics.json") for place in others])
        write_took(folder, took | ({} if device is None else {"device_mb": round(device)}))


def _kept(run: Run, folder: Path, only: Sequence[int] | None) -> set[int]:
    """Folds that an earlier call trained and this one does not train anew; no others are read."""
    if run.overwrite and not only:
        return set()
    again = set(only or ()) if run.overwrite else set()
    places = {int(one.name.removeprefix("fold")): one for one in folder.glob("fold[0-9]*")}
    return {fold for fold, one in places.items() if fold not in again and is_done(one, LAST)}


def _train_folds(
    run: Run,
    stage: str,
    make_model: Callable[[int, Path], Model],
    only: Sequence[int] | None,
    all_min: Callable[[int], int],
    enrich: Enrich | None,
    side_by_side: Mapping[str, Any] | None,
    fit: RecordFit | None,
    made_up: MadeUp | None,
) -> bool:
    """Train; return whether every fold is done and the stage finished."""
    folder = open_stage(
        run.run_dir,
        stage,
        resume=run.resume or bool(only),
        overwrite=run.overwrite and not only,
    )
    if fit and _holds_models(folder):  # before anything is deleted
        fit.require_same(folder)
    if run.overwrite:
        for fold in only or ():
            shutil.rmtree(folder / f"fold{fold}", ignore_errors=True)
        # It learned from the rows of every fold, those that are begun anew among them.
        shutil.rmtree(folder / ALL_ROWS, ignore_errors=True)
        run.drop_blend()
    begin(folder, remedy_of(stage))
    run.record_origin(folder)
    if fit:
        fit.write(folder)
    if made_up is not None:
        made_up.keep(folder)
    asked = None if made_up is None else made_up.examples
    examples, folds = run.examples(), run.folds()
    if stage != "image":  # who was photographed, and where, differs between collections
        examples = examples[examples["split"] != EXTERNAL]
    examples = enrich(examples) if enrich else examples
    cross_validate(
        make_model,
        examples,
        run.spec,
        folds,
        folder,
        seed=run.config.seed,
        only=only,
        made_up=asked,
        deadline=run.deadline,
        all_min=all_min,
        report=lambda line: run.say(f"{stage} {line}"),
        **(side_by_side or {}),
    )
    missing = unfinished(folds, folder)
    if missing:
        run.say(f"{stage}: folds {missing} are still to be trained (--fold)")
        return False
    if run.config.train_all:
        train_on_all(
            make_model, examples, run.spec, folds, folder, made_up=asked, deadline=run.deadline,
            all_min=all_min, report=lambda line: run.say(f"{stage} {line}"),
        )  # fmt: skip
    finish_stage(run, stage)
    return True


def finish_stage(run: Run, stage: str) -> None:
    """Join, score and draw a model's folds, all of which are done.

    Parameters
    ----------
    run : Run
    stage : str
        ``image``, ``embedding``, ``tabular`` or a learner's name.

    Raises
    ------
    PipelineError
        If a fold is not done, or the folds' files do not fit together.
    """
    with run.working_on(f"{stage}/joining", wait=True):
        _finish_stage(run, stage)


def _finish_stage(run: Run, stage: str) -> None:
    folder = run.run_dir / stage
    examples, folds = run.examples(), run.folds()
    require_same_rows(digest_rows(examples, run.spec, folds), folder)
    before = {name: _bytes(folder / name) for name in ("oof.csv", "test.csv")}
    oof, test = collect_folds(folds, run.spec, examples, folder)
    if any(_bytes(folder / name) != content for name, content in before.items()):
        run.drop_blend(of=stage)
    if trained_on_all(folder):
        run.say(
            f"{stage}: test predictions are of the model of all {len(folds.table)} rows, which is "
            "not judged itself; the scores are those of the folds' models"
        )
    took = [read_json(folder / f"fold{k}" / METRICS) for k in folds.numbers]
    if (of_all := folder / ALL_ROWS / METRICS).exists():
        took.append(read_json(of_all))
    known = all("cpu_seconds" in one for one in took)  # a fold of before has none
    metrics = run.evaluate(
        folder, oof, test, examples, folds,
        seconds=round(sum(one["seconds"] for one in took), 1),
        cpu_seconds=round(sum(one["cpu_seconds"] for one in took), 1) if known else None,
        peak_memory_mb=_peak_memory_mb(folder, took),
        epoch_chosen_on_judged_rows=stage == "image" and run.config.image.checkpoint == "best_fold",
        tested_on_all_rows=trained_on_all(folder) is not None,
    )  # fmt: skip
    _draw_histories(folder, folds.numbers)
    commit(folder)
    run.say(f"{stage}: {_describe(metrics, run.spec)}")
    report = write_report(run.run_dir, run.spec)
    if not run.chained:
        run.say(compare_runs([run.run_dir]))
        run.say(f"report: {report}")


def _bytes(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def _peak_memory_mb(folder: Path, took: Sequence[Mapping[str, Any]]) -> float | None:
    """What the processes that trained the folds needed, whichever joins them now.

    Folds of an earlier version say nothing of it: then what the stage said before counts.
    """
    peaks = [one.get("peak_memory_mb") for one in took]
    if None not in peaks:
        return max(peaks)
    path = folder / "metrics.json"
    before = read_json(path).get("peak_memory_mb") if path.exists() else None
    return peak_memory_mb() if before is None else before


def _describe(metrics: dict, spec: DatasetSpec) -> str:
    auc = "not to be had, a class lacks rows"
    if metrics["oof_auc"] is not None:
        low, high = metrics["oof_auc_low"], metrics["oof_auc_high"]
        auc = f"{metrics['oof_auc']:.3f} [{low:.3f}, {high:.3f}]"
    counts = metrics["n_positive"]
    positive = f"{counts} positive"
    if isinstance(counts, list):
        positive = ", ".join(f"{n} {name}" for name, n in zip(spec.classes, counts, strict=True))
    text = (
        f"OOF AUC {auc} on {metrics['n']} photos, "
        f"{positive}, in {metrics['seconds']:.0f} s, "
        f"peak memory {describe_memory(metrics)} MiB"
    )
    marks = [short for key, (short, _) in OPTIMISTIC.items() if metrics[key]]
    if shared := metrics.get("groups_shared_with_test"):
        text += f"; the test part shares {shared} {spec.group}s with training"
    text += f" (optimistic: {', '.join(marks)})" if marks else ""
    return text + (f"; {guessing}" if (guessing := describe_guessing(metrics)) else "")


def _draw_histories(folder: Path, folds: Sequence[int]) -> None:
    histories = {}
    for fold in folds:
        place = folder / f"fold{fold}"
        for path in sorted(place.rglob("history.csv")):
            part = " ".join(path.parent.relative_to(place).parts)  # a class, a seed
            remedy = f"delete {place} and say --resume, which trains that fold anew"
            history = read_own(path, {"epoch": int}, remedy=remedy)
            histories[f"fold {fold} {part}".strip()] = history
    if histories:  # a forest has no epochs
        plot_histories(histories, folder / "learning_curves.png")
