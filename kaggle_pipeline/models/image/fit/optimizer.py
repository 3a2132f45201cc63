"""The optimizer: AdamW, its learning-rate schedule, and what weight decay leaves alone."""

from collections.abc import Sequence
from typing import Any

import keras

from kaggle_pipeline.config.image import ImageConfig


def make_optimizer(
    config: ImageConfig, steps_per_epoch: int, variables: Sequence[Any]
) -> keras.optimizers.Optimizer:
    """Return AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101) with warm-up, then decay.

    The rate rises linearly over ``warmup_epochs``, whose first step has a share of the peak and
    whose last step has all of it, and falls towards 0 along a cosine, or stays. Of the trained
    ``variables`` biases, and scales and offsets of normalisation, keep out of ``weight_decay``.
    With ``config.ema`` it keeps a moving average of the weights, which replaces them when a fit
    ends.
    """
    warmup = max(1, round(config.warmup_epochs * steps_per_epoch))
    peak, first, rise = config.learning_rate, config.learning_rate / warmup, warmup - 1
    rate: Any = peak
    if config.schedule == "cosine":
        rate = keras.optimizers.schedules.CosineDecay(
            first,
            decay_steps=max(1, config.epochs * steps_per_epoch - rise),
            warmup_target=peak if rise else None,
            warmup_steps=rise,
        )
    elif rise:
        rate = keras.optimizers.schedules.PolynomialDecay(first, rise, peak)
    averaging = {"use_ema": True, "ema_momentum": config.ema} if config.ema else {}
    optimizer = keras.optimizers.AdamW(rate, weight_decay=config.weight_decay, **averaging)
    vectors = [variable for variable in variables if len(variable.shape) < 2]
    optimizer.exclude_from_weight_decay(var_list=vectors)
    return optimizer
