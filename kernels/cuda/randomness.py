"""The kernel for CUDA of dropout. The source is ``code/randomness.cu``."""

from __future__ import annotations

import math

import numpy as np

from ..reference.random import LOW, threshold
from .encoding import Launch, aligned, apart, blocks_of, cuda, integer, line, number, pointer, suffix
from .layouts import filled

THREADS = 256
WORDS = 4  # that come of one counter


@cuda("dropout")
def dropout(out, x, step, p, seed, stream, offset=0):
    if p >= 1:
        return filled(out, 0)
    if not line(out, x) or not apart(out, x):
        return None
    n = math.prod(x.shape)
    if not n:
        return []
    first_block, skip = divmod(offset, WORDS)
    wide = not skip and aligned(out) and aligned(x)
    arguments = (
        integer(n), pointer(out), pointer(x), pointer(step), integer(first_block), np.int32(skip),
        *(np.uint32(each & LOW) for each in (stream, seed, seed >> 32)), np.uint32(threshold(p)),
        number(1 / (1 - p), x.dtype),
    )  # fmt: skip
    grid = blocks_of(skip + n, THREADS * WORDS)
    function = f"dropout{'_wide' if wide else ''}{suffix(x)}"
    return [Launch("randomness", function, grid, (THREADS, 1, 1), arguments, keep=(out, x, step))]
