"""Cross-validation of the image and of the tabular model.

In: a prepared :class:`Run`. Out: the run's ``image/`` or ``tabular/``.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from kaggle_pipeline.config import LEARNERS, Experiment, TabularConfig
from kaggle_pipeline.context import context_columns, patient_context, require_patients
from kaggle_pipeline.crossval import (
    Model,
    collect_folds,
    cross_validate,
    require_choices,
    unfinished,
)
from kaggle_pipeline.deadline import Deadline
from kaggle_pipeline.encode import choose_features
from kaggle_pipeline.errors import PipelineError
from kaggle_pipeline.examples import EXTERNAL
from kaggle_pipeline.folds import require_folds
from kaggle_pipeline.leakage import check_features
from kaggle_pipeline.manyseeds import ManySeedsModel
from kaggle_pipeline.perclass import PerClassModel
from kaggle_pipeline.plots import plot_histories
from kaggle_pipeline.recordfit import RecordFit
from kaggle_pipeline.records import shards_holding
from kaggle_pipeline.report import OPTIMISTIC, write_report
from kaggle_pipeline.rundir import open_stage, read_json
from kaggle_pipeline.spec import DatasetSpec
from kaggle_pipeline.stages.dense import dense_models
from kaggle_pipeline.stages.look import compare_runs, describe_memory
from kaggle_pipeline.stages.prepare import PREPARED_BY, prepare_data
from kaggle_pipeline.stages.run import Run
from kaggle_pipeline.tabular.learners import LearnerModel

if TYPE_CHECKING:
    from kaggle_pipeline.accelerator import Accelerator

Enrich = Callable[[pd.DataFrame], pd.DataFrame]
"""Adds columns to the examples before a model sees them."""
_RECORDS = [f"records.{name}" for name in ("source", "image_size_px", "fit", "channel_order")]
_DECIDING = {
    "image": ["image", *_RECORDS],
    "tabular": [
        f"tabular.{field.name}" for field in fields(TabularConfig) if field.name != "learners"
    ],
    **{name: ["tabular.features", "tabular.context"] for name in LEARNERS},
}
"""Settings that a stage's folds must agree in."""


def train_tabular(run: Run, only: Sequence[int] | None = None) -> None:
    """Cross-validate the tabular learners; prepares the tables first where they are missing.

    Each learner of ``tabular.learners`` is a stage of its own; all share features and folds.
    """
    config = run.config.tabular
    require_folds(run.config.folds, only or ())
    if config.context:
        require_patients(run.spec, "tabular.context")
    prepare_data(replace(run, overwrite=False), with_records=False)
    # Before --overwrite deletes anything.
    examples, features = run.examples(), list(config.features or run.spec.features)
    choose_features(run.spec, features, examples)
    check_features(examples, run.spec, features)
    if "dense" in config.learners:
        require_choices(config, examples, run.folds(), run.spec, run.config.seed, only)
    enrich = partial(_with_context, spec=run.spec) if config.context else None
    if config.context:
        features += context_columns(run.spec)
    for learner in config.learners:
        if learner == "dense":
            _train_dense(run, features, only, enrich)
            continue

        def make_model(fold: int, folder: Path, learner: str = learner) -> LearnerModel:
            seed = run.config.seed + fold
            return LearnerModel(learner, config, run.spec, features, seed=seed)

        _train(run, learner, make_model, only, enrich=enrich)


def _train_dense(
    run: Run, features: Sequence[str], only: Sequence[int] | None, enrich: "Enrich | None"
) -> None:
    from kaggle_pipeline.accelerator import choose_accelerator

    # A network this small waits for a GPU or for other workers more than it gains.
    device = choose_accelerator("cpu").alone()
    make_model, side_by_side = dense_models(
        run.config.tabular, run.spec, list(features), run.config.seed, device.jit_compile
    )
    with device.scope(mixed_precision=False):
        _train(run, "tabular", make_model, only, enrich=enrich, side_by_side=side_by_side)


def _with_context(examples: pd.DataFrame, spec: DatasetSpec) -> pd.DataFrame:
    return examples.join(patient_context(examples, spec))


def train_image(
    run: Run, only: Sequence[int] | None = None, device: "Accelerator | None" = None
) -> None:
    """Cross-validate the image model; prepares tables and records first where they are missing.

    ``device`` is what :func:`check_image` returned, where that was asked already.
    """
    require_folds(run.config.folds, only or ())
    device = device or check_image(run)  # before hours of conversion, not after
    run.say(f"device: {device.reason}")
    # Without --overwrite: that of a model does not convert again.
    fit = prepare_data(replace(run, overwrite=False))
    index_path = run.prepared / "records.csv"
    if not index_path.exists():
        raise PipelineError(
            f"no images for {run.spec.id} in {run.data_dir}: it needs jpeg/, DICOM or tfrecords/"
        )
    if run.config.image.metadata:
        check_features(run.examples(), run.spec, run.spec.features)
    make_model = image_model_maker(
        run.config, run.spec, partial(shards_holding, pd.read_csv(index_path, dtype=str)), device,
        features_dir=run.run_dir / "image" / "features",
        swap_red_blue=run.config.records.channel_order == "bgr",
        verbose=1 if run.interactive else 2,
        deadline=run.deadline,
        say=None if run.interactive else run.say,  # a bar shows it anyway
    )  # fmt: skip
    _train(run, "image", make_model, only, device.least, fit=fit)


def check_image(run: Run) -> "Accelerator":
    """Return the device to train on; stop on what would fail only after the conversion.

    Raises
    ------
    PipelineError
        If the device is missing, the published weights cannot be downloaded, or the backbone, a
        layer's name, the weights file, the number of networks, the target or the metadata do not
        fit.
    """
    from kaggle_pipeline.accelerator import choose_accelerator

    device = choose_accelerator(run.config.device, run.config.replicas)
    from kaggle_pipeline.image.fusion import check_question
    from kaggle_pipeline.image.network import check_backbone

    check_question(run.config.image, run.spec)
    if run.config.image.networks == "one_per_class" and run.spec.task != "multilabel":
        raise PipelineError(f"image.networks: {run.spec.id} asks one question; say one")
    check_backbone(run.config.image)
    return device


def image_model_maker(
    config: Experiment,
    spec: DatasetSpec,
    shards_of: Callable[[pd.Index], list[Path]],
    device: "Accelerator",
    *,
    features_dir: Path,
    swap_red_blue: bool,
    verbose: int,
    deadline: Deadline | None = None,
    say: Callable[[str], None] | None = None,
) -> Callable[[int, Path], Model]:
    """Return ``make_model(fold, folder)`` of the experiment's image model.

    ``say`` is told when the first training step of all is made, counted from the deadline's start.
    """
    from kaggle_pipeline.image.model import ImageModel
    from kaggle_pipeline.image.training import FirstStep

    callbacks = [FirstStep(deadline.started, say)] if deadline and say else []

    def make_one(fold: int, of_spec: DatasetSpec, seed: int, folder: Path) -> ImageModel:
        return ImageModel(
            config.image.of_fold(fold), of_spec, shards_of, device, folder, seed=seed,
            swap_red_blue=swap_red_blue, features_dir=features_dir, deadline=deadline,
            callbacks=callbacks, verbose=verbose,
        )  # fmt: skip

    def make_fold(fold: int, of_spec: DatasetSpec, folder: Path) -> Model:
        seed, count = config.seed + fold, config.image.seeds
        if count == 1:
            return make_one(fold, of_spec, seed, folder)
        return ManySeedsModel(partial(make_one, fold, of_spec), seed, count, folder, device.least)

    if config.image.networks == "one":
        return lambda fold, folder: make_fold(fold, spec, folder)
    return lambda fold, folder: PerClassModel(partial(make_fold, fold), spec, folder, device.least)


def _train(
    run: Run,
    stage: str,
    make_model: Callable[[int, Path], Model],
    only: Sequence[int] | None,
    least: Callable[[int], int] = int,
    enrich: Enrich | None = None,
    side_by_side: Mapping[str, Any] | None = None,
    fit: RecordFit | None = None,
) -> None:
    """Cross-validate and, once every fold is done, finish the stage."""
    # A stage of which some folds are done is open for the others; a fold is never done twice.
    folder = open_stage(
        run.run_dir,
        stage,
        resume=run.resume or bool(only),
        overwrite=run.overwrite and not only,
    )
    # Before anything is deleted; a stage without results binds nobody.
    if any(folder.glob("fold*/*")):
        run.require_same(folder, [*PREPARED_BY, *_DECIDING[stage]])
        if fit:
            fit.require_same(folder)
    if run.overwrite:
        for fold in only or ():
            shutil.rmtree(folder / f"fold{fold}", ignore_errors=True)
        run.drop_blend()
    run.record_origin(folder)
    if fit:
        fit.write(folder)
    examples, folds = run.examples(), run.folds()
    if stage != "image":  # who was photographed, and where, differs between collections
        examples = examples[examples["split"] != EXTERNAL]
    cross_validate(
        make_model,
        enrich(examples) if enrich else examples,
        run.spec,
        folds,
        folder,
        seed=run.config.seed,
        only=only,
        deadline=run.deadline,
        least=least,
        report=lambda line: run.say(f"{stage} {line}"),
        **(side_by_side or {}),
    )
    missing = unfinished(folds, folder)
    if missing:
        run.say(f"{stage}: folds {missing} are still to be trained (--fold)")
        return
    finish_stage(run, stage)


def finish_stage(run: Run, stage: str) -> None:
    """Join, score and draw a model's folds, all of which are done.

    Parameters
    ----------
    run : Run
    stage : str
        ``image``, ``tabular`` or a learner's name.

    Raises
    ------
    PipelineError
        If a fold is not done, or the folds' files do not fit together.
    """
    folder = run.run_dir / stage
    examples, folds = run.examples(), run.folds()
    oof, test = collect_folds(folds, run.spec, examples, folder)
    seconds = sum(read_json(folder / f"fold{k}" / "metrics.json")["seconds"] for k in folds.numbers)
    metrics = run.judge(
        folder, oof, test, examples, folds, seconds=round(seconds, 1),
        epoch_chosen_on_judged_rows=stage == "image" and run.config.image.checkpoint == "best_fold",
    )  # fmt: skip
    _draw_histories(folder, folds.numbers)
    run.say(f"{stage}: {_describe(metrics, run.spec)}")
    run.say(compare_runs([run.run_dir]))
    run.say(f"report: {write_report(run.run_dir, run.spec)}")


def _describe(metrics: dict, spec: DatasetSpec) -> str:
    auc = "not to be had, a class lacks rows"
    if metrics["oof_auc"] is not None:
        low, high = metrics["oof_auc_low"], metrics["oof_auc_high"]
        auc = f"{metrics['oof_auc']:.4f} [{low:.4f}, {high:.4f}]"
    counts = metrics["n_positive"]
    positive = f"{counts} positive"
    if isinstance(counts, list):
        positive = ", ".join(f"{n} {name}" for name, n in zip(spec.classes, counts, strict=True))
    text = (
        f"OOF AUC {auc} on {metrics['n']} images, "
        f"{positive}, in {metrics['seconds']:.0f} s, "
        f"peak memory {describe_memory(metrics)} MiB"
    )
    marks = [short for key, (short, _) in OPTIMISTIC.items() if metrics[key]]
    return text + (f" (optimistic: {', '.join(marks)})" if marks else "")


def _draw_histories(folder: Path, folds: Sequence[int]) -> None:
    histories = {}
    for fold in folds:
        place = folder / f"fold{fold}"
        for path in sorted(place.rglob("history.csv")):
            part = " ".join(path.parent.relative_to(place).parts)  # a class, a seed
            histories[f"fold {fold} {part}".strip()] = pd.read_csv(path)
    if histories:  # a forest has no epochs
        plot_histories(histories, folder / "learning_curves.png")
