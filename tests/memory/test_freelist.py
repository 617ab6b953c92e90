"""The free list gives out the smallest hole that fits and joins neighbours, as a naive model does byte by byte."""

from __future__ import annotations

import pytest

from tinynet.memory.freelist import Bump, FreeList


class Naive:
    """One flag for each byte."""

    def __init__(self, capacity):
        self.used = [False] * capacity

    def holes(self):
        found, start = [], None
        for i, used in enumerate([*self.used, True]):
            if not used and start is None:
                start = i
            elif used and start is not None:
                found.append((start, i - start))
                start = None
        return found

    def take(self, size):
        fitting = [(n, at) for at, n in self.holes() if n >= size]
        if not fitting:
            return None
        at = min(fitting)[1]
        self.used[at : at + size] = [True] * size
        return at

    def give(self, offset, size):
        assert all(self.used[offset : offset + size])
        self.used[offset : offset + size] = [False] * size


def agree(free: FreeList, naive: Naive):
    holes = naive.holes()
    assert free.holes() == holes
    assert free.free == sum(size for _, size in holes) and free.largest == max((size for _, size in holes), default=0)


def test_it_does_what_a_naive_model_does():
    given = pytest.importorskip("hypothesis")
    from hypothesis import strategies as st

    @given.settings(deadline=None, max_examples=200)
    @given.given(st.integers(0, 120), st.lists(st.tuples(st.booleans(), st.integers(1, 40)), max_size=60))
    def holds(capacity, calls):
        free, naive, taken = FreeList(capacity), Naive(capacity), []
        agree(free, naive)
        for take, n in calls:
            if take:
                offset = free.take(n)
                assert offset == naive.take(n)
                if offset is not None:
                    taken.append((offset, n))
            elif taken:
                offset, size = taken.pop(n % len(taken))
                free.give(offset, size)
                naive.give(offset, size)
            agree(free, naive)
            again = FreeList(capacity, taken)  # made from those who hold, it is the same
            assert again.holes() == free.holes() and (again.free, again.largest) == (free.free, free.largest)
        for offset, size in taken:
            free.give(offset, size)
        assert free.holes() == ([(0, capacity)] if capacity else [])

    holds()


def test_the_smallest_hole_that_fits_is_taken():
    free = FreeList(100)
    pieces = [free.take(n) for n in (30, 5, 12, 5, 20, 28)]
    assert free.free == free.largest == 0 and free.take(1) is None
    for offset, size in zip(pieces[::2], (30, 12, 20)):
        free.give(offset, size)
    assert free.holes() == [(0, 30), (35, 12), (52, 20)]
    assert free.take(11) == 35 and free.take(20) == 52 and free.take(31) is None
    assert free.holes() == [(0, 30), (46, 1)]


def test_neighbours_are_joined_on_both_sides():
    free = FreeList(30)
    a, b, c = (free.take(10) for _ in range(3))
    free.give(a, 10)
    free.give(c, 10)
    assert free.largest == 10 and free.free == 20
    free.give(b, 10)
    assert free.holes() == [(0, 30)]


def test_a_refused_request_changes_nothing():
    for layout in (FreeList(10), Bump(10)):
        layout.take(4)
        assert layout.take(7) is None
        assert layout.holes() == [(4, 6)] and layout.free == layout.largest == 6


def test_bump_moves_up_and_takes_nothing_back():
    bump = Bump(20)
    assert [bump.take(8), bump.take(8), bump.take(8), bump.take(4)] == [0, 8, None, 16]
    bump.give(0, 8)
    assert bump.free == bump.largest == 0 and bump.holes() == []
    assert Bump(20, [(8, 4), (0, 2)]).holes() == [(12, 8)]
