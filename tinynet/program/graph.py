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
FORWARD, BACKWARD, UPDATE = "forward", "backward", "update"
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
        phase: "forward", "backward" (within the sweep for gradients), or "update" (after one: an optimizer, mostly).

    Passes do not change instructions: they put others in their place.
    """

    __slots__ = ("attributes", "checked", "inputs", "line", "op", "outputs", "phase", "view")

    def __init__(
        self, op: Op, inputs: Iterable[int], outputs: Iterable[int], attributes: dict, view=False, line="",
        phase=FORWARD,
    ):  # fmt: skip
        self.op, self.inputs, self.outputs = op, tuple(inputs), tuple(outputs)
        self.attributes, self.view, self.line, self.phase = attributes, view, line, phase
        self.checked = False  # whether the verifier has found its rule to hold, which cannot change

    def with_(self, **changes) -> Instruction:
        """The same instruction but for these fields."""
        fields = {name: getattr(self, name) for name in self.__slots__ if name != "checked"}
        return Instruction(**(fields | changes))

    @property
    def targets(self) -> tuple[int, ...]:
        """The registers that it writes over: none but for an update."""
        return self.outputs if self.op.updates else ()

    def key(self) -> tuple:
        """What makes two instructions compute the same, but for their registers."""
        return self.op.name, tuple(sorted((name, repr(value)) for name, value in self.attributes.items()))


class Graph:
    """Registers, instructions, and which registers come in and go out.

    Attributes:
        registers, instructions: see there.
        inputs: registers of the call's tensors, in their order.
        outputs: registers of the results, in their order.
        constants: register -> array, for constants.
        backend: the name of the backend that it runs on.
    """

    def __init__(self, backend: str):
        self.backend = backend
        self.registers: list[Register] = []
        self.instructions: list[Instruction] = []
        self.inputs: list[int] = []
        self.outputs: list[int] = []
        self.constants: dict[int, object] = {}

    def copy(self) -> Graph:
        """A graph that can be changed without changing this one. Instructions and arrays are shared."""
        other = Graph(self.backend)
        other.registers = [Register(r.index, r.spec, r.kind, r.storage, r.name, r.value) for r in self.registers]
        other.instructions, other.constants = list(self.instructions), dict(self.constants)
        other.inputs, other.outputs = list(self.inputs), list(self.outputs)
        return other

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

        Those are temporaries and inputs. Inputs are there from instruction 0 on; outputs, and inputs that are written
        to, until the end, as if one more instruction read them.
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
        written = self.written()
        for register in (*self.outputs, *(r for r in self.inputs if self.storage(r) in written)):
            last[self.storage(register)] = len(self.instructions)
        planned = (s for s in first if self.registers[s].kind in (INPUT, TEMPORARY))
        return {storage: (first[storage], last[storage]) for storage in planned}

    def readers(self) -> dict[int, list[int]]:
        """register -> positions of the instructions that read it, ascending, each once; outputs as len(graph)."""
        found: dict[int, list[int]] = {}
        for i, each in enumerate(self.instructions):
            for register in set(each.inputs):
                found.setdefault(register, []).append(i)
        for register in self.outputs:
            found.setdefault(register, []).append(len(self.instructions))
        return found

    def makers(self) -> dict[int, int]:
        """register -> position of the instruction that makes it; not of those that update it later."""
        found: dict[int, int] = {}
        for i, each in enumerate(self.instructions):
            if not each.op.updates:
                found.update(dict.fromkeys(each.outputs, i))
        return found

    def conflict(self, first: Instruction, second: Instruction) -> bool:
        """Whether two instructions must stay in this order: one writes what the other touches, or makes an input of it.

        A view touches the memory that it is in; it writes nothing.
        """
        touched = [{self.storage(r) for r in (*each.inputs, *each.outputs)} for each in (first, second)]
        written = [set() if each.view else {self.storage(r) for r in each.outputs} for each in (first, second)]
        return not (
            written[0].isdisjoint(touched[1]) and written[1].isdisjoint(touched[0])
            and set(first.outputs).isdisjoint(second.inputs)
        )  # fmt: skip

    def replace(self, new: dict[int, int]) -> None:
        """Reads other registers: ``new`` is old register -> the one in its place. Chains are followed."""

        def final(register):
            while register in new:
                register = new[register]
            return register

        if new:
            self.instructions = [
                each.with_(inputs=tuple(map(final, each.inputs))) if not new.keys().isdisjoint(each.inputs) else each
                for each in self.instructions
            ]
            self.outputs = [final(register) for register in self.outputs]
            for register in self.registers:  # views of what is replaced
                if register.storage in new and register.index != register.storage:
                    register.storage = self.storage(final(register.storage))

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
        registers, defined = self.registers, set()  # temporaries that have a value
        inside: dict[int, set[int]] = {}  # storage -> temporaries that have a value in it

        def where():
            return f"graph after {after}, instruction {i}: {each.op.name} ({each.line})"

        for i, each in enumerate(self.instructions):  # noqa: B007  (``where`` reads it)
            for register in each.inputs:
                if register not in defined and registers[register].kind == TEMPORARY:
                    got = f"{self.registers[register].name}, which has none, or none any more"
                    raise CaptureError(where(), expected="registers that have a value", got=got)
            if not each.checked:
                rule = each.op.rule(*self.operands(each), **each.attributes)
                specs = [rule] if isinstance(rule, Spec) else list(rule)
                if specs != [self.spec(o) for o in each.outputs]:
                    got = str([self.registers[o] for o in each.outputs])
                    raise CaptureError(where(), expected=f"results {specs}", got=got)
                each.checked = True
            if each.op.updates:
                targets = [each.inputs[source] for _, source in sorted(each.op.updates.items())]
                if list(each.outputs) != targets:
                    raise CaptureError(
                        where(), expected="its results to be the registers it updates", got=str(each.outputs)
                    )
                if any(self.kind_of_storage(target) == CONSTANT for target in targets):
                    raise CaptureError(where(), expected="a tensor to write over", got="a constant")
            if each.view and self.storage(each.outputs[0]) != self.storage(each.inputs[0]):
                raise CaptureError(where(), expected="a view to be in the memory of its input", got="another")
            for register in each.outputs if not each.op.updates else ():
                held = inside.setdefault(self.storage(register), set())
                if not each.view:  # what was in this memory is gone
                    defined -= held
                    held.clear()
                held.add(register)
                defined.add(register)
        for register in self.outputs:
            if register not in defined and registers[register].kind == TEMPORARY:
                raise CaptureError(f"graph after {after}", expected="outputs with a value", got=str(register))
