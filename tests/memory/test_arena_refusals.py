"""The arena survives every refusal, interruption and turn of threads."""

from __future__ import annotations

import gc
import os
import random
import sys
import threading

import numpy as np
import pytest

import tinynet as tn
from tinynet.errors import ArenaError, GradientError
from tinynet.memory.freelist import FreeList

from .arenas import NUMPY, network, place

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


class Refusing:
    """A layout that refuses the n-th request from now on."""

    def __init__(self, layout, n):
        self._layout, self._left = layout, n

    def take(self, size):
        self._left -= 1
        return None if self._left == 0 else self._layout.take(size)

    def __getattr__(self, name):
        return getattr(self._layout, name)


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
