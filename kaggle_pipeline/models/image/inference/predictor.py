"""Answers by image id: a network run over the records that hold the images.

In: a built network and ids. Out: arrays in the order of the ids; the features of a frozen body stay
on disk.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from weakref import WeakKeyDictionary

import keras
import numpy as np
import pandas as pd

from kaggle_pipeline.config.image import ImageConfig
from kaggle_pipeline.core.deadline import Deadline
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.progress import Progress
from kaggle_pipeline.data.spec import DatasetSpec
from kaggle_pipeline.hardware.accelerator import Accelerator
from kaggle_pipeline.models.image.backbones.weights import set_weights
from kaggle_pipeline.models.image.inference.feature_cache import FeatureStore, body_digest
from kaggle_pipeline.models.image.inference.fuse_batch_norm import fuse_batch_norm, update_fused
from kaggle_pipeline.models.image.inference.tta import VIEWS, stacked_views, views_of, with_views
from kaggle_pipeline.models.image.input.pipeline import Source, prediction_batches, reading_errors
from kaggle_pipeline.models.image.network import build_head

_CPU_PIXELS = 16 * 224 * 224
"""Of what a CPU's network answers for at once: so many take 0.25 GiB of a MobileNetV2, and eight
times as many 1.8 GiB at the same seconds of a core."""


def photos_at_once(config: ImageConfig, kind: str, views: int) -> int:
    """Return how many photos a replica answers for in one batch, at least one.

    Their views make up the training batch where there is an accelerator to fill. On a CPU memory
    and not speed grows with the batch: the views have up to :data:`_CPU_PIXELS`.

    Examples
    --------
    >>> config = ImageConfig(batch_size=128, image_size_px=224)
    >>> [photos_at_once(config, kind, views=8) for kind in ("cpu", "gpu")]
    [2, 16]
    """
    images = config.batch_size
    if kind == "cpu":
        images = min(images, _CPU_PIXELS // config.image_size_px**2)
    return max(1, images // views)


@contextmanager
def running(device: Accelerator, config: ImageConfig, *, building: bool = True) -> Iterator[None]:
    """Build or run a network on ``device``; damaged records become errors of one line."""
    with (
        device.scope(mixed_precision=config.mixed_precision, building=building),
        warnings.catch_warnings(),
        reading_errors(),
    ):
        # Keras says so of every data set whose length it is not told; we count ourselves.
        warnings.filterwarnings("ignore", "Your input ran out of data")
        yield


def fused_on_cpu(network: keras.Model, device: Accelerator) -> keras.Model:
    """Return what answers faster on one CPU; elsewhere nobody has measured that it would."""
    return fuse_batch_norm(network) if device.kind == "cpu" and device.replicas == 1 else network


def _advance(
    progress: Progress | None, total: int, batch_size: int
) -> Callable[[int, dict | None], None]:
    """Return what is called after each batch; the last one is filled up with no images."""

    def advance(batch: int, logs: dict | None = None) -> None:
        if progress:
            progress(min(batch_size, total - batch * batch_size))

    return advance


@dataclass
class Predictor:
    """Runs networks of one configuration over images.

    Attributes
    ----------
    config : ImageConfig
    spec : DatasetSpec
        Of the data set.
    shards_of : callable
        From image ids to the shards that hold them.
    device : Accelerator
    features_dir : pathlib.Path
        Where a frozen body's features are kept.
    swap_red_blue : bool
    progress : bool
        Whether it is shown how far a prediction is.
    deadline : Deadline
        No batch is begun after it.
    """

    config: ImageConfig
    spec: DatasetSpec
    shards_of: Callable[[pd.Index], list[Path]]
    device: Accelerator
    features_dir: Path
    swap_red_blue: bool
    progress: bool = False
    deadline: Deadline = field(default_factory=lambda: Deadline.after(None))
    _fused: WeakKeyDictionary = field(default_factory=WeakKeyDictionary, init=False, repr=False)

    def probabilities(
        self, network: keras.Model, ids: pd.Index, metadata: np.ndarray | None = None
    ) -> np.ndarray:
        """Return the network's answers (n, answers), the mean over the views of the config.

        ``metadata`` (n, width) is in the order of ``ids``, for a network that takes it.
        """
        if self.config.frozen:
            return self._from_features(network, ids)
        views = views_of(self.config)
        with running(self.device, self.config):
            tta_model = self.compiled(with_views(self.fused(network), views))
        return self.run(tta_model, len(views), ids, "probability", metadata, self.progress)

    def features(self, network: keras.Model, ids: pd.Index) -> np.ndarray:
        """Return the body's features of ``ids``, (n, views, channels), from disk where known."""
        body = network.get_layer("body")
        config = self.config
        size, layer, share = config.image_size_px, config.backbone_layer, config.pool_share
        digest = body_digest(
            body, config.backbone, size, layer, share, self.swap_red_blue, config.stored_views
        )
        folder = self.features_dir / digest

        def extract(missing: pd.Index) -> np.ndarray:
            views = VIEWS[config.stored_views]
            with running(self.device, self.config):
                tta_model = self.compiled(stacked_views(self.fused(body), views))
            return self.run(tta_model, len(views), missing, "features", progress=self.progress)

        return FeatureStore(folder, extract).get(ids)

    def run(
        self,
        tta_model: keras.Model,
        views: int,
        ids: pd.Index,
        key: str,
        metadata: np.ndarray | None = None,
        progress: bool = False,
    ) -> np.ndarray:
        """Run a network over ``views`` of the images of ``ids``; return its output ``key`` in their
        order."""
        at_once = photos_at_once(self.config, self.device.kind, views)
        batch_size = at_once * self.device.replicas
        batches = prediction_batches(self.source(ids), list(ids), batch_size, metadata)
        with (
            running(self.device, self.config, building=False),
            Progress(len(ids), "predict", "photo") if progress else nullcontext() as shown,
        ):
            steps = keras.callbacks.LambdaCallback(
                on_predict_batch_begin=self._check_time,
                on_predict_batch_end=_advance(shown, len(ids), batch_size),
            )
            found = tta_model.predict(batches, verbose=0, callbacks=[steps])
        answers = np.full((len(ids), *found[key].shape[1:]), np.nan, np.float32)
        real = found["row"] >= 0
        answered, times = np.unique(found["row"][real], return_counts=True)
        if (times > 1).any():
            twice = ids[answered[times > 1][0]]
            raise PipelineError(f"image {twice} came out of the records more than once")
        answers[found["row"][real]] = found[key][real]
        missing = np.flatnonzero(np.isnan(answers).reshape(len(ids), -1).any(axis=1))
        if len(missing):
            raise PipelineError(
                f"no usable answer for image {ids[missing[0]]}: it is not in the records, or the "
                f"network's answer is not a number ({len(missing)} such)"
            )
        return answers

    def fused(self, network: keras.Model) -> keras.Model:
        """Return :func:`fused_on_cpu` of ``network`` as it is now, one copy however often asked."""
        known = self._fused.get(network)
        if known is not None:
            update_fused(network, known)
            return known
        fused = fused_on_cpu(network, self.device)
        if fused is not network:
            self._fused[network] = fused
        return fused

    def source(self, ids: pd.Index) -> Source:
        """Return where the images of ``ids`` come from."""
        shards = self.shards_of(ids)
        return Source(self.spec, shards, self.config.image_size_px, self.swap_red_blue)

    def compiled(self, tta_model: keras.Model) -> keras.Model:
        """Return ``tta_model``, ready to predict."""
        tta_model.compile(jit_compile=self.device.jit_compile)
        return tta_model

    def own_head(self, network: keras.Model) -> keras.Model:
        """Return the network's head for one replica; the very same where there are no more."""
        head = network.get_layer("head")
        if self.device.replicas == 1:
            return head
        own = build_head(self.config, self.spec, head.input_shape[-1])
        set_weights(own, head.get_weights())
        return own

    def _from_features(self, network: keras.Model, ids: pd.Index) -> np.ndarray:
        """Mean of the head's answers over the views, from features that may be on disk already."""
        features = self.features(network, ids)
        wanted = [VIEWS[self.config.stored_views].index(view) for view in VIEWS[self.config.tta]]
        features = features[:, wanted]
        flat = features.reshape(-1, features.shape[-1])
        with running(self.device.alone(), self.config):
            found = self.own_head(network).predict(flat, batch_size=8192, verbose=0)
        return found.reshape(len(ids), len(wanted), -1).mean(axis=1)

    def _check_time(self, batch: int, logs: dict | None = None) -> None:
        self.deadline.check("all images are answered for")
