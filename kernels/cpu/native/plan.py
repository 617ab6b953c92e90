"""From arrays to the arguments of a compiled product: what is checked, which path is taken, what scratch that needs."""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from ...activations import ACTIVATIONS
from . import machine
from .instructions import Instruction
from .pool import useful_threads

# Largest depths of a block of B: deeper blocks read and write C less often, and leave room for fewer columns.
DEPTH = 512
LEAST_DEPTH = 64  # also of a transposed A from memory: the tile beside then finds the rest of its lines in a cache
DEPTH_SMALL = 1024  # where all of B fits a quarter of the second-level cache
# Packing costs a pass over the operand. It is worth that for B from this many rows of A on, if B leaves the cache ...
ROWS_WORTH_PACKING = 192
ROWS_WORTH_PACKING_FAR = 48  # ... or from fewer, if it is several times as large
# ... and for a transposed A from this many columns of B on, as long as the slab is not large itself.
COLUMNS_WORTH_PACKING_A = 1024
LARGEST_SLAB = 8 * 2**20
PANELS = 4  # of a block of B that comes from memory and is read in place: rows of a KB
# Up to this many rows a packed panel of B is used at once, while the nearest cache still has it.
ROWS_PER_PANEL = 256
ALIGNMENT = 64
# A core that walks through its scratch has what follows it in a page fetched, and takes that away from the core that
# writes there. A transposed A is copied for every other tile: 257^3 on two cores runs at 236 GFLOP/s without this room
# between their scratch, and at 275 with it.
APART = 4096
FRESH = 2  # what it takes to read A, which another core may just have written, in terms of what it takes to read B
COPIED_TILES = 2  # tiles whose part of a transposed A is copied at a time; the copies of more leave the nearest cache
TURNED_TILES = 8  # rows of C' that are computed before they are transposed, in tiles
MOVE = 16  # multiply-adds of a lane in the time that it takes to transpose an element, most of which are waiting

STREAM_FROM, LEAST_STREAMED = 1, 2048  # second-level caches, from which one row times B reads rows; bytes of a row

ASKS_NOTHING = (0, 0, 0)  # the last words of a product: who uses it up says there what it reads, see ``strips``
IN_PLACE, PACKED, COPIED, TURNED, STREAMED = range(5)  # what is done with an operand: see ``product``


class Turn(NamedTuple):
    """What there is to know of a product that can be turned.

    ``b_transposed``: whether B would have to be transposed if it is not. ``ready``: whether A' is read as it lies.
    """

    b_transposed: bool
    ready: bool


class Blocks(NamedTuple):
    """How a product is cut, and what is done with its operands.

    ``a`` is read in place, packed, or copied on the way; ``b`` is read in place, packed, or row by row, or the product
    is turned: a copied ``a`` is then brought into rows of whole cache lines beforehand.
    """

    kc: int
    nc: int
    a: int
    b: int
    scratch_bytes: int


def line_bytes(count: int, size: int) -> int:
    """Bytes from line to line of ``count`` elements: an odd number of cache lines, lest all fall into the same sets."""
    return ((count * size + 63) // 64 | 1) * 64


def apart(nbytes: int, threads: int) -> int:
    """Bytes from the beginning of a thread's scratch to that of the next one's, of ``nbytes`` for each."""
    return -(-nbytes // ALIGNMENT) * ALIGNMENT + (APART if nbytes and threads > 1 else 0)


def slab_bytes(size: int, width: int, m: int, kc: int) -> int:
    """Bytes of scratch for a packed slab of A, whose strips stand before the block of B."""
    height = machine.tile(size, width).height
    return -(-m // height) * line_bytes(height * kc, size)


def copied_rows(size: int, width: int) -> int:
    """Rows of a transposed A that are copied at a time."""
    return COPIED_TILES * machine.tile(size, width).height


def turned_bytes(size: int, width: int, m: int, k: int, n: int, ready: bool) -> int:
    """Bytes of scratch of a turned product: some rows of C', and A' unless it lies ready."""
    rows = min(n, TURNED_TILES * machine.tile(size, width).height)
    return (rows + (0 if ready else k)) * line_bytes(m, size)


def block_bytes(size: int, width: int, kc: int, nc: int) -> int:
    """Bytes of scratch for a packed block of B: panels that are all as wide as a tile."""
    _, breadth, lanes = machine.tile(size, width)
    return -(-nc // (breadth * lanes)) * breadth * lanes * kc * size


def _turns(m: int, k: int, n: int, size: int, width: int, turn: Turn) -> bool:
    """Whether to turn a product is less work than not to, and A' stays in the cache or is read once."""
    lanes = machine.tile(size, width).lanes  # what follows is in multiply-adds of one of them
    nbytes = m * k * size
    if not turn.b_transposed:
        if n == 1 or m < ROWS_WORTH_PACKING:
            return False
        if nbytes > machine.second_level_cache():  # A is read from side to side if turned, else a line here and there
            return n < machine.tile(size, width).breadth * lanes
        if n > lanes:
            return False
    whole_m, whole_n = (-(-count // lanes) * lanes for count in (m, n))
    plain = k * m * whole_n + (MOVE * k * n if turn.b_transposed else 0)
    turned = k * n * whole_m + MOVE * (m * n + (0 if turn.ready else m * k))
    return turned < plain and (n <= lanes or nbytes <= machine.second_level_cache() // 2)


def _even(count: int, most: int, unit: int = 1) -> int:
    """The least multiple of ``unit`` that cuts ``count`` into as few pieces as ``most`` does."""
    pieces = -(-count // most)
    return -(-count // (pieces * unit)) * unit if pieces else unit


def _in_place(k: int, n: int, row: int, cache: int, panel: int) -> tuple[int, int]:
    """Depth and columns of a block of B (k x n) that is read where it lies, in rows of ``row`` bytes.

    As many whole rows as half the cache holds, since rows a power of two bytes apart share a part of its sets.
    """
    depth = DEPTH_SMALL if k * row <= cache // 4 else max(LEAST_DEPTH, min(DEPTH, cache // 2 // row))
    return _even(k, depth), _even(n, n if k * row <= cache // 2 else PANELS * panel, panel)


@functools.cache
def blocks(
    m: int, k: int, n: int, size: int, width: int, a_transposed: bool, b_packed: bool | None, turn: Turn | None = None,
    whole: tuple[int, int] | None = None,
) -> Blocks:  # fmt: skip
    """The cut for these shapes.

    Args:
        whole: m and n of the product of which this is a share, if it is one. Where rows are a power of two bytes apart,
            which they often are, a slice of them has only its part of the sets of a cache; so as many rows are held as
            if they were whole.
        b_packed: whether B has to be packed for its layout; None to decide by what is faster.
        turn: what a turned product would find; None if it cannot be turned.
    """
    cache = machine.second_level_cache()
    panel = machine.tile(size, width).breadth * machine.tile(size, width).lanes
    whole_m, whole_n = whole or (m, n)
    if turn and _turns(m, k, n, size, width, turn):
        kc, nc = _in_place(k, m, whole_m * size, cache, panel)
        nbytes = turned_bytes(size, width, m, k, n, turn.ready)
        return Blocks(kc, nc, IN_PLACE if turn.ready else COPIED, TURNED, nbytes)
    if m == 1 and not b_packed and k * whole_n * size > STREAM_FROM * cache and n * size >= LEAST_STREAMED:
        return Blocks(k, n, IN_PLACE, STREAMED, 0)
    far = k * n * size >= 4 * cache
    worth = m >= (ROWS_WORTH_PACKING_FAR if far else ROWS_WORTH_PACKING) and k * n * size >= cache
    pack_b = worth if b_packed is None else b_packed
    pack_a = a_transposed and n >= COLUMNS_WORTH_PACKING_A and m >= ROWS_WORTH_PACKING
    pack_a = pack_a and m * min(k, DEPTH) * size <= LARGEST_SLAB
    copy_a = a_transposed and not pack_a and n > panel and m >= copied_rows(size, width)
    if pack_b:
        kc = _even(k, DEPTH)
        nc = panel if m <= ROWS_PER_PANEL else _even(n, max(panel, cache // 2 // (kc * size) // panel * panel), panel)
    else:
        kc, nc = _in_place(k, n, whole_n * size, cache, panel)
    if a_transposed and not pack_a and m * k * size > cache:
        kc = min(kc, _even(k, LEAST_DEPTH))
    nbytes = slab_bytes(size, width, m, kc) * pack_a + line_bytes(copied_rows(size, width) * kc, size) * copy_a
    nbytes += block_bytes(size, width, kc, nc) * pack_b
    return Blocks(kc, nc, PACKED if pack_a else COPIED if copy_a else IN_PLACE, PACKED if pack_b else IN_PLACE, nbytes)


def cost(m: int, k: int, n: int, size: int) -> float:
    """About how many nanoseconds a product takes one core.

    What a call costs, and the longer of computing, at 100 GFLOP/s in single precision, and reading the operands: at
    64 GB/s from the second-level cache, half of that from beyond it.
    """
    nbytes = (m * k + k * n) * size
    reading = nbytes / (64 if nbytes <= machine.second_level_cache() // 2 else 32)
    return 50 + max(2 * m * k * n * size / 400, reading)


@functools.cache
def shared(
    m: int, k: int, n: int, size: int, width: int, a_transposed: bool, b_packed: bool | None, turn: Turn | None,
    threads: int,
) -> tuple[int, bool, Blocks]:  # fmt: skip
    """How many of the threads share a product, whether each has columns of C (or else rows), and the cut of a share.

    Each thread packs for itself. With columns for each, both read all of A and its own part of B, so that is the way
    where B is much larger; unless one of the threads would get much more than its share in whole tiles.
    """
    height, breadth, lanes = machine.tile(size, width)
    cut = blocks(m, k, n, size, width, a_transposed, b_packed, turn)
    units = {False: -(-m // height), True: -(-n // (breadth * lanes))}  # by columns or not -> tiles to be shared
    if threads == 1 or max(units.values()) == 1:
        return 1, False, cut
    excess = {way: -(-count // threads) * threads / count for way, count in units.items()}
    reads = {False: k * n * (1 + (cut.b == PACKED)), True: FRESH * m * k * (1 + (cut.a == PACKED))}
    way = min((False, True), key=lambda way: (excess[way] > 1.15, excess[way] if excess[way] > 1.15 else 0, reads[way]))
    threads = min(threads, units[way])
    most = -(-units[way] // threads)
    rows, columns = (m, min(n, most * breadth * lanes)) if way else (min(m, most * height), n)
    share = blocks(rows, k, columns, size, width, a_transposed, b_packed, turn, (m, n))
    if share.b == TURNED:  # a call by itself has all rows, whose lines may be longer than those of the shares together
        alone = turned_bytes(size, width, m, k, n, turn.ready)
        share = share._replace(scratch_bytes=max(share.scratch_bytes, -(-alone // threads)))
    return threads, way, share


def scratch_bytes(m, k, n, dtype, *, transpose_a=False, transpose_b=False, width=None, threads=1) -> int:
    """Bytes of scratch that ``matmul`` needs at most for C (m x n) = A (m x k) B (k x n).

    For row-major operands, or transposes of such, whatever their leading dimensions; ``Product.scratch_bytes`` knows
    the very arrays, in any layout.

    Args:
        dtype: float32 or float64.
        transpose_a, transpose_b: whether the operand is the transpose of a row-major array.
        width: bits of a vector, for those who chose them.
        threads: how many may share it.
    """
    size, width = _size(np.dtype(dtype)), _width(width)
    threads = min(threads, useful_threads(cost(m, k, n, size)))
    if 0 in (m, n):
        return 0

    def needed(a_transposed: bool, packed: bool | None, turn: Turn | None = None) -> int:
        count, _, cut = shared(m, k, n, size, width, a_transposed, packed, turn, threads)
        return count * apart(cut.scratch_bytes, count)

    if m == 1 or n == 1:
        return max(threads * apart(k * size, threads), needed(False, True))
    if transpose_b:
        turns = (None, *(Turn(True, ready) for ready in {False, transpose_a}))
        return max(needed(transpose_a, True, turn) for turn in turns)
    turns = (None, Turn(False, True)) if transpose_a else (None,)
    packings = (None, True) if _may_pack(m) else (None,)
    return max(needed(transpose_a, packed, turn) for packed in packings for turn in turns)


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
        threads: how many may share the work, as an ``instruction``. A call by itself is made by one.

    Attributes:
        scratch_bytes: what a call needs.
        threads: how many share the work: as many as that pays for, and may.

    Raises:
        ValueError: shapes, element types or layouts that do not go together. Nothing has been written then.
    """

    def __init__(self, out, a, b, *, accumulate=False, bias=None, activation=None, mask=None, width=None, threads=1):
        self._arrays = (out, a, b, bias, mask)  # addresses are held below, so what they point to has to live on
        self._size, self._width = size, width = self._check(activation), _width(width)
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
        self.cost = cost(m, k, n, size)
        self.threads, by_columns, self._scratch_each = 1, False, 0
        self._operation = None
        self._function, self._last = None, (None, 0)
        if m == 0 or n == 0:
            return
        threads = min(threads, useful_threads(self.cost))
        if n == 1 and a_row == size and c_row == size and bias is None and (mask is None or h_row == size) and m > 1:
            # A transposed times a column: the same numbers as a row times A's memory, whose rows lie side by side
            m, n, at_a, at_b = 1, m, at_b, at_a
            a_step, a_row, b_step, b_column = b_step, k * size, a_step, size
            c_row = h_row = n * size
        finishing = (code, at_bias, h)
        if m == 1 and n > 1 and b_step == size and b_column != size:
            self._operation, self.threads = "matvec", min(threads, n)
            self._before = (n, k, at_b, b_column, at_a, a_step, c, size, adds)
            self._after = (1, *finishing, size)
            self._scratch_each = 0 if a_step == size else k * size
        elif n == 1 and a_step == size and k > 1:
            self._operation, self.threads = "matvec", min(threads, m)
            self._before = (m, k, at_a, a_row, at_b, b_step, c, c_row, adds)
            self._after = (int(m == 1), *finishing, h_row)
            self._scratch_each = 0 if b_step == size else k * size
        else:
            ragged = at_b % ALIGNMENT or b_step % ALIGNMENT
            packed = True if b_column != size or (ragged and _may_pack(m)) else None
            a_transposed = a_row == size and a_step != size
            turn = None
            if b_step == size and b_column != size and size in (a_row, a_step):
                ragged = at_a % ALIGNMENT or a_step % ALIGNMENT
                turn = Turn(True, a_transposed and not (ragged and _may_pack(n)))
            elif a_transposed and b_column == size:
                turn = Turn(False, True)
            cut = shared(m, k, n, size, width, a_transposed, packed, turn, threads)
            self._operation, self.threads, by_columns, cut = "matmul", *cut
            self._before = (
                m, n, k, at_a, a_row, a_step, at_b, b_step, b_column, c, c_row, adds,
                cut.a, cut.b, cut.kc, cut.nc,
            )  # fmt: skip
            self._after = (*finishing, h_row)
            self._scratch_each = cut.scratch_bytes
        self._shares = (int(by_columns), apart(self._scratch_each, self.threads))

    @property
    def scratch_bytes(self) -> int:
        return self.threads * apart(self._scratch_each, self.threads)

    def __call__(self, scratch=None) -> None:
        """Runs it. ``scratch``: bytes (uint8, side by side), at least ``scratch_bytes``; best aligned to 64."""
        if self._operation is None:
            return
        if self._function is None:
            from . import product

            function = product.vector_kernel if self._operation == "matvec" else product.kernel
            self._words = np.array((*self._before, *self._after), np.int64)
            self._function = functools.partial(function(self._size, self._width), self._words.ctypes.data)
        last, address = self._last
        if scratch is not last or scratch is None:
            address = self._address(scratch)
            self._last = scratch, address
        self._function(address)

    def instruction(self, scratch=None) -> Instruction | None:
        """The product as an instruction; None where there is nothing to compute."""
        if self._operation is None:
            return None
        by_columns, each = self._shares
        last = (each,) if self._operation == "matvec" else (by_columns, each, *ASKS_NOTHING)
        return Instruction(
            self._operation, self._size, (*self._before, self._address(scratch), *self._after, *last),
            keep=(*self._arrays, scratch), threads=self.threads, cost=self.cost, width=self._width,
            slices=bool(by_columns) and self.threads > 1,
        )  # fmt: skip

    def _address(self, scratch) -> int:
        if not self.scratch_bytes:
            return 0
        have = 0 if scratch is None else scratch.nbytes
        if have < self.scratch_bytes or not scratch.flags.c_contiguous:
            raise ValueError(f"native product: expected {self.scratch_bytes} contiguous bytes of scratch, got {have}")
        return scratch.ctypes.data

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


def takes(out, a, b, bias=None, mask=None) -> bool:
    """Whether a ``Product`` takes arrays of fitting shapes and one element type: it is about how they lie in memory."""
    lines = [each for each in (out, bias, mask) if each is not None]
    columns = out.size == 0 or out.shape[-1] <= 1 or all(each.strides[-1] == out.itemsize for each in lines)
    apart = not any(np.may_share_memory(out, each) for each in (a, b))
    return columns and apart and all(each.flags.aligned for each in (a, b, *lines))


def finishing(out, bias=None, activation=None, mask=None) -> list[Instruction]:
    """What turns a product in ``out`` into that of a ``Product``, as instructions; none where that is all."""
    if bias is None and activation is None and mask is None:
        return []
    (m, n), size = out.shape, out.itemsize
    words = (
        ACTIVATIONS.index(activation), m, n, out.ctypes.data, out.strides[0] if m > 1 else n * size,
        *(0 if each is None else each.ctypes.data for each in (bias, mask)),
        0 if mask is None else mask.strides[0] if m > 1 else n * size,
    )  # fmt: skip
    cost = 50 + out.size * size / 16
    return [Instruction("finish", size, words, (out, bias, mask), useful_threads(cost), cost)]


def matmul(out, a, b, *, scratch=None, accumulate=False, bias=None, activation=None, mask=None, width=None) -> None:
    """``out = where(mask > 0, activation([out +] a @ b + bias), 0)``: a ``Product`` that runs once."""
    Product(out, a, b, accumulate=accumulate, bias=bias, activation=activation, mask=mask, width=width)(scratch)
