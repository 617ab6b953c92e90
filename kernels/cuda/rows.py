"""Kernels for CUDA that work on rows: softmax, cross-entropy, layer norm. The sources are ``code/rows.cu``."""

from __future__ import annotations

import math

import numpy as np

from . import encoding
from .encoding import Launch, aligned, cuda, integer, line, number, pointer, rows, stride

# The versions for short rows: lanes that share a row, and elements that each of them keeps.
SHORT = ((8, 2), (32, 8), (32, 32))
SHORT_THREADS = 128
LONG_THREADS = ((8192, 256), (math.inf, 512))  # of a block, for rows up to that length


def _launch(name: str, x, wide: bool, arguments: tuple, keep: tuple):
    """The version for rows as long as those of ``x``.

    Args:
        wide: whether 16 bytes can be loaded at once.
    """
    n = x.shape[-1] if x.ndim else 1
    count = math.prod(x.shape[:-1])
    for lanes, each in SHORT:
        if n <= lanes * each:
            grid, block = encoding.blocks_of(count, SHORT_THREADS // lanes), SHORT_THREADS
            version = f"{lanes}x{each}"
            break
    else:
        grid, version = (count, 1, 1), "block_wide" if wide else "block"
        block = next(threads for most, threads in LONG_THREADS if n <= most)
    function = f"{name}_{version}{encoding.suffix(x)}"
    return [Launch("rows", function, grid, (block, 1, 1), (*arguments, integer(count), integer(n)), keep=keep)]


@cuda("softmax")
def softmax(out, x, axis):
    return _softmax(out, x, axis, False)


@cuda("log_softmax")
def log_softmax(out, x, axis):
    return _softmax(out, x, axis, True)


def _softmax(out, x, axis: int, logarithmic: bool):
    if 0 in x.shape:
        return []
    strides = rows(out, x)
    if axis not in (-1, x.ndim - 1) or strides is None:
        return None
    wide = aligned(out, strides[0]) and aligned(x, strides[1])
    arguments = (pointer(out), integer(strides[0]), pointer(x), integer(strides[1]), np.int32(logarithmic))
    return _launch("softmax", x, wide, arguments, (out, x))


@cuda("softmax_cross_entropy")
def softmax_cross_entropy(out, logits, target):
    return _entropy(out, None, logits, target, None)


@cuda("softmax_cross_entropy_grad")
def softmax_cross_entropy_grad(out, logits, target, g):
    return _entropy(None, out, logits, target, g)


@cuda("softmax_cross_entropy_both")
def softmax_cross_entropy_both(out, logits, target, g):
    return _entropy(*out, logits, target, g)


def _entropy(losses, grad, logits, target, g):
    if 0 in logits.shape:
        return []
    indexed = target.ndim < logits.ndim
    if not indexed and target.dtype != logits.dtype:
        return None
    arguments, keep, wide = (), (), True
    for each, is_row in ((losses, False), (grad, True), (logits, True), (target, not indexed), (g, False)):
        if each is None:
            arguments += (pointer(None), integer(0))
            continue
        (apart,) = (rows(each) or [None]) if is_row else [stride(each)]
        if apart is None:
            return None
        wide = wide and (not is_row or aligned(each, apart))
        arguments += (pointer(each), integer(apart))
        keep += (each,)
    name = "entropy_indices" if indexed else "entropy_rows"
    return _launch(name, logits, wide, (*arguments, np.int32(encoding.integer_kind(target) if indexed else 0)), keep)


@cuda("layer_norm")
def layer_norm(out, x, gain, bias, eps):
    if 0 in x.shape:
        return []
    strides = rows(out, x)
    if strides is None or not line(gain, bias):
        return None
    wide = aligned(out, strides[0]) and aligned(x, strides[1]) and aligned(gain) and aligned(bias)
    places = (pointer(out), integer(strides[0]), pointer(x), integer(strides[1]), pointer(gain), pointer(bias))
    return _launch("layer_norm", x, wide, (*places, number(eps, x.dtype)), (out, x, gain, bias))
