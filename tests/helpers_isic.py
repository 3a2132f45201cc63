"""What the ISIC challenges' own program says of made-up predictions; ``main`` writes it down.

The program is ``isic-challenge-scoring`` of PyPI, which needs pandas < 3: in an environment of its
own, ``pip install isic-challenge-scoring 'pandas<3'`` and, from the repository's root,
``PYTHONPATH=. python tests/helpers_isic.py`` writes ``tests/metrics/isic_challenge_scoring.json``.
"""

import io
import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd

from kaggle_pipeline.data.predictions import Predictions
from kaggle_pipeline.data.spec import DatasetSpec
from kaggle_pipeline.data.submission import build_submission
from kaggle_pipeline.datasets import ham10000, isic_2017

GOLDENS = Path(__file__).parent / "metrics" / "isic_challenge_scoring.json"
SPECS: dict[str, DatasetSpec] = {"ham10000": ham10000.SPEC, "isic_2017": isic_2017.SPEC}
UNSCORED = "ISIC_0035068"
"""The challenge of 2018 gives this image of its test part the weight 0."""


def made_up(name: str, n: int = 400) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return truth and probabilities by image id, a column a class, some of them rounded to ties.

    ``RandomState`` draws the same numbers in every version of NumPy.
    """
    spec, rng = SPECS[name], np.random.RandomState(2018)
    k = len(spec.classes)
    if spec.task == "multiclass":
        truth = np.eye(k)[rng.choice(k, n, p=[0.2, 0.4, 0.1, 0.08, 0.12, 0.05, 0.05])]
        logits = 1.2 * truth + rng.randn(n, k)
        found = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    else:
        truth = (rng.rand(n, k) < 0.25).astype(float)
        found = (1 / (1 + np.exp(-1.5 * truth + 0.7 - rng.randn(n, k)))).round(2)
    ids = pd.Index([f"ISIC_{35_000 + i:07d}" for i in range(n)], name="image_id")
    return tuple(pd.DataFrame(values, ids, list(spec.classes)) for values in (truth, found))


def submission_of(name: str) -> pd.DataFrame:
    """Return what this package writes for the made-up predictions."""
    _, found = made_up(name)
    fold = pd.Series(0, found.index)
    return build_submission(Predictions.build(found, fold, "test"), SPECS[name], None)


def main() -> None:
    """Ask the challenge's program and write its answers."""
    from isic_challenge_scoring.classification import ClassificationMetric, ClassificationScore

    answers = {}
    for name, spec in SPECS.items():
        truth, _ = made_up(name)
        columns = {of_class: column for column, of_class in spec.submission.columns.items()}
        # It calls the id `image` in every year; that of 2017 was `image_id`.
        id_column = {spec.submission.id_column: "image"}
        files = (
            truth.rename(columns=columns).rename_axis("image").reset_index(),
            submission_of(name).rename(columns=id_column),
        )
        score = ClassificationScore.from_stream(
            *(io.StringIO(one.to_csv(index=False)) for one in files),
            ClassificationMetric.BALANCED_ACCURACY,
        )
        answers[name] = score.to_dict(rocs=False)
    content = {"isic-challenge-scoring": version("isic-challenge-scoring"), **answers}
    GOLDENS.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
