"""Reductions for NumPy. Those of one pass are one call; those that need a first result go over chunks of the input."""

from __future__ import annotations

import math

import numpy as np

from ..expression import Expression
from .blocks import Chain, Reduction
from .cutting import BLOCK, aligned, call, kernel, part, pieces


def forward(x, axes):
    """``x`` read forward along ``axes``: NumPy reduces over negative strides through buffers of its own."""
    if not x.ndim or min(x.strides) >= 0:
        return x
    flips = tuple(slice(None, None, -1) if i in axes and x.strides[i] < 0 else slice(None) for i in range(x.ndim))
    return x[flips]


def reduce(function, x, axes, out, keepdims=False):
    """The call of a ufunc's reduction."""
    return function.reduce, (forward(x, axes), axes, out.dtype, out, keepdims)


@kernel("sum")
def sum_(out, x, axis, keepdims):
    yield reduce(np.add, x, axis, out, keepdims)


@kernel("mean")
def mean(out, x, axis, keepdims):
    yield reduce(np.add, x, axis, out, keepdims)
    yield np.divide, (out, np.asarray(math.prod(x.shape[i] for i in axis), out.dtype), out)


@kernel("max")
def max_(out, x, axis, keepdims):
    yield reduce(np.maximum, x, axis, out, keepdims)


@kernel("min")
def min_(out, x, axis, keepdims):
    yield reduce(np.minimum, x, axis, out, keepdims)


@kernel("sum_to")
def sum_to(out, x, shape):
    lead = x.ndim - len(shape)
    stretched = tuple(i for i in range(x.ndim) if i < lead or (shape[i - lead] == 1 and x.shape[i] != 1))
    kept = tuple(1 if i in stretched else n for i, n in enumerate(x.shape))
    yield reduce(np.add, x, stretched, out.reshape(kept), True)


# ---- two passes: over chunks of the input that have the first result in scratch ----


def chunk_of(shape: tuple[int, ...], axes, limit: int = BLOCK) -> int:
    """How many results to work on at once.

    As many as bring ``limit`` elements; but no fewer than lie side by side in memory, or each line of the cache would
    be fetched again for its neighbour.
    """
    results = math.prod(n for i, n in enumerate(shape) if i not in axes)
    reduced = math.prod(shape[i] for i in axes)
    inner = math.prod(shape[max(axes, default=-1) + 1 :])
    return max(1, min(results, BLOCK, max(inner, limit // max(1, reduced))))


def chunks(out, x, axes):
    """The chunks of results, with axes of size 1 for those that are reduced, and what each is computed from."""
    totals = out.reshape([1 if i in axes else n for i, n in enumerate(x.shape)])
    for index in pieces(totals.shape, chunk_of(x.shape, axes)) if totals.size else ():
        own = tuple(slice(None) if i in axes else piece for i, piece in enumerate(index))
        yield part(totals, index), x[(*own, ...)]


_SQUARES = Reduction(Expression("(x - m) * (x - m)", ("x", "m")), "sum")
_EXPONENTIALS = Reduction(Expression("exp(x - m)", ("x", "m")), "sum")
# a peak that is infinite is not taken off: there is no inf - inf then
_FINITE = Chain(Expression("where(m - m == 0, m, 0)", ("m",)))


class _Described:
    """What the scratch of a kernel is a function of."""

    def __init__(self, shape, dtype):
        self.shape, self.dtype = shape, dtype


def _registers(first: Reduction, *more: Chain):
    """The first result of a chunk, and what the passes over it take: a block for the chain and one for its sum."""

    def registers(out, x, axis, **attributes) -> list[int]:
        size, n = np.dtype(x.dtype).itemsize, min(math.prod(x.shape), BLOCK)
        chunk = chunk_of(x.shape, axis)
        results = _Described((chunk,), x.dtype)
        beside = max((each.nbytes(results, results) for each in more), default=0)
        return [chunk * size, max(2 * aligned(n * size), beside)]

    return registers


@kernel("var", _registers(_SQUARES))
def var(out, x, axis, keepdims, correction, room):
    n = math.prod(x.shape[i] for i in axis)
    whole, rest = np.asarray(n, x.dtype), np.asarray(n - correction, x.dtype)
    for total, source in chunks(out, x, axis):
        mean = room.view(0, total.shape, x.dtype)
        yield reduce(np.add, source, axis, mean, True)
        yield np.divide, (mean, whole, mean)
        yield from _SQUARES.steps(total, source, mean, scratch=room.bytes(1), axis=axis, keepdims=True)
        yield np.divide, (total, rest, total)


@kernel("logsumexp", _registers(_EXPONENTIALS, _FINITE))
def logsumexp(out, x, axis, keepdims, room):
    for total, source in chunks(out, x, axis):
        peak = room.view(0, total.shape, x.dtype)
        yield reduce(np.maximum, source, axis, peak, True)
        yield from _FINITE.steps(peak, peak, scratch=room.bytes(1))
        yield from _EXPONENTIALS.steps(total, source, peak, scratch=room.bytes(1), axis=axis, keepdims=True)
        yield np.log, (total, total)
        yield np.add, (total, peak, total)


# ---- argmax ----


def _argmax_registers(out, x, axis, keepdims) -> list[int]:
    return [min(math.prod(x.shape), BLOCK) * np.dtype(x.dtype).itemsize]


@kernel("argmax", _argmax_registers)
def argmax(out, x, axis, keepdims, room):
    if x.flags.c_contiguous and (axis is None or axis == x.ndim - 1) and out.flags.c_contiguous:
        flat = x.reshape(-1) if axis is None else x
        yield np.argmax, (flat, -1, out.reshape(flat.shape[:-1]))
        return
    # NumPy would copy all of x to have its rows contiguous: it is copied by blocks of rows instead
    rows = x.transpose((*(i for i in range(x.ndim) if i != axis), axis)) if axis is not None else x
    lead = rows.shape[:-1] if axis is not None else ()
    out = out.reshape(lead)
    n = math.prod(rows.shape[len(lead) :])
    if axis is None and x.ndim != 1:
        yield _argmax_flat, (x, room.view(0, (min(n, BLOCK),), x.dtype), out)
        return
    for index in pieces(lead, max(1, BLOCK // n)):
        target, source = part(out, index), rows[(*index, ...)]
        if n > BLOCK:
            yield _argmax_flat, (source.reshape(n), room.view(0, (BLOCK,), x.dtype), target)
            continue
        copy = room.view(0, source.shape, x.dtype)
        yield call(np.copyto, (source,), copy)
        yield np.argmax, (copy, -1, target)


def _argmax_flat(x, copy, out) -> None:
    """The index, in C order, of the largest element: the first of equals, or of those that are no number."""
    best, at, start = None, 0, 0
    for index in pieces(x.shape, copy.shape[0]):
        source = x[index]
        here = copy[: source.size]
        np.copyto(here.reshape(source.shape), source)
        i = int(here.argmax())
        value = here[i]
        if best is None or value > best or (value != value and best == best):
            best, at = value, start + i
        start += source.size
    out[...] = at
