"""How the vector machine goes over arrays: which axes are merged, what a block is, and which operands lie side by side.

Shapes and strides only. An axis of size 1 is dropped; axes that every array crosses with one stride become one. The two
innermost that are left are the rows and columns of the machine, the others are counted outside.
"""

from __future__ import annotations

import math
from typing import NamedTuple

# Bytes of a block in the type of the elements. float32 on one core, nanoseconds for an element of 8 M, and of 128 K:
#     x * (1 / (1 + exp(-x))) + y    2048: 0.55 0.52    4096: 0.64 0.55    8192: 0.67 0.59    16384: 0.73 0.66
#     x * y + x                      2048: 0.47 0.19    4096: 0.47 0.19    8192: 0.55 0.17    16384: 0.54 0.23
# Registers, arrays and what is fetched of them ahead have to fit into a first-level cache together.
BLOCK = 2048
LARGE = 32 * BLOCK  # where nothing is kept in registers
TILE = 16  # rows of a block where an operand runs downwards: as many floats as share a line of the cache


class Array(NamedTuple):
    """An array over the axes of a walk: address, bytes of an element, strides in bytes, 0 where it is broadcast."""

    base: int
    size: int
    strides: tuple[int, ...]


class Walk(NamedTuple):
    """The axes, outermost first, as they are walked.

    Attributes:
        sizes: of all axes, the last two the rows and columns.
        reduced: whether each axis is reduced.
        arrays: over these axes.
    """

    sizes: tuple[int, ...]
    reduced: tuple[bool, ...]
    arrays: tuple[Array, ...]

    @property
    def rows(self) -> int:
        return self.sizes[-2]

    @property
    def columns(self) -> int:
        return self.sizes[-1]


class Blocks(NamedTuple):
    """A block, and how the arrays lie in it.

    Attributes:
        high, wide: rows and columns of a block.
        kinds: for each array "line", side by side in the block; "single", one element; "apart", anything else.
        once: whether an array that lies apart is the same in every block.
    """

    high: int
    wide: int
    kinds: tuple[str, ...]
    once: tuple[bool, ...]


def walk(shape, arrays, leading: int, reduced=()) -> Walk:
    """Merges the axes.

    Args:
        arrays: ``Array`` over the axes of ``shape``, without a zero in ``shape``.
        leading: the array whose memory the walk follows.
        reduced: axes that are reduced.
    """
    axes = [i for i, n in enumerate(shape) if n > 1]
    axes.sort(key=lambda i: -abs(arrays[leading].strides[i]))  # stable
    bases = [each.base for each in arrays]
    columns = [[each.strides[i] for i in axes] for each in arrays]
    for at, i in enumerate(axes):  # forwards, where the leading array goes backwards
        if columns[leading][at] < 0:
            for k, strides in enumerate(columns):
                bases[k] += strides[at] * (shape[i] - 1)
                strides[at] = -strides[at]
    sizes, flags = [shape[i] for i in axes], [i in reduced for i in axes]
    at = len(sizes) - 1
    while at > 0:
        if flags[at - 1] == flags[at] and all(s[at - 1] == s[at] * sizes[at] for s in columns):
            sizes[at - 1 : at + 1] = [sizes[at - 1] * sizes[at]]
            del flags[at]
            for strides in columns:
                del strides[at - 1]
        at -= 1
    while len(sizes) < 2:  # the rows that are missing are reduced if the columns are
        sizes.insert(0, 1)
        flags.insert(0, bool(flags) and flags[0])
        for strides in columns:
            strides.insert(0, 0)
    return Walk(
        tuple(sizes),
        tuple(flags),
        tuple(Array(base, each.size, tuple(s)) for base, each, s in zip(bases, arrays, columns)),
    )


def reduced_inside(walk: Walk) -> Walk:
    """The same with a single reduced axis next to the last one, if that is kept: the others may come in any order."""
    n = len(walk.sizes)
    if walk.reduced[-1] or sum(walk.reduced) != 1:
        return walk
    at = walk.reduced.index(True)
    order = [*(i for i in range(n - 1) if i != at), at, n - 1]
    sizes, reduced = (tuple(each[i] for i in order) for each in (walk.sizes, walk.reduced))
    return Walk(sizes, reduced, tuple(x._replace(strides=tuple(x.strides[i] for i in order)) for x in walk.arrays))


def blocks(walk: Walk, size: int, limit: int = BLOCK) -> Blocks:
    """Chooses the block: pieces of a row where rows are long, whole rows where they are short.

    Tiles, where an operand has its neighbours in the next row.
    """
    rows, columns, most = walk.rows, walk.columns, limit // size
    downwards = rows > 1 and any(
        abs(x.strides[-1]) > 64 and 0 < abs(x.strides[-2]) < abs(x.strides[-1]) and columns > 1 for x in walk.arrays
    )
    if downwards and columns > most // TILE:
        high, wide = min(rows, TILE), most // TILE
    elif rows == 1 or columns >= most // 2:
        high, wide = 1, even(columns, most, 64 // size)
    else:
        high, wide = even(rows, most // columns, 1), columns
    return lying(walk, high, wide)


def even(count: int, most: int, unit: int) -> int:
    """The size of pieces of about one size, at most ``most``, in whole units."""
    pieces = -(-count // most)
    return min(count, -(-count // pieces // unit) * unit)


def lying(walk: Walk, high: int, wide: int) -> Blocks:
    """How the arrays lie in blocks of that size."""

    def kind(x: Array) -> str:
        row, column = x.strides[-2:]
        if (wide == 1 or column == x.size) and (high == 1 or (wide == walk.columns and row == wide * x.size)):
            return "line"
        return "single" if column == 0 and (high == 1 or row == 0) else "apart"

    kinds = tuple(kind(x) for x in walk.arrays)
    one_piece = wide == walk.columns
    once = tuple(kind == "apart" and one_piece and not any(x.strides[:-1]) for kind, x in zip(kinds, walk.arrays))
    return Blocks(high, wide, kinds, once)


def count(walk: Walk, high: int, wide: int) -> int:
    """How many blocks there are."""
    return math.prod(walk.sizes[:-2]) * -(-walk.rows // high) * -(-walk.columns // wide)
