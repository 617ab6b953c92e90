"""Arrays at planned offsets of one block: where a plan, which is integers, becomes memory."""

from __future__ import annotations

import math
from collections.abc import Iterable

from tinynet.backend import Backend
from tinynet.errors import ArgumentError

__all__ = ["static"]


def static(backend: Backend, nbytes: int, places: Iterable[tuple[int, tuple[int, ...], object]]) -> list:
    """Arrays at planned offsets of one new block, which lives as long as any of them.

    Args:
        backend: whose arrays.
        nbytes: the size of the block; its address is a multiple of the backend's alignment.
        places: (offset in bytes, shape, element type) for each array. They may overlap: plans use bytes twice.

    Raises:
        ArgumentError: an array that is not within the block.
        BackendError: the backend's library has no arrays within a block of bytes.
    """
    places, block = list(places), backend.block(nbytes)
    for offset, shape, dtype in places:
        if not 0 <= offset <= nbytes - math.prod(shape) * dtype.itemsize:
            got = f"{dtype}{list(shape)} at {offset:,}"
            raise ArgumentError("static layout", expected=f"arrays within {nbytes:,} bytes", got=got)
    return [backend.carve(block, offset, shape, dtype) for offset, shape, dtype in places]
