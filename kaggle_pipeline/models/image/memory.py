"""What a fit takes in memory, from the network's own layers, before any of it is made.

In: settings of the image model, a device. Out: a :class:`NetworkSize`, and what is :class:`Needed`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from kaggle_pipeline.config.image import ImageConfig
from kaggle_pipeline.core.private_api import calls_within
from kaggle_pipeline.data.spec import DatasetSpec
from kaggle_pipeline.hardware.accelerator import Accelerator
from kaggle_pipeline.models.image.inference.predictor import photos_at_once
from kaggle_pipeline.models.image.network import build_network

_MIB = 2**20
_MORE = 1.25
"""What a step takes beside the results that it keeps, as their share."""

_OVER_ITS_INPUT = ("ReLU", "Dropout", "Flatten", "Cropping2D", "ZeroPadding2D")
"""Layers whose result the backward pass needs, or their input, but not both."""
_FUSED = (*_OVER_ITS_INPUT, "BatchNormalization", "Activation", "Rescaling", "Multiply", "Add")
"""Layers that XLA computes once more in the backward pass rather than keep their results, and that
a prediction computes in the place of their input."""


@dataclass(frozen=True)
class NetworkSize:
    """Numbers that a network holds.

    Attributes
    ----------
    kept : int
        For one image: results of layers that the backward pass of a training step reads.
    kept_fused : int
        The same where XLA compiles the step.
    largest : int
        For one image: what the layer that handles most reads and writes in a prediction.
    weights, trained : int
        Of all layers, and those that learn.
    """

    kept: int
    kept_fused: int
    largest: int
    weights: int
    trained: int


def network_size(config: ImageConfig, spec: DatasetSpec) -> NetworkSize:
    """Return the size of the config's network.

    Raises
    ------
    PipelineError
        If the backbone cannot be built.
    """
    with keras.StatelessScope(initialize_variables=False):
        network = build_network(config, spec, load_published=False)
        count = _Count()
        count.visit(network, [False] * len(network.inputs))
    sizes = [sum(int(np.prod(one.shape)) for one in some)
             for some in (network.weights, network.trainable_weights)]  # fmt: skip
    return NetworkSize(count.kept, count.kept_fused, count.largest, *sizes)


class _Count:
    """Adds up a network's calls, those of networks within it too."""

    def __init__(self) -> None:
        self.kept = self.kept_fused = self.largest = 0

    def visit(self, network: keras.Model, learns: Sequence[bool]) -> list[bool]:
        """Count; ``learns`` says of each input whether a layer before it learns. So does the result
        of the outputs."""
        known = {id(one): learn for one, learn in zip(network.inputs, learns, strict=True)}
        waiting = [call for call in calls_within(network) if call.input_tensors]
        while waiting:
            later = []
            for call in waiting:
                inputs = [known.get(id(one)) for one in call.input_tensors]
                if None in inputs:
                    later.append(call)
                    continue
                learned = self._call(call, inputs)
                pairs = zip(call.output_tensors, learned, strict=True)
                known |= {id(one): learn for one, learn in pairs}
            if len(later) == len(waiting):
                raise RuntimeError(f"{network.name}: no layer gives what {later[0]} reads")
            waiting = later
        return [known[id(one)] for one in network.outputs]

    def _call(self, call: Any, learns: list[bool]) -> list[bool]:
        layer = call.operation
        if isinstance(layer, keras.Model):
            return self.visit(layer, learns)
        learned = any(learns) or bool(getattr(layer, "trainable_variables", ()))
        written = sum(_numbers(one) for one in call.output_tensors)
        kind = type(layer).__name__
        if kind == "Activation" and layer.activation.__name__ in ("relu", "relu6"):
            kind = "ReLU"
        self.kept += written * (learned and kind not in _OVER_ITS_INPUT)
        self.kept_fused += written * (learned and kind not in _FUSED)
        if kind not in _FUSED:
            read = max(_numbers(one) for one in call.input_tensors)
            self.largest = max(self.largest, read + written)
        return [learned] * len(call.output_tensors)


def _numbers(tensor: Any) -> int:
    """Of one image."""
    return int(np.prod([side or 1 for side in tensor.shape[1:]]))


@dataclass(frozen=True)
class Needed:
    """What a fit and its predictions take beside what the process holds already, in MiB.

    Attributes
    ----------
    device, host : float
        Of one device's memory, and of the machine's; on a CPU they are the same memory, and all
        is in ``host``.
    """

    device: float
    host: float


def memory_needed(
    config: ImageConfig, size: NetworkSize, device: Accelerator, photos: int | None = None
) -> Needed:
    """Return an estimate, within about a third of what is really taken.

    A training step holds its batch's kept results, a share more at work, weights, their gradients
    and Adam's two moments in float32. A prediction runs all views of some photos as one batch.
    The share is what an H200 took on JAX with mixed bfloat16, where the compiler counts it:
    InceptionResNetV2 of 1024 px and 16 photos 22,162 MiB, of 512 px and 32 photos 10,871 MiB,
    EfficientNetB4 of 512 px and 32 photos 6,765 MiB. On a CPU, TensorFlow took for MobileNetV2 of
    224 px and 16 photos 1,254 MiB, of 160 px and 32 photos from its sixth block on 519 MiB.

    Parameters
    ----------
    config : ImageConfig
    size : NetworkSize
    device : Accelerator
    photos : int, optional
        Training photos, which are kept decoded where they fit into ``config.cache_mb``.
    """
    compiled = device.kind != "cpu" or device.backend == "jax"
    half = device.kind != "cpu" and config.mixed_precision
    number = 2 if half else 4
    kept = (size.kept_fused if compiled else size.kept) * number
    step = config.batch_size * kept * _MORE + 16 * size.trained + 4 * size.weights
    if not compiled:
        step += config.batch_size * 2 * size.largest * number
    # What a layer reads and writes, and as much that is being moved.
    answers = (
        photos_at_once(config, device.kind, config.views) * config.views * size.largest * number * 2
    )
    batch = config.batch_size * config.image_size_px**2 * 3
    decoded = (photos or 0) * config.image_size_px**2 * 3
    cached = decoded if decoded <= config.cache_mb * _MIB else 0
    # Read ahead as bytes; changed as float32, of which several are at work.
    host = cached + device.replicas * batch * (4 + 4 * 6 * (not config.frozen))
    work = max(answers, 0 if config.frozen else step)
    if device.kind == "cpu":
        return Needed(0.0, (host + device.replicas * work) / _MIB)
    return Needed(work / _MIB, (host + 8 * size.weights) / _MIB)


def largest_batch(config: ImageConfig, size: NetworkSize, device: Accelerator, free: Needed) -> int:
    """Return the largest batch a replica that fits, 0 if not even one photo does."""

    def fits(batch: int) -> bool:
        needed = memory_needed(replace(config, batch_size=batch), size, device)
        return needed.device <= free.device and needed.host <= free.host

    batch = config.batch_size
    while batch and not fits(batch):
        batch -= max(1, batch // 16)
    return batch
