"""The data of a run and its leak audit, for ``report.py``.

In: ``prepare/`` and ``explore/``. Out: tables and pictures that name no patient.
"""

import re
from pathlib import Path

import pandas as pd

from kaggle_pipeline.core.files import read_json
from kaggle_pipeline.core.tables import read_own
from kaggle_pipeline.data.examples import PREPARE_ANEW, read_examples, split_rows, splits_of
from kaggle_pipeline.data.spec import DatasetSpec
from kaggle_pipeline.leakage.audit import STATUS_WORDS
from kaggle_pipeline.report import html
from kaggle_pipeline.report.html import Html

_EXPLORED = {
    "classes": "Number of training photos in each class.",
    "groups": "Number of photos per patient or lesion.",
    "missing": "Share of missing values by column and split.",
    "samples": "Random training photos of each class, cropped to the middle square.",
}


def data_section(run_dir: Path, spec: DatasetSpec) -> Html | None:
    """Return counts of images, groups and missing values, and the exploratory pictures.

    None where neither ``prepare/examples.csv`` nor ``explore/`` is there.
    """
    path = run_dir / "prepare" / "examples.csv"
    explored = sorted((run_dir / "explore").glob("*.png"), key=_order)
    parts = []
    if path.exists():
        examples = read_examples(path, spec)
        parts.append(_counts(examples, spec))
    for one in explored:
        name = one.stem.replace("_", " ")
        label = f"Training photos: {spec.feature_label(one.stem)} by class."
        alt = _EXPLORED.get(name, label)
        parts.append(html.picture(one, alt, photos=name == "samples"))
    return html.join(parts) if parts else None


def _order(path: Path) -> tuple[int, str]:
    """The photos first, then the classes, then the features."""
    first = ["samples", "classes"]
    return (first.index(path.stem) if path.stem in first else len(first), path.stem)


def _counts(examples: pd.DataFrame, spec: DatasetSpec) -> Html:
    parts = {split: split_rows(examples, split) for split in splits_of(examples)}
    parts = {split: part for split, part in parts.items() if len(part) or split == "train"}
    further = [split for split in parts if split not in ("train", "test")]
    tested = "test" in parts
    rows = [["photos", *(f"{len(part):,}" for part in parts.values())]]
    if spec.group:
        groups = (f"{part['group_id'].nunique():,}" for part in parts.values())
        rows.append([f"{spec.group}s", *groups])
    rows += [
        [
            f"photos of {spec.class_label(name)}",
            f"{int(parts['train'][name].sum()):,}",
            *(["not counted here"] if tested else []),
            *(_count(parts[split][name]) for split in further),
        ]
        for name in spec.classes
    ]
    for feature in spec.features:
        shares = (f"{part[feature].isna().mean():.1%}" if len(part) else "–"
                  for part in parts.values())  # fmt: skip
        rows.append([f"{spec.feature_label(feature)} missing", *shares])
    return html.table(["", "training", *(["test"] if tested else []), *further], rows)


def _count(labels: pd.Series) -> str:
    """How many images are of a class, and how many may be: another collection's words differ."""
    missing = int(labels.isna().sum())
    return f"{int(labels.sum()):,}" + (f"; unknown for {missing:,}" if missing else "")


def leak_section(prepared: Path) -> Html | None:
    """Return the audit's findings without ids, its picture and single columns' AUCs; or None."""
    path = prepared / "leakage.json"
    if not path.exists():
        return None
    report = read_json(path)
    groups = _known_groups(prepared)
    rows = []
    for one in report["findings"]:
        # Rows of a finding about photos are image ids; of any other they may be patients.
        ids = groups if "photo" in one["check"] else groups | set(one["rows"])
        rows.append(
            [
                one["check"],
                STATUS_WORDS.get(one["status"], one["status"]),
                _withhold(one["detail"], ids),
            ]
        )
    parts = [html.table(["check", "result", "what was found"], rows, stack=True)]
    if any(one["status"] == "leak" for one in report["findings"]):
        parts.insert(0, html.note("A leak was found: the scores cannot be trusted.", warning=True))
    parts.append(
        html.picture(
            prepared / "overlap.png",
            "Groups that two parts of the data share. A number off the diagonal is a leak.",
        )
    )
    if report.get("single_features"):
        alone = [
            [one["feature"], f"{one['oof_auc']:.3f}",
             "how the photo was taken" if one["acquisition"] else "what is known of the patient"]
            for one in report["single_features"]
        ]  # fmt: skip
        what = "AUC of each column alone, out of fold"
        parts.append(html.details(what, html.table(["column", "AUC", "says"], alone)))
    return html.join(parts)


def _known_groups(prepared: Path) -> set[str]:
    """Ids of patients or lesions, which have no place on the page."""
    known = set()
    for name in ("folds.csv", "examples.csv"):  # the folds hold training rows only
        if (prepared / name).exists():
            remedy = PREPARE_ANEW.format(folder=prepared)
            table = read_own(prepared / name, {"group_id": str}, remedy=remedy)
            known |= set(table["group_id"].dropna())
    return {one for one in known if not one.isdigit()}  # "12" would blot out counts


def _withhold(detail: str, ids: set[str]) -> str:
    """The detail without ids; ``leakage.json`` has them for who must follow one up."""
    for one in sorted((one for one in ids if one in detail), key=len, reverse=True):
        detail = re.sub(rf"(?<!\w){re.escape(one)}(?!\w)", "(id withheld)", detail)
    return detail
