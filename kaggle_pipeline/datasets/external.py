"""Photos of other collections as extra training rows: told in this data set's words.

In: a collection's folder and the spec of the experiment's own data set. Out: examples of the split
``external``, with a column ``source`` and a ``row_weight``. A target that a collection cannot tell
is missing (NaN), not 0: HAM10000's "benign keratosis" may be a seborrheic one or not.

The winners of SIIM-ISIC 2020 trained on ISIC 2019 and 2020 together (Ha, Liu & Liu 2020,
arXiv:2010.05351, section 2: without the former's 4,522 melanomas, 584 are left).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from kaggle_pipeline.config.experiment import ExternalConfig
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.data.examples import EXTERNAL, archive_id, require_images, validate_examples
from kaggle_pipeline.data.spec import DatasetSpec, RawData
from kaggle_pipeline.datasets import get_spec

_TRUNK, _HEAD = ("abdomen", "back", "chest", "trunk"), ("ear", "face", "neck", "scalp")
_KERATOSES = ("seborrheic keratosis", "solar lentigo", "lichen planus-like keratosis")
_DISEASES = {
    "melanoma", "nevus", "basal cell carcinoma", "actinic keratosis", "Bowen's disease",
    "squamous cell carcinoma", "dermatofibroma", "vascular lesion", *_KERATOSES,
}  # fmt: skip


@dataclass(frozen=True)
class Meaning:
    """What the classes of a data set stand for: each a set of diseases.

    Attributes
    ----------
    classes : mapping of str to collection of str
        Class -> the diseases that belong to it.
    rest : collection of str
        What an image of none of the classes may show.
    """

    classes: Mapping[str, Collection[str]]
    rest: Collection[str] = ()


_MELANOMA_ALONE = Meaning({"target": {"melanoma"}}, rest=_DISEASES - {"melanoma"})
MEANINGS = {
    # Tschandl et al. 2018 (doi:10.1038/sdata.2018.161), "Diagnostic categories".
    "ham10000": Meaning(
        {
            "mel": {"melanoma"}, "nv": {"nevus"}, "bcc": {"basal cell carcinoma"},
            "akiec": {"actinic keratosis", "Bowen's disease"}, "bkl": set(_KERATOSES),
            "df": {"dermatofibroma"}, "vasc": {"vascular lesion"},
        }
    ),
    # challenge.isic-archive.com/landing/2019: Bowen's disease went over to the last.
    "isic_2019": Meaning(
        {
            "MEL": {"melanoma"}, "NV": {"nevus"}, "BCC": {"basal cell carcinoma"},
            "AK": {"actinic keratosis"}, "BKL": set(_KERATOSES), "DF": {"dermatofibroma"},
            "VASC": {"vascular lesion"}, "SCC": {"squamous cell carcinoma", "Bowen's disease"},
        }
    ),
    # Codella et al. 2018 (arXiv:1710.05006): melanoma, seborrheic keratosis, benign nevi.
    "isic_2017": Meaning(
        {"melanoma": {"melanoma"}, "seborrheic_keratosis": {"seborrheic keratosis"}},
        rest={"nevus"},
    ),
    "siim_isic_2020": _MELANOMA_ALONE,
    "synthetic": _MELANOMA_ALONE,
}  # fmt: skip
"""Data set -> what its classes stand for; any two of them can be compared."""


@dataclass(frozen=True)
class Translation:
    """What a collection's other words mean in those of the competition.

    Attributes
    ----------
    diagnoses : mapping of str to str
        Class -> the competition's word for the diagnosis; a row of no class is ``rest``.
    rest : str
    values : mapping of str to mapping
        Feature -> its words there -> the competition's; one that is not here stays as it is, or
        becomes missing where the competition does not know it.
    """

    diagnoses: Mapping[str, str]
    rest: str = "unknown"
    values: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


TRANSLATIONS = {
    "ham10000": Translation(
        # The words for what both have; the others are kept apart, as the winners did.
        diagnoses={
            "mel": "melanoma", "nv": "nevus", "bcc": "basal cell carcinoma",
            "akiec": "actinic keratosis", "bkl": "benign keratosis", "df": "dermatofibroma",
            "vasc": "vascular lesion",
        },
        values={"site": {
            **dict.fromkeys(_TRUNK, "torso"), **dict.fromkeys(_HEAD, "head/neck"),
            "acral": "palms/soles", "genital": "oral/genital", "hand": "upper extremity",
            "foot": "lower extremity",
        }},
    ),
    "isic_2019": Translation(
        diagnoses={
            "MEL": "melanoma", "NV": "nevus", "BCC": "basal cell carcinoma",
            "AK": "actinic keratosis", "BKL": "benign keratosis", "DF": "dermatofibroma",
            "VASC": "vascular lesion", "SCC": "squamous cell carcinoma",
        },
        values={"site": dict.fromkeys(
            ("anterior torso", "lateral torso", "posterior torso"), "torso"
        )},
    ),
    "isic_2017": Translation(
        diagnoses={"melanoma": "melanoma", "seborrheic_keratosis": "seborrheic keratosis"},
        rest="nevus",
    ),
}  # fmt: skip
"""Data set -> its translation; a further collection is one entry."""


@dataclass(frozen=True)
class ExternalRows:
    """Rows of other collections.

    Attributes
    ----------
    table : pandas.DataFrame
        Indexed by ``image_id``, of the split ``external``. Groups carry their collection's name,
        so none is one of the experiment's own; ``image_path`` leads from the data folder to the
        photo. Targets are 0, 1 or NaN.
    notes : list of str
        What a collection could not tell: missing labels, and rows that were left out for them;
        files that were skipped.
    tables : mapping of str to sequence of pathlib.Path
        Collection -> what it was read from.
    """

    table: pd.DataFrame
    notes: list[str]
    tables: Mapping[str, Sequence[Path]]


def read_external(
    wanted: Sequence[ExternalConfig], data_dir: Path, spec: DatasetSpec, *, drop: bool = False
) -> ExternalRows:
    """Return the labelled rows of other collections as examples of this data set.

    Parameters
    ----------
    wanted : sequence of ExternalConfig
    data_dir : pathlib.Path
        The experiment's own; ``ExternalConfig.data_dir`` is relative to it.
    spec : DatasetSpec
    drop : bool
        Whether rows without a photo are going to be left out instead of an error.

    Returns
    -------
    ExternalRows
        An image that several collections have is taken from the first.

    Raises
    ------
    PipelineError
        If a collection is unknown, missing or lacks photos, or nothing tells what the classes of
        ``spec`` stand for.
    """
    parts, notes, tables = [], [], {}
    for one in wanted:
        raw, source = _open(one, data_dir, spec)
        part, said = _translate(raw, one, source, spec, drop)
        parts.append(part)
        notes += [*raw.notes, *said]
        tables[one.dataset] = raw.tables
    rows = pd.concat(parts, ignore_index=True).drop_duplicates("image_id")
    return ExternalRows(validate_examples(rows, spec), notes, tables)


def _open(one: ExternalConfig, data_dir: Path, spec: DatasetSpec) -> tuple[RawData, DatasetSpec]:
    if spec.id not in MEANINGS:
        raise PipelineError(
            f"external: nothing says which diseases the classes of {spec.id} stand for; known are "
            f"those of {', '.join(MEANINGS)}"
        )
    if one.dataset not in TRANSLATIONS or one.dataset == spec.id:
        known = ", ".join(name for name in TRANSLATIONS if name != spec.id)
        raise PipelineError(f"external.dataset: {one.dataset!r} cannot be translated; know {known}")
    source, folder = get_spec(one.dataset), Path(data_dir) / one.data_dir
    if not folder.is_dir():
        raise PipelineError(f"external: no folder {folder}: {source.source}")
    return source.read_raw(folder), source


def _translate(
    raw: RawData, one: ExternalConfig, source: DatasetSpec, spec: DatasetSpec, drop: bool
) -> tuple[pd.DataFrame, list[str]]:
    words, rows = TRANSLATIONS[one.dataset], validate_examples(raw.examples, source)
    rows = rows[rows["split"] == "train"]
    require_images(rows, source, drop=drop)
    labels = rows[list(source.classes)]
    told = {
        "image_id": rows.index.map(archive_id),
        "group_id": one.dataset + ":" + rows["group_id"],
        "split": EXTERNAL,
        "source": one.dataset,
        "row_weight": one.weight,
        **translate_labels(labels, source.id, spec),
        "image_path": rows["image_path"].map(
            lambda path: (Path(one.data_dir) / path).as_posix(), "ignore"
        ),
    }
    if spec.diagnoses is not None:
        known = labels.idxmax(axis=1).map(words.diagnoses)
        told[spec.diagnoses.column] = known.where(labels.any(axis=1), words.rest)
    for name in spec.numeric:
        told[name] = rows.get(name, np.nan)
    for name, vocabulary in spec.categorical.items():
        values = rows[name] if name in rows else pd.Series(np.nan, rows.index, object)
        if not set(values.dropna()) <= set(vocabulary):
            values = values.replace(dict(words.values.get(name, {})))
        told[name] = values.where(values.isin(vocabulary))
    return _keep_told(pd.DataFrame(told).reset_index(drop=True), one.dataset, spec)


def translate_labels(labels: pd.DataFrame, source: str, spec: DatasetSpec) -> dict[str, pd.Series]:
    """Return each target of ``spec`` for rows of another collection: 1, 0, or NaN where untold.

    A target is 1 where everything that a row may show belongs to it, and 0 where nothing does.

    Parameters
    ----------
    labels : pandas.DataFrame
        The collection's own classes, 0 or 1.
    source : str
        Id of the collection.
    spec : DatasetSpec
        Of the experiment.

    Examples
    --------
    >>> rows = pd.DataFrame(0, ["a", "b"], list(MEANINGS["ham10000"].classes))
    >>> rows.loc["a", "mel"] = rows.loc["b", "bkl"] = 1
    >>> found = translate_labels(rows, "ham10000", get_spec("isic_2017"))
    >>> {name: column.tolist() for name, column in found.items()}
    {'melanoma': [1.0, 0.0], 'seborrheic_keratosis': [0.0, nan]}
    """
    meaning, wanted = MEANINGS[source], MEANINGS[spec.id].classes
    shown = labels.idxmax(axis=1).where(labels.any(axis=1), "")
    possible = {**meaning.classes, "": meaning.rest}
    return {
        name: shown.map(
            {one: _answer(set(diseases), set(wanted[name])) for one, diseases in possible.items()}
        )
        for name in spec.classes
    }


def _answer(possible: set[str], wanted: set[str]) -> float:
    if possible <= wanted:
        return 1.0 if possible else np.nan
    return np.nan if possible & wanted else 0.0


def _keep_told(
    rows: pd.DataFrame, source: str, spec: DatasetSpec
) -> tuple[pd.DataFrame, list[str]]:
    """Leave out rows that teach nothing here, and say so; a softmax needs the one class."""
    labels = rows[list(spec.classes)]
    useful = labels.notna().any(axis=1)
    if spec.task == "multiclass":
        useful = labels.notna().all(axis=1) & (labels.sum(axis=1) == 1)
    notes = []
    if not useful.all():
        notes.append(f"{source}: {(~useful).sum()} photos are of no class of {spec.id}: left out")
    for name, missing in labels[useful].isna().sum().items():
        if missing:
            notes.append(
                f"{source} does not tell {name} for {missing} of {useful.sum()} photos: missing "
                "there, not 0"
            )
    return rows[useful], notes
