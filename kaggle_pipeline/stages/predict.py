"""Predictions of a run's models for a folder of new photos.

In: a run's folder and photos without labels. Out: a CSV by image id. Of photos alone the image
model answers, or the heads; of photos and their metadata the whole blend does.
"""

import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from kaggle_pipeline.config.names import METADATA_STAGES
from kaggle_pipeline.config.random_weights import random_weights_of
from kaggle_pipeline.config.run_folders import final_stage
from kaggle_pipeline.core.child_process import map_in_order
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.files import atomic_path, require_folder, require_free_file
from kaggle_pipeline.core.photo_folder import list_photos, printable
from kaggle_pipeline.core.photos import fault_of
from kaggle_pipeline.data.metadata_encoder import blank_metadata
from kaggle_pipeline.data.predictions import AVERAGED, Predictions, average
from kaggle_pipeline.data.spec import DatasetSpec
from kaggle_pipeline.datasets.new_photos import read_metadata
from kaggle_pipeline.ensembling.blend import Blend, blend_test, read_blend
from kaggle_pipeline.evaluation.calibration.calibration import FILE, Calibration, read_calibration
from kaggle_pipeline.evaluation.decision.decision import FILE as DECISION_FILE
from kaggle_pipeline.evaluation.decision.decision import Decision, read_decision
from kaggle_pipeline.models.embedding.nearest import COUNT
from kaggle_pipeline.records.tfrecords import shards_holding
from kaggle_pipeline.stages.known_photos import COLUMN, known_photos
from kaggle_pipeline.stages.photo_records import convert_photos, photo_examples
from kaggle_pipeline.stages.trained import TrainedImageModels, calibration_of_photos
from kaggle_pipeline.stages.trained_embedding import TrainedHeads, open_trained
from kaggle_pipeline.stages.trained_tabular import TrainedTabular

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
    metadata: Path | None = None,
    device: str = "auto",
    workers: int | None = None,
    overwrite: bool = False,
    say: Callable[[str], None] = print,
) -> Path:
    """Write the mean probability of a run's fold models for every photo in a folder.

    With ``metadata`` it is the blend's: test photos with their metadata get the numbers of
    ``blend/test.csv``, and of the page.

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
    metadata : pathlib.Path, optional
        CSV or Parquet file with a row a photo: see
        :func:`~kaggle_pipeline.datasets.new_photos.read_metadata`. Then all models of the blend
        answer, and its calibration and decision are used; a patient's photos are compared with each
        other where a model does so.
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
        ``metadata`` has a mistake or no model reads it, ``out`` is there already, or a worker
        process is killed.
    """
    trained = open_trained(Path(run_dir))
    config, spec, fit = trained.config, trained.spec, trained.fit
    require_folder(Path(images), "--images")
    require_free_file(Path(out), "--out", overwrite)
    asked = _alone(trained) if metadata is None else _whole(trained)
    found = list_photos(images)
    found.require_photos("--images")
    say(found.describe())
    examples = photo_examples(found)
    if metadata is not None:
        rows = read_metadata(Path(metadata), found, spec, config.table, say)
        examples = examples.drop(columns="group_id").join(rows, validate="one_to_one")
    recipe = fit.recipe(config.records)
    if workers is not None:
        recipe = replace(recipe, workers=workers)
    from kaggle_pipeline.hardware.accelerator import choose_accelerator

    chosen = choose_accelerator(device)  # a wrong one is said before the photos are read
    examples = _readable(examples, Path(images), recipe.workers, say)
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
    if doubt := random_weights_of(trained.stage):
        say(f"note: {doubt}")
    if line := fit.describe():
        say(line)
    if metadata is None:
        if line := _blended(Path(run_dir), trained.stage.name):
            say(line)
        if trained.lacking:
            say(f"note: photos come without {trained.lacking}, which the models learned with")
        if trained.metadata:
            examples = blank_metadata(examples, spec)
    with tempfile.TemporaryDirectory() as scratch:
        records = Path(scratch) / "records"
        index = convert_photos(examples, spec, images, records, recipe, remedy=_REMEDY)
        shards_of, features_dir = partial(shards_holding, index), Path(scratch) / "features"
        parts = {
            one.stage.name: _answers(one, examples, chosen, shards_of, features_dir, say)
            for one in asked.of_photos
        }
        near = _nearest(trained, examples, shards_of, chosen, say)
    for name, one in asked.of_metadata.items():
        of_folds = one.predict(examples)
        by_id = pd.DataFrame(of_folds.mean(axis=0), examples.index, list(spec.classes))
        parts[name] = Predictions.build(by_id, AVERAGED, "test")
    mean = blend_test(asked.blend, parts, examples.index).probabilities.sort_index()
    table = _with_decision(mean, spec, asked, say)
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


@dataclass(frozen=True)
class _Asked:
    """What answers for the photos.

    Attributes
    ----------
    blend : Blend
        Of the models below.
    of_photos : sequence of TrainedImageModels or TrainedHeads
    of_metadata : dict of str to TrainedTabular
    stage : pathlib.Path
        Whose calibration and decision are theirs.
    calibration : Calibration or None
    decision : Decision or None
    why : str
        Why there are none, where the models were scored with more than is known of these photos.
    """

    blend: Blend
    of_photos: Sequence[TrainedImageModels | TrainedHeads]
    of_metadata: Mapping[str, TrainedTabular]
    stage: Path
    calibration: Calibration | None
    decision: Decision | None
    why: str = ""

    @property
    def called(self) -> str:
        """In words, to begin a line with."""
        if self.of_metadata or len(self.of_photos) > 1:
            weights = ", ".join(f"{name} {one:.2f}" for name, one in self.blend.weights.items())
            return f"the blend ({weights})"
        with_all = " with all that it learned with" if self.of_photos[0].lacking else ""
        return f"{self.of_photos[0].stage.name} model only{'' if self.why else with_all}"


def _alone(trained: TrainedImageModels | TrainedHeads) -> _Asked:
    """The models of photos alone."""
    blend = Blend("mean", {trained.stage.name: 1.0}, {})
    return _Asked(blend, [trained], {}, trained.stage, *calibration_of_photos(trained))


def _whole(trained: TrainedImageModels | TrainedHeads) -> _Asked:
    """All models of the run's blend.

    Raises
    ------
    PipelineError
        If one of them has other folds, or none reads more than the photo.
    """
    run_dir = trained.stage.parent
    blend, stage = read_blend(trained.stage)
    blend = blend.without_idle()
    of_photos, of_metadata = [], {}
    for name in blend.weights:
        if name == trained.stage.name:
            of_photos.append(trained)
        elif name == "embedding":
            of_photos.append(TrainedHeads.open(run_dir))
        else:
            of_metadata[name] = TrainedTabular(
                run_dir / name, trained.spec, trained.folds, of_all=True
            )
    if not of_metadata and not any(one.lacking for one in of_photos):
        raise PipelineError(
            f"--metadata: no model of {run_dir} that the blend weighs reads metadata, or compares "
            "a patient's photos: leave it out"
        )
    return _Asked(
        blend, of_photos, of_metadata, stage, read_calibration(stage), read_decision(stage)
    )


def _answers(
    trained: TrainedImageModels | TrainedHeads,
    examples: pd.DataFrame,
    device: "Accelerator",
    shards_of: Callable[[pd.Index], list[Path]],
    features_dir: Path,
    say: Callable[[str], None],
) -> Predictions:
    """The mean of a stage's fold models, or what its model of all rows says."""
    parts = []
    for fold in (None,) if trained.of_all else trained.folds:
        answers = trained.load(fold, device, shards_of, features_dir).predict(examples)
        parts.append(Predictions.build(answers, AVERAGED if fold is None else fold, "test"))
        say(f"{trained.stage.name}: done" if fold is None else f"fold {fold}: done")
    return average(parts)


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
    blend, _ = read_blend(run_dir / model)
    weights = blend.without_idle().weights
    if set(weights) <= {model}:
        return None
    blend = ", ".join(f"{name} {weight:.2f}" for name, weight in weights.items())
    with_metadata = set(weights) & set(METADATA_STAGES)
    why = "photos come without metadata (--metadata), so " if with_metadata else ""
    who = "the page (serve) and the submission take"
    if final_stage(run_dir) == "ensemble":
        who = "the submission is of the ensemble, and the page (serve) takes"
    return (
        f"note: {why}this is the {model} model alone; {who} the blend ({blend}), so their numbers "
        "differ"
    )


def _with_decision(
    mean: pd.DataFrame, spec: DatasetSpec, asked: _Asked, say: Callable[[str], None]
) -> pd.DataFrame:
    """The probabilities and, as far as the stage has them, what is made of them."""
    table, calibrated = _in_words(mean, spec), mean
    found = asked.calibration
    if found is None or found.method == "none":
        why = asked.why or (found.why if found else f"no {FILE} in {asked.stage}")
        say(f"{asked.called}, uncalibrated: {why}")
    else:
        names = ", ".join(table.columns)
        say(f"{asked.called}; {names}: its own scores, uncalibrated")
        calibrated_names = ", ".join(f"{name}_calibrated" for name in table.columns)
        say(
            f"{calibrated_names}: probabilities, by {asked.stage / FILE} ({found.method}); they "
            f"hold for photos like the {found.study['n']:,} of that run"
        )
        calibrated = found.apply(mean)
        table = table.join(_in_words(calibrated, spec).add_suffix("_calibrated"))
    words = {name: spec.class_label(name) for name in spec.classes}
    if spec.task == "multiclass":
        table = table.assign(most_probable=calibrated[list(words)].idxmax(axis=1).map(words))
    if asked.decision is None:
        return table
    say(
        f"decision: by {asked.stage / DECISION_FILE} ({asked.decision.why}), of the calibrated "
        "probabilities"
    )
    return table.join(asked.decision.decide(calibrated, words))


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
