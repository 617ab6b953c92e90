"""Calls that are like the last one: what may change in arguments and around the call; see ``test_repeated_calls``."""

from __future__ import annotations

import functools
import threading
from unittest import mock

import numpy as np
import pytest
import repetitions
from repetitions import Bag, X, repeated, repeats, same

import tinynet as tn
from tinynet.errors import CaptureError
from tinynet.program.calls import Call

pytestmark = pytest.mark.usefixtures("any_program_backend")

x = repetitions.x  # the fixture

# ---- arguments ----


def test_arguments_of_other_shapes_dtypes_and_kinds(x):
    step = lambda x: (x * x + 1).sum(axis=0)
    captured = repeated(step, x)
    for other in (X[:1], X.reshape(3, 2), X.astype("float64"), X.astype("int64"), X.T, X[::-1], X[:, ::2]):
        for each in (other, tn.as_tensor(other)):
            ours, theirs = captured(each), step(tn.as_tensor(other))
            same(ours, theirs)
            assert ours.dtype == theirs.dtype
    same(captured(x), step(tn.as_tensor(x)))
    assert repeats(captured, x)


def test_an_argument_in_another_layout_of_the_same_shape(x):
    square = np.arange(9, dtype=np.float32).reshape(3, 3)
    step = lambda x: x.reshape(9) * 2
    captured = repeated(step, square)
    for other in (square.T, square[::-1], np.asfortranarray(square), tn.as_tensor(square).T):
        same(captured(other), np.asarray(other).reshape(9) * 2)


def test_arguments_that_become_one_array_or_two(x):
    step = lambda a, b: a * 2 + b
    other = X + 100
    captured = repeated(step, x, other)
    same(captured(x, x), X * 3)
    captured = tn.capture(step)
    for _ in range(6):
        same(captured(x, x), X * 3)
    for _ in range(6):
        same(captured(x, other), X * 2 + other)
    base = tn.tensor(np.arange(12, dtype=np.float32).reshape(4, 3))
    v, w = base[:2], base[2:]
    captured = tn.capture(step)
    for _ in range(6):
        same(captured(v, v), v.numpy() * 3)
    for _ in range(6):
        same(captured(v, w), v.numpy() * 2 + w.numpy())


def test_an_argument_that_is_a_tensor_which_the_step_reads_too(x):
    w = tn.tensor(X + 1)
    step = lambda x: x * 2 + w
    captured = tn.capture(step)
    for _ in range(6):
        same(captured(w), w.numpy() * 3)
    for _ in range(6):
        same(captured(x), X * 2 + w.numpy())
    for _ in range(6):
        same(captured(w), w.numpy() * 3)


def test_an_argument_in_memory_that_the_step_writes_to(x):
    w = tn.zeros((2, 3))

    def step(x):
        tn.ops.assign(w, w + 1)
        return x + w

    captured = repeated(step, x)
    for alias in (w, w[:], w.detach(), w.array, w.array[:], w.array.reshape(2, 3)):
        before = w.numpy().copy()
        with pytest.raises(CaptureError, match="memory of their own"):
            captured(alias)
        same(w.numpy(), before)
    assert repeats(captured, x)


def test_an_argument_whose_gradient_is_wanted_from_now_on():
    captured = repeated(lambda x: (x * x).sum(), tn.tensor(X))
    wanted = tn.tensor(X, requires_grad=True)
    assert not repeats(captured, wanted)
    same(captured(wanted), (X * X).sum())
    same(captured(tn.tensor(X)), (X * X).sum())


def test_python_arguments_by_place_and_by_name(x):
    step = lambda x, power=2, *, offset=0.0: x**power + offset
    captured = tn.capture(step)
    for args, kwargs in [
        ((2,), {}), ((3,), {}), ((3.0,), {}), ((), {"power": 2}), ((), {"power": 3, "offset": 1.0}),
        ((), {"offset": 1.0}), ((), {}), ((), {"offset": 1.0, "power": 3}),
    ]:  # fmt: skip
        for _ in range(5):
            same(captured(x, *args, **kwargs), step(tn.as_tensor(x), *args, **kwargs))
        assert repeats(captured, x, *args, **kwargs)
    with pytest.raises(TypeError):
        captured(x, 2, 3)
    with pytest.raises(TypeError):
        captured()


def test_an_object_as_an_argument_and_what_it_holds(x):
    bag, other = Bag(), Bag()
    other.number = 9.0
    step = lambda x, bag: bag.forward(x)
    captured = repeated(step, x, bag)
    same(captured(x, other), other.forward(tn.as_tensor(x)))
    captured = repeated(step, x, bag)
    bag.number = 11.0
    same(captured(x, bag), bag.forward(tn.as_tensor(x)))


# ---- around the call ----


def test_without_a_tape_and_with_one_again():
    w = tn.ones((3,), requires_grad=True)
    step = lambda x: (x * 2).sum() * (3 if tn.autograd.is_recording() else 5)
    captured = repeated(step, X)
    with tn.no_grad():
        for _ in range(5):
            same(captured(X), X.sum() * 10)
    for _ in range(5):
        same(captured(X), X.sum() * 6)
    del w


def test_within_another_captured_step_it_is_a_part_of_that(x):
    inner = repeated(lambda x: x * 2, x)
    outer = repeated(lambda x: inner(x) + 1, x)
    same(outer(x), X * 2 + 1)
    assert [i.op.name for i in outer.program(x).graph]


def test_a_schedule_is_asked_at_each_call(x):
    def build():
        w = tn.ones((2, 3), requires_grad=True)
        optimizer = tn.optim.GD([w], lr=lambda step: 0.5 / (1 + step))

        def step(x):
            optimizer.zero_grad()
            (w * x).sum().backward()
            optimizer.step()

        return w, step

    (w, step), (v, eager) = build(), build()
    captured = tn.capture(step, fuse=False)
    for _ in range(9):
        captured(x)
        eager(tn.as_tensor(x))
        np.testing.assert_allclose(w.numpy(), v.numpy(), rtol=1e-6)


def test_a_program_that_somebody_profiled_or_ran_on_other_arrays_is_bound_to_the_step_again(x):
    w = tn.zeros((2, 3))
    captured = repeated(lambda x: tn.ops.assign(w, w + x) * 1, x)
    program, variant = captured.program(x), captured._recent[0][1]
    program.profile(2)
    before = w.numpy().copy()
    same(captured(x), before + X)
    elsewhere = {register: np.zeros((2, 3), np.float32) for register in variant._externals()}
    program.run([X.copy()], elsewhere)
    before = w.numpy().copy()
    same(captured(x), before + X)
    same(w.numpy(), before + X)


def test_threads_share_the_short_way():
    captured, wrong = repeated(lambda x: (x * 2).sum(), np.zeros((8, 8), np.float32)), []

    def work(offset):
        for i in range(300):
            if captured(np.full((8, 8), offset + i, np.float32)).item() != 2 * 64 * (offset + i):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(1000 * k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_calls_that_take_turns_all_repeat(x):
    captured = tn.capture(lambda x: (x * 2).sum())
    sizes = [X, X[:1], X[:, :2].copy()]
    for _ in range(4):
        for each in sizes:
            captured(each)
    assert all(repeats(captured, each) for each in sizes)


def test_a_repeated_call_takes_nothing_apart(x):
    captured = repeated(functools.partial(lambda a, x: x * a, 2.0), x)
    with mock.patch.object(Call, "__init__", side_effect=AssertionError):
        same(captured(x), X * 2)
