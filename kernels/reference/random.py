"""Counter-based random bits: Philox 4x32 with ten rounds.

J. K. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011. Element i of a draw is word i mod 4 of the
block whose counter is (i // 4, step, stream) and whose key is the seed; every executor computes the same bits.
"""

from __future__ import annotations

import math

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
LOW = 0xFFFFFFFF


def philox(xp, counter, key):
    """Ten rounds over a counter of four words.

    Args:
        xp: the array namespace.
        counter: four uint64 arrays, each holding 32-bit words.
        key: two Python integers of 32 bits.

    Returns:
        Four uint64 arrays that hold 32-bit words.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        product0, product1 = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        c0, c1, c2, c3 = (product1 >> 32) ^ c1 ^ k0, product1 & LOW, (product0 >> 32) ^ c3 ^ k1, product0 & LOW
        k0, k1 = (k0 + WEYL[0]) & LOW, (k1 + WEYL[1]) & LOW
    return c0, c1, c2, c3


def random_bits(like, step, seed, stream, offset=0):
    """32 random bits for each element of ``like``, as uint64 of its shape.

    Args:
        step: 0-d int64 array on the device of ``like``.
        seed, stream: Python integers below 2**64 and 2**32.
        offset: the place of the first element in the draw, so that a part of a batch gets the bits that the whole has.
    """
    xp = like.__array_namespace__()
    n = math.prod(like.shape)
    first = offset // 4
    blocks = xp.arange(first, (offset + n + 3) // 4, dtype=xp.uint64, device=like.device)
    zeros = xp.zeros_like(blocks)
    step_low = zeros + (xp.astype(step, xp.uint64) & LOW)
    words = philox(xp, (blocks & LOW, blocks >> 32, step_low, zeros + (stream & LOW)), (seed & LOW, seed >> 32))
    flat = xp.reshape(xp.stack(words, axis=-1), (-1,))
    return xp.reshape(flat[offset - 4 * first : offset - 4 * first + n], like.shape)


def threshold(p: float) -> int:
    """An element is kept where its bits reach this: a share p of them does not."""
    return min(round(p * 2**32), 2**32 - 1)
