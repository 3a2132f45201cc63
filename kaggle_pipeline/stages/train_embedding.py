"""Cross-validate the linear head on encoders: run folder with ``embeddings/`` → ``embedding/``."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.data.examples import EXTERNAL
from kaggle_pipeline.data.folds import require_folds
from kaggle_pipeline.data.patient_context import require_patients
from kaggle_pipeline.data.spec import DatasetSpec
from kaggle_pipeline.leakage.audit import check_features
from kaggle_pipeline.models.embedding.model import EmbeddingModel
from kaggle_pipeline.models.embedding.vector_store import FOLDER as VECTORS
from kaggle_pipeline.models.learnable import require_learnable
from kaggle_pipeline.records.geometry import RecordFit
from kaggle_pipeline.stages.embed import embed, read_vector_table
from kaggle_pipeline.stages.made_up import FOLDER as MADE_UP
from kaggle_pipeline.stages.made_up import MadeUp
from kaggle_pipeline.stages.run import Run
from kaggle_pipeline.stages.train_folds import require_trainable, train_folds


def train_embedding(
    run: Run, only: Sequence[int] | None = None, fit: RecordFit | None = None
) -> None:
    """Cross-validate the head; makes the vectors first where they are missing.

    ``run.overwrite`` is of the head's folds: vectors are made anew by :func:`embed` alone. ``fit``
    is what ``prepare_data`` returned in a chain of stages.
    """
    config, spec = run.config.embedding, run.spec
    require_folds(run.config.folds, only or ())
    if not run.chained:
        require_trainable(run, ["embedding"], only)
        check_embedding(run, spec)
    fit = embed(replace(run, overwrite=False), fit)
    examples, folds = run.examples(), run.folds()
    if config.metadata:
        check_features(examples, spec, spec.features)
    for line in require_learnable(
        examples.loc[folds.table.index], folds, spec, run.config, ["embedding"]
    ):
        run.say(f"note: {line}")
    vectors, asked = read_vector_table(run, examples[examples["split"] != EXTERNAL])
    made_up = None
    if asked is not None:
        kept = run.run_dir / VECTORS / config.encoders[0].folder / MADE_UP
        made_up = MadeUp.of(kept, spec)

    def make_model(fold: int, folder: Path) -> EmbeddingModel:
        return EmbeddingModel(config, spec, vectors, seed=run.config.seed + fold)

    train_folds(run, "embedding", make_model, only, fit=fit, made_up=made_up)


def check_embedding(run: Run, spec: DatasetSpec) -> None:
    """Stop on settings that the data set cannot meet.

    Raises
    ------
    PipelineError
        If the head is to see metadata or a patient's other photos, and there are none.
    """
    if run.config.embedding.context:
        require_patients(spec, "embedding.context")
    if run.config.embedding.metadata and not spec.features:
        raise PipelineError(f"embedding.metadata: {spec.id} declares no metadata; say false")
