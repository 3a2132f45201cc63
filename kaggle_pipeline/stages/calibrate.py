"""Calibration of a judged stage.

In: a stage's out-of-fold predictions. Out: its ``calibration.json`` and ``calibration.png``, which
nothing else in the run reads: predictions and submission stay as the models gave them.
"""

from pathlib import Path

import pandas as pd

from kaggle_pipeline.config.experiment import Experiment
from kaggle_pipeline.core.files import write_json
from kaggle_pipeline.data.predictions import Predictions
from kaggle_pipeline.data.spec import DatasetSpec
from kaggle_pipeline.evaluation.calibration.calibration import FILE, Calibration
from kaggle_pipeline.evaluation.calibration.plots import plot_calibration


def calibrate_stage(
    folder: Path,
    oof: Predictions,
    test: Predictions | None,
    examples: pd.DataFrame,
    test_truth: pd.DataFrame | None,
    spec: DatasetSpec,
    config: Experiment,
) -> Calibration:
    """Learn a calibration from out-of-fold predictions and write it with its scores.

    Parameters
    ----------
    folder : pathlib.Path
        Of the stage.
    oof, test : Predictions
    examples : pandas.DataFrame
        Groups, and truth of the training rows.
    test_truth : pandas.DataFrame or None
        Of a labelled test part, which then judges it once more (``test`` in the file).
    spec : DatasetSpec
    config : Experiment
        ``calibration`` and ``seed``.

    Returns
    -------
    Calibration
    """
    classes, groups = list(spec.classes), examples["group_id"]
    truth = examples.loc[oof.table.index, classes]
    found = Calibration.fit(
        oof.probabilities, truth, groups, spec, config.calibration, seed=config.seed
    )
    content = found.to_mapping()
    if test is not None and test_truth is not None:
        content["test"] = found.judge(
            test.probabilities, test_truth, groups, spec, seed=config.seed
        )
    write_json(folder / FILE, content)
    plot_calibration(content, folder / "calibration.png")
    return found
