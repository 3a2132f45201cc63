"""All that a run does with a photo as one Keras model: folds, views, calibration, decision.

In: trained image models, and what was fitted on their out-of-fold predictions. Out: a network
from uint8 squares to scores, calibrated probabilities and decisions, all in float32.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import pandas as pd
from keras import ops

from kaggle_pipeline.data.metadata_encoder import blank_metadata
from kaggle_pipeline.data.spec import DatasetSpec
from kaggle_pipeline.evaluation.calibration.calibration import Calibration
from kaggle_pipeline.evaluation.calibration.maps import SOFTMAX
from kaggle_pipeline.evaluation.decision.decision import Decision
from kaggle_pipeline.evaluation.decision.rules import SoftmaxRule
from kaggle_pipeline.metrics.weighted_scores import SUREST
from kaggle_pipeline.models.composite import OneModelPerClass, SeedEnsemble
from kaggle_pipeline.models.image.inference.fuse_batch_norm import fuse_batch_norm
from kaggle_pipeline.models.image.inference.tta import views_of
from kaggle_pipeline.models.image.label_mapping import membership
from kaggle_pipeline.models.protocols import Model

SLACK = 1e-6
"""A threshold counts as reached from so much below it: thresholds lie on calibrated probabilities,
which float32 rounds."""


def serving_network(
    models: Sequence[Model],
    spec: DatasetSpec,
    calibration: Calibration | None,
    decision: Decision | None,
    image_size_px: int,
) -> keras.Model:
    """Return the network that answers for the whole run.

    Parameters
    ----------
    models : sequence of Model
        Loaded; one a fold, whose mean counts. Their views are averaged too.
    spec : DatasetSpec
    calibration : Calibration or None
    decision : Decision or None
        Of calibrated probabilities.
    image_size_px : int

    Returns
    -------
    keras.Model
        uint8 (batch, side, side, 3) in [0, 255] → ``score`` and ``probability``, float32
        (batch, classes): before and after calibration, the same without one; with a decision
        ``decision``, int32 (batch, classes), 1 for what the photo is called.
    """
    pixels = keras.Input((image_size_px, image_size_px, 3), dtype="uint8", name="image")
    score = _mean([_scores(model, pixels, f"fold{i}") for i, model in enumerate(models)])
    probability = score if calibration is None else _calibrated(calibration, spec, score)
    # Outputs of their own, also where nothing is calibrated.
    outputs = {"score": score, "probability": ops.multiply(probability, 1.0)}
    if decision is not None:
        outputs["decision"] = _decided(decision.rule, probability)
    return keras.Model(pixels, outputs, name="run")


def _scores(model: Model, pixels: Any, name: str) -> Any:
    """A fold's uncalibrated probabilities (batch, classes); ``name`` is unique."""
    if isinstance(model, SeedEnsemble | OneModelPerClass):
        found = {key: _scores(one, pixels, f"{name}_{key}") for key, one in model.models_.items()}
        if isinstance(model, SeedEnsemble):
            return _mean(list(found.values()))
        return ops.concatenate([found[key] for key in model.spec.classes], axis=1)
    views = views_of(model.config)
    # The views as one batch: the network stands in the graph once, however many there are.
    seen = ops.concatenate([view(pixels) for view in views], axis=0)
    inputs = seen
    if model.encoder_ is not None:
        inputs = {"image": seen, "metadata": _blank(model, seen)}
    fused = fuse_batch_norm(model.network_)
    _hold_statistics(fused)
    answers = keras.Model(fused.input, fused.output, name=name)(inputs)
    answers = ops.reshape(answers, (len(views), -1, answers.shape[-1]))
    answers = ops.mean(answers, axis=0)
    if model.config.target == "classes":
        return answers
    return ops.clip(ops.matmul(answers, membership(model.spec)), 0.0, 1.0)


def _hold_statistics(network: keras.Model) -> None:
    """Make what a frozen backbone's features are standardised by constants of the graph.

    Keras keeps them as tensors outside of it, for which tf2onnx makes further inputs.
    """
    for layer in network.layers:
        if isinstance(layer, keras.layers.Normalization):
            layer.mean, layer.variance = np.asarray(layer.mean), np.asarray(layer.variance)
        elif isinstance(layer, keras.Model):
            _hold_statistics(layer)


def _mean(parts: Sequence[Any]) -> Any:
    return parts[0] if len(parts) == 1 else ops.mean(ops.stack(parts), axis=0)


def _blank(model: Model, seen: Any) -> Any:
    """Metadata that are missing throughout, as a photo alone comes: (batch, width)."""
    row = blank_metadata(pd.DataFrame(index=["photo"]), model.spec)
    numbers = np.asarray(model.encoder_.transform(row), np.float32)
    ones = ops.ones_like(ops.cast(seen[:, :1, 0, 0], "float32"))
    return ops.matmul(ones, numbers)


def _calibrated(calibration: Calibration, spec: DatasetSpec, score: Any) -> Any:
    """What :func:`~kaggle_pipeline.evaluation.calibration.maps.apply_maps` makes of scores."""
    maps = calibration.maps
    if not maps:
        return score
    if SOFTMAX in maps:
        logits = ops.log(ops.clip(score, SUREST, 1.0))
        return ops.softmax(logits / maps[SOFTMAX]["temperature"], axis=-1)
    columns = [
        _curve(maps.get(name), score[:, i : i + 1]) for i, name in enumerate(calibration.classes)
    ]
    found = ops.concatenate(columns, axis=1)
    if spec.task != "multiclass":
        return found
    return found / ops.sum(found, axis=1, keepdims=True)


def _curve(parameters: Mapping[str, Any] | None, values: Any) -> Any:
    """One class's curve on values (batch, 1)."""
    if parameters is None:
        return values
    if "knots" in parameters:
        return _interpolated(*parameters["knots"], values)
    # 1 - p is exact where p is near 1; a clipped p is not.
    logit = ops.log(ops.maximum(values, SUREST)) - ops.log(ops.maximum(1.0 - values, SUREST))
    return ops.sigmoid(parameters["slope"] * logit + parameters["intercept"])


def _interpolated(x: Sequence[float], y: Sequence[float], values: Any) -> Any:
    """``np.interp`` of values (batch, 1)."""
    x, y = _rising(x), np.asarray(y, np.float32)
    if len(x) == 1:
        return ops.zeros_like(values) + y[0]
    slopes = ((y[1:] - y[:-1]) / (x[1:] - x[:-1])).astype(np.float32)
    clipped = ops.clip(values, float(x[0]), float(x[-1]))
    above = ops.cast(clipped > x[1:-1][None, :], "int32") if len(x) > 2 else None
    part = ops.zeros_like(ops.cast(values[:, 0], "int32"))
    part = part if above is None else ops.sum(above, axis=1)
    start, level, slope = (ops.take(one, part, axis=0)[:, None] for one in (x[:-1], y[:-1], slopes))
    return level + (clipped - start) * slope


def _rising(knots: Sequence[float]) -> np.ndarray:
    """Knots in float32; those that it cannot tell apart become neighbours, so that a step stays."""
    x = np.asarray(knots, np.float32)
    for i in range(1, len(x)):
        x[i] = max(x[i], np.nextafter(x[i - 1], np.float32(np.inf)))
    return x


def _decided(rule: Any, probability: Any) -> Any:
    """What a rule decides: int32 (batch, classes), 0 or 1."""
    if not isinstance(rule, SoftmaxRule):
        limits = np.asarray(rule.thresholds, np.float32) - SLACK
        return ops.cast(probability >= limits[None, :], "int32")
    costs = np.asarray(rule.costs)
    saved = np.asarray(rule.weights)[:, None] * (costs.max() - costs)
    worth = ops.matmul(probability, saved.astype(np.float32))
    # The first of the greatest. Keras' own argmax looks at the bits of a zero's sign, for which
    # ONNX of this opset has no operator.
    best = ops.cast(worth >= ops.max(worth, axis=1, keepdims=True), "int32")
    return best * ops.cast(ops.equal(ops.cumsum(best, axis=1), 1), "int32")
