"""The language in which an elementwise operation says its mathematics, once, for every target.

    Expression("x / (1 + exp(-x))", inputs=("x",))

Arithmetic, comparisons, and the functions in ``FUNCTIONS``. A text is parsed into a small tree of ``Node``, checked,
and printed for a target. The printer for array-API namespaces and for ufuncs with ``out=`` lives here; what computes
block by block, and the printers for compiled loops and CUDA, walk the same tree. Nothing outside the grammar gets
through ``parse`` or ``checked``, so an expression can never become anything but arithmetic.

Trees may share subtrees: ``substitute`` composes expressions, and a subtree that stands in two places is one object,
visited once and computed once.
"""

from __future__ import annotations

import ast
import keyword
import math
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

# name -> number of arguments
FUNCTIONS = {
    "exp": 1, "expm1": 1, "log": 1, "log1p": 1, "sqrt": 1, "tanh": 1, "erf": 1, "abs": 1, "sign": 1, "square": 1,
    "logical_not": 1, "maximum": 2, "minimum": 2, "logical_and": 2, "logical_or": 2, "where": 3,
}  # fmt: skip
_BINARY = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.Pow: "**"}
_COMPARE = {ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">="}
_CONSTANTS = {"pi": math.pi, "e": math.e}
_ARITY = {**FUNCTIONS, "neg": 1, **dict.fromkeys((*_BINARY.values(), *_COMPARE.values()), 2)}
_LEAVES = ("name", "const")

# Operators by the names that NumPy and its kin have for them.
UFUNCS = {
    "+": "add", "-": "subtract", "*": "multiply", "/": "divide", "**": "power", "neg": "negative", "abs": "absolute",
    "==": "equal", "!=": "not_equal", "<": "less", "<=": "less_equal", ">": "greater", ">=": "greater_equal",
}  # fmt: skip


class Node(NamedTuple):
    """One operator applied to nodes. Leaves are ``("name", (str,))`` and ``("const", (float,))``."""

    op: str
    args: tuple

    def walk(self) -> Iterator[Node]:
        """This node and all below it, arguments first."""
        if self.op not in _LEAVES:
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


def checked(tree: Node, names: tuple[str, ...]) -> Node:
    """``tree``, folded, if it is an expression over ``names``.

    Raises:
        ValueError: a name or an operator outside the language, or a wrong number of arguments.
    """

    def check(node: Node) -> Node:
        if node.op == "name":
            known = node.args[0] in names
        elif node.op == "const":
            known = type(node.args[0]) in (int, float)
        else:
            known = _ARITY.get(node.op) == len(node.args)
        if not known:
            raise ValueError(f"not in the expression language: {node.op!r} of {node.args} (names: {names})")
        return fold(node)

    return rebuild(tree, check)


# ---- trees from trees ----

_FOLD = {
    "+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b, "/": lambda a, b: a / b,
    "**": lambda a, b: a**b, "neg": lambda a: -a, "sqrt": math.sqrt, "exp": math.exp, "log": math.log,
    "expm1": math.expm1, "log1p": math.log1p, "tanh": math.tanh, "erf": math.erf, "abs": abs, "square": lambda a: a * a,
}  # fmt: skip


def fold(node: Node) -> Node:
    """``node`` as a constant where all its arguments are: computed once, in double precision.

    What has no value in Python's numbers (1 / 0, the root of -1) stays as it is, and every target has its own say.
    """
    if node.op in _FOLD and all(arg.op == "const" for arg in node.args):
        try:
            value = _FOLD[node.op](*(arg.args[0] for arg in node.args))
        except (ArithmeticError, ValueError):
            return node
        return Node("const", (value,)) if type(value) in (int, float) else node
    return node


def rebuild(tree: Node, change: Callable[[Node], Node]) -> Node:
    """The tree in which each node, once its arguments are rebuilt, is what ``change`` makes of it.

    Every object is visited once, however many places it stands in, and no depth of the tree is too much.
    """
    done: dict[int, Node] = {}
    stack = [tree]
    while stack:
        node = stack[-1]
        waiting = [] if node.op in _LEAVES else [arg for arg in node.args if id(arg) not in done]
        if waiting:
            stack.extend(waiting)
            continue
        stack.pop()
        if id(node) not in done:
            args = node.args if node.op in _LEAVES else tuple(done[id(arg)] for arg in node.args)
            done[id(node)] = change(Node(node.op, args))
    return done[id(tree)]


def substitute(tree: Node, values: Mapping[str, Node]) -> Node:
    """The tree with nodes in place of names: how expressions are composed."""
    return rebuild(tree, lambda node: values.get(node.args[0], node) if node.op == "name" else fold(node))


def expand(tree: Node) -> Node:
    """The tree in functions that every array library has: ``erf`` becomes the arithmetic that computes it."""
    from .reference.special import ERF

    return rebuild(tree, lambda node: substitute(ERF, {"x": node.args[0]}) if node.op == "erf" else node)


def linear(tree: Node) -> list[tuple[str, tuple]]:
    """The distinct subtrees as a list of (operator, operands): arguments first, the tree itself last.

    Operands are positions in the list; those of a leaf are its name or its number.
    """
    entries: list[tuple[str, tuple]] = []
    position: dict[tuple, int] = {}

    def number(node: Node) -> Node:  # takes positions for arguments, and gives back its own
        # by their text, 2 and 2.0 differ, 0.0 and -0.0 differ, and nan is nan
        key = (node.op, tuple(map(repr, node.args)) if node.op in _LEAVES else node.args)
        if key not in position:
            position[key] = len(entries)
            entries.append((node.op, node.args))
        return position[key]

    rebuild(tree, number)
    return entries


# ---- text from trees ----

_POWER, _NEGATIVE, _PRODUCT, _SUM, _COMPARISON = 5, 4, 3, 2, 1
_BINDS = {
    "**": _POWER, "neg": _NEGATIVE, "*": _PRODUCT, "/": _PRODUCT, "+": _SUM, "-": _SUM,
    **dict.fromkeys(_COMPARE.values(), _COMPARISON),
}  # fmt: skip


def text_of(tree: Node) -> str:
    """The tree in the language: ``parse`` reads it back."""

    def side(node: Node, least: int) -> str:
        text = text_of(node)
        binds = _BINDS.get(node.op, 9)
        if node.op == "const":
            binds = _NEGATIVE if text.startswith("-") else 9
        return text if binds >= least else f"({text})"

    op, args = tree
    if op == "name":
        return args[0]
    if op == "const":
        return _number(args[0])
    if op == "neg":
        return f"-{side(args[0], _NEGATIVE)}"
    if op in FUNCTIONS:
        return f"{op}({', '.join(map(text_of, args))})"
    binds = _BINDS[op]
    left = binds + (op == "**" or binds == _COMPARISON)
    right = _NEGATIVE if op == "**" else binds + 1
    return f"{side(args[0], left)} {op} {side(args[1], right)}"


def _number(value) -> str:
    """A number as text that evaluates to it; infinity has no literal, and 1e999 is infinite."""
    if math.isnan(value):
        return "(1e999 - 1e999)"
    return repr(value).replace("inf", "1e999")


class Expression:
    """An elementwise operation's mathematics.

    Args:
        source: the expression as text, or as a tree.
        inputs: names of the arrays, in the order of the operation's inputs.
        attributes: names of the numbers that come as keyword attributes.

    Attributes:
        tree: the ``Node``.
        flops: operations per element, a function such as exp counted as one, what stands in two places once.

    Raises:
        ValueError: a name, function or construct outside the language.
    """

    def __init__(self, source: str | Node, inputs: tuple[str, ...] = ("x",), attributes: tuple[str, ...] = ()):
        self.inputs, self.attributes = tuple(inputs), tuple(attributes)
        names = self.inputs + self.attributes
        for name in names:  # they become names in the printed function
            if not name.isidentifier() or keyword.iskeyword(name) or name.startswith("_") or names.count(name) > 1:
                raise ValueError(f"not a name for an input or attribute of an expression: {name!r} in {names}")
        self.tree = parse(source, names) if isinstance(source, str) else checked(source, names)
        self.flops = sum(op not in _LEAVES for op, _ in linear(self.tree))

    @property
    def text(self) -> str:
        """The expression in the language."""
        return text_of(self.tree)

    def __repr__(self) -> str:
        return f"Expression({self.text!r}, inputs={self.inputs})"

    def function(self) -> Callable:
        """``f(xp, *inputs, **attributes) -> array`` for any array-API namespace ``xp``."""
        statements, result = self._print()
        return self._compile([*statements, f"return {result}"], "_xp", *self.inputs)

    def reference_kernel(self) -> Callable:
        """The kernel in plain array-API code."""
        function = self.function()

        def kernel(out, *inputs, **attributes):
            out[...] = function(inputs[0].__array_namespace__(), *inputs, **attributes)

        return kernel

    def ufunc_kernel(self, namespace) -> Callable:
        """The kernel in calls of NumPy-like ufuncs; the last of them writes straight into ``out``."""
        statements, result = self._print(into="_out")
        return self._compile([*statements, result], "_out", *self.inputs, _xp=namespace)

    def _print(self, into: str | None = None) -> tuple[list[str], str]:
        """Statements, and the expression of the result, or the statement that writes it ``into`` an array.

        What is used once stands where it is used; what is used more often, or is nested deeper than Python's parser
        would follow, gets a statement of its own.
        """
        entries = linear(expand(self.tree))
        uses = [0] * len(entries)
        for op, args in entries:
            for arg in () if op in _LEAVES else args:
                uses[arg] += 1
        statements, printed, depth = [], [], []
        for i, (op, args) in enumerate(entries):
            parts = args if op in _LEAVES else [printed[arg] for arg in args]
            nested = 0 if op in _LEAVES else 1 + max(depth[arg] for arg in args)
            if i + 1 == len(entries) and into is not None:
                if op in (*_LEAVES, "where"):
                    return statements, f"{into}[...] = {_call(op, parts)}"
                return statements, f"_xp.{UFUNCS.get(op, op)}({', '.join(parts)}, out={into})"
            text = _call(op, parts)
            if op not in _LEAVES and (uses[i] > 1 or nested > 20):
                statements.append(f"_{i} = {text}")
                text, nested = f"_{i}", 0
            printed.append(text)
            depth.append(nested)
        return statements, printed[-1]

    def _compile(self, body: list[str], *positional: str, **scope) -> Callable:
        signature = ", ".join(
            (*positional, *(f"*, {name}" if i == 0 else name for i, name in enumerate(self.attributes)))
        )
        lines = "\n    ".join(body)
        exec(f"def elementwise({signature}):\n    {lines}\n", scope)  # the text is printed from a checked tree
        return scope["elementwise"]


def _call(op: str, parts) -> str:
    if op == "name":
        return parts[0]
    if op == "const":
        text = _number(parts[0])
        return f"({text})" if text.startswith("-") else text
    if op == "neg":
        return f"(-{parts[0]})"
    if op in FUNCTIONS:
        return f"_xp.{op}({', '.join(parts)})"
    return f"({parts[0]} {op} {parts[1]})"
