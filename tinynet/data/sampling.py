"""The randomness of this room: permutations and splits that depend on a seed and on nothing else.

Both are drawn from Philox, a counter-based generator: what comes out is a function of (seed, stream, step),
never of what was drawn before. Only indices are made here; :mod:`.dataset` and :mod:`.order` gather.
"""

from __future__ import annotations

import heapq
import operator

import numpy as np

from tinynet.errors import ArgumentError, ShapeError

__all__ = ["check_seed", "permutation", "split_indices"]

# Streams keep the uses apart: a split and the first epoch of a loader with the same seed share no draw.
SHUFFLE, SPLIT, BLOCKS, WINDOW = 0, 1, 2, 3


def check_seed(seed: int, where: str) -> int:
    """Return ``seed`` as an int of 64 bits; raise ArgumentError otherwise."""
    try:
        value = operator.index(seed)
    except TypeError:
        value = -1
    if not 0 <= value < 2**64:
        raise ArgumentError(where, expected="a seed from 0 to 2**64 - 1", got=repr(seed), mend="give an integer")
    return value


def permutation(n: int, seed: int, *, stream: int = SHUFFLE, step: int = 0, part: int = 0) -> np.ndarray:
    """A permutation of ``range(n)``: int64, shape (n,), the same for the same (n, seed, stream, step, part)."""
    key = np.array([seed, step], dtype=np.uint64)
    counter = np.array([0, 0, part, stream], dtype=np.uint64)  # the low words count the draws
    return np.random.Generator(np.random.Philox(counter=counter, key=key)).permutation(n)


def split_indices(n: int, fraction: float, seed: int, labels=None) -> tuple[np.ndarray, np.ndarray]:
    """Divide ``range(n)`` at random into two parts, of which the first holds ``round(fraction * n)``.

    Args:
        n: how many samples there are.
        fraction: share of the first part, in [0, 1]. Strictly between 0 and 1, neither part is left empty
            (as far as two samples or more allow it).
        seed: makes the choice; the same seed makes the same choice.
        labels: class of each sample, shape (n,), of any sortable dtype. With them every class is divided in the
            same proportion, to within one sample; and as far as the sizes allow, every class is in the first
            part, and every class of two samples or more in both.

    Returns:
        Two int64 arrays of indices, each in ascending order: a split does not reorder what it divides.

    Raises:
        ArgumentError: fraction or seed outside its range.
        ShapeError: labels not of shape (n,).
    """
    seed = check_seed(seed, "split")
    if not 0 <= fraction <= 1:  # also false for NaN
        raise ArgumentError(
            "split", expected="a fraction from 0 to 1", got=repr(fraction), mend="give the share of the first part"
        )
    total = round(fraction * n)
    if n >= 2 and 0 < fraction < 1:
        total = min(max(total, 1), n - 1)

    order = permutation(n, seed, stream=SPLIT)
    in_first = np.zeros(n, dtype=bool)
    if labels is None:
        in_first[order[:total]] = True
    else:
        labels = np.asarray(labels)
        if labels.shape != (n,):
            raise ShapeError(
                "split", expected=f"labels of shape ({n},)", got=str(labels.shape), mend="give one label per sample"
            )
        _, codes, counts = np.unique(labels, return_inverse=True, return_counts=True)
        taken = _apportion(counts, fraction, total)
        grouped = order[np.argsort(codes[order], kind="stable")]  # by class, shuffled within each
        rank = np.arange(n) - np.repeat(np.cumsum(counts) - counts, counts)
        in_first[grouped] = rank < np.repeat(taken, counts)
    return np.flatnonzero(in_first), np.flatnonzero(~in_first)


def _apportion(counts: np.ndarray, fraction: float, total: int) -> np.ndarray:
    """How many of each class go to the first part, ``total`` in all: the method of largest remainders, with bounds."""
    divisible = counts >= 2
    low = np.minimum(counts, 1) if len(counts) <= total else np.zeros_like(counts)
    high = counts - divisible if divisible.sum() <= counts.sum() - total else counts
    quota = counts * fraction
    taken = np.clip(np.floor(quota).astype(counts.dtype), low, high)

    missing = total - int(taken.sum())
    step, limit = (1, high) if missing > 0 else (-1, low)
    # A heap, because an integer target may have as many classes as samples.
    surplus = [(step * (taken[c] - quota[c]), c) for c in range(len(counts)) if taken[c] != limit[c]]
    heapq.heapify(surplus)
    for _ in range(abs(missing)):
        gap, c = surplus[0]
        taken[c] += step
        if taken[c] == limit[c]:
            heapq.heappop(surplus)
        else:
            heapq.heapreplace(surplus, (gap + 1, c))
    return taken
