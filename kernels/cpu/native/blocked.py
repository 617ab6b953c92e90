"""Step 2 of the ladder: loops in the order of memory, in blocks. ``python -m tinynet.kernels.cpu.native.blocked``

C (m x n) = A (m x k) B (k x n), row-major float32. Two changes to the three loops:

- The innermost loop runs along a row: C[i, :] += A[i, p] B[p, :]. The elements of a row do not depend on each other and
  lie side by side, so the compiler works on a vector of them at a time.
- The loops over k and over columns are cut, so that a block of B (``DEPTH`` x ``WIDTH``, 128 KiB) stays in the cache
  while all rows of A pass over it. Without that, B comes from memory once for each row.

What holds it back: each multiply-add still loads C and stores it again. Two loads and a store for every one
multiply-add is four times what the core can move."""

from __future__ import annotations

import functools

from .machine import compiled

DEPTH, WIDTH = 128, 256


@functools.cache
def kernel():
    """The compiled step: ``blocked(c, a, b, scratch)``; scratch is not used."""

    @compiled("void(float32[:, ::1], float32[:, ::1], float32[:, ::1], float32[::1])")
    def blocked(c, a, b, scratch):
        (m, k), n = a.shape, b.shape[1]
        c[:, :] = 0
        for j in range(0, n, WIDTH):
            for p in range(0, k, DEPTH):
                for i in range(m):
                    target = c[i, j : j + WIDTH]
                    for q in range(p, min(p + DEPTH, k)):
                        element, source = a[i, q], b[q, j : j + WIDTH]
                        for column in range(len(target)):
                            target[column] += element * source[column]

    return blocked


if __name__ == "__main__":
    from .ladder import show

    show("blocked")
