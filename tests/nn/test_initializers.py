"""Initial weights: their spread by name, and that a seed repeats them."""

import math

import numpy as np
import pytest

import tinynet as tn
from tinynet import nn
from tinynet.errors import ArgumentError

INPUTS, OUTPUTS = 300, 700
VARIANCES = {
    "glorot_uniform": 2 / (INPUTS + OUTPUTS), "glorot_normal": 2 / (INPUTS + OUTPUTS),
    "he_uniform": 2 / INPUTS, "he_normal": 2 / INPUTS,
    "lecun_uniform": 1 / INPUTS, "lecun_normal": 1 / INPUTS,
}  # fmt: skip


def weights(init=None, activation=None):
    return nn.Dense(INPUTS, OUTPUTS, activation, init=init).weight.numpy()


def test_every_name_is_tried_here():
    assert set(nn.initializers.names()) == {*VARIANCES, "zeros", "ones"}


@pytest.mark.parametrize("name", VARIANCES)
def test_mean_and_variance_are_those_of_the_paper(name):
    tn.seed(1)
    w = weights(name).astype("float64")
    n, variance = w.size, VARIANCES[name]
    assert abs(w.mean()) < 5 * math.sqrt(variance / n)
    assert abs(w.var() / variance - 1) < 5 * math.sqrt(2 / n)
    if name.endswith("uniform"):
        limit = math.sqrt(3 * variance)
        assert 0.999 * limit < np.abs(w).max() <= limit * (1 + 1e-6)
    else:
        assert np.abs(w).max() > 3.5 * math.sqrt(variance)


def test_zeros_and_ones_are_that():
    assert (weights("zeros") == 0).all() and (weights("ones") == 1).all()


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "gelu", "gelu_tanh", "silu", "softplus"])
def test_before_rectifiers_it_is_he_normal(activation):
    tn.seed(2)
    expected = weights("he_normal")
    tn.seed(2)
    assert (weights(activation=activation) == expected).all()


@pytest.mark.parametrize("activation", [None, "tanh", "sigmoid", "softmax", "log_softmax", tn.relu])
def test_elsewhere_it_is_glorot_uniform(activation):
    tn.seed(2)
    expected = weights("glorot_uniform")
    tn.seed(2)
    assert (weights(activation=activation) == expected).all()


def test_a_function_of_generator_and_shape_fills_the_weights():
    asked = []

    def fill(rng, shape):
        asked.append((type(rng), shape))
        return np.arange(math.prod(shape)).reshape(shape)

    assert nn.Dense(2, 3, init=fill).weight.numpy().tolist() == [[0, 1, 2], [3, 4, 5]]
    assert asked == [(np.random.Generator, (2, 3))]


def test_an_unknown_name_is_refused_with_those_there_are():
    with pytest.raises(ArgumentError, match=r"glorot_uniform.*'xavier'"):
        nn.Dense(2, 3, init="xavier")


def model():
    return nn.Sequential(nn.Dense(4, 8, "relu"), nn.Dropout(0.5), nn.Dense(8, 3))


def test_the_same_seed_makes_the_same_model_whatever_was_drawn_in_between(backend):
    tn.seed(7)
    first = model().state_dict()
    np.random.default_rng(0).random(10)
    tn.seed(7)
    second = model().state_dict()
    tn.seed(8)
    third = model().state_dict()
    assert all((first[name] == second[name]).all() for name in first)
    assert (first["0.weight"] != third["0.weight"]).all()


def test_the_same_seed_makes_the_same_weights_on_every_backend(backend):
    tn.seed(7)
    here = model().state_dict()
    with tn.use_backend("numpy"):
        tn.seed(7)
        there = model().state_dict()
    assert all((here[name] == there[name]).all() for name in there)


def test_layers_of_one_model_differ():
    twins = nn.Sequential(nn.Dense(4, 4), nn.Dense(4, 4))
    assert (twins[0].weight.numpy() != twins[1].weight.numpy()).all()
