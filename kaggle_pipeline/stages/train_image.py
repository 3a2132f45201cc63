"""Cross-validate the image model: run folder with ``prepare/`` → ``image/``."""

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from kaggle_pipeline.config.experiment import Experiment
from kaggle_pipeline.config.loading import to_mapping
from kaggle_pipeline.config.random_weights import random_weights
from kaggle_pipeline.core.deadline import Deadline
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.machine import free_memory_mb
from kaggle_pipeline.core.record import describe
from kaggle_pipeline.core.room import mib
from kaggle_pipeline.data.folds import require_folds
from kaggle_pipeline.data.spec import DatasetSpec
from kaggle_pipeline.leakage.audit import check_features
from kaggle_pipeline.models.composite import OneModelPerClass, SeedEnsemble
from kaggle_pipeline.models.protocols import Model
from kaggle_pipeline.records.geometry import RecordFit
from kaggle_pipeline.records.tfrecords import read_index, shards_holding
from kaggle_pipeline.stages.made_up import made_up_photos
from kaggle_pipeline.stages.prepare import prepare_data, require_tables, require_whole
from kaggle_pipeline.stages.run import Run
from kaggle_pipeline.stages.train_folds import require_trainable, train_folds

if TYPE_CHECKING:
    from kaggle_pipeline.hardware.accelerator import Accelerator

_SURE = 4 / 3
"""Where an estimate is above what is free by more than this, it is no error of the estimate."""


def train_image(
    run: Run,
    only: Sequence[int] | None = None,
    device: "Accelerator | None" = None,
    fit: RecordFit | None = None,
) -> None:
    """Cross-validate the image model; prepares tables and records first where they are missing.

    Parameters
    ----------
    run : Run
    only : sequence of int, optional
        These folds alone.
    device : Accelerator, optional
        What :func:`check_image` returned, where that was asked already.
    fit : RecordFit, optional
        What ``prepare_data`` returned in a chain of stages: how the photos were made square.

    Raises
    ------
    PipelineError
        If there are no photos, the stage holds results or models of other rows or settings, the
        weights are missing, or the network does not fit into memory.
    OutOfTime
        If ``--max-hours`` come first; ``--resume`` goes on.
    """
    require_folds(run.config.folds, only or ())
    if device is None:  # before hours of conversion, not after
        require_trainable(run, ["image"], only)
        require_tables(run)
        device = check_image(run)
    precision = run.config.image.mixed_precision
    run.say(f"device: {device.describe(mixed_precision=precision)}")
    # Without --overwrite: that of a model does not convert again.
    if not run.chained:
        fit = prepare_data(replace(run, overwrite=False), wait=True)
    index = read_index(run.run_dir)
    if index is None:
        raise PipelineError(
            f"no images for {run.spec.id} in {run.data_dir}: it needs jpeg/, DICOM or tfrecords/"
        )
    if run.config.image.metadata:
        check_features(run.examples(), run.spec, run.spec.features)
    swapped = run.config.records.swap_red_blue
    with ExitStack() as held:
        made_up = None
        if not swapped:  # records of new photos are not
            recipe = fit.recipe(run.config.records) if fit else run.config.records
            stage = run.run_dir / "image"
            drawn = held.enter_context(made_up_photos(stage, run.spec, recipe))
            made_up = replace(drawn, precision=device.precision(mixed=precision))
            index = pd.concat([index, made_up.index])
        make_model = image_model_maker(
            run.config, run.spec, partial(shards_holding, index), device,
            features_dir=run.run_dir / "image" / "features",
            swap_red_blue=swapped,
            verbose=1 if run.interactive else 2,
            deadline=run.deadline,
            say=None if run.interactive else run.say,  # a bar shows it anyway
        )  # fmt: skip
        train_folds(
            run, "image", make_model, only, device.all_min, fit=fit, made_up=made_up,
            device_memory_mb=device.peak_memory_mb,
        )  # fmt: skip


def check_image(run: Run) -> "Accelerator":
    """Return the device to train on; stop on what would fail only after the conversion.

    Raises
    ------
    PipelineError
        If the device is missing, the published weights cannot be downloaded, or the backbone, a
        layer's name, the weights file, the number of networks, the target or the metadata do not
        fit.
    """
    from kaggle_pipeline.hardware.accelerator import choose_accelerator

    device = choose_accelerator(run.config.device, run.config.replicas)
    from kaggle_pipeline.models.image.metadata_branch import check_question
    from kaggle_pipeline.models.image.network import check_backbone, weights_file

    check_question(run.config.image, run.spec)
    require_whole(run.config.image.weights)
    if run.config.image.networks == "one_per_class" and run.spec.task != "multilabel":
        raise PipelineError(f"image.networks: {run.spec.id} asks one question; say one")
    check_backbone(run.config.image)
    if path := weights_file(run.config.image):
        run.say(f"image.weights: {path}, SHA-256 {describe(path).sha256}")
    if doubt := random_weights("image", to_mapping(run.config)):
        run.say(f"note: {doubt}")
    check_memory(run, device)
    return device


def check_memory(run: Run, device: "Accelerator") -> None:
    """Say what the image model's fit takes in memory; stop where so much is surely not there.

    Raises
    ------
    PipelineError
        That names the largest batch that fits; not where ``memory_check`` is false.
    """
    from kaggle_pipeline.models.image.memory import (
        Needed,
        largest_batch,
        memory_needed,
        network_size,
    )

    if device.kind == "tpu":  # its own compiler tells: preflight
        return
    image = run.config.image.largest()
    size = network_size(image, run.spec)
    needed = memory_needed(image, size, device)
    found = {"host": free_memory_mb(), "device": device.free_memory_mb()}
    free = Needed(**{name: one if one is not None else math.inf for name, one in found.items()})
    what = f"{image.batch_size} photos of {image.image_size_px} px a step"
    if image.frozen:
        what = f"the features of photos of {image.image_size_px} px"
    parts = [
        f"{mib(getattr(needed, name) * 2**20)} of {words}"
        + (f", {mib(one * 2**20)} are free" if (one := found[name]) is not None else "")
        for name, words in (("device", "the GPU's memory"), ("host", "memory"))
        if name == "host" or device.kind == "gpu"
    ]
    line = f"{what} take about {' and '.join(parts)}"
    if needed.device <= _SURE * free.device and needed.host <= _SURE * free.host:
        short = needed.device > free.device or needed.host > free.host
        run.say(("note: " if short else "memory: ") + line + ("; it may not fit" if short else ""))
        return
    largest = largest_batch(image, size, device, free)
    advice = (
        f"the largest batch that fits: --set image.batch_size={largest}"
        if largest
        else "not even one photo fits: say a smaller image.image_size_px, or image.frozen=true"
    )
    if not run.config.memory_check:
        run.say(f"warning: the image model may not fit: {line}; memory_check is false, so it tries")
        return
    raise PipelineError(
        f"the image model does not fit: {line}; {advice}; or try it all the same with --set "
        "memory_check=false"
    )


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
    from kaggle_pipeline.models.image.fit.callbacks import FirstStep
    from kaggle_pipeline.models.image.model import ImageModel

    explain = None
    if device.backend == "jax":
        from kaggle_pipeline.hardware.compile_log import compile_log

        explain = compile_log().describe
    callbacks = [FirstStep(deadline.started, say, explain)] if deadline and say else []

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
        return SeedEnsemble(partial(make_one, fold, of_spec), seed, count, folder, device.all_min)

    if config.image.networks == "one":
        return lambda fold, folder: make_fold(fold, spec, folder)
    return lambda fold, folder: OneModelPerClass(
        partial(make_fold, fold), spec, folder, device.all_min
    )
