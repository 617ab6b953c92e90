"""The vector machine: every operator, every layout, reductions; in memory whose surroundings are watched."""

import importlib

import numpy as np
import pytest
from native_checks import DTYPES, laid_out, native  # noqa: F401 (a fixture)

from tinynet.kernels import Expression
from tinynet.kernels.expression import FUNCTIONS, Node, checked
from tinynet.kernels.registry import REDUCTIONS

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
    "x ** 4", "x ** -0.5", "0.5 * x * (1 + erf(x * sqrt(0.5)))", "maximum(x, 0) + log1p(exp(-abs(x)))", "x ** 0",
)  # fmt: skip
GUARD = 0xA5


@pytest.fixture
def machine(native):  # noqa: F811
    return importlib.import_module("tinynet.kernels.cpu.native.elementwise")


@pytest.fixture
def pool(machine):
    found = importlib.import_module("tinynet.kernels.cpu.native.pool")
    yield found
    found.set_threads(None)


def table(kernel, out, *inputs, **attributes):
    """The kernel's instructions in scratch of exactly its size, and a check of what is around that."""
    instructions = importlib.import_module("tinynet.kernels.cpu.native.instructions")
    nbytes = kernel.scratch_bytes(out, *inputs, **attributes)
    held = np.full(nbytes + 192, GUARD, "uint8")
    start = 64 + -held.ctypes.data % 64
    calls = kernel.bind(out, *inputs, scratch=held[start : start + nbytes], **attributes)
    assert all(function is instructions.run for function, _ in calls), "declined"

    def run():
        if calls:
            instructions.Table([arguments[0] for _, arguments in calls])()
        assert (held[:start] == GUARD).all() and (held[start + nbytes :] == GUARD).all(), "scratch was left"

    run.instructions = [arguments[0] for _, arguments in calls]
    return run


def compute(machine, text, arrays, out=None, reduce=None, **attributes):
    """The expression of x, y, z, in memory with guards around the result if there is none for it."""
    names = ("x", "y", "z")[: len(arrays)]
    kernel = machine.derive(Expression(text, names), "test", reduce)
    with np.errstate(all="ignore"):
        like = Expression(text, names).function()(np, *arrays)
    shape, dtype = np.broadcast_shapes(*(x.shape for x in arrays)), like.dtype
    if reduce:
        shape = np.empty(shape, "bool").sum(axis=attributes["axis"], keepdims=attributes["keepdims"]).shape
    held = None
    if out is None:
        count = int(np.prod(shape))
        held = np.full((count + 6) * dtype.itemsize, GUARD, "uint8")
        out = held[3 * dtype.itemsize :][: count * dtype.itemsize].view(dtype).reshape(shape)
    table(kernel, out, *arrays, **attributes)()
    if held is not None:
        edge = 3 * dtype.itemsize
        assert (held[:edge] == GUARD).all() and (held[-edge:] == GUARD).all(), "memory beside the result was written"
    return out


def numpy_result(text, arrays):
    with np.errstate(all="ignore"):
        result = Expression(text, ("x", "y", "z")[: len(arrays)]).function()(np, *arrays)
    return np.broadcast_to(result, np.broadcast_shapes(*(x.shape for x in arrays)))


def wide(arrays):
    return [x.astype("float64") if x.dtype.kind == "f" else x for x in arrays]


def assert_close(found, expected, factor=4.0):
    """Within some units in the last place of the element type; infinities and NaN in the same places."""
    with np.errstate(all="ignore"):
        expected = np.asarray(expected).astype(found.dtype)
    eps = np.finfo(found.dtype).eps
    np.testing.assert_allclose(found, expected, rtol=factor * eps, atol=factor * eps)


def special_pairs(dtype):
    values = [0.0, -0.0, 1.0, -1.0, 0.5, 3.0, -2.5, 30.0, -30.0, np.inf, -np.inf, np.nan, np.finfo(dtype).tiny / 4]
    x, y = np.meshgrid(values, values)
    return x.ravel().astype(dtype), y.ravel().astype(dtype)


def normal(shape, dtype, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


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


@pytest.mark.parametrize("dtype", DTYPES)
def test_attributes_are_numbers_of_the_call(machine, dtype):
    expression = Expression("minimum(maximum(x, low), high) * (high - low)", ("x",), ("low", "high"))
    x, out = normal((1000,), dtype), np.empty(1000, dtype)
    for low, high in ((-1, 0.5), (0.0, 2)):
        table(machine.derive(expression, "clip"), out, x, low=low, high=high)()
        np.testing.assert_array_equal(out, np.clip(x, dtype_of(dtype)(low), high) * dtype_of(dtype)(high - low))


def dtype_of(dtype):
    return np.dtype(dtype).type


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


# ---- past the caches ----


@pytest.fixture
def streaming(machine, monkeypatch):
    """The module, on a machine whose caches hold nothing."""
    if not machine.machine.streams():
        pytest.skip("this processor has no vectors that are written past its caches")
    monkeypatch.setattr(machine.machine, "last_level_cache", lambda: 0)
    return machine


def streamed(kernel, out, *inputs) -> list[int]:
    """For each instruction whether it writes past the caches."""
    words = importlib.import_module("tinynet.kernels.cpu.native.elementwise_words")
    run = table(kernel, out, *inputs)
    run()
    return [each.words[words.STREAM] for each in run.instructions]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [1, 5, 17, 511, 512, 513, 1024, 5003])
def test_streams_to_any_address(streaming, pool, monkeypatch, n, dtype):
    x, y = normal((n,), dtype, 1), normal((n,), dtype, 2)
    kernel = streaming.derive(Expression("x * y - x", ("x", "y")), "test")
    assembly = importlib.import_module("tinynet.kernels.cpu.native.elementwise_assembly")
    monkeypatch.setattr(assembly, "useful_threads", lambda cost: pool.threads())
    monkeypatch.setattr(importlib.import_module("tinynet.kernels.cpu.native.instructions"), "WORTH_WAKING", -1)
    for threads in (1, 2, 3):
        pool.set_threads(threads)
        for offset in range(0, 17, 1 if n < 1000 else 4):
            held = np.full(n + 40, np.nan, dtype)
            start = -held.ctypes.data % 64 // held.itemsize + offset
            out = held[start : start + n]
            assert streamed(kernel, out, x, y) == [1]
            np.testing.assert_array_equal(out, x * y - x)
            out[...] = np.nan
            assert np.isnan(held).all(), "memory beside the result was written"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(3, 1501), (3, 1600), (70, 33), (5, 3, 700)])
def test_streams_rows(streaming, monkeypatch, shape, dtype):
    x, row, column = normal(shape, dtype, 1), normal(shape[-1:], dtype, 2), normal((*shape[:-1], 1), dtype, 3)
    for text in ("x * y - x", "x + 1 / y", "exp(y) * x"):
        for y in (x[::-1], row, column):
            kernel = streaming.derive(Expression(text, ("x", "y")), "test")
            found, expected = np.empty((2, *shape), dtype)
            assert streamed(kernel, found, x, y) == [1]
            with monkeypatch.context() as usual:
                usual.setattr(streaming.machine, "last_level_cache", lambda: 2**40)
                assert streamed(kernel, expected, x, y) == [0]
            np.testing.assert_array_equal(found, expected)


def test_what_is_read_again_is_not_streamed(streaming, monkeypatch):
    x, y = normal((3000,), "float32", 1), normal((3000,), "float32", 2)
    kernel = streaming.derive(Expression("x + y", ("x", "y")), "test")
    assert streamed(kernel, x, x, y) == [0]
    assert streamed(kernel, np.empty_like(x), x, y) == [1]
    monkeypatch.setattr(streaming.machine, "last_level_cache", lambda: 3 * x.nbytes)
    assert streamed(kernel, np.empty_like(x), x, y) == [0]


# ---- reductions ----


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduce", REDUCTIONS)
@pytest.mark.parametrize(
    "shape",
    [(1,), (7,), (1025,), (40_000,), (7, 31), (130, 17), (3, 5000), (40, 512), (5, 16_500), (5000, 10), (3, 4, 5)],
)
def test_reductions_over_all_over_rows_and_over_columns(machine, shape, reduce, dtype):
    x = normal(shape, dtype, 1)
    y = normal(shape[-1:], dtype, 2)
    for axis in {tuple(range(len(shape))), tuple(range(len(shape) - 1)) or (0,), (len(shape) - 1,), (0,)}:
        for text in ("x", "x * y + x", "where(x > y, x, 0)"):
            arrays = [x, y] if "y" in text else [x]
            expected = getattr(np, reduce)(numpy_result(text, wide(arrays)), axis=axis)
            count = np.prod([shape[i] for i in axis])
            for keepdims in (False, True):
                found = compute(machine, text, arrays, reduce=reduce, axis=axis, keepdims=keepdims)
                scale = 8 * (count**0.5 if reduce == "sum" else 1)
                assert_close(found.reshape(expected.shape), expected, scale)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", ["rows", "columns", "every other", "backwards"])
def test_reductions_of_what_lies_apart(machine, layout, dtype):
    for shape in ((40, 33), (300, 20), (9, 600)):
        x, y = laid_out(normal(shape, dtype, 1), layout), normal((shape[0], 1), dtype, 2)
        for axis in ((0, 1), (0,), (1,)):
            expected = (x.astype("float64") - y).sum(axis)
            assert_close(compute(machine, "x - y", [x, y], reduce="sum", axis=axis, keepdims=False), expected, 200)
            expected = x.max(axis)
            np.testing.assert_array_equal(compute(machine, "x", [x], reduce="max", axis=axis, keepdims=False), expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_not_a_number_comes_through_every_reduction(machine, dtype):
    for at in (0, 3, 17, 1029):
        x = normal((3, 1030), dtype)
        x[1, at] = np.nan
        for reduce in REDUCTIONS:
            for axis in ((0, 1), (1,), (0,)):
                found = compute(machine, "x", [x], reduce=reduce, axis=axis, keepdims=False)
                expected = np.isnan(getattr(np, reduce)(x, axis=axis))
                np.testing.assert_array_equal(np.isnan(found), expected)


def test_sums_of_many_are_near(machine):
    """Nearer than NumPy's over rows, which are added one after the other."""
    x = np.random.default_rng(0).uniform(0, 1, (300_000, 4)).astype("float32")
    exact = x.astype("float64").sum(0)
    found = compute(machine, "x", [x], reduce="sum", axis=(0,), keepdims=False)
    assert (abs(found - exact) / exact).max() < 1e-6
    flat = compute(machine, "x", [x], reduce="sum", axis=(0, 1), keepdims=False)
    assert abs(flat - exact.sum()) / exact.sum() < 3e-7


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_adjoint_of_broadcasting(machine, dtype):
    registry = importlib.import_module("tinynet.kernels")
    x = normal((6, 4, 35), dtype)
    for shape in ((35,), (4, 35), (4, 1), (1, 35), (), (6, 4, 35)):
        kernel, out = registry.find("sum_to", "native", dtype), np.empty(shape, dtype)
        expected = np.empty(shape, dtype)
        registry.find("sum_to", "reference")(expected, x, shape=shape)
        kernel(out, x, shape=shape)
        assert_close(out, expected, 50)


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
