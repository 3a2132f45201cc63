"""Grad-CAM: where in a photo a network finds what speaks for a class.

In: a trained network and square photos, in memory. Out: probabilities (the very mean over views
that prediction gives), embeddings, and a heat map a class, all of one pass.

Selvaraju et al. 2017 (arXiv:1610.02391): each channel of the last feature map counts with the mean
gradient of the class's score, before softmax or sigmoid; what speaks against it is cut off. Every
network here averages that map before its head, so the gradient with respect to the pooled features,
shared out over the positions, is that mean. It is taken of the head alone: cheap, and the same for
any backbone, however its layers are nested.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from kaggle_pipeline.config.image import ImageConfig
from kaggle_pipeline.data.spec import DatasetSpec
from kaggle_pipeline.hardware.accelerator import Accelerator
from kaggle_pipeline.models.image.inference.predictor import fused_on_cpu, running
from kaggle_pipeline.models.image.inference.tta import View, views_of
from kaggle_pipeline.models.image.label_mapping import class_probabilities, membership


@dataclass(frozen=True)
class Explanations:
    """What a network says of n photos.

    Attributes
    ----------
    probabilities : numpy.ndarray of shape (n, classes), float64
        Mean over the views of test-time augmentation.
    embeddings : numpy.ndarray of shape (n, channels), float32
        Pooled features of the photo as it is.
    heat : numpy.ndarray of shape (n, classes, h, w), float32
        Grad-CAM at the last feature map's size, at least 0, mean over the views turned back; those
        that cut a part out are left out.
    """

    probabilities: np.ndarray
    embeddings: np.ndarray
    heat: np.ndarray


class Explainer:
    """Asks a network about photos and where in them it looked.

    Parameters
    ----------
    network : keras.Model
        Of ``network.build_network``, trained.
    config : ImageConfig
        Says the views, the precision and whether it learned diagnoses.
    spec : DatasetSpec
    device : Accelerator
    """

    def __init__(
        self, network: keras.Model, config: ImageConfig, spec: DatasetSpec, device: Accelerator
    ) -> None:
        self.config = config
        self._spec = spec
        self._device = device
        self._head = network.get_layer("head")
        body = network.get_layer("body")
        # What is pooled: the backbone's map, or the middle of it where the config cuts that out.
        pooled = body.get_layer("pool").input
        full = body.get_layer("centre").input if config.pool_share < 1 else pooled
        self._map_size = tuple(full.shape[1:3])
        with running(device, config):
            whole = keras.Model(body.inputs, {"map": pooled, "features": body.output})
            self._body = fused_on_cpu(whole, device)
            self._body.compile(jit_compile=device.jit_compile)

    def answer(self, photos: np.ndarray) -> Explanations:
        """Return probabilities, embeddings and heat for uint8 photos (n, side, side, 3)."""
        parts = [self._answer_one(photo) for photo in photos]
        return Explanations(*(np.stack(kind) for kind in zip(*parts, strict=True)))

    def embed(self, photos: np.ndarray) -> np.ndarray:
        """Return embeddings (n, channels), float32, of uint8 photos (n, side, side, 3)."""
        with running(self._device, self.config, building=False):
            found = self._body.predict_on_batch(photos)
        return np.asarray(found["features"], np.float32)

    def _answer_one(self, photo: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        views = views_of(self.config)
        with running(self._device, self.config, building=False):
            # All views are one batch; the first is the photo as it is.
            batch = np.concatenate([ops.convert_to_numpy(view(photo[None])) for view in views])
            found = self._body.predict_on_batch(batch)
            features = np.asarray(found["features"], np.float32)
            probabilities = self._head.predict_on_batch(features)
            weights = logit_gradients(self._head, features)
        if self.config.target == "diagnosis":
            weights = np.einsum("voc,ok->vkc", weights, membership(self._spec))
        maps = np.asarray(found["map"], np.float32)
        heat = np.maximum(np.einsum("vhwk,vck->vchw", maps, weights) / maps[0, :, :, 0].size, 0)
        whole = [(one, view) for one, view in zip(heat, views, strict=True) if view.side == 1]
        upright = [_turn_back(one, view) for one, view in whole]
        answers = class_probabilities(np.asarray(probabilities, float), self.config, self._spec)
        mean = answers.mean(axis=0)
        return mean, features[0], self._uncropped(np.mean(upright, axis=0))

    def _uncropped(self, heat: np.ndarray) -> np.ndarray:
        """The map (classes, h, w) with the margins that are not pooled: nothing there counts."""
        margins = [(full - cut) // 2 for full, cut in zip(self._map_size, heat.shape[1:],
                                                          strict=True)]  # fmt: skip
        return np.pad(heat, [(0, 0), *((margin, margin) for margin in margins)])


def logit_gradients(head: keras.Model, features: np.ndarray) -> np.ndarray:
    """Return the gradient of every class's score before softmax or sigmoid.

    Parameters
    ----------
    head : keras.Model
        (batch, channels) → probabilities, by one dense layer at its end.
    features : array of shape (n, channels)

    Returns
    -------
    numpy.ndarray of shape (n, classes, channels), float32
    """
    last = next(layer for layer in reversed(head.layers) if isinstance(layer, keras.layers.Dense))
    # Several dropout masks share the dense layer; in prediction all of them are the same.
    masks = [layer for layer in head.layers if layer.name.startswith("dropout_")]
    before = keras.Model(head.inputs, (masks[0] if masks else last).input)

    def score(x: Any, number: int) -> Any:
        kernel = ops.cast(last.kernel[:, number], "float32")
        return ops.sum(ops.matmul(ops.cast(before(x, training=False), "float32"), kernel))

    gradients = [
        _gradient(lambda x, number=number: score(x, number), features)
        for number in range(last.units)
    ]
    return np.stack(gradients, axis=1)


def _gradient(function: Callable[[Any], Any], x: np.ndarray) -> np.ndarray:
    """Gradient of a scalar function of ``x``; Keras has no call for it that both engines know."""
    if keras.backend.backend() == "jax":
        import jax

        return np.asarray(jax.grad(function)(ops.convert_to_tensor(x)), np.float32)
    import tensorflow as tf

    inputs = tf.convert_to_tensor(x)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        value = function(inputs)
    return tape.gradient(value, inputs).numpy()


def _turn_back(heat: np.ndarray, view: View) -> np.ndarray:
    """Undo a view's turns and mirroring on maps (classes, h, w)."""
    upright = np.rot90(heat, k=-view.turns, axes=(1, 2))
    return np.flip(upright, axis=2) if view.mirror else upright
