"""Slices, gathers, and their adjoints.

``getitem`` takes a normal form of the index: one entry per axis, an integer or (start, stop, step), and None for each
new axis. Integer tensors gather (``take``), whose adjoint adds where indices repeat (``scatter_add``). What else a user
may write in brackets is in ``brackets``.
"""

from __future__ import annotations

import operator

from tinynet.backend import as_dtype, is_integer
from tinynet.errors import ArgumentError, DTypeError, RangeError, ShapeError

from . import splitting
from .record import REQUIRED, Bounds, Op
from .samples import Arg, Sample
from .spec import Spec, as_shape, normalize_axis, same_dtype


def normal_index(shape: tuple[int, ...], index) -> tuple:
    """A bracket's content (integers, slices, None, Ellipsis) with one entry for each axis of ``shape``.

    Raises:
        RangeError: more entries than axes, or an integer outside its axis.
        ArgumentError: an entry of another kind.
    """
    entries = index if isinstance(index, tuple) else (index,)
    given = sum(entry is not None and entry is not Ellipsis for entry in entries)
    if given > len(shape) or sum(entry is Ellipsis for entry in entries) > 1:
        raise RangeError("indexing", expected=f"at most {len(shape)} indices for shape {shape}", got=f"[{index!r}]")
    rest = (slice(None),) * (len(shape) - given)
    at = next((i for i, entry in enumerate(entries) if entry is Ellipsis), len(entries))
    entries = (*entries[:at], *rest, *entries[at + 1 :])
    sizes = iter(shape)
    return tuple(None if entry is None else _normal_entry(entry, next(sizes), shape) for entry in entries)


def _normal_entry(entry, size: int, shape):
    if isinstance(entry, slice):
        try:
            start, stop, step = entry.indices(size)
        except (TypeError, ValueError) as error:
            raise ArgumentError("indexing", expected="whole numbers in a slice", got=repr(entry)) from error
        if not range(start, stop, step):
            return (0, 0, 1)  # one form for all that is empty; their starts may lie outside the axis
        return (start, None if stop < 0 else stop, step)
    if isinstance(entry, tuple) and len(entry) == 3:  # already normal
        return entry
    try:
        if isinstance(entry, bool):
            raise TypeError
        i = operator.index(entry)
    except TypeError as error:
        raise ArgumentError(
            "indexing", expected="integers, slices, None, ... or integer tensors", got=repr(entry)
        ) from error
    if not -size <= i < size:
        raise RangeError("indexing", expected=f"an index from {-size} to {size - 1}", got=f"{i} in shape {shape}")
    return i % size


def _indexed_shape(shape, index) -> tuple[int, ...]:
    sizes = iter(shape)
    result = []
    for entry in index:
        if entry is None:
            result.append(1)
            continue
        size = next(sizes)
        if isinstance(entry, tuple):
            result.append(len(range(*slice(*entry).indices(size))))
    return tuple(result)


def _slices(index):
    return tuple(slice(*entry) if isinstance(entry, tuple) else entry for entry in index)


def _index_samples(n):
    if n:
        for index in (
            (slice(None), 0),
            (slice(0, n, 2), None),
            (Ellipsis, slice(None, None, -1)),
            (n - 1,),
            (slice(0, 0),),
        ):
            yield Sample((Arg((n, 3)),), {"index": index})


getitem = Op(
    "getitem", "x", lambda x, index: Spec(_indexed_shape(x.shape, index), x.dtype), attributes={"index": REQUIRED},
    normalize=lambda x, index: {"index": normal_index(x.shape, index)},
    view=lambda backend, x, index: (x[(*_slices(index), ...)], True), samples=_index_samples, public=False,
    vjp=(lambda g, y, x, index: setitem_zeros(g, index=index, shape=x.shape),), split=splitting.indexed,
    doc="x[index] for integers, slices, None and Ellipsis. A view.",
)  # fmt: skip


def _setitem_zeros_rule(x, *, index, shape):
    same_dtype("setitem_zeros", x)
    if _indexed_shape(shape, index) != x.shape:
        raise ShapeError("setitem_zeros", expected=str(_indexed_shape(shape, index)), got=str(x.shape))
    return Spec(shape, x.dtype)


setitem_zeros = Op(
    "setitem_zeros", "x", _setitem_zeros_rule, attributes={"index": REQUIRED, "shape": REQUIRED},
    normalize=lambda x, index, shape: {"index": normal_index(as_shape("setitem_zeros", shape), index), "shape": shape},
    vjp=(lambda g, y, x, index, shape: getitem(g, index=index),), public=False, split=splitting.placed,
    samples=lambda n: [
        Sample((Arg((n, 2)),), {"index": (slice(None), slice(0, 3, 2)), "shape": (n, 3)}),
        Sample((Arg((n, 1)),), {"index": (1, slice(None, None, -1), None), "shape": (2, n)}),
    ],
    doc="Zeros of ``shape`` with x at ``index``: the adjoint of getitem.",
)  # fmt: skip


def check_indices(where, spec):
    if not is_integer(spec.dtype):
        raise DTypeError(where, expected="integer indices", got=str(spec.dtype), mend="convert with .astype('int64')")


def _take_rule(x, indices, *, axis):
    check_indices("take", indices)
    return Spec((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]), x.dtype)


def _take_samples(n):
    if n:
        yield Sample((Arg((n, 3)), Arg((4,), 0, n, kind="int")), {"axis": 0})
        yield Sample((Arg((2, n)), Arg((3, 2), -n, n, kind="int")), {"axis": 1})


take = Op(
    "take", "x indices", _take_rule, attributes={"axis": 0}, samples=_take_samples, keep=(1,),
    bounds=lambda x, indices, axis: Bounds(1, -x.shape[axis], x.shape[axis], "take", "indices"),
    normalize=lambda x, indices, axis: {"axis": normalize_axis("take", axis, x.ndim)},
    vjp=(lambda g, y, x, i, axis: scatter_add(g, i, axis=axis, size=x.shape[axis]), None), split=splitting.taken,
    doc="The slices of x at ``indices`` (integers, in any shape; negative ones count from the end) along an axis.",
)  # fmt: skip


def _scatter_rule(x, indices, *, axis, size):
    check_indices("scatter_add", indices)
    same_dtype("scatter_add", x)
    if x.shape[axis : axis + indices.ndim] != indices.shape:
        raise ShapeError("scatter_add", expected=f"axes {indices.shape} from axis {axis} on", got=str(x.shape))
    return Spec((*x.shape[:axis], size, *x.shape[axis + indices.ndim :]), x.dtype)


def _scatter_samples(n):
    yield Sample((Arg((n, 3)), Arg((n,), 0, 5, kind="int")), {"axis": 0, "size": 5})
    yield Sample((Arg((2, n, 2)), Arg((n, 2), -4, 4, kind="int")), {"axis": 1, "size": 4})


scatter_add = Op(
    "scatter_add", "x indices", _scatter_rule, attributes={"axis": 0, "size": REQUIRED},
    bounds=lambda x, indices, axis, size: Bounds(1, -size, size, "scatter_add", "indices"),
    keep=(1,),
    normalize=lambda x, i, axis, size: {"axis": normalize_axis("scatter_add", axis, x.ndim), "size": int(size)},
    vjp=(lambda g, y, x, i, axis, size: take(g, i, axis=axis), None), flops=lambda out, x, i, **_: x.size,
    split=splitting.scattered,
    samples=_scatter_samples,
    doc="Zeros with ``size`` entries along ``axis``, to which the slices of x are added at ``indices``.",
)  # fmt: skip


def _one_hot_rule(indices, *, classes, dtype):
    check_indices("one_hot", indices)
    return Spec((*indices.shape, classes), dtype)


one_hot = Op(
    "one_hot", "indices", _one_hot_rule, attributes={"classes": REQUIRED, "dtype": "float32"},
    normalize=lambda i, classes, dtype: {"classes": int(classes), "dtype": as_dtype(dtype)},
    bounds=lambda i, classes, dtype: Bounds(0, 0, classes, "one_hot", "class indices"),
    samples=lambda n: [Sample((Arg((n, 2), 0, 4, kind="int"),), {"classes": 4})], split=splitting.rows,
    doc="Rows that are 1 at the index and 0 elsewhere.",
)  # fmt: skip


def _bounded_kernel(out, indices, size):
    out[...] = indices


def _bounded_rule(indices, *, size):
    check_indices("bounded", indices)
    return indices


bounded = Op(
    "bounded", "indices", _bounded_rule, attributes={"size": REQUIRED}, kernel=_bounded_kernel, public=False,
    view=lambda backend, indices, size: (indices, True),
    bounds=lambda i, size: Bounds(0, -size, size, "indexing", "indices"),
    samples=lambda n: [Sample((Arg((n, 2), -4, 4, kind="int"),), {"size": 4})], split=splitting.rows,
    doc="The indices themselves, which have to be from -size to size - 1.",
)  # fmt: skip
