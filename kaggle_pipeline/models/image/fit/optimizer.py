"""The optimizer: AdamW, its learning-rate schedule, and what weight decay leaves alone."""

import copy
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from kaggle_pipeline.config.image import ImageConfig
from kaggle_pipeline.core.private_api import adam_moments

_NUMBERS = ("initial_learning_rate", "decay_steps", "warmup_target", "warmup_steps")
"""Of Keras' schedules, as far as they depend on a fit's epochs and steps."""


def make_optimizer(config: ImageConfig, steps_per_epoch: int) -> keras.optimizers.Optimizer:
    """Return :class:`AdamW` with warm-up, then decay of the rate.

    The rate rises linearly over ``warmup_epochs``, whose first step has a share of the peak and
    whose last step has all of it, and falls towards 0 along a cosine, or stays. With ``config.ema``
    it keeps a moving average of the weights, which replaces them when a fit ends.
    """
    warmup = max(1, round(config.warmup_epochs * steps_per_epoch))
    peak, first, rise = config.learning_rate, config.learning_rate / warmup, warmup - 1
    rate: Any = peak
    if config.schedule == "cosine":
        rate = keras.optimizers.schedules.CosineDecay(
            first,
            decay_steps=max(1, config.epochs * steps_per_epoch - rise),
            warmup_target=peak,
            warmup_steps=rise,
        )
    elif rise:
        rate = keras.optimizers.schedules.PolynomialDecay(first, rise, peak)
    averaging = {"use_ema": True, "ema_momentum": config.ema} if config.ema else {}
    return AdamW(rate, config.weight_decay, **averaging)


class AdamW(keras.optimizers.Adam):
    """AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101); vectors do not decay.

    Vectors are biases, and scales and offsets of normalisation. It has the variables of
    ``keras.optimizers.AdamW`` and reads its states. On TensorFlow without replicas a variable is
    updated by one operation, where Keras takes 44 (the schedule anew for each that decays), which
    were most of the graph that the first step has to make and to optimise.

    On JAX the numbers of a schedule are variables, which the compiled step is given. As constants
    within it they would make another program of each number of steps: each fold, and each other
    number of epochs, would be compiled anew. No file holds them: a fit that goes on has its own.

    Parameters
    ----------
    learning_rate : float or keras.optimizers.schedules.LearningRateSchedule
    decay : float
        Share of a weight, times the rate, that a step takes away.
    """

    def __init__(self, learning_rate: Any, decay: float, **options: Any) -> None:
        super().__init__(learning_rate, **options)
        self._decay = decay
        self._schedule = learning_rate
        self._given: list[keras.Variable] = []
        # With float16, Keras' wrapper reads and writes all variables itself.
        if keras.backend.backend() == "jax" and keras.mixed_precision.dtype_policy().name != (
            "mixed_float16"
        ):
            self._give_numbers()
        self._powers: tuple[Any, Any] | None = None

    def _give_numbers(self) -> None:
        """Let the schedule read its numbers from variables."""
        if not isinstance(self._schedule, keras.optimizers.schedules.LearningRateSchedule):
            return
        given = copy.copy(self._schedule)
        for name in _NUMBERS:
            number = getattr(given, name, None)
            if number is not None:
                start = keras.initializers.Constant(number)
                variable = self.add_variable((), start, "float32", name=f"schedule_{name}")
                setattr(given, name, variable)
                self._given.append(variable)
        self._learning_rate = given

    def save_own_variables(self, store: Any) -> None:
        """Write what a fit has changed."""
        for number, variable in enumerate(self._own_variables()):
            store[str(number)] = variable.numpy()

    def load_own_variables(self, store: Any) -> None:
        """Read what :meth:`save_own_variables`, or ``keras.optimizers.AdamW``, wrote."""
        own = self._own_variables()
        if len(store.keys()) != len(own):
            super().load_own_variables(store)  # warns
            return
        for number, variable in enumerate(own):
            variable.assign(store[str(number)])

    def _own_variables(self) -> list[keras.Variable]:
        given = {id(one) for one in self._given}
        return [one for one in self.variables if id(one) not in given]

    def apply(self, grads: Sequence[Any], trainable_variables: Sequence[Any] | None = None) -> None:
        """Update the variables; what all of them share is computed once."""
        if keras.backend.backend() == "tensorflow" and not tf.distribute.has_strategy():
            step = tf.cast(self.iterations.value + 1, tf.float32)
            self._powers = tf.pow(self.beta_1, step), tf.pow(self.beta_2, step)
        try:
            super().apply(grads, trainable_variables)
        finally:
            self._powers = None

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Let a weight decay, then move it."""
        if self._decay and len(variable.shape) > 1:
            share = keras.ops.cast(learning_rate * self._decay, variable.dtype)
            self.assign_sub(variable, variable * share)
        if self._powers is None:
            super().update_step(gradient, variable, learning_rate)
            return
        gradients, squares = adam_moments(self, variable)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=gradients.value.handle,
            v=squares.value.handle,
            beta1_power=self._powers[0],
            beta2_power=self._powers[1],
            lr=learning_rate,
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=gradient,
        )

    def get_config(self) -> dict[str, Any]:
        """Return what makes another like this."""
        with_variables, self._learning_rate = self._learning_rate, self._schedule
        try:
            return {**super().get_config(), "decay": self._decay}
        finally:
            self._learning_rate = with_variables
