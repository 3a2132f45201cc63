"""Calibration: probabilities that mean what they say, learned out of fold.

In: out-of-fold probabilities, truth and groups. Out: a :class:`Calibration` (``calibration.json``)
that calibrates new probabilities of the same model, with its own honest scores. It changes what a
number means, not which image ranks above which: a submission that is scored by AUC needs none.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kaggle_pipeline.config.experiment import CalibrationConfig
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.files import read_json
from kaggle_pipeline.core.tables import require_probabilities
from kaggle_pipeline.data.spec import DatasetSpec
from kaggle_pipeline.evaluation.calibration import nested as study
from kaggle_pipeline.evaluation.calibration.maps import SOFTMAX, Maps, apply_maps, fit_maps
from kaggle_pipeline.evaluation.labelled import LabelledPredictions, join_truth

METHODS = ("none", "temperature", "isotonic")
FILE = "calibration.json"
"""In the folder of a scored stage."""
PERCENTILES = tuple(range(101))


@dataclass(frozen=True)
class Calibration:
    """A fitted calibration.

    Attributes
    ----------
    method : {"temperature", "isotonic", "none"}
    why : str
        Why this method.
    task : {"binary", "multilabel", "multiclass"}
    classes : tuple of str
    maps : dict of str to dict
        Curves, as :func:`~kaggle_pipeline.evaluation.calibration.maps.fit_maps` returns them.
    lacking : dict of str to str
        Why a class has no curve of its own, for those that have none.
    population : dict of str to list of float
        Percentiles 0 to 100 of the calibrated out-of-fold probability of a class.
    study : dict
        ``n, group, groups, folds, n_replicates, seed``; ``scores`` nested, by method;
        ``change`` by the chosen one; ``curves`` before and after.
    """

    method: str
    why: str
    task: str
    classes: tuple[str, ...]
    maps: Maps
    lacking: dict[str, str]
    population: dict[str, list[float]]
    study: dict[str, Any]

    @classmethod
    def fit(
        cls,
        oof: pd.DataFrame,
        truth: pd.DataFrame,
        groups: pd.Series,
        spec: DatasetSpec,
        config: CalibrationConfig,
        *,
        seed: int,
        n_replicates: int = 1000,
    ) -> "Calibration":
        """Learn curves on all rows, and score such ones nested.

        Parameters
        ----------
        oof : pandas.DataFrame
            Out-of-fold probabilities in [0, 1], indexed by image id, a column a class.
        truth : pandas.DataFrame
            0 or 1 by image id, the same columns; further rows are left out.
        groups : pandas.Series
            Patient or lesion by image id; never split.
        spec : DatasetSpec
            Gives task and classes.
        config : CalibrationConfig
        seed : int
            Of the parts and of the bootstrap.
        n_replicates : int

        Returns
        -------
        Calibration
            Of the method ``none``, with the reason, where there are too few images to learn from.

        Raises
        ------
        PipelineError
            If an id is unknown or doubled, or a truth or probability is not usable.
        """
        classes = list(spec.classes)
        rows = truth.assign(group_id=groups.reindex(truth.index)).dropna(subset="group_id")
        labelled = join_truth(rows, oof, spec, seed, n_replicates, None)
        facts = {
            "n": len(oof), "group": spec.group or "photo",
            "groups": int(labelled.rows["group_id"].nunique()), "folds": study.FOLDS,
            "n_replicates": n_replicates, "seed": seed,
        }  # fmt: skip
        why_not = study.lacking(labelled)
        if facts["groups"] < study.FOLDS or len(why_not) == len(classes):
            return cls._unfitted(labelled, why_not, facts)
        found = _compare(labelled, config, why_not, seed)
        method, why = study.choose(config.method, found["values"])
        leave = study.left_alone(method, spec.task, why_not)
        truth = pd.DataFrame(labelled.truth, oof.index, classes)
        maps = fit_maps(method, oof[classes], truth, spec.task, leave=leave)
        calibrated = apply_maps(maps, oof[classes], spec.task)
        nested, values = found["nested"][method], found["values"]
        facts |= {
            "scores": {name: study.describe(one) for name, one in values.items()},
            "change": study.change(values["none"], values[method]),
            "curves": {
                "before": study.curves(labelled, labelled.probabilities),
                "after": study.curves(labelled, nested.probabilities),
            },
        }
        return cls(
            method, why, spec.task, spec.classes, maps, why_not,
            _training_distribution(classes, calibrated), facts,
        )  # fmt: skip

    @classmethod
    def _unfitted(
        cls, labelled: LabelledPredictions, why_not: dict[str, str], facts: dict[str, Any]
    ) -> "Calibration":
        """The probabilities as they are, with why."""
        spec = labelled.spec
        values = study.values_of(labelled, labelled.probabilities)
        facts |= {
            "scores": {"none": study.describe(values)},
            "change": study.change(values, values),
            "curves": {"before": study.curves(labelled, labelled.probabilities), "after": []},
        }
        too_few = f"{facts['groups']} {facts['group']}s, {study.FOLDS} are needed"
        why = "too few images: " + ("; ".join(why_not.values()) or too_few)
        population = _training_distribution(spec.classes, labelled.probabilities)
        return cls("none", why, spec.task, spec.classes, {}, why_not, population, facts)

    def apply(self, probabilities: pd.DataFrame) -> pd.DataFrame:
        """Return calibrated probabilities, index as given, a column a class.

        Raises
        ------
        PipelineError
            If a class has no column, or a value is not in [0, 1].
        """
        absent = [name for name in self.classes if name not in probabilities.columns]
        if absent:
            raise PipelineError(f"calibration: the probabilities lack the column {absent[0]!r}")
        frame = require_probabilities(probabilities[list(self.classes)], "calibration")
        return pd.DataFrame(apply_maps(self.maps, frame, self.task), frame.index, frame.columns)

    def evaluate(
        self,
        probabilities: pd.DataFrame,
        truth: pd.DataFrame,
        groups: pd.Series,
        spec: DatasetSpec,
        *,
        seed: int,
        n_replicates: int = 1000,
    ) -> dict[str, Any]:
        """Return what the curves are worth on rows that nothing was learned from.

        Parameters as for :meth:`fit`; a labelled test part, say.

        Returns
        -------
        dict
            ``n, groups``; ``scores`` ``before`` and ``after``; ``change``.
        """
        rows = truth.assign(group_id=groups.reindex(truth.index)).dropna(subset="group_id")
        labelled = join_truth(rows, probabilities, spec, seed, n_replicates, None)
        after = self.apply(probabilities).to_numpy()
        values = [study.values_of(labelled, one) for one in (labelled.probabilities, after)]
        return {
            "n": len(probabilities),
            "groups": int(labelled.rows["group_id"].nunique()),
            "scores": dict(zip(("before", "after"), map(study.describe, values), strict=True)),
            "change": study.change(*values),
        }

    def to_mapping(self) -> dict[str, Any]:
        """Return the calibration as plain JSON types."""
        return {**asdict(self), "classes": list(self.classes)}

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> "Calibration":
        """Return the calibration that :meth:`to_mapping` wrote.

        Raises
        ------
        PipelineError
            If a key is missing or a curve is none.
        """
        try:
            found = cls(**{one.name: mapping[one.name] for one in fields(cls)})
            found = cls(**{**vars(found), "classes": tuple(found.classes)})
            for name, curve in found.maps.items():
                _check_curve(name, curve, found.classes)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise PipelineError(
                f"calibration: damaged ({reason}); make that stage's results anew"
            ) from None
        return found


def read_calibration(folder: Path) -> Calibration | None:
    """Return the calibration of the stage in ``folder``, None where there is none.

    Raises
    ------
    PipelineError
        If the file is damaged.
    """
    path = Path(folder) / FILE
    return Calibration.from_mapping(read_json(path)) if path.exists() else None


def _check_curve(name: str, curve: Mapping[str, Any], classes: tuple[str, ...]) -> None:
    """Raise a ValueError unless the curve rises and is of a known class."""
    if name not in (*classes, SOFTMAX):
        raise ValueError(f"no class {name!r}")
    if "knots" in curve:
        x, y = (np.asarray(part, float) for part in curve["knots"])
        fine = len(x) == len(y) > 0 and (np.diff(x) > 0).all() and (np.diff(y) >= 0).all()
        fine = fine and y[0] >= 0 and y[-1] <= 1
    elif name == SOFTMAX:
        fine = curve["temperature"] > 0
    else:
        fine = curve["slope"] > 0 and np.isfinite(curve["intercept"])
    if not fine:
        raise ValueError(f"the curve of {name} does not rise")


def _compare(
    labelled: LabelledPredictions, config: CalibrationConfig, why_not: Mapping[str, str], seed: int
) -> dict[str, dict]:
    """Nested rows and scores by method; those that the config cannot choose are not tried."""
    folds = study.divide(labelled, seed)
    tried = METHODS if config.method == "auto" else tuple(dict.fromkeys(("none", config.method)))
    nested = {name: study.nest(name, labelled, folds, leave=why_not) for name in tried}
    values = {name: study.values_of(labelled, one.probabilities) for name, one in nested.items()}
    return {"nested": nested, "values": values}


def _training_distribution(
    classes: tuple[str, ...], probabilities: np.ndarray
) -> dict[str, list[float]]:
    levels = np.percentile(probabilities, PERCENTILES, axis=0)
    return dict(zip(classes, levels.T.tolist(), strict=True))
