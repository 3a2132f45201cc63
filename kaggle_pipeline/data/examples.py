"""The canonical table of a data set: one row an image, checked before anything uses it.

In: a raw folder. Out: ``examples.csv``, indexed by ``image_id``, with

========================  =======================================================================
``group_id``              patient or lesion; the image id itself where the data set has no groups
``split``                 ``train`` or ``test``; ``external``: from elsewhere, to learn from alone
target columns            0 or 1, NaN in the test split; NaN in ``external`` where it is not told
numeric features          float, NaN where missing
categorical features      text from the spec's vocabulary, NaN where missing
``image_path``            relative to the data folder, NaN where no image file is at hand
``width_px, height_px``   of the original photo, where known
anything else             raw columns under their own names, for the leak audit alone
========================  =======================================================================
"""

from collections.abc import Collection
from pathlib import Path

import numpy as np
import pandas as pd

from kaggle_pipeline.config.names import LEAVE_OUT, NEEDED, TEST_TRUTH
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.files import atomic_path
from kaggle_pipeline.core.tables import read_own
from kaggle_pipeline.data.spec import DatasetSpec

EXTERNAL = "external"
"""Split of rows from other collections: in no fold, never scored."""
SPLITS = ("train", "test", EXTERNAL)
_TEXT = ("group_id", "split", "image_path")
PREPARE_ANEW = (
    "delete {folder} and run the same command with --resume, which prepares anew and keeps records "
    "and models"
)
"""How a damaged file of the preparation is made anew."""


def archive_id(identity: str) -> str:
    """Return the id by which the ISIC archive knows a photo, whatever collection it is in.

    ISIC 2019 marks the photos that it holds at a smaller size than the archive.

    Examples
    --------
    >>> archive_id("ISIC_0000002_downsampled"), archive_id("ISIC_0024306")
    ('ISIC_0000002', 'ISIC_0024306')
    """
    return identity.removesuffix("_downsampled")


def validate_examples(table: pd.DataFrame, spec: DatasetSpec) -> pd.DataFrame:
    """Return the table with canonical dtypes, or say which row breaks which rule.

    Parameters
    ----------
    table : pandas.DataFrame
        With a column ``image_id`` and the columns named above.
    spec : DatasetSpec
        Gives targets, features and vocabularies.

    Raises
    ------
    PipelineError
        For a missing column, an id listed twice, a target that is not 0 or 1, a feature outside
        its vocabulary, a group missing.
    """
    for column in ("image_id", "group_id", "split", *spec.classes, *spec.features):
        if column not in table.columns:
            raise PipelineError(f"{spec.id}: the column {column!r} is missing")
    # Missing stays missing: text would make a plain name of it, "nan", in older pandas.
    ids = table["image_id"].astype(str).where(table["image_id"].notna())
    table = table.set_index(ids).drop(columns="image_id")
    _check_ids(table, spec)
    train = table["split"] != "test"
    for column in spec.classes:
        values = pd.to_numeric(table[column], errors="coerce").astype(float)
        untold = (table["split"] == EXTERNAL) & table[column].isna()
        _reject(table, train & ~untold & ~values.isin([0, 1]), column, "0 or 1", spec)
        table[column] = values.where(train)  # a test row's target is nobody's business
    if spec.task == "multiclass":
        _reject(table, train & (table[list(spec.classes)].sum(axis=1) != 1), spec.classes[0],
                "exactly one class", spec)  # fmt: skip
    for column in spec.numeric:
        values = pd.to_numeric(table[column], errors="coerce").astype(float)
        odd = np.isinf(values) | (values.isna() & table[column].notna())
        _reject(table, odd, column, "a number", spec)
        table[column] = values
    for column, vocabulary in spec.categorical.items():
        unknown = table[column].notna() & ~table[column].isin(vocabulary)
        _reject(table, unknown, column, f"one of {', '.join(vocabulary)}", spec)
    if spec.group is None:
        table["group_id"] = table.index
    _reject(table, table["group_id"].isna(), "group_id", f"a {spec.group}", spec)
    if "image_path" not in table.columns:
        table["image_path"] = np.nan
    else:
        table["image_path"] = table["image_path"].tolist()  # of the type that reading it gives
    return table


def _check_ids(table: pd.DataFrame, spec: DatasetSpec) -> None:
    """Ids are unique over both splits, of one line each, and every row has a known split."""
    if table.index.has_duplicates:
        twice = table.index[table.index.duplicated()][0]
        where = " and ".join(sorted(set(table.loc[twice, "split"])))
        raise PipelineError(f"{spec.id}: image {twice} is listed more than once ({where})")
    odd = [one for one in table.index if not is_plain_id(one)]
    if odd:
        raise PipelineError(
            f"{spec.id}: image id {odd[0]!r} is not a plain name, but empty, hidden, with a blank "
            "at its edge or with characters that no line can show"
        )
    _reject(table, ~table["split"].isin(SPLITS), "split", ", ".join(SPLITS), spec)


def is_plain_id(identity: object) -> bool:
    """Return whether an id is what people call a file, or a path below a folder."""
    if not isinstance(identity, str) or not identity.isprintable() or identity != identity.strip():
        return False
    return "\\" not in identity and all(
        part and not part.startswith(".") for part in identity.split("/")
    )


def _reject(table: pd.DataFrame, bad: pd.Series, column: str, wish: str, spec: DatasetSpec) -> None:
    if bad.any():
        row = bad.index[bad.to_numpy()][0]
        value = table.loc[row, column]
        value = value.item() if isinstance(value, np.generic) else value  # without NumPy's name
        raise PipelineError(f"{spec.id}: {column} of image {row} is {value!r}, expected {wish}")


def require_images(
    table: pd.DataFrame, spec: DatasetSpec, *, drop: bool = False, listed: Collection[str] = ()
) -> None:
    """Stop at the first row without an image file.

    Parameters
    ----------
    table : pandas.DataFrame
    spec : DatasetSpec
    drop : bool
        Whether such rows are going to be left out: an error only where none has one.
    listed : collection of str
        Ids of the sample submission, which cannot be left out.

    Raises
    ------
    PipelineError
        That names the row, and leaving it out as a remedy where it is one.
    """
    missing = table.index[table["image_path"].isna()]
    needed = missing[missing.isin(listed)]
    if not len(missing) or (drop and not len(needed) and len(missing) < len(table)):
        return
    row, remedy = missing[0], f"add it, or leave such rows out by {LEAVE_OUT}"
    if len(missing) == len(table):
        remedy = "add them"
    elif len(needed):
        row, remedy = needed[0], f"add it: {NEEDED}"
    raise PipelineError(
        f"{spec.id}: no image file for {table.loc[row, 'split']} row {row} ({len(missing)} of "
        f"{len(table)} rows have none): {remedy}"
    )


def drop_incomplete(table: pd.DataFrame, spec: DatasetSpec) -> pd.DataFrame:
    """Return the rows that lack no declared feature."""
    return table.dropna(subset=list(spec.features))


def require_choice(
    held_out: pd.DataFrame | None, spec: DatasetSpec, advice: str, where: str = "the held-out rows"
) -> None:
    """Stop where no epoch can be chosen, because the AUC of some class does not exist.

    Parameters
    ----------
    held_out : pandas.DataFrame or None
        The rows whose AUC is to choose.
    spec : DatasetSpec
    advice : str
        What to change.
    where : str
        What the rows are called.

    Raises
    ------
    PipelineError
        If a class has no image among them, or all are of it; that names the class.
    """
    for name in spec.classes:
        found = set() if held_out is None else set(held_out[name])
        if not found >= {0, 1}:
            lack = "image that is" if 1 not in found else "image that is not"
            raise PipelineError(f"no epoch can be chosen: {where} have no {lack} {name}: {advice}")


def write_examples(table: pd.DataFrame, path: Path) -> None:
    """Write the table as CSV, atomically."""
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index_label="image_id")


def read_examples(path: Path, spec: DatasetSpec) -> pd.DataFrame:
    """Read what :func:`write_examples` wrote, with the same dtypes.

    Raises
    ------
    PipelineError
        If the file is missing or damaged.
    """
    path = Path(path)
    if not path.exists():
        raise PipelineError(f"{path} is missing: run prepare_data first")
    types = dict.fromkeys(("image_id", *_TEXT, *spec.categorical), str)
    types |= dict.fromkeys((*spec.classes, *spec.numeric), float)
    table = read_own(path, types, remedy=PREPARE_ANEW.format(folder=path.parent))
    return table.set_index("image_id")


def read_test_truth(prepared: Path, spec: DatasetSpec) -> pd.DataFrame | None:
    """Return the labels of a test part that was set aside, a column a class, by image id.

    None where there is no such part. ``prepared`` is the run's ``prepare/``.
    """
    path = Path(prepared) / TEST_TRUTH
    if not path.exists():
        return None
    types = {"image_id": str, **dict.fromkeys(spec.classes, float)}
    return read_own(path, types, remedy=PREPARE_ANEW.format(folder=prepared)).set_index("image_id")


def splits_of(table: pd.DataFrame) -> list[str]:
    """Return what a person is told of: ``train``, ``test`` and, if there are any, the others."""
    return [s for s in SPLITS if s in ("train", "test") or (table["split"] == s).any()]


def split_rows(table: pd.DataFrame, split: str) -> pd.DataFrame:
    """Return the rows of one split, in their order."""
    return table[table["split"] == split]


def labels_in_words(table: pd.DataFrame, spec: DatasetSpec) -> pd.Series:
    """Return what each labelled image shows, by its id: its classes, or that it is none of them."""
    titles = [spec.class_label(name) for name in spec.classes]
    none = f"not {titles[0]}" if len(titles) == 1 else "none of the classes"
    known = table[list(spec.classes)].to_numpy() == 1
    words = [" + ".join(np.array(titles, object)[row]) or none for row in known]
    return pd.Series(words, table.index, dtype=object)
