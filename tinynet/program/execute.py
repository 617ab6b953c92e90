"""``Program``: instructions bound to memory, run one by one on the backend's own kernels.

All temporaries, inputs and scratch lie in one arena, allocated once. Running copies the inputs into their slots, makes
the calls that the kernels were bound to, in order, and copies the results out; nothing else is allocated. A program
belongs to one caller at a time. What a program looks like is in ``listing``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tinynet.backend import as_dtype, get_backend, is_floating
from tinynet.errors import CaptureError
from tinynet.memory.layout import static

from . import listing
from .graph import CONSTANT, EXTERNAL, INPUT, Graph
from .plan import MemoryPlan

_BYTE = as_dtype("uint8")


class Program:
    """A captured step, ready to run.

    Args:
        graph: registers and instructions.
        effort: of the planner; see ``MemoryPlan``.
        notes: what was chosen on the way to this graph, in words, for ``explain``.

    Attributes:
        graph: its registers and instructions.
        plan: its memory.
    """

    def __init__(self, graph: Graph, effort: float = 1.0, notes: Sequence[str] = ()):
        self.backend = get_backend(graph.backend)
        self.graph, self.notes = graph, tuple(notes)
        self.plan = MemoryPlan(graph, self.backend.target, effort=effort)
        offsets, scratch = self.plan.offsets, self.plan.scratch
        places = [(at, *graph.spec(storage)) for storage, at in offsets.items()]
        places += [(at, (nbytes,), _BYTE) for at, nbytes in scratch.values()]
        arrays = static(self.backend, self.plan.peak_bytes, places)
        self._slots = dict(zip(offsets, arrays))
        self._scratch = dict(zip(scratch, arrays[len(offsets) :]))
        written = graph.written()
        self._written_inputs = [i for i, register in enumerate(graph.inputs) if graph.storage(register) in written]
        self._bound: dict[int, object] | None = None
        self._code: list[tuple] = []
        self._checks: list[tuple] = []
        self.profiler: Callable[[int], listing.Profile] | None = None  # set by who knows arguments and state

    def run(self, inputs: Sequence[object], externals: dict[int, object]) -> list[object]:
        """One call.

        Args:
            inputs: arrays, in the order of the graph's inputs.
            externals: register -> array, read and written in place.

        Returns:
            The arrays of the outputs, in memory of their own.

        Raises:
            The typed errors of operations that check values, before anything is written.
        """
        self._prepare(inputs, externals)
        with self.backend.quiet():
            for function, arguments in self._code:
                function(*arguments)
        arrays, graph = self._arrays, self.graph
        for i in self._written_inputs:
            inputs[i][...] = arrays[graph.inputs[i]]
        return [self.backend.copy(arrays[register]) for register in graph.outputs]

    def _prepare(self, inputs: Sequence[object], externals: dict[int, object]) -> None:
        """Binds what is not bound yet, fills the slots, and checks values."""
        bound = self._bound
        if bound is None or any(bound[register] is not array for register, array in externals.items()):
            self._bind(externals)
        for register, array in zip(self.graph.inputs, inputs):
            self._arrays[register][...] = array
        for check, operands, attributes in self._checks:
            check(self.backend, *operands, **attributes)

    def _bind(self, externals: dict[int, object]) -> None:
        """Resolves registers to arrays, views included, and instructions to calls."""
        graph, arrays = self.graph, {}
        for register in graph.registers:
            if register.kind == EXTERNAL and register.index in externals:
                arrays[register.index] = externals[register.index]
            elif register.kind == CONSTANT:
                arrays[register.index] = graph.constants[register.index]
            elif register.storage in self._slots:
                arrays[register.index] = self._slots[register.storage]  # for views, until their instruction comes
        self._code, self._checks, self._ends = [], [], []
        settled = {r.index for r in graph.registers if r.kind in (INPUT, CONSTANT)}
        for place, each in enumerate(graph.instructions):
            operands = [arrays[i] for i in each.inputs]
            if each.op.check is not None:
                if settled.issuperset(i for i in each.inputs if not is_floating(graph.spec(i).dtype)):
                    self._checks.append((each.op.check, operands, each.attributes))
                else:
                    self._code.append((_checking(each.op.check, self.backend), (operands, each.attributes)))
            if each.view:
                arrays[each.outputs[0]] = self._view(each, operands[0])
                if each.inputs[0] in settled:
                    settled.add(each.outputs[0])
            else:
                outputs = tuple(arrays[i] for i in each.outputs)
                self._code += self.kernel_of(each).bind(
                    outputs[0] if len(outputs) == 1 else outputs, *operands, scratch=self._scratch.get(place),
                    **each.attributes,
                )  # fmt: skip
            self._ends.append(len(self._code))
        self._arrays, self._bound = arrays, dict(externals)

    def kernel_of(self, each):
        """The kernel of an instruction."""
        return each.op.kernel(self.backend.target, self.graph.spec(each.outputs[0]).dtype)

    def _view(self, each, array):
        array, shares = each.op.view(self.backend, array, **each.attributes)
        if not shares:
            raise CaptureError(
                f"program, {each.line}", expected="memory of which this can be a view", got="another layout",
                mend="make tensors that a captured step uses contiguous",
            )  # fmt: skip
        return array

    # ---- to be seen ----

    def listing(self) -> str:
        """The program as an assembly listing: instruction, result, operands, place in the arena, cost, kernel, line."""
        return listing.listing(self)

    def explain(self) -> str:
        """What was merged, moved, recomputed or cut to make this program, and which kernels run it."""
        return listing.explain(self)

    def profile(self, repeats: int = 20) -> listing.Profile:
        """Times each instruction on copies of the arguments and the state: nothing that the step writes to is changed.

        Args:
            repeats: runs, of which each instruction's median counts.

        Raises:
            CaptureError: a program that knows no arguments; ``captured.program(*args)`` gives one that does.
        """
        if self.profiler is None:
            raise CaptureError("profile", expected="the program of a captured step, for arguments", got="a bare one")
        return self.profiler(repeats)

    @property
    def cost(self) -> tuple[int, int]:
        """(flops, bytes moved) of one call."""
        costs = [e.op.cost(*self.graph.operands(e), **e.attributes) for e in self.graph.instructions if not e.view]
        return sum(flops for flops, _ in costs), sum(moved for _, moved in costs)


def _checking(check, backend):
    """A value check in the place of a kernel, for values that the program itself computes."""
    return lambda operands, attributes: check(backend, *operands, **attributes)
