"""What dense networks need beyond matrices: softmax, losses, normalisation, dropout."""

from __future__ import annotations

from ..registry import register
from .common import wide, write
from .random import random_bits, threshold


def log_softmax_of(x, axis):
    """log softmax in float64; the largest logit is taken off first, so that no exponential overflows."""
    xp, x = wide(x)
    shifted = x - xp.max(x, axis=axis, keepdims=True)
    return xp, shifted - xp.log(xp.sum(xp.exp(shifted), axis=axis, keepdims=True))


@register("softmax")
def softmax(out, x, axis):
    xp, logs = log_softmax_of(x, axis) if x.size else (x.__array_namespace__(), x)
    write(out, xp.exp(logs))


@register("log_softmax")
def log_softmax(out, x, axis):
    write(out, log_softmax_of(x, axis)[1] if x.size else x)


@register("softmax_cross_entropy")
def softmax_cross_entropy(out, logits, target):
    """Per row: minus the sum of target probability times log softmax; an index stands for its unit row."""
    xp, logs = log_softmax_of(logits, -1)
    if target.ndim == logits.ndim:
        # 0 * -inf is no loss: a class without probability does not count, however impossible the logits make it
        weighted = xp.where(target == 0, xp.zeros_like(logs), xp.astype(target, logs.dtype) * logs)
    else:
        classes = xp.arange(logits.shape[-1], dtype=target.dtype, device=target.device)
        weighted = xp.where(target[..., None] == classes, logs, xp.zeros_like(logs))
    write(out, -xp.sum(weighted, axis=-1))


def cross_entropy_slope(logits, target, g):
    """The derivative of the rows of cross-entropy, in float64: (softmax * sum of t - t) * g."""
    xp, logs = log_softmax_of(logits, -1)
    if target.ndim == logits.ndim:
        rows = xp.astype(target, logs.dtype)
    else:
        classes = xp.arange(logits.shape[-1], dtype=target.dtype, device=target.device)
        rows = xp.astype(target[..., None] == classes, logs.dtype)
    total = xp.sum(rows, axis=-1, keepdims=True)
    return (xp.exp(logs) * total - rows) * wide(g)[1][..., None]


@register("softmax_cross_entropy_grad")
def softmax_cross_entropy_grad(out, logits, target, g):
    """What the logits get where the rows of softmax_cross_entropy get g."""
    write(out, cross_entropy_slope(logits, target, g))


@register("softmax_cross_entropy_both")
def softmax_cross_entropy_both(out, logits, target, g):
    """The rows of softmax_cross_entropy, and what the logits get where those get g."""
    rows, grad = out
    slope = cross_entropy_slope(logits, target, g)
    softmax_cross_entropy(rows, logits, target)
    write(grad, slope)


@register("mse")
def mse(out, prediction, target):
    xp, prediction = wide(prediction)
    difference = prediction - wide(target)[1]
    write(out, xp.mean(difference * difference))


@register("layer_norm")
def layer_norm(out, x, gain, bias, eps):
    xp, x = wide(x)
    centred = x - xp.mean(x, axis=-1, keepdims=True)
    variance = xp.mean(centred * centred, axis=-1, keepdims=True)
    write(out, centred / xp.sqrt(variance + eps) * gain + bias)


@register("dropout")
def dropout(out, x, step, p, seed, stream, offset=0):
    """x / (1 - p) where the random bits reach p, else 0: the mask is a function of (seed, stream, step) alone.

    ``offset`` is the place of x in a larger batch, counted in elements.
    """
    xp = x.__array_namespace__()
    kept = random_bits(x, step, seed, stream, offset) >= threshold(p)
    scale = 1 / (1 - p) if p < 1 else 0.0
    out[...] = xp.where(kept, x * scale, xp.zeros_like(x)) if p < 1 else xp.zeros_like(x)
