"""Losses and penalties: scalars to be minimised. Losses are means over the batch."""

from __future__ import annotations

from collections.abc import Iterable

from tinynet import ops
from tinynet.backend import INTEGERS, host_array
from tinynet.errors import ArgumentError
from tinynet.tensor import Tensor, as_tensor

__all__ = ["cross_entropy", "l1", "l2", "mse"]


def mse(pred, target) -> Tensor:
    """Mean squared error: the mean of (pred - target)^2 over all elements.

    Args:
        pred, target: floating, of one shape; nothing is broadcast.

    Raises:
        ShapeError: shapes that differ, (n, 1) and (n,) included, or an empty batch.
        DTypeError: dtypes that differ, or integers.
    """
    return ops.mse(pred, target)


def cross_entropy(logits, target, label_smoothing: float = 0.0) -> Tensor:
    """The mean over the rows of -sum_k t_k log softmax(logits)_k.

    Args:
        logits: (..., classes), before any softmax.
        target: class indices (...), or rows of probabilities (..., classes).
        label_smoothing: e mixes e / classes into every target and (1 - e) of the given one (Szegedy et al. 2016).

    Raises:
        RangeError: a label outside 0 to classes - 1.
        ShapeError: shapes that do not belong together, or an empty batch.
        DTypeError: targets of a wrong dtype.
        ArgumentError: label_smoothing outside 0 to 1.
    """
    if not 0 <= label_smoothing <= 1:
        raise ArgumentError("cross_entropy", expected="label_smoothing from 0 to 1", got=repr(label_smoothing))
    logits = as_tensor(logits)
    if isinstance(target, (*INTEGERS, list, tuple)):
        array = host_array(target)  # numbers: labels if whole and one axis short, else probabilities
        labels = array.ndim < logits.ndim and bool((array == array.round()).all())
        target = host_array(target, "int64") if labels else array
    rows = ops.softmax_cross_entropy(logits, target)
    if label_smoothing:
        uniform = -ops.mean(ops.log_softmax(logits), axis=-1)
        rows = rows * (1 - label_smoothing) + uniform * label_smoothing
    return ops.mean(rows)


def l1(parameters: Iterable[Tensor], strength: float) -> Tensor:
    """strength times the sum of absolute values, to be added to a loss. Drives small weights to zero."""
    return _penalty(parameters, strength, ops.abs)


def l2(parameters: Iterable[Tensor], strength: float) -> Tensor:
    """strength times the sum of squares, to be added to a loss. Its gradient is 2 * strength * p."""
    return _penalty(parameters, strength, ops.square)


def _penalty(parameters, strength, size) -> Tensor:
    total = None
    for p in parameters:
        part = ops.sum(size(p))
        total = part if total is None else total + part
    if total is None:
        raise ArgumentError("penalty", expected="at least one parameter", got="none")
    return total * strength
