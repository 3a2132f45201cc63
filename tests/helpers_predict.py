"""Photos of a finished run's test part as new ones, with their metadata."""

import numpy as np
import pandas as pd

from kaggle_pipeline.cli.main import main
from kaggle_pipeline.evaluation.calibration.calibration import read_calibration
from kaggle_pipeline.evaluation.decision.decision import read_decision


def predict_test_part(run, images, folder, drop=()):
    """Return what ``predict --metadata`` writes of the run's test photos; rows come shuffled."""
    examples = pd.read_csv(run / "prepare" / "examples.csv", dtype={"image_id": str})
    test = examples[examples["split"] == "test"].rename(columns={"group_id": "patient_id"})
    rows = test[["sex", "image_id", "site", "patient_id", "age_years"]].sample(
        frac=1, random_state=0
    )
    rows.drop(columns=list(drop)).to_csv(folder / "new.csv", index=False)
    words = ["--run-dir", run, "--images", images, "--metadata", folder / "new.csv",
             "--out", folder / "out.csv", "--overwrite"]  # fmt: skip
    assert main(["predict", *map(str, words)]) == 0
    return pd.read_csv(folder / "out.csv", index_col="image_id")


def require_the_submission(run, found):
    """Raise unless these are the blend's test predictions, calibrated and decided as they were."""
    known = pd.read_csv(run / "blend" / "test.csv", index_col="image_id")[["target"]]
    assert set(found.index) == set(known.index)
    known = known.loc[found.index]
    np.testing.assert_allclose(found["melanoma"], known["target"], atol=1e-5)
    calibrated = read_calibration(run / "blend").apply(known)
    np.testing.assert_allclose(found["melanoma_calibrated"], calibrated["target"], atol=1e-5)
    decided = read_decision(run / "blend").decide(calibrated, {"target": "melanoma"})
    assert (found["decision"] == decided).mean() > 0.98  # ties at 1e-5
