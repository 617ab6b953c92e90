"""The arena gives each byte to one array at a time, and takes it back with the last view."""

from __future__ import annotations

import gc
import threading

import numpy as np
import pytest

import tinynet as tn
from tinynet.backend import Backend, NumPyBackend, allocating
from tinynet.errors import ArenaError, ArgumentError, BackendError, DTypeError, ShapeError
from tinynet.memory import static

from .arenas import F32, NUMPY, lies_in, network, place

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
