"""Fixtures of many test files: drawn data sets, a finished run, a spec, small examples."""

import fcntl
import os
import random
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers_demo import demo_words
from hypothesis import settings

from kaggle_pipeline.cli.main import main
from kaggle_pipeline.config.experiment import FoldsConfig
from kaggle_pipeline.core import figures
from kaggle_pipeline.data.examples import split_rows, validate_examples
from kaggle_pipeline.data.folds import Folds, make_folds
from kaggle_pipeline.data.spec import DatasetSpec
from kaggle_pipeline.datasets.synthetic import SPEC
from kaggle_pipeline.synthetic import MADE_UP, generate_like
from kaggle_pipeline.synthetic.siim_isic_2020 import generate

# No test asserts on the clock: a busy machine takes longer.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

_FIRST = ("test_app.py", "test_service.py", "test_families.py", "test_client.py", "test_session.py")
"""Files that wait long for one thing: begun last, they would keep one worker when all others are
done."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first."""
    items.sort(key=lambda item: item.path.name not in _FIRST)


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup() -> None:
    """Make each fixture from the same random numbers, whichever test asks for it first."""
    _seed()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call() -> None:
    """Begin each test with the same random numbers, whatever ran before it in this process."""
    _seed()


def _seed() -> None:
    """Seed what Keras' initial weights are drawn from; TensorFlow only where a test uses it."""
    random.seed(1)
    np.random.seed(1)
    if "tensorflow" in sys.modules:
        sys.modules["tensorflow"].random.set_seed(1)


@pytest.fixture(scope="session", autouse=True)
def one_core() -> Iterator[None]:
    """Let "one process a core" mean this process: each core has a test worker already."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "cpu_count", lambda: 1)
        yield


@pytest.fixture(scope="session", autouse=True)
def coarse_figures() -> Iterator[None]:
    """Draw figures at a quarter of their resolution: most of their time goes into pixels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "DPI", 50)
        yield


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Path]]:
    """``made_once(name, make)``: a folder that ``make(folder)`` fills, once for all test workers.

    The first worker that asks makes it while the others wait. It is for reading: a test that writes
    takes a copy, and a file that has changed by the end fails the session.
    """
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent  # in which each worker has a folder of its own
    found: dict[Path, dict] = {}

    def get(name: str, make: Callable[[Path], object]) -> Path:
        folder, done = root / name, root / f"{name}.done"
        with (root / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)  # of a worker that failed
                folder.mkdir()
                make(folder)
                done.touch()
        found.setdefault(folder, _state(folder))
        return folder

    yield get
    for folder, before in found.items():
        assert _state(folder) == before, f"a test wrote into {folder}, which all share"


def _state(folder: Path) -> dict[Path, tuple[int, int]]:
    """Size and time of every file in a folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in files}


@pytest.fixture(scope="session")
def competition(made_once: Callable[..., Path]) -> Path:
    """A folder with ``competition/`` (24 patients, 48 px) and ``truth.csv``; do not write to it."""

    def draw(folder: Path) -> None:
        generate(folder, patients=24, image_size_px=48, seed=7, mean_images=5)

    return made_once("synthetic", draw)


@pytest.fixture(scope="session")
def collections(made_once: Callable[..., Path]) -> Path:
    """A folder with a small made-up version of each other data set; do not write to it."""

    def draw(folder: Path) -> None:
        for name in MADE_UP:
            if name != "siim_isic_2020":
                generate_like(name, folder / name, images=90, image_size_px=32, seed=7)

    return made_once("collections", draw)


@pytest.fixture(scope="session")
def demo_run(made_once: Callable[..., Path], competition: Path) -> Path:
    """The folder of a finished run of the small demo on ``competition``; do not write to it."""
    pytest.importorskip("tensorflow")

    def run(folder: Path) -> None:
        assert main(["run-pipeline", *demo_words(competition / "competition", folder)]) == 0

    return made_once("demo_run", run)


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
