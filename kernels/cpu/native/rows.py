"""Native kernels that work on rows: softmax, cross-entropy, layer norm; and the mean of squares."""

from __future__ import annotations

import math

from .encoding import address, native, useful_threads
from .instructions import Instruction
from .layouts import CHUNK, index_kind, line, rows, stride

# Bytes of rows that are worked on together: with what else is read and written they stay in the first-level cache.
GROUP_BYTES = 12 * 1024
SHARED = 2**20  # elements from which several threads make it
MOST = 16  # lanes of the widest vector: rows of a group; compiled code takes fewer where it has fewer


def _instruction(name: str, x, words: tuple, keep: tuple, per_element: float, per_row: float = 6.0):
    """An operation on rows of ``x``, and what it costs in nanoseconds."""
    n = x.shape[-1]
    count = math.prod(x.shape[:-1])
    cost = (per_element * n * x.itemsize / 4 + per_row) * count
    group = max(1, min(MOST, GROUP_BYTES // (n * x.itemsize)))
    return [Instruction(name, x.itemsize, (count, n, group, *words), keep, useful_threads(cost), cost)]


@native("softmax")
def softmax(out, x, axis):
    return _softmax("softmax", out, x, axis, 0.3)


@native("log_softmax")
def log_softmax(out, x, axis):
    return _softmax("log_softmax", out, x, axis, 0.35)


def _softmax(name: str, out, x, axis: int, cost: float):
    if x.size == 0:
        return []
    strides = rows(out, x)
    if axis not in (-1, x.ndim - 1) or strides is None:
        return None
    words = (address(out), strides[0], address(x), strides[1])
    return _instruction(name, x, words, (out, x), cost)


@native("softmax_cross_entropy")
def softmax_cross_entropy(out, logits, target):
    return _entropy("entropy", out, None, logits, target, None)


@native("softmax_cross_entropy_grad")
def softmax_cross_entropy_grad(out, logits, target, g):
    return _entropy("entropy_grad", None, out, logits, target, g)


@native("softmax_cross_entropy_both")
def softmax_cross_entropy_both(out, logits, target, g):
    return _entropy("entropy_both", *out, logits, target, g)


def _entropy(name: str, losses, grad, logits, target, g):
    if not logits.size:
        return []
    indexed = target.ndim < logits.ndim
    words, keep = (), ()
    for each, is_row in ((losses, False), (grad, True), (logits, True), (target, not indexed), (g, False)):
        if each is None:
            words += (0, 0)
            continue
        apart = rows(each) if is_row else [stride(each)]
        if apart is None or apart == [None]:
            return None
        words += (address(each), apart[0])
        keep += (each,)
    name += "_indices" if indexed else "_rows"
    return _instruction(name, logits, (*words, index_kind(target) if indexed else 0), keep, 0.35, 10.0)


@native("layer_norm")
def layer_norm(out, x, gain, bias, eps):
    if not x.size:
        return []
    strides = rows(out, x)
    if strides is None or not line(gain, bias):
        return None
    words = (address(out), strides[0], address(x), strides[1], address(gain), address(bias), float(eps))
    return _instruction("layer_norm", x, words, (out, x, gain, bias), 0.2)


def _mse_scratch(out, prediction, target) -> int:
    """A double for each chunk, where threads share them."""
    count = math.prod(prediction.shape)
    return 8 * -(-count // CHUNK) if count >= SHARED else 0


@native("mse", scratch=_mse_scratch)
def mse(out, prediction, target, scratch):
    if not prediction.size or not line(prediction, target):
        return None
    count, size, keep = prediction.size, prediction.itemsize, (out, prediction, target)
    inputs, cost = (address(prediction), address(target)), 0.03 * prediction.nbytes
    threads = useful_threads(cost)
    if count < SHARED or threads == 1:
        return [Instruction("mse", size, (count, address(out), *inputs), keep, 1, cost)]
    chunks = -(-count // CHUNK)
    return [
        Instruction("mse_chunks", size, (count, address(scratch), *inputs), (*keep, scratch), threads, cost),
        Instruction("mse_mean", size, (count, address(out), chunks, address(scratch)), (*keep, scratch), 1, chunks),
    ]
