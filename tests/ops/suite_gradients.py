"""The part of the shared suite that compares gradients, and gradients of gradients, with central differences."""

import numpy as np
from suite_inputs import cases, is_float, predicted, rng_for, tensors

import tinynet as tn

EPS, ATOL, RTOL = 1e-6, 1e-5, 1e-3
CLEARLY = 1e-2
SIZES = (1, 7)
MANY = 64  # inputs with more elements are tried along random directions
DIRECTIONS = 3
# Operations that are differentiable, and constant between their jumps.
FLAT = {"sign"}


def _float64_cases(op):
    """Samples whose result is float64 (float32 loses a difference of 1e-6), with the inputs to differentiate by."""
    for arrays, attributes in cases(op, SIZES) if op.vjp is not None else ():
        if predicted(op, arrays, attributes)[0].dtype != "float64":
            continue
        has_rule = [not isinstance(op.vjp, tuple) or op.vjp[i] is not None for i in range(len(arrays))]
        wanted = [i for i, array in enumerate(arrays) if is_float(array) and has_rule[i]]
        if wanted:
            yield arrays, attributes, wanted


def _directions(shape, rng):
    """Unit vectors of a space, or, if there are many, some directions in it."""
    size = int(np.prod(shape))
    if size <= MANY:
        return np.eye(size).reshape(size, *shape)
    return rng.standard_normal((DIRECTIONS, *shape))


def _difference(f, arrays, i, direction):
    """The derivative of f along a direction of argument i, by central differences."""
    ends = []
    for step in (EPS, -EPS):
        moved = list(arrays)
        moved[i] = arrays[i] + step * direction
        ends.append(f(moved))
    return (ends[0] - ends[1]) / (2 * EPS)


def _assert_close(analytic, numeric, note):
    close = np.abs(analytic - numeric) <= ATOL + RTOL * np.abs(numeric)
    assert close, f"{note}: {analytic}, but by differences {numeric}"


def check_gradients(op, backend):
    """Vector-Jacobian products equal central differences, for every input, and are not zero throughout."""
    rng = rng_for(op)
    clear: dict[int, bool] = {}
    for arrays, attributes, wanted in _float64_cases(op):
        cotangent = rng.standard_normal(predicted(op, arrays, attributes)[0].shape)

        def loss(moved, attributes=attributes, cotangent=cotangent):
            with tn.no_grad():
                return float((op(*tensors(backend, moved), **attributes).numpy() * cotangent).sum())

        inputs = tensors(backend, arrays)
        for i in wanted:
            inputs[i].requires_grad_()
        op(*inputs, **attributes).backward(tn.tensor(cotangent, backend=backend))
        for i in wanted:
            assert inputs[i].grad is not None, f"no gradient of {op.name} for input {i}"
            gradient = inputs[i].grad.numpy()
            assert gradient.shape == arrays[i].shape and gradient.dtype == arrays[i].dtype
            clear[i] = clear.get(i, False) or bool((np.abs(gradient) > CLEARLY).any())
            for direction in _directions(arrays[i].shape, rng):
                numeric = _difference(loss, arrays, i, direction)
                _assert_close((gradient * direction).sum(), numeric, f"{op.name} input {i} {attributes}")
    assert all(clear.values()) or op.name in FLAT, f"{op.name}: gradients that are zero throughout prove nothing"


def check_gradient_of_gradient(op, backend):
    """The gradient of (gradient . direction) equals central differences of it, in the inputs and the cotangent."""
    rng = rng_for(op, 2)
    for arrays, attributes, wanted in _float64_cases(op):
        shape = predicted(op, arrays, attributes)[0].shape
        along = [tn.tensor(rng.standard_normal(arrays[i].shape), backend=backend) for i in wanted]
        arrays = [*arrays, rng.standard_normal(shape)]  # the cotangent is an argument like the others
        argnums = (*wanted, len(arrays) - 1)

        def slope(*values, attributes=attributes, along=along, wanted=wanted):
            *inputs, cotangent = values
            gradients = tn.grad(lambda *x: (op(*x, **attributes) * cotangent).sum(), tuple(wanted))(*inputs)
            total = 0.0
            for gradient, direction in zip(gradients, along):
                total = (gradient * direction).sum() + total
            return total

        seconds = tn.grad(slope, argnums)(*tensors(backend, arrays))
        for i, second in zip(argnums, seconds):
            direction = rng.standard_normal(arrays[i].shape)
            numeric = _difference(lambda moved: slope(*tensors(backend, moved)).item(), arrays, i, direction)
            note = f"{op.name} second order, argument {i} {attributes}"
            _assert_close((second.numpy() * direction).sum(), numeric, note)
