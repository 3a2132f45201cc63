"""Predictions of a trained image model for a folder of new photos.

In: a run's folder and photos that nobody has labelled. Out: a CSV by image id.
"""

import re
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pandas as pd

from kaggle_pipeline.core.child_process import map_in_order
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.files import atomic_path
from kaggle_pipeline.core.photos import fault_of
from kaggle_pipeline.data.predictions import Predictions, average
from kaggle_pipeline.data.spec import DatasetSpec
from kaggle_pipeline.datasets.raw_files import PHOTOS_OR_DICOM
from kaggle_pipeline.evaluation.calibration.calibration import FILE, read_calibration
from kaggle_pipeline.evaluation.decision.decision import FILE as DECISION_FILE
from kaggle_pipeline.evaluation.decision.decision import read_decision
from kaggle_pipeline.records.convert import convert
from kaggle_pipeline.records.tfrecords import index_records, list_shards, shards_holding
from kaggle_pipeline.stages.trained import TrainedImageModels


def predict_images(
    run_dir: Path,
    images: Path,
    out: Path,
    *,
    device: str = "auto",
    overwrite: bool = False,
    say: Callable[[str], None] = print,
) -> Path:
    """Write the mean probability of a run's fold models for every photo in a folder.

    Photos go the way of the run's records: cropped or stretched as theirs were, to the same size,
    seen in the same views. So a test photo gets the number of ``image/test.csv``, but for what the
    JPEG of a record made elsewhere differs. Where a run read such records, a line says what is
    done to new photos, and how it is known that this was done to theirs.

    Parameters
    ----------
    run_dir : pathlib.Path
        With a finished ``image/fold<k>`` or several.
    images : pathlib.Path
        Folder with JPEG, PNG or DICOM files (not in sub-folders); the file's stem is the image id.
    out : pathlib.Path
        CSV to write: ``image_id``, then a probability a class, as the model says it; where the
        stage has a calibration then ``<class>_calibrated``; where it has a decision, that in words:
        a class (of several yes-or-no questions all that apply, joined by " + ", or ``none``).
    device : {"auto", "cpu", "gpu", "tpu"}
    overwrite : bool
        Whether ``out`` may be there already.
    say : callable
        Takes a line for the user; told of every photo that cannot be read and is left out.

    Raises
    ------
    PipelineError
        If the run has no trained image model, the folder no photos or none that can be read, two
        photos have one stem, or ``out`` is there already.
    """
    if Path(out).exists() and not overwrite:
        raise PipelineError(f"{out} exists: say --overwrite, or another --out")
    trained = TrainedImageModels.open(run_dir)
    config, spec, fit = trained.config, trained.spec, trained.fit
    examples = list_photos(images, spec)
    examples = _readable(examples, Path(images), config.records.workers, say)
    from kaggle_pipeline.hardware.accelerator import choose_accelerator
    from kaggle_pipeline.models.image.metadata_branch import blank_metadata

    chosen = choose_accelerator(device)
    say(f"device: {chosen.reason}")
    say(f"{len(examples)} photos, models of {len(trained.folds)} folds")
    if lacking := trained.missing:
        say(f"note: folds {lacking} of this run are not trained: the mean lacks their models")
    if line := fit.describe():
        say(line)
    if config.image.metadata:
        say("note: photos come without metadata; the models take all of it as missing")
        examples = blank_metadata(examples, spec)
    with tempfile.TemporaryDirectory() as scratch:
        records = Path(scratch) / "records"
        convert(examples, spec, Path(images), records, fit.recipe(config.records))
        rows = index_records(list_shards(records), spec)
        index = pd.DataFrame([{"folder": str(records), **row} for row in rows])
        parts = []
        for fold in trained.folds:
            shards_of, features_dir = partial(shards_holding, index), Path(scratch) / "features"
            found = trained.load(fold, chosen, shards_of, features_dir).predict(examples)
            parts.append(Predictions.build(found, fold, "test"))
            say(f"fold {fold}: done")
    mean = average(parts).probabilities.sort_index()
    table = _with_decision(mean, trained.stage, say)
    with atomic_path(Path(out)) as temporary:
        table.to_csv(temporary)
    say(f"{out}: {len(table)} rows, {', '.join(table.columns)}")
    return Path(out)


def _with_decision(mean: pd.DataFrame, stage: Path, say: Callable[[str], None]) -> pd.DataFrame:
    """The probabilities, ``<class>_calibrated`` and ``decision``, as far as the stage has them."""
    table, calibrated = mean, mean
    found = read_calibration(stage)
    if found is None or found.method == "none":
        why = f"no {FILE} in {stage}" if found is None else found.why
        say(f"image model only, uncalibrated: {why}")
    else:
        names = ", ".join(mean.columns)
        say(f"image model only; {names}: uncalibrated, as the model says")
        say(
            f"…_calibrated: by {stage / FILE} ({found.method}), learned from out-of-fold answers "
            f"of one fold's model each; with photos like the {found.study['n']:,} of that run they "
            "mean what they say, with others they need not"
        )
        calibrated = found.apply(mean)
        table = mean.join(calibrated.add_suffix("_calibrated"))
    decision = read_decision(stage)
    if decision is None:
        return table
    say(f"decision: by {stage / DECISION_FILE} ({decision.why}), of the calibrated probabilities")
    return table.join(decision.decide(calibrated))


def list_photos(folder: Path, spec: DatasetSpec) -> pd.DataFrame:
    """Return examples of the photos in ``folder``: index ``image_id``, all of the split ``test``.

    Raises
    ------
    PipelineError
        If there is no photo, a name is not a plain one, or two files have one stem.
    """
    folder = Path(folder)
    if folder.is_file():
        raise PipelineError(f"--images {folder} is a file: name the folder that it lies in")
    if not folder.is_dir():
        raise PipelineError(f"--images {folder}: no such folder")
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in PHOTOS_OR_DICOM)
    if not paths:
        raise PipelineError(f"--images {folder} holds no {', '.join(PHOTOS_OR_DICOM)} file")
    seen: dict[str, Path] = {}
    for path in paths:
        if not re.fullmatch(r"[\w\-][\w.\-]*", path.stem):
            raise PipelineError(f"{path}: rename it, letters, digits, '.', '-' and '_' only")
        if path.stem in seen:
            raise PipelineError(f"{path} and {seen[path.stem].name} have the same image id")
        seen[path.stem] = path
    index = pd.Index(list(seen), name="image_id")
    names = [path.name for path in seen.values()]
    return pd.DataFrame({"group_id": index, "split": "test", "image_path": names}, index=index)


def _readable(
    examples: pd.DataFrame, folder: Path, workers: int | None, say: Callable[[str], None]
) -> pd.DataFrame:
    """The photos that can be read; a line for each other one."""
    paths = [folder / name for name in examples["image_path"]]
    faults = list(map_in_order(fault_of, paths, workers))
    for fault in filter(None, faults):
        say(f"left out: {fault}")
    fine = examples[[fault is None for fault in faults]]
    if fine.empty:
        raise PipelineError(f"--images {folder}: none of {len(faults)} photos can be read")
    if len(fine) < len(faults):
        say(f"{len(faults) - len(fine)} of {len(faults)} photos cannot be read")
    return fine
