"""Tracing: one call of a step, written down as a graph; evaluated as always on the way, or with shapes alone.

The tracer takes the interpreter's place behind the door. Arrays are recognised by identity, so that a tensor and its
detached twin are one register. An array that nobody has made or passed in is an external if the step can reach a tensor
that holds it (a parameter), and otherwise a constant, whose value is remembered and must be the same in a second trace.

With shapes alone nothing is computed and nothing changes: results are shadows of arrays, updates write nothing, and
gradients that the step left on tensors are taken off again at the end.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable

from tinynet import autograd
from tinynet.backend import SHADOWS, Shadow
from tinynet.backend.lines import caller_frame, caller_line, line_of
from tinynet.errors import CaptureError
from tinynet.ops import Op, Spec, Value, door

from .graph import BACKWARD, CONSTANT, EXTERNAL, FORWARD, INPUT, TEMPORARY, UPDATE, Graph, Instruction
from .guards import Guards

_SWEEP = autograd._sweep.__code__


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
        graph: the instructions, and the constants.
        shapes: whether it is traced with shapes alone.
        externals: register -> the tensor whose memory it is.
        arrays: register of an external or constant -> the array that the step met.
        whole: register of an input -> its array.
        before: register of an external that was written -> a copy of what it held before.
        grads: for each tensor whose ``grad`` was set, in order: the tensor, and after the step its gradient.
        depends_on_grads: tensors whose ``grad`` was read before the step had set it, and whether there was one.
        refreshes: what has to be run before each call.
    """

    def __init__(self, inputs: list[Value], guards: Guards, backend, shapes: bool = False):
        self.graph, self.shapes = Graph(backend.name), shapes
        self.backend, self.guards = backend, guards
        self.externals: dict[int, Value] = {}
        self.before: dict[int, object] = {}
        self.grads: list[tuple[Value, Value | None]] = []
        self._grads_before: dict[int, tuple[Value, Value | None]] = {}
        self._phase = FORWARD
        self._versions: list[tuple[list[int], int]] = []  # counters that a trace with shapes moved, and what they were
        self.depends_on_grads: list[tuple[Value, bool]] = []
        self.refreshes: list[Callable[[], None]] = []
        self._registers: dict[int, tuple[weakref.ref, int]] = {}  # identity of an array -> it, and its register
        self.arrays: dict[int, object] = {}  # kept, so that nobody else takes their identity
        self.whole: dict[int, object] = {}
        for value in inputs:
            if id(value.array) not in self._registers:
                register = self.graph.add(value.spec, INPUT)
                self._enter(value, register)
                self.whole[register] = value.array
            self.graph.inputs.append(self._registers[id(value.array)][1])

    def __enter__(self):
        self._outer = door.state.evaluate, door.state.tracer
        door.state.evaluate, door.state.tracer = self.evaluate, self
        return self

    def __exit__(self, *_):
        door.state.evaluate, door.state.tracer = self._outer
        self.grads = [(value, value._grad) for value, _ in self._grads_before.values()]
        if self.shapes:
            self._restore_grads()
            for counter, before in reversed(self._versions):
                counter[0] = before

    def undo(self) -> None:
        """Gives tensors the values and gradients that they had before the run."""
        self._restore_grads()
        for storage, held in self.before.items():
            array = self.whole[storage] if storage in self.whole else self.arrays[storage]
            array[...] = held

    def let_go(self) -> None:
        """Forgets arrays and gradients: a program keeps its trace, and would keep a batch and a model's gradients."""
        for each in (self.before, self.arrays, self.whole, self.grads, self._grads_before, self.guards.grads):
            each.clear()

    def _restore_grads(self) -> None:
        for value, before in self._grads_before.values():
            value._grad = before

    # ---- what the door tells ----

    def evaluate(self, op: Op, inputs: tuple[Value, ...], attributes: dict, specs: tuple[Spec, ...]):
        """Evaluates, or makes shadows, and adds an instruction."""
        line, phase = self._origin()
        registers = [self.register(value) for value in inputs]
        if op.updates:
            for _, i in sorted(op.updates.items()):
                self._about_to_write(registers[i], line)
        outputs = (self._shadows if self.shapes else door.evaluate)(op, inputs, attributes, specs)
        view = op.view is not None and outputs[0].versions is inputs[0].versions
        if op.updates:
            results = [registers[i] for _, i in sorted(op.updates.items())]
        else:
            storage = self.graph.storage(registers[0]) if view else None
            results = [self.graph.add(spec, TEMPORARY, storage) for spec in specs]
            for value, register in zip(outputs, results):
                self._enter(value, register)
        self.graph.instructions.append(Instruction(op, registers, results, attributes, view, line, phase))
        return outputs

    def _shadows(self, op: Op, inputs: tuple[Value, ...], attributes: dict, specs: tuple[Spec, ...]):
        """What evaluation would give, without numbers."""
        if op.updates:
            targets = tuple(inputs[i] for _, i in sorted(op.updates.items()))
            for value in targets:
                self._versions.append((value.versions, value.versions[0]))
                value.versions[0] += 1
            return targets
        if op.view is not None:
            array = inputs[0].array
            backend = SHADOWS if isinstance(array, Shadow) else self.backend
            array, shares = op.view(backend, array, **attributes)
            return (door.values(array, self.backend, specs[0], inputs[0].versions if shares else None),)
        return tuple(door.values(Shadow(*spec), self.backend, spec) for spec in specs)

    def value_read(self, value: Value) -> None:
        known = self.find(value)
        reachable = id(value.array) in self.guards.arrays or id(value.array) in self.guards.grads
        if self.graph.registers[known].kind == CONSTANT if known is not None else not reachable:
            return  # what Python has made within the step, it may look at
        raise CaptureError(
            f"capture, {caller_line()}",
            expected="a step that does not look at the numbers of tensors",
            got="item(), numpy(), a print, or an 'if' on a tensor",
            mend="return the tensor and look at it outside, or choose with tn.where",
        )

    def grad_read(self, value: Value) -> None:
        if id(value) not in self._grads_before and not any(each is value for each, _ in self.depends_on_grads):
            self.depends_on_grads.append((value, value._grad is not None))

    def grad_written(self, value: Value) -> None:
        self._grads_before.setdefault(id(value), (value, value._grad))

    def before_each_call(self, refresh: Callable[[], None]) -> None:
        if refresh in self.refreshes:
            raise CaptureError(
                f"capture, {caller_line()}",
                expected="one step of an optimizer with a schedule",
                got="several in one captured function",
                mend="capture a single step, or give the optimizer a constant learning rate",
            )
        self.refreshes.append(refresh)

    def _origin(self) -> tuple[str, str]:
        """The line of the user's code that an operation is done for, and the phase of the step that it belongs to."""
        frame, swept = caller_frame(_SWEEP)
        if swept is not None:
            self._phase, phase = UPDATE, BACKWARD  # after the sweep comes the optimizer
        else:
            phase = self._phase
        return "?" if frame is None else line_of(frame.f_code, frame.f_lineno), phase

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
            expected, got = f"tensors on {self.backend.name}", f"one on {value.backend.name}"
            raise CaptureError(f"capture, {caller_line()}", expected=expected, got=got)
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
            self.graph.constants[register] = self.backend.copy(value.array)
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
        if kind in (EXTERNAL, INPUT) and storage not in self.before and not self.shapes:
            array = self.whole[storage] if kind == INPUT else self.externals[storage].array
            self.before[storage] = self.backend.copy(array)
