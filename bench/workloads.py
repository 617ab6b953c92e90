"""What is measured: the networks, their first weights, their batches, and what a right answer is.

Everything comes from one seeded NumPy generator, so that every peer starts from the same weights and sees the same
batches. The reference is written in plain float64, without any thought of speed; a peer is timed only after its losses
and outputs have been held against it. Nothing here knows of a peer, a process or a clock.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

LEARNING_RATE, BETA1, BETA2, EPSILON = 1e-3, 0.9, 0.999, 1e-8
CHECKED_STEPS = 5
TOLERANCE = 1e-3  # of a float32 loss, relative
BATCHES = 8  # in a ring


@dataclass(frozen=True)
class Network:
    """A dense network with relu between its layers, the batch it is trained with, and its loss."""

    sizes: tuple[int, ...]
    batch: int
    loss: str = "cross_entropy"  # or "mse"
    name: str = ""

    def __str__(self) -> str:
        return self.name or "-".join(map(str, self.sizes))


NETWORKS = (
    Network((2, 16, 16, 1), 32, "mse"),
    Network((64, 32, 10), 32),
    Network((784, 128, 10), 64),
    Network((784, 512, 512, 10), 128),
    Network((1024, 2048, 2048, 10), 512),
    Network((64,) * 33 + (10,), 128, name="64-(64 x 32)-10"),
)
BY_NAME = {str(network): network for network in NETWORKS}
INFERENCE_BATCHES = (1, 64, 1024)


def weights(network: Network, seed: int = 0) -> list[np.ndarray]:
    """W0, b0, W1, b1, ... in float32: W of shape (inputs, outputs), normal with variance 2 / inputs (He et al. 2015),
    1 / inputs in the last layer; b zero."""
    rng = np.random.default_rng([seed, 1])
    made = []
    for i, (n, m) in enumerate(itertools.pairwise(network.sizes)):
        gain = 1 if i == len(network.sizes) - 2 else 2
        made += [rng.standard_normal((n, m), dtype="float32") * np.float32((gain / n) ** 0.5), np.zeros(m, "float32")]
    return made


def batches(network: Network, count: int = BATCHES, seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    """``count`` pairs (x, y), for a ring that is gone round thousands of times.

    Each input comes twice, with other targets: no network can fit both, so that gradients never fade into the
    denormal numbers, which processors compute slowly.
    """
    rng = np.random.default_rng([seed, 2])
    made = []
    for i in range(count):
        x = made[-1][0] if i % 2 else rng.standard_normal((network.batch, network.sizes[0]), dtype="float32")
        if network.loss == "mse":
            y = rng.standard_normal((network.batch, network.sizes[-1]), dtype="float32")
        else:
            y = rng.integers(0, network.sizes[-1], network.batch)
        made.append((x, y))
    return made


def inputs(network: Network, batch: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, 3, batch]).standard_normal((batch, network.sizes[0]), dtype="float32")


def reference_outputs(parameters: list[np.ndarray], x: np.ndarray) -> list[np.ndarray]:
    """What enters each layer, and at the end what the network gives; in float64."""
    values = [x.astype("float64")]
    pairs = list(zip(parameters[::2], parameters[1::2]))
    for i, (w, b) in enumerate(pairs):
        z = values[-1] @ w.astype("float64") + b
        values.append(z if i == len(pairs) - 1 else np.maximum(z, 0))
    return values


def reference_losses(network: Network, steps: int = CHECKED_STEPS, seed: int = 0) -> list[float]:
    """The losses of the first steps of Adam (Kingma and Ba, ICLR 2015, Algorithm 1), in float64."""
    parameters = [p.astype("float64") for p in weights(network, seed)]
    m, v = ([np.zeros_like(p) for p in parameters] for _ in range(2))
    ring, losses = batches(network, seed=seed), []
    for t in range(1, steps + 1):
        x, y = ring[(t - 1) % len(ring)]
        *values, out = reference_outputs(parameters, x)
        if network.loss == "mse":
            losses.append(float(np.mean((out - y) ** 2)))
            g = 2 * (out - y) / out.size
        else:
            p = np.exp(out - out.max(axis=1, keepdims=True))
            p /= p.sum(axis=1, keepdims=True)
            rows = np.arange(len(y))
            losses.append(float(-np.log(p[rows, y]).mean()))
            p[rows, y] -= 1
            g = p / len(y)
        gradients: list[np.ndarray] = []
        for i in reversed(range(len(values))):
            gradients[:0] = [values[i].T @ g, g.sum(axis=0)]
            g = (g @ parameters[2 * i].T) * (values[i] > 0)
        for i, g in enumerate(gradients):
            m[i] = BETA1 * m[i] + (1 - BETA1) * g
            v[i] = BETA2 * v[i] + (1 - BETA2) * g**2
            rate = LEARNING_RATE / (1 - BETA1**t)
            parameters[i] = parameters[i] - rate * m[i] / (np.sqrt(v[i] / (1 - BETA2**t)) + EPSILON)
    return losses


# Variants of tinynet in the memory section -> their budget, of the workspace that is planned without one.
BUDGETS = {"budget": 1.0, "lean": 0.8, "leanest": 0.7}

# Elementwise work over arrays that no cache holds: name -> bytes moved for each element of float32.
ELEMENTWISE_BYTES = {"chain": 12, "adam": 28, "copy": 8, "in place": 8}
ELEMENTWISE_TITLES = {"chain": "x sigmoid(x) + y", "adam": "Adam update"}
ELEMENTWISE_ARRAYS = {"chain": 3, "adam": 4, "copy": 2, "in place": 1}  # that lie in memory


def elementwise_arrays(kind: str, count: int) -> list[np.ndarray]:
    """What is given: x and y of the chain, parameters and gradients of Adam, whose moments begin as zeros."""
    tile = np.random.default_rng([4, len(kind)]).standard_normal(2**20 + 7, dtype="float32")
    return [np.resize(np.roll(tile, 1000 * i), count) for i in range(min(2, ELEMENTWISE_ARRAYS[kind]))]


def elementwise_expected(kind: str, count: int) -> np.ndarray:
    """The chain's result, or the parameters after one update, over the first elements, in float64."""
    a, b = (each[:1000].astype("float64") for each in elementwise_arrays(kind, min(count, 1000)))
    if kind == "chain":
        return a / (1 + np.exp(-a)) + b
    return a - LEARNING_RATE * b / (np.abs(b) + EPSILON)


def relative_error(found, expected) -> float:
    """The largest difference over the largest expected value; infinite where something is not finite."""
    found, expected = np.asarray(found, "float64"), np.asarray(expected, "float64")
    if found.shape != expected.shape or not np.isfinite(found).all():
        return float("inf")
    return float(np.max(np.abs(found - expected), initial=0) / max(np.max(np.abs(expected), initial=0), 1e-30))
