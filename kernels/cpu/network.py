"""Softmax and its kin, squared error and layer norm for NumPy: rows by the block, so that each is read once.

A row that is longer than a block is worked on in pieces, and only sums over it stay.
"""

from __future__ import annotations

import math

import numpy as np

from .cutting import BLOCK, as_lines, call, kernel, part, pieces
from .reductions import chunk_of

# For kernels that need no block of scratch: what stays in the second-level cache, in fewer and longer passes.
_WIDE = 8 * BLOCK


def rows_of(axis: int, x, *others, limit: int = BLOCK):
    """For each chunk of rows along ``axis``: its part of every array, with that axis last; ``others`` without it."""
    if axis < 0:
        axis += x[0].ndim
    n, shape = x[0].shape[axis], x[0].shape
    step = chunk_of(shape, (axis,), limit)
    x = [np.moveaxis(each, axis, -1) for each in x] if axis + 1 < len(shape) else list(x)
    lead = x[0].shape[:-1]
    if len(lead) != 1 and axis + 1 == len(shape) and all(each.flags.c_contiguous for each in (*x, *others)):
        count = math.prod(lead)
        x, others = [each.reshape(count, n) for each in x], [each.reshape(count) for each in others]
        lead = (count,)
    for index in pieces(lead, step) if x[0].size else ():
        yield [each[(*index, ...)] for each in x], [each[(*index, ...)] for each in others]


def cuts(x, limit: int = BLOCK):
    """Slices of the last axis of a chunk: all of it, or pieces of which none has more than ``limit`` elements."""
    n = x.shape[-1]
    step = n if x.size <= limit else max(1, limit * n // x.size)
    return [(..., slice(start, start + step)) for start in range(0, n, step)]


def sum_of_exponentials(x, peak, total, partial, keep=None, into=None, limit: int = BLOCK):
    """total = sum of exp(x - peak) along the last axis. The exponentials stay in ``keep``, or pass through ``into``."""
    for i, cut in enumerate(cuts(x, limit)):
        source = x[cut]
        e = keep[cut] if keep is not None else into(source.shape)
        yield np.subtract, (source, peak, e)
        yield np.exp, (e, e)
        yield np.add.reduce, (e, -1, None, partial if i else total, True)
        if i:
            yield np.add, (total, partial, total)


def itemsize(x) -> int:
    return np.dtype(x.dtype).itemsize


def _axis_registers(blocks: int, limit: int):
    """Peak, total and partial sum of each row of a chunk, and blocks."""

    def registers(out, x, axis) -> list[int]:
        rows = chunk_of(x.shape, (axis % len(x.shape),), limit) * itemsize(x)
        return [rows, rows, rows, *(min(math.prod(x.shape), BLOCK) * itemsize(x),) * blocks]

    return registers


@kernel("softmax", _axis_registers(0, _WIDE))
def softmax(out, x, axis, room):
    for (source, result), _ in rows_of(axis, (x, out), limit=_WIDE):
        peak, total, partial = (room.view(i, (*source.shape[:-1], 1), x.dtype) for i in range(3))
        yield np.maximum.reduce, (source, -1, None, peak, True)
        yield from sum_of_exponentials(source, peak, total, partial, keep=result, limit=_WIDE)
        yield np.divide, (result, total, result)


@kernel("log_softmax", _axis_registers(1, BLOCK))
def log_softmax(out, x, axis, room):
    for (source, result), _ in rows_of(axis, (x, out)):
        peak, total, partial = (room.view(i, (*source.shape[:-1], 1), x.dtype) for i in range(3))
        yield np.maximum.reduce, (source, -1, None, peak, True)
        yield np.subtract, (source, peak, result)
        for i, cut in enumerate(cuts(source)):
            e = _like(room, 3, result[cut])
            yield np.exp, (result[cut], e)
            yield np.add.reduce, (e, -1, None, partial if i else total, True)
            if i:
                yield np.add, (total, partial, total)
        yield np.log, (total, total)
        yield np.subtract, (result, total, result)


def _like(room, register: int, x):
    """A register of the shape of ``x``, and with the order of its axes in memory."""
    order = sorted(range(x.ndim), key=lambda i: -abs(x.strides[i]))
    view = room.view(register, tuple(x.shape[i] for i in order), x.dtype)
    return view.transpose([order.index(i) for i in range(x.ndim)])


@kernel("layer_norm", lambda out, x, gain, bias, eps: [chunk_of(x.shape, (len(x.shape) - 1,), _WIDE) * itemsize(x)])
def layer_norm(out, x, gain, bias, eps, room):
    n, least, one = (np.asarray(number, x.dtype) for number in (x.shape[-1], eps, 1))
    for (source, result), _ in rows_of(-1, (x, out), limit=_WIDE):
        of_row = room.view(0, (*source.shape[:-1], 1), x.dtype)
        yield np.add.reduce, (source, -1, None, of_row, True)
        yield np.divide, (of_row, n, of_row)
        yield np.subtract, (source, of_row, result)
        yield np.vecdot, (result, result, of_row[..., 0])
        yield np.divide, (of_row, n, of_row)
        yield np.add, (of_row, least, of_row)
        yield np.sqrt, (of_row, of_row)
        yield np.divide, (one, of_row, of_row)
        yield np.multiply, (result, of_row, result)
        yield np.multiply, (result, gain, result)
        yield np.add, (result, bias, result)


@kernel("mse", lambda out, prediction, target: [min(math.prod(prediction.shape), BLOCK) * itemsize(prediction), 64])
def mse(out, prediction, target, room):
    count = np.asarray(prediction.size, out.dtype)
    prediction, target = as_lines(prediction.shape, prediction, target)
    partial = room.view(1, (), out.dtype)
    if not prediction.size:
        yield call(np.copyto, (np.zeros((), out.dtype),), out)
    for i, index in enumerate(pieces(prediction.shape) if prediction.size else ()):
        p, t = part(prediction, index), part(target, index)
        difference = room.view(0, p.shape, p.dtype)
        line = difference.reshape(-1)
        yield np.subtract, (p, t, difference)
        yield np.vecdot, (line, line, partial if i else out)
        if i:
            yield np.add, (out, partial, out)
    yield np.divide, (out, count, out)
