"""What every operation refuses: other types, shapes and backends, unknown arguments. Nothing has changed then."""

import numpy as np
import pytest
from suite_inputs import as_tuple, cases, is_float, predicted, tensors

import tinynet as tn
from tinynet.errors import BackendError, DTypeError, RangeError, ShapeError


def refused(op, inputs, attributes, error):
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


def replaced(values, i, value):
    return [*values[:i], value, *values[i + 1 :]]


def check_refuses_other_dtypes(op, backend):
    """Two floating types never mix; indices are whole, conditions boolean; what the rule refuses is a DTypeError."""
    for arrays, attributes in cases(op, (7,)):
        floating = [i for i, array in enumerate(arrays) if is_float(array)]
        for i, array in enumerate(arrays):
            if is_float(array) and len(floating) > 1:
                mixed = tensors(backend, replaced(arrays, i, array.astype("float32")))
                assert refused(op, mixed, attributes, DTypeError)
            if not is_float(array) and floating:
                swapped = tensors(backend, replaced(arrays, i, array.astype("float64")))
                assert refused(op, swapped, attributes, (DTypeError, ShapeError))
        for other in ("int64", "bool"):
            changed = [array.astype(other) if is_float(array) else array for array in arrays]
            _takes_or_refuses(op, backend, changed, attributes, DTypeError)


def _takes_or_refuses(op, backend, arrays, attributes, errors):
    """Calling does what the rule says of these inputs: the predicted result, or one of ``errors``. True if refused."""
    try:
        expected = predicted(op, arrays, attributes)
    except errors:
        assert refused(op, tensors(backend, arrays), attributes, errors)
        return True
    if op.bounds is not None and refused(op, tensors(backend, arrays), attributes, RangeError):
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
                changed = replaced(arrays, i, other)
                refused |= _takes_or_refuses(op, backend, changed, attributes, (ShapeError, RangeError, DTypeError))
    assert refused or not several, f"{op.name} takes any shapes together"


def check_refuses_two_backends(op, backend, other):
    """Inputs on two backends are refused."""
    for arrays, attributes in cases(op, (7,)):
        inputs = tensors(backend, arrays)
        for i in range(len(inputs) if len(inputs) > 1 else 0):
            moved = replaced(inputs, i, inputs[i].to(other))
            assert refused(op, moved, attributes, BackendError)


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
