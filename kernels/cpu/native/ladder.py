"""The ladder's steps in order, and how one of them is checked and timed alone."""

from __future__ import annotations

import importlib
import time

import numpy as np

from .ceiling import peak

STEPS = ("naive", "blocked", "packed", "tiled", "fused")


def step(name: str):
    """The compiled function of a step: ``function(c, a, b, scratch)`` for row-major float32."""
    return importlib.import_module("." + name, __package__).kernel()


def expected(name: str, a, b, scratch):
    """What a step computes, in float64."""
    exact = a.astype("float64") @ b.astype("float64")
    return np.maximum(exact + scratch[: b.shape[1]], 0) if name == "fused" else exact


def aligned(shape, dtype="float32"):
    """Zeros whose address is a multiple of 64, as the arena's are."""
    nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    room = np.zeros(nbytes + 64, "uint8")
    start = -room.ctypes.data % 64
    return room[start : start + nbytes].view(dtype).reshape(shape)


def small_integers(shape, seed: int, dtype="float32"):
    """Numbers whose products and sums are exact, so that results can be compared for equality."""
    made = aligned(shape, dtype)
    made[...] = np.random.default_rng(seed).integers(-3, 4, shape)
    return made


def show(name: str, m: int = 256, k: int = 256, n: int = 256) -> None:
    """Checks a step against float64, then prints its speed."""
    function, c, scratch = step(name), aligned((m, n)), small_integers((8192 + n,), 2)
    a, b = small_integers((m, k), 0), small_integers((k, n), 1)
    correct = expected(name, a, b, scratch)
    function(c, a, b, scratch)
    np.testing.assert_array_equal(c, correct)
    best, until = float("inf"), time.perf_counter() + 0.5
    while (start := time.perf_counter()) < until:
        function(c, a, b, scratch)
        best = min(best, time.perf_counter() - start)
    speed, limit = 2 * m * k * n / best / 1e9, peak() / 1e9
    print(f"{name}: {m} x {k} x {n} float32, {speed:.1f} GFLOP/s, {speed / limit:.0%} of the core's {limit:.0f}")
