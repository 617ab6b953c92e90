"""What goes wrong where steps are captured, one hazard each: the number is right, or there is a clear error.

All of them are tried with programs that eager runs prove, and with a memory budget, which traces shapes alone.
"""

from __future__ import annotations

import functools
import random
import threading

import numpy as np
import pytest

import tinynet as tn
from tinynet.errors import CaptureError, RangeError


@pytest.fixture(autouse=True, params=["proven", "budgeted"])
def mode(request, monkeypatch):
    if request.param == "budgeted":
        monkeypatch.setattr(tn, "capture", functools.partial(tn.capture, memory="1GiB"))
    return request.param


X = np.arange(6, dtype=np.float32).reshape(2, 3)
FACTOR = 2.0
WEIGHTS = None


def calls(step, *args, times=4):
    """The results of several calls: traced, compared, and run as a program."""
    return [step(*args) for _ in range(times)]


def agree(step, *args):
    """A captured step gives what the step gives, at each of its first calls."""
    captured = tn.capture(step)
    expected = step(*map(tn.as_tensor, args)).numpy()
    for result in calls(captured, *args):
        np.testing.assert_array_equal(result.numpy(), expected)
    return captured


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


# ---- parameters and gradients ----


def trainer(keep_grads=False):
    tn.seed(2)
    model = tn.nn.Sequential(tn.nn.Dense(3, 4, "tanh"), tn.nn.Dense(4, 1))
    optimizer = tn.optim.GD(model.parameters(), lr=0.1, momentum=0.9)

    def step(x):
        optimizer.zero_grad()
        loss = (model(x) ** 2).mean()
        loss.backward()
        optimizer.step()
        return loss

    return model, optimizer, step, tn.capture(step, keep_grads=keep_grads)


def test_parameters_written_or_replaced_between_calls():
    model, _, _, captured = trainer()
    twin, _, step, _ = trainer()
    calls(captured, X)
    calls(step, X)
    for change in (
        lambda m: m.load_state_dict({k: v * 0.5 for k, v in m.state_dict().items()}),
        lambda m: setattr(m[0].bias, "data", np.ones(4, np.float32)),
        lambda m: m.pack(),
    ):
        change(model)
        change(twin)
        assert captured(X).item() == pytest.approx(step(X).item(), rel=1e-4)
    forward = tn.capture(lambda x: model(x))
    calls(forward, X)
    model[0].weight = tn.nn.Parameter(np.ones((3, 4), np.float32))
    np.testing.assert_allclose(forward(X).numpy(), model(X).numpy(), rtol=1e-5)
    model.layers[1] = tn.nn.Dense(4, 1, bias=False)
    np.testing.assert_allclose(forward(X).numpy(), model(X).numpy(), rtol=1e-5)


def test_a_global_tensor_that_is_written_or_replaced(monkeypatch):
    monkeypatch.setitem(globals(), "WEIGHTS", tn.ones((2, 3)))
    captured = agree(lambda x: x * WEIGHTS, X)
    WEIGHTS[0] = 5.0
    np.testing.assert_array_equal(captured(X).numpy(), X * WEIGHTS.numpy())
    monkeypatch.setitem(globals(), "WEIGHTS", tn.full((2, 3), 7))
    np.testing.assert_array_equal(captured(X).numpy(), X * 7)


def test_gradients_are_there_with_keep_grads_and_an_error_without():
    model, _, _, captured = trainer()
    calls(captured, X)
    with pytest.raises(CaptureError, match="keep_grads=True"):
        _ = model[0].weight.grad
    model.zero_grad()
    assert model[0].weight.grad is None
    model, _, _, captured = trainer(keep_grads=True)
    twin, _, step, _ = trainer()
    for _ in range(5):
        captured(X)
        step(X)
        for p, q in zip(model.parameters(), twin.parameters()):
            np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=1e-5, atol=1e-6)


def test_gradients_accumulate_over_calls_without_zero_grad():
    def build():
        w = tn.ones((3,), requires_grad=True)

        def step(x):
            (w * x).sum().backward()

        return w, step

    w, step = build()
    v, eager = build()
    captured = tn.capture(step, keep_grads=True)
    for i in range(6):
        captured(X)
        eager(X)
        np.testing.assert_array_equal(w.grad.numpy(), v.grad.numpy())
        if i == 3:
            w.grad = v.grad = None


def test_the_gradient_of_an_argument():
    def step(x):
        (x * x).sum().backward()

    captured = tn.capture(step, keep_grads=True)
    for i in range(5):
        x = tn.tensor(X + i, requires_grad=True)
        captured(x)
        np.testing.assert_array_equal(x.grad.numpy(), 2 * (X + i))


def test_switching_between_training_and_evaluation():
    tn.seed(0)
    model = tn.nn.Sequential(tn.nn.Dense(3, 50), tn.nn.Dropout(0.5))
    tn.seed(0)
    twin = tn.nn.Sequential(tn.nn.Dense(3, 50), tn.nn.Dropout(0.5))
    captured = tn.capture(lambda x: model(x))
    for i in range(16):
        training = i % 5 < 3
        model.train(training)
        twin.train(training)
        np.testing.assert_array_equal(captured(X).numpy(), twin(X).numpy())


# ---- control flow around the step ----


def test_an_error_inside_the_step_leaves_everything_usable(mode):
    _, _, step, _ = trainer()
    fail = [True]

    def risky(x):
        loss = step(x)
        if fail[0]:
            raise RuntimeError("inside")
        return loss

    captured = tn.capture(risky)
    with pytest.raises(RuntimeError, match="inside"):
        captured(X)
    fail[0] = False
    _, _, eager, _ = trainer()
    if mode == "proven":  # the step had run as far as the error; with shapes alone nothing had happened yet
        eager(X)
    for _ in range(4):
        assert captured(X).item() == pytest.approx(eager(X).item(), rel=1e-6)


def test_a_label_out_of_range_is_refused_and_changes_nothing():
    tn.seed(0)
    model = tn.nn.Dense(3, 2)
    optimizer = tn.optim.Adam(model.parameters())

    def step(x, y):
        optimizer.zero_grad()
        loss = tn.losses.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    captured = tn.capture(step)
    calls(captured, X, np.array([0, 1]))
    before = model.state_dict()
    with pytest.raises(RangeError, match="labels"):
        captured(X, np.array([0, 2]))
    assert all(np.array_equal(v, before[k]) for k, v in model.state_dict().items()) and optimizer.steps == 4
    captured(X, np.array([0, 1]))


def test_a_captured_step_within_a_captured_step():
    inner = tn.capture(lambda x: x * 2)
    outer = tn.capture(lambda x: inner(x) + inner(x + 1))
    for result in calls(outer, X):
        np.testing.assert_array_equal(result.numpy(), X * 4 + 2)
    for result in calls(inner, X):
        np.testing.assert_array_equal(result.numpy(), X * 2)


def test_two_threads_share_a_captured_step():
    captured = tn.capture(lambda x: (x * 2).sum())
    wrong = []

    def work(offset):
        for i in range(200):
            x = np.full((8, 8), offset + i, np.float32)
            if captured(x).item() != 2 * 64 * (offset + i):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(1000 * k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_no_grad_around_a_captured_step():
    w = tn.ones((3,), requires_grad=True)
    captured = tn.capture(lambda x: x * w)
    for result in calls(captured, X):
        np.testing.assert_array_equal(result.numpy(), X)
    with tn.no_grad():
        for result in calls(captured, X):
            assert not result.requires_grad


def test_a_data_set_in_the_closure_is_refused():
    numbers = list(range(100_000))
    with pytest.raises(CaptureError, match="Pass data as arrays"):
        tn.capture(lambda x: x * numbers[3])(X)
