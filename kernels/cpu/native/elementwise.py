"""Native kernels of expressions and of reductions: what the vector machine is told to do with these arrays.

``derive`` makes the kernel of any expression, or of an expression that is reduced at once; sum, mean, max, min and
``sum_to`` are the reductions of an input as it is. Not here: the machine (``code.elementwise``; its words are in
``elementwise_words``), the way over the arrays (``elementwise_shape``), and how an expression becomes operators
(``elementwise_program``) and these become an instruction (``elementwise_assembly``).

Results do not depend on the number of threads. A reduction adds in blocks that follow from shapes and strides alone:
within a block in several chains, then block by block; rows and whole arrays in double precision from then on.
"""

from __future__ import annotations

import math

import numpy as np

from ...expression import Expression, Node
from ...registry import Kernel
from .. import blocks as numpy_blocks
from ..cutting import aligned
from . import elementwise_shape as shapes
from . import elementwise_words as layout
from . import machine
from .elementwise_assembly import FLOATS, Assembly, element_type, most_registers, most_room, strides
from .elementwise_program import Declined, Operators, bits
from .elementwise_shape import BLOCK, LARGE, Array, Walk
from .encoding import address, kernel, native
from .instructions import Instruction
from .pool import threads as pool_threads

NEUTRAL = {"sum": 0.0, "max": -math.inf, "min": math.inf}
KINDS = ("sum", "max", "min")  # as the operation "combine" counts them
CHUNKS = 16  # parts of long columns, so that threads have something to share
_SAME = Expression(Node("name", ("x",)), ("x",))


def derive(expression: Expression, name: str, reduce: str | None = None) -> Kernel:
    """The native kernel of an expression, or of its reduction."""
    made = _Chain(expression) if reduce is None else _Reduction(expression, reduce)
    return kernel(name, made.encode, made.scratch, numpy_blocks.derive(expression, name, reduce))


class _Chain:
    """An expression, element by element."""

    def __init__(self, expression: Expression):
        self.expression = expression

    def scratch(self, out, *inputs, **attributes) -> int:
        dtypes, n = [np.dtype(x.dtype) for x in inputs], math.prod(out.shape)
        try:
            dtype = element_type(out.dtype, *dtypes)
            registers = most_registers(self.expression, dtypes, attributes, dtype, np.dtype(out.dtype))
            registers += _may_stream(out, inputs)  # the line that goes past the caches
        except Declined:
            return 0
        return pool_threads() * most_room(registers, self.expression, n, dtype) if n else 0

    def encode(self, out, *inputs, scratch, **attributes) -> list[Instruction] | None:
        if not out.size:
            return []
        try:
            return [self._instruction(out, inputs, scratch, attributes)]
        except Declined:
            return None

    def _instruction(self, out, inputs, scratch, attributes) -> Instruction:
        dtype = element_type(out.dtype, *(x.dtype for x in inputs))
        arrays = [Array(address(x), x.itemsize, strides(x, out.shape)) for x in (out, *inputs)]
        walk = shapes.walk(out.shape, arrays, 0)
        blocks = shapes.blocks(walk, dtype.itemsize)
        kinds = blocks.kinds[1:]
        operators = Operators(self.expression, [x.dtype for x in inputs], kinds, attributes, dtype, out.dtype)
        assembly, target = Assembly(walk, blocks, dtype), ("array", 0)
        if blocks.kinds[0] == "line":
            assembly.expression(operators, 1, target, _streams(out, inputs))
        else:
            root = assembly.expression(operators, 1)
            assembly.step(layout.EACH, "scatter bytes" if out.dtype == np.bool_ else "scatter", target, root, target)
        return assembly.instruction(scratch, keep=(out, *inputs))


def _streams(out, inputs) -> bool:
    """Whether to write past the caches."""
    return _may_stream(out, inputs) and not any(np.may_share_memory(out, x) for x in inputs)


def _may_stream(out, inputs) -> bool:
    """Whether the caches could not hold the arrays until somebody reads the result; by shapes and dtypes alone."""
    nbytes = sum(math.prod(x.shape) * np.dtype(x.dtype).itemsize for x in (out, *inputs))
    return out.dtype != np.bool_ and nbytes > machine.last_level_cache() and machine.streams()


class _Reduction:
    """An expression that is reduced over all axes, over the last ones, or over the first ones, of its shape."""

    def __init__(self, expression: Expression, reduce: str):
        self.expression, self.reduce = expression, reduce

    def scratch(self, out, *inputs, axis, keepdims, **attributes) -> int:
        dtypes, n = [np.dtype(x.dtype) for x in inputs], math.prod(np.broadcast_shapes(*(x.shape for x in inputs)))
        try:
            dtype = element_type(out.dtype, *dtypes)
            registers = 2 + most_registers(self.expression, dtypes, attributes, dtype, None)
        except Declined:
            return 0
        return _parts_bytes(n) + pool_threads() * most_room(registers, self.expression, n, dtype) if n else 0

    def encode(self, out, *inputs, scratch, axis, keepdims, **attributes) -> list[Instruction] | None:
        shape = np.broadcast_shapes(*(x.shape for x in inputs))
        if not out.size:
            return []
        if not math.prod(shape) or out.dtype not in FLOATS:
            return None
        totals = out.reshape([1 if i in axis else n for i, n in enumerate(shape)])
        if all(shape[i] == 1 for i in axis):
            return _Chain(self.expression).encode(totals, *inputs, scratch=scratch, **attributes)
        try:
            return _Reducing(self, totals, inputs, shape, axis, attributes, scratch).instructions()
        except Declined:
            return None


def _parts_bytes(n: int) -> int:
    """Room for what the blocks of ``n`` elements come to. What takes more is declined."""
    return aligned(8 * (n // 128 + 64))


class _Reducing:
    """A reduction on these arrays."""

    def __init__(self, reduction: _Reduction, totals, inputs, shape, axis, attributes: dict, scratch):
        self.expression, self.attributes, self.scratch = reduction.expression, attributes, scratch
        self.keep = totals, *inputs
        self.dtype = element_type(totals.dtype, *(x.dtype for x in inputs))
        self.dtypes = [x.dtype for x in inputs]
        self.operator = "sum" if reduction.reduce == "mean" else reduction.reduce
        self.divisor = float(math.prod(shape[i] for i in axis)) if reduction.reduce == "mean" else 1.0
        kept = tuple(0 if i in axis else step for i, step in enumerate(totals.strides))
        arrays = [Array(address(totals), totals.itemsize, kept)]
        arrays += [Array(address(x), x.itemsize, strides(x, shape)) for x in inputs]
        leading = next((i for i, x in enumerate(inputs, 1) if x.shape == tuple(shape)), 1)
        self.walk = shapes.reduced_inside(shapes.walk(shape, arrays, leading, axis))
        self.parts_bytes = _parts_bytes(math.prod(shape))

    def instructions(self) -> list[Instruction]:
        walk = self.walk
        outer, inner = walk.reduced[:-2], walk.reduced[-2:]
        if inner == (True, False) and not any(outer):
            return self._down()
        if (inner == (False, True) or (inner == (True, True) and walk.rows == 1)) and not any(outer):
            return self._rows()
        if inner == (True, True) and (all(outer) or len(outer) == 1):
            return self._whole()
        raise Declined

    def _blocks(self, walk: Walk, bare: bool):
        """What is only read needs no registers, and large blocks are best."""
        size = self.dtype.itemsize
        found = shapes.blocks(walk, size, LARGE if bare else BLOCK)
        if bare and found.kinds[1] != "line":
            found = shapes.blocks(walk, size)
        if found.high > 1 and found.wide < walk.columns:  # no tiles
            found = shapes.lying(walk, 1, shapes.even(walk.columns, BLOCK // size, 64 // size))
        return found

    def _assembly(self, walk: Walk, blocks, expression: Expression, dtypes, folded: bool = False):
        """The steps up to the reduction, and the place of what is reduced."""
        operators = Operators(expression, dtypes, blocks.kinds[1:], self.attributes, self.dtype, None)
        assembly = Assembly(walk, blocks, self.dtype, folded)
        return assembly, assembly.expression(operators, 1)

    def _bare(self, expression: Expression, dtypes) -> bool:
        return expression.tree.op == "name" and dtypes[0] == self.dtype

    # ---- over the columns ----

    def _rows(self) -> list[Instruction]:
        walk = self.walk
        blocks = self._blocks(walk, self._bare(self.expression, self.dtypes))
        if blocks.wide < walk.columns:
            return self._in_parts(blocks, math.prod(walk.sizes[:-1]), -(-walk.columns // blocks.wide))
        assembly, root = self._assembly(walk, blocks, self.expression, self.dtypes)
        divisor = assembly.constant(bits(self.divisor, np.dtype("float64")))
        assembly.step(layout.EACH, f"{self.operator} rows", ("array", 0), root, ("array", 0), divisor)
        return [assembly.instruction(self.scratch, keep=self.keep)]

    def _whole(self) -> list[Instruction]:
        walk = self.walk
        blocks = self._blocks(walk, self._bare(self.expression, self.dtypes))
        parts = shapes.count(walk, *blocks[:2])
        count = math.prod(n for n, reduced in zip(walk.sizes, walk.reduced) if not reduced)
        return self._in_parts(blocks, count, parts // count)

    def _in_parts(self, blocks, count: int, parts: int) -> list[Instruction]:
        """One number of each block, and then ``count`` results of ``parts`` numbers each."""
        kept = [(n, step) for n, flag, step in zip(self.walk.sizes, self.walk.reduced, self.walk.arrays[0].strides)
                if not flag and n > 1]  # fmt: skip
        used = aligned(8 * count * parts)
        if len(kept) > 1 or used > self.parts_bytes:
            raise Declined
        assembly, root = self._assembly(self.walk, blocks, self.expression, self.dtypes)
        target = assembly.array(address(self.scratch), block=8)
        assembly.step(layout.EACH, (self.operator, "v"), target, root)
        first = assembly.instruction(self.scratch, used, self.keep)
        words = (
            count, parts, address(self.scratch), self.walk.arrays[0].base, kept[0][1] if kept else 0,
            KINDS.index(self.operator), self.divisor,
        )  # fmt: skip
        return [first, Instruction("combine", self.dtype.itemsize, words, (self.scratch, *self.keep))]

    # ---- over the rows ----

    def _down(self) -> list[Instruction]:
        walk, size = self.walk, self.dtype.itemsize
        part = aligned(walk.columns * size)
        long = walk.rows * walk.columns * size >= 16 * BLOCK * size and walk.columns * size <= BLOCK
        if not long or len(walk.sizes) > 2 or (CHUNKS + 1) * part > self.parts_bytes or walk.rows < 4 * CHUNKS:
            return [self._fold(walk, self.expression, self.dtypes, self.divisor, 0)]
        # Few columns, many rows: chunks of the rows are what threads share, and these are added up afterwards.
        rows, rest = divmod(walk.rows, CHUNKS)
        target = Array(address(self.scratch), size, (part, 0, size))
        arrays = [Array(x.base, x.size, (rows * x.strides[0], *x.strides)) for x in walk.arrays[1:]]
        used, chunks = (CHUNKS + 1) * part, CHUNKS
        first = Walk((CHUNKS, rows, walk.columns), (False, True, False), (target, *arrays))
        found = [self._fold(first, self.expression, self.dtypes, 1.0, used)]
        if rest:
            target = Array(target.base + CHUNKS * part, size, (0, size))
            arrays = [Array(x.base + CHUNKS * rows * x.strides[0], x.size, x.strides) for x in walk.arrays[1:]]
            last = Walk((rest, walk.columns), (True, False), (target, *arrays))
            found.append(self._fold(last, self.expression, self.dtypes, 1.0, used))
            chunks += 1
        parts = Array(address(self.scratch), size, (part, size))
        total = Walk((chunks, walk.columns), (True, False), (walk.arrays[0], parts))
        return [*found, self._fold(total, _SAME, [self.dtype], self.divisor, used)]

    def _fold(self, walk: Walk, expression: Expression, dtypes, divisor: float, used: int) -> Instruction:
        """Adds the rows to a line of results, strip by strip of the columns."""
        size, columns = self.dtype.itemsize, walk.columns
        bare = self._bare(expression, dtypes) and walk.arrays[1].strides[-1] == size
        wide = shapes.even(columns, max(1024 // size, min(BLOCK // size, columns // 8)), 64 // size)
        if bare:  # is read where it is, however far the rows are apart
            blocks = shapes.lying(walk, min(walk.rows, max(8, BLOCK // (size * wide))), wide)
            blocks = blocks._replace(kinds=(blocks.kinds[0], "line"))
        elif wide < columns:
            blocks = shapes.lying(walk, 1, wide)
        else:
            blocks = shapes.lying(walk, shapes.even(walk.rows, max(1, BLOCK // (size * columns)), 1), columns)
        assembly, root = self._assembly(walk, blocks, expression, dtypes, folded=True)
        if bare:
            assembly.register = aligned(wide * size)
        total = "register", assembly.registers
        assembly.registers += 1
        neutral = assembly.constant(bits(NEUTRAL[self.operator], self.dtype))
        assembly.step(layout.BEFORE, ("spread", "s"), total, neutral)
        source = ("array", 1) if bare else assembly.array(0, row=wide * size)
        assembly.step(layout.EACH, f"{self.operator} down", total, root, source)
        target = ("array", 0)
        side_by_side = columns == 1 or walk.arrays[0].strides[-1] == size
        result = target if side_by_side else total
        if divisor != 1.0:
            assembly.step(layout.AFTER, ("/", "vs"), result, total, assembly.constant(bits(divisor, self.dtype)))
        elif side_by_side:
            assembly.step(layout.AFTER, ("copy", "v"), target, total)
        if not side_by_side:
            assembly.step(layout.AFTER, "scatter", target, total, target)
        return assembly.instruction(self.scratch, used, self.keep)


# ---- reductions of an input as it is ----

for _name in ("sum", "mean", "max", "min"):
    _reduction = _Reduction(_SAME, _name)
    native(_name, scratch=_reduction.scratch)(_reduction.encode)

_sum = _Reduction(_SAME, "sum")


def _stretched(x, shape) -> tuple[int, ...]:
    lead = len(x.shape) - len(shape)
    return tuple(i for i in range(len(x.shape)) if i < lead or (shape[i - lead] == 1 and x.shape[i] != 1))


@native("sum_to", scratch=lambda out, x, shape: _sum.scratch(out, x, axis=_stretched(x, shape), keepdims=False))
def sum_to(out, x, shape, scratch):
    return _sum.encode(out, x, scratch=scratch, axis=_stretched(x, shape), keepdims=False)
