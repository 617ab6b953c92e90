"""Families of planning problems: what programs look like, and what is hard."""

from __future__ import annotations

import random


def sizes(rng: random.Random) -> int:
    """Between 64 bytes and 4 MiB, evenly over the magnitudes."""
    return int(2 ** rng.uniform(6, 22))


def chain(rng: random.Random, n: int = 200) -> list[tuple[int, int, int]]:
    """A training step of a chain: what forward keeps, backward takes in reverse order. Lifetimes are nested."""
    half = n // 2
    return [(i, 2 * half - 1 - i, sizes(rng)) for i in range(half)]


def training(rng: random.Random, n: int = 200) -> list[tuple[int, int, int]]:
    """A training step with branches: kept activations, short-lived gradients, some skips over a few layers."""
    layers = n // 3
    end = 2 * layers
    found = []
    for i in range(layers):
        size = sizes(rng)
        found.append((i, end - i, size))
        found.append((i, min(i + rng.choice((1, 1, 1, 2, 6)), end), sizes(rng)))
        found.append((end - i - 1, min(end - i + rng.choice((0, 1, 1, 4)), end), size))
    return found


def graph(rng: random.Random, n: int = 200) -> list[tuple[int, int, int]]:
    """A random directed graph in topological order: each tensor dies with its last reader."""
    last = list(range(n))
    for i in range(1, n):
        for _ in range(rng.choice((1, 1, 2, 3))):
            reader = max(0, i - 1 - int(rng.expovariate(1 / 6)))
            last[reader] = max(last[reader], i)
    return [(i, max(last[i], i), sizes(rng)) for i in range(n)]


def intervals(rng: random.Random, n: int = 200) -> list[tuple[int, int, int]]:
    """Lifetimes without any structure: the hard case."""
    found = []
    for _ in range(n):
        first, last = sorted((rng.randrange(n), rng.randrange(n)))
        found.append((first, last, sizes(rng)))
    return found


FAMILIES = {"chain": chain, "training": training, "graph": graph, "intervals": intervals}
