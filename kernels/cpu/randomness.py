"""Dropout for NumPy: the bits of ``reference.random``, a block of counters at a time.

The four words of a Philox block are kept as two pairs, (c0, c2) that are multiplied and (c1, c3) that are not, so that
a round is five calls. Words are 64 bits wide in memory, because a product is.
"""

from __future__ import annotations

import math

import numpy as np

from ..reference.random import LOW, MULTIPLIERS, WEYL, threshold
from .cutting import BLOCK, as_lines, call, kernel, part, pieces

_SHIFT, _LOW = np.asarray(32, np.uint64), np.asarray(LOW, np.uint64)
_MULTIPLY = np.asarray(MULTIPLIERS, np.uint64)[:, None]
_STEP, _ONE, _OTHER, _PRODUCTS, _KEPT, _MASK = range(6)
# 2048 counters: a pair of words is 32 KiB, and three of them with the elements stay in the second-level cache
_ELEMENTS = BLOCK // 2


def _registers(out, x, step, **attributes) -> list[int]:
    n = min(math.prod(x.shape), _ELEMENTS)
    pair = 2 * 8 * (n // 4 + 2)
    return [8, pair, pair, pair, n + 8, n * np.dtype(x.dtype).itemsize]


def _keys(seed: int) -> list[np.ndarray]:
    """The keys of the ten rounds, each a column that stands beside a pair of words."""
    keys = [(seed & LOW, seed >> 32)]
    for _ in range(9):
        keys.append(tuple((key + weyl) & LOW for key, weyl in zip(keys[-1], WEYL)))
    return [np.asarray(key, np.uint64)[:, None] for key in keys]


def _counters(first: int, step, stream: int, factors, others):
    """factors = (c0, c2) and others = (c1, c3) for the blocks from ``first`` on."""
    blocks, high = factors[0], others[0]
    yield np.copyto, (blocks, 1)
    yield np.copyto, (blocks[:1], first)
    yield np.add.accumulate, (blocks, 0, None, blocks)
    yield np.right_shift, (blocks, _SHIFT, high)
    yield np.bitwise_and, (blocks, _LOW, blocks)
    yield np.copyto, (factors[1], step)
    yield np.copyto, (others[1], stream)


@kernel("dropout", _registers)
def dropout(out, x, step, p, seed, stream, room, offset=0):
    if not 0 < p < 1:
        yield call(np.copyto, (x if p == 0 else np.zeros((), out.dtype),), out)
        return
    keys, least = _keys(seed), np.asarray(threshold(p), np.uint64)
    scale = np.asarray(1 / (1 - p), x.dtype)
    bits = np.dtype(f"int{8 * x.dtype.itemsize}")
    word = room.view(_STEP, (), np.uint64)
    yield np.copyto, (word, step, "unsafe")
    yield np.bitwise_and, (word, _LOW, word)
    at = offset
    out, x = as_lines(x.shape, out, x)
    for index in pieces(x.shape, _ELEMENTS) if x.size else ():
        source, target = part(x, index), part(out, index)
        first, skip, n = at // 4, at % 4, source.size
        count = (skip + n + 3) // 4
        products, factors, others = (room.view(i, (2, count), np.uint64) for i in (_PRODUCTS, _ONE, _OTHER))
        yield from _counters(first, word, stream & LOW, factors, others)
        for key in keys:
            yield np.multiply, (factors, _MULTIPLY, products)
            yield np.right_shift, (products, _SHIFT, factors)
            yield np.bitwise_xor, (factors[::-1], others, others)
            yield np.bitwise_xor, (others, key, others)
            yield np.bitwise_and, (products, _LOW, factors)
            factors, others = others, factors[::-1]
        kept = room.view(_KEPT, (4 * count,), np.bool_)
        table = kept.reshape(count, 4)
        yield np.greater_equal, (factors, least, table[:, 0::2].T)
        yield np.greater_equal, (others, least, table[:, 1::2].T)
        flags = kept[skip : skip + n].view(np.int8)
        mask = room.view(_MASK, source.shape, bits)
        yield np.negative, (flags, flags)
        yield np.copyto, (mask, flags.reshape(source.shape))
        yield np.multiply, (source, scale, target)
        yield np.bitwise_and, (target.view(bits), mask, target.view(bits))
        at += n
