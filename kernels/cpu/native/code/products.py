"""The matrix products as operations of the library: the production kernels, cut into a share for each thread.

The shares are whole rows or whole columns of C, in units of a register tile, so that each element is computed as one
thread alone would.
"""

from __future__ import annotations

from numba.extending import register_jitable

from .. import product
from ..dot import ROWS
from ..finish import finish
from ..library import operation
from ..machine import tile as register_tile
from .words import share, word


@operation("matmul")
def matmul(size: int, width: int):
    SIZE, (HEIGHT, BREADTH, LANES) = size, register_tile(size, width)
    PANEL = BREADTH * LANES
    compute = register_jitable(product.source(size, width))

    def run(words, thread, threads):
        m, n, k, a, a_row, a_step = (
            word(words, 0),
            word(words, 1),
            word(words, 2),
            word(words, 3),
            word(words, 4),
            word(words, 5),
        )
        b, b_step, b_column, c, c_row = (
            word(words, 6),
            word(words, 7),
            word(words, 8),
            word(words, 9),
            word(words, 10),
        )
        scratch = word(words, 16) + thread * word(words, 22)
        bias, h, h_row = word(words, 18), word(words, 19), word(words, 20)
        if word(words, 21):  # by columns
            low, high = share(n, PANEL, thread, threads), share(n, PANEL, thread + 1, threads)
            n = high - low
            b, c, bias, h = (
                b + low * b_column,
                c + low * SIZE,
                bias + low * SIZE * (bias != 0),
                h + low * SIZE * (h != 0),
            )
        else:
            low, high = share(m, HEIGHT, thread, threads), share(m, HEIGHT, thread + 1, threads)
            m = high - low
            a, c, h = a + low * a_row, c + low * c_row, h + low * h_row * (h != 0)
        if m > 0 and n > 0:
            compute(
                m, n, k, a, a_row, a_step, b, b_step, b_column, c, c_row, word(words, 11), word(words, 12),
                word(words, 13), word(words, 14), word(words, 15), scratch, word(words, 17), bias, h, h_row,
                word(words, 23), word(words, 24), word(words, 25),
            )  # fmt: skip

    return run


@operation("matvec")
def matvec(size: int, width: int):
    SIZE = size
    compute = register_jitable(product.vector_source(size, width))

    def run(words, thread, threads):
        rows, k, a, a_row = word(words, 0), word(words, 1), word(words, 2), word(words, 3)
        c, c_step, lying = word(words, 6), word(words, 7), word(words, 10)
        bias, h, h_step = word(words, 12), word(words, 13), word(words, 14)
        low, high = share(rows, ROWS, thread, threads), share(rows, ROWS, thread + 1, threads)
        if high > low:
            compute(
                high - low, k, a + low * a_row, a_row, word(words, 4), word(words, 5), c + low * c_step, c_step,
                word(words, 8), word(words, 9) + thread * word(words, 15), lying, word(words, 11),
                bias + low * SIZE * (bias != 0 and lying != 0), h + low * h_step * (h != 0), h_step,
            )  # fmt: skip

    return run


@operation("finish")
def finish_rows(size: int, width: int):
    SIZE, LANES = size, register_tile(size, width).lanes

    def run(words, thread, threads):
        m, n, c, c_row = word(words, 1), word(words, 2), word(words, 3), word(words, 4)
        h, h_row = word(words, 6), word(words, 7)
        low, high = share(m, 1, thread, threads), share(m, 1, thread + 1, threads)
        if high > low:
            h += low * h_row * (h != 0)
            finish(SIZE, LANES, word(words, 0), high - low, n, c + low * c_row, c_row, word(words, 5), h, h_row)

    return run
