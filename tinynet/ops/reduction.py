"""Reductions: sum, mean, max, min, var, logsumexp, argmax over one axis, several, or all.

Here too: ``broadcast_to`` and its adjoint ``sum_to``, each the derivative of the other."""

from __future__ import annotations

import math

from tinynet.errors import ArgumentError, ShapeError

from . import splitting
from .elementwise import exp
from .record import REQUIRED, Op
from .samples import Arg, Sample, reduction
from .spec import INT64, Spec, as_shape, broadcast_shapes, normalize_axes, reduced_shape, same_dtype


def _count(spec: Spec, axis) -> int:
    return math.prod(spec.shape[i] for i in axis)


def _reduction(name, *, kind="float", empty=False, extra=None, vjp=None, keep=(), combine=None, doc):
    """A record for a reduction. ``empty``: whether the reduction of nothing has a value (only a sum has).

    ``combine``: how the results over parts of the reduced axes make the whole (see ``splitting``).
    """

    def normalize(spec, *, axis, keepdims, **others):
        if not isinstance(keepdims, (bool, int)):
            raise ArgumentError(name, expected="keepdims to be True or False", got=repr(keepdims))
        return {"axis": normalize_axes(name, axis, spec.ndim), "keepdims": bool(keepdims), **others}

    def rule(spec, *, axis, keepdims, correction=0):
        dtype = same_dtype(name, spec, kind=kind)
        n = _count(spec, axis)
        if not empty and n <= correction:
            at_least = f"more than {correction} elements" if correction else "at least one element"
            raise ShapeError(
                name, expected=f"{at_least} to reduce", got=f"shape {spec.shape} over axes {axis}",
                mend="an empty batch has no such value: leave it out",
            )  # fmt: skip
        return Spec(reduced_shape(spec.shape, axis, keepdims), dtype)

    return Op(
        name, "x", rule, attributes={"axis": None, "keepdims": False, **(extra or {})}, normalize=normalize, vjp=vjp,
        keep=keep, flops=lambda out, x, **_: x.size, samples=reduction(empty), split=splitting.reduction(combine),
        doc=doc,
    )  # fmt: skip


def _spread(t, x, axis, keepdims):
    """``t``, reduced over ``axis`` of ``x``, with those axes back at size 1."""
    return t if keepdims else t.reshape(reduced_shape(x.shape, axis, True))


_ARGS = "\n\nArgs:\n    axis: an axis, a tuple of axes, or None for all.\n    keepdims: keep reduced axes, with size 1."

sum = _reduction(
    "sum", kind="number", empty=True, combine=splitting.SUM, doc="The sum of the elements." + _ARGS,
    vjp=(lambda g, y, x, axis, keepdims: broadcast_to(_spread(g, x, axis, keepdims), shape=x.shape),),
)  # fmt: skip
mean = _reduction(
    "mean", combine=splitting.MEAN, doc="The arithmetic mean. ShapeError for no elements." + _ARGS,
    vjp=(lambda g, y, x, axis, keepdims: broadcast_to(_spread(g, x, axis, keepdims) / _count(x, axis), shape=x.shape),),
)  # fmt: skip


def _extremum_vjp(g, y, x, axis, keepdims):
    """The gradient goes to the extremal elements, in equal parts."""
    hit = (x == _spread(y, x, axis, keepdims)).astype(x.dtype)
    return hit / sum(hit, axis=axis, keepdims=True) * _spread(g, x, axis, keepdims)


max = _reduction(
    "max", kind="number", vjp=(_extremum_vjp,), keep=(0, "y"), doc="The largest element; NaN if any is NaN." + _ARGS
)
min = _reduction(
    "min", kind="number", vjp=(_extremum_vjp,), keep=(0, "y"), doc="The smallest element; NaN if any is NaN." + _ARGS
)


def _var_vjp(g, y, x, axis, keepdims, correction):
    centred = x - mean(x, axis=axis, keepdims=True)
    return centred * (_spread(g, x, axis, keepdims) * (2 / (_count(x, axis) - correction)))


var = _reduction(
    "var", extra={"correction": 0}, vjp=(_var_vjp,), keep=(0,),
    doc="The variance: squared distances from the mean, summed and divided by n - correction." + _ARGS
    + "\n    correction: 0 for the population's variance, 1 for the unbiased estimate of a sample.",
)  # fmt: skip


def _logsumexp_vjp(g, y, x, axis, keepdims):
    return exp(x - _spread(y, x, axis, keepdims)) * _spread(g, x, axis, keepdims)


logsumexp = _reduction(
    "logsumexp", vjp=(_logsumexp_vjp,), keep=(0, "y"), doc="log of the sum of e^x, without overflow." + _ARGS
)


def _argmax_normalize(spec, *, axis, keepdims):
    if isinstance(axis, tuple):
        raise ArgumentError("argmax", expected="one axis, or None", got=repr(axis))
    return {"axis": None if axis is None else normalize_axes("argmax", axis, spec.ndim)[0], "keepdims": bool(keepdims)}


def _argmax_rule(spec, *, axis, keepdims):
    same_dtype("argmax", spec)
    axes = tuple(range(spec.ndim)) if axis is None else (axis,)
    if not _count(spec, axes):
        raise ShapeError("argmax", expected="at least one element", got=f"shape {spec.shape} over axis {axis}")
    return Spec(reduced_shape(spec.shape, axes, keepdims), INT64)


def _argmax_samples(n):
    if n:
        for axis, keepdims in ((None, False), (0, False), (-1, True)):
            yield Sample((Arg((n, 3)),), {"axis": axis, "keepdims": keepdims})


argmax = Op(
    "argmax", "x", _argmax_rule, attributes={"axis": None, "keepdims": False}, normalize=_argmax_normalize,
    flops=lambda out, x, **_: x.size, samples=_argmax_samples, split=splitting.reduction(None),
    doc="The index of the largest element (the first of equals), int64; over all elements in C order for axis None.",
)  # fmt: skip


def _sum_to_normalize(spec, *, shape):
    return {"shape": as_shape("sum_to", shape)}


def _sum_to_rule(spec, *, shape):
    if len(shape) > spec.ndim or broadcast_shapes("sum_to", shape, spec.shape) != spec.shape:
        raise ShapeError("sum_to", expected=f"a shape that broadcasts to {spec.shape}", got=str(shape))
    return Spec(shape, same_dtype("sum_to", spec))


def _sum_to_samples(n):
    yield Sample((Arg((3, n)),), {"shape": (n,)})
    yield Sample((Arg((2, n, 3)),), {"shape": (n, 1)})
    yield Sample((Arg((2, n)),), {"shape": ()})


sum_to = Op(
    "sum_to", "x", _sum_to_rule, attributes={"shape": REQUIRED}, normalize=_sum_to_normalize,
    vjp=(lambda g, y, x, shape: broadcast_to(g, shape=x.shape),), flops=lambda out, x, **_: x.size,
    samples=_sum_to_samples, public=False, split=splitting.summed_to,
    doc="Sums over the axes along which ``shape`` was broadcast: the adjoint of ``broadcast_to``.",
)  # fmt: skip


def _broadcast_rule(x, *, shape):
    if broadcast_shapes("broadcast_to", x.shape, shape) != shape:
        raise ShapeError("broadcast_to", expected=f"a shape that {x.shape} broadcasts to", got=str(shape))
    return Spec(shape, x.dtype)


def _broadcast_samples(n):
    yield Sample((Arg((n,)),), {"shape": (3, n)})
    yield Sample((Arg((2, 1)),), {"shape": (2, n)})
    yield Sample((Arg(()),), {"shape": (n,)})


broadcast_to = Op(
    "broadcast_to", "x", _broadcast_rule, attributes={"shape": REQUIRED},
    normalize=lambda x, shape: {"shape": as_shape("broadcast_to", shape)},
    view=lambda backend, x, shape: (backend.xp.broadcast_to(x, shape), True),
    vjp=(lambda g, y, x, shape: sum_to(g, shape=x.shape),), samples=_broadcast_samples, split=splitting.broadcast,
    doc="x repeated along new axes and axes of size 1. A view, not to be written to.",
)  # fmt: skip
