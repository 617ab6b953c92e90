"""The shared suite: what every operation of the table has to hold, as functions of its record and a backend.

``CHECKS`` are all of them. ``test_table`` runs them over the table; a test of a new operation, over its record.
Nothing here names an operation, but for the few whose mathematics is an exception, each beside the reason.
"""

import tracemalloc

import numpy as np
import pytest
from suite_gradients import check_gradient_of_gradient, check_gradients
from suite_inputs import (
    FLOATS,
    LAYOUTS,
    SIZES,
    SPECIAL,
    as_tuple,
    cases,
    fill,
    flattened,
    is_float,
    lay_out,
    normal_attributes,
    poisoned,
    predicted,
    rng_for,
    specs_of,
    tensors,
)

import tinynet as tn
from tinynet import kernels
from tinynet.errors import BackendError, DTypeError, GradientError, RangeError, ShapeError

# The reference rounds once, from float64; a kernel in float32 may round at every step of sums of up to 200 numbers
# of size 2.
TOLERANCES = {"float32": {"rtol": 2e-5, "atol": 2e-5}, "float64": {"rtol": 1e-11, "atol": 1e-11}}
# Operations whose meaning is to repeat a smaller array.
REPEATS = {"broadcast_to", "assign"}
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


# ---- the record ----


def check_record(op, backend):
    """It is in the table under its name, says what it does, and has samples, whose arguments it takes."""
    assert op.name.isidentifier() and tn.ops.table()[op.name] is op
    assert op.__doc__ and op.__doc__.strip()
    assert op.samples is not None, f"{op.name} has no samples"
    found = [sample for n in (1, 7) for sample in op.samples(n)]
    assert found, f"{op.name} has no samples"
    for sample in found:
        assert len(sample.inputs) >= len(op.inputs) - op.optional
        assert op.variadic or len(sample.inputs) <= len(op.inputs)
        assert sample.attributes.keys() <= op.attributes.keys()


def check_cost(op, backend):
    """Flops and bytes are whole numbers, none negative; bytes count every input and output once."""
    for arrays, attributes in cases(op, (0, 1, 7)):
        flops, nbytes = op.cost(*specs_of(arrays), **attributes)
        assert type(flops) is int and flops >= 0
        outputs = predicted(op, arrays, attributes)
        assert nbytes == sum(array.nbytes for array in arrays) + sum(spec.nbytes for spec in outputs)


# ---- values ----


def check_rule_equals_reality(op, backend):
    """Shape and dtype that the rule predicts are those of the array that comes out."""
    for dtype in FLOATS:
        for arrays, attributes in cases(op, SIZES, dtype):
            results = as_tuple(op(*tensors(backend, arrays), **attributes))
            for tensor, spec in zip(results, predicted(op, arrays, attributes)):
                assert backend.owns(tensor.array)
                assert tensor.spec == spec
                assert tuple(tensor.array.shape) == spec.shape and backend.dtype_of(tensor.array) == spec.dtype


class _Watched(np.ndarray):
    """An output that takes no array of another shape: NumPy would repeat it silently to the shape of the rule."""

    def __setitem__(self, key, value):
        if key is Ellipsis and isinstance(value, np.ndarray):
            assert value.shape == self.shape, f"the kernel computed {value.shape}, the rule says {self.shape}"
        super().__setitem__(key, value)


def check_kernel_computes_the_predicted_shape(op, backend):
    """The reference computes the shape, and an expression the type, that the rule says, without help from ``out``."""
    for dtype in FLOATS:
        for arrays, attributes in cases(op, SIZES if op.name not in REPEATS else (), dtype):
            given = normal_attributes(op, specs_of(arrays), attributes)
            outputs = predicted(op, arrays, attributes)
            out = [np.empty(spec.shape, spec.dtype).view(_Watched) for spec in outputs]
            with backend.quiet():
                kernels.find(op.name, "reference")(out[0] if len(out) == 1 else tuple(out), *arrays, **given)
                if op.expression is not None:
                    result = op.expression.function()(np, *arrays, **given)
                    assert (result.shape, result.dtype) == tuple(outputs[0])


def check_door_gives_the_reference(op, backend):
    """What a user gets is what the reference kernel computes."""
    for dtype in FLOATS:
        for arrays, attributes in cases(op, (0, 1, 7, 64), dtype):
            expected = reference(op, arrays, attributes)
            results = as_tuple(op(*tensors(backend, arrays), **attributes))
            assert len(results) == len(expected)
            for result, want in zip(results, expected):
                assert_same(result.numpy(), want, dtype, f"{op.name} {attributes}")


def check_kernels_agree_in_every_layout(op, backend):
    """Every kernel gives what the reference gives on contiguous arrays, whatever the memory layout of its inputs."""
    sizes = (0, 1, 7, 64) if backend.target == "reference" else SIZES  # there it is compared with itself
    for dtype in FLOATS:
        for arrays, attributes in cases(op, sizes, dtype):
            expected = reference(op, arrays, attributes)
            for layout in LAYOUTS:
                given, want = arrays, expected
                if layout == "zero-stride":
                    given = [flattened(array) for array in arrays]
                    want = reference(op, given, attributes)
                for target in targets_on(backend):
                    laid_out = _laid_out(op, backend, given, layout)
                    for got, each in zip(run_kernel(op, target, backend, laid_out, attributes), want):
                        assert_same(got, each, dtype, f"{op.name} on {target}, {layout}, {attributes}")


def _laid_out(op, backend, arrays, layout):
    """The arrays in a layout; those that are written over need memory of their own for every element."""
    written = set(op.updates.values()) if layout in ("read-only", "zero-stride") else ()
    return [lay_out(backend, array, "contiguous" if i in written else layout) for i, array in enumerate(arrays)]


def check_kernels_agree_on_special_values(op, backend):
    """Not-a-numbers and infinities come out where the reference has them. No operation is excepted."""
    rng = rng_for(op)
    for dtype in FLOATS:
        for arrays, attributes in cases(op, (7,), dtype):
            for name, values in SPECIAL.items():
                given = poisoned(arrays, values, rng)
                expected = reference(op, given, attributes)
                for target in targets_on(backend):
                    laid_out = [lay_out(backend, array, "contiguous") for array in given]
                    for got, want in zip(run_kernel(op, target, backend, laid_out, attributes), expected):
                        assert_same(got, want, dtype, f"{op.name} on {target}, with {name}, {attributes}")


def check_kernels_agree_on_integers(op, backend):
    """Where the rule takes whole numbers instead of fractions, kernels agree exactly, overflow included."""
    for arrays, attributes in cases(op, (0, 7)):
        for dtype in ("int64", "int32", "uint8"):
            whole = [np.rint(40 * array).astype("int64") if is_float(array) else array for array in arrays]
            given = [new.astype(dtype) if is_float(old) else old for old, new in zip(arrays, whole)]
            try:
                predicted(op, given, attributes)
            except DTypeError:
                continue
            expected = reference(op, given, attributes)
            for target in targets_on(backend):
                laid_out = [lay_out(backend, array, "contiguous") for array in given]
                for got, want in zip(run_kernel(op, target, backend, laid_out, attributes), expected):
                    assert_same(got, want, note=f"{op.name} on {target}, {dtype}, {attributes}")


def check_float32_stays_float32(op, backend):
    """Where float64 gives float64, float32 gives float32: in value, in gradient, next to Python numbers."""
    for (arrays, attributes), (wide, _) in zip(cases(op, (0, 1, 7), "float32"), cases(op, (0, 1, 7), "float64")):
        values = tensors(backend, arrays)
        follows = not op.attributes.keys() & {"dtype"} and predicted(op, wide, attributes)[0].dtype == "float64"
        if follows:
            assert all(spec.dtype == "float32" for spec in predicted(op, arrays, attributes))
        if op.updates:
            continue
        inputs = [value.requires_grad_() if is_float(array) else value for array, value in zip(arrays, values)]
        results = as_tuple(op(*inputs, **attributes))
        y = results[0]
        if follows:
            assert all(result.dtype == "float32" for result in results)
        if y.requires_grad:
            y.backward(tn.ones(y.shape, dtype=y.dtype, backend=backend))
            for x in inputs:
                assert x.grad is None or (x.grad.dtype, x.grad.shape) == (x.dtype, x.shape)
        if follows and op.expression is not None:
            floating = [i for i, array in enumerate(arrays) if is_float(array)]
            for i in floating if len(floating) > 1 else ():
                assert op(*_replaced(values, i, 1.5), **attributes).dtype == "float32"


def check_inputs_are_not_written_to(op, backend):
    """Inputs come out as they went in, read-only ones included; except those that the record says it updates."""
    for arrays, attributes in cases(op, (1, 7)):
        written = set(op.updates.values())
        given = _laid_out(op, backend, arrays, "read-only")
        inputs = [tn.as_tensor(array, backend=backend) for array in given]
        op(*inputs, **attributes)
        for i, (before, after) in enumerate(zip(arrays, given)):
            assert inputs[i].versions[0] == (1 if i in written else 0)
            if i not in written:
                np.testing.assert_array_equal(backend.to_host(after), before)


# ---- updates ----


def check_updates(op, backend):
    """The results are the inputs that are written over; a gradient may not flow through them."""
    for arrays, attributes in cases(op, (1, 7) if op.updates else ()):
        inputs = tensors(backend, arrays)
        targets = [i for _, i in sorted(op.updates.items())]
        for i in targets:
            if is_float(arrays[i]):
                tracked = [x.detach() for x in inputs]
                tracked[i].requires_grad_()
                _refused(op, tracked, attributes, GradientError)
        results = as_tuple(op(*inputs, **attributes))
        assert all(result is inputs[i] for result, i in zip(results, targets))
        assert [x.versions[0] for x in inputs] == [int(i in targets) for i in range(len(inputs))]
        assert any((results[k].numpy() != arrays[i]).any() for k, i in enumerate(targets))


# ---- refusals ----


def _refused(op, inputs, attributes, error):
    """Whether calling raises ``error``; any other error fails. If it does, no input has changed."""
    before = [np.array(x.numpy()) for x in inputs]
    versions = [x.versions[0] for x in inputs]
    try:
        op(*inputs, **attributes)
    except error as caught:
        assert str(caught) and caught.where
        for x, array, version in zip(inputs, before, versions):
            np.testing.assert_array_equal(x.numpy(), array)
            assert x.versions[0] == version
        return True
    return False


def _replaced(values, i, value):
    return [*values[:i], value, *values[i + 1 :]]


def check_refuses_other_dtypes(op, backend):
    """Two floating types never mix; indices are whole, conditions boolean; what the rule refuses is a DTypeError."""
    for arrays, attributes in cases(op, (7,)):
        floating = [i for i, array in enumerate(arrays) if is_float(array)]
        for i, array in enumerate(arrays):
            if is_float(array) and len(floating) > 1:
                mixed = tensors(backend, _replaced(arrays, i, array.astype("float32")))
                assert _refused(op, mixed, attributes, DTypeError)
            if not is_float(array) and floating:
                swapped = tensors(backend, _replaced(arrays, i, array.astype("float64")))
                assert _refused(op, swapped, attributes, (DTypeError, ShapeError))
        for other in ("int64", "bool"):
            changed = [array.astype(other) if is_float(array) else array for array in arrays]
            _takes_or_refuses(op, backend, changed, attributes, DTypeError)


def _takes_or_refuses(op, backend, arrays, attributes, errors):
    """Calling does what the rule says of these inputs: the predicted result, or one of ``errors``. True if refused."""
    try:
        expected = predicted(op, arrays, attributes)
    except errors:
        assert _refused(op, tensors(backend, arrays), attributes, errors)
        return True
    if op.bounds is not None and _refused(op, tensors(backend, arrays), attributes, RangeError):
        return True
    results = as_tuple(op(*tensors(backend, arrays), **attributes))
    assert [result.spec for result in results] == list(expected)
    return False


def check_refuses_other_shapes(op, backend):
    """Shapes that do not fit are refused, with nothing changed, before any kernel runs."""
    refused = several = False
    for arrays, attributes in cases(op, (7,)):
        several |= sum(map(is_float, arrays)) > 1
        for i, array in enumerate(arrays):
            longer = [np.concatenate([array, array.take([0], axis)], axis) for axis in range(array.ndim)]
            for other in (*longer, array[None], array[None][:0]):
                changed = _replaced(arrays, i, other)
                refused |= _takes_or_refuses(op, backend, changed, attributes, (ShapeError, RangeError, DTypeError))
    assert refused or not several, f"{op.name} takes any shapes together"


def check_refuses_two_backends(op, backend, other):
    """Inputs on two backends are refused."""
    for arrays, attributes in cases(op, (7,)):
        inputs = tensors(backend, arrays)
        for i in range(len(inputs) if len(inputs) > 1 else 0):
            moved = _replaced(inputs, i, inputs[i].to(other))
            assert _refused(op, moved, attributes, BackendError)


def check_refuses_unknown_arguments(op, backend):
    """An attribute that it does not have, too few inputs, too many arguments, things that are no arrays."""
    arrays, attributes = next(cases(op, (7,)))
    inputs = tensors(backend, arrays)
    with pytest.raises(tn.errors.ArgumentError):
        op(*inputs, **attributes, no_such_attribute=1)
    with pytest.raises(tn.errors.ArgumentError):
        op(*(["text"] * len(inputs)), **attributes)
    if not op.variadic:
        with pytest.raises(tn.errors.ArgumentError):
            op(**attributes)
        with pytest.raises(tn.errors.ArgumentError):
            op(*inputs, *range(len(op.inputs) + len(op.attributes)))


def check_captured_equals_eager(op, backend):
    """A program of the operation gives the bits that the operation gives, at each of its first calls; a native one
    gives them to rounding."""
    if backend.name != "numpy":
        return  # programs run where arrays can lie within a block of bytes
    for dtype in FLOATS:
        for arrays, attributes in cases(op, (0, 1, 7, 64), dtype):
            expected = [each.numpy() for each in as_tuple(op(*tensors(backend, copies(arrays)), **attributes))]
            for executor in ("numpy", "native")[: 1 + kernels.available("native")]:
                captured = tn.capture(lambda *xs, given=attributes: op(*xs, **given), executor=executor)
                for _ in range(3):
                    results = as_tuple(captured(*tensors(backend, copies(arrays))))
                    for ours, theirs in zip(results, expected, strict=True):
                        if executor == "numpy":
                            np.testing.assert_array_equal(ours.numpy(), theirs)
                        else:
                            assert_same(ours.numpy(), theirs, dtype, f"{op.name} {attributes}")


def copies(arrays):
    return [array.copy() for array in arrays]


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
                expected = run_kernel(op, "numpy", backend, _laid_out(op, backend, copies(arrays), layout), attributes)
                inputs = _laid_out(op, backend, copies(arrays), layout)
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


CHECKS = (
    check_record,
    check_cost,
    check_rule_equals_reality,
    check_kernel_computes_the_predicted_shape,
    check_door_gives_the_reference,
    check_kernels_agree_in_every_layout,
    check_kernels_agree_on_special_values,
    check_kernels_agree_on_integers,
    check_float32_stays_float32,
    check_inputs_are_not_written_to,
    check_updates,
    check_captured_equals_eager,
    check_numpy_kernels_allocate_nothing,
    check_gradients,
    check_gradient_of_gradient,
    check_refuses_other_dtypes,
    check_refuses_other_shapes,
    check_refuses_unknown_arguments,
)
