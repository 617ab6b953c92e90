"""The production kernel: blocks and choices around the micro-kernel (the last step of the ladder).

    for k, ``kc`` steps at a time:
        pack the slab of A (m x kc) into strips as high as a tile, if A is transposed and large
        for columns of C, ``nc`` at a time:           the block of B below stays in the second-level cache
            pack the block of B (kc x nc) into panels as wide as a tile, if that pays
            for rows of C, as many as a tile has:     these rows of A stay in the first-level cache
                for columns of the block, a panel at a time: the tile, which adds the bias and rectifies
                after the last k: the epilogue on these rows

Rows are dealt out evenly, lest the last tile has one or two; where C is no wider than a vector, tiles are twice as
high. Scratch holds what is packed: a slab of A and a block of B at most.
"""

from __future__ import annotations

import functools

from numba import int64, void

from .dot import ROWS, dot
from .finish import add_everywhere, finish
from .machine import compiled
from .machine import tile as register_tile
from .packing import copy_block, deal_block, transpose_block
from .plan import ACTIVATIONS
from .tile import WIDE, tile

GROUP = 32  # strips of A that are packed side by side: their rows are whole cache lines of A, and read once
ARGUMENTS = 21
VECTOR_ARGUMENTS = 15
RELU = ACTIVATIONS.index("relu")


@functools.cache
def kernel(size: int, width: int):
    """The compiled product alone, with int64 arguments: see ``source``."""
    return compiled(void(*[int64] * ARGUMENTS), size, width)(source(size, width))


@functools.cache
def vector_kernel(size: int, width: int):
    """The compiled product of a matrix and a vector alone: see ``vector_source``."""
    return compiled(void(*[int64] * VECTOR_ARGUMENTS), size, width)(vector_source(size, width))


def source(size: int, width: int):
    """The product for elements of ``size`` bytes and vectors of ``width`` bits, as Python that numba compiles."""
    SIZE, (HEIGHT, BREADTH, LANES) = size, register_tile(size, width)
    PANEL, TALL, LONG = BREADTH * LANES, 2 * HEIGHT, WIDE * BREADTH * LANES

    def product(
        m, n, k, a, a_row, a_step, b, b_step, b_column, c, c_row, accumulate, pack_a, pack_b, kc, nc, scratch,
        activation, bias, h, h_row,
    ):  # fmt: skip
        """C (m x n) = where(h > 0, activation([C +] A B + bias), 0).

        a, b, c, bias, h, scratch are addresses; *_row, *_step, *_column bytes between rows, steps of k, columns. The
        columns of c, bias and h lie side by side; those of b too, unless ``pack_b``; with ``pack_a`` the rows of a.
        """
        height = TALL if n <= LANES and not pack_a else HEIGHT
        panel_columns = LONG if m == 1 and not pack_b else PANEL
        tiles = (m + height - 1) // height
        # Strips of A are an odd number of cache lines apart, lest all fall into the same sets of the cache.
        strip = ((kc * HEIGHT * SIZE + 63) // 64 | 1) * 64
        block = scratch + tiles * strip * pack_a
        each, more = (HEIGHT, 0) if pack_a else (m // tiles, m % tiles)  # rows of a tile; tiles with one row more
        p = 0
        while True:  # once even for k = 0: C is then zeros
            depth = min(kc, k - p)
            # Sums begin with C where they are added to it, or else with the bias.
            adds = p > 0 or accumulate
            last = p + depth >= k
            behind = last and (activation > RELU or h or (bias and accumulate))
            if pack_a:
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
                if pack_b:
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
                for t in range(tiles):
                    i = t * each + min(t, more)
                    rows = min(m - i, each + (t < more))
                    at_a, row, step = a + i * a_row + p * a_step, a_row, a_step
                    if pack_a:
                        at_a, row, step = scratch + t * strip, SIZE, HEIGHT * SIZE
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
                        tile(
                            SIZE, LANES, HEIGHT, BREADTH, rows, min(panel_columns, width - q), depth, at_a, row, step,
                            panel, panel_step, b_next, at_c + q * SIZE, c_row, at_c + following * SIZE, start,
                            start_row, last and activation == RELU and not behind,
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
