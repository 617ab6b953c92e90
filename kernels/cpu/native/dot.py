"""Matrix times vector, where the sum runs along memory: rows of a matrix against one vector.

Here there is nothing to reuse but the vector: every element of the matrix takes part once, and the speed is that at
which it can be read. Four rows at a time, two vectors of each, make eight chains of multiply-adds.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .emit import Code, choose, function, number

ROWS, TURN = 4, 2


def write_dot(size: int, lanes: int, rows: int):
    def write(builder, k, a, a_row, x, c, c_row, accumulate):
        code = Code(builder, size, lanes)
        width = size * lanes
        a_rows = [0, *(code.times(a_row, i) for i in range(1, rows))]
        rest = builder.srem(k, number(lanes))

        def step(load, a, x, sums):
            piece = load(x)
            return [code.multiply_add(load(code.at(a, a_rows[i])), piece, sums[i]) for i in range(rows)]

        def turn(values):
            a, x, *sums = values
            first = step(code.load, a, x, sums[:rows])
            sums = [*first, *step(code.load, code.at(a, width), code.at(x, width), sums[rows:])]
            return [code.at(a, TURN * width), code.at(x, TURN * width), *sums]

        def once(values):
            a, x, *sums = values
            return [code.at(a, width), code.at(x, width), *step(code.load, a, x, sums[:rows]), *sums[rows:]]

        full = builder.sdiv(k, number(lanes))
        values = [a, x, *[code.constant(0.0)] * (TURN * rows)]
        values = code.loop(builder.sdiv(full, number(TURN)), values, turn)
        a, x, *sums = code.loop(builder.srem(full, number(TURN)), values, once)
        mask = code.mask(rest)
        last = step(lambda address: code.load_masked(address, mask), a, x, sums[:rows])
        add = builder.icmp_signed("!=", accumulate, number(0))
        for i in range(rows):
            value = code.across(builder.fadd(last[i], sums[rows + i]), builder.fadd)
            address = code.pointer(code.at(c, code.times(c_row, i)) if i else c, code.element)
            before = builder.block
            with builder.if_then(add):
                sum_, inside = builder.fadd(builder.load(address, align=size), value), builder.block
            phi = builder.phi(code.element)
            phi.add_incoming(value, before)
            phi.add_incoming(sum_, inside)
            builder.store(phi, address, align=size)

    return write


@intrinsic(prefer_literal=True)
def dot(typing, size, lanes, rows, k, a, a_row, x, c, c_row, accumulate):
    """C[i] (+)= sum over k of A[i, k] x[k] for ``rows`` rows, 1 or ``ROWS``.

    The elements of x and those of a row of A lie side by side; strides and addresses are as in ``tile``.
    """
    signature = types.void(size, lanes, *[types.int64] * 8)
    size, lanes = size.literal_value, lanes.literal_value

    def codegen(context, builder, signature, arguments):
        functions = [
            function(builder.module, f"dot_{8 * size}_{lanes}_{rows}", 7, write_dot(size, lanes, rows))
            for rows in (1, ROWS)
        ]
        several = builder.zext(builder.icmp_signed(">", arguments[2], number(1)), ir.IntType(64))
        choose(builder, several, functions, list(arguments[3:]))
        return context.get_dummy_value()

    return signature, codegen
