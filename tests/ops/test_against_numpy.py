"""Random shapes, strides, values and axes, with NumPy as the oracle: arithmetic, reductions, shapes."""

import numpy as np
import pytest

hypothesis = pytest.importorskip("hypothesis", reason="hypothesis is not installed")
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from hypothesis.extra import numpy as hnp  # noqa: E402

import tinynet as tn  # noqa: E402

settings.register_profile("tinynet", max_examples=60, deadline=None, derandomize=True, database=None)
settings.load_profile("tinynet")

BINARY = {
    "add": np.add, "subtract": np.subtract, "multiply": np.multiply, "divide": np.divide, "maximum": np.maximum,
    "minimum": np.minimum, "less": np.less, "less_equal": np.less_equal, "greater": np.greater, "equal": np.equal,
    "greater_equal": np.greater_equal, "not_equal": np.not_equal,
}  # fmt: skip
UNARY = {
    "negative": np.negative, "exp": np.exp, "log": np.log, "sqrt": np.sqrt, "abs": np.abs, "tanh": np.tanh,
    "sign": np.sign, "square": np.square, "expm1": np.expm1, "log1p": np.log1p,
}  # fmt: skip
WHOLE = ("add", "subtract", "multiply", "maximum", "minimum", "less", "equal")
FLOATS = st.sampled_from(["float32", "float64"])
VALUES = {"width": 32, "allow_subnormal": False}


@st.composite
def laid_out(draw, shape, dtype, **values):
    """An array in some layout: whole, every other element, backwards, transposed, or repeated along an axis."""
    elements = st.floats(**(VALUES | values)) if np.dtype(dtype).kind == "f" else st.integers(-1000, 1000)
    layout = draw(st.sampled_from(["whole", "strided", "reversed", "transposed", "repeated"]))
    if not shape or layout == "whole":
        return draw(hnp.arrays(dtype, shape, elements=elements))
    if layout == "strided":
        return draw(hnp.arrays(dtype, (*shape[:-1], 2 * shape[-1]), elements=elements))[..., ::2]
    if layout == "reversed":
        return draw(hnp.arrays(dtype, shape, elements=elements))[::-1]
    if layout == "transposed":
        return draw(hnp.arrays(dtype, shape[::-1], elements=elements)).T
    return np.broadcast_to(draw(hnp.arrays(dtype, (1, *shape[1:]), elements=elements)), shape)


def same(result, expected, **tolerance):
    got = result.numpy()
    assert got.shape == expected.shape and got.dtype == expected.dtype
    np.testing.assert_allclose(got, expected, **tolerance)


@pytest.mark.parametrize("name", BINARY)
@given(data=st.data())
def test_binary_elementwise_broadcasts_as_numpy_does(name, data):
    dtype = data.draw(st.sampled_from(["float32", "float64", "int64"]) if name in WHOLE else FLOATS)
    shapes = data.draw(hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=4, max_side=4, min_side=0)).input_shapes
    a, b = (data.draw(laid_out(shape, dtype)) for shape in shapes)
    with np.errstate(all="ignore"):
        same(tn.ops.table()[name](a, b), BINARY[name](a, b), rtol=0)


@pytest.mark.parametrize("name", UNARY)
@given(data=st.data())
def test_unary_elementwise_equals_numpy(name, data):
    dtype = data.draw(FLOATS)
    x = data.draw(laid_out(data.draw(hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)), dtype))
    with np.errstate(all="ignore"):
        same(tn.ops.table()[name](x), UNARY[name](x), rtol=4 * np.finfo(dtype).eps)


@pytest.mark.parametrize("name", ["sum", "mean", "max", "min", "var"])
@given(data=st.data())
def test_reductions_equal_numpy_over_any_axes(name, data):
    dtype = data.draw(FLOATS)
    shape = data.draw(hnp.array_shapes(min_dims=1, max_dims=4, max_side=4))
    x = data.draw(laid_out(shape, dtype, min_value=-100, max_value=100))
    n = len(shape)
    axis = data.draw(st.none() | st.integers(-n, n - 1) | hnp.valid_tuple_axes(n, min_size=1))
    keepdims = data.draw(st.booleans())
    expected = getattr(np, name)(x.astype("float64"), axis=axis, keepdims=keepdims)
    tolerance = 2e-4 if dtype == "float32" else 1e-11  # a variance of 1e4, from sums of up to 256 numbers
    got = tn.ops.table()[name](x, axis=axis, keepdims=keepdims)
    same(got, np.asarray(expected, dtype), rtol=tolerance, atol=tolerance * 50)


@given(data=st.data())
def test_argmax_equals_numpy(data):
    shape = data.draw(hnp.array_shapes(max_dims=3, max_side=4))
    x = data.draw(laid_out(shape, "int64"))
    axis = data.draw(st.none() | st.integers(-len(shape), len(shape) - 1))
    keepdims = data.draw(st.booleans())
    same(tn.ops.argmax(x, axis=axis, keepdims=keepdims), np.asarray(np.argmax(x, axis=axis, keepdims=keepdims)))


@given(data=st.data())
def test_matmul_equals_numpy_for_vectors_matrices_and_batches(data):
    m, k, n = (data.draw(st.integers(0, 4)) for _ in range(3))
    batches = data.draw(hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=2, max_side=3)).input_shapes
    left = (k,) if data.draw(st.booleans()) else (*batches[0], m, k)
    right = (k,) if data.draw(st.booleans()) else (*batches[1], k, n)
    a, b = (data.draw(laid_out(shape, "float64", min_value=-100, max_value=100)) for shape in (left, right))
    same(tn.ops.matmul(a, b), np.asarray(np.matmul(a, b)), rtol=1e-12, atol=1e-10)


@given(data=st.data())
def test_reshape_equals_numpy_with_one_size_left_open(data):
    shape = data.draw(hnp.array_shapes(min_dims=0, max_dims=4, max_side=4))
    x = data.draw(laid_out(shape, "float32"))
    sizes, rest = [], x.size
    for factor in (2, 3, 4):
        if rest % factor == 0 and data.draw(st.booleans()):
            sizes.append(factor)
            rest //= factor
    sizes.insert(data.draw(st.integers(0, len(sizes))), data.draw(st.sampled_from([-1, rest])))
    same(tn.tensor(x).reshape(sizes), x.reshape(sizes))
    same(tn.as_tensor(x).reshape(*sizes), x.reshape(sizes))


@given(data=st.data())
def test_transpose_equals_numpy_and_shares_memory(data):
    shape = data.draw(hnp.array_shapes(min_dims=1, max_dims=4, max_side=4))
    x = np.arange(np.prod(shape), dtype="float32").reshape(shape)
    axes = data.draw(st.permutations(range(len(shape))))
    t = tn.as_tensor(x)
    same(t.transpose(axes), x.transpose(axes))
    same(t.transpose(*axes), x.transpose(axes))
    same(t.T, x.T)
    assert np.shares_memory(t.T.data, x)


@given(data=st.data())
def test_broadcast_to_and_its_adjoint_equal_numpy(data):
    shapes = data.draw(hnp.mutually_broadcastable_shapes(num_shapes=1, base_shape=(2, 3, 2), max_dims=3))
    small, full = shapes.input_shapes[0], shapes.result_shape
    x = data.draw(laid_out(small, "float64", min_value=-10, max_value=10))
    same(tn.ops.broadcast_to(x, full), np.broadcast_to(x, full))
    g = np.arange(np.prod(full), dtype="float64").reshape(full)
    gradient = tn.grad(lambda t: (tn.ops.broadcast_to(t, full) * g).sum())(tn.tensor(x))
    lead = len(full) - len(small)
    stretched = tuple(i for i in range(len(full)) if i < lead or (small[i - lead] == 1 and full[i] != 1))
    same(gradient, g.sum(axis=stretched, keepdims=True).reshape(small))


@given(data=st.data())
def test_concatenate_and_stack_equal_numpy(data):
    shape = data.draw(hnp.array_shapes(max_dims=3, max_side=3))
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    k = axis % len(shape)
    sizes = data.draw(st.lists(st.integers(0, 3), min_size=1, max_size=4))
    parts = [data.draw(laid_out((*shape[:k], n, *shape[k + 1 :]), "float32")) for n in sizes]
    same(tn.ops.concatenate(parts, axis=axis), np.concatenate(parts, axis=axis))
    alike = [data.draw(laid_out(shape, "float32")) for _ in sizes]
    at = data.draw(st.integers(-len(shape) - 1, len(shape)))
    same(tn.ops.stack(*alike, axis=at), np.stack(alike, axis=at))
