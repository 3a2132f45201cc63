"""What a numeric feature may be."""

import numpy as np
import pytest

from kaggle_pipeline.data.spec import AGE_YEARS, Number


@pytest.mark.parametrize(
    ("number", "fine", "odd", "words"),
    [
        (AGE_YEARS, (0, 45.5, 120), (-1, 121, np.nan, "45", None), "a number from 0 to 120"),
        (Number(least=0.5), (0.5, 1e9), (0.4, np.inf), "a number from 0.5"),
        (Number(greatest=7), (-1e9, 7), (7.1, -np.inf), "a number to 7"),
        (Number(), (-3, 1e12), (np.nan, np.inf, "one"), "a number"),
    ],
)
def test_a_number_is_finite_and_within_its_bounds(number, fine, odd, words):
    assert all(number.holds(one) for one in fine)
    assert not any(number.holds(one) for one in odd)
    assert number.describe() == words
