"""The training runs that are compared with PyTorch's: networks, weights and batches, exact on every machine.

All numbers come from a hash of integers (splitmix64; Steele, Lea and Flood, OOPSLA 2014), so that they do not depend on
any library's random generator.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

STEPS = 200


class Case(NamedTuple):
    """One run: layer sizes, batch size, loss ("ce" or "mse"), optimizer ("gd" with momentum or "adam"), rate, dtype."""

    sizes: tuple[int, ...]
    batch: int
    loss: str
    optimizer: str
    lr: float
    dtype: str

    @property
    def name(self) -> str:
        return f"{'-'.join(map(str, self.sizes))}-{self.loss}-{self.optimizer}-{self.dtype}"


CASES = [
    Case(sizes, batch, loss, optimizer, lr, dtype)
    for sizes, batch, loss, rates in (((784, 128, 10), 64, "ce", (0.05, 1e-3)), ((8, 32, 1), 32, "mse", (0.02, 1e-2)))
    for optimizer, lr in zip(("gd", "adam"), rates)
    for dtype in ("float32", "float64")
]
MOMENTUM = 0.9


def uniform(stream: int, *shape: int) -> np.ndarray:
    """Numbers in [0, 1), float64, a function of the stream and the position."""
    z = np.arange(1, int(np.prod(shape)) + 1, dtype=np.uint64) + np.uint64(stream << 32)
    z = z * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((z ^ (z >> np.uint64(31))) >> np.uint64(11)).astype(np.float64).reshape(shape) / 2**53


def weights(case: Case) -> list[tuple[np.ndarray, np.ndarray]]:
    """(W of shape (in, out), b) for each layer: uniform within 1/sqrt(in)."""
    layers = []
    for i, (n, m) in enumerate(zip(case.sizes, case.sizes[1:])):
        bound = n**-0.5
        w, b = ((2 * uniform(10 * i + k, *shape) - 1) * bound for k, shape in ((1, (n, m)), (2, (m,))))
        layers.append((w.astype(case.dtype), b.astype(case.dtype)))
    return layers


def batch(case: Case, step: int) -> tuple[np.ndarray, np.ndarray]:
    """The batch of a step; targets are a fixed function of the inputs, so that there is something to learn."""
    x = uniform(1000 + step, case.batch, case.sizes[0])
    if case.loss == "ce":
        teacher = uniform(999, case.sizes[0], case.sizes[-1]) - 0.5
        return x.astype(case.dtype), (x @ teacher).argmax(axis=1)
    y = np.abs(x - 0.5).sum(axis=1, keepdims=True) - x[:, :1] * x[:, 1:2]
    return x.astype(case.dtype), y.astype(case.dtype)
