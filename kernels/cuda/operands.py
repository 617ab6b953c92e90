"""Operands of a product as copies in bf16, made by ``code/product_operands.cu`` in scratch, for cuBLAS to multiply.

A copy lies as its operand does, row by row or column by column, so that cuBLAS takes a transposition as a flag; one
that lies in neither way gets one of them. Which products are multiplied so is ``choice``'s to measure.
"""

from __future__ import annotations

import numpy as np

from .encoding import Launch, address, blocks_of, integer
from .products import Product, View, fits

THREADS = 256  # OPERAND_THREADS
GROUP = 8  # elements of a row, or of a column, that are written at once: 16 bytes
MOST_GROUPS = 2**31 - 1

# A copy reads 4 bytes and writes 2 of each element: 6 (m + n) k bytes beside 2 m n k flops. On a GPU that multiplies P
# flops and moves W bytes a second, a product that would else run at a share r of P gains 2 m n k (1 / r - 1) / P, so a
# copy pays where m n / (m + n) > 3 P / W r / (1 - r). P / W is about 200 (H200) to 300 (H100): with r = 0.6, which
# wgmma is needed to exceed, that is 900 to 1,350; with r = 0.3, 260 to 390. Nothing slower is worth room in a plan.
LEAST = 256


def copies_pay(m: int, n: int) -> bool:
    """Whether they may, for a product of these sizes, of any depth."""
    return m * n >= LEAST * (m + n)


def copies_bytes(m: int, n: int, k: int, a_count: int, b_count: int) -> int:
    """Bytes for the copies of both operands, ``a_count`` and ``b_count`` matrices, whichever way they lie."""
    return sum(count * max(_nbytes(rows, k), _nbytes(k, rows)) for count, rows in ((a_count, m), (b_count, n)))


def _nbytes(rows: int, columns: int) -> int:
    return 2 * rows * _leading(columns)


def _leading(columns: int) -> int:
    """From row to row of a copy: all of them begin at multiples of 16 bytes."""
    return columns + -columns % GROUP


def in_bf16(product: Product, scratch) -> tuple[list[Launch], Product] | None:
    """The launches that copy A and B into scratch, and the product of the copies, whose strides count elements of bf16.

    None where there is not room enough, or where an operand has more than 2^34 elements.
    """
    if scratch is None or product.k == 0:
        return None
    left, at, made, views = scratch.nbytes, address(scratch), [], []
    for view, rows in ((product.a, product.m), (product.b.turned(), product.n)):
        count = product.batch if view.batch else 1
        columns, turned = product.k, view.column != 1 and (view.row == 1 or abs(view.row) < abs(view.column))
        if turned:
            view, rows, columns = view.turned(), columns, rows
        nbytes, leading = _nbytes(rows, columns), _leading(columns)
        left -= count * nbytes
        if left < 0:
            return None
        found = copy(view, rows, columns, count, at, (*product.keep, scratch))
        if found is None:
            return None
        made += found
        lying = View(at, leading, 1, nbytes // 2 if view.batch else 0)
        views.append(lying.turned() if turned else lying)
        at += count * nbytes
    a, b = views[0], views[1].turned()
    return made, product._replace(a=a, b=b, keep=(*product.keep, scratch), operands=np.dtype("uint16"))


def copy(view: View, rows: int, columns: int, count: int, to: int, keep: tuple) -> list[Launch] | None:
    """The launch that writes ``count`` matrices to an address; None where that is more than one launch can do."""
    groups = count * rows * (_leading(columns) // GROUP)
    if groups > MOST_GROUPS:
        return None
    wide = view.column == 1 and fits(view, rows, 0, 4, count)
    arguments = (
        *map(np.uint32, (groups, rows, columns)), np.uint64(to), np.uint64(view.address),
        *map(integer, (view.row, view.column, view.batch)),
    )  # fmt: skip
    name = "to_bf16_wide_f32" if wide else "to_bf16_f32"
    return [Launch("product_operands", name, blocks_of(groups, THREADS), (THREADS, 1, 1), arguments, keep=keep)]
