"""``Program``: instructions bound to memory, run on the kernels of one target.

All temporaries, inputs and scratch lie in one arena, allocated once. Running copies the inputs into their slots, or has
them read where they lie, makes the calls that the kernels were bound to, in order, and copies the results out; nothing
else is allocated. On a target
whose calls can be linked (``native``, ``cuda``), those that follow each other are one. A program belongs to one caller
at a time, and another one waits. What a program looks like is in ``listing``.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Sequence

from tinynet.backend import as_dtype, get_backend, is_floating
from tinynet.errors import ArenaError, CaptureError, DTypeError, ShapeError
from tinynet.kernels import feeder, lends, link, loans, screen, stages, using_precision
from tinynet.memory.layout import static
from tinynet.memory.units import show_bytes

from . import listing
from .graph import CONSTANT, EXTERNAL, INPUT, Graph
from .plan import MemoryPlan
from .source import Source

_BYTE = as_dtype("uint8")


class Program:
    """A captured step, ready to run.

    Args:
        graph: registers and instructions.
        effort: of the planner; see ``MemoryPlan``.
        notes: what was chosen on the way to this graph, in words, for ``explain``.
        target: whose kernels run it; the backend's own if None.
        precision: of float32 products on a GPU; see ``capture``.

    Raises:
        ArenaError: there is no memory for the plan.

    Attributes:
        graph: its registers and instructions.
        plan: its memory.
        target, precision: as given.
        bound: register -> array, of the externals of the last run; another dict each time that some are others.
        lock: held by whoever runs it.
    """

    def __init__(
        self, graph: Graph, effort: float = 1.0, notes: Sequence[str] = (), target: str | None = None,
        precision: str = "float32",
    ):  # fmt: skip
        self.backend = get_backend(graph.backend)
        self.target, self.precision = target or self.backend.target, precision
        self.graph, self.notes, self.lock = graph, tuple(notes), threading.RLock()
        with using_precision(precision):
            self.plan = MemoryPlan(graph, self.target, effort=effort)
        offsets, scratch, staging = self.plan.offsets, self.plan.scratch, self.plan.staging
        places = [(at, *graph.spec(storage)) for storage, at in offsets.items()]
        places += [(at, (nbytes,), _BYTE) for at, nbytes in (*scratch.values(), *staging)]
        arrays = self._arena(places)
        self._slots = dict(zip(offsets, arrays))
        self._scratch = dict(zip(scratch, arrays[len(offsets) :]))
        self._staging = arrays[len(offsets) + len(scratch) :]
        self.bound: dict[int, object] | None = None
        self._input_slots: list[object] = []
        self._code: list[tuple] = []  # a call or more for each instruction
        self._ends: list[int] = [0] * len(graph)  # how many of the calls each instruction ends at
        self._linked: list[tuple] = []  # the same, of which some have become one
        self._checks: list[tuple] = []
        self._feed: Callable[..., None] | None = None
        self._loans: list[Callable | None] = []  # for each input, what has it read where it lies
        self._fill = self._run = self._serve = None  # written for what the program is bound to
        self.profiler: Callable[[int], listing.Profile] | None = None  # set by who knows arguments and state

    def _arena(self, places) -> list:
        """Arrays at the planned places of one new block."""
        plan = self.plan
        try:
            return static(self.backend, plan.peak_bytes, places)
        except MemoryError as error:
            refusal = ArenaError(
                "program", expected=f"{plan.peak_bytes:,} bytes ({show_bytes(plan.peak_bytes)}) for the arena: the "
                f"arguments {plan.input_bytes:,}, workspace {plan.workspace_bytes:,}",
                got=f"no such memory on the backend {self.backend.name} ({error})",
                mend="give a memory= budget, or make the batch or the model smaller",
            )  # fmt: skip
            refusal.requested, refusal.free = plan.peak_bytes, self.backend.free_bytes()
            raise refusal from error

    def __call__(self, *arrays):
        """The program as it was captured, on arrays: what is served.

        Parameters are read as they are now, in the memory where they were at the last call of the captured step.
        Nothing of Python's state is looked at, which makes this the shortest way into a program.

        Args:
            arrays: one for each tensor among the arguments of the captured step, of its shape and dtype.

        Returns:
            The array of the result, in memory of its own; a tuple of them if there are several.

        Raises:
            ShapeError, DTypeError: arrays of another kind. Nothing has been written then.
            CaptureError: the step has not been called often enough for its program to be proven and bound.
        """
        if len(arrays) != len(self._input_slots) or self.bound is None:
            self._refuse(len(arrays))
        return self._serve(*arrays)

    @property
    def arena_bytes(self) -> int:
        """Bytes that its arrays take from the first to the last, by their addresses: what the plan has foreseen."""
        address = self.backend.address
        arrays = [*self._slots.values(), *self._scratch.values(), *self._staging]
        places = [(address(each), each.size * each.dtype.itemsize) for each in arrays if each.size]
        begin = min((at for at, _ in places), default=0)
        line = self.plan.alignment
        return max((at + -(-nbytes // line) * line for at, nbytes in places), default=0) - begin

    @property
    def fed(self) -> bool:
        """Whether arrays of the host are arguments as they are, on whichever backend it runs."""
        return stages(self.target)

    def _refuse(self, count: int) -> None:
        if self.bound is None:
            raise CaptureError("program", expected="a step that has run its program", got="one that has not")
        raise CaptureError("program", expected=f"{len(self._input_slots)} arrays", got=f"{count}")

    def run(self, inputs: Sequence[object], externals: dict[int, object] | None = None) -> list[object]:
        """One call.

        Args:
            inputs: arrays, in the order of the graph's inputs.
            externals: register -> array, read and written in place. None: those of the last run.

        Returns:
            The arrays of the outputs, in memory of their own.

        Raises:
            The typed errors of operations that check values, before anything is written.
        """
        with self.lock:
            self._bind_to(externals)
            return self._run(*inputs)

    def fill(self, inputs: Sequence[object], externals: dict[int, object] | None = None) -> None:
        """What comes first in ``run``: the inputs go to their slots, and values are checked."""
        self._bind_to(externals)
        self._fill(*inputs)

    def execute(self) -> None:
        """What comes next: all calls, in their order."""
        if self._compiled:
            _run(self._linked)
        else:
            _run_quietly(self.backend, self._linked)

    def write_locked(self, source: Source, inputs: Sequence[str], before=(), after=(), lend=True) -> list[str]:
        """As ``write``, with the lock held; ``before`` and ``after`` are further lines."""
        source.add(f"with {source.name(self.lock)}:")
        for line in before:
            source.add(line)
        results = self.write(source, inputs, lend)
        for line in after:
            source.add(line)
        source.end()
        return results

    def write(self, source: Source, inputs: Sequence[str], lend: bool = True) -> list[str]:
        """Adds the lines of a run, as the program is bound now, to a function; gives the names of the results in it.

        Args:
            inputs: expressions of the arrays.
            lend: whether arrays may be read where they lie: none of them is memory that the program writes to.
        """
        self._write_filling(source, inputs, lend)
        if self._compiled:
            for function, arguments in self._linked:
                source.add(f"{source.name(function)}({', '.join(map(source.name, arguments))})")
        else:
            source.add(f"{source.name(functools.partial(_run_quietly, self.backend, self._linked))}()")
        for i, slot in self._written_inputs:
            source.add(f"{source.name(functools.partial(_write_back, self.backend))}({inputs[i]}, {source.name(slot)})")
        names = [f"r{i}" for i in range(len(self._results))]
        for name, array in zip(names, self._results):
            source.add(f"{name} = {source.name(self.backend.copier(array))}()")
        return names

    def _write_filling(self, source: Source, inputs: Sequence[str], lend: bool = False) -> None:
        if self._feed is not None:
            source.add(f"{source.name(self._feed)}({', '.join(inputs)})")
        else:
            for slot, loan, array in zip(self._input_slots, self._loans, inputs):
                if loan is None:
                    source.add(f"{source.name(slot)}[...] = {array}")
                else:
                    source.add(f"{source.name(loan if lend else loan.copy)}({array})")
        if self._checks:
            check = source.name(functools.partial(_check, self.backend, self._checks, self.fed))
            check = f"{check}({', '.join(inputs)})"
            source.add(check if self._screen is None else f"if {source.name(self._screen)}(): {check}")

    def _bind_to(self, externals: dict[int, object] | None) -> None:
        """Binds what is not bound yet."""
        if externals is not None:
            bound = self.bound
            if bound is None or any(bound[register] is not array for register, array in externals.items()):
                self._bind(externals)
        elif self.bound is None:
            raise CaptureError("program", expected="the tensors that the step reads and writes", got="none yet")

    def _bind(self, externals: dict[int, object]) -> None:
        """Binds the program to its slots and these arrays, and writes the functions that run it."""
        graph = self.graph
        self._arrays, self._code, self._checks, self._ends = self._resolve(externals, self._slots)
        arrays, self.bound = self._arrays, dict(externals)
        self._linked, self._compiled = link(self._code, self.target)
        self._screen = screen([(array, each.low, each.high) for each, array, _ in self._checks], self.target)
        written = graph.written()
        self._input_slots = [arrays[register] for register in graph.inputs]
        if self.fed and self._feed is None:  # one for all bindings: its transfers may be on their way
            self._feed = feeder(self._input_slots, self._staging, self.target)
        self._loans = self._lend(externals)
        self._written_inputs = [
            (i, arrays[register]) for i, register in enumerate(graph.inputs) if graph.storage(register) in written
        ]
        self._results = [arrays[register] for register in graph.outputs]
        self._write_functions()

    def _lend(self, externals: dict[int, object]) -> list[Callable | None]:
        """For each input, what has it read where it lies; None where it is copied: small ones, integers, whose values
        may be looked at first, and those whose slots are written to or are results."""
        graph, found = self.graph, dict.fromkeys(self.graph.inputs)
        if self._compiled and lends(self.target):
            taken = {graph.storage(r) for each in graph.instructions if not each.view for r in each.outputs}
            taken.update(map(graph.storage, graph.outputs))
            free = [r for r in graph.inputs if r not in taken and is_floating(graph.spec(r).dtype)]

            def bind(others):
                return self._resolve(externals, self._slots | dict(zip(free, others)))[1]

            found.update(zip(free, loans([self._slots[r] for r in free], bind, self._linked, self.target)))
        return list(found.values())

    def _resolve(self, externals: dict[int, object], slots: dict[int, object]) -> tuple[dict, list, list, list[int]]:
        """Registers as arrays, views included, and instructions as calls, with the checks of what was there before, and
        how many of the calls each instruction ends at."""
        graph, arrays = self.graph, {}
        for register in graph.registers:
            if register.kind == EXTERNAL and register.index in externals:
                arrays[register.index] = externals[register.index]
            elif register.kind == CONSTANT:
                arrays[register.index] = graph.constants[register.index]
            elif register.storage in slots:
                arrays[register.index] = slots[register.storage]  # for views, until their instruction comes
        code, checks, ends = [], [], []
        settled = {r.index for r in graph.registers if r.kind in (INPUT, CONSTANT)}
        for place, each in enumerate(graph.instructions):
            operands = [arrays[i] for i in each.inputs]
            bounds = each.op.bounds(*operands, **each.attributes) if each.op.bounds is not None else None
            if bounds is not None and each.inputs[bounds.input] in settled:
                checked = each.inputs[bounds.input]
                argument = graph.inputs.index(checked) if checked in graph.inputs else None
                checks.append((bounds, operands[bounds.input], argument))
            elif bounds is not None:  # values that the program itself computes
                code.append((bounds.check, (self.backend, operands[bounds.input])))
            if each.view:
                arrays[each.outputs[0]] = self._view(each, operands[0])
                if each.inputs[0] in settled:
                    settled.add(each.outputs[0])
            else:
                outputs = tuple(arrays[i] for i in each.outputs)
                with using_precision(self.precision):
                    code += self.kernel_of(each).bind(
                        outputs[0] if len(outputs) == 1 else outputs, *operands, scratch=self._scratch.get(place),
                        **each.attributes,
                    )  # fmt: skip
            ends.append(len(code))
        return arrays, code, checks, ends

    def _write_functions(self) -> None:
        """``_fill`` and ``_run`` of the arrays of the inputs; ``_serve``, which looks at them first."""
        inputs = [f"a{i}" for i in range(len(self._input_slots))]
        filling, running, serving = Source(), Source(), Source()
        self._write_filling(filling, inputs)
        running.add(f"return [{', '.join(self.write(running, inputs))}]")
        for array, slot in zip(inputs, self._input_slots):
            refuse = f"{serving.name(_refuse_array)}({array}, {serving.name(slot)})"
            serving.add(f"if {array}.shape != {slot.shape} or {array}.dtype != {serving.name(slot.dtype)}: {refuse}")
        results = self.write_locked(serving, inputs, lend=not self.graph.written())
        serving.add(f"return {results[0] if len(results) == 1 else ', '.join(results) or '()'}")
        self._fill, self._run, self._serve = (each.function(*inputs) for each in (filling, running, serving))

    def kernel_of(self, each):
        """The kernel of an instruction."""
        return each.op.kernel(self.target, self.graph.spec(each.outputs[0]).dtype)

    def target_of(self, place: int) -> str:
        """Whose kernel an instruction runs on: what a kernel cannot take, as its layout, goes to a slower one."""
        target = self.kernel_of(self.graph.instructions[place]).target
        if target != self.backend.target and self.bound is not None and not link(self._calls_of(place), target)[1]:
            return self.backend.target
        return target

    def note_of(self, place: int) -> str:
        """Why the kernel of an instruction is the one it is, where it was chosen."""
        named = [each for function, arguments in self._calls_of(place) for each in (function, *arguments[:1])]
        return next((each.note for each in named if getattr(each, "note", "")), "")

    def _calls_of(self, place: int) -> list[tuple]:
        begin, end = ([0, *self._ends])[place : place + 2]
        return self._code[begin:end]

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


# ---- what written functions call ----
# None of it refers to its program: that refers to the functions, and would wait, with its arena, for the collector.


def _run(linked: Sequence[tuple]) -> None:
    for function, arguments in linked:
        function(*arguments)


def _run_quietly(backend, linked: Sequence[tuple]) -> None:
    """With the warnings of the backend's library off."""
    with backend.quiet():
        _run(linked)


def _check(backend, checks: Sequence[tuple], fed: bool, *inputs) -> None:
    """Raises the error of the first value out of its bounds; ``inputs`` are the arrays of the call."""
    for bounds, array, i in checks:
        given = inputs[i] if fed and i is not None else array
        # on the host it takes no wait for a device
        bounds.check(backend if backend.owns(given) else get_backend("numpy"), given)


def _write_back(backend, array, slot) -> None:
    array[...] = slot if backend.owns(array) else backend.to_host(slot)


def _refuse_array(array, slot) -> None:
    if array.shape != slot.shape:
        raise ShapeError("program", expected=f"an array of shape {slot.shape}", got=str(array.shape))
    raise DTypeError("program", expected=f"an array of {slot.dtype}", got=str(array.dtype))
