"""How operations act on parts of their inputs: what micro-batching and tiling ask of a record.

A record's ``split`` rule is asked what happens if some inputs are cut along an axis, all in the same proportions (a
batch of n rows into parts). It answers with a ``Split``, or None where the parts together would not give the whole:
a softmax along the axis that is cut, say. Elementwise operations need no rule of their own. A record without one is
never split. The suite holds every rule to the numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from .spec import Spec, broadcast_shapes

JOIN, SUM, MEAN = "join", "sum", "mean"


class Split(NamedTuple):
    """What becomes of an operation whose inputs are cut.

    Attributes:
        cuts: for each input the axis along which it is cut; None where every part gets all of it.
        combine: how the results of the parts make the whole: "join" them along ``axis``; "sum" them; or "mean", their
            sum weighted by their shares of the rows.
        axis: of the output, for "join".
        attributes: ``f(start, stop) -> dict``, the attributes that differ for the part of rows start to stop.
    """

    cuts: tuple[int | None, ...]
    combine: str
    axis: int | None = None
    attributes: Callable[[int, int], dict] | None = None


def part_of(spec: Spec, axis: int | None, n: int, start: int, stop: int) -> Spec:
    """The spec of a part: rows start to stop of n, along an axis whose length is a multiple of n."""
    if axis is None:
        return spec
    unit = spec.shape[axis] // n
    return Spec((*spec.shape[:axis], unit * (stop - start), *spec.shape[axis + 1 :]), spec.dtype)


def _resized(shape, axis: int, n: int):
    """``f(start, stop) -> {"shape": ...}``: a shape attribute for a part."""
    unit = shape[axis] // n
    return lambda start, stop: {"shape": (*shape[:axis], unit * (stop - start), *shape[axis + 1 :])}


# ---- rules that records share: f(n, axes, *specs, **attributes) -> Split or None ----


def rows(n: int, axes, /, *specs: Spec, **_) -> Split | None:
    """Broadcast operands, each element of the result from one of each: cut where the result is."""
    places = {axis - spec.ndim for axis, spec in zip(axes, specs) if axis is not None}
    lengths = {spec.shape[axis] for axis, spec in zip(axes, specs) if axis is not None}
    if len(places) != 1 or len(lengths) != 1:
        return None
    place, length = places.pop(), lengths.pop()
    cuts = []
    for spec in specs:
        along = spec.ndim + place
        if along >= 0 and spec.shape[along] == length:
            cuts.append(along)
        elif along < 0 or spec.shape[along] == 1:
            cuts.append(None)
        else:
            return None
    if any(axis is not None and axis != cut for axis, cut in zip(axes, cuts)):
        return None
    return Split(tuple(cuts), JOIN, len(broadcast_shapes("split", *(s.shape for s in specs))) + place)


def first_axis(n: int, axes, /, *specs: Spec, **_) -> Split | None:
    """Arrays of one shape and scalars, element by element: an optimizer's update."""
    wanted = {axis for axis in axes if axis is not None}
    if len(wanted) != 1:
        return None
    axis = wanted.pop()
    return Split(tuple(axis if spec.ndim else None for spec in specs), JOIN, axis)


def but_last(n: int, axes, /, x: Spec, *others: Spec, **_) -> Split | None:
    """Rows of x along its last axis, with operands that all rows share."""
    if axes[0] is None or axes[0] == x.ndim - 1 or any(axis is not None for axis in axes[1:]):
        return None
    return Split(axes, JOIN, axes[0])


def rows_of_classes(n: int, axes, /, logits: Spec, *others: Spec, **_) -> Split | None:
    """Rows of classes with what belongs to each row: labels, or rows themselves."""
    along = {axis for axis in axes if axis is not None}
    if len(along) != 1 or logits.ndim - 1 in along:
        return None
    axis = along.pop()
    return Split((axis,) * (1 + len(others)), JOIN, axis)


def all_but(*names: str):
    """A rule for operations of one input that work along the axes that these attributes name, and on no other."""

    def rule(n, axes, /, x, **attributes):
        taken = set()
        for name in names:
            value = attributes[name]
            taken.update(range(x.ndim) if value is None else value if isinstance(value, tuple) else (value,))
        return None if axes[0] in taken else Split(axes, JOIN, axes[0])

    return rule


def reduction(combine: str | None):
    """A rule for reductions; ``combine`` is how results over parts of the reduced axes make the whole, or None."""

    def rule(n, axes, /, x, *, axis, keepdims, **_):
        reduced = tuple(range(x.ndim)) if axis is None else axis if isinstance(axis, tuple) else (axis,)
        if axes[0] in reduced:
            return None if combine is None else Split(axes, combine)
        return Split(axes, JOIN, axes[0] if keepdims else axes[0] - sum(i < axes[0] for i in reduced))

    return rule


def summed_to(n, axes, /, x, *, shape) -> Split | None:
    """``sum_to``: the axes that vanish are summed, the others joined."""
    along = axes[0] - (x.ndim - len(shape))
    if along < 0 or shape[along] != x.shape[axes[0]]:
        return Split(axes, SUM)
    return Split(axes, JOIN, along, _resized(shape, along, n))


def broadcast(n, axes, /, x, *, shape) -> Split | None:
    along = axes[0] + len(shape) - x.ndim
    return Split(axes, JOIN, along, _resized(shape, along, n)) if shape[along] == x.shape[axes[0]] else None


def reshaped(n, axes, /, x, *, shape) -> Split | None:
    """The axis may be joined with those that follow, or be parted again; what lies before it stays before it."""
    before = math.prod(x.shape[: axes[0]])
    for axis, length in enumerate(shape):
        if math.prod(shape[:axis]) == before and length and length % n == 0:
            return Split(axes, JOIN, axis, _resized(shape, axis, n))
    return None


def indexed(n, axes, /, x, *, index) -> Split | None:
    """``getitem`` where the axis that is cut is taken whole."""
    place = [i for i, entry in enumerate(index) if entry is not None][axes[0]]
    length, unit = x.shape[axes[0]], x.shape[axes[0]] // n
    if index[place] != (0, length, 1):
        return None
    axis = sum(entry is None or isinstance(entry, tuple) for entry in index[:place])
    return Split(
        axes, JOIN, axis,
        lambda start, stop: {"index": (*index[:place], (0, unit * (stop - start), 1), *index[place + 1 :])},
    )  # fmt: skip


def placed(n, axes, /, x, *, index, shape) -> Split | None:
    """``setitem_zeros``, the adjoint of the above."""
    for axis, length in enumerate(shape):
        found = indexed(n, (axis,), Spec(shape, x.dtype), index=index) if length and length % n == 0 else None
        if found is not None and found.axis == axes[0]:
            both = (found.attributes, _resized(shape, axis, n))
            return Split(axes, JOIN, axis, lambda start, stop, both=both: both[0](start, stop) | both[1](start, stop))
    return None


def matrices(n, axes, /, a: Spec, b: Spec) -> Split | None:
    """``matmul``: rows of a and columns of b give rows and columns; cut along the inner axis, products are summed."""
    p, q = axes
    a_rows = a.ndim - 2 if a.ndim > 1 else None
    b_columns = b.ndim - 1 if b.ndim > 1 else None
    inner = a.ndim - 1, max(b.ndim - 2, 0)
    ndim = max(a.ndim - 2, b.ndim - 2, 0) + (a.ndim > 1) + (b.ndim > 1)
    if p == inner[0] or q == inner[1]:
        return Split(inner, SUM) if p in (None, inner[0]) and q in (None, inner[1]) else None
    if p is not None and p == a_rows:
        return Split((p, None), JOIN, ndim - 1 - (b.ndim > 1)) if q is None else None
    if q is not None and q == b_columns:
        return Split((None, q), JOIN, ndim - 1) if p is None else None
    places = {axis - x.ndim for axis, x in ((p, a), (q, b)) if axis is not None}  # one of the batches
    if len(places) != 1 or a.ndim < 2 or b.ndim < 2:
        return None
    place = places.pop()
    cuts = tuple(
        x.ndim + place if x.ndim + place >= 0 and x.shape[x.ndim + place] != 1 else None for x in (a, b)
    )
    if any(axis is not None and axis != cut for axis, cut in zip(axes, cuts)):
        return None
    return Split(cuts, JOIN, ndim + place)


def transposed(n, cut, /, x, *, axes) -> Split | None:
    return Split(cut, JOIN, axes.index(cut[0]))


def joined_parts(n, axes, /, *specs, axis) -> Split | None:
    """``concatenate`` along an axis that is not cut; parts that are not in rows are cut too."""
    along = {each for each in axes if each is not None}
    if len(along) != 1 or along == {axis}:
        return None
    cut = along.pop()
    return Split((cut,) * len(specs), JOIN, cut)


def stacked(n, axes, /, *specs, axis) -> Split | None:
    along = {each for each in axes if each is not None}
    if len(along) != 1:
        return None
    cut = along.pop()
    return Split((cut,) * len(specs), JOIN, cut + (axis <= cut))


def taken(n, axes, /, x, indices, *, axis) -> Split | None:
    p, q = axes
    if p is None:
        return Split(axes, JOIN, axis + q)
    if q is not None or p == axis:
        return None
    return Split(axes, JOIN, p if p < axis else p + indices.ndim - 1)


def scattered(n, axes, /, x, indices, *, axis, size) -> Split | None:
    p, q = axes
    if p is not None and axis <= p < axis + indices.ndim:
        return Split((p, p - axis), SUM) if q in (None, p - axis) else None
    if p is None:
        return Split((axis + q, q), SUM)
    return None if q is not None else Split(axes, JOIN, p if p < axis else p - indices.ndim + 1)


def with_offset(n, axes, /, x, *others, **attributes) -> Split | None:
    """Elements that know their place in the whole array, counted from ``offset``: only parts that follow on."""
    if axes[0] != 0 or any(axis is not None for axis in axes[1:]):
        return None
    each, offset = x.size // n, attributes["offset"]
    return Split(axes, JOIN, 0, lambda start, stop: {"offset": offset + start * each})
