"""Leak audit: what would make a score a lie.

In: examples, folds, and (where images are at hand) their fingerprints. Out: a list of findings,
each ``ok``, ``note``, ``leak`` or ``not checkable``; a leak stops the run.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal

import numpy as np
import pandas as pd

from kaggle_pipeline.config.experiment import LeakageConfig
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.data.folds import Folds, shared_groups
from kaggle_pipeline.data.spec import DatasetSpec
from kaggle_pipeline.leakage.fingerprints import near_pairs
from kaggle_pipeline.leakage.target_leakage import settles_target, single_feature_table

Status = Literal["ok", "note", "leak", "not checkable"]
STATUS_WORDS = {"note": "worth knowing"}
"""What a person reads, where that is not the status itself."""
ACQUISITION_AUC = 0.6
"""From here on an acquisition column is called a shortcut."""


_REMEDIES = {
    "photo": "; remove one, or say --set leakage.duplicates=drop",
    "features": "; leave it out of the features",
    "in train and test": "; put all photos of one into the same part, or say --set "
    "folds.shared_groups=note, and every result says so",
}
"""What to do, by words of a check; the first that fits."""


@dataclass(frozen=True)
class Finding:
    """One check and what it found."""

    check: str
    status: Status
    detail: str
    rows: list[str] = field(default_factory=list)
    """Up to ten ids, so that a report of a leak can be followed up."""


@dataclass(frozen=True)
class LeakageReport:
    """All findings of one audit, and the numbers behind its picture."""

    findings: list[Finding]
    shared_groups: dict[str, dict[str, int]]
    """How many groups each two parts (folds, test) have in common; a part with itself: its own."""
    single_features: list[dict[str, float | str | bool]]
    """Out-of-fold AUC that each column reaches alone."""

    def to_mapping(self) -> dict:
        """Return the report as plain JSON types."""
        return asdict(self)

    def stop_on_leak(self) -> None:
        """Raise a PipelineError with the first leak found, if any."""
        for finding in self.findings:
            if finding.status == "leak":
                remedies = (how for words, how in _REMEDIES.items() if words in finding.check)
                how = next(remedies, "") if "--set" not in finding.detail else ""
                raise PipelineError(f"leak: {finding.check}: {finding.detail}{how}")


def drop_duplicates(
    examples: pd.DataFrame, pairs: pd.DataFrame, policy: str
) -> tuple[pd.DataFrame, Finding]:
    """Apply the config's policy to duplicate photos; a test row is never dropped.

    Parameters
    ----------
    examples : pandas.DataFrame
    pairs : pandas.DataFrame
        From :func:`~kaggle_pipeline.leakage.fingerprints.known_pairs`.
    policy : {"stop", "drop", "keep"}

    Returns
    -------
    tuple of (pandas.DataFrame, Finding)
        The examples that stay, and what was found. Under ``stop`` only a pair in two groups is a
        leak: within one group no fold can separate it.
    """
    check = "duplicate photos in train"
    is_train = examples["split"] == "train"
    ends = [is_train.loc[pairs[column]].to_numpy() for column in ("first", "second")]
    if policy == "drop":
        return _drop_copies(examples, pairs[ends[0] | ends[1]], check)
    inside = pairs[ends[0] & ends[1]]
    if inside.empty:
        return examples, Finding(check, "ok", "none known")
    across = _in_two_groups(examples, inside)
    counts = f"{len(inside)} pairs, {int(across.sum())} of them in two groups"
    if policy == "stop" and across.any():
        one = inside[across].iloc[0]
        detail = (
            f"photos {one['first']} and {one['second']} are the same photo in two groups "
            f"({counts}); remove one, or say --set leakage.duplicates=drop"
        )
        return examples, Finding(check, "leak", detail, _some(inside[across]["second"]))
    return examples, Finding(check, "note", f"{counts}; kept", _some(inside["second"]))


def _in_two_groups(examples: pd.DataFrame, pairs: pd.DataFrame) -> np.ndarray:
    group = examples["group_id"]
    return group.loc[pairs["first"]].to_numpy() != group.loc[pairs["second"]].to_numpy()


def _drop_copies(
    examples: pd.DataFrame, pairs: pd.DataFrame, check: str
) -> tuple[pd.DataFrame, Finding]:
    """Leave one row of every photo that a training row shows: the test row, or the earliest."""
    if pairs.empty:
        return examples, Finding(check, "ok", "none known")
    # Test rows come first here, so that they are never the later one of a pair.
    in_test = examples["split"] == "test"
    ordered = examples.index[in_test].append(examples.index[~in_test])
    place = {image_id: row for row, image_id in enumerate(ordered)}
    gone = pd.Index({max(p, key=place.get): 0 for p in pairs.itertuples(index=False, name=None)})
    across = int(_in_two_groups(examples, pairs).sum())
    with_test = int(in_test.loc[pairs["first"]].to_numpy().sum())
    with_test += int(in_test.loc[pairs["second"]].to_numpy().sum())
    detail = (
        f"{len(pairs)} pairs, {across} of them in two groups, {with_test} with a test photo; "
        f"{len(gone)} training photos dropped"
    )
    return examples.drop(gone), Finding(check, "note", detail, _some(gone))


# ---------------------------------------------------------------------------- the audit


def audit_leakage(
    examples: pd.DataFrame,
    spec: DatasetSpec,
    folds: Folds,
    pairs: pd.DataFrame,
    fingerprints: pd.DataFrame | None,
    features: Sequence[str],
    config: LeakageConfig,
    earlier: Sequence[Finding] = (),
    groups_split: bool = False,
    shared_noted: bool = False,
) -> LeakageReport:
    """Run every check.

    Parameters
    ----------
    examples : pandas.DataFrame
        The examples in use (duplicates dropped already where the config says so).
    folds : Folds
    pairs : pandas.DataFrame
        From :func:`~kaggle_pipeline.leakage.fingerprints.known_pairs`.
    fingerprints : pandas.DataFrame or None
        None where images were not read.
    features : sequence of str
        Columns that the tabular model will use.
    config : LeakageConfig
    earlier : sequence of Finding
        Findings made on the way here.
    groups_split : bool
        The config asked for a split of single images: shared groups are noted, not a leak.
    shared_noted : bool
        The config takes a test part that shares groups with train as it is: noted as well.
    """
    parts = _part_of_row(examples, folds)
    single = single_feature_table(examples, spec, folds)
    findings = [
        _check_groups(examples, spec, groups_split, shared_noted),
        _check_fold_groups(examples, spec, parts, groups_split),
        *earlier,
        _check_test_photos(examples, pairs, config.duplicates),
        _check_fold_photos(parts, pairs, config.duplicates),
        _check_near(examples, fingerprints, config.near_bits),
        *_check_giveaways(examples, spec, features),
        _check_shortcuts(single, features),
    ]
    return LeakageReport(findings, _shared_groups(examples, spec, parts), single)


def audit_groups(
    examples: pd.DataFrame, spec: DatasetSpec, shared_noted: bool = False
) -> LeakageReport:
    """Return a report on the split alone: whether a group is in train and in test."""
    shared = _shared_groups(examples, spec, examples["split"])
    finding = _check_groups(examples, spec, shared_noted=shared_noted)
    return LeakageReport([finding], shared, [])


def check_features(examples: pd.DataFrame, spec: DatasetSpec, features: Sequence[str]) -> None:
    """Stop when one of ``features`` gives the target away: a model must not be trained on it."""
    LeakageReport(_check_giveaways(examples, spec, features), {}, []).stop_on_leak()


def _some(ids: Sequence[str]) -> list[str]:
    return [str(one) for one in list(ids)[:10]]


def _part_of_row(examples: pd.DataFrame, folds: Folds) -> pd.Series:
    """Name of the part each image is in: ``test``, ``fold 0`` … or ``train only``."""
    names = folds.table["fold"].map(lambda fold: "train only" if fold < 0 else f"fold {fold}")
    return names.reindex(examples.index).where(examples["split"] == "train", "test").dropna()


def _check_groups(
    examples: pd.DataFrame,
    spec: DatasetSpec,
    groups_split: bool = False,
    shared_noted: bool = False,
) -> Finding:
    check = f"{spec.group or 'group'} in train and test"
    if spec.group is None:
        return Finding(check, "not checkable", "the data set names no groups")
    both = shared_groups(examples)
    if both:
        rows = examples.index[examples["group_id"] == both[0]]
        in_train, in_test = (
            rows[examples.loc[rows, "split"] == one][0] for one in ("train", "test")
        )
        detail = (
            f"{spec.group} {both[0]} is in train and in test ({len(both)} such), by the photos "
            f"{in_train} and {in_test}"
        )
        if shared_noted:
            detail += f"; a score on the test part is not one on new {spec.group}s"
            return Finding(check, "note", detail, _some(both))
        return _shared(check, detail, both, groups_split)
    return Finding(check, "ok", "none shared")


def _shared(check: str, detail: str, groups: Sequence[str], groups_split: bool) -> Finding:
    if groups_split:
        detail += "; folds.by: image asks for it, and every score of this run is optimistic"
    return Finding(check, "note" if groups_split else "leak", detail, _some(groups))


def _check_fold_groups(
    examples: pd.DataFrame, spec: DatasetSpec, parts: pd.Series, groups_split: bool
) -> Finding:
    check = f"{spec.group or 'group'} in two folds"
    if spec.group is None:
        return Finding(check, "not checkable", "the data set names no groups")
    group = examples["group_id"].loc[parts.index]
    number = parts[parts != "test"].groupby(group).nunique()
    split = number.index[number > 1]
    if len(split):
        detail = f"{spec.group} {split[0]} is in two folds ({len(split)} such)"
        return _shared(check, detail, split, groups_split)
    return Finding(check, "ok", "none shared")


def _check_test_photos(examples: pd.DataFrame, pairs: pd.DataFrame, policy: str) -> Finding:
    check = "same photo in train and test"
    split = examples["split"]
    here = pairs[pairs["first"].isin(split.index) & pairs["second"].isin(split.index)]
    across = here[split.loc[here["first"]].to_numpy() != split.loc[here["second"]].to_numpy()]
    if across.empty:
        return Finding(check, "ok", "none known")
    one = across.iloc[0]
    detail = f"photos {one['first']} and {one['second']} are the same photo ({len(across)} pairs)"
    return Finding(check, "note" if policy == "keep" else "leak", detail, _some(across["first"]))


def _check_fold_photos(parts: pd.Series, pairs: pd.DataFrame, policy: str) -> Finding:
    check = "same photo in two folds"
    here = pairs[pairs["first"].isin(parts.index) & pairs["second"].isin(parts.index)]
    first, second = parts.loc[here["first"]].to_numpy(), parts.loc[here["second"]].to_numpy()
    across = here[(first != second) & (first != "test") & (second != "test")]
    if across.empty:
        return Finding(check, "ok", "none known")
    one = across.iloc[0]
    detail = f"photos {one['first']} and {one['second']} are the same photo ({len(across)} pairs)"
    return Finding(check, "note" if policy == "keep" else "leak", detail, _some(across["first"]))


def _check_near(examples: pd.DataFrame, fingerprints: pd.DataFrame | None, bits: int) -> Finding:
    check = "near-equal photos in two groups"
    if fingerprints is None:
        return Finding(check, "not checkable", "photos were not read")
    known = fingerprints["phash"].reindex(examples.index)
    if known.fillna("").eq("").any():
        return Finding(
            check, "not checkable", "no perceptual hashes: only TFRecords, or no ImageHash"
        )
    near = near_pairs(known.to_frame(), bits)
    across = near[_in_two_groups(examples, near)]
    if across.empty:
        return Finding(check, "ok", f"none within {bits} bits of a 64-bit perceptual hash")
    one = across.iloc[0]
    detail = (
        f"{len(across)} pairs within {bits} bits, such as {one['first']} and {one['second']}: "
        "look at them; smooth skin can look alike"
    )
    return Finding(check, "note", detail, _some(across["first"]))


def _check_giveaways(
    examples: pd.DataFrame, spec: DatasetSpec, features: Sequence[str]
) -> list[Finding]:
    """Columns that only train has, or whose value settles the target."""
    train, test = (examples[examples["split"] == split] for split in ("train", "test"))
    ignored = {"group_id", "split", "image_path"}
    findings = []
    for column in examples.columns.difference(list(ignored), sort=False):
        why = []
        if column in spec.classes:
            why.append("is the target")
        else:
            if len(test) and train[column].notna().any() and test[column].isna().all():
                why.append("is known in train only")
            if settles_target(train, column, spec):
                why.append("settles the target")
        if not why or (column in spec.classes and column not in features):
            continue
        detail = f"column {column} {' and '.join(why)}"
        if column in features:
            findings.append(Finding("features that give the target away", "leak", detail))
        elif column not in spec.acquisition:
            findings.append(
                Finding("columns that give the target away", "note", f"{detail}; not used")
            )
    return findings or [Finding("columns that give the target away", "ok", "none")]


def _check_shortcuts(single: list[dict], features: Sequence[str]) -> Finding:
    check = "features that only reflect acquisition"
    strong = [row for row in single if row["acquisition"] and row["oof_auc"] >= ACQUISITION_AUC]
    if not any(row["acquisition"] for row in single):
        return Finding(
            check, "not checkable", "photos' original size unknown, or no folds to score on"
        )
    used = [row for row in strong if row["feature"] in features]
    if not strong:
        return Finding(check, "ok", f"none reaches an AUC of {ACQUISITION_AUC} alone")
    names = ", ".join(f"{row['feature']} (AUC {row['oof_auc']:.3f} alone)" for row in strong)
    state = "a model USES them" if used else "not used, but an image model may see the camera"
    return Finding(check, "note", f"{names}: {state}")


def _shared_groups(
    examples: pd.DataFrame, spec: DatasetSpec, parts: pd.Series
) -> dict[str, dict[str, int]]:
    if spec.group is None:
        return {}
    groups = {
        name: set(examples.loc[ids, "group_id"])
        for name, ids in parts.groupby(parts).groups.items()
    }
    return {
        one: {other: len(groups[one] & groups[other]) for other in sorted(groups)}
        for one in sorted(groups)
    }
