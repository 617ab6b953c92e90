"""Reductions on the vector machine: over all axes and some, over any layout; sums, and their errors."""

import importlib

import elementwise_checks
import numpy as np
import pytest
from elementwise_checks import assert_close, compute, normal, numpy_result, wide
from native_checks import DTYPES, laid_out

from tinynet.kernels.registry import REDUCTIONS

machine = elementwise_checks.machine  # the fixture
native = elementwise_checks.native


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduce", REDUCTIONS)
@pytest.mark.parametrize(
    "shape",
    [(1,), (7,), (1025,), (40_000,), (7, 31), (130, 17), (3, 5000), (40, 512), (5, 16_500), (5000, 10), (3, 4, 5)],
)
def test_reductions_over_all_over_rows_and_over_columns(machine, shape, reduce, dtype):
    x = normal(shape, dtype, 1)
    y = normal(shape[-1:], dtype, 2)
    for axis in {tuple(range(len(shape))), tuple(range(len(shape) - 1)) or (0,), (len(shape) - 1,), (0,)}:
        for text in ("x", "x * y + x", "where(x > y, x, 0)"):
            arrays = [x, y] if "y" in text else [x]
            expected = getattr(np, reduce)(numpy_result(text, wide(arrays)), axis=axis)
            count = np.prod([shape[i] for i in axis])
            for keepdims in (False, True):
                found = compute(machine, text, arrays, reduce=reduce, axis=axis, keepdims=keepdims)
                scale = 8 * (count**0.5 if reduce == "sum" else 1)
                assert_close(found.reshape(expected.shape), expected, scale)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", ["rows", "columns", "every other", "backwards"])
def test_reductions_of_what_lies_apart(machine, layout, dtype):
    for shape in ((40, 33), (300, 20), (9, 600)):
        x, y = laid_out(normal(shape, dtype, 1), layout), normal((shape[0], 1), dtype, 2)
        for axis in ((0, 1), (0,), (1,)):
            expected = (x.astype("float64") - y).sum(axis)
            assert_close(compute(machine, "x - y", [x, y], reduce="sum", axis=axis, keepdims=False), expected, 200)
            expected = x.max(axis)
            np.testing.assert_array_equal(compute(machine, "x", [x], reduce="max", axis=axis, keepdims=False), expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_not_a_number_comes_through_every_reduction(machine, dtype):
    for at in (0, 3, 17, 1029):
        x = normal((3, 1030), dtype)
        x[1, at] = np.nan
        for reduce in REDUCTIONS:
            for axis in ((0, 1), (1,), (0,)):
                found = compute(machine, "x", [x], reduce=reduce, axis=axis, keepdims=False)
                expected = np.isnan(getattr(np, reduce)(x, axis=axis))
                np.testing.assert_array_equal(np.isnan(found), expected)


def test_sums_of_many_are_near(machine):
    """Nearer than NumPy's over rows, which are added one after the other."""
    x = np.random.default_rng(0).uniform(0, 1, (300_000, 4)).astype("float32")
    exact = x.astype("float64").sum(0)
    found = compute(machine, "x", [x], reduce="sum", axis=(0,), keepdims=False)
    assert (abs(found - exact) / exact).max() < 1e-6
    flat = compute(machine, "x", [x], reduce="sum", axis=(0, 1), keepdims=False)
    assert abs(flat - exact.sum()) / exact.sum() < 3e-7


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_adjoint_of_broadcasting(machine, dtype):
    registry = importlib.import_module("tinynet.kernels")
    x = normal((6, 4, 35), dtype)
    for shape in ((35,), (4, 35), (4, 1), (1, 35), (), (6, 4, 35)):
        kernel, out = registry.find("sum_to", "native", dtype), np.empty(shape, dtype)
        expected = np.empty(shape, dtype)
        registry.find("sum_to", "reference")(expected, x, shape=shape)
        kernel(out, x, shape=shape)
        assert_close(out, expected, 50)
