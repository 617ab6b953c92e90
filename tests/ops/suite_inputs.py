"""What the shared suite feeds an operation: numbers for its samples, memory layouts, special values, two element types.

Host arrays are made here; ``lay_out`` carries them to a backend, in the layout that is to be tried.
"""

import zlib

import numpy as np

import tinynet as tn
from tinynet.ops import Spec

SIZES = (0, 1, 7, 63, 64, 65)
FLOATS = ("float32", "float64")
LAYOUTS = ("contiguous", "strided", "transposed", "reversed", "read-only", "zero-stride")
SPECIAL = {"nan": (np.nan,), "inf": (np.inf,), "-inf": (-np.inf,), "inf and -inf": (np.inf, -np.inf)}
CLEAR_OF_KINKS = 0.05


def rng_for(op, *more):
    """A generator that gives an operation the same numbers in every run."""
    return np.random.default_rng([zlib.crc32(op.name.encode()), *more])


def fill(arg, rng, dtype):
    """A host array for an ``Arg``; ``dtype`` holds for its floating ones."""
    if arg.kind == "bool":
        return np.asarray(rng.integers(0, 2, arg.shape), dtype=bool)
    if arg.kind == "int":
        return np.asarray(rng.integers(int(arg.low), int(arg.high), arg.shape), dtype=np.int64)
    values = np.asarray(rng.uniform(arg.low, arg.high, arg.shape))
    for point in arg.avoid:
        side = np.where(values < point, -CLEAR_OF_KINKS, CLEAR_OF_KINKS)
        values = np.where(np.abs(values - point) < CLEAR_OF_KINKS, point + side, values)
    if arg.kind == "rows":
        values = np.exp(values)
        values = values / values.sum(axis=-1, keepdims=True)
    return values.astype(dtype)


def cases(op, sizes, dtype="float64"):
    """(host arrays, attributes) for every sample of the operation."""
    for n in sizes:
        rng = rng_for(op, n)
        for sample in op.samples(n):
            yield [fill(arg, rng, dtype) for arg in sample.inputs], dict(sample.attributes)


def is_float(array):
    return array.dtype.kind == "f"


def poisoned(arrays, values, rng):
    """Copies of which every floating one has the special ``values`` at random places."""
    copies = [array.copy() for array in arrays]
    for copy in copies:
        if is_float(copy) and copy.size:
            places = rng.choice(copy.size, min(len(values), copy.size), replace=False)
            copy.reshape(-1)[places] = values[: len(places)]
    return copies


def flattened(array):
    """The array with one value along its first axis: what a zero stride can say."""
    return np.broadcast_to(array[:1], array.shape).copy() if array.size and array.ndim else array


def lay_out(backend, array, layout):
    """A host array on a backend, in a memory layout. For "zero-stride" the array has to be ``flattened``."""
    if not array.ndim or layout == "contiguous":
        return backend.from_host(array)
    if layout == "strided":
        return backend.from_host(np.repeat(array, 2, axis=-1))[..., ::2]
    if layout == "transposed":
        axes = tuple(reversed(range(array.ndim)))
        return backend.xp.permute_dims(backend.from_host(np.ascontiguousarray(array.T)), axes)
    if layout == "reversed":
        return backend.from_host(np.ascontiguousarray(array[..., ::-1]))[..., ::-1]
    if layout == "zero-stride" and array.size:
        return backend.xp.broadcast_to(backend.from_host(np.ascontiguousarray(array[:1])), array.shape)
    result = backend.from_host(array)
    if isinstance(result, np.ndarray):
        result.flags.writeable = False
    return result


def tensors(backend, arrays):
    return [tn.tensor(array, backend=backend) for array in arrays]


def specs_of(arrays):
    return [Spec(tuple(array.shape), array.dtype) for array in arrays]


def normal_attributes(op, specs, attributes):
    """The attributes in the form that rules and kernels see."""
    complete = op.attributes | attributes
    return op.normalize(*specs, **complete) if op.normalize else complete


def predicted(op, arrays, attributes):
    """The specs of the outputs by the record's rule: always a tuple."""
    specs = specs_of(arrays)
    result = op.rule(*specs, **normal_attributes(op, specs, attributes))
    return (result,) if isinstance(result, Spec) else tuple(result)


def as_tuple(result):
    return result if isinstance(result, tuple) else (result,)
