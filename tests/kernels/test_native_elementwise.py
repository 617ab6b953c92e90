"""The vector machine: every operator, every layout, any number of threads; in memory whose surroundings are watched."""

import importlib

import elementwise_checks
import numpy as np
import pytest
from elementwise_checks import assert_close, compute, dtype_of, normal, numpy_result, special_pairs, table, wide
from native_checks import DTYPES, laid_out

from tinynet.kernels import Expression
from tinynet.kernels.expression import FUNCTIONS, Node, checked

machine = elementwise_checks.machine  # the fixture
native = elementwise_checks.native
pool = elementwise_checks.pool

EXACT = (
    "x + y", "x - y", "x * y", "x / y", "-x", "abs(x)", "square(x)", "sqrt(x)", "sign(x)", "maximum(x, y)",
    "minimum(x, y)", "where(x > 0, y, 0)", "where(x < y, x, y)", "where(x >= 1, 2, y)", "where(x != y, x, -1)",
    "where(logical_and(x > 0, y > 0), x * y, 0.5)", "where(logical_or(x <= 0, logical_not(y < 1)), x, 3)", "x + 1",
    "1 - x", "x - 1", "2 / x", "x / 3", "x * 0.1", "maximum(x, 0)", "minimum(0.5, x)", "x ** 2", "x ** 0.5", "x ** -1",
    "x ** 1", "(x > y) * x", "x * y + x", "x", "x * 0 + 7", "where(x == y, 0, x)", "where(x > 0, 0, y)",
)  # fmt: skip
COMPARISONS = ("x == y", "x != y", "x < y", "x <= y", "x > y", "x >= y", "x > 0", "0 < x", "1 <= x", "logical_not(x)")
CLOSE = (
    "exp(x)", "expm1(x)", "log(x)", "log1p(x)", "tanh(x)", "erf(x)", "x / (1 + exp(-x))", "x ** 3", "x ** -2",
    "1 / (1 + exp(-x))", "1 / (1 + exp(x))", "2 / (1 + exp(-x))", "1 / (2 + exp(-x))",
    "x ** 4", "x ** -0.5", "0.5 * x * (1 + erf(x * sqrt(0.5)))", "maximum(x, 0) + log1p(exp(-abs(x)))", "x ** 0",
)  # fmt: skip


# ---- operators ----


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("text", EXACT + COMPARISONS)
def test_operators_give_the_numbers_of_numpy(machine, text, dtype):
    arrays = special_pairs(dtype)[: 2 if "y" in text else 1]
    np.testing.assert_array_equal(compute(machine, text, arrays), numpy_result(text, arrays))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("text", CLOSE)
def test_functions_are_close_to_numpy_in_double_precision(machine, text, dtype):
    special, _ = special_pairs(dtype)
    if "-0.5" in text:
        special = special[special > -np.inf]  # where NumPy itself has two answers
    for x in (special, np.linspace(-5, 5, 3001).astype(dtype)):
        assert_close(compute(machine, text, [x]), numpy_result(text, wide([x])), 16 if "erf" in text else 6)


def test_the_sigmoid_is_one_operator_wherever_it_stands_and_nothing_like_it_is(machine):
    program = importlib.import_module("tinynet.kernels.cpu.native.elementwise_program")

    def operators(text):
        dtype = np.dtype("float32")
        made = program.Operators(Expression(text, ("x", "y")), [dtype] * 2, ["line"] * 2, {}, dtype, dtype)
        return [made.entries[i][0] for i in program.Registers(made).order]

    assert operators("1 / (1 + exp(-x))") == ["sigmoid"]
    assert operators("x * (1.0 / (exp(-(x + y)) + 1)) + y") == ["+", "sigmoid", "*", "+"]
    others = "1 / (1 + exp(x))", "2 / (1 + exp(-x))", "1 / (2 + exp(-x))", "1 / (1 - exp(-x))", "y / (1 + exp(-x))"
    for text in others:
        assert "sigmoid" not in operators(text), text


@pytest.mark.parametrize("dtype", DTYPES)
def test_attributes_are_numbers_of_the_call(machine, dtype):
    expression = Expression("minimum(maximum(x, low), high) * (high - low)", ("x",), ("low", "high"))
    x, out = normal((1000,), dtype), np.empty(1000, dtype)
    for low, high in ((-1, 0.5), (0.0, 2)):
        table(machine.derive(expression, "clip"), out, x, low=low, high=high)()
        np.testing.assert_array_equal(out, np.clip(x, dtype_of(dtype)(low), high) * dtype_of(dtype)(high - low))


@pytest.mark.parametrize("dtype", DTYPES)
def test_random_expressions(machine, dtype):
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

    numpy = importlib.import_module("tinynet.kernels.cpu.blocks")
    arrays = [normal((37, 91), dtype, 1), normal((91,), dtype, 2), normal((37, 1), dtype, 3)]
    arrays[0][::5, ::7] = np.nan
    made = 0
    while made < 60:
        one = checked(tree(4), ("x", "y", "z"))
        if {node.args[0] for node in one.walk() if node.op == "name"} != {"x", "y", "z"}:
            continue
        made += 1
        expression = Expression(one, ("x", "y", "z"))
        found, expected = np.empty((2, 37, 91), dtype)
        table(machine.derive(expression, "test"), found, *arrays)()
        # Errors of functions grow in what follows them, and a comparison may go the other way: nearly all are near.
        with np.errstate(all="ignore"):
            numpy.derive(expression, "test")(expected, *arrays)
            near = abs(found - expected) <= 2000 * np.finfo(dtype).eps * (1 + abs(expected))
        near |= (found == expected) | (np.isnan(found) & np.isnan(expected))
        assert near.mean() > 0.98, expression.text


# ---- shapes and layouts ----


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [0, 1, 2, 7, 15, 16, 17, 251, 511, 512, 513, 1023, 1024, 1025, 4099])
def test_lines_of_any_length(machine, n, dtype):
    x, y = normal((n,), dtype, 1), normal((n,), dtype, 2)
    np.testing.assert_array_equal(compute(machine, "x * y - x", [x, y]), x * y - x)
    np.testing.assert_array_equal(compute(machine, "x < y", [x, y]), x < y)
    np.testing.assert_array_equal(compute(machine, "where(y, x, -1)", [x, y > 0]), np.where(y > 0, x, -1))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "shape", [(1, 1), (3, 5), (130, 17), (1, 40), (40, 1), (5, 1030), (33, 255), (33, 256), (70, 70)]
)
def test_broadcasting(machine, shape, dtype):
    x, rows, columns = normal(shape, dtype, 1), normal(shape[1:], dtype, 2), normal((shape[0], 1), dtype, 3)
    for y in (rows, columns, normal((), dtype, 4), rows[:1], np.broadcast_to(columns, shape)):
        for text in ("x * y + x", "(x - y) / y", "where(y > x, y, x * 2)", "y - y * x"):
            np.testing.assert_array_equal(compute(machine, text, [x, y]), numpy_result(text, [x, y]), text)
            np.testing.assert_array_equal(compute(machine, text, [y, x]), numpy_result(text, [y, x]), text)
        mask = np.ascontiguousarray(y) > 0
        np.testing.assert_array_equal(
            compute(machine, "where(y, x, 0.5)", [x, mask]), np.where(mask, x, dtype_of(dtype)(0.5))
        )
    outer = compute(machine, "x * y", [rows, columns])
    np.testing.assert_array_equal(outer, rows * columns)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(3, 5), (40, 33), (9, 600), (300, 300)])
@pytest.mark.parametrize("layout", ["rows", "columns", "every other", "backwards"])
def test_operands_and_results_that_lie_apart(machine, layout, shape, dtype):
    x, y = laid_out(normal(shape, dtype, 1), layout), normal(shape, dtype, 2)
    x.flags.writeable = False
    expected = np.asarray(x) * y + y
    np.testing.assert_array_equal(compute(machine, "x * y + y", [x, y]), expected)
    for given in ([x, y], [x, laid_out(y, layout)], [x, laid_out(y, "columns")]):
        out = laid_out(np.zeros(shape, dtype), layout)
        held = out.base if out.base.base is None else out.base.base
        compute(machine, "x * y + y", given, out)
        np.testing.assert_array_equal(out, expected)
        out[...] = np.nan
        assert np.isnan(held).all(), "memory beside the result was written"
    mask, into = laid_out(y > 0, layout), laid_out(np.zeros(shape, bool), layout)
    np.testing.assert_array_equal(compute(machine, "where(y, x, 0)", [x, mask]), np.where(y > 0, x, 0))
    np.testing.assert_array_equal(compute(machine, "logical_and(y, x > 0)", [x, mask], into), (y > 0) & (x > 0))


@pytest.mark.parametrize("dtype", DTYPES)
def test_axes_that_do_not_merge(machine, dtype):
    x = normal((4, 3, 5, 6), dtype, 1).transpose(2, 0, 3, 1)
    y = normal((5, 1, 6, 1), dtype, 2)
    np.testing.assert_array_equal(compute(machine, "x * y - x", [x, y]), x * y - x)
    out = normal((6, 5, 3, 4), dtype).transpose(1, 3, 0, 2)
    np.testing.assert_array_equal(compute(machine, "x * y - x", [x, y], out), x * y - x)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(7,), (5000,), (40, 33)])
def test_a_result_may_be_written_over_an_operand(machine, shape, dtype):
    for text in ("x * y + exp(x)", "where(x > 0, y, x)", "y - x"):
        x, y = normal(shape, dtype, 1), normal(shape[-1:], dtype, 2)
        expected = compute(machine, text, [x.copy(), y])
        np.testing.assert_array_equal(compute(machine, text, [x, y], out=x), expected)


def test_a_counter_of_steps_stays_in_compiled_code(machine):
    step = np.array(41)
    np.testing.assert_array_equal(compute(machine, "x + 1", [step], out=step), 42)
    x, y = np.arange(-20, 20).reshape(8, 5), np.arange(5)
    for text in (
        "x * y - x",
        "maximum(x, y) + abs(x)",
        "where(x > y, x, -1)",
        "x >= 3",
        "x == y",
        "square(x) * sign(x)",
    ):
        np.testing.assert_array_equal(compute(machine, text, [x, y]), numpy_result(text, [x, y]))


@pytest.mark.parametrize(
    ("text", "dtypes"),
    [
        ("x + y", ("float32", "float64")), ("x * y", ("int64", "float64")), ("x / 2", ("int64",)),
        ("x ** y", ("float32",) * 2), ("x ** 1.7", ("float32",)), ("x + y", ("bool", "bool")), ("x * 2", ("float16",)),
    ],
)  # fmt: skip
def test_what_the_machine_lacks_is_left_to_numpy(machine, text, dtypes):
    arrays = [np.arange(1, 7).astype(dtype) for dtype in dtypes]
    expected = numpy_result(text, arrays)
    out = np.empty(expected.shape, expected.dtype)
    kernel = machine.derive(Expression(text, ("x", "y")[: len(arrays)]), "test")
    with pytest.raises(AssertionError, match="declined"):
        table(kernel, out, *arrays)
    kernel(out, *arrays)
    np.testing.assert_array_equal(out, expected)


# ---- threads ----


def test_results_do_not_depend_on_the_number_of_threads(machine, pool, monkeypatch):
    assembly = importlib.import_module("tinynet.kernels.cpu.native.elementwise_assembly")
    instructions = importlib.import_module("tinynet.kernels.cpu.native.instructions")
    monkeypatch.setattr(assembly, "useful_threads", lambda cost: pool.threads())
    monkeypatch.setattr(instructions, "WORTH_WAKING", -1)
    for shape in ((5000,), (130, 170), (40_000, 3), (300, 4000)):
        x, y = normal(shape, "float32", 1), normal(shape[-1:], "float32", 2)
        results = []
        for count in (1, 2, 3):
            pool.set_threads(count)
            one = [compute(machine, "x * y + exp(x)", [x, y])]
            for axis in ((0,), (len(shape) - 1,), tuple(range(len(shape)))):
                one += [compute(machine, text, [x, y][:n], reduce="sum", axis=axis, keepdims=False)
                        for n, text in ((1, "x"), (2, "x * y"))]  # fmt: skip
            results.append(np.concatenate([each.ravel() for each in one]))
            run = table(machine.derive(Expression("x * x"), "test"), np.empty_like(x), x)
            assert run.instructions[0].threads == count
        for other in results[1:]:
            np.testing.assert_array_equal(other.view("int32"), results[0].view("int32"))
