"""Dropout for CUDA, run on a processor: the masks of the reference, to the bit."""

import numpy as np
import pytest
from native_runs import DTYPES, SIZES, assert_close, cases, reference
from runs import bound, run

from tinynet.kernels.reference.random import random_bits

pytestmark = pytest.mark.usefixtures("harness")


@pytest.mark.parametrize("dtype", DTYPES)
def test_samples_are_as_the_reference_computes_them(dtype):
    for arrays, attributes in cases("dropout", SIZES, dtype):
        for layout in ("line", "aligned"):
            found = run("dropout", arrays, attributes, layout, orders=("forward",))
            np.testing.assert_array_equal(found, reference("dropout", arrays, attributes))


@pytest.mark.parametrize("layout", ["line", "aligned"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_masks_of_dropout_are_those_of_the_reference(dtype, layout):
    """Of every seed, stream and step, at any place of a larger array, to the last bit."""
    places = [(n, offset) for n in (1, 2, 3, 4, 5, 31, 33, 1023, 1024, 1025) for offset in (0, 1, 2, 3, 4, 6)]
    rare = [(0, 0, 0), (2**64 - 1, 2**32 - 1, 2**40 + 5), (12345678901234567890, 77, 2**31), (7, 1, -1)]
    for i, (n, offset) in enumerate([*places, (40, 2**34 - 6), (40, 2**34 - 8), (40, 2**40 + 3)]):
        seed, stream, step = rare[i % len(rare)]
        x = np.linspace(1, 2, n).astype(dtype)
        attributes = {"p": 0.37, "seed": seed, "stream": stream, "offset": offset}
        got = run("dropout", [x, np.asarray(step)], attributes, layout, orders=("forward",))
        expected = reference("dropout", [x, np.asarray(step)], attributes)
        np.testing.assert_array_equal(got[0], expected[0], err_msg=str((n, attributes)))


def test_dropout_at_the_ends_of_its_probability():
    x = np.array([1, np.nan, np.inf, -3], "float32")
    for p in (0.0, 1.0, 1 - 2**-24):
        attributes = {"p": p, "seed": 1}
        assert_close(
            run("dropout", [x, np.asarray(0)], attributes), reference("dropout", [x, np.asarray(0)], attributes)
        )


def test_dropout_reads_its_step_when_it_runs_and_may_write_over_its_input(harness):
    x, step = np.ones(1000, "float32"), np.zeros((), "int64")
    calls = bound("dropout", x, [x, step], {"p": 0.5, "seed": 3, "stream": 2, "offset": 0})
    for step[...] in (1, 2, 10**10):
        x[...] = 1
        harness.run(calls)
        kept = random_bits(x, step, 3, 2) >= 2**31
        np.testing.assert_array_equal(x, np.where(kept, 2, 0))
