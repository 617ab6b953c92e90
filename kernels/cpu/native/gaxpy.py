"""Row times matrix, where the sum runs from row to row of the matrix: rows of it are added to one row of C.

Golub and Van Loan (Matrix Computations, 1.1) call it gaxpy. As in ``dot``, every element of the matrix takes part once,
and the speed is that at which it can be read. A register tile reads pieces of many rows, a kilobyte here and there;
what comes from beyond the caches comes faster in long pieces. So whole rows are read, four at a time, while the row of
C stays in the nearest cache. Each element of C is the same chain of multiply-adds as in a tile: the same bits.
"""

from __future__ import annotations

from numba import types
from numba.extending import intrinsic

from .emit import Code, function

ROWS = 4
AHEAD = 1024  # bytes of each row that are asked for before they are needed


def write_gaxpy(size: int, lanes: int):
    def write(builder, columns, a, a_step, b, b_row, c):
        code = Code(builder, size, lanes)
        elements = [code.load_spread(code.at(a, code.times(a_step, i)) if i else a) for i in range(ROWS)]
        rows = [code.at(b, code.times(b_row, i)) if i else b for i in range(ROWS)]
        end, following = code.times(columns, size), code.times(b_row, ROWS)

        def body(piece, _):
            ahead = code.at(piece.offset, AHEAD)
            beyond = builder.icmp_signed(">=", ahead, end)  # of these rows: what comes then are the next ones
            ahead = builder.select(beyond, code.at(builder.sub(ahead, end), following), ahead)
            if piece.mask is None:
                for row in rows:
                    code.prefetch(code.at(row, ahead))
            total = piece.load(c)
            for element, row in zip(elements, rows):
                total = code.multiply_add(element, piece.load(row), total)
            piece.store(total, c)

        code.line(columns, body)

    return write


@intrinsic(prefer_literal=True)
def gaxpy(typing, size, lanes, columns, a, a_step, b, b_row, c):
    """C[:columns] += A[0] B[0, :] + ... for ``ROWS`` rows of B, one after the other.

    The elements of C and those of a row of B lie side by side; strides and addresses are as in ``tile``.
    """
    signature = types.void(size, lanes, *[types.int64] * 6)
    size, lanes = size.literal_value, lanes.literal_value

    def codegen(context, builder, signature, arguments):
        name = f"gaxpy_{8 * size}_{lanes}"
        builder.call(function(builder.module, name, 6, write_gaxpy(size, lanes)), arguments[2:])
        return context.get_dummy_value()

    return signature, codegen
