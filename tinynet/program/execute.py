"""``Program``: instructions bound to memory, run one by one on the backend's own kernels.

All temporaries and inputs lie in one arena, allocated once. Running copies the inputs into their slots, calls the
kernels in order, and copies the results out; nothing else is allocated. A program belongs to one caller at a time.
"""

from __future__ import annotations

from collections.abc import Sequence

from tinynet.backend import as_dtype, get_backend, is_floating
from tinynet.errors import CaptureError

from .graph import CONSTANT, EXTERNAL, INPUT, Graph
from .plan import MemoryPlan

_BYTE = as_dtype("uint8")


class Program:
    """A captured step, ready to run.

    Attributes:
        graph: its registers and instructions.
        plan: its memory.
    """

    def __init__(self, graph: Graph, constants: dict[int, object]):
        self.graph, self.plan = graph, MemoryPlan(graph)
        self.backend = get_backend(graph.backend)
        self.constants = constants
        self._arena = self.backend.empty((self.plan.peak_bytes + self.plan.alignment,), _BYTE)
        shift = -self.backend.address(self._arena) % self.plan.alignment
        self._slots = {
            storage: self.backend.carve(
                self._arena, shift + at, graph.registers[storage].spec.shape, graph.registers[storage].spec.dtype
            )
            for storage, at in self.plan.offsets.items()
        }
        written = graph.written()
        self._written_inputs = [i for i, register in enumerate(graph.inputs) if graph.storage(register) in written]
        self._bound: dict[int, object] | None = None
        self._code: list[tuple] = []
        self._checks: list[tuple] = []

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
        bound = self._bound
        if bound is None or any(bound[register] is not array for register, array in externals.items()):
            self._bind(externals)
        arrays, graph = self._arrays, self.graph
        for register, array in zip(graph.inputs, inputs):
            arrays[register][...] = array
        for check, operands, attributes in self._checks:
            check(self.backend, *operands, **attributes)
        with self.backend.quiet():
            for kernel, out, operands, attributes in self._code:
                kernel(out, *operands, **attributes)
        for i in self._written_inputs:
            inputs[i][...] = arrays[graph.inputs[i]]
        return [self.backend.copy(arrays[register]) for register in graph.outputs]

    def _bind(self, externals: dict[int, object]) -> None:
        """Resolves registers to arrays, views included, and instructions to calls."""
        graph, arrays = self.graph, {}
        for register in graph.registers:
            if register.kind == EXTERNAL and register.index in externals:
                arrays[register.index] = externals[register.index]
            elif register.kind == CONSTANT:
                arrays[register.index] = self.constants[register.index]
            elif register.storage in self._slots:
                arrays[register.index] = self._slots[register.storage]  # for views, until their instruction comes
        code, checks = [], []
        settled = {r.index for r in graph.registers if r.kind in (INPUT, CONSTANT)}
        for each in graph.instructions:
            operands = [arrays[i] for i in each.inputs]
            if each.op.check is not None:
                if settled.issuperset(i for i in each.inputs if not _floating(graph.spec(i))):
                    checks.append((each.op.check, operands, each.attributes))
                else:
                    code.append((_checking(each.op.check, self.backend), None, operands, each.attributes))
            if each.view:
                array, shares = each.op.view(self.backend, operands[0], **each.attributes)
                if not shares:
                    raise CaptureError(
                        f"program, {each.line}", expected="memory of which this can be a view", got="another layout",
                        mend="make tensors that a captured step uses contiguous",
                    )  # fmt: skip
                arrays[each.outputs[0]] = array
                if each.inputs[0] in settled:
                    settled.add(each.outputs[0])
                continue
            outputs = tuple(arrays[i] for i in each.outputs)
            kernel = each.op.kernel(self.backend.target, graph.spec(each.outputs[0]).dtype)
            code.append((kernel, outputs[0] if len(outputs) == 1 else outputs, operands, each.attributes))
        self._arrays, self._code, self._checks = arrays, code, checks
        self._bound = dict(externals)

    def listing(self) -> str:
        """The program as an assembly listing: instruction, result, operands, offset and bytes in the arena, flops."""
        graph, rows = self.graph, [("", "instruction", "result", "offset", "bytes", "flops", "line")]
        for i, each in enumerate(graph.instructions):
            names = ", ".join(graph.registers[r].name for r in each.inputs)
            result = " ".join(repr(graph.registers[r]) for r in each.outputs)
            at = self.plan.offsets.get(graph.storage(each.outputs[0]))
            flops = 0 if each.view else each.op.cost(*graph.operands(each), **each.attributes)[0]
            nbytes = 0 if each.view else sum(graph.spec(r).nbytes for r in each.outputs)
            where = "" if at is None else f"{at:,}"
            rows.append((str(i), f"{each.op.name} {names}", result, where, f"{nbytes:,}", f"{flops:,}", each.line))
        widths = [max(map(len, column)) for column in zip(*rows)]
        lines = []
        for row in rows:
            cells = [
                cell.rjust(w) if k in (0, 3, 4, 5) else cell.ljust(w) for k, (cell, w) in enumerate(zip(row, widths))
            ]
            lines.append("  ".join(cells).rstrip())
        return "\n".join([*lines, f"arena {self.plan.peak_bytes:,} bytes, lower bound {self.plan.lower_bound_bytes:,}"])

    @property
    def cost(self) -> tuple[int, int]:
        """(flops, bytes moved) of one call."""
        costs = [e.op.cost(*self.graph.operands(e), **e.attributes) for e in self.graph.instructions if not e.view]
        return sum(flops for flops, _ in costs), sum(moved for _, moved in costs)


def _floating(spec) -> bool:
    return is_floating(spec.dtype)


def _checking(check, backend):
    """A value check in the place of a kernel, for values that the program itself computes."""
    return lambda out, *operands, **attributes: check(backend, *operands, **attributes)
