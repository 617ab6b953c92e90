"""Products of operands that are given in bf16: the upper 16 bits of a float32, kept as integers.

No array library of the standard has that type. What is computed is what the products of float32 compute of the same
numbers.
"""

from __future__ import annotations

from ..precision import PRODUCTS, of_bf16
from ..registry import register
from . import linalg


@register("to_bf16")
def to_bf16(out, x):
    """Rounds float32 to 8 significant bits: to the nearest, ties to even; NaN stays NaN."""
    bits = x.view("uint32")
    rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    rounded[x != x] = 0x7FFF
    out[...] = rounded.astype("uint16")


def from_bf16(x):
    """The same numbers in float32."""
    return (x.astype("uint32") << 16).view("float32")


def _given_in_bf16(product):
    def kernel(out, a, b, *rest, **attributes):
        product(out, from_bf16(a), from_bf16(b), *rest, **attributes)

    return kernel


for _name in PRODUCTS:
    register(of_bf16(_name))(_given_in_bf16(getattr(linalg, _name)))
