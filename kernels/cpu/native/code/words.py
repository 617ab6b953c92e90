"""How compiled functions read their arguments: words of a table, as integers and as numbers, and shares of work."""

from __future__ import annotations

from numba import types
from numba.extending import intrinsic, register_jitable

from ..emit import DOUBLE, I64, Code, number
from ..library import operation


@intrinsic
def word(typing, words, i):
    """Argument ``i`` as an integer: a count, a stride in bytes, an address."""

    def codegen(context, builder, signature, arguments):
        return builder.load(_pointer(builder, *arguments, I64), align=8)

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def real(typing, words, i):
    """Argument ``i`` as a number in double precision: the table holds its bits."""

    def codegen(context, builder, signature, arguments):
        return builder.load(_pointer(builder, *arguments, DOUBLE), align=8)

    return types.float64(types.int64, types.int64), codegen


@intrinsic
def put_word(typing, words, i, value):
    """Writes word ``i``."""

    def codegen(context, builder, signature, arguments):
        words, i, value = arguments
        builder.store(value, _pointer(builder, words, i, I64), align=8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen


def _pointer(builder, words, i, kind):
    address = builder.add(words, builder.mul(i, number(8)))
    return builder.inttoptr(address, kind.as_pointer())


@register_jitable
def share(count, unit, thread, threads):
    """Where the share of a thread begins, of ``count`` things that are dealt out in pieces of ``unit``.

    Its end is where that of the next thread begins.
    """
    pieces = (count + unit - 1) // unit
    return min(count, pieces * thread // threads * unit)


def written(name: str, lanes: int | None = None):
    """Decorator: files ``write(code, words, thread, threads)``, which writes vector IR, as the operation ``name``.

    Args:
        lanes: elements in a vector; None for as many as the library is made for.

    Example:
        >>> @written("halve")
        ... def halve(code, words, thread, threads):
        ...     count, x = words.integers(2)
        ...     code.line(count, lambda piece, _: piece.store(code.builder.fmul(piece.load(x), code.constant(0.5)), x))
    """

    def file(write):
        @operation(name)
        def make(size: int, width: int):
            @intrinsic
            def body(typing, words, thread, threads):
                def codegen(context, builder, signature, arguments):
                    code = Code(builder, size, lanes or width // 8 // size)
                    write(code, Words(code, arguments[0]), *arguments[1:])
                    return context.get_dummy_value()

                return types.void(*[types.int64] * 3), codegen

            def run(words, thread, threads):
                body(words, thread, threads)

            return run

        return write

    return file


class Words:
    """The arguments of an operation that is ``written``, one after the other."""

    def __init__(self, code: Code, address):
        self.code, self.address, self._next = code, address, 0

    def _pointer(self, kind):
        self._next += 1
        return self.code.pointer(self.code.at(self.address, 8 * (self._next - 1)), kind)

    def integers(self, count: int) -> list:
        """The next ``count`` words: counts, strides in bytes, addresses."""
        return [self.code.builder.load(self._pointer(I64), align=8) for _ in range(count)]

    def reals(self, count: int) -> list:
        """The next ``count`` words, as numbers in double precision."""
        return [self.code.builder.load(self._pointer(DOUBLE), align=8) for _ in range(count)]


def part(code: Code, count, unit: int, thread, threads) -> tuple:
    """Where the share of a thread begins, and how much it is, of ``count`` things dealt out in pieces of ``unit``."""
    builder = code.builder
    pieces = builder.sdiv(builder.add(count, number(unit - 1)), number(unit))

    def start(thread):
        at = builder.mul(builder.sdiv(builder.mul(pieces, thread), threads), number(unit))
        return builder.select(builder.icmp_signed("<", at, count), at, count)

    first = start(thread)
    return first, builder.sub(start(builder.add(thread, number(1))), first)
