"""What goes wrong where steps are captured, one hazard each: the number is right, or there is a clear error.

All of them are tried with programs that eager runs prove, and with a memory budget, which traces shapes alone.
"""

from __future__ import annotations

import random

import hazards
import numpy as np
import pytest
from hazards import X, agree, calls

import tinynet as tn
from tinynet.errors import CaptureError, RangeError

pytestmark = pytest.mark.usefixtures("any_program_backend")

mode = hazards.mode  # the fixture

FACTOR = 2.0


# ---- Python state ----


def test_a_python_constant_of_the_closure_that_changes():
    scale = 1.0

    def step(x):
        return x * scale

    captured = agree(step, X)
    scale = 3.0
    np.testing.assert_array_equal(captured(X).numpy(), X * 3)
    scale = 1.0
    np.testing.assert_array_equal(captured(X).numpy(), X)


def test_a_global_number_that_changes(monkeypatch):
    captured = agree(lambda x: x * FACTOR, X)
    monkeypatch.setitem(globals(), "FACTOR", 5.0)
    np.testing.assert_array_equal(captured(X).numpy(), X * 5)


def test_an_attribute_or_a_list_element_that_changes():
    class Settings:
        pass

    settings, table = Settings(), [1.0, {"deep": 2.0}]
    settings.scale = 2.0
    captured = agree(lambda x: x * settings.scale * table[1]["deep"], X)
    settings.scale = 4.0
    np.testing.assert_array_equal(captured(X).numpy(), X * 8)
    table[1]["deep"] = 1.0
    np.testing.assert_array_equal(captured(X).numpy(), X * 4)


class Settings:
    scale = 2.0


class Slotted:
    __slots__ = ("parts", "scale")

    def __init__(self):
        self.scale, self.parts = 2.0, {1, 2}


def test_a_class_attribute_a_slot_or_a_set_that_changes(monkeypatch):
    slotted = Slotted()

    def step(x):
        return x * Settings.scale * slotted.scale * len(slotted.parts)

    captured = agree(step, X)
    monkeypatch.setattr(Settings, "scale", 3.0)
    np.testing.assert_array_equal(captured(X).numpy(), X * 12)
    slotted.scale = 1.0
    np.testing.assert_array_equal(captured(X).numpy(), X * 6)
    slotted.parts.add(3)
    np.testing.assert_array_equal(captured(X).numpy(), X * 9)


def test_a_python_argument_that_changes():
    captured = tn.capture(lambda x, power: x**power)
    for power in (2, 2, 2, 3.0, 3.0, 3.0, 2):
        np.testing.assert_array_equal(captured(X, power).numpy(), tn.as_tensor(X).__pow__(power).numpy())


def test_numbers_that_python_makes_anew_are_refused():
    captured = tn.capture(lambda x: x * random.random())
    captured(X)
    with pytest.raises(CaptureError, match="same operations at each call"):
        captured(X)
    captured = tn.capture(lambda x: x + np.random.default_rng().normal(size=(2, 3)).astype(np.float32))
    captured(X)
    with pytest.raises(CaptureError, match="a constant with other numbers"):
        captured(X)


def test_a_step_that_changes_python_state_is_refused():
    seen = []

    def step(x):
        seen.append(x)
        return x * 2

    with pytest.raises(CaptureError, match="changed the length of a list"):
        tn.capture(step)(X)


def test_too_many_variants_are_refused():
    captured = tn.capture(lambda x, rate: x * rate)
    with pytest.raises(CaptureError, match="as tensors"):
        for i in range(100):
            captured(X, i / 7)


# ---- values ----


@pytest.mark.parametrize("look", [
    lambda t: t.item(), lambda t: t.numpy(), bool, float, print, lambda t: t.tolist(), np.asarray, lambda t: t.data,
])  # fmt: skip
def test_looking_at_a_value_is_refused_and_names_the_line(look):
    def step(x):
        y = x.sum()
        look(y)
        return y

    with pytest.raises(CaptureError, match=r"test_hazards\.py:\d+"):
        tn.capture(step)(X)
    assert tn.as_tensor(X).sum().item() == 15  # nothing is left behind


def test_looking_at_a_tensor_of_the_closure_is_refused():
    flag = tn.tensor(1.0)
    with pytest.raises(CaptureError, match=r"tn\.where"):
        tn.capture(lambda x: x * 2 if flag.item() else x)(X)


def test_indices_out_of_range_are_refused_at_every_call():
    captured = tn.capture(lambda x, i, j: x[i, j])
    i, j = np.array([0, 1]), np.array([2, 0])
    for result in calls(captured, X, i, j):
        np.testing.assert_array_equal(result.numpy(), X[i, j])
    with pytest.raises(RangeError, match="indices"):
        captured(X, i, np.array([3, 0]))


def test_branching_on_an_argument_is_refused():
    with pytest.raises(CaptureError, match=r"tn\.where"):
        tn.capture(lambda x: x * 2 if x[0, 0] > 0 else x)(X)


# ---- inputs and outputs ----


def test_lists_dicts_and_tuples_of_inputs_and_outputs():
    def step(batch, scales):
        a, b = scales
        return {"sum": batch["x"] * a + batch["y"], "parts": [batch["x"] * b, (a, None, "text", 7)]}

    captured = tn.capture(step)
    for result in calls(captured, {"x": X, "y": X + 1}, (tn.tensor(2.0), tn.tensor(3.0))):
        np.testing.assert_array_equal(result["sum"].numpy(), X * 2 + X + 1)
        np.testing.assert_array_equal(result["parts"][0].numpy(), X * 3)
        assert result["parts"][1][0].item() == 2 and result["parts"][1][1:] == (None, "text", 7)


def test_an_output_is_not_changed_by_a_later_call():
    captured = tn.capture(lambda x: x * 2)
    results = [captured(X + i) for i in range(6)]
    for i, result in enumerate(results):
        np.testing.assert_array_equal(result.numpy(), (X + i) * 2)


def test_batches_of_other_sizes_and_dtypes_get_programs_of_their_own():
    captured = tn.capture(lambda x: (x * x).sum(axis=0))
    for n in (4, 3, 4, 3, 1, 4, 3, 0):
        for dtype in ("float32", "float64"):
            x = np.arange(2 * n, dtype=dtype).reshape(n, 2)
            result = captured(x)
            assert result.dtype == dtype
            np.testing.assert_array_equal(result.numpy(), (x * x).sum(axis=0))


@pytest.mark.parametrize(
    "make", [lambda x: x, lambda x: x[::-1], lambda x: x.T, lambda x: np.broadcast_to(x[:1], (3, 3))]
)
def test_arguments_may_have_any_layout(make):
    x = make(np.arange(9, dtype=np.float32).reshape(3, 3))
    agree(lambda x: tn.reshape(x.T, (9,)) * 2 + x.reshape(9), x)


def test_the_same_tensor_as_two_arguments():
    captured = tn.capture(lambda a, b: a * 2 + b)
    x = tn.tensor(X)
    for a, b in ((x, x), (x, x), (x, x), (x, tn.ones((2, 3))), (x, tn.ones((2, 3))), (x, tn.ones((2, 3)))):
        np.testing.assert_array_equal(captured(a, b).numpy(), a.numpy() * 2 + b.numpy())


def test_an_argument_that_is_updated_in_place():
    def step(state, x):
        state[...] = state + x
        return state * 2

    captured, state = tn.capture(step), tn.zeros((2, 3))
    for i in range(1, 6):
        result = captured(state, X)
        np.testing.assert_array_equal(state.numpy(), X * i)
        np.testing.assert_array_equal(result.numpy(), X * i * 2)


def test_an_argument_that_is_written_and_not_read_again_keeps_what_was_written():
    """Its place in the arena is wanted until the end, when it is copied back, though no instruction reads it."""

    def step(state, x):
        state[...] = x + 1
        return tn.exp(tn.tanh(x) * 2) + 1

    captured, state = tn.capture(step), tn.zeros((2, 3))
    for i in range(5):
        captured(state, X + i)
        np.testing.assert_array_equal(state.numpy(), X + i + 1)


def test_arguments_that_overlap_what_is_written_are_refused():
    def step(state, x):
        ops_assign(state, state + 1)
        return x + state

    ops_assign = tn.ops.assign
    base = tn.zeros((4, 3))
    with pytest.raises(CaptureError, match="memory of their own"):
        tn.capture(step)(base[:2], base[1:3])
    w = tn.zeros((2, 3))

    def closure(x):
        ops_assign(w, w + 1)
        return x + w

    captured = tn.capture(closure)
    calls(captured, X)
    for alias in (w, w[:], w.data):
        before = w.numpy().copy()
        with pytest.raises(CaptureError):
            captured(alias)
        if alias is not w:
            np.testing.assert_array_equal(w.numpy(), before)
