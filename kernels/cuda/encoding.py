"""Kernels for CUDA: a function that makes launches of arrays, filed as the kernel of an operation.

    @cuda("softmax")
    def softmax(out, x, axis):
        if not lines_up(x): return None
        return [Launch("rows", "softmax_f32", grid, block, (pointer(out), pointer(x), ...), keep=(out, x))]

What the function does not take (a layout, a type of labels) it answers with None; then the kernel is CuPy's.

Sizes and strides in arguments are counted in elements.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..encoded import encoded
from ..registry import Kernel, add, find
from ..strides import one_stride
from .launch import Launch, run

__all__ = ["Launch", "address", "aligned", "apart", "blocks_of", "cuda", "integer", "integer_kind", "kernel", "line"]
__all__ += ["number", "pointer", "rows", "run", "stride", "suffix"]

DTYPES = ("float32", "float64")
SUFFIXES = {"float32": "_f32", "float64": "_f64"}
WIDE = 16  # bytes of the widest load


def cuda(operation: str, scratch: Callable | None = None, dtypes=DTYPES) -> Callable:
    """Decorator: files ``encode(out, *inputs, **attributes) -> list of Launch or None`` as the kernel for CUDA.

    Beside launches the list may hold calls, ``(function, arguments)``, which other kernels' ``bind`` gave.

    Args:
        scratch: ``scratch(out, *inputs, **attributes) -> bytes``, of shapes and dtypes alone. With it, ``encode`` takes
            ``scratch=`` as well: bytes, aligned to 64 at least.
        dtypes: of the (first) result; None in it stands for any.
    """

    def file(encode: Callable) -> Callable:
        for dtype in dtypes:
            add(kernel(operation, encode, scratch, find(operation, "cupy", dtype)), dtype)
        return encode

    return file


def kernel(operation: str, encode: Callable, scratch: Callable | None, otherwise: Kernel) -> Kernel:
    """A kernel for CUDA, with another one for what ``encode`` does not take."""
    return encoded(operation, "cuda", encode, scratch, otherwise, Launch, run)


# ---- arguments ----


def address(array) -> int:
    """Where an array begins, on the host for a NumPy array, on the device for one of CuPy."""
    if hasattr(array, "__array_interface__"):
        return array.__array_interface__["data"][0]
    return array.data.ptr


def pointer(array) -> np.uint64:
    """An address as an argument; a null pointer for None."""
    return np.uint64(0 if array is None else address(array))


integer = np.int64


def number(value: float, dtype) -> np.floating:
    """A parameter of the kernel's element type."""
    return np.dtype(dtype).type(value)


def integer_kind(array) -> int:
    """What tells a kernel how to read an integer (``integer_at``): its bytes, and 16 more where it has no sign."""
    return array.dtype.itemsize + 16 * (array.dtype.kind in "ub")


def suffix(array) -> str:
    """How names of kernels for the type of an array end: _f32 or _f64."""
    return SUFFIXES[str(array.dtype)]


def blocks_of(count: int, size: int) -> tuple[int, int, int]:
    """A grid of as many blocks as it takes for ``count``, of which a block does ``size``."""
    return -(-count // size), 1, 1


# ---- memory: by shape and strides alone, whichever library's arrays they are ----


def line(*arrays) -> bool:
    """Whether the elements of each lie side by side, in C order."""
    return all(_is_line(x.shape, x.strides, x.dtype.itemsize) for x in arrays)


def _is_line(shape, strides, itemsize: int) -> bool:
    expected = itemsize
    if 0 in shape:
        return True
    for n, step in zip(reversed(shape), reversed(strides)):
        if n != 1 and step != expected:
            return False
        expected *= n
    return True


def stride(array) -> int | None:
    """Elements from element to element, in C order; None where that is not one whole number."""
    return _stride(array.shape, array.strides, array.dtype.itemsize)


def rows(*arrays) -> list[int] | None:
    """Elements from row to row of arrays whose rows are their last axis; None where that is not one number for each.

    Elements of a row lie side by side. An array without axes is a row of one element.
    """
    found = []
    for x in arrays:
        size = x.dtype.itemsize
        if x.ndim and x.shape[-1] > 1 and x.strides[-1] != size:
            return None
        found.append(_stride(x.shape[:-1], x.strides[:-1], size))
    return None if None in found else found


def _stride(shape, strides, itemsize: int) -> int | None:
    found = one_stride(shape, strides)
    return None if found is None or found % itemsize else found // itemsize


def aligned(array, row_stride: int = 0) -> bool:
    """Whether 16 bytes may be loaded at once from where the array begins, and from each of its rows."""
    return address(array) % WIDE == 0 and row_stride * array.dtype.itemsize % WIDE == 0


def apart(out, *inputs) -> bool:
    """Whether each input is the very memory of ``out``, or lies before or behind it."""
    low, high = _bounds(out)
    for x in inputs:
        one, other = _bounds(x)
        same = (address(x), x.shape, x.strides, x.dtype) == (address(out), out.shape, out.strides, out.dtype)
        if not same and one < high and low < other:
            return False
    return True


def _bounds(x) -> tuple[int, int]:
    if 0 in x.shape:
        return 0, 0
    reach = [step * (n - 1) for n, step in zip(x.shape, x.strides)]
    start = address(x)
    low, high = sum(min(0, each) for each in reach), sum(max(0, each) for each in reach)
    return start + low, start + high + x.dtype.itemsize
