"""The arena gives each byte to one array at a time, takes it back with the last view, and survives every refusal."""

from __future__ import annotations

import gc
import os
import pickle
import random
import re
import sys
import threading

import numpy as np
import pytest

import tinynet as tn
from tinynet.backend import Backend, NumPyBackend, allocating, caller_line
from tinynet.errors import ArenaError, ArgumentError, BackendError, DTypeError, GradientError, ShapeError
from tinynet.memory import static
from tinynet.memory.freelist import FreeList

NUMPY = tn.get_backend("numpy")
F32 = np.dtype("float32")


def place(array) -> tuple[int, int]:
    """First and last address, one past the end, of an array or a tensor."""
    array = array.array if isinstance(array, tn.Tensor) else array
    return np.lib.array_utils.byte_bounds(array)


def lies_in(arena, array) -> bool:
    first, last = place(array)
    begin = NUMPY.address(arena._block)
    return begin <= first and last <= begin + arena.capacity


class Refusing:
    """A layout that refuses the n-th request from now on."""

    def __init__(self, layout, n):
        self._layout, self._left = layout, n

    def take(self, size):
        self._left -= 1
        return None if self._left == 0 else self._layout.take(size)

    def __getattr__(self, name):
        return getattr(self._layout, name)


# ---- what lies in it ----


MAKERS = {
    "tensor": lambda x: tn.tensor([[1.0, 2.0]]),
    "tensor of an array": lambda x: tn.tensor(np.arange(6.0).reshape(2, 3).T),
    "zeros": lambda x: tn.zeros((2, 3)),
    "ones": lambda x: tn.ones(4, "int64"),
    "full": lambda x: tn.full((), 1e300),
    "arange": lambda x: tn.arange(5),
    "operation": lambda x: x * 2.0 + 1.0,
    "broadcasting": lambda x: x.T @ x,
    "reduction": lambda x: x.sum(axis=0),
    "selection": lambda x: x[np.array([1, 0])],
    "reshape with a copy": lambda x: x.T.reshape(-1),
    "copy": lambda x: x.copy(),
    "astype": lambda x: x.astype("float64"),
    "gradient": lambda x: tn.grad(lambda t: (t * t).sum())(x),
    "zero gradient": lambda x: tn.grad(lambda t: tn.ones(1).sum())(x),
    "random mask": lambda x: tn.ops.dropout(x, tn.full((), 1, "int64"), p=0.5, seed=1, stream=2),
}


@pytest.mark.parametrize("name", MAKERS)
def test_every_new_tensor_lies_in_the_arena_and_is_the_same_as_without(name):
    x = tn.tensor(np.arange(6, dtype="float32").reshape(2, 3))
    outside = MAKERS[name](x)
    with tn.Arena("1MB", debug=True) as arena:
        inside = MAKERS[name](x)
        assert lies_in(arena, inside) and not lies_in(arena, x) and not lies_in(arena, outside)
    assert place(inside)[0] % NUMPY.alignment % inside.dtype.itemsize == 0
    assert inside.dtype == outside.dtype and inside.array.strides == outside.array.strides
    np.testing.assert_array_equal(inside.numpy(), outside.numpy())
    arena.check()
    del inside
    assert arena.stats().used == 0


def test_arrays_of_the_backend_lie_in_the_arena_too():
    turned = np.arange(24.0).reshape(2, 3, 4).transpose(2, 0, 1)[::-1]
    with tn.Arena("1MB") as arena:
        made = {
            "empty": NUMPY.empty((3, 4), F32), "zeros": NUMPY.zeros((3, 4), F32), "full": NUMPY.full((3,), 1, F32),
            "copy": NUMPY.copy(turned), "contiguous": NUMPY.contiguous(turned), "from_host": NUMPY.from_host(turned),
            "reshape": NUMPY.reshape(turned, (24,))[0],
        }  # fmt: skip
        assert all(lies_in(arena, array) for array in made.values())
        assert NUMPY.contiguous(made["zeros"]) is made["zeros"]
        assert not lies_in(arena, NUMPY.block(64))
        assert arena.stats().allocations == len(made)
    assert not made["zeros"].any() and (made["full"] == 1).all()
    assert made["copy"].strides == np.asarray(turned, copy=True).strides
    for name in ("copy", "contiguous", "from_host"):
        np.testing.assert_array_equal(made[name], turned)
    assert made["contiguous"].flags.c_contiguous and made["from_host"].flags.c_contiguous


def test_arrays_without_elements_take_no_room():
    with tn.Arena(64) as arena:
        full = tn.zeros(16)
        empty = [tn.zeros((0, 3)), tn.tensor([]), full[:0] * full[:0], arena.alloc((2, 0)), arena.alloc(0, "int64")]
        assert arena.stats().used == 64 and arena.stats().allocations == 1
        assert [tuple(each.shape) for each in empty] == [(0, 3), (0,), (0,), (2, 0), (0,)]
        arena.free(empty[-1])
    with pytest.raises(ValueError, match="negative"), arena:
        NUMPY.empty((-1, 2), F32)


def test_training_in_an_arena_gives_the_bits_of_training_without():
    def train():
        tn.seed(3)
        model, optimizer, step = network()
        return [step().item() for _ in range(5)], model.state_dict(), optimizer.state_dict()

    outside = train()
    with tn.Arena("1MB", debug=True) as arena:
        inside = train()
    assert inside[0] == outside[0]
    for ours, theirs in zip(inside[1:], outside[1:]):
        assert ours.keys() == theirs.keys()
        for name in ours:
            np.testing.assert_array_equal(ours[name], theirs[name])
    arena.check()
    del inside, ours
    gc.collect()
    assert arena.stats().used == 0 and arena.stats().peak > 1000


# ---- where it is in force ----


def test_a_block_is_in_force_in_its_thread_until_its_end_and_nests():
    outer, inner, found = tn.Arena("1MB"), tn.Arena("1MB"), []

    def elsewhere():
        found.append(tn.zeros(3))

    with outer:
        with inner:
            assert lies_in(inner, tn.zeros(3))
            with outer:
                assert lies_in(outer, tn.zeros(3))
            assert lies_in(inner, tn.zeros(3))
            thread = threading.Thread(target=elsewhere)
            thread.start()
            thread.join()
            with allocating(None):
                found.append(tn.zeros(3))
        assert lies_in(outer, tn.zeros(3))
        with pytest.raises(KeyError), inner:
            raise KeyError
        assert lies_in(outer, tn.zeros(3))
    found.append(tn.zeros(3))
    assert len(found) == 3 and not any(lies_in(outer, x) or lies_in(inner, x) for x in found)


def test_other_backends_keep_their_own_memory(other_backend):
    with tn.Arena(64) as arena:
        x = tn.zeros(1000, backend=other_backend) + 1.0
    assert arena.stats().served == 0 and x.shape == (1000,)
    second = NumPyBackend()  # of the same library, and yet another
    with tn.Arena(256, backend=second) as arena:
        x, y = tn.zeros(1000, backend=NUMPY), tn.zeros(16, backend=second)
    assert arena.stats().served == 1 and lies_in(arena, y) and not lies_in(arena, x)


def test_backends_without_blocks_are_refused_by_name(other_backend):
    for backend in (other_backend, Backend("second", np)):
        with pytest.raises(BackendError, match=rf"{backend.name}.*block of bytes.*numpy"):
            tn.Arena("1MB", backend=backend)
        with pytest.raises(BackendError, match="block of bytes"):
            backend.lend(None, 0, (1,), F32)


@pytest.mark.parametrize("capacity", [0, 63, -5, "many", None, 1.5])
def test_a_capacity_is_a_number_of_bytes(capacity):
    with pytest.raises(ArgumentError, match="Arena"):
        tn.Arena(capacity)


def test_options_are_checked_and_too_much_memory_is_one_typed_error():
    with pytest.raises(ArgumentError, match=r"best-fit or bump.*'first-fit'"):
        tn.Arena("1MB", layout="first-fit")
    with pytest.raises(ArenaError, match="Unable to allocate"):
        tn.Arena("500TB")
    assert tn.Arena(200).capacity == 192 and tn.Arena("64MB").capacity == 64_000_000


# ---- how long it is held ----


VIEWS = {
    "the array": lambda a: a,
    "a slice": lambda a: a[1:],
    "a view of a view of a view": lambda a: a[1:].reshape(-1)[::2].T,
    "another type": lambda a: a.view("int32")[0],
    "another class": lambda a: a.view(np.matrix).T.view(np.ndarray)[0],
    "a buffer": lambda a: memoryview(a)[1:],
    "an array from a buffer": lambda a: np.asarray(memoryview(a))[1:].T,
    "an array from bytes": lambda a: np.frombuffer(a, "uint8"),
    "an array within": lambda a: np.ndarray((2,), "float32", a, 4)[:1],
    "strides": lambda a: np.lib.stride_tricks.as_strided(a, (2,), (4,)),
    "broadcasting": lambda a: np.broadcast_to(a, (3, *a.shape))[1],
    "a capsule": lambda a: a.__dlpack__(),
    "a tensor": lambda a: tn.as_tensor(a).T[1:].detach(),
    "what a tensor shows": lambda a: tn.as_tensor(a).T.numpy()[1:],
    "an iterator": lambda a: a.flat,
}


@pytest.mark.parametrize("name", VIEWS)
def test_bytes_come_back_with_the_last_view_and_not_before(name):
    arena = tn.Arena("1MB", debug=True)
    array = arena.alloc((4, 4))
    array[...] = 7
    view = VIEWS[name](array)
    del array
    gc.collect()
    others = [arena.alloc((4, 4)) for _ in range(3)]
    for other in others:
        other[...] = 1
    assert arena.stats().allocations == 4
    if name != "a capsule":
        assert set(bytes(np.ascontiguousarray(view))) == set(np.float32(7).tobytes())
    del view
    assert arena.stats().allocations == 3
    arena.check()


def test_views_have_the_owner_of_their_memory_and_no_other(backend):
    x, y = backend.from_host(np.zeros((4, 6))), backend.from_host(np.zeros((4, 6)))
    if backend.name != "strict":  # it does not say whose memory a view is
        assert backend.owner(x) is backend.owner(x[1:]) is backend.owner(backend.xp.permute_dims(x, (1, 0))[2:, 1])
    assert backend.owner(x) is not backend.owner(y)
    if backend.name in ("numpy", "cupy"):
        arena = tn.Arena("1MB", backend=backend)
        x, y = arena.alloc(8), arena.alloc(8)
        assert backend.owner(x) is backend.owner(x[1:][1:]) is not backend.owner(y)


def test_a_tape_holds_what_backward_needs_and_lets_go_of_it():
    arena = tn.Arena("1MB")
    with arena:
        x = tn.tensor(np.ones((8, 8), "float32"), requires_grad=True)
        before = arena.stats().used
        y = tn.exp(x * 2.0).sum()
        assert arena.stats().used >= before + 256
        y.backward()
        del y
        assert arena.stats().used == before + 256  # the gradient
        x.grad = None
        assert arena.stats().used == before


def test_tensors_outlive_the_block_and_the_arena():
    def inside():
        with tn.Arena("1MB", debug=True):
            return tn.full((100,), 3.0), tn.arange(100).reshape(10, 10).T

    threes, numbers = inside()
    gc.collect()
    noise = [np.full(1_000_000, 9, "uint8") for _ in range(4)]
    assert (threes.numpy() == 3).all() and numbers.numpy()[3, 2] == 23 and len(noise) == 4
    assert (threes + 1.0).numpy().sum() == 400


# ---- alloc, free, reset ----


def test_alloc_aligns_and_takes_shapes_and_types_as_the_rest_of_the_engine_does():
    arena = tn.Arena("1MB")
    arrays = [arena.alloc(3), arena.alloc((), "bool"), arena.alloc([2, 3], np.float64), arena.alloc((5,), F32, "t")]
    assert [(a.shape, a.dtype.name) for a in arrays] == [
        ((3,), "float32"), ((), "bool"), ((2, 3), "float64"), ((5,), "float32"),
    ]  # fmt: skip
    assert all(type(a) is np.ndarray and place(a)[0] % 64 == 0 and a.flags.writeable for a in arrays)
    assert arena.stats().used == 256
    for shape, kind in (((-1,), ShapeError), ("x", ShapeError), ((2,), None)):
        with pytest.raises(kind or DTypeError):
            arena.alloc(shape, "float32" if kind else "complex64")
    assert arena.stats().used == 256


def test_free_gives_the_bytes_back_at_once_and_the_end_of_the_array_does_not_again():
    arena = tn.Arena(256)
    first, second = arena.alloc(32), arena.alloc(32)
    arena.free(first)
    assert arena.stats().used == 128
    third = arena.alloc(32)
    assert place(third) == place(first)
    del first  # its bytes belong to the third by now
    assert arena.stats().used == 256
    with pytest.raises(ArenaError):
        arena.alloc(1)
    del second, third
    assert arena.stats().used == 0


def test_free_takes_tensors_and_views():
    with tn.Arena("1MB", debug=True) as arena:
        x, y = tn.ones((4, 4)), tn.ones((4, 4))
    arena.free(x)
    arena.free(y.T[1:])
    assert arena.stats().used == 0 and np.isnan(x.numpy()).all() and np.isnan(y.numpy()).all()


@pytest.mark.parametrize("debug", [False, True])
def test_what_cannot_be_freed_is_refused_and_nothing_changes(debug):
    arena, other = tn.Arena("1MB", debug=debug), tn.Arena("1MB", debug=debug)
    array, kept = arena.alloc(8), arena.alloc(8)
    kept[...] = 5
    arena.free(array)
    used = arena.stats().used
    refused = {"freed before": array, "elsewhere": other.alloc(8), "lies in the arena": [1.0]}
    for reason, x in (*refused.items(), ("elsewhere", np.ones(8)), ("lies in the arena", None)):
        with pytest.raises(ArenaError, match=rf"^free: .*{reason}"):
            arena.free(x)
    again = arena.alloc(8)
    assert place(again) == place(array)
    with pytest.raises(ArenaError, match="freed before"):  # though others live there now
        arena.free(array)
    assert arena.stats().used == 2 * used
    assert (kept == 5).all()
    arena.check()


def test_reset_takes_everything_and_later_ends_free_nothing():
    arena = tn.Arena(256, debug=False)
    old = [arena.alloc(16) for _ in range(4)]
    dead = old.pop()
    del dead  # waits to be taken back while the reset comes
    arena.reset()
    assert arena.stats().used == 0 and arena.stats().peak == 256
    new = [arena.alloc(16) for _ in range(4)]
    del old
    gc.collect()
    assert arena.stats().used == 256 and len({place(each) for each in new}) == 4
    with pytest.raises(ArenaError):
        arena.alloc(1)


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
    assert names == {"test_arena.py"} and len(stats.by_line) == 4 and sum(stats.by_line.values()) == stats.used == 1600
    assert (stats.capacity, stats.free, stats.allocations, stats.served) == (1_000_000, 998_400, 4, 5)
    assert stats.peak == 1856  # with the exponential, which is gone
    text = str(stats)
    for words in ("arena of 1 MB: 1,600 bytes used in 4 arrays", "832  weights", "256  untagged", "512  add", "line"):
        assert words in text
    assert re.search(r"832  test_arena\.py:\d+", text)
    assert "1,600 bytes used" in repr(arena)
    del a, b, c, d
    assert arena.stats().by_tag == {} and str(arena.stats()).endswith("fragmentation 0.0%")


def test_lines_within_the_engine_are_the_callers():
    arena = tn.Arena("1MB")
    model = tn.nn.Dense(4, 3, "gelu")
    with arena:
        y = model(tn.zeros((2, 4)))
        y.sum().backward()
    assert {line.split(":")[0] for line in arena.stats().by_line} == {"test_arena.py"}
    assert re.fullmatch(r"test_arena\.py:\d+", caller_line())


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
    for words in ("arena of 1.024 kB, test_arena.py:", "room for 192 bytes of float32[5, 8]", "256 bytes free, the "
                  "largest hole 64", "(512), test_arena.py:", "(256)", "in pieces"):  # fmt: skip
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
    message = rf"a write {side} the array of {array.nbytes} bytes \('hit', made in test_arena\.py:\d+\)"
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


# ---- other layouts ----


def test_bump_gives_nothing_back_before_a_reset():
    arena = tn.Arena(256, layout="bump")
    a, b = arena.alloc(16), arena.alloc(16)
    arena.free(a)
    del b
    assert arena.stats().used == 128 and arena.stats().allocations == 0
    c, d = arena.alloc(16), arena.alloc(16)
    assert len({place(each) for each in (a, c, d)}) == 3
    with pytest.raises(ArenaError):
        arena.alloc(1)
    arena.reset()
    assert arena.stats().used == 0 and place(arena.alloc(1))[0] == place(a)[0]


def test_static_places_arrays_at_their_offsets():
    whole, part, number, nothing = static(
        NUMPY, 256, [(0, (8, 8), F32), (64, (4,), np.dtype("int64")), (192, (), F32), (256, (0, 3), F32)]
    )
    whole[...] = 0
    part[...] = [1, 2, 3, 4]
    number[...] = 5
    assert place(part)[0] - place(whole)[0] == 64 and place(whole)[0] % 64 == 0 and nothing.shape == (0, 3)
    assert whole.view("int64").reshape(-1)[8:12].tolist() == [1, 2, 3, 4] and whole[6, 0] == 5
    del whole, part
    gc.collect()
    assert number == 5  # each keeps the block
    for places in ([(-4, (1,), F32)], [(0, (1,), F32), (253, (1,), F32)], [(0, (65,), F32)]):
        with pytest.raises(ArgumentError, match=r"static layout.*within 256 bytes"):
            static(NUMPY, 256, places)


# ---- interrupted, and from within ----


def test_a_finalizer_that_comes_in_while_the_arena_is_at_work_is_refused_and_harms_nothing():
    arena, said = tn.Arena("1MB"), []

    class Reentrant(FreeList):
        def take(self, size):
            for call in (lambda: arena.alloc(4), arena.stats, arena.reset, lambda: arena.free(kept)):
                with pytest.raises(ArenaError, match="from within a finalizer"):
                    call()
                said.append(call)
            return super().take(size)

    kept = arena.alloc(16)
    arena._free = Reentrant(arena.capacity, [(0, 64)])
    array = arena.alloc(16)
    assert len(said) == 4 and arena.stats().used == 128 and place(array)[0] == place(kept)[0] + 64


def test_arrays_that_die_while_the_arena_is_at_work_come_back_with_the_next_call():
    arena, held = tn.Arena("1MB"), []

    class Collecting(FreeList):
        def take(self, size):
            held.clear()  # what the garbage collector might do at any moment
            return super().take(size)

    held.append(arena.alloc(16))
    arena._free = Collecting(arena.capacity, [(0, 64)])
    array = arena.alloc(16)
    assert arena.stats().used == 64 and place(array)[0] == NUMPY.address(arena._block) + 64


def test_an_interruption_at_any_point_leaks_nothing():
    """A KeyboardInterrupt may come at any call; here it comes before every line of the arena, in turn."""
    for n in range(1, 400):
        arena = tn.Arena("1MB", debug=n % 2 == 0)
        kept, dying = arena.alloc(16), arena.alloc(32)
        kept[...] = 5
        left = n

        def interrupt(frame, event, _):
            nonlocal left
            if os.path.basename(frame.f_code.co_filename) not in ("arena.py", "freelist.py"):
                return None
            if event == "line" and frame.f_code.co_name != "_alone":
                left -= 1
                if left == 0:
                    raise KeyboardInterrupt
            return interrupt

        sys.settrace(interrupt)
        try:
            del dying
            array = arena.alloc(100)
            arena.free(array)
            array = arena.alloc(10)
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(None)
        array = None
        assert arena.stats().allocations == 1 and (kept == 5).all(), n
        assert len(arena._free.holes()) == 1
        arena.check()
        if left > 0:
            break
    assert 20 < n < 399  # it went through all of them, and there were some


# ---- exhaustion ----


def network():
    """A small network with everything that allocates, and one step of its training."""
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(5, 6)).astype(np.float32), rng.integers(0, 3, 5)
    nn = tn.nn
    model = nn.Sequential(nn.LayerNorm(6), nn.Dense(6, 8, "gelu"), nn.Dropout(0.3), nn.Dense(8, 3))
    optimizer = tn.optim.Adam(model.parameters(), lr=tn.optim.cosine(1e-2, 60))

    def step(stage=lambda name: None):
        stage("forward")
        loss = tn.losses.cross_entropy(model(x), y)
        stage("backward")
        loss.backward()
        stage("optimizer")
        optimizer.step()
        stage("done")
        return loss

    step.x = x
    return model, optimizer, step


def bits(state) -> dict:
    return {name: np.asarray(value).tobytes() for name, value in state.items()}


def gradients(model) -> list:
    return [None if p.grad is None else p.grad.numpy().tobytes() for p in model.parameters()]


@pytest.mark.parametrize("debug", [False, True])
def test_a_training_step_survives_the_refusal_of_any_allocation(debug):
    reached = set()
    for n in range(1, 500):
        arena, stages = tn.Arena("1MB", debug=debug), []
        tn.seed(4)
        with arena:
            model, optimizer, step = network()
            dropout = model[2]
            step()  # there are gradients and moments before
            model.eval()
            answer = model(step.x).numpy().tobytes()
            model.train()
            before = bits(model.state_dict()), bits(optimizer.state_dict()), gradients(model)
            calls, held = dropout.step, arena.stats()
            arena._free = Refusing(arena._free, n)
            try:
                loss = step(stages.append)
            except ArenaError as error:
                assert error.requested and error.free
            arena._free = arena._free._layout
            if stages[-1] == "done":
                break
            reached.add(stages[-1])
            loss = None
            gc.collect()
            after = bits(model.state_dict()), bits(optimizer.state_dict()), gradients(model)
            assert after[:2] == before[:2], n
            assert (after[2] == before[2]) == (stages[-1] != "optimizer"), n
            arena.check()
            assert arena.stats().used == held.used and arena.stats().allocations == held.allocations, n
            model.eval()
            assert model(step.x).numpy().tobytes() == answer, n
            model.train()
            dropout.counter.data = calls
            optimizer.zero_grad()
            step()
        tn.seed(4)
        twin, other, same = network()  # it never heard of refusals
        same()
        other.zero_grad()
        same()
        assert bits(model.state_dict()) == bits(twin.state_dict()), n
        assert bits(optimizer.state_dict()) == bits(other.state_dict()), n
        assert gradients(model) == gradients(twin), n
    assert reached == {"forward", "backward", "optimizer"} and n > 30 and loss is not None


def test_a_training_step_survives_every_capacity_that_is_too_small():
    tn.seed(5)
    model, optimizer, step = network()
    before, failures = bits(model.state_dict()), 0
    for capacity in range(64, 100_000, 192):
        arena, stages = tn.Arena(capacity, debug=True), []
        try:
            with arena:
                step(stages.append)
        except ArenaError as error:
            assert error.requested > error.largest_hole and error.free <= arena.capacity
            failures += 1
        if stages[-1] == "done":
            break
        assert bits(model.state_dict()) == before and optimizer.steps == 0
        optimizer.zero_grad()
        arena.check()
        assert arena.stats().used == 0 and arena.stats().largest_hole == arena.capacity
    assert failures > 10 and optimizer.steps == 1
    assert arena.stats().peak <= arena.capacity


def test_a_backward_that_fails_leaves_gradients_alone_and_its_tape_says_so_or_works_again():
    def pieces(arena, n):
        with arena:
            x = tn.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
            w = tn.tensor([[1.0, 0.5], [0.25, 2.0]], requires_grad=True)
            ((x @ w) * x).sum().backward()
            before = x.grad.tolist(), w.grad.tolist()
            y = (tn.exp(x @ w) * x + w).sum()
            arena._free = Refusing(arena._free, n)
            try:
                y.backward()
            except ArenaError:
                failed = True
            else:
                failed = False
            arena._free = arena._free._layout
            return x, w, y, before, failed

    worked = spent = 0
    for n in range(1, 100):
        arena = tn.Arena("1MB")
        x, w, y, before, failed = pieces(arena, n)
        if not failed:
            break
        assert (x.grad.tolist(), w.grad.tolist()) == before
        try:
            y.backward()
            worked += 1
        except GradientError as error:
            assert "Compute the result again" in str(error)
            assert (x.grad.tolist(), w.grad.tolist()) == before
            (tn.exp(x @ w) * x + w).sum().backward()
            spent += 1
        expected = pieces(tn.Arena("1MB"), -1)
        assert x.grad.tolist() == expected[0].grad.tolist() and w.grad.tolist() == expected[1].grad.tolist()
    assert worked and spent


# ---- threads ----


@pytest.fixture
def switching():
    """Threads take turns after every few instructions."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.parametrize("debug", [False, True])
def test_threads_share_an_arena_without_sharing_bytes(debug, switching):
    arena, failures, refused = tn.Arena(40_000, debug=debug), [], []

    def work(seed):
        rng, mine = random.Random(seed), []
        try:
            for i in range(400):
                if mine and rng.random() < 0.5:
                    array, number = mine.pop(rng.randrange(len(mine)))
                    assert (array == number).all()
                    if rng.random() < 0.5:
                        arena.free(array)
                    continue
                number = seed * 1000 + i
                try:
                    array = arena.alloc(rng.randrange(1, 300), "int32")
                except ArenaError as error:
                    refused.append(error.requested)
                    continue
                array[...] = number
                # dies with its views, of which one may pass through another array
                mine.append((array.reshape(1, -1)[0] if rng.random() < 0.5 else array, number))
                with arena:
                    tn.full((rng.randrange(1, 4),), number)
            assert all((array == number).all() for array, number in mine)
        except ArenaError as error:  # the small tensor found no room: a part of the game
            refused.append(error.requested)
        except BaseException as error:
            failures.append(repr(error))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
        assert not thread.is_alive()
    assert not failures and all(refused)
    del threads
    gc.collect()
    arena.check()
    stats = arena.stats()
    assert (stats.used, stats.allocations, stats.largest_hole) == (0, 0, stats.capacity) and stats.served > 500


def test_live_arrays_of_random_threads_never_overlap(switching):
    arena, live, lock, overlaps = tn.Arena("1MB"), {}, threading.Lock(), []

    def work(seed):
        rng, mine = random.Random(seed), []
        for i in range(300):
            if len(mine) > 20 or (mine and rng.random() < 0.4):
                key, array = mine.pop(rng.randrange(len(mine)))
                with lock:
                    del live[key]
                del array
                continue
            array = arena.alloc(rng.randrange(1, 200))
            first, last = place(array)
            with lock:
                overlaps.extend((first, last, b) for b in live.values() if first < b[1] and b[0] < last)
                live[seed, i] = first, last
            mine.append(((seed, i), array))
        with lock:
            for key, _ in mine:
                del live[key]

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    assert not overlaps and not live and arena.stats().used == 0
