"""Tracing: one call of a step, evaluated as always, and written down as a graph on the way.

The tracer takes the interpreter's place behind the door. Arrays are recognised by identity, so that a tensor and its
detached twin are one register. An array that nobody has made or passed in is an external if the step can reach a tensor
that holds it (a parameter), and otherwise a constant, whose value is remembered and must be the same in a second trace.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable

from tinynet.errors import CaptureError
from tinynet.ops import Op, Spec, Value, door

from .graph import CONSTANT, EXTERNAL, INPUT, TEMPORARY, Graph, Instruction
from .guards import Guards


class GradientOf:
    """The gradient that a tensor has when the step begins, as an external."""

    def __init__(self, tensor: Value):
        self.tensor = tensor

    @property
    def array(self):
        return self.tensor.grad.array

    @property
    def versions(self) -> list[int]:
        return self.tensor.grad.versions


class Trace:
    """What one call of a step did.

    Attributes:
        graph: the instructions.
        externals: register -> the tensor whose memory it is.
        arrays: register of an external or constant -> the array that the step met.
        before: register of an external that was written -> a copy of what it held before.
        constants: register -> its array.
        grads: for each tensor whose ``grad`` was set, in order: the tensor.
        depends_on_grads: tensors whose ``grad`` was read before the step had set it, and whether there was one.
        refreshes: what has to be run before each call.
    """

    def __init__(self, inputs: list[Value], guards: Guards, backend):
        self.graph = Graph(backend.name)
        self.backend, self.guards = backend, guards
        self.externals: dict[int, Value] = {}
        self.before: dict[int, object] = {}
        self.constants: dict[int, object] = {}
        self.grads: list[Value] = []
        self.depends_on_grads: list[tuple[Value, bool]] = []
        self.refreshes: list[Callable[[], None]] = []
        self._registers: dict[int, tuple[weakref.ref, int]] = {}  # identity of an array -> it, and its register
        self.arrays: dict[int, object] = {}  # kept, so that nobody else takes their identity
        self._whole: dict[int, object] = {}  # register of an input -> its array
        for value in inputs:
            if id(value.array) not in self._registers:
                register = self.graph.add(value.spec, INPUT)
                self._enter(value, register)
                self._whole[register] = value.array
            self.graph.inputs.append(self._registers[id(value.array)][1])

    def __enter__(self):
        self._outer = door.state.evaluate, door.state.tracer
        door.state.evaluate, door.state.tracer = self.evaluate, self
        return self

    def __exit__(self, *_):
        door.state.evaluate, door.state.tracer = self._outer

    # ---- what the door tells ----

    def evaluate(self, op: Op, inputs: tuple[Value, ...], attributes: dict, specs: tuple[Spec, ...]):
        """Evaluates eagerly, and adds an instruction."""
        line = _line()
        registers = [self.register(value) for value in inputs]
        if op.updates:
            for _, i in sorted(op.updates.items()):
                self._about_to_write(registers[i], line)
        outputs = door.evaluate(op, inputs, attributes, specs)
        view = op.view is not None and outputs[0].versions is inputs[0].versions
        if op.updates:
            results = [registers[i] for _, i in sorted(op.updates.items())]
        else:
            storage = self.graph.storage(registers[0]) if view else None
            results = [self.graph.add(spec, TEMPORARY, storage) for spec in specs]
            for value, register in zip(outputs, results):
                self._enter(value, register)
        self.graph.instructions.append(Instruction(op, registers, results, attributes, view, line))
        return outputs

    def value_read(self, value: Value) -> None:
        known = self.find(value)
        reachable = id(value.array) in self.guards.arrays or id(value.array) in self.guards.grads
        if self.graph.registers[known].kind == CONSTANT if known is not None else not reachable:
            return  # what Python has made within the step, it may look at
        raise CaptureError(
            f"capture, {_line()}",
            expected="a step that does not look at the numbers of tensors",
            got="item(), numpy(), a print, or an 'if' on a tensor",
            mend="return the tensor and look at it outside, or choose with tn.where",
        )

    def grad_read(self, value: Value) -> None:
        known = [*self.grads, *(each for each, _ in self.depends_on_grads)]
        if not any(each is value for each in known):
            self.depends_on_grads.append((value, value._grad is not None))

    def grad_written(self, value: Value) -> None:
        if not any(each is value for each in self.grads):
            self.grads.append(value)

    def before_each_call(self, refresh: Callable[[], None]) -> None:
        if refresh in self.refreshes:
            raise CaptureError(
                f"capture, {_line()}",
                expected="one step of an optimizer with a schedule",
                got="several in one captured function",
                mend="capture a single step, or give the optimizer a constant learning rate",
            )
        self.refreshes.append(refresh)

    # ---- registers ----

    def find(self, value: Value) -> int | None:
        """The register of a tensor that the trace knows, or None."""
        entry = self._registers.get(id(value.array))
        return entry[1] if entry is not None and entry[0]() is value.array else None

    def register(self, value: Value) -> int:
        """The register of any tensor: a new external or constant if the trace does not know it."""
        known = self.find(value)
        if known is not None:
            return known
        if value.backend is not self.backend:
            raise CaptureError(
                f"capture, {_line()}", expected=f"tensors on {self.backend.name}", got=f"one on {value.backend.name}"
            )
        if id(value.array) in self.guards.arrays:
            register = self.graph.add(value.spec, EXTERNAL)
            self.externals[register] = value
        elif id(value.array) in self.guards.grads:
            register = self.graph.add(value.spec, EXTERNAL)
            self.externals[register] = GradientOf(self.guards.grads[id(value.array)][0])
        else:
            small = value.spec.size == 1
            number = self.backend.to_host(value.array).item() if small else None
            register = self.graph.add(value.spec, CONSTANT, name=f"{number:g}" if small else "", value=number)
            self.constants[register] = self.backend.copy(value.array)
        self._enter(value, register)
        self.arrays[register] = value.array
        return register

    def _enter(self, value: Value, register: int) -> None:
        self._registers[id(value.array)] = weakref.ref(value.array), register

    def _about_to_write(self, register: int, line: str) -> None:
        storage = self.graph.storage(register)
        kind = self.graph.registers[storage].kind
        if kind == CONSTANT:
            raise CaptureError(
                f"capture, {line}", expected="a tensor that outlives the step, or a result of it, to write to",
                got="a tensor that Python made within the step", mend="make it outside, or build it with operations",
            )  # fmt: skip
        if kind in (EXTERNAL, INPUT) and storage not in self.before:
            array = self._whole[storage] if kind == INPUT else self.externals[storage].array
            self.before[storage] = self.backend.copy(array)


def _line() -> str:
    """The nearest line of code outside of the engine."""
    frame = sys._getframe(1)
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if not name.startswith("tinynet.") or name.startswith("tinynet.train"):
            return f"{frame.f_code.co_filename.rsplit('/', 1)[-1]}:{frame.f_lineno}"
        frame = frame.f_back
    return "?"
