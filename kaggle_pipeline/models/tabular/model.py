"""TabularModel: settings in ``__init__``, data in ``fit``, answers by image id.

In: examples. Out: probabilities by id; weights, and the scaler's bounds as JSON.
"""

from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import pandas as pd
from scipy.special import softmax

from kaggle_pipeline.config.experiment import TabularConfig
from kaggle_pipeline.config.loading import to_mapping
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.files import SAVED, atomic_path, read_json, write_json
from kaggle_pipeline.core.record import require_written
from kaggle_pipeline.data.examples import require_choice
from kaggle_pipeline.data.metadata_encoder import FeatureEncoder, choose_features
from kaggle_pipeline.data.spec import DatasetSpec
from kaggle_pipeline.metrics.roc_bootstrap import roc_auc
from kaggle_pipeline.models.class_balance import label_sets
from kaggle_pipeline.models.tabular.network import build_network
from kaggle_pipeline.models.tabular.numpy_adam import NumpyAdam
from kaggle_pipeline.models.tabular.smote import resample_rows
from kaggle_pipeline.models.weights_file import save_weights

_WEIGHTS, _HISTORY = "model.weights.h5", "history.csv"


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
        For ``keras.Model.compile``: how ``predict`` runs.

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
    ) -> None:
        self.config = config
        self.spec = spec
        self.features = config.features if features is None else features
        self.seed = seed
        self.jit_compile = jit_compile

    @property
    def selection(self) -> str:
        """Which rows ``fit`` may choose an epoch by: ``inner`` with patience, else ``none``."""
        return self.config.selection

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

        Raises
        ------
        PipelineError
            If ``patience`` is set and they hold no image of a class, or of a class alone.
        """
        config = self.config
        if self.selection != "none":
            require_choice(valid, self.spec, config.choice_advice)
        numeric, categorical = choose_features(self.spec, self.features, train)
        indicators = config.missing == "indicator"
        self.encoder_ = FeatureEncoder(numeric, categorical, indicators).fit(train)
        targets = train[list(self.spec.classes)].to_numpy(np.float32)
        sets, codes = label_sets(targets)
        x, codes = resample_rows(train, codes, self.encoder_, config.resampling, self.seed)
        keras.utils.set_random_seed(self.seed)
        self.network_ = self._build(x.shape[1])
        # No row teaches the weights of a column that is 0 in all of them (a word never seen): as
        # they were drawn they would be noise in an answer.
        kernel, *others = self.network_.get_weights()
        self.network_.set_weights([kernel * x.any(axis=0)[:, None], *others])
        validation = None
        if valid is not None and len(valid):
            truth = valid[list(self.spec.classes)].to_numpy(np.float32)
            validation = (self.encoder_.transform(valid), truth)
        # Originals come first.
        y = np.concatenate([targets, sets[codes[len(targets) :]]]).astype(np.float32)
        self.history_ = self._descend(x, y, validation)
        return self

    def _descend(
        self, x: np.ndarray, y: np.ndarray, validation: tuple[np.ndarray, np.ndarray] | None
    ) -> pd.DataFrame:
        """Train the network; return a row an epoch.

        Where ``patience`` is set, the weights of the first epoch with the best watched AUC stay; an
        epoch whose AUC is NaN is no better and no worse.
        """
        config, rows, best, worse = self.config, [], (-np.inf, None), 0
        with NumpyAdam(
            self.network_.get_weights(),
            softmax=self._is_softmax,
            dropout=config.dropout,
            batch_size=config.batch_size,
            learning_rate=config.learning_rate,
            seed=self.seed,
        ) as descent:
            for epoch in range(config.epochs):
                said = descent.run_epoch(x, y)
                row = {"epoch": epoch, "loss": descent.loss(said, y), "auc": self._auc(y, said)}
                if validation:
                    said = descent.logits(validation[0])
                    row |= {
                        "val_loss": descent.loss(said, validation[1]),
                        "val_auc": self._auc(validation[1], said),
                    }
                rows.append(row)
                if config.patience is None:
                    continue
                if row["val_auc"] > best[0]:
                    best, worse = (row["val_auc"], descent.weights), 0
                elif row["val_auc"] <= best[0]:
                    worse += 1
                if worse >= config.patience:
                    break
            self.network_.set_weights(best[1] or descent.weights)
        return pd.DataFrame(rows)

    def _auc(self, truth: np.ndarray, logits: np.ndarray) -> float:
        # A softmax ranks rows otherwise than its logits do.
        return roc_auc(truth, softmax(logits, axis=1) if self._is_softmax else logits)

    def predict(self, examples: pd.DataFrame) -> pd.DataFrame:
        """Return probabilities: index ``image_id`` in the examples' order, a column a class."""
        x = self.encoder_.transform(examples)
        found = self.network_.predict(x, batch_size=8192, verbose=0)
        return pd.DataFrame(found.astype(float), examples.index, list(self.spec.classes))

    def save(self, folder: Path) -> None:
        """Write weights, and settings with the encoder's bounds as JSON."""
        folder = Path(folder)
        bare = keras.Model(self.network_.inputs, self.network_.outputs)  # leaves the optimizer out
        save_weights(bare, folder / _WEIGHTS)
        if hasattr(self, "history_"):
            with atomic_path(folder / _HISTORY) as temporary:
                self.history_.to_csv(temporary, index=False)
        write_json(
            folder / SAVED,
            {
                "dataset": self.spec.id,
                "seed": self.seed,
                "tabular": to_mapping(self.config),
                **self.encoder_.to_mapping(),
            },
        )

    def load(self, folder: Path) -> "TabularModel":
        """Read what :meth:`save` wrote; ``predict`` then gives the same numbers.

        Raises
        ------
        PipelineError
            If a file is missing, damaged or not what was written.
        """
        settings = read_json(Path(folder) / SAVED)
        self.encoder_ = FeatureEncoder.from_mapping(settings)
        self.network_ = self._build(self.encoder_.width)
        path = Path(folder) / _WEIGHTS
        require_written(path)
        try:
            self.network_.load_weights(path)
        except (OSError, ValueError, KeyError) as error:  # h5py's, Keras'
            reason = str(error).strip().splitlines()[0]
            raise PipelineError(f"{path} cannot be read ({reason}): train that fold anew") from None
        return self

    @property
    def _is_softmax(self) -> bool:
        return self.spec.task == "multiclass"

    def _build(self, width: int) -> keras.Model:
        activation = "softmax" if self._is_softmax else "sigmoid"
        config = self.config
        outputs = len(self.spec.classes)
        network = build_network(width, outputs, activation, config.hidden, config.dropout)
        network.compile(jit_compile=self.jit_compile)
        return network
