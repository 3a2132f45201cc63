"""What a training batch consists of: inputs, targets and weights, their shapes and dtypes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from kaggle_pipeline.config.image import ImageConfig
from kaggle_pipeline.data.spec import DatasetSpec
from kaggle_pipeline.models.image.input.augment import augmentation_shapes
from kaggle_pipeline.models.image.label_mapping import learned_spec
from kaggle_pipeline.models.image.metadata_branch import metadata_encoder


@dataclass(frozen=True)
class BatchSpec:
    """Shapes for one image.

    Attributes
    ----------
    inputs : mapping of str to tuple of int
        ``image``, uint8 (side, side, 3); all others float32: ``metadata`` (width,), and what an
        augmentation on the device is told of each image.
    targets : tuple of int
        (classes,), float32. Each image has a float32 weight beside it.
    """

    inputs: Mapping[str, tuple[int, ...]]
    targets: tuple[int, ...]

    def made_up(self, count: int, seed: int = 0) -> tuple[Any, np.ndarray, np.ndarray]:
        """Return inputs, one-hot targets and weights of ``count`` images of noise.

        Inputs are one array where they are the image alone, a dict where there are others. Noise,
        since a device can be faster on zeros than on photos.
        """
        rng = np.random.default_rng(seed)
        inputs: Any = {
            name: rng.integers(0, 256, (count, *shape), np.uint8)
            if name == "image"
            else rng.random((count, *shape), np.float32)
            for name, shape in self.inputs.items()
        }
        (classes,) = self.targets
        targets = np.eye(classes, dtype=np.float32)[rng.integers(0, classes, count)]
        inputs = inputs["image"] if list(inputs) == ["image"] else inputs
        return inputs, targets, np.ones(count, np.float32)


def batch_spec(config: ImageConfig, spec: DatasetSpec, *, on_device: bool = False) -> BatchSpec:
    """Return what a batch of a fit consists of.

    Parameters
    ----------
    config : ImageConfig
    spec : DatasetSpec
        Of the data set; the targets are those of what is learned.
    on_device : bool
        Whether the training step augments the images.
    """
    inputs = {"image": (config.image_size_px, config.image_size_px, 3)}
    if config.metadata:
        inputs["metadata"] = (metadata_encoder(spec).width,)
    if on_device:
        inputs |= augmentation_shapes(config.augment)
    return BatchSpec(inputs, (len(learned_spec(config, spec).classes),))
