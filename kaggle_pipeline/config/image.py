"""Settings of the image model, its training and its augmentation.

In: values. Out: frozen sections of an :class:`~kaggle_pipeline.config.experiment.Experiment`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from kaggle_pipeline.config.checks import inner, positive, require, share


@dataclass(frozen=True)
class AugmentConfig:
    """Random changes of a training image; 0 or false switches one off."""

    dihedral: bool = True
    """The eight symmetries of the square: a lesion has no up or down."""
    rotation_degrees: float = 180.0
    """Largest turn, to either side."""
    zoom: float = 0.1
    """Scale drawn from [1 - zoom, 1 + zoom], each axis the same."""
    shear_degrees: float = 5.0
    """Largest slant, to either side."""
    shift: float = 0.05
    """Share of the side."""
    brightness: float = 0.1
    """Added to an image in [0, 1]."""
    contrast: float = 0.1
    """Factor drawn from [1 - contrast, 1 + contrast]."""
    saturation: float = 0.1
    """Factor drawn from [1 - saturation, 1 + saturation]."""
    hue_degrees: float = 5.0
    """Largest turn of the colour wheel, to either side."""
    dropout_boxes: int = 4
    """Coarse dropout (DeVries & Taylor 2017, arXiv:1708.04552): grey squares painted in."""
    dropout_size: float = 0.1
    """Side of a square as a share of the image's."""
    where: Literal["auto", "input", "device"] = "auto"
    """Change images in the input pipeline, on the CPU's cores, or in the training step on the
    device. ``auto`` does so on a GPU, but not beside hairs, mixup, CutMix or metadata."""
    hairs: int = 0
    """Draw up to so many curved dark strokes over an image, as public kernels of the competition
    did (N. Roman, "Melanoma. Pytorch starter. EfficientNet", Kaggle 2020)."""

    def __post_init__(self) -> None:
        for name in ("zoom", "shift", "brightness", "contrast", "saturation", "dropout_size"):
            share(f"image.augment.{name}", getattr(self, name))
        for name in ("dropout_boxes", "hairs"):
            value = getattr(self, name)
            require(value >= 0, f"image.augment.{name}", value, "at least 0")
        for name, most in (("rotation", 180), ("shear", 45), ("hue", 180)):
            key, value = f"{name}_degrees", getattr(self, f"{name}_degrees")
            require(0 <= value <= most, f"image.augment.{key}", value, f"in [0, {most}]")


@dataclass(frozen=True)
class ImageConfig:
    """The image model and its training."""

    backbone: str = "InceptionResNetV2"
    """Any of keras.applications by name, or one of this package's own."""
    backbone_options: Mapping[str, Any] = field(default_factory=dict)
    """Passed to the backbone, say ``{alpha: 0.35}`` for MobileNetV2."""
    weights: str | None = "imagenet"
    """``imagenet`` (downloaded), a file of published weights without the top (``.h5``), for
    torchvision's networks and those that timm has too (``EfficientNetB0`` to ``B7``,
    ``convnextv2_…``) also a state dict (``.safetensors``, ``.pth``), ``timm:<name>`` (downloaded
    from the Hugging Face hub, say ``timm:tf_efficientnet_b0.ns_jft_in1k``), or null. Unless null,
    the network is the one that published weights belong to: EfficientNet scales its input
    otherwise without."""
    image_size_px: int = 1024
    """Side of the photos that the network sees."""
    fold_sizes_px: tuple[int, ...] | None = None
    """Instead: fold k trains and answers at size number ``k % len``, as the third place of the
    competition did; models that see different sizes err differently."""
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
    fit does not have: until then it is scored with ImageNet's statistics."""
    dropout: float = 0.3
    """Share of the pooled features that a training step leaves out."""
    dropout_samples: int = 1
    """Multi-sample dropout (Inoue 2019, arXiv:1905.09788): the mean logit of so many dropout masks,
    which share the last layer. Predictions have no dropout, so nothing changes in them."""
    metadata: bool = False
    """Late fusion (Ha, Liu & Liu 2020, arXiv:2010.05351): the declared metadata, encoded by the
    training rows' bounds, goes through a dense layer of its own to the head. A collection that
    lacks a feature (ISIC 2017 the site) can be recognised by that: of ``external`` ones name
    those that have all."""
    batch_size: int = 16
    """Photos a replica and step; the global batch is this times the replicas. Memory grows with it:
    training keeps what each layer makes of every photo, and layers without a stride keep most.
    LeNet with 32 filters takes about 45 MB a photo of 224 px, so 6 GB for a batch of 128."""
    epochs: int = 16
    """Passes over the training photos."""
    steps_per_epoch: int | None = None
    """null: as many as the (oversampled) images fill."""
    learning_rate: float = 1e-4
    """Peak, a global batch."""
    warmup_epochs: float = 1.0
    """The rate rises over so many, from a share of the peak in the first step."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """How the learning rate goes on after the warm-up: down to 0, or as it is."""
    weight_decay: float = 0.0
    """Share of the kernels taken away a step, times the learning rate of that step (decoupled, as
    in AdamW), so that a fit shrinks them by about exp(-weight_decay * learning_rate * steps / 2).
    At a rate of 1e-4 and 5,000 steps 1e-4 would do nothing (0.99998) and 0.5 matter (0.88). Biases,
    and scales and offsets of normalisation, keep out of it."""
    head_l2: float = 0.0
    """Penalty on the squared weights of the last layer."""
    ema: float | None = None
    """Momentum of an exponential moving average of the trained weights, say 0.999; it is what is
    scored and kept (Tarvainen & Valpola 2017, arXiv:1703.01780). It looks back over about
    1 / (1 - momentum) steps, which a fit should have many times over."""
    target: Literal["classes", "diagnosis"] = "classes"
    """``diagnosis``: learn a softmax over the data set's diagnoses; the score is the sum over those
    that belong to the class, as with the competition's winners (arXiv:2010.05351). Rows are
    balanced by the classes all the same."""
    loss: Literal["crossentropy", "focal"] = "crossentropy"
    """``focal`` (Lin et al. 2017, arXiv:1708.02002): rows that are answered well already count
    less."""
    focal_gamma: float = 2.0
    """Exponent of the focal loss; at 0 it is the cross-entropy."""
    label_smoothing: float = 0.0
    """Share of each target that is spread evenly over all answers."""
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
    folds. ``best_fold``: best AUC on the very fold that is scored, the usual habit, and
    optimistic; results say so. Both need images of every class to choose by."""
    inner_share: float = 0.15
    """Share of the training groups that ``best_inner`` holds out."""
    seeds: int = 1
    """A fold's model is the mean of so many networks, each trained with a seed of its own."""
    tta: Literal["none", "flips", "dihedral", "random"] = "dihedral"
    """Average the prediction over 1, 4 or 8 views, or over ``tta_views`` turned, mirrored and
    slightly cut views, the same for every image and run."""
    tta_views: int = 8
    """How many views ``random`` averages; the first is the image as it is."""
    mixed_precision: bool = True
    """Where the hardware has it."""
    mixup: float = 0.0
    """Shape a of the Beta(a, a) by which images and their targets are blended in pairs (Zhang et
    al. 2018, arXiv:1710.09412, who use 0.1 to 0.4); 0 is off."""
    cutmix: float = 0.0
    """The same for a rectangle of one image pasted into another (Yun et al. 2019, arXiv:1905.04899,
    who use 1); with ``mixup`` a coin decides for each batch."""
    cache_mb: int = 256
    """Training images that fit into so much memory when decoded are decoded once; 0 never."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)

    def __post_init__(self) -> None:
        for name in ("image_size_px", "batch_size", "epochs", "oversample"):
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
        self._check_recipe()

    def of_fold(self, fold: int) -> "ImageConfig":
        """Return the settings of one fold's model, its own size among them."""
        if self.fold_sizes_px is None:
            return self
        sizes = self.fold_sizes_px
        return replace(self, image_size_px=sizes[fold % len(sizes)], fold_sizes_px=None)

    @property
    def selection(self) -> Literal["none", "inner", "fold"]:
        """Which rows may choose an epoch: none, some of the training groups, the scored fold's."""
        return {"last": "none", "best_inner": "inner", "best_fold": "fold"}[self.checkpoint]

    @property
    def choice_advice(self) -> str:
        """What to change where these rows cannot choose."""
        more = ", or raise image.inner_share" if self.selection == "inner" else ""
        return f"say image.checkpoint = last instead of {self.checkpoint}{more}"

    def largest(self) -> "ImageConfig":
        """Return the settings of the fold whose images are largest."""
        sizes = self.fold_sizes_px
        return self.of_fold(sizes.index(max(sizes))) if sizes else self

    @property
    def needs_host(self) -> str | None:
        """Name of a setting that only the input pipeline can do, and that comes after the rest."""
        wishes = {
            "image.augment.hairs": self.augment.hairs, "image.mixup": self.mixup,
            "image.cutmix": self.cutmix, "image.metadata": self.metadata,
        }  # fmt: skip
        return next((name for name, wish in wishes.items() if wish), None)

    @property
    def stored_views(self) -> str:
        """Name of the views that a frozen body is asked for, by training and prediction."""
        return "dihedral" if self.augment.dihedral else self.tta

    @property
    def views(self) -> int:
        """How many views of a photo a prediction runs through the network, or a frozen body."""
        kind = self.stored_views if self.frozen else self.tta
        return {"none": 1, "flips": 4, "dihedral": 8, "random": self.tta_views}[kind]

    def _check_recipe(self) -> None:
        for name in ("dropout_samples", "tta_views"):
            positive(f"image.{name}", getattr(self, name))
        # A fold adds its number to the seed, the networks of a fold hundreds (see SeedEnsemble).
        require(1 <= self.seeds <= 9, "image.seeds", self.seeds, "from 1 to 9")
        for name in ("mixup", "cutmix", "focal_gamma", "cache_mb"):
            require(getattr(self, name) >= 0, f"image.{name}", getattr(self, name), "at least 0")
        if self.augment.where == "device":
            fine = self.needs_host is None
            require(fine, "image.augment.where", "device", f"input with {self.needs_host}")
        if self.ema is not None:
            require(0 < self.ema < 1, "image.ema", self.ema, "in (0, 1)")
        if self.fold_sizes_px is not None:
            require(bool(self.fold_sizes_px), "image.fold_sizes_px", [], "null or sizes")
            for i, side in enumerate(self.fold_sizes_px):
                positive(f"image.fold_sizes_px[{i}]", side)
        if self.target == "diagnosis":
            fine = self.networks == "one"
            require(fine, "image.networks", self.networks, "one with image.target = diagnosis")
        if self.frozen:  # its features are those of plain views, computed once
            for name in ("mixup", "cutmix", "metadata"):
                value = getattr(self, name)
                require(not value, f"image.{name}", value, "off with image.frozen")
            require(self.tta != "random", "image.tta", self.tta, "another with image.frozen")
