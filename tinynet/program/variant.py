"""One program of a captured step, with what it takes to run it in the step's place, and the proof that it may.

A trace becomes a program here, and is compared with eager runs before anybody relies on it: at the first call every bit
of the program without fusion, at the second the results of the fused one. Where the program's bits are not those of the
eager step, the eager run is undone after it has been compared, so that all calls are the program's: a run that was
interrupted and one that was not come to the same numbers. When to trace and when to run is decided in ``capture``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from tinynet.errors import ArgumentError, CaptureError, MissingExtraError
from tinynet.kernels import obstacle, using_precision
from tinynet.ops import door
from tinynet.tensor import Tensor

from .budget import fitting
from .calls import Call, Form, Results
from .compile import simplify
from .execute import Program
from .guards import NOTHING_THERE
from .listing import profile
from .proof import changed_alike, close, difference, largest, run_from_before, same_bits
from .source import Source, all_of
from .trace import GradientOf, Trace

_FASTEST = {"numpy": "native", "cupy": "cuda"}  # target of a backend -> that of its fastest kernels
_RUNS_ON = {fastest: own for own, fastest in _FASTEST.items()}
EXECUTORS = (None, "numpy", *_RUNS_ON)

MISSED = object()  # what a shortcut gives for a call that it does not know


def _missed(args: tuple, kwargs: dict) -> object:
    return MISSED


class Options(NamedTuple):
    """How a step is captured; see ``capture``. ``memory`` is in bytes."""

    fuse: bool = True
    memory: int | None = None
    verify: bool = True
    keep_grads: bool = False
    executor: str | None = None
    precision: str = "float32"


def targets_for(options: Options, backend, dtypes: Iterable) -> tuple[str, ...]:
    """Whose kernels may run a program, in the order of preference.

    Where no executor is asked for: the fastest ones, if they can be had and rounding may change.

    Args:
        dtypes: of all that the program computes.

    Raises:
        ArgumentError: an executor for another backend; a precision that nothing there has.
        MissingExtraError: native kernels without what runs them, or compiles those that are not kept.
    """
    fastest, own = _FASTEST.get(backend.target), backend.target
    if options.executor in _RUNS_ON and _RUNS_ON[options.executor] != own:
        raise ArgumentError(
            "capture", expected=f"tensors of the backend {_RUNS_ON[options.executor]!r} for "
            f"executor={options.executor!r}", got=f"backend {backend.name}", mend="leave the executor out",
        )  # fmt: skip
    asked = options.executor == fastest
    wanted = asked or (options.executor is None and options.fuse and fastest is not None)
    if options.precision != "float32" and not (wanted and fastest == "cuda"):
        raise ArgumentError(
            "capture", expected="a program for a GPU, with executor None or 'cuda' and fuse=True, for "
            f"precision={options.precision!r}", got=f"backend {backend.name}", mend="leave the precision out",
        )  # fmt: skip
    if not wanted:
        return (own,)
    missing = next(filter(None, (obstacle(fastest, dtype) for dtype in sorted(set(map(str, dtypes))))), None)
    if asked and missing is not None:
        raise MissingExtraError(
            "capture", expected=f"compiled kernels for executor={fastest!r}", got=f"none ({missing})",
            mend=f"install tinynet[{'cpu' if fastest == 'native' else 'cuda13'}], or leave the executor out",
        )  # fmt: skip
    return (fastest,) if asked else (fastest, own) if missing is None else (own,)


class Variant:
    """A program and what goes with it: the trace and its guards, results, and which tensors it writes to.

    Args:
        trace, result: of a call of the step.
        call: that call.
        options: of the capture.

    Raises:
        CaptureError: the program does not compute what the step did.
        PlanError: it does not fit into the memory budget.
    """

    def __init__(self, trace: Trace, result, call: Call, options: Options):
        self.trace, self.settled = trace, not options.verify
        self.objects = call.objects  # alive, so that their identities stay theirs
        self.results = Results(result, trace, call, options.keep_grads)
        base = trace.graph.copy()
        simplify(base)
        targets = targets_for(options, call.backend, (each.spec.dtype for each in base.registers))
        with using_precision(options.precision):  # scratch depends on it
            graph, notes, target = fitting(base, options.memory, options.fuse, targets)
        self.program = Program(graph, notes=notes, target=target, precision=options.precision)
        self._unproven = base if options.verify and options.precision != "float32" else None
        self._rounds = options.fuse or target != call.backend.target  # other bits than those of eager mode
        written = graph.written()
        self.written = [r for r in trace.externals if r in written]
        self.written_inputs = [i for i, r in enumerate(graph.inputs) if r in written]
        self.shortcut: Callable[[tuple, dict], object] = _missed
        self._binding: dict[int, object] | None = None  # what the program was bound to when ``shortcut`` was written
        self._make = self._maker()
        externals = {register: trace.arrays[register] for register in trace.externals}  # as the trace met them
        self._read = trace.guards.arrays.difference(id(externals[register]) for register in self.written)
        self._read_arguments = self._read_among(call)
        self._refuse_overlaps(call, externals)
        if options.verify and not trace.shapes:
            self._verify_bits(Program(base, effort=0) if self._rounds else self.program, trace, call)
        if self.replaces(trace):
            trace.undo()
        self.results.eager.clear()
        trace.let_go()

    def applies(self, call: Call) -> bool:
        """Whether the program does what the step would, in a call of its signature."""
        if not (self.trace.guards.hold() and self._grads_are_as_then()):
            return False
        return self._read_among(call) == self._read_arguments

    def run(self, call: Call):
        """A call of the program, which applies."""
        with self.program.lock:
            externals = self._externals()
            self._refuse_overlaps(call, externals)
            for refresh in self.trace.refreshes:
                refresh()
            outputs = self.program.run([leaf.array for leaf in call.leaves], externals)
            for counter in [*self._counters(), *(call.leaves[i].versions for i in self.written_inputs)]:
                counter[0] += 1
            if self.settled and self._binding is not self.program.bound:
                self._binding = self.program.bound
                self.shortcut = self._written_shortcut(call)
        return self._make(call.leaves, *outputs)

    def _counters(self) -> list[list[int]]:
        """Versions of the tensors that the step writes to by itself, each once."""
        versions = (self.trace.externals[register].versions for register in self.written)
        return list({id(each): each for each in versions}.values())

    def _maker(self) -> Callable:
        """A function of the leaves of a call and the arrays of the outputs that makes the result of the step."""
        source, names = Source(), [f"r{i}" for i in range(len(self.program.graph.outputs))]
        source.add(f"return {self._write_result(source, names)}")
        return source.function("leaves", *names)

    def _write_result(self, source: Source, arrays: list[str]) -> str:
        """Adds the lines that make tensors of the outputs, and gives the expression of the step's result."""
        graph, name = self.program.graph, source.name
        for array, register in zip(arrays, graph.outputs):
            source.add(f"{array} = {name(Tensor)}({array}, {name(self.program.backend)}, {name(graph.spec(register))})")
        return self.results.write(source, arrays)

    def _written_shortcut(self, call: Call) -> Callable[[tuple, dict], object]:
        """A function of the arguments of a later call: its result, or ``MISSED`` where more has to be looked at.

        It is ``applies`` and ``run`` in as little time as Python lets one: one function, written for this program.
        All is compared that calls can differ in: the arguments by their ``Form``, and Python's state by identity. No
        argument lies in memory that the step can reach, so there is nothing to refuse. Which interpreter is at work is
        left to the caller to compare.

        There is none if the program has to do with arguments in other ways: if it writes to one or returns one, or had
        one that the step reads by itself as well; or if it finds memory anew at each call.
        """
        trace, source = self.trace, Source()
        name, form = source.name, Form(call, trace.guards.owners(call.backend), source, self.program.fed)
        if (
            not form.known or self.written_inputs or self.results.of_arguments or any(self._read_arguments)
            or any(isinstance(external, GradientOf) for external in trace.externals.values())
        ):  # fmt: skip
            return _missed
        grads = [f"({name(t)}._grad is not None) is {there}" for t, there in trace.depends_on_grads]
        known = "kwargs" if not form.keywords else f"tuple(kwargs) != {form.keywords}"
        missed = f"return {name(MISSED)}"
        source.add("try:")
        source.add(f"if {known} or len(args) != {form.count}: {missed}")
        for line in form.unpacked:
            source.add(line)
        source.add(f"if not ({all_of([*form.conditions, *trace.guards.conditions(source), *grads])}): {missed}")
        source.end()
        source.add(f"except {name(NOTHING_THERE)}: {missed}")
        arrays = self.program.write_locked(
            source, form.arrays,
            before=[f"if {name(self.program)}.bound is not {name(self._binding)}: {missed}",
                    *(f"{name(refresh)}()" for refresh in trace.refreshes)],
            after=[f"{name(counter)}[0] += 1" for counter in self._counters()],
        )  # fmt: skip
        source.add(f"return {self._write_result(source, arrays)}")
        self._source = source  # for as long as the guards shall replace in it what has become another equal number
        return source.function("args", "kwargs")

    def _grads_are_as_then(self) -> bool:
        return all((tensor._grad is not None) == there for tensor, there in self.trace.depends_on_grads)

    def _read_among(self, call: Call) -> list[int | None]:
        """For each argument, which array it is of those that the step can reach as well and that are not written.

        In a trace the two are one register.
        """
        return [id(leaf.array) if id(leaf.array) in self._read else None for leaf in call.leaves]

    def profile(self, call: Call, repeats: int):
        """The profile of the program on a call's arguments; nothing is changed."""
        with self.program.lock, door.paused():
            return profile(self.program, [leaf.array for leaf in call.leaves], self._externals(), repeats)

    def _externals(self) -> dict[int, object]:
        return {register: tensor.array for register, tensor in self.trace.externals.items()}

    def _refuse_overlaps(self, call: Call, externals: dict[int, object]) -> None:
        """Raises CaptureError if an argument shares memory with something that the step writes to.

        A program reads its arguments when it is called; the step would see what has been written in the meantime.
        """
        if call.copied.intersection(self.written_inputs):
            raise CaptureError(
                "capture", expected="contiguous arguments where the step writes", got="another layout",
                mend="pass a .copy() of it",
            )  # fmt: skip
        owner = call.backend.owner
        roots = [id(owner(leaf.array)) for leaf in call.leaves]
        taken = {id(owner(externals[register])) for register in self.written}
        repeated = {id(leaf.array): root for leaf, root in zip(call.leaves, roots)}
        for i in self.written_inputs:
            if list(repeated.values()).count(roots[i]) > 1:
                taken.add(roots[i])
        if not taken.isdisjoint(roots) or any(self._read_arguments[i] is not None for i in self.written_inputs):
            raise CaptureError(
                "capture", expected="arguments in memory of their own",
                got="one that shares memory with what the step writes", mend="pass a .copy() of it",
            )  # fmt: skip

    # ---- proofs ----

    def _verify_bits(self, program: Program, trace: Trace, call: Call) -> None:
        """Raises CaptureError unless a program without fusion leaves every bit as the eager run of the trace did."""
        backend, graph = program.backend, program.graph
        outputs, state, inputs = run_from_before(program, trace, call)
        pairs = [(f"result {i}", ours, theirs) for i, (ours, theirs) in enumerate(zip(outputs, self.results.eager))]
        pairs += [(f"tensor {graph.registers[r].name}", state[r], trace.arrays[r]) for r in self.written]
        pairs += [(f"argument {i}", inputs[i], call.leaves[i].array) for i in self.written_inputs]
        for what, ours, theirs in pairs:
            if not same_bits(backend, ours, theirs):
                raise difference(what)

    def _verify_results(self, trace: Trace, results: Results, call: Call, options: Options) -> None:
        """Raises CaptureError unless the fused program gives and leaves what the eager run did, to rounding."""
        program = self.program
        if self._unproven is not None:  # made of the same trace, by the same passes, with the roundings of eager mode
            with using_precision("float32"):
                graph, _, target = fitting(self._unproven, options.memory, options.fuse, (program.target,))
            program = Program(graph, target=target)
        graph = program.graph
        outputs, state, inputs = run_from_before(program, trace, call)
        backend = program.backend
        left = [(f"tensor {graph.registers[r].name}", r, state[r], trace.arrays[r]) for r in self.written]
        left += [(f"argument {i}", graph.inputs[i], inputs[i], call.leaves[i].array) for i in self.written_inputs]
        given = max((largest(backend, each) for each in results.eager), default=0.0)
        everything = max((largest(backend, theirs) for *_, theirs in left), default=0.0)
        for i, (ours, theirs) in enumerate(zip(outputs, results.eager)):
            if not close(backend, ours, theirs, given):
                raise difference(f"result {i}")
        for what, register, ours, theirs in left:
            if not changed_alike(backend, trace.before[register], ours, theirs, max(given, everything)):
                raise difference(what)

    def settle(self, trace: Trace, result, call: Call, options: Options, name: str) -> None:
        """Proves the program against a second call; it may be relied on then.

        Raises:
            CaptureError: the second trace differs from the first, or the fused program from the eager run.
        """
        results = Results(result, trace, call, options.keep_grads)
        self._compare(trace, name)
        if self.replaces(trace):
            self._verify_results(trace, results, call, options)
        self.settled, self._unproven = True, None
        if self.replaces(trace):
            trace.undo()

    def replaces(self, trace: Trace) -> bool:
        """Whether the program has to run in the place of the eager run of a trace, which is undone."""
        return self._rounds and not trace.shapes

    def _compare(self, trace: Trace, name: str) -> None:
        """Raises CaptureError where a second trace differs from this one's."""
        mine, difference = self.trace, None
        ours, yours = str(mine.graph).splitlines(), str(trace.graph).splitlines()
        if ours != yours:
            lines = [f" at {each.line}" for each in trace.graph]
            at = next((i for i, (a, b) in enumerate(zip(ours, yours)) if a != b), min(len(ours), len(yours)) - 1)
            difference = (
                f"{yours[at].strip()} where it was {ours[at].strip()}{lines[at - 1] if 0 < at <= len(lines) else ''}"
            )
        elif any(not same_bits(mine.backend, a, trace.graph.constants[r]) for r, a in mine.graph.constants.items()):
            difference = "a constant with other numbers"
        elif any(tensor.array is not trace.externals[r].array for r, tensor in mine.externals.items()):
            difference = "another tensor"
        if difference is not None:
            raise CaptureError(
                f"capture of {name}", expected="the same operations at each call", got=difference,
                mend="pass what Python computes anew as an argument tensor; use tn.nn.Dropout for randomness",
            )  # fmt: skip
