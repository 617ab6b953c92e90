"""Native kernels of matrix products, and of the layer that is made of one: what ``plan`` makes of arrays."""

from __future__ import annotations

import math

import numpy as np

from . import plan, pool
from .choice import Choice, choose
from .encoding import native

MOST = 64  # products of a batch that are instructions of their own; longer batches go to NumPy


def _matmul_scratch(out, a, b) -> int:
    k, n = a.shape[-1], b.shape[-1] if len(b.shape) > 1 else 1
    if math.prod(out.shape) == 0:
        return 0
    m = a.shape[-2] if len(a.shape) > 1 else 1
    if len(b.shape) == 2:
        m = math.prod(a.shape[:-1])
    # Which of the operands is a transposed view is not known by shapes: enough for each case.
    return max(
        plan.scratch_bytes(m, k, n, a.dtype, transpose_a=ta, transpose_b=tb, threads=threads)
        for ta in (False, True) for tb in (False, True) for threads in {1, pool.threads()}
    )  # fmt: skip


@native("matmul", scratch=_matmul_scratch)
def matmul(out, a, b, scratch):
    return _products(out, a, b, scratch)


def _products(out, a, b, scratch, bias=None, activation=None):
    if a.ndim == 1:
        a, out = a[None], (out[..., None, :] if b.ndim > 1 else out[..., None])
    if b.ndim == 1:
        b, out = b[:, None], out[..., None]
    if a.ndim > 2 and b.ndim == 2 and a.flags.c_contiguous and out.flags.c_contiguous:
        rows = math.prod(a.shape[:-1])
        a, out = a.reshape(rows, a.shape[-1]), out.reshape(rows, out.shape[-1])
    if not out.size:
        return []
    batch = out.shape[:-2]
    if math.prod(batch) > MOST:
        return None
    a, b = np.broadcast_to(a, batch + a.shape[-2:]), np.broadcast_to(b, batch + b.shape[-2:])
    found = []
    for one in np.ndindex(batch):
        if not plan.takes(out[one], a[one], b[one], bias):
            return None
        found += _product(out[one], a[one], b[one], scratch, bias, activation)
    return found


def _product(out, a, b, scratch, bias, activation):
    """One product, by the own kernel or by BLAS and an instruction for the rest."""
    product = plan.Product(out, a, b, bias=bias, activation=activation, threads=pool.threads())
    instruction = product.instruction(scratch)
    if instruction is None:
        return []
    choice = choose(out, a, b, scratch)
    if choice is None or not choice.is_blas:
        return [instruction._replace(note=str(choice) if choice else "")]
    rest = plan.finishing(out, bias, activation)
    return [(Blas(choice), (a, b, out)), *rest]


class Blas:
    """NumPy's product, with the reason for it."""

    def __init__(self, choice: Choice):
        self.note = str(choice)

    def __call__(self, a, b, out) -> None:
        np.matmul(a, b, out)


@native("linear", scratch=lambda out, x, w, *b, activation: _matmul_scratch(out, x, w))
def linear(out, x, w, *b, activation, scratch):
    return _products(out, x, w, scratch, bias=b[0] if b else None, activation=activation)
