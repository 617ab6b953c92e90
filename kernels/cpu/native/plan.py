"""From arrays to the arguments of a compiled product: what is checked, which path is taken, what scratch that needs."""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from . import machine, product
from .finish import ACTIVATIONS

# Largest depths of a block of B: deeper blocks read and write C less often, and leave room for fewer columns.
DEPTH = 512
LEAST_DEPTH = 128
DEPTH_SMALL = 1024  # where all of B fits a quarter of the second-level cache
DEPTH_A_TRANSPOSED = 256  # A transposed in place: each step of k is another row of it, in another cache line
# Packing costs a pass over the operand. It is worth that for B from this many rows of A on, if B leaves the cache ...
ROWS_WORTH_PACKING = 192
# ... and for a transposed A from this many columns of B on, as long as the slab is not large itself.
COLUMNS_WORTH_PACKING_A = 1024
LARGEST_SLAB = 8 * 2**20
# Up to this many rows a packed panel of B is used at once, while the nearest cache still has it.
ROWS_PER_PANEL = 256
ALIGNMENT = 64


class Blocks(NamedTuple):
    """How a product is cut, and what of it is packed."""

    kc: int
    nc: int
    pack_a: bool
    pack_b: bool
    scratch_bytes: int


def _even(count: int, most: int, unit: int = 1) -> int:
    """The least multiple of ``unit`` that cuts ``count`` into as few pieces as ``most`` does."""
    pieces = -(-count // most)
    return -(-count // (pieces * unit)) * unit if pieces else unit


@functools.cache
def blocks(m: int, k: int, n: int, size: int, width: int, a_transposed: bool, b_packed: bool | None) -> Blocks:
    """The cut for these shapes.

    Args:
        b_packed: whether B has to be packed for its layout; None to decide by what is faster.
    """
    panel = machine.tile(size, width).breadth * machine.tile(size, width).lanes
    cache = machine.second_level_cache()
    pack_b = b_packed if b_packed is not None else m >= ROWS_WORTH_PACKING and k * n * size >= cache
    pack_a = a_transposed and n >= COLUMNS_WORTH_PACKING_A and m >= ROWS_WORTH_PACKING
    pack_a = pack_a and m * min(k, DEPTH) * size <= LARGEST_SLAB
    depth = DEPTH
    if not pack_b:  # whole rows of B, as many as half the cache holds
        depth = max(LEAST_DEPTH, min(DEPTH, cache // 2 // (n * size)))
        depth = DEPTH_SMALL if k * n * size <= cache // 4 else depth
    if a_transposed and not pack_a:
        depth = min(depth, DEPTH_A_TRANSPOSED)
    kc = _even(k, depth)
    most = max(panel, cache // 2 // (kc * size) // panel * panel)
    nc = panel if pack_b and m <= ROWS_PER_PANEL else _even(n, most, panel)
    nbytes = product.slab_bytes(size, width, m, kc) * pack_a
    nbytes += product.block_bytes(size, width, kc, nc) * pack_b
    return Blocks(kc, nc, pack_a, pack_b, nbytes)


def scratch_bytes(m, k, n, dtype, *, transpose_a=False, transpose_b=False, width=None) -> int:
    """Bytes of scratch that ``matmul`` needs at most for C (m x n) = A (m x k) B (k x n).

    For row-major operands, or transposes of such, whatever their leading dimensions; ``Product.scratch_bytes`` knows
    the very arrays, in any layout.

    Args:
        dtype: float32 or float64.
        transpose_a, transpose_b: whether the operand is the transpose of a row-major array.
        width: bits of a vector, for those who chose them.
    """
    size, width = _size(np.dtype(dtype)), _width(width)
    if 0 in (m, n):
        return 0
    if m == 1 or n == 1:
        return max(k * size, blocks(m, k, n, size, width, False, True).scratch_bytes)
    packed = (True,) if transpose_b else (None, True) if _may_pack(m) else (None,)
    return max(blocks(m, k, n, size, width, transpose_a, each).scratch_bytes for each in packed)


def _may_pack(m: int) -> bool:
    return m >= ROWS_WORTH_PACKING


def _size(dtype: np.dtype) -> int:
    if dtype not in (np.float32, np.float64):
        raise ValueError(f"native product: expected float32 or float64, got {dtype}; convert the operands")
    return dtype.itemsize


def _width(width: int | None) -> int:
    if width is None:
        return machine.widths()[0]
    if width not in machine.widths():
        raise ValueError(f"native product: expected a vector width among {machine.widths()} bits, got {width!r}")
    return width


class Product:
    """A product on these very arrays, checked and cut once, to be run many times.

    Computes ``out = where(mask > 0, activation([out +] a @ b + bias), 0)``, each part if it is given.

    Args:
        out: (m, n), its columns side by side, its rows any distance apart; not memory of ``a`` or ``b``.
        a, b: (m, k) and (k, n), in any layout. Fast are row-major arrays and transposes of such.
        accumulate: adds to ``out``.
        bias: (n,), side by side. activation: "relu", "tanh" or "sigmoid". mask: (m, n), its columns side by side.
        width: bits of a vector, 512, 256 or 128; None for the widest of this processor.

    Attributes:
        scratch_bytes: what a call needs.

    Raises:
        ValueError: shapes, element types or layouts that do not go together. Nothing has been written then.
    """

    def __init__(self, out, a, b, *, accumulate=False, bias=None, activation=None, mask=None, width=None):
        self._arrays = (out, a, b, bias, mask)  # addresses are held below, so what they point to has to live on
        size, width = self._check(activation), _width(width)
        (m, k), n = a.shape, b.shape[1]
        # The stride of an axis of one element means nothing and may be anything.
        a_row, a_step = a.strides[0] if m > 1 else k * size, a.strides[1] if k > 1 else size
        b_column = b.strides[1] if n > 1 and k > 0 else size
        b_step = b.strides[0] if k > 1 else size
        c_row = out.strides[0] if m > 1 else n * size
        h_row = 0 if mask is None else mask.strides[0] if m > 1 else n * size
        c, at_a, at_b = (each.ctypes.data for each in (out, a, b))
        at_bias, h = (0 if each is None else each.ctypes.data for each in (bias, mask))
        code, adds = ACTIVATIONS.index(activation), int(accumulate)
        self.scratch_bytes = 0
        self._function = None
        if m == 0 or n == 0:
            return
        if n == 1 and a_row == size and c_row == size and bias is None and (mask is None or h_row == size) and m > 1:
            # A transposed times a column: the same numbers as a row times A's memory, whose rows lie side by side
            m, n, at_a, at_b = 1, m, at_b, at_a
            a_step, a_row, b_step, b_column = b_step, k * size, a_step, size
            c_row = h_row = n * size
        finishing = (code, at_bias, h)
        if m == 1 and n > 1 and b_step == size and b_column != size:
            self._function = product.vector_kernel(size, width)
            self._before = (n, k, at_b, b_column, at_a, a_step, c, size, adds)
            self._after = (1, *finishing, size)
            self.scratch_bytes = 0 if a_step == size else k * size
        elif n == 1 and a_step == size and k > 1:
            self._function = product.vector_kernel(size, width)
            self._before = (m, k, at_a, a_row, at_b, b_step, c, c_row, adds)
            self._after = (int(m == 1), *finishing, h_row)
            self.scratch_bytes = 0 if b_step == size else k * size
        else:
            ragged = at_b % ALIGNMENT or b_step % ALIGNMENT
            packed = True if b_column != size or (ragged and _may_pack(m)) else None
            cut = blocks(m, k, n, size, width, a_row == size and a_step != size, packed)
            self._function = product.kernel(size, width)
            self._before = (
                m, n, k, at_a, a_row, a_step, at_b, b_step, b_column, c, c_row, adds,
                int(cut.pack_a), int(cut.pack_b), cut.kc, cut.nc,
            )  # fmt: skip
            self._after = (*finishing, h_row)
            self.scratch_bytes = cut.scratch_bytes

    def __call__(self, scratch=None) -> None:
        """Runs it. ``scratch``: bytes (uint8, side by side), at least ``scratch_bytes``; best aligned to 64."""
        if self._function is None:
            return
        address = 0
        if self.scratch_bytes:
            have = 0 if scratch is None else scratch.nbytes
            if have < self.scratch_bytes or not scratch.flags.c_contiguous:
                raise ValueError(
                    f"native product: expected {self.scratch_bytes} contiguous bytes of scratch, got {have}"
                )
            address = scratch.ctypes.data
        self._function(*self._before, address, *self._after)

    def _check(self, activation) -> int:
        out, a, b, bias, mask = self._arrays
        if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[0] or out.shape != (a.shape[0], b.shape[1]):
            raise ValueError(f"native product: expected (m, n) = (m, k) (k, n), got {out.shape} = {a.shape} {b.shape}")
        size = _size(out.dtype)
        for name, each, shape in (
            ("a", a, a.shape), ("b", b, b.shape), ("bias", bias, out.shape[1:]), ("mask", mask, out.shape)
        ):  # fmt: skip
            if each is None:
                continue
            if each.dtype != out.dtype or each.shape != shape:
                raise ValueError(
                    f"native product: expected {name} of {out.dtype} and shape {shape}, got {each.dtype} {each.shape}"
                )
            if np.may_share_memory(out, each) and name in "ab" and np.shares_memory(out, each):
                raise ValueError(f"native product: out is memory of {name}; give it memory of its own")
        for name, each in (("out", out), ("bias", bias), ("mask", mask)):
            if each is not None and each.size and each.shape[-1] > 1 and each.strides[-1] != size:
                raise ValueError(f"native product: expected {name} with its columns side by side; copy it first")
        if not out.flags.writeable:
            raise ValueError("native product: expected an out that can be written to, got a read-only one")
        for each in self._arrays:
            if each is not None and not each.flags.aligned:
                raise ValueError(f"native product: expected elements at multiples of {size} bytes; copy first")
        if activation not in ACTIVATIONS:
            raise ValueError(f"native product: expected an activation among {ACTIVATIONS}, got {activation!r}")
        return size


def matmul(out, a, b, *, scratch=None, accumulate=False, bias=None, activation=None, mask=None, width=None) -> None:
    """``out = where(mask > 0, activation([out +] a @ b + bias), 0)``: a ``Product`` that runs once."""
    Product(out, a, b, accumulate=accumulate, bias=bias, activation=activation, mask=mask, width=width)(scratch)
