"""Calibration and decision of a judged stage.

In: a stage's out-of-fold predictions. Out: its ``calibration.json`` and ``decision.json`` with
their pictures. A stage's predictions stay as the models gave them.
"""

from pathlib import Path

import pandas as pd

from kaggle_pipeline.config.experiment import Experiment
from kaggle_pipeline.core.files import write_json
from kaggle_pipeline.data.predictions import Predictions
from kaggle_pipeline.data.spec import DatasetSpec
from kaggle_pipeline.evaluation.calibration.calibration import FILE, Calibration
from kaggle_pipeline.evaluation.calibration.plots import plot_calibration
from kaggle_pipeline.evaluation.decision.decision import FILE as DECISION_FILE
from kaggle_pipeline.evaluation.decision.decision import Decision
from kaggle_pipeline.evaluation.decision.plots import plot_decision
from kaggle_pipeline.evaluation.labelled import join_truth

REPLICATES = 1000
"""Of the bootstrap."""


def calibrate_stage(
    folder: Path,
    oof: Predictions,
    test: Predictions | None,
    examples: pd.DataFrame,
    test_truth: pd.DataFrame | None,
    spec: DatasetSpec,
    config: Experiment,
) -> tuple[Calibration, Decision]:
    """Learn calibration and decision from out-of-fold predictions; write them with their scores.

    Parameters
    ----------
    folder : pathlib.Path
        Of the stage.
    oof, test : Predictions
    examples : pandas.DataFrame
        Groups, and truth of the training rows.
    test_truth : pandas.DataFrame or None
        Of a labelled test part, which then judges both once more (``test`` in the files).
    spec : DatasetSpec
    config : Experiment
        ``calibration``, ``decision`` and ``seed``.
    """
    classes, groups, seed = list(spec.classes), examples["group_id"], config.seed
    truth = examples.loc[oof.table.index, classes]
    found = Calibration.fit(oof.probabilities, truth, groups, spec, config.calibration, seed=seed)
    labelled = join_truth(examples, oof.probabilities, spec, seed, REPLICATES, None)
    decision = Decision.fit(labelled, found, config.decision, seed=seed)
    calibrating, deciding = found.to_mapping(), decision.to_mapping()
    if test is not None and test_truth is not None:
        calibrating["test"] = found.evaluate(
            test.probabilities, test_truth, groups, spec, seed=seed
        )
        labelled = join_truth(examples, test.probabilities, spec, seed, REPLICATES, test_truth)
        calibrated = found.apply(test.probabilities).to_numpy()
        deciding["test"] = decision.evaluate(labelled, calibrated)
    write_json(folder / FILE, calibrating)
    words = {name: spec.class_label(name) for name in classes}
    plot_calibration({**calibrating, "class_labels": words}, folder / "calibration.png")
    write_json(folder / DECISION_FILE, deciding)
    plot_decision({**deciding, "class_labels": words}, folder / "decision.png")
    return found, decision
