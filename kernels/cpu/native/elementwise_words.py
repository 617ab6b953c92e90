"""What the encoder and the vector machine agree on: where words are, and the numbers of the operators.

An instruction of the machine is words in this order: the header; the sizes of the outer axes; the arrays, each its
address, its strides in bytes (from row to row, from column to column, from block to block) and one stride for each
outer axis; the constants; the steps, each a number of an operator and the places of its operands.

A place is an array, then a register, then a constant, counted through. An operand is either a line of elements side by
side ("v") or a single one for the whole block ("s"): an operator has a number for each pattern of these.
"""

from __future__ import annotations

# The header.
OUTER = 0  # blocks' worth of outer axes: the product of their sizes
ROWS, COLUMNS = 1, 2  # the two inner axes
HIGH, WIDE = 3, 4  # a block's rows and columns
FOLDED = 5  # 1: blocks below each other belong together, because the rows are reduced
SCRATCH, ROOM = 6, 7  # its address, and bytes for each thread
AXES, ARRAYS, REGISTERS, CONSTANTS = 8, 9, 10, 11  # how many there are
REGISTER = 12  # bytes of a register
LEAD = 13  # elements that the first block of a row has less than the others
STREAM = 14  # 1: results are written past the caches
SECTIONS = 15  # numbers of steps: once, before the blocks of a strip, for each block, after the blocks of a strip
ONCE, BEFORE, EACH, AFTER = range(4)
HEADER = 19

# An array: address, strides, and the strides of the outer axes.
BASE, ROW, COLUMN, BLOCK, ARRAY = range(5)
# A step: its operator, where the result goes, three operands.
STEP = 5

_BINARY = {
    **dict.fromkeys(("+", "*", "maximum", "minimum", "==", "!="), ("vv", "vs")),
    **dict.fromkeys(("-", "/", "<", "<="), ("vv", "vs", "sv")),
    **dict.fromkeys(("logical_and", "logical_or", "gate"), ("vv",)),
}
FUNCTIONS = ("exp", "expm1", "log", "log1p", "tanh", "erf", "sigmoid")  # as ``code.functions`` names them
_FLOAT_UNARY = ("sqrt", *FUNCTIONS, "one")
_UNARY = ("neg", "abs", "sign", "square", "logical_not", "copy", "from bool", "to bool")
_WHERE = ("vvv", "vvs", "vsv", "vss")

# Operators on lines: (name, pattern). "gate" is a where b > 0, else 0; "one" makes 1 and 0 of a mask; "spread" a line
# of one element; "sum", "max" and "min" one number in double precision of a line; "stream" a copy past
# the caches.
LINES = (
    *((op, pattern) for op, patterns in _BINARY.items() for pattern in patterns),
    *(("where", pattern) for pattern in _WHERE),
    *((op, "v") for op in (*_UNARY, *_FLOAT_UNARY, "sum", "max", "min")),
    ("spread", "s"),
    ("stream", "v"),
)
# Operators on blocks, that know rows and columns.
BLOCKS = (
    "gather", "gather bytes", "scatter", "scatter bytes", "sum rows", "max rows", "min rows", "sum down", "max down",
    "min down",
)  # fmt: skip
_LINE = {op: i for i, op in enumerate(LINES)}
_BLOCK = {op: i for i, op in enumerate(BLOCKS)}
FIRST_BLOCK = 2 * len(LINES)  # operators on lines come first, those of integers after those of floats


def number(op, whole: bool) -> int:
    """The number of an operator, on elements that are floats or on int64."""
    if op in _LINE:
        return _LINE[op] + whole * len(LINES)
    return FIRST_BLOCK + _BLOCK[op] + whole * len(BLOCKS)


# Operators that take so long that memory can be fetched meanwhile: their idle operands are arrays, of which they fetch
# what lies AHEAD bytes, a block, further on.
HEAVY = {"/", "sqrt", *FUNCTIONS, "stream"}
AHEAD = 2048

# What integers do not have.
FLOATS_ONLY = {"/", "gate", "sum", "max", "min", *_FLOAT_UNARY, *BLOCKS[4:]}
