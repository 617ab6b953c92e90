"""A first look at labels and indices, compiled: whether there may be one that is out of its bounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from .instructions import Instruction, Table
from .layouts import index_kind


def screen(ranges: Sequence[tuple[np.ndarray, int, int]]) -> Callable[[], bool] | None:
    """``f() -> bool``: whether one of the arrays, as they are now, has a value outside of low <= value < high.

    Args:
        ranges: (array, low, high). None is the answer where one of the arrays does not lie side by side.
    """
    if any(array.dtype.kind not in "iu" or not array.flags.c_contiguous for array, _, _ in ranges):
        return None
    found = np.zeros(len(ranges), np.int64)
    table = Table(
        Instruction(
            "outside", 4, (found[i:].ctypes.data, array.ctypes.data, array.size, array.itemsize, index_kind(array), low,
                           high), keep=(found, array),
        ) for i, (array, low, high) in enumerate(ranges)
    )  # fmt: skip
    run, address, counts = table.library.run, table.address, memoryview(found)
    if len(ranges) > 1:
        return lambda: table() or any(counts)

    def suspicious() -> bool:  # in as little time as Python lets one
        run(address)
        return counts[0] > 0

    suspicious.table = table  # whose words the address is of
    return suspicious
