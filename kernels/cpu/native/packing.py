"""Packing: operands copied so that the micro-kernel reads them from side to side.

A copy pays where it is read many times: where B lies transposed, where its rows are spaced so that they fall into the
same few sets of the cache, where it does not fit the second-level cache. A transposition is done in registers, a square
of vectors at a time: a butterfly of log2(lanes) stages, each of which swaps blocks of twice the size.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .emit import I32, Code, function, number

AHEAD = 8  # rows of the source that are asked for before they are needed


def write_copy(size: int, lanes: int):
    """Copies ``rows`` x ``columns`` elements: rows of them side by side on both sides."""

    def write(builder, rows, columns, source, source_row, target, target_row):
        code = Code(builder, size, lanes)
        full, width = builder.sdiv(columns, number(lanes)), size * lanes
        rest = builder.srem(columns, number(lanes))
        mask = code.mask(rest)
        partial = builder.icmp_signed(">", rest, number(0))
        far = code.times(source_row, AHEAD)

        def row(values):
            source, target = values

            def vector(values):
                code.prefetch(code.at(values[0], far))
                code.store(code.load(values[0]), values[1])
                return [code.at(each, width) for each in values]

            ends = code.loop(full, [source, target], vector)
            with builder.if_then(partial):
                code.store_masked(code.load_masked(ends[0], mask), ends[1], mask)
            return [code.at(source, source_row), code.at(target, target_row)]

        code.loop(rows, [source, target], row)

    return write


def transposed(code: Code, rows: list) -> list:
    """The columns of a square of vectors, as vectors."""
    lanes, builder = code.lanes, code.builder
    distance = 1
    while distance < lanes:
        for i in range(lanes):
            if i & distance:
                continue
            low = [lane if not lane & distance else lanes + lane - distance for lane in range(lanes)]
            high = [lane + distance if not lane & distance else lanes + lane for lane in range(lanes)]
            x, y = rows[i], rows[i + distance]
            for at, order in ((i, low), (i + distance, high)):
                mask = ir.Constant(ir.VectorType(I32, lanes), order)
                rows[at] = builder.shuffle_vector(x, y, mask)
        distance *= 2
    return rows


def write_transposition(size: int, lanes: int):
    """target[j, i] = source[i, j] for ``rows`` x ``columns`` elements of the source."""

    def write(builder, rows, columns, source, source_row, target, target_row):
        code = Code(builder, size, lanes)
        width = size * lanes

        def squares(count):
            return builder.sdiv(builder.add(count, number(lanes - 1)), number(lanes))

        def least(value):
            return builder.select(builder.icmp_signed("<", value, number(lanes)), value, number(lanes))

        def partly(source, target, height, breadth):
            tall, wide, square = code.mask(height), code.mask(breadth), []
            for i in range(lanes):
                # a row that is not there: none of its lanes is read
                there = code.spread(builder.icmp_signed(">", height, number(i)))
                address = code.at(source, code.times(source_row, i))
                square.append(code.load_masked(address, builder.and_(wide, there)))
            for i, each in enumerate(transposed(code, square)):
                there = code.spread(builder.icmp_signed(">", breadth, number(i)))
                address = code.at(target, code.times(target_row, i))
                code.store_masked(each, address, builder.and_(tall, there))

        def down(values):  # squares of one column of squares: target rows stay, target columns move
            source, target, left = values
            height = least(left)

            def across(values):
                source, target, left = values
                breadth = least(left)
                there = code.at(breadth, height)
                with builder.if_else(builder.icmp_signed("==", there, number(2 * lanes))) as (whole, edge):
                    with whole:
                        square = [code.load(code.at(source, code.times(source_row, i))) for i in range(lanes)]
                        for i, each in enumerate(transposed(code, square)):
                            code.store(each, code.at(target, code.times(target_row, i)))
                    with edge:
                        partly(source, target, height, breadth)
                return [code.at(source, width), code.at(target, code.times(target_row, lanes)),
                        builder.sub(left, number(lanes))]  # fmt: skip

            code.loop(squares(columns), [source, target, columns], across)
            return [code.at(source, code.times(source_row, lanes)), code.at(target, width),
                    builder.sub(left, number(lanes))]  # fmt: skip

        code.loop(squares(rows), [source, target, rows], down)

    return write


def parts(size: int, lanes: int, count: int) -> list[tuple[int, int]]:
    """Vectors that make up ``count`` elements exactly: (lanes, offset in bytes) of each."""
    found, at = [], 0
    while at < count:
        some = min(lanes, 1 << (count - at).bit_length() - 1)
        found.append((some, at * size))
        at += some
    return found


def write_deal(size: int, lanes: int, height: int):
    """Deals ``rows`` rows of ``pieces`` x ``height`` elements out to ``pieces`` strips, each ``height`` elements wide.

    Row by row, not strip by strip: a cache line of the source is a part of several strips, and is read once.
    """

    def write(builder, rows, pieces, source, source_row, target, target_next):
        code = Code(builder, size, 1)
        # vectors that make up ``height`` exactly: masked ones would straddle cache lines
        pieces_of = [(Code(builder, size, some), at) for some, at in parts(size, lanes, height)]

        def row(values):
            source, target = values

            def piece(values):
                source, target = values
                for vectors, offset in pieces_of:
                    vectors.store(vectors.load(code.at(source, offset)), code.at(target, offset))
                return [code.at(source, height * size), code.at(target, target_next)]

            code.loop(pieces, [source, target], piece)
            return [code.at(source, source_row), code.at(target, height * size)]

        code.loop(rows, [source, target], row)

    return write


@intrinsic(prefer_literal=True)
def deal_block(typing, size, lanes, height, rows, pieces, source, source_row, target, target_next):
    signature = types.void(size, lanes, height, *[types.int64] * 6)
    size, lanes, height = size.literal_value, lanes.literal_value, height.literal_value

    def codegen(context, builder, signature, arguments):
        name = f"deal_block_{8 * size}_{lanes}_{height}"
        builder.call(function(builder.module, name, 6, write_deal(size, lanes, height)), arguments[3:])
        return context.get_dummy_value()

    return signature, codegen


def _copying(name: str, writer):
    def typed(typing, size, lanes, rows, columns, source, source_row, target, target_row):
        signature = types.void(size, lanes, *[types.int64] * 6)
        size, lanes = size.literal_value, lanes.literal_value

        def codegen(context, builder, signature, arguments):
            made = function(builder.module, f"{name}_{8 * size}_{lanes}", 6, writer(size, lanes))
            builder.call(made, arguments[2:])
            return context.get_dummy_value()

        return signature, codegen

    typed.__name__ = name
    return intrinsic(prefer_literal=True)(typed)


copy_block = _copying("copy_block", write_copy)
transpose_block = _copying("transpose_block", write_transposition)
