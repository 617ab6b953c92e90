"""Dense: x W + b, then an activation; what it is called, and what it says of inputs that do not fit."""

import numpy as np
import pytest
from layer_checks import ACTIVATIONS, values

import tinynet as tn
from tinynet import nn
from tinynet.errors import ArgumentError, BackendError, DTypeError, ShapeError

W, B = values((4, 3), 5), values((3,), 6)
X = values((5, 4), 7)


def dense(*args, **options):
    layer = nn.Dense(4, 3, *args, **options).astype("float64")
    state = {"weight": W} | ({"bias": B} if layer.bias is not None else {})
    layer.load_state_dict(state)
    return layer


@pytest.mark.parametrize("shape", [(4,), (5, 4), (2, 3, 4), (0, 4), (1, 4)])
def test_it_computes_x_w_plus_b_over_the_last_axis(backend, shape):
    x = values(shape, 8)
    result = dense()(x)
    assert result.shape == (*shape[:-1], 3) and result.backend is backend
    np.testing.assert_allclose(result.numpy(), x @ W + B, rtol=1e-13)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_by_name_is_the_operation_of_that_name(backend, name):
    expected = tn.ops.table()[name](tn.tensor(X @ W + B)).numpy()
    np.testing.assert_allclose(dense(name)(X).numpy(), expected, rtol=1e-12, atol=1e-14)


def test_an_activation_may_be_any_function_of_a_tensor(backend):
    np.testing.assert_allclose(dense(lambda y: y * y + 1)(X).numpy(), (X @ W + B) ** 2 + 1, rtol=1e-12)
    np.testing.assert_allclose(dense(tn.tanh)(X).numpy(), np.tanh(X @ W + B), rtol=1e-12)
    np.testing.assert_allclose(dense(nn.Tanh())(X).numpy(), np.tanh(X @ W + B), rtol=1e-12)


def test_without_bias_there_is_none(backend):
    layer = dense(bias=False)
    assert layer.bias is None and list(layer.state_dict()) == ["weight"]
    np.testing.assert_allclose(layer(X).numpy(), X @ W, rtol=1e-13)


def test_shapes_names_and_types_of_its_parameters(backend):
    model = nn.Sequential(nn.Dense(4, 3, "relu"), nn.Dense(3, 2))
    shapes = {name: (p.shape, str(p.dtype)) for name, p in model.named_parameters()}
    assert shapes == {
        "0.weight": ((4, 3), "float32"), "0.bias": ((3,), "float32"),
        "1.weight": ((3, 2), "float32"), "1.bias": ((2,), "float32"),
    }  # fmt: skip
    assert list(model.state_dict()) == list(shapes)
    assert all(p.requires_grad and p.backend is backend for p in model.parameters())


def test_the_bias_begins_at_zero(backend):
    assert nn.Dense(4, 3).bias.numpy().tolist() == [0, 0, 0]


def test_float64_by_astype(backend):
    model = nn.Sequential(nn.Dense(4, 3, "relu"), nn.Dense(3, 2))
    before = model.state_dict()
    assert model.astype("float64") is model
    assert all(p.dtype == "float64" for p in model.parameters())
    assert all((model.state_dict()[name] == value).all() for name, value in before.items())
    assert model(X).dtype == "float64"


@pytest.mark.parametrize("options", [{}, {"activation": "relu"}, {"activation": "gelu"}, {"bias": False}])
def test_a_wrong_number_of_features_names_both_numbers(backend, options):
    with pytest.raises(ShapeError) as caught:
        nn.Dense(4, 3, **options)(np.ones((5, 7), "float32"))
    assert "4" in str(caught.value) and "7" in str(caught.value)


def test_a_sequential_says_which_layer_it_was(backend):
    model = nn.Sequential(nn.Dense(4, 3, "relu"), nn.Sequential(nn.ReLU(), nn.Dense(5, 2)))
    with pytest.raises(ShapeError) as caught:
        model(np.ones((5, 4), "float32"))
    notes = caught.value.__notes__
    assert notes[0].startswith("in layer 1 of Sequential: Dense(5, 2)")
    assert notes[1].startswith("in layer 1 of Sequential: Sequential(")


def test_an_input_of_another_dtype_is_refused(backend):
    with pytest.raises(DTypeError, match=r"float32.*float64|float64.*float32"):
        nn.Dense(4, 3)(X)
    with pytest.raises(DTypeError, match="int64"):
        nn.Dense(4, 3)(np.ones((5, 4), "int64"))


def test_an_input_on_another_backend_is_refused(backend, other_backend):
    with pytest.raises(BackendError, match=f"{backend.name} and other|other and {backend.name}"):
        nn.Dense(4, 3)(tn.ones((5, 4), backend=other_backend))


@pytest.mark.parametrize("sizes", [(0, 3), (3, 0), (-1, 3), (3.0, 2), ("3", 2), (True, 2), (None, 2)])
def test_sizes_that_are_no_positive_integers_are_refused(sizes):
    with pytest.raises(ArgumentError, match="integer of at least 1"):
        nn.Dense(*sizes)


def test_an_unknown_activation_or_initializer_is_refused_with_the_names_there_are():
    with pytest.raises(ArgumentError, match=r"relu.*'rectified'"):
        nn.Dense(4, 3, "rectified")
    with pytest.raises(ArgumentError, match=r"he_normal.*'good'"):
        nn.Dense(4, 3, init="good")
