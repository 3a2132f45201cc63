"""Made-up examples and predictions of every task, for the tests of evaluation, report, explore."""

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from kaggle_pipeline.data.examples import validate_examples
from kaggle_pipeline.data.spec import AGE_YEARS, DatasetSpec, SubmissionFormat
from kaggle_pipeline.metrics.task import Task

SITES = ("arm", "leg", "toe")
PNG = b"\x89PNG\r\n\x1a\n"


def make_spec(
    task: Task = "binary", classes: tuple[str, ...] = ("target",), group: str | None = "patient"
) -> DatasetSpec:
    """Return a spec with age, sex and site."""
    return DatasetSpec(
        id="made_up", group=group, task=task, classes=classes, numeric={"age_years": AGE_YEARS},
        categorical={"sex": ("female", "male"), "site": SITES}, record_fields=(),
        submission=SubmissionFormat("image", {name: name for name in classes}),
        read_raw=lambda folder: None, source="nowhere",
    )  # fmt: skip


SPECS = {
    "binary": make_spec(),
    "multilabel": make_spec("multilabel", ("melanoma", "keratosis"), group=None),
    "multiclass": make_spec("multiclass", tuple("abcdefg"), group="lesion"),
}


def make_examples(spec: DatasetSpec, n: int = 600, seed: int = 0) -> pd.DataFrame:
    """Return validated rows, a sixth of them test; on average three images a group."""
    rng = np.random.default_rng(seed)
    k = len(spec.classes)
    if spec.task == "multiclass":
        targets = np.eye(k)[rng.choice(k, n, p=np.r_[0.4, np.full(k - 1, 0.6 / (k - 1))])]
    else:
        targets = (rng.random((n, k)) < 0.25).astype(float)
    group = rng.integers(0, n // 3, n)
    table = pd.DataFrame(
        {
            "image_id": [f"img_{i}" for i in rng.permutation(n)],
            "group_id": [f"IP_{one:05d}" for one in group],
            "split": np.where(group < n // 18, "test", "train"),
            "age_years": np.where(rng.random(n) < 0.05, np.nan, 5.0 * rng.integers(3, 17, n)),
            "sex": rng.choice(np.array(["female", "male", None], object), n, p=[0.5, 0.45, 0.05]),
            "site": rng.choice(np.array(SITES, object), n, p=[0.6, 0.39, 0.01]),
        }
    )
    table[list(spec.classes)] = targets
    return validate_examples(table, spec)


def make_probabilities(examples: pd.DataFrame, spec: DatasetSpec, seed: int = 0) -> pd.DataFrame:
    """Return probabilities of the training rows that know something of the truth."""
    rng = np.random.default_rng(seed)
    truth = examples.loc[examples["split"] == "train", list(spec.classes)]
    odds = np.exp(rng.normal(-1, 1, truth.shape) + 1.5 * truth.to_numpy())
    softmax = spec.task == "multiclass"
    values = odds / (odds.sum(axis=1, keepdims=True) if softmax else 1 + odds)
    return pd.DataFrame(values, truth.index, list(spec.classes))


def is_picture(path: Path) -> bool:
    """Whether ``path`` is a whole PNG with more than one colour on it."""
    with Image.open(path) as image:
        image.load()
        low, high = image.convert("L").getextrema()
    return Path(path).read_bytes().startswith(PNG) and low < high
