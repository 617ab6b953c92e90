"""Step 5 of the ladder: what follows a product is done with it. ``python -m tinynet.kernels.cpu.native.fused``

C (m x n) = relu(A (m x k) B (k x n) + bias), row-major float32; the bias is the first row of scratch. Rows of C are as
many as a tile has, and when their tiles are done, the epilogue of ``finish`` runs over these rows, which the
first-level cache still holds. As a step of its own over all of C it would fetch C from memory and send it back: for 512
x 512 x 512, two more megabytes moved, and for small k more time than the product takes."""

from __future__ import annotations

import functools

from ...activations import ACTIVATIONS
from .finish import finish
from .machine import compiled, widths
from .machine import tile as register_tile
from .tile import tile


@functools.cache
def kernel():
    """The compiled step: ``fused(c, a, b, scratch)``; scratch: n elements of bias."""
    SIZE, (HEIGHT, BREADTH, LANES) = 4, register_tile(4, widths()[0])
    WIDTH, RELU = BREADTH * LANES, ACTIVATIONS.index("relu")

    @compiled("void(float32[:, ::1], float32[:, ::1], float32[:, ::1], float32[::1])")
    def fused(c, a, b, scratch):
        (m, k), n = a.shape, b.shape[1]
        for i in range(0, m, HEIGHT):
            rows = min(HEIGHT, m - i)
            at_c = c.ctypes.data + i * n * SIZE
            for j in range(0, n, WIDTH):
                tile(
                    SIZE, LANES, HEIGHT, BREADTH, rows, min(WIDTH, n - j), k,
                    a.ctypes.data + i * k * SIZE, k * SIZE, SIZE,
                    b.ctypes.data + j * SIZE, n * SIZE, b.ctypes.data, at_c + j * SIZE, n * SIZE, 0, 0, 0, 0,
                )  # fmt: skip
            finish(SIZE, LANES, RELU, rows, n, at_c, n * SIZE, scratch.ctypes.data, 0, 0)

    return fused


if __name__ == "__main__":
    from .ladder import show

    show("fused")
