"""A product whose rows are used up as they are made: an operation that runs two others, strip by strip.

Each thread has a strip of its own, which stays in its cache, and a copy of the arguments of both operations, in which
it moves on from strip to strip. What the two compute they know themselves.
"""

from __future__ import annotations

from numba import types
from numba.extending import intrinsic

from ..emit import I64, number
from ..interpreter import FUNCTION
from ..library import operation
from ..machine import tile as register_tile
from ..strips import A_ROW, ASKED, BEFORE, KC, ORIGIN, ORIGIN_ROW, ROOM, SCRATCH, A, C, K, M
from ..tile import NOTHING
from .words import put_word, share, word

LINE = 64  # bytes of a cache line


@intrinsic
def call(typing, function, words):
    """Runs the operation at an address, as the only thread."""

    def codegen(context, builder, signature, arguments):
        function, words = arguments
        result, failure = (builder.alloca(I64) for _ in range(2))  # nobody reads them
        builder.call(
            builder.inttoptr(function, FUNCTION.as_pointer()), [result, failure, words, number(0), number(1)]
        )
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


@operation("strips")
def strips(size: int, width: int):
    HEIGHT, BREADTH, LANES = register_tile(size, width)
    LINES = -(-BREADTH * LANES * size // LINE)  # of a row of a tile

    def run(words, thread, threads):
        rows, strip, row_bytes = word(words, 0), word(words, 1), word(words, 2)
        own, own_bytes, strip_bytes = word(words, 3), word(words, 4), word(words, 5)
        product, count = word(words, 6), word(words, 7)
        update, lines, at_made, more = word(words, 8), word(words, 9), word(words, 10), word(words, 11)
        first = own + thread * own_bytes
        second, places, made = first + 8 * count, first + ROOM, first + word(words, 16)
        given = words + 8 * BEFORE
        for i in range(count + more):
            put_word(first, i, word(given, i))
        put_word(first, C, made)
        put_word(first, SCRATCH, made + strip_bytes)
        put_word(second, at_made, made)
        asked, origin = word(words, 12), word(given, count + word(words, 13))
        if asked:  # the lines that a tile's update reads, spread over the steps that make the tile
            depth, before = min(word(given, K), word(given, KC)), -1
            for i in range(depth):
                at = i * asked * HEIGHT * LINES // depth
                array, row, piece = at // (HEIGHT * LINES), at // LINES % HEIGHT, at % LINES
                place = word(given, count + word(words, 13 + array)) - origin + row * row_bytes + piece * LINE
                put_word(places, i, place if at > before else NOTHING)
                before = at
            put_word(first, ASKED, places)
            put_word(first, ORIGIN_ROW, row_bytes)
        a, a_row = word(given, A), word(given, A_ROW)
        low, high = share(rows, strip, thread, threads), share(rows, strip, thread + 1, threads)
        for i in range(low, high, strip):
            here = min(strip, high - i)
            put_word(first, M, here)
            put_word(first, A, a + i * a_row)
            put_word(first, ORIGIN, origin + i * row_bytes)
            call(product, first)
            put_word(second, 0, here * row_bytes // size)
            for j in range(1, lines + 1):
                if j != at_made:
                    put_word(second, j, word(given, count + j) + i * row_bytes)
            call(update, second)

    return run
