"""Calls that are like the last one take a way of their own, past most of Python. It must not miss what changes.

Each test makes calls until that way is taken, changes one thing, and compares with the step itself, run eagerly.
"""

from __future__ import annotations

import collections
import functools
import threading
from unittest import mock

import numpy as np
import pytest

import tinynet as tn
from tinynet.errors import CaptureError
from tinynet.program.calls import Call

X = np.arange(6, dtype=np.float32).reshape(2, 3)
SCALE = 2.0


@pytest.fixture(params=["tensors", "arrays"])
def x(request):
    return tn.tensor(X) if request.param == "tensors" else X.copy()


def repeated(step, *args, **kwargs):
    """The step captured, and called until calls are repetitions; a test that could not fail would fail here."""
    captured = tn.capture(step, **kwargs)
    for _ in range(6):
        captured(*args)
    assert repeats(captured, *args)
    return captured


def repeats(captured, *args, **kwargs) -> bool:
    """Whether a call takes the short way."""
    with mock.patch("tinynet.program.capture.Call", side_effect=Call) as taken_apart:
        captured(*args, **kwargs)
    return not taken_apart.called


def same(ours, theirs):
    np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))


# ---- Python state ----


class Bag:
    shared = 2.0

    def __init__(self):
        self.number, self.flag, self.inner, self.numbers = 2.0, True, {"k": 3.0}, [1.0, 2.0]

    def forward(self, x):
        y = x * self.number if self.flag else x + self.number
        for number in self.numbers:
            y = y * number
        return y * self.inner["k"] * self.shared + len(self.inner) + getattr(self, "extra", 0.0)


class Slots:
    __slots__ = ("__private", "empty", "number")

    def __init__(self):
        self.number, self.__private = 2.0, 3.0

    def set_private(self, value):
        self.__private = value

    def forward(self, x):
        return x * self.number + self.__private + getattr(self, "empty", 0.0)


@pytest.mark.parametrize("change", [
    lambda bag: setattr(bag, "number", 5.0),
    lambda bag: setattr(bag, "number", 2),
    lambda bag: setattr(bag, "number", -2.0),
    lambda bag: setattr(bag, "flag", False),
    lambda bag: setattr(bag, "flag", 0),
    lambda bag: setattr(bag, "extra", 7.0),
    lambda bag: setattr(bag, "shared", 7.0),
    lambda bag: bag.inner.update(k=4.0),
    lambda bag: bag.inner.update(other=4.0),
    lambda bag: setattr(bag, "inner", {"k": 4.0}),
    lambda bag: bag.numbers.append(3.0),
    lambda bag: bag.numbers.pop(),
    lambda bag: bag.numbers.clear(),
    lambda bag: bag.numbers.__setitem__(1, 3.0),
    lambda bag: setattr(bag, "numbers", [7.0]),
    lambda bag: setattr(bag, "numbers", (7.0,)),
])  # fmt: skip
def test_attributes_items_and_lengths(x, change):
    bag = Bag()
    captured = repeated(bag.forward, x)
    change(bag)
    for _ in range(6):
        same(captured(x), bag.forward(tn.as_tensor(x)))


@pytest.mark.parametrize("change", [
    lambda slots: setattr(slots, "number", 3.0),
    lambda slots: setattr(slots, "empty", 3.0),
    lambda slots: slots.set_private(5.0),
])  # fmt: skip
def test_slots_also_empty_and_private_ones(x, change):
    slots = Slots()
    captured = repeated(slots.forward, x)
    change(slots)
    for _ in range(6):
        same(captured(x), slots.forward(tn.as_tensor(x)))


def test_an_item_that_goes_from_a_dict_and_comes_under_another_name(x):
    names = {"a": 2.0, "b": 3.0}
    step = lambda x: x * names.get("a", 5.0) + names.get("c", 7.0)
    captured = repeated(step, x)
    names["c"] = names.pop("a")
    same(captured(x), step(tn.as_tensor(x)))


def test_a_dict_that_makes_what_it_lacks_is_not_asked_for_it(x):
    counts = collections.defaultdict(lambda: 9.0, a=2.0)
    step = lambda x: x * counts.get("a", 5.0)
    captured = repeated(step, x)
    counts["b"] = counts.pop("a")
    same(captured(x), step(tn.as_tensor(x)))
    assert set(counts) == {"b"}


def test_a_variable_of_the_closure_a_global_a_class_attribute_and_a_set(x, monkeypatch):
    number, chosen = 2.0, {1, 2}

    def step(x):
        return x * number * SCALE * Bag.shared + len(chosen)

    captured = repeated(step, x)
    number = 3.0
    same(captured(x), step(tn.as_tensor(x)))
    captured = repeated(step, x)
    monkeypatch.setitem(globals(), "SCALE", 5.0)
    same(captured(x), step(tn.as_tensor(x)))
    captured = repeated(step, x)
    monkeypatch.setattr(Bag, "shared", 5.0)
    same(captured(x), step(tn.as_tensor(x)))
    captured = repeated(step, x)
    chosen.add(3)
    same(captured(x), step(tn.as_tensor(x)))


def test_defaults_and_code_of_a_function(x):
    def scaled(x, factor=2.0, *, offset=1.0):
        return x * factor + offset

    step = lambda x: scaled(x)
    captured = repeated(step, x)
    scaled.__defaults__ = (3.0,)
    same(captured(x), step(tn.as_tensor(x)))
    captured = repeated(step, x)
    scaled.__kwdefaults__["offset"] = 4.0
    same(captured(x), step(tn.as_tensor(x)))
    captured = repeated(step, x)
    scaled.__kwdefaults__ = {"offset": 5.0}
    same(captured(x), step(tn.as_tensor(x)))
    captured = repeated(step, x)
    scaled.__code__ = (lambda x, factor, *, offset: x - factor).__code__
    same(captured(x), step(tn.as_tensor(x)))


def test_an_equal_number_in_another_object_is_no_change_and_repeats_again(x):
    bag = Bag()
    captured = repeated(bag.forward, x)
    traced = len(captured._variants)
    bag.number = float("2.0")
    assert not repeats(captured, x) and repeats(captured, x)
    assert len(captured._variants) == traced == 1


def test_the_sign_of_zero_is_a_change(x):
    numbers = [0.0]
    step = lambda x: (x - 10) * numbers[0]
    captured = repeated(step, x)
    numbers[0] = -0.0
    assert not np.signbit(captured(x).numpy()).any()
    captured = tn.capture(lambda x, factor: (x - 10) * factor)
    for factor in (0.0, 0.0, 0.0, 0.0, -0.0, 0.0):
        assert np.signbit(captured(x, factor).numpy()).all() == (not np.signbit(factor))


# ---- tensors that the step reaches ----


def trainer(seed=0):
    tn.seed(seed)
    model = tn.nn.Sequential(tn.nn.Dense(3, 4, "tanh"), tn.nn.Dense(4, 1))
    optimizer = tn.optim.Adam(model.parameters(), lr=0.1)

    def step(x):
        optimizer.zero_grad()
        loss = (model(x) ** 2).mean()
        loss.backward()
        optimizer.step()
        return loss

    return model, optimizer, step


def rename(model, optimizer):
    model[0].weight.array = model[0].weight.array.copy()


@pytest.mark.parametrize("change", [
    lambda model, optimizer: setattr(model[0].bias, "requires_grad", False),
    lambda model, optimizer: setattr(optimizer, "lr", 0.5),
    lambda model, optimizer: setattr(optimizer, "eps", 0.5),
    lambda model, optimizer: setattr(optimizer, "betas", (0.5, 0.5)),
    lambda model, optimizer: model.load_state_dict({k: v * 0.5 for k, v in model.state_dict().items()}),
    lambda model, optimizer: model[0].pack(),
    lambda model, optimizer: setattr(model.layers[0], "_apply", tn.ops.sigmoid),
    lambda model, optimizer: model.layers.append(tn.nn.Tanh()),
    rename,
])  # fmt: skip
def test_parameters_layers_and_optimizers(x, change):
    model, optimizer, step = trainer()
    twin, twin_optimizer, twin_step = trainer()
    captured = repeated(step, x, executor="numpy", fuse=False)
    for _ in range(7):
        twin_step(tn.as_tensor(x))
    change(model, optimizer)
    change(twin, twin_optimizer)
    for _ in range(4):
        same(captured(x), twin_step(tn.as_tensor(x)))
    for p, q in zip(model.parameters(), twin.parameters()):
        same(p.numpy(), q.numpy())


def test_gradients_that_are_there_or_not():
    w = tn.ones((3,), requires_grad=True)
    v = tn.ones((3,), requires_grad=True)

    def build(w):
        def step(x):
            out = (x * w).sum() if w.grad is None else (x + w).sum()
            w.grad = None
            return out

        return step

    captured, eager = repeated(build(w), X), build(v)
    w.grad, v.grad = tn.ones((3,)), tn.ones((3,))
    same(captured(X), eager(tn.tensor(X)))
    assert w.grad is None
    same(captured(X), eager(tn.tensor(X)))


def test_written_tensors_count_their_versions_and_backward_refuses_them(x):
    w = tn.ones((2, 3), requires_grad=True)
    target = w.detach()
    captured = repeated(lambda x: tn.ops.assign(target, target + x) * 1, x)
    kept = w * w
    before = w.versions[0]
    captured(x)
    assert w.versions[0] == before + 1
    with pytest.raises(tn.errors.GradientError):
        kept.sum().backward()


def test_a_gradient_that_is_not_kept_is_withheld_again(x):
    model, _, step = trainer()
    captured = repeated(step, x)
    model.zero_grad()
    captured(x)
    with pytest.raises(CaptureError, match="keep_grads=True"):
        _ = model[0].weight.grad


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
