"""From an expression to a list of ufunc calls over registers, for one combination of element types.

Each distinct subtree is one call, and its element type is the one that NumPy gives it (numbers are weak). Where NumPy
would convert an operand behind the scenes, through buffers of its own, there is a call that converts it into a
register. A choice is made in bits, because no masked copy of NumPy's is a twentieth as fast. No array is touched here:
``blocks`` lays the calls over memory.
"""

from __future__ import annotations

import operator
from typing import NamedTuple

import numpy as np

from ..expression import FUNCTIONS, UFUNCS, Expression, Node, expand, fold, linear, rebuild
from .cutting import BY_NAME

_UFUNCS = {op: getattr(np, name) for op, name in UFUNCS.items()}
_UFUNCS |= {name: getattr(np, name) for name in FUNCTIONS if name not in ("where", "erf", "abs")}
_BYTE = np.dtype("int8")
_BOOL = np.dtype("bool")
RESULT = 1 << 30  # in place of a register: the array that the whole writes to


class Number(NamedTuple):
    """A value that is the same for all elements: arithmetic of constants and attributes."""

    tree: Node
    kind: type  # int, float or bool
    dtype: np.dtype | None = None  # that of the array that it meets, once that is known

    @property
    def key(self) -> tuple:
        return repr(self.tree), self.dtype  # as text: 0.0 equals -0.0, and is another number


class Value(NamedTuple):
    """An array: an input, or what a call computes.

    ``inputs`` are those that it depends on, by position: they say its shape. One that is full counts as all.
    """

    index: int  # of the input, or, from the number of inputs on, of the call
    dtype: np.dtype
    inputs: frozenset[int]

    @property
    def key(self) -> int:
        return self.index


class Operand(NamedTuple):
    """An array that a call reads or writes, and the element type as which it sees it.

    ``index`` is an input, a register (from the number of inputs on), or ``RESULT``.
    """

    index: int
    dtype: np.dtype
    inputs: frozenset[int] = frozenset()


class Program:
    """An expression as calls.

    Args:
        dtypes: of the inputs.
        full: whether each input has the shape to which all of them are broadcast.
        attributes: numbers for the attributes; only their types count.
        result: the element type of what is written.
        keep: leave the result in a register (or an input), for somebody who goes on with it.

    Attributes:
        slots: the arrays that the calls read and write, which are other ones for each block.
        calls: (function, its arguments from the list of slots, numbers and "same_kind"), in order.
        result: the slot of a kept result.
        registers: bytes of an element, for each register.
        numbers: (tree, dtype, type as which it is seen).
        varies: whether attributes are among them.
    """

    def __init__(self, expression: Expression, dtypes, full, attributes: dict, result: np.dtype, keep: bool = False):
        self.expression, self.arity = expression, len(dtypes)
        self._full = frozenset(i for i, whole in enumerate(full) if whole)
        self._all = frozenset(range(self.arity))
        self._attributes = attributes
        self._calls: list[tuple] = []  # (function, operands, what they and the result are seen as or None, result)
        self._made: dict[tuple, Value] = {}
        root = self._cast(self._lower(linear(expand(expression.tree)), dtypes), result)
        if isinstance(root, Number):
            root = self._call(np.copyto, (root,), result, of=self._all)
        elif root.index < self.arity and not keep:
            root = self._call(np.copyto, (root,), result)
        self.result: int | None = None
        self._allocate(root, keep)
        del self._calls, self._made, self._attributes
        self.varies = any(node.op == "name" for tree, _, _ in self.numbers for node in tree.walk())
        self._known: dict[tuple, list[np.ndarray]] = {}

    def numbers_of(self, attributes: dict) -> list:
        """What calls take beside slots: the numbers as arrays without axes, and how ``copyto`` may convert."""
        key = tuple(map(repr, attributes.values())) if self.varies else ()  # as text: 0.0 equals -0.0
        numbers = self._known.get(key)
        if numbers is None:
            if len(self._known) > 100:
                self._known.clear()
            with np.errstate(all="ignore"):  # a number beyond the range of float32 is infinite there
                arrays = [np.asarray(number(tree, attributes), dtype).view(seen) for tree, dtype, seen in self.numbers]
            numbers = [*arrays, "same_kind"]
            self._known[key] = numbers
        return numbers

    # ---- from the expression to calls ----

    def _lower(self, entries, dtypes) -> Value | Number:
        values: list[Value | Number] = []
        inputs, attributes = self.expression.inputs, self.expression.attributes
        for op, args in entries:
            if op == "name" and args[0] in inputs:
                i = inputs.index(args[0])
                values.append(Value(i, dtypes[i], self._all if i in self._full else frozenset((i,))))
            elif op == "name" and args[0] in attributes:
                values.append(Number(Node(op, args), type(number(Node(op, args), self._attributes))))
            elif op == "const":
                values.append(Number(Node(op, args), type(args[0])))
            else:
                values.append(self._apply(op, [values[arg] for arg in args]))
        return values[-1]

    def _apply(self, op: str, operands: list) -> Value | Number:
        if all(isinstance(each, Number) for each in operands):
            tree = Node(op, tuple(each.tree for each in operands))
            return Number(tree, type(number(tree, self._attributes)))
        if op == "where":
            return self._choose(*operands)
        function = _UFUNCS[op]
        *loop, result = function.resolve_dtypes((*map(_type, operands), None))
        return self._call(function, tuple(map(self._cast, operands, loop)), result)

    def _choose(self, condition, a, b) -> Value:
        """``a`` where the condition holds, else ``b``, in as few calls on bits as there can be."""
        dtype = np.result_type(*(each.dtype if isinstance(each, Value) else each.kind(0) for each in (a, b)))
        a, b = self._cast(a, dtype), self._cast(b, dtype)
        bits = _BOOL if dtype == _BOOL else np.dtype(f"int{8 * dtype.itemsize}")
        if _is_zero(b):
            return self._call(np.bitwise_and, (a, self._mask(condition, bits)), dtype, bits)
        if _is_zero(a):
            return self._call(np.bitwise_and, (b, self._mask(condition, bits, inverted=True)), dtype, bits)
        if isinstance(a, Number) or isinstance(b, Number):
            first = self._call(np.bitwise_and, (a, self._mask(condition, bits)), dtype, bits)
            second = self._call(np.bitwise_and, (b, self._mask(condition, bits, inverted=True)), dtype, bits)
            return self._call(np.bitwise_or, (first, second), dtype, bits)
        difference = self._call(np.bitwise_xor, (a, b), dtype, bits)
        kept = self._call(np.bitwise_and, (difference, self._mask(condition, bits)), dtype, bits)
        return self._call(np.bitwise_xor, (kept, b), dtype, bits)

    def _mask(self, condition, bits: np.dtype, inverted: bool = False) -> Value | Number:
        """A condition as bits: all of them set where it holds (inverted: where it does not), else none."""
        if isinstance(condition, Number):
            tree = Node("neg", (Node("!=", (condition.tree, _ZERO)),))
            return Number(Node("-", (Node("const", (-1,)), tree)) if inverted else tree, int, bits)
        if condition.dtype != _BOOL:
            condition = self._apply("!=", [condition, Number(_ZERO, int)])
        if bits == _BOOL:
            return self._call(np.logical_not, (condition,), _BOOL) if inverted else condition
        # true is the byte 1, so -1 is all ones and 1 - 1 is none; a wider integer takes the sign along
        one = Number(Node("const", (1,)), int, _BYTE)
        function, operands = (np.subtract, (condition, one)) if inverted else (np.negative, (condition,))
        return self._cast(self._call(function, operands, _BYTE, _BYTE), bits)

    def _cast(self, value: Value | Number, dtype: np.dtype) -> Value | Number:
        if isinstance(value, Number):
            return value._replace(dtype=dtype)
        return value if value.dtype == dtype else self._call(np.copyto, (value,), dtype)

    def _call(self, function, operands: tuple, dtype: np.dtype, bits=None, of: frozenset | None = None) -> Value:
        """The result of a call, the one there is if there is one. ``bits``: what everything in it is seen as."""
        key = function, tuple(each.key for each in operands), dtype, bits
        if key not in self._made:
            if of is None:
                of = frozenset().union(*(each.inputs for each in operands if isinstance(each, Value)))
            self._made[key] = Value(self.arity + len(self._calls), dtype, of)
            self._calls.append((function, operands, bits, self._made[key]))
        return self._made[key]

    # ---- from calls to instructions on registers ----

    def _allocate(self, root: Value, keep: bool) -> None:
        """Gives each result a register: that of an operand that dies with the call where it can, else a free one."""
        last = {
            each.index: at
            for at, (_, operands, _, _) in enumerate(self._calls)
            for each in operands
            if isinstance(each, Value)
        }
        if keep:
            last[root.index] = len(self._calls)
        self.registers: list[int] = []
        slots: dict[Operand, int] = {}
        numbers: dict[tuple, tuple[int, tuple]] = {}
        calls = []
        home = {i: i for i in range(self.arity)}  # value -> where it is
        free: list[int] = []
        for at, (function, operands, bits, value) in enumerate(self._calls):
            read = []
            for each in operands:
                if isinstance(each, Value):
                    slot = Operand(home[each.index], bits or each.dtype, each.inputs)
                    read.append((False, slots.setdefault(slot, len(slots))))
                else:
                    entry = each.tree, each.dtype, bits or each.dtype
                    read.append((True, numbers.setdefault((*each.key, entry[2]), (len(numbers), entry))[0]))
            dying = {
                each.index: each
                for each in operands
                if isinstance(each, Value) and each.index >= self.arity and last[each.index] == at
            }
            home[value.index] = RESULT
            if keep or value != root:
                over = [each for each in dying.values() if _can_hold(each, function, bits, value)]
                size = value.dtype.itemsize
                fitting = [register for register in free if self.registers[register - self.arity] == size]
                if over:
                    home[value.index] = home[over[0].index]
                    del dying[over[0].index]
                elif fitting:
                    home[value.index] = fitting[-1]
                    free.remove(fitting[-1])
                else:
                    home[value.index] = self.arity + len(self.registers)
                    self.registers.append(size)
            out = Operand(home[value.index], bits or value.dtype, value.inputs)
            free.extend(home[index] for index in dying)
            calls.append((function, read, slots.setdefault(out, len(slots))))
        if keep:
            self.result = slots.setdefault(Operand(home[root.index], root.dtype, root.inputs), len(slots))
        self.slots, self.numbers = list(slots), [entry for _, entry in numbers.values()]
        self.calls = []
        for function, read, out in calls:
            operands = [position + len(slots) * is_number for is_number, position in read]
            casting = len(slots) + len(numbers)
            positions = (out, *operands, casting) if function is np.copyto else (*operands, out)
            self.calls.append((BY_NAME.get(function, function), operator.itemgetter(*positions)))


def _can_hold(operand: Value, function, bits, value: Value) -> bool:
    """Whether a result can go over an operand: same shape, same type, and element by element."""
    same = operand.dtype == value.dtype or (bits is not None and operand.dtype.itemsize == value.dtype.itemsize)
    return same and operand.inputs == value.inputs and function is not np.copyto


def _type(value: Value | Number):
    """What promotion goes by: an element type, or the Python type of a number, which gives way."""
    if isinstance(value, Value):
        return value.dtype
    return _BOOL if value.kind is bool else value.kind


_ZERO = Node("const", (0,))


def _is_zero(value: Value | Number) -> bool:
    """Whether all bits of a number are 0, whatever the attributes are."""
    return isinstance(value, Number) and repr(value.tree) in (repr(_ZERO), repr(Node("const", (0.0,))))


def number(tree: Node, attributes: dict) -> int | float | bool:
    """What an expression of numbers comes to: in Python's double precision, or else in NumPy's."""

    def compute(node: Node) -> Node:
        if node.op == "name":
            value = attributes[node.args[0]]
            return Node("const", (value.item() if isinstance(value, np.generic) else value,))
        node = fold(node)
        if node.op == "const":
            return node
        values = [arg.args[0] for arg in node.args]
        if node.op == "where":
            return Node("const", (values[1] if values[0] else values[2],))
        with np.errstate(all="ignore"):
            return Node("const", (_UFUNCS[node.op](*values).item(),))

    return rebuild(tree, compute).args[0]
