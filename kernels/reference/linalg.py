"""Matrix products, accumulated in float64."""

from __future__ import annotations

from ..registry import expression, register
from .common import wide, write


@register("matmul")
def matmul(out, a, b):
    xp, a = wide(a)
    write(out, xp.matmul(a, wide(b)[1]))


@register("linear")
def linear(out, x, w, *b, activation):
    """activation(x W + b), rounded once; the activation is the elementwise operation of that name."""
    xp, wide_x = wide(x)
    y = xp.matmul(wide_x, wide(w)[1])
    for bias in b:
        y = y + bias
    if activation is not None:
        y = expression(activation).function()(xp, y)
    write(out, y)


@register("masked_matmul")
def masked_matmul(out, a, b, h):
    xp, a = wide(a)
    product = xp.matmul(a, wide(b)[1])
    write(out, xp.where(h > 0, product, xp.zeros_like(product)))
