"""Kernels for CUDA of operations that move elements: copies, fills, transpositions, gathers, one-hot rows.

The sources are ``code/layouts.cu``. Most of these operations are views where memory allows, and get here only where
they have to copy. Elements are so many bytes, whatever they mean.
"""

from __future__ import annotations

import math

import numpy as np

from ..reference.indexing import slices
from .encoding import (
    WIDE,
    Launch,
    address,
    aligned,
    apart,
    blocks_of,
    cuda,
    integer,
    integer_kind,
    line,
    pointer,
    rows,
    stride,
    suffix,
)  # fmt: skip
from .walks import Walk, over, walk

ANY = (None,)
THREADS, MOVED = 256, 4  # MOVING_THREADS
TILE, TILE_ROWS = 32, 8
LEAST = 8  # sides of a table that is worth a tile
BYTES = (1, 2, 4, 8, 16)


def copied(out, value):
    """out = value, broadcast; None for layouts and element types that are not taken."""
    if 0 in out.shape:
        return []
    size = out.dtype.itemsize
    if out.dtype != value.dtype or size not in BYTES or not apart(out, value):
        return None
    strides = over(out, out.shape), over(value, out.shape)
    if None in strides:
        return None
    found = walk(tuple(out.shape), strides)
    tiles = _transposed(out, value, found)
    if tiles is not None:
        return tiles
    found, size = _widened(found, size, (out, value))
    arguments = pointer(out), pointer(value)
    return _launch("copy", found, size, arguments, (out, value))


def filled(out, value):
    """out = value, a number."""
    if 0 in out.shape:
        return []
    size, steps = out.dtype.itemsize, over(out, out.shape)
    if size not in BYTES or steps is None:
        return None
    with np.errstate(all="ignore"):
        held = np.asarray(value, out.dtype).tobytes()
    held = held * (8 // size) if size < 8 else held
    if held[:8] != held[-8:]:
        return None
    found, size = _widened(walk(tuple(out.shape), (steps,)), size, (out,))
    return _launch("fill", found, size, (pointer(out), np.uint64(int.from_bytes(held[:8], "little"))), (out,))


def _launch(name: str, found: Walk, size: int, arguments: tuple, keep: tuple):
    """A copy or a fill over 1, 2 or 4 axes."""
    axes = next((each for each in (1, 2, 4) if len(found.sizes) <= each), None)
    if axes is None:
        return None
    before = axes - len(found.sizes)
    sizes = (1,) * before + found.sizes
    arguments += tuple(map(integer, sizes[1:]))
    for steps in found.strides:
        arguments += tuple(map(integer, (0,) * before + steps))
    n = math.prod(sizes)
    grid = blocks_of(n, THREADS * MOVED)
    return [Launch("layouts", f"{name}{axes}_{size}", grid, (THREADS, 1, 1), (integer(n), *arguments), keep=keep)]


def _widened(found: Walk, size: int, arrays) -> tuple[Walk, int]:
    """The walk in elements of up to 16 bytes, where all arrays lie so."""
    if any(steps[-1] != 1 for steps in found.strides):
        return found, size
    while size < WIDE:
        odd = found.sizes[-1] % 2 or any(step % 2 for steps in found.strides for step in steps[:-1])
        if odd or any(address(array) % (2 * size) for array in arrays):
            break
        strides = tuple((*(step // 2 for step in steps[:-1]), 1) for steps in found.strides)
        found, size = Walk((*found.sizes[:-1], found.sizes[-1] // 2), strides, found.reduced), 2 * size
    return found, size


def _transposed(out, x, found: Walk):
    """A copy through tiles, where ``out`` lies side by side along one axis and ``x`` along another; else None."""
    of_out, of_x = found.strides
    last = len(found.sizes) - 1
    if last == 0 or last > 3 or of_out[last] != 1 or of_x[last] in (0, 1):
        return None
    down = next((i for i in range(last) if of_x[i] == 1), None)
    if down is None or min(found.sizes[down], found.sizes[last]) < LEAST:
        return None
    n0, n1 = found.sizes[down], found.sizes[last]
    others = [(0, 0, 1)] * (3 - last) + [
        (of_out[i], of_x[i], found.sizes[i]) for i in range(last) if i != down
    ]  # fmt: skip
    (out_m0, x_m0, m0), (out_m1, x_m1, m1) = others
    arguments = (
        *map(integer, (m1, n0, n1)), pointer(out), *map(integer, (out_m0, out_m1, of_out[down])), pointer(x),
        *map(integer, (x_m0, x_m1, of_x[last])),
    )  # fmt: skip
    grid = -(-n0 // TILE) * -(-n1 // TILE) * m0 * m1, 1, 1
    function = f"transpose_{out.dtype.itemsize}"
    return [Launch("layouts", function, grid, (TILE, TILE_ROWS, 1), arguments, keep=(out, x))]


def _all(found: list) -> list | None:
    """Several copies, one after the other; None if one of them is not taken."""
    return None if None in found else [each for launches in found for each in launches]


# ---- operations ----


def _same(out, x, **attributes):
    return copied(out, x)


for _operation in ("alias", "broadcast_to"):
    cuda(_operation, dtypes=ANY)(_same)


@cuda("assign", dtypes=ANY)
def assign(out, x, value):
    return copied(out, value)


def _reshaped(out, x, **attributes):
    """The elements in C order: a view of one side in the shape of the other, where one of them can be viewed so."""
    if line(x):
        return copied(out, x.reshape(out.shape))
    return copied(out.reshape(x.shape), x) if line(out) else None


for _operation in ("reshape", "expand_dims", "squeeze"):
    cuda(_operation, dtypes=ANY)(_reshaped)


@cuda("transpose", dtypes=ANY)
def transpose(out, x, axes):
    return copied(out, x.transpose(axes))


@cuda("concatenate", dtypes=ANY)
def concatenate(out, *parts, axis):
    found, end = [], 0
    for part in parts:
        start, end = end, end + part.shape[axis]
        found.append(copied(out[(slice(None),) * axis + (slice(start, end),)], part))
    return _all(found)


@cuda("stack", dtypes=ANY)
def stack(out, *parts, axis):
    return _all([copied(out[(slice(None),) * axis + (i, ...)], part) for i, part in enumerate(parts)])


@cuda("getitem", dtypes=ANY)
def getitem(out, x, index):
    return copied(out, x[(*slices(index), ...)])  # the dots make a view of a single element, too


@cuda("setitem_zeros", dtypes=ANY)
def setitem_zeros(out, x, index, shape):
    piece = out[(*slices(entry for entry in index if entry is not None), ...)]
    return _all([filled(out, 0), copied(piece, x.reshape(piece.shape))]) if line(x) else None


@cuda("pad", dtypes=ANY)
def pad(out, x, widths, value):
    piece = out[(*(slice(before, before + n) for (before, _), n in zip(widths, x.shape)), ...)]
    return _all([filled(out, value), copied(piece, x)])


@cuda("take", dtypes=ANY)
def take(out, x, indices, axis):
    size, step = out.dtype.itemsize, stride(indices)
    if size not in BYTES or out.dtype != x.dtype or step is None or not line(out, x) or not apart(out, x):
        return None
    if 0 in out.shape:
        return []
    inner, count = math.prod(x.shape[axis + 1 :]), math.prod(indices.shape)
    if aligned(out) and aligned(x):
        while size < WIDE and inner % 2 == 0:
            inner, size = inner // 2, 2 * size
    n = math.prod(x.shape[:axis]) * count * inner
    arguments = (
        integer(n), pointer(out), pointer(x), pointer(indices), integer(step), np.int32(integer_kind(indices)),
        *map(integer, (x.shape[axis], count, inner)),
    )  # fmt: skip
    grid = blocks_of(n, THREADS * MOVED)
    return [Launch("layouts", f"take_{size}", grid, (THREADS, 1, 1), arguments, keep=(out, x, indices))]


@cuda("scatter_add")
def scatter_add(out, x, indices, axis, size):
    """Zeros with x added at the indices; by every element of the result, which looks at all indices."""
    step = stride(indices)
    if out.dtype != x.dtype or step is None or not line(out, x) or not apart(out, x):
        return None
    if 0 in out.shape:
        return []
    inner, count = math.prod(out.shape[axis + 1 :]), math.prod(indices.shape)
    n = math.prod(out.shape)
    arguments = (
        integer(n), pointer(out), pointer(x), pointer(indices), integer(step), np.int32(integer_kind(indices)),
        *map(integer, (size, count, inner)),
    )  # fmt: skip
    grid = blocks_of(n, THREADS)
    return [Launch("layouts", f"scatter_add{suffix(out)}", grid, (THREADS, 1, 1), arguments, keep=(out, x, indices))]


@cuda("one_hot")
def one_hot(out, indices, classes, dtype):
    if 0 in out.shape:
        return []
    row, step = rows(out), stride(indices)
    if row is None or step is None:
        return None
    n = math.prod(out.shape)
    arguments = (
        integer(n), pointer(out), integer(row[0]), pointer(indices), integer(step), np.int32(integer_kind(indices)),
        integer(classes),
    )  # fmt: skip
    grid = blocks_of(n, THREADS * MOVED)
    return [Launch("layouts", f"one_hot{suffix(out)}", grid, (THREADS, 1, 1), arguments, keep=(out, indices))]
