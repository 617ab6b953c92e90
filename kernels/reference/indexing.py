"""Slices, gathers and scatters.

An index is a tuple with one entry per axis of the input and None for each new axis: an integer picks,
(start, stop, step) slices. ``tinynet.ops.indexing`` makes it from what a user writes in brackets.
"""

from __future__ import annotations

from ..registry import register
from .common import write


def slices(index):
    """The index in the form that arrays take it in brackets."""
    return tuple(slice(*entry) if isinstance(entry, tuple) else entry for entry in index)


@register("getitem")
def getitem(out, x, index):
    out[...] = x[slices(index)]


@register("setitem_zeros")
def setitem_zeros(out, x, index, shape):
    """Zeros with ``x`` at ``index``: the adjoint of ``getitem``."""
    out[...] = 0
    target = slices(entry for entry in index if entry is not None)
    out[target] = x.__array_namespace__().reshape(x, out[target].shape)


@register("take")
def take(out, x, indices, axis):
    xp = x.__array_namespace__()
    n = x.shape[axis]
    flat = xp.reshape(indices, (-1,))
    flat = xp.where(flat < 0, flat + n, flat)
    out[...] = xp.reshape(xp.take(x, flat, axis=axis), out.shape)


@register("scatter_add")
def scatter_add(out, x, indices, axis, size):
    """Zeros of ``size`` along ``axis``, to which each element of ``x`` is added at its index: the adjoint of ``take``.

    A product with the matrix that has a one wherever an element goes; no scatter exists in the array-API standard.
    Infinities and not-a-numbers are added afterwards, because a zero of the matrix does not keep them away.
    """
    xp = x.__array_namespace__()
    flat = xp.reshape(indices, (-1,))
    flat = xp.where(flat < 0, flat + size, flat)
    goes = xp.astype(flat[:, None] == xp.arange(size, dtype=flat.dtype, device=flat.device)[None, :], xp.float64)
    before, after = out.shape[:axis], out.shape[axis + 1 :]
    rows = xp.reshape(xp.astype(x, xp.float64), (_product(before), flat.shape[0], _product(after)))
    sums = xp.matmul(goes.T, xp.where(xp.isfinite(rows), rows, xp.zeros_like(rows)))
    for special, at in ((xp.inf, rows == xp.inf), (-xp.inf, rows == -xp.inf), (xp.nan, xp.isnan(rows))):
        sums = xp.where(xp.matmul(goes.T, xp.astype(at, xp.float64)) > 0, sums + special, sums)
    write(out, xp.reshape(sums, out.shape))


@register("one_hot")
def one_hot(out, indices, classes, dtype):
    xp = indices.__array_namespace__()
    numbers = xp.arange(classes, dtype=indices.dtype, device=indices.device)
    write(out, indices[..., None] == numbers)


def _product(shape):
    n = 1
    for size in shape:
        n *= size
    return n
