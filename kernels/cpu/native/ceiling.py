"""The core's measured peak: fused multiply-adds that wait for nothing, to hold the products against.

Twelve chains of multiply-adds live in registers and touch no memory. Two units with a latency of four cycles need eight
chains to be busy all the time; twelve leave room, and fit machines with sixteen registers.
"""

from __future__ import annotations

import functools
import math
import time

import numpy as np
from llvmlite import ir
from numba import float32, float64, int64, types
from numba.extending import intrinsic

from .emit import Code
from .machine import compiled, widths

CHAINS = 12


@intrinsic(prefer_literal=True)
def multiply_adds(typing, size, lanes, count, seed):
    """``count`` rounds of ``CHAINS`` multiply-adds of ``lanes`` elements; returns a number that depends on them all."""
    result = types.float32 if size.literal_value == 4 else types.float64
    signature = result(size, lanes, types.int64, result)
    size, lanes = size.literal_value, lanes.literal_value

    def codegen(context, builder, signature, arguments):
        code = Code(builder, size, lanes)
        _, _, count, seed = arguments
        factor = code.spread(seed)
        chains = [code.spread(builder.fmul(seed, ir.Constant(code.element, float(i)))) for i in range(CHAINS)]
        chains = code.loop(count, chains, lambda values: [code.multiply_add(each, factor, factor) for each in values])
        total = chains[0]
        for each in chains[1:]:
            total = builder.fadd(total, each)
        return total if lanes == 1 else builder.extract_element(total, ir.Constant(ir.IntType(32), 0))

    return signature, codegen


@functools.cache
def loop(size: int, width: int):
    """The compiled loop: ``loop(rounds, seed)``, each round ``flops(size, width)`` operations."""
    SIZE, LANES = size, width // 8 // size
    kind = float32 if size == 4 else float64

    @compiled(kind(int64, kind), size, width)
    def rounds(count, seed):
        return multiply_adds(SIZE, LANES, count, seed)

    return rounds


def flops(size: int, width: int) -> int:
    """Floating-point operations of a round: a multiply-add counts as two."""
    return 2 * CHAINS * (width // 8 // size)


def peak(dtype="float32", width: int | None = None, seconds: float = 0.1) -> float:
    """Multiply-adds of this core, in FLOP/s: the best of short runs, for about so many seconds."""
    size, width = np.dtype(dtype).itemsize, width or widths()[0]
    run, count, best, start = loop(size, width), 20_000, math.inf, time.perf_counter()
    while (now := time.perf_counter()) - start < seconds or best == math.inf:
        run(count, 0.5)
        best = min(best, time.perf_counter() - now)
    return count * flops(size, width) / best
