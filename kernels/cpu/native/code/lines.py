"""Operations that copy, fill and add lines of elements, as operations of the library.

Arrays are rows of ``count`` elements that lie side by side; the rows themselves may lie anywhere, or in the same place.
One row is cut into pieces for threads, several are dealt out.
"""

from __future__ import annotations

from llvmlite import ir

from ..emit import I1, I64, VOID, Code, number
from ..packing import write_transposition
from .words import Words, part, written

UNIT = 1024  # elements that threads are dealt at a time
LONG = 2**20  # bytes from which the system's memcpy copies, which writes past the caches where that pays


def own_lines(code: Code, rows, count, thread, threads, *arrays) -> list:
    """The share of a thread of ``rows`` x ``count`` elements: rows, elements in each, and where it is in each array.

    Args:
        arrays: of each its address, the bytes from row to row, and the bytes from element to element.
    """
    builder = code.builder
    single = builder.icmp_signed("==", rows, number(1))
    first_row, own_rows = part(code, rows, 1, thread, threads)
    first, own_count = part(code, count, UNIT, thread, threads)
    rows, count = builder.select(single, number(1), own_rows), builder.select(single, own_count, count)
    first_row, first = builder.select(single, number(0), first_row), builder.select(single, first, number(0))
    starts = [
        code.at(address, builder.mul(first_row, row), code.times(first, step) if step else 0)
        for address, row, step in arrays
    ]
    return [rows, count, *starts]


def _rows(code: Code, rows, addresses, strides, write) -> None:
    """``write(*addresses)`` for each row."""

    def row(values):
        write(*values)
        return [code.at(each, stride) for each, stride in zip(values, strides)]

    code.loop(rows, addresses, row)


def _copied(code: Code, words: Words, thread, threads):
    rows, count, out, out_row, value, value_row = words.integers(6)
    rows, count, out, value = own_lines(
        code, rows, count, thread, threads, (out, out_row, code.size), (value, value_row, code.size)
    )
    nbytes = code.times(count, code.size)
    long = code.builder.icmp_signed(">=", nbytes, number(LONG))

    def body(out, value):
        with code.builder.if_else(long) as (by_the_system, by_vectors):
            with by_the_system:
                pointers = [code.pointer(each, ir.IntType(8)) for each in (out, value)]
                copy = code.declare("llvm.memcpy.p0.p0.i64", VOID, [each.type for each in pointers] + [I64, I1])
                code.builder.call(copy, [*pointers, nbytes, ir.Constant(I1, 0)])
            with by_vectors:
                code.line(count, lambda piece, _: piece.store(piece.load(value), out))

    _rows(code, rows, [out, value], [out_row, value_row], body)


def _filled(code: Code, words: Words, thread, threads):
    rows, count, out, out_row, value, value_row = words.integers(6)
    rows, count, out, value = own_lines(
        code, rows, count, thread, threads, (out, out_row, code.size), (value, value_row, 0)
    )

    def body(out, value):
        one = code.load_spread(value)
        code.line(count, lambda piece, _: piece.store(one, out))

    _rows(code, rows, [out, value], [out_row, value_row], body)


def _of_size(size: int, write):
    """The same on elements of a given size, whatever the library is made for: bits are bits."""

    def on_bits(code: Code, words: Words, thread, threads):
        own = Code(code.builder, size, max(1, code.lanes * code.size // size))
        write(own, Words(own, words.address), thread, threads)

    return on_bits


for _size in (4, 8):
    written(f"copy_{_size}")(_of_size(_size, _copied))
    written(f"fill_{_size}")(_of_size(_size, _filled))


def _accumulate(code: Code, words: Words, thread, threads, spread: bool):
    """out = x + value, where value is a row beside each row, or one element."""
    rows, count, out, out_row, x, x_row, value, value_row = words.integers(8)
    rows, count, out, x, value = own_lines(
        code, rows, count, thread, threads,
        (out, out_row, code.size), (x, x_row, code.size), (value, value_row, 0 if spread else code.size),
    )  # fmt: skip

    def body(out, x, value):
        one = code.load_spread(value) if spread else None

        def add(piece, _):
            piece.store(code.builder.fadd(piece.load(x), one if spread else piece.load(value)), out)

        code.line(count, add)

    _rows(code, rows, [out, x, value], [out_row, x_row, value_row], body)


@written("accumulate")
def accumulate(code: Code, words: Words, thread, threads):
    _accumulate(code, words, thread, threads, spread=False)


@written("accumulate_one")
def accumulate_one(code: Code, words: Words, thread, threads):
    _accumulate(code, words, thread, threads, spread=True)


# ---- class indices ----


def each_kind(code: Code, kind, write) -> None:
    """Runs ``write(read)`` where ``read(address) -> int64`` reads integers of this kind.

    ``kind`` is an integer's bytes, with 16 added where it has no sign. A loop is written for each number of bytes, and
    asks once.
    """
    builder, unsigned = code.builder, code.builder.icmp_signed(">", kind, number(15))
    after = builder.append_basic_block("through")
    switch = builder.switch(builder.and_(kind, number(15)), after)
    for nbytes in (1, 2, 4, 8):

        def read(address, nbytes=nbytes):
            value = builder.load(code.pointer(address, ir.IntType(8 * nbytes)), align=nbytes)
            if nbytes == 8:
                return value
            return builder.select(unsigned, builder.zext(value, I64), builder.sext(value, I64))

        block = builder.append_basic_block(f"bytes_{nbytes}")
        switch.add_case(number(nbytes), block)
        builder.position_at_end(block)
        write(read)
        builder.branch(after)
    builder.position_at_end(after)


def within(code: Code, index, most):
    """A class index; ``most``, which is nobody's class, for what is none below it."""
    return code.builder.select(code.builder.icmp_unsigned("<", index, most), index, most)


@written("one_hot")
def one_hot(code: Code, words: Words, thread, threads):
    builder = code.builder
    rows, count, out, out_row, indices, index_row, kind = words.integers(7)
    first, rows = part(code, rows, 16, thread, threads)
    out, indices = code.at(out, builder.mul(first, out_row)), code.at(indices, builder.mul(first, index_row))
    zero, one = code.constant(0.0), Code(builder, code.size, 1).constant(1.0)

    def body(read, out, indices):
        code.line(count, lambda piece, _: piece.store(zero, out))
        index = within(code, read(indices), count)
        with builder.if_then(builder.icmp_signed("<", index, count)):
            builder.store(one, code.pointer(code.at(out, code.times(index, code.size)), code.element), align=code.size)

    def loop(read):
        _rows(code, rows, [out, indices], [out_row, index_row], lambda *values: body(read, *values))

    each_kind(code, kind, loop)


# ---- transposition ----


def _transposed(size: int):
    """Words: rows and columns of the source; source and target, each with the bytes from row to row."""

    def write(code: Code, words: Words, thread, threads):
        builder, lanes = code.builder, max(1, code.lanes * code.size // size)
        rows, columns, source, source_row, target, target_row = words.integers(6)
        first, mine = part(code, rows, 16, thread, threads)
        source = code.at(source, builder.mul(first, source_row))
        write_transposition(size, lanes)(
            builder, mine, columns, source, source_row, code.at(target, code.times(first, size)), target_row
        )

    return write


for _size in (4, 8):
    written(f"transpose_{_size}")(_transposed(_size))
