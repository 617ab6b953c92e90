"""One way to run a kernel of target "cuda" on NumPy arrays, through the harness."""

import importlib

import harness
import numpy as np
from native_runs import GUARD, Watched, complete

import tinynet as tn
from tinynet import kernels


def run(name, arrays, attributes=None, layout="line", fresh=False, over=None, declined=False, **options):
    """The outputs of the kernel, by the harness.

    Args:
        layout: "line", or "rows" for rows that lie apart; both begin an element's size beyond a multiple of 64.
            "aligned", "aligned rows": they begin at one, and rows that lie apart at multiples of 16.
        fresh: updates write into memory of their own.
        over: the input whose memory is the (last) output's.
        declined: whether it has to be another target's kernel that computes; None for either.
        options: of ``harness.run``.
    """
    op = tn.ops.table()[name]
    attributes, outputs = complete(name, arrays, attributes or {})
    place = lambda x: _Aligned(x, layout) if layout.startswith("aligned") else Watched(x, layout)
    inputs = [place(array) for array in arrays]
    out = [place(np.full(spec.shape, 77, spec.dtype)) for spec in outputs]
    for output, i in (op.updates or {}).items() if not fresh else ():
        out[output] = inputs[i]
    if over is not None:
        out[-1] = inputs[over]
    given = [each.array if each in out else each.frozen() for each in inputs]
    results = tuple(each.array for each in out)
    calls = bound(name, results[0] if len(results) == 1 else results, given, attributes)
    launch = importlib.import_module("tinynet.kernels.cuda.launch")
    is_own = all(function is launch.run for function, _ in calls)
    if declined is not None:
        assert is_own is not declined or not calls, "by the wrong kernel"
    with np.errstate(all="ignore"):
        if is_own:
            harness.run(calls, **options)
        else:
            for function, arguments in calls:
                function(*arguments)
    return [each.copy() for each in results]


def bound(name, out, arrays, attributes):
    """The kernel's calls on these arrays, with scratch of the size that it asks for."""
    first = out[0] if isinstance(out, tuple) else out
    kernel = kernels.find(name, "cuda", str(first.dtype))
    nbytes = kernel.scratch_bytes(out, *arrays, **attributes)
    room = np.full(nbytes + 256, GUARD, "uint8")
    start = -room.ctypes.data % 256
    scratch = room[start : start + nbytes] if kernel.scratch is not None else None
    return kernel.bind(out, *arrays, scratch=scratch, **attributes)


class _Aligned:
    """A copy of an array that begins at a multiple of 64, as its rows do at multiples of 16 where they lie apart."""

    def __init__(self, x, layout):
        x = np.asarray(x)
        row = x.shape[-1] * x.itemsize if x.ndim else x.itemsize
        if layout == "aligned rows" and x.ndim > 1:
            row += -row % 16 + 16
        held = np.zeros(int(np.prod(x.shape[:-1])) * row + 64, "uint8")
        strides = np.empty(x.shape[:-1], f"V{row}").strides + (x.itemsize,) * (x.ndim > 0) if row else x.strides
        self.array = np.ndarray(x.shape, x.dtype, held, -held.ctypes.data % 64, strides)
        self.array[...] = x

    def frozen(self):
        self.array.flags.writeable = False
        return self.array
