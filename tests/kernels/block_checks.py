"""What tests of derived kernels share: arrays with everything in them, and runs that show what a kernel touches."""

import numpy as np

NAMES = ("a", "b", "row", "column", "scalar")
SHAPES = {"a": (6, 35), "b": (6, 35), "row": (35,), "column": (6, 1), "scalar": ()}


def arrays_for(dtype, names=NAMES, seed=0):
    rng = np.random.default_rng(seed)
    arrays = {}
    for name in names:
        values = rng.uniform(-3, 3, SHAPES[name])
        if values.ndim == 2:  # infinities, zeros of both signs and not-a-numbers among them
            values[rng.random(values.shape) < 0.1] = rng.choice([np.inf, -np.inf, np.nan, 0.0, -0.0])
        arrays[name] = np.asarray(values.astype(dtype))
    return arrays


def bits(array):
    """What tells two arrays apart: all but the signs of not-a-numbers."""
    array = np.ascontiguousarray(array)
    if array.dtype.kind != "f":
        return array
    return np.where(np.isnan(array), np.nan, array).astype(array.dtype).view(f"i{array.dtype.itemsize}")


def bound(kernel, out, *inputs, **attributes):
    """Runs a kernel by its steps, in scratch that begins as not-a-numbers."""
    scratch = np.full(kernel.scratch_bytes(out, *inputs, **attributes), 255, "uint8")
    with np.errstate(all="ignore"):
        for function, arguments in kernel.bind(out, *inputs, scratch=scratch, **attributes):
            function(*arguments)
