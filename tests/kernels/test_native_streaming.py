"""The vector machine past the caches: what is written there, to any address, and when."""

import importlib

import elementwise_checks
import numpy as np
import pytest
from elementwise_checks import normal, table
from native_checks import DTYPES

from tinynet.kernels import Expression

machine = elementwise_checks.machine  # the fixture
native = elementwise_checks.native
pool = elementwise_checks.pool


@pytest.fixture
def streaming(machine, monkeypatch):
    """The module, on a machine whose caches hold nothing."""
    if not machine.machine.streams():
        pytest.skip("this processor has no vectors that are written past its caches")
    monkeypatch.setattr(machine.machine, "last_level_cache", lambda: 0)
    return machine


def streamed(kernel, out, *inputs) -> list[int]:
    """For each instruction whether it writes past the caches."""
    words = importlib.import_module("tinynet.kernels.cpu.native.elementwise_words")
    run = table(kernel, out, *inputs)
    run()
    return [each.words[words.STREAM] for each in run.instructions]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [1, 5, 17, 511, 512, 513, 1024, 5003])
def test_streams_to_any_address(streaming, pool, monkeypatch, n, dtype):
    x, y = normal((n,), dtype, 1), normal((n,), dtype, 2)
    kernel = streaming.derive(Expression("x * y - x", ("x", "y")), "test")
    assembly = importlib.import_module("tinynet.kernels.cpu.native.elementwise_assembly")
    monkeypatch.setattr(assembly, "useful_threads", lambda cost: pool.threads())
    monkeypatch.setattr(importlib.import_module("tinynet.kernels.cpu.native.instructions"), "WORTH_WAKING", -1)
    for threads in (1, 2, 3):
        pool.set_threads(threads)
        for offset in range(0, 17, 1 if n < 1000 else 4):
            held = np.full(n + 40, np.nan, dtype)
            start = -held.ctypes.data % 64 // held.itemsize + offset
            out = held[start : start + n]
            assert streamed(kernel, out, x, y) == [1]
            np.testing.assert_array_equal(out, x * y - x)
            out[...] = np.nan
            assert np.isnan(held).all(), "memory beside the result was written"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(3, 1501), (3, 1600), (70, 33), (5, 3, 700)])
def test_streams_rows(streaming, monkeypatch, shape, dtype):
    x, row, column = normal(shape, dtype, 1), normal(shape[-1:], dtype, 2), normal((*shape[:-1], 1), dtype, 3)
    for text in ("x * y - x", "x + 1 / y", "exp(y) * x"):
        for y in (x[::-1], row, column):
            kernel = streaming.derive(Expression(text, ("x", "y")), "test")
            found, expected = np.empty((2, *shape), dtype)
            assert streamed(kernel, found, x, y) == [1]
            with monkeypatch.context() as usual:
                usual.setattr(streaming.machine, "last_level_cache", lambda: 2**40)
                assert streamed(kernel, expected, x, y) == [0]
            np.testing.assert_array_equal(found, expected)


def test_what_is_read_again_is_not_streamed(streaming, monkeypatch):
    x, y = normal((3000,), "float32", 1), normal((3000,), "float32", 2)
    kernel = streaming.derive(Expression("x + y", ("x", "y")), "test")
    assert streamed(kernel, x, x, y) == [0]
    assert streamed(kernel, np.empty_like(x), x, y) == [1]
    monkeypatch.setattr(streaming.machine, "last_level_cache", lambda: 3 * x.nbytes)
    assert streamed(kernel, np.empty_like(x), x, y) == [0]
