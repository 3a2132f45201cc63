"""The dense network on encoded metadata. Keras 3, any backend."""

from collections.abc import Sequence

import keras
from keras import layers


def build_network(
    width: int, outputs: int, activation: str, hidden: Sequence[int], dropout: float
) -> keras.Model:
    """Return an untrained multi-layer perceptron.

    Parameters
    ----------
    width : int
        Encoded columns.
    outputs : int
        Probabilities that come out.
    activation : {"sigmoid", "softmax"}
    hidden : sequence of int
        Units of each hidden layer, each followed by dropout.
    dropout : float

    Returns
    -------
    keras.Model
        float32 (batch, width) → float32 (batch, outputs).
    """
    inputs = x = keras.Input((width,), name="features")
    for units in hidden:
        x = layers.Dense(units, activation="relu")(x)
        x = layers.Dropout(dropout)(x)
    return keras.Model(
        inputs, layers.Dense(outputs, activation=activation)(x), name="tabular_model"
    )
