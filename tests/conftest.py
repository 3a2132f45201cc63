"""Fixtures that more than one test file uses: a drawn competition, its spec, small examples."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kaggle_pipeline.config.experiment import FoldsConfig
from kaggle_pipeline.data.examples import split_rows, validate_examples
from kaggle_pipeline.data.folds import Folds, make_folds
from kaggle_pipeline.data.spec import DatasetSpec
from kaggle_pipeline.datasets.synthetic import SPEC
from kaggle_pipeline.synthetic.siim_isic_2020 import generate

_FIRST = ("test_app.py", "test_service.py", "test_families.py", "test_client.py", "test_session.py")
"""Files that wait long for one thing: begun last, they would keep one worker when all others are
done."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first."""
    items.sort(key=lambda item: item.path.name not in _FIRST)


@pytest.fixture(scope="session")
def competition(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``competition/`` (24 patients, 48 px) and ``truth.csv``; do not write to it."""
    root = tmp_path_factory.mktemp("synthetic")
    generate(root, patients=24, image_size_px=48, seed=7, mean_images=5, workers=1)
    return root


@pytest.fixture(scope="session")
def spec() -> DatasetSpec:
    """The spec of the synthetic data set."""
    return SPEC


@pytest.fixture(scope="session")
def small_examples(spec: DatasetSpec) -> Callable[..., pd.DataFrame]:
    """``small_examples(patients=12, images=6, seed=0)``: validated rows without image files.

    A quarter of the patients are test; every second patient has a positive, older ones more.
    """

    def build(patients: int = 12, images: int = 6, seed: int = 0) -> pd.DataFrame:
        rng = np.random.default_rng(seed)
        n = patients * images
        patient = np.repeat(np.arange(patients), images)
        number = np.tile(np.arange(images), patients)
        in_test = patient >= patients - max(1, patients // 4)
        age = 5.0 * rng.integers(4, 16, patients)[patient]
        target = (number == 0) & (patient % 2 == 0) | (rng.random(n) < (age - 20) / 300)
        table = pd.DataFrame(
            {
                "image_id": [f"ISIC_{i:07d}" for i in rng.choice(10_000_000, n, replace=False)],
                "group_id": [f"IP_{i:07d}" for i in patient],
                "split": np.where(in_test, "test", "train"),
                "target": np.where(in_test, np.nan, target.astype(float)),
                "age_years": np.where(rng.random(n) < 0.05, np.nan, age),
                "diagnosis": np.where(in_test, None, np.where(target, "melanoma", "unknown")),
            }
        )
        for column, vocabulary in spec.categorical.items():
            values = rng.choice(np.array(vocabulary, object), n)
            table[column] = np.where(rng.random(n) < 0.05, np.nan, values)
        return validate_examples(table, spec)

    return build


@pytest.fixture
def small_folds(spec: DatasetSpec) -> Callable[..., Folds]:
    """``small_folds(examples, k=3, seed=0)``: folds of the training rows."""

    def build(examples: pd.DataFrame, k: int = 3, seed: int = 0) -> Folds:
        return make_folds(split_rows(examples, "train"), spec, FoldsConfig(k=k), seed)

    return build
