"""Every layer computes its formula, and its gradients are those of central differences."""

import math

import numpy as np
import pytest
from layer_checks import ATOL, LAYERS, RTOL, differences, values

import tinynet as tn
from tinynet import nn
from tinynet.errors import ArgumentError, ShapeError

X = values((5, 4))
ERF = np.vectorize(math.erf)


def softmax(x, axis=-1):
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def normal(x, eps):
    return (x - x.mean(axis=-1, keepdims=True)) / np.sqrt(x.var(axis=-1, keepdims=True) + eps)


FORMULAS = {
    "ReLU": (nn.ReLU, lambda x: np.maximum(x, 0)),
    "LeakyReLU": (nn.LeakyReLU, lambda x: np.where(x > 0, x, 0.01 * x)),
    "LeakyReLU 0.2": (lambda: nn.LeakyReLU(0.2), lambda x: np.where(x > 0, x, 0.2 * x)),
    "Tanh": (nn.Tanh, np.tanh),
    "Sigmoid": (nn.Sigmoid, lambda x: 1 / (1 + np.exp(-x))),
    "SiLU": (nn.SiLU, lambda x: x / (1 + np.exp(-x))),
    "Softplus": (nn.Softplus, lambda x: np.log1p(np.exp(x))),
    "GELU": (nn.GELU, lambda x: x * (1 + ERF(x / math.sqrt(2))) / 2),
    "GELU tanh": (
        lambda: nn.GELU("tanh"),
        lambda x: x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2,
    ),
    "Softmax": (nn.Softmax, softmax),
    "Softmax along 0": (lambda: nn.Softmax(0), lambda x: softmax(x, 0)),
    "LayerNorm": (lambda: nn.LayerNorm(4), lambda x: normal(x, 1e-5)),
    "LayerNorm eps": (lambda: nn.LayerNorm(4, eps=0.5), lambda x: normal(x, 0.5)),
    "Flatten": (nn.Flatten, lambda x: x),
    "Dropout in evaluation": (lambda: nn.Dropout(0.9).eval(), lambda x: x),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_a_layer_computes_its_formula(backend, name):
    make, formula = FORMULAS[name]
    result = make().astype("float64")(X)
    assert result.dtype == "float64" and result.backend is backend
    np.testing.assert_allclose(result.numpy(), formula(X), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", FORMULAS)
def test_a_layer_keeps_float32(backend, name):
    make, formula = FORMULAS[name]
    result = make()(X.astype("float32"))
    assert result.dtype == "float32"
    np.testing.assert_allclose(result.numpy(), formula(X), rtol=2e-5, atol=1e-6)


def test_layer_norm_scales_and_shifts(backend):
    layer = nn.LayerNorm(4).astype("float64")
    gain, shift = np.array([1.0, 2, 3, 4]), np.array([0.5, 0, -1, 2])
    layer.load_state_dict({"weight": gain, "bias": shift})
    np.testing.assert_allclose(layer(X).numpy(), normal(X, 1e-5) * gain + shift, rtol=1e-12)


@pytest.mark.parametrize("shape, flat", [((5, 2, 3), (5, 6)), ((5,), (5, 1)), ((0, 2, 3), (0, 6)), ((2, 0, 3), (2, 0))])
def test_flatten_keeps_the_batch_and_joins_the_rest(backend, shape, flat):
    x = np.arange(math.prod(shape), dtype="float32").reshape(shape)
    result = nn.Flatten()(x)
    assert result.shape == flat
    assert result.numpy().tolist() == x.reshape(flat).tolist()


def test_flatten_refuses_a_scalar():
    with pytest.raises(ShapeError, match="batch"):
        nn.Flatten()(tn.tensor(1.0))


@pytest.mark.parametrize("name", [name for name in LAYERS if name != "Flatten"])
def test_an_empty_batch_gives_an_empty_result(backend, name):
    make, shape = LAYERS[name]
    result = make()(np.zeros((0, *shape[1:]), "float32"))
    assert result.shape[0] == 0 and result.dtype == "float32"


@pytest.mark.parametrize("name", LAYERS)
def test_gradients_are_those_of_central_differences(backend, name):
    tn.seed(3)
    make, shape = LAYERS[name]
    layer, x = make().astype("float64"), values(shape, 1)
    cotangent = values(layer.eval()(x).shape, 2)
    dropout = isinstance(layer, nn.Dropout)

    def loss(inputs, state=None):
        if dropout:  # the same mask every time
            again = nn.Dropout(layer.p, layer.seed, layer.stream, 0)
            return (again(inputs) * cotangent).sum()
        if state is not None:
            layer.load_state_dict(state)
        return (layer(inputs) * cotangent).sum()

    inputs = tn.tensor(x, requires_grad=True)
    loss(inputs).backward()
    gradients = {name: p.grad.numpy() for name, p in layer.named_parameters()}
    with tn.no_grad():
        expected = differences(lambda moved: loss(moved).item(), x)
        np.testing.assert_allclose(inputs.grad.numpy(), expected, rtol=RTOL, atol=ATOL)
        assert (np.abs(expected) > 1e-2).any(), "gradients that are zero throughout prove nothing"
        state = layer.state_dict()
        for which, value in state.items():
            expected = differences(lambda moved, which=which: loss(x, state | {which: moved}).item(), value)
            np.testing.assert_allclose(gradients[which], expected, rtol=RTOL, atol=ATOL, err_msg=which)


def test_every_registered_layer_is_tried_here():
    tried = {type(make()).__name__ for make, _ in LAYERS.values()}
    own = {name for name, cls in nn.registered_layers().items() if cls.__module__.startswith("tinynet.")}
    assert tried >= own


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.GELU("sigmoid"),
        lambda: nn.LayerNorm(0),
        lambda: nn.LayerNorm(2.0),
        lambda: nn.LayerNorm(3, eps="small"),
        lambda: nn.LayerNorm(3, eps=-1.0),
        lambda: nn.LeakyReLU("steep"),
        lambda: nn.LeakyReLU(math.nan),
        lambda: nn.Softmax("last"),
        lambda: nn.Softmax(True),
    ],
)
def test_a_layer_refuses_wrong_arguments_when_it_is_made(make):
    with pytest.raises(ArgumentError, match=r"expected .* got "):
        make()


def test_layer_norm_refuses_another_width(backend):
    with pytest.raises(ShapeError, match=r"\(5, 3\)"):
        nn.LayerNorm(4)(np.ones((5, 3), "float32"))


def test_a_class_cannot_take_a_registered_name():
    with pytest.raises(ArgumentError, match="Dense"):

        @nn.register_layer
        class Dense(nn.Layer):
            pass

    assert nn.registered_layers()["Dense"] is nn.Dense
    nn.register_layer(nn.Dense)  # again is no error


def test_the_registry_that_is_given_out_is_a_copy():
    nn.registered_layers().clear()
    assert "Dense" in nn.registered_layers()
