"""What tests of the vector machine share: it, a table in watched scratch, and what NumPy computes."""

import importlib

import native_checks
import numpy as np
import pytest

from tinynet.kernels import Expression

native = native_checks.native  # the fixture
GUARD = 0xA5


@pytest.fixture
def machine(native):
    return importlib.import_module("tinynet.kernels.cpu.native.elementwise")


@pytest.fixture
def pool(machine):
    found = importlib.import_module("tinynet.kernels.cpu.native.pool")
    yield found
    found.set_threads(None)


def table(kernel, out, *inputs, **attributes):
    """The kernel's instructions in scratch of exactly its size, and a check of what is around that."""
    instructions = importlib.import_module("tinynet.kernels.cpu.native.instructions")
    nbytes = kernel.scratch_bytes(out, *inputs, **attributes)
    held = np.full(nbytes + 192, GUARD, "uint8")
    start = 64 + -held.ctypes.data % 64
    calls = kernel.bind(out, *inputs, scratch=held[start : start + nbytes], **attributes)
    assert all(function is instructions.run for function, _ in calls), "declined"

    def run():
        if calls:
            instructions.Table([arguments[0] for _, arguments in calls])()
        assert (held[:start] == GUARD).all() and (held[start + nbytes :] == GUARD).all(), "scratch was left"

    run.instructions = [arguments[0] for _, arguments in calls]
    return run


def compute(machine, text, arrays, out=None, reduce=None, **attributes):
    """The expression of x, y, z, in memory with guards around the result if there is none for it."""
    names = ("x", "y", "z")[: len(arrays)]
    kernel = machine.derive(Expression(text, names), "test", reduce)
    with np.errstate(all="ignore"):
        like = Expression(text, names).function()(np, *arrays)
    shape, dtype = np.broadcast_shapes(*(x.shape for x in arrays)), like.dtype
    if reduce:
        shape = np.empty(shape, "bool").sum(axis=attributes["axis"], keepdims=attributes["keepdims"]).shape
    held = None
    if out is None:
        count = int(np.prod(shape))
        held = np.full((count + 6) * dtype.itemsize, GUARD, "uint8")
        out = held[3 * dtype.itemsize :][: count * dtype.itemsize].view(dtype).reshape(shape)
    table(kernel, out, *arrays, **attributes)()
    if held is not None:
        edge = 3 * dtype.itemsize
        assert (held[:edge] == GUARD).all() and (held[-edge:] == GUARD).all(), "memory beside the result was written"
    return out


def numpy_result(text, arrays):
    with np.errstate(all="ignore"):
        result = Expression(text, ("x", "y", "z")[: len(arrays)]).function()(np, *arrays)
    return np.broadcast_to(result, np.broadcast_shapes(*(x.shape for x in arrays)))


def wide(arrays):
    return [x.astype("float64") if x.dtype.kind == "f" else x for x in arrays]


def assert_close(found, expected, factor=4.0):
    """Within some units in the last place of the element type; infinities and NaN in the same places."""
    with np.errstate(all="ignore"):
        expected = np.asarray(expected).astype(found.dtype)
    eps = np.finfo(found.dtype).eps
    np.testing.assert_allclose(found, expected, rtol=factor * eps, atol=factor * eps)


def special_pairs(dtype):
    values = [0.0, -0.0, 1.0, -1.0, 0.5, 3.0, -2.5, 30.0, -30.0, np.inf, -np.inf, np.nan, np.finfo(dtype).tiny / 4]
    x, y = np.meshgrid(values, values)
    return x.ravel().astype(dtype), y.ravel().astype(dtype)


def normal(shape, dtype, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def dtype_of(dtype):
    return np.dtype(dtype).type
