"""Softmax and cross-entropy in one, for NumPy: losses, their gradient, or both from one set of exponentials.

    loss = -sum t (x - peak - log sum e)          e = exp(x - peak), t the target's probabilities
    gradient = (e / sum e * sum t - t) * g

A class index stands for the row that is 1 there: its loss is one difference, and its gradient one subtraction.
"""

from __future__ import annotations

import math
import operator

import numpy as np

from .cutting import BLOCK, kernel
from .network import cuts, itemsize, rows_of, sum_of_exponentials
from .reductions import chunk_of

_STARTS, _PLACES, _PEAK, _TOTAL, _PARTIAL, _AT, _WORK, _MORE, _FLAGS = range(9)


def _registers(losses: bool):
    """Of each row of a chunk: where it starts, where its class is, and four numbers. Blocks, where losses are wanted:
    one for what is summed up, and for probabilities a second one, and flags."""

    def registers(out, logits, target, *g) -> list[int]:
        size, rows = itemsize(logits), chunk_of(logits.shape, (len(logits.shape) - 1,))
        block = min(math.prod(logits.shape), BLOCK)
        indexed = len(target.shape) < len(logits.shape)
        places = rows * 8 if indexed and rows > 1 else 0
        second = block if losses and not indexed else 0
        return [places, places, *(rows * size,) * 4, block * size, second * size, second]

    return registers


@kernel("softmax_cross_entropy", _registers(True))
def softmax_cross_entropy(out, logits, target, room):
    yield from _entropy(out, None, logits, target, None, room)


@kernel("softmax_cross_entropy_grad", _registers(False))
def softmax_cross_entropy_grad(out, logits, target, g, room):
    yield from _entropy(None, out, logits, target, g, room)


@kernel("softmax_cross_entropy_both", _registers(True))
def softmax_cross_entropy_both(out, logits, target, g, room):
    yield from _entropy(*out, logits, target, g, room)


def _entropy(losses, grad, logits, target, g, room):
    """``losses`` or ``grad`` may be None. ``grad`` may be the memory of the logits: these are read before."""
    dtype, n = logits.dtype, logits.shape[-1]
    indexed = target.ndim < logits.ndim
    one = np.ones((), dtype)
    count = chunk_of(logits.shape, (logits.ndim - 1,))
    starts = room.view(_STARTS, (count,), np.int64) if indexed and count > 1 else None
    if starts is not None:
        yield np.copyto, (starts, n)
        yield np.add.accumulate, (starts, 0, None, starts)
        yield np.subtract, (starts, np.asarray(n, np.int64), starts)
    wide = [each for each in (logits, grad, None if indexed else target) if each is not None]
    narrow = [each for each in (losses, target if indexed else None, g) if each is not None]
    for wide_parts, narrow_parts in rows_of(-1, wide, *narrow):
        x, *wide_parts = wide_parts
        slope = wide_parts.pop(0) if grad is not None else None
        loss = narrow_parts.pop(0) if losses is not None else None
        t = narrow_parts.pop(0) if indexed else wide_parts.pop(0)
        peak, total, partial, at = (room.view(i, (*x.shape[:-1], 1), dtype) for i in range(_PEAK, _AT + 1))
        yield np.maximum.reduce, (x, -1, None, peak, True)
        if indexed:
            yield from _places(t, starts, room)
            if loss is not None:
                yield from _read(x, t, starts, room, at)
                yield np.subtract, (at, peak, at)
            into = lambda shape: room.view(_WORK, shape, dtype)
            yield from sum_of_exponentials(x, peak, total, partial, keep=slope, into=into)
            if loss is not None:
                yield np.log, (total[..., 0], loss)
                yield np.subtract, (loss, at[..., 0], loss)
        elif loss is not None:
            yield from _expected(x, t, peak, total, partial, at, loss, slope, room)
        else:
            yield from sum_of_exponentials(x, peak, total, partial, keep=slope)
        if slope is None:
            continue
        if indexed:
            yield np.divide, (one, total, total)
            yield np.multiply, (slope, total, slope)
            yield from _take_off(slope, t, starts, room, at, one)
        else:
            yield np.add.reduce, (t, -1, None, at, True)
            yield np.divide, (at, total, total)
            yield np.multiply, (slope, total, slope)
            yield np.subtract, (slope, t, slope)
        yield np.multiply, (slope, narrow_parts[-1][..., None], slope)


def _expected(x, t, peak, total, partial, log_total, loss, slope, room):
    """loss = -sum t (x - peak - log sum e), and the exponentials in ``slope``, if that is not None.

    A class without probability is no part of the sum, not even with a logit of -inf. A row that is cut into pieces is
    read again for each pass, so that its exponentials come last: they may go over it.
    """
    bits, whole = np.dtype(f"int{8 * x.dtype.itemsize}"), x.size <= BLOCK
    for i, cut in enumerate(cuts(x)):
        shifted = room.view(_WORK, x[cut].shape, x.dtype)
        e = slope if slope is not None and whole else room.view(_MORE, shifted.shape, x.dtype)
        yield np.subtract, (x[cut], peak, shifted)
        yield np.exp, (shifted, e)
        yield np.add.reduce, (e, -1, None, partial if i else total, True)
        if i:
            yield np.add, (total, partial, total)
    yield np.log, (total, log_total)
    for i, cut in enumerate(cuts(x)):
        share = t[cut]
        logs = room.view(_WORK, share.shape, x.dtype)
        mask, flags = room.view(_MORE, share.shape, bits), room.view(_FLAGS, share.shape, np.int8)
        seen = logs.view(bits)
        if not whole:
            yield np.subtract, (x[cut], peak, logs)
        yield np.subtract, (logs, log_total, logs)
        yield np.multiply, (logs, share, logs)
        yield np.not_equal, (share, 0, flags.view(np.bool_))
        yield np.negative, (flags, flags)
        yield np.copyto, (mask, flags)
        yield np.bitwise_and, (seen, mask, seen)
        yield np.add.reduce, (logs, -1, None, partial[..., 0] if i else loss)
        if i:
            yield np.add, (loss, partial[..., 0], loss)
    yield np.negative, (loss, loss)
    if slope is not None and not whole:
        for cut in cuts(x):
            yield np.subtract, (x[cut], peak, slope[cut])
            yield np.exp, (slope[cut], slope[cut])


# ---- what stands at the class of each row ----


def _places(target, starts, room):
    """Positions in the rows of a chunk, one after the other; for a chunk of one row there are none."""
    if starts is not None:
        places = room.view(_PLACES, target.shape, np.int64)
        own = starts[: target.size].reshape(target.shape)
        yield np.copyto, (places, target, "same_kind")
        yield np.add, (places, own, places)


def _read(x, target, starts, room, at):
    if starts is None:
        yield _read_one, (x, target, at)
        return
    if not x.flags.c_contiguous:
        copy = room.view(_WORK, x.shape, x.dtype)
        yield np.copyto, (copy, x)
        x = copy
    places = room.view(_PLACES, (target.size,), np.int64)
    yield np.take, (x.reshape(-1), places, None, at.reshape(-1), "clip")


def _take_off(x, target, starts, room, at, one):
    """Subtracts 1 at the class of each row."""
    if starts is None or not x.flags.c_contiguous:
        yield _take_one_off, (x, target)
        return
    flat, places = x.reshape(-1), room.view(_PLACES, (target.size,), np.int64)
    line = at.reshape(-1)
    yield np.take, (flat, places, None, line, "clip")
    yield np.subtract, (line, one, line)
    yield operator.setitem, (flat, places, line)


def _read_one(x, target, at) -> None:
    at[...] = x[..., target.item(), None]


def _take_one_off(x, target) -> None:
    for row in np.ndindex(target.shape):
        x[(*row, target[row])] -= 1
