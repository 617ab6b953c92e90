"""Native kernels: a function that makes instructions of arrays, filed as the kernel of an operation.

    @native("softmax")
    def softmax(out, x, axis):
        if not lines_up(x): return None
        return [Instruction("softmax", x.dtype.itemsize, (address(out), address(x), ...), keep=(out, x))]

What the function does not take (a layout, a type of labels) it answers with None; then the kernel is the one for NumPy.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ...encoded import encoded
from ...registry import Kernel, add, find
from .instructions import Instruction, run
from .pool import useful_threads

__all__ = ["address", "kernel", "native", "useful_threads"]

DTYPES = ("float32", "float64")


def native(operation: str, scratch: Callable | None = None, dtypes=DTYPES) -> Callable:
    """Decorator: files ``encode(out, *inputs, **attributes) -> list of Instruction or None`` as the native kernel.

    Beside instructions the list may hold calls, ``(function, arguments)``, which other kernels' ``bind`` gave.

    Args:
        scratch: ``scratch(out, *inputs, **attributes) -> bytes``, of shapes and dtypes alone. With it, ``encode`` takes
            ``scratch=`` as well: bytes, aligned to 64.
        dtypes: of the (first) result; None in it stands for any.
    """

    def file(encode: Callable) -> Callable:
        for dtype in dtypes:
            add(kernel(operation, encode, scratch, find(operation, "numpy", dtype)), dtype)
        return encode

    return file


def kernel(operation: str, encode: Callable, scratch: Callable | None, otherwise: Kernel) -> Kernel:
    """A native kernel, with another one for what ``encode`` does not take."""
    return encoded(operation, "native", encode, scratch, otherwise, Instruction, run)


def address(array: np.ndarray) -> int:
    return array.ctypes.data
