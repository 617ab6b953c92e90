"""Every optimizer's trajectory equals the published formulas, written down here in float64 with NumPy."""

import math

import numpy as np
import pytest

import tinynet as tn
from tinynet.optim import GD, Adam, AdamW

RNG = np.random.default_rng(1)
START = [RNG.normal(size=(3, 4)), RNG.normal(size=(4,)), np.array(0.7)]
CURVATURE = [RNG.uniform(0.5, 2, array.shape) for array in START]
STEPS = 25


def gradient(p, c, t):
    """Of sum(c p^2 / 2 + sin(p + t)): another one at every step, and nowhere zero for long."""
    return c * p + np.cos(p + t)


def loss_of(p, c, t):
    """A tensor whose gradient is ``gradient``, written with operations that every backend has."""
    return (p * p * tn.tensor(c / 2)).sum() + (p * tn.tensor(np.cos(p.numpy() + t))).sum()


# Each formula is (p, g, state, t, lr) -> p; t counts from 1.


def gd(p, g, state, t, lr):
    return p - lr * g


def decayed(rate, formula):
    """L2 regularisation: rate * p is added to the gradient."""
    return lambda p, g, state, t, lr: formula(p, g + rate * p, state, t, lr)


def momentum(mu, nesterov=False):
    """Polyak 1964; Sutskever, Martens, Dahl and Hinton 2013, in the form in which the gradient is taken at p."""

    def formula(p, g, state, t, lr):
        v = state["v"] = mu * state.get("v", 0) + g
        return p - lr * (g + mu * v) if nesterov else p - lr * v

    return formula


def adam(beta1=0.9, beta2=0.999, eps=1e-8, decoupled=0.0):
    """Kingma and Ba 2015, Algorithm 1; Loshchilov and Hutter 2019, Algorithm 2, for the decoupled decay."""

    def formula(p, g, state, t, lr):
        m = state["m"] = beta1 * state.get("m", 0) + (1 - beta1) * g
        v = state["v"] = beta2 * state.get("v", 0) + (1 - beta2) * g**2
        m_hat, v_hat = m / (1 - beta1**t), v / (1 - beta2**t)
        return p - lr * decoupled * p - lr * m_hat / (np.sqrt(v_hat) + eps)

    return formula


METHODS = {
    "gd": (lambda p, lr: GD(p, lr), gd),
    "gd decay": (lambda p, lr: GD(p, lr, weight_decay=0.1), decayed(0.1, gd)),
    "momentum": (lambda p, lr: GD(p, lr, momentum=0.9), momentum(0.9)),
    "momentum decay": (lambda p, lr: GD(p, lr, momentum=0.5, weight_decay=0.1), decayed(0.1, momentum(0.5))),
    "nesterov": (lambda p, lr: GD(p, lr, momentum=0.9, nesterov=True), momentum(0.9, True)),
    "nesterov decay": (
        lambda p, lr: GD(p, lr, momentum=0.8, nesterov=True, weight_decay=0.1), decayed(0.1, momentum(0.8, True)),
    ),
    "adam": (lambda p, lr: Adam(p, lr), adam()),
    "adam betas": (lambda p, lr: Adam(p, lr, betas=(0.5, 0.9), eps=1e-3), adam(0.5, 0.9, 1e-3)),
    "adam without memory": (lambda p, lr: Adam(p, lr, betas=(0.0, 0.0)), adam(0.0, 0.0)),
    "adam decay": (lambda p, lr: Adam(p, lr, weight_decay=0.1), decayed(0.1, adam())),
    "adam decoupled": (lambda p, lr: Adam(p, lr, weight_decay=0.1, decoupled=True), adam(decoupled=0.1)),
    "adamw": (lambda p, lr: AdamW(p, lr), adam(decoupled=0.01)),
    "adamw decay": (lambda p, lr: AdamW(p, lr, weight_decay=0.3), adam(decoupled=0.3)),
}  # fmt: skip
RATES = {
    "constant": 0.05,
    "schedule": tn.optim.warmup(5, tn.optim.cosine(0.1, 15)),
}


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("name", METHODS)
def test_the_trajectory_is_that_of_the_formulas(backend, name, rate):
    make, formula = METHODS[name]
    lr = RATES[rate]
    parameters = [tn.tensor(array, requires_grad=True) for array in START]
    optimizer = make(parameters, lr)
    expected, states = [array.copy() for array in START], [{} for _ in START]
    for t in range(STEPS):
        optimizer.zero_grad()
        total = 0.0
        for p, c in zip(parameters, CURVATURE):
            total = loss_of(p, c, t) + total
        total.backward()
        optimizer.step()
        now = lr(t) if callable(lr) else lr
        for i, (p, c, state) in enumerate(zip(expected, CURVATURE, states)):
            expected[i] = formula(p, gradient(p, c, t), state, t + 1, now)
        for p, e in zip(parameters, expected):
            np.testing.assert_allclose(p.numpy(), e, rtol=1e-12, atol=1e-12, err_msg=f"step {t}")
    assert optimizer.steps == STEPS
    assert all(math.isfinite(e.sum()) and (np.abs(e - s) > 1e-2).any() for e, s in zip(expected, START))


@pytest.mark.parametrize("name", METHODS)
def test_float32_follows_the_formulas_to_its_precision(backend, name):
    make, formula = METHODS[name]
    parameter = tn.tensor(START[0].astype("float32"), requires_grad=True)
    optimizer = make([parameter], 0.05)
    expected, state = START[0].astype("float32").astype("float64"), {}
    for t in range(STEPS):
        g = gradient(expected, CURVATURE[0], t)
        parameter.grad = tn.tensor(g.astype("float32"))
        optimizer.step()
        expected = formula(expected, g, state, t + 1, 0.05)
    assert parameter.dtype == "float32"
    np.testing.assert_allclose(parameter.numpy(), expected, rtol=1e-4, atol=1e-5)
