"""Two small networks of our own, for small images, a quick look and as a yardstick.

In: an input shape and the first width. Out: a ``keras.Model`` from images to a feature map.
"""

import keras
from keras import layers

from kaggle_pipeline.core.errors import PipelineError


def lenet(
    input_shape: tuple[int, int, int], weights: None = None, filters: int = 32
) -> keras.Model:
    """Return three convolutions with batch normalisation and max-pooling each.

    The small network of the public HAM10000 notebooks, named after LeCun et al. 1998
    (doi:10.1109/5.726791); for small images and for a quick look.

    Parameters
    ----------
    input_shape : tuple
        (side, side, 3) in px.
    weights : None
        There are no published ones.
    filters : int
        Of the first convolution; doubled by each further one.

    Returns
    -------
    keras.Model
        (batch, side, side, 3) → (batch, side // 8, side // 8, 4 * filters).

    Raises
    ------
    PipelineError
        If weights are asked for.
    """
    _refuse_weights("LeNet", weights)
    inputs = x = keras.Input(input_shape)
    for stage in range(3):
        x = layers.Conv2D(filters * 2**stage, 3, padding="same", use_bias=False)(x)
        x = layers.BatchNormalization(momentum=0.9)(x)
        x = layers.ReLU()(x)
        x = layers.MaxPooling2D(name=f"stage{stage}_pool")(x)  # where backbone_layer may cut
    return keras.Model(inputs, x, name="lenet")


def primitive_cnn(
    input_shape: tuple[int, int, int], weights: None = None, filters: int = 32
) -> keras.Model:
    """Return four plain convolutions with max-pooling each: no normalisation, no shortcut.

    The sort of small network that public ISIC-2017 projects put beside their ResNets and call
    PrimitiveCNN: a baseline that tells what depth, batch normalisation, shortcuts and pretraining
    are worth. No publication fixes its sizes; these are ours.

    Parameters
    ----------
    input_shape : tuple
        (side, side, 3) in px.
    weights : None
        There are no published ones.
    filters : int
        Of the first convolution; doubled by each further one.

    Returns
    -------
    keras.Model
        (batch, side, side, 3) → (batch, side // 16, side // 16, 8 * filters).

    Raises
    ------
    PipelineError
        If weights are asked for.
    """
    _refuse_weights("PrimitiveCNN", weights)
    inputs = x = keras.Input(input_shape)
    for stage in range(4):
        # Nothing rescales the activations, so the start has to keep their variance (He et al.
        # 2015, arXiv:1502.01852).
        x = layers.Conv2D(
            filters * 2**stage,
            3,
            padding="same",
            activation="relu",
            kernel_initializer="he_normal",
            name=f"stage{stage}_conv",
        )(x)
        x = layers.MaxPooling2D(name=f"stage{stage}_pool")(x)
    return keras.Model(inputs, x, name="primitive_cnn")


def _refuse_weights(name: str, weights: object) -> None:
    if weights is not None:
        raise PipelineError(f"image.weights: {name} has no published weights; say null or a file")
