"""External photos that the experiment's own data set has too; they are dropped."""

import pandas as pd

from kaggle_pipeline.data.examples import archive_id
from kaggle_pipeline.leakage.audit import Finding
from kaggle_pipeline.leakage.fingerprints import known_pairs, near_pairs

_CHECK = "external photos that this data set has too"
SHARED_PATIENTS = Finding(
    "patients of external photos", "not checkable",
    "lesions are compared by their names, patients the collections do not name: one of them may "
    "be in a fold or in test too",
)  # fmt: skip


def drop_known(
    outside: pd.DataFrame,
    own: pd.DataFrame,
    official: pd.DataFrame | None,
    fingerprints: pd.DataFrame | None,
    near_bits: int,
    part: str | None = None,
) -> tuple[pd.DataFrame, Finding]:
    """Leave out external rows whose photo the data set has, in train or in test.

    A photo is known by its id (:func:`~kaggle_pipeline.data.examples.archive_id`: the ISIC archive
    numbers photos, whatever collection they are in and at whatever size), by its lesion where both
    collections name it alike (HAM10000 and ISIC 2019), by an official list, by its bytes, or by a
    perceptual hash at most ``near_bits`` away: one row lost is nothing beside one test photo
    learned from. Of a photo that two other collections have, the first one's row stays; how alike
    the photos within a collection are is its own business.

    Parameters
    ----------
    outside, own : pandas.DataFrame
        Groups of ``outside`` stand behind the collection's name and a colon. ``own`` with every row
        that was read, also those that were dropped since.
    official : pandas.DataFrame or None
        Pairs of ids.
    fingerprints : pandas.DataFrame or None
        None where images were not read; without those of ``outside`` where the data set's own
        photos are in TFRecords.
    near_bits : int
    part : str, optional
        Column of ``own`` that marks a part of its training rows, to be counted apart.

    Returns
    -------
    tuple of (pandas.DataFrame, Finding)
    """
    archived = own.index.map(archive_id)
    rest = drop_same_id(outside, own)
    dropped = {"id": outside.index.difference(rest.index)}
    same = rest["group_id"].str.partition(":")[2].isin(own["group_id"])
    dropped["lesion"], rest = rest.index[same], rest[~same]
    ids = own.index.append(rest.index)  # the first of a pair is the data set's own
    photos = None if fingerprints is None else fingerprints.reindex(ids).dropna(subset="sha256")
    ways = {"the official list or bytes": known_pairs(pd.DataFrame(index=ids), official, photos)}
    hashed = photos is not None and len(photos) == len(ids) and photos["phash"].all()
    if hashed:
        ways[f"a look within {near_bits} bits"] = near_pairs(photos, near_bits)
    twins = [own.index[archived.isin(dropped["id"].map(archive_id))]]
    origin = rest["source"].reindex(ids).fillna("")
    for way, pairs in ways.items():
        first, second = (origin.loc[pairs[end]].to_numpy() for end in ("first", "second"))
        dropped[way] = rest.index[rest.index.isin(pairs["second"][first != second])]
        known = pairs["first"][(first == "") & (second != "")]
        twins.append(pd.Index(known))
        rest = rest.drop(dropped[way])
    told = ", ".join(f"{len(gone)} by {way}" for way, gone in dropped.items())
    sources = ", ".join(f"{name} {n}" for name, n in rest["source"].value_counts().items())
    detail = f"{len(outside) - len(rest)} dropped ({told}); {len(rest)} stay: {sources}"
    detail += f"; of the data set's own photos they show {_by_part(own, twins, part)}"
    if not hashed:
        detail += "; not all photos could be hashed, so copies of another size may be left"
    gone = [str(one) for ids in dropped.values() for one in ids[:5]]
    return rest, Finding(_CHECK, "ok" if hashed else "note", detail, gone[:10])


def drop_same_id(outside: pd.DataFrame, own: pd.DataFrame) -> pd.DataFrame:
    """Return the external rows whose photo has no id of the data set's own, of whatever size."""
    return outside[~outside.index.map(archive_id).isin(own.index.map(archive_id))]


def _by_part(own: pd.DataFrame, twins: list[pd.Index], part: str | None) -> str:
    """How many different own photos of each part are shown again: ``"3 train, 2 test"``."""
    ids = pd.Index([]).append(twins).unique()
    rows = own.loc[own.index.intersection(ids)]
    names = rows["split"].astype(str)
    if part in rows:
        marked = rows[part].isin([True, 1, "True", "true", "1"]) & (names == "train")
        names = names.where(~marked, str(part))
    return ", ".join(f"{count} {name}" for name, count in names.value_counts().items()) or "none"
