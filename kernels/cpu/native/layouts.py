"""What encoders have to know of an array's memory: whether it is one line, or rows of one length at one distance."""

from __future__ import annotations

import math

import numpy as np

from ...strides import one_stride

CHUNK = 4096  # elements whose squares are added up at a time, in a fixed order: see ``code.squares``


def line(*arrays: np.ndarray) -> bool:
    """Whether the elements of each lie side by side, in C order."""
    return all(x.flags.c_contiguous for x in arrays)


def rows(*arrays: np.ndarray) -> list[int] | None:
    """Bytes from row to row of arrays of one shape, whose rows are their last axis; None where that is not one number.

    Elements of a row lie side by side. An array without axes is a row of one element.
    """
    if any(x.ndim and x.shape[-1] > 1 and x.strides[-1] != x.itemsize for x in arrays):
        return None
    found = [stride(x[..., 0] if x.ndim else x) for x in arrays]
    return None if None in found else found


def apart(out: np.ndarray, *inputs: np.ndarray) -> bool:
    """Whether each input is the very memory of ``out``, or shares none with it."""
    return all(_same_memory(out, x) or not _overlap(out, x) for x in inputs)


def _same_memory(a: np.ndarray, b: np.ndarray) -> bool:
    return (a.ctypes.data, a.shape, a.strides) == (b.ctypes.data, b.shape, b.strides)


def _overlap(a: np.ndarray, b: np.ndarray) -> bool:
    try:
        return np.shares_memory(a, b, max_work=1000)
    except np.exceptions.TooHardError:
        return True


def stride(x: np.ndarray) -> int | None:
    """Bytes from element to element, in C order; None where that is not one number."""
    return one_stride(x.shape, x.strides)


def shape_of_rows(x: np.ndarray, *others: np.ndarray) -> tuple[int, int]:
    """How many rows, and their length: one long row where all arrays are one line."""
    if line(x, *others):
        return 1, x.size
    return math.prod(x.shape[:-1]), x.shape[-1]


def index_kind(x: np.ndarray) -> int:
    """What tells compiled code how to read an integer: its bytes, and 16 more where it has no sign."""
    return x.itemsize + 16 * (x.dtype.kind in "ub")
