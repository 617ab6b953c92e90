"""The graph: a captured step as registers and a flat list of instructions, in the order in which they ran.

A register stands for an array. Registers of one storage share memory: a view and what it is a view of, or a result that
is written over an input. Instructions are never reordered, only removed, merged or replaced, so that what reads before
a write still reads before it. Nothing here computes, and nothing here knows of Python code or of executors.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tinynet.errors import CaptureError
from tinynet.ops import Op, Spec

INPUT, EXTERNAL, CONSTANT, TEMPORARY = "input", "external", "constant", "temporary"
_PREFIX = {INPUT: "x", EXTERNAL: "p", CONSTANT: "c", TEMPORARY: "t"}


class Register:
    """One array of the program.

    Attributes:
        index: its place in ``Graph.registers``.
        spec: shape and dtype.
        kind: "input" (comes with each call), "external" (a tensor that outlives the call: a parameter, a moment),
            "constant" (a Python number), "temporary" (made by an instruction).
        storage: index of the register whose memory it is in; its own for most.
        name: how it is shown.
        value: the number of a constant; for others None.
    """

    __slots__ = ("index", "kind", "name", "spec", "storage", "value")

    def __init__(self, index: int, spec: Spec, kind: str, storage: int | None = None, name: str = "", value=None):
        self.index, self.spec, self.kind = index, spec, kind
        self.storage = index if storage is None else storage
        self.name, self.value = name or f"{_PREFIX[kind]}{index}", value

    def __repr__(self) -> str:
        return f"{self.name}:{self.spec.dtype}{list(self.spec.shape)}"


class Instruction:
    """One operation on registers.

    Attributes:
        op, attributes: the record, and its attributes in their normal form.
        inputs, outputs: indices of registers. An update's outputs are the registers that it writes over.
        view: whether the output is a view of the first input.
        line: where in the user's code it came from.
    """

    __slots__ = ("attributes", "inputs", "line", "op", "outputs", "view")

    def __init__(self, op: Op, inputs: Iterable[int], outputs: Iterable[int], attributes: dict, view=False, line=""):
        self.op, self.inputs, self.outputs = op, tuple(inputs), tuple(outputs)
        self.attributes, self.view, self.line = attributes, view, line

    def key(self) -> tuple:
        """What makes two instructions compute the same, but for their registers."""
        return self.op.name, tuple(sorted((name, repr(value)) for name, value in self.attributes.items()))


class Graph:
    """Registers, instructions, and which registers come in and go out.

    Attributes:
        registers, instructions: see there.
        inputs: registers of the call's tensors, in their order.
        outputs: registers of the results, in their order.
        backend: the name of the backend that it runs on.
    """

    def __init__(self, backend: str):
        self.backend = backend
        self.registers: list[Register] = []
        self.instructions: list[Instruction] = []
        self.inputs: list[int] = []
        self.outputs: list[int] = []

    def add(self, spec: Spec, kind: str, storage: int | None = None, name: str = "", value=None) -> int:
        """A new register; returns its index."""
        self.registers.append(Register(len(self.registers), spec, kind, storage, name, value))
        return len(self.registers) - 1

    def spec(self, register: int) -> Spec:
        return self.registers[register].spec

    def storage(self, register: int) -> int:
        return self.registers[register].storage

    def kind_of_storage(self, register: int) -> str:
        return self.registers[self.registers[register].storage].kind

    def written(self) -> set[int]:
        """Storages that an update writes over."""
        return {self.storage(i) for each in self.instructions if each.op.updates for i in each.outputs}

    def lifetimes(self) -> dict[int, tuple[int, int]]:
        """storage -> (first, last) instruction that touches it, for what a program has to find memory for.

        Those are temporaries and inputs. Inputs are there from instruction 0 on; outputs to the end, as if one more
        instruction read them.
        """
        first: dict[int, int] = {}
        last: dict[int, int] = {}
        for register in self.inputs:
            first[self.storage(register)] = last[self.storage(register)] = 0
        for i, each in enumerate(self.instructions):
            for register in (*each.inputs, *each.outputs):
                storage = self.storage(register)
                first.setdefault(storage, i)
                last[storage] = i
        for register in self.outputs:
            last[self.storage(register)] = len(self.instructions)
        planned = (s for s in first if self.registers[s].kind in (INPUT, TEMPORARY))
        return {storage: (first[storage], last[storage]) for storage in planned}

    def uses(self) -> dict[int, list[int]]:
        """register -> the instructions that read it, ascending."""
        found: dict[int, list[int]] = {}
        for i, each in enumerate(self.instructions):
            for register in each.inputs:
                found.setdefault(register, []).append(i)
        return found

    def operands(self, instruction: Instruction) -> list[Spec]:
        return [self.spec(i) for i in instruction.inputs]

    def __iter__(self) -> Iterator[Instruction]:
        return iter(self.instructions)

    def __len__(self) -> int:
        return len(self.instructions)

    def __str__(self) -> str:
        names = [register.name for register in self.registers]
        lines = [f"inputs   {' '.join(repr(self.registers[i]) for i in self.inputs)}"]
        for i, each in enumerate(self.instructions):
            attributes = "".join(f", {k}={v}" for k, v in each.attributes.items())
            left = ", ".join(repr(self.registers[o]) for o in each.outputs)
            lines.append(f"{i:4}  {left} = {each.op.name}({', '.join(names[j] for j in each.inputs)}{attributes})")
        return "\n".join([*lines, f"outputs  {' '.join(names[i] for i in self.outputs)}"])

    def verify(self, after: str = "capture") -> None:
        """Checks that the graph means something; run after every pass.

        Raises:
            CaptureError: naming the instruction, and the pass after which it was found.
        """
        defined = {r.index for r in self.registers if r.kind != TEMPORARY}
        for i, each in enumerate(self.instructions):
            where = f"graph after {after}, instruction {i}: {each.op.name} ({each.line})"
            for register in each.inputs:
                if register not in defined:
                    raise CaptureError(where, expected="registers that have a value", got=self.registers[register].name)
            rule = each.op.rule(*self.operands(each), **each.attributes)
            specs = [rule] if isinstance(rule, Spec) else list(rule)
            if specs != [self.spec(o) for o in each.outputs]:
                raise CaptureError(
                    where, expected=f"results {specs}", got=str([self.registers[o] for o in each.outputs])
                )
            if each.op.updates:
                targets = [each.inputs[source] for _, source in sorted(each.op.updates.items())]
                if list(each.outputs) != targets:
                    raise CaptureError(
                        where, expected="its results to be the registers it updates", got=str(each.outputs)
                    )
                if any(self.kind_of_storage(target) == CONSTANT for target in targets):
                    raise CaptureError(where, expected="a tensor to write over", got="a constant")
            if each.view and self.storage(each.outputs[0]) != self.storage(each.inputs[0]):
                raise CaptureError(where, expected="a view to be in the memory of its input", got="another")
            defined.update(each.outputs)
        for register in self.outputs:
            if register not in defined:
                raise CaptureError(f"graph after {after}", expected="outputs with a value", got=str(register))
