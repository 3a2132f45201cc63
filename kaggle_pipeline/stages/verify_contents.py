"""Whether the parts of a run fit together: folds, scores, calibration, names of patients.

In: a run's folder or a bundle. Out: for each question what was found, and what is wrong.
"""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

from kaggle_pipeline.config.loading import load_experiment
from kaggle_pipeline.config.names import KAGGLES_OWN, MODEL_STAGES, SCORED_STAGES
from kaggle_pipeline.core.commit import recorded_folders
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.files import read_json
from kaggle_pipeline.core.record import RECORD, read_record
from kaggle_pipeline.data.examples import read_examples
from kaggle_pipeline.data.folds import Folds, shared_groups
from kaggle_pipeline.data.predictions import Predictions, average
from kaggle_pipeline.data.spec import DatasetSpec
from kaggle_pipeline.datasets import spec_of
from kaggle_pipeline.ensembling.blend import blend_test, read_blend
from kaggle_pipeline.evaluation.calibration.calibration import FILE, Calibration, read_calibration
from kaggle_pipeline.evaluation.calibration.maps import fit_maps
from kaggle_pipeline.evaluation.calibration.nested import left_alone
from kaggle_pipeline.metrics.roc_bootstrap import roc_auc
from kaggle_pipeline.models.cross_validation import LAST, require_same_rows, trained_on_all
from kaggle_pipeline.models.learned_rows import digest_rows

ABOUT = "about.json"
"""In a bundle, and in no run's own folder: what its models are."""
_TEXT = (".json", ".csv", ".html", ".md", ".yaml", ".txt", "")
_WORD = re.compile(r"\w+")
_SHORTEST = 5
"""Characters of a name that is looked for: a shorter one is in texts by chance."""
_ARCHIVE = re.compile(r"\b(?:ISIC|IP|IL|HAM)_\d{7}\b")
"""How the ISIC archive and its collections write photos, patients and lesions."""
_PLACE = re.compile(r"(?<![\w./])(?:/(?:home|Users|root|mnt|tmp|kaggle)/|[A-Z]:\\)[\w.-]+")
_CURVES = {"rtol": 1e-3, "atol": 1e-4}
"""How near a curve that is fitted again comes: solvers end a little apart."""


@dataclass
class Found:
    """What a look at one question gave.

    Attributes
    ----------
    line : str
        What was looked at; empty where there was nothing to look at.
    faults : list of str
    """

    line: str = ""
    faults: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Prepared:
    """Settings and tables of a run; a bundle has none."""

    run_dir: Path
    spec: DatasetSpec
    examples: pd.DataFrame
    folds: Folds
    by_image: bool
    may_share: bool

    @classmethod
    def read(cls, run_dir: Path) -> "Prepared | None":
        """Return them, None where the folder has no ``prepare/``.

        Raises
        ------
        PipelineError
            If a table is damaged or a group is in two folds.
        """
        prepared = Path(run_dir) / "prepare"
        if not (prepared / "folds.csv").exists():
            return None
        config = load_experiment(prepared / "config.yaml")
        spec = spec_of(config, prepared, None)
        examples = read_examples(prepared / "examples.csv", spec)
        settings = config.folds
        return cls(
            Path(run_dir), spec, examples, Folds.read(prepared / "folds.csv"),
            settings.by == "image", settings.shared_groups != "stop",
        )  # fmt: skip

    def stages(self, names: Collection[str]) -> list[Path]:
        """Folders of the stages that have out-of-fold predictions."""
        return [self.run_dir / one for one in names if (self.run_dir / one / LAST).exists()]


def look_at_folds(prepared: Prepared) -> Found:
    """Whether groups are apart, and every stage's predictions are by these folds."""
    spec, folds, examples = prepared.spec, prepared.folds, prepared.examples
    group = spec.group or "photo"
    faults = []
    where = prepared.run_dir / "prepare" / "folds.csv"
    unknown = folds.table.index.difference(examples.index[examples["split"] == "train"])
    if len(unknown):
        faults.append(f"{where} has {unknown[0]}, which is no training photo ({len(unknown)} such)")
    elif not prepared.by_image:
        own = examples.loc[folds.table.index, "group_id"]
        other = own.index[own != folds.table["group_id"]]
        if len(other):
            faults.append(f"{where}: the {group} of {other[0]} is another ({len(other)} such)")
        if not prepared.may_share and (shared := shared_groups(examples)):
            faults.append(f"a {group} is in train and test ({len(shared)} such)")
    rows = digest_rows(examples, spec, folds)
    for stage in prepared.stages(MODEL_STAGES):
        try:
            require_same_rows(rows, stage)
        except PipelineError as error:
            faults.append(str(error))
        try:
            faults += _by_folds(stage, folds, spec)
        except PipelineError as error:
            faults.append(str(error))
    names = ", ".join(one.name for one in prepared.stages(MODEL_STAGES)) or "no stage"
    count = folds.table["group_id"].nunique()
    parts = len(folds.numbers)
    line = f"folds: {count} {group}s in {parts} parts; predictions of {names} are by them"
    return Found(line, faults)


def _by_folds(stage: Path, folds: Folds, spec: DatasetSpec) -> Iterator[str]:
    """What of a stage's predictions is not the folds' own."""
    oof = Predictions.read(stage / LAST, spec.classes)
    oof.require(folds.validated.index, str(stage / LAST))
    if not oof.table["fold"].loc[folds.validated.index].equals(folds.validated["fold"]):
        yield f"{stage / LAST}: a photo was scored by another fold than folds.csv says"
    places = {fold: stage / f"fold{fold}" for fold in folds.numbers}
    tests = []
    for fold, place in places.items():
        if not (place / LAST).exists():
            continue  # joined elsewhere
        part = Predictions.read(place / LAST, spec.classes)
        part.require(folds.valid_ids(fold), str(place / LAST))
        if not _same(part.probabilities, oof.probabilities):
            yield f"{place / LAST}: its scores are not those in {stage / LAST}"
        if (place / "test.csv").exists():
            tests.append(Predictions.read(place / "test.csv", spec.classes))
    if (of_all := trained_on_all(stage)) and (of_all / "test.csv").exists():
        tests = [Predictions.read(of_all / "test.csv", spec.classes)]
    elif len(tests) < len(places):
        return
    if (stage / "test.csv").exists() and tests:
        mean = average(tests).probabilities
        if not _same(mean, Predictions.read(stage / "test.csv", spec.classes).probabilities):
            yield f"{stage / 'test.csv'} is not the mean of its folds' test.csv"


def _same(part: pd.DataFrame, whole: pd.DataFrame) -> bool:
    whole = whole.reindex(part.index)
    return np.allclose(part.to_numpy(), whole.to_numpy(), rtol=0, atol=1e-9)


def look_at_scores(prepared: Prepared) -> Found:
    """Whether AUC and calibration are what the out-of-fold predictions give."""
    faults, names = [], []
    for stage in prepared.stages(SCORED_STAGES):
        if not (stage / "metrics.json").exists():
            continue
        names.append(stage.name)
        try:
            oof = Predictions.read(stage / LAST, prepared.spec.classes)
            unknown = oof.table.index.difference(prepared.examples.index)
            if len(unknown):
                faults.append(f"{stage / LAST} scores {unknown[0]}, no photo of this run")
                continue
            faults += _scores_of(stage, oof, prepared)
        except PipelineError as error:
            faults.append(str(error))
    try:
        faults += _of_models(prepared)
    except PipelineError as error:
        faults.append(str(error))
    line = f"scores: AUC and calibration of {', '.join(names)} follow from their oof.csv"
    return Found(line if names else "", faults)


def _of_models(prepared: Prepared) -> Iterator[str]:
    """That the blend's test predictions are not what it makes of its models' of today."""
    blend, stage = read_blend(prepared.run_dir / "image")
    path = stage / "test.csv"
    models = {name: prepared.run_dir / name / "test.csv" for name in blend.weights}
    if stage.name != "blend" or not all(one.exists() for one in (path, *models.values())):
        return
    spec = prepared.spec
    blended = Predictions.read(path, spec.classes).probabilities
    tests = {name: Predictions.read(one, spec.classes) for name, one in models.items()}
    if not _same(blended, blend_test(blend, tests, blended.index).probabilities):
        yield f"{path} is not the blend of its models' test.csv: run make_submission again"


def _scores_of(stage: Path, oof: Predictions, prepared: Prepared) -> Iterator[str]:
    classes = list(prepared.spec.classes)
    truth = prepared.examples.loc[oof.table.index, classes]
    stored = read_json(stage / "metrics.json").get("oof_auc")
    if stored is not None and truth.notna().all(axis=None):
        found = [roc_auc(truth[one].to_numpy(int), oof.table[one].to_numpy()) for one in classes]
        if not abs(np.mean(found) - stored) <= 1e-6:  # NaN is no AUC
            yield (
                f"{stage / 'metrics.json'} says AUC {stored:.4f}, {LAST} beside it gives "
                f"{np.mean(found):.4f}"
            )
    calibration = read_calibration(stage)
    if calibration is None:
        return
    if calibration.classes != tuple(classes) or calibration.study["n"] != len(oof.table):
        yield f"{stage / FILE} was learned from other photos or classes than {LAST} beside it"
    elif truth.notna().all(axis=None) and not _same_curves(calibration, oof, truth):
        yield f"{stage / FILE}: {LAST} beside it gives another curve"


def _same_curves(calibration: Calibration, oof: Predictions, truth: pd.DataFrame) -> bool:
    """Whether the curves, learned again, are the stored ones."""
    leave = left_alone(calibration.method, calibration.task, calibration.lacking)
    again = fit_maps(
        calibration.method, oof.probabilities, truth, calibration.task, leave=leave
    )  # fmt: skip
    if again.keys() != calibration.maps.keys():
        return False
    grid = np.linspace(0, 1, 101)
    frame = pd.DataFrame({name: grid for name in calibration.classes})
    if calibration.task == "multiclass":
        frame = oof.probabilities
    now = calibration.apply(frame).to_numpy()
    return np.allclose(now, replace(calibration, maps=again).apply(frame).to_numpy(), **_CURVES)


def look_for_names(run_dir: Path, prepared: Prepared | None) -> Found:
    """Whether a file that people pass on names a patient, or a bundle holds what is not its own.

    Of a run's folder the tables in ``prepare/`` and the records are not meant to be passed on.
    """
    run_dir = Path(run_dir)
    if prepared is None:
        if (run_dir / ABOUT).is_file():
            return _look_at_bundle(run_dir)
        return Found("names: not looked at, nothing is prepared")
    names, short = names_of_groups(prepared.examples)
    group = prepared.spec.group or "patient"
    if not names and not short:
        return Found(f"names: this data set tells no {group}s, so none was looked for")
    faults = [
        f"{path} names {len(found)} {group}{'s' * (len(found) > 1)}"
        for path, found in named_in(run_dir, names, apart=("prepare", "records"))
    ]
    line = f"names: none of {len(names)} {group}s is named outside of prepare/ and records/"
    if short:
        line += (
            f"; {short} more were not looked for: ids of plain digits or of fewer than {_SHORTEST} "
            "characters are in texts by chance"
        )
    return Found(line, faults)


def names_of_groups(examples: pd.DataFrame) -> tuple[set[str], int]:
    """Return names of patients or lesions to look for, and how many others a text has by chance.

    Those are plain numbers, and names of fewer than five characters. A photo's own name is none.
    """
    groups = examples["group_id"].astype(str)
    groups = set(groups[groups.to_numpy() != examples.index.astype(str).to_numpy()])
    names = {one for one in groups if len(one) >= _SHORTEST and not one.isdecimal()}
    return names, len(groups) - len(names)


def named_in(
    folder: Path, names: Collection[str], apart: Collection[str] = ()
) -> Iterator[tuple[Path, list[str]]]:
    """Yield each text file of a folder that holds one of the names, and which.

    A name of letters, digits and ``_`` is found as a whole word, any other wherever it stands.
    """
    words_too = {one for one in names if _WORD.fullmatch(one)}
    others = set(names) - words_too
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if not path.is_file() or path.suffix not in _TEXT or parts[0] in apart:
            continue
        if any(part.startswith(".") for part in parts):
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        found = words_too.intersection(_WORD.findall(text)) | {one for one in others if one in text}
        if found:
            yield path, sorted(found)


def _look_at_bundle(folder: Path) -> Found:
    known = {
        place / name
        for place in recorded_folders(folder)
        for name in (*read_record(place).files, RECORD)
    }
    known |= {folder / name for name in KAGGLES_OWN}  # not in the record, nor on Kaggle
    faults = [
        f"{path} was not put there by bundle"
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path not in known
    ]
    for path in sorted(known):
        if path.suffix not in _TEXT or not path.is_file():
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        if count := len(set(_ARCHIVE.findall(text))):  # the ids would stand in public logs
            faults.append(f"{path} holds {count} id{'s' * (count > 1)} of the ISIC archive")
        if count := len(set(_PLACE.findall(text))):  # so would the folder's name, a person's maybe
            faults.append(f"{path} names {count} folder{'s' * (count > 1)} of a machine")
    return Found("names: no id of the ISIC archive, no folder of a machine, no other file", faults)
