"""The language in which an elementwise operation says its mathematics, once, for every target.

    Expression("x / (1 + exp(-x))", inputs=("x",))

Arithmetic, comparisons, and the functions in ``FUNCTIONS``. A text is parsed into a small tree of ``Node``, checked,
and printed for a target. The printer for array-API namespaces and for NumPy with ``out=`` lives here; those for other
targets (compiled loops, CUDA) walk the same tree. Nothing outside the grammar gets through ``parse``, so an expression
can never become anything but arithmetic.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

# name -> number of arguments
FUNCTIONS = {
    "exp": 1, "expm1": 1, "log": 1, "log1p": 1, "sqrt": 1, "tanh": 1, "erf": 1, "abs": 1, "sign": 1, "square": 1,
    "logical_not": 1, "maximum": 2, "minimum": 2, "logical_and": 2, "logical_or": 2, "where": 3,
}  # fmt: skip
_BINARY = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.Pow: "**"}
_COMPARE = {ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">="}
_CONSTANTS = {"pi": math.pi, "e": math.e}

_NUMPY = {
    "+": "add", "-": "subtract", "*": "multiply", "/": "divide", "**": "power", "neg": "negative", "abs": "absolute",
    "==": "equal", "!=": "not_equal", "<": "less", "<=": "less_equal", ">": "greater", ">=": "greater_equal",
}  # fmt: skip


class Node(NamedTuple):
    """One operator applied to nodes. Leaves are ``("name", (str,))`` and ``("const", (float,))``."""

    op: str
    args: tuple

    def walk(self) -> Iterator[Node]:
        """This node and all below it, arguments first."""
        if self.op not in ("name", "const"):
            for arg in self.args:
                yield from arg.walk()
        yield self


def parse(text: str, names: tuple[str, ...]) -> Node:
    """The tree of an expression over ``names``.

    Raises:
        ValueError: a name, function or construct outside the language; the message quotes it.
    """

    def build(tree) -> Node:
        match tree:
            case ast.Constant(value=bool() | str()):
                pass
            case ast.Constant(value=int() | float() as value):
                return Node("const", (value,))
            case ast.Name(id=name) if name in names:
                return Node("name", (name,))
            case ast.Name(id=name) if name in _CONSTANTS:
                return Node("const", (_CONSTANTS[name],))
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return fold(Node("neg", (build(operand),)))
            case ast.BinOp(left=left, op=operator, right=right) if type(operator) in _BINARY:
                return fold(Node(_BINARY[type(operator)], (build(left), build(right))))
            case ast.Compare(left=left, ops=[operator], comparators=[right]) if type(operator) in _COMPARE:
                return Node(_COMPARE[type(operator)], (build(left), build(right)))
            case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if FUNCTIONS.get(name) == len(args):
                return fold(Node(name, tuple(build(arg) for arg in args)))
        raise ValueError(f"not in the expression language: {ast.unparse(tree)!r} in {text!r} (names: {names})")

    return build(ast.parse(text.strip(), mode="eval").body)


_FOLD = {
    "+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b, "/": lambda a, b: a / b,
    "**": lambda a, b: a**b, "neg": lambda a: -a, "sqrt": math.sqrt, "exp": math.exp, "log": math.log,
}  # fmt: skip


def fold(node: Node) -> Node:
    """``node`` as a constant where all its arguments are: computed once, in double precision."""
    if node.op in _FOLD and all(arg.op == "const" for arg in node.args):
        return Node("const", (_FOLD[node.op](*(arg.args[0] for arg in node.args)),))
    return node


class Expression:
    """An elementwise operation's mathematics.

    Args:
        text: the expression.
        inputs: names of the arrays, in the order of the operation's inputs.
        attributes: names of the numbers that come as keyword attributes.

    Attributes:
        tree: the parsed ``Node``.
        flops: operations per element, a function such as exp counted as one.
    """

    def __init__(self, text: str, inputs: tuple[str, ...] = ("x",), attributes: tuple[str, ...] = ()):
        self.text, self.inputs, self.attributes = text, tuple(inputs), tuple(attributes)
        self.tree = parse(text, self.inputs + self.attributes)
        self.flops = sum(node.op not in ("name", "const") for node in self.tree.walk())

    def __repr__(self) -> str:
        return f"Expression({self.text!r}, inputs={self.inputs})"

    def function(self) -> Callable:
        """``f(xp, *inputs, **attributes) -> array`` for any array-API namespace ``xp``."""
        return self._compile(f"return {_print(self.tree, 'xp')}", "xp", *self.inputs)

    def reference_kernel(self) -> Callable:
        """The kernel in plain array-API code."""
        function = self.function()

        def kernel(out, *inputs, **attributes):
            out[...] = function(inputs[0].__array_namespace__(), *inputs, **attributes)

        return kernel

    def ufunc_kernel(self, namespace) -> Callable:
        """The kernel in calls of NumPy-like ufuncs; the last of them writes straight into ``out``."""
        op, args = self.tree.op, self.tree.args
        if op in ("name", "const", "where", "erf"):
            body = f"out[...] = {_print(self.tree, 'xp')}"
        else:
            parts = ", ".join(_print(arg, "xp") for arg in args)
            body = f"xp.{_NUMPY.get(op, op)}({parts}, out=out)"
        return self._compile(body, "out", *self.inputs, xp=namespace)

    def _compile(self, body: str, *positional: str, **scope) -> Callable:
        from .reference.special import erf

        signature = ", ".join(
            (*positional, *(f"*, {name}" if i == 0 else name for i, name in enumerate(self.attributes)))
        )
        space = {"erf": erf, **scope}
        exec(f"def elementwise({signature}):\n    {body}\n", space)  # the text is printed from a parsed tree
        return space["elementwise"]


def _print(node: Node, xp: str) -> str:
    op, args = node.op, node.args
    if op == "name":
        return args[0]
    if op == "const":
        return repr(args[0])
    parts = [_print(arg, xp) for arg in args]
    if op == "neg":
        return f"(-{parts[0]})"
    if op == "erf":
        return f"erf({parts[0]})"
    if op in FUNCTIONS:
        return f"{xp}.{op}({', '.join(parts)})"
    return f"({parts[0]} {op} {parts[1]})"
