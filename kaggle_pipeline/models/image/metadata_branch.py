"""Metadata beside the image: what the network is told of the patient.

In: a spec and training rows. Out: an encoder fitted on them, and the layers that take its numbers.
"""

import keras
import numpy as np
from keras import layers

from kaggle_pipeline.config.image import ImageConfig
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.data.metadata_encoder import FeatureEncoder
from kaggle_pipeline.data.spec import DatasetSpec
from kaggle_pipeline.models.image.label_mapping import learned_spec

_UNITS = 32
"""Much less than a backbone's channels: a handful of columns says little beside an image."""


def metadata_encoder(spec: DatasetSpec) -> FeatureEncoder:
    """Return an encoder, not fitted yet, of all declared features; missing values are marked.

    Raises
    ------
    PipelineError
        If the data set declares no features.
    """
    if not spec.features:
        raise PipelineError(f"image.metadata: {spec.id} declares no metadata; say false")
    return FeatureEncoder(spec.numeric, spec.categorical, indicators=True)


def check_question(config: ImageConfig, spec: DatasetSpec) -> None:
    """Raise a PipelineError if diagnoses or metadata are asked for that are not declared."""
    learned_spec(config, spec)
    if config.metadata:
        metadata_encoder(spec)


def metadata_branch(spec: DatasetSpec) -> keras.Model:
    """Return the layers from encoded metadata (batch, width) to features (batch, 32)."""
    numbers = keras.Input((metadata_encoder(spec).width,), name="metadata")
    features = layers.Dense(_UNITS, activation="swish", name="metadata_dense")(numbers)
    return keras.Model(numbers, features, name="metadata_branch")


def silence_unlearned(network: keras.Model, metadata: np.ndarray) -> None:
    """Take the weights away that no training row can teach, before a fit.

    Those of a column that is 0 in all of them, a word never seen or a value never missing, would
    stay as they were drawn and be noise in the answer for a photo without metadata.

    Parameters
    ----------
    network : keras.Model
        With a :func:`metadata_branch`; changed.
    metadata : numpy.ndarray of shape (n, width)
        Encoded training rows.
    """
    layer = network.get_layer("metadata_branch").get_layer("metadata_dense")
    kernel, bias = layer.get_weights()
    layer.set_weights([kernel * metadata.any(axis=0)[:, None], bias])
