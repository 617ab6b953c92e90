"""Compiled kernels for the host's processor, and what runs a table of them in one call.

How a step becomes a call:

    kernels         registers a native kernel for each operation that has one: an encoder, which makes instructions of
                    arrays (``matrices``, ``elementwise``, ``rows``, ``updates``, ``shapes``, ``randomness``)
    encoding        what encoders share; what one declines, NumPy's kernel does
    instructions    an instruction, a table of them, and how the calls of a program are linked into tables
    library         every operation as machine code: compiled once per machine, kept, and loaded without numba
    interpreter     the loop over a table, and how threads meet in it (``layout``: its words)
    pool            the threads
    loans           arguments that a table reads where they lie
    choice          the own product or BLAS, by measurement
    code/           the operations themselves: what numba compiles, once

Expressions run on a small vector machine, so that a new model compiles nothing: ``elementwise_program`` makes operators
of an expression, ``elementwise_shape`` blocks of the arrays, ``elementwise_assembly`` an instruction of both.

The matrix product stands on its own as well:

    matmul(out, a, b, scratch=..., accumulate=..., bias=..., activation=..., mask=...)      once
    Product(out, a, b, ...)(scratch)      the same, checked and cut once and run many times; ``.scratch_bytes``
    scratch_bytes(m, k, n, dtype, transpose_a=..., transpose_b=...)      from shapes alone
    peak(dtype)      FLOP/s of the core's fused multiply-adds, measured
    widths()         bits of the vectors that this processor can execute

They are read best as a ladder. Each step says what it gains and why, and runs alone
(``python -m tinynet.kernels.cpu.native.naive``, and so on); ``python -m bench.matmul`` checks and times them all.

    naive     three loops
    blocked   the loops in the order of memory, cut so that operands stay in a cache
    packed    B copied in panels that lie together
    tiled     a tile of C in registers: the micro-kernel of ``tile``, written vector by vector
    fused     what follows, on rows that are still in the cache: the epilogues of ``finish``
    product   the production kernel: blocks and choices around them

Beside them: ``ladder`` (runs a step alone), ``plan`` (from arrays to the kernel's arguments), ``packing`` (copies and
transpositions), ``dot`` (matrix times vector), ``ceiling`` (the peak), ``emit`` (writes vector code), ``machine``
(vector widths, tiles, the cache of compiled code).

llvmlite is loaded when something is first used, numba when something has to be compiled; without it, that is an
``ImportError``, and programs run on NumPy's kernels.
"""

from __future__ import annotations

import importlib

_WHERE = {"Product": "plan", "matmul": "plan", "scratch_bytes": "plan", "peak": "ceiling", "widths": "machine"}

__all__ = ["Product", "matmul", "peak", "scratch_bytes", "widths"]


def __getattr__(name: str):
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("." + _WHERE[name], __name__), name)
