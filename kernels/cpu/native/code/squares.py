"""The mean of squared differences, as operations of the library.

The sum is made in chunks: of each in vectors, of their totals one after the other in double precision. So the result is
one number, whoever computes the chunks.
"""

from __future__ import annotations

from llvmlite import ir

from ..emit import DOUBLE, Code, number
from ..layouts import CHUNK
from .rows import added
from .words import Words, part, written

CHAINS = 4  # vectors that are added up side by side


def _chunks(code: Code, count, p, t, carried: list, each) -> list:
    """``each(sum of squares, values) -> values`` for each chunk of ``count`` elements."""
    builder = code.builder

    def square(piece, values):
        difference = builder.fsub(piece.load(p_chunk), piece.load(t_chunk))
        return [code.multiply_add(difference, difference, values[0])]

    def chunk(values):
        nonlocal p_chunk, t_chunk
        left, p_chunk, t_chunk, *values = values
        length = builder.select(builder.icmp_signed("<", left, number(CHUNK)), left, number(CHUNK))
        (sums,) = code.line(length, square, [code.constant(0.0)], CHAINS, added(code))
        values = each(code.as_double(code.across(sums, builder.fadd)), values)
        step = CHUNK * code.size
        return [builder.sub(left, number(CHUNK)), code.at(p_chunk, step), code.at(t_chunk, step), *values]

    p_chunk = t_chunk = None
    chunks = builder.sdiv(builder.add(count, number(CHUNK - 1)), number(CHUNK))
    return code.loop(chunks, [count, p, t, *carried], chunk)[3:]


def _store_mean(code: Code, sum_, count, out) -> None:
    builder = code.builder
    mean = code.as_element(builder.fdiv(sum_, builder.sitofp(count, DOUBLE)))
    builder.store(mean, code.pointer(out, code.element), align=code.size)


@written("mse")
def mse(code: Code, words: Words, thread, threads):
    """By one thread. Words: count, out, prediction, target."""
    count, out, p, t = words.integers(4)
    add = lambda found, values: [code.builder.fadd(values[0], found)]
    (sum_,) = _chunks(code, count, p, t, [ir.Constant(DOUBLE, 0.0)], add)
    _store_mean(code, sum_, count, out)


@written("mse_chunks")
def mse_chunks(code: Code, words: Words, thread, threads):
    """By several: the sum of each chunk. Words: count, room for a double of each chunk, prediction, target."""
    builder = code.builder
    count, room, p, t = words.integers(4)
    first, mine = part(code, count, CHUNK, thread, threads)
    offset = code.times(first, code.size)
    room = code.at(room, code.times(builder.sdiv(first, number(CHUNK)), 8))

    def put(found, values):
        builder.store(found, code.pointer(values[0], DOUBLE), align=8)
        return [code.at(values[0], 8)]

    _chunks(code, mine, code.at(p, offset), code.at(t, offset), [room], put)


@written("mse_mean")
def mse_mean(code: Code, words: Words, thread, threads):
    """What follows the chunks. Words: count, out, chunks, their sums."""
    builder = code.builder
    count, out, chunks, room = words.integers(4)

    def add(values):
        sum_, at = values
        return [builder.fadd(sum_, builder.load(code.pointer(at, DOUBLE), align=8)), code.at(at, 8)]

    sum_, _ = code.loop(chunks, [ir.Constant(DOUBLE, 0.0), room], add)
    _store_mean(code, sum_, count, out)
