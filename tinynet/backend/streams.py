"""Random streams on the host: every consumer of randomness has a seed and a stream number of its own.

Numbers are a function of (seed, stream, step) and of nothing else (counter-based generation, Salmon et al., "Parallel
random numbers: as easy as 1, 2, 3", SC 2011), so that a run repeats whatever was drawn elsewhere in between. Initial
weights and shuffles come from here; dropout masks are made by a kernel from the same three numbers.
"""

from __future__ import annotations

import itertools
import os

import numpy as np

from tinynet.errors import ArgumentError

_seed = int.from_bytes(os.urandom(7))
_streams = itertools.count()


def seed(n: int) -> None:
    """Seeds every random stream of the process: what is created after this call repeats.

    Args:
        n: a non-negative integer below 2**64.

    Raises:
        ArgumentError: anything else.
    """
    global _seed, _streams
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or not 0 <= n < 2**64:
        raise ArgumentError("seed", expected="an integer from 0 to 2**64 - 1", got=repr(n))
    _seed, _streams = int(n), itertools.count()


def process_seed() -> int:
    return _seed


def new_stream() -> int:
    """A stream number that nobody else has had since the process was seeded."""
    return next(_streams)


def generator(stream: int, seed: int | None = None, step: int = 0) -> np.random.Generator:
    """NumPy's generator at the beginning of (seed, stream, step)."""
    key = _seed if seed is None else seed
    key, counter = np.array([key, stream], np.uint64), np.array([0, 0, 0, step], np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))
