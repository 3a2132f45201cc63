"""Learners beside the dense network: boosted trees, a forest, logistic regression.

In: examples, as the dense network gets them. Out: probabilities by id; arrays and JSON on disk.
"""

import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kaggle_pipeline.config.experiment import TabularConfig
from kaggle_pipeline.config.loading import to_mapping
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.files import SAVED, atomic_path, read_json, write_json
from kaggle_pipeline.core.private_api import boosting_baseline
from kaggle_pipeline.core.record import require_written
from kaggle_pipeline.data.metadata_encoder import FeatureEncoder, choose_features
from kaggle_pipeline.data.spec import DatasetSpec
from kaggle_pipeline.models.tabular.tree_arrays import Trees, from_boosting, from_forest

Arrays = dict[str, np.ndarray]
_ARRAYS = "learner.npz"


def _fit_boosting(x: np.ndarray, y: np.ndarray, seed: int) -> Arrays:
    # Small leaves learn single patients: 0.789 with these, 0.786 with 600 steps of 4 leaves.
    from sklearn.ensemble import HistGradientBoostingClassifier

    model = HistGradientBoostingClassifier(
        learning_rate=0.03, max_iter=200, max_leaf_nodes=15, min_samples_leaf=60,
        l2_regularization=5.0, max_features=0.5, early_stopping=False, random_state=seed,
    ).fit(x, y)  # fmt: skip
    return {**from_boosting(model).to_arrays(), "base": boosting_baseline(model)}


def _fit_forest(x: np.ndarray, y: np.ndarray, seed: int) -> Arrays:
    # Geurts, Ernst & Wehenkel 2006, doi:10.1007/s10994-006-6226-1; 0.796 on the 2020 metadata.
    from sklearn.ensemble import ExtraTreesClassifier

    model = ExtraTreesClassifier(
        300, min_samples_leaf=20, max_features=0.4, n_jobs=-1, random_state=seed
    )
    return from_forest(model.fit(x, y)).to_arrays()


def _fit_logistic(x: np.ndarray, y: np.ndarray, seed: int) -> Arrays:
    from sklearn.linear_model import LogisticRegression

    x = x.astype(float)
    spread = x.std(axis=0)  # standardised, so that the penalty is fair
    # A column that is the same in every row would be a second intercept with no penalty: a row that
    # differs there would lack what it took of the first. It gets no weight.
    spread = np.where(spread > 1e-6, spread, np.inf)
    model = LogisticRegression(C=0.1, max_iter=2000, random_state=seed).fit(x / spread, y)
    return {"weights": (model.coef_ / spread).T, "base": model.intercept_}


def _answer_trees(arrays: Arrays, x: np.ndarray) -> np.ndarray:
    return Trees(**{name: arrays[name] for name in Trees.__annotations__}).total(x)


def _answer_boosting(arrays: Arrays, x: np.ndarray) -> np.ndarray:
    return _from_raw(_answer_trees(arrays, x) + arrays["base"])


def _answer_logistic(arrays: Arrays, x: np.ndarray) -> np.ndarray:
    return _from_raw(x @ arrays["weights"] + arrays["base"])


def _from_raw(raw: np.ndarray) -> np.ndarray:
    from scipy.special import expit, softmax

    if raw.shape[1] > 1:
        return softmax(raw, axis=1)
    positive = expit(raw)
    return np.hstack([1 - positive, positive])


LEARNERS: dict[str, tuple[Callable[..., Arrays], Callable[[Arrays, np.ndarray], np.ndarray]]] = {
    "boosting": (_fit_boosting, _answer_boosting),
    "forest": (_fit_forest, _answer_trees),
    "logistic": (_fit_logistic, _answer_logistic),
}
"""How each learns, and how it answers from what it learned: a probability a class."""


class LearnerModel:
    """Encoder and a scikit-learn learner, fitted on the rows given to ``fit`` alone.

    No row is invented and none weighed: these learners' probabilities stay those of the data.

    Parameters
    ----------
    learner : {"boosting", "forest", "logistic"}
    config : TabularConfig
    spec : DatasetSpec
    features : sequence of str
    seed : int

    Attributes
    ----------
    encoder_ : FeatureEncoder
    arrays_ : list of dict of str to numpy.ndarray
        What was learned: one entry, or one a class of a ``multilabel`` task.
    """

    selection = "none"
    inner_share = 0.0

    def __init__(
        self,
        learner: str,
        config: TabularConfig,
        spec: DatasetSpec,
        features: Sequence[str],
        *,
        seed: int,
    ) -> None:
        self.learner = learner
        self.config = config
        self.spec = spec
        self.features = features
        self.seed = seed

    def fit(self, train: pd.DataFrame, valid: pd.DataFrame | None) -> "LearnerModel":
        """Learn from ``train``; ``valid`` is not looked at."""
        numeric, categorical = choose_features(self.spec, self.features, train)
        # Trees tell a missing value from a small one by a column of its own.
        self.encoder_ = FeatureEncoder(numeric, categorical, indicators=True).fit(train)
        x = self.encoder_.transform(train)
        targets = train[list(self.spec.classes)].to_numpy(int)
        self._require_rows(targets)
        is_softmax = self.spec.task == "multiclass"
        questions = [targets.argmax(axis=1)] if is_softmax else targets.T
        fit, _ = LEARNERS[self.learner]
        self.arrays_ = [fit(x, answers, self.seed) for answers in questions]
        return self

    def predict(self, examples: pd.DataFrame) -> pd.DataFrame:
        """Return probabilities: index ``image_id`` in the examples' order, a column a class."""
        x = self.encoder_.transform(examples)
        _, answer = LEARNERS[self.learner]
        found = [answer(arrays, x) for arrays in self.arrays_]
        if self.spec.task == "multiclass":
            values = found[0]
        else:
            values = np.stack([both[:, 1] for both in found], axis=1)
        values = np.clip(values, 0.0, 1.0)  # a mean of 300 ones is 1 but for the last bit
        return pd.DataFrame(values, examples.index, list(self.spec.classes))

    def save(self, folder: Path) -> None:
        """Write what was learned as arrays, and settings with the encoder's bounds as JSON."""
        arrays = {
            f"{number}.{name}": array
            for number, part in enumerate(self.arrays_)
            for name, array in part.items()
        }
        with atomic_path(Path(folder) / _ARRAYS) as temporary:
            np.savez_compressed(temporary, **arrays)
        settings: dict[str, Any] = {
            "learner": self.learner,
            "dataset": self.spec.id,
            "seed": self.seed,
            "tabular": to_mapping(self.config),
            "parts": len(self.arrays_),
            "encoder": self.encoder_.to_mapping(),
        }
        write_json(Path(folder) / SAVED, settings)

    def load(self, folder: Path) -> "LearnerModel":
        """Read what :meth:`save` wrote; ``predict`` then gives the same numbers.

        Raises
        ------
        PipelineError
            If a file is missing or damaged.
        """
        settings = read_json(Path(folder) / SAVED)
        self.encoder_ = FeatureEncoder.from_mapping(settings["encoder"])
        path = Path(folder) / _ARRAYS
        require_written(path)
        try:
            with np.load(path, allow_pickle=False) as stored:
                self.arrays_ = [
                    {
                        name.partition(".")[2]: stored[name]
                        for name in stored.files
                        if name.startswith(f"{number}.")
                    }
                    for number in range(settings["parts"])
                ]
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise PipelineError(f"{path} cannot be read ({error}): train that fold again") from None
        return self

    def _require_rows(self, targets: np.ndarray) -> None:
        """Stop where a class cannot be learned: it has no row, or every row."""
        for name, answers in zip(self.spec.classes, targets.T, strict=True):
            if np.ptp(answers) == 0:
                raise PipelineError(
                    f"{self.learner}: all {len(answers)} training rows of a fold have {name} = "
                    f"{answers[0]}: use fewer folds"
                )
