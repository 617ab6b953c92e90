"""A product that only an update reads, as one instruction: rows of it are computed and used up, strip by strip.

It never stands: a strip of it lies in a core's cache between the two, and what the update writes is all that goes to
memory. What the update reads is asked for while the strip is computed, which leaves the way to memory idle. Products
that pack an operand are not taken, nor those whose right operand leaves the cache: they would do that again for each
strip.
"""

from __future__ import annotations

import math

import numpy as np

from . import library, plan, pool
from .instructions import Instruction, run

# Where words of the operation "matmul" are: see ``plan.Product``.
M, N, K, A, A_ROW, C, MODE_A, MODE_B, KC, SCRATCH, H, BY_COLUMNS, EACH = 0, 1, 2, 3, 4, 9, 12, 13, 14, 16, 19, 21, 22
ASKED, ORIGIN, ORIGIN_ROW = 23, 24, 25
BEFORE = 17  # words of "strips" before those of the two
STRIP_BYTES = 64 * 1024  # small beside the second-level cache; an update has some 30 ns to itself before it begins
ROOM = 1024  # bytes for the words of both
PLACES = 8 * plan.DEPTH_SMALL  # bytes for the places of lines that are asked for, one for each step of a tile
# Arrays that lines are asked of, and how large they are together, in second-level caches. A step of 784-512-512-10 at
# batch 128 takes 0.98 of the time on one core, 0.96 on two.
MOST_ASKED, ASK_FROM = 3, 1


def scratch_bytes(shape, dtype, product: int) -> int:
    """Bytes of scratch, whatever the number of threads.

    Args:
        shape, dtype: of what is made.
        product: bytes of scratch of the product for one strip.
    """
    return pool.threads() * (_at_strip(shape, dtype) + _strip_bytes(shape, dtype) + _aligned(product))


def _at_strip(shape, dtype) -> int:
    """Bytes before a thread's strip: words and, where an update reads so much that lines are asked for, places."""
    reads = MOST_ASKED * math.prod(shape) * dtype.itemsize
    return ROOM + PLACES * (reads > ASK_FROM * plan.machine.second_level_cache())


def _strip_bytes(shape, dtype) -> int:
    return _aligned(rows(shape, dtype) * math.prod(shape[1:]) * dtype.itemsize)


def _aligned(nbytes: int) -> int:
    return -(-nbytes // plan.ALIGNMENT) * plan.ALIGNMENT


def rows(shape, dtype) -> int:
    """Rows of a strip: as many as fill some register tiles, but too few for packing."""
    height = plan.machine.tile(dtype.itemsize, plan.machine.widths()[0]).height
    row = max(1, math.prod(shape[1:]) * dtype.itemsize)
    count = min(STRIP_BYTES // row, plan.ROWS_WORTH_PACKING - 1)
    return min(shape[0], max(1, count // height) * height)


def strip_in(scratch, shape, dtype) -> np.ndarray:
    """The strip of the first thread."""
    count = rows(shape, dtype)
    nbytes = count * math.prod(shape[1:]) * dtype.itemsize
    at = _at_strip(shape, dtype)
    return scratch[at : at + nbytes].view(dtype).reshape(count, *shape[1:])


def joined(shape, dtype, product: list, update: list, scratch) -> list | None:
    """One instruction of both, as a kernel's calls; None where they are not of the kinds that can be.

    Args:
        shape, dtype: of the product.
        product, update: the calls of their kernels for the first strip: ``rows`` of it, in the memory of ``strip_in``.
        scratch: bytes.
    """
    first, second = _only(product), _only(update)
    if first is None or second is None or first.operation != "matmul" or not second.lines:
        return None
    strip, row_bytes = rows(shape, dtype), math.prod(shape[1:]) * dtype.itemsize
    address, words = strip_in(scratch, shape, dtype).ctypes.data, first.words
    at_made = [i for i in range(1, second.lines + 1) if second.words[i] == address]
    if words[MODE_A] == plan.PACKED or words[MODE_B] != plan.IN_PLACE or words[H] or words[C] != address:
        return None
    if len(at_made) != 1 or words[N] * words[K] * dtype.itemsize > plan.machine.second_level_cache() // 4:
        return None
    if second.words[0] != strip * math.prod(shape[1:]) or 8 * (len(words) + len(second.words)) > ROOM:
        return None
    addresses = library.load(dtype.itemsize, first.width).addresses
    strip_bytes = _strip_bytes(shape, dtype)
    at_strip = _at_strip(shape, dtype)
    each = at_strip + strip_bytes + _aligned(words[EACH])
    read = {second.words[i]: i for i in range(second.lines, 0, -1) if i != at_made[0]}
    far = len(read) * shape[0] * row_bytes > ASK_FROM * plan.machine.second_level_cache()
    asked = sorted(read.values())[:MOST_ASKED] if far and at_strip > ROOM else []  # places have room then
    before = (
        shape[0], strip, row_bytes, scratch.ctypes.data, each, strip_bytes, addresses[first.operation], len(words),
        addresses[second.operation], second.lines, at_made[0], len(second.words), len(asked), *asked,
        *[0] * (MOST_ASKED - len(asked)), at_strip,
    )  # fmt: skip
    cost = (first.cost + second.cost) * shape[0] / strip
    threads = min(pool.useful_threads(cost), -(-shape[0] // strip), scratch.nbytes // each)
    alone = (*words[:BY_COLUMNS], 0, *words[BY_COLUMNS + 1 :])  # a strip is one thread's
    return [(run, (Instruction(
        "strips", dtype.itemsize, (*before, *alone, *second.words), (*first.keep, *second.keep, scratch), threads, cost,
        first.width, first.note,
    ),))]  # fmt: skip


def _only(calls: list) -> Instruction | None:
    """The instruction that calls are, if they are one."""
    return calls[0][1][0] if len(calls) == 1 and calls[0][0] is run else None
