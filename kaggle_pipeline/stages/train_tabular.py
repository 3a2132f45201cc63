"""Cross-validate the tabular models: run folder with ``prepare/`` → ``tabular/`` and its like."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd

from kaggle_pipeline.config.experiment import TabularConfig
from kaggle_pipeline.data.folds import require_folds
from kaggle_pipeline.data.metadata_encoder import choose_features
from kaggle_pipeline.data.patient_context import context_columns, patient_context, require_patients
from kaggle_pipeline.data.spec import DatasetSpec
from kaggle_pipeline.leakage.audit import check_features
from kaggle_pipeline.models.cross_validation import require_choices
from kaggle_pipeline.models.learnable import require_learnable
from kaggle_pipeline.models.tabular.parallel_folds import dense_models
from kaggle_pipeline.models.tabular.sklearn_models import LearnerModel
from kaggle_pipeline.stages.prepare import prepare_data
from kaggle_pipeline.stages.run import Run
from kaggle_pipeline.stages.train_folds import Enrich, require_trainable, train_folds


def stages_of(config: TabularConfig) -> list[str]:
    """Return the stages of the learners; that of the dense network is called ``tabular``."""
    return ["tabular" if one == "dense" else one for one in config.learners]


def train_tabular(run: Run, only: Sequence[int] | None = None) -> None:
    """Cross-validate the tabular learners; prepares the tables first where they are missing.

    Each learner of ``tabular.learners`` is a stage of its own; all share features and folds.
    """
    config = run.config.tabular
    require_folds(run.config.folds, only or ())
    if config.context:
        require_patients(run.spec, "tabular.context")
    stages = stages_of(config)
    if not run.chained:
        require_trainable(run, stages, only)
        fresh = replace(run, overwrite=False)
        prepare_data(fresh, with_records=False, learners=stages, wait=True)
    # Before --overwrite deletes anything.
    examples, features = run.examples(), list(config.features or run.spec.features)
    choose_features(run.spec, features, examples)
    check_features(examples, run.spec, features)
    # The settings may be others than those that were prepared with.
    train, folds = examples.loc[run.folds().table.index], run.folds()
    require_learnable(train, folds, run.spec, run.config, stages)
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

        train_folds(run, learner, make_model, only, enrich=enrich)


def _train_dense(
    run: Run, features: Sequence[str], only: Sequence[int] | None, enrich: "Enrich | None"
) -> None:
    from kaggle_pipeline.hardware.accelerator import choose_accelerator

    # A network this small waits for a GPU or for other workers more than it gains.
    device = choose_accelerator("cpu").alone()
    make_model, side_by_side = dense_models(
        run.config.tabular, run.spec, list(features), run.config.seed, device.jit_compile
    )
    with device.scope(mixed_precision=False):
        train_folds(run, "tabular", make_model, only, enrich=enrich, side_by_side=side_by_side)


def _with_context(examples: pd.DataFrame, spec: DatasetSpec) -> pd.DataFrame:
    return examples.join(patient_context(examples, spec))
