"""Calls that are like the last one take a way of their own, past most of Python. It must not miss what changes.

Each test makes calls until that way is taken, changes one thing, and compares with the step itself, run eagerly.
"""

from __future__ import annotations

import collections

import numpy as np
import pytest
import repetitions
from repetitions import Bag, X, repeated, repeats, same

import tinynet as tn
from tinynet.errors import CaptureError

pytestmark = pytest.mark.usefixtures("any_program_backend")

x = repetitions.x  # the fixture

SCALE = 2.0


# ---- Python state ----


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
