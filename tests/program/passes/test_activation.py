"""``apply_activations``: linear applies the activation that is its only reader."""

import numpy as np
import pytest
from graphs import after, close, names, traced, unchanged

import tinynet as tn
from tinynet.ops import linear
from tinynet.program.passes import apply_activations

X = np.linspace(-1, 2, 6, dtype=np.float32).reshape(2, 3)
W = np.linspace(-2, 1, 12, dtype=np.float32).reshape(3, 4)
B = np.linspace(-1, 1, 4, dtype=np.float32)


def after_activation(step, *args):
    return after(apply_activations, step, *args, exact=False)


@pytest.mark.parametrize("name", ["relu", "tanh", "sigmoid"])
def test_an_activation_that_linear_knows_becomes_a_part_of_it(name):
    activation = tn.ops.table()[name]
    for more in ((), (B,)):
        before, now, graph = after_activation(lambda *xs: activation(linear(*xs)) * 2.0, X, W, *more)
        assert before == ["linear", name, "multiply"] and now == ["linear", "multiply"]
        assert graph.instructions[0].attributes["activation"] == name


@pytest.mark.parametrize("activation", [
    tn.gelu, tn.exp, tn.leaky_relu, tn.softplus, lambda y: y * 2.0, lambda y: y + B,
])  # fmt: skip
def test_what_linear_does_not_know_stays_beside_it(activation):
    unchanged(apply_activations, lambda x, w: activation(linear(x, w)), X, W)


def test_a_product_that_has_an_activation_gets_no_second():
    unchanged(apply_activations, lambda x, w: tn.tanh(linear(x, w, activation="relu")), X, W)


@pytest.mark.parametrize("step", [
    lambda x, w: (y := linear(x, w), tn.relu(y)),
    lambda x, w: (y := linear(x, w), tn.relu(y) + y)[1],
    lambda x, w: (y := linear(x, w), tn.relu(y) * y[0])[1],
    lambda x, w: tn.relu(linear(x, w)[0]),
], ids=["output", "second reader", "a view is read", "of a view"])  # fmt: skip
def test_a_product_that_is_wanted_itself_stays(step):
    found = traced(step, X, W)
    graph = found.graph.copy()
    apply_activations(graph)
    close(found.run(graph), found.run())
    assert "relu" in names(graph)


def test_a_write_between_product_and_activation_keeps_them_apart():
    w, b = tn.tensor(W), tn.tensor(B)

    def weights(x):
        y = linear(x, w, b)
        tn.ops.assign(w, w * 2.0)
        return tn.relu(y)

    unchanged(apply_activations, weights, X)

    def bias(x):
        y = linear(x, w, b)
        tn.ops.accumulate(b, b)
        return tn.relu(y)

    unchanged(apply_activations, bias, X)

    def result(x):
        y = linear(x, w, b)
        tn.ops.accumulate(y, y)
        return tn.relu(y)

    unchanged(apply_activations, result, X)


def test_a_write_elsewhere_does_not_matter():
    w, count = tn.tensor(W), tn.zeros(())

    def step(x):
        y = linear(x, w)
        tn.ops.assign(count, count + 1.0)
        return tn.relu(y)

    assert "relu" not in after_activation(step, X)[1]
