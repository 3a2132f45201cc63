"""Metadata → a matrix of numbers in [0, 1].

In: examples. Out: one-hot blocks of fixed vocabularies and min-max-scaled numbers; only the
numbers' bounds are learned, from training rows.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from kaggle_pipeline.core.errors import PipelineError, nearest
from kaggle_pipeline.data.spec import DatasetSpec


class FeatureEncoder:
    """One-hot and min-max encoding, scikit-learn's, with vocabularies from the spec.

    A missing category is a block of zeros and a missing number 0, as the published recipe has it;
    with ``indicators`` a further column each is 1 where the value is missing.

    Parameters
    ----------
    numeric : sequence of str
    categorical : mapping of str to sequence of str
        Vocabulary of each categorical column.
    indicators : bool

    Attributes
    ----------
    bounds_ : dict of str to (float, float)
        After ``fit``: least and greatest training value of each numeric column.

    Examples
    --------
    >>> import pandas as pd
    >>> train = pd.DataFrame({"age_years": [20.0, 60.0], "sex": ["male", "female"]})
    >>> encoder = FeatureEncoder(["age_years"], {"sex": ("female", "male")}).fit(train)
    >>> encoder.transform(train).tolist()
    [[0.0, 0.0, 1.0], [1.0, 1.0, 0.0]]
    """

    def __init__(
        self,
        numeric: Sequence[str],
        categorical: Mapping[str, Sequence[str]],
        indicators: bool = False,
    ) -> None:
        self.numeric = list(numeric)
        self.categorical = {name: list(words) for name, words in categorical.items()}
        self.indicators = indicators

    @property
    def width(self) -> int:
        """Columns that ``transform`` returns."""
        flags = self.indicators * (len(self.numeric) + len(self.categorical))
        return len(self.numeric) + sum(map(len, self.categorical.values())) + flags

    @classmethod
    def from_mapping(cls, stored: Mapping[str, Any]) -> "FeatureEncoder":
        """Return the fitted encoder that :meth:`to_mapping` wrote down."""
        encoder = cls(stored["numeric"], stored["categorical"], stored["indicators"])
        encoder.bounds_ = {name: tuple(bounds) for name, bounds in stored["bounds"].items()}
        return encoder

    def to_mapping(self) -> dict[str, Any]:
        """Return settings and bounds as plain JSON types."""
        return {
            "numeric": self.numeric,
            "categorical": self.categorical,
            "indicators": self.indicators,
            "bounds": self.bounds_,
        }

    def fit(self, examples: pd.DataFrame) -> "FeatureEncoder":
        """Learn the numbers' bounds from training rows."""
        self.bounds_ = {}
        for name in self.numeric:
            values = examples[name].dropna()
            low, high = (values.min(), values.max()) if len(values) else (0.0, 1.0)
            self.bounds_[name] = (float(low), float(high))
        return self

    def transform(self, examples: pd.DataFrame) -> np.ndarray:
        """Return float32 (n, ``width``); values outside the bounds are clipped.

        First the numbers, then a block a vocabulary, then the indicators where they are wanted.
        """
        return self.join(self.scale(examples), examples)

    def scale(self, examples: pd.DataFrame) -> pd.DataFrame:
        """Return the numbers alone, float64 in [0, 1], NaN where missing."""
        from sklearn.preprocessing import MinMaxScaler

        if not self.numeric:
            return pd.DataFrame(index=examples.index)
        # Fitting on the two bounds gives the very scaler of all training rows.
        scaler = MinMaxScaler(clip=True).fit(pd.DataFrame(self.bounds_)[self.numeric])
        found = scaler.transform(examples[self.numeric])
        return pd.DataFrame(found, examples.index, self.numeric)

    def join(self, scaled: pd.DataFrame, words: pd.DataFrame) -> np.ndarray:
        """Return ``transform``'s matrix of numbers that :meth:`scale` gave and of raw categories.

        The one place where a missing value becomes 0, so that it is so in every matrix.
        """
        from sklearn.preprocessing import OneHotEncoder

        parts = [scaled.fillna(0.0).to_numpy()]
        text = words[list(self.categorical)].astype(object)
        if self.categorical:
            known = [np.array(vocabulary, object) for vocabulary in self.categorical.values()]
            encoder = OneHotEncoder(categories=known, handle_unknown="ignore", sparse_output=False)
            parts.append(encoder.fit(text.iloc[:0].reindex([0])).transform(text))
        if self.indicators:
            parts += [scaled.isna().to_numpy(), text.isna().to_numpy()]
        return np.hstack(parts).astype(np.float32)


def choose_features(
    spec: DatasetSpec, wanted: Sequence[str] | None, examples: pd.DataFrame
) -> tuple[list[str], dict[str, Sequence[str]]]:
    """Return numeric names and categorical vocabularies of the features a config asks for.

    Parameters
    ----------
    spec : DatasetSpec
    wanted : sequence of str or None
        None: all that the spec declares. A further column counts as a number.
    examples : pandas.DataFrame

    Raises
    ------
    PipelineError
        For a name that the examples lack, or that holds neither a number nor a vocabulary's word.
    """
    names = list(spec.features if wanted is None else wanted)
    for name in names:
        if name not in examples.columns:
            hint = nearest(name, list(examples.columns))
            raise PipelineError(f"tabular.features: unknown feature {name!r}{hint}")
        if name not in spec.categorical and examples[name].dtype.kind not in "fiub":
            raise PipelineError(f"tabular.features: {name!r} holds text without a vocabulary")
    categorical = {name: spec.categorical[name] for name in names if name in spec.categorical}
    return [name for name in names if name not in categorical], categorical


def blank_metadata(examples: pd.DataFrame, spec: DatasetSpec) -> pd.DataFrame:
    """Return the examples with every declared feature, missing throughout where they lack it."""
    lacking = [name for name in spec.features if name not in examples.columns]
    return examples.assign(**dict.fromkeys(lacking, float("nan")))
