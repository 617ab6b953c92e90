"""Kernels for CUDA that move elements, run on a processor: copies, fills, transpositions, gathers, one-hot rows."""

import importlib
import itertools

import numpy as np
import pytest
from native_runs import SIZES, assert_close, cases, complete, reference
from runs import bound, run

MOVING = (
    "alias", "broadcast_to", "assign", "reshape", "expand_dims", "squeeze", "transpose", "concatenate", "stack",
    "getitem", "setitem_zeros", "pad", "take", "one_hot", "scatter_add",
)  # fmt: skip
ANY = ("float32", "float64", "int64", "int32", "int16", "uint8", "bool", "complex64", "complex128")

pytestmark = pytest.mark.usefixtures("harness")


def copied(harness, x, out=None, **options):
    """x, by the kernel of assign."""
    out = np.zeros(x.shape, x.dtype) if out is None else out
    calls = bound("assign", out, [out, x], {})
    harness.run(calls, **options)
    return out


@pytest.mark.parametrize("name", MOVING)
def test_samples_are_as_the_reference_computes_them(name):
    for dtype in ("float32", "float64"):
        for arrays, attributes in cases(name, SIZES, dtype):
            for layout in ("line", "rows", "aligned", "aligned rows"):
                found = run(name, arrays, attributes, layout, declined=None, orders=("forward",))
                expected = reference(name, arrays, attributes)
                if name == "scatter_add":
                    assert_close(found, expected, attributes)
                else:
                    np.testing.assert_array_equal(found, expected, str(attributes))


@pytest.mark.parametrize("dtype", ANY)
def test_elements_of_any_type(harness, dtype):
    for shape in ((), (7,), (64,), (5, 16), (12, 9), (3, 40, 2)):
        x = np.random.default_rng(0).integers(0, 100, shape).astype(dtype)
        np.testing.assert_array_equal(copied(harness, x), x)
        np.testing.assert_array_equal(copied(harness, x.T), x.T)
        for value in (x[..., :1] if shape else x, np.asarray(x.ravel()[0])):
            (found,) = run("assign", [np.zeros(shape, dtype), np.asarray(value)], orders=("forward",))
            np.testing.assert_array_equal(found, np.broadcast_to(value, shape))


def test_lines_and_rows_are_moved_by_16_bytes_where_they_may_be():
    held = np.zeros(4096, "uint8")
    at = -held.ctypes.data % 64
    for first, shape, dtype, name in (
        (0, (64,), "float32", "copy1_16"), (8, (64,), "float32", "copy1_8"), (4, (64,), "float32", "copy1_4"),
        (0, (62,), "float32", "copy1_8"), (0, (63,), "float64", "copy1_8"), (0, (64,), "uint8", "copy1_16"),
        (0, (63,), "uint8", "copy1_1"), (0, (6,), "int16", "copy1_4"),
    ):  # fmt: skip
        x = held[at + first :][: shape[0] * np.dtype(dtype).itemsize].view(dtype)
        out = held[at + 2048 + first :][: x.nbytes].view(dtype)
        (call,) = bound("assign", out, [out, x], {})
        assert call[1][0].function == name, (first, shape, dtype)


def test_copies_between_layouts(harness):
    """Strides of either sign, axes that merge and that do not, in both."""
    rng, held = np.random.default_rng(0), np.arange(7 * 6 * 5 * 8, dtype="float32").reshape(7, 6, 5, 8)
    for _ in range(40):
        order = rng.permutation(4)
        x = held[tuple(slice(None, None, int(rng.choice([1, 1, 2, -1]))) for _ in range(4))].transpose(order)
        into = np.zeros((2 * np.array(x.shape)), "float32")
        out = into[tuple(slice(None, 2 * n, 2) if rng.random() < 0.3 else slice(n) for n in x.shape)]
        np.testing.assert_array_equal(copied(harness, x, out, orders=("forward",)), x)
        assert np.count_nonzero(into) == np.count_nonzero(x)


@pytest.mark.parametrize(
    "shape", [(8, 8), (31, 33), (32, 32), (33, 31), (65, 9), (100, 64), (9, 200), (3, 40, 50), (2, 3, 9, 33)]
)
@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8", "int16", "complex128"])
def test_transpositions_go_through_tiles(harness, dtype, shape):
    x = np.random.default_rng(0).integers(0, 100, shape).astype(dtype)
    for axes in itertools.permutations(range(x.ndim)):
        view = x.transpose(axes)
        out = np.zeros(view.shape, dtype)
        calls = bound("transpose", out, [x], {"axes": axes})
        (launch,) = (arguments[0] for _, arguments in calls)
        if axes[-1] != x.ndim - 1 and min(shape[-1], shape[axes[-1]]) >= 8:
            assert launch.function.startswith("transpose")
        harness.run(calls, ("forward", "shuffled") if shape == (31, 33) else ("forward",))
        np.testing.assert_array_equal(out, view)
    padded = np.zeros((*shape[:-1], shape[-1] + 3), dtype)[..., : shape[-1]]
    padded[...] = x
    np.testing.assert_array_equal(copied(harness, padded.swapaxes(-1, -2), orders=("forward",)), x.swapaxes(-1, -2))


def test_borders_are_filled_with_any_number():
    for dtype, value in (("float32", 0.5), ("float64", -1e300), ("int64", -7), ("int32", 2**31 - 1), ("int16", 3)):
        for n in (0, 1, 16, 33):
            x = np.arange(2 * n).reshape(2, n).astype(dtype)
            for widths in (((1, 0), (2, 3)), ((0, 2), (4, 0)), ((0, 0), (0, 0))):
                attributes = {"widths": widths, "value": value}
                (found,) = run("pad", [x], attributes, orders=("forward",))
                np.testing.assert_array_equal(found, np.pad(x, widths, constant_values=value))


def test_indices_of_every_integer_type(harness):
    x = np.random.default_rng(0).standard_normal((5, 9, 6)).astype("float32")
    for kind in ("int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8"):
        indices = np.array([[0, 4, 3], [2, 2, 1]], kind)
        if kind.startswith("i"):
            indices -= 2
        for axis in (0, 1, 2):
            (found,) = run("take", [x, indices], {"axis": axis}, orders=("forward",))
            np.testing.assert_array_equal(found, np.take(x, indices.astype("int64"), axis))
        attributes = {"classes": 5}
        (found,) = run("one_hot", [indices], attributes, orders=("forward",))
        np.testing.assert_array_equal(found, reference("one_hot", [indices.astype("int64")], attributes)[0])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rows_are_added_where_indices_repeat(dtype):
    x = np.random.default_rng(0).standard_normal((3, 70, 5)).astype(dtype)
    x[0, 3, 2], x[1, 5, 1] = np.inf, np.nan
    for kind in ("int64", "int32", "uint8"):
        indices = np.random.default_rng(1).integers(0, 7, 70).astype(kind)
        attributes = {"axis": 1, "size": 9}
        found = run("scatter_add", [x, indices], attributes, orders=("forward",))
        assert_close(found, reference("scatter_add", [x, indices.astype("int64")], attributes))


def test_an_index_out_of_range_touches_nothing():
    """The program has checked them; memory is safe even if somebody has not."""
    x = np.arange(12, dtype="float32").reshape(3, 4)
    indices = np.array([3, -4, 2, 2**40, -(2**63), -3])
    (found,) = run("take", [x, indices], {"axis": 0})
    np.testing.assert_array_equal(found, [[0] * 4, [0] * 4, x[2], [0] * 4, [0] * 4, x[0]])
    (found,) = run("scatter_add", [found, indices], {"axis": 0, "size": 3})
    np.testing.assert_array_equal(found, [x[0], [0] * 4, x[2]])


def test_what_is_declined_is_computed_all_the_same():
    launch = importlib.import_module("tinynet.kernels.cuda.launch")
    x = np.arange(10, dtype="float32")
    calls = bound("assign", x[1:], [x[1:], x[:-1]], {})  # over a part of itself
    deep = np.zeros((2,) * 12, "float32")
    odd = deep.transpose(list(range(0, 12, 2)) + list(range(1, 12, 2)))
    for each in (calls, bound("assign", np.zeros_like(deep), [deep, odd], {})):
        assert all(function is not launch.run for function, _ in each)
    attributes, (spec,) = complete("reshape", [x.reshape(2, 5).T], {"shape": (10,)})
    out = np.empty(*spec)
    for function, arguments in bound("reshape", out[::-1], [x.reshape(2, 5).T[:, ::-1]], attributes):
        function(*arguments)
    np.testing.assert_array_equal(out[::-1], x.reshape(2, 5).T[:, ::-1].ravel())
