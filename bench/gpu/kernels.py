"""Checks of kernels: every operation of the table, every step of the ladder of products, and cuBLAS.

Each compares with ``kernels/reference``, or NumPy, in float64, of the very numbers that the kernel got. Where kernels
run is the caller's choice: ``Gpu`` is the device; anything that has its methods will do.
"""

from __future__ import annotations

import functools
import importlib
import itertools
import zlib
from collections.abc import Callable

import numpy as np

import tinynet as tn
from tinynet import kernels
from tinynet.ops import Spec

from .checks import SUMMED, TOLERANCES, distance, error_of, require

FLOATS = ("float32", "float64")
SIZES = (0, 1, 7, 255, 256, 257, 1025)
LAYOUTS = ("contiguous", "misaligned", "strided", "transposed", "reversed")
LAID_OUT = (7, 257)  # the sizes that are tried in every layout
UNWRITTEN = {"f": -12345.0, "i": -12345, "u": 123, "b": True}
SPECIAL = (np.nan, np.inf, -np.inf)

GIVEN = "of bf16"  # in place of a precision: the operands are rounded already
# step, precision, element type; and rows, columns, depth around all tiles
STEPS = [(step, "float32", dtype) for step in ("naive", "shared", "registers", "vectors") for dtype in FLOATS]
STEPS += [("tensor", "tf32", "float32"), ("tensor", "bf16", "float32"), ("tensor", GIVEN, "float32")]
PRODUCTS = ((1, 1, 1), (2, 3, 0), (63, 65, 33), (128, 128, 64), (129, 10, 130), (20, 257, 515), (1300, 1290, 40))
LARGE = (1024, 1030, 520)  # where operands are copied, and kernels chosen by measurement
EPILOGUES = ((False, None, False), (True, "relu", False), (True, "tanh", True), (False, "sigmoid", True))
Calls = list[tuple[Callable, tuple]]
STATED = {"float32": 1e-5, "float64": 1e-13, "tf32": 1e-3, "bf16": 1e-2, GIVEN: 1e-2}  # relative errors, by the norm


class Gpu:
    """The current device, through CuPy."""

    def __init__(self):
        import cupy

        self.xp = cupy

    def host(self, x) -> np.ndarray:
        return self.xp.asnumpy(x)

    def run(self, calls: Calls) -> None:
        """Makes the calls that a kernel's ``bind`` gave, and waits."""
        for function, arguments in calls:
            function(*arguments)
        self.xp.cuda.get_current_stream().synchronize()

    def seconds(self, calls: Calls) -> float:
        """How long calls take on the device, by events: of the second time that they are made. While the device is
        busy with the first, all are put on the stream, so that none is waited for."""
        start, end = self.xp.cuda.Event(), self.xp.cuda.Event()
        for event in (start, end):
            for function, arguments in calls:
                function(*arguments)
            event.record()
        end.synchronize()
        return self.xp.cuda.get_elapsed_time(start, end) / 1e3

    def free_bytes(self) -> int:
        """What nobody has taken of the device's memory."""
        return self.xp.cuda.runtime.memGetInfo()[0]

    def copying(self, to, source) -> Calls:
        """The call that copies the bytes of one array to another, which lie in one piece each."""
        stream = self.xp.cuda.get_current_stream()
        return [(to.data.copy_from_device_async, (source.data, source.nbytes, stream))]

    def alive(self) -> None:
        """Raises where the device cannot be used any more."""
        self.xp.cuda.runtime.deviceSynchronize()


def checks(device) -> dict[str, Callable[[], dict]]:
    """All of them, by name."""
    found: dict[str, Callable[[], dict]] = {}
    for op, dtype in itertools.product(tn.ops.table().values(), FLOATS):
        if op.view is None:  # views are no kernels
            found[f"{op.name} {dtype}"] = functools.partial(operation, device, op, dtype)
    for step, precision, dtype in STEPS:
        name = dtype if precision == "float32" else precision
        found[f"product step {step} {name}"] = functools.partial(ladder, device, step, precision, dtype)
    for precision in STATED:
        found[f"product as programs get it {precision}"] = functools.partial(chosen, device, precision)
        found[f"product cuBLAS {precision}"] = functools.partial(library, device, precision)
    return found


# ---- operations ----


def operation(device, op, dtype: str) -> dict:
    """An operation on its samples: of every size, of two in every layout, of one with what is not a number."""
    worst, count = 0.0, 0
    for n in SIZES:
        tolerance = TOLERANCES[dtype] * max(1.0, n / SUMMED)
        rng = np.random.default_rng([zlib.crc32(op.name.encode()), n])
        for sample in op.samples(n):
            arrays = [filled(arg, rng, dtype) for arg in sample.inputs]
            cases = [(layout, arrays) for layout in (LAYOUTS if n in LAID_OUT else LAYOUTS[:1])]
            if n == LAID_OUT[0]:
                cases.append(("contiguous", [_poisoned(array, rng) for array in arrays]))
            for layout, given in cases:
                attributes = normal(op, given, sample.attributes)
                expected = reference(op, given, attributes)
                got = computed(device, op, given, attributes, layout)
                for mine, right in zip(got, expected, strict=True):
                    error = error_of(mine, right, tolerance)
                    shapes = " ".join(str(list(array.shape)) for array in given)
                    what = f"error {error * tolerance:.1e} of {shapes} {layout} {attributes}: expected {tolerance:.0e}"
                    require(error <= 1, what)
                    worst = max(worst, error * tolerance)
                count += 1
    require(count > 0, "no samples")
    return {"cases": count, "error": worst}


def filled(arg, rng, dtype: str) -> np.ndarray:
    """Numbers for an argument of a sample."""
    if arg.kind == "bool":
        return np.asarray(rng.integers(0, 2, arg.shape), "bool")
    if arg.kind == "int":
        return np.asarray(rng.integers(int(arg.low), int(arg.high), arg.shape), "int64")
    values = np.asarray(rng.uniform(arg.low, arg.high, arg.shape))
    if arg.kind == "rows":
        values = np.exp(values)
        values /= values.sum(axis=-1, keepdims=True)
    return values.astype(dtype)


def _poisoned(array: np.ndarray, rng) -> np.ndarray:
    """A copy with special values at random places, if it has floating elements."""
    copy = array.copy()
    if copy.dtype.kind == "f" and copy.size >= len(SPECIAL):
        copy.reshape(-1)[rng.choice(copy.size, len(SPECIAL), replace=False)] = SPECIAL
    return copy


def normal(op, arrays, attributes) -> dict:
    """All attributes, as kernels see them."""
    complete = op.attributes | dict(attributes)
    return op.normalize(*_specs(arrays), **complete) if op.normalize else complete


def _specs(arrays) -> list[Spec]:
    return [Spec(tuple(array.shape), array.dtype) for array in arrays]


def _outputs(op, arrays, attributes) -> tuple[Spec, ...]:
    found = op.rule(*_specs(arrays), **attributes)
    return (found,) if isinstance(found, Spec) else tuple(found)


def reference(op, arrays, attributes) -> list[np.ndarray]:
    """The outputs of the reference kernel; what is floating goes in as float64."""
    wide = [array.astype("float64") if array.dtype.kind == "f" else array.copy() for array in arrays]
    specs = _outputs(op, wide, attributes)
    out = [np.full(spec.shape, UNWRITTEN[spec.dtype.kind], spec.dtype) for spec in specs]
    for output, i in op.updates.items():
        out[output] = wide[i]
    with np.errstate(all="ignore"):
        kernels.find(op.name, "reference")(out[0] if len(out) == 1 else tuple(out), *wide, **attributes)
    return out


def computed(device, op, arrays, attributes, layout: str = "contiguous") -> list[np.ndarray]:
    """The outputs of the kernel for CUDA, on inputs in a layout, with the scratch that it asks for."""
    xp, specs = device.xp, _outputs(op, arrays, attributes)
    inputs = [laid_out(xp, array, layout) for array in arrays]
    out = [xp.full(spec.shape, UNWRITTEN[spec.dtype.kind], spec.dtype) for spec in specs]
    for output, i in op.updates.items():
        out[output] = inputs[i]
    results = out[0] if len(out) == 1 else tuple(out)
    kernel = kernels.find(op.name, "cuda", str(specs[0].dtype))
    nbytes = kernel.scratch_bytes(results, *inputs, **attributes)
    scratch = xp.full(nbytes, 255, "uint8") if nbytes else None
    with np.errstate(all="ignore"):
        device.run(kernel.bind(results, *inputs, scratch=scratch, **attributes))
    return [device.host(each) for each in out]


def laid_out(xp, array: np.ndarray, layout: str):
    """A copy on the device, in a layout."""
    if layout == "contiguous" or not array.ndim:
        return xp.array(array)
    if layout == "misaligned":  # by one element
        held = xp.empty(array.size + 1, array.dtype)
        held[1:] = xp.array(array.reshape(-1))
        return held[1:].reshape(array.shape)
    if layout == "strided":
        return xp.array(np.repeat(array, 2, axis=-1))[..., ::2]
    if layout == "transposed":
        return xp.array(np.ascontiguousarray(array.T)).T
    return xp.array(np.ascontiguousarray(array[..., ::-1]))[..., ::-1]


# ---- products ----


def _module(name: str):
    """Of the kernels for CUDA."""
    return importlib.import_module(f"tinynet.kernels.cuda.{name}")


def _operands(device, m: int, n: int, k: int, dtype: str, turned: tuple[bool, bool], seed: int, precision: str):
    """C unwritten, A and B normal, each turned one the transpose of what lies in memory; and A, B on the host.

    Elements of the product are of size 1, where no activation is flat.
    """
    xp = device.xp
    rng = np.random.default_rng([seed, m, n, k])
    hosts = [rng.standard_normal((m, k)) / max(k, 1) ** 0.5, rng.standard_normal((k, n))]
    hosts = [each.astype(dtype) for each in hosts]
    operands = [laid_out(xp, x, "transposed" if flag else "contiguous") for x, flag in zip(hosts, turned)]
    if precision == GIVEN:
        rounding, operands = in_bf16(xp, *operands)
        device.run(rounding)
    return xp.full((m, n), UNWRITTEN["f"], dtype), *operands, hosts


def product_of(xp, name: str, out, a, b) -> Calls:
    """The calls of the kernel that the registry gives for a product."""
    kernel = kernels.find(name, "cuda", str(out.dtype))
    nbytes = kernel.scratch_bytes(out, a, b)
    return kernel.bind(out, a, b, scratch=xp.full(nbytes, 255, "uint8") if nbytes else None)


def in_bf16(xp, *operands) -> tuple[Calls, list]:
    """Calls that round matrices, and what they make, which lies as those do."""
    calls, made = [], []
    for x in operands:
        turned = x.strides[-1] != x.itemsize and x.strides[0] == x.itemsize
        source = x.T if turned else x
        kept = xp.empty(source.shape, "uint16")
        calls += kernels.find("to_bf16", "cuda", "uint16").bind(kept, source)
        made.append(kept.T if turned else kept)
    return calls, made


def _finished(product, bias, activation, mask):
    """What an epilogue makes of a product, in float64."""
    product = product if bias is None else product + bias.astype("float64")
    functions = {
        "relu": lambda x: np.maximum(x, 0), "tanh": np.tanh, "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
        None: lambda x: x,
    }  # fmt: skip
    product = functions[activation](product)
    return product if mask is None else np.where(mask > 0, product, 0)


def ladder(device, step: str, precision: str, dtype: str) -> dict:
    """One step of the ladder: every size, all four transpositions, every epilogue, the depth in slices or not."""
    products, worst, count, xp = _module("products"), 0.0, 0, device.xp
    stated = STATED[precision if dtype == "float32" else dtype]
    for seed, ((m, n, k), turned) in enumerate(itertools.product(PRODUCTS, itertools.product((False, True), repeat=2))):
        out, a, b, hosts = _operands(device, m, n, k, dtype, turned, seed, precision)
        exact = hosts[0].astype("float64") @ hosts[1].astype("float64")
        rng = np.random.default_rng(seed)
        for has_bias, activation, has_mask in EPILOGUES:
            bias = rng.standard_normal(n).astype(dtype) if has_bias else None
            mask = rng.standard_normal((m, n)).astype(dtype) if has_mask else None
            given = [None if each is None else xp.array(each) for each in (bias, mask)]
            for is_sliced in (False, True):
                nbytes = products.scratch_bytes(m, n, k, 1, dtype, step) if is_sliced else 0
                if is_sliced and not nbytes:
                    continue
                out[...] = UNWRITTEN["f"]
                scratch = xp.full(nbytes, 255, "uint8") if nbytes else None
                (product,) = _module("matrices").products(out, a, b, given[0], activation, given[1])
                launches = products.launches(product, step, "bf16" if precision == GIVEN else precision, scratch)
                device.run([(_module("launch").run, (each,)) for each in launches])
                error = distance(device.host(out), _finished(exact, bias, activation, mask))
                what = f"{m} x {k} x {n}, transposed {turned}, bias {has_bias}, {activation}, mask {has_mask}"
                require(error <= stated, f"error {error:.1e} of {what}: expected {stated:.0e}")
                worst, count = max(worst, error), count + 1
    return {"cases": count, "error": worst}


def chosen(device, precision: str) -> dict:
    """The kernel that the registry gives for a product: own or cuBLAS, as was measured, copies of operands too."""
    name, worst = kernels.of_bf16("matmul") if precision == GIVEN else "matmul", 0.0
    dtype = "float64" if precision == "float64" else "float32"
    with kernels.using_precision({"float64": "float32", GIVEN: "bf16"}.get(precision, precision)):
        ways = itertools.product(itertools.product((False, True), repeat=2), (*PRODUCTS, LARGE))
        for seed, (turned, size) in enumerate(ways):
            out, a, b, hosts = _operands(device, *size, dtype, turned, seed, precision)
            device.run(product_of(device.xp, name, out, a, b))
            error = distance(device.host(out), hosts[0].astype("float64") @ hosts[1].astype("float64"))
            require(error <= STATED[precision], f"error {error:.1e} of {size}, transposed {turned}")
            worst = max(worst, error)
    return {"error": worst}


def library(device, precision: str) -> dict:
    """cuBLAS by the handle of our own, all four transpositions."""
    blas, worst = _module("blas"), 0.0
    require(blas.handle() is not None, "expected cuBLAS for this version of CUDA, got none: install nvidia-cublas")
    dtype = "float64" if precision == "float64" else "float32"
    for seed, turned in enumerate(itertools.product((False, True), repeat=2)):
        for m, n, k in ((64, 96, 128), (257, 130, 515)):
            out, a, b, hosts = _operands(device, m, n, k, dtype, turned, seed, precision)
            (product,) = _module("matrices").products(out, a, b)
            device.run([(blas.Call(blas.gemm(product, precision)), ())])
            error = distance(device.host(out), hosts[0].astype("float64") @ hosts[1].astype("float64"))
            require(error <= STATED[precision], f"error {error:.1e} of {m} x {k} x {n}, transposed {turned}")
            worst = max(worst, error)
    return {"error": worst, "version": blas.version()}
