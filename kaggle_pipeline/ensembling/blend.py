"""Blend: several models' probabilities become one, honestly judged.

In: out-of-fold and test predictions by id. Out: a :class:`Blend` (``blend.json``), nested
out-of-fold predictions of the very same blend, test predictions.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from itertools import combinations_with_replacement
from pathlib import Path

import numpy as np
import pandas as pd

from kaggle_pipeline.config.experiment import BlendConfig, FoldsConfig
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.files import read_json
from kaggle_pipeline.data.folds import Folds, make_folds
from kaggle_pipeline.data.predictions import AVERAGED, Predictions, join_by_id
from kaggle_pipeline.data.spec import DatasetSpec
from kaggle_pipeline.metrics.roc_bootstrap import roc_auc
from kaggle_pipeline.metrics.weighted_scores import clipped_logit

FILE = "blend.json"
"""In ``blend/``: what was fitted."""
_STEPS = 20
"""Weights are multiples of 1/20: finer ones follow the noise of the folds."""
INNER_PARTS = 5
"""Parts of the patients where there is one fold, each scored with the weights of the others."""
_KNOTS = 1001
Frames = Mapping[str, pd.DataFrame]


@dataclass(frozen=True)
class Blend:
    """A fitted blend.

    Attributes
    ----------
    space : {"mean", "rank", "logit"}
    weights : dict of str to float
        Of each model; they sum to 1.
    knots : dict of str to list of list of float
        For ``rank``: quantiles of each model's training probabilities, a list a class, so that a
        single new image has a rank too. Empty otherwise.
    sums_to_one : bool
        Whether the classes exclude each other, so that a row is a distribution.
    method : {"nested", "equal", "single", ""}
        How the weights came about: fitted, and scored with weights of other patients; equal, by
        wish or because there is too little to fit on; of a single model. Empty in a file of
        a release that did not write it.
    why : str
        The same in words.
    """

    space: str
    weights: dict[str, float]
    knots: dict[str, list[list[float]]]
    sums_to_one: bool = False
    method: str = ""
    why: str = ""

    def apply(self, frames: Frames) -> pd.DataFrame:
        """Return blended probabilities, indexed as the frames are (all alike)."""
        from scipy.special import expit

        names = list(self.weights)
        parts = [self.weights[name] * self._transform(name, frames[name]) for name in names]
        total = np.sum(parts, axis=0)
        if self.space == "logit":
            total = expit(total)
        if self.sums_to_one:
            total = total / total.sum(axis=1, keepdims=True)
        first = frames[names[0]]
        return pd.DataFrame(np.clip(total, 0.0, 1.0), first.index, first.columns)

    def effective_shares(self, frames: Frames) -> dict[str, float]:
        """Return how much each model moves the blend, as shares that sum to 1.

        A model's weight times the standard deviation of its scores in the blend's space over the
        rows (mean over the classes): a weight alone says little where one model's scores lie far
        apart and another's close together.
        """
        moved = {
            name: weight * float(self._transform(name, frames[name]).std(axis=0).mean())
            for name, weight in self.weights.items()
        }
        total = sum(moved.values())
        return {name: part / total if total else self.weights[name] for name, part in moved.items()}

    def judged_as_used(self, folds: int) -> bool:
        """Whether the scores beside the blend are its own; ``folds`` is how many the run has.

        Before ``method`` was written, a blend of a single fold was judged with equal weights and
        used with fitted ones.
        """
        return bool(self.method) or folds > 1 or len(set(self.weights.values())) == 1

    def without_idle(self) -> "Blend":
        """Return the blend of the models that have a weight: the others need not be asked."""
        weights = {name: weight for name, weight in self.weights.items() if weight > 0}
        return replace(self, weights=weights)

    def to_mapping(self) -> dict:
        """Return the blend as plain JSON types."""
        return asdict(self)

    def _transform(self, name: str, frame: pd.DataFrame) -> np.ndarray:
        values = frame.to_numpy(float)
        if self.space == "logit":
            return clipped_logit(values)
        if self.space == "rank":
            columns = zip(values.T, self.knots[name], strict=True)
            return np.stack([_rank(column, knots) for column, knots in columns], axis=1)
        return values


def read_blend(stage: Path) -> tuple[Blend, Path]:
    """Return the blend that a run submits and serves, and the stage whose scores are its own.

    Parameters
    ----------
    stage : pathlib.Path
        What reads the run's photos: it is all of the blend where the run has no ``blend/``.

    Raises
    ------
    PipelineError
        If the file is damaged.
    """
    path = stage.parent / "blend" / FILE
    if not path.exists():
        return Blend("mean", {stage.name: 1.0}, {}), stage
    try:
        return Blend(**read_json(path)), path.parent
    except TypeError as error:
        raise PipelineError(
            f"{path} is damaged ({error}): blend again by make_submission"
        ) from None


def check_blend(config: BlendConfig, spec: DatasetSpec) -> None:
    """Raise a PipelineError where ranks would be blended of classes that exclude each other."""
    if spec.task == "multiclass" and config.space == "rank" and len(config.models) > 1:
        raise PipelineError(
            f"blend.space is 'rank', but the ranks of {spec.id}'s classes make no distribution: "
            "say --set blend.space=logit (or mean)"
        )


def fit_blend(
    frames: Frames, targets: pd.DataFrame, config: BlendConfig, *, sums_to_one: bool = False
) -> Blend:
    """Find the weights on out-of-fold probabilities; a single model stays as it is.

    Parameters
    ----------
    frames : mapping of str to pandas.DataFrame
        Each model's probabilities, all with the index of ``targets``.
    targets : pandas.DataFrame
        0 or 1, a column a class.
    config : BlendConfig
    sums_to_one : bool
        Whether the classes exclude each other.

    Returns
    -------
    Blend
    """
    names = list(frames)
    if len(names) == 1:  # ranks or clipped logits would only spoil its probabilities
        return Blend("mean", {names[0]: 1.0}, {}, sums_to_one)
    knots = {name: _find_knots(frames[name]) for name in names} if config.space == "rank" else {}
    equal = Blend(config.space, dict.fromkeys(names, 1 / len(names)), knots, sums_to_one)
    if config.weights == "equal":
        return equal
    parts = np.stack([equal._transform(name, frames[name]) for name in names])
    truth = targets.to_numpy(int)
    best, best_auc = None, -1.0
    for weights in _simplex(len(names)):
        auc = roc_auc(truth, np.tensordot(weights, parts, 1))
        if auc > best_auc + 1e-12:  # the first of equals: weights nearest to equal come first
            best, best_auc = weights, auc
    if best is None:  # a class has no positive or no negative row: nothing to weigh by
        return equal
    chosen = dict(zip(names, (float(w) for w in best), strict=True))
    return Blend(config.space, chosen, knots, sums_to_one)


def fit_nested(
    models: Mapping[str, Predictions],
    examples: pd.DataFrame,
    folds: Folds,
    spec: DatasetSpec,
    config: BlendConfig,
    *,
    seed: int,
) -> tuple[Blend, Predictions]:
    """Return the blend to use, and out-of-fold predictions that tell what it is worth.

    A fold's rows are blended with weights and ranks that were fitted on the other folds, and the
    blend to use is fitted the same way on all folds: so score, calibration and thresholds of the
    predictions are those of the blend. With a single fold its patients are divided into
    :data:`INNER_PARTS` parts, which stand for folds. Where weights cannot be fitted in every part
    they are equal everywhere, in the blend as in its predictions; :attr:`Blend.why` says so.

    Parameters
    ----------
    models : mapping of str to Predictions
        Out of fold; each predicts exactly the judged rows of ``folds``.
    examples : pandas.DataFrame
        ``group_id`` and a column a class, 0 or 1, by image id; further rows are left out.
    folds : Folds
    spec : DatasetSpec
    config : BlendConfig
    seed : int
        Of the division where there is a single fold.

    Raises
    ------
    PipelineError
        If a model lacks an id or predicts one that is not judged.
    """
    validated = folds.validated
    frames = join_by_id(models, validated.index)
    rows = examples.loc[validated.index, ["group_id", *spec.classes]]
    if len(models) == 1:
        part, method, why = validated["fold"], "single", "one model, nothing to weigh"
    else:
        part, method, why = _plan(rows, validated["fold"], spec, config, seed)
    if method == "equal":
        config = replace(config, weights="equal")

    def fit(ids: pd.Index) -> Blend:
        truth = rows.loc[ids, list(spec.classes)]
        one = fit_blend(
            _rows(frames, ids), truth, config, sums_to_one=spec.task == "multiclass"
        )  # fmt: skip
        return replace(one, method=method, why=why)

    blend = fit(validated.index)
    found = []
    for number in sorted(part.unique()):
        inside, outside = (validated.index[mask] for mask in (part == number, part != number))
        # A part that is all there is has no fitted weights: what is used blends it.
        fitted = fit(outside) if len(outside) else blend
        found.append(fitted.apply(_rows(frames, inside)))
    probabilities = pd.concat(found).loc[validated.index]
    return blend, Predictions.build(probabilities, validated["fold"], "oof")


def _plan(
    rows: pd.DataFrame, fold: pd.Series, spec: DatasetSpec, config: BlendConfig, seed: int
) -> tuple[pd.Series, str, str]:
    """Return the part of each row, the method of the weights, and the latter in words."""
    if config.weights == "equal":
        return fold, "equal", "equal, as blend.weights says"
    if fold.nunique() > 1:
        part, whose = fold, "each fold scored with weights of the others"
    elif why_not := _too_few(rows, spec):
        return fold, "equal", f"equal, for weights cannot be fitted in one fold: {why_not}"
    else:
        part = make_folds(rows, spec, FoldsConfig(k=INNER_PARTS), seed).table["fold"]
        unit = spec.group or "photo"
        whose = f"one fold, so {INNER_PARTS} parts of its {unit}s, each scored with the others'"
    for number in sorted(part.unique()):
        outside = rows.loc[part != number, list(spec.classes)]
        for name, column in outside.items():
            if column.nunique() < 2:
                kind = "negative" if column.any() else "positive"
                why_not = f"no {kind} photo of {name} lies outside fold {number}"
                return fold, "equal", f"equal, for weights cannot be fitted in each fold: {why_not}"
    return part, "nested", f"fitted; {whose}"


def _too_few(rows: pd.DataFrame, spec: DatasetSpec) -> str:
    """Why one fold's groups cannot be divided; empty where every part can get of every class."""
    unit = spec.group or "photo"
    for name in spec.classes:
        for value, kind in ((1, "positive"), (0, "negative")):
            count = rows.loc[rows[name] == value, "group_id"].nunique()
            if count < INNER_PARTS:
                return f"{count} {unit}s have a {kind} photo of {name}, {INNER_PARTS} are needed"
    return ""


def blend_test(blend: Blend, models: Mapping[str, Predictions], ids: pd.Index) -> Predictions:
    """Return the blend's test predictions for ``ids``, joined by id."""
    return Predictions.build(blend.apply(join_by_id(models, ids)), AVERAGED, "test")


def _rows(frames: Frames, ids: pd.Index) -> dict[str, pd.DataFrame]:
    return {name: frame.loc[ids] for name, frame in frames.items()}


def _find_knots(frame: pd.DataFrame) -> list[list[float]]:
    """Quantiles of each column; as few as there are rows."""
    levels = np.linspace(0, 1, min(_KNOTS, len(frame)))
    return np.quantile(frame.to_numpy(float), levels, axis=0).T.tolist()


def _rank(values: np.ndarray, knots: list[float]) -> np.ndarray:
    """Share of the training probabilities below a value, ties counted half; monotone.

    Of the quantiles that ``blend.json`` keeps; ``ranks.Weighted`` counts among all training scores.
    """
    ordered, levels = np.asarray(knots), np.linspace(0, 1, len(knots))
    # Equal knots share one level, their middle, or interpolation would favour one end.
    points, inverse = np.unique(ordered, return_inverse=True)
    middle = np.bincount(inverse, levels) / np.bincount(inverse)
    return np.interp(values, points, middle)


def _simplex(size: int) -> list[np.ndarray]:
    """Weight vectors with parts of 1/20 that sum to 1, nearest to equal weights first."""
    found = {
        tuple(np.bincount(np.array(pick), minlength=size))
        for pick in combinations_with_replacement(range(size), _STEPS)
    }
    weights = [np.array(counts) / _STEPS for counts in sorted(found)]
    return sorted(weights, key=lambda w: float(np.square(w - 1 / size).sum()))
