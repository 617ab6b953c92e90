"""What docstrings promise about extreme numbers: no overflow on the way, exactness near zero, gradients at kinks."""

import math

import numpy as np
import pytest

import tinynet as tn

ops = tn.ops


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_softmax_and_its_kin_do_not_overflow(dtype, backend):
    big = 3e38 if dtype == "float32" else 1e308
    logits = tn.tensor(np.array([[1000.0, 0.0, -1000.0], [big, big, -big], [-big, -big, -big]], dtype))
    np.testing.assert_allclose(ops.softmax(logits).numpy(), [[1, 0, 0], [0.5, 0.5, 0], [1 / 3] * 3], rtol=1e-6)
    np.testing.assert_allclose(ops.log_softmax(logits).numpy()[0], [0, -1000, -2000])
    np.testing.assert_allclose(ops.logsumexp(logits, axis=-1).numpy()[0], 1000)
    loss = ops.softmax_cross_entropy(logits, tn.tensor(np.array([2, 0, 1]))).numpy()
    np.testing.assert_allclose(loss, [2000, math.log(2), math.log(3)], rtol=1e-6)


def test_logsumexp_of_infinities_has_its_limits(backend):
    inf = math.inf
    x = tn.tensor([[-inf, -inf], [inf, 1.0], [inf, -inf], [-inf, 2.0]])
    np.testing.assert_array_equal(ops.logsumexp(x, axis=1).numpy(), np.array([-inf, inf, inf, 2.0], "float32"))


def test_a_class_without_probability_costs_nothing_however_impossible(backend):
    logits = tn.tensor([[0.0, -math.inf, 0.0]])
    rows = tn.tensor([[0.5, 0.0, 0.5]])
    np.testing.assert_allclose(ops.softmax_cross_entropy(logits, rows).numpy(), [math.log(2)], rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_softplus_and_sigmoid_saturate(dtype, backend):
    x = tn.tensor(np.array([-1e4, -50.0, 0.0, 50.0, 1e4], dtype))
    np.testing.assert_allclose(ops.softplus(x).numpy(), [0, math.exp(-50), math.log(2), 50, 1e4], rtol=1e-6)
    np.testing.assert_allclose(ops.sigmoid(x).numpy(), [0, math.exp(-50), 0.5, 1, 1], rtol=1e-5)


def test_expm1_and_log1p_are_exact_near_zero(backend):
    x = tn.tensor(np.array([1e-12, -1e-12]))
    np.testing.assert_allclose(ops.expm1(x).numpy(), [1e-12, -1e-12], rtol=1e-11)
    np.testing.assert_allclose(ops.log1p(x).numpy(), [1e-12, -1e-12], rtol=1e-11)


def test_variance_of_numbers_far_from_zero_keeps_its_digits(backend):
    x = np.array([1.0, 2.0, 3.0, 4.0]) + 1e8
    assert ops.var(tn.tensor(x)).item() == pytest.approx(1.25, rel=1e-9)


def test_layer_norm_of_a_constant_row_is_its_bias(backend):
    y = ops.layer_norm(tn.full((2, 4), 3.0), tn.ones(4), tn.full(4, 0.5))
    np.testing.assert_allclose(y.numpy(), np.full((2, 4), 0.5), atol=1e-3)


@pytest.mark.parametrize(
    ("f", "at", "slope"),
    [
        (ops.relu, 0.0, 0.0), (ops.abs, 0.0, 0.0), (ops.sign, 0.0, 0.0),
        (lambda x: ops.leaky_relu(x, slope=0.1), 0.0, 0.1),
        (ops.clip, 1.0, 1.0), (ops.clip, -1.0, 1.0), (ops.clip, 1.5, 0.0),
        (lambda x: ops.maximum(x, 2.0), 2.0, 0.5), (lambda x: ops.minimum(x, 2.0), 2.0, 0.5),
        (lambda x: x**0.0, 0.0, 0.0), (lambda x: x**2.0, 0.0, 0.0), (lambda x: 0.0**x, 2.0, 0.0),
    ],
)  # fmt: skip
def test_gradients_at_kinks_are_the_documented_ones(f, at, slope, backend):
    assert tn.grad(f)(tn.tensor(at)).item() == pytest.approx(slope)


@pytest.mark.parametrize(("exponent", "second"), [(0.0, 0.0), (1.0, 0.0), (2.0, 2.0), (3.0, 0.0)])
def test_powers_have_second_derivatives_at_zero(exponent, second):
    assert tn.grad(tn.grad(lambda x: x**exponent))(tn.tensor(0.0)).item() == second


def test_extrema_share_the_gradient_among_equals(backend):
    x = tn.tensor([[3.0, 1.0, 3.0], [2.0, 2.0, 2.0]])
    gradient = tn.grad(lambda t: ops.max(t, axis=1).sum())(x).numpy()
    np.testing.assert_allclose(gradient, [[0.5, 0, 0.5], [1 / 3] * 3], rtol=1e-6)


def test_extrema_and_signs_pass_nan_on(backend):
    x = tn.tensor([[1.0, math.nan], [2.0, 3.0]])
    for f in (ops.max, ops.min):
        assert np.isnan(f(x, axis=1).numpy()).tolist() == [True, False]
    for result in (ops.maximum(x, 2.0), ops.minimum(2.0, x), ops.sign(x), ops.relu(x), ops.clip(x), ops.abs(x)):
        assert np.isnan(result.numpy()).tolist() == [[False, True], [False, False]]


@pytest.mark.parametrize("f", [ops.mean, ops.max, ops.min, ops.var, ops.argmax, ops.logsumexp])
def test_reductions_of_nothing_are_refused_but_the_sum_is_zero(f, backend):
    with pytest.raises(tn.errors.ShapeError):
        f(tn.zeros((0, 3)))
    with pytest.raises(tn.errors.ShapeError):
        f(tn.zeros((2, 0)), axis=1)
    assert f(tn.zeros((0, 3)), axis=1).shape == (0,)
    assert ops.sum(tn.zeros((0, 3))).item() == 0.0


@pytest.mark.parametrize("bad", [-1, 3])
def test_labels_out_of_range_are_refused(bad, backend):
    with pytest.raises(tn.errors.RangeError, match="labels"):
        ops.softmax_cross_entropy(tn.zeros((2, 3)), tn.tensor(np.array([0, bad])))
    with pytest.raises(tn.errors.RangeError):
        ops.one_hot(tn.tensor(np.array([0, bad])), classes=3)


def test_mean_squared_error_broadcasts_nothing():
    with pytest.raises(tn.errors.ShapeError, match="reshape"):
        ops.mse(tn.zeros((3, 1)), tn.zeros(3))
