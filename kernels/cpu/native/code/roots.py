"""Square roots and reciprocals faster than the processor's own: an approximation and Newton's iterations.

A 512-bit vector of square roots and one of quotients occupy the divider for some 35 cycles (70 in double precision);
an approximation of 14 bits takes two, and each iteration, which doubles the bits, a few multiply-adds on both ports.
The results are off by one unit in the last place at most, and are those of the instructions at 0, infinity and NaN.
Where vectors are shorter the divider is not what one waits for, and the instructions are used.
"""

from __future__ import annotations

import math

from llvmlite import ir

from .. import machine
from ..emit import Code

ITERATIONS = {4: 1, 8: 2}  # from 14 bits to 24 and to 53


def approximates(code: Code) -> bool:
    return code.lanes * code.size == 64 and bool(machine.features().get("avx512f"))


def square_root(code: Code, x):
    """sqrt(x): Goldschmidt's iteration for s = sqrt(x) and h = 1 / (2 sqrt(x))."""
    builder = code.builder
    if not approximates(code):
        return builder.call(code.declare(f"llvm.sqrt.{code.suffix}", code.vector, [code.vector]), [x])
    y, half = _approximate(code, "rsqrt14", x), code.constant(0.5)
    s, h = builder.fmul(x, y), builder.fmul(y, half)
    for i in range(ITERATIONS[code.size]):
        last = i + 1 == ITERATIONS[code.size]
        if last and i:
            # what x - s^2 says is exact where the product of s and h has been rounded
            error = code.multiply_add(builder.fneg(s), s, x)
            s = code.multiply_add(error, h, s)
        else:
            error = code.multiply_add(builder.fneg(h), s, half)
            s, h = code.multiply_add(s, error, s), code.multiply_add(h, error, h)
    limit = builder.or_(
        builder.fcmp_ordered("==", x, code.constant(0.0)), builder.fcmp_ordered("==", x, code.constant(math.inf))
    )
    return builder.select(limit, x, s)


def reciprocal(code: Code, x, bounded: bool = False):
    """1 / x; of a number so small that this is infinite, infinity.

    ``bounded``: x is neither that small nor infinite.
    """
    builder, one = code.builder, code.constant(1.0)
    if not approximates(code):
        return builder.fdiv(one, x)
    y = start = _approximate(code, "rcp14", x)
    for _ in range(ITERATIONS[code.size]):
        error = code.multiply_add(builder.fneg(x), y, one)
        y = code.multiply_add(y, error, y)
    if bounded:
        return y
    # at 0 and infinity the approximation is exact, and the error is 0 times infinity
    return builder.select(builder.fcmp_unordered("uno", y, y), start, y)


def _approximate(code: Code, name: str, x):
    lanes = ir.IntType(max(8, code.lanes))
    suffix = "ps" if code.size == 4 else "pd"
    function = code.declare(f"llvm.x86.avx512.{name}.{suffix}.512", code.vector, [code.vector, code.vector, lanes])
    every = ir.Constant(lanes, (1 << code.lanes) - 1)
    return code.builder.call(function, [x, code.constant(0.0), every])
