"""Native kernels of matrix products, and of the layer that is made of one: what ``plan`` makes of arrays."""

from __future__ import annotations

import math

import numpy as np

from ...choices import Choice
from . import plan, pool
from .choice import BLAS, choose
from .encoding import native

MOST = 64  # products of a batch that are instructions of their own; longer batches go to NumPy


def _matmul_scratch(out, a, b) -> int:
    k, n = a.shape[-1], b.shape[-1] if len(b.shape) > 1 else 1
    if math.prod(out.shape) == 0:
        return 0
    m = a.shape[-2] if len(a.shape) > 1 else 1
    if len(b.shape) == 2:
        m = math.prod(a.shape[:-1])
    return max(
        plan.scratch_bytes(m, k, n, a.dtype, transpose_a=ta, transpose_b=tb, threads=threads)
        for ta in _transposed(a) for tb in _transposed(b) for threads in {1, pool.threads()}
    )  # fmt: skip


def _transposed(x) -> tuple[bool, ...]:
    """Whether an operand is a transpose of rows that lie side by side; both, where shapes and strides do not say it."""
    strides, size = getattr(x, "strides", None), x.dtype.itemsize
    if strides is None or len(x.shape) < 2 or min(x.shape[-2:]) < 2 or size not in strides[-2:]:
        return False, True
    return (strides[-1] != size,)


@native("matmul", scratch=_matmul_scratch)
def matmul(out, a, b, scratch):
    return _products(out, a, b, scratch)


@native("masked_matmul", scratch=lambda out, a, b, h: _matmul_scratch(out, a, b))
def masked_matmul(out, a, b, h, scratch):
    return _products(out, a, b, scratch, mask=h)


def _products(out, a, b, scratch, bias=None, activation=None, mask=None):
    mask = out if mask is None else mask  # whose axes are taken apart as those of out
    masked = mask is not out
    if a.ndim == 1:
        at = (..., None, slice(None)) if b.ndim > 1 else (..., None)
        a, out, mask = a[None], out[at], mask[at]
    if b.ndim == 1:
        b, out, mask = b[:, None], out[..., None], mask[..., None]
    if a.ndim > 2 and b.ndim == 2 and all(each.flags.c_contiguous for each in (a, out, mask)):
        rows = math.prod(a.shape[:-1])
        a, out, mask = (each.reshape(rows, each.shape[-1]) for each in (a, out, mask))
    if not out.size:
        return []
    batch = out.shape[:-2]
    if math.prod(batch) > MOST:
        return None
    a, b = np.broadcast_to(a, batch + a.shape[-2:]), np.broadcast_to(b, batch + b.shape[-2:])
    found = []
    for one in np.ndindex(batch):
        operands, finish = (out[one], a[one], b[one]), (bias, activation, mask[one] if masked else None)
        if not plan.takes(*operands, bias, finish[2]):
            return None
        calls = _product(*operands, scratch, *finish)
        if calls is None:
            return None
        found += calls
    return found


def _product(out, a, b, scratch, bias, activation, mask):
    """One product, by the own kernel or by BLAS and an instruction for the rest; None for want of scratch."""
    room = 0 if scratch is None else scratch.nbytes
    for threads in range(pool.threads(), 0, -1):  # as many as the scratch is for, if there are more by now
        product = plan.Product(out, a, b, bias=bias, activation=activation, mask=mask, threads=threads)
        if product.scratch_bytes <= room:
            break
    else:
        return None
    instruction = product.instruction(scratch)
    if instruction is None:
        return []
    choice = choose(out, a, b, scratch)
    if choice is None:
        return [instruction]
    if pool.threads() > 1 or choice.way != BLAS:
        shared = "own kernel on several threads; " if choice.way == BLAS else ""
        return [instruction._replace(note=f"{shared}on one thread: {choice}")]
    rest = plan.finishing(out, bias, activation, mask)
    return [(Blas(choice), (a, b, out)), *rest]


class Blas:
    """NumPy's product, with the reason for it."""

    def __init__(self, choice: Choice):
        self.note = f"on one thread: {choice}"

    def __call__(self, a, b, out) -> None:
        np.matmul(a, b, out)


@native("linear", scratch=lambda out, x, w, *b, activation: _matmul_scratch(out, x, w))
def linear(out, x, w, *b, activation, scratch):
    return _products(out, x, w, scratch, bias=b[0] if b else None, activation=activation)
