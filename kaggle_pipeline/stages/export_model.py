"""A trained run as one file for other runtimes, written once its answers are those of ``predict``.

In: a run's folder. Out: ONNX, LiteRT or a SavedModel.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.files import replace_folder, require_folder, require_free_file
from kaggle_pipeline.core.photo_folder import list_photos
from kaggle_pipeline.core.room import mib
from kaggle_pipeline.data.metadata_encoder import blank_metadata
from kaggle_pipeline.data.predictions import AVERAGED, Predictions, average
from kaggle_pipeline.evaluation.calibration.calibration import Calibration
from kaggle_pipeline.evaluation.decision.decision import Decision
from kaggle_pipeline.export.formats import FORMATS, Format
from kaggle_pipeline.models.protocols import Model
from kaggle_pipeline.records.tfrecords import list_shards, read_records, shards_holding
from kaggle_pipeline.stages.made_up import draw_photos
from kaggle_pipeline.stages.photo_records import convert_photos, photo_examples
from kaggle_pipeline.stages.quantization_cost import quantization_cost
from kaggle_pipeline.stages.trained import TrainedImageModels, calibration_of_photos

COMPARED = 20
"""Photos on which a file is compared with ``predict`` before it is there."""
TOLERANCE = 1e-4
"""Of scores and probabilities."""
_SHORTER = {"none": 1, "float16": 2, "int8": 4}
"""How many times less than in float32 weights take."""


def export_model(
    run_dir: Path,
    out: Path | None = None,
    *,
    format: str = "onnx",
    views: str | None = None,
    quantize: str = "none",
    images: Path | None = None,
    overwrite: bool = False,
    say: Callable[[str], None] = print,
) -> Path:
    """Write one file: uint8 square → score, calibrated probability, decision.

    Mean over folds, views, calibration and decision rule are in it, as ``predict`` applies them. It
    is put in place only if its answers to some photos are those of ``predict``: scores within
    :data:`TOLERANCE`, probabilities within that of what the run's calibration makes of the file's
    scores, decisions those that the run's rule makes of the file's probabilities.

    Parameters
    ----------
    run_dir : pathlib.Path
        With a trained ``image/``.
    out : pathlib.Path, optional
        By default ``<run_dir>/export/<run's name>`` and the format's ending.
    format : {"onnx", "litert", "saved_model"}
    views : {"none", "flips", "dihedral"}, optional
        By default those of ``predict``, which the calibration is of.
    quantize : {"none", "float16", "int8"}
        LiteRT's weights. The comparison then says how far answers are away, and refuses nothing.
    images : pathlib.Path, optional
        Folder of photos to compare on, the first :data:`COMPARED`; by default made-up lesions.
    overwrite : bool
        Whether ``out`` may be there already: a file, or for ``saved_model`` the folder of one.
    say : callable
        Takes a line for the user.

    Returns
    -------
    pathlib.Path
        What was written.

    Raises
    ------
    PipelineError
        If the run has no trained image model, a package is missing, ``out`` is there, or the file
        answers otherwise than ``predict``; then nothing is written.
    """
    trained = TrainedImageModels.open(run_dir)
    if trained.config.image.fold_sizes_px is not None:
        raise PipelineError(
            f"{trained.stage}: its folds see photos of several sizes (image.fold_sizes_px), which "
            "one file does not take"
        )
    if quantize != "none" and format != "litert":
        raise PipelineError(f"--quantize {quantize} is for --format litert alone")
    own_views = trained.config.image.tta
    trained, note = _with_views(trained, views)
    if images is not None:
        require_folder(Path(images), "--images")
    chosen, run_name = FORMATS[format], Path(run_dir).resolve().name
    out = Path(out or Path(run_dir) / "export" / f"{run_name}{chosen.ending or '_saved_model'}")
    _require_free(out, format, overwrite)
    chosen.require()
    _require_fits(trained, format, chosen.most_bytes, quantize)
    from kaggle_pipeline.hardware.accelerator import choose_accelerator

    device = choose_accelerator("cpu")
    from kaggle_pipeline.export.about import describe_export
    from kaggle_pipeline.export.network import serving_network

    chosen.require_engine()
    calibration, decision, why = calibration_of_photos(trained)
    folds = [] if trained.of_all else list(trained.folds)
    if note:
        say(note)
    if why:
        say(f"note: uncalibrated, and without a decision: {why}")
    with tempfile.TemporaryDirectory() as scratch:
        photos = _photos(trained, images, Path(scratch), say)
        models = [
            trained.load(fold, device, photos.shards_of, Path(scratch) / "features")
            for fold in folds or [None]
        ]
        expected = _predict(models, folds, photos, calibration, decision)
        side, spec = trained.config.image.image_size_px, trained.spec
        network = serving_network(models, spec, calibration, decision, side)
        about = describe_export(
            trained.stage, trained.config, spec, trained.fit, folds, calibration, decision,
            own_views, quantize, chosen.photos, why,
        )  # fmt: skip
        with _placed(out) as temporary:
            chosen.write(network, about, temporary, quantize)
            found = _look(chosen, temporary, photos.squares)
            _compare(found, expected, calibration, decision, list(spec.classes), quantize, say)
            size = _bytes(temporary)
            if quantize != "none":
                say(quantization_cost(trained, Path(run_dir), chosen, quantize, device))
    say(
        f"{out}: {size / 1e6:.1f} MB, {found.milliseconds:.0f} ms a photo on this CPU "
        f"(predict: {expected.milliseconds:.0f})"
    )
    return out


def _require_free(out: Path, format: str, overwrite: bool) -> None:
    """Stop on an ``out`` that cannot be written; no folder but a SavedModel's is ever replaced."""
    if format != "saved_model" or not out.exists():
        require_free_file(out, "--out", overwrite)
    elif not (out / "saved_model.pb").is_file():
        raise PipelineError(f"--out {out} is there and is no SavedModel: name another")
    elif not overwrite:
        raise PipelineError(f"{out} exists: say --overwrite, or another --out")


def _require_fits(
    trained: TrainedImageModels, format: str, most_bytes: int | None, quantize: str
) -> None:
    """Stop where the weights of all folds together are more than a format can hold."""
    places = [trained.of_all] if trained.of_all else list(trained.folds.values())
    files = [path for place in places for path in place.rglob("model.weights.h5")]
    needed = sum(path.stat().st_size for path in files) // _SHORTER[quantize]
    if most_bytes is not None and needed > most_bytes:
        raise PipelineError(
            f"--format {format}: the weights of {trained.stage} take {mib(needed)}, and such a "
            f"file holds {mib(most_bytes)} at most: export it as saved_model"
        )


@dataclass(frozen=True)
class _Photos:
    """Photos to compare on: as examples, in records, and as the network sees them."""

    examples: pd.DataFrame
    shards_of: Callable[[pd.Index], list[Path]]
    squares: np.ndarray


@dataclass(frozen=True)
class _Answers:
    """What is said of the photos, each (n, classes), and how long one took."""

    score: np.ndarray
    probability: np.ndarray
    decision: np.ndarray | None
    milliseconds: float


def _with_views(
    trained: TrainedImageModels, views: str | None
) -> tuple[TrainedImageModels, str | None]:
    """The run with other views, and a line about it; float32, as every format computes."""
    image = replace(trained.config.image, mixed_precision=False)
    note = None
    if views is not None and views != image.tta:
        note = (
            f"note: views {views}, not {image.tta} as predict: scores, calibration and decision of "
            "this run are of the latter"
        )
        image = replace(image, tta=views)
    return replace(trained, config=replace(trained.config, image=image)), note


def _photos(
    trained: TrainedImageModels, images: Path | None, scratch: Path, say: Callable[[str], None]
) -> _Photos:
    from kaggle_pipeline.models.image.input.pipeline import decode_photo

    recipe, spec = trained.fit.recipe(trained.config.records), trained.spec
    if images is None:
        images = scratch / "drawn"
        draw_photos(images, recipe.image_size_px, COMPARED)
        say(f"compared on {COMPARED} made-up lesions; --images names a folder of others")
    found = list_photos(images)
    found.require_photos("--images")
    examples = photo_examples(found).iloc[:COMPARED]
    if trained.config.image.metadata:
        examples = blank_metadata(examples, spec)
    records = scratch / "records"
    index = convert_photos(examples, spec, images, records, replace(recipe, workers=1))
    jpegs = {
        record[spec.record_id]: record["image"]
        for shard in list_shards(records)
        for record in read_records(shard.path)
    }
    side = trained.config.image.image_size_px
    squares = np.stack([decode_photo(jpegs[name], side) for name in examples.index])
    return _Photos(examples, partial(shards_holding, index), squares)


def _predict(
    models: list[Model],
    folds: list[int],
    photos: _Photos,
    calibration: Calibration | None,
    decision: Decision | None,
) -> _Answers:
    """What ``predict`` says; its time without loading, the second time it is asked."""

    def ask() -> pd.DataFrame:
        return average(
            [
                Predictions.build(model.predict(photos.examples), fold, "test")
                for model, fold in zip(models, folds or [AVERAGED], strict=True)
            ]
        ).probabilities.loc[photos.examples.index]

    ask()
    started = time.perf_counter()
    score = ask()
    milliseconds = 1000 * (time.perf_counter() - started) / len(score)
    probability = calibration.apply(score) if calibration else score
    decided = decision.rule.decide(probability.to_numpy(float)) if decision else None
    return _Answers(score.to_numpy(float), probability.to_numpy(float), decided, milliseconds)


def _look(chosen: Format, path: Path, squares: np.ndarray) -> _Answers:
    """What the file says; its time is that of one photo after the other, without the first."""
    run = chosen.open(path)
    run(squares[:1])
    started = time.perf_counter()
    parts = [run(square[None]) for square in squares]
    milliseconds = 1000 * (time.perf_counter() - started) / len(squares)
    found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return _Answers(
        found["score"].astype(float), found["probability"].astype(float), found.get("decision"),
        milliseconds,
    )  # fmt: skip


def _compare(
    found: _Answers,
    expected: _Answers,
    calibration: Calibration | None,
    decision: Decision | None,
    classes: list[str],
    quantize: str,
    say: Callable[[str], None],
) -> None:
    """Say how far the file's answers are from predict's; stop where that is too far."""
    score = np.abs(found.score - expected.score).max()
    probability = np.abs(found.probability - expected.probability).max()
    line = f"{len(found.score)} photos: scores differ by {score:.1e}, probabilities by "
    line += f"{probability:.1e} at most from predict's"
    if decision is not None:
        differing = int((found.decision != expected.decision).any(axis=1).sum())
        line += f"; {differing or 'no'} decision{'s' * (differing > 1)} other than predict's"
    say(line)
    if quantize != "none":
        return
    scores = pd.DataFrame(np.clip(found.score, 0, 1), columns=classes)
    own = calibration.apply(scores).to_numpy(float) if calibration else scores.to_numpy(float)
    # A calibration may have steps: what it makes of the file's own scores counts.
    curve = np.abs(found.probability - own).max()
    for what, far in (("score", score), ("calibrated probability", curve)):
        if not far <= TOLERANCE:
            raise PipelineError(
                f"the file's {what} is {far:.1e} away from predict's, more than {TOLERANCE:g}: "
                "nothing was written"
            )
    if decision is None:
        return
    # As above: what the rule makes of the file's own probabilities counts.
    fits = decision.rule.allows(found.probability, found.decision, TOLERANCE)
    if not fits.all():
        raise PipelineError(
            f"the file's decision is not what the run's rule makes of its probability on "
            f"{int((~fits).sum())} of {len(found.score)} photos: nothing was written"
        )


@contextmanager
def _placed(out: Path) -> Iterator[Path]:
    """Yield where to write a file or a folder, which becomes ``out`` if the block succeeds."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".") as beside:
        yield (written := Path(beside) / out.name)
        if written.is_dir():
            replace_folder(written, out)
        else:
            written.replace(out)


def _bytes(path: Path) -> int:
    files = [path] if path.is_file() else [one for one in path.rglob("*") if one.is_file()]
    return sum(one.stat().st_size for one in files)
