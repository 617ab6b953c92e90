"""Derived kernels: in blocks, in place, in any layout; and the reductions at their ends."""

import functools
import math

import numpy as np
import pytest
from block_checks import bits, bound

import tinynet as tn
from tinynet.kernels import Expression, derive
from tinynet.kernels.cpu import cutting
from tinynet.kernels.expression import Node, parse, substitute


@pytest.mark.parametrize("n", [1, 7, 100, 20000])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_results_may_lie_over_an_input(dtype, n):
    """Every elementwise operation, and every input that its record lets the result be written over."""
    rng = np.random.default_rng(0)
    tried = 0
    for op in tn.ops.table().values():
        if op.expression is None:
            continue
        kernel = tn.kernels.find(op.name, "numpy", dtype)
        for position, _ in op.overwrites:
            inputs = [rng.uniform(0.1, 2, n).astype(dtype) for _ in op.inputs]
            if op.name == "where":
                inputs[0] = inputs[0] > 1
            expected = np.empty(n, dtype)
            kernel(expected, *inputs, **op.attributes)
            if inputs[position].dtype != expected.dtype:
                continue
            for run in (kernel, functools.partial(bound, kernel)):
                given = [each.copy() for each in inputs]
                run(given[position], *given, **op.attributes)
                np.testing.assert_array_equal(given[position], expected, err_msg=f"{op.name} over input {position}")
                tried += 1
    assert tried > 50


CHOICES = (
    "where(c, a, b)", "where(c, a, 2.5)", "where(c, 2.5, b)", "where(a > b, a, b)", "where(c, a, 0)",
    "where(c, 0.0, a)", "where(c, -0.0, a)", "where(c, 1.0, a * b)", "where(c, 1.5, -0.0) * a",
)  # fmt: skip


@pytest.mark.parametrize("text", CHOICES)
@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64", "uint8", "bool"])
@pytest.mark.parametrize("over", [None, "a", "b", "c"])
@pytest.mark.parametrize("n", [5, 40000])
def test_a_choice_may_lie_over_any_of_its_inputs(text, dtype, over, n):
    rng = np.random.default_rng(0)
    arrays = {name: rng.integers(0, 3, n).astype(dtype) for name in "ab"} | {"c": rng.random(n) < 0.5}
    if dtype.startswith("float"):
        arrays["a"][:2], arrays["b"][1:3] = np.nan, -0.0
    elif "." in text or (dtype == "bool" and "*" in text):  # where a choice between numbers would be another type
        return
    names = tuple(name for name in "abc" if name in text.replace("where", ""))
    expression = Expression(text, names)
    expected = expression.function()(np, *(arrays[name] for name in names))
    if over is not None and (over not in names or arrays[over].dtype != expected.dtype):
        return
    kernel = derive(expression, "numpy")
    for run in (kernel, functools.partial(bound, kernel)):
        inputs = {name: arrays[name].copy() for name in names}
        out = np.empty(n, expected.dtype) if over is None else inputs[over]
        run(out, *inputs.values())
        np.testing.assert_array_equal(bits(out), bits(expected))


@pytest.mark.parametrize("shape", [(), (1,), (7,), (129,), (3, 50), (50, 3), (4, 5, 6), (2, 200), (200, 2), (3, 1, 70)])
@pytest.mark.parametrize("limit", [1, 5, 64, 100])
def test_pieces_cover_every_element_once_and_keep_to_the_limit(shape, limit):
    count = np.zeros(shape, int)
    order = np.arange(count.size).reshape(shape)
    at = 0
    for index in cutting.pieces(shape, limit):
        assert count[index].size <= limit
        count[index] += 1
        np.testing.assert_array_equal(order[index].reshape(-1), np.arange(at, at + order[index].size))
        at += order[index].size
    assert (count == 1).all()


@pytest.mark.parametrize("shape", [(0,), (3, 0), ()])
def test_nothing_and_scalars(shape):
    x = np.full(shape, 0.5)
    for text in ("x * x + 1", "where(x > 0, x, 2)", "erf(x)", "x"):
        out = np.empty(shape)
        kernel = derive(Expression(text), "numpy")
        kernel(out, x)
        bound(kernel, out, x)
        np.testing.assert_array_equal(out, Expression(text).function()(np, x))


@pytest.mark.parametrize("layout", ["transposed", "reversed", "strided", "mixed"])
def test_any_layout(layout):
    rng = np.random.default_rng(0)
    x, y = rng.random((2, 300, 200))
    out = np.empty((300, 200))
    if layout == "transposed":
        x, y, out = (np.asfortranarray(each) for each in (x, y, out))
    elif layout == "reversed":
        x, out = x[::-1, ::-1], out[:, ::-1]
    elif layout == "strided":
        x, out = np.repeat(x, 2, axis=1)[:, ::2], np.empty((300, 400))[:, ::2]
    else:
        x = np.asfortranarray(x)
    kernel = derive(Expression("x * y + exp(-x)", ("x", "y")), "numpy")
    bound(kernel, out, x, y)
    np.testing.assert_allclose(out, x * y + np.exp(-x), rtol=1e-14)


def test_attributes_are_numbers_of_the_call():
    kernel = derive(Expression("minimum(maximum(x, low), high) * (high - low)", ("x",), ("low", "high")), "numpy")
    x = np.linspace(-2, 2, 9, dtype="float32")
    for low, high in ((-1.0, 1.0), (-0.5, 0.25), (0, 1), (-math.inf, 1.0)):
        out = np.empty_like(x)
        with np.errstate(all="ignore"):
            expected = np.clip(x, low, high) * np.float32(high - low)
            kernel(out, x, low=low, high=high)
        np.testing.assert_array_equal(out, expected)
        bound(kernel, out, x, low=low, high=high)
        np.testing.assert_array_equal(out, expected)


def test_what_the_result_needs_beyond_its_memory_is_a_block_per_register():
    x = np.empty(10**6, "float32")
    kernel = derive(Expression("a * a + exp(a) * exp(-b)", ("a", "b")), "numpy")
    assert kernel.scratch_bytes(x, x, x) == 2 * cutting.BLOCK * 4
    assert kernel.scratch_bytes(x[:5], x[:5], x[:5]) == 2 * 64


def test_expressions_compose():
    inner, outer = parse("a * a + 1", ("a",)), parse("y * y", ("y",))
    for _ in range(60):  # a tree of 2**60 leaves, sixty of which are distinct
        outer = substitute(parse("y * y", ("y",)), {"y": outer})
    expression = Expression(substitute(outer, {"y": inner}), ("a",))
    assert expression.flops == 63
    out = np.empty(3)
    derive(expression, "numpy")(out, np.zeros(3))
    np.testing.assert_array_equal(out, 1.0)
    assert repr(Expression(inner, ("a",))) == "Expression('a * a + 1', inputs=('a',))"


@pytest.mark.parametrize("tree", [Node("name", ("__import__('os')",)), Node("eval", (Node("name", ("x",)),)),
                                  Node("const", ("x",)), Node("const", (True,)), Node("exp", ()),
                                  Node("+", (Node("name", ("x",)),))])  # fmt: skip
def test_a_tree_outside_the_language_is_refused(tree):
    with pytest.raises(ValueError, match="not in the expression language"):
        Expression(tree)


@pytest.mark.parametrize("name", ["x y", "lambda", "_hidden", "x=1):\n    import os\ndef f(y", ""])
def test_inputs_have_names(name):
    with pytest.raises(ValueError, match="not a name"):
        Expression(Node("name", (name,)), (name,))


# ---- reductions of chains ----


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("axis", [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2), ()])
@pytest.mark.parametrize("reduce", ["sum", "mean", "max", "min"])
@pytest.mark.parametrize("block", [10, 64, 1000, 16384])
def test_a_reduced_chain_is_the_reduction_of_the_chain(dtype, reduce, axis, keepdims, block, monkeypatch):
    monkeypatch.setattr(cutting, "BLOCK", block)
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((5, 12, 33)).astype(dtype), rng.standard_normal((12, 1)).astype(dtype)
    kernel = derive(Expression("a * b + exp(-a)", ("a", "b")), "numpy", "fused", reduce)
    full = Expression("a * b + exp(-a)", ("a", "b")).function()(np, a, b).astype("float64")
    expected = getattr(np, reduce)(full, axis=axis, keepdims=keepdims)
    out = np.empty(expected.shape, dtype)
    bound(kernel, out, a, b, axis=axis, keepdims=keepdims)
    n = math.prod(full.shape[i] for i in axis)
    bound_on_error = 2 * n * np.finfo(dtype).eps * np.sum(np.abs(full), axis=axis, keepdims=keepdims)
    if reduce == "mean":
        bound_on_error = bound_on_error / n
    assert (np.abs(out - expected) <= (bound_on_error if reduce in ("sum", "mean") else 0)).all()
    again = np.empty_like(out)
    kernel(again, a, b, axis=axis, keepdims=keepdims)
    np.testing.assert_array_equal(again, out)


@pytest.mark.parametrize("target", ["numpy", "reference"])
def test_reductions_of_what_is_not_computed_or_does_not_vary(target):
    x, y = np.arange(6.0).reshape(2, 3), np.ones((4, 1, 1))
    for text, inputs, arrays, expected in (
        ("x", ("x",), (x,), x.sum(0)), ("x", ("x", "y"), (x, y), 4 * x.sum(0)), ("x > 2", ("x",), (x,), (x > 2).sum(0)),
    ):  # fmt: skip
        axis = (0, 1) if len(arrays) > 1 else (0,)
        out = np.empty(3, expected.dtype)
        derive(Expression(text, inputs), target, reduce="sum")(out, *arrays, axis=axis, keepdims=False)
        np.testing.assert_array_equal(out, expected)


def test_reduction_of_nothing_is_zero_and_of_nan_is_nan():
    out = np.empty(3)
    derive(Expression("x * x"), "numpy", reduce="sum")(out, np.empty((0, 3)), axis=(0,), keepdims=False)
    np.testing.assert_array_equal(out, 0)
    x = np.array([1.0, np.nan, 2.0])
    for reduce in ("sum", "mean", "max", "min"):
        out = np.empty(())
        derive(Expression("x * x"), "numpy", reduce=reduce)(out, x, axis=(0,), keepdims=False)
        assert np.isnan(out)


def test_unknown_reductions_and_targets_are_refused():
    for target, reduce in (("abacus", None), ("numpy", "median")):
        with pytest.raises(ValueError, match=r"median|abacus"):
            derive(Expression("x"), target, reduce=reduce)
