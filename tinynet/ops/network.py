"""What dense networks need beyond matrices: softmax, cross-entropy, mean squared error, layer norm, dropout."""

from __future__ import annotations

from tinynet.backend import is_integer
from tinynet.errors import ArgumentError, DTypeError, ShapeError

from . import splitting
from .elementwise import exp
from .indexing import one_hot
from .record import REQUIRED, Bounds, Op, Sample
from .reduction import mean, sum_to
from .reduction import sum as sum_
from .samples import Arg
from .shaping import expand_dims
from .spec import INT64, Spec, normalize_axis, same_dtype


def _softmax_record(name, vjp, doc):
    return Op(
        name, "x", lambda x, axis: Spec(x.shape, same_dtype(name, x, kind="float")), attributes={"axis": -1},
        normalize=lambda x, axis: {"axis": normalize_axis(name, axis, x.ndim)}, vjp=(vjp,), keep=("y",),
        overwrites=(0,), split=splitting.all_but("axis"),
        flops=lambda out, x, axis: 5 * x.size, doc=doc,
        samples=lambda n: [Sample((Arg((n, 3)),)), Sample((Arg((2, n, 2)),), {"axis": 0})],
    )  # fmt: skip


def _softmax_vjp(g, y, x, axis):
    weighted = g * y
    return weighted - y * sum_(weighted, axis=axis, keepdims=True)


softmax = _softmax_record(
    "softmax", _softmax_vjp, "e^x over its sum along ``axis``: rows of probabilities. The largest is taken off first.",
)  # fmt: skip
log_softmax = _softmax_record(
    "log_softmax", lambda g, y, x, axis: g - exp(y) * sum_(g, axis=axis, keepdims=True),
    "The logarithm of softmax, without overflow and without log of zero.",
)  # fmt: skip


def _cross_entropy_rule(logits, target):
    where_, classes = "softmax_cross_entropy", logits.shape[-1] if logits.ndim else 0
    same_dtype(where_, logits, kind="float")
    if not classes:
        raise ShapeError(where_, expected="logits of shape (..., classes)", got=str(logits.shape))
    if target.ndim == logits.ndim:
        if target.shape != logits.shape:
            raise ShapeError(where_, expected=f"probability rows of shape {logits.shape}", got=str(target.shape))
        if is_integer(target.dtype):
            raise DTypeError(
                where_, expected=f"class indices of shape {logits.shape[:-1]}, or rows of {logits.dtype}",
                got=f"{target.dtype} of shape {target.shape}",
                mend="drop the last axis, or convert one-hot rows to floats",
            )  # fmt: skip
        same_dtype(where_, logits, target, kind="float")
    elif not is_integer(target.dtype):
        raise DTypeError(
            where_, expected="class indices of an integer dtype", got=f"{target.dtype} of shape {target.shape}",
            mend="convert them with .astype('int64')",
        )  # fmt: skip
    elif target.shape != logits.shape[:-1]:
        raise ShapeError(
            where_, expected=f"class indices of shape {logits.shape[:-1]} for logits of shape {logits.shape}",
            got=str(target.shape),
        )  # fmt: skip
    return Spec(logits.shape[:-1], logits.dtype)


def _cross_entropy_bounds(logits, target, g=None):
    if len(target.shape) == len(logits.shape):
        return None
    return Bounds(1, 0, logits.shape[-1], "softmax_cross_entropy", "labels")


def _cross_entropy_vjp(g, y, logits, target, needs):
    """(softmax - target) for the logits; minus log softmax for probability rows."""
    return [
        softmax_cross_entropy_grad(logits, target, g) if needs[0] else None,
        -log_softmax(logits) * expand_dims(g, -1) if needs[1] else None,
    ]


def _cross_entropy_samples(n):
    yield Sample((Arg((n, 3), -3, 3), Arg((n,), 0, 3, kind="int")))
    yield Sample((Arg((2, n, 4)), Arg((2, n, 4), kind="rows")))


def _cross_entropy_grad_samples(n):
    for sample in _cross_entropy_samples(n):
        yield Sample((*sample.inputs, Arg(sample.inputs[0].shape[:-1])))


def _cross_entropy_grad_rule(logits, target, g):
    rows = _cross_entropy_rule(logits, target)
    same_dtype("softmax_cross_entropy_grad", logits, g, kind="float")
    if g.shape != rows.shape:
        raise ShapeError("softmax_cross_entropy_grad", expected=f"a gradient of shape {rows.shape}", got=str(g.shape))
    return Spec(logits.shape, logits.dtype)


def _cross_entropy_grad_vjp(u, y, logits, target, g, needs):
    """With p = softmax(logits), T = sum_k t_k and y = (p T - t) g, row by row."""
    probabilities, along = softmax(logits), expand_dims(g, -1)
    indexed = target.ndim < logits.ndim
    rows = one_hot(target, classes=logits.shape[-1], dtype=logits.dtype) if indexed else target
    total = 1.0 if indexed else sum_(rows, axis=-1, keepdims=True)
    grads, scaled = [None, None, None], u * along
    if needs[0]:
        w = scaled * total
        grads[0] = probabilities * (w - sum_(w * probabilities, axis=-1, keepdims=True))
    if needs[1]:
        grads[1] = sum_(scaled * probabilities, axis=-1, keepdims=True) - scaled
    if needs[2]:
        grads[2] = sum_(u * (probabilities * total - rows), axis=-1)
    return grads


softmax_cross_entropy = Op(
    "softmax_cross_entropy", "logits target", _cross_entropy_rule, bounds=_cross_entropy_bounds, vjp=_cross_entropy_vjp,
    keep=(0, 1), flops=lambda out, logits, target: 6 * logits.size, samples=_cross_entropy_samples,
    split=splitting.rows_of_classes,
    doc="""Per row, -sum_k t_k log softmax(logits)_k, stable for any logits.

    Args:
        logits: (..., classes), floating.
        target: class indices (...), or probability rows (..., classes) of the logits' dtype.

    Raises:
        RangeError: a label outside 0 to classes - 1.
        ShapeError, DTypeError: targets that do not belong to the logits.""",
)  # fmt: skip


softmax_cross_entropy_grad = Op(
    "softmax_cross_entropy_grad", "logits target g", _cross_entropy_grad_rule, vjp=_cross_entropy_grad_vjp,
    bounds=_cross_entropy_bounds, keep=(0, 1, 2),
    overwrites=(0,), split=splitting.rows_of_classes, flops=lambda out, logits, target, g: 7 * logits.size,
    samples=_cross_entropy_grad_samples, public=False,
    doc="""The gradient of ``softmax_cross_entropy`` for its logits: (softmax(logits) sum_k t_k - t) g, per row.

    Args:
        logits, target: as there. g: of the shape of its result, the gradient that comes in.""",
)  # fmt: skip

softmax_cross_entropy_both = Op(
    "softmax_cross_entropy_both", "logits target g",
    lambda logits, target, g: (_cross_entropy_rule(logits, target), _cross_entropy_grad_rule(logits, target, g)),
    bounds=_cross_entropy_bounds,
    overwrites=((0, 1),), flops=lambda out, logits, target, g: 9 * logits.size,
    samples=_cross_entropy_grad_samples, public=False,
    doc="``softmax_cross_entropy`` and its gradient for the logits at once: exponentials are taken once.",
)  # fmt: skip


def _mse_split(n, axes, /, prediction, target):
    cut = splitting.rows(n, axes, prediction, target)
    return None if cut is None else splitting.Split(cut.cuts, splitting.MEAN)


def _mse_rule(prediction, target):
    dtype = same_dtype("mse", prediction, target, kind="float")
    if prediction.shape != target.shape:
        raise ShapeError(
            "mse", expected="prediction and target of one shape (nothing is broadcast)",
            got=f"{prediction.shape} and {target.shape}", mend="reshape the target: target.reshape(prediction.shape)",
        )  # fmt: skip
    if not prediction.size:
        raise ShapeError("mse", expected="at least one element", got=f"shape {prediction.shape}")
    return Spec((), dtype)


mse = Op(
    "mse", "prediction target", _mse_rule, keep=(0, 1), flops=lambda out, p, t: 3 * p.size, split=_mse_split,
    vjp=(
        lambda g, y, p, t: (p - t) * (g * (2 / p.size)),
        lambda g, y, p, t: (t - p) * (g * (2 / p.size)),
    ),
    samples=lambda n: [Sample((Arg((n, 2)), Arg((n, 2)))), Sample((Arg((n,)), Arg((n,))))] if n else [],
    doc="""The mean of (prediction - target)^2 over all elements: a scalar.

    Raises:
        ShapeError: shapes that differ, (n, 1) and (n,) included, or no elements.""",
)  # fmt: skip


def _layer_norm_rule(x, gain, bias, *, eps):
    dtype = same_dtype("layer_norm", x, gain, bias, kind="float")
    if not x.ndim or not x.shape[-1] or gain.shape != x.shape[-1:] or bias.shape != x.shape[-1:]:
        raise ShapeError(
            "layer_norm", expected="x of shape (..., n), gain and bias of shape (n,), n at least 1",
            got=f"{x.shape}, {gain.shape}, {bias.shape}",
        )  # fmt: skip
    return Spec(x.shape, dtype)


def _layer_norm_vjp(g, y, x, gain, bias, needs, eps):
    centred = x - mean(x, axis=-1, keepdims=True)
    scale = 1 / (mean(centred * centred, axis=-1, keepdims=True) + eps) ** 0.5
    normal = centred * scale
    grads = [None, None, None]
    if needs[0]:
        h = g * gain
        along = mean(h * normal, axis=-1, keepdims=True)
        grads[0] = (h - mean(h, axis=-1, keepdims=True) - normal * along) * scale
    if needs[1]:
        grads[1] = sum_to(g * normal, shape=gain.shape)
    if needs[2]:
        grads[2] = sum_to(g, shape=bias.shape)
    return grads


layer_norm = Op(
    "layer_norm", "x gain bias", _layer_norm_rule, attributes={"eps": 1e-5}, vjp=_layer_norm_vjp, keep=(0, 1),
    flops=lambda out, x, gain, bias, eps: 8 * x.size, split=splitting.but_last,
    samples=lambda n: [
        Sample((Arg((n, 4)), Arg((4,), 0.5, 1.5), Arg((4,)))), Sample((Arg((2, n, 3)), Arg((3,), 0.5, 1.5), Arg((3,)))),
        # a long last axis: what blocks of a kernel would cut
        *([Sample((Arg((3, n + 2)), Arg((n + 2,), 0.5, 1.5), Arg((n + 2,))))] if n else []),
    ],
    doc="""gain (x - mean) / sqrt(var + eps) + bias over the last axis (Ba et al. 2016).

    Args:
        x: (..., n). gain, bias: (n,).
        eps: what keeps a constant row from dividing by zero.""",
)  # fmt: skip


def _dropout_rule(x, step, *, p, seed, stream, offset):
    same_dtype("dropout", x, kind="float")
    if not 0 <= p <= 1:
        raise ArgumentError("dropout", expected="a probability from 0 to 1", got=f"p={p}")
    if step.shape != () or step.dtype != INT64:
        raise ShapeError("dropout", expected="a step count: an int64 scalar", got=f"{step.dtype} of shape {step.shape}")
    return x


def _dropout_vjp(g, y, x, step, p, seed, stream, offset):
    return dropout(g, step, p=p, seed=seed, stream=stream, offset=offset)


dropout = Op(
    "dropout", "x step", _dropout_rule, attributes={"p": 0.5, "seed": REQUIRED, "stream": 0, "offset": 0},
    keep=(1,), overwrites=(0,), split=splitting.with_offset,
    vjp=(_dropout_vjp, None), flops=lambda out, x, step, **_: x.size,
    samples=lambda n: [
        Sample((Arg((n, 5)), Arg((), 0, 9, kind="int")), {"p": p, "seed": 7, "stream": 1, "offset": offset})
        for p, offset in ((0.5, 0), (0.1, 6), (1.0, 0))
    ],
    doc="""Each element is 0 with probability p, and x / (1 - p) otherwise (Srivastava et al. 2014, inverted form).

    The mask is a function of (seed, stream, step) only: the same on every backend, and in backward.

    Args:
        x: floating, of any shape.
        step: an int64 scalar tensor that changes from call to call.
        p: the probability of a zero. seed, stream: integers.
        offset: how many elements lie before x in the array of which it is a part.""",
)  # fmt: skip
