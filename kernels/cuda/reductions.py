"""Kernels for CUDA of reductions: of an expression, at once, or of an array; the mean of squares, which is one; argmax.

Sums are made by many threads side by side, of which each adds up a few, then pairwise: their errors do not grow with
the length. What few results take in of many elements is shared by blocks, in parts that follow from shapes alone; what
these come to is put together by a second launch (``code/reductions.cu``). So a result is the same whenever it is
computed.
"""

from __future__ import annotations

import itertools
import math

import numpy as np

from ..expression import Expression, Node
from .chains import THREADS, Chain, Way
from .encoding import Launch, blocks_of, cuda, integer, line, pointer
from .translation import Declined, c_type
from .walks import over, pack, walk

OPERATORS = {"sum": "Sum", "mean": "Sum", "max": "Max", "min": "Min"}
SUFFIXES = {"float32": "_f32", "float64": "_f64", "int32": "_i32", "int64": "_i64"}
WARP = 32
LANES = ((16, 4), (1024, WARP), (math.inf, THREADS))  # threads of a result that takes in so many neighbours
PART, BLOCKS = 4096, 1024  # elements that a block has at least, and blocks that are enough
STRIPS = 16  # rows that a thread has at least
MOST_AXES = 6
NOTHING = np.uint64(0)


class Reduction:
    """An expression that is reduced over some axes of the shape to which its inputs are broadcast."""

    def __init__(self, expression: Expression, reduce: str):
        self.chain, self.reduce, self.operator = Chain(expression), reduce, OPERATORS[reduce]

    def scratch(self, out, *inputs, axis, keepdims=False, **attributes) -> int:
        shape = np.broadcast_shapes(*(x.shape for x in inputs))
        results = math.prod(out.shape)
        if not results or not math.prod(shape):
            return 0
        n = math.prod(shape) // results
        most = max(-(-n // part) for part in (_part_of_rows(results, n), _part_of_columns(results, n)))
        return most * results * np.dtype(out.dtype).itemsize if most > 1 else 0

    def encode(self, out, *inputs, scratch, axis, keepdims=False, **attributes):
        shape = np.broadcast_shapes(*(x.shape for x in inputs))
        if 0 in out.shape:
            return []
        if (0 in shape and self.reduce != "sum") or str(out.dtype) not in SUFFIXES:
            return None
        strides = _kept(out, shape, axis), *(over(x, shape) for x in inputs)
        if None in strides or (self.reduce == "mean" and out.dtype.kind != "f"):
            return None
        leading = next((i for i, x in enumerate(inputs, 1) if tuple(x.shape) == tuple(shape)), 1)
        found = walk(shape, strides, tuple(axis), leading)
        try:
            translation = self.chain.translation([x.dtype for x in inputs], attributes)
        except Declined:
            return None
        if translation.dtype != out.dtype or len(found.sizes) > MOST_AXES:
            return None
        rows = found.reduced[-1]
        results = math.prod(n for n, flag in zip(found.sizes, found.reduced) if not flag)
        n = math.prod(n for n, flag in zip(found.sizes, found.reduced) if flag)
        kept = [i for i, flag in enumerate(found.reduced) if not flag]
        step = _one_stride([found.sizes[i] for i in kept], [found.strides[0][i] for i in kept])
        part = (_part_of_rows if rows else _part_of_columns)(results, n) if step is not None else n
        parts = max(1, -(-n // part)) if part else 1
        count = integer(n if self.reduce == "mean" else 0)
        target, keep = (NOTHING, ()) if parts == 1 else (pointer(scratch), (scratch,))
        more = (integer(results), integer(n), integer(part), target, count)
        if rows:
            lanes = next(lanes for most, lanes in LANES if n <= most)
            wide = pack(found, len(found.sizes) - 1, (None, *inputs), [x.dtype.itemsize for x in (out, *inputs)])
            call, grid, block = f"reduce_rows<{lanes}, {wide}, {self.operator}>", results * lanes, (THREADS, 1, 1)
            grid = blocks_of(grid, THREADS)
        else:
            call, (grid, block) = f"reduce_columns<{self.operator}>", _strips(results)
        way = Way(call, ("int64", "int64", "int64", f"{c_type(out.dtype)}*", "int64"))
        grid = (grid[0], parts, 1)
        launches = [self.chain.launch(translation, attributes, found, (out, *inputs), way, grid, block, more, keep)]
        if parts > 1:
            launches.append(self._combine(out, step, scratch, results, parts, count, rows))
        return launches

    def _combine(self, out, step: int, scratch, results: int, parts: int, count, rows: bool) -> Launch:
        """What follows the parts: of each result side by side, or of all results."""
        name = f"combine_{'rows' if rows else 'columns'}_{self.operator.lower()}{SUFFIXES[str(out.dtype)]}"
        grid, block = ((results, 1, 1), (THREADS, 1, 1)) if rows else _strips(results)
        arguments = (pointer(out), integer(step), pointer(scratch), integer(results), integer(parts), count)
        return Launch("reductions", name, grid, block, arguments, keep=(out, scratch))


def _part_of_rows(results: int, n: int) -> int:
    """How many of n neighbours a block reduces to one."""
    parts = min(-(-n // PART), max(1, BLOCKS // results)) if n >= 2 * PART else 1
    return n if parts <= 1 else -(-n // (parts * 1024)) * 1024


def _part_of_columns(results: int, n: int) -> int:
    (blocks, _, _), (_, high, _) = _strips(results)
    parts = min(-(-n // (high * STRIPS)), max(1, BLOCKS // 2 // blocks))
    return n if parts <= 1 else -(-n // parts)


def _strips(results: int):
    """Blocks for results side by side, and the threads of one: columns, and those that share a column."""
    wide = next((each for each in (4, 8, 16) if results <= each), 32)
    return blocks_of(results, wide), (wide, THREADS // wide, 1)


def _kept(out, shape, axis) -> tuple[int, ...] | None:
    """Strides of a result along the axes of what is reduced, whether or not it has the reduced ones."""
    size = out.dtype.itemsize
    steps = iter([step for n, step in zip(out.shape, out.strides) if n != 1])
    found = [0 if i in axis or n == 1 else next(steps) for i, n in enumerate(shape)]
    return None if any(step % size for step in found) else tuple(step // size for step in found)


def _one_stride(sizes, strides) -> int | None:
    """From element to element, in C order; None where that is not one number."""
    steps = [(n, step) for n, step in zip(sizes, strides) if n != 1]
    for (_, far), (n, near) in itertools.pairwise(steps):
        if far != near * n:
            return None
    return steps[-1][1] if steps else 0


# ---- of an array as it is ----

_SAME = Expression(Node("name", ("x",)), ("x",))
for _name in OPERATORS:
    _reduction = Reduction(_SAME, _name)
    cuda(_name, scratch=_reduction.scratch, dtypes=(None,))(_reduction.encode)

_sum = Reduction(_SAME, "sum")


def _stretched(x, shape) -> tuple[int, ...]:
    lead = len(x.shape) - len(shape)
    return tuple(i for i, n in enumerate(x.shape) if i < lead or (shape[i - lead] == 1 and n != 1))


@cuda("sum_to", scratch=lambda out, x, shape: _sum.scratch(out, x, axis=_stretched(x, shape)), dtypes=(None,))
def sum_to(out, x, shape, scratch):
    return _sum.encode(out, x, scratch=scratch, axis=_stretched(x, shape))


# ---- the mean of squared differences ----

_mse = Reduction(Expression("square(prediction - target)", ("prediction", "target")), "mean")


def _all(prediction) -> tuple[int, ...]:
    return tuple(range(len(prediction.shape)))


@cuda("mse", scratch=lambda out, prediction, target: _mse.scratch(out, prediction, target, axis=_all(prediction)))
def mse(out, prediction, target, scratch):
    return _mse.encode(out, prediction, target, scratch=scratch, axis=_all(prediction))


# ---- the place of the largest ----


@cuda("argmax", dtypes=("int64",))
def argmax(out, x, axis, keepdims):
    if 0 in out.shape:
        return []
    axes = tuple(range(len(x.shape))) if axis is None else (axis,)
    strides = over(x, x.shape)
    if strides is None or not line(out) or str(x.dtype) not in ("float32", "float64") or 0 in x.shape:
        return None
    first, last = (axes[0], axes[-1] + 1) if axes else (0, 0)
    parts = slice(first), slice(first, last), slice(last, None)
    sizes = [math.prod(x.shape[part]) for part in parts]
    steps = [_one_stride(x.shape[part], strides[part]) for part in parts]
    if None in steps:
        return None
    results = math.prod(out.shape)
    lanes = WARP if sizes[1] <= LANES[1][0] else THREADS
    name = f"argmax_{'warp' if lanes == WARP else 'block'}{SUFFIXES[str(x.dtype)]}"
    arguments = (
        pointer(out), pointer(x), *map(integer, (results, sizes[1], sizes[2], steps[0], steps[2], steps[1])),
    )  # fmt: skip
    grid = blocks_of(results * lanes, THREADS)
    return [Launch("reductions", name, grid, (THREADS, 1, 1), arguments, keep=(out, x))]
