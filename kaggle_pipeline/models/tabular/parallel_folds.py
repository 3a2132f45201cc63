"""The dense network's folds side by side, a process each.

In: settings and folds. Out: what ``cross_validate`` needs for it. No
Keras is imported before a process has chosen its device.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from kaggle_pipeline.config.experiment import TabularConfig
from kaggle_pipeline.data.spec import DatasetSpec
from kaggle_pipeline.models.protocols import Model

_LONG = 100
"""Epochs from which on a process for each fold gains more than the ten seconds that it needs to
load an engine."""


def dense_models(
    config: TabularConfig,
    spec: DatasetSpec,
    features: Sequence[str] | None,
    seed: int,
    jit_compile: bool | str,
) -> tuple[Callable[[int, Path], Model], Mapping[str, Any]]:
    """Return ``make_model`` of the dense network, and ``cross_validate``'s options to go with it.

    A long recipe's folds are trained side by side, as many as there are cores.
    """
    make_model = partial(_make_dense, config, spec, features, seed, jit_compile)
    if config.patience is not None or config.epochs < _LONG:
        return make_model, {}
    return make_model, {"processes": os.cpu_count() or 1, "start_process": start_on_cpu}


def _make_dense(
    config: TabularConfig,
    spec: DatasetSpec,
    features: Sequence[str] | None,
    seed: int,
    jit_compile: bool | str,
    fold: int,
    folder: Path,
) -> Model:
    from kaggle_pipeline.models.tabular.model import TabularModel

    return TabularModel(config, spec, features, seed=seed + fold, jit_compile=jit_compile)


def start_on_cpu() -> None:
    """Prepare a process for the dense network: on the CPU, and with no part in any cluster."""
    for name in list(os.environ):
        if name == "TF_CONFIG" or name.startswith("KERAS_DISTRIBUTION_"):
            del os.environ[name]
    # A GPU is the other stages': several processes would each take most of its memory.
    os.environ |= {"CUDA_VISIBLE_DEVICES": "-1", "JAX_PLATFORMS": "cpu"}
    from kaggle_pipeline.hardware.accelerator import choose_accelerator

    choose_accelerator("cpu")
