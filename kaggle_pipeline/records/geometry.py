"""How the photos in a run's TFRecords were made square, so that a new photo is treated alike.

In: the records' folder and what config and data set say of it. Out: a :class:`RecordFit`, kept as
``records.json`` beside the models that learned from them.
"""

import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Literal

from PIL import Image

from kaggle_pipeline.config.experiment import Experiment, RecordsConfig
from kaggle_pipeline.config.run_settings import Difference
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.files import read_json, write_json
from kaggle_pipeline.data.examples import EXTERNAL
from kaggle_pipeline.data.spec import DatasetSpec
from kaggle_pipeline.records.convert import MANIFEST
from kaggle_pipeline.records.tfrecords import list_shards, read_index, read_records

NOTE = "records.json"
_FITS = ("crop", "stretch")
_LOOKED_AT = 32
"""Records whose size is looked at: in a collection of photos as cameras make them, hardly any is
square."""


@dataclass(frozen=True)
class RecordFit:
    """How the data set's photos became the squares that a network learned from.

    Attributes
    ----------
    source : {"converted", "given"}
        Whether the run made its records or found them in the data folder.
    fit : {"crop", "stretch"}
    image_size_px : int
        Side of a record's square; nothing is enlarged to it.
    because : str
        How it is known.
    known : bool
        False: nothing tells, it is assumed.
    """

    source: Literal["converted", "given"]
    fit: Literal["crop", "stretch"]
    image_size_px: int
    because: str
    known: bool = True

    def recipe(self, config: RecordsConfig) -> RecordsConfig:
        """Return the settings by which further photos become squares as the records' did."""
        return replace(config, fit=self.fit, image_size_px=self.image_size_px)

    @property
    def word(self) -> str:
        """What is done to a photo."""
        return {"crop": "cropped to their middle square", "stretch": "stretched to a square"}[
            self.fit
        ]

    def describe(self) -> str | None:
        """Return a line for the user; None where the run made its records itself."""
        if self.source == "converted" and self.known:
            return None
        if self.known:
            return f"new photos are {self.word}, as the TFRecords' were: {self.because}"
        return f"note: new photos are {self.word}; {self.because}"

    def write(self, stage: Path) -> None:
        """Keep it in a stage's folder."""
        write_json(Path(stage) / NOTE, asdict(self))

    def differences(self, config: RecordsConfig) -> list[Difference]:
        """Return the settings by which photos would now be made square otherwise.

        Where the records are to be of the other source, nothing can be compared.
        """
        if self.source == "converted" and config.source != "tfrecords":
            keys = ("fit", "image_size_px")
            both = [(f"records.{key}", getattr(self, key), getattr(config, key)) for key in keys]
        elif self.source == "given" and config.source != "images" and config.given_fit != "auto":
            both = [("records.given_fit", self.fit, config.given_fit)]
        else:
            return []
        return [Difference(*one) for one in both if one[1] != one[2]]

    def require_same(
        self, stage: Path, remedy: str = "choose another --run-dir, or --overwrite"
    ) -> None:
        """Raise a PipelineError if a stage's models, or vectors, are of records of another fit."""
        before = read_note(stage)
        if before is not None and before.fit != self.fit:
            raise PipelineError(
                f"{stage} is of photos {before.word} ({before.because}), now they are "
                f"{self.word} ({self.because}): {remedy}"
            )


def converted_fit(config: RecordsConfig) -> RecordFit:
    """Return what the run's own conversion does."""
    return RecordFit("converted", config.fit, config.image_size_px, "records.fit says so")


def given_fit(place: Path | None, config: RecordsConfig, spec: DatasetSpec) -> RecordFit:
    """Return how records that were made elsewhere were made square.

    What can be seen counts first: the manifest of a conversion by this package; records that are
    not square, of which a network sees the middle. Then what the user says, then what is known of
    the data set's own records; at last ``records.fit`` is assumed.

    Parameters
    ----------
    place : pathlib.Path or None
        Their folder; one that is gone or not known is not looked at.
    config : RecordsConfig
    spec : DatasetSpec

    Raises
    ------
    PipelineError
        If ``records.given_fit`` says what the records contradict, or a shard is damaged.
    """
    seen, because, side = _look(place, config.image_size_px)
    said = config.given_fit
    if seen is not None:
        if said not in ("auto", seen):
            raise PipelineError(
                f"records.given_fit is {said!r}, but the photos in {place} are to be taken as "
                f"{seen!r}: {because}"
            )
        return RecordFit("given", seen, side, because)
    if said != "auto":
        return RecordFit("given", said, side, "records.given_fit says so")
    if spec.given_fit is not None and side == spec.given_size_px:
        because = "the competition's own are so; where these are not, say it by records.given_fit"
        return RecordFit("given", spec.given_fit, side, because)
    if spec.given_fit is not None:
        because = (
            f"the TFRecords have {side} px and not the competition's own {spec.given_size_px}, so "
            "this is a guess: where it is wrong, say it by records.given_fit"
        )
        return RecordFit("given", spec.given_fit, side, because, known=False)
    because = "nothing tells how the TFRecords' were made square: say it by records.given_fit"
    return RecordFit("given", config.fit, side, because, known=False)


def read_fit(stage: Path, config: Experiment, spec: DatasetSpec) -> RecordFit:
    """Return what the models of a run's stage learned from.

    A run of before ``records.json`` is asked for its records, its ``records.csv`` and its config.

    Parameters
    ----------
    stage : pathlib.Path
        A run's ``image/`` or ``embedding/``.
    config : Experiment
        Of that stage.
    spec : DatasetSpec

    Raises
    ------
    PipelineError
        If the note is damaged.
    """
    run_dir = Path(stage).parent
    if (note := read_note(stage)) is not None:
        return note
    if any((run_dir / "records").glob("train*.tfrec")):
        return converted_fit(config.records)
    place = _indexed_place(run_dir)
    if place is None and config.records.source != "tfrecords":
        because = "this run does not tell whether it converted its photos so"
        return replace(converted_fit(config.records), because=because, known=False)
    if place is not None and place.name == "records":  # a kernel's are not kept
        return converted_fit(config.records)
    return given_fit(place, config.records, spec)


def read_note(
    stage: Path, remedy: str = "training with --resume writes it again, once deleted"
) -> RecordFit | None:
    """Return what :meth:`RecordFit.write` kept in a folder, None where it kept nothing.

    Parameters
    ----------
    stage : pathlib.Path
    remedy : str
        How the file is made anew.

    Raises
    ------
    PipelineError
        If it is damaged.
    """
    path = Path(stage) / NOTE
    if not path.exists():
        return None
    content = read_json(path)
    try:
        found = RecordFit(**content)
        if found.fit in _FITS and isinstance(found.image_size_px, int):
            return found
    except TypeError:
        pass
    raise PipelineError(f"{path} is damaged: {remedy}")


def _indexed_place(run_dir: Path) -> Path | None:
    """Folder that the data set's own records were in, as ``records.csv`` says."""
    index = read_index(run_dir)
    if index is None:
        return None
    own = index[~index["shard"].str.startswith(EXTERNAL)]
    return Path(own["folder"].iloc[0]) if len(own) else None


def _look(place: Path | None, otherwise_px: int) -> tuple[str | None, str, int]:
    """What the records show: their fit or None, how it is known, and the side of their squares."""
    if place is None or not place.is_dir():
        return None, "", otherwise_px
    manifest = place / MANIFEST
    content = read_json(manifest) if manifest.exists() else None
    if isinstance(content, dict) and content.get("fit") in _FITS:
        return content["fit"], f"{manifest} says so", int(content["image_size_px"])
    sizes = _sizes(place)
    for width, height in sizes:
        if width != height:
            because = f"one has {width} x {height} pixels, and a network sees the middle square"
            return "crop", because, otherwise_px
    return None, "", max((width for width, _ in sizes), default=otherwise_px)


def _sizes(place: Path) -> Sequence[tuple[int, int]]:
    """Width and height in px of the first photos; one that is no JPEG is found when indexed."""
    shards = list_shards(place)
    first = next((one for one in shards if one.path.name.startswith("train")), shards[0])
    sizes = []
    for record in islice(read_records(first.path), _LOOKED_AT):
        try:
            with Image.open(io.BytesIO(record["image"]), formats=("JPEG",)) as image:
                sizes.append(image.size)
        except (KeyError, TypeError, OSError, SyntaxError):
            continue
    return sizes
