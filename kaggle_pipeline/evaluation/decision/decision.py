"""Decision: what an image is called, learned out of fold for the metric that counts.

In: out-of-fold predictions beside the truth, and their calibration. Out: a :class:`Decision`
(``decision.json``) that decides calibrated probabilities of the same model, with what it reaches on
groups that it was not learned from and what it costs in the other metrics.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from kaggle_pipeline.config.experiment import DecisionConfig
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.files import read_json
from kaggle_pipeline.evaluation.calibration import nested as nesting
from kaggle_pipeline.evaluation.calibration.calibration import Calibration
from kaggle_pipeline.evaluation.decision import scores
from kaggle_pipeline.evaluation.decision.fitting import fit_rule, threshold_for
from kaggle_pipeline.evaluation.decision.rules import (
    NONE_OF_THEM,
    Rule,
    ThresholdRule,
    check_decision,
    cost_matrix,
    name_decisions,
    plain_rule,
    read_rule,
)
from kaggle_pipeline.evaluation.labelled import LabelledPredictions
from kaggle_pipeline.metrics.task import Task
from kaggle_pipeline.metrics.weighted_scores import THRESHOLD

Array = np.ndarray
FILE = "decision.json"
"""In the folder of a scored stage."""
_CALIBRATION_FILE = "calibration.json"
"""Which held the thresholds of runs made before."""


@dataclass(frozen=True)
class Decision:
    """A learned rule.

    Attributes
    ----------
    settings : dict
        The section ``decision`` of the experiment.
    task : {"binary", "multilabel", "multiclass"}
    classes : tuple of str
    rule : Rule
        Of calibrated probabilities.
    learned : bool
        Whether it was learned; else it is the plain one, for the reason ``why``.
    why : str
    thresholds : dict of str to list of dict
        By class, for each of ``settings["sensitivities"]``: ``sensitivity`` (wanted), ``threshold``
        (on the calibrated probability, a row is called from it on) and ``nested``: what thresholds
        found this way reached on groups that had no part in them (``scores.reached``).
    study : dict
        ``n, group, groups, folds, n_replicates, seed``; ``scores`` of the ``plain`` and the nested
        ``learned`` decisions; their paired ``change``; ``per_class``, ``confusion`` and
        ``trade_off``.
    """

    settings: dict[str, Any]
    task: Task
    classes: tuple[str, ...]
    rule: Rule
    learned: bool
    why: str
    thresholds: dict[str, list[dict]]
    study: dict[str, Any]

    @classmethod
    def fit(
        cls,
        labelled: LabelledPredictions,
        calibration: Calibration,
        config: DecisionConfig,
        *,
        seed: int,
    ) -> "Decision":
        """Learn the rule on all rows, and score rules learned so on groups without a part in them.

        Parameters
        ----------
        labelled : LabelledPredictions
            Out-of-fold probabilities as the model gives them, beside the truth.
        calibration : Calibration
            Learned from the same rows; nested, its method is learned anew with each rule.
        config : DecisionConfig
        seed : int
            Of the parts.

        Raises
        ------
        PipelineError
            If the config names a class that the data set does not have.
        """
        spec = labelled.spec
        task, classes = spec.task, spec.classes
        check_decision(config, task, classes)
        lacking = nesting.lacking(labelled)
        facts = {key: calibration.study[key]
                 for key in ("n", "group", "groups", "folds", "n_replicates", "seed")}  # fmt: skip
        raw = pd.DataFrame(labelled.probabilities, labelled.rows.index, list(classes))
        calibrated = calibration.apply(raw).to_numpy()
        costs = cost_matrix(config, classes) if task == "multiclass" else None
        describe = partial(scores.describe_decisions, labelled, config=config)
        plain = plain_rule(task, len(classes))
        if facts["groups"] < nesting.FOLDS or len(lacking) == len(classes):
            facts |= {"scores": {"plain": describe(plain.decide(calibrated))}}
            why = "; ".join(lacking.values()) or f"{facts['groups']} {facts['group']}s are too few"
            return cls(asdict(config), task, classes, plain, False, why, {}, facts)
        learn = partial(fit_rule, task=task, classes=classes, config=config, leave=set(lacking))
        rules: dict[str, nesting.Fit] = {
            "plain": lambda truth, found: plain.decide,
            "learned": lambda truth, found: learn(truth, found).decide,
        }
        for wanted in config.sensitivities:
            rules[str(wanted)] = partial(_thresholds_of, wanted, classes, lacking)
        nested = nesting.nest(
            calibration.method, labelled, nesting.divide(labelled, seed), rules=rules,
            leave=set(lacking),
        )  # fmt: skip
        decided = nested.decided
        facts |= {
            "scores": {name: describe(decided[name]) for name in ("plain", "learned")},
            "change": scores.change(labelled, decided["plain"], decided["learned"], config),
            "per_class": {
                when: scores.per_class(labelled, decided[when]) for when in ("plain", "learned")
            },
            "confusion": scores.confusion(labelled, decided["learned"]),
            "trade_off": scores.trade_off(labelled, nested.probabilities, costs, config),
        }
        return cls(
            asdict(config), task, classes, learn(labelled.truth, calibrated), True,
            _why(config), _tabulate(labelled, calibrated, decided, config, lacking), facts,
        )  # fmt: skip

    def decide(
        self, calibrated: pd.DataFrame, words: Mapping[str, str] = MappingProxyType({})
    ) -> pd.Series:
        """Return the decision of each row of calibrated probabilities.

        Parameters
        ----------
        calibrated : pandas.DataFrame
            A column a class.
        words : mapping of str to str, optional
            What a class is called; else by its own name. Where there is one class, what is not it
            is then called "no melanoma", say.
        """
        decided = self.rule.decide(calibrated[list(self.classes)].to_numpy(float))
        called = [words.get(name, name) for name in self.classes]
        none = f"no {called[0]}" if words and len(called) == 1 else NONE_OF_THEM
        return pd.Series(name_decisions(decided, called, none), calibrated.index, name="decision")

    def evaluate(self, labelled: LabelledPredictions, calibrated: Array) -> dict[str, Any]:
        """Return what the rule is worth on rows that nothing was learned from.

        Parameters
        ----------
        labelled : LabelledPredictions
            A labelled test part, say.
        calibrated : array of shape (n, classes)

        Returns
        -------
        dict
            ``n, groups``; ``scores`` of the ``plain`` and the ``learned`` decisions; ``change``;
            ``per_class``; ``confusion``; ``thresholds``: by class what each reached.
        """
        config = DecisionConfig(**self.settings)
        rules = {"plain": plain_rule(self.task, len(self.classes)), "learned": self.rule}
        decided = {name: rule.decide(calibrated) for name, rule in rules.items()}
        reached = {
            name: [
                {key: one[key] for key in ("sensitivity", "threshold")}
                | {"reached": scores.reached(labelled, name, column >= one["threshold"])}
                for one in self.thresholds.get(name, [])
            ]
            for name, column in zip(self.classes, calibrated.T, strict=True)
        }
        return {
            "n": len(calibrated),
            "groups": int(labelled.rows["group_id"].nunique()),
            "scores": {
                name: scores.describe_decisions(labelled, found, config=config)
                for name, found in decided.items()
            },
            "change": scores.change(labelled, decided["plain"], decided["learned"], config),
            "per_class": {name: scores.per_class(labelled, one) for name, one in decided.items()},
            "confusion": scores.confusion(labelled, decided["learned"]),
            "thresholds": reached,
        }

    def to_mapping(self) -> dict[str, Any]:
        """Return the decision as plain JSON types."""
        named = {**vars(self), "classes": list(self.classes), "rule": self.rule.to_mapping()}
        sensitivities = list(self.settings["sensitivities"])
        return named | {"settings": {**self.settings, "sensitivities": sensitivities}}

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> "Decision":
        """Return the decision that :meth:`to_mapping` wrote.

        Raises
        ------
        PipelineError
            If a key is missing or the rule is none.
        """
        try:
            settings = {**mapping["settings"]}
            settings["sensitivities"] = tuple(settings["sensitivities"])
            rule, classes = read_rule(mapping["rule"]), tuple(mapping["classes"])
            rule.decide(np.full((1, len(classes)), 1 / len(classes)))
            return cls(
                settings, mapping["task"], classes, rule, mapping["learned"], mapping["why"],
                mapping["thresholds"], mapping["study"],
            )  # fmt: skip
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise PipelineError(
                f"decision: damaged ({reason}); make that stage's results anew"
            ) from None


def read_decision(folder: Path) -> Decision | None:
    """Return the decision of the stage in ``folder``, None where there is none.

    Raises
    ------
    PipelineError
        If the file is damaged.
    """
    path = Path(folder) / FILE
    return Decision.from_mapping(read_json(path)) if path.exists() else None


def read_thresholds(folder: Path) -> dict[str, list[dict]]:
    """Return a stage's thresholds by class; those of a run made before are in its calibration."""
    for name in (FILE, _CALIBRATION_FILE):
        path = Path(folder) / name
        if path.exists() and "thresholds" in (found := read_json(path)):
            return found["thresholds"]
    return {}


def _why(config: DecisionConfig) -> str:
    best = {"accuracy": "most decisions are right", "cost": "wrong decisions cost least"}
    best["balanced_accuracy"] = "rare and common classes count the same (best balanced accuracy)"
    wanted = ", ".join(f"{share:.0%} of {name}" for name, share in config.sensitivity.items())
    return (
        f"chosen so that {best[config.metric]}"
        f"{f', and at least {wanted} are found' if wanted else ''}"
    )


def _thresholds_of(
    wanted: float, classes: tuple[str, ...], lacking: Mapping[str, str], truth: Array, found: Array
) -> Any:
    """Learn each class's threshold of a sensitivity; the decision function of all of them."""
    limits = [
        THRESHOLD if name in lacking else threshold_for(truth[:, i], found[:, i], wanted)
        for i, name in enumerate(classes)
    ]
    return ThresholdRule(tuple(limits)).decide


def _tabulate(
    labelled: LabelledPredictions,
    calibrated: Array,
    decided: Mapping[str, Array],
    config: DecisionConfig,
    lacking: Mapping[str, str],
) -> dict[str, list[dict]]:
    """Thresholds by class on the final curves, with what nested ones reached."""
    return {
        name: [
            {
                "sensitivity": wanted,
                "threshold": threshold_for(labelled.truth[:, i], calibrated[:, i], wanted),
                "nested": scores.reached(labelled, name, decided[str(wanted)][:, i] == 1),
            }
            for wanted in config.sensitivities
        ]
        for i, name in enumerate(labelled.spec.classes)
        if name not in lacking
    }
