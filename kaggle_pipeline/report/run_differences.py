"""What tells two runs apart: settings, photos and the paired difference of their scores.

In: two runs' folders. Out: lines for a person.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kaggle_pipeline.config.loading import load_experiment, to_mapping
from kaggle_pipeline.config.names import SCORED_STAGES
from kaggle_pipeline.config.run_settings import load_run_experiment
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.data.examples import read_examples, read_test_truth
from kaggle_pipeline.data.predictions import Predictions
from kaggle_pipeline.data.spec import DatasetSpec
from kaggle_pipeline.datasets import spec_of
from kaggle_pipeline.leakage.fingerprints import read_digests
from kaggle_pipeline.metrics.roc_bootstrap import MeanAuc, bootstrap_weights, score_of
from kaggle_pipeline.report.run_tables import blends_several

_REPLICATES = 1000
_LONGEST = 30
"""Signs of a setting's value that are shown."""
_OUT_OF_FOLD, _TEST = "oof.csv", "test.csv"


def describe_difference(first: Path, second: Path) -> list[str]:
    """Return what is different in the second run: settings, photos, and by how much it scores.

    The difference is paired: both runs are scored on the same photos, and on the same bootstrap
    samples of whole groups, so that what is hard for both is no noise between them.

    Parameters
    ----------
    first, second : pathlib.Path
        Folders of runs with at least one finished stage.
    """
    lines = [f"{second} beside {first}:", *_settings(first, second)]
    try:
        of_first, of_second = _Scored(first), _Scored(second)
    except PipelineError as error:  # an output that somebody fetched without its tables
        return [*lines, f"  scores are not compared: {error}"]
    if of_first.spec.classes != of_second.spec.classes:
        return [*lines, "  other classes: scores are not compared"]
    for stage in SCORED_STAGES:
        if stage == "blend" and not (blends_several(first) or blends_several(second)):
            continue  # its one model is compared already
        for file in (_OUT_OF_FOLD, _TEST):
            lines += _paired(stage, file, of_first, of_second)
    return lines


def _settings(first: Path, second: Path) -> list[str]:
    before, after = _resolved(first), _resolved(second)
    keys = [
        key for key in dict.fromkeys((*before, *after))
        if key != "name" and before.get(key) != after.get(key)
    ]  # fmt: skip
    if not keys:
        return ["  the same settings"]
    lines = []
    for key in keys:
        old, new = (_short(found.get(key, "not set")) for found in (before, after))
        lines.append(f"  {key}: {old} -> {new}")
    return lines


def _resolved(run_dir: Path) -> dict[str, Any]:
    """Every setting of a run by its dotted key; see :func:`load_run_experiment`."""
    return dict(_flat(to_mapping(load_run_experiment(run_dir)), ""))


def _flat(content: Mapping, prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in content.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _short(value: object) -> str:
    text = "null" if value is None else str(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


class _Scored:
    """A run's predictions with the labels and groups of the photos."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir, prepared = run_dir, run_dir / "prepare"
        stage = next(one for one in SCORED_STAGES if (run_dir / one / "config.yaml").exists())
        self.spec: DatasetSpec = spec_of(
            load_experiment(run_dir / stage / "config.yaml"), prepared, None
        )
        self.examples = read_examples(prepared / "examples.csv", self.spec)
        self.test_truth = read_test_truth(prepared, self.spec)
        self.digests = read_digests(prepared)

    def labelled(self, stage: str, file: str) -> tuple[pd.DataFrame, pd.DataFrame] | None:
        """Probabilities and truth by photo id, a column a class; None where one is not there."""
        path, classes = self.run_dir / stage / file, list(self.spec.classes)
        truth = self.examples[classes] if file == _OUT_OF_FOLD else self.test_truth
        if truth is None or not (path.parent / "metrics.json").exists() or not path.exists():
            return None
        found = Predictions.read(path, classes)
        return found.probabilities, truth.loc[found.table.index, classes]


def _other_files(first: _Scored, second: _Scored, ids: pd.Index) -> int:
    """How many photos of one id are not the same file, as far as both runs know their files."""
    before, after = first.digests, second.digests
    known = ids.intersection(before.index).intersection(after.index)
    return int((before.loc[known] != after.loc[known]).sum())


def _paired(stage: str, file: str, first: _Scored, second: _Scored) -> list[str]:
    before, after = first.labelled(stage, file), second.labelled(stage, file)
    if before is None or after is None:
        return []
    (old, truth), (new, other_truth) = before, after
    part = "out of fold" if file == _OUT_OF_FOLD else "test part"
    ids = old.index.intersection(new.index)
    same = f"the same {len(ids):,} photos"
    if not len(ids) == len(old) == len(new):
        same = f"{len(ids):,} photos in both, of {len(old):,} and {len(new):,}"
    if others := _other_files(first, second, ids):
        same += f", {others:,} of them other files"
    head = f"  {stage}, {part}: {same}"
    if not len(ids):
        return [f"{head}; no difference can be told"]
    if not np.array_equal(truth.loc[ids], other_truth.loc[ids]):
        differing = int((truth.loc[ids] != other_truth.loc[ids]).any(axis=1).sum())
        return [f"{head}; {differing:,} of them have other labels: scores are not compared"]
    groups = first.examples.loc[ids, "group_id"].to_numpy()
    weights = bootstrap_weights(groups, _REPLICATES, seed=0)
    target = truth.loc[ids].to_numpy(int)
    of_old, of_new = (MeanAuc(target, one.loc[ids].to_numpy()).each(weights) for one in (old, new))
    gain = score_of(of_new - of_old)
    if gain is None:
        return [f"{head}; no AUC, a class lacks rows"]
    name = "AUC" if truth.shape[1] == 1 else "mean AUC"
    within = "; within the noise" if gain.low <= 0 <= gain.high else ""
    return [
        f"{head}",
        f"    {name} {of_old[0]:.3f} -> {of_new[0]:.3f}, difference {gain.value:+.3f} "
        f"[{gain.low:+.3f}, {gain.high:+.3f}]{within}",
    ]
