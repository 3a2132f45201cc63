"""Checks of tables that a user brings."""

import numpy as np
import pandas as pd
import pytest

from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.tables import require_probabilities


def test_probabilities_come_back_as_numbers():
    table = pd.DataFrame({"a": ["0.25", "1"], "b": [0, 0.5]}, index=["x", "y"])
    found = require_probabilities(table, "some.csv")
    assert found.to_numpy().tolist() == [[0.25, 0.0], [1.0, 0.5]]
    assert set(found.dtypes) == {np.dtype(float)} and list(found.index) == ["x", "y"]


@pytest.mark.parametrize("columns", [[], ["a"]])
def test_a_table_without_rows_or_columns_has_nothing_wrong(columns):
    assert require_probabilities(pd.DataFrame(columns=columns), "some.csv").empty


@pytest.mark.parametrize("odd", [-1e-9, 1.0000001, np.nan, np.inf, "high", None, ""])
def test_what_is_no_probability_is_named_with_its_row_and_column(odd):
    table = pd.DataFrame({"a": [0.5, 0.5], "b": pd.Series([0.5, odd], dtype=object)})
    table.index = ["x", "y"]
    with pytest.raises(PipelineError, match=r"^some\.csv: b of y is .*, not in \[0, 1\]$"):
        require_probabilities(table, "some.csv")
