"""Slices, gathers and scatters for NumPy, without the arrays that its own indexing makes on the way.

An index is what ``reference.indexing`` says; indices are in range, because whoever calls has checked them.
"""

from __future__ import annotations

import math
import operator

import numpy as np

from ..reference.indexing import slices
from .cutting import BLOCK, call, kernel, pieces


@kernel("getitem")
def getitem(out, x, index):
    yield call(np.copyto, (x[(*slices(index), ...)],), out)  # the dots: a view also where integers take all axes


@kernel("setitem_zeros")
def setitem_zeros(out, x, index, shape):
    new_axes = [entry is None for entry in index if not isinstance(entry, int)]
    source = x[(*(0 if new else slice(None) for new in new_axes), ...)]
    yield call(np.copyto, (np.zeros((), out.dtype),), out)
    yield call(np.copyto, (source,), out[(*slices(entry for entry in index if entry is not None), ...)])


def _index_registers(out, x, indices, axis, **attributes) -> list[int]:
    return [min(math.prod(indices.shape), BLOCK) * 8]


def _runs(indices, room):
    """Pieces of the indices in C order: where each is among them, and how many come before; and it as NumPy takes it.

    That is one line of its own integers: it would make one of anything else, for all indices at once.
    """
    at = 0
    for index in pieces(indices.shape) if indices.size else ():
        piece = indices[index] if indices.ndim else indices
        if piece.dtype == np.intp and piece.flags.c_contiguous:
            yield (), (index, at, piece.reshape(-1))
        else:
            places = room.view(0, piece.shape, np.intp)
            yield ((np.copyto, (places, piece, "same_kind")),), (index, at, places.reshape(-1))
        at += piece.size


@kernel("take", _index_registers)
def take(out, x, indices, axis, room):
    before, n, after = math.prod(x.shape[:axis]), x.shape[axis], math.prod(x.shape[axis + 1 :])
    if not out.size:
        return
    if not (x.flags.c_contiguous and out.flags.c_contiguous):
        yield _take_one_by_one, (out, x, indices, (slice(None),) * axis)
        return
    x, out = x.reshape(before, n, after), out.reshape(before, indices.size, after)
    for calls, (_, at, places) in _runs(indices, room):
        yield from calls
        # to wrap around is what counts from the end; and "raise" would copy all of out
        if before == 1 or places.size == indices.size:
            yield np.take, (x, places, 1, out[:, at : at + places.size], "wrap")
        else:
            for one, result in zip(x, out):
                yield np.take, (one, places, 0, result[at : at + places.size], "wrap")


def _take_one_by_one(out, x, indices, before) -> None:
    for place in np.ndindex(indices.shape):
        out[(*before, *place)] = x[(*before, indices[place])]


@kernel("scatter_add", _index_registers)
def scatter_add(out, x, indices, axis, size, room):
    yield call(np.copyto, (np.zeros((), out.dtype),), out)
    before = (slice(None),) * axis
    if not x.size:
        return
    if math.prod(out.shape) // size >= _SHORT:
        yield _add_one_by_one, (out, x, indices, before)
        return
    for calls, (index, _, places) in _runs(indices, room):
        yield from calls
        source = x[(*before, *index, ...)]
        places = places.reshape(source.shape[axis : axis + indices.ndim])
        yield np.add.at, (out, (*before, places), source)


# ``np.add.at`` takes some 15 ns for an element, the addition of a slice 1 us and little more for its elements.
_SHORT = 64


def _add_one_by_one(out, x, indices, before) -> None:
    for place in np.ndindex(indices.shape):
        total = out[(*before, indices[place])]
        np.add(total, x[(*before, *place)], total)


def _one_hot_registers(out, indices, classes, dtype) -> list[int]:
    n = min(math.prod(indices.shape), BLOCK)
    return [8 * n, 8 * n]


@kernel("one_hot", _one_hot_registers)
def one_hot(out, indices, classes, dtype, room):
    yield call(np.copyto, (np.zeros((), out.dtype),), out)
    if not (out.flags.c_contiguous and out.size):
        yield _set_one_by_one, (out, indices)
        return
    count = min(indices.size, BLOCK)
    starts = room.view(0, (count,), np.int64)
    yield np.copyto, (starts, classes)
    yield np.add.accumulate, (starts, 0, None, starts)
    yield np.subtract, (starts, classes, starts)
    flat, one = out.reshape(-1), np.ones((), out.dtype)
    at = 0
    for index in pieces(indices.shape):
        piece = indices[index] if indices.ndim else indices
        places = room.view(1, piece.shape, np.int64)
        yield np.copyto, (places, piece, "same_kind")
        yield np.add, (places, starts[: piece.size].reshape(piece.shape), places)
        rows = flat[at * classes : (at + piece.size) * classes]
        yield operator.setitem, (rows, places.reshape(-1), one)
        at += piece.size


def _set_one_by_one(out, indices) -> None:
    for place in np.ndindex(indices.shape):
        out[(*place, indices[place])] = 1
