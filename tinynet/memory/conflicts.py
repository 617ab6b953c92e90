"""Which tensors live at the same time, and which of them matter: the structure of a planning problem.

Everything here works on *blocks*, ``(begin, end, size)`` over a compressed time, with sizes in units of the alignment.
Three steps make a problem smaller without making it easier or harder:

- ``compress`` keeps only the moments at which a maximal set of tensors lives. Two intervals overlap if and only if
  they overlap at such a moment (the maximal cliques of an interval graph).
- ``simplify`` sets aside the tensors that find room wherever their neighbours end up. It is the simplification of
  graph colouring (Kempe 1879; Chaitin's register allocator, 1982) for intervals with a width: put back in reverse
  order they always fit, so that the search is left with a core, often a fraction of the whole.
- ``regions`` cuts the core where no tensor of it is alive.

Nothing is placed here (``greedy``, ``search``).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence

__all__ = ["Block", "compress", "count_conflicts", "neighbours_of", "regions", "simplify"]

Block = tuple[int, int, int]  # begin, end (one past the last moment), size in units of the alignment


def compress(spans: Sequence[tuple[int, int]]) -> tuple[list[tuple[int, int]], int]:
    """Half-open spans over time -> the same overlaps over the fewest moments, and how many moments there are.

    A moment is kept where a beginning is followed by an end with no other beginning between them.
    """
    begins, ends = sorted({begin for begin, _ in spans}), sorted({end for _, end in spans})
    moments, k = [], 0
    for this, following in zip(begins, [*begins[1:], None]):
        while ends[k] <= this:
            k += 1
        if following is None or ends[k] <= following:
            moments.append(this)
    return [(bisect_left(moments, begin), bisect_right(moments, end - 1)) for begin, end in spans], len(moments)


def count_conflicts(spans: Sequence[tuple[int, int]]) -> int:
    """The number of pairs that live at the same time, without listing them; O(n log n)."""
    begins, ends = sorted(begin for begin, _ in spans), sorted(end for _, end in spans)
    # in order of their beginnings, each meets those that began before it and have not ended
    return sum(rank - bisect_right(ends, begin) for rank, begin in enumerate(begins))


def neighbours_of(blocks: Sequence[Block]) -> list[list[int]]:
    """For each block the indices of those that live at the same time; time and space O(pairs)."""
    neighbours: list[list[int]] = [[] for _ in blocks]
    live: list[int] = []
    for i in sorted(range(len(blocks)), key=lambda i: blocks[i][0]):
        begin = blocks[i][0]
        live = [j for j in live if blocks[j][1] > begin]
        for j in live:
            neighbours[j].append(i)
        neighbours[i] = live.copy()
        live.append(i)
    return neighbours


def simplify(
    blocks: Sequence[Block], neighbours: Sequence[Sequence[int]], capacity: int, keep: Iterable[int] = ()
) -> tuple[list[int], list[int]]:
    """Splits blocks into those that always fit below the capacity, in the order of removal, and the core.

    A block of size s can begin at capacity - s + 1 places. A neighbour of size z forbids at most z + s - 1 of them.
    Where all neighbours together forbid fewer than there are, the block can wait until they are placed, and no longer
    counts as their neighbour, which may free them in turn. What holds for a capacity holds for a larger one.

    Args:
        capacity: in units of the alignment.
        keep: indices never set aside (pinned ones).
    """
    sizes = [size for _, _, size in blocks]
    load = [sum([sizes[j] for j in near]) for near in neighbours]
    degree = [len(near) for near in neighbours]
    in_core = [True] * len(blocks)
    fixed = set(keep)
    removed, to_try = [], [i for i in range(len(blocks)) if i not in fixed]
    while to_try:
        i = to_try.pop()
        size = sizes[i]
        if in_core[i] and load[i] + degree[i] * (size - 1) < capacity - size + 1:
            in_core[i] = False
            removed.append(i)
            for j in neighbours[i]:
                load[j] -= size
                degree[j] -= 1
                if in_core[j] and j not in fixed:
                    to_try.append(j)
    return removed, [i for i in range(len(blocks)) if in_core[i] and i not in fixed]


def regions(blocks: Sequence[Block], members: Iterable[int]) -> list[list[int]]:
    """Groups of members between which no moment is shared, in order of time."""
    groups: list[list[int]] = []
    until = None
    for i in sorted(members, key=lambda i: blocks[i][0]):
        begin, end, _ = blocks[i]
        if until is None or begin >= until:
            groups.append([])
            until = end
        groups[-1].append(i)
        until = max(until, end)
    return groups
