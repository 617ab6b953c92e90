"""Hazards of captured steps that train, and of what goes on around them; see ``test_hazards``."""

from __future__ import annotations

import threading

import hazards
import numpy as np
import pytest
from hazards import X, agree, calls
from zoo import classifying

import tinynet as tn
from tinynet.errors import CaptureError, RangeError

pytestmark = pytest.mark.usefixtures("any_program_backend")

mode = hazards.mode  # the fixture

WEIGHTS = None


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
        np.testing.assert_allclose(captured(X).numpy(), twin(X).numpy(), rtol=1e-5, atol=1e-7)


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
    captured = tn.capture(classifying(model, optimizer))
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
