"""The experiment: every setting there is, frozen, its range checked without touching a disk.

In: values. Out: an :class:`Experiment`, or an error that names the key and what it must be.
``configfile.py`` reads and writes it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from kaggle_pipeline.blendconfig import LEARNERS, BlendConfig, EnsembleConfig
from kaggle_pipeline.calibrationconfig import CalibrationConfig
from kaggle_pipeline.configchecks import inner, positive, require, share
from kaggle_pipeline.externalconfig import ExternalConfig


@dataclass(frozen=True)
class FoldsConfig:
    """How training rows are divided; a group (patient, lesion) is never split."""

    k: int = 5
    """Number of folds."""
    column: str | None = None
    """Use this raw column (say Deotte's ``tfrecord``), modulo k; rows below 0 are left out."""
    holdout: float | None = None
    """Instead of k folds, hold out this share of the groups once (0.05 to 0.9, in twentieths or
    simpler fractions) and train on the rest."""
    judge: str | None = None
    """Judge the rows where this raw column is true (say ``official_validation``), train on the
    others."""
    by: Literal["group", "image"] = "group"
    """``image`` repeats recipes that split single images: rows of one lesion or patient then sit on
    both sides, the audit says so, and every score of the run is marked as optimistic."""
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
    """``drop`` leaves out training rows with a missing or unknown feature, as some published
    recipes do; test rows always stay."""


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
    fit: Literal["crop", "stretch"] = "crop"
    """Make an image square by a central crop, or by stretching it as the official files do."""
    quality: int = 95
    """JPEG quality of resized images; images that fit already are copied byte for byte."""
    records_per_shard: int = 2048
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


@dataclass(frozen=True)
class AugmentConfig:
    """Random changes of a training image; 0 or false switches one off."""

    dihedral: bool = True
    """The eight symmetries of the square: a lesion has no up or down."""
    rotation_degrees: float = 180.0
    zoom: float = 0.1
    """Scale drawn from [1 - zoom, 1 + zoom], each axis the same."""
    shear_degrees: float = 5.0
    shift: float = 0.05
    """Share of the side."""
    brightness: float = 0.1
    """Added to an image in [0, 1]."""
    contrast: float = 0.1
    saturation: float = 0.1
    hue_degrees: float = 5.0
    dropout_boxes: int = 4
    """Coarse dropout (DeVries & Taylor 2017, arXiv:1708.04552): grey squares painted in."""
    dropout_size: float = 0.1
    """Side of a square as a share of the image's."""

    def __post_init__(self) -> None:
        for name in ("zoom", "shift", "brightness", "contrast", "saturation", "dropout_size"):
            share(f"image.augment.{name}", getattr(self, name))
        require(self.dropout_boxes >= 0, "image.augment.dropout_boxes", self.dropout_boxes, ">= 0")


@dataclass(frozen=True)
class ImageConfig:
    """The image model and its training."""

    backbone: str = "InceptionResNetV2"
    """Any of keras.applications by name, or one of this package's own."""
    backbone_options: Mapping[str, Any] = field(default_factory=dict)
    """Passed to the backbone, say ``{alpha: 0.35}`` for MobileNetV2."""
    weights: str | None = "imagenet"
    """``imagenet`` (downloaded), a ``.weights.h5`` file without the top, for torchvision's networks
    also a state dict (``.safetensors``, ``.pth``), or null."""
    image_size_px: int = 1024
    backbone_layer: str | None = None
    """Take the features of this layer instead of the last, say ``block_6_expand_relu``."""
    pool_share: float = 1.0
    """Pool over this central share of each side of the feature map: a lesion is in the middle."""
    frozen: bool = False
    """Train the head alone, on features that are computed once. Of the augmentations only the
    dihedral views remain, of the published recipe's knobs only those of the head."""
    train_from: str | None = None
    """Train this layer of the backbone and all later ones; the earlier ones, which are the slow
    ones, stay as published."""
    frozen_batch_norm: bool = False
    """Keep the pretrained batch normalisation as it is: better for few images."""
    batch_norm_momentum: float | None = None
    """null: the backbone's own. Keras' MobileNetV2 averages over 1,000 steps (0.999), which a short
    fit does not have: until then it is judged by ImageNet's statistics."""
    dropout: float = 0.3
    batch_size: int = 16
    """Images a replica and step; the global batch is this times the replicas."""
    epochs: int = 16
    steps_per_epoch: int | None = None
    """null: as many as the (oversampled) images fill."""
    learning_rate: float = 1e-4
    """Peak, a global batch."""
    warmup_epochs: float = 1.0
    schedule: Literal["cosine", "constant"] = "cosine"
    weight_decay: float = 0.0
    head_l2: float = 0.0
    """Penalty on the squared weights of the last layer."""
    label_smoothing: float = 0.0
    class_weights: bool = True
    """Weigh class c by (1 / n_c) * (n / 2), after oversampling; in place of 2 stands the number of
    classes, 7 for HAM10000 and 3 (melanoma, keratosis, neither) for ISIC 2017."""
    class_weight_power: float = 1.0
    """Exponent of the class weights: 0.5 balances half way."""
    oversample: float = 1.0
    """Show the images of a positive (or rare) class this many times an epoch; 2.5 shows each twice
    and a random half of them once more."""
    images_per_class: int | None = None
    """Instead: draw so many images of each class, with replacement, from the training rows."""
    networks: Literal["one", "one_per_class"] = "one"
    """For several independent questions: one network with a sigmoid each, or a network each."""
    checkpoint: Literal["last", "best_inner", "best_fold"] = "last"
    """Which epoch's weights to keep. ``best_inner``: best AUC on patients held out of the training
    folds. ``best_fold``: best AUC on the very fold that is judged, the usual habit, and
    optimistic; results say so."""
    inner_share: float = 0.15
    """Share of the training groups that ``best_inner`` holds out."""
    tta: Literal["none", "flips", "dihedral"] = "dihedral"
    """Average the prediction over 1, 4 or 8 views."""
    mixed_precision: bool = True
    """Where the hardware has it."""
    shuffle_buffer_mb: int = 64
    """Memory for shuffling undecoded records."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)

    def __post_init__(self) -> None:
        for name in ("image_size_px", "batch_size", "epochs", "oversample", "shuffle_buffer_mb"):
            positive(f"image.{name}", getattr(self, name))
        if self.batch_norm_momentum is not None:
            momentum = self.batch_norm_momentum
            require(0 < momentum < 1, "image.batch_norm_momentum", momentum, "in (0, 1)")
        power = self.class_weight_power
        require(0 <= power <= 1, "image.class_weight_power", power, "in [0, 1]")
        if self.images_per_class is not None:
            positive("image.images_per_class", self.images_per_class)
            fine = self.oversample == 1
            require(fine, "image.oversample", self.oversample, "1 with image.images_per_class")
        if self.train_from is not None:
            require(not self.frozen, "image.train_from", self.train_from, "null with image.frozen")
        require(self.learning_rate > 0, "image.learning_rate", self.learning_rate, "above 0")
        for name in ("dropout", "label_smoothing"):
            share(f"image.{name}", getattr(self, name))
        inner("image.inner_share", self.inner_share)
        for name in ("weight_decay", "head_l2", "warmup_epochs"):
            require(getattr(self, name) >= 0, f"image.{name}", getattr(self, name), "at least 0")
        require(0 < self.pool_share <= 1, "image.pool_share", self.pool_share, "in (0, 1]")
        if self.steps_per_epoch is not None:
            positive("image.steps_per_epoch", self.steps_per_epoch)


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
    dropout: float = 0.5
    epochs: int = 10
    patience: int | None = None
    """null: all epochs on all training rows. Else stop when the AUC on held-out *training* patients
    has not risen for so many epochs, and keep the best one. The 2020 set has too few positives to
    choose by: AUC 0.665 with a patience of 8, 0.675 with 10 epochs flat."""
    inner_share: float = 0.15
    batch_size: int = 1024
    learning_rate: float = 1e-3

    def __post_init__(self) -> None:
        fine = bool(self.learners) and len(set(self.learners)) == len(self.learners)
        fine = fine and set(self.learners) <= {"dense", *LEARNERS}
        require(fine, "tabular.learners", list(self.learners), f"of dense, {', '.join(LEARNERS)}")
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


@dataclass(frozen=True)
class Experiment:
    """One experiment: a data set, folds, models and a blend."""

    name: str
    dataset: str
    seed: int = 2020
    device: Literal["auto", "cpu", "gpu", "tpu"] = "auto"
    replicas: int | None = None
    """null: every GPU and TPU core there is, and one CPU. A number takes so many of the GPUs, or
    divides the CPU into as many logical devices, which is for tests."""
    examples: ExamplesConfig = field(default_factory=ExamplesConfig)
    folds: FoldsConfig = field(default_factory=FoldsConfig)
    external: tuple[ExternalConfig, ...] = ()
    """Further collections that the image model learns from."""
    leakage: LeakageConfig = field(default_factory=LeakageConfig)
    records: RecordsConfig = field(default_factory=RecordsConfig)
    image: ImageConfig = field(default_factory=ImageConfig)
    tabular: TabularConfig = field(default_factory=TabularConfig)
    blend: BlendConfig = field(default_factory=BlendConfig)
    ensemble: EnsembleConfig = field(default_factory=EnsembleConfig)
    calibration: CalibrationConfig = field(default_factory=CalibrationConfig)

    def __post_init__(self) -> None:
        # Folds add their number to it, and NumPy and scikit-learn take 32 bits.
        if self.replicas is not None:
            positive("replicas", self.replicas)
        require(0 <= self.seed < 2**32 - 1000, "seed", self.seed, "from 0 to 2**32 - 1001")
