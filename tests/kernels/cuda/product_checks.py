"""What tests of products on a GPU share: operands in every layout, the steps of the ladder, and what is right."""

import importlib
import itertools

import numpy as np

from tinynet import kernels

products = importlib.import_module("tinynet.kernels.cuda.products")
matrices = importlib.import_module("tinynet.kernels.cuda.matrices")

DTYPES = ("float32", "float64")
STEPS = [(step, dtype, "float32") for step in ("naive", "shared", "registers", "vectors") for dtype in DTYPES]
STEPS += [("tensor", "float32", exactness) for exactness in ("tf32", "bf16", "of_bf16")]
IDS = [f"{step}-{dtype if exact == 'float32' else exact}" for step, dtype, exact in STEPS]
LAYOUTS = list(itertools.product((False, True), repeat=3))  # A turned, B turned, aligned


def placed(x, turned=False, aligned=False):
    """A copy whose rows lie apart; turned: a view of such a transpose. Aligned: rows begin at multiples of 16 bytes."""
    if turned:
        return np.swapaxes(placed(np.swapaxes(x, -1, -2), False, aligned), -1, -2)
    size, columns = x.itemsize, x.shape[-1]
    row = columns * size + (-columns * size % 16 + 16 if aligned else 3 * size)
    count = int(np.prod(x.shape[:-1]))
    held = np.zeros(count * row + 128, "uint8")
    start = -held.ctypes.data % 64 + (0 if aligned else size)
    strides = [size, row]
    for n in x.shape[:0:-1][1:]:
        strides.append(strides[-1] * n)
    found = np.ndarray(x.shape, x.dtype, held, start, strides[: x.ndim][::-1])
    found[...] = x
    return found


def integers(shape, dtype="float32", seed=0):
    return np.random.default_rng(seed).integers(-3, 4, shape).astype(dtype)


def operands(m, n, k, dtype="float32", a_turned=False, b_turned=False, aligned=False):
    a, b = placed(integers((m, k), dtype, 1), a_turned, aligned), placed(integers((k, n), dtype, 2), b_turned, aligned)
    for each in (a, b):
        each.flags.writeable = False
    return placed(np.full((m, n), 77, dtype), False, aligned), a, b


def in_bf16(x):
    """The same numbers in bf16, lying as they do."""
    bits = np.zeros(x.shape, "uint16")
    kernels.find("to_bf16", "reference")(bits, np.ascontiguousarray(x))
    turned = x.strides[-1] != x.itemsize
    apart = x.strides[-1 if turned else -2]
    if x.itemsize in x.strides[-2:] and x.ctypes.data % 16 == 0 and apart % 16 == 0:
        return placed(bits, turned, True)
    steps = [step // 2 for step in x.strides]
    ends = [step * max(n - 1, 0) for step, n in zip(steps, x.shape)]
    low, high = (sum(pick(0, end) for end in ends) for pick in (min, max))
    found = np.ndarray(x.shape, "uint16", np.zeros(high - low + 2, "uint8"), -low, steps)
    found[...] = bits
    return found


def exact(a, b):
    return a.astype("float64") @ b.astype("float64")


def launches(step, exactness, out, a, b, bias=None, activation=None, mask=None, scratch=None):
    if exactness == "of_bf16":
        a, b, exactness = in_bf16(a), in_bf16(b), "bf16"
    (product,) = matrices.products(out, a, b, bias, activation, mask)
    return products.launches(product, step, exactness, scratch)


def scratch_for(m, n, k, batch=1, dtype="float32"):
    nbytes = products.scratch_bytes(m, n, k, batch, dtype)
    held = np.full(nbytes + 64, 255, "uint8")
    start = -held.ctypes.data % 64
    return held[start : start + nbytes]


def finished(product, bias=None, activation=None, mask=None):
    y = product if bias is None else product + bias
    with np.errstate(all="ignore"):
        y = {None: lambda y: y, "relu": lambda y: np.maximum(y, 0), "tanh": np.tanh,
             "sigmoid": lambda y: 1 / (1 + np.exp(-y))}[activation](y)  # fmt: skip
    return y if mask is None else np.where(mask > 0, y, 0)
