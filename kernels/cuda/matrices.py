"""Kernels for CUDA of matrix products, and of the layer that is made of one: ``products`` on the arrays' matrices.

A product of operands in bf16 takes the same way: such operands are of another type, and need no rounding.

What memory and strides do not allow (an output over an operand, more than ``MOST`` batches that no single stride takes
from one to the next) is declined. A product may also be cuBLAS's, where that was measured to be faster: ``choice``.
"""

from __future__ import annotations

import functools
import math

import numpy as np

from ..precision import of_bf16, precision
from . import choice
from .encoding import WIDE, address, apart, cuda, line
from .operands import GROUP, copies_bytes, copies_pay, copy
from .products import NOTHING, Product, View, launches, scratch_bytes, step_for

MOST = 64  # launches for a batch
RECENT = 90  # a compute capability
TENSOR_CORES = 80  # the compute capability from which they take TF32 and bf16


@functools.cache
def _capability(device: int) -> int:
    import cupy

    return int(cupy.cuda.Device(device).compute_capability)


def capability(array=None) -> int:
    """Of the device that an array is on, or of the current one.

    Of a recent one for an array of NumPy, or where there is none.
    """
    if hasattr(array, "__array_interface__"):
        return RECENT
    if array is not None:
        return _capability(array.device.id)
    try:
        import cupy

        return _capability(cupy.cuda.runtime.getDevice())
    except (ImportError, RuntimeError):  # neither library nor driver: what is planned here will run elsewhere
        return RECENT


def _scratch(out, a, b) -> int:
    """For each way in which the axes of a batch may become one product or several, in the precision that is set."""
    if not a.shape or not b.shape or 0 in out.shape:
        return 0
    k, n = a.shape[-1], b.shape[-1] if len(b.shape) > 1 else 1
    m = a.shape[-2] if len(a.shape) > 1 else 1
    batch = math.prod(out.shape) // (m * n)
    a_count, b_count = math.prod(a.shape[:-2]), math.prod(b.shape[:-2])
    shapes = {(m, n, k, batch, a_count, b_count)}
    if len(b.shape) == 2:
        shapes.add((m * batch, n, k, 1, 1, 1))
    in_bf16, most = precision() == "bf16" and out.dtype == a.dtype == np.float32, 0
    for m, n, k, batch, *counts in shapes:
        most = max(most, scratch_bytes(m, n, k, batch, out.dtype))
        if in_bf16 and copies_pay(m, n):  # copies or slices: never both
            most = max(most, copies_bytes(m, n, k, *counts))
    return most


# ---- operands in bf16 ----


def keeps(m: int, n: int, k: int) -> bool:
    """Whether operands of a product of these sizes should be kept: where rows of theirs are whole loads, either way."""
    return capability() >= TENSOR_CORES and copies_pay(m, n) and not any(size % GROUP for size in (m, n, k))


@cuda("to_bf16", dtypes=("uint16",))
def to_bf16(out, x):
    if not out.size:
        return []
    view = _view(x) if x.ndim == 2 and x.dtype == np.float32 else None
    if view is None or capability(out) < TENSOR_CORES or not line(out) or not apart(out, x):
        return None
    if x.shape[1] % GROUP or address(out) % WIDE:
        return None
    return copy(view, *x.shape, 1, address(out), (out, x))


# ---- products ----


@cuda(of_bf16("matmul"), scratch=_scratch, dtypes=("float32",))
@cuda("matmul", scratch=_scratch)
def matmul(out, a, b, scratch):
    return _encode(out, a, b, scratch)


@cuda(of_bf16("linear"), scratch=lambda out, x, w, *b, activation: _scratch(out, x, w), dtypes=("float32",))
@cuda("linear", scratch=lambda out, x, w, *b, activation: _scratch(out, x, w))
def linear(out, x, w, *b, activation, scratch):
    return _encode(out, x, w, scratch, bias=b[0] if b else None, activation=activation)


@cuda(of_bf16("masked_matmul"), scratch=lambda out, a, b, h: _scratch(out, a, b), dtypes=("float32",))
@cuda("masked_matmul", scratch=lambda out, a, b, h: _scratch(out, a, b))
def masked_matmul(out, a, b, h, scratch):
    return _encode(out, a, b, scratch, mask=h)


def _encode(out, a, b, scratch, bias=None, activation=None, mask=None):
    found = products(out, a, b, bias, activation, mask)
    if found is None:
        return None
    given = "bf16" if a.dtype != out.dtype else precision()
    calls, exactness = [], given if capability(out) >= TENSOR_CORES else "float32"
    if exactness != "bf16" and a.dtype != out.dtype:
        return None
    for each in found:
        own = launches(each, step_for(each, exactness), exactness, scratch)
        calls += choice.best(each, own, exactness, out, scratch)
    return calls


def products(out, a, b, bias=None, activation=None, mask=None) -> list[Product] | None:
    """The products that ``matmul``, ``linear`` and ``masked_matmul`` are made of; None where memory does not allow it.

    Args:
        out, a, b: as ``matmul`` takes them: vectors, matrices, or batches whose axes are broadcast.
        bias: (n,). mask: as out.
    """
    if not out.size:
        return []
    keep = tuple(each for each in (out, a, b, bias, mask) if each is not None)
    if not all(apart(out, each) for each in keep[1:]) or any(_is_same(out, each) for each in (a, b, bias)):
        return None
    masked, mask = mask is not None, out if mask is None else mask  # whose axes are taken apart as those of out
    if a.ndim == 1:
        at = (..., None, slice(None)) if b.ndim > 1 else (..., None)
        a, out, mask = a[None], out[at], mask[at]
    if b.ndim == 1:
        b, out, mask = b[:, None], out[..., None], mask[..., None]
    if a.ndim > 2 and b.ndim == 2 and line(a, out, mask):
        rows = math.prod(a.shape[:-1])
        a, out, mask = (each.reshape(rows, each.shape[-1]) for each in (a, out, mask))
    (m, n), k = out.shape[-2:], a.shape[-1]
    views, operands = [_view(each) for each in (a, b, out, mask)], np.dtype(a.dtype)
    sizes = [each.dtype.itemsize for each in (a, b, out, mask)]
    axes = _batches(out.shape[:-2], (a, b, out, mask))
    at_bias = NOTHING if bias is None else View(address(bias), 0, _stride(bias, 0))
    if None in (*views, axes, at_bias.column) or math.prod(count for count, _ in axes[:-1]) > MOST:
        return None
    count, inner = axes[-1]
    a, b, c, mask = (view._replace(batch=step) for view, step in zip(views, inner))
    mask = mask if masked else NOTHING
    dtype = np.dtype(out.dtype)
    whole = Product(m, n, k, count, a, b, c, at_bias, mask, activation, dtype, keep, operands)
    found = []
    for index in np.ndindex(*(count for count, _ in axes[:-1])):
        at = [sum(i * steps[which] for i, (_, steps) in zip(index, axes)) for which in range(4)]
        moved = [
            view._replace(address=view.address + step * size) for view, step, size in zip((a, b, c, mask), at, sizes)
        ]
        one = whole._replace(**dict(zip("abc", moved)))
        found.append(one._replace(mask=moved[3]) if masked else one)
    return found


def _is_same(out, x) -> bool:
    return x is not None and x.size > 0 and address(x) == address(out)


def _stride(x, axis: int) -> int | None:
    """Elements from one to the next; 0 along an axis of one, None for a part of an element."""
    if x.shape[axis] <= 1:
        return 0
    return None if x.strides[axis] % x.dtype.itemsize else x.strides[axis] // x.dtype.itemsize


def _view(x) -> View | None:
    """Its last two axes. The stride along an axis of one element may be anything: it is what makes the other fit."""
    row, column = _stride(x, x.ndim - 2), _stride(x, x.ndim - 1)
    if row is None or column is None:
        return None
    rows, columns = x.shape[-2:]
    if columns <= 1:
        row, column = row, 1 if rows <= 1 or row != 1 else 0
    if rows <= 1:
        row = 0
    return View(address(x), row, column)


def _batches(shape, arrays) -> list[tuple[int, tuple[int, ...]]] | None:
    """Axes of a batch as (count, strides of the arrays), joined where one follows from the other; one at least."""
    found = []
    for axis, count in enumerate(shape):
        if count == 1:
            continue
        steps = []
        for x in arrays:
            own = axis - len(shape) + x.ndim - 2
            steps.append(_stride(x, own) if own >= 0 else 0)
        if None in steps:
            return None
        if found and all(outer == inner * count for outer, inner in zip(found[-1][1], steps)):
            found[-1] = (found[-1][0] * count, tuple(steps))
        else:
            found.append((count, tuple(steps)))
    return found or [(1, (0, 0, 0, 0))]
