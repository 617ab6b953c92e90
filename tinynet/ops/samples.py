"""How a record describes inputs for its tests.

The suite fills each ``Arg`` with numbers, in the element type and the memory layout that it is about to try. Records
therefore say only what matters to the mathematics: shapes, the interval to draw from, and points to keep away from,
where a function has a kink that finite differences would step over.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from .record import Sample


class Arg(NamedTuple):
    """One array input: ``kind`` is "float", "int", "bool" or "rows" (floats whose last axis sums to one)."""

    shape: tuple[int, ...]
    low: float = -2.0
    high: float = 2.0
    avoid: tuple[float, ...] = ()
    kind: str = "float"


def unary(low=-2.0, high=2.0, avoid=(), **attributes):
    """Samples of an elementwise operation of one input: a vector, a matrix, a 3-d block."""

    def samples(n: int) -> Iterator[Sample]:
        for shape in ((n,), (2, n), (n, 1, 3)):
            yield Sample((Arg(shape, low, high, avoid),), attributes)

    return samples


def binary(low=-2.0, high=2.0, kind="float", second: tuple[float, float] | None = None):
    """Samples of an elementwise operation of two inputs: equal shapes, and broadcast both ways."""
    other = second or (low, high)

    def samples(n: int) -> Iterator[Sample]:
        for a, b in (((n,), (n,)), ((3, n), (n,)), ((n, 1), (1, 4)), ((), (2, n))):
            yield Sample((Arg(a, low, high, kind=kind), Arg(b, *other, kind=kind)))

    return samples


def reduction(empty: bool = False, **attributes):
    """Samples over one axis, several, all, with and without keepdims. ``empty``: whether 0 elements have a result."""

    def samples(n: int) -> Iterator[Sample]:
        if n == 0 and not empty:
            return
        x = Arg((n, 3))
        for axis, keepdims in ((None, False), (0, False), (-1, True), ((0, 1), True)):
            yield Sample((x,), dict(axis=axis, keepdims=keepdims, **attributes))
        yield Sample((Arg((2, n, 2)),), dict(axis=1, keepdims=False, **attributes))

    return samples
