"""The shared suite: what every operation of the table has to hold, as functions of its record and a backend.

``CHECKS`` are all of them. ``test_table`` runs them over the table; a test of a new operation, over its record.
Nothing here names an operation, but for the few whose mathematics is an exception, each beside the reason.
"""

import numpy as np
from suite_gradients import check_gradient_of_gradient, check_gradients
from suite_inputs import (
    FLOATS,
    LAYOUTS,
    SIZES,
    SPECIAL,
    as_tuple,
    cases,
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
from suite_memory import check_numpy_kernels_allocate_nothing
from suite_refusals import (
    check_refuses_other_dtypes,
    check_refuses_other_shapes,
    check_refuses_two_backends,  # noqa: F401 (it takes another backend, and so is none of CHECKS)
    check_refuses_unknown_arguments,
    refused,
    replaced,
)
from suite_runs import assert_same, copies, laid_out_for, reference, run_kernel, targets_on

import tinynet as tn
from tinynet import kernels
from tinynet.errors import DTypeError, GradientError

# Operations whose meaning is to repeat a smaller array.
REPEATS = {"broadcast_to", "assign"}


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
                    laid_out = laid_out_for(op, backend, given, layout)
                    for got, each in zip(run_kernel(op, target, backend, laid_out, attributes), want):
                        assert_same(got, each, dtype, f"{op.name} on {target}, {layout}, {attributes}")


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
                assert op(*replaced(values, i, 1.5), **attributes).dtype == "float32"


def check_inputs_are_not_written_to(op, backend):
    """Inputs come out as they went in, read-only ones included; except those that the record says it updates."""
    for arrays, attributes in cases(op, (1, 7)):
        written = set(op.updates.values())
        given = laid_out_for(op, backend, arrays, "read-only")
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
                refused(op, tracked, attributes, GradientError)
        results = as_tuple(op(*inputs, **attributes))
        assert all(result is inputs[i] for result, i in zip(results, targets))
        assert [x.versions[0] for x in inputs] == [int(i in targets) for i in range(len(inputs))]
        assert any((results[k].numpy() != arrays[i]).any() for k, i in enumerate(targets))


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
