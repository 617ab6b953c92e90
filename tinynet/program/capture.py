"""``capture``: a step written eagerly, turned into a program at its first calls, and run as one from then on.

A step is called as before. Per signature (structure, shapes and dtypes of the arguments, and the Python state that the
step can reach) three things happen:

1. The first call runs eagerly and is traced. The trace becomes a program, which runs once on copies; if it does not
   give the same bits as the eager run, that is a ``CaptureError``.
2. The second call runs eagerly too, and its trace must be the same as the first: a step in which Python makes numbers
   anew at each call (a random one, a time) shows itself here.
3. Later calls run the program. What changed in Python since is found by the guards, and leads back to 1.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable

from tinynet.backend import HostArray, get_backend
from tinynet.errors import ArgumentError, CaptureError
from tinynet.ops import Value, door
from tinynet.tensor import Tensor, as_tensor

from .execute import Program
from .guards import Guards
from .passes import remove_dead, write_in_place
from .trace import Trace

_MOST_VARIANTS = 32  # programs of one captured function; more are a sign of a number that changes at every call


def capture(
    step: Callable | None = None, *, executor: str | None = None, verify: bool = True, keep_grads: bool = False
):
    """Captures a step: a function of tensors that may call ``backward`` and optimizers. Decorator or call.

    Args:
        step: takes tensors, arrays, Python values and containers of them; returns tensors in containers, or nothing.
        executor: what runs the program; "numpy" is the one there is.
        verify: compare the program with the eager run at the first call, and the traces of the first two calls.
        keep_grads: make gradients available in ``p.grad`` after each call. Otherwise reading them is an error.

    Returns:
        A ``Captured`` function. Results are tensors with memory of their own, outside of the tape.

    Raises:
        CaptureError: at a call, for what a program cannot do; the message names the line.

    Example:
        >>> @tn.capture
        ... def step(x, y):
        ...     optimizer.zero_grad()
        ...     loss = tn.losses.mse(model(x), y)
        ...     loss.backward()
        ...     optimizer.step()
        ...     return loss
    """
    if step is None:
        return functools.partial(capture, executor=executor, verify=verify, keep_grads=keep_grads)
    if executor not in (None, "numpy"):
        raise ArgumentError("capture", expected="executor None or 'numpy'", got=repr(executor))
    return Captured(step, verify, keep_grads)


class Captured:
    """A captured step; called as the step itself."""

    def __init__(self, step: Callable, verify: bool, keep_grads: bool):
        functools.update_wrapper(self, step)
        self.step, self.verify, self.keep_grads = step, verify, keep_grads
        self._variants: dict[tuple, list[_Variant]] = {}
        self._lock = threading.RLock()

    def __call__(self, *args, **kwargs):
        if door.state.tracer is not None:  # within another captured step it is a part of that
            return self.step(*args, **kwargs)
        call = _Call(args, kwargs)
        with self._lock:
            variant = self._find(call)
            if variant is None or (self.verify and not variant.settled):
                return self._trace(call, variant)
        return variant.run(call)

    def program(self, *args, **kwargs) -> Program:
        """The program for these arguments, which have been called before.

        Raises:
            CaptureError: they have not.
        """
        variant = self._find(_Call(args, kwargs))
        if variant is None:
            raise CaptureError(self.__name__, expected="arguments that the step has been called with", got="others")
        return variant.program

    def _find(self, call: _Call) -> _Variant | None:
        return next((v for v in self._variants.get(call.signature, ()) if v.applies()), None)

    def _trace(self, call: _Call, known: _Variant | None):
        guards = Guards(self.step, *call.objects)
        with Trace(call.leaves, guards, call.backend) as trace:
            result = self.step(*call.args, **call.kwargs)
        changed = guards.changed()
        if changed is not None:
            raise CaptureError(
                f"capture of {self.__name__}", expected="a step that changes tensors only",
                got=f"one that changed {changed}", mend="do that outside of the step; return what it needs",
            )  # fmt: skip
        variant = _Variant(trace, result, call, self.keep_grads, self.verify)
        if known is not None:
            known.compare(variant, self.__name__)
            known.settled = True
        else:
            variants = self._variants.setdefault(call.signature, [])
            if sum(map(len, self._variants.values())) >= _MOST_VARIANTS:
                raise CaptureError(
                    f"capture of {self.__name__}", expected=f"at most {_MOST_VARIANTS} variants of a step",
                    got="another one", mend="pass numbers that change from call to call as tensors",
                )  # fmt: skip
            variants.append(variant)
        return result


class _Call:
    """The arguments of a call, taken apart.

    Attributes:
        args, kwargs: as given, arrays having become tensors.
        leaves: the tensors in them, in order.
        objects: other things in them, for the guards.
        copied: which leaves are contiguous copies of the arguments.
        signature: what a program is for.
    """

    def __init__(self, args: tuple, kwargs: dict):
        self.leaves: list[Tensor] = []
        self.objects: list[object] = []
        self.copied: set[int] = set()
        (self.args, self.kwargs), structure = self._take((args, kwargs))
        backends = {leaf.backend for leaf in self.leaves}
        if len(backends) > 1:
            raise CaptureError("capture", expected="arguments on one backend", got=", ".join(b.name for b in backends))
        self.backend = backends.pop() if backends else get_backend()
        first: dict[int, int] = {}
        alias = tuple(first.setdefault(id(leaf.versions), i) for i, leaf in enumerate(self.leaves))
        self.signature = (
            structure, self.backend.name, alias, door.state.tape is not None,
            tuple((leaf.shape, leaf.dtype.name, leaf.requires_grad) for leaf in self.leaves),
        )  # fmt: skip

    def _take(self, value):
        """``value`` with arrays as tensors, and a hashable description of the rest."""
        if isinstance(value, HostArray):
            value = as_tensor(value)
        if isinstance(value, Value):
            array = value.backend.contiguous(value.array)
            if array is not value.array:  # slots of programs are contiguous, and so is what is traced
                if value.requires_grad:
                    raise CaptureError(
                        "capture", expected="contiguous arguments where a gradient is wanted", got="another layout",
                        mend="pass a .copy() of it",
                    )  # fmt: skip
                self.copied.add(len(self.leaves))
                value = Tensor(array, value.backend, value.spec)
            self.leaves.append(value)
            return value, "tensor"
        if isinstance(value, (list, tuple)):
            pairs = [self._take(each) for each in value]
            kind = type(value)
            made = kind(*(v for v, _ in pairs)) if hasattr(value, "_fields") else kind(v for v, _ in pairs)
            return made, (kind.__name__, *(d for _, d in pairs))
        if isinstance(value, dict):
            pairs = {key: self._take(each) for key, each in value.items()}
            return {k: v for k, (v, _) in pairs.items()}, ("dict", *((k, d) for k, (_, d) in pairs.items()))
        if value is None or isinstance(value, (bool, int, float, str)):
            return value, (type(value).__name__, value)
        self.objects.append(value)
        return value, ("object", id(value))


class _Variant:
    """One program of a captured step, and what goes with it: state before and after, results, guards."""

    def __init__(self, trace: Trace, result, call: _Call, keep_grads: bool, verify: bool):
        self.trace, self.keep_grads, self.settled = trace, keep_grads, not verify
        self._lock = threading.Lock()
        self.objects = call.objects  # alive, so that their identities stay theirs
        self._results: list[tuple[str, object]] = []  # ("output", i) | ("input", i) | ("tensor", it) per tensor
        self.graph = trace.graph
        self._eager: list[object] = []
        self.structure = self._take_result(result, call)
        self._grads = self._final_grads(call)
        externals = {register: trace.arrays[register] for register in trace.externals}
        before = {r: trace.before.get(r, array) for r, array in externals.items()}
        inputs = [trace.before.get(r, leaf.array) for r, leaf in zip(self.graph.inputs, call.leaves)]
        remove_dead(self.graph)
        write_in_place(self.graph)
        self.program = Program(self.graph, trace.constants)
        written = self.graph.written()
        self.written = [r for r in externals if r in written]
        self.written_inputs = [i for i, r in enumerate(self.graph.inputs) if r in written]
        self._refuse_overlaps(call, externals)
        if verify:
            self._verify(before, inputs, externals, call)

    def applies(self) -> bool:
        return self.trace.guards.hold() and all(
            (tensor._grad is not None) == there for tensor, there in self.trace.depends_on_grads
        )

    def run(self, call: _Call):
        """One call of the program."""
        with self._lock, door.paused():
            for refresh in self.trace.refreshes:
                refresh()
            externals = {register: tensor.array for register, tensor in self.trace.externals.items()}
            self._refuse_overlaps(call, externals)
            outputs = self.program.run([leaf.array for leaf in call.leaves], externals)
            for register in self.written:
                self.trace.externals[register].versions[0] += 1
            for i in self.written_inputs:
                call.leaves[i].versions[0] += 1
            tensors = [self._tensor(array, r) for array, r in zip(outputs, self.graph.outputs)]
            for target, kind, index in self._grads:
                leaf = call.leaves[target] if isinstance(target, int) else target
                leaf.grad = None if kind == "none" else door.WITHHELD if kind == "withheld" else tensors[index]
        return self._rebuild(self.structure, tensors, call)

    def _refuse_overlaps(self, call: _Call, externals: dict[int, object]) -> None:
        """Raises CaptureError if an argument shares memory with something that the step writes to.

        A program reads its arguments when it is called; the step would see what has been written in the meantime.
        """
        if call.copied.intersection(self.written_inputs):
            raise CaptureError(
                "capture", expected="contiguous arguments where the step writes", got="another layout",
                mend="pass a .copy() of it",
            )  # fmt: skip
        roots = [id(_root(leaf.array)) for leaf in call.leaves]
        taken = {id(_root(externals[register])) for register in self.written}
        repeated = {id(leaf.array): root for leaf, root in zip(call.leaves, roots)}
        for i in self.written_inputs:
            if list(repeated.values()).count(roots[i]) > 1:
                taken.add(roots[i])
        if not taken.isdisjoint(roots):
            raise CaptureError(
                "capture", expected="arguments in memory of their own",
                got="one that shares memory with what the step writes", mend="pass a .copy() of it",
            )  # fmt: skip

    def _tensor(self, array, register: int) -> Tensor:
        return Tensor(array, self.program.backend, self.graph.spec(register))

    # ---- results ----

    def _output(self, value: Tensor) -> int:
        self.graph.outputs.append(self.trace.register(value))
        self._eager.append(value.array)
        return len(self.graph.outputs) - 1

    def _take_result(self, value, call: _Call):
        """A description of the result, from which ``_rebuild`` makes that of a later call."""
        if isinstance(value, Value):
            for i, leaf in enumerate(call.leaves):
                if leaf is value:
                    return "input", i
            if any(value is tensor for tensor in self.trace.externals.values()):
                return "same", value
            return "output", self._output(value)
        if isinstance(value, (list, tuple)):
            return type(value), [self._take_result(each, call) for each in value]
        if isinstance(value, dict):
            return dict, {key: self._take_result(each, call) for key, each in value.items()}
        if value is None or isinstance(value, (bool, int, float, str)):
            return "same", value
        raise CaptureError(
            "capture", expected="tensors, numbers and containers of them as results", got=type(value).__name__,
            mend="return tensors, and make other objects of them outside",
        )  # fmt: skip

    def _rebuild(self, structure, tensors: list[Tensor], call: _Call):
        kind, content = structure
        if kind == "same":
            return content
        if kind == "input":
            return call.leaves[content]
        if kind == "output":
            return tensors[content]
        if kind is dict:
            return {key: self._rebuild(each, tensors, call) for key, each in content.items()}
        values = [self._rebuild(each, tensors, call) for each in content]
        return kind(*values) if hasattr(kind, "_fields") else kind(values)

    def _final_grads(self, call: _Call) -> list[tuple]:
        """What ``grad`` of each tensor is after the step: (tensor or index of the argument, kind, output)."""
        found = []
        outside = {id(tensor): tensor for tensor in self.trace.externals.values()}
        for tensor in self.trace.grads:
            place = next((i for i, leaf in enumerate(call.leaves) if leaf is tensor), tensor)
            if not isinstance(place, int) and not (
                id(tensor) in outside or id(tensor.array) in self.trace.guards.arrays
            ):
                continue  # made within the step, and gone with it
            if tensor._grad is None:
                found.append((place, "none", None))
            elif self.keep_grads:
                found.append((place, "kept", self._output(tensor._grad)))
            else:
                found.append((place, "withheld", None))
        return found

    # ---- proofs ----

    def _verify(self, before, inputs, externals, call: _Call) -> None:
        """Runs the program on copies of the state before, and compares every bit with what the eager run left."""
        backend = self.program.backend
        written = self.graph.written()
        state = {r: backend.copy(a) if r in written else a for r, a in before.items()}
        inputs = [backend.copy(array) for array in inputs]
        outputs = self.program.run(inputs, state)
        pairs = [(f"result {i}", ours, theirs) for i, (ours, theirs) in enumerate(zip(outputs, self._eager))]
        pairs += [(f"tensor {self.graph.registers[r].name}", state[r], externals[r]) for r in state if r in written]
        pairs += [(f"argument {i}", inputs[i], call.leaves[i].array) for i in self.written_inputs]
        for what, ours, theirs in pairs:
            if not _same_bits(backend, ours, theirs):
                raise CaptureError(
                    "capture", expected=f"{what} of the program to equal that of the eager run", got="other numbers",
                    mend="the step does something that operations do not show; call it without capture",
                )  # fmt: skip
        self._eager.clear()
        self.trace.before.clear()
        self.trace.arrays.clear()
        self.trace.guards.grads.clear()

    def compare(self, other: _Variant, name: str) -> None:
        """Raises CaptureError where a second trace differs from this one."""
        mine, theirs = self.trace, other.trace
        lines = [f" at {each.line}" for each in other.graph.instructions]
        difference = None
        if str(self.graph) != str(other.graph):
            ours, yours = str(self.graph).splitlines(), str(other.graph).splitlines()
            at = next((i for i, (a, b) in enumerate(zip(ours, yours)) if a != b), min(len(ours), len(yours)) - 1)
            difference = (
                f"{yours[at].strip()} where it was {ours[at].strip()}{lines[at - 1] if 0 < at <= len(lines) else ''}"
            )
        elif any(not _same_bits(mine.backend, a, theirs.constants[r]) for r, a in mine.constants.items()):
            difference = "a constant with other numbers"
        elif any(tensor.array is not theirs.externals[r].array for r, tensor in mine.externals.items()):
            difference = "another tensor"
        if difference is not None:
            raise CaptureError(
                f"capture of {name}", expected="the same operations at each call", got=difference,
                mend="pass what Python computes anew as an argument tensor; use tn.nn.Dropout for randomness",
            )  # fmt: skip


def _root(array):
    """The array that owns the memory of a view."""
    while getattr(array, "base", None) is not None and hasattr(array.base, "shape"):
        array = array.base
    return array


def _same_bits(backend, a, b) -> bool:
    return backend.to_host(a).tobytes() == backend.to_host(b).tobytes()
