"""Operations that rearrange: reshape, transpose, expand_dims, squeeze, concatenate, stack, pad, cast."""

from __future__ import annotations

import math

from tinynet.backend import INTEGERS, as_dtype, is_floating
from tinynet.errors import ArgumentError, DTypeError, ShapeError

from . import splitting
from .indexing import getitem
from .record import REQUIRED, Op
from .samples import Arg, Sample
from .spec import Spec, as_shape, normalize_axes, normalize_axis, same_dtype


def _reshape_normalize(x, *, shape):
    shape = as_shape("reshape", shape, least=-1)
    if shape.count(-1) > 1:
        raise ShapeError("reshape", expected="at most one -1", got=str(shape))
    if -1 in shape:
        rest = -math.prod(shape)
        if not rest or x.size % rest:
            raise ShapeError("reshape", expected=f"a shape of {x.size} elements", got=str(shape))
        shape = tuple(x.size // rest if n == -1 else n for n in shape)
    return {"shape": shape}


def _reshape_rule(x, *, shape):
    if math.prod(shape) != x.size:
        raise ShapeError("reshape", expected=f"a shape of {x.size} elements, as {x.shape} has", got=str(shape))
    return Spec(shape, x.dtype)


def _reshape_samples(n):
    yield Sample((Arg((2, n)),), {"shape": (n, 2)})
    yield Sample((Arg((n, 3)),), {"shape": (3 * n,)})
    yield Sample((Arg((2, 2, n)),), {"shape": (1, 4, n)})


reshape = Op(
    "reshape", "x", _reshape_rule, attributes={"shape": REQUIRED}, normalize=_reshape_normalize,
    view=lambda backend, x, shape: backend.reshape(x, shape), samples=_reshape_samples, split=splitting.reshaped,
    vjp=(lambda g, y, x, shape: reshape(g, x.shape),),
    doc="The same elements in another shape, in C order; one size may be -1. A view where the memory allows.",
)  # fmt: skip


def _transpose_normalize(x, *, axes):
    axes = tuple(reversed(range(x.ndim))) if axes is None else tuple(axes)
    return {"axes": tuple(normalize_axis("transpose", axis, x.ndim) for axis in axes)}


def _transpose_rule(x, *, axes):
    if sorted(axes) != list(range(x.ndim)):
        raise ShapeError("transpose", expected=f"each of {x.ndim} axes once", got=f"axes={axes}")
    return Spec(tuple(x.shape[i] for i in axes), x.dtype)


def _transpose_samples(n):
    yield Sample((Arg((2, n)),), {"axes": None})
    yield Sample((Arg((2, n, 3)),), {"axes": (1, 2, 0)})


transpose = Op(
    "transpose", "x", _transpose_rule, attributes={"axes": None}, normalize=_transpose_normalize,
    view=lambda backend, x, axes: (backend.xp.permute_dims(x, axes), True), samples=_transpose_samples,
    split=splitting.transposed,
    vjp=(lambda g, y, x, axes: transpose(g, tuple(axes.index(i) for i in range(len(axes)))),),
    doc="The axes in another order; reversed for axes None. A view.",
)  # fmt: skip


def _expand_normalize(x, *, axis):
    return {"axis": normalize_axis("expand_dims", axis, x.ndim + 1)}


def _expanded(shape, axis):
    return (*shape[:axis], 1, *shape[axis:])


expand_dims = Op(
    "expand_dims", "x", lambda x, axis: Spec(_expanded(x.shape, axis), x.dtype), attributes={"axis": REQUIRED},
    normalize=_expand_normalize, view=lambda backend, x, axis: (backend.xp.expand_dims(x, axis=axis), True),
    vjp=(lambda g, y, x, axis: reshape(g, x.shape),),
    split=lambda n, axes, x, axis: splitting.Split(axes, splitting.JOIN, axes[0] + (axis <= axes[0])),
    samples=lambda n: [Sample((Arg((2, n)),), {"axis": axis}) for axis in (0, 1, -1)],
    doc="A new axis of size 1 at position ``axis`` of the result. A view.",
)  # fmt: skip


def _squeeze_normalize(x, *, axis):
    if axis is None:
        return {"axis": tuple(i for i, n in enumerate(x.shape) if n == 1)}
    return {"axis": normalize_axes("squeeze", axis, x.ndim)}


def _squeeze_rule(x, *, axis):
    if any(x.shape[i] != 1 for i in axis):
        raise ShapeError("squeeze", expected=f"axes of size 1 among {x.shape}", got=f"axis={axis}")
    return Spec(tuple(n for i, n in enumerate(x.shape) if i not in axis), x.dtype)


squeeze = Op(
    "squeeze", "x", _squeeze_rule, attributes={"axis": None}, normalize=_squeeze_normalize,
    view=lambda backend, x, axis: (backend.xp.squeeze(x, axis=axis), True),
    vjp=(lambda g, y, x, axis: reshape(g, x.shape),),
    split=lambda n, axes, x, axis: splitting.Split(
        axes, splitting.JOIN, axes[0] - sum(i < axes[0] for i in axis)
    ) if axes[0] not in axis else None,
    samples=lambda n: [Sample((Arg((1, n, 1)),), {"axis": axis}) for axis in (0, -1, (0, 2))],
    doc="Without the given axes, whose size must be 1; all such axes for None. A view.",
)  # fmt: skip


def _parts_of(where, parts, axis, extra):
    if not parts:
        raise ArgumentError(where, expected="at least one tensor", got="none")
    same_dtype(where, *parts, kind="any")
    return {"axis": normalize_axis(where, axis, parts[0].ndim + extra)}


def _concatenate_rule(*parts, axis):
    first = parts[0].shape
    for part in parts[1:]:
        if len(part.shape) != len(first) or any(n != m for i, (n, m) in enumerate(zip(first, part.shape)) if i != axis):
            raise ShapeError(
                "concatenate", expected=f"shapes equal to {first} but for axis {axis}", got=str(part.shape)
            )
    size = 0
    for part in parts:
        size += part.shape[axis]
    return Spec((*first[:axis], size, *first[axis + 1 :]), parts[0].dtype)


def _concatenate_vjp(g, y, *parts, needs, axis):
    grads, at = [], 0
    for part, need in zip(parts, needs):
        n = part.shape[axis]
        index = tuple((at, at + n, 1) if i == axis else (0, size, 1) for i, size in enumerate(part.shape))
        grads.append(getitem(g, index) if need else None)
        at += n
    return grads


concatenate = Op(
    "concatenate", "parts*", _concatenate_rule, attributes={"axis": 0}, vjp=_concatenate_vjp,
    split=splitting.joined_parts,
    normalize=lambda *parts, axis: _parts_of("concatenate", parts, axis, 0),
    samples=lambda n: [
        Sample((Arg((n, 2)), Arg((3, 2)), Arg((1, 2))), {"axis": 0}), Sample((Arg((2, n)), Arg((2, n))), {"axis": -1}),
    ],
    doc="Tensors joined along an existing axis. Takes them as arguments or as one list.",
)  # fmt: skip


def _stack_rule(*parts, axis):
    for part in parts[1:]:
        if part.shape != parts[0].shape:
            raise ShapeError("stack", expected=f"tensors of one shape, {parts[0].shape}", got=str(part.shape))
    shape = parts[0].shape
    return Spec((*shape[:axis], len(parts), *shape[axis:]), parts[0].dtype)


def _stack_vjp(g, y, *parts, needs, axis):
    def part(i):
        return getitem(g, tuple(i if at == axis else (0, size, 1) for at, size in enumerate(y.shape)))

    return [part(i) if need else None for i, need in enumerate(needs)]


stack = Op(
    "stack", "parts*", _stack_rule, attributes={"axis": 0}, vjp=_stack_vjp, split=splitting.stacked,
    normalize=lambda *parts, axis: _parts_of("stack", parts, axis, 1),
    samples=lambda n: [Sample((Arg((2, n)), Arg((2, n)), Arg((2, n))), {"axis": axis}) for axis in (0, 1, -1)],
    doc="Tensors of one shape joined along a new axis. Takes them as arguments or as one list.",
)  # fmt: skip


def _pad_normalize(x, *, widths, value):
    pairs = tuple((w, w) if isinstance(w, INTEGERS) else tuple(w) for w in ((widths,) * x.ndim if isinstance(
        widths, INTEGERS) else widths))  # fmt: skip
    if len(pairs) != x.ndim or any(len(pair) != 2 or pair[0] < 0 or pair[1] < 0 for pair in pairs):
        raise ShapeError("pad", expected=f"{x.ndim} pairs (before, after), none negative", got=repr(widths))
    return {"widths": pairs, "value": value}


def _pad_vjp(g, y, x, widths, value):
    return getitem(g, tuple((before, before + n, 1) for (before, _), n in zip(widths, x.shape)))


def _pad_rule(x, *, widths, value):
    if not is_floating(same_dtype("pad", x)) and not isinstance(value, INTEGERS):
        raise DTypeError("pad", expected=f"a whole number to fill a tensor of {x.dtype}", got=repr(value))
    return Spec(tuple(n + a + b for n, (a, b) in zip(x.shape, widths)), x.dtype)


pad = Op(
    "pad", "x", _pad_rule,
    attributes={"widths": REQUIRED, "value": 0}, normalize=_pad_normalize, vjp=(_pad_vjp,),
    split=lambda n, axes, x, widths, value: splitting.Split(
        axes, splitting.JOIN, axes[0]
    ) if widths[axes[0]] == (0, 0) else None,
    samples=lambda n: [Sample((Arg((2, n)),), {"widths": ((1, 0), (2, 3)), "value": 0.5})],
    doc="x with a border. widths: (before, after) for each axis, or one number for all; value: what fills it.",
)  # fmt: skip


def _cast_vjp(g, y, x, dtype):
    return cast(g, dtype=x.dtype)


cast = Op(
    "cast", "x", lambda x, dtype: Spec(x.shape, dtype), attributes={"dtype": REQUIRED}, vjp=(_cast_vjp,),
    normalize=lambda x, dtype: {"dtype": as_dtype(dtype)}, public=False, split=splitting.rows,
    samples=lambda n: [Sample((Arg((n, 2)),), {"dtype": as_dtype(name)}) for name in ("float64", "float32")]
    + [Sample((Arg((n,), kind="int"),), {"dtype": as_dtype("float32")})],
    doc="The elements in another type. Differentiable between floating types.",
)  # fmt: skip

alias = Op(
    "alias", "x", lambda x: x, view=lambda backend, x: (x, True), vjp=(lambda g, y, x: g,), public=False,
    split=splitting.rows,
    samples=lambda n: [Sample((Arg((n, 2)),))], doc="x itself, as another node of the tape.",
)  # fmt: skip
