"""What the arena says: statistics, where memory has gone, and in debug mode what was damaged, and by whom."""

from __future__ import annotations

import gc
import pickle
import re

import numpy as np
import pytest

import tinynet as tn
from tinynet.backend import caller_line
from tinynet.errors import ArenaError

from .arenas import NUMPY, place

# ---- what it says ----


def test_statistics_by_tag_and_by_line():
    arena = tn.Arena("1MB")
    a = arena.alloc((100,), "float64", "weights")
    with arena:
        b = tn.zeros(64)
        c = b + b
        d = tn.exp(c) + c
    stats = arena.stats()
    assert stats.by_tag == {"weights": 832, "": 256, "add": 512}
    assert list(stats.by_tag) == ["weights", "add", ""]
    names = {name.split(":")[0] for name in stats.by_line}
    assert names == {"test_arena_reports.py"} and len(stats.by_line) == 4
    assert sum(stats.by_line.values()) == stats.used == 1600
    assert (stats.capacity, stats.free, stats.allocations, stats.served) == (1_000_000, 998_400, 4, 5)
    assert stats.peak == 1856  # with the exponential, which is gone
    text = str(stats)
    for words in ("arena of 1 MB: 1,600 bytes used in 4 arrays", "832  weights", "256  untagged", "512  add", "line"):
        assert words in text
    assert re.search(r"832  test_arena_reports\.py:\d+", text)
    assert "1,600 bytes used" in repr(arena)
    del a, b, c, d
    assert arena.stats().by_tag == {} and str(arena.stats()).endswith("fragmentation 0.0%")


def test_lines_within_the_engine_are_the_callers():
    arena = tn.Arena("1MB")
    model = tn.nn.Dense(4, 3, "gelu")
    with arena:
        y = model(tn.zeros((2, 4)))
        y.sum().backward()
    assert {line.split(":")[0] for line in arena.stats().by_line} == {"test_arena_reports.py"}
    assert re.fullmatch(r"test_arena_reports\.py:\d+", caller_line())


def test_fragmentation_is_what_the_largest_hole_leaves_of_what_is_free():
    arena = tn.Arena(640)
    pieces = [arena.alloc(16) for _ in range(10)]
    assert arena.stats().fragmentation == 0.0 and arena.stats().largest_hole == 0
    del pieces[::2]
    stats = arena.stats()
    assert (stats.free, stats.largest_hole, stats.fragmentation) == (320, 64, 0.8)
    assert stats.peak == 640
    pieces.clear()
    assert arena.stats().fragmentation == 0.0 and arena.stats().largest_hole == 640


def test_exhaustion_says_what_was_asked_what_is_there_and_who_has_the_rest():
    arena = tn.Arena(1024)
    small = [arena.alloc(16, tag="small") for _ in range(8)]
    large = arena.alloc(128, tag="large")
    del small[::2]
    with pytest.raises(MemoryError) as caught, arena:
        tn.zeros((5, 8)) * 1.0
    error = caught.value
    assert isinstance(error, ArenaError)
    assert (error.requested, error.free, error.largest_hole) == (192, 256, 64)
    message = str(error)
    for words in ("arena of 1.024 kB, test_arena_reports.py:", "room for 192 bytes of float32[5, 8]",
                  "256 bytes free, the largest hole 64", "(512), test_arena_reports.py:", "(256)",
                  "in pieces"):  # fmt: skip
        assert words in message, message
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == message and (again.requested, again.free, again.largest_hole) == (192, 256, 64)
    with pytest.raises(ArenaError, match="batch smaller"), arena:
        x = tn.ones(16)
        tn.exp(tn.concatenate([x] * 40))
    assert arena.alloc(16) is not None and large.size == 128  # it goes on


# ---- debug mode ----


def test_fresh_and_freed_bytes_are_not_numbers():
    arena = tn.Arena("1MB", debug=True)
    for _ in range(2):
        array = arena.alloc(100)
        assert np.isnan(array).all()
        array[...] = 1
        arena.free(array)
        assert np.isnan(array).all()
    view = arena.alloc(10, "int32")
    view[...] = 1
    arena.reset()
    assert (view == -1).all()


@pytest.mark.parametrize("shape", [16, 3, 17], ids=["whole lines", "part of one", "one more"])
@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize("found_by", ["free", "check", "reset", "alloc", "death"])
def test_a_write_outside_of_an_array_is_found_with_its_side_tag_and_line(found_by, side, shape):
    arena = tn.Arena("1MB", debug=True)
    neighbour, array = arena.alloc(16), arena.alloc(shape, tag="hit")
    begin, end = (at - NUMPY.address(arena._block) for at in place(array))
    arena._block[begin - 1 if side == "before" else end] ^= 1  # what a wrong kernel would do
    message = rf"a write {side} the array of {array.nbytes} bytes \('hit', made in test_arena_reports\.py:\d+\)"
    if found_by == "alloc":
        del array
        assert arena.stats().allocations == 1  # statistics do not raise, but see it
        with pytest.raises(ArenaError, match=message):
            arena.alloc(4)
    elif found_by == "death":
        del array
        gc.collect()
        with arena, pytest.raises(ArenaError, match=message):
            tn.zeros(4)
    else:
        with pytest.raises(ArenaError, match=message):
            arena.free(array) if found_by == "free" else getattr(arena, found_by)()
    arena.check()  # it was said once, and the arena goes on
    assert arena.stats().allocations == {"reset": 0, "check": 2}.get(found_by, 1)
    assert arena.alloc(4) is not None and neighbour.shape == (16,)


def test_a_write_to_freed_memory_is_found():
    arena = tn.Arena("1MB", debug=True)
    array = arena.alloc(16)
    arena.free(array)
    arena.check()
    array[3] = 1.0
    with pytest.raises(ArenaError, match="a write to freed memory"):
        arena.check()
    arena.check()


def test_many_damages_are_counted():
    arena = tn.Arena("1MB", debug=True)
    arrays = [arena.alloc(16) for _ in range(9)]
    arena._block[...] = 0
    with pytest.raises(ArenaError, match=r"before.*after.*and \d+ more"):
        arena.check()
    assert len(arrays) == 9


def test_without_debug_nothing_is_guarded_and_check_is_silent():
    arena = tn.Arena(128)
    array = arena.alloc(16)
    arena._block[64:] = 1
    arena.check()
    arena.free(array)
    assert arena.stats().used == 0
