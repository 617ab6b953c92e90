"""Elementwise fusion: chains of elementwise operations become one expression, perhaps with a reduction at its end.

What only the next operation of a chain reads is never written to memory: it lives for one block of the expression.
Every element is rounded as before, so a chain keeps its bits; a reduction at the end of one adds in another order.
"""

from __future__ import annotations

from tinynet.kernels.expression import Expression, Node, substitute
from tinynet.ops.fused import Chain
from tinynet.ops.spec import BOOL, broadcast_shapes

from ..graph import TEMPORARY, Graph, Instruction
from .folding import number_of

_MOST_INPUTS, _MOST_NODES = 12, 64  # of one chain
_REDUCTIONS = ("sum", "mean", "max", "min", "sum_to")


def fuse_elementwise(graph: Graph) -> None:
    """Merges each elementwise instruction into its only reader, where that is elementwise too or a reduction."""
    _Fusion(graph).run()
    graph.verify("fuse_elementwise")


class _Fusion:
    def __init__(self, graph: Graph):
        self.graph, self.instructions = graph, graph.instructions
        self.readers, self.makers = graph.readers(), graph.makers()
        self.trees: dict[int, Node] = {}  # place -> its expression over names of registers
        self.gone: set[int] = set()
        self.uniform: dict[int, object] = {}  # register -> the number that all its elements are

    def run(self) -> None:
        for register in self.graph.registers:
            number = number_of(self.graph, register.index)
            if number is not None and register.spec.dtype != BOOL:
                self.uniform[register.index] = number
        for at, each in enumerate(self.instructions):
            if each.view and each.inputs[0] in self.uniform:
                self.uniform[each.outputs[0]] = self.uniform[each.inputs[0]]
            elif each.op.expression is not None:
                self._chain(at, each)
            elif each.op.name in _REDUCTIONS:
                self._reduce(at, each)
        for at in self.trees:
            if at not in self.gone:
                self.instructions[at] = self._as_chain(self.instructions[at], self.trees[at])
        self.graph.instructions = [each for i, each in enumerate(self.instructions) if i not in self.gone]

    def _chain(self, at: int, each: Instruction) -> None:
        expression, out = each.op.expression, self.graph.spec(each.outputs[0])
        given = {name: Node("const", (each.attributes[name],)) for name in expression.attributes}
        taken, numbers = self._operands(at, each, out.shape)
        for name, register in zip(expression.inputs, each.inputs):
            if register in taken:
                given[name] = self._tree(taken[register])
            elif register in numbers:
                given[name] = Node("const", (self.uniform[register],))
            else:
                given[name] = Node("name", (_name(register),))
        tree = substitute(expression.tree, given)
        if not (taken or numbers) or not _fits(tree):
            return
        self.trees[at] = tree
        self.gone.update(taken.values())

    def _operands(self, at: int, each: Instruction, shape) -> tuple[dict[int, int], set[int]]:
        """Which inputs the chain takes in: register -> place of their maker; and which it takes as numbers."""
        taken = {}
        for register in set(each.inputs):
            place = self.makers.get(register)
            if (
                place is not None and place not in self.gone and self.readers[register] == [at]
                and self.instructions[place].op.expression is not None
                and self.graph.registers[register].kind == TEMPORARY and self.graph.storage(register) == register
                and self.graph.spec(register).shape == shape
                and not any(self.graph.conflict(self._whole(place), i) for i in self._between(place, at))
            ):  # fmt: skip
                taken[register] = place
        numbers = {register for register in each.inputs if register in self.uniform}
        others = [self.graph.spec(r) for r in each.inputs if r not in numbers]
        result = self.graph.spec(each.outputs[0]).dtype
        if (
            not others or broadcast_shapes("fusion", *(spec.shape for spec in others)) != shape
            or (result != BOOL and all(spec.dtype == BOOL for spec in others))
        ):  # fmt: skip
            numbers = set()  # a number has no shape to lend, and no element type beside booleans
        return taken, numbers

    def _whole(self, place: int) -> Instruction:
        """An instruction with all that its chain reads as its inputs."""
        each = self.instructions[place]
        return each.with_(inputs=_registers(self.trees[place])) if place in self.trees else each

    def _between(self, first: int, last: int):
        return (self.instructions[i] for i in range(first + 1, last) if i not in self.gone)

    def _reduce(self, at: int, each: Instruction) -> None:
        source = each.inputs[0]
        spec = self.graph.spec(source)
        place = self._operands(at, each, spec.shape)[0].get(source)
        axes = _axes(each, spec.shape, self.graph.spec(each.outputs[0]).shape)
        if place is None or axes is None or not spec.size:
            return
        tree, names = self._named(self._tree(place))
        if broadcast_shapes("fusion", *(self.graph.spec(r).shape for r in names.values())) != spec.shape:
            return
        chain = Chain(Expression(tree, tuple(names)), spec.dtype, "sum" if each.op.name == "sum_to" else each.op.name)
        self.instructions[at] = each.with_(op=chain, inputs=tuple(names.values()), attributes=axes)
        self.gone.add(place)

    def _tree(self, place: int) -> Node:
        each = self.instructions[place]
        if place in self.trees:
            return self.trees[place]
        given = {name: Node("const", (each.attributes[name],)) for name in each.op.expression.attributes}
        given |= {n: Node("name", (_name(r),)) for n, r in zip(each.op.expression.inputs, each.inputs)}
        return substitute(each.op.expression.tree, given)

    def _named(self, tree: Node) -> tuple[Node, dict[str, int]]:
        """The tree over the names a, b, c ..., and the register that each stands for."""
        registers = _registers(tree)
        names = {_letter(i): register for i, register in enumerate(registers)}
        return substitute(tree, {_name(r): Node("name", (name,)) for name, r in names.items()}), names

    def _as_chain(self, each: Instruction, tree: Node) -> Instruction:
        tree, names = self._named(tree)
        chain = Chain(Expression(tree, tuple(names)), self.graph.spec(each.outputs[0]).dtype)
        return each.with_(op=chain, inputs=tuple(names.values()), attributes={})


def _name(register: int) -> str:
    return f"r{register}"


def _registers(tree: Node) -> list[int]:
    return list(dict.fromkeys(int(node.args[0][1:]) for node in tree.walk() if node.op == "name"))


def _letter(i: int) -> str:
    return "abcdfghijklm"[i]  # e is a number of the language


def _fits(tree: Node) -> bool:
    nodes = list(tree.walk())
    names = {node.args[0] for node in nodes if node.op == "name"}
    return bool(names) and len(nodes) <= _MOST_NODES and len(names) <= _MOST_INPUTS


def _axes(each: Instruction, shape, result) -> dict | None:
    """The attributes of the reduction, or None where ``sum_to`` is none over whole axes."""
    if each.op.name != "sum_to":
        return {"axis": each.attributes["axis"], "keepdims": each.attributes["keepdims"]}
    if len(result) == len(shape):
        return {"axis": tuple(i for i, n in enumerate(result) if n != shape[i]), "keepdims": True}
    lead = len(shape) - len(result)
    return {"axis": tuple(range(lead)), "keepdims": False} if result == shape[lead:] else None
