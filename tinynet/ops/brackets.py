"""What a user's brackets mean: ``x[2, 1:5, None, ..., rows]`` in terms of operations.

Integers, slices, None and Ellipsis are a ``getitem``; integer tensors and lists gather. Boolean masks are refused: the
shape of their result is not known before the values are.
"""

from __future__ import annotations

import math

from tinynet.backend import HostArray, HostScalar, host_indices
from tinynet.errors import DTypeError, RangeError, ShapeError

from .door import Value, wrap
from .elementwise import where
from .indexing import bounded, check_indices, getitem, take
from .shaping import cast, reshape, transpose
from .spec import BOOL, INT64


def _is_array(entry) -> bool:
    return isinstance(entry, (Value, HostArray, list, tuple)) or hasattr(entry, "__array_namespace__")


def _indices(entry, x: Value) -> Value:
    """An index array, list or integer as an int64 tensor beside ``x``."""
    if not isinstance(entry, Value):
        if isinstance(entry, (list, tuple, int)):
            try:
                entry = host_indices(entry)
            except ValueError as error:
                raise ShapeError("indexing", expected="index lists of equal lengths", got=repr(entry)) from error
        entry = wrap(entry, x.backend, "indexing")
    if entry.dtype == BOOL:
        raise DTypeError(
            "indexing", expected="integers",
            got="a boolean mask, whose result has no shape before its values are known",
            mend="use tn.where(mask, x, 0.0), or find the indices with NumPy first",
        )  # fmt: skip
    check_indices("indexing", entry.spec)
    return entry if entry.dtype == INT64 else cast(entry, dtype=INT64)


def index_with(x: Value, index):
    """``x[index]`` for anything that a user may write in brackets.

    Integer arrays are broadcast together. Their axes stand where the first of them stood if they are neighbours, and
    come first otherwise (NumPy's rule).
    """
    entries = index if isinstance(index, tuple) else (index,)
    entries = tuple(entry.item() if isinstance(entry, HostScalar) else entry for entry in entries)
    if not any(_is_array(entry) for entry in entries):
        return getitem(x, index=entries)
    given = sum(entry is not None and entry is not Ellipsis for entry in entries)
    if given > len(x.shape) or sum(entry is Ellipsis for entry in entries) > 1:
        raise RangeError("indexing", expected=f"at most {len(x.shape)} indices for shape {x.shape}", got=f"[{index!r}]")
    at = next((i for i, entry in enumerate(entries) if entry is Ellipsis), len(entries))
    entries = (*entries[:at], *(slice(None),) * (len(x.shape) - given), *entries[at + 1 :])
    # An integer beside arrays is an array without axes; everything else is applied first.
    arrays = {i: entry for i, entry in enumerate(entries) if _is_array(entry) or isinstance(entry, int)}
    x = getitem(x, index=tuple(slice(None) if i in arrays else entry for i, entry in enumerate(entries)))
    indices = [_indices(entry, x) for entry in arrays.values()]
    if len(indices) == 1:
        return take(x, indices[0], axis=next(iter(arrays)))
    return _gather(x, list(arrays), indices)


def _gather(x: Value, axes: list[int], indices: list[Value]) -> Value:
    """Several index arrays at once: the indexed axes become one, from which one combined index picks."""
    sizes = [x.shape[axis] for axis in axes]
    others = [axis for axis in range(len(x.shape)) if axis not in axes]
    combined = None
    for entry, size in zip(indices, sizes):
        entry = bounded(entry, size=size)
        entry = where(entry < 0, entry + size, entry)
        combined = entry if combined is None else combined * size + entry
    rows = reshape(transpose(x, (*axes, *others)), (math.prod(sizes), *(x.shape[axis] for axis in others)))
    picked = take(rows, combined, axis=0)
    first, k = axes[0], len(combined.shape)
    if axes != list(range(first, axes[-1] + 1)):
        return picked
    return transpose(picked, (*range(k, k + first), *range(k), *range(k + first, len(picked.shape))))
