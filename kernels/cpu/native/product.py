"""The production kernel: blocks and choices around the micro-kernel (the last step of the ladder).

    for k, ``kc`` steps at a time:
        pack the slab of A (m x kc) into strips as high as a tile, if A is transposed and large
        for columns of C, ``nc`` at a time:           the block of B below stays in the second-level cache
            pack the block of B (kc x nc) into panels as wide as a tile, if that pays
            for rows of C, as many as a tile has:     these rows of A stay in the first-level cache
                for columns of the block, a panel at a time: the tile, which adds the bias and rectifies
                    the first of these copies A for itself and the next tiles, if A is transposed and not packed
                after the last k: the epilogue on these rows

Rows are dealt out evenly, lest the last tile has one or two; where C is no wider than a vector, tiles are twice as
high. Where B is transposed and C has few rows, to pack B would take longer than to use it. Then the product is turned:
C' = B' A' reads B as it lies, and what is transposed are A, if it is not yet, and the tiles. So is a product of few
columns whose A is transposed: turned, its vectors are full. Scratch holds what is packed, copied or turned. Where A is
one row and B is beyond the caches, rows of B are read from end to end (``gaxpy``).
"""

from __future__ import annotations

import functools

from numba import int64, types, void
from numba.extending import intrinsic, register_jitable

from ...activations import ACTIVATIONS
from .dot import ROWS, dot
from .emit import I64, number
from .finish import add_everywhere, finish
from .gaxpy import ROWS as ROWS_READ
from .gaxpy import gaxpy
from .machine import compiled
from .machine import tile as register_tile
from .packing import copy_block, deal_block, transpose_block
from .plan import COPIED, COPIED_TILES, PACKED, STREAMED, TURNED, TURNED_TILES, line_bytes
from .tile import WIDE, asking_tile, copying_tile, tile

GROUP = 32  # strips of A that are packed side by side: their rows are whole cache lines of A, and read once
BEFORE, AFTER = 16, 4  # arguments of a product before and after the address of scratch
VECTOR_BEFORE, VECTOR_AFTER = 9, 5  # ... and of that of a matrix and a vector
RELU = ACTIVATIONS.index("relu")


@intrinsic(prefer_literal=True)
def several(typing, words, count):
    """A tuple of ``count`` integers, a constant, which lie at an address."""
    kind = types.UniTuple(types.int64, count.literal_value)

    def codegen(context, builder, signature, arguments):
        first = builder.inttoptr(arguments[0], I64.as_pointer())
        values = [builder.load(builder.gep(first, [number(i)]), align=8) for i in range(kind.count)]
        return context.make_tuple(builder, kind, values)

    return kind(types.int64, count), codegen


@functools.cache
def kernel(size: int, width: int):
    """The compiled product alone: ``kernel(words, scratch)``, ``words`` the address of the other arguments.

    A call from Python with a number for each argument would take microseconds.
    """
    compute = register_jitable(source(size, width))

    @compiled(void(int64, int64), size, width)
    def product_kernel(words, scratch):
        compute(*several(words, BEFORE), scratch, *several(words + 8 * BEFORE, AFTER), 0, 0, 0)

    return product_kernel


@functools.cache
def vector_kernel(size: int, width: int):
    """The compiled product of a matrix and a vector alone, called as ``kernel`` is."""
    compute = register_jitable(vector_source(size, width))

    @compiled(void(int64, int64), size, width)
    def vector_kernel(words, scratch):
        compute(*several(words, VECTOR_BEFORE), scratch, *several(words + 8 * VECTOR_BEFORE, VECTOR_AFTER))

    return vector_kernel


def direct_source(size: int, width: int):
    """The product that is not turned: its tiles are tiles of C."""
    SIZE, (HEIGHT, BREADTH, LANES) = size, register_tile(size, width)
    AT_ONCE = COPIED_TILES * HEIGHT  # rows of A that are copied
    line = register_jitable(line_bytes)
    PANEL, TALL, LONG = BREADTH * LANES, 2 * HEIGHT, WIDE * BREADTH * LANES

    def direct(
        m, n, k, a, a_row, a_step, b, b_step, b_column, c, c_row, accumulate, way_a, way_b, kc, nc, scratch,
        activation, bias, h, h_row, asked, origin, origin_row,
    ):  # fmt: skip
        """C (m x n) = where(h > 0, activation([C +] A B + bias), 0).

        a, b, c, bias, h, scratch are addresses; *_row, *_step, *_column bytes between rows, steps of k, columns. The
        columns of c, bias and h lie side by side; those of b too, unless ``way_b`` is ``PACKED``; and the rows of a, if
        ``way_a`` is ``PACKED`` or ``COPIED``.

        asked: address of ``kc`` places, relative to where in an array like C a tile is, that are asked for on the way
        (see ``asking_tile``); 0 for none. That array: origin, and origin_row bytes from row to row.
        """
        packs_a, packs_b = way_a == PACKED, way_b == PACKED
        height = TALL if n <= LANES and not packs_a else HEIGHT
        panel_columns = LONG if m == 1 and not packs_b else PANEL
        tiles = (m + height - 1) // height
        strip = line(kc * HEIGHT, SIZE)  # bytes from one to the next
        block = scratch
        if packs_a:
            block += tiles * strip
        if way_a == COPIED:
            block += line(kc * AT_ONCE, SIZE)
        each, more = (HEIGHT, 0) if packs_a else (m // tiles, m % tiles)  # rows of a tile; tiles with one row more
        p = 0
        while True:  # once even for k = 0: C is then zeros
            depth = min(kc, k - p)
            # Sums begin with C where they are added to it, or else with the bias.
            adds = p > 0 or accumulate
            last = p + depth >= k
            behind = last and (activation > RELU or h or (bias and accumulate))
            if packs_a:
                for i in range(0, m, GROUP * HEIGHT):
                    rows = min(GROUP * HEIGHT, m - i)
                    source, target = a + i * a_row + p * a_step, scratch + i // HEIGHT * strip
                    whole = rows // HEIGHT
                    deal_block(SIZE, LANES, HEIGHT, depth, whole, source, a_step, target, strip)
                    if rows > whole * HEIGHT:
                        copy_block(
                            SIZE, LANES, depth, rows - whole * HEIGHT, source + whole * HEIGHT * SIZE, a_step,
                            target + whole * strip, HEIGHT * SIZE,
                        )  # fmt: skip
            for j in range(0, n, nc):
                width = min(nc, n - j)
                at_b = b + p * b_step + j * b_column
                panel_step, panel_next = b_step, panel_columns * b_column
                if packs_b:
                    panel_step, panel_next = PANEL * SIZE, depth * PANEL * SIZE
                    for q in range(0, width, PANEL):
                        columns = min(PANEL, width - q)
                        source, target = at_b + q * b_column, block + q // PANEL * panel_next
                        if b_column == SIZE:
                            copy_block(SIZE, LANES, depth, columns, source, b_step, target, panel_step)
                        elif b_step == SIZE:
                            transpose_block(SIZE, LANES, columns, depth, source, b_column, target, panel_step)
                        else:  # neither side by side: element by element
                            for v in range(columns):
                                at = target + v * SIZE
                                copy_block(SIZE, LANES, depth, 1, source + v * b_column, b_step, at, panel_step)
                    at_b = block
                copying = way_a == COPIED and width >= PANEL and m >= AT_ONCE  # a share of a product may be smaller
                held = -AT_ONCE  # first of the rows of A that are in the copy
                for t in range(tiles):
                    i = t * each + min(t, more)
                    rows = min(m - i, each + (t < more))
                    at_a, row, step = a + i * a_row + p * a_step, a_row, a_step
                    if packs_a:
                        at_a, row, step = scratch + t * strip, SIZE, HEIGHT * SIZE
                    copies = copying and i + rows > held + AT_ONCE
                    if copies:
                        held = min(i, m - AT_ONCE)
                    elif copying:
                        at_a, step = scratch + (i - held) * SIZE, AT_ONCE * SIZE
                    at_c = c + i * c_row + j * SIZE
                    for q in range(0, width, panel_columns):
                        panel = at_b + q // panel_columns * panel_next
                        start, start_row = 0, 0
                        if adds:
                            start, start_row = at_c + q * SIZE, c_row
                        elif bias:
                            start = bias + (j + q) * SIZE
                        following = q + panel_columns
                        b_next = panel + panel_next if following < width else at_b
                        rectify = last and activation == RELU and not behind
                        if copies and q == 0:
                            copying_tile(
                                SIZE, LANES, HEIGHT, BREADTH, AT_ONCE, rows, depth, at_a, step, panel, panel_step,
                                b_next, at_c, c_row, at_c + following * SIZE, start, start_row, rectify,
                                a + held * SIZE + p * a_step, scratch,
                            )  # fmt: skip
                            at_a, step = scratch + (i - held) * SIZE, AT_ONCE * SIZE
                            continue
                        if asked and p == 0 and m > 1 and width - q >= PANEL and rows <= HEIGHT:
                            asking_tile(
                                SIZE, LANES, HEIGHT, BREADTH, rows, depth, at_a, row, step, panel, panel_step, b_next,
                                at_c + q * SIZE, c_row, at_c + following * SIZE, start, start_row, rectify, asked,
                                origin + i * origin_row + (j + q) * SIZE,
                            )  # fmt: skip
                            continue
                        tile(
                            SIZE, LANES, HEIGHT, BREADTH, rows, min(panel_columns, width - q), depth, at_a, row, step,
                            panel, panel_step, b_next, at_c + q * SIZE, c_row, at_c + following * SIZE, start,
                            start_row, rectify,
                        )  # fmt: skip
                    if behind:
                        added = bias if accumulate else 0
                        finish(
                            SIZE, LANES, activation, rows, width, at_c, c_row, added + j * SIZE * (added != 0),
                            h + (i * h_row + j * SIZE) * (h != 0), h_row,
                        )  # fmt: skip
            p += depth
            if p >= k:
                break

    return direct


def source(size: int, width: int):
    """The product for elements of ``size`` bytes and vectors of ``width`` bits, as Python that numba compiles."""
    SIZE, (HEIGHT, _, LANES) = size, register_tile(size, width)
    AT_ONCE = TURNED_TILES * HEIGHT  # columns of C
    direct, line = register_jitable(direct_source(size, width)), register_jitable(line_bytes)

    def product(
        m, n, k, a, a_row, a_step, b, b_step, b_column, c, c_row, accumulate, way_a, way_b, kc, nc, scratch,
        activation, bias, h, h_row, asked, origin, origin_row,
    ):  # fmt: skip
        """As ``direct``; or turned, if ``way_b`` says so: in a, the rows or the steps of k lie side by side; or, with
        one row of C, as a sum of rows of B."""
        if way_b == STREAMED:
            first = min(k, k % ROWS_READ or ROWS_READ)  # by a tile, which knows how sums begin
            direct(
                1, n, first, a, a_row, a_step, b, b_step, SIZE, c, c_row, accumulate, 0, 0, kc, nc, scratch, 0,
                0 if accumulate else bias, 0, 0, 0, 0, 0,
            )  # fmt: skip
            for p in range(first, k, ROWS_READ):
                gaxpy(SIZE, LANES, n, a + p * a_step, a_step, b + p * b_step, b_step, c)
            if activation or h or (bias and accumulate):
                finish(SIZE, LANES, activation, 1, n, c, c_row, bias if accumulate else 0, h, h_row)
            return
        if way_b != TURNED:
            direct(
                m, n, k, a, a_row, a_step, b, b_step, b_column, c, c_row, accumulate, way_a, way_b, kc, nc, scratch,
                activation, bias, h, h_row, asked, origin, origin_row,
            )  # fmt: skip
            return
        turned, row = scratch, line(m, SIZE)  # some rows of C', and bytes between them
        if way_a == COPIED:
            target = turned + min(AT_ONCE, n) * row
            if a_row == SIZE:
                copy_block(SIZE, LANES, k, m, a, a_step, target, row)
            else:
                transpose_block(SIZE, LANES, m, k, a, a_row, target, row)
            a, a_step = target, row
        for j in range(0, n, AT_ONCE):
            columns, at_c = min(AT_ONCE, n - j), c + j * SIZE
            if accumulate:
                transpose_block(SIZE, LANES, m, columns, at_c, c_row, turned, row)
            elif bias:  # one row, again and again
                transpose_block(SIZE, LANES, m, columns, bias + j * SIZE, 0, turned, row)
            direct(
                columns, m, k, b + j * b_column, b_column, b_step, a, a_step, SIZE, turned, row,
                accumulate or bias != 0, 0, 0, kc, nc, scratch, 0, 0, 0, 0, 0, 0, 0,
            )  # fmt: skip
            transpose_block(SIZE, LANES, columns, m, turned, row, at_c, c_row)
            if activation or h or (bias and accumulate):
                added = bias if accumulate else 0
                finish(
                    SIZE, LANES, activation, m, columns, at_c, c_row, added + j * SIZE * (added != 0),
                    h + j * SIZE * (h != 0), h_row,
                )  # fmt: skip

    return product


def vector_source(size: int, width: int):
    """The product of a matrix and a vector, where the sum runs along the rows of the matrix in memory."""
    SIZE, LANES = size, register_tile(size, width).lanes

    def vector_product(
        rows, k, a, a_row, x, x_step, c, c_step, accumulate, scratch, lying, activation, bias, h, h_step
    ):  # fmt: skip
        """c = where(h > 0, activation([c +] A x + bias), 0).

        ``lying``: c, h and bias are one row, their elements side by side; else c and h are a column, and bias is one
        number. x comes through scratch (k elements) if its elements do not lie side by side.
        """
        if x_step != SIZE:
            copy_block(SIZE, LANES, k, 1, x, x_step, scratch, SIZE)
            x = scratch
        i = 0
        while i < rows:
            count = ROWS if rows - i >= ROWS else 1
            dot(SIZE, LANES, count, k, a + i * a_row, a_row, x, c + i * c_step, c_step, accumulate)
            i += count
        if activation or bias or h:
            if lying:
                finish(SIZE, LANES, activation, 1, rows, c, 0, bias, h, 0)
            elif c_step == SIZE and (h == 0 or h_step == SIZE):  # a column whose elements lie side by side
                if bias:
                    add_everywhere(SIZE, LANES, rows, c, bias)
                finish(SIZE, LANES, activation, 1, rows, c, 0, 0, h, 0)
            else:
                finish(SIZE, LANES, activation, rows, 1, c, c_step, bias, h, h_step)

    return vector_product
