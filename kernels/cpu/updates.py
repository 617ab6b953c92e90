"""Optimizer updates and accumulation for NumPy: block by block, so that what is read once is written while it is near.

Rates and step counts are read at each call. Outputs are the inputs of the same names, or memory of their own.
"""

from __future__ import annotations

import math

import numpy as np

from .cutting import BLOCK, as_lines, call, kernel, part, pieces


def _registers(count: int, scalars: int = 0):
    """``count`` blocks, and room for scalars that are computed anew at each call."""

    def registers(out, p, *others, **attributes) -> list[int]:
        size = np.dtype(p.dtype).itemsize
        return [*((min(math.prod(p.shape), BLOCK) * size,) * count), *((scalars * size,) if scalars else ())]

    return registers


def _blocks(room, count: int, *arrays):
    """For each block: its piece of every array, and ``count`` registers of its shape."""
    shape, dtype = arrays[0].shape, arrays[0].dtype
    arrays = as_lines(shape, *arrays)
    for index in pieces(arrays[0].shape) if arrays[0].size else ():
        cut = [part(x, index) for x in arrays]
        yield (*cut, *(room.view(i, cut[0].shape, dtype) for i in range(count)))


@kernel("accumulate")
def accumulate(out, x, value):
    yield np.add, (x, value, out)


@kernel("gd", _registers(1))
def gd(out, p, g, lr, weight_decay, room):
    decay = np.asarray(weight_decay, p.dtype)
    for new, old, slope, change in _blocks(room, 1, out, p, g):
        if weight_decay:
            yield np.multiply, (old, decay, change)
            yield np.add, (change, slope, change)
            yield np.multiply, (change, lr, change)
        else:
            yield np.multiply, (slope, lr, change)
        yield np.subtract, (old, change, new)


@kernel("gd_momentum", _registers(2))
def gd_momentum(out, p, g, velocity, lr, momentum, nesterov, weight_decay, room):
    decay, keep = np.asarray(weight_decay, p.dtype), np.asarray(momentum, p.dtype)
    for new, new_v, old, slope, old_v, decayed, change in _blocks(room, 2, *out, p, g, velocity):
        if weight_decay:
            yield np.multiply, (old, decay, decayed)
            yield np.add, (decayed, slope, decayed)
        total = decayed if weight_decay else slope
        yield np.multiply, (old_v, keep, new_v)
        yield np.add, (new_v, total, new_v)
        if nesterov:
            yield np.multiply, (new_v, keep, change)
            yield np.add, (total, change, change)
        yield np.multiply, (change if nesterov else new_v, lr, change)
        yield np.subtract, (old, change, new)


def _adam_rates(lr, step, beta1, beta2, eps, decay, rates) -> None:
    """What one step multiplies by: m / (sqrt(v) + first) * second, and p * third, where decay is decoupled.

    The correction of v is moved over to eps and to the rate, which spares the pass that would divide by it.
    """
    t, rate = int(step), float(lr)
    root = math.sqrt(1 - beta2**t)
    rates[0], rates[1], rates[2] = eps * root, rate * root / (1 - beta1**t), 1 - rate * decay


@kernel("adam", _registers(2, scalars=3))
def adam(out, p, g, m, v, lr, step, beta1, beta2, eps, weight_decay, decoupled, room):
    rates = room.view(2, (3,), p.dtype)
    small, rate, shrink = (rates[i : i + 1].reshape(()) for i in range(3))
    keep_m, keep_v, share_m, share_v, decay = (
        np.asarray(number, p.dtype) for number in (beta1, beta2, 1 - beta1, 1 - beta2, weight_decay)
    )
    yield _adam_rates, (lr, step, beta1, beta2, eps, weight_decay, rates)
    for new, new_m, new_v, old, slope, old_m, old_v, change, decayed in _blocks(room, 2, *out, p, g, m, v):
        if weight_decay and decoupled:
            yield np.multiply, (old, shrink, new)
        elif weight_decay:
            yield np.multiply, (old, decay, decayed)
            yield np.add, (decayed, slope, decayed)
        total = decayed if weight_decay and not decoupled else slope
        yield np.multiply, (old_m, keep_m, new_m)
        yield np.multiply, (total, share_m, change)
        yield np.add, (new_m, change, new_m)
        yield np.multiply, (total, total, change)
        yield np.multiply, (change, share_v, change)
        yield np.multiply, (old_v, keep_v, new_v)
        yield np.add, (new_v, change, new_v)
        yield np.sqrt, (new_v, change)
        yield np.add, (change, small, change)
        yield np.divide, (new_m, change, change)
        yield np.multiply, (change, rate, change)
        yield np.subtract, (new if weight_decay and decoupled else old, change, new)


@kernel("assign")
def assign(out, x, value):
    yield call(np.copyto, (value,), out)
