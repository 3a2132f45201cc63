"""Curves that turn a model's probabilities into calibrated ones; JSON is all they are kept as.

In: probabilities and truth. Out: the parameters of a curve a class, and what they make of new
probabilities. Nothing here knows of folds: ``nested.py`` keeps the scored rows apart.
"""

from collections.abc import Collection, Mapping

import numpy as np
import pandas as pd

from kaggle_pipeline.metrics.task import Task
from kaggle_pipeline.metrics.weighted_scores import SUREST, clipped_logit

Array = np.ndarray
Maps = dict[str, dict]
"""Parameters by class; a class that is not in it stays as it is."""
SOFTMAX = "all classes"
"""Key of the one map of a softmax."""
_LEAST_SLOPE = 1e-3
_LOG_TEMPERATURES = (-4.0, 4.0)


def fit_maps(
    method: str,
    probabilities: pd.DataFrame,
    truth: pd.DataFrame,
    task: Task,
    *,
    leave: Collection[str] = (),
) -> Maps:
    """Learn the curves of one method.

    Parameters
    ----------
    method : {"temperature", "isotonic", "none"}
    probabilities, truth : pandas.DataFrame
        A column a class, row by row; truth is 0 or 1.
    task : {"binary", "multilabel", "multiclass"}
    leave : collection of str
        Classes that stay as they are, unless one temperature serves all.

    Returns
    -------
    dict of str to dict
        ``{class: {"slope", "intercept"}}``, ``{class: {"knots": [[...], [...]]}}`` or
        ``{SOFTMAX: {"temperature"}}``; empty for ``none``.
    """
    if method == "none":
        return {}
    if method == "temperature" and task == "multiclass":
        return {SOFTMAX: fit_temperature(probabilities.to_numpy(float), truth.to_numpy(int))}
    fit = fit_platt if method == "temperature" else fit_isotonic
    return {
        name: fit(probabilities[name].to_numpy(float), truth[name].to_numpy(int))
        for name in probabilities.columns
        if name not in leave
    }


def apply_maps(maps: Mapping[str, Mapping], probabilities: pd.DataFrame, task: Task) -> Array:
    """Return calibrated probabilities (n, classes); those of a softmax sum to 1 in each row."""
    from scipy.special import log_softmax

    values = probabilities.to_numpy(float)
    if not maps:
        return values
    if SOFTMAX in maps:
        logits = np.log(np.clip(values, SUREST, 1.0))
        return np.exp(log_softmax(logits / maps[SOFTMAX]["temperature"], axis=1))
    columns = zip(probabilities.columns, values.T, strict=True)
    found = np.stack([_apply(maps.get(name), column) for name, column in columns], axis=1)
    if task != "multiclass":
        return found
    # One against the rest, then made a distribution (Zadrozny & Elkan 2002).
    return found / found.sum(axis=1, keepdims=True)


def _apply(parameters: Mapping | None, values: Array) -> Array:
    from scipy.special import expit

    if parameters is None:
        return values
    if "knots" in parameters:
        return np.interp(values, *parameters["knots"])
    return expit(parameters["slope"] * clipped_logit(values, SUREST) + parameters["intercept"])


def fit_platt(probabilities: Array, truth: Array) -> dict[str, float]:
    """Fit ``expit(slope * logit(p) + intercept)``, Platt's scaling of one class.

    Platt 1999, "Probabilistic outputs for support vector machines", with his smoothed targets, so
    that a perfect separation has a finite slope. ``1 / slope`` is the temperature of Guo et al.
    2017 (arXiv:1706.04599); class weights and oversampling shift the intercept. The slope stays
    above 0: a calibration never turns the order of the images round.

    Parameters
    ----------
    probabilities, truth : array of shape (n,)

    Returns
    -------
    dict
        ``slope, intercept``.
    """
    from scipy.optimize import minimize
    from scipy.special import expit

    x, target = clipped_logit(probabilities, SUREST), _smooth(truth)
    centre, spread = float(x.mean()), float(x.std()) or 1.0
    scaled = (x - centre) / spread

    def loss(parameters: Array) -> tuple[float, Array]:
        z = parameters[0] * scaled + parameters[1]
        error = expit(z) - target
        slopes = np.array([(error * scaled).mean(), error.mean()])
        return float((np.logaddexp(0, z) - target * z).mean()), slopes

    # SLSQP: for two parameters five times as quick as L-BFGS-B, which keeps waking BLAS' threads.
    found = minimize(
        loss, np.array([spread, centre]), jac=True, method="SLSQP",
        bounds=[(_LEAST_SLOPE * spread, None), (None, None)],
        options={"ftol": 1e-14, "maxiter": 500},
    ).x  # fmt: skip
    slope = float(found[0] / spread)
    return {"slope": slope, "intercept": float(found[1] - slope * centre)}


def fit_temperature(probabilities: Array, truth: Array) -> dict[str, float]:
    """Fit the one temperature of a softmax (Guo et al. 2017, arXiv:1706.04599, section 4.2).

    Parameters
    ----------
    probabilities : array of shape (n, classes)
    truth : array of shape (n, classes)
        One 1 in each row.

    Returns
    -------
    dict
        ``temperature``: above 1 makes the probabilities less sure. The order of the classes in a
        row stays.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    logits = np.log(np.clip(probabilities, SUREST, 1.0))
    right = truth.argmax(axis=1)[:, None]

    def loss(log_temperature: float) -> float:
        surprise = log_softmax(logits / np.exp(log_temperature), axis=1)
        return float(-np.take_along_axis(surprise, right, axis=1).mean())

    found = minimize_scalar(loss, bounds=_LOG_TEMPERATURES, method="bounded")
    return {"temperature": float(np.exp(found.x))}


def fit_isotonic(probabilities: Array, truth: Array) -> dict[str, list[list[float]]]:
    """Fit the best curve that never falls (Zadrozny & Elkan 2002, doi:10.1145/775047.775151).

    It is fitted to Platt's smoothed targets, so it never says 0 or 1, of which a single
    exception would make an infinite loss.

    Parameters
    ----------
    probabilities, truth : array of shape (n,)

    Returns
    -------
    dict
        ``knots``: probabilities, rising, and what each becomes; straight lines between them.
    """
    from sklearn.isotonic import IsotonicRegression

    found = IsotonicRegression(out_of_bounds="clip").fit(probabilities, _smooth(truth))
    return {"knots": [found.X_thresholds_.tolist(), found.y_thresholds_.tolist()]}


def _smooth(truth: Array) -> Array:
    """Platt's targets: (n₊ + 1) / (n₊ + 2) in place of 1, 1 / (n₋ + 2) in place of 0."""
    positive = int(truth.sum())
    high, low = (positive + 1) / (positive + 2), 1 / (len(truth) - positive + 2)
    return np.where(truth == 1, high, low)
