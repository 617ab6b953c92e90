"""Step 1 of the ladder: three loops. ``python -m tinynet.kernels.cpu.native.naive``

C (m x n) = A (m x k) B (k x n), row-major float32, as the definition says it: element by element of C, a row of A times
a column of B. It is right, and it is what the other steps are checked for having kept.

What holds it back: each multiply-add waits for the one before it (one chain, four cycles each), works on one number
instead of sixteen, and takes its element of B from another row, that is, from another cache line, each time.
"""

from __future__ import annotations

import functools

import numpy as np

from .machine import compiled


@functools.cache
def kernel():
    """The compiled step: ``naive(c, a, b, scratch)``; scratch is not used."""

    @compiled("void(float32[:, ::1], float32[:, ::1], float32[:, ::1], float32[::1])")
    def naive(c, a, b, scratch):
        (m, k), n = a.shape, b.shape[1]
        for i in range(m):
            for j in range(n):
                total = np.float32(0)
                for p in range(k):
                    total += a[i, p] * b[p, j]
                c[i, j] = total

    return naive


if __name__ == "__main__":
    from .ladder import show

    show("naive")
