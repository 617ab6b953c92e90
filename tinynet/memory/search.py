"""Search for a packing below a limit: branch and bound from the bottom up, with restarts.

The state is a skyline: at each moment the height up to which space is settled. A step takes the lowest, leftmost flat
stretch between two higher walls and either places there a tensor that lives within it, or gives it up to the height
of the lower wall. Only giving up wastes space. So each moment carries its *commitment*, height plus the sizes still
to come there; placing leaves it as it is, giving up raises it, and a branch dies as soon as a commitment exceeds the
limit. Every packing that is pushed down as far as it goes is reached by such steps, so an exhausted search is a proof.

The rule "lowest stretch first" is the best fit of strip packing (Burke, Kendall and Whitwell, Operations Research 52,
2004; for memory Sekiyama et al., "Profile-guided memory optimization for deep neural networks", 2018). Packings
pushed down and pruning by what each moment has left are from MiniMalloc (Moffitt, ASPLOS 2023).

Which tensor comes first decides nearly everything: a dive down the tree either ends well or goes wrong near the top,
where backtracking does not reach. So each dive gets few failures (in Luby's universal sequence: Luby, Sinclair and
Zuckerman 1993), and the next one starts afresh with priorities that learned where the last one died: that moment
becomes hotter (as in Boussemart et al., "Boosting systematic search by weighting constraints", 2004), and the tensors
around it are shuffled among themselves. Elsewhere priorities stay, and with them what already worked.

The pseudo-random sequence is the search's own and the budget counts steps, so the result is the same on any machine.
Blocks are those of ``conflicts``: sizes, heights and limits are in units of the alignment.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from random import Random
from typing import NamedTuple

from .conflicts import Block

__all__ = ["Budget", "Packing", "pack"]

_WALL = 1 << 62  # higher than any height: the height of a moment where nothing is left to place
_FAILURES = 8  # of one dive, times Luby's sequence
_AIM = 0.8  # dives aim this far above the target, of the way to the best peak so far
_HEAT = 0.3  # largest increase of a moment's weight, of the largest load, when a dive dies there
_SHUFFLE = 0.6  # largest relative change of a priority
_REACH = 2  # moments to either side of a death whose tensors are shuffled, at most


class Budget:
    """Steps that a search may still take; one is worth about 0.1 microseconds of Python.

    Args:
        steps: how many.
        seconds: ends the search by the clock as well; what it finds then depends on the machine. None: no clock.
    """

    def __init__(self, steps: int, seconds: float | None = None):
        self.steps = steps
        self._until = None if seconds is None else time.monotonic() + seconds

    def spend(self, steps: int) -> bool:
        """Takes steps off; whether anything is left."""
        self.steps -= steps
        return self.steps > 0 and (self._until is None or time.monotonic() < self._until)

    def share(self, part: float) -> Budget:
        """A budget with that part of the steps and the same clock; what it spends is not taken off this one."""
        budget = Budget(int(self.steps * part))
        budget._until = self._until
        return budget


class Packing(NamedTuple):
    """What a search found.

    Attributes:
        offsets: one per block, or None where nothing below the limit was found.
        peak: the largest end of a block; the limit where nothing was found.
        exhausted: whether no packing has a lower peak, by proof.
    """

    offsets: list[int] | None
    peak: int
    exhausted: bool


def pack(blocks: Sequence[Block], floor: Sequence[int], target: int, limit: int, budget: Budget) -> Packing:
    """Packs all blocks above a floor, with a peak below the limit and as near to the target as the budget allows.

    Args:
        blocks: each alive at one of the moments at least.
        floor: for each moment, the height below which nothing may be placed.
        target: a peak low enough to stop at.
        limit: the peak to stay below, such as that of a plan already known.
        budget: is spent.
    """
    loads = list(floor)
    for begin, end, size in blocks:
        for t in range(begin, end):
            loads[t] += size
    best, peak, proven = None, limit, max(loads)  # no packing has a peak below ``proven``
    priorities = _Priorities(blocks, loads)
    dive = 0
    while peak > max(target, proven):
        aim = peak - 1
        if dive >= priorities.fixed and target < aim:
            aim = target + int((aim - target) * _AIM)
        order = priorities.order(dive)
        offsets, died = _dive(blocks, floor, loads, order, aim, _FAILURES * _luby(dive + 1), budget)
        dive += 1
        if offsets is not None:
            best, peak = offsets, max(at + size for at, (_, _, size) in zip(offsets, blocks))
        elif died is None:
            proven = aim + 1
        elif budget.spend(0):
            priorities.learn(died, dive)
        else:
            break
    return Packing(best, peak, peak <= proven)


class _Priorities:
    """Orders in which tensors are tried: some fixed ones first, then those that learn from where dives died."""

    def __init__(self, blocks, loads):
        self.blocks = blocks
        self.heat = [load / max(loads) for load in loads]
        self.length = [end - begin for begin, end, _ in blocks]
        self.area = [(end - begin) * size for begin, end, size in blocks]
        self.size = [size for _, _, size in blocks]
        self.second = list(self.length)  # compared where the heat is equal
        self.random = Random(1).random
        self.fixed = 4

    def order(self, dive: int) -> list[int]:
        """Indices of the blocks, the most urgent first."""
        heat, second = [max(self.heat[begin:end]) for begin, end, _ in self.blocks], self.second
        if dive < self.fixed:
            second = (self.length, self.area, self.size, self.length)[dive]
            if dive == self.fixed - 1:
                heat = self.area
        return sorted(range(len(heat)), key=lambda i: (heat[i], second[i], self.size[i]), reverse=True)

    def learn(self, moment: int, dive: int) -> None:
        """A dive died at this moment."""
        if dive < self.fixed:
            return
        random = self.random
        self.heat[moment] += _HEAT * random()
        low, high = moment - int(_REACH * random() + 0.5), moment + int(_REACH * random() + 0.5)
        base = self.area if random() < 0.5 else self.length
        for i, (begin, end, _) in enumerate(self.blocks):
            if begin <= high and end > low:
                self.second[i] = base[i] * (1 + _SHUFFLE * random())


def _luby(n: int) -> int:
    """The n-th term, from 1, of 1 1 2 1 1 2 4 1 1 2 1 1 2 4 8 ..."""
    while (n + 1) & n:
        n -= (1 << (n.bit_length() - 1)) - 1
    return (n + 1) >> 1


def _dive(blocks, floor, loads, order, limit, failures, budget):
    """Depth first, in the given order of preference, until all is placed, exhausted, or failed too often.

    Returns:
        (offsets, None) when all blocks lie below or at the limit, (None, None) when that is impossible, and
        (None, moment of the last failure) when it gave up.
    """
    moments = len(floor)
    by_begin = [[] for _ in range(moments)]
    for rank, i in enumerate(order):
        begin, end, size = blocks[i]
        by_begin[begin].append((rank, end, size, i))
    offsets = [-1] * len(blocks)
    heights = [_WALL if at == load else at for at, load in zip(floor, loads)]
    commitments = loads
    refused = {}  # block -> the height at which placing it has been explored already
    choices = []  # (heights, commitments, refused, block, height) to go back to
    left, died, last = len(blocks), None, len(blocks)
    while left:
        low = min(heights)
        begin = heights.index(low)
        end = begin + 1
        while end < moments and heights[end] == low:
            end += 1
        best, looked = last, 0
        for t in range(begin, end):
            for rank, until, size, i in by_begin[t]:
                looked += 1
                if rank >= best:
                    break
                if until <= end and offsets[i] < 0 and refused.get(i) != low:
                    best, found = rank, (t, until, size, i)
                    break
        if not budget.spend(40 + looked + (moments >> 2)):
            return None, -1 if died is None else died
        if best < last:
            start, until, size, i = found
            choices.append((heights, commitments, refused, i, low))
            offsets[i], top = low, low + size
            heights = heights.copy()
            heights[start:until] = [_WALL if full == top else top for full in commitments[start:until]]
            left -= 1
            continue
        wall = min(heights[begin - 1] if begin else _WALL, heights[end] if end < moments else _WALL)
        stretch = commitments[begin:end]
        fullest = max(stretch)
        if wall < _WALL and fullest + wall - low <= limit:
            heights, commitments = heights.copy(), commitments.copy()
            heights[begin:end] = [wall] * (end - begin)
            commitments[begin:end] = [full + wall - low for full in stretch]
            continue
        died = begin + stretch.index(fullest)
        if not choices:
            return None, None
        failures -= 1
        if failures < 0:
            return None, died
        heights, commitments, refused, i, low = choices.pop()
        refused = {**refused, i: low}
        offsets[i] = -1
        left += 1
    return offsets, None
