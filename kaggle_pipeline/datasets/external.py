"""Photos of other collections as extra training rows: told in this data set's words.

In: a collection's folder and the spec of the experiment's own data set. Out: examples of the split
``external``, with a column ``source`` and a ``row_weight``; and which of them show a photo that the
experiment has already.

The winners of SIIM-ISIC 2020 trained on ISIC 2019 and 2020 together (Ha, Liu & Liu 2020,
arXiv:2010.05351, section 2: without the former's 4,522 melanomas, 584 are left).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from kaggle_pipeline.config.experiment import ExternalConfig
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.data.examples import EXTERNAL, require_images, validate_examples
from kaggle_pipeline.data.spec import DatasetSpec
from kaggle_pipeline.datasets import get_spec

_TRUNK, _HEAD = ("abdomen", "back", "chest", "trunk"), ("ear", "face", "neck", "scalp")


@dataclass(frozen=True)
class Translation:
    """What a collection's words mean where melanoma against the rest is asked.

    Attributes
    ----------
    melanoma : tuple of str
        Its classes that are melanoma.
    diagnoses : mapping of str to str
        Class -> the competition's word for the diagnosis; a row of no class is ``rest``.
    rest : str
    sites : mapping of str to str
        Its body site -> the competition's; one that is not here stays as it is, or becomes missing
        where the competition does not know it.
    """

    melanoma: tuple[str, ...]
    diagnoses: Mapping[str, str]
    rest: str = "unknown"
    sites: Mapping[str, str] = field(default_factory=dict)


TRANSLATIONS = {
    "ham10000": Translation(
        melanoma=("mel",),
        # The words for what both have; the others are kept apart, as the winners did.
        diagnoses={
            "mel": "melanoma", "nv": "nevus", "bcc": "basal cell carcinoma",
            "akiec": "actinic keratosis", "bkl": "benign keratosis", "df": "dermatofibroma",
            "vasc": "vascular lesion",
        },
        sites={
            **dict.fromkeys(_TRUNK, "torso"), **dict.fromkeys(_HEAD, "head/neck"),
            "acral": "palms/soles", "genital": "oral/genital", "hand": "upper extremity",
            "foot": "lower extremity",
        },
    ),
    "isic_2019": Translation(
        melanoma=("MEL",),
        diagnoses={
            "MEL": "melanoma", "NV": "nevus", "BCC": "basal cell carcinoma",
            "AK": "actinic keratosis", "BKL": "benign keratosis", "DF": "dermatofibroma",
            "VASC": "vascular lesion", "SCC": "squamous cell carcinoma",
        },
        sites=dict.fromkeys(("anterior torso", "lateral torso", "posterior torso"), "torso"),
    ),
    "isic_2017": Translation(
        melanoma=("melanoma",),
        diagnoses={"melanoma": "melanoma", "seborrheic_keratosis": "seborrheic keratosis"},
        rest="nevus",
    ),
}  # fmt: skip
"""Data set -> its translation; a further collection is one entry."""


def read_external(
    wanted: Sequence[ExternalConfig], data_dir: Path, spec: DatasetSpec
) -> pd.DataFrame:
    """Return the labelled rows of other collections as examples of this data set.

    Parameters
    ----------
    wanted : sequence of ExternalConfig
    data_dir : pathlib.Path
        The experiment's own; ``ExternalConfig.data_dir`` is relative to it.
    spec : DatasetSpec

    Returns
    -------
    pandas.DataFrame
        Indexed by ``image_id``, of the split ``external``. Groups carry their collection's name,
        so none is one of the experiment's own; ``image_path`` leads from ``data_dir`` to the photo.
        An image that several collections have is taken from the first.

    Raises
    ------
    PipelineError
        If a collection is unknown, missing or has no photos, or ``spec`` asks something else than
        melanoma against the rest.
    """
    parts = [_read_one(one, data_dir, spec) for one in wanted]
    rows = pd.concat(parts, ignore_index=True).drop_duplicates("image_id")
    return validate_examples(rows, spec)


def _read_one(one: ExternalConfig, data_dir: Path, spec: DatasetSpec) -> pd.DataFrame:
    if len(spec.classes) != 1 or spec.task != "binary":
        raise PipelineError(f"external: {spec.id} asks more than melanoma against the rest")
    if one.dataset not in TRANSLATIONS:
        known = ", ".join(TRANSLATIONS)
        raise PipelineError(f"external.dataset: {one.dataset!r} cannot be translated; know {known}")
    words, source = TRANSLATIONS[one.dataset], get_spec(one.dataset)
    folder = Path(data_dir) / one.data_dir
    if not folder.is_dir():
        raise PipelineError(f"external: no folder {folder}: {source.source}")
    rows = validate_examples(source.read_raw(folder).examples, source)
    rows = rows[rows["split"] == "train"]
    require_images(rows, source)
    labels = rows[list(source.classes)]
    diagnosis = labels.idxmax(axis=1).map(words.diagnoses).where(labels.any(axis=1), words.rest)
    told = {
        # ISIC 2019 marks photos that it holds at a smaller size than the archive.
        "image_id": rows.index.str.removesuffix("_downsampled"),
        "group_id": one.dataset + ":" + rows["group_id"],
        "split": EXTERNAL,
        "source": one.dataset,
        "row_weight": one.weight,
        spec.classes[0]: labels[list(words.melanoma)].max(axis=1),
        "diagnosis": diagnosis,
        "image_path": [(Path(one.data_dir) / path).as_posix() for path in rows["image_path"]],
    }
    for name in spec.numeric:
        told[name] = rows.get(name, np.nan)
    for name, vocabulary in spec.categorical.items():
        values = rows[name] if name in rows else pd.Series(np.nan, rows.index, object)
        values = values.replace(dict(words.sites)) if name == "site" else values
        told[name] = values.where(values.isin(vocabulary))
    return pd.DataFrame(told).reset_index(drop=True)
