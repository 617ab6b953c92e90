"""How arrays lie in memory, by their shapes and strides alone."""

from __future__ import annotations

import math


def one_stride(shape: tuple[int, ...], strides: tuple[int, ...]) -> int | None:
    """Bytes from element to element, in C order; 0 where there is one at most, None where that is not one number."""
    if math.prod(shape) <= 1:
        return 0
    found, span = None, 1
    for n, step in zip(reversed(shape), reversed(strides)):
        if n == 1:
            continue
        if found is None:
            found = step
        elif step != found * span:
            return None
        span *= n
    return found
