"""Settings of what is made of finished predictions: the blend and the ensemble.

In: values. Out: frozen sections of an :class:`~kaggle_pipeline.config.Experiment`.
"""

from dataclasses import dataclass
from typing import Literal

from kaggle_pipeline.configchecks import positive, require

LEARNERS = ("boosting", "forest", "logistic")
"""scikit-learn's, beside the dense network."""


@dataclass(frozen=True)
class BlendConfig:
    """How the models' probabilities become one."""

    models: tuple[str, ...] = ("image", "tabular")
    space: Literal["mean", "rank", "logit"] = "rank"
    """Average probabilities, their ranks among the training predictions, or their logits."""
    weights: Literal["auc", "equal"] = "auc"
    """``auc``: simplex weights of the best out-of-fold AUC; ``equal``."""

    def __post_init__(self) -> None:
        known = {"image", "tabular", *LEARNERS}
        fine = bool(self.models) and len(set(self.models)) == len(self.models)
        fine = fine and set(self.models) <= known
        require(
            fine, "blend.models", list(self.models), f"of image, tabular, {', '.join(LEARNERS)}"
        )


@dataclass(frozen=True)
class EnsembleConfig:
    """Scores that ``scripts/blend_scores.py`` compares and blends; one binary question only."""

    models: tuple[str, ...] = ()
    """Stages of this run."""
    oof: str | None = None
    """CSV of other people's out-of-fold scores, below the data folder or an absolute path."""
    test: str | None = None
    """The same models' test scores."""
    columns: tuple[str, ...] = ()
    """Columns of both files, a model each; beside the competition's id column."""
    use: tuple[str, ...] = ("scores", "context", "metadata")
    """What the stackers see: ``context`` sets scores and metadata beside the patient's others."""
    method: str | None = None
    """null: the simplest way that the best does not clearly beat; or the name of one."""
    ablation: bool = False
    """Judge stackers that see parts of that too: what does each part add?"""
    folds: int = 5
    repeats: int = 3

    def __post_init__(self) -> None:
        known = {"scores", "context", "metadata"}
        fine = "scores" in self.use and set(self.use) <= known
        require(fine, "ensemble.use", list(self.use), "scores, with context and metadata or not")
        require(self.folds >= 2, "ensemble.folds", self.folds, "at least 2")
        positive("ensemble.repeats", self.repeats)
