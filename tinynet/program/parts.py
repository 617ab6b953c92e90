"""Parts of a graph: its instructions written out over parts of their operands, one part after the other.

What micro-batches and strips of a weight have in common: how an operand is cut, and what an instruction becomes.
Which instructions can be cut, and along which axes, their split rules say; who cuts has asked them.
"""

from __future__ import annotations

from tinynet.ops import Spec, lookup
from tinynet.ops.splitting import Split, part_of

from .graph import TEMPORARY, Graph, Instruction


class Parts:
    """Writes instructions for parts, into a new list.

    Args:
        graph: gets the registers of the parts; its own list of instructions stays as it is.
        n: into how many units the axes that are cut fall.

    Attributes:
        new: the instructions.
        here: (register, the axis of the cut) -> the register of its part that is at hand.
    """

    def __init__(self, graph: Graph, n: int):
        self.graph, self.n = graph, n
        self.new: list[Instruction] = []
        self.here: dict[tuple[int, int], int] = {}

    def begin(self, start: int, stop: int) -> None:
        """What follows is for units start to stop."""
        self.start, self.stop = start, stop
        self.here.clear()

    def write(self, each: Instruction, split: Split) -> int:
        """The instruction for a part that is joined with others to the whole; returns the register of its result."""
        cut = self.cut(each, split)
        if each.op.updates:
            made = tuple(cut.inputs[source] for _, source in sorted(each.op.updates.items()))
        else:
            made = (self.made(each.outputs[0], split.axis, self.graph.storage(cut.inputs[0]) if each.view else None),)
            self.here[each.outputs[0], split.axis] = made[0]
        self.new.append(cut.with_(outputs=made))
        return made[0]

    def cut(self, each: Instruction, split: Split) -> Instruction:
        """The instruction on the parts of its inputs, but with the outputs that it had."""
        inputs = tuple(r if axis is None else self.of(r, axis, each) for r, axis in zip(each.inputs, split.cuts))
        own = split.attributes(self.start, self.stop) if split.attributes else {}
        return each.with_(inputs=inputs, attributes=each.attributes | own)

    def of(self, register: int, axis: int, each: Instruction) -> int:
        """The part of an operand: made for this part, or a view of what there is as a whole."""
        if (register, axis) not in self.here:
            self.here[register, axis] = self.view(register, axis, line=each.line, phase=each.phase)
        return self.here[register, axis]

    def view(self, register: int, axis: int, **origin) -> int:
        """A part of what there is as a whole."""
        shape, unit = self.graph.spec(register).shape, self.graph.spec(register).shape[axis] // self.n
        bounds = [(0, size, 1) for size in shape]
        bounds[axis] = (self.start * unit, self.stop * unit, 1)
        part = self.made(register, axis, self.graph.storage(register))
        take = Instruction(lookup("getitem"), (register,), (part,), {"index": tuple(bounds)}, view=True, **origin)
        self.new.append(take)
        return part

    def made(self, register: int, axis: int | None, storage: int | None = None) -> int:
        """A register for a part of this one."""
        spec: Spec = part_of(self.graph.spec(register), axis, self.n, self.start, self.stop)
        return self.graph.add(spec, TEMPORARY, storage)
