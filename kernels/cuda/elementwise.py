"""Kernels for CUDA of expressions, element by element, and what is one under another name: addition in place, casts.

``derive`` makes the kernel of any expression, or of one that is reduced at once (``reductions``). The sources are
written by ``chains``.
"""

from __future__ import annotations

import math

from .. import registry
from ..expression import Expression, Node
from .chains import THREADS, Chain, Way
from .encoding import apart, blocks_of, cuda, integer, kernel
from .reductions import Reduction
from .translation import Declined
from .walks import over, pack, walk

MOST_AXES = 6  # that do not merge


def derive(expression: Expression, name: str, reduce: str | None = None) -> registry.Kernel:
    """The kernel of an expression, or of its reduction."""
    otherwise = registry.derive(expression, "cupy", name, reduce)
    if reduce is not None:
        made = Reduction(expression, reduce)
        return kernel(name, made.encode, made.scratch, otherwise)
    return kernel(name, Map(expression).encode, None, otherwise)


class Map:
    """An expression, element by element: the inputs are broadcast to the result, which may be one of them."""

    def __init__(self, expression: Expression):
        self.chain = Chain(expression)

    def encode(self, out, *inputs, **attributes):
        n = math.prod(out.shape)
        if not n:
            return []
        arrays = (out, *inputs)
        strides = tuple([over(each, out.shape) for each in arrays])
        if None in strides or not apart(out, *inputs):
            return None
        found = walk(tuple(out.shape), strides)
        if len(found.sizes) > MOST_AXES:
            return None
        try:
            translation = self.chain.translation([each.dtype for each in inputs], attributes, out.dtype)
        except Declined:
            return None
        count = pack(found, len(found.sizes) - 1, arrays, [each.dtype.itemsize for each in arrays])
        way = Way(f"map_chain<{count}>", ("int64",))
        grid = blocks_of(n, THREADS * count)
        return [self.chain.launch(translation, attributes, found, arrays, way, grid, (THREADS, 1, 1), (integer(n),))]


_sum = Map(Expression("x + value", ("x", "value")))
cuda("accumulate", dtypes=(None,))(_sum.encode)

_same = Map(Expression(Node("name", ("x",)), ("x",)))


@cuda("cast", dtypes=(None,))
def cast(out, x, dtype):
    return _same.encode(out, x)
