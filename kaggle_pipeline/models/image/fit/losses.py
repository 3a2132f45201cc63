"""The loss that a fit lowers, and the metrics that are logged beside it.

In: settings and the task, or the data set's spec. Out: a Keras loss and metrics of probabilities.
"""

from typing import Any

import keras
import numpy as np
from keras import ops

from kaggle_pipeline.config.image import ImageConfig
from kaggle_pipeline.data.spec import DatasetSpec
from kaggle_pipeline.metrics.task import Task
from kaggle_pipeline.models.image.label_mapping import learned_spec, membership


def make_loss(
    config: ImageConfig, task: Task, *, labels_missing: bool = False
) -> keras.losses.Loss:
    """Return the cross-entropy or the focal loss, of a softmax (``multiclass``) or of sigmoids.

    The focal loss weighs the cross-entropy of a row by (1 - p) ** gamma, p being the probability of
    the right answer (Lin et al. 2017, arXiv:1708.02002, equation 4). Their further factor alpha, a
    weight of the rare class, is left to ``image.class_weights``.

    All of them are linear in the target, which ``mixup`` relies on.

    Parameters
    ----------
    config : ImageConfig
        ``loss``, ``focal_gamma``, ``label_smoothing``.
    task : {"binary", "multilabel", "multiclass"}
    labels_missing : bool
        Whether the targets come with a mask, as :func:`with_mask` makes them; sigmoids only.

    Returns
    -------
    keras.losses.Loss
        Of targets and probabilities, both (batch, classes).
    """
    if labels_missing:
        return MaskedLoss(make_loss(config, "binary"))
    smoothing = config.label_smoothing
    is_softmax = task == "multiclass"
    if config.loss == "crossentropy":
        losses = keras.losses
        kind = losses.CategoricalCrossentropy if is_softmax else losses.BinaryCrossentropy
        return kind(label_smoothing=smoothing)
    gamma = config.focal_gamma
    if is_softmax:
        return keras.losses.CategoricalFocalCrossentropy(
            alpha=1.0, gamma=gamma, label_smoothing=smoothing
        )
    return SigmoidFocalLoss(gamma, smoothing)


class SigmoidFocalLoss(keras.losses.Loss):
    """The focal loss of sigmoids, for a target between 0 and 1 the mixture of those of 0 and of 1.

    ``keras.losses.BinaryFocalCrossentropy`` weighs both by one factor instead, of a mixed p: that
    of half a positive and half a negative image at p = 0.9 comes to 0.30, where the mean of the two
    is 0.93. For targets of 0 and 1 they agree.

    Parameters
    ----------
    gamma, label_smoothing : float
    """

    def __init__(self, gamma: float, label_smoothing: float) -> None:
        super().__init__(name="focal")
        self._gamma = gamma
        self._smoothing = label_smoothing

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the loss of each row, the mean over its classes."""
        said = ops.convert_to_tensor(y_pred)
        said = ops.clip(said, keras.config.epsilon(), 1 - keras.config.epsilon())
        truth = ops.cast(y_true, said.dtype) * (1 - self._smoothing) + self._smoothing / 2
        positive = -ops.power(1 - said, self._gamma) * ops.log(said)
        negative = -ops.power(said, self._gamma) * ops.log(1 - said)
        return ops.mean(truth * positive + (1 - truth) * negative, axis=-1)


class MaskedLoss(keras.losses.Loss):
    """A loss of sigmoids that leaves missing labels out.

    A class's loss is divided by the number of classes, not of known labels: what a row teaches one
    class does not depend on what is known of the others.

    Parameters
    ----------
    plain : keras.losses.Loss
        Of one class.
    """

    def __init__(self, plain: keras.losses.Loss) -> None:
        super().__init__(name=plain.name)
        self._plain = plain

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the loss (batch,) for targets and mask (batch, 2 classes) of :func:`with_mask`."""
        said = ops.convert_to_tensor(y_pred)
        truth, known = ops.split(ops.cast(y_true, said.dtype), 2, axis=-1)
        losses = self._plain.call(truth[..., None], said[..., None])
        return ops.mean(known * losses, axis=-1)


def with_mask(targets: np.ndarray) -> np.ndarray:
    """Return targets (n, classes) with 0 for missing ones (NaN), and beside them what is known.

    Shape (n, 2 classes), for :class:`MaskedLoss`; as they are where none is missing.

    Examples
    --------
    >>> with_mask(np.array([[1.0, np.nan]])).tolist()
    [[1.0, 0.0, 1.0, 0.0]]
    """
    missing = np.isnan(targets)
    if not missing.any():
        return targets
    return np.hstack([np.where(missing, 0, targets), ~missing]).astype(targets.dtype)


def make_metrics(
    config: ImageConfig, spec: DatasetSpec, *, labels_missing: bool = False
) -> list[keras.metrics.Metric]:
    """Return the AUC (mean over the data set's classes) and, for a softmax, the accuracy."""
    if labels_missing:
        return [_MaskedAUC(len(spec.classes))]
    several = len(spec.classes) > 1
    settings = {
        "name": "auc", "num_thresholds": 1000, "multi_label": several,
        "num_labels": len(spec.classes) if several else None,
    }  # fmt: skip
    by_diagnosis = config.target == "diagnosis"
    auc = _ClassAUC(spec, **settings) if by_diagnosis else keras.metrics.AUC(**settings)
    if learned_spec(config, spec).task != "multiclass":
        return [auc]
    return [auc, keras.metrics.CategoricalAccuracy(name="accuracy")]


class _ClassAUC(keras.metrics.AUC):
    """AUC of the classes, from answers by diagnosis, some of which no image may have."""

    def __init__(self, spec: DatasetSpec, **settings: Any) -> None:
        super().__init__(**settings)
        self._membership = membership(spec)

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Sum targets and answers (batch, diagnoses) over the diagnoses of each class first."""
        truth, answers = (ops.matmul(one, self._membership) for one in (y_true, y_pred))
        super().update_state(truth, ops.clip(answers, 0.0, 1.0), sample_weight)


class _MaskedAUC(keras.metrics.Metric):
    """Mean AUC of sigmoids, each over the rows whose label is known."""

    def __init__(self, count: int) -> None:
        super().__init__(name="auc")
        self._parts = [keras.metrics.AUC(num_thresholds=1000, name=f"auc{i}") for i in range(count)]

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Count a batch: targets and mask (batch, 2 classes), probabilities (batch, classes)."""
        count = len(self._parts)
        weight = 1.0 if sample_weight is None else ops.reshape(sample_weight, (-1,))
        for i, part in enumerate(self._parts):
            known = ops.cast(y_true[:, count + i], "float32")
            part.update_state(y_true[:, i], y_pred[:, i], known * weight)

    def reset_state(self) -> None:
        """Begin anew."""
        for part in self._parts:
            part.reset_state()

    def result(self) -> Any:
        """Return the mean over the classes."""
        return ops.mean(ops.stack([part.result() for part in self._parts]))
