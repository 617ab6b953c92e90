"""Shapes and element types without arrays: ``Spec``, and the rules that operations share.

A rule gets the specs of an operation's inputs and its attributes, raises where they do not fit, and returns the spec
of the output. It touches no array, so that a program can be planned before there is one.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from tinynet.backend import INTEGERS, DType, as_dtype, is_floating
from tinynet.errors import ArgumentError, DTypeError, RangeError, ShapeError

Shape = tuple[int, ...]


class Spec(NamedTuple):
    """The shape and the element type of an array."""

    shape: Shape
    dtype: DType

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize


BOOL = as_dtype("bool")
INT64 = as_dtype("int64")
FLOAT32 = as_dtype("float32")


def same_dtype(where: str, *specs: Spec, kind: str = "number") -> DType:
    """The one element type of all ``specs``.

    Args:
        kind: "number" (not bool), "float", or "any".

    Raises:
        DTypeError: two types, or one that is not of the kind.
    """
    first = specs[0].dtype
    for spec in specs[1:]:
        if spec.dtype != first:
            raise DTypeError(
                where,
                expected="operands of one dtype",
                got=" and ".join(str(each.dtype) for each in specs),
                mend="convert one with .astype(...)",
            )
    if (kind == "float" and not is_floating(first)) or (kind == "number" and first == BOOL):
        wanted = "floating dtype" if kind == "float" else "numbers"
        raise DTypeError(where, expected=wanted, got=str(first), mend="convert it with .astype('float32')")
    return first


def broadcast_shapes(where: str, *shapes: Shape) -> Shape:
    """The shape to which ``shapes`` broadcast, by NumPy's rule.

    Raises:
        ShapeError: sizes that differ and are not 1.
    """
    first = shapes[0]
    if all(shape == first for shape in shapes):
        return first
    result = []
    for i in range(-max(map(len, shapes)), 0):
        sizes = {shape[i] for shape in shapes if len(shape) >= -i} - {1}
        if len(sizes) > 1:
            raise ShapeError(
                where,
                expected="shapes that broadcast (equal sizes, or 1, counted from the last axis)",
                got=" and ".join(map(str, shapes)),
                mend="reshape one of them, or add axes with expand_dims",
            )
        result.append(sizes.pop() if sizes else 1)
    return tuple(result)


def normalize_axis(where: str, axis: int, ndim: int) -> int:
    """``axis`` counted from 0.

    Raises:
        RangeError: there is no such axis.
    """
    if isinstance(axis, bool) or not isinstance(axis, INTEGERS):
        raise ArgumentError(where, expected="an integer axis", got=repr(axis))
    if not -ndim <= axis < ndim:
        raise RangeError(where, expected=f"an axis from {-ndim} to {ndim - 1}", got=f"axis {axis} of {ndim} axes")
    return int(axis) % ndim


def normalize_axes(where: str, axis, ndim: int) -> tuple[int, ...]:
    """Axes counted from 0, ascending; None means all.

    Raises:
        RangeError: there is no such axis.
        ArgumentError: an axis named twice.
    """
    if axis is None:
        return tuple(range(ndim))
    axes = tuple(normalize_axis(where, each, ndim) for each in (axis if isinstance(axis, (tuple, list)) else (axis,)))
    if len(set(axes)) < len(axes):
        raise ArgumentError(where, expected="each axis once", got=f"axis={axis}")
    return tuple(sorted(axes))


def reduced_shape(shape: Shape, axes: tuple[int, ...], keepdims: bool) -> Shape:
    """The shape after reducing ``axes``, which are kept with size 1 if ``keepdims``."""
    return tuple(1 if i in axes else n for i, n in enumerate(shape) if keepdims or i not in axes)


def as_shape(where: str, shape, least: int = 0) -> Shape:
    """``shape`` as a tuple of integers, none below ``least`` (-1 for ``reshape``, which resolves it).

    Raises:
        ShapeError: anything else.
    """
    entries = tuple(shape) if isinstance(shape, (tuple, list)) else (shape,)
    if any(isinstance(n, bool) or not isinstance(n, INTEGERS) or n < least for n in entries):
        raise ShapeError(where, expected="non-negative integers", got=repr(shape))
    return tuple(int(n) for n in entries)
