"""Matrix products: ``matmul`` with batches and vectors, and ``linear``, the layer's x W + b with its activation."""

from __future__ import annotations

import math

from tinynet.errors import ArgumentError, ShapeError
from tinynet.kernels import ACTIVATIONS

from . import splitting
from .elementwise import relu, sigmoid, tanh
from .record import Op, Sample
from .reduction import sum as sum_
from .samples import Arg
from .shaping import expand_dims, reshape, squeeze, transpose
from .spec import Spec, broadcast_shapes, same_dtype


def _matmul_rule(a, b):
    dtype = same_dtype("matmul", a, b)
    if not a.ndim or not b.ndim:
        raise ShapeError("matmul", expected="vectors, matrices or batches of them", got="a scalar", mend="use *")
    if a.shape[-1] != b.shape[-2 if b.ndim > 1 else 0]:
        raise ShapeError(
            "matmul", expected="as many columns on the left as rows on the right", got=f"{a.shape} @ {b.shape}",
            mend="transpose one of them with .T, or reshape it",
        )  # fmt: skip
    batch = broadcast_shapes("matmul", a.shape[:-2], b.shape[:-2])
    return Spec((*batch, *a.shape[-2:-1], *(b.shape[-1:] if b.ndim > 1 else ())), dtype)


def _swap(x):
    """The last two axes exchanged."""
    n = len(x.shape)
    return transpose(x, (*range(n - 2), n - 1, n - 2))


def _matmul_vjp(g, y, a, b, needs):
    """Vectors count as a row on the left and as a column on the right; then it is matrices throughout.

    Gradients over batches that an operand does not have are summed by whoever broadcast them.
    """
    a2 = expand_dims(a, 0) if a.ndim == 1 else a
    b2 = expand_dims(b, 1) if b.ndim == 1 else b
    g2 = expand_dims(g, -1) if b.ndim == 1 else g
    g2 = expand_dims(g2, -2) if a.ndim == 1 else g2
    grads = []
    for need, grad, x, added in zip(needs, (lambda: g2 @ _swap(b2), lambda: _swap(a2) @ g2), (a, b), (-2, -1)):
        if not need:
            grads.append(None)
            continue
        full = grad()
        grads.append(squeeze(full, axis=added) if x.ndim == 1 else full)
    return grads


def _matmul_samples(n):
    for a, b in (((3, n), (n, 2)), ((n, 3), (3, 4)), ((n,), (n,)), ((2, n), (n,)), ((n,), (n, 2)),
                 ((2, 3, n), (2, n, 2)), ((2, 3, n), (n, 2)), ((2, 1, 2, n), (3, n, 2)),
                 ((2, 3, n), (n,))):  # fmt: skip
        yield Sample((Arg(a), Arg(b)))


matmul = Op(
    "matmul", "a b", _matmul_rule, vjp=_matmul_vjp, keep=(0, 1), broadcasts=True, samples=_matmul_samples,
    split=splitting.matrices,
    flops=lambda out, a, b: 2 * out.size * a.shape[-1],
    doc="""The matrix product, by NumPy's rules: (..., m, k) @ (..., k, n) -> (..., m, n), batches broadcast;
    a vector on the left is a row, on the right a column, and its axis is dropped from the result.""",
)  # fmt: skip


def _masked_rule(a, b, h):
    out = _matmul_rule(a, b)
    if same_dtype("masked_matmul", a, b, h) and h != out:
        raise ShapeError("masked_matmul", expected=f"h of the product's shape {out.shape}", got=str(h.shape))
    return out


def _masked_split(n, axes, /, a, b, h):
    cut = splitting.matrices(n, axes[:2], a, b)
    if cut is None or cut.combine != splitting.JOIN or axes[2] not in (None, cut.axis):
        return None
    return cut._replace(cuts=(*cut.cuts, cut.axis))


def _masked_samples(n):
    for low, high in ((-1.0, -0.5), (0.5, 1.0)):  # far from 0, where the mask changes
        yield Sample((Arg((3, 2)), Arg((2, n)), Arg((3, n), low, high)))
        yield Sample((Arg((n, 3)), Arg((3, 4)), Arg((n, 4), low, high)))
    yield Sample((Arg((2, n, 3)), Arg((3, 4)), Arg((2, n, 4))))


masked_matmul = Op(
    "masked_matmul", "a b h", _masked_rule, samples=_masked_samples, split=_masked_split, public=False,
    flops=lambda out, a, b, h: out.size * (2 * a.shape[-1] + 1),
    doc="""a @ b where h > 0, and 0 elsewhere: the gradient through a rectifier whose output h was kept.""",
)  # fmt: skip

# Activations whose derivative is a function of their output: linear can apply one without keeping what it applied to.
_FROM_OUTPUT = {op.name: op for op in (relu, tanh, sigmoid) if op.keep == {"y"}}


def _linear_rule(x, w, *b, activation):
    dtype = same_dtype("linear", x, w, *b, kind="float")
    if w.ndim != 2:
        raise ShapeError("linear", expected="a weight of shape (in_features, out_features)", got=str(w.shape))
    if not x.ndim or x.shape[-1] != w.shape[0]:
        raise ShapeError(
            "linear", expected=f"x of shape (..., {w.shape[0]}) for a weight of {w.shape}", got=str(x.shape)
        )
    if b and b[0].shape != w.shape[1:]:
        raise ShapeError("linear", expected=f"a bias of shape {w.shape[1:]}", got=str(b[0].shape))
    if activation not in ACTIVATIONS:
        raise ArgumentError(
            "linear", expected=f"activation to be None or one of {', '.join(_FROM_OUTPUT)}", got=repr(activation),
            mend="apply other activations to the result",
        )  # fmt: skip
    return Spec((*x.shape[:-1], w.shape[1]), dtype)


def _linear_vjp(g, y, x, w, *b, needs, activation):
    if activation is not None:
        g = _FROM_OUTPUT[activation].vjp[0](g, y, y)
    n = math.prod(y.shape[:-1])  # not -1 in reshape: a layer without features has no count to infer
    rows = reshape(g, (n, w.shape[1]))
    return [
        g @ transpose(w) if needs[0] else None,
        transpose(reshape(x, (n, w.shape[0]))) @ rows if needs[1] else None,
        *([sum_(rows, axis=0) if needs[2] else None] if b else []),
    ]


def _linear_samples(n):
    for activation in ACTIVATIONS:
        # far enough from the kink of relu for finite differences: a bias that is large, one sign per column
        yield Sample((Arg((n, 3), -0.5, 0.5), Arg((3, 2), -0.5, 0.5), Arg((2,), 1.0, 2.0)), {"activation": activation})
    yield Sample((Arg((2, n, 3)), Arg((3, 4))))
    yield Sample((Arg((3,)), Arg((3, 4)), Arg((4,))))
    if n:
        yield Sample((Arg((2, n)), Arg((n, 3)), Arg((3,))))


linear = Op(
    "linear", "x w b?", _linear_rule, attributes={"activation": None}, vjp=_linear_vjp, keep=(0, 1, "y"),
    split=splitting.but_last,
    flops=lambda out, x, w, *b, activation: out.size * (2 * w.shape[0] + len(b)), samples=_linear_samples,
    doc="""activation(x W + b): x of shape (..., in), W of shape (in, out), b of shape (out) or left out.

    activation: None, "relu", "tanh" or "sigmoid".""",
)  # fmt: skip
