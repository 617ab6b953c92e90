"""Operations that change their inputs: assignment, addition, and one step of gradient descent and of Adam.

Their results are their inputs, written over. Rates and step counts come as scalar tensors, because they change from
call to call; what defines the method comes as attributes.
"""

from __future__ import annotations

from tinynet.errors import DTypeError, ShapeError

from . import splitting
from .record import REQUIRED, Op, Sample
from .samples import Arg
from .spec import INT64, Spec, broadcast_shapes, same_dtype


def _write_rule(name, kind):
    def rule(x, value):
        same_dtype(name, x, kind=kind)
        if value.dtype != x.dtype:
            mend = f"convert it with .astype('{x.dtype}')"
            raise DTypeError(name, expected=str(x.dtype), got=str(value.dtype), mend=mend)
        if broadcast_shapes(name, x.shape, value.shape) != x.shape:
            raise ShapeError(name, expected=f"a value that broadcasts to {x.shape}", got=str(value.shape))
        return Spec(x.shape, x.dtype)

    return rule


def _write_samples(n):
    yield Sample((Arg((n, 2)), Arg((n, 2))))
    yield Sample((Arg((n, 2)), Arg(())))


assign = Op(
    "assign", "x value", _write_rule("assign", "any"), updates={0: 0}, public=False, split=splitting.rows,
    samples=_write_samples,
    doc="Writes ``value``, broadcast, over x.",
)  # fmt: skip


accumulate = Op(
    "accumulate", "x value", _write_rule("accumulate", "number"), updates={0: 0}, public=False, split=splitting.rows,
    flops=lambda out, x, value: x.size, samples=_write_samples,
    doc="Adds ``value``, broadcast, to x in place.",
)  # fmt: skip


def _update_rule(name, scalars: int, outputs: int):
    """All arrays have the parameter's shape and dtype; the last ``scalars`` inputs are a rate and a step count."""

    def rule(*specs, **_):
        arrays, rates = specs[: len(specs) - scalars], specs[len(specs) - scalars :]
        dtype = same_dtype(name, *arrays, rates[0], kind="float")
        if any(spec.shape != arrays[0].shape for spec in arrays):
            raise ShapeError(
                name, expected="arrays of the parameter's shape", got=" ".join(str(s.shape) for s in arrays)
            )
        if any(rate.shape for rate in rates) or any(rate.dtype != INT64 for rate in rates[1:]):
            raise ShapeError(name, expected="a scalar rate and an int64 scalar step", got=" ".join(map(str, rates)))
        result = Spec(arrays[0].shape, dtype)
        return result if outputs == 1 else (result,) * outputs

    return rule


_RATE = Arg((), 0.01, 0.1)

gd = Op(
    "gd", "p g lr", _update_rule("gd", 1, 1), attributes={"weight_decay": 0.0}, updates={0: 0}, public=False,
    split=splitting.first_axis,
    samples=lambda n: [Sample((Arg((n, 2)), Arg((n, 2)), _RATE), {"weight_decay": d}) for d in (0.0, 0.1)],
    flops=lambda out, *_, **__: 2 * out.size, doc="p = p - lr (g + weight_decay p).",
)  # fmt: skip

gd_momentum = Op(
    "gd_momentum", "p g velocity lr", _update_rule("gd_momentum", 1, 2), updates={0: 0, 1: 2}, public=False,
    split=splitting.first_axis,
    attributes={"momentum": REQUIRED, "nesterov": False, "weight_decay": 0.0},
    samples=lambda n: [
        Sample((*(Arg((n, 2)),) * 3, _RATE), {"momentum": 0.9, "nesterov": nesterov, "weight_decay": 0.1})
        for nesterov in (False, True)
    ],
    flops=lambda out, *_, **__: 4 * out.size,
    doc="v = momentum v + g;  p = p - lr v, or p - lr (g + momentum v) for Nesterov's (Sutskever et al. 2013).",
)  # fmt: skip

adam = Op(
    "adam", "p g m v lr step", _update_rule("adam", 2, 3), updates={0: 0, 1: 2, 2: 3}, public=False,
    split=splitting.first_axis,
    attributes={"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.0, "decoupled": False},
    samples=lambda n: [
        Sample(
            (Arg((n, 2)), Arg((n, 2)), Arg((n, 2)), Arg((n, 2), 0.1, 2), _RATE, Arg((), 1, 9, kind="int")),
            {"weight_decay": decay, "decoupled": decoupled},
        )
        for decay, decoupled in ((0.0, False), (0.1, False), (0.1, True))
    ],
    flops=lambda out, *_, **__: 12 * out.size,
    doc="""One step of Adam (Kingma and Ba 2015, Algorithm 1); step counts from 1.

    m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2;
    p = p - lr m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + eps).
    Weight decay is added to the gradient, or, decoupled, taken off the parameter (Loshchilov and Hutter 2019).""",
)  # fmt: skip
