"""Cross-validation of the image and of the tabular model.

In: a prepared :class:`Run`. Out: the run's ``image/`` or ``tabular/``.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd

from kaggle_pipeline.crossval import Model, collect_folds, cross_validate, unfinished
from kaggle_pipeline.errors import PipelineError
from kaggle_pipeline.leakage import check_features
from kaggle_pipeline.plots import plot_histories
from kaggle_pipeline.records import shards_holding
from kaggle_pipeline.rundir import open_stage, read_json
from kaggle_pipeline.stages.prepare import PREPARED_BY, prepare_data
from kaggle_pipeline.stages.run import Run
from kaggle_pipeline.tabular.features import choose_features

_ALSO_DECIDING = {
    "image": [f"records.{name}" for name in ("source", "image_size_px", "fit", "channel_order")]
}
"""Settings outside its own section that a stage's folds must agree in."""


def train_tabular(run: Run, only: Sequence[int] | None = None) -> None:
    """Cross-validate the tabular model; prepares the tables first where they are missing."""
    prepare_data(replace(run, overwrite=False), with_records=False)
    from kaggle_pipeline.accelerator import choose_accelerator

    device = choose_accelerator("cpu")  # a network this small waits for a GPU more than it gains
    from kaggle_pipeline.tabular.model import TabularModel

    config = run.config
    # Before --overwrite deletes anything.
    examples, features = run.examples(), config.tabular.features or run.spec.features
    choose_features(run.spec, features, examples)
    check_features(examples, run.spec, features)

    def make_model(fold: int, folder: Path) -> TabularModel:
        return TabularModel(
            config.tabular, run.spec, seed=config.seed + fold, jit_compile=device.jit_compile
        )

    with device.scope(mixed_precision=False):
        _train(run, "tabular", make_model, only)


def train_image(run: Run, only: Sequence[int] | None = None) -> None:
    """Cross-validate the image model; prepares tables and records first where they are missing."""
    from kaggle_pipeline.accelerator import choose_accelerator

    device = choose_accelerator(run.config.device)  # before hours of conversion, not after
    run.say(f"device: {device.reason}")
    from kaggle_pipeline.image.network import check_backbone

    check_backbone(run.config.image)
    # Without --overwrite: that of a model does not convert again.
    prepare_data(replace(run, overwrite=False))
    index_path = run.prepared / "records.csv"
    if not index_path.exists():
        raise PipelineError(
            f"no images for {run.spec.id} in {run.data_dir}: it needs jpeg/, DICOM or tfrecords/"
        )
    from kaggle_pipeline.image.model import ImageModel

    config = run.config
    index = pd.read_csv(index_path, dtype=str)

    def make_model(fold: int, folder: Path) -> ImageModel:
        return ImageModel(
            config.image, run.spec, partial(shards_holding, index), device, folder,
            seed=config.seed + fold,
            swap_red_blue=config.records.channel_order == "bgr",
            verbose=1 if run.interactive else 2,
        )  # fmt: skip

    _train(run, "image", make_model, only)


def _train(
    run: Run, stage: str, make_model: Callable[[int, Path], Model], only: Sequence[int] | None
) -> None:
    """Cross-validate and, once every fold is done, join, score and draw."""
    # A stage of which some folds are done is open for the others; a fold is never done twice.
    folder = open_stage(
        run.run_dir,
        stage,
        resume=run.resume or bool(only),
        overwrite=run.overwrite and not only,
    )
    if run.overwrite:
        for fold in only or ():
            open_stage(folder, f"fold{fold}", resume=False, overwrite=True)
    run.require_same(folder, [*PREPARED_BY, stage, *_ALSO_DECIDING.get(stage, ())])
    run.record_origin(folder)
    examples, folds = run.examples(), run.folds()
    cross_validate(
        make_model,
        examples,
        run.spec,
        folds,
        folder,
        seed=run.config.seed,
        only=only,
        report=lambda line: run.say(f"{stage} {line}"),
    )
    missing = unfinished(folds, folder)
    if missing:
        run.say(f"{stage}: folds {missing} are still to be trained (--fold)")
        return
    oof, _ = collect_folds(folds, run.spec, examples, folder)
    seconds = sum(read_json(folder / f"fold{k}" / "metrics.json")["seconds"] for k in folds.numbers)
    optimistic = make_model(folds.numbers[0], folder).selection == "fold"
    metrics = run.write_scores(
        folder, oof, examples, seconds=round(seconds, 1), epoch_chosen_on_judged_rows=optimistic
    )
    run.draw_roc(folder, {stage: oof}, examples)
    _draw_histories(folder, folds.numbers)
    run.say(f"{stage}: {_describe(metrics)}")


def _describe(metrics: dict) -> str:
    low, high = metrics["oof_auc_low"], metrics["oof_auc_high"]
    text = (
        f"OOF AUC {metrics['oof_auc']:.4f} [{low:.4f}, {high:.4f}] on {metrics['n']} images, "
        f"{metrics['n_positive']} positive, in {metrics['seconds']:.0f} s"
    )
    if metrics["epoch_chosen_on_judged_rows"]:
        text += " (optimistic: each epoch was chosen on the rows it is judged by)"
    return text


def _draw_histories(folder: Path, folds: Sequence[int]) -> None:
    files = {fold: folder / f"fold{fold}" / "history.csv" for fold in folds}
    histories = {fold: pd.read_csv(path) for fold, path in files.items()}
    plot_histories(histories, folder / "learning_curves.png")
