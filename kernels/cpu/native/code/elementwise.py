"""The vector machine: expressions on arrays, run by code that was compiled before they were known.

An instruction carries its expression as steps (the words are in ``elementwise_words``). The arrays are cut into blocks
that fit into the first-level cache several times over, and each block goes through all the steps: a step reads operands
that lie side by side where they are and writes into a register, a piece of scratch of the size of a block; the last one
writes the result. So what is far away is read once and written once, and what a step costs beside its vectors is a few
nanoseconds per block.

Threads share the blocks. Where rows are reduced they share the columns, and each goes down its strip of them.
"""

from __future__ import annotations

from numba import types
from numba.extending import intrinsic, register_jitable

from .. import elementwise_words as layout
from ..emit import Code, choose
from ..library import operation
from .elementwise_blocks import block_functions
from .elementwise_lines import line_functions
from .words import put_word, real, share, word


def operators(size: int, width: int):
    """The operators as two functions of numba: (number, count, result, a, b, c) for lines, and for blocks."""
    kinds = ((size, width // 8 // size, False), (8, width // 64, True))

    def calling(functions_of, arguments_of):
        def codegen(context, builder, signature, arguments):
            functions = [each for kind in kinds for each in functions_of(builder.module, *kind)]
            choose(builder, arguments[0], functions, list(arguments[1:]))
            return context.get_dummy_value()

        return types.void(*[types.int64] * arguments_of), codegen

    @intrinsic
    def line(typing, op, count, result, a, b, c):
        return calling(line_functions, 6)

    @intrinsic
    def block(typing, op, rows, columns, result, a, row, column, divisor):
        return calling(block_functions, 8)

    return line, block


@operation("elementwise")
def elementwise(size: int, width: int):
    line, block = operators(size, width)
    FIRST_BLOCK = layout.FIRST_BLOCK
    ROWS, COLUMNS, HIGH, WIDE, FOLDED = layout.ROWS, layout.COLUMNS, layout.HIGH, layout.WIDE, layout.FOLDED
    OUTER, SCRATCH, ROOM, REGISTER = layout.OUTER, layout.SCRATCH, layout.ROOM, layout.REGISTER
    LEAD, STREAM = layout.LEAD, layout.STREAM
    AXES, ARRAYS, REGISTERS, CONSTANTS = layout.AXES, layout.ARRAYS, layout.REGISTERS, layout.CONSTANTS
    HEADER, SECTIONS, STEP = layout.HEADER, layout.SECTIONS, layout.STEP
    BASE, ROW, COLUMN, BLOCK, ARRAY = layout.BASE, layout.ROW, layout.COLUMN, layout.BLOCK, layout.ARRAY
    ONCE, BEFORE, EACH, AFTER = layout.ONCE, layout.BEFORE, layout.EACH, layout.AFTER

    @register_jitable
    def perform(steps, count, places, arrays, pitch, rows, columns):
        """Runs steps on a block. An operator of a block has its strides from the array that its second operand is."""
        for _ in range(count):
            op, result, a = word(steps, 0), word(places, word(steps, 1)), word(places, word(steps, 2))
            if op < FIRST_BLOCK:
                line(op, rows * columns, result, a, word(places, word(steps, 3)), word(places, word(steps, 4)))
            else:
                strides = arrays + pitch * word(steps, 3)
                block(
                    op - FIRST_BLOCK, rows, columns, result, a, word(strides, ROW), word(strides, COLUMN),
                    word(places, word(steps, 4)),
                )  # fmt: skip
            steps += 8 * STEP

    def run(words, thread, threads):
        rows, columns, high, wide = word(words, ROWS), word(words, COLUMNS), word(words, HIGH), word(words, WIDE)
        lead = word(words, LEAD)
        down, pieces = (rows + high - 1) // high, (columns + lead + wide - 1) // wide
        deep = 1  # blocks of a strip
        if word(words, FOLDED):
            deep, down = down, 1
        strips = word(words, OUTER) * down * pieces
        first, last = share(strips, 1, thread, threads), share(strips, 1, thread + 1, threads)
        if first >= last:
            return
        axes, arrays, registers = word(words, AXES), word(words, ARRAYS), word(words, REGISTERS)
        constants = word(words, CONSTANTS)
        sizes = words + 8 * HEADER
        array = sizes + 8 * axes
        pitch = 8 * (ARRAY + axes)
        steps = array + pitch * arrays
        places = word(words, SCRATCH) + thread * word(words, ROOM)
        room = places + (8 * (arrays + registers + constants) + 63) // 64 * 64
        for i in range(registers):
            put_word(places, arrays + i, room + i * word(words, REGISTER))
        for i in range(constants):
            put_word(places, arrays + registers + i, steps + 8 * i)
        steps += 8 * constants
        before = steps + 8 * STEP * word(words, SECTIONS + ONCE)
        each = before + 8 * STEP * word(words, SECTIONS + BEFORE)
        after = each + 8 * STEP * word(words, SECTIONS + EACH)
        piece, above = first % pieces, first // pieces
        at, outer = above % down, above // down
        for strip in range(first, last):
            left = max(0, piece * wide - lead)
            n = min((piece + 1) * wide - lead, columns) - left
            for depth in range(deep):
                top = (at + depth) * high
                m = min(high, rows - top)
                entry = array
                for i in range(arrays):
                    place = word(entry, BASE) + top * word(entry, ROW) + left * word(entry, COLUMN)
                    place += strip * word(entry, BLOCK)
                    rest = outer
                    for axis in range(axes):  # the last one changes first
                        size = word(sizes, axes - 1 - axis)
                        place += rest % size * word(entry, ARRAY + axes - 1 - axis)
                        rest //= size
                    put_word(places, i, place)
                    entry += pitch
                if depth == 0:
                    if strip == first:
                        perform(steps, word(words, SECTIONS + ONCE), places, array, pitch, high, n)
                    perform(before, word(words, SECTIONS + BEFORE), places, array, pitch, 1, n)
                perform(each, word(words, SECTIONS + EACH), places, array, pitch, m, n)
            perform(after, word(words, SECTIONS + AFTER), places, array, pitch, 1, n)
            piece += 1
            if piece == pieces:
                piece, at = 0, at + 1
                if at == down:
                    at, outer = 0, outer + 1
        if word(words, STREAM):
            fence()

    return run


@intrinsic
def fence(typing):
    """Lets no later write of this thread be seen before what it has streamed."""

    def codegen(context, builder, signature, arguments):
        Code(builder, 4, 1).fence()
        return context.get_dummy_value()

    return types.void(), codegen


@operation("combine")
def combine(size: int, width: int):
    """Makes results of numbers in double precision: ``count`` results, each of ``parts`` numbers side by side."""
    convert = _converter(size)

    def run(words, thread, threads):
        count, parts, source, result, stride = (
            word(words, 0),
            word(words, 1),
            word(words, 2),
            word(words, 3),
            word(words, 4),
        )
        kind, divisor = word(words, 5), real(words, 6)
        for i in range(share(count, 1, thread, threads), share(count, 1, thread + 1, threads)):
            at = source + 8 * parts * i
            total = real(at, 0)
            for j in range(1, parts):
                value = real(at, j)
                if kind == 0:
                    total += value
                elif value != value or (kind == 1 and value > total) or (kind == 2 and value < total):
                    total = value
            convert(result + i * stride, total / divisor)

    return run


def _converter(size: int):
    """Writes a number as an element."""

    @intrinsic
    def put_element(typing, address, value):
        def codegen(context, builder, signature, arguments):
            address, value = arguments
            code = Code(builder, size, 1)
            builder.store(code.as_element(value), code.pointer(address), align=size)
            return context.get_dummy_value()

        return types.void(types.int64, types.float64), codegen

    return put_element
