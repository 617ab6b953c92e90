"""Reductions for CUDA, of expressions and of arrays, run on a processor."""

import importlib

import numpy as np
import pytest
from chain_runs import Case, assert_close, build, launches, normal
from native_checks import DTYPES, laid_out
from native_runs import SIZES, cases, reference
from native_runs import assert_close as near
from runs import bound, run

from tinynet.kernels.registry import REDUCTIONS

SHAPES = (
    (1,), (7,), (1025,), (40_000,), (7, 31), (130, 17), (3, 5000), (40, 512), (5, 16_500), (5000, 10), (3, 4, 5),
    (300, 1), (1, 16), (2, 9, 4, 3),
)  # fmt: skip
LAYOUTS = ("rows", "columns", "every other", "backwards")
NAMES = ("sum", "mean", "max", "min", "sum_to", "mse")

pytestmark = pytest.mark.usefixtures("built")


@pytest.fixture(scope="module")
def built(harness):
    build(matrix, apart, with_nan, long_ones, of_integers, of_nothing, operations=operations)


def matrix():
    for dtype in DTYPES:
        for shape in SHAPES:
            n = len(shape)
            axes = {tuple(range(n)), tuple(range(n - 1)) or (0,), (n - 1,), (0,)}
            axes |= {(0, n - 1), (1,)} if n > 2 else set()
            x, y = normal(shape, dtype, 1), normal(shape[-1:], dtype, 2)
            for i, axis in enumerate(sorted(axes)):
                for reduce in REDUCTIONS if x.size < 2000 else REDUCTIONS[i % 2 :: 2]:
                    yield Case("x", (x,), None, reduce, axis, i % 2 == 0)
                yield Case("x * y + x", (x, y), None, "sum", axis, i % 2 == 1)
                yield Case("where(x > y, x, 0)", (x, y), None, "mean", axis)


def check(case, found):
    expected = getattr(np, case.reduce)(case.in_double(), axis=case.axis, keepdims=case.keepdims)
    count = np.prod([case.shape[i] for i in case.axis])
    scale = 8 * (count**0.5 if case.reduce == "sum" else 1)
    assert_close(found, expected, scale, f"{case.reduce} of {case.text} {case.shape} over {case.axis}")


def test_reductions_over_all_over_rows_and_over_columns():
    for case in matrix():
        check(case, case.run(("forward", "shuffled") if case.arrays[0].size < 2000 else ("forward",)))


def apart():
    for dtype in DTYPES:
        for layout in LAYOUTS:
            for shape in ((40, 33), (300, 20), (9, 600)):
                x, y = laid_out(normal(shape, dtype, 1), layout), normal((shape[0], 1), dtype, 2)
                for axis in ((0, 1), (0,), (1,)):
                    yield Case("x - y", (x, y), None, "sum", axis)
                    yield Case("x", (x,), None, "max", axis)
                    if len(axis) == 1:  # into every other element, forwards and backwards
                        n = shape[1 - axis[0]]
                        yield Case("x", (x,), np.zeros(2 * n, dtype)[::2], "sum", axis)
                        yield Case("x", (x,), np.zeros(2 * n, dtype)[::-2], "min", axis)


def test_reductions_of_what_lies_apart():
    for case in apart():
        check(case, case.run())


def with_nan():
    for dtype in DTYPES:
        for at in (0, 17, 1029):
            x = normal((3, 1030), dtype)
            x[1, at] = np.nan
            for reduce in REDUCTIONS:
                for axis in ((0, 1), (1,), (0,)):
                    yield Case("x", (x,), None, reduce, axis)


def test_not_a_number_comes_through_every_reduction():
    for case in with_nan():
        with np.errstate(all="ignore"):
            expected = np.isnan(getattr(np, case.reduce)(case.arrays[0], axis=case.axis))
        np.testing.assert_array_equal(np.isnan(case.run()), expected)


def long_ones():
    rng = np.random.default_rng(0)
    yield Case("x", (rng.uniform(0, 1, (60_000, 3)).astype("float32"),), None, "sum", (0,))
    yield Case("x", (rng.uniform(0, 1, (2, 50_000)).astype("float32"),), None, "sum", (1,))
    yield Case("x", (rng.uniform(0, 1, 150_001).astype("float32"),), None, "mean", (0,))
    x = rng.uniform(0, 1, (3, 20_000, 2)).astype("float32")
    yield Case("x", (x,), None, "sum", (1,))
    yield Case("x", (np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, 2)), 2, 1),), None, "max", (1,))


def test_sums_of_many_are_near():
    for case in long_ones():
        calls, _ = case.calls()
        assert len(launches(calls)) == 2, "by several blocks"
        expected = getattr(np, case.reduce)(case.in_double(), axis=case.axis)
        np.testing.assert_allclose(case.run(), expected, rtol=5e-7)


def of_integers():
    x = np.arange(-60, 60).reshape(8, 15)
    for dtype in ("int64", "int32"):
        for reduce in ("sum", "max", "min"):
            for axis in ((0, 1), (0,), (1,)):
                shape = x.sum(axis).shape
                yield Case("x * 2", (x.astype(dtype),), np.zeros(shape, dtype), reduce, axis)


def test_reductions_of_integers():
    for case in of_integers():
        np.testing.assert_array_equal(case.run(), getattr(np, case.reduce)(case.arrays[0] * 2, case.axis))


def of_nothing():
    for shape, axis in (((0,), (0,)), ((3, 0), (1,)), ((0, 3), (0,)), ((0, 4), (1,)), ((0, 0), (0, 1))):
        yield Case("x", (np.zeros(shape, "float32"),), None, "sum", axis)


def test_the_sum_of_nothing_is_zero():
    for case in of_nothing():
        np.testing.assert_array_equal(case.run(), case.arrays[0].sum(case.axis))


def test_results_are_the_same_whatever_the_order_of_threads(harness):
    """All three orders are compared to the bit by the harness."""
    for shape, axis in (((4000, 5), (0,)), ((3, 20_001), (1,)), ((20_000,), (0,))):
        Case("x", (normal(shape, "float32"),), None, "sum", axis).run(harness.ORDERS)


# ---- operations of the table ----


def operations():
    for name in NAMES:
        for dtype in DTYPES:
            for arrays, attributes in cases(name, SIZES, dtype):
                for layout in ("line", "aligned"):
                    yield name, arrays, attributes, layout
    for dtype in DTYPES:
        for n in (1, 7, 64, 1000, 20_000):
            yield "mse", [normal((n,), dtype, 1), normal((n,), dtype, 2)], {}, "aligned"


def test_operations_of_the_table_are_as_the_reference_computes_them():
    for name, arrays, attributes, layout in operations():
        found = run(name, arrays, attributes, layout, declined=None, orders=("forward",))
        near(found, reference(name, arrays, attributes), f"{name} {attributes}")


def test_parts_share_what_is_long():
    """Blocks enough for the device, and no more launches than two."""
    x, out = np.zeros((1 << 20,), "float32"), np.zeros((), "float32")
    launch = importlib.import_module("tinynet.kernels.cuda.launch")
    calls = bound("sum", out, [x], {"axis": (0,), "keepdims": False})
    assert all(function is launch.run for function, _ in calls)
    first, second = (arguments[0] for _, arguments in calls)
    assert first.grid == (1, 256, 1) and second.grid == (1, 1, 1) and second.file == "reductions"


# ---- the place of the largest ----


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_place_of_the_largest_is_the_first_of_equals(dtype):
    rng = np.random.default_rng(0)
    for shape in ((1,), (7,), (300,), (9, 40), (40, 9), (1500, 2), (2, 33, 5)):
        x = rng.integers(-9, 9, shape).astype(dtype)
        special = x.copy()
        special[..., -1], special[..., 0] = -np.inf, np.inf
        for axis in (None, *range(len(shape))):
            for given in (x, special, np.where(special > 0, np.nan, x).astype(dtype), np.full(shape, -np.inf, dtype)):
                keepdims = axis == 0
                found = run("argmax", [given], {"axis": axis, "keepdims": keepdims}, orders=("forward",))
                np.testing.assert_array_equal(found[0], given.argmax(axis, keepdims=keepdims))


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_place_of_the_largest_in_samples(dtype):
    for arrays, attributes in cases("argmax", SIZES, dtype):
        for layout in ("line", "rows"):
            found = run("argmax", arrays, attributes, layout, declined=None)
            np.testing.assert_array_equal(found, reference("argmax", arrays, attributes))
