"""How kernels go over arrays of one shape: which axes are merged, and how many neighbours are loaded at once.

Shapes, strides and addresses only, counted in elements, whichever library's arrays they are. An axis of size 1 is
dropped; axes that every array crosses with one stride become one.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

from .encoding import WIDE, address


class Walk(NamedTuple):
    """Axes as they are walked, outermost first; at least one.

    Attributes:
        sizes: of the axes.
        strides: of each array, along them; 0 where it is repeated.
        reduced: whether each axis is reduced.
    """

    sizes: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]
    reduced: tuple[bool, ...]


def over(array, shape, itemsize: int | None = None) -> tuple[int, ...] | None:
    """Strides of an array that is broadcast to a shape; None where they are no whole numbers of elements."""
    size = itemsize or array.dtype.itemsize
    steps = [0 if n == 1 else step for n, step in zip(array.shape, array.strides)]
    if any(step % size for step in steps):
        return None
    return (0,) * (len(shape) - len(steps)) + tuple(step // size for step in steps)


@functools.lru_cache(maxsize=1024)
def walk(shape: tuple[int, ...], strides: tuple, reduced: tuple[int, ...] = (), leading: int = 0) -> Walk:
    """Merges the axes of a shape.

    Args:
        strides: of each array, as ``over`` gives them.
        reduced: axes that are reduced.
        leading: the array whose memory the walk follows.
    """
    axes = [i for i, n in enumerate(shape) if n != 1]
    if all(strides[leading][i] for i in axes):
        axes.sort(key=lambda i: -abs(strides[leading][i]))  # stable
    merged: list[tuple[int, list[int], bool]] = []
    for i in axes:
        n, steps, flag = shape[i], [each[i] for each in strides], i in reduced
        if merged:
            before, outer, same = merged[-1]
            if same == flag and all(far == near * n for far, near in zip(outer, steps)):
                merged[-1] = before * n, steps, flag
                continue
        merged.append((n, steps, flag))
    if not merged:
        merged.append((1, [1] * len(strides), bool(reduced)))
    sizes, steps, flags = zip(*merged)
    return Walk(sizes, tuple(zip(*steps)), flags)


def pack(found: Walk, axis: int, arrays, sizes) -> int:
    """How many neighbours along an axis all arrays that move along it give at once; 1 where that is not possible.

    Args:
        arrays: ``None`` for one that is not looked at.
        sizes: bytes of an element of each.
    """
    moving = [
        (array, steps, size)
        for array, steps, size in zip(arrays, found.strides, sizes)
        if array is not None and steps[axis]
    ]
    if not moving or any(steps[axis] != 1 for _, steps, _ in moving):
        return 1
    count = WIDE // max(size for _, _, size in moving)
    if len(found.sizes) > 1 and found.sizes[axis] % count:
        return 1
    for array, steps, size in moving:
        others = [step for i, step in enumerate(steps) if i != axis]
        if address(array) % (count * size) or any(step % count for step in others):
            return 1
    return count
