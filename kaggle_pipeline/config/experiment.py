"""The experiment: every setting there is, frozen, its range checked without touching a disk.

In: values. Out: an :class:`Experiment`, or an error that names the key and what it must be.
``loading.py`` reads and writes it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from kaggle_pipeline.config.checks import inner, positive, require, share, subset
from kaggle_pipeline.config.embedding import EmbeddingConfig
from kaggle_pipeline.config.image import ImageConfig
from kaggle_pipeline.config.names import LEARNERS, MODEL_STAGES
from kaggle_pipeline.config.planned import PlannedStage
from kaggle_pipeline.config.table import DATASET, TableConfig


@dataclass(frozen=True)
class BlendConfig:
    """How the models' probabilities become one."""

    models: tuple[str, ...] = ("image", "tabular")
    """Stages to blend; one alone is fine."""
    space: Literal["mean", "rank", "logit"] = "rank"
    """Average probabilities, their ranks among the training predictions, or their logits."""
    weights: Literal["auc", "equal"] = "auc"
    """``auc``: simplex weights of the best out-of-fold AUC; ``equal``."""

    def __post_init__(self) -> None:
        subset("blend.models", self.models, MODEL_STAGES)


@dataclass(frozen=True)
class EnsembleConfig:
    """Scores that ``scripts/blend_scores.py`` compares and blends; one binary question only."""

    models: tuple[str, ...] = ()
    """Stages of this run."""
    oof: str | None = None
    """CSV of other people's out-of-fold scores, below the data folder or an absolute path."""
    test: str | None = None
    """The same models' test scores."""
    columns: tuple[str, ...] = ()
    """Columns of both files, a model each; beside the competition's id column."""
    use: tuple[str, ...] = ("scores", "context", "metadata")
    """What the stackers see: ``context`` sets scores and metadata beside the patient's others."""
    method: str | None = None
    """null: the simplest way that the best does not clearly beat; or the name of one."""
    ablation: bool = False
    """Judge stackers that see parts of that too: what does each part add?"""
    folds: int = 5
    """Parts of whole patients by which ways are compared."""
    repeats: int = 3
    """Times that patients are divided anew."""

    def __post_init__(self) -> None:
        if self.models:
            subset("ensemble.models", self.models, MODEL_STAGES)
        subset("ensemble.use", self.use, ("scores", "context", "metadata"))
        wish = "scores, with context and metadata or not"
        require("scores" in self.use, "ensemble.use", list(self.use), wish)
        require(self.folds >= 2, "ensemble.folds", self.folds, "at least 2")
        positive("ensemble.repeats", self.repeats)


@dataclass(frozen=True)
class CalibrationConfig:
    """How out-of-fold probabilities are made to agree with what was observed."""

    method: Literal["auto", "temperature", "isotonic", "none"] = "auto"
    """``temperature``: slope and intercept on the logit (Platt), for a softmax one temperature; the
    order of the images stays. ``isotonic``: any curve that never falls, which makes ties.
    ``auto``: ``temperature``, unless another is clearly better on groups it was not fitted on."""


@dataclass(frozen=True)
class DecisionConfig:
    """How calibrated probabilities become a decision, learned on out-of-fold predictions."""

    metric: Literal["accuracy", "balanced_accuracy", "cost"] = "balanced_accuracy"
    """What the decisions are to be best at. ``balanced_accuracy``: the mean recall of the classes,
    by which ISIC 2018 and 2019 are scored; of a yes-or-no question the mean of sensitivity and
    specificity. ``cost``: the mean of ``costs``."""
    parameters: Literal["exponent", "offsets"] = "exponent"
    """What is learned. ``exponent``: one number; each class's probability is divided by the class's
    share of the photos to this power (0: the most probable class; 1: as if all classes were
    equally common). ``offsets``: a weight a class, which needs many photos of each."""
    costs: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Of a wrong decision, by the true class: ``mel: {missed: 10, nv: 20}`` is 20 for a melanoma
    that is called a nevus and 10 for one called anything else; ``nv: {false_alarm: 2}`` is 2 for
    anything else that is called a nevus. What is not named costs 1, a right decision nothing."""
    sensitivity: Mapping[str, float] = field(default_factory=dict)
    """Share of a class's photos that the decision has to find at least, say ``mel: 0.9``; the
    metric comes second."""
    sensitivities: tuple[float, ...] = (0.8, 0.9, 0.95)
    """Shares of a class's photos that a table of thresholds is made for, each class alone."""

    def __post_init__(self) -> None:
        wanted = self.sensitivities
        fine = all(0 < one < 1 for one in wanted) and len(set(wanted)) == len(wanted)
        wish = "different shares in (0, 1)"
        require(fine, "decision.sensitivities", list(wanted), wish)
        for name, value in self.sensitivity.items():
            fine = isinstance(value, int | float) and 0 < value < 1
            require(fine, f"decision.sensitivity.{name}", value, "a share in (0, 1)")
        for truth, row in self.costs.items():
            fine = isinstance(row, Mapping) and bool(row)
            require(fine, f"decision.costs.{truth}", row, "costs by what is decided instead")
            for decided, value in row.items():
                fine = isinstance(value, int | float) and 0 <= value < float("inf")
                require(fine, f"decision.costs.{truth}.{decided}", value, "a number from 0 on")
        fine = self.metric != "cost" or bool(self.costs)
        require(fine, "decision.costs", dict(self.costs), "given with decision.metric = cost")


@dataclass(frozen=True)
class ExternalConfig:
    """One further collection: rows that the image model learns from and nothing is scored on."""

    dataset: str
    """Such as ``ham10000``."""
    data_dir: str
    """Its folder, relative to the experiment's own data folder, or an absolute path."""
    weight: float = 1.0
    """Of each of its rows beside one of the experiment's own."""

    def __post_init__(self) -> None:
        require(0 < self.weight <= 10, "external.weight", self.weight, "in (0, 10]")


@dataclass(frozen=True)
class FoldsConfig:
    """How training rows are divided; a group (patient, lesion) is never split."""

    k: int = 5
    """Number of folds."""
    column: str | None = None
    """Use this raw column (say Deotte's ``tfrecord``), modulo k; rows below 0 are left out."""
    holdout: float | None = None
    """Instead of k folds, hold out this share of the groups once (0.05 to 0.9) and train on the
    rest: of each class the nearest whole number of groups, at least one and not all."""
    judge: str | None = None
    """Score on the rows where this raw column is true (say ``official_validation``), train on the
    others."""
    by: Literal["group", "image"] = "group"
    """``image`` repeats recipes that split single images: rows of one lesion or patient then sit on
    both sides, the audit says so, and every score of the run is marked as optimistic."""
    shared_groups: Literal["stop", "note", "train_only"] = "stop"
    """Groups in both the training rows and the given test part: a leak that stops; or, for a
    benchmark that is divided so, noted in every result. Folds are of whole groups still. With
    `train_only` their training rows are learned from, and no out-of-fold score counts them."""
    test_share: float | None = None
    """Set this share of the groups aside first as a labelled test part, for one last score; for a
    data set that has no test part of its own."""

    def __post_init__(self) -> None:
        require(self.k >= 2, "folds.k", self.k, "at least 2")
        if self.holdout is not None:
            require(0.05 <= self.holdout <= 0.9, "folds.holdout", self.holdout, "in [0.05, 0.9]")
        ways = {"holdout": self.holdout, "column": self.column, "judge": self.judge}
        chosen = [name for name, value in ways.items() if value is not None]
        for name in chosen[1:]:
            require(False, f"folds.{name}", ways[name], f"null with folds.{chosen[0]}")
        if self.test_share is not None:
            inner("folds.test_share", self.test_share)


@dataclass(frozen=True)
class ExamplesConfig:
    """Which rows are used."""

    missing: Literal["keep", "drop"] = "keep"
    """``drop`` leaves training rows with a missing or unknown feature out of the folds, as some
    published recipes do; test rows always stay. A patient's context counts both."""
    unreadable: Literal["stop", "drop"] = "stop"
    """A photo that is not there or cannot be read: stop and name it, or leave its row out, be it of
    train or of test, and say so. A photo that the sample submission lists always stops."""


@dataclass(frozen=True)
class LeakageConfig:
    """What the audit looks at and what it does about duplicate photos."""

    duplicates: Literal["stop", "drop", "keep"] = "stop"
    """Same photo twice in train, in two groups: stop, drop the later one of every pair, or keep.
    Of a photo in train and in test, ``drop`` takes the training copy away."""
    fingerprints: bool = True
    """Read every image to compare bytes and perceptual hashes; false skips that (and says so)."""
    near_bits: int = 2
    """Perceptual hashes of 64 bits that differ in at most this many are reported as near."""

    def __post_init__(self) -> None:
        require(0 <= self.near_bits <= 16, "leakage.near_bits", self.near_bits, "from 0 to 16")


@dataclass(frozen=True)
class RecordsConfig:
    """TFRecords: made by conversion, or found under ``tfrecords/`` of the data folder."""

    source: Literal["auto", "images", "tfrecords"] = "auto"
    """``auto`` converts images where there are any and else reads the TFRecords."""
    image_size_px: int = 1024
    """Side of the square photos in the records."""
    fit: Literal["crop", "stretch"] = "crop"
    """Make an image square by a central crop, or by stretching it as the official files do; new
    photos likewise. Photos that come square stay so: say how they were made so."""
    given_fit: Literal["auto", "crop", "stretch"] = "auto"
    """How TFRecords that are found were made, for new and further photos to be treated alike.
    ``auto``: as they show it, as the competition's own are known to be (``stretch``), else as
    ``fit`` says, and a line says so."""
    quality: int = 95
    """JPEG quality of resized images; images that fit already are copied byte for byte."""
    records_per_shard: int = 2048
    """Photos in a TFRecord file."""
    channel_order: Literal["rgb", "bgr"] = "rgb"
    """``bgr`` repairs third-party files whose JPEGs were written with red and blue swapped."""
    workers: int | None = None
    """Processes that convert; null means one a core."""

    def __post_init__(self) -> None:
        require(
            self.image_size_px >= 16, "records.image_size_px", self.image_size_px, "at least 16"
        )
        require(1 <= self.quality <= 100, "records.quality", self.quality, "from 1 to 100")
        positive("records.records_per_shard", self.records_per_shard)
        if self.workers is not None:
            positive("records.workers", self.workers)

    @property
    def swap_red_blue(self) -> bool:
        """Whether who reads a record's photo has to change red and blue."""
        return self.channel_order == "bgr"


@dataclass(frozen=True)
class TabularConfig:
    """The dense network on patient metadata."""

    features: tuple[str, ...] | None = None
    """Columns to use; null: those that the data set declares."""
    context: bool = False
    """Add columns that set an image's metadata beside that of its patient's other images."""
    learners: tuple[str, ...] = ("dense",)
    """``dense`` (the network, stage ``tabular``), ``boosting``, ``forest``, ``logistic``: each a
    stage of its own on the same features and folds. What follows is the network's alone."""
    resampling: Literal["smotenc", "smote", "none"] = "smotenc"
    """``smotenc`` knows categories; ``smote`` interpolates one-hot columns as published."""
    missing: Literal["zero", "indicator"] = "zero"
    """What a missing value becomes: 0, as published; or 0 and a 1 in a column of its own."""
    hidden: tuple[int, ...] = (64, 32)
    """Units of each hidden layer."""
    dropout: float = 0.5
    """Share of each hidden layer's units that a training step leaves out."""
    epochs: int = 10
    """Passes over the training rows, invented ones included."""
    patience: int | None = None
    """null: all epochs on all training rows. Else stop when the AUC on held-out *training* patients
    has not risen for so many epochs, and keep the best one. The 2020 set has too few positives to
    choose by: AUC 0.665 with a patience of 8, 0.675 with 10 epochs flat."""
    inner_share: float = 0.15
    """Share of the training groups that ``patience`` holds out."""
    batch_size: int = 1024
    """Rows a step."""
    learning_rate: float = 1e-3
    """Of Adam."""

    def __post_init__(self) -> None:
        subset("tabular.learners", self.learners, ("dense", *LEARNERS))
        for name in ("epochs", "batch_size"):
            positive(f"tabular.{name}", getattr(self, name))
        for i, units in enumerate(self.hidden):
            positive(f"tabular.hidden[{i}]", units)
        wish = "null or at least one column"
        require(self.features is None or bool(self.features), "tabular.features", [], wish)
        require(self.learning_rate > 0, "tabular.learning_rate", self.learning_rate, "above 0")
        share("tabular.dropout", self.dropout)
        inner("tabular.inner_share", self.inner_share)
        if self.patience is not None:
            positive("tabular.patience", self.patience)

    @property
    def selection(self) -> Literal["none", "inner"]:
        """Which rows may choose an epoch: none, or some of the training groups."""
        return "none" if self.patience is None else "inner"

    @property
    def choice_advice(self) -> str:
        """What to change where these rows cannot choose."""
        return "say tabular.patience = null, or raise tabular.inner_share"


@dataclass(frozen=True)
class Experiment:
    """One experiment: a data set, folds, models and a blend."""

    name: str
    """Names the run folder and the kernels."""
    dataset: str
    """A data set of ``datasets/``, or ``table`` for one of your own; see docs/data-sets.md."""
    table: TableConfig | None = None
    """With ``dataset: table`` alone."""
    seed: int = 2020
    """Of folds, order, augmentation, first weights and bootstrap."""
    device: Literal["auto", "cpu", "gpu", "tpu"] = "auto"
    """``auto``: a TPU or GPU where there is one."""
    replicas: int | None = None
    """null: every GPU and TPU core there is, and one CPU. A number takes so many of the GPUs, or
    divides the CPU into as many logical devices, which is for tests."""
    memory_check: bool = True
    """Stop before training where the image model surely takes more memory than is free; false: say
    so and try. The figure is an estimate, and memory may become free."""
    train_all: bool = False
    """After the folds train each model once more on all labelled rows: its test predictions are
    submitted, and ``predict`` uses it. It is not scored itself: the scores are the folds' models',
    which also fix its settings, so it chooses no epoch. The page keeps to the folds' models."""
    examples: ExamplesConfig = field(default_factory=ExamplesConfig)
    folds: FoldsConfig = field(default_factory=FoldsConfig)
    external: tuple[ExternalConfig, ...] = ()
    """Further collections that the image model learns from."""
    leakage: LeakageConfig = field(default_factory=LeakageConfig)
    records: RecordsConfig = field(default_factory=RecordsConfig)
    image: ImageConfig = field(default_factory=ImageConfig)
    embedding: EmbeddingConfig = field(default_factory=EmbeddingConfig)
    tabular: TabularConfig = field(default_factory=TabularConfig)
    blend: BlendConfig = field(default_factory=BlendConfig)
    ensemble: EnsembleConfig = field(default_factory=EnsembleConfig)
    planned: tuple[PlannedStage, ...] = ()
    """What `plan` predicted; decides nothing."""
    calibration: CalibrationConfig = field(default_factory=CalibrationConfig)
    decision: DecisionConfig = field(default_factory=DecisionConfig)

    def __post_init__(self) -> None:
        own = self.dataset == DATASET
        wish = "a section" if own else f"null, or dataset {DATASET}"
        require(own == (self.table is not None), "table", self.table and "a section", wish)
        fine = bool(self.embedding.encoders) or "embedding" not in self.blend.models
        require(fine, "embedding.encoders", [], "named where blend.models has embedding")
        drop, wish = self.examples.unreadable, "stop where leakage.fingerprints reads no photo"
        fine = self.leakage.fingerprints or drop == "stop"
        require(fine, "examples.unreadable", drop, wish)
        # Folds add their number to it, and NumPy and scikit-learn take 32 bits.
        if self.replicas is not None:
            positive("replicas", self.replicas)
        chosen = {"image.checkpoint": self.image, "tabular.patience": self.tabular}
        for key, section in chosen.items():
            fine = not self.train_all or section.selection == "none"
            require(fine, "train_all", self.train_all, f"false where {key} chooses an epoch")
        order = self.records.channel_order
        fine = order == "rgb" or not self.external
        require(fine, "records.channel_order", order, "rgb with external: theirs is not swapped")
        require(0 <= self.seed < 2**32 - 1000, "seed", self.seed, "from 0 to 2**32 - 1001")
