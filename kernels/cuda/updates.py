"""Kernels for CUDA of optimizer updates: one launch for whatever line the arrays are. See ``code/updates.cu``.

Rates and step counts are read from the device when a launch runs, so that a graph of launches can be replayed.
"""

from __future__ import annotations

import math

import numpy as np

from .encoding import WIDE, Launch, aligned, apart, cuda, integer, line, number, pointer, suffix

THREADS = 256
MOST_BLOCKS = 2048  # which go on, each where the others end: so Adam's corrections are computed so often at most


def _update(name: str, outputs: tuple, inputs: tuple, scalars: tuple, attributes: tuple):
    """A launch on arrays of one shape, each a line of its own."""
    arrays = (*outputs, *inputs)
    if not line(*arrays) or not all(apart(out, *(x for x in arrays if x is not out)) for out in outputs):
        return None
    first = arrays[0]
    n = math.prod(first.shape)
    if not n:
        return []
    wide = all(map(aligned, arrays))
    each = WIDE // first.dtype.itemsize if wide else 1
    blocks = min(MOST_BLOCKS, -(-n // (THREADS * each)))
    function = f"{name}{'_wide' if wide else ''}{suffix(first)}"
    arguments = (integer(n), *map(pointer, (*arrays, *scalars)), *attributes)
    return [Launch("updates", function, (blocks, 1, 1), (THREADS, 1, 1), arguments, keep=(*arrays, *scalars))]


@cuda("gd")
def gd(out, p, g, lr, weight_decay):
    return _update("gd", (out,), (p, g), (lr,), (number(weight_decay, p.dtype),))


@cuda("gd_momentum")
def gd_momentum(out, p, g, velocity, lr, momentum, nesterov, weight_decay):
    attributes = number(momentum, p.dtype), number(weight_decay, p.dtype), np.int32(nesterov)
    return _update("gd_momentum", tuple(out), (p, g, velocity), (lr,), attributes)


@cuda("adam")
def adam(out, p, g, m, v, lr, step, beta1, beta2, eps, weight_decay, decoupled):
    decay, shrinkage = (0.0, weight_decay) if decoupled else (weight_decay, 0.0)
    logs = (math.log(beta) if beta else -math.inf for beta in (beta1, beta2))
    attributes = tuple(map(np.float64, (beta1, beta2, *logs, eps, decay, shrinkage)))
    return _update("adam", tuple(out), (p, g, m, v), (lr, step), attributes)
