"""The native kernel of dropout."""

from __future__ import annotations

import numpy as np

from ...reference.random import LOW, threshold
from .encoding import address, native, useful_threads
from .instructions import Instruction
from .layouts import line
from .updates import copied


@native("dropout")
def dropout(out, x, step, p, seed, stream, offset=0):
    if p >= 1:
        return copied(out, np.zeros((), out.dtype))
    if not line(out, x):
        return None
    if not x.size:
        return []
    words = (
        x.size, address(out), address(x), address(step), offset // 4, offset % 4, stream & LOW, seed & LOW, seed >> 32,
        threshold(p), 1 / (1 - p),
    )  # fmt: skip
    cost = 0.5 * x.size
    return [Instruction("dropout", x.itemsize, words, (out, x, step), useful_threads(cost), cost)]
