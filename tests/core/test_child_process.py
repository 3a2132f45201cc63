"""Tests of work that other processes do."""

import math

import pytest

from kaggle_pipeline.core.child_process import map_in_order


def test_one_worker_is_this_process():
    seen = []
    assert list(map_in_order(seen.append, "abc", 1)) == [None] * 3 and seen == ["a", "b", "c"]


def test_several_workers_keep_the_order_and_run_only_a_little_ahead():
    taken = []
    found = map_in_order(math.factorial, (taken.append(n) or n for n in range(60)), 2)
    assert next(found) == 1 and len(taken) == 16
    assert list(found) == [math.factorial(n) for n in range(1, 60)]


@pytest.mark.parametrize("workers", [1, 2])
def test_what_an_item_raises_comes_through_in_its_turn(workers):
    found = map_in_order(math.sqrt, [4.0, -1.0, 9.0], workers)
    assert next(found) == 2
    with pytest.raises(ValueError, match=r"math domain error|nonnegative"):
        next(found)
