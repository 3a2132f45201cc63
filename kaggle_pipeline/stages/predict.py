"""Predictions of a run's models for a folder of new photos: of the image model, or of the heads.

In: a run's folder and photos without labels. Out: a CSV by image id.
"""

import tempfile
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from kaggle_pipeline.config.names import METADATA_STAGES
from kaggle_pipeline.config.random_weights import random_weights_of
from kaggle_pipeline.core.child_process import map_in_order
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.files import atomic_path, read_json, require_folder, require_free_file
from kaggle_pipeline.core.photo_folder import list_photos, printable
from kaggle_pipeline.core.photos import fault_of
from kaggle_pipeline.data.metadata_encoder import blank_metadata
from kaggle_pipeline.data.predictions import AVERAGED, Predictions, average
from kaggle_pipeline.data.spec import DatasetSpec
from kaggle_pipeline.evaluation.calibration.calibration import FILE
from kaggle_pipeline.evaluation.decision.decision import FILE as DECISION_FILE
from kaggle_pipeline.models.embedding.nearest import COUNT
from kaggle_pipeline.records.tfrecords import shards_holding
from kaggle_pipeline.stages.known_photos import COLUMN, known_photos
from kaggle_pipeline.stages.photo_records import convert_photos, photo_examples
from kaggle_pipeline.stages.trained import TrainedImageModels, calibration_of_photos
from kaggle_pipeline.stages.trained_embedding import TrainedHeads, open_trained

if TYPE_CHECKING:
    from kaggle_pipeline.hardware.accelerator import Accelerator

_NAMED = 3
"""Photos that are left out for one reason and named one by one; of more, the first."""
_REMEDY = "run the same command again with --workers 1"


def predict_images(
    run_dir: Path,
    images: Path,
    out: Path,
    *,
    device: str = "auto",
    workers: int | None = None,
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
        With a finished ``image/fold<k>`` or several; or, where it has no image stage, with
        ``embedding/``, whose encoders then have to be at hand.
    images : pathlib.Path
        Folder with photos of any kind that is read, in it and in folders below it.
    out : pathlib.Path
        CSV to write: ``image_id`` (the file's name, without its ending where that is enough: see
        :class:`~kaggle_pipeline.core.photo_folder.PhotoFolder`), then a probability a class, as
        the model says it, in six digits (a single class's column has its word: ``melanoma``, not
        ``target``); where the stage has a calibration then ``<class>_calibrated`` (not where its
        models were scored with more than a photo: see ``calibration_of_photos``); a softmax
        of several classes has ``most_probable``, the one that is most probable; where the stage has
        a decision then ``decision`` (of several yes-or-no questions all that apply, joined by
        " + ", or ``none``; of a single one it or, say, ``no melanoma``). Both columns call classes
        by their full names. Where the run learned from some of the photos, ``learned_from``:
        ``yes`` or ``no``. Last, of heads on encoders whose training vectors are in the run,
        ``nearest`` and ``nearest_labels``: ids and labels of the nearest training photos, by the
        cosine of the vectors, one a patient or lesion, joined by "; ".
    device : {"auto", "cpu", "gpu", "tpu"}
    workers : int, optional
        Processes that read the photos; as the run had it by default.
    overwrite : bool
        Whether ``out`` may be there already.
    say : callable
        Takes a line for the user; told of every photo that cannot be read and is left out.

    Raises
    ------
    PipelineError
        If the run has no trained model of photos, the folder no photos or none that can be read,
        ``out`` is there already, or a worker process is killed.
    """
    trained = open_trained(Path(run_dir))
    config, spec, fit = trained.config, trained.spec, trained.fit
    require_folder(Path(images), "--images")
    require_free_file(Path(out), "--out", overwrite)
    found = list_photos(images)
    found.require_photos("--images")
    say(found.describe())
    recipe = fit.recipe(config.records)
    if workers is not None:
        recipe = replace(recipe, workers=workers)
    from kaggle_pipeline.hardware.accelerator import choose_accelerator

    chosen = choose_accelerator(device)  # a wrong one is said before the photos are read
    examples = _readable(photo_examples(found), Path(images), recipe.workers, say)
    photos = {one: Path(images) / path for one, path in examples["image_path"].items()}
    known = known_photos(Path(run_dir), trained, photos)
    if known is not None:
        say(known.describe())
    say(f"device: {chosen.describe(mixed_precision=trained.mixed_precision)}")
    if trained.of_all:
        say(
            f"{len(examples)} photos, the model of all rows: it is not scored itself, calibration "
            "and decision are of the folds' models"
        )
    else:
        say(f"{len(examples)} photos, models of {len(trained.folds)} folds")
    if (lacking := trained.missing) and not trained.of_all:
        say(f"note: folds {lacking} of this run are not trained: the mean lacks their models")
    if line := _blended(Path(run_dir), trained.stage.name):
        say(line)
    if doubt := random_weights_of(trained.stage):
        say(f"note: {doubt}")
    if line := fit.describe():
        say(line)
    if trained.lacking:
        say(f"note: photos come without {trained.lacking}, which the models learned with")
    if trained.metadata:
        examples = blank_metadata(examples, spec)
    with tempfile.TemporaryDirectory() as scratch:
        records = Path(scratch) / "records"
        index = convert_photos(examples, spec, images, records, recipe, remedy=_REMEDY)
        parts, shards_of = [], partial(shards_holding, index)
        features_dir = Path(scratch) / "features"
        for fold in (None,) if trained.of_all else trained.folds:
            answers = trained.load(fold, chosen, shards_of, features_dir).predict(examples)
            parts.append(Predictions.build(answers, AVERAGED if fold is None else fold, "test"))
            say("done" if fold is None else f"fold {fold}: done")
        near = _nearest(trained, examples, shards_of, chosen, say)
    mean = average(parts).probabilities.sort_index()
    table = _with_decision(mean, trained, say)
    if known is not None:
        for line in known.describe_score(mean, spec):
            say(line)
        if known.learned.any():
            table[COLUMN] = known.learned.map({True: "yes", False: "no"})
    if near is not None:
        table = table.join(near)
    with atomic_path(Path(out)) as temporary:
        table.to_csv(temporary, float_format="%.6g")
    say(f"{out}: {len(table)} rows, {', '.join(table.columns)}")
    return Path(out)


def _nearest(
    trained: TrainedImageModels | TrainedHeads,
    examples: pd.DataFrame,
    shards_of: Callable[[pd.Index], list[Path]],
    device: "Accelerator",
    say: Callable[[str], None],
) -> pd.DataFrame | None:
    """Ids and labels of the nearest training photos; None without vectors of them."""
    if not isinstance(trained, TrainedHeads):
        return None
    training = trained.nearest()
    if training is None:
        say("note: the training photos' vectors are not in this folder: no nearest photos")
        return None
    found = training.find(trained.encode(examples, shards_of, device))
    say(f"nearest, nearest_labels: the {COUNT} nearest training photos, by the encoder's vectors")
    columns = {
        "nearest": {name: "; ".join(one.image_id for one in near) for name, near in found.items()},
        "nearest_labels": {
            name: "; ".join(one.label for one in near) for name, near in found.items()
        },
    }
    return pd.DataFrame(columns)


def _blended(run_dir: Path, model: str) -> str | None:
    """That the page and the submission say other numbers, where they are not of this model."""
    path = run_dir / "blend" / "blend.json"
    weights = read_json(path)["weights"] if path.exists() else {}
    weights = {name: weight for name, weight in weights.items() if weight > 0}
    if set(weights) <= {model}:
        return None
    blend = ", ".join(f"{name} {weight:.2f}" for name, weight in weights.items())
    why = "photos come without metadata, so " if set(weights) & set(METADATA_STAGES) else ""
    return (
        f"note: {why}this is the {model} model alone; the page (serve) and the submission take "
        f"the blend ({blend}), so their numbers differ"
    )


def _with_decision(
    mean: pd.DataFrame,
    trained: TrainedImageModels | TrainedHeads,
    say: Callable[[str], None],
) -> pd.DataFrame:
    """The probabilities and, as far as the stage has them, what is made of them."""
    stage, spec = trained.stage, trained.spec
    table, calibrated = _in_words(mean, spec), mean
    found, decision, why = calibration_of_photos(trained)
    if found is None or found.method == "none":
        why = why or (found.why if found else f"no {FILE} in {stage}")
        say(f"{stage.name} model only, uncalibrated: {why}")
    else:
        names = ", ".join(table.columns)
        say(f"{stage.name} model only; {names}: the model's own scores, uncalibrated")
        calibrated_names = ", ".join(f"{name}_calibrated" for name in table.columns)
        say(
            f"{calibrated_names}: probabilities, by {stage / FILE} ({found.method}); they hold for "
            f"photos like the {found.study['n']:,} of that run"
        )
        calibrated = found.apply(mean)
        table = table.join(_in_words(calibrated, spec).add_suffix("_calibrated"))
    words = {name: spec.class_label(name) for name in spec.classes}
    if spec.task == "multiclass":
        table = table.assign(most_probable=calibrated[list(words)].idxmax(axis=1).map(words))
    if decision is None:
        return table
    say(f"decision: by {stage / DECISION_FILE} ({decision.why}), of the calibrated probabilities")
    return table.join(decision.decide(calibrated, words))


def _in_words(probabilities: pd.DataFrame, spec: DatasetSpec) -> pd.DataFrame:
    """A single class's column under its word: competitions call it ``target``."""
    if len(spec.classes) > 1:
        return probabilities
    return probabilities.set_axis([spec.class_label(spec.classes[0]).replace(" ", "_")], axis=1)


def _readable(
    examples: pd.DataFrame, folder: Path, workers: int | None, say: Callable[[str], None]
) -> pd.DataFrame:
    """The photos that can be read; the others are named, many of one reason in one line."""
    paths = [folder / name for name in examples["image_path"]]
    found = map_in_order(fault_of, paths, workers, what="reading photos", remedy=_REMEDY)
    faults = list(found)
    reasons: dict[str, list[str]] = defaultdict(list)
    for path, fault in zip(paths, faults, strict=True):
        if fault is not None:
            reasons[fault.replace(str(path), "…")].append(fault)
    for reason, same in reasons.items():
        if len(same) <= _NAMED:
            for fault in same:
                say(f"left out: {printable(fault)}")
        else:
            say(f"left out: {len(same)} photos, {printable(reason)}; first {printable(same[0])}")
    fine = examples[[fault is None for fault in faults]]
    if fine.empty:
        raise PipelineError(
            f"--images {folder}: none of {len(faults)} photos can be read; "
            f"{printable(next(iter(reasons.values()))[0])}"
        )
    if len(fine) < len(faults):
        say(f"{len(faults) - len(fine)} of {len(faults)} photos cannot be read")
    return fine
