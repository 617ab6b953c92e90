"""Matrix products as programs get them, beside cuBLAS and the most that the device multiplies at that precision.

The ceiling is the rate of a large product by a library in the same rounds: cuBLAS on float32 operands for "float32" and
"tf32", CuPy on 16-bit operands for "bf16", whose tensor cores are as fast on either format of 16 bits.

A step rounds an operand to bf16 once and multiplies it twice: forward and for a gradient, or for both gradients. So
two products of operands that were just rounded are measured, with the rounding, and half of that counts.
"""

from __future__ import annotations

import functools
import importlib
from typing import NamedTuple

import numpy as np

from tinynet import kernels

from .checks import distance
from .kernels import STATED, Calls, in_bf16, laid_out, product_of

CUBLAS, CEILING = "cuBLAS", "ceiling"
LARGEST, SMALLER = 8192, 4096  # sizes of the square product; the second where memory is short
ENOUGH = 8 * 2**30  # bytes
ROWS = 4  # that are looked at
ROUNDS = 9


class Shape(NamedTuple):
    """A product: C (m x n) = A (m x k) B (k x n), of which A or B is the transpose of what lies in memory."""

    layout: str
    m: int
    k: int
    n: int
    precision: str

    def __str__(self) -> str:
        return f"{self.layout} {self.m} x {self.k} x {self.n} {self.precision}"

    @property
    def flops(self) -> int:
        return 2 * self.m * self.k * self.n


# Of 4096-8192-8192-10 at batch 4096: forward, gradients of weights and of activations. Then smaller ones.
LARGE = tuple(
    Shape(layout, m, k, n, "bf16")
    for layout, m, k, n in (
        ("NN", 4096, 4096, 8192), ("NN", 4096, 8192, 8192), ("TN", 4096, 4096, 8192), ("TN", 8192, 4096, 8192),
        ("NT", 4096, 8192, 8192),
    )
)  # fmt: skip
SHAPES = (
    *LARGE, Shape("NN", 4096, 4096, 4096, "float32"), Shape("NN", 4096, 4096, 4096, "tf32"),
    Shape("NN", 512, 1024, 2048, "float32"),
)  # fmt: skip
BY_NAME = {str(shape): shape for shape in SHAPES}


def _module(name: str):
    return importlib.import_module(f"tinynet.kernels.cuda.{name}")


def _normal(rows: int, columns: int, seed: int) -> np.ndarray:
    tile = np.random.default_rng([8, seed]).standard_normal(2**20 + 7, dtype="float32")
    return np.resize(tile, (rows, columns))


def bound(device, shape: Shape, out, a, b) -> tuple[Calls, int]:
    """The calls of the kernel that the registry gives, at the precision of the shape; and how many products they are.
    """
    with kernels.using_precision(shape.precision):
        if not kernels.keeps_in_bf16("cuda", shape.m, shape.n, shape.k):
            return product_of(device.xp, "matmul", out, a, b), 1
        rounding, (a, b) = in_bf16(device.xp, a, b)
        return [*rounding, *2 * product_of(device.xp, kernels.of_bf16("matmul"), out, a, b)], 2


def measure(device, shape: Shape, rounds: int = ROUNDS) -> dict:
    """Seconds of each round: the kernel, cuBLAS, and what the ceiling needs for as many operations; and the error."""
    xp, (layout, m, k, n, precision) = device.xp, shape
    hosts = _normal(m, k, 1), _normal(k, n, 2)
    a, b = (laid_out(xp, x, "transposed" if t == "T" else "contiguous") for x, t in zip(hosts, layout))
    out = xp.full((m, n), np.nan, "float32")
    calls, count = bound(device, shape, out, a, b)
    device.run(calls)
    rows = slice(0, ROWS)
    error = distance(device.host(out[rows]), hosts[0][rows].astype("float64") @ hosts[1].astype("float64"))
    ways = {"tinynet": (calls, 1 / count)}
    (product,) = _module("matrices").products(out, a, b)
    if _module("blas").handle() is not None:
        ways[CUBLAS] = _library(product, precision), 1.0
        size = LARGEST if device.free_bytes() > ENOUGH else SMALLER
        ways[CEILING] = _largest(device, size, precision), shape.flops / (2 * size**3)
    samples: dict[str, list[float]] = {name: [] for name in ways}
    for i in range(-2, rounds):  # the first two are warm-up
        for name, (found, scale) in ways.items():
            seconds = scale * device.seconds(found)
            if i >= 0:
                samples[name].append(seconds)
    is_library = any(isinstance(function, _module("blas").Call) for function, _ in calls)
    return {
        "samples": samples, "flops": shape.flops, "error": error, "stated": STATED[precision],
        "by": CUBLAS if is_library else "own kernel",
    }  # fmt: skip


def _library(product, precision: str) -> Calls:
    return [(_module("blas").Call(_module("blas").gemm(product, precision)), ())]


def _largest(device, size: int, precision: str) -> Calls:
    """The call that multiplies square matrices of this size by the library."""
    xp = device.xp
    if precision == "bf16":
        one, other = (xp.array(_normal(size, size, seed).astype("float16")) for seed in (3, 4))
        out = xp.empty((size, size), "float16")
        return [(functools.partial(xp.matmul, one, other, out=out), ())]
    one, other = (xp.array(_normal(size, size, seed)) for seed in (3, 4))
    out = xp.empty((size, size), "float32")
    (product,) = _module("matrices").products(out, one, other)
    return _library(product, precision)
