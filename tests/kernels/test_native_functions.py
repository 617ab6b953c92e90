"""The functions in vector code: their error against wider floats, and what they make of zeros, infinities and NaN.

Each is compiled by itself, without numba; float is compared with double, double with long double where that is wider.
"""

import ctypes
import functools
import math

import numpy as np
import pytest

llvm = pytest.importorskip("llvmlite.binding", reason="llvmlite is not installed")
pytest.importorskip("numba", reason="numba is not installed")

from llvmlite import ir  # noqa: E402

from tinynet.kernels.cpu.native import library  # noqa: E402
from tinynet.kernels.cpu.native.emit import I64, VOID, Code  # noqa: E402
from tinynet.kernels.reference import special  # noqa: E402

N = 60_000
# Units in the last place: what the module promises, for float and double.
ERRORS = {
    "exp": (0.9, 0.9), "expm1": (1.7, 2.2), "log": (0.9, 0.9), "log1p": (0.9, 0.9), "tanh": (1.7, 1.7),
    "sigmoid": (2.0, 2.0), "erf": (1.7, 1.7),
}  # fmt: skip
# name -> x -> value, at these places
INFINITE = {
    "exp": (0, math.inf), "expm1": (-1, math.inf), "log": (math.nan, math.inf), "log1p": (math.nan, math.inf),
    "tanh": (-1, 1), "sigmoid": (0, 1), "erf": (-1, 1),
}  # fmt: skip


@functools.cache
def compiled(name, size, lanes):
    """``f(x) -> array``, in vectors of ``lanes``."""
    from tinynet.kernels.cpu.native.code import functions

    module = ir.Module(name)
    target = library.target_machine()
    module.triple, module.data_layout = llvm.get_default_triple(), str(target.target_data)
    made = ir.Function(module, ir.FunctionType(VOID, [I64] * 3), name)
    builder = ir.IRBuilder(made.append_basic_block())
    code = Code(builder, size, lanes)
    count, *addresses = made.args

    def body(values):
        code.store(getattr(functions, name)(code, code.load(values[0])), values[1])
        return [code.at(each, size * lanes) for each in values]

    code.loop(count, addresses, body)
    builder.ret_void()
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(str(module)), target)
    engine.finalize_object()
    call = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 3)(engine.get_function_address(name))

    def run(x):
        assert engine is not None  # it owns the code
        count = -(-x.size // lanes)
        padded, out = np.zeros((2, count * lanes), x.dtype)
        padded[: x.size] = x
        call(count, padded.ctypes.data, out.ctypes.data)
        return out[: x.size]

    return run


def points(name, dtype):
    """Dense where the function does something, and over all magnitudes, denormal ones included."""
    rng = np.random.default_rng(0)
    single = dtype == "float32"
    ranges = {
        "exp": [(-105, 90) if single else (-750, 712), (-2, 2)],
        "expm1": [(-20, 90) if single else (-40, 712), (-2, 2)],
        "sigmoid": [(-105, 40) if single else (-746, 60), (-4, 4)], "tanh": [(-10, 10), (-1, 1), (0.6, 0.65)],
        "erf": [(-6, 6), (-1.2, 1.2), (0.9, 1.1)], "log": [(0.4, 2.5), (0.99, 1.01), (0, 1000)],
        "log1p": [(-1, 1.5), (-0.01, 0.01), (-1, 1000)],
    }[name]  # fmt: skip
    parts = [rng.uniform(low, high, N) for low, high in ranges]
    tiny = 10.0 ** rng.uniform(-44 if single else -320, 0, N)
    parts += [tiny, 1 / tiny[tiny > (1e-38 if single else 1e-307)]] if "log" in name else [tiny, -tiny]
    return np.concatenate(parts).astype(dtype)


def exact(name, x):
    wide = np.float64 if x.dtype == np.float32 else np.longdouble
    if np.finfo(wide).eps >= np.finfo(x.dtype).eps:
        pytest.skip("this machine's long double is a double")
    x = x.astype(wide)
    if name == "sigmoid":
        power = np.exp(-abs(x))
        return np.where(x < 0, power, 1) / (1 + power)
    if name != "erf":
        return getattr(np, name)(x)
    if wide is np.float64:
        return special.erf(x)
    square, total = x * x, x.copy()  # all terms have one sign
    term = x.copy()
    for k in range(1, 160):
        term = term * 2 * square / (2 * k + 1)
        total += term
    root = np.sqrt(4 * np.arctan(wide(1)))
    return np.clip(2 / root * np.exp(-square) * total, -1, 1)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ERRORS)
def test_the_error_is_as_small_as_promised(name, dtype):
    x = points(name, dtype)
    with np.errstate(all="ignore"):
        expected = exact(name, x)
        rounded = expected.astype(dtype)
    found = compiled(name, x.itemsize, 64 // x.itemsize)(x)
    inside = np.isfinite(rounded) & np.isfinite(found)
    error = np.abs(found[inside].astype(expected.dtype) - expected[inside]) / np.spacing(np.abs(rounded[inside]))
    worst = error.argmax()
    assert error[worst] <= ERRORS[name][dtype == "float64"], (x[inside][worst], error[worst])
    np.testing.assert_array_equal(found[~inside], rounded[~inside])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ERRORS)
def test_special_values(name, dtype):
    function = compiled(name, np.dtype(dtype).itemsize, 4)
    low, high, nan = function(np.array([-math.inf, math.inf, math.nan], dtype))
    np.testing.assert_array_equal([low, high], INFINITE[name])
    assert np.isnan(nan)
    at_zero = {"exp": (1, 1), "sigmoid": (0.5, 0.5), "log": (-math.inf, -math.inf)}.get(name, (-0.0, 0.0))
    found = function(np.array([-0.0, 0.0], dtype))
    np.testing.assert_array_equal(found, at_zero)
    np.testing.assert_array_equal(np.signbit(found), np.signbit(at_zero))


def test_logarithms_end_where_they_should():
    for dtype in ("float32", "float64"):
        size = np.dtype(dtype).itemsize
        np.testing.assert_array_equal(
            compiled("log1p", size, 4)(np.array([-1, -1.5, -math.inf], dtype)), [-math.inf, math.nan, math.nan]
        )
        np.testing.assert_array_equal(compiled("log", size, 4)(np.array([1, -1, -0.5], dtype)), [0, math.nan, math.nan])


@pytest.mark.parametrize("name", ERRORS)
def test_any_number_of_lanes_gives_the_same(name):
    """Where products are joined with sums; without that, close."""
    x = np.random.default_rng(1).uniform(0.1, 3, 1000).astype("float32")
    expected = compiled(name, 4, 16)(x)
    for lanes in (1, 2, 4, 8):
        np.testing.assert_allclose(compiled(name, 4, lanes)(x), expected, rtol=3e-7)


def test_exp_of_every_float_near_the_end_of_the_range():
    """Results that are denormal, that are 0, and the last ones before infinity."""
    for low, high in ((-104.5, -87.0), (88.5, 89.5)):
        bits = np.sort(np.array([low, high], "float32").view("int32"))
        x = np.arange(*bits, 7, dtype="int32").view("float32")
        with np.errstate(all="ignore"):
            expected = np.exp(x.astype("float64"))
            rounded = expected.astype("float32")
        found = compiled("exp", 4, 16)(x)
        assert np.array_equal(np.isinf(found), np.isinf(rounded))
        finite = np.isfinite(rounded)
        assert (abs(found[finite] - expected[finite]) <= 1.0 * np.spacing(rounded[finite])).all()
