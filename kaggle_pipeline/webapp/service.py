"""The service behind the page: bytes and metadata in, readings out; no Streamlit, nothing on disk.

In: a trained run. Out: :class:`Service`, safe to call from several threads: photos are looked at
one after the other, as the machine's cores are shared anyway.
"""

import io
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.data.examples import read_examples, split_rows
from kaggle_pipeline.data.patient_context import embedding_outliers, score_context
from kaggle_pipeline.data.predictions import Predictions
from kaggle_pipeline.evaluation.calibration.calibration import read_calibration
from kaggle_pipeline.evaluation.calibration.maps import SOFTMAX
from kaggle_pipeline.evaluation.decision.decision import read_decision, read_thresholds
from kaggle_pipeline.records.convert import square_jpeg
from kaggle_pipeline.stages.photo_records import index_here, record_thumbnails
from kaggle_pipeline.webapp.dicom_worker import DicomWorker
from kaggle_pipeline.webapp.models import RunModels
from kaggle_pipeline.webapp.ood import UNLIKE, OodReference, doubts
from kaggle_pipeline.webapp.ood_reference import find_reference
from kaggle_pipeline.webapp.photo_readers import PhotoLook
from kaggle_pipeline.webapp.training_distribution import TrainingDistribution
from kaggle_pipeline.webapp.turns import Turns
from kaggle_pipeline.webapp.upload import MAX_PIXELS, Photo, open_upload, plain_name

SHOWN_SIDE_PX = 448
_SHOWN_QUALITY = 88
_THUMBNAILS = 64
"""Readings whose nearest training photos are kept in memory, about 25 KiB each."""
_WAITING, _WAIT_SECONDS = 24, 60.0
"""Photos that may wait for their turn, and how long."""
Metadata = Mapping[str, object]
"""Feature → value; what is missing or None is unknown."""


@dataclass(frozen=True)
class Look:
    """What the photo alone says; the costly part of a reading.

    Attributes
    ----------
    name : str
        Of the file.
    digest : str
        SHA-256 of the file.
    size_px : (int, int)
        Width and height of the photo.
    shown : bytes
        JPEG of what the network sees, its longer side of ``SHOWN_SIDE_PX`` at most, without any
        metadata; a photo that the network sees stretched is shown as it came.
    answer : PhotoLook
    doubts : tuple of str
        What lowers trust.
    unlikeness : float or None
        How unusual it is beside the training images (``OodReference``); None where none, or too
        few, are at hand.
    """

    name: str
    digest: str
    size_px: tuple[int, int]
    shown: bytes
    answer: PhotoLook
    doubts: tuple[str, ...]
    unlikeness: float | None

    @property
    def unlike(self) -> bool:
        """Whether it is so unusual that its probabilities mean little."""
        return self.unlikeness is not None and self.unlikeness >= UNLIKE


@dataclass(frozen=True)
class Reading:
    """A lesion's reading; every Series has a value a class.

    Attributes
    ----------
    look : Look
    probability, low, high : pandas.Series
        Of the blend, calibrated where the run is; least and greatest of the folds' own.
    parts : mapping of str to pandas.Series
        What each model says before blending, mean over its folds: ``image`` and others.
    weights : mapping of str to float
        Of each part.
    rank : pandas.Series
        Share of training images with a lower probability.
    decision : str or None
        What the lesion is called by the run's decision, if it has one.
    given : mapping of str to object
        Features that a model asks for, as they were given.
    unknown : tuple of str
        Features that a model asks for and that were not given.
    together : int
        Photos of the patient that were read together, this one among them.
    """

    look: Look
    probability: pd.Series
    low: pd.Series
    high: pd.Series
    parts: Mapping[str, pd.Series]
    weights: Mapping[str, float]
    rank: pd.Series
    decision: str | None
    given: Mapping[str, object]
    unknown: tuple[str, ...]
    together: int


class Service:
    """A trained run, loaded once and warm.

    Parameters
    ----------
    run_dir : pathlib.Path
    device : {"auto", "cpu", "gpu", "tpu"}
    say : callable
        Takes a line for the user while it loads.
    show_training_photos : bool
        Let visitors see the nearest training photos; else their labels alone.

    Attributes
    ----------
    models : RunModels
    distribution : TrainingDistribution
    detail_px : int
        Shorter side from which a photo has the detail of those it learned from.
    reference : OodReference or None
    calibration : Calibration or None
        None where the run has none, or too few images for one.
    decision : Decision or None
        None where the run was made before there were any.
    has_training_photos : bool
        Whether the nearest training photos are known, may be shown, and their records are here.

    Raises
    ------
    PipelineError
        If the run lacks what a reading needs.
    """

    def __init__(
        self,
        run_dir: Path,
        device: str = "auto",
        say: Callable[[str], None] = lambda line: None,
        *,
        show_training_photos: bool = False,
    ) -> None:
        self.run_dir = Path(run_dir)
        self.models = RunModels(self.run_dir, device)
        self.spec = self.models.spec
        found = read_calibration(self.models.scored_stage)
        self.calibration = None if found is None or found.method == "none" else found
        self.decision = read_decision(self.models.scored_stage)
        examples = read_examples(self.run_dir / "prepare" / "examples.csv", self.spec)
        self.distribution = self._training_distribution(examples)
        self.detail_px = min(self.models.detail_px, _usual_side_px(examples))
        self.reference: OodReference | None = find_reference(self.run_dir, self.models, say)
        heads = self.models.heads
        shown = show_training_photos and bool(heads and heads.training)
        self.has_training_photos = shown and index_here(self.run_dir) is not None
        # Whole shards are read to find four photos, and a page asks at every change of a form.
        self._thumbnails = lru_cache(_THUMBNAILS)(self._read_training_photos)
        self._lock = threading.Lock()
        # An unpacked photo takes up to 120 MB; a patient's 60 come one after the other.
        self._decoding = Turns(2, waiting=_WAITING, seconds=_WAIT_SECONDS)
        self._looking = Turns(1, waiting=_WAITING, seconds=_WAIT_SECONDS)
        self._worker = DicomWorker(MAX_PIXELS)
        self._warm_up()

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names."""
        return self.spec.classes

    @property
    def readings(self) -> int:
        """Photos that are being read or wait for it."""
        return self._decoding.here + self._looking.here

    def is_calibrated(self, name: str) -> bool:
        """Whether a class's probability is calibrated: some runs are so for some classes alone."""
        found = self.calibration
        return found is not None and (name not in found.lacking or SOFTMAX in found.maps)

    def look(self, name: str, content: bytes) -> Look:
        """Decode an uploaded file, and ask the image models about the photo.

        A photo is unpacked in its turn alone: what waits for the models is small.

        Raises
        ------
        PipelineError
            As :func:`~kaggle_pipeline.webapp.upload.open_upload`; if too many others wait, or its
            turn does not come in a minute.
        """
        models, name = self.models, plain_name(name)
        with self._decoding.turn(name):
            photo = open_upload(name, content, self._worker)
            jpeg, shown = models.jpeg(photo), self._shown(photo.image)
            square = models.reader.decode(jpeg)
            size, digest = photo.image.size, photo.digest
            del photo
        with self._looking.turn(name), self._lock:
            answer = models.look(square, jpeg)
        unlikeness = None
        if self.reference is not None:
            of_fold = dict(zip(models.reader.embedding_folds, answer.embeddings, strict=True))
            unlikeness = self.reference.unlikeness(of_fold)
        found = doubts(size, self.detail_px, square, unlikeness, self.reference)
        return Look(name, digest, size, shown, answer, tuple(found), unlikeness)

    def read(self, looks: Sequence[Look], metadata: Sequence[Metadata]) -> list[Reading]:
        """Return the readings of one patient's lesions.

        Parameters
        ----------
        looks : sequence of Look
        metadata : sequence of mapping
            One a look.

        Raises
        ------
        PipelineError
            If a feature is unknown or a value is not one that it can have.
        """
        if not looks:
            return []
        rows = self._rows(metadata)
        with self._lock:  # a dense network on the metadata is a Keras model too
            parts = self.models.ask([look.answer for look in looks], rows)
        weights = self.models.blend.weights
        means = {name: self._frame(found.mean(axis=0)) for name, found in parts.items()}
        final = self._calibrate(self.models.blend.apply(means))
        of_folds = np.stack([self._blend_fold(parts, number) for number in
                             range(len(self.models.folds))])  # fmt: skip
        low, high = (self._frame(edge(of_folds, axis=0)) for edge in (np.min, np.max))
        asked = self.models.features
        decided = self.decision.decide(final).tolist() if self.decision else [None] * len(looks)
        readings = []
        for number, look in enumerate(looks):
            probability = final.iloc[number]
            rank = {name: self.distribution.rank(name, p) for name, p in probability.items()}
            given = rows.iloc[number][list(asked)].dropna().to_dict()
            readings.append(
                Reading(
                    look, probability, low.iloc[number], high.iloc[number],
                    {name: mean.iloc[number] for name, mean in means.items()}, dict(weights),
                    pd.Series(rank), decided[number],
                    given, tuple(name for name in asked if name not in given),
                    len(looks),
                )
            )  # fmt: skip
        return readings

    def training_photos(self, reading: Reading) -> dict[str, bytes]:
        """Return small JPEGs of a reading's nearest training photos, by their ids.

        Raises
        ------
        PipelineError
            If a record is damaged.
        """
        return self._thumbnails(frozenset(one.image_id for one in reading.look.answer.nearest))

    def close(self) -> None:
        """End the process that decodes DICOM."""
        self._worker.close()

    def _read_training_photos(self, wanted: frozenset[str]) -> dict[str, bytes]:
        swap = self.models.config.records.swap_red_blue
        return record_thumbnails(self.run_dir, self.spec, set(wanted), swap)

    def _shown(self, image: Image.Image) -> bytes:
        if self.models.fit.fit == "crop":
            small = replace(self.models.config.records, fit="crop", image_size_px=SHOWN_SIDE_PX)
            return square_jpeg(image, replace(small, quality=_SHOWN_QUALITY))
        shrunk = min(1.0, SHOWN_SIDE_PX / max(image.size))
        size = tuple(max(1, round(shrunk * side)) for side in image.size)
        buffer = io.BytesIO()
        resized = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
        resized.save(buffer, "JPEG", quality=_SHOWN_QUALITY)
        return buffer.getvalue()

    def _blend_fold(self, parts: Mapping[str, np.ndarray], number: int) -> np.ndarray:
        """The whole way with one fold's models alone: (n, classes)."""
        frames = {name: self._frame(found[number]) for name, found in parts.items()}
        return self._calibrate(self.models.blend.apply(frames)).to_numpy(float)

    def _frame(self, values: np.ndarray) -> pd.DataFrame:
        return pd.DataFrame(values, columns=list(self.classes))

    def _rows(self, metadata: Sequence[Metadata]) -> pd.DataFrame:
        """Metadata as the models want it: every feature of the spec, NaN where unknown."""
        rows = []
        for one in metadata:
            strange = set(one) - set(self.spec.features)
            if strange:
                raise PipelineError(f"{self.spec.id} has no feature {min(strange)!r}")
            rows.append({name: self._value(name, one.get(name)) for name in self.spec.features})
        frame = pd.DataFrame(rows, columns=list(self.spec.features))
        return frame.astype({name: float for name in self.spec.numeric}).astype(
            {name: object for name in self.spec.categorical}
        )

    def _value(self, name: str, value: object) -> object:
        if value is None or (isinstance(value, float) and np.isnan(value)):
            return np.nan
        if name in self.spec.numeric:
            number = self.spec.numeric[name]
            if number.holds(value):
                return float(value)
            raise PipelineError(f"{name} is {value!r}, expected {number.describe()}")
        if value not in self.spec.categorical[name]:
            words = ", ".join(self.spec.categorical[name])
            raise PipelineError(f"{name} is {value!r}, expected one of {words}")
        return value

    def _training_distribution(self, examples: pd.DataFrame) -> TrainingDistribution:
        oof = Predictions.read(self.models.scored_stage / "oof.csv", self.classes).probabilities
        thresholds = read_thresholds(self.models.scored_stage) if self.calibration else {}
        return TrainingDistribution(self._calibrate(oof), examples, thresholds)

    def _calibrate(self, probabilities: pd.DataFrame) -> pd.DataFrame:
        return self.calibration.apply(probabilities) if self.calibration else probabilities

    def _warm_up(self) -> None:
        """Trace every graph before the first upload."""
        grey = Image.new("RGB", (256, 256), "grey")
        jpeg = self.models.jpeg(Photo("grey", grey, None, ""))
        seen = self.models.look(self.models.reader.decode(jpeg), jpeg)
        self.models.ask([seen], self._rows([{}]))


def _usual_side_px(examples: pd.DataFrame) -> int:
    """The shorter side of the training photos, half of them being smaller; else no bound."""
    sides = ["width_px", "height_px"]
    known = split_rows(examples, "train").reindex(columns=sides).dropna()
    return int(known.min(axis=1).median()) if len(known) else sys.maxsize


def compare(service: Service, readings: Sequence[Reading], name: str) -> pd.DataFrame:
    """Set one patient's lesions side by side: the ugly duckling as numbers.

    Parameters
    ----------
    service : Service
        Which gave the readings, and knows how training images' probabilities spread.
    readings : sequence of Reading
        All of one patient.
    name : str
        The class to rank by.

    Returns
    -------
    pandas.DataFrame
        A row a reading, indexed by its position, the most suspicious first. ``file``,
        ``probability``, ``low``, ``high``, ``rank_in_training``, ``place`` (1: the most
        suspicious), ``above_median`` (probability less the patient's median), ``z`` (less the mean,
        in the patient's spread and a tenth of the training images'), ``outlier_factor`` (how unlike
        the patient's others the photo looks to the network; 1 is like them, see
        ``patient_context.embedding_outliers``), ``doubts`` (their number).
    """
    patient = pd.Series("patient", index=range(len(readings)))
    scores = pd.Series([float(one.probability[name]) for one in readings], dtype=float)
    beside = score_context(scores, patient, service.distribution.spread(name))
    folds = range(len(readings[0].look.answer.embeddings)) if readings else ()
    factors = [
        embedding_outliers(
            np.stack([one.look.answer.embeddings[fold] for one in readings]), list(patient)
        )
        for fold in folds
    ]
    table = pd.DataFrame(
        {
            "file": [one.look.name for one in readings],
            "probability": scores,
            "low": [float(one.low[name]) for one in readings],
            "high": [float(one.high[name]) for one in readings],
            "rank_in_training": [float(one.rank[name]) for one in readings],
            "place": scores.rank(ascending=False, method="min").astype(int),
            "above_median": beside["median_gap"],
            "z": beside["z"],
            "outlier_factor": np.mean(factors, axis=0) if factors else [],
            "doubts": [len(one.look.doubts) for one in readings],
        }
    )
    return table.sort_values(["place", "file"], kind="stable")
