"""The dense network's folds side by side, a process each.

In: settings and folds. Out: what :func:`~kaggle_pipeline.crossval.cross_validate` needs for it. No
Keras is imported before a process has started on its device.
"""

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from kaggle_pipeline.config import TabularConfig
from kaggle_pipeline.crossval import Model
from kaggle_pipeline.folds import Folds
from kaggle_pipeline.spec import DatasetSpec

_CORES = os.cpu_count() or 1
_LONG = 100
"""Epochs of the dense network from which on a process for each fold gains more than the ten
seconds that it needs to load an engine."""


def dense_models(
    config: TabularConfig,
    spec: DatasetSpec,
    features: Sequence[str] | None,
    seed: int,
    folds: Folds,
    jit_compile: bool | str,
) -> tuple[Callable[[int, Path], Model], int]:
    """Return ``make_model`` of the dense network, and how many folds to train side by side.

    Each process takes its share of the cores.
    """
    long = config.patience is None and config.epochs >= _LONG
    processes = min(_CORES, len(folds.numbers)) if long else 1
    threads = max(1, _CORES // processes)
    make_model = partial(_make_dense, config, spec, features, seed, jit_compile, threads)
    return make_model, processes


def _make_dense(
    config: TabularConfig,
    spec: DatasetSpec,
    features: Sequence[str] | None,
    seed: int,
    jit_compile: bool | str,
    threads: int,
    fold: int,
    folder: Path,
) -> Model:
    from kaggle_pipeline.tabular.model import TabularModel

    return TabularModel(
        config, spec, features, seed=seed + fold, jit_compile=jit_compile, threads=threads
    )


def start_on_cpu() -> None:
    """Prepare a process of its own for the dense network."""
    from kaggle_pipeline.accelerator import choose_accelerator

    device = choose_accelerator("cpu").alone()
    device.scope(mixed_precision=False).__enter__()  # for as long as the process lives
