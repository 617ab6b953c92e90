"""The micro-kernel: a tile of C in registers (step 4 of the ladder).

A tile of ``rows`` x ``vectors`` vectors stays in registers for the whole of k. Each step of k loads one row of B
(``vectors`` loads), spreads one element of each row of A over a register (``rows`` loads), and issues ``rows`` x
``vectors`` fused multiply-adds. So 6 x 4 vectors of 16 make 24 multiply-adds of 10 loads, and a core that starts two of
each a cycle is kept busy by the multiply-adds alone; 24 of its 32 registers hold C, 4 the row of B, one the element of
A. More rows or vectors and registers would be spilled to memory inside the loop; fewer, and loads would be what limits
(Goto and van de Geijn, Anatomy of High-Performance Matrix Multiplication, 2008; Van Zee and van de Geijn, BLIS, 2015).

The loop is not unrolled: with several steps in one block LLVM hoists the loads of all of them and spills. Its bound is
24 multiply-adds in 12 cycles, and 37 instructions fit those twice over.

Strides are arguments: a transposed A is one whose rows and steps have changed places, and a packed operand one whose
stride is small. Each element of C is one chain of multiply-adds in the order of k, whatever the tile, the blocking or
the vector width: all of them give the same bits.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .emit import I64, Code, choose, function, number
from .packing import parts

WIDE = 4  # a tile of one row is that many times as wide as others
AHEAD = 8  # rows of B that are asked for before they are needed: they come from the second-level cache
ARGUMENTS = 14
NOTHING = -1  # as a place of a line, of which there is none at an odd number of bytes


def write_tile(
    size: int, lanes: int, rows: int, vectors: int, masked: bool = False, copying: int = 0, asking: bool = False
):  # fmt: skip
    """What writes the function of one tile: see ``tile`` for its arguments.

    Args:
        copying: elements of each row of the transposed A that are copied on the way; 0 for none. The last arguments are
            then the addresses of the source and of the copy.
        asking: whether each step of k asks for a cache line. The last arguments are then the address of the lines'
            places, and what they are relative to.
    """

    def write(
        builder, k, a, a_row, a_step, b, b_step, b_next, c, c_row, c_next, rest, start, start_row, rectify, *beside
    ):  # fmt: skip
        code = Code(builder, size, lanes)
        width = size * lanes
        mask = code.mask(rest) if masked else None
        far = code.times(b_step, AHEAD)
        a_rows = [0, *(code.times(a_row, i) for i in range(1, rows))]

        def load(address, last):
            return code.load_masked(address, mask) if masked and last else code.load(address)

        def places(first, apart):
            for i in range(rows):
                row = code.at(first, code.times(apart, i)) if i else first
                for v in range(vectors):
                    yield code.at(row, v * width), v == vectors - 1

        for address, _ in places(c_next, c_row):
            code.prefetch(address)
        # what the sums start from, or zeros
        before = builder.block
        reading, ready = builder.append_basic_block("reading"), builder.append_basic_block("ready")
        builder.cbranch(builder.icmp_signed("!=", start, number(0)), reading, ready)
        builder.position_at_end(reading)
        loaded = [load(address, last) for address, last in places(start, start_row)]
        builder.branch(ready)
        builder.position_at_end(ready)
        sums = []
        for value in loaded:
            phi = builder.phi(code.vector)
            phi.add_incoming(code.constant(0.0), before)
            phi.add_incoming(value, reading)
            sums.append(phi)

        def copy_on(source, target):
            for some, offset in parts(size, lanes, copying):
                piece = Code(builder, size, some)
                if offset % width == 0:
                    code.prefetch(code.at(source, code.times(a_step, AHEAD), offset))
                piece.store(piece.load(code.at(source, offset)), code.at(target, offset))
            return [code.at(source, a_step), code.at(target, copying * size)]

        def ask_on(at_b, places, origin):
            place = builder.load(code.pointer(places, I64), align=8)
            none = builder.icmp_signed("==", place, number(NOTHING))
            code.prefetch(builder.select(none, at_b, code.at(origin, place)))
            return [code.at(places, 8), origin]

        first = 2 + len(beside)  # of the sums, among what the loop carries

        def step(values):
            at_a, at_b, *beside = values[:first]
            sums = values[first:]
            row = [load(code.at(at_b, v * width), v == vectors - 1) for v in range(vectors)]
            for v in range(vectors):
                code.prefetch(code.at(at_b, far, v * width))
            if copying:
                beside = copy_on(*beside)
            if asking:
                beside = ask_on(at_b, *beside)
            for i in range(rows):
                element = code.load_spread(code.at(at_a, a_rows[i]))
                for v in range(vectors):
                    at = i * vectors + v
                    sums[at] = code.multiply_add(element, row[v], sums[at])
            return [code.at(at_a, a_step), code.at(at_b, b_step), *beside, *sums]

        sums = code.loop(k, [a, b, *beside, *sums], step)[first:]
        for i in range(AHEAD):
            for v in range(vectors):
                code.prefetch(code.at(b_next, code.times(b_step, i), v * width))
        before = builder.block
        rectified = builder.icmp_signed("!=", rectify, number(0))
        with builder.if_then(rectified):
            positive = [
                builder.select(builder.fcmp_ordered("<=", x, code.constant(0.0)), code.constant(0.0), x) for x in sums
            ]
            inside = builder.block
        for i, (plain, other) in enumerate(zip(list(sums), positive)):
            sums[i] = builder.phi(code.vector)
            sums[i].add_incoming(plain, before)
            sums[i].add_incoming(other, inside)
        for value, (address, last) in zip(sums, list(places(c, c_row))):
            if masked and last:
                code.store_masked(value, address, mask)
            else:
                code.store(value, address)

    return write


def tile_function(module: ir.Module, size, lanes, rows, vectors, masked=False, copying=0, asking=False) -> ir.Function:
    kind = "_masked" * masked + "_copying" * (copying > 0) + "_asking" * asking
    arguments = ARGUMENTS + 2 * (copying > 0 or asking)
    write = write_tile(size, lanes, rows, vectors, masked, copying, asking)
    return function(module, f"tile_{8 * size}_{lanes}_{rows}x{vectors}{kind}", arguments, write)


@intrinsic(prefer_literal=True)
def tile(
    typing, size, lanes, height, breadth, rows, columns, k, a, a_row, a_step, b, b_step, b_next, c, c_row, c_next,
    start, start_row, rectify,
):  # fmt: skip
    """C[:rows, :columns] = [start +] A B, and max(that, 0) if wanted, for a tile that fits the registers.

    Args:
        size, lanes, height, breadth: constants: bytes of an element, elements of a vector, and the largest tile in
            rows and in vectors.
        rows, columns: of this tile: 1 to ``height``, 1 to ``breadth * lanes``; up to ``lanes`` columns also twice as
            many rows, and in one row ``WIDE`` times as many columns.
        a, a_row, a_step: address of A's first element, bytes from row to row and from one k to the next.
        b, b_step: address of B's first element, bytes from one k to the next; its columns lie side by side.
        c, c_row: address of C's first element, bytes from row to row; its columns lie side by side.
        b_next, c_next: where the next tile will begin to read: they are asked for. Any address will do.
        start, start_row: address of what the sums begin with, and bytes from row to row of it: C itself, to add to it;
            a row of biases, which are 0 bytes apart. Address 0 for nothing.
        rectify: whether what is negative becomes 0.
    """
    # The constants are a part of the signature: numba keeps code by it, and would take that of other constants.
    signature = types.void(size, lanes, height, breadth, *[types.int64] * 15)
    size, lanes, height, breadth = (each.literal_value for each in (size, lanes, height, breadth))

    def codegen(context, builder, signature, arguments):
        rows, columns, k, a, a_row, a_step, b, b_step, b_next, c, c_row, c_next, *rest_of_c = arguments[4:]
        start, start_row, rectify = rest_of_c
        module = builder.module
        functions = [
            tile_function(module, size, lanes, i + 1, v + 1, masked)
            for masked in (False, True) for v in range(breadth) for i in range(height)
        ]  # fmt: skip
        # One vector wide, as few chains of multiply-adds as there are rows: so there are twice as many of those.
        tall = len(functions)
        functions += [
            tile_function(module, size, lanes, height + i + 1, 1, masked)
            for masked in (False, True) for i in range(height)
        ]  # fmt: skip
        # One row: its operand has nothing to be used for again, and what counts is to read long pieces of B.
        wide = len(functions)
        functions += [
            tile_function(module, size, lanes, 1, v + 1, masked)
            for masked in (False, True) for v in range(breadth, WIDE * breadth)
        ]  # fmt: skip
        vectors = builder.sdiv(builder.sub(columns, number(1)), number(lanes))  # one less than there are
        rest = builder.sub(columns, builder.mul(vectors, number(lanes)))
        index = builder.add(builder.mul(vectors, number(height)), builder.sub(rows, number(1)))
        partial = builder.zext(builder.icmp_signed("<", rest, number(lanes)), I64)
        index = builder.add(index, builder.mul(partial, number(height * breadth)))
        beyond = builder.sub(rows, number(height))
        higher = builder.add(builder.add(beyond, number(tall - 1)), builder.mul(partial, number(height)))
        index = builder.select(builder.icmp_signed(">", beyond, number(0)), higher, index)
        wider = builder.mul(partial, number((WIDE - 1) * breadth))
        wider = builder.add(builder.add(vectors, number(wide - breadth)), wider)
        index = builder.select(builder.icmp_signed(">=", vectors, number(breadth)), wider, index)
        choose(
            builder, index, functions,
            [k, a, a_row, a_step, b, b_step, b_next, c, c_row, c_next, rest, start, start_row, rectify],
        )  # fmt: skip
        return context.get_dummy_value()

    return signature, codegen


@intrinsic(prefer_literal=True)
def copying_tile(
    typing, size, lanes, height, breadth, copied, rows, k, a, a_step, b, b_step, b_next, c, c_row, c_next,
    start, start_row, rectify, source, copy,
):  # fmt: skip
    """A ``tile`` of whole width whose A lies transposed; on the way it copies a part of the transpose.

    In place, each step of k reads another row of the transpose: a part of a cache line. If the rows are a multiple of
    some kilobytes apart, these lines share a few sets of the caches, and are gone when the next tile asks for them. The
    copy, whose rows touch each other, costs next to nothing here: nothing else in the loop stores.

    Args:
        copied: a constant: elements of each row that are copied.
        source: address of the first element that is copied; its rows are ``a_step`` bytes apart.
        copy: address of ``copied * k`` elements; the other arguments are those of ``tile``.
    """
    constants = (size, lanes, height, breadth, copied)
    signature = types.void(*constants, *[types.int64] * 15)
    size, lanes, height, breadth, copied = (each.literal_value for each in constants)

    def codegen(context, builder, signature, arguments):
        rows, k, a, a_step, b, b_step, b_next, c, c_row, c_next, *others = arguments[5:]
        functions = [tile_function(builder.module, size, lanes, i + 1, breadth, copying=copied) for i in range(height)]
        tile_arguments = [k, a, number(size), a_step, b, b_step, b_next, c, c_row, c_next, number(0), *others]
        choose(builder, builder.sub(rows, number(1)), functions, tile_arguments)
        return context.get_dummy_value()

    return signature, codegen


@intrinsic(prefer_literal=True)
def asking_tile(
    typing, size, lanes, height, breadth, rows, k, a, a_row, a_step, b, b_step, b_next, c, c_row, c_next,
    start, start_row, rectify, places, origin,
):  # fmt: skip
    """A ``tile`` of whole width that on the way asks for what will be needed when the product is done.

    Multiply-adds leave the way to memory idle, and what comes after them, the update of a weight, is little else than
    reading and writing. Asked for all at once the lines would keep the core waiting; one at each step costs nothing.

    Args:
        places: address of ``k`` integers, distances in bytes of lines from ``origin``; the other arguments are those of
            ``tile``.
    """
    constants = (size, lanes, height, breadth)
    signature = types.void(*constants, *[types.int64] * 16)
    size, lanes, height, breadth = (each.literal_value for each in constants)

    def codegen(context, builder, signature, arguments):
        rows, k, a, a_row, a_step, b, b_step, b_next, c, c_row, c_next, *others = arguments[4:]
        functions = [tile_function(builder.module, size, lanes, i + 1, breadth, asking=True) for i in range(height)]
        tile_arguments = [k, a, a_row, a_step, b, b_step, b_next, c, c_row, c_next, number(0), *others]
        choose(builder, builder.sub(rows, number(1)), functions, tile_arguments)
        return context.get_dummy_value()

    return signature, codegen
