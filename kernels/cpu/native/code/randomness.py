"""Dropout as an operation of the library: the bits of ``reference.random``, many counters at a time.

Words of 32 bits stand in lanes of 64, because the product of two of them does. What is above a word is rubbish after
the first round: multiplication does not look at it, and at the end it is cut off.

Philox 4x32-10: J. K. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

from __future__ import annotations

from llvmlite import ir

from ....reference.random import LOW, MULTIPLIERS, WEYL
from ..emit import I32, I64, Code, number
from .words import Words, part, written

ROUNDS = 10
WORDS = 4  # words of a block: element i is word i mod 4 of block i // 4
UNIT = 256  # blocks that threads are dealt at a time


@written("dropout")
def dropout(code: Code, words: Words, thread, threads):
    """out = x scale where the bits reach ``least``, else 0.

    Words: count, out, x, step; the first block; elements of it that come before the first one of x; stream, the two
    halves of the seed, least; scale.
    """
    builder, wide = code.builder, Code(code.builder, 8, max(2, code.lanes * code.size // 8))
    count, out, x, step, first_block, skip, stream, *keys, least = words.integers(10)
    (scale,) = words.reals(1)
    scale = code.everywhere(scale)
    least = _spread(code, builder.trunc(least, I32), 2 * wide.lanes)
    step = wide.spread(builder.and_(builder.load(code.pointer(step, I64), align=8), number(LOW)))
    stream, keys = wide.spread(stream), _schedule(code, keys)

    blocks = builder.sdiv(builder.add(builder.add(skip, count), number(WORDS - 1)), number(WORDS))
    first, mine = part(code, blocks, UNIT, thread, threads)
    lanes = ir.Constant(wide.integers, list(range(wide.lanes)))
    counter = builder.add(wide.spread(builder.add(first_block, first)), lanes)
    place = builder.sub(builder.mul(first, number(WORDS)), skip)  # of the first word's element in x; may be below 0
    end = builder.sub(builder.mul(builder.add(first, mine), number(WORDS)), skip)
    end = builder.select(builder.icmp_signed("<", end, count), end, count)

    def turn(values):
        counter, place = values
        bits = _philox(wide, [counter, builder.lshr(counter, wide.whole(32)), step, stream], keys)
        for half in (0, 1):
            kept = builder.icmp_unsigned(">=", _in_order(wide, bits, half), least)
            for start in range(0, 2 * wide.lanes, code.lanes):
                _apply(code, _lanes_of(code, kept, start), place, end, out, x, scale)
                place = builder.add(place, number(code.lanes))
        return [builder.add(counter, wide.whole(wide.lanes)), place]

    turns = builder.sdiv(builder.add(mine, number(wide.lanes - 1)), number(wide.lanes))
    code.loop(turns, [counter, place], turn)


def _schedule(code: Code, keys: list) -> list:
    """The keys of the rounds."""
    rounds = [keys]
    for _ in range(ROUNDS - 1):
        following = [code.builder.add(key, number(weyl)) for key, weyl in zip(rounds[-1], WEYL)]
        rounds.append([code.builder.and_(key, number(LOW)) for key in following])
    return rounds


def _philox(wide: Code, counter: list, keys: list) -> list:
    builder, low, shift = wide.builder, wide.whole(LOW), wide.whole(32)
    c0, c1, c2, c3 = counter
    for key0, key1 in keys:
        product0, product1 = (
            builder.mul(builder.and_(word, low), wide.whole(factor)) for word, factor in zip((c0, c2), MULTIPLIERS)
        )
        c0, c2 = (
            builder.xor(builder.xor(builder.lshr(product, shift), other), wide.spread(key))
            for product, other, key in ((product1, c1, key0), (product0, c3, key1))
        )
        c1, c3 = product1, product0
    return [c0, c1, c2, c3]


def _in_order(wide: Code, words: list, half: int):
    """The first or the second half of the words, block after block, as 32-bit integers."""
    builder, lanes, low = wide.builder, wide.lanes, wide.whole(LOW)
    pairs = [builder.or_(builder.and_(words[i], low), builder.shl(words[i + 1], wide.whole(32))) for i in (0, 2)]
    start = half * lanes // 2
    order = [place for i in range(start, start + lanes // 2) for place in (i, lanes + i)]
    mixed = builder.shuffle_vector(*pairs, ir.Constant(ir.VectorType(I32, lanes), order))
    return builder.bitcast(mixed, ir.VectorType(I32, 2 * lanes))


def _spread(code: Code, value, lanes: int):
    return Code(code.builder, 4, lanes).spread(value)


def _lanes_of(code: Code, mask, start: int):
    """A part of a mask, as long as a vector."""
    order = ir.Constant(ir.VectorType(I32, code.lanes), list(range(start, start + code.lanes)))
    return code.builder.shuffle_vector(mask, ir.Constant(mask.type, ir.Undefined), order)


def _apply(code: Code, kept, place, end, out, x, scale) -> None:
    """One vector, of which the elements from 0 to ``end`` exist, ``place`` being that of its first lane."""
    builder, lanes = code.builder, number(code.lanes)
    offset = code.times(place, code.size)
    out, x = code.at(out, offset), code.at(x, offset)

    def between(value):
        value = builder.select(builder.icmp_signed("<", value, lanes), value, lanes)
        return builder.select(builder.icmp_signed(">", value, number(0)), value, number(0))

    inside = builder.and_(
        code.mask(between(builder.sub(end, place))),
        builder.not_(code.mask(between(builder.neg(place)))),
    )
    value = builder.fmul(code.load_masked(x, inside), scale)
    code.store_masked(builder.select(kept, value, code.constant(0.0)), out, inside)
