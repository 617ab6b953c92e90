"""Matrix products for NumPy: its BLAS, on operands as BLAS takes them; and the layer that is made of one."""

from __future__ import annotations

import math

import numpy as np

from ..expression import Expression, parse, substitute
from ..registry import expression
from .blocks import computing
from .cutting import call, kernel

# An operand in a layout that BLAS does not take (every other column, columns backwards, one row repeated) is copied
# through this many bytes, a few rows at a time; NumPy would copy all of it into memory of its own. It is small because
# every product declares it, and hardly any needs it.
PANEL = 8192


def _panel(x, k: int) -> int:
    """Bytes of scratch for an operand whose rows or columns have ``k`` elements."""
    size = np.dtype(x.dtype).itemsize
    return max(min(PANEL, math.prod(x.shape) * size), k * size)


def _registers(out, a, b) -> list[int]:
    k = a.shape[-1]
    return [_panel(a, k), _panel(b, k)]


@kernel("matmul", _registers)
def matmul(out, a, b, room):
    if _for_blas(a) and _for_blas(b):
        if a.ndim > 2 and b.ndim == 2 and a.flags.c_contiguous and out.flags.c_contiguous:
            rows = math.prod(a.shape[:-1])  # one product instead of one for each matrix of the batch
            a, out = a.reshape(rows, a.shape[-1]), out.reshape(rows, out.shape[-1])
        yield np.matmul, (a, b, out)
        return
    if a.ndim == 1:
        a, out = a[None], (out[..., None, :] if b.ndim > 1 else out[..., None])
    if b.ndim == 1:
        b, out = b[:, None], out[..., None]
    batch = out.shape[:-2]
    a, b = np.broadcast_to(a, batch + a.shape[-2:]), np.broadcast_to(b, batch + b.shape[-2:])
    for one in np.ndindex(batch):
        yield from _by_panels(out[one], a[one], b[one], room)


def _for_blas(x) -> bool:
    """Whether BLAS takes the last two axes as they lie: one with its elements side by side, the other spaced wider."""
    size = x.dtype.itemsize
    if x.ndim == 1:
        return x.strides[0] > 0 and x.strides[0] % size == 0
    (rows, columns), (n, m) = x.strides[-2:], x.shape[-2:]
    return (columns == size and rows >= m * size and rows % size == 0) or (
        rows == size and columns >= n * size and columns % size == 0
    )


def _by_panels(out, a, b, room):
    (m, k), n = a.shape, b.shape[1]
    step = max(1, PANEL // max(1, k * a.dtype.itemsize))
    rows, columns = m if _for_blas(a) else step, n if _for_blas(b) else step
    for i in range(0, m, max(1, rows)):
        left = a[i : i + rows]
        if rows < m or not _for_blas(a):
            copy = room.view(0, left.shape, a.dtype)
            yield call(np.copyto, (left,), copy)
            left = copy
        for j in range(0, n, max(1, columns)):
            right = b[:, j : j + columns]
            if columns < n or not _for_blas(b):
                copy = room.view(1, right.shape[::-1], b.dtype).T
                yield call(np.copyto, (right,), copy)
                right = copy
            yield np.matmul, (left, right, out[i : i + rows, j : j + columns])


_mask = computing(Expression(parse("where(h > 0, y, 0)", ("y", "h")), ("y", "h")))


def _masked_registers(out, a, b, h) -> list[int]:
    return [*_registers(out, a, b), _mask.nbytes(out, out, h)]


@kernel("masked_matmul", _masked_registers)
def masked_matmul(out, a, b, h, room):
    yield from matmul(out, a, b, room=room)
    yield from _mask.steps(out, out, h, scratch=room.bytes(2))


# ---- linear ----

_finishes: dict[tuple, object] = {}


def _finish(activation: str | None, bias: bool):
    """What is done to x W, element by element: the bias and the activation as one expression. None for neither."""
    activated = expression(activation) if activation is not None else None
    if activated is None and not bias:
        return None
    if (activated, bias) not in _finishes:
        names = ("y", "b") if bias else ("y",)
        tree = parse("y + b" if bias else "y", names)
        if activated is not None:
            tree = substitute(activated.tree, {activated.inputs[0]: tree})
        _finishes[activated, bias] = computing(Expression(tree, names))
    return _finishes[activated, bias]


def _linear_registers(out, x, w, *b, activation) -> list[int]:
    finish = _finish(activation, bool(b))
    return [*_registers(out, x, w), finish.nbytes(out, out, *b) if finish is not None else 0]


@kernel("linear", _linear_registers)
def linear(out, x, w, *b, activation, room):
    yield from matmul(out, x, w, room=room)
    finish = _finish(activation, bool(b))
    if finish is not None:
        yield from finish.steps(out, out, *b, scratch=room.bytes(2))
