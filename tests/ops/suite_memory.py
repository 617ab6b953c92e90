"""That kernels for NumPy take no memory as they go, and keep to their scratch."""

import tracemalloc

import numpy as np
from suite_inputs import FLOATS, fill, normal_attributes, predicted, rng_for, specs_of
from suite_runs import UNWRITTEN, copies, laid_out_for, run_kernel

from tinynet import kernels

# Views and iterators take some hundred bytes; a buffer of NumPy's (8192 elements), or any array here, is far more.
_MOST_BYTES = 8192
_LARGE = 256 * 1024


def _large_cases(op, dtype):
    """(host arrays, attributes) of every sample at the least size at which it has an array of ``_LARGE`` bytes."""
    rng, done = rng_for(op, _LARGE), set()
    for n in (1 << k for k in range(5, 17)):
        for i, sample in enumerate(op.samples(n)):
            elements = max(int(np.prod(arg.shape)) for arg in sample.inputs)
            if i not in done and (elements * np.dtype(dtype).itemsize >= _LARGE or n == 1 << 16):
                done.add(i)
                yield [fill(arg, rng, dtype) for arg in sample.inputs], dict(sample.attributes)


def check_numpy_kernels_allocate_nothing(op, backend):
    """Bound to its memory, a kernel for NumPy allocates no array, keeps to its scratch, and gives the bits of eager."""
    if backend.name != "numpy" or kernels.find(op.name, "numpy").target != "numpy":
        return  # a kernel that takes memory as it goes says so: it is the reference
    for dtype in FLOATS:
        for arrays, attributes in _large_cases(op, dtype):
            for layout in ("contiguous", "transposed"):
                outputs, specs = predicted(op, arrays, attributes), specs_of(arrays)
                kernel = kernels.find(op.name, "numpy", str(outputs[0].dtype))
                given = normal_attributes(op, specs, attributes)
                expected = run_kernel(
                    op, "numpy", backend, laid_out_for(op, backend, copies(arrays), layout), attributes
                )
                inputs = laid_out_for(op, backend, copies(arrays), layout)
                out = tuple(inputs[i] for _, i in sorted(op.updates.items()))
                out = out or tuple(np.full(spec.shape, UNWRITTEN[spec.dtype.kind], spec.dtype) for spec in outputs)
                out, described = (out[0], outputs[0]) if len(out) == 1 else (out, outputs)
                nbytes = kernel.scratch_bytes(out, *inputs, **given)
                assert nbytes == kernel.scratch_bytes(described, *specs, **given), "scratch is a function of the specs"
                memory, scratch = _guarded(nbytes)
                steps = kernel.bind(out, *inputs, scratch=scratch, **given)
                with backend.quiet():
                    np.setbufsize(256)  # elements; what NumPy walks over broadcast operands through, its own 8192
                    _run(steps)
                    for got, want in zip(out if isinstance(out, tuple) else (out,), expected, strict=True):
                        np.testing.assert_array_equal(got, want)
                    tracemalloc.start()
                    try:
                        before, _ = tracemalloc.get_traced_memory()
                        _run(steps)
                        _, peak = tracemalloc.get_traced_memory()
                    finally:
                        tracemalloc.stop()
                note = f"{op.name} on {dtype}, {layout}, {attributes}"
                assert peak - before < _MOST_BYTES, f"{note}: {peak - before} bytes"
                at = scratch.ctypes.data - memory.ctypes.data
                around = np.delete(memory, slice(at, at + nbytes))
                assert (around == 255).all(), f"{note}: it left its scratch"


def _guarded(nbytes, guard=4096):
    """Memory of which a piece, aligned to 64, is scratch; every byte of it is 255: not a number, and never a one."""
    memory = np.full(nbytes + 2 * guard + 64, 255, "uint8")
    at = guard + -memory[guard:].ctypes.data % 64
    return memory, memory[at : at + nbytes]


def _run(steps):
    for function, arguments in steps:
        function(*arguments)
