"""Step 4 of the ladder: C in registers. ``python -m tinynet.kernels.cpu.native.tiled``

C (m x n) = A (m x k) B (k x n), row-major float32. The loops go over tiles of C, and each tile is one call of the
micro-kernel of ``tile``, which holds it in registers for all of k: no load or store of C in the inner loop. Nothing is
packed; a tile reads B's rows where they are, and asks for them eight rows ahead.

What holds it back: where B does not fit the second-level cache, or lies transposed. That is for the production kernel,
``product``, which is these loops with blocks around them.
"""

from __future__ import annotations

import functools

from .machine import compiled, widths
from .machine import tile as register_tile
from .tile import tile


@functools.cache
def kernel():
    """The compiled step: ``tiled(c, a, b, scratch)``; scratch is not used."""
    SIZE, (HEIGHT, BREADTH, LANES) = 4, register_tile(4, widths()[0])
    WIDTH = BREADTH * LANES

    @compiled("void(float32[:, ::1], float32[:, ::1], float32[:, ::1], float32[::1])")
    def tiled(c, a, b, scratch):
        (m, k), n = a.shape, b.shape[1]
        for i in range(0, m, HEIGHT):
            rows = min(HEIGHT, m - i)
            for j in range(0, n, WIDTH):
                columns = min(WIDTH, n - j)
                tile(
                    SIZE, LANES, HEIGHT, BREADTH, rows, columns, k, a.ctypes.data + i * k * SIZE, k * SIZE, SIZE,
                    b.ctypes.data + j * SIZE, n * SIZE, b.ctypes.data,
                    c.ctypes.data + (i * n + j) * SIZE, n * SIZE, 0, 0, 0, 0,
                )  # fmt: skip

    return tiled


if __name__ == "__main__":
    from .ladder import show

    show("tiled")
