"""TabularModel: settings in ``__init__``, data in ``fit``, answers by image id.

In: examples. Out: probabilities by id; weights, and the scaler's bounds as JSON.
"""

from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from kaggle_pipeline.balance import label_sets
from kaggle_pipeline.config import TabularConfig
from kaggle_pipeline.configfile import to_mapping
from kaggle_pipeline.encode import FeatureEncoder, choose_features
from kaggle_pipeline.rundir import atomic_path, read_json, write_json
from kaggle_pipeline.spec import DatasetSpec
from kaggle_pipeline.tabular.network import build_network
from kaggle_pipeline.tabular.resample import resample_rows

_WEIGHTS, _SETTINGS, _HISTORY = "model.weights.h5", "model.json", "history.csv"


class TabularModel:
    """Encoder, SMOTE and dense network, all fitted on the rows given to ``fit`` alone.

    Parameters
    ----------
    config : TabularConfig
    spec : DatasetSpec
    features : sequence of str, optional
        By default what the config, else the spec, says.
    seed : int
    jit_compile : bool or "auto"
        For ``keras.Model.compile``.
    verbose : {0, 1, 2}

    Attributes
    ----------
    encoder_ : FeatureEncoder
    network_ : keras.Model
    history_ : pandas.DataFrame
    """

    def __init__(
        self,
        config: TabularConfig,
        spec: DatasetSpec,
        features: Sequence[str] | None = None,
        *,
        seed: int,
        jit_compile: bool | str = "auto",
        verbose: int = 0,
    ) -> None:
        self.config = config
        self.spec = spec
        self.features = config.features if features is None else features
        self.seed = seed
        self.jit_compile = jit_compile
        self.verbose = verbose

    @property
    def selection(self) -> str:
        """Which rows ``fit`` may choose an epoch by: ``inner`` with patience, else ``none``."""
        return "none" if self.config.patience is None else "inner"

    @property
    def inner_share(self) -> float:
        """Share of the training groups to hold out where ``selection`` is ``inner``."""
        return self.config.inner_share

    def fit(self, train: pd.DataFrame, valid: pd.DataFrame | None) -> "TabularModel":
        """Fit the encoder, invent rare rows and train.

        Parameters
        ----------
        train : pandas.DataFrame
        valid : pandas.DataFrame or None
            Rows that stop the training early where ``patience`` is set; else only watched.
        """
        config = self.config
        numeric, categorical = choose_features(self.spec, self.features, train)
        indicators = config.missing == "indicator"
        self.encoder_ = FeatureEncoder(numeric, categorical, indicators).fit(train)
        targets = train[list(self.spec.classes)].to_numpy(np.float32)
        sets, codes = label_sets(targets)
        x, codes = resample_rows(train, codes, self.encoder_, config.resampling, self.seed)
        keras.utils.set_random_seed(self.seed)
        self.network_ = self._build(x.shape[1])
        self.network_.compile(
            optimizer=keras.optimizers.Adam(config.learning_rate),
            loss="categorical_crossentropy" if self._is_softmax else "binary_crossentropy",
            metrics=[self._auc()],
            jit_compile=self.jit_compile,
        )
        watched = None
        if valid is not None and len(valid):
            watched = (self.encoder_.transform(valid), valid[list(self.spec.classes)].to_numpy(int))
        fitted = self.network_.fit(
            x,
            np.concatenate([targets, sets[codes[len(targets) :]]]),  # originals come first
            batch_size=config.batch_size,
            epochs=config.epochs,
            validation_data=watched,
            callbacks=self._stopping(watched is not None),
            verbose=self.verbose,
        )
        self.history_ = pd.DataFrame(fitted.history).rename_axis("epoch").reset_index()
        return self

    def predict(self, examples: pd.DataFrame) -> pd.DataFrame:
        """Return probabilities: index ``image_id`` in the examples' order, a column a class."""
        x = self.encoder_.transform(examples)
        found = self.network_.predict(x, batch_size=8192, verbose=0)
        return pd.DataFrame(found.astype(float), examples.index, list(self.spec.classes))

    def save(self, folder: Path) -> None:
        """Write weights, and settings with the encoder's bounds as JSON."""
        folder = Path(folder)
        bare = keras.Model(self.network_.inputs, self.network_.outputs)  # leaves the optimizer out
        with atomic_path(folder / _WEIGHTS) as temporary:
            bare.save_weights(temporary)
        if hasattr(self, "history_"):
            with atomic_path(folder / _HISTORY) as temporary:
                self.history_.to_csv(temporary, index=False)
        write_json(
            folder / _SETTINGS,
            {
                "dataset": self.spec.id,
                "seed": self.seed,
                "tabular": to_mapping(self.config),
                **self.encoder_.to_mapping(),
            },
        )

    def load(self, folder: Path) -> "TabularModel":
        """Read what :meth:`save` wrote; ``predict`` then gives the same numbers."""
        settings = read_json(Path(folder) / _SETTINGS)
        self.encoder_ = FeatureEncoder.from_mapping(settings)
        self.network_ = self._build(self.encoder_.width)
        self.network_.load_weights(Path(folder) / _WEIGHTS)
        return self

    @property
    def _is_softmax(self) -> bool:
        return self.spec.task == "multiclass"

    def _build(self, width: int) -> keras.Model:
        activation = "softmax" if self._is_softmax else "sigmoid"
        config = self.config
        outputs = len(self.spec.classes)
        return build_network(width, outputs, activation, config.hidden, config.dropout)

    def _auc(self) -> keras.metrics.Metric:
        count = len(self.spec.classes)
        several = {"multi_label": True, "num_labels": count} if count > 1 else {}
        return keras.metrics.AUC(name="auc", num_thresholds=1000, **several)

    def _stopping(self, watches: bool) -> list[keras.callbacks.Callback]:
        if self.config.patience is None or not watches:
            return []
        return [
            keras.callbacks.EarlyStopping(
                "val_auc", mode="max", patience=self.config.patience, restore_best_weights=True
            )
        ]
