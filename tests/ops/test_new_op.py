"""The measure of the design: a new operation is one record and one kernel, and everything covers it at once.

Two are added through public names alone, and go through the shared suite on every backend.
"""

import numpy as np
import pytest
import suite

import tinynet as tn
from tinynet.ops import Op, Sample, Spec
from tinynet.ops.samples import Arg, unary


def add_mish():
    """x tanh(softplus(x)) (Misra 2019): elementwise, so its mathematics is said once and there is no kernel at all."""

    def vjp(g, y, x):
        t = tn.ops.tanh(tn.ops.softplus(x))
        return g * (t + x * (1 - t * t) * tn.ops.sigmoid(x))

    return tn.ops.elementwise(
        "mish", "x", "x * tanh(maximum(x, 0) + log1p(exp(-abs(x))))", vjp=(vjp,), keep=(0,), samples=unary(),
        doc="x tanh(softplus(x)).",
    )  # fmt: skip


def add_running_energy():
    """Cumulative sums of squares along the last axis, with a reference kernel in plain array-API code."""

    @tn.kernels.register("running_energy")
    def running_energy(out, x, scale):
        xp = x.__array_namespace__()
        out[...] = xp.astype(xp.cumulative_sum(scale * xp.astype(x, xp.float64) ** 2, axis=-1), out.dtype)

    def rule(x, scale):
        if x.dtype.kind != "f":
            raise tn.errors.DTypeError("running_energy", expected="a floating dtype", got=str(x.dtype))
        if not x.ndim:
            raise tn.errors.ShapeError("running_energy", expected="at least one axis", got="a scalar")
        return Spec(x.shape, x.dtype)

    def vjp(g, y, x, scale):
        # an element counts in every later sum: sums from the end, as a product with a triangle of ones
        n = x.shape[-1]
        later = tn.tensor(np.tril(np.ones((n, n))), dtype=x.dtype, backend=x.backend)
        return (g @ later) * x * (2 * scale)

    return Op(
        "running_energy", "x", rule, attributes={"scale": 1.0}, vjp=(vjp,), keep=(0,),
        flops=lambda out, x, scale: 3 * x.size,
        samples=lambda n: [Sample((Arg((n,)),)), Sample((Arg((2, n, 3)),), {"scale": 0.5})],
        doc="scale times the sum of x^2 up to each element of the last axis.",
    )  # fmt: skip


@pytest.mark.parametrize("add", [add_mish, add_running_energy])
def test_new_operation_passes_the_shared_suite(add, backend, other_backend, new_ops):
    op = add()
    for check in suite.CHECKS:
        check(op, backend)
    suite.check_refuses_two_backends(op, backend, other_backend)


def test_new_operation_computes_what_its_author_meant(new_ops):
    x = np.linspace(-2, 2, 9)
    np.testing.assert_allclose(add_mish()(x).numpy(), x * np.tanh(np.log1p(np.exp(x))), rtol=1e-12)
    np.testing.assert_allclose(add_running_energy()(x, scale=3.0).numpy(), 3 * np.cumsum(x * x), rtol=1e-12)


def test_removed_operation_is_gone_with_its_kernels(new_ops):
    for op in (add_mish(), add_running_energy()):
        assert op.name in tn.ops.table() and op.name in tn.kernels.operations()
        op.remove()
        assert op.name not in tn.ops.table() and op.name not in tn.kernels.operations()
        with pytest.raises(LookupError, match=op.name):
            tn.kernels.find(op.name, "numpy")


def test_a_name_can_be_taken_once(new_ops):
    add_mish()
    with pytest.raises(tn.errors.ArgumentError, match="mish"):
        add_mish()


def _broken(**changes):
    """A square whose record is wrong in one respect."""
    right = {"vjp": (lambda g, y, x: g * (2 * x),), "keep": (0,), "samples": unary(), "doc": "x^2."}
    return tn.ops.elementwise("broken", "x", "x * x", **(right | changes))


@pytest.mark.parametrize(
    ("check", "changes"),
    [
        ("check_record", {"samples": None}),
        ("check_record", {"samples": lambda n: []}),
        ("check_record", {"doc": ""}),
        ("check_gradients", {"vjp": (lambda g, y, x: g * x,)}),
        ("check_gradients", {"vjp": (lambda g, y, x: g * 2.0,)}),
        ("check_gradient_of_gradient", {"vjp": (lambda g, y, x: g * (2 * x.detach()),)}),
        ("check_gradients", {"samples": unary(0.0, 1e-4)}),
        ("check_kernel_computes_the_predicted_shape", {"result": np.dtype("float32")}),
        ("check_cost", {"flops": lambda out, *_: -1}),
    ],
)
def test_suite_fails_a_record_that_is_wrong(check, changes, new_ops):
    op = _broken(**changes)
    with pytest.raises(AssertionError):
        getattr(suite, check)(op, tn.get_backend("numpy"))


def test_suite_fails_a_kernel_that_is_wrong_in_one_layout(new_ops):
    op = _broken()

    @tn.kernels.register("broken", "numpy")
    def broken(out, x):
        out[...] = x * x if x.flags.c_contiguous else x

    with pytest.raises(AssertionError):
        suite.check_kernels_agree_in_every_layout(op, tn.get_backend("numpy"))


def test_suite_fails_a_rule_whose_shape_the_kernel_does_not_compute(new_ops):
    @tn.kernels.register("broken")
    def broken(out, x):
        out[...] = x

    op = Op(
        "broken", "x", lambda x: Spec((2, *x.shape), x.dtype), samples=lambda n: [Sample((Arg((n,)),))], doc="x."
    )  # fmt: skip
    with pytest.raises(AssertionError):
        suite.check_kernel_computes_the_predicted_shape(op, tn.get_backend("numpy"))


def test_suite_fails_a_kernel_that_loses_a_nan(new_ops):
    op = _broken()

    @tn.kernels.register("broken", "numpy")
    def broken(out, x):
        out[...] = np.nan_to_num(x * x, nan=0.0, posinf=np.inf)

    with pytest.raises(AssertionError):
        suite.check_kernels_agree_on_special_values(op, tn.get_backend("numpy"))


def test_suite_fails_a_kernel_that_writes_over_its_input(new_ops):
    op = _broken()

    @tn.kernels.register("broken", "numpy")
    def broken(out, x):
        x *= x
        out[...] = x

    with pytest.raises((AssertionError, ValueError)):
        suite.check_inputs_are_not_written_to(op, tn.get_backend("numpy"))
