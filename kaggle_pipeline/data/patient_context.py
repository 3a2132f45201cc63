"""Context: an image beside its patient's other images – the "ugly duckling" as numbers.

In: examples, or scores, with ``group_id`` naming the patient. Out: columns for the same rows. All
is computed within one patient, from that patient's rows and from constants that the caller learned
in training: nothing crosses a fold that keeps patients whole, and who else is in the table changes
nothing. A patient with one image gets the numbers of a lesion that is like the others.

Grob & Bonerandi 1998 (Arch. Dermatol. 134:103) named the sign; that features relative to the
patient carry much of the metadata's worth was seen in ISIC 2024's public solutions.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.data.spec import DatasetSpec

PREFIX = "patient_"
"""Of every column of metadata context."""
_NEIGHBOURS = 20
_SPREAD_FLOOR = 0.1
"""Added to a patient's spread, as a share of the training scores': two alike images have none."""
_LEAST_SPREAD = 1e-6
"""Of training scores that are all the same."""


def require_patients(spec: DatasetSpec, key: str) -> None:
    """Raise a PipelineError, naming the setting ``key``, where rows do not tell the patient."""
    if spec.group != "patient":
        known = f"the {spec.group}" if spec.group else "nothing"
        raise PipelineError(
            f"{key} is true, but {spec.id} tells {known} of an image and not the patient: "
            "context is not applicable"
        )


def context_columns(spec: DatasetSpec) -> list[str]:
    """Return the names of the columns that :func:`patient_context` gives, by the spec alone."""
    names = [f"{PREFIX}images", f"{PREFIX}alike"]
    for name in spec.numeric:
        names += [
            f"{PREFIX}{name}_{what}"
            for what in ("min", "mean", "max", "span", "offset", "rank", "kinds", "same")
        ]
    for name, words in spec.categorical.items():
        names += [f"{PREFIX}{name}_{what}" for what in ("kinds", "same", "share")]
        names += [f"{PREFIX}{name}_{word}" for word in words]
    return names


def patient_context(examples: pd.DataFrame, spec: DatasetSpec) -> pd.DataFrame:
    """Return what an image's metadata is beside that of its patient's other images.

    Parameters
    ----------
    examples : pandas.DataFrame
        All images of every patient in it: counts are of these rows.
    spec : DatasetSpec

    Returns
    -------
    pandas.DataFrame
        Float64 columns :func:`context_columns`, indexed as the examples. ``images``: the patient's
        images; ``alike``: those of them with all features the same. For a number: its least, mean
        and greatest value and span, this image's distance from the mean, its rank (0 to 1), how
        many values the patient has and how many images share this one's. For a category: how many
        words the patient has, how many images share this one's and which share of all, and the
        share of every word.

    Raises
    ------
    PipelineError
        If the data set does not tell patients.
    """
    require_patients(spec, "tabular.context")
    patient = examples["group_id"]
    images = patient.groupby(patient).transform("size").astype(float)
    alike = examples[["group_id", *spec.features]].groupby(
        ["group_id", *spec.features], dropna=False
    )
    found = {f"{PREFIX}images": images, f"{PREFIX}alike": alike["group_id"].transform("size")}
    for name in spec.numeric:
        values = examples[name].astype(float)
        mine = values.groupby(patient)
        low, mean, high = (mine.transform(what) for what in ("min", "mean", "max"))
        found |= {
            f"{PREFIX}{name}_min": low,
            f"{PREFIX}{name}_mean": mean,
            f"{PREFIX}{name}_max": high,
            f"{PREFIX}{name}_span": high - low,
            f"{PREFIX}{name}_offset": values - mean,
            f"{PREFIX}{name}_rank": mine.rank(pct=True),
            f"{PREFIX}{name}_kinds": mine.transform("nunique"),
            f"{PREFIX}{name}_same": _sharing(patient, values),
        }
    for name, words in spec.categorical.items():
        values = examples[name].astype(object)
        same = _sharing(patient, values)
        found |= {
            f"{PREFIX}{name}_kinds": values.groupby(patient).transform("nunique"),
            f"{PREFIX}{name}_same": same,
            f"{PREFIX}{name}_share": same / images,
        }
        for word in words:
            found[f"{PREFIX}{name}_{word}"] = (values == word).groupby(patient).transform("mean")
    return pd.DataFrame(found, index=examples.index)[context_columns(spec)].astype(float)


def _sharing(patient: pd.Series, values: pd.Series) -> pd.Series:
    """How many images of the patient have the same value, an unknown one being a value too."""
    key = pd.DataFrame({"patient": patient, "value": values})
    return key.groupby(["patient", "value"], dropna=False)["patient"].transform("size")


SCORE_COLUMNS = ("median_gap", "z", "rank", "place", "gap", "max", "mean")


def score_context(scores: pd.Series, patient: pd.Series, spread: float) -> pd.DataFrame:
    """Return what an image's score is beside the scores of its patient's other images.

    Parameters
    ----------
    scores : pandas.Series
        Of any model and scale; NaN where it has none.
    patient : pandas.Series
        With the same index.
    spread : float
        Standard deviation of these scores over the training images: never taken from the rows
        given, or a patient's numbers would depend on whoever else is among them.

    Returns
    -------
    pandas.DataFrame
        ``median_gap``: score less the patient's median; ``z``: less the mean, in the patient's
        spread (with a floor, so that one image has 0); ``rank``: 0 to 1, 1 the highest; ``place``:
        1 for the highest; ``gap``: highest less this; ``max`` and ``mean`` of the patient.

    Examples
    --------
    >>> import pandas as pd
    >>> scores = pd.Series([0.1, 0.1, 0.7, 0.5])
    >>> patient = pd.Series(["a", "a", "a", "b"])
    >>> score_context(scores, patient, spread=0.3)[["median_gap", "place"]].round(2).T
                  0    1    2    3
    median_gap  0.0  0.0  0.6  0.0
    place       3.0  3.0  1.0  1.0
    """
    mine = scores.groupby(patient)
    mean, top = mine.transform("mean"), mine.transform("max")
    floor = _SPREAD_FLOOR * max(spread, _LEAST_SPREAD)
    found = {
        "median_gap": scores - mine.transform("median"),
        "z": (scores - mean) / (mine.transform(lambda values: values.std(ddof=0)) + floor),
        "rank": mine.rank(pct=True),
        "place": mine.rank(ascending=False, method="max"),
        "gap": top - scores,
        "max": top,
        "mean": mean,
    }
    return pd.DataFrame(found, index=scores.index)[list(SCORE_COLUMNS)]


def embedding_outliers(embeddings: np.ndarray, patient: Sequence[str]) -> np.ndarray:
    """Return how far each image's embedding lies from its patient's others; 1 is like them.

    The local outlier factor (Breunig et al. 2000, doi:10.1145/342009.335388) among the patient's
    own images, half of them and at most 20 being neighbours; 1 where there are fewer than three.

    Parameters
    ----------
    embeddings : array of shape (n, channels)
    patient : sequence of str, n

    Returns
    -------
    numpy.ndarray of shape (n,), float64
    """
    from sklearn.neighbors import LocalOutlierFactor

    factors = np.ones(len(embeddings))
    rows = pd.Series(np.arange(len(embeddings))).groupby(np.asarray(patient))
    for _, mine in rows:
        if len(mine) < 3:
            continue
        # Among all its fellows none is further off than another: half of them at most.
        model = LocalOutlierFactor(n_neighbors=min(_NEIGHBOURS, max(1, len(mine) // 2)))
        # The same photo twice is no neighbourhood of no width.
        found = -model.fit(np.asarray(embeddings)[mine]).negative_outlier_factor_
        factors[mine] = np.minimum(found, 1e3)
    return factors
