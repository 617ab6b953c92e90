"""Which bytes of a block are free: integers only, no array is touched.

``FreeList`` finds the best fit and joins neighbours that become free; ``Bump`` only moves a pointer. Both have the same
four members that an arena needs: ``take``, ``give``, ``free``, ``largest``; and ``holes`` for whoever looks closer.
Callers round sizes to their alignment; offsets are then multiples of it as well.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable

__all__ = ["Bump", "FreeList"]


class FreeList:
    """Best fit with coalescing.

    A request gets the low end of the smallest hole in which it fits, of several the one at the lowest address. O(log n)
    comparisons for n holes, and no two holes ever touch.

    Args:
        capacity: the bytes that there are.
        taken: (offset, size) of what is not free, in any order.

    Attributes:
        free: bytes in all holes together.
    """

    def __init__(self, capacity: int, taken: Iterable[tuple[int, int]] = ()):
        self.free = 0
        self._by_size: list[tuple[int, int]] = []  # (size, offset), ascending
        self._size_at: dict[int, int] = {}  # offset -> size
        self._size_before: dict[int, int] = {}  # end -> size
        end = 0
        for offset, size in (*sorted(taken), (capacity, 0)):
            if offset > end:
                self._open(end, offset - end)
                self.free += offset - end
            end = offset + size

    @property
    def largest(self) -> int:
        """The bytes of the largest hole, the most that a request can get."""
        return self._by_size[-1][0] if self._by_size else 0

    def holes(self) -> list[tuple[int, int]]:
        """(offset, size) of each hole, by address."""
        return sorted(self._size_at.items())

    def take(self, size: int) -> int | None:
        """The offset of ``size`` > 0 bytes, or None (and nothing changes) where no hole has so many."""
        best = bisect_left(self._by_size, (size, 0))
        if best == len(self._by_size):
            return None
        hole, offset = self._by_size.pop(best)
        del self._size_at[offset]
        if hole > size:
            self._open(offset + size, hole - size)
        else:
            del self._size_before[offset + hole]
        self.free -= size
        return offset

    def give(self, offset: int, size: int) -> None:
        """Takes back what ``take`` gave: the same offset and size, once."""
        self.free += size
        before = self._size_before.pop(offset, 0)
        if before:
            offset, size = offset - before, size + before
            del self._by_size[bisect_left(self._by_size, (before, offset))]
        after = self._size_at.pop(offset + size, 0)
        if after:
            del self._by_size[bisect_left(self._by_size, (after, offset + size))]
            size += after
        self._open(offset, size)

    def _open(self, offset: int, size: int) -> None:
        insort(self._by_size, (size, offset))
        self._size_at[offset] = self._size_before[offset + size] = size


class Bump:
    """A pointer that only moves up: nothing comes back but all at once, with a new ``Bump``.

    Args:
        capacity: the bytes that there are.
        taken: (offset, size) of what is not free; the pointer begins above.

    Attributes:
        free: bytes above the pointer.
    """

    def __init__(self, capacity: int, taken: Iterable[tuple[int, int]] = ()):
        self._capacity = capacity
        self.free = capacity - max((offset + size for offset, size in taken), default=0)

    @property
    def largest(self) -> int:
        """The most bytes that a request can get."""
        return self.free

    def holes(self) -> list[tuple[int, int]]:
        """(offset, size) of what is free."""
        return [(self._capacity - self.free, self.free)] if self.free else []

    def take(self, size: int) -> int | None:
        """The offset of ``size`` > 0 bytes, or None (and nothing changes) where there are not so many."""
        if size > self.free:
            return None
        self.free -= size
        return self._capacity - self.free - size

    def give(self, offset: int, size: int) -> None:
        """Does nothing."""
