"""The moving average of a network's weights, which its optimizer keeps.

In: a compiled network. Out: the same one, holding the average for a while.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import keras
from keras import ops

from kaggle_pipeline.core.private_api import averaged_variables


@contextmanager
def averaged_weights(network: keras.Model) -> Iterator[None]:
    """Let ``network`` hold its averaged weights inside, its own again afterwards.

    Nothing happens where the optimizer averages nothing. ``keras.callbacks.SwapEMAWeights`` swaps
    for a whole epoch's end instead: a state saved then would hold the two in each other's place,
    and a resumed fit would go on from the average.

    Statistics of batch normalisation are moving averages already and stay as they are.
    """
    optimizer = getattr(network.optimizer, "inner_optimizer", network.optimizer)  # float16 wraps it
    if not optimizer.use_ema:
        yield
        return
    variables = network.trainable_variables
    means = averaged_variables(optimizer)
    own = [ops.convert_to_numpy(variable) for variable in variables]
    for variable, mean in zip(variables, means, strict=True):
        variable.assign(ops.convert_to_numpy(mean))
    try:
        yield
    finally:
        for variable, value in zip(variables, own, strict=True):
            variable.assign(value)
