"""A run's trained image models, opened to predict: run folder → settings, then models by fold."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pandas as pd

from kaggle_pipeline.config.experiment import Experiment
from kaggle_pipeline.config.loading import load_experiment
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.data.spec import DatasetSpec
from kaggle_pipeline.datasets import spec_of
from kaggle_pipeline.evaluation.calibration.calibration import Calibration, read_calibration
from kaggle_pipeline.evaluation.decision.decision import Decision, read_decision
from kaggle_pipeline.models.cross_validation import (
    ALL_NUMBER,
    missing_folds,
    trained_folds,
    trained_on_all,
)
from kaggle_pipeline.models.protocols import Model
from kaggle_pipeline.records.geometry import RecordFit, read_fit
from kaggle_pipeline.stages.train_image import image_model_maker

if TYPE_CHECKING:
    from kaggle_pipeline.hardware.accelerator import Accelerator


def read_stage(
    stage: Path,
) -> tuple[Path, Experiment, DatasetSpec, dict[int, Path], list[int], RecordFit]:
    """Return what a run's stage of photos says of itself: its folder, config, spec, the folders of
    its trained folds, the folds that are missing, and how the run's photos were made square.

    Raises
    ------
    PipelineError
        If the stage holds no trained model.
    """
    run_dir, folds = stage.parent, trained_folds(stage)
    config = load_experiment(stage / "config.yaml")
    spec = spec_of(config, run_dir / "prepare", None)
    fit = read_fit(stage, config, spec)
    return stage, config, spec, folds, missing_folds(run_dir, folds), fit


class PhotoModels(Protocol):
    """What a run's stage of photos says of itself: of its networks, or of its heads."""

    stage: Path

    @property
    def lacking(self) -> str:
        """What its models were scored with, and a photo alone lacks; empty if nothing."""


def calibration_of_photos(
    trained: PhotoModels,
) -> tuple[Calibration | None, Decision | None, str]:
    """Return a stage's calibration and decision, where they hold for photos alone.

    Neither does where the models were scored with more than the photo: a score without it is
    another one, of which nothing was measured. The last value then says so; else it is empty.

    Raises
    ------
    PipelineError
        If a file is damaged.
    """
    if trained.lacking:
        why = f"calibration and decision were measured with {trained.lacking}"
        return None, None, f"{why}, which a photo alone lacks"
    return read_calibration(trained.stage), read_decision(trained.stage), ""


@dataclass(frozen=True)
class TrainedImageModels:
    """What a run's image stage says of itself; no weights are read yet.

    Attributes
    ----------
    stage : pathlib.Path
        The folder ``image/``.
    config : Experiment
        Of that stage.
    spec : DatasetSpec
    folds : dict of int to pathlib.Path
        Folders of the folds that are trained.
    missing : list of int
        Folds of the run that are not.
    fit : RecordFit
        How the run's photos were made square, as new ones are to be.
    of_all : pathlib.Path or None
        Folder of the model that learned from all rows, where there is one.
    """

    stage: Path
    config: Experiment
    spec: DatasetSpec
    folds: dict[int, Path]
    missing: list[int]
    fit: RecordFit
    of_all: Path | None = None

    @classmethod
    def open(cls, run_dir: Path) -> "TrainedImageModels":
        """Read the settings.

        Raises
        ------
        PipelineError
            If the run has no trained image model.
        """
        stage = Path(run_dir) / "image"
        if not stage.is_dir() and (stage.parent / "embedding").is_dir():
            raise PipelineError(
                f"{run_dir} has no network, but a linear head on frozen encoders: export_model and "
                "bundle take networks alone; predict and serve read this run"
            )
        return cls(*read_stage(stage), trained_on_all(stage))

    @property
    def places(self) -> dict[int | None, Path]:
        """The folder of every trained model: by fold, and of None the model of all rows."""
        return {**self.folds, **({None: self.of_all} if self.of_all else {})}

    @property
    def metadata(self) -> bool:
        """Whether the networks read metadata beside the photo."""
        return self.config.image.metadata

    @property
    def lacking(self) -> str:
        """What they learned and were scored with, and a photo alone lacks; empty if nothing."""
        return "metadata" if self.metadata else ""

    @property
    def mixed_precision(self) -> bool:
        """Whether they compute in shorter numbers where the device does."""
        return self.config.image.mixed_precision

    def load(
        self,
        fold: int | None,
        device: "Accelerator",
        shards_of: Callable[[pd.Index], list[Path]],
        features_dir: Path,
    ) -> Model:
        """Return one fold's model, its weights read.

        Parameters
        ----------
        fold : int or None
            None: the model of all rows.
        device : Accelerator
        shards_of : callable
            Finds the TFRecords that hold image ids; their channels are red, green, blue.
        features_dir : pathlib.Path
            Where a frozen backbone's features may be kept.
        """
        make_model = image_model_maker(
            self.config, self.spec, shards_of, device,
            features_dir=features_dir, swap_red_blue=False, verbose=0,
        )  # fmt: skip
        folder = self.of_all if fold is None else self.folds[fold]
        return make_model(ALL_NUMBER if fold is None else fold, folder).load(folder)
