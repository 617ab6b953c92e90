"""The independent checker: whether a plan is valid, decided without a line of the planner's code.

It reads lifetimes as plain numbers, sweeps over time, and keeps the live ranges sorted by address: a tensor that is
born must fit between its two neighbours there. O(n log n) comparisons.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence

from tinynet.errors import PlanError

__all__ = ["check_plan"]


def check_plan(
    lifetimes: Iterable[Sequence], offsets: Sequence[int], alignment: int = 64, peak: int | None = None
) -> None:
    """Proves that no two tensors that live at one instruction share a byte.

    Args:
        lifetimes: (first, last, size, name, tag, pinned) each, the last three optional; sizes in bytes.
        offsets: where each begins, in bytes.
        alignment: of which every offset of a tensor with bytes must be a multiple.
        peak: the size of the block, in bytes, that no tensor may leave; None where only overlaps matter.

    Raises:
        PlanError: the first violation found, with the names, times and addresses of the tensors.
    """
    tensors = [tuple(each) for each in lifetimes]
    if len(tensors) != len(offsets):
        raise PlanError("memory plan", expected=f"{len(tensors)} offsets", got=str(len(offsets)))
    births: list[tuple[int, int]] = []
    deaths: list[tuple[int, int]] = []
    for i, (tensor, at) in enumerate(zip(tensors, offsets)):
        first, last, size = tensor[:3]
        pinned = tensor[5] if len(tensor) > 5 else None
        if pinned is not None and at != pinned:
            raise PlanError("memory plan", expected=f"{_says(i, tensor, pinned)}, as pinned", got=f"offset {at}")
        if at < 0 or (size and at % alignment):
            raise PlanError("memory plan", expected=f"offsets at multiples of {alignment}", got=_says(i, tensor, at))
        if last < first or size < 0:
            raise PlanError("memory plan", expected="first <= last and size >= 0", got=_says(i, tensor, at))
        if peak is not None and size and at + size > peak:
            raise PlanError("memory plan", expected=f"every tensor within {peak} bytes", got=_says(i, tensor, at))
        if size:
            births.append((first, i))
            deaths.append((last, i))
    births.sort()
    deaths.sort()
    live: list[tuple[int, int, int]] = []  # (begin, end, index), sorted by address
    gone = 0
    for time, i in births:
        while gone < len(deaths) and deaths[gone][0] < time:  # the last instruction still uses it
            dead = deaths[gone][1]
            del live[bisect_left(live, (offsets[dead], offsets[dead] + tensors[dead][2], dead))]
            gone += 1
        begin, end = offsets[i], offsets[i] + tensors[i][2]
        place = bisect_left(live, (begin, end, i))
        for neighbour in live[max(place - 1, 0) : place + 1]:
            if neighbour[0] < end and begin < neighbour[1]:
                j = neighbour[2]
                raise PlanError(
                    "memory plan",
                    expected="tensors that live at the same time to share no byte",
                    got=f"{_says(j, tensors[j], offsets[j])} and {_says(i, tensors[i], offsets[i])}",
                )
        live.insert(place, (begin, end, i))


def _says(i: int, tensor: tuple, at: int) -> str:
    name = repr(tensor[3]) if len(tensor) > 3 and tensor[3] else f"tensor {i}"
    return f"{name} (instructions {tensor[0]} to {tensor[1]}) at bytes {at} to {at + tensor[2]}"
