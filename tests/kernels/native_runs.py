"""What the tests of native kernels of rows and of updates share: operands in watched memory, and one way to run."""

import importlib

import numpy as np

import tinynet as tn
from tinynet import kernels
from tinynet.ops import Spec

DTYPES = ("float32", "float64")
SIZES = (0, 1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 1000)  # with the lanes of every vector, one less and one more
TOLERANCES = {"float32": {"rtol": 2e-5, "atol": 2e-6}, "float64": {"rtol": 1e-12, "atol": 1e-13}}
GUARD = 0xA5


class Watched:
    """A copy of an array in a larger piece of memory, which starts at no more than an element's alignment.

    Args:
        layout: "line", or "rows" for rows that lie apart.
    """

    def __init__(self, x, layout="line"):
        x = np.asarray(x)
        self._held = np.full(self._room(x, layout) + 64, GUARD, "uint8")
        start = -self._held.ctypes.data % 64 + x.itemsize
        strides = np.empty(x.shape, x.dtype).strides
        if layout == "rows" and x.ndim > 1:
            row = (x.shape[-1] + 3) * x.itemsize
            strides = tuple(row * stride // max(1, x.shape[-1] * x.itemsize) for stride in strides[:-1]) + strides[-1:]
        self.array = np.ndarray(x.shape, x.dtype, self._held, start, strides)
        self.array[...] = x
        self._before, self._start, self._strides = self._held.copy(), start, strides

    @staticmethod
    def _room(x, layout):
        return 2 * x.nbytes + (3 * x.itemsize * (x.size + 1) if layout == "rows" else 0) + 64

    def frozen(self):
        self.array.flags.writeable = False
        return self.array

    def check(self):
        """Nothing outside the array has been written."""
        before = np.ndarray(self.array.shape, self.array.dtype, self._before, self._start, self._strides)
        before[...] = self.array
        assert (self._held == self._before).all(), "memory beside the result was written"


def cases(name, sizes=SIZES, dtype="float32"):
    """(arrays, attributes) for the samples of a record."""
    op, rng = tn.ops.table()[name], np.random.default_rng(len(name))
    for n in sizes:
        for sample in op.samples(n):
            arrays = []
            for arg in sample.inputs:
                if arg.kind == "int":
                    arrays.append(np.asarray(rng.integers(int(arg.low), int(arg.high), arg.shape), "int64"))
                else:
                    arrays.append(np.asarray(rng.uniform(arg.low, arg.high, arg.shape), dtype))
            yield arrays, dict(sample.attributes)


def complete(name, arrays, attributes):
    """All attributes in their normal form, and the specs of the outputs."""
    op, specs = tn.ops.table()[name], [Spec(array.shape, array.dtype) for array in arrays]
    attributes = op.attributes | attributes
    attributes = op.normalize(*specs, **attributes) if op.normalize else attributes
    outputs = op.rule(*specs, **attributes)
    return attributes, (outputs,) if isinstance(outputs, Spec) else tuple(outputs)


def bound(name, out, arrays, attributes):
    """The native kernel's calls on these arrays, and the scratch that they use, with guards around."""
    first = out[0] if isinstance(out, tuple) else out
    kernel = kernels.find(name, "native", str(first.dtype))
    nbytes = kernel.scratch_bytes(out, *arrays, **attributes)
    room = np.full(nbytes + 192, GUARD, "uint8")
    start = 64 + -room.ctypes.data % 64
    scratch = room[start : start + nbytes] if kernel.scratch is not None else None
    outside = np.r_[0:start, start + nbytes : room.size]
    return kernel.bind(out, *arrays, scratch=scratch, **attributes), room, outside


def is_compiled(calls):
    instructions = importlib.import_module("tinynet.kernels.cpu.native.instructions")
    return all(function is instructions.run for function, _ in calls)


def run(name, arrays, attributes=None, layout="line", fresh=False, over=None, declined=False):
    """The outputs of the native kernel, having looked at the memory around everything.

    Args:
        fresh: updates write into memory of their own.
        over: the input whose memory is the (last) output's.
        declined: whether it has to be another target's kernel that computes; None for either.
    """
    op = tn.ops.table()[name]
    attributes, outputs = complete(name, arrays, attributes or {})
    inputs = [Watched(array, layout) for array in arrays]
    out = [Watched(np.full(spec.shape, 77, spec.dtype), layout) for spec in outputs]
    for output, i in (op.updates or {}).items() if not fresh else ():
        out[output] = inputs[i]
    if over is not None:
        out[-1] = inputs[over]
    given = [each.array if each in out else each.frozen() for each in inputs]
    results = tuple(each.array for each in out)
    calls, room, outside = bound(name, results[0] if len(results) == 1 else results, given, attributes)
    if declined is not None:
        assert is_compiled(calls) is not declined or not calls, "by the wrong kernel"
    instructions = importlib.import_module("tinynet.kernels.cpu.native.instructions")
    with np.errstate(all="ignore"):
        for function, arguments in instructions.link(calls)[0]:
            function(*arguments)
    for each in (*inputs, *out):
        each.check()
    assert (room[outside] == GUARD).all(), "memory beside the scratch was written"
    return [each.copy() for each in results]


def reference(name, arrays, attributes=None):
    attributes, outputs = complete(name, arrays, attributes or {})
    out = tuple(np.empty(spec.shape, spec.dtype) for spec in outputs)
    with np.errstate(all="ignore"):
        kernels.find(name, "reference")(out[0] if len(out) == 1 else out, *arrays, **attributes)
    return list(out)


def assert_close(got, expected, note=""):
    for one, other in zip(got, expected):
        if one.dtype.kind == "f":
            np.testing.assert_allclose(one, other, **TOLERANCES[str(one.dtype)], equal_nan=True, err_msg=str(note))
        else:
            np.testing.assert_array_equal(one, other, err_msg=str(note))


def on_threads(monkeypatch, count):
    """Tables run on ``count`` threads, and instructions are shared whatever they cost."""
    pool = importlib.import_module("tinynet.kernels.cpu.native.pool")
    pool.set_threads(count)
    for module in ("updates", "rows", "randomness", "shapes"):
        found = importlib.import_module(f"tinynet.kernels.cpu.native.{module}")
        monkeypatch.setattr(found, "useful_threads", lambda cost: count)
    instructions = importlib.import_module("tinynet.kernels.cpu.native.instructions")
    if hasattr(instructions, "WORTH_WAKING"):
        monkeypatch.setattr(instructions, "WORTH_WAKING", -1)
    return pool
