"""Native kernels of optimizer updates, of assignment and of addition in place."""

from __future__ import annotations

import math

import numpy as np

from .encoding import address, native, useful_threads
from .instructions import Instruction
from .layouts import apart, line, rows, shape_of_rows


def _update(name: str, arrays: tuple, scalars: tuple, attributes: tuple, cost: float, decayed: bool = False):
    """One instruction for arrays of one shape, each a line of its own."""
    if not line(*arrays):
        return None
    first = arrays[0]
    cost *= first.size * first.itemsize
    words = (first.size, *map(address, (*arrays, *scalars)), *map(float, attributes))
    keep = (*arrays, *scalars)
    threads, lines = useful_threads(cost), len(arrays)
    return [Instruction(name + "_decayed" * decayed, first.itemsize, words, keep, threads, cost, lines=lines)]


@native("gd")
def gd(out, p, g, lr, weight_decay):
    return _update("gd", (out, p, g), (lr,), (weight_decay,), 0.03, weight_decay != 0)


@native("gd_momentum")
def gd_momentum(out, p, g, velocity, lr, momentum, nesterov, weight_decay):
    name = "gd_nesterov" if nesterov else "gd_momentum"
    return _update(name, (*out, p, g, velocity), (lr,), (momentum, weight_decay), 0.05, weight_decay != 0)


@native("adam")
def adam(out, p, g, m, v, lr, step, beta1, beta2, eps, weight_decay, decoupled):
    decay, shrinkage = (0.0, weight_decay) if decoupled else (weight_decay, 0.0)
    logs = (math.log(beta) if beta else -math.inf for beta in (beta1, beta2))
    attributes = (beta1, beta2, 1 - beta1, 1 - beta2, *logs, eps, decay, shrinkage)
    return _update("adam", (*out, p, g, m, v), (lr, step), attributes, 0.1, decay != 0)


@native("accumulate")
def accumulate(out, x, value):
    if not x.size:
        return []
    wide, spread = np.broadcast_to(value, x.shape), value.size == 1
    strides = rows(out, x) if spread else rows(out, x, wide)
    if strides is None or not apart(out, x, value):
        return None
    words = shape_of_rows(out, x) if spread else shape_of_rows(out, x, wide)
    for array, stride in zip((out, x, wide), [*strides, 0]):
        words += (address(array), stride)
    name, cost = "accumulate_one" if spread else "accumulate", 0.04 * x.nbytes
    return [Instruction(name, x.itemsize, words, (out, x, value), useful_threads(cost), cost)]


@native("assign", dtypes=(None,))
def assign(out, x, value):
    return copied(out, value)


def copied(out, value):
    """out = value, broadcast; None for layouts and element types that compiled code does not take."""
    if not out.size:
        return []
    wide, spread = np.broadcast_to(value, out.shape), value.size == 1
    strides = rows(out) if spread else rows(out, wide)
    if strides is None or out.dtype != value.dtype or out.itemsize not in (4, 8) or not apart(out, value):
        return None
    count, n = shape_of_rows(out) if spread else shape_of_rows(out, wide)
    words = (count, n, address(out), strides[0], address(wide), 0 if spread else strides[1])
    name = f"{'fill' if spread else 'copy'}_{out.itemsize}"
    cost = 0.03 * out.nbytes
    # the library for float64 is loaded for its own numbers only: a step count of a float32 program has no use for it
    size = 8 if out.dtype == np.float64 else 4
    return [Instruction(name, size, words, (out, value), useful_threads(cost), cost)]
