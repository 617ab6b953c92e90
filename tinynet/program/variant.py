"""One program of a captured step, with what it takes to run it in the step's place, and the proof that it may.

A trace becomes a program here, and is compared with eager runs before anybody relies on it: at the first call every bit
of the program without fusion, at the second the results of the fused one. When to trace and when to run is decided in
``capture``.
"""

from __future__ import annotations

import threading
from typing import NamedTuple

from tinynet.errors import CaptureError
from tinynet.ops import door
from tinynet.tensor import Tensor

from .budget import within
from .calls import Call, Results
from .compile import simplify
from .execute import Program
from .listing import profile
from .trace import Trace

# How far a fused program may be from the eager step, of the largest element of a result, and of all results.
# Fusion changes the order of sums; their rounding errors stay far below this, and an error in a pass does not.
TOLERANCE = {"float32": (1e-3, 1e-4), "float64": (1e-9, 1e-10)}


class Options(NamedTuple):
    """How a step is captured; see ``capture``. ``memory`` is in bytes."""

    fuse: bool = True
    memory: int | None = None
    verify: bool = True
    keep_grads: bool = False


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
        self._lock = threading.Lock()
        self.objects = call.objects  # alive, so that their identities stay theirs
        self.results = Results(result, trace, call, options.keep_grads)
        base = trace.graph.copy()
        simplify(base)
        graph, notes = within(base, options.memory, options.fuse, call.backend.target)
        self.program = Program(graph, notes=notes)
        written = graph.written()
        self.written = [r for r in trace.externals if r in written]
        self.written_inputs = [i for i, r in enumerate(graph.inputs) if r in written]
        externals = {register: trace.arrays[register] for register in trace.externals}  # as the trace met them
        self._refuse_overlaps(call, externals)
        if options.verify and not trace.shapes:
            self._verify_bits(Program(base, effort=0) if options.fuse else self.program, trace, call)
        self.results.eager.clear()
        trace.before.clear()
        trace.arrays.clear()
        trace.guards.grads.clear()

    def applies(self) -> bool:
        return self.trace.guards.hold() and all(
            (tensor._grad is not None) == there for tensor, there in self.trace.depends_on_grads
        )

    def run(self, call: Call):
        """One call of the program."""
        with self._lock, door.paused():
            for refresh in self.trace.refreshes:
                refresh()
            externals = self._externals()
            self._refuse_overlaps(call, externals)
            outputs = self.program.run([leaf.array for leaf in call.leaves], externals)
            for register in self.written:
                self.trace.externals[register].versions[0] += 1
            for i in self.written_inputs:
                call.leaves[i].versions[0] += 1
            graph = self.program.graph
            tensors = [Tensor(a, self.program.backend, graph.spec(r)) for a, r in zip(outputs, graph.outputs)]
            return self.results.make(tensors, call)

    def profile(self, call: Call, repeats: int):
        """The profile of the program on a call's arguments; nothing is changed."""
        with self._lock, door.paused():
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
        if not taken.isdisjoint(roots):
            raise CaptureError(
                "capture", expected="arguments in memory of their own",
                got="one that shares memory with what the step writes", mend="pass a .copy() of it",
            )  # fmt: skip

    # ---- proofs ----

    def _verify_bits(self, program: Program, trace: Trace, call: Call) -> None:
        """Raises CaptureError unless a program without fusion leaves every bit as the eager run of the trace did."""
        backend, graph = program.backend, program.graph
        outputs, state, inputs = _run_from_before(program, trace, call)
        pairs = [(f"result {i}", ours, theirs) for i, (ours, theirs) in enumerate(zip(outputs, self.results.eager))]
        pairs += [(f"tensor {graph.registers[r].name}", state[r], trace.arrays[r]) for r in self.written]
        pairs += [(f"argument {i}", inputs[i], call.leaves[i].array) for i in self.written_inputs]
        for what, ours, theirs in pairs:
            if not _same_bits(backend, ours, theirs):
                raise _difference(what)

    def _verify_results(self, trace: Trace, results: Results, call: Call) -> None:
        """Raises CaptureError unless the fused program gives the results of the eager run of the trace, to rounding."""
        outputs, _, _ = _run_from_before(self.program, trace, call)
        backend = self.program.backend
        everything = max((_largest(backend, each) for each in results.eager), default=0.0)
        for i, (ours, theirs) in enumerate(zip(outputs, results.eager)):
            if not _close(backend, ours, theirs, everything):
                raise _difference(f"result {i}")

    def settle(self, trace: Trace, result, call: Call, options: Options, name: str) -> None:
        """Proves the program against a second call; it may be relied on then.

        Raises:
            CaptureError: the second trace differs from the first, or the fused program from the eager run.
        """
        results = Results(result, trace, call, options.keep_grads)
        self._compare(trace, name)
        if options.fuse and not trace.shapes:
            self._verify_results(trace, results, call)
        self.settled = True

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
        elif any(
            not _same_bits(mine.backend, a, trace.graph.constants[r]) for r, a in mine.graph.constants.items()
        ):
            difference = "a constant with other numbers"
        elif any(tensor.array is not trace.externals[r].array for r, tensor in mine.externals.items()):
            difference = "another tensor"
        if difference is not None:
            raise CaptureError(
                f"capture of {name}", expected="the same operations at each call", got=difference,
                mend="pass what Python computes anew as an argument tensor; use tn.nn.Dropout for randomness",
            )  # fmt: skip


def _run_from_before(program: Program, trace: Trace, call: Call):
    """A run of a program from what there was before the eager one: outputs, and the tensors and arguments after.

    What the eager run wrote to was copied before it; the program writes to those copies.
    """
    state = trace.arrays | trace.before
    state = {register: state[register] for register in trace.externals}
    inputs = [trace.before.get(r, leaf.array) for r, leaf in zip(program.graph.inputs, call.leaves)]
    return program.run(inputs, state), state, inputs


def _difference(what: str) -> CaptureError:
    return CaptureError(
        "capture", expected=f"{what} of the program to equal that of the eager run", got="other numbers",
        mend="the step does something that operations do not show; call it without capture",
    )  # fmt: skip


def _same_bits(backend, a, b) -> bool:
    a, b = backend.to_host(a), backend.to_host(b)
    bits = f"u{a.dtype.itemsize}"
    return bool((a.view(bits) == b.view(bits)).all())


def _largest(backend, array) -> float:
    """The largest finite magnitude, 0 where there is none."""
    host = backend.to_host(array)
    if host.dtype.kind != "f" or not host.size:
        return 0.0
    magnitude = abs(host)
    return float(magnitude.max(initial=0.0, where=magnitude < float("inf")))


def _close(backend, ours, theirs, everything: float) -> bool:
    """Whether floating results agree to ``TOLERANCE`` where both are finite; others hang on the last bit, as argmax."""
    a, b = backend.to_host(ours), backend.to_host(theirs)
    if b.dtype.kind != "f":
        return True
    relative, absolute = TOLERANCE[b.dtype.name]
    finite = (abs(a) < float("inf")) & (abs(b) < float("inf"))
    near = abs(a - b) <= relative * _largest(backend, theirs) + absolute * everything
    return bool((near | ~finite).all())
