"""Instructions of the vector machine under construction: arrays, registers, constants get places, steps get words."""

from __future__ import annotations

import math

import numpy as np

from ...expression import Expression
from ..cutting import aligned
from . import elementwise_words as layout
from .elementwise_program import Declined, Number, Operators, Registers, Value, bits
from .elementwise_shape import BLOCK, Blocks, Walk
from .encoding import address, useful_threads
from .instructions import Instruction

INT64 = np.dtype("int64")
FLOATS = (np.dtype("float32"), np.dtype("float64"))
# Nanoseconds of one core for a vector of 64 bytes: an array from the caches or from beyond them, and what steps take.
_NEAR, _FAR, _CHEAP = 0.6, 3.0, 0.6
_COSTS = {
    "exp": 5.0, "expm1": 5.0, "log": 7.0, "log1p": 9.0, "tanh": 9.0, "erf": 13.0, "sigmoid": 5.0, "/": 4.0, "sqrt": 5.0,
    "gather": 16.0, "gather bytes": 16.0, "stream": 1.0,
}  # fmt: skip
_CACHED = 2**20  # bytes of all arrays together, up to which they are near


class Assembly:
    """An instruction under construction. Places are pairs until it is known how many there are of each kind.

    Args:
        folded: whether the rows are reduced, so that blocks below each other belong together.

    Attributes:
        register: bytes of one.
        sections: lists of steps, as ``elementwise_words`` numbers them.
    """

    def __init__(self, walk: Walk, blocks: Blocks, dtype: np.dtype, folded: bool = False):
        self.walk, self.blocks, self.dtype, self.folded = walk, blocks, dtype, folded
        self.arrays = [(each.base, *each.strides[-2:], 0, *each.strides[:-2]) for each in walk.arrays]
        self.registers = 0
        self.constants: list[int] = []
        self.sections: list[list[tuple]] = [[], [], [], []]
        self.register = aligned(blocks.high * blocks.wide * dtype.itemsize)
        self.vector_cost = 0.0
        self.lead = self.streamed = 0

    def array(self, base: int, row: int = 0, block: int = 0) -> tuple[str, int]:
        """One more array: ``row`` bytes from row to row, ``block`` from block to block."""
        self.arrays.append((base, row, 0, block, *[0] * len(self.walk.sizes[:-2])))
        return "array", len(self.arrays) - 1

    def constant(self, word: int) -> tuple[str, int]:
        if word not in self.constants:
            self.constants.append(word)
        return "constant", self.constants.index(word)

    def step(self, section: int, op, result, a, b=("array", 0), c=("array", 0)) -> None:
        self.sections[section].append((layout.number(op, self.dtype == INT64), result, a, b, c))

    def expression(self, operators: Operators, first: int, written=None, streams: bool = False) -> tuple[str, int]:
        """The steps of an expression. Returns the place of its result.

        Args:
            first: the array that is its first input; the others follow.
            written: where the result is to go; a register if that is None.
            streams: whether it goes there past the caches; where rows are cut, blocks begin with lines of those then.
        """
        entries, root = operators.entries, operators.root.index
        once: set[int] = set()
        for at, (op, _, operands) in enumerate(entries):
            gathered = op.startswith("gather") and self.blocks.once[first + entries[operands[0].index][1]]
            if gathered or (op == "from bool" and operands[0].index in once):
                once.add(at)
        direct = written is not None and not streams
        registers = Registers(operators, once, direct)
        self.registers = registers.count

        def place(operand):
            if isinstance(operand, Number):
                return self.constant(bits(operand.value, self.dtype))
            op, i, _ = entries[operand.index]
            if op == "input":
                return "array", first + i
            if operand.index == root and direct:
                return written
            return "register", registers.home[operand.index]

        lines = [i for i in range(first, len(self.walk.arrays)) if self.blocks.kinds[i] == "line"]
        heavy = {at: entries[at] for at in registers.order if entries[at][0] in layout.HEAVY}
        if streams:
            heavy[None] = ("stream", "v", (operators.root,))
        fetched = _fetched(heavy, lines if streams else [*lines, 0])

        def idle(at, places) -> list[tuple[str, int]]:
            """The other operands of a heavy operator: arrays that it fetches, or else what is near."""
            named = [("array", i) for i in fetched[at]] or places
            return [named[i % len(named)] for i in range(3 - len(places))]

        for at in registers.order:
            op, pattern, operands = entries[at]
            section = layout.ONCE if at in once else layout.EACH
            places = [place(each) for each in operands]
            if pattern is None:
                self.step(section, op, place(Value(at)), places[0], places[0])
            else:
                others = idle(at, places) if at in heavy else []
                self.step(section, (op, pattern), place(Value(at)), *places, *others)
            self.vector_cost += _COSTS.get(op, _CHEAP)
        if not streams:
            return place(operators.root)
        places = [place(operators.root)]
        self.step(layout.EACH, ("stream", "v"), written, *places, *idle(None, places))
        self.vector_cost += _COSTS["stream"]
        self.streamed = 1
        if self.blocks.high == 1 and self.blocks.wide < self.walk.columns:
            self.lead = self.walk.arrays[written[1]].base % 64 // self.dtype.itemsize
        return written

    def room(self) -> int:
        """Bytes of scratch for each thread."""
        places = len(self.arrays) + self.registers + len(self.constants)
        return aligned(8 * places) + self.registers * self.register

    def instruction(self, scratch, used: int = 0, keep: tuple = ()) -> Instruction:
        """The instruction, in scratch of which ``used`` bytes have another use.

        Raises:
            Declined: there is too little of it.
        """
        walk, (high, wide) = self.walk, self.blocks[:2]
        outer = math.prod(walk.sizes[:-2])
        strips = outer * -(-(walk.columns + self.lead) // wide) * (1 if self.folded else -(-walk.rows // high))
        room = self.room()
        nbytes = math.prod(walk.sizes) * self.dtype.itemsize
        fetched = len(walk.arrays) * (_NEAR if len(walk.arrays) * nbytes <= _CACHED else _FAR)
        cost = (self.vector_cost + fetched) * nbytes / 64
        count = min(useful_threads(cost), strips, (scratch.nbytes - used) // room)
        if count < 1:
            raise Declined
        # As far apart as there is room: a core that walks through its lines has those behind them fetched, too, and
        # takes them away from the other that writes there.
        room = (scratch.nbytes - used) // count // 64 * 64
        start = {"array": 0, "register": len(self.arrays), "constant": len(self.arrays) + self.registers}
        words = [0] * layout.HEADER
        for at, word in (
            (layout.OUTER, outer), (layout.ROWS, walk.rows), (layout.COLUMNS, walk.columns), (layout.HIGH, high),
            (layout.WIDE, wide), (layout.FOLDED, self.folded), (layout.SCRATCH, address(scratch) + used),
            (layout.ROOM, room), (layout.AXES, len(walk.sizes) - 2), (layout.ARRAYS, len(self.arrays)),
            (layout.REGISTERS, self.registers), (layout.CONSTANTS, len(self.constants)),
            (layout.REGISTER, self.register), (layout.LEAD, self.lead), (layout.STREAM, self.streamed),
        ):  # fmt: skip
            words[at] = int(word)
        for i, steps in enumerate(self.sections):
            words[layout.SECTIONS + i] = len(steps)
        words += [*walk.sizes[:-2], *(word for each in self.arrays for word in each), *self.constants]
        for steps in self.sections:
            for op, *places in steps:
                words += [op, *(start[kind] + i for kind, i in places)]
        size = 4 if self.dtype == INT64 else self.dtype.itemsize  # integers are in the libraries of both floats
        return Instruction("elementwise", size, tuple(words), (scratch, *keep), count, cost)


def _fetched(heavy: dict, arrays: list[int]) -> dict:
    """Which operator fetches which arrays: each as much as the time that it takes allows for."""
    found: dict = {at: [] for at in heavy}
    for array in arrays:
        free = [at for at, (_, _, operands) in heavy.items() if len(found[at]) + len(operands) < 3]
        if free:
            found[min(free, key=lambda at: (len(found[at]) + 1) / _COSTS[heavy[at][0]])].append(array)
    return found


def strides(x, shape) -> tuple[int, ...]:
    return np.broadcast_to(x, shape).strides


def element_type(*dtypes) -> np.dtype:
    """In what an expression is computed.

    Raises:
        Declined: there are several, or one that the machine has not.
    """
    found = {dtype for dtype in map(np.dtype, dtypes) if dtype != np.bool_}
    if len(found) > 1 or not found <= {*FLOATS, INT64}:
        raise Declined
    return found.pop() if found else FLOATS[0]


def most_registers(expression: Expression, dtypes, attributes: dict, dtype: np.dtype, result) -> int:
    """Enough registers, however the arrays lie: nothing is read or written where it is, and no copy is given up."""
    operators = Operators(expression, dtypes, ["apart"] * len(dtypes), attributes, dtype, result)
    kept = [at for at, (op, _, _) in enumerate(operators.entries) if op.startswith(("gather", "from"))]
    return Registers(operators, kept).count


def most_room(registers: int, expression: Expression, n: int, dtype: np.dtype) -> int:
    """Bytes of scratch that are enough for each thread."""
    places = 8 * (registers + len(expression.inputs) + 8 + 2 * expression.flops)
    return aligned(places) + registers * min(BLOCK, aligned(n * dtype.itemsize))
