"""The functional interface, and derivatives of derivatives, against closed forms."""

import numpy as np
import pytest

import tinynet as tn
from tinynet.errors import GradientError

POINTS = np.array([0.3, 0.7, 1.9])
# f, and its first three derivatives
CLOSED = {
    "exp": (tn.ops.exp, (np.exp,) * 3),
    "log": (tn.ops.log, (lambda x: 1 / x, lambda x: -1 / x**2, lambda x: 2 / x**3)),
    "sqrt": (tn.ops.sqrt, (lambda x: 0.5 * x**-0.5, lambda x: -0.25 * x**-1.5, lambda x: 0.375 * x**-2.5)),
    "cube": (lambda x: x**3, (lambda x: 3 * x**2, lambda x: 6 * x, lambda x: 6 + 0 * x)),
    "reciprocal": (lambda x: 1 / x, (lambda x: -(x**-2), lambda x: 2 * x**-3, lambda x: -6 * x**-4)),
    "tanh": (
        tn.ops.tanh,
        (
            lambda x: 1 - np.tanh(x) ** 2,
            lambda x: -2 * np.tanh(x) * (1 - np.tanh(x) ** 2),
            lambda x: (1 - np.tanh(x) ** 2) * (6 * np.tanh(x) ** 2 - 2),
        ),
    ),
    "gauss": (
        lambda x: tn.ops.exp(-(x * x)),
        (
            lambda x: -2 * x * np.exp(-x * x),
            lambda x: (4 * x * x - 2) * np.exp(-x * x),
            lambda x: (12 * x - 8 * x**3) * np.exp(-x * x),
        ),
    ),
}


def tensor(values, **more):
    return tn.tensor(np.asarray(values, dtype="float64"), **more)


def assert_close(got, expected):
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", CLOSED)
def test_three_derivatives_by_nested_grad_equal_the_closed_forms(name, backend):
    f, derivatives = CLOSED[name]
    g = lambda x: f(x).sum()
    for derivative in derivatives:
        g = (lambda inner: lambda x: tn.grad(inner)(x).sum())(g)
        assert_close(g(tensor(POINTS)), derivative(POINTS).sum())


@pytest.mark.parametrize("name", CLOSED)
def test_two_derivatives_by_create_graph_equal_the_closed_forms(name):
    f, (first, second, _) = CLOSED[name]
    x = tensor(POINTS, requires_grad=True)
    f(x).sum().backward(create_graph=True)
    g, x.grad = x.grad, None
    assert_close(g, first(POINTS))
    g.sum().backward()
    assert_close(x.grad, second(POINTS))


def test_hessian_of_a_quadratic_form_is_its_symmetric_matrix():
    rng = np.random.default_rng(0)
    a = rng.standard_normal((4, 4))
    x = tensor(rng.standard_normal(4))
    slope = tn.grad(lambda t: t @ tensor(a) @ t)
    rows = [tn.grad(lambda t, i=i: slope(t)[i])(x).numpy() for i in range(4)]
    np.testing.assert_allclose(rows, a + a.T, rtol=1e-12, atol=1e-13)


def test_mixed_derivatives_do_not_depend_on_their_order():
    f = lambda x, y: tn.ops.exp(x * y) * tn.ops.tanh(x + y)
    x, y = tensor(0.3), tensor(0.8)
    xy = tn.grad(lambda x, y: tn.grad(f, 0)(x, y), 1)(x, y)
    yx = tn.grad(lambda x, y: tn.grad(f, 1)(x, y), 0)(x, y)
    assert xy.item() == pytest.approx(yx.item(), rel=1e-12)


def test_gradient_penalty_reaches_the_weights():
    """d/dw of |d/dx tanh(w x)|^2, as in penalties on the slope of a network."""
    w = tensor(0.7, requires_grad=True)
    slope = tn.grad(lambda x: tn.ops.tanh(w * x))(tensor(0.4))
    (slope * slope).backward()
    t = np.tanh(0.28)
    expected = 2 * 0.7 * (1 - t * t) * ((1 - t * t) - 0.7 * 2 * t * (1 - t * t) * 0.4)
    assert w.grad.item() == pytest.approx(expected, rel=1e-12)


def test_inner_variable_is_not_confused_with_the_outer_one():
    """d/dx (x d/dy (x y)) = 2 x: the inner derivative is x, and depends on x."""
    assert tn.grad(lambda x: x * tn.grad(lambda y: x * y)(tensor(5.0)))(tensor(3.0)).item() == 6.0
    assert tn.grad(lambda x: x * tn.grad(lambda y: x + y)(x))(tensor(3.0)).item() == 1.0
    assert tn.grad(lambda x: tn.grad(lambda y: x * y * y)(x))(tensor(3.0)).item() == 12.0


def test_value_and_grad_gives_both_and_agrees_with_grad():
    f = lambda x: (x * x).sum()
    value, gradient = tn.value_and_grad(f)(tensor(POINTS))
    assert_close(value, (POINTS**2).sum())
    assert_close(gradient, 2 * POINTS)
    assert_close(tn.grad(f)(tensor(POINTS)), 2 * POINTS)


def test_value_carries_no_tape_unless_somebody_else_follows():
    value, gradient = tn.value_and_grad(lambda x: (x * x).sum())(tensor(POINTS))
    assert not value.requires_grad and value.node is None
    assert not gradient.requires_grad and gradient.node is None
    w = tensor(2.0, requires_grad=True)
    value, gradient = tn.value_and_grad(lambda x: w * x * x)(tensor(3.0))
    assert value.requires_grad and gradient.requires_grad
    (value + gradient).backward()
    assert w.grad.item() == 9.0 + 6.0


@pytest.mark.parametrize(
    ("argnums", "expected"), [((0, 2), (6.0, 1.0)), ((2,), (1.0,)), ((-1, 0), (1.0, 6.0)), ((), ())]
)
def test_argnums_as_a_tuple_gives_a_tuple(argnums, expected):
    f = lambda x, scale, y: x * x * scale + y
    value, gradients = tn.value_and_grad(f, argnums=argnums)(tensor(3.0), 1.0, tensor(4.0))
    assert value.item() == 13.0
    assert isinstance(gradients, tuple) and tuple(g.item() for g in gradients) == expected


def test_an_argument_that_is_not_used_has_a_gradient_of_zeros(backend):
    x, y = tensor([1.0, 2.0]), tensor([[3.0]])
    gx, gy = tn.grad(lambda x, y: x.sum(), argnums=(0, 1))(x, y)
    assert_close(gx, [1.0, 1.0])
    assert_close(gy, [[0.0]])
    assert gy.backend is backend
    assert_close(tn.grad(lambda x: tensor(1.0))(x), [0.0, 0.0])
    assert_close(tn.grad(lambda x: tn.grad(lambda y: y.sum())(x).sum())(x), [0.0, 0.0])


def test_one_tensor_as_two_arguments_has_two_gradients():
    x = tensor(3.0)
    first, second = tn.grad(lambda a, b: a * a * b, argnums=(0, 1))(x, x)
    assert (first.item(), second.item()) == (18.0, 9.0)


def test_closures_that_require_gradients_are_left_alone_by_grad():
    w = tensor(2.0, requires_grad=True)
    gradient = tn.grad(lambda x: w * x * x)(tensor(3.0))
    assert gradient.item() == 12.0 and w.grad is None


def test_arguments_stay_as_they_were():
    x = tensor(POINTS, requires_grad=True)
    y = tensor(POINTS)
    tn.grad(lambda a, b: (a * b).sum(), argnums=(0, 1))(x, y)
    assert x.grad is None and y.grad is None and not y.requires_grad


def test_keyword_arguments_pass_through():
    f = lambda x, *, power: (x**power).sum()
    assert_close(tn.grad(f)(tensor(POINTS), power=3.0), 3 * POINTS**2)


def test_grad_keeps_name_and_docstring():
    def loss(x):
        """Squares."""
        return x * x

    assert tn.grad(loss).__name__ == "loss" and tn.value_and_grad(loss).__doc__ == "Squares."


@pytest.mark.parametrize("f", [lambda x: x, lambda x: 1.0, lambda x: (x, x), lambda x: None])
def test_functions_that_give_no_scalar_tensor_are_refused(f):
    with pytest.raises(GradientError, match="scalar"):
        tn.grad(f)(tensor(POINTS))


def test_gradients_equal_those_of_torch_on_a_small_network():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    rng = np.random.default_rng(3)
    arrays = [rng.standard_normal(shape) for shape in ((5, 4), (4, 6), (6,), (6, 3))]
    labels = np.array([0, 2, 1, 1, 0])

    def ours(x, w, b, v):
        return tn.ops.softmax_cross_entropy(tn.ops.gelu(x @ w + b) @ v, labels).mean()

    theirs = [torch.tensor(array, requires_grad=True) for array in arrays]
    x, w, b, v = theirs
    logits = torch.nn.functional.gelu(x @ w + b) @ v
    torch.nn.functional.cross_entropy(logits, torch.tensor(labels)).backward()
    for got, want in zip(tn.grad(ours, argnums=(0, 1, 2, 3))(*map(tensor, arrays)), theirs):
        np.testing.assert_allclose(got.numpy(), want.grad.numpy(), rtol=1e-10, atol=1e-12)
