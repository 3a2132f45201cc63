"""The recipes that a plan chooses from: which network, at what size, how much of it is trained.

In: facts of the data, a preset, the kind of device. Out: sections of :class:`Choice`, a value each
with its reason.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kaggle_pipeline.preflight.plan_cost import HEAD_EPOCHS, MOST_EPOCHS, Facts

FEW_GROUPS = 50
"""With fewer patients of the rarest class the backbone stays as ImageNet left it, as for the 27
melanomas of ``siim_mini``; the 73 lesions of HAM10000's rarest class were fine-tuned on."""


@dataclass(frozen=True)
class Choice:
    """A value and why."""

    value: Any
    why: str = ""


@dataclass(frozen=True)
class Network:
    """A backbone as a plan would train it.

    Attributes
    ----------
    backbone : str
    side_px : int
        That it sees, at most.
    batch : int
        Photos a replica and step.
    learning_rate : float
    train_from : str or None
        First layer that learns; None: all do.
    frozen : bool
    """

    backbone: str
    side_px: int
    batch: int = 32
    learning_rate: float = 4.0e-4
    train_from: str | None = None
    frozen: bool = False


def _mobile(side: int) -> Network:
    return Network("MobileNetV2", side, train_from="block_6_expand")


_FEW_PHOTOS = 4000
"""With fewer a batch of a fine-tuning is half as large, as in ``isic_2017.yaml``: else an epoch has
few steps."""


_LADDERS: Mapping[str, Mapping[str, tuple[Network, ...]]] = {
    "cpu": {
        "quick": (_mobile(128),),
        "good": (_mobile(224), _mobile(160)),
        "best": (Network("EfficientNetB0", 256, 16, 2.0e-4), _mobile(256), _mobile(224),
                 _mobile(160)),
    },
    "gpu": {
        "quick": (Network("EfficientNetB0", 224, 64), _mobile(224)),
        "good": (Network("EfficientNetB2", 384, 32), Network("EfficientNetB0", 224, 64),
                 _mobile(224)),
        "best": (Network("EfficientNetB4", 512, 32, 3.0e-4), Network("EfficientNetB2", 384, 32),
                 Network("EfficientNetB0", 224, 64), _mobile(224)),
    },
    "tpu": {
        "quick": (Network("EfficientNetB0", 256, 32),),
        "good": (Network("InceptionResNetV2Merged", 512, 32, 3.0e-4, "mixed_5b"),
                 Network("EfficientNetB0", 256, 32)),
        "best": (Network("InceptionResNetV2Merged", 1024, 16, 3.0e-4, "mixed_5b"),
                 Network("InceptionResNetV2Merged", 512, 32, 3.0e-4, "mixed_5b"),
                 Network("EfficientNetB0", 256, 32)),
    },
}  # fmt: skip
"""Kind of device and preset -> networks, the one to begin with first; the next where the hours are
too few for it."""
_FROM_NOTHING = Network("LeNet", 96, 32, 2.0e-3)
"""Without published weights, as in ``my_photos_offline.yaml``: frozen random features are worth
nearly nothing, and a large network does not learn to see from a few thousand photos."""


def candidates(kind: str, preset: str, weights: str | None, facts: Facts) -> list[Network]:
    """Return the networks to try in turn; at last, but for a TPU, a frozen MobileNetV2.

    ``weights`` of a file are MobileNetV2's. Without any a small network is trained from nothing.
    """
    if weights is None and kind != "tpu":
        return [_FROM_NOTHING]
    ladder = list(_LADDERS[kind][preset])
    largest = ladder[0].side_px
    if kind != "tpu":
        if weights != "imagenet":
            ladder = [one for one in ladder if one.backbone == "MobileNetV2"]
        if facts.rarest[1] < FEW_GROUPS:
            ladder = []
        ladder.append(Network("MobileNetV2", min(largest, 256), 128, 3.0e-3, frozen=True))
    return ladder


def recipe(
    base: Mapping[str, Any], facts: Facts, network: Network, device: str, weights: str | None
) -> dict[str, Any]:
    """Return the experiment before its hours are known: sections of choices."""
    side = max(64, min(network.side_px, round(facts.short_side_px / 32) * 32))
    smaller = "the photos' own size" if side < network.side_px else "what preset and hours allow"
    converted = max(1, min(side, facts.short_side_px))
    few_photos = (
        not network.frozen and network.batch == 32 and facts.train < _FEW_PHOTOS
        and network != _FROM_NOTHING
    )  # fmt: skip
    batch, rate = (16, 3.0e-4) if few_photos else (network.batch, network.learning_rate)
    steps = "few photos: else an epoch has few steps" if few_photos else ""
    few = f"{facts.rarest[1]:,} {facts.group or 'image'}s with {facts.rarest[0]}"
    reason = "the preset's, for this device and these hours"
    if network == _FROM_NOTHING:
        reason = "small: it learns from nothing, --weights null"
    image = {
        "backbone": Choice(network.backbone, reason),
        "weights": Choice(weights, "random: scores will be low" if weights is None else ""),
        "image_size_px": Choice(side, smaller),
        "batch_size": Choice(batch, steps),
        "learning_rate": Choice(rate),
    }
    if network.frozen:
        image |= {
            "frozen": Choice(True, f"{few}: too few, or hours too short, to fine-tune"),
            "backbone_layer": Choice("block_6_expand_relu", "colour and texture"),
            "pool_share": Choice(0.5, "the middle, where the lesion is"),
            "dropout": Choice(0.0),
            "head_l2": Choice(0.03, "few weights for few photos"),
            "epochs": Choice(HEAD_EPOCHS, "of the head alone: seconds"),
            "tta": Choice("dihedral", "features of eight views are computed once"),
        }
    else:
        if network.train_from:
            image["train_from"] = Choice(
                network.train_from, f"{few}: enough to fine-tune; earlier layers are slow and plain"
            )
        if network != _FROM_NOTHING:
            image["batch_norm_momentum"] = Choice(0.99, "statistics follow in few steps")
        image |= {
            "dropout": Choice(0.2),
            "epochs": Choice(MOST_EPOCHS),
            "warmup_epochs": Choice(0.5),
            "class_weight_power": Choice(0.4, "rare classes count more, two fifths of the way"),
            "label_smoothing": Choice(0.05),
            "tta": Choice("dihedral", "eight views of a lesion, which has no up or down"),
            "augment": Choice({"shear_degrees": 0, "dropout_boxes": 0}),
        }
    models = ["image", "logistic"] if facts.features else ["image"]
    tabular = (
        f"{len(facts.features)} columns of metadata, seconds" if facts.features else "no metadata"
    )
    learners = {"learners": Choice(["logistic"], tabular)}
    if facts.leaking and facts.features:
        why = f"without {', '.join(facts.leaking)}, which would give the target away"
        learners["features"] = Choice(list(facts.features), why)
    said = {key: _chosen(value) for key, value in base.items()}
    twice = Choice("drop", "of a photo that is there twice one stays")
    return {
        **said,
        "device": Choice(device),
        "folds": said.get("folds", {}) | {"k": Choice(5)},
        "leakage": {"duplicates": twice} | said.get("leakage", {}),
        "records": {
            "image_size_px": Choice(converted, "as the network sees it, or the photos' own")
        },
        "image": image,
        "tabular": learners,
        "blend": {"models": Choice(models), "space": Choice("logit")},
    }


def divided(content: Mapping[str, Any], **folds: Choice) -> dict[str, Any]:
    """Return the section ``folds`` with another division; how groups are shared stays as said."""
    kept = {key: one for key, one in content["folds"].items() if key == "shared_groups"}
    return kept | folds


def values_of(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values without their reasons."""
    return {
        key: value.value if isinstance(value, Choice) else values_of(value)
        for key, value in content.items()
    }


def _chosen(value: Any) -> Any:
    """What was said, as choices without a reason; what was left out stays so."""
    if not isinstance(value, Mapping):
        return Choice(value)
    return {key: Choice(one) for key, one in value.items() if one is not None}
