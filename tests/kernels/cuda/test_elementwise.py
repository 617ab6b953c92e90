"""Elementwise kernels for CUDA, written from expressions and run on a processor: operators, types, shapes, layouts."""

import importlib
import itertools

import numpy as np
import pytest
from chain_runs import Case, assert_close, build, launches, normal
from native_checks import DTYPES, laid_out
from native_runs import assert_close as near
from native_runs import cases, reference
from runs import run

import tinynet as tn
from tinynet import kernels
from tinynet.kernels import Expression
from tinynet.kernels.expression import FUNCTIONS, Node, checked, text_of

EXACT = (
    "x + y", "x - y", "x * y", "x / y", "-x", "abs(x)", "square(x)", "sqrt(x)", "sign(x)", "maximum(x, y)",
    "minimum(x, y)", "where(x < y, x, y)", "where(x >= 1, 2, y)", "where(x != y, x, -1)",
    "where(logical_and(x > 0, y > 0), x * y, 0.5)", "where(logical_or(x <= 0, logical_not(y < 1)), x, 3)",
    "1 - x", "x * 0.1", "maximum(x, 0)", "minimum(0.5, x)", "x ** 2", "x ** 0.5", "x ** -1", "x ** 1", "x ** 0",
    "(x > y) * x", "x", "x * 0 + 7", "where(x == y, 0, x)", "x + 1e40", "where(x > 0, 1e999 - 1e999, -1e999)",
)  # fmt: skip
COMPARISONS = (
    "x == y", "x < y", "x <= y", "x > y", "x >= 0", "logical_not(x)", "logical_and(x, y)", "(x < y) == (y > 0)",
)  # fmt: skip
CLOSE = (
    "exp(x)", "expm1(x)", "log(x)", "log1p(x)", "tanh(x)", "erf(x)", "x / (1 + exp(-x))", "x ** 3", "x ** -2", "x ** 4",
    "x ** -0.5", "x ** 1.7", "0.5 * x * (1 + erf(x * sqrt(0.5)))", "maximum(x, 0) + log1p(exp(-abs(x)))",
)  # fmt: skip
INTEGERS = (
    "x * y - x", "maximum(x, y) + abs(x)", "where(x > y, x, -1)", "x >= 3", "x == y", "square(x) * sign(x)", "x / y",
    "minimum(-x, y) * 2", "x + 0.5", "where(x, y, 1.5)", "sqrt(abs(x))",
)  # fmt: skip
SIZES = (0, 1, 2, 7, 15, 16, 17, 251, 1023, 1024, 1025, 4099)
SHAPES = ((1, 1), (3, 5), (130, 17), (1, 40), (40, 1), (5, 1032), (33, 256))
LAYOUTS = ("rows", "columns", "every other", "backwards")

pytestmark = pytest.mark.usefixtures("built")


@pytest.fixture(scope="module")
def built(harness):
    groups = operators, functions, types, attributes, expressions, lines, shapes, apart, over_operands
    build(*groups, operations=operations)


def special_pairs(dtype):
    values = [0.0, -0.0, 1.0, -1.0, 0.5, 3.0, -2.5, 30.0, -30.0, np.inf, -np.inf, np.nan, np.finfo(dtype).tiny / 4]
    x, y = np.meshgrid(values, values)
    return x.ravel().astype(dtype), y.ravel().astype(dtype)


# ---- operators ----


def operators():
    for dtype in DTYPES:
        for text in EXACT + COMPARISONS:
            yield Case(text, special_pairs(dtype)[: 2 if "y" in text else 1])


def test_operators_give_the_numbers_of_numpy():
    for case in operators():
        np.testing.assert_array_equal(case.run(), case.expected(), case.text)


def functions():
    for dtype in DTYPES:
        for text in CLOSE:
            special, _ = special_pairs(dtype)
            if "0.5" in text:
                special = special[special > -np.inf]  # where NumPy itself has two answers
            yield Case(text, (np.concatenate([special, np.linspace(-5, 5, 501).astype(dtype)]),))


def test_functions_are_close_to_numpy_in_double_precision():
    for case in functions():
        assert_close(case.run(), case.in_double(), 8, case.text)


def types():
    x, y = np.arange(-20, 20).reshape(8, 5), np.arange(1, 6)
    for dtype in ("int64", "int32", "int8", "uint8"):
        for text in INTEGERS if dtype == "int64" else INTEGERS[:6]:
            if dtype == "uint8" and "-" in text:
                continue
            given = x.astype(dtype), y.astype(dtype)
            yield Case(text, given[: 2 if "y" in text else 1])
    a, b = np.array([True, True, False, False] * 9), np.array([True, False, True, False] * 9)
    logic = ("logical_and(x, y)", "logical_or(x, y)", "logical_not(x)", "x == y", "x + y", "x * y", "maximum(x, y)")
    for text in logic:
        yield Case(text, (a, b)[: 2 if "y" in text else 1])
    mixed = normal(36, "float32")
    for text, given in (
        ("x + y", (mixed, mixed.astype("float64"))), ("x * y", (np.arange(36), mixed.astype("float64"))),
        ("where(x, y, 0)", (a, mixed)), ("where(x, y, z)", (a, mixed, mixed.astype("float64"))), ("x * y", (a, mixed)),
        ("x * y", (np.arange(36, dtype="int32"), mixed)), ("x + y", (a, np.arange(36))), ("exp(x)", (np.arange(36),)),
    ):  # fmt: skip
        yield Case(text, given)
    yield Case("abs(x - 1)", (np.array([-(2**63), 2**63 - 1, 0]),))
    yield Case("x + 1", (np.array(41),))


def test_types_are_those_of_numpy():
    for case in types():
        found, expected = case.run(), case.expected()
        assert found.dtype == expected.dtype
        with np.errstate(all="ignore"):
            np.testing.assert_allclose(found, expected, rtol=1e-15 if "exp" in case.text else 0, err_msg=case.text)


def attributes():
    for dtype in DTYPES:
        for low, high in ((-1, 0.5), (-0.25, 2.0), (-3, 1)):
            text = "minimum(maximum(x, low), high) * (high - low)"
            yield Case(text, (normal((100,), dtype),), attributes={"low": low, "high": high})
    for slope in (0.25, 2.0):
        yield Case("where(x > 0, x, slope * x)", (normal((5, 7), "float32"),), attributes={"slope": slope})
    for low in (-2, 3):
        yield Case("maximum(x, low)", (np.arange(-5, 5),), attributes={"low": low})


def test_attributes_are_numbers_of_the_call():
    """And no part of the source, which is the same for all of one type."""
    files = {}
    for case in attributes():
        np.testing.assert_array_equal(case.run(), case.expected())
        (launch,) = launches(case.calls()[0])
        kind = case.text, case.arrays[0].dtype.str, *map(type, case.attributes.values())
        assert files.setdefault(kind, launch.file) == launch.file


def expressions():
    rng = np.random.default_rng(7)
    unary = [name for name, count in FUNCTIONS.items() if count == 1 and name != "logical_not"] + ["neg"]

    def tree(depth):
        kind = rng.integers(6) if depth else 5
        if kind < 2:
            return Node(str(rng.choice(["+", "-", "*", "/", "maximum", "minimum"])), (tree(depth - 1), tree(depth - 1)))
        if kind == 2:
            return Node(str(rng.choice(unary)), (tree(depth - 1),))
        if kind == 3:
            compared = Node(str(rng.choice(["<", "<=", ">", "!="])), (tree(depth - 1), tree(depth - 1)))
            return Node("where", (compared, tree(depth - 1), tree(depth - 1)))
        if kind == 4:
            return Node("**", (tree(depth - 1), Node("const", (int(rng.choice([-1, 2, 3])),))))
        if rng.random() < 0.2:
            return Node("const", (float(rng.choice([0.0, 1, -2, 0.5])),))
        return Node("name", (str(rng.choice(["x", "y", "z"])),))

    made = 0
    while made < 24:
        one = checked(tree(4), ("x", "y", "z"))
        if {node.args[0] for node in one.walk() if node.op == "name"} != {"x", "y", "z"}:
            continue
        made += 1
        dtype = DTYPES[made % 2]
        arrays = normal((13, 24), dtype, 1), normal((24,), dtype, 2), normal((13, 1), dtype, 3)
        arrays[0][::5, ::7] = np.nan
        yield Case(text_of(one), arrays, np.empty((13, 24), dtype))


def test_random_expressions():
    for case in expressions():
        found, expected = case.run(), np.empty_like(case.out)
        # Errors of functions grow in what follows them, and a comparison may go the other way: nearly all are near.
        with np.errstate(all="ignore"):
            kernels.derive(Expression(case.text, ("x", "y", "z")), "numpy")(expected, *case.arrays)
            near = abs(found - expected) <= 2000 * np.finfo(found.dtype).eps * (1 + abs(expected))
        near |= (found == expected) | (np.isnan(found) & np.isnan(expected))
        assert near.mean() > 0.98, case.text


# ---- shapes and layouts ----


def lines():
    for dtype in DTYPES:
        for n in SIZES:
            for off in (0, 1):  # where 16 bytes can be loaded at once, and where not
                x, y, out = (_at(normal((n,), dtype, i), off) for i in range(3))
                yield Case("x * y - x", (x, y), out)
                yield Case("x < y", (x, y))
                yield Case("where(y, x, -1)", (x, _at(y > 0, 4 * off)), out)


def _at(x, off: int):
    """A copy that begins so many elements beyond a multiple of 64 bytes."""
    held = np.zeros(x.nbytes + 64 + off * x.itemsize, "uint8")
    start = -held.ctypes.data % 64 + off * x.itemsize
    found = held[start : start + x.nbytes].view(x.dtype).reshape(x.shape)
    found[...] = x
    return found


def test_lines_of_any_length():
    for case in lines():
        np.testing.assert_array_equal(case.run(), case.expected(), f"{case.text} {case.shape}")


def shapes():
    for dtype in DTYPES:
        for shape in SHAPES:
            x, rows, columns = normal(shape, dtype, 1), normal(shape[1:], dtype, 2), normal((shape[0], 1), dtype, 3)
            for y in (rows, columns, normal((), dtype, 4), np.broadcast_to(columns, shape)):
                yield Case("where(y > x, y, x * 2)", (x, y))
                yield Case("where(y > x, y, x * 2)", (y, x))
                yield Case("where(y, x, 0.5)", (x, np.ascontiguousarray(y) > 0))
            yield Case("x * y", (rows, columns))
        x = normal((4, 3, 5, 6), dtype, 1).transpose(2, 0, 3, 1)
        y = normal((5, 1, 6, 1), dtype, 2)
        yield Case("x * y - x", (x, y))
        yield Case("x * y - x", (x, y), normal((6, 5, 3, 4), dtype).transpose(1, 3, 0, 2))


def test_broadcasting():
    for case in shapes():
        np.testing.assert_array_equal(case.run(), case.expected(), f"{case.text} {case.shape}")


def apart():
    for dtype in DTYPES:
        for shape in ((3, 5), (40, 33), (9, 600)):
            for layout in LAYOUTS:
                x, y = laid_out(normal(shape, dtype, 1), layout), normal(shape, dtype, 2)
                x.flags.writeable = False
                for given in ((x, y), (x, laid_out(y, layout)), (x, laid_out(y, "columns"))):
                    yield Case("x * y + y", given, laid_out(np.zeros(shape, dtype), layout))
                into = laid_out(np.zeros(shape, bool), layout)
                yield Case("logical_and(y, x > 0)", (x, laid_out(y > 0, layout)), into)


def test_operands_and_results_that_lie_apart():
    for case in apart():
        np.testing.assert_array_equal(case.run(), case.expected(), f"{case.text} {case.shape}")


def over_operands():
    for dtype in DTYPES:
        for shape in ((7,), (1000,), (40, 32)):
            for text in ("x * y + exp(x)", "where(x > 0, y, x)"):
                x, y = normal(shape, dtype, 1), normal(shape[-1:], dtype, 2)
                yield Case(text, (x, y), x)


def test_a_result_may_be_written_over_an_operand():
    for case in over_operands():
        expected = case.expected()
        assert_close(case.run(), expected, 8)


def test_sixteen_bytes_are_loaded_at_once_where_they_may_be():
    x, y, apart = (_at(normal((12, 16), "float32"), off) for off in (0, 0, 1))
    row, column, odd = _at(x[0], 0), _at(x[:, :1], 0), np.zeros((12, 17), "float32")[:, :16]
    source = importlib.import_module("tinynet.kernels.cuda.launch").source
    for given, out, count, axes in (
        ((x, y), None, 4, 1), ((x, _at(np.float32(2), 0)), None, 4, 1), ((x, row), None, 4, 2),
        ((x, column), None, 4, 2), ((x, apart), x, 1, 1), ((x, y), odd, 1, 2), ((x, odd), x, 1, 2),
        ((x, y > 0), x, 4, 1), ((y > 0, y > 1), None, 16, 1),
        ((x.astype("float64"), y.astype("float64")), None, 2, 1), ((x[:, 0], y[:, 0]), None, 1, 1),
    ):  # fmt: skip
        (launch,) = launches(Case("x == y" if out is None else "x * y", given, out).calls()[0])
        text = source(launch.file)
        assert f" map_chain<{count}>" in text and f"y_k{axes - 1};" in text and f"y_k{axes};" not in text


def test_memory_that_overlaps_is_left_to_another_kernel():
    x = np.arange(10, dtype="float32")
    launch = importlib.import_module("tinynet.kernels.cuda.launch")
    for out, given in ((x[1:], x[:-1]), (x[:9].reshape(3, 3), x[:9].reshape(3, 3).T)):
        calls, _ = Case("x * 2", (given,), out).calls()
        assert all(function is not launch.run for function, _ in calls)


@pytest.mark.parametrize(
    ("text", "dtypes"),
    [("x ** y", ("int64",) * 2), ("x * 2", ("float16",)), ("exp(x)", ("int8",)), ("x * 1j", ())],
)
def test_what_is_not_translated_is_left_to_another_kernel(text, dtypes):
    if not dtypes:
        with pytest.raises(ValueError, match="not in the expression language"):
            Expression(text)
        return
    case = Case(text, tuple(np.arange(1, 7).astype(dtype) for dtype in dtypes))
    calls, out = case.calls()
    assert not launches(calls)
    for function, arguments in calls:
        function(*arguments)
    np.testing.assert_array_equal(out, case.expected())


def test_names_do_not_get_into_the_source():
    """An input may be called whatever Python allows."""
    expression = Expression("printf * float_é + system", ("printf", "float_é"), ("system",))
    x = np.ones(4, "float32")
    (launch,) = launches(kernels.derive(expression, "cuda").bind(x.copy(), x, x, system=2.0, scratch=None))
    source = importlib.import_module("tinynet.kernels.cuda.launch")._made[launch.file]
    assert "printf" not in source and "é" not in source and "system" not in source


# ---- what is one under another name ----

CASTS = ("float32", "float64", "int64", "int32", "bool"), ("float32", "float64", "int64", "bool")
VALUES = (np.ones((9, 21), "float32"), np.arange(21, dtype="float32")[None], np.asarray(3, "float32"))


def table():
    """Every elementwise operation's samples."""
    for name, op in tn.ops.table().items():
        for dtype, layout in (("float32", "aligned"), ("float64", "line")) if op.expression is not None else ():
            for n in (0, 7, 16):
                for sample, (arrays, attributes) in zip(op.samples(n), cases(name, (n,), dtype), strict=True):
                    given = [x > 0 if arg.kind == "bool" else x for x, arg in zip(arrays, sample.inputs)]
                    yield name, given, attributes, layout


def casts():
    for dtype in CASTS[0]:
        for given in CASTS[1]:
            x = np.array([0, 1, -2.5, 3.75, 1000, -0.0, 2**20 + 1] * 3).astype(given)
            yield "cast", [x], {"dtype": dtype}, "line"


def additions():
    for layout in ("line", "rows", "aligned"):
        for value in VALUES:
            yield "accumulate", [np.arange(189, dtype="float32").reshape(9, 21), value], {}, layout


def operations():
    return itertools.chain(table(), casts(), additions())


def test_operations_of_the_table_are_as_the_reference_computes_them():
    for name, arrays, attributes, layout in table():
        found = run(name, arrays, attributes, layout, orders=("forward",))
        near(found, reference(name, arrays, attributes), name)


def test_casts():
    for name, (x,), attributes, layout in casts():
        (found,) = run(name, [x], attributes, layout, orders=("forward",))
        np.testing.assert_array_equal(found, x.astype(attributes["dtype"]))


def test_addition_in_place():
    for name, (x, value), attributes, layout in additions():
        (found,) = run(name, [x, value], attributes, layout, orders=("forward",))
        np.testing.assert_array_equal(found, x + value)
