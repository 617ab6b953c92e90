"""Reductions over axes. Sums run in float64, whatever the element type, so that the reference has no rounding story."""

from __future__ import annotations

import math

from ..registry import register
from .common import wide, write


def count(x, axis) -> int:
    """How many elements one result takes in."""
    return math.prod(x.shape[i] for i in axis)


@register("sum")
def sum_(out, x, axis, keepdims):
    xp, x = wide(x)
    write(out, xp.sum(x, axis=axis, keepdims=keepdims))


@register("mean")
def mean(out, x, axis, keepdims):
    n = count(x, axis)
    xp, x = wide(x)
    write(out, xp.sum(x, axis=axis, keepdims=keepdims) / n)


@register("max")
def max_(out, x, axis, keepdims):
    out[...] = x.__array_namespace__().max(x, axis=axis, keepdims=keepdims)


@register("min")
def min_(out, x, axis, keepdims):
    out[...] = x.__array_namespace__().min(x, axis=axis, keepdims=keepdims)


@register("var")
def var(out, x, axis, keepdims, correction):
    n = count(x, axis)
    xp, x = wide(x)
    centred = x - xp.sum(x, axis=axis, keepdims=True) / n
    write(out, xp.sum(centred * centred, axis=axis, keepdims=keepdims) / (n - correction))


@register("logsumexp")
def logsumexp(out, x, axis, keepdims):
    xp, x = wide(x)
    peak = xp.max(x, axis=axis, keepdims=True)
    peak = xp.where(xp.isfinite(peak), peak, xp.zeros_like(peak))  # infinities: no inf - inf
    total = xp.sum(xp.exp(x - peak), axis=axis, keepdims=True)
    result = xp.log(total) + peak
    write(out, xp.reshape(result, out.shape))


@register("argmax")
def argmax(out, x, axis, keepdims):
    out[...] = x.__array_namespace__().argmax(x, axis=axis, keepdims=keepdims)


@register("sum_to")
def sum_to(out, x, shape):
    """The adjoint of broadcasting: sums over the axes along which ``out`` would be repeated to give ``x``."""
    xp, x = wide(x)
    lead = x.ndim - len(shape)
    stretched = tuple(i for i in range(x.ndim) if i < lead or (shape[i - lead] == 1 and x.shape[i] != 1))
    total = xp.sum(x, axis=stretched, keepdims=True) if stretched else x
    write(out, xp.reshape(total, shape))


def reduced(expression, reduce: str):
    """The kernel of an expression that is reduced at once, by the reduction of that name."""
    function, reduction = expression.function(), {"sum": sum_, "mean": mean, "max": max_, "min": min_}[reduce]

    def kernel(out, *inputs, axis, keepdims, **attributes):
        xp = inputs[0].__array_namespace__()
        value = xp.broadcast_arrays(function(xp, *inputs, **attributes), *inputs)[0]
        reduction(out, value, axis=axis, keepdims=keepdims)

    return kernel
