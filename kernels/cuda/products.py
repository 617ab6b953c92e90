"""From one matrix product to launches: which kernel, which tile, how the depth is cut.

The steps of the ladder are ``code/product_naive.cu`` to ``product_tensor.cu``. Programs get "vectors", or "tensor"
where the precision asks for it, and "matvec" where C has one row or one column; the others are there to be read and
measured.

A product that has few tiles leaves most of the GPU without work. Its depth is then cut into slices, whose products go
to scratch and are added up by a second launch, in their order: the bits of the result are the same every time.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..activations import ACTIVATIONS
from .encoding import SUFFIXES, WIDE, Launch, address, integer

STEPS = ("naive", "shared", "registers", "vectors", "tensor", "matvec")
ENOUGH = 128  # blocks, to keep a GPU busy: about as many as it has multiprocessors
LEAST_DEPTH = 64  # of a slice: each costs a pass over C
MOST_SLICES = 64
LARGEST_Z = 65535  # of a grid
NARROW = 16  # columns of the narrow tile
# step -> rows and columns of a tile, threads
TILES = {"naive": ((8, 32), 256), "shared": ((32, 32), 1024), "registers": ((64, 64), 256)}
STAGES, TENSOR_DEPTH = 3, 16  # of the TF32 kernels, as in product_tensor.cu


class View(NamedTuple):
    """A matrix, or a batch of them: an address, and strides in elements."""

    address: int
    row: int
    column: int
    batch: int = 0

    def turned(self) -> View:
        return self._replace(row=self.column, column=self.row)


NOTHING = View(0, 0, 0)


class Product(NamedTuple):
    """C = where(mask > 0, activation(A B + bias), 0), each part if it is there.

    ``dtype`` is the type of all but A and B, whose strides count elements of ``operands``: of the same, or of "uint16",
    which are numbers in bf16.
    """

    m: int
    n: int
    k: int
    batch: int
    a: View
    b: View
    c: View
    bias: View
    mask: View
    activation: str | None
    dtype: np.dtype
    keep: tuple
    operands: np.dtype

    def turned(self) -> Product:
        """The same as C^T = B^T A^T."""
        turned = {name: getattr(self, name).turned() for name in ("c", "bias", "mask")}
        return self._replace(m=self.n, n=self.m, a=self.b.turned(), b=self.a.turned(), **turned)

    def part_of_batch(self, first: int, count: int) -> Product:
        def moved(name: str) -> View:
            view, dtype = getattr(self, name), self.operands if name in "ab" else self.dtype
            return view._replace(address=view.address + first * view.batch * dtype.itemsize)

        views = {name: moved(name) for name in ("a", "b", "c", "mask")}
        return self._replace(batch=count, **views)

    @property
    def of_bf16(self) -> bool:
        return self.operands != self.dtype

    @property
    def flops(self) -> int:
        return 2 * self.m * self.n * self.k * self.batch


class Cut(NamedTuple):
    """How a product is cut."""

    tile: tuple[int, int]
    slices: int
    depth: int


def sliced(blocks: int, k: int, least: int = LEAST_DEPTH) -> tuple[int, int]:
    """Slices of the depth, and how deep each is, for a grid of that many blocks."""
    count = min(-(-ENOUGH // max(blocks, 1)), k // least, MOST_SLICES) if 2 * blocks <= ENOUGH else 1
    if count < 2:
        return 1, max(k, 1)
    depth = -(-k // count)
    depth += -depth % 32  # so that every slice begins where its operands can be loaded 16 bytes at a time
    return -(-k // depth), depth


def cut(m: int, n: int, k: int, batch: int, dtype, step: str = "vectors") -> Cut:
    """For a product that is no narrower than ``turned_for`` leaves it. Of shapes alone, as scratch is."""
    if step == "matvec":
        return Cut((1, 1), *sliced(-(-m // 32) * batch, k, 8 * LEAST_DEPTH))
    if step in TILES:
        tile = TILES[step][0]
    elif np.dtype(dtype) != np.float32:
        tile = (64, 64)
    elif step == "vectors" and n <= NARROW < m:
        tile = (128, NARROW)
    else:
        tile = (128, 128) if -(-m // 128) * -(-n // 128) * batch >= ENOUGH else (64, 64)
    return Cut(tile, *sliced(-(-m // tile[0]) * -(-n // tile[1]) * batch, k))


def is_turned(m: int, n: int) -> bool:
    """Whether C^T is computed: one row as one column, a narrow C with its few rows as columns."""
    return n != 1 and (m == 1 or m <= NARROW < n)


def scratch_bytes(m: int, n: int, k: int, batch: int, dtype, step: str | None = None) -> int:
    """Bytes for the slices of a product; by the step that programs get, where none is named."""
    if 0 in (m, n, batch):
        return 0
    if step not in TILES and is_turned(m, n):
        m, n = n, m
    # Whichever precision there is: what "tensor" gets is cut as it were for "vectors".
    slices = cut(m, n, k, batch, dtype, step or ("matvec" if n == 1 else "vectors")).slices
    return 0 if slices == 1 else slices * batch * m * n * np.dtype(dtype).itemsize


def step_for(product: Product, precision: str) -> str:
    """The step of the ladder that programs get."""
    if product.of_bf16:
        return "tensor"
    if 1 in (product.m, product.n):
        return "matvec"
    if min(product.m, product.n) <= NARROW:  # there is a tile for it, and it takes as long as memory does
        return "vectors"
    return "tensor" if precision != "float32" and product.dtype == np.float32 else "vectors"


def launches(product: Product, step: str, precision: str = "float32", scratch=None) -> list[Launch]:
    """The launches of a product. Slices are as many as there is scratch for."""
    if 0 in (product.m, product.n, product.batch):
        return []
    if step not in TILES and is_turned(product.m, product.n):
        product = product.turned()
    if product.k == 0:  # an operand without elements has no address
        product = product._replace(a=View(product.c.address, 0, 0), b=View(product.c.address, 0, 0))
    size = product.dtype.itemsize
    tile, slices, depth = cut(product.m, product.n, product.k, product.batch, product.dtype, step)
    room = 0 if scratch is None else scratch.nbytes
    if slices > 1 and room < slices * product.batch * product.m * product.n * size:
        slices, depth = 1, max(product.k, 1)
    most = LARGEST_Z // slices
    found = []
    for first in range(0, product.batch, most):
        part = product.part_of_batch(first, min(most, product.batch - first))
        if slices == 1:
            found.append(_launch(part, step, precision, tile, 1, depth))
            continue
        m, n = product.m, product.n
        parts = View(address(scratch), n, 1, m * n)
        raw = part._replace(c=parts, bias=NOTHING, mask=NOTHING, activation=None, keep=(*product.keep, scratch))
        found.append(_launch(raw, step, precision, tile, slices, depth))
        found.append(finishing(part, parts, slices, scratch))
    return found


def finishing(product: Product, parts: View, slices: int, scratch=None) -> Launch:
    """The launch that adds slices up, and does the rest. ``parts.batch`` lies between slices."""
    size = (product.m * product.n + 255) // 256
    whole = product._replace(a=parts, b=parts, keep=(*product.keep, *(() if scratch is None else (scratch,))))
    grid = (min(size, 1 << 20), 1, product.batch)
    name = "product_parts" + SUFFIXES[str(product.dtype)]
    return Launch("product_parts", name, grid, (256, 1, 1), _arguments(whole, slices, 1, False), keep=whole.keep)


def _launch(product: Product, step: str, precision: str, tile, slices: int, depth: int) -> Launch:
    if step == "matvec":
        return _matvec(product, slices, depth)
    name, threads, shared = f"product_{step}", TILES[step][1] if step in TILES else 256, 0
    if step not in TILES:
        ways = _ways(product)
        if tile[1] == NARROW:
            ways, threads = (ways[0], "any"), 128
        elif "any" in ways:  # one kernel for all that has an operand which is not packed
            ways = ("any", "any")
        if step == "tensor":
            tile = (64, 64) if "any" in ways else tile
            threads = 256 if precision == "bf16" and tile == (128, 128) else 128
            shared = _tensor_shared(tile, ways) if precision == "tf32" else 0
            name += "_of_bf16" if product.of_bf16 else f"_{precision}"
        name += f"_{tile[0]}x{tile[1]}_{ways[0]}_{ways[1]}"
    grid = (-(-product.m // tile[0]) * -(-product.n // tile[1]), 1, product.batch * slices)
    arguments = _arguments(product, slices, depth, _is_packed(product))
    function = name + SUFFIXES[str(product.dtype)]
    return Launch(f"product_{step}", function, grid, (threads, 1, 1), arguments, shared, product.keep)


def _tensor_shared(tile: tuple[int, int], ways) -> int:
    """Bytes of the tiles of a TF32 kernel: ``Panel`` in product.cuh."""
    deep, flat = lambda rows: rows * (TENSOR_DEPTH + 4), lambda rows: TENSOR_DEPTH * (rows + 8)
    both = sum((deep if way == "deep" else flat)(rows) for rows, way in zip(tile, ways))
    return STAGES * both * 4


def _matvec(product: Product, slices: int, depth: int) -> Launch:
    m, k, a, b = product.m, product.k, product.a, product.b
    grid, name = -(-m // 32), "matvec_columns"
    if (a.column == 1 or k == 1) and not (a.row == 1 and m > 1 and k < 32):
        size = product.dtype.itemsize
        wide = (b.row == 1 or k == 1) and fits(a, m, 0, size, product.batch) and fits(b, 0, 0, size, product.batch)
        few = m * product.batch * slices < 4 * ENOUGH and depth >= 1024
        grid, name = (m, "matvec_block") if few else (-(-m // 8), "matvec_rows")
        name += "_wide" * wide
    arguments = _arguments(product, slices, depth, False)
    function = name + SUFFIXES[str(product.dtype)]
    return Launch(
        "product_matvec", function, (grid, 1, product.batch * slices), (256, 1, 1), arguments, keep=product.keep
    )


def fits(view: View, rows: int, columns: int, size: int, batch: int = 1) -> bool:
    """Whether 16 bytes may be loaded at once, of elements of a size, from where each row, or each column, begins."""
    steps = (view.row if rows > 1 else 0, view.column if columns > 1 else 0, view.batch if batch > 1 else 0)
    return view.address % WIDE == 0 and not any(step * size % WIDE for step in steps)


def _ways(product: Product) -> tuple[str, str]:
    """How A and B lie: along the depth or across it, where they can be loaded 16 bytes at a time, or anyhow."""
    found = []
    size, batch = product.operands.itemsize, product.batch
    for view, rows in ((product.a, product.m), (product.b.turned(), product.n)):
        if (view.column == 1 or product.k == 1) and fits(view, rows, 0, size, batch):
            found.append("deep")
        elif (view.row == 1 or rows == 1) and fits(view, 0, product.k, size, batch):
            found.append("flat")
        else:
            found.append("any")
    return found[0], found[1]


def _is_packed(product: Product) -> bool:
    """Whether C, bias and mask may be touched 16 bytes at a time."""
    for view, rows in ((product.c, product.m), (product.mask, product.m), (product.bias, 0)):
        if view.address and not (view.column == 1 and fits(view, rows, 0, product.dtype.itemsize, product.batch)):
            return False
    return True


def _arguments(product: Product, slices: int, depth: int, packed: bool) -> tuple:
    def words(*values: int) -> tuple:
        return (np.uint64(values[0]), *map(integer, values[1:]))

    p = product
    return (
        *map(integer, (p.m, p.n, p.k, depth)),
        *words(p.a.address, p.a.row, p.a.column, p.a.batch), *words(p.b.address, p.b.row, p.b.column, p.b.batch),
        *words(p.c.address, p.c.row, p.c.column, p.c.batch), *words(p.bias.address, p.bias.row, p.bias.column),
        *words(p.mask.address, p.mask.row, p.mask.column, p.mask.batch),
        np.int32(slices), np.int32(ACTIVATIONS.index(p.activation)), np.int32(packed),
    )  # fmt: skip
