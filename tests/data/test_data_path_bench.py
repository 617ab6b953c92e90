"""The benchmark of the data path: what it makes, and what it says of what it measured."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # bench is run from the checkout and is not installed

from bench import data_path


def test_the_set_comes_in_pieces_and_is_the_same_each_time():
    pieces = [*data_path.generated(25, 4, piece=10)]
    assert [(x.shape, y.shape) for x, y in pieces] == [((10, 4), (10, 1)), ((10, 4), (10, 1)), ((5, 4), (5, 1))]
    assert {array.dtype for pair in pieces for array in pair} == {np.dtype(np.float32)}
    for (x, y), (again, also) in zip(pieces, data_path.generated(25, 4, piece=10)):
        np.testing.assert_array_equal(x, again)
        np.testing.assert_array_equal(y, also)


def test_shares_are_medians_of_the_ratios_within_a_round():
    def rounds(seconds, processors, peak):
        return [{"seconds": s, "processors": processors, "peak": peak << 20} for s in seconds]

    answers = {"memory": rounds([1, 10, 2], 4, 400), "disk": rounds([2, 10, 1], 5, 18)}
    memory, disk = data_path.table(answers, rows=1000).splitlines()[1:]
    assert memory.split() == ["memory", "500", "1.00", "1.00", "to", "1.00", "1.00", "400.0", "MiB"]
    assert disk.split()[:3] == ["disk", "500", "1.00"] and disk.split()[-3:] == ["0.80", "18.0", "MiB"]


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="this system has no posix_fadvise")
def test_taking_a_file_out_of_the_cache_leaves_it_as_it_is(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(5))
    data_path.forget(tmp_path)
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), np.arange(5))
