"""Whether integers lie between two numbers: labels and indices, looked at before a step writes anything."""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from ..emit import I64, number
from ..library import operation
from .words import word


@operation("outside")
def outside(size: int, width: int):
    def run(words, thread, threads):
        address, count, nbytes, signed = word(words, 1), word(words, 2), word(words, 3), word(words, 4)
        low, high, found = word(words, 5), word(words, 6), 0
        for i in range(count):
            value = integer(address + i * nbytes, nbytes, signed)
            found += value < low or value >= high
        put(word(words, 0), found)

    return run


@intrinsic
def integer(typing, address, nbytes, signed):
    """The integer of 1, 2, 4 or 8 bytes at an address. One of 8 bytes without a sign is taken for one with."""

    def codegen(context, builder, signature, arguments):
        address, nbytes, signed = arguments
        after = builder.append_basic_block("read")
        switch = builder.switch(nbytes, after)
        before, found = builder.block, []
        for size in (1, 2, 4, 8):
            block = builder.append_basic_block(f"bytes{size}")
            switch.add_case(number(size), block)
            builder.position_at_end(block)
            value = builder.load(builder.inttoptr(address, ir.IntType(8 * size).as_pointer()), align=size)
            if size < 8:
                value = builder.select(
                    builder.icmp_signed("!=", signed, number(0)), builder.sext(value, I64), builder.zext(value, I64)
                )
            builder.branch(after)
            found.append((value, builder.block))
        builder.position_at_end(after)
        phi = builder.phi(I64)
        for value, block in ((number(0), before), *found):
            phi.add_incoming(value, block)
        return phi

    return types.int64(types.int64, types.int64, types.int64), codegen


@intrinsic
def put(typing, address, value):
    """Writes a word."""

    def codegen(context, builder, signature, arguments):
        builder.store(arguments[1], builder.inttoptr(arguments[0], I64.as_pointer()), align=8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen
