"""From an expression to steps of the vector machine: operators, their operands, registers. No array is touched here.

``Operators`` says what is computed of what, each distinct subtree once; ``Registers`` where results are kept. What
the machine has no operator for (a cast, integers among floats, powers that are not small whole numbers or roots) is
``Declined``, and the kernel for NumPy has its say.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np

from ...expression import Expression, Node, linear
from ..lowering import number
from . import elementwise_words as layout

_ARITHMETIC = {"+", "-", "*", "/", "neg", "abs", "sign", "square", "sqrt", "maximum", "minimum"}
_COMPARISONS = {"==", "!=", "<", "<="}
_COMMUTATIVE = {"+", "*", "maximum", "minimum", "==", "!="}
_POWERS = (0, 1, 2, 3, 4, -1, -2, 0.5, -0.5)


class Declined(Exception):
    """The machine does not compute this."""


class Number(NamedTuple):
    """What is the same for all elements, and known."""

    value: int | float | bool


class Value(NamedTuple):
    """A line of elements: a result, an input; or one element of an input for all ("single")."""

    index: int
    mask: bool = False
    single: bool = False


class Operators:
    """An expression as operators on lines.

    Args:
        dtypes: of the inputs.
        kinds: how each input lies: "line", "single" or "apart".
        attributes: numbers for the attributes.
        dtype: of what the expression is computed in.
        result: of what is written; None if the root is not written, but somebody goes on with it.

    Attributes:
        entries: (operator, pattern, operands), in order. The first ones are the inputs: ("input", its number, ()).
        root: the last result, a line; no input, if it is to be written.
    """

    def __init__(self, expression: Expression, dtypes, kinds, attributes: dict, dtype: np.dtype, result):
        self.dtype = dtype
        self.whole = dtype.kind == "i"
        self.entries: list[tuple] = [("input", i, ()) for i in range(len(dtypes))]
        self._known: dict[tuple, Value] = {}
        inputs = [self._input(i, *each) for i, each in enumerate(zip(dtypes, kinds))]
        values: list[Number | Value] = []
        for op, args in linear(expression.tree):
            if op == "const":
                values.append(Number(args[0]))
            elif op == "name" and args[0] in expression.inputs:
                values.append(inputs[expression.inputs.index(args[0])])
            elif op == "name":
                values.append(Number(number(Node(op, args), attributes)))
            else:
                values.append(self.apply(op, [values[i] for i in args]))
        self.root = self._finish(values[-1], result)

    def _input(self, i: int, dtype, kind: str) -> Value:
        if dtype != self.dtype and dtype != np.bool_:
            raise Declined
        mask = dtype == np.bool_
        value = Value(i, False, kind == "single" and not mask)
        if kind == "apart" or (mask and kind == "single"):
            value = self._add("gather bytes" if mask else "gather", None, (value,))
        return self._add("from bool", "v", (value,), mask=True) if mask else value

    def _finish(self, value, result) -> Value:
        if result == np.bool_:
            if not isinstance(value, Value) or not value.mask:
                raise Declined
            return self._add("to bool", "v", (value,))
        if result is not None and result != self.dtype:
            raise Declined
        value = self._plain(value)
        if isinstance(value, Number) or value.single:
            return self._spread(value)
        is_input = self.entries[value.index][0] == "input"
        return self._add("copy", "v", (value,)) if is_input and result is not None else value

    def _add(self, op: str, pattern: str | None, operands: tuple, mask: bool = False) -> Value:
        """The result of an operator, the one there is if there is one."""
        key = op, pattern, tuple(repr(each) for each in operands)  # as text: 0.0 equals -0.0
        if key not in self._known:
            self._known[key] = Value(len(self.entries), mask)
            self.entries.append((op, pattern, operands))
        return self._known[key]

    def _spread(self, value) -> Value:
        return self._add("spread", "s", (value,))

    def _plain(self, value):
        """Numbers of what may be a mask."""
        if isinstance(value, Value) and value.mask:
            return self._line("one", value)
        if isinstance(value, Number):
            return self._number(value)
        return value

    def _number(self, value: Number) -> Number:
        if self.whole and type(value.value) is not int:
            raise Declined
        return value

    def _condition(self, value) -> Value:
        """A mask of what may be numbers."""
        if isinstance(value, Number):
            raise Declined
        return value if value.mask else self._line("!=", value, Number(0), mask=True)

    def _line(self, op: str, *operands, mask: bool = False) -> Value:
        """An operator on lines; an operand that it takes as a line only is spread."""
        if self.whole and op in layout.FLOATS_ONLY:
            raise Declined
        operands = list(operands)
        while True:
            pattern = "".join("v" if isinstance(x, Value) and not x.single else "s" for x in operands)
            if (op, pattern) in layout.LINES:
                return self._add(op, pattern, tuple(operands), mask)
            if op in _COMMUTATIVE and pattern == "sv":
                operands.reverse()
                continue
            first = pattern.index("s")
            operands[first] = self._spread(operands[first])

    # ---- the operators of the language ----

    def apply(self, op: str, operands: list):
        if all(isinstance(each, Number) for each in operands):
            return Number(number(Node(op, tuple(Node("const", (each.value,)) for each in operands)), {}))
        if op in (">", ">="):
            return self.apply(op.replace(">", "<"), operands[::-1])
        if op == "**":
            return self._power(*operands)
        if op == "where":
            return self._where(*operands)
        if op in ("logical_and", "logical_or", "logical_not"):
            return self._line(op, *map(self._condition, operands), mask=True)
        masks = [isinstance(each, Value) and each.mask for each in operands]
        if all(masks) or (any(masks) and any(isinstance(each, Number) for each in operands)):
            raise Declined  # NumPy counts with booleans in other types
        operands = [self._plain(each) for each in operands]
        if op in _COMPARISONS:
            return self._line(op, *operands, mask=True)
        if op == "/" and (x := self._logit(*operands)) is not None:
            return self._line("sigmoid", x)
        if op in _ARITHMETIC or op in layout.FUNCTIONS:
            return self._line(op, *operands)
        raise Declined

    def _logit(self, top, bottom) -> Value | None:
        """The x of 1 / (1 + exp(-x))."""
        if not isinstance(top, Number) or top.value != 1:
            return None
        x = bottom
        for op, beside in (("+", (Number(1),)), ("exp", ()), ("neg", ())):
            found, _, operands = self.entries[x.index]
            if found != op or operands[1:] != beside:
                return None
            x = operands[0]
        return x

    def _power(self, x, exponent):
        if self.whole or not isinstance(exponent, Number) or exponent.value not in _POWERS or x.mask:
            raise Declined
        n = exponent.value
        if n == 0:
            return Number(1.0)
        if abs(n) == 0.5:
            root = self._line("sqrt", self._line("+", x, Number(0.0)))  # the root of -0 is -0
            return root if n > 0 else self._line("/", Number(1.0), root)
        if n < 0:
            x = self._line("/", Number(1.0), x)
        if abs(n) == 1:
            return x
        square = self._line("square", x)
        return {2: lambda: square, 3: lambda: self._line("*", square, x), 4: lambda: self._line("square", square)}[
            abs(int(n))
        ]()

    def _where(self, condition, a, b):
        masks = [isinstance(each, Value) and each.mask for each in (a, b)]
        if any(masks) and any(isinstance(each, Number) for each in (a, b)):
            raise Declined
        if not all(masks):
            a, b = self._plain(a), self._plain(b)
        if isinstance(condition, Number):
            return a if condition.value else b
        condition = self._condition(condition)
        if not self.whole and isinstance(b, Number) and repr(float(b.value)) == "0.0" and not masks[0]:
            op, _, operands = self.entries[condition.index]
            lines = isinstance(a, Value) and not a.single
            if op == "<" and isinstance(operands[0], Number) and operands[0].value == 0 and lines:
                return self._line("gate", a, operands[1])  # the gradient of a ReLU
        return self._line("where", condition, a, b, mask=all(masks))


class Registers:
    """Where results are kept.

    Args:
        keep: operators whose results are never given up: what is made once for all blocks.
        written: whether the root is written to memory at once, and takes no register.

    Attributes:
        order: the operators that the root needs, in order.
        home: operator -> register.
        count: how many registers.
    """

    def __init__(self, operators: Operators, keep=(), written: bool = False):
        entries, root = operators.entries, operators.root.index
        last = {root: len(entries)}
        for at in range(len(entries) - 1, -1, -1):
            for each in entries[at][2] if at in last else ():
                if isinstance(each, Value):
                    last.setdefault(each.index, at)
        self.order = [at for at in sorted(last) if entries[at][0] != "input"]
        self.home: dict[int, int] = {}
        self.count = 0
        free: list[int] = []
        for at in self.order:
            op, _, operands = entries[at]
            dying = {x.index for x in operands if isinstance(x, Value) and last[x.index] == at and x.index not in keep}
            given_up = [self.home[x] for x in dying if x in self.home]
            if op != "from bool":  # which makes elements of bytes: it would overtake itself
                free += given_up
            if at != root or not written:
                if free and at not in keep:  # what stays must not lie where something else was before
                    self.home[at] = free.pop()
                else:
                    self.home[at] = self.count
                    self.count += 1
            if op == "from bool":
                free += given_up


def bits(value: float, dtype: np.dtype) -> int:
    """A number as an element, in a word of a table."""
    with np.errstate(all="ignore"):  # a number beyond the range of float32 is infinite there
        raw = np.asarray(value, dtype).tobytes()
    return struct.unpack("<q", raw.ljust(8, b"\0"))[0]
