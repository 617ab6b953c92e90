"""Splits of any sizes: a partition, of the length asked for, every class in proportion."""

import numpy as np
import pytest

pytest.importorskip("hypothesis")

from hypothesis import given, settings
from hypothesis import strategies as st

from tinynet.data.sampling import split_indices


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=20), st.floats(0, 1), st.integers(0, 2**64 - 1))
def test_a_stratified_split_is_a_partition_in_proportion(counts, fraction, seed):
    labels = np.repeat(np.arange(len(counts)), counts)
    n = len(labels)
    first, second = split_indices(n, fraction, seed, labels)
    np.testing.assert_array_equal(np.sort(np.concatenate([first, second])), np.arange(n))

    total = round(fraction * n)
    assert len(first) == total or (0 < fraction < 1 and n >= 2 and len(first) == min(max(total, 1), n - 1))
    taken = np.bincount(labels[first], minlength=len(counts))
    present = np.array(counts) > 0
    if present.sum() <= len(first):
        assert (taken[present] >= 1).all()
    if 2 * len(counts) <= min(len(first), len(second)) and min(counts) * min(fraction, 1 - fraction) >= 1:
        assert (np.abs(taken - fraction * np.array(counts)) <= 1 + 1e-9).all()
