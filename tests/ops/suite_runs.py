"""How the shared suite runs kernels: on which targets, on arrays in which layout; and what is the same result."""

import numpy as np
from suite_inputs import is_float, lay_out, normal_attributes, predicted, specs_of

import tinynet as tn
from tinynet import kernels

# The reference rounds once, from float64; a kernel in float32 may round at every step of sums of up to 200 numbers
# of size 2.
TOLERANCES = {"float32": {"rtol": 2e-5, "atol": 2e-5}, "float64": {"rtol": 1e-11, "atol": 1e-11}}
UNWRITTEN = {"f": -12345.0, "i": -12345, "u": 123, "b": True}


def assert_same(got, expected, dtype="float64", note=""):
    """Equal to the tolerances of ``dtype``, not-a-numbers and infinities included; whole numbers exactly."""
    assert got.shape == expected.shape and got.dtype == expected.dtype, note
    if is_float(got):
        np.testing.assert_allclose(got, expected, **TOLERANCES[dtype], equal_nan=True, err_msg=note)
    else:
        np.testing.assert_array_equal(got, expected, err_msg=note)


def run_kernel(op, target, backend, arrays, attributes):
    """The outputs of a target's kernel, as host arrays. ``arrays`` are the backend's; updates write over them."""
    hosts = [backend.to_host(array) for array in arrays]
    outputs = predicted(op, hosts, attributes)
    if op.updates:
        out = [arrays[i] for _, i in sorted(op.updates.items())]
    else:
        out = [backend.full(spec.shape, UNWRITTEN[spec.dtype.kind], spec.dtype) for spec in outputs]
    kernel = kernels.find(op.name, target, str(outputs[0].dtype))
    with backend.quiet():
        kernel(out[0] if len(out) == 1 else tuple(out), *arrays, **normal_attributes(op, specs_of(hosts), attributes))
    return [np.array(backend.to_host(array)) for array in out]


def reference(op, arrays, attributes):
    """The outputs of the reference kernel on fresh, contiguous host arrays."""
    return run_kernel(op, "reference", tn.get_backend("numpy"), [array.copy() for array in arrays], attributes)


def targets_on(backend):
    """The targets whose kernels take arrays of the backend: those for the host, all of which run on NumPy's."""
    if backend.name != "numpy":
        return [backend.target]
    return [each for each in kernels.targets() if each not in ("cupy", "cuda") and kernels.available(each)]


def laid_out_for(op, backend, arrays, layout):
    """The arrays in a layout; those that are written over need memory of their own for every element."""
    written = set(op.updates.values()) if layout in ("read-only", "zero-stride") else ()
    return [lay_out(backend, array, "contiguous" if i in written else layout) for i, array in enumerate(arrays)]


def copies(arrays):
    return [array.copy() for array in arrays]
