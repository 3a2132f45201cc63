"""Leak audit: what would make a score a lie.

In: examples, folds, and (where images are at hand) their fingerprints. Out: a list of findings,
each ``ok``, ``note``, ``leak`` or ``not checkable``; a leak stops the run.
"""

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from PIL import Image

from kaggle_pipeline.config import LeakageConfig
from kaggle_pipeline.errors import PipelineError
from kaggle_pipeline.folds import Folds
from kaggle_pipeline.imagefile import read_image
from kaggle_pipeline.metrics import roc_auc
from kaggle_pipeline.spec import DatasetSpec

Status = Literal["ok", "note", "leak", "not checkable"]
_HASH_SIDE_PX = 128
"""Side at which photos are hashed: pHash itself works on 32 px."""
ACQUISITION_AUC = 0.6
"""From here on an acquisition column is called a shortcut."""


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
                raise PipelineError(f"leak: {finding.check}: {finding.detail}")


# ---------------------------------------------------------------------------- fingerprints


def fingerprint_images(
    paths: pd.Series, data_dir: Path, workers: int | None = None
) -> Iterator[tuple[str, str, str, int, int]]:
    """Yield what is needed to find equal and near-equal photos, in the order of ``paths``.

    Parameters
    ----------
    paths : pandas.Series
        Path relative to ``data_dir`` of each image id (the index).
    data_dir : pathlib.Path
    workers : int, optional
        Processes; one a core by default.

    Yields
    ------
    tuple
        ``image_id``, SHA-256 of the file (hex), 64-bit perceptual hash (hex; DCT hash of
        ImageHash), width and height in px as decoded for hashing.

    Raises
    ------
    PipelineError
        If a file cannot be read as an image.
    """
    jobs = [str(Path(data_dir) / path) for path in paths]
    with ProcessPoolExecutor(workers) as pool:
        for image_id, found in zip(paths.index, pool.map(_fingerprint, jobs, chunksize=16)):  # noqa: B905 - same length
            yield (image_id, *found)


def _fingerprint(path: str) -> tuple[str, str, int, int]:
    image = read_image(Path(path), smallest_side_px=_HASH_SIDE_PX)  # first: it names a bad file
    digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    return digest, _perceptual_hash(image), *image.size


def _perceptual_hash(image: Image.Image) -> str:
    try:
        from imagehash import phash
    except ImportError:  # not on every Kaggle image; the report says so
        return ""
    return str(phash(image))


def fingerprint_table(rows: Sequence[tuple]) -> pd.DataFrame:
    """Return the rows of :func:`fingerprint_images` as a table indexed by ``image_id``."""
    columns = ["image_id", "sha256", "phash", "decoded_width_px", "decoded_height_px"]
    return pd.DataFrame(rows, columns=columns).set_index("image_id")


def equal_pairs(fingerprints: pd.DataFrame) -> pd.DataFrame:
    """Return pairs of ids whose files are the same byte for byte (columns ``first, second``)."""
    rows = []
    for _, same in fingerprints.groupby("sha256", sort=False):
        ids = list(same.index)
        rows += [(ids[0], other) for other in ids[1:]]
    return _pairs(rows)


def near_pairs(fingerprints: pd.DataFrame, bits: int) -> pd.DataFrame:
    """Return pairs of ids whose perceptual hashes differ in at most ``bits`` of 64 bits.

    Every pair is compared, a block of rows at a time, so memory grows with n and not n².
    """
    codes = np.array([int(text, 16) for text in fingerprints["phash"]], np.uint64)
    ids = fingerprints.index.to_numpy()
    rows = []
    for start in range(0, len(codes), 256):
        block = codes[start : start + 256, None] ^ codes[None, start:]
        for i, j in np.argwhere(np.bitwise_count(block) <= bits):
            if j > i:
                rows.append((ids[start + i], ids[start + j]))
    return _pairs(rows)


def _pairs(rows: Sequence[tuple[str, str]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["first", "second"], dtype=object)


# ---------------------------------------------------------------------------- duplicates


def known_pairs(
    examples: pd.DataFrame, official: pd.DataFrame | None, fingerprints: pd.DataFrame | None
) -> pd.DataFrame:
    """Return all pairs of ids known to show the same photo: listed officially or equal in bytes.

    Pairs of which an image is not in ``examples`` are left out.
    """
    parts = []
    if official is not None:
        parts.append(official.iloc[:, :2].set_axis(["first", "second"], axis=1).astype(object))
    if fingerprints is not None:
        parts.append(equal_pairs(fingerprints))
    pairs = pd.concat(parts, ignore_index=True) if parts else _pairs([])
    here = pairs["first"].isin(examples.index) & pairs["second"].isin(examples.index)
    return pairs[here & (pairs["first"] != pairs["second"])].reset_index(drop=True)


def drop_duplicates(
    examples: pd.DataFrame, pairs: pd.DataFrame, policy: str
) -> tuple[pd.DataFrame, Finding]:
    """Apply the config's policy to duplicate photos inside the training rows.

    Parameters
    ----------
    examples : pandas.DataFrame
    pairs : pandas.DataFrame
        From :func:`known_pairs`.
    policy : {"stop", "drop", "keep"}

    Returns
    -------
    tuple of (pandas.DataFrame, Finding)
        The examples that stay, and what was found. Under ``stop`` only a pair in two groups is a
        leak: within one group no fold can separate it.
    """
    check = "duplicate photos in train"
    is_train = examples["split"] == "train"
    inside = pairs[
        is_train.loc[pairs["first"]].to_numpy() & is_train.loc[pairs["second"]].to_numpy()
    ]
    if inside.empty:
        return examples, Finding(check, "ok", "none known")
    group = examples["group_id"]
    across = group.loc[inside["first"]].to_numpy() != group.loc[inside["second"]].to_numpy()
    counts = f"{len(inside)} pairs, {int(across.sum())} of them in two groups"
    if policy == "drop":
        # The later of every pair goes, so the earliest copy stays however the pairs are written.
        place = {image_id: row for row, image_id in enumerate(examples.index)}
        gone = pd.Index(
            {max(p, key=place.get): 0 for p in inside.itertuples(index=False, name=None)}
        )
        finding = Finding(check, "note", f"{counts}; {len(gone)} images dropped", _some(gone))
        return examples.drop(gone), finding
    if policy == "stop" and across.any():
        one = inside[across].iloc[0]
        detail = (
            f"images {one['first']} and {one['second']} are the same photo in two groups "
            f"({counts}); remove one, or say --set leakage.duplicates=drop"
        )
        return examples, Finding(check, "leak", detail, _some(inside[across]["second"]))
    return examples, Finding(check, "note", f"{counts}; kept", _some(inside["second"]))


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
) -> LeakageReport:
    """Run every check.

    Parameters
    ----------
    examples : pandas.DataFrame
        The examples in use (duplicates dropped already where the config says so).
    folds : Folds
    pairs : pandas.DataFrame
        From :func:`known_pairs`.
    fingerprints : pandas.DataFrame or None
        None where images were not read.
    features : sequence of str
        Columns that the tabular model will use.
    config : LeakageConfig
    earlier : sequence of Finding
        Findings made on the way here.
    """
    parts = _part_of_row(examples, folds)
    single = single_feature_table(examples, spec, folds)
    findings = [
        _check_groups(examples, spec),
        _check_fold_groups(examples, spec, parts),
        *earlier,
        _check_test_photos(examples, pairs, config.duplicates),
        _check_fold_photos(parts, pairs, config.duplicates),
        _check_near(examples, fingerprints, config.near_bits),
        *_check_giveaways(examples, spec, features),
        _check_shortcuts(single, features),
    ]
    return LeakageReport(findings, _shared_groups(examples, spec, parts), single)


def check_groups(examples: pd.DataFrame, spec: DatasetSpec) -> None:
    """Stop at once when a group is in train and in test: nothing after it would mean anything."""
    LeakageReport([_check_groups(examples, spec)], {}, []).stop_on_leak()


def check_features(examples: pd.DataFrame, spec: DatasetSpec, features: Sequence[str]) -> None:
    """Stop when one of ``features`` gives the target away: a model must not be trained on it."""
    LeakageReport(_check_giveaways(examples, spec, features), {}, []).stop_on_leak()


def _some(ids: Sequence[str]) -> list[str]:
    return [str(one) for one in list(ids)[:10]]


def _part_of_row(examples: pd.DataFrame, folds: Folds) -> pd.Series:
    """Name of the part each image is in: ``test``, ``fold 0`` … or ``train only``."""
    names = folds.table["fold"].map(lambda fold: "train only" if fold < 0 else f"fold {fold}")
    return names.reindex(examples.index).where(examples["split"] == "train", "test").dropna()


def _check_groups(examples: pd.DataFrame, spec: DatasetSpec) -> Finding:
    check = f"{spec.group or 'group'} in train and test"
    if spec.group is None:
        return Finding(check, "not checkable", "the data set names no groups")
    by_split = examples.groupby("split")["group_id"].unique()
    both = sorted(set(by_split.get("train", ())) & set(by_split.get("test", ())))
    if both:
        detail = f"{spec.group} {both[0]} is in train and in test ({len(both)} such)"
        return Finding(check, "leak", detail, _some(both))
    return Finding(check, "ok", "none shared")


def _check_fold_groups(examples: pd.DataFrame, spec: DatasetSpec, parts: pd.Series) -> Finding:
    check = f"{spec.group or 'group'} in two folds"
    if spec.group is None:
        return Finding(check, "not checkable", "the data set names no groups")
    group = examples["group_id"].loc[parts.index]
    number = parts[parts != "test"].groupby(group).nunique()
    split = number.index[number > 1]
    if len(split):
        return Finding(check, "leak", f"{spec.group} {split[0]} is in two folds", _some(split))
    return Finding(check, "ok", "none shared")


def _check_test_photos(examples: pd.DataFrame, pairs: pd.DataFrame, policy: str) -> Finding:
    check = "same photo in train and test"
    split = examples["split"]
    here = pairs[pairs["first"].isin(split.index) & pairs["second"].isin(split.index)]
    across = here[split.loc[here["first"]].to_numpy() != split.loc[here["second"]].to_numpy()]
    if across.empty:
        return Finding(check, "ok", "none known")
    one = across.iloc[0]
    detail = f"images {one['first']} and {one['second']} are the same photo ({len(across)} pairs)"
    return Finding(check, "note" if policy == "keep" else "leak", detail, _some(across["first"]))


def _check_fold_photos(parts: pd.Series, pairs: pd.DataFrame, policy: str) -> Finding:
    check = "same photo in two folds"
    here = pairs[pairs["first"].isin(parts.index) & pairs["second"].isin(parts.index)]
    first, second = parts.loc[here["first"]].to_numpy(), parts.loc[here["second"]].to_numpy()
    across = here[(first != second) & (first != "test") & (second != "test")]
    if across.empty:
        return Finding(check, "ok", "none known")
    one = across.iloc[0]
    detail = f"images {one['first']} and {one['second']} are the same photo ({len(across)} pairs)"
    return Finding(check, "note" if policy == "keep" else "leak", detail, _some(across["first"]))


def _check_near(examples: pd.DataFrame, fingerprints: pd.DataFrame | None, bits: int) -> Finding:
    check = "near-equal photos in two groups"
    if fingerprints is None:
        return Finding(check, "not checkable", "images were not read")
    if fingerprints["phash"].fillna("").eq("").any():
        return Finding(
            check, "not checkable", "no perceptual hashes: only TFRecords, or no ImageHash"
        )
    near = near_pairs(fingerprints.loc[fingerprints.index.intersection(examples.index)], bits)
    group = examples["group_id"]
    across = near[group.loc[near["first"]].to_numpy() != group.loc[near["second"]].to_numpy()]
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
            if _settles_target(train, column, spec):
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


def _settles_target(train: pd.DataFrame, column: str, spec: DatasetSpec) -> bool:
    """Whether knowing the value (of few) nearly settles a class that it was not told.

    Many-valued columns could settle it by chance alone, so only values seen at least twice count,
    and they must cover most rows.
    """
    values = train[column].astype(object).where(train[column].notna(), "missing")
    counts = values.map(values.value_counts())
    seen = counts >= 2
    if values.nunique() < 2 or seen.mean() < 0.9:
        return False
    for name in spec.classes:
        target = train.loc[seen, name]
        if target.nunique() < 2:
            continue
        rate = target.groupby(values[seen]).transform("mean")
        if roc_auc(target.to_numpy(), rate.to_numpy()) > 0.999:
            return True
    return False


def single_feature_table(
    examples: pd.DataFrame, spec: DatasetSpec, folds: Folds
) -> list[dict[str, float | str | bool]]:
    """Return the out-of-fold AUC that each column reaches alone, best first.

    A decision tree is fitted on the other folds, so the folds keep groups apart; the AUC is the
    mean over the folds. Width times height is tried beside the declared columns: on SIIM-ISIC it
    alone reaches 0.79, which says where a photo was taken and nothing about the lesion.
    """
    train = examples.loc[folds.judged.index]
    fold = folds.judged["fold"].to_numpy()
    if len(np.unique(fold)) < 2:
        return []
    columns = {name: train[[name]] for name in (*spec.features, *spec.acquisition) if name in train}
    if spec.features:
        columns["all declared features"] = train[list(spec.features)]
    if set(spec.acquisition) <= set(train.columns):
        product = train[list(spec.acquisition)].prod(axis=1, min_count=len(spec.acquisition))
        columns[" × ".join(spec.acquisition)] = product.to_frame("product")
    rows = []
    for name, frame in columns.items():
        if frame.notna().any(axis=None):
            auc = _grouped_auc(frame, train[list(spec.classes)], fold)
            if np.isnan(auc):  # no fold has both classes: nothing was judged
                continue
            acquisition = any(part in name for part in spec.acquisition)
            rows.append({"feature": name, "oof_auc": round(auc, 4), "acquisition": acquisition})
    return sorted(rows, key=lambda row: -row["oof_auc"])


def _grouped_auc(frame: pd.DataFrame, targets: pd.DataFrame, fold: np.ndarray) -> float:
    """Mean over classes and folds of the AUC of a model that saw the other folds only."""
    from sklearn.tree import DecisionTreeClassifier

    coded = frame.apply(lambda c: c if c.dtype.kind in "fi" else c.astype("category").cat.codes)
    x = coded.to_numpy(float)
    aucs = []
    for name in targets:
        y = targets[name].to_numpy(int)
        for number in np.unique(fold):
            inside, outside = fold == number, fold != number
            if min(np.ptp(y[inside]), np.ptp(y[outside])) == 0:
                continue  # a class is missing: nothing to learn or to judge here
            tree = DecisionTreeClassifier(
                min_samples_leaf=max(5, len(y) // 200), max_leaf_nodes=64, random_state=0
            ).fit(x[outside], y[outside])
            aucs.append(roc_auc(y[inside], tree.predict_proba(x[inside])[:, 1]))
    return float(np.mean(aucs)) if aucs else float("nan")


def _check_shortcuts(single: list[dict], features: Sequence[str]) -> Finding:
    check = "features that only reflect acquisition"
    strong = [row for row in single if row["acquisition"] and row["oof_auc"] >= ACQUISITION_AUC]
    if not any(row["acquisition"] for row in single):
        return Finding(
            check, "not checkable", "photos' original size unknown, or no folds to judge by"
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
