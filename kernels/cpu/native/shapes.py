"""Native kernels of operations that move elements: copies, transpositions, one-hot rows.

Most of them are views where memory allows, and get here only where they have to copy.
"""

from __future__ import annotations

import math

import numpy as np

from ...reference.indexing import slices
from .encoding import address, native, useful_threads
from .instructions import Instruction
from .layouts import apart, index_kind, line, rows, stride
from .updates import copied

ANY = (None,)


def _same(out, x, **attributes):
    return copied(out, x)


for _operation in ("alias", "bounded", "broadcast_to"):
    native(_operation, dtypes=ANY)(_same)


def _reshaped(out, x, **attributes):
    """The elements in C order: a view of one side in the shape of the other, where one of them can be viewed so."""
    if x.flags.c_contiguous:
        return copied(out, x.reshape(out.shape))
    return copied(out.reshape(x.shape), x) if out.flags.c_contiguous else None


for _operation in ("reshape", "expand_dims", "squeeze"):
    native(_operation, dtypes=ANY)(_reshaped)


@native("transpose", dtypes=ANY)
def transpose(out, x, axes):
    """A matrix, or what is one once axes that stay together count as one."""
    view = x.transpose(axes)
    simple = copied(out, view)
    if simple is not None or out.itemsize not in (4, 8) or not line(out) or not apart(out, x):
        return simple
    for cut in range(1, out.ndim):
        lead, trail = math.prod(out.shape[:cut]), math.prod(out.shape[cut:])
        down = stride(view[(slice(None),) * cut + (0,) * (out.ndim - cut)])
        across = stride(view[(0,) * cut])
        if across is None or down != x.itemsize:
            continue
        cost = 0.1 * out.nbytes
        words = (trail, lead, address(x), across, address(out), trail * out.itemsize)
        size = 8 if out.dtype == np.float64 else 4
        name = f"transpose_{out.itemsize}"
        return [Instruction(name, size, words, (out, x), useful_threads(cost), cost)]
    return None


def _all_copied(pairs) -> list | None:
    """Copies of several values, one after the other; None if one of them is not taken."""
    found = [copied(out, value) for out, value in pairs]
    return None if None in found else [each for instructions in found for each in instructions]


@native("concatenate", dtypes=ANY)
def concatenate(out, *parts, axis):
    ends = np.cumsum([part.shape[axis] for part in parts])
    pieces = [out[(slice(None),) * axis + (slice(end - part.shape[axis], end),)] for part, end in zip(parts, ends)]
    return _all_copied(zip(pieces, parts))


@native("stack", dtypes=ANY)
def stack(out, *parts, axis):
    return _all_copied((out[(slice(None),) * axis + (i, ...)], part) for i, part in enumerate(parts))


@native("getitem", dtypes=ANY)
def getitem(out, x, index):
    return copied(out, x[(*slices(index), ...)])  # the dots make a view of a single element, too


@native("setitem_zeros", dtypes=ANY)
def setitem_zeros(out, x, index, shape):
    piece = out[(*slices(entry for entry in index if entry is not None), ...)]
    return _all_copied([(out, np.zeros((), out.dtype)), (piece, x.reshape(piece.shape))]) if line(x) else None


@native("pad", dtypes=ANY)
def pad(out, x, widths, value):
    piece = out[(*(slice(before, before + n) for (before, _), n in zip(widths, x.shape)), ...)]
    return _all_copied([(out, np.asarray(value, out.dtype)), (piece, x)])


@native("one_hot")
def one_hot(out, indices, classes, dtype):
    if not out.size:
        return []
    apart, of_index = rows(out), stride(indices)
    if apart is None or of_index is None:
        return None
    words = (indices.size, classes, address(out), apart[0], address(indices), of_index, index_kind(indices))
    cost = 0.03 * out.nbytes + 3.0 * indices.size
    return [Instruction("one_hot", out.itemsize, words, (out, indices), useful_threads(cost), cost)]
