"""Settings of the embedding model: encoders that stay as they are, and a linear head on them.

In: values. Out: frozen sections of an :class:`~kaggle_pipeline.config.experiment.Experiment`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from kaggle_pipeline.config.checks import positive, require
from kaggle_pipeline.core.errors import closest

KINDS = ("keras", "timm", "open_clip", "file")
"""Where an encoder's vectors come from; what stands before the colon of its source."""
_NAME = r"[\w-][\w.-]*"


@dataclass(frozen=True)
class EncoderConfig:
    """One encoder: photos in, a vector each out; it is not trained here.

    In a list of encoders its source alone may stand for it: ``[keras:MobileNetV2]``.
    """

    source: str
    """``keras:<backbone>`` (a name of ``list_backbones``), ``timm:<name>`` or ``open_clip:<name>``
    (their own names; extra ``encoders``), or ``file:<path>``: vectors that others made, as NPZ,
    Parquet or CSV with a column of ids, at a path like that of ``weights``."""
    name: str | None = None
    """Of its folder below ``embeddings/``; null: made of source, size and views."""
    weights: str | None = "published"
    """``published``: the library downloads them. Or a file: for ``keras:`` what ``image.weights``
    takes, else a PyTorch checkpoint (``.safetensors``, ``.pth``). null: random ones, which is for
    tests."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Passed to the network, say ``{alpha: 0.35}`` for ``keras:MobileNetV2``."""
    image_size_px: int | None = None
    """Side of the photos that it sees; null: 224, for PyTorch the encoder's own."""
    layer: str | None = None
    """With ``keras:`` take the features of this layer, as ``image.backbone_layer`` does."""
    pool_share: float = 1.0
    """With ``keras:`` pool over this central share of each side of the feature map."""
    views: Literal["none", "flips", "dihedral"] = "none"
    """A vector a photo; or of 4 views, or of all 8: the head sees their mean."""

    def __post_init__(self) -> None:
        wish = " or ".join(f"{kind}:…" for kind in KINDS)
        if (meant := closest(self.kind, KINDS)) and self.kind not in KINDS and self.what:
            wish += f"; did you mean '{meant}:{self.what}'?"
        fine = self.kind in KINDS and bool(self.what)
        require(fine, "embedding.encoders.source", self.source, wish)
        if self.name is not None:
            fine = re.fullmatch(_NAME, self.name) is not None
            wish = "a folder's name of letters, digits, _, - and ."
            require(fine, "embedding.encoders.name", self.name, wish)
        if self.image_size_px is not None:
            fine = self.image_size_px >= 16
            require(fine, "embedding.encoders.image_size_px", self.image_size_px, "at least 16")
        fine = 0 < self.pool_share <= 1
        require(fine, "embedding.encoders.pool_share", self.pool_share, "in (0, 1]")
        alone = {"layer": (self.layer, None), "pool_share": (self.pool_share, 1.0)}
        for key, (value, plain) in alone.items():
            fine = self.kind == "keras" or value == plain
            require(fine, f"embedding.encoders.{key}", value, f"{plain} but with keras:")

    @property
    def kind(self) -> str:
        """What stands before the colon of the source."""
        return self.source.partition(":")[0]

    @property
    def what(self) -> str:
        """What stands behind it: a network's name, a path."""
        return self.source.partition(":")[2]

    @property
    def reads_photos(self) -> bool:
        """Whether vectors are made here, of the run's records."""
        return self.kind != "file"

    @property
    def folder(self) -> str:
        """Name of its folder below ``embeddings/``."""
        if self.name is not None:
            return self.name
        last = self.what.rpartition("/")[2].partition(".")[0] if self.kind == "file" else self.what
        parts = [self.kind, re.sub(r"[^\w.-]+", "-", last)]
        if self.image_size_px is not None:
            parts.append(f"{self.image_size_px}px")
        parts += [self.layer] if self.layer else []
        parts += [self.views] if self.views != "none" else []
        return "-".join(parts)


@dataclass(frozen=True)
class EmbeddingConfig:
    """A linear head on the vectors of one or several encoders."""

    encoders: tuple[EncoderConfig, ...] = ()
    """Their vectors are set side by side."""
    head: Literal["logistic"] = "logistic"
    """Logistic regression with a ridge penalty, chosen by log loss on groups that the inner folds
    hold out of the training rows."""
    inner_folds: int = 4
    """Parts that the training groups are divided into for that."""
    metadata: bool = False
    """Give the head the declared metadata too, encoded by the training rows' bounds."""
    context: bool = False
    """Give it how far a photo's vector is from the mean of its patient's other vectors (the "ugly
    duckling" sign, Grob & Bonerandi 1998); a data set that tells patients is needed."""
    dtype: Literal["float16", "float32"] = "float32"
    """Of the stored vectors; ``float16`` takes half the disk."""
    batch_size: int = 64
    """Photos that an encoder is given at once."""

    def __post_init__(self) -> None:
        names = [one.folder for one in self.encoders]
        twice = sorted({one for one in names if names.count(one) > 1})
        wish = "of different names: give one a name"
        require(not twice, "embedding.encoders", twice, wish)
        require(self.inner_folds >= 2, "embedding.inner_folds", self.inner_folds, "at least 2")
        positive("embedding.batch_size", self.batch_size)

    @property
    def reads_photos(self) -> bool:
        """Whether some encoder needs the run's records."""
        return any(one.reads_photos for one in self.encoders)
