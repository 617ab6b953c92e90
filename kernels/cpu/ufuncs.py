"""Kernels in NumPy's own functions with ``out=``: in the element type itself, where the reference widens to float64.

Only operations that are hot, or that the array-API standard can only say in a roundabout way, have a kernel here; the
rest run on the reference. Elementwise operations are derived from their expressions.
"""

from __future__ import annotations

import math

import numpy as np

from ..reference.indexing import slices
from ..registry import find, register


@register("sum", "numpy")
def sum_(out, x, axis, keepdims):
    np.add.reduce(x, axis=axis, keepdims=keepdims, out=out, dtype=out.dtype)


@register("mean", "numpy")
def mean(out, x, axis, keepdims):
    np.add.reduce(x, axis=axis, keepdims=keepdims, out=out)
    out /= math.prod(x.shape[i] for i in axis)


@register("max", "numpy")
def max_(out, x, axis, keepdims):
    np.maximum.reduce(x, axis=axis, keepdims=keepdims, out=out)


@register("min", "numpy")
def min_(out, x, axis, keepdims):
    np.minimum.reduce(x, axis=axis, keepdims=keepdims, out=out)


@register("sum_to", "numpy")
def sum_to(out, x, shape):
    lead = x.ndim - len(shape)
    stretched = tuple(i for i in range(x.ndim) if i < lead or (shape[i - lead] == 1 and x.shape[i] != 1))
    kept = tuple(1 if i in stretched else n for i, n in enumerate(x.shape))
    np.add.reduce(x, axis=stretched, keepdims=True, out=out.reshape(kept))


@register("matmul", "numpy")
def matmul(out, a, b):
    np.matmul(a, b, out=out)


@register("linear", "numpy")
def linear(out, x, w, *b, activation):
    np.matmul(x, w, out=out)
    for bias in b:
        out += bias
    if activation is not None:
        find(activation, "numpy")(out, out)


@register("scatter_add", "numpy")
def scatter_add(out, x, indices, axis, size):
    out[...] = 0
    np.add.at(out, (slice(None),) * axis + (indices,), x)


@register("setitem_zeros", "numpy")
def setitem_zeros(out, x, index, shape):
    out[...] = 0
    out[slices(entry for entry in index if entry is not None)] = x.reshape(
        tuple(n for n, new in zip(x.shape, _new_axes(index)) if not new)
    )


def _new_axes(index):
    """For each axis of an indexed result, whether the index made it."""
    return [entry is None for entry in index if not isinstance(entry, int)]


@register("softmax", "numpy")
def softmax(out, x, axis):
    if x.size:
        np.subtract(x, np.max(x, axis=axis, keepdims=True), out=out)
        np.exp(out, out=out)
        out /= np.add.reduce(out, axis=axis, keepdims=True)


@register("log_softmax", "numpy")
def log_softmax(out, x, axis):
    if x.size:
        np.subtract(x, np.max(x, axis=axis, keepdims=True), out=out)
        out -= np.log(np.add.reduce(np.exp(out), axis=axis, keepdims=True))


@register("softmax_cross_entropy", "numpy")
def softmax_cross_entropy(out, logits, target):
    peak = np.max(logits, axis=-1, keepdims=True)
    shifted = logits - peak
    np.log(np.add.reduce(np.exp(shifted), axis=-1), out=out)
    if target.ndim == logits.ndim:
        log_p = shifted - out[..., None]
        log_p *= target
        np.copyto(log_p, 0, where=target == 0)  # 0 * -inf is no loss
        np.negative(np.add.reduce(log_p, axis=-1), out=out)
    else:
        out -= np.take_along_axis(shifted, target[..., None], axis=-1)[..., 0]


@register("mse", "numpy")
def mse(out, prediction, target):
    difference = np.subtract(prediction, target).reshape(-1)
    np.matmul(difference, difference, out=out)
    out /= difference.size


@register("layer_norm", "numpy")
def layer_norm(out, x, gain, bias, eps):
    np.subtract(x, np.mean(x, axis=-1, keepdims=True), out=out)
    out /= np.sqrt(np.mean(np.square(out), axis=-1, keepdims=True) + x.dtype.type(eps))
    out *= gain
    out += bias


@register("gd", "numpy")
def gd(out, p, g, lr, weight_decay):
    change = np.multiply(p, weight_decay) + g if weight_decay else g
    np.subtract(p, lr * change, out=out)


@register("gd_momentum", "numpy")
def gd_momentum(out, p, g, velocity, lr, momentum, nesterov, weight_decay):
    out_p, out_v = out
    change = np.multiply(p, weight_decay) + g if weight_decay else g
    np.multiply(velocity, momentum, out=out_v)
    out_v += change
    np.subtract(p, lr * (change + momentum * out_v if nesterov else out_v), out=out_p)


@register("adam", "numpy")
def adam(out, p, g, m, v, lr, step, beta1, beta2, eps, weight_decay, decoupled):
    out_p, out_m, out_v = out
    t, rate = int(step), float(lr)
    if weight_decay and decoupled:
        np.multiply(p, 1 - rate * weight_decay, out=out_p)
    elif weight_decay:
        g = np.multiply(p, weight_decay) + g
    np.multiply(m, beta1, out=out_m)
    out_m += (1 - beta1) * g
    scratch = np.empty_like(p)  # also where p has no axes, and a product would be a number
    np.multiply(g, g, out=scratch)
    scratch *= 1 - beta2
    np.multiply(v, beta2, out=out_v)
    out_v += scratch
    np.sqrt(out_v, out=scratch)
    scratch /= math.sqrt(1 - beta2**t)
    scratch += eps
    np.divide(out_m, scratch, out=scratch)
    scratch *= rate / (1 - beta1**t)
    np.subtract(out_p if weight_decay and decoupled else p, scratch, out=out_p)
