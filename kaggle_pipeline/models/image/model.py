"""ImageModel: settings in ``__init__``, data in ``fit``, answers by image id.

In: examples and an index of the records that hold their images. Out: probabilities by id, weights
(``model.weights.h5``), settings (``model.json``), ``history.csv`` a row an epoch, TensorBoard logs.
"""

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from kaggle_pipeline.config.image import ImageConfig
from kaggle_pipeline.core.deadline import Deadline
from kaggle_pipeline.data.examples import require_choice
from kaggle_pipeline.data.metadata_encoder import FeatureEncoder
from kaggle_pipeline.data.spec import DatasetSpec
from kaggle_pipeline.hardware.accelerator import Accelerator
from kaggle_pipeline.models.image.backbones.weights import load_weights, set_weights
from kaggle_pipeline.models.image.fit.callbacks import (
    StepsAhead,
    TensorBoard,
    ValidationScores,
)
from kaggle_pipeline.models.image.fit.checkpoint import EpochKeeper
from kaggle_pipeline.models.image.fit.training import (
    augments_on_device,
    compile_network,
    compiled_network,
    trained_model,
    training_rows,
)
from kaggle_pipeline.models.image.inference.predictor import Predictor, running
from kaggle_pipeline.models.image.inference.tta import VIEWS, with_views
from kaggle_pipeline.models.image.input.pipeline import training_batches
from kaggle_pipeline.models.image.label_mapping import class_probabilities
from kaggle_pipeline.models.image.metadata_branch import metadata_encoder, silence_unlearned
from kaggle_pipeline.models.image.network import build_network, unlike_before
from kaggle_pipeline.models.image.saving import WEIGHTS, read_settings, write_model


class ImageModel:
    """A convolutional network trained on the records of its training rows.

    Parameters
    ----------
    config : ImageConfig
    spec : DatasetSpec
    shards_of : callable
        From image ids to the shards that hold them.
    device : Accelerator
    folder : pathlib.Path
        Where checkpoints, history and logs go while it trains.
    seed : int
    swap_red_blue : bool
        For records that somebody wrote as BGR.
    features_dir : pathlib.Path, optional
        Where a frozen body's features are kept for all folds; by default beside ``folder``.
    deadline : Deadline, optional
        A fit stops before it, to be gone on with.
    callbacks : sequence of keras.callbacks.Callback
        Further ones of every fit.
    verbose : {0, 1, 2}
        Of Keras: silent, progress bar, a line an epoch; unless silent, predictions too show how
        far they are.

    Attributes
    ----------
    network_ : keras.Model
        After ``fit`` or ``load``; it answers the question that ``config.target`` names.
    encoder_ : FeatureEncoder or None
        After ``fit`` or ``load``: of the metadata, where ``config.metadata`` asks for it.
    history_ : pandas.DataFrame
        After ``fit``: a row an epoch.
    """

    def __init__(
        self,
        config: ImageConfig,
        spec: DatasetSpec,
        shards_of: Callable[[pd.Index], list[Path]],
        device: Accelerator,
        folder: Path,
        *,
        seed: int,
        swap_red_blue: bool = False,
        features_dir: Path | None = None,
        deadline: Deadline | None = None,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        verbose: int = 0,
    ) -> None:
        self.config = config
        self.spec = spec
        self.device = device
        # Each worker has a run folder of its own and answers for itself.
        self._predicting = device if device.workers == 1 else device.alone()
        self.deadline = deadline or Deadline.after(None)
        self.folder = Path(folder)
        self.seed = seed
        self.callbacks = tuple(callbacks)
        self.verbose = verbose
        self._predictor = Predictor(
            config, self.spec, shards_of, self._predicting,
            features_dir or self.folder.parent / "features", swap_red_blue, verbose > 0,
            self.deadline,
        )  # fmt: skip

    @property
    def selection(self) -> str:
        """Which rows ``fit`` may choose an epoch by: ``none``, ``inner`` or ``fold``."""
        return self.config.selection

    @property
    def inner_share(self) -> float:
        """Share of the training groups to hold out where ``selection`` is ``inner``."""
        return self.config.inner_share

    @property
    def _batch_size(self) -> int:
        return self.config.batch_size * self.device.replicas

    def fit(self, train: pd.DataFrame, valid: pd.DataFrame | None) -> "ImageModel":
        """Train; a fit that was stopped goes on after the last whole epoch in ``folder``.

        Parameters
        ----------
        train : pandas.DataFrame
            Examples to learn from.
        valid : pandas.DataFrame or None
            Examples to watch; they choose the epoch only where ``selection`` says so.

        Raises
        ------
        PipelineError
            If they are to choose and hold no image of a class, or of a class alone.
        """
        # A network of one class has nothing to learn from a row whose label it lacks.
        train = train.dropna(subset=list(self.spec.classes), how="all")
        if self.selection != "none":
            require_choice(valid, self.spec, self.config.choice_advice)
        keras.utils.set_random_seed(self.seed)
        self.encoder_ = metadata_encoder(self.spec).fit(train) if self.config.metadata else None
        if self.config.frozen:
            self._fit_head(train, valid)
        else:
            self._fit_network(train, valid)
        return self

    def _fit_network(self, train: pd.DataFrame, valid: pd.DataFrame | None) -> None:
        config = self.config
        rows = training_rows(train, config, self.spec, self.seed, self._metadata(train))
        steps = config.steps_per_epoch or max(1, rows.shown // self._batch_size)
        with running(self.device, config):
            masked = {"labels_missing": rows.labels_missing}
            network = compiled_network(config, self.spec, steps, self.device, **masked)
            if rows.metadata is not None:
                silence_unlearned(network, rows.metadata)
            model = trained_model(network, config, self.spec, steps, self.device, **masked)
            keeper = self._keeper(steps)
            first_epoch = keeper.resume(network)
        validation_callbacks = self._validation_callbacks(network, valid)
        with running(self.device, config, building=False):
            stream = training_batches(
                self._predictor.source(train.index), rows, config, batch_size=self._batch_size,
                steps_per_epoch=steps, first_epoch=first_epoch, seed=self.seed,
                on_device=augments_on_device(config, self.device),
            )  # fmt: skip
            model.fit(
                stream,
                epochs=config.epochs,
                initial_epoch=first_epoch,
                steps_per_epoch=steps,
                callbacks=[
                    StepsAhead(),
                    *validation_callbacks,
                    keeper,
                    *self.callbacks,
                    *self._tensorboard(),
                ],
                shuffle=False,  # the stream does
                verbose=self.verbose,
            )
            keeper.restore_best(network)
        self.network_, self.history_ = self._own_copy(network), keeper.history

    def _keeper(self, steps: int | None = None) -> EpochKeeper:
        """Return what writes every epoch down; without ``steps`` a stopped fit starts again."""
        return EpochKeeper(
            self.folder, keep_best=self.selection != "none", seed=self.seed,
            keep_state=steps is not None, deadline=self.deadline,
            begun_with={
                "global batch": self._batch_size, "steps an epoch": steps,
                **unlike_before(self.config),
            },
            all_min=self.device.all_min if self.device.workers > 1 else None,
        )  # fmt: skip

    def _validation_callbacks(
        self, network: keras.Model, valid: pd.DataFrame | None
    ) -> list[ValidationScores]:
        if valid is None or valid.empty:
            return []
        config = self.config
        own = self._own_copy(network)
        with running(self._predicting, self.config):
            tta_model = self._predictor.compiled(
                with_views(self._predictor.fused(own), VIEWS["none"])
            )
        metadata = self._metadata(valid)

        def answer() -> np.ndarray:
            weights = None if own is network else network.get_weights()
            with running(self._predicting, config):
                if weights is not None:
                    set_weights(own, weights)
                self._predictor.fused(own)  # with the weights of now
            return self._predictor.run(tta_model, 1, valid.index, "probability", metadata)

        return [ValidationScores(answer, valid, config, self.spec)]

    def _metadata(self, examples: pd.DataFrame) -> np.ndarray | None:
        return None if self.encoder_ is None else self.encoder_.transform(examples)

    def _own_copy(self, network: keras.Model) -> keras.Model:
        """Return a network that needs no other worker; the same one where there is none."""
        if self.device.workers == 1:
            return network
        weights = network.get_weights()
        with running(self._predicting, self.config):
            copy = build_network(self.config, self.spec, load_published=False)
            set_weights(copy, weights)
        return copy

    def _fit_head(self, train: pd.DataFrame, valid: pd.DataFrame | None) -> None:
        """Train the last layers on the features of a frozen body, every view a row."""
        config = self.config
        with running(self._predicting, self.config):
            network = build_network(config, self.spec)
        features = self._predictor.features(network, train.index)
        validation = None
        if valid is not None and len(valid):
            validation = self._predictor.features(network, valid.index)[:, 0]
        if not config.augment.dihedral:
            features = features[:, :1]
        rows = training_rows(train, config, self.spec, self.seed)
        order = np.repeat(np.arange(len(rows.ids)), rows.repeats)
        views = features.shape[1]
        # A head costs seconds: one replica is enough, and takes a last batch of any size.
        with running(self.device.alone(), config):
            head = self._predictor.own_head(network)
            head.get_layer("standardise").adapt(features.reshape(-1, features.shape[-1]))
            steps = config.steps_per_epoch or -(-len(order) * views // self._batch_size)
            keeper = self._keeper()
            validation_callbacks = []
            if validation is not None:

                def answer() -> np.ndarray:
                    return head.predict(validation, verbose=0)

                validation_callbacks = [ValidationScores(answer, valid, config, self.spec)]
            compile_network(
                head, config, self.spec, steps, self.device.jit_compile,
                labels_missing=rows.labels_missing,
            )  # fmt: skip
            head.fit(
                features[order].reshape(-1, features.shape[-1]),
                np.repeat(rows.targets[order], views, axis=0),
                sample_weight=np.repeat(rows.weights[order], views),
                batch_size=self._batch_size,
                epochs=config.epochs,
                steps_per_epoch=config.steps_per_epoch,
                callbacks=[*validation_callbacks, keeper, *self.callbacks, *self._tensorboard()],
                verbose=self.verbose and 2,
            )
            keeper.restore_best(head)
        set_weights(network.get_layer("head"), head.get_weights())
        self.network_, self.history_ = network, keeper.history

    def predict(self, examples: pd.DataFrame) -> pd.DataFrame:
        """Return probabilities, one row an example, in the examples' order.

        Returns
        -------
        pandas.DataFrame
            Index ``image_id``, a float64 column a class.

        Raises
        ------
        PipelineError
            If the records lack an image.
        """
        answers = self._predictor.probabilities(
            self.network_, examples.index, self._metadata(examples)
        )
        found = class_probabilities(answers.astype(float), self.config, self.spec)
        return pd.DataFrame(found, examples.index, list(self.spec.classes))

    def save(self, folder: Path) -> None:
        """Write weights (without the optimizer) and settings; a later Keras reads both."""
        encoder = None if self.encoder_ is None else self.encoder_.to_mapping()
        write_model(folder, self.network_, self.config, self.spec, self.seed, encoder)
        EpochKeeper.forget(self.folder)

    def load(self, folder: Path) -> "ImageModel":
        """Read what :meth:`save` wrote; ``predict`` then gives the same numbers.

        Raises
        ------
        PipelineError
            If files are missing or were written for another network.
        """
        settings = read_settings(folder, self.config, self.spec)
        # The network that was trained, whatever weights this experiment would begin with.
        trained = replace(self.config, weights="imagenet" if settings["pretrained"] else None)
        with running(self._predicting, self.config):
            network = build_network(trained, self.spec, load_published=False)
            load_weights(network, Path(folder) / WEIGHTS)
        encoder = settings.get("encoder")
        self.encoder_ = FeatureEncoder.from_mapping(encoder) if encoder else None
        self.network_ = network
        return self

    def _tensorboard(self) -> list[keras.callbacks.Callback]:
        # Absent on a minimal machine; the CSV holds the same numbers.
        if importlib.util.find_spec("tensorboard") is None:
            return []
        return [TensorBoard(self.folder / "tensorboard")]
