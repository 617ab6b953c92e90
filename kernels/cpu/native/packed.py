"""Step 3 of the ladder: B is packed. ``python -m tinynet.kernels.cpu.native.packed``

C (m x n) = A (m x k) B (k x n), row-major float32. A panel of B, ``WIDTH`` columns and ``DEPTH`` steps of k, is copied
so that its rows touch each other (32 KiB, which the first-level cache holds). In place, those rows are n elements
apart: each on a page of its own where n is large, and where n is a power of two all in the same few sets of the cache,
which then holds a fraction of them. Four rows of A share each row of B that is loaded.

What holds it back: the copy is worth its time only if many rows of A use it, and C still goes through memory: the
compiler cannot keep 4 x 64 sums in registers by itself, for it does not know that C and the panel do not overlap.
"""

from __future__ import annotations

import functools

from .machine import compiled

DEPTH, WIDTH = 128, 64


@functools.cache
def kernel():
    """The compiled step: ``packed(c, a, b, scratch)``; scratch: at least ``DEPTH * WIDTH`` elements."""

    @compiled("void(float32[:, ::1], float32[:, ::1], float32[:, ::1], float32[::1])")
    def packed(c, a, b, scratch):
        (m, k), n = a.shape, b.shape[1]
        c[:, :] = 0
        for j in range(0, n, WIDTH):
            width = min(WIDTH, n - j)
            for p in range(0, k, DEPTH):
                depth = min(DEPTH, k - p)
                for q in range(depth):
                    source, target = b[p + q, j : j + width], scratch[q * WIDTH : q * WIDTH + width]
                    for column in range(width):
                        target[column] = source[column]
                for i in range(0, m - 3, 4):
                    c0, c1 = c[i, j : j + width], c[i + 1, j : j + width]
                    c2, c3 = c[i + 2, j : j + width], c[i + 3, j : j + width]
                    for q in range(depth):
                        a0, a1, a2, a3 = a[i, p + q], a[i + 1, p + q], a[i + 2, p + q], a[i + 3, p + q]
                        source = scratch[q * WIDTH : q * WIDTH + width]
                        for column in range(width):
                            c0[column] += a0 * source[column]
                            c1[column] += a1 * source[column]
                            c2[column] += a2 * source[column]
                            c3[column] += a3 * source[column]
                for i in range(m - m % 4, m):
                    c0 = c[i, j : j + width]
                    for q in range(depth):
                        element, source = a[i, p + q], scratch[q * WIDTH : q * WIDTH + width]
                        for column in range(width):
                            c0[column] += element * source[column]

    return packed


if __name__ == "__main__":
    from .ladder import show

    show("packed")
