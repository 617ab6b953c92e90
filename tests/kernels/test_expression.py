"""The expression language: what it takes, what it refuses, what it folds, and that all its printers agree."""

import ast
import math

import numpy as np
import pytest

import tinynet as tn
from tinynet.kernels import Expression
from tinynet.kernels.expression import FUNCTIONS, Node, parse
from tinynet.kernels.reference.special import erf

REFUSED = (
    "x.shape", "x.__class__", "lambda y: y", "(lambda: x)()", "f(x)", "eval(x)", "__import__('os')", "exp.__call__(x)",
    "'text'", "b'text'", "f'{x}'", "x if x > 0 else 0", "exp(x, out=x)", "maximum(a=x, b=x)", "maximum(*x)", "exp()",
    "exp(x, x)", "maximum(x)", "where(x, x)", "0 < x < 1", "x in x", "x is x", "x and x", "not x", "~x", "+x", "x // 2",
    "x % 2", "x @ x", "x << 1", "x & x", "x[0]", "x[:]", "[x]", "(x, x)", "{x}", "{x: x}", "[y for y in x]", "y",
    "True", "None", "...", "1j", "(y := x)", "await x", "yield", "exp", "np.exp(x)",
)  # fmt: skip


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_not_arithmetic_is_refused(text):
    with pytest.raises((ValueError, SyntaxError)):
        Expression(text)


@pytest.mark.parametrize("text", ["import os", "x; x", "x = 1", "def f(): pass", "x\nx", "", "del x", "pass"])
def test_statements_are_no_expressions(text):
    with pytest.raises((ValueError, SyntaxError)):
        Expression(text)


def test_refusal_quotes_the_construct():
    with pytest.raises(ValueError, match=r"x\.shape"):
        Expression("1 + x.shape")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1 + 2", 3), ("sqrt(2 / pi)", math.sqrt(2 / math.pi)), ("-(3 - 5) * 2", 4), ("2 ** 0.5", math.sqrt(2)),
        ("exp(1) - e", 0.0), ("log(8) / log(2)", math.log(8) / math.log(2)),
    ],
)  # fmt: skip
def test_constants_are_folded_in_double_precision(text, value):
    assert parse(text, ()) == Node("const", (value,))


def test_constants_beside_names_are_folded_and_the_rest_is_kept():
    assert parse("x * (0.5 * 4)", ("x",)) == Node("*", (Node("name", ("x",)), Node("const", (2.0,))))


def test_a_name_of_an_input_goes_before_a_constant_of_that_name():
    assert parse("e", ("e",)) == Node("name", ("e",))


def test_flops_count_operators_and_functions_once():
    assert Expression("x").flops == 0
    assert Expression("x / (1 + exp(-x))").flops == 4
    assert Expression("maximum(x, 0) * (2 * 3)").flops == 2


def _draw(text, rng, dtype):
    """Numbers for which an expression is defined, in the shapes that broadcast."""
    low = 0.1 if any(word in text for word in ("log(", "log1p(", "sqrt(", "**")) else -2.0
    return [rng.uniform(low, 2.0, shape).astype(dtype) for shape in ((5, 3), (3,))]


TEXTS = (
    "a", "a + b", "a - b", "a * b", "a / b", "a ** b", "-a", "a * -b", "a == b", "a != b", "a < b", "a <= b", "a > b",
    "a >= b", "exp(a)", "expm1(a)", "log(a)", "log1p(a)", "sqrt(a)", "tanh(a)", "erf(a)", "abs(a)", "sign(a)",
    "square(a)",
    "maximum(a, b)", "minimum(a, b)", "where(a < b, a, b)", "where(logical_and(a > 0, b > 0), a, 1.5)",
    "logical_not(a > 0)", "logical_or(a > 0, b > 0)", "1 / (1 + exp(-(a * b + 0.5)))",
    "2 * erf(a * sqrt(0.5)) + b ** 2", "a * (b > 0.5)",
)  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("text", TEXTS)
def test_printers_agree_to_the_last_bit_on_numpy(text, dtype):
    """For the array API, as a reference kernel, and in ufuncs: the same operations in the same order."""
    expression = Expression(text, ("a", "b"))
    arrays = _draw(text, np.random.default_rng(0), dtype)
    expected = expression.function()(np, *arrays)
    for kernel in (expression.reference_kernel(), expression.ufunc_kernel(np)):
        out = np.empty(np.broadcast_shapes(*(a.shape for a in arrays)), expected.dtype)
        kernel(out, *arrays)
        np.testing.assert_array_equal(out, np.broadcast_to(expected, out.shape))


@pytest.mark.parametrize("text", TEXTS)
def test_expressions_run_on_what_the_array_api_has(text, strict):
    if "*" in text and ">" in text:
        pytest.skip("numbers times booleans are NumPy's own promotion")
    expression = Expression(text, ("a", "b"))
    arrays = _draw(text, np.random.default_rng(0), "float64")
    got = strict.to_host(expression.function()(strict.xp, *(strict.from_host(a) for a in arrays)))
    np.testing.assert_array_equal(got, expression.function()(np, *arrays))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_constants_do_not_widen_float32(dtype):
    x = np.linspace(-1, 1, 5, dtype=dtype)
    assert Expression("0.5 * x * (1 + tanh(sqrt(2 / pi) * x))").function()(np, x).dtype == dtype


def test_attributes_come_by_keyword():
    expression = Expression("where(x > 0, x, slope * x)", ("x",), ("slope",))
    x, out = np.array([-2.0, 3.0]), np.empty(2)
    expression.ufunc_kernel(np)(out, x, slope=0.5)
    np.testing.assert_array_equal(out, [-1.0, 3.0])
    with pytest.raises(TypeError):
        expression.function()(np, x, 0.5)


def test_every_function_of_the_language_can_be_printed_and_run():
    x = np.array([0.25, 0.5])
    for name, count in FUNCTIONS.items():
        arguments = ["x > 0.3" if name.startswith("logical") else "x"] * count
        if name == "where":
            arguments[0] = "x > 0.3"
        result = Expression(f"{name}({', '.join(arguments)})").function()(np, x)
        assert result.shape == x.shape and not np.isnan(result.astype(float)).any()


def test_expressions_of_the_table_are_sound_python():
    for op in tn.ops.table().values():
        if op.expression is not None:
            ast.parse(op.expression.text, mode="eval")
            assert set(op.expression.inputs) == set(op.inputs)
            assert all(type(node.op) is str for node in op.expression.tree.walk())


# ---- erf ----


def test_erf_is_right_to_the_last_digits_of_float64():
    seams = [0.46875, -0.46875, 4.0, -4.0, 5.9999, 0.0]  # where one approximation hands over to the next
    x = np.concatenate([np.linspace(-6.5, 6.5, 4001), 10.0 ** np.arange(-300, -1), seams])
    expected = np.array([math.erf(value) for value in x])
    assert (np.abs(erf(x) - expected) <= 4 * np.spacing(np.abs(expected))).all()


def test_erf_in_float32_is_within_four_units_in_the_last_place():
    x = np.linspace(-5, 5, 2001, dtype="float32")
    expected = np.array([math.erf(value) for value in x])
    got = erf(x)
    assert got.dtype == "float32"
    assert (np.abs(got - expected) <= 4 * np.spacing(np.abs(expected).astype("float32"))).all()


def test_erf_of_special_values():
    x = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 30.0, -1e300])
    with np.errstate(all="ignore"):
        got = erf(x)
    np.testing.assert_array_equal(got, [0.0, -0.0, 1.0, -1.0, np.nan, 1.0, -1.0])
    assert np.signbit(got[1])
