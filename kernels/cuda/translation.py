"""From an expression to statements of CUDA, for one combination of element types.

Each distinct subtree is one statement, of the element type that NumPy gives it (numbers are weak). What depends on
numbers alone is computed here, or, where attributes are among them, when the kernel is called. The text is written from
the nodes of a checked tree: names of inputs and attributes do not get into it. What functions mean is in
``code/chains.cuh``.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from ..cpu.lowering import number
from ..expression import FUNCTIONS, UFUNCS, Expression, Node, linear

C_TYPES = {
    "bool": "bool", "float32": "float", "float64": "double", "int8": "signed char", "int16": "short", "int32": "int",
    "int64": "int64", "uint8": "unsigned char", "uint16": "unsigned short", "uint32": "unsigned", "uint64": "uint64",
}  # fmt: skip
_UFUNCS = {op: getattr(np, name) for op, name in UFUNCS.items()}
_UFUNCS |= {name: getattr(np, name) for name in FUNCTIONS if name not in ("where", "erf", "abs")}
_BOOL = np.dtype("bool")
_OPERATORS = {"+": "add", "-": "subtract", "*": "multiply", "/": "divide", "neg": "negate"}
_COMPARISONS = ("==", "!=", "<", "<=", ">", ">=")
_LOGIC = {"logical_and": "{} && {}", "logical_or": "{} || {}", "logical_not": "!{}"}
_POWERS = (0, 1, 2, 3, 4, -1, -2, 0.5, -0.5)  # those that are products, quotients and roots


class Declined(Exception):
    """An expression, or element types, that no kernel is made for."""


class Number(NamedTuple):
    """A value that is the same for all elements: arithmetic of constants and attributes."""

    tree: Node
    kind: type  # int, float or bool

    @property
    def varies(self) -> bool:
        return any(node.op == "name" for node in self.tree.walk())


class Value(NamedTuple):
    """An array's element, or what a statement computes: its name in the text."""

    name: str
    dtype: np.dtype


def c_type(dtype) -> str:
    try:
        return C_TYPES[str(dtype)]
    except KeyError:
        raise Declined from None


class Translation:
    """An expression as statements.

    Args:
        dtypes: of the inputs, which are called ``x0``, ``x1``, ...
        attributes: numbers for the attributes; only their types count.
        result: the element type of what is computed; None for the one that it has by itself.

    Attributes:
        statements: in order.
        root: the name of the result, or a literal.
        dtype: its element type.
        numbers: (tree, dtype) of what comes with the call, which is called ``c0``, ``c1``, ...
    """

    def __init__(self, expression: Expression, dtypes, attributes: dict, result=None):
        self.numbers: list[tuple[Node, np.dtype]] = []
        self._attributes = attributes
        self._made: list[tuple[str, str, tuple[str, ...]]] = []  # name, text, the names in it
        values: list[Value | Number] = []
        for op, args in linear(expression.tree):
            if op == "name" and args[0] in expression.inputs:
                i = expression.inputs.index(args[0])
                c_type(dtypes[i])
                values.append(Value(f"x{i}", np.dtype(dtypes[i])))
            elif op in ("name", "const"):
                values.append(self._number(Node(op, args)))
            else:
                values.append(self._apply(op, [values[i] for i in args]))
        root = values[-1]
        if result is None:
            if not isinstance(root, Value):
                raise Declined
            result = root.dtype
        self.dtype = np.dtype(result)
        self.root = self._cast(root, self.dtype)
        self.statements = self._needed()
        del self._made, self._attributes

    def _needed(self) -> list[str]:
        needed, found = {self.root}, []
        for name, text, names in reversed(self._made):
            if name in needed:
                needed.update(names)
                found.append(text)
        return found[::-1]

    def _number(self, tree: Node) -> Number:
        return Number(tree, type(number(tree, self._attributes)))

    # ---- types ----

    def _apply(self, op: str, operands: list) -> Value | Number:
        if all(isinstance(each, Number) for each in operands):
            return self._number(Node(op, tuple(each.tree for each in operands)))
        if op == "where":
            return self._choose(*operands)
        types = [_type(each) for each in operands]
        if op == "erf":
            loop = [types[0]] if types[0].kind == "f" else [np.dtype("float64")]
            result = loop[0]
        else:
            try:
                *loop, result = _UFUNCS[op].resolve_dtypes((*types, None))
            except TypeError:  # NumPy refuses too
                raise Declined from None
        c_type(result)
        if op == "**":
            return self._power(*operands, loop, result)
        return self._write(op, [self._cast(each, dtype) for each, dtype in zip(operands, loop)], loop[0], result)

    def _choose(self, condition, a, b) -> Value:
        dtype = np.result_type(*(each.dtype if isinstance(each, Value) else each.kind(0) for each in (a, b)))
        names = self._cast(condition, _BOOL), self._cast(a, dtype), self._cast(b, dtype)
        return self._statement(dtype, "{} ? {} : {}", names)

    def _power(self, x, exponent, loop, result) -> Value:
        if result.kind != "f":
            raise Declined
        base = self._cast(x, loop[0])
        n = number(exponent.tree, {}) if isinstance(exponent, Number) and not exponent.varies else None
        if n not in _POWERS:
            return self._statement(result, "power({}, {})", (base, self._cast(exponent, loop[1])))
        return self._statement(result, f"power_of<{int(2 * n)}>({{}})", (base,))

    # ---- text ----

    def _statement(self, dtype, text: str, names) -> Value:
        value = Value(f"v{len(self._made)}", np.dtype(dtype))
        line = f"const {c_type(dtype)} {value.name} = {text.format(*names)};"
        self._made.append((value.name, line, tuple(names)))
        return value

    def _write(self, op: str, names: list[str], loop, result) -> Value:
        if op in _COMPARISONS:
            return self._statement(result, f"{{}} {op} {{}}", names)
        if op in _LOGIC:
            made = [name if loop == _BOOL else self._as_bool(name) for name in names]
            return self._statement(result, _LOGIC[op], made)
        function = {"maximum": "Max()", "minimum": "Min()"}.get(op, _OPERATORS.get(op, f"{op}_of"))
        return self._statement(result, f"{function}({', '.join(['{}'] * len(names))})", names)

    def _as_bool(self, name: str) -> str:
        return self._statement(_BOOL, "{} != 0", (name,)).name

    def _cast(self, value, dtype) -> str:
        """The name of a value in another type, or the literal of a number."""
        if isinstance(value, Value):
            if value.dtype == dtype:
                return value.name
            if dtype == _BOOL:
                return self._as_bool(value.name)
            return self._statement(dtype, f"static_cast<{c_type(dtype)}>({{}})", (value.name,)).name
        if not value.varies:
            return literal(number(value.tree, {}), dtype)
        entry = value.tree, np.dtype(dtype)
        c_type(dtype)
        if entry not in self.numbers:
            self.numbers.append(entry)
        return f"c{self.numbers.index(entry)}"


def _type(value: Value | Number):
    """What promotion goes by: an element type, or the Python type of a number, which gives way."""
    if isinstance(value, Value):
        return value.dtype
    return _BOOL if value.kind is bool else value.kind


def literal(value, dtype) -> str:
    """A number as text of CUDA, exactly the one that NumPy makes of it in an element type."""
    kind = c_type(dtype)
    with np.errstate(all="ignore"):  # a number beyond the range of float32 is infinite there
        held = np.asarray(value, dtype)
    if held.dtype == _BOOL:
        return "true" if held else "false"
    if held.dtype.kind == "u":
        return f"static_cast<{kind}>({held}ull)"
    if held.dtype.kind == "i":
        text = f"{held}ll" if held > -(2**63) else f"-{2**63 - 1}ll - 1"  # which has no literal
        return f"static_cast<{kind}>({text})"
    if math.isnan(held):
        return f"(Element<{kind}>::infinity() - Element<{kind}>::infinity())"
    if math.isinf(held):
        return f"({'-' if held < 0 else ''}Element<{kind}>::infinity())"
    text = str(held) + ("f" if kind == "float" else "")  # the shortest that is this number
    return f"({text})" if text.startswith("-") else text


def argument(tree: Node, dtype, attributes: dict) -> np.generic:
    """A number of the call, as the scalar that a kernel takes: integers and booleans as int64."""
    with np.errstate(all="ignore"):
        held = np.asarray(number(tree, attributes), dtype)[()]
    return held if held.dtype.kind == "f" else np.int64(held.astype("int64"))


def parameter(dtype) -> str:
    """The type of such an argument."""
    return c_type(dtype) if np.dtype(dtype).kind == "f" else "int64"
