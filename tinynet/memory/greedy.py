"""Placement by one rule in one order: first fit, best fit and stacking, and the orders worth trying.

Each is one pass, fast and without regret. Order and rule matter in different places:

- *lifetime*, longest first, reaches the bound on nested lifetimes, the shape of a chain's forward and backward pass:
  whatever conflicts with a tensor and is already there contains it, so it lies on a gapless stack.
- *size*, largest first, is what TensorFlow Lite does (``greedy_by_size``; Pisarchyk and Lee, "Efficient memory
  management for deep neural net inference", 2020), and first fit in the order of *birth* is the planner of tinygrad.
- *contention* first places what lives at the moments with the highest load, where nothing may be wasted, and among
  those the longest-lived.

Blocks are those of ``conflicts``: sizes and offsets are in units of the alignment. Going back on a choice is the
business of ``search``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from .conflicts import Block

__all__ = ["ORDERS", "fit", "stack"]


def _by_lifetime(blocks, loads):
    return lambda i: (blocks[i][0] - blocks[i][1], -blocks[i][2])


def _by_contention(blocks, loads):
    worst = [max(loads[begin:end]) for begin, end, _ in blocks]
    return lambda i: (-worst[i], blocks[i][0] - blocks[i][1], -blocks[i][2])


def _by_contention_and_size(blocks, loads):
    worst = [max(loads[begin:end]) for begin, end, _ in blocks]
    return lambda i: (-worst[i], -blocks[i][2])


def _by_size(blocks, loads):
    return lambda i: (-blocks[i][2], blocks[i][0] - blocks[i][1])


def _by_area(blocks, loads):
    return lambda i: (blocks[i][0] - blocks[i][1]) * blocks[i][2]


def _by_birth(blocks, loads):
    return lambda i: (blocks[i][0], -blocks[i][1])


def _by_death(blocks, loads):
    return lambda i: (-blocks[i][1], blocks[i][0])


# Each makes a sort key from the blocks and the load at each moment; equal keys stay in the order of the input.
ORDERS: dict[str, Callable] = {
    "lifetime": _by_lifetime,
    "contention": _by_contention,
    "size": _by_size,
    "area": _by_area,
    "contention and size": _by_contention_and_size,
    "birth": _by_birth,
    "death": _by_death,
}


def fit(
    blocks: Sequence[Block],
    neighbours: Sequence[Sequence[int]],
    order: Iterable[int],
    placed: Sequence[int | None],
    best: bool = False,
) -> list[int | None]:
    """Offsets after placing blocks in an order, each into the lowest gap that holds it, or the tightest (``best``).

    Args:
        placed: offsets of what is already there, None for the others; it is not changed.

    Cost: O(d log d) for a block with d neighbours.
    """
    offsets = list(placed)
    taken = [None if at is None else (at, at + size) for at, (_, _, size) in zip(offsets, blocks)]
    for i in order:
        size, at, tightest, chosen = blocks[i][2], 0, None, None
        for low, high in sorted([taken[j] for j in neighbours[i] if taken[j]]):
            gap = low - at
            if gap >= size and (tightest is None or gap < tightest):
                tightest, chosen = gap, at
                if not best or gap == size:
                    break
            if high > at:
                at = high
        offsets[i] = at if chosen is None else chosen
        taken[i] = (offsets[i], offsets[i] + size)
    return offsets


def stack(
    blocks: Sequence[Block], ground: Sequence[int], order: Iterable[int], placed: Sequence[int | None]
) -> list[int | None]:
    """Offsets after laying each block on top of whatever lies highest in its lifetime; gaps are never filled.

    It lists no conflicts, so it serves where there are too many of them. Cost: the moments of all lifetimes together,
    at the speed of ``max`` over a slice. There is an order for which it gives an optimal plan (that plan's offsets,
    ascending), only nobody knows it beforehand.

    Args:
        ground: for each moment, the height to start from.
        placed: offsets of what is already there, below the ground, and None for the others; it is not changed.
    """
    heights, offsets = list(ground), list(placed)
    for i in order:
        begin, end, size = blocks[i]
        offsets[i] = at = max(heights[begin:end])
        heights[begin:end] = [at + size] * (end - begin)
    return offsets
