"""Generated kernels by names of their own, as one source: what the checks by compilers look at."""

import functools
import importlib

import numpy as np
from chain_runs import Case, launches

_launch = importlib.import_module("tinynet.kernels.cuda.launch")
SIGMOID, GELU = "x / (1 + exp(-x)) + y", "0.5 * x * (1 + erf(x * sqrt(0.5))) * y"


def _samples(dtype):
    at = lambda *shape: _aligned(shape, dtype)
    x, row, column = at(64, 256), at(256), at(64, 1)
    yield "map_line_wide", Case(SIGMOID, (x, at(64, 256)), at(64, 256))
    yield "map_rows_wide", Case(GELU, (x, row), at(64, 256))
    yield "map_axes", Case(SIGMOID, (x.T, column.T), at(256, 64))
    yield "map_power_wide", Case("tanh(x) * abs(x) ** y + where(x > y, log1p(x), expm1(y))", (x, x), at(64, 256))
    yield "map_mask_wide", Case("where(x > 0, y, 0)", (x, x), at(64, 256))
    for n, lanes in ((16, 4), (512, 32), (4096, 256)):
        yield f"rows_of_{lanes}", Case("square(x - y)", (at(8, n), at(8, n)), None, "mean", (1,))
    yield "rows_of_functions", Case(GELU, (at(8, 4096), at(4096)), None, "sum", (1,))
    yield "columns", Case("where(x > 0, y, 0)", (x, x), None, "sum", (0,))
    yield "columns_of_functions", Case(GELU, (x, row), None, "sum", (0,))
    yield "columns_of_axes", Case("x", (at(4, 8, 3, 16),), None, "max", (0, 2))


def _aligned(shape, dtype):
    nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    held = np.zeros(nbytes + 64, "uint8")
    return held[-held.ctypes.data % 64 :][:nbytes].view(dtype).reshape(shape)


@functools.cache
def source() -> str:
    parts = []
    for dtype, suffix in (("float32", "_f32"), ("float64", "_f64")):
        for name, case in _samples(dtype):
            launch = launches(case.calls()[0])[0]
            digest = launch.function.removeprefix("chain_")
            text = _launch.source(launch.file).replace(launch.function, name + suffix)
            parts.append(text.replace(digest, name + suffix))
    return "\n".join(parts)
