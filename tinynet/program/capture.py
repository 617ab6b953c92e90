"""``capture``: a step written eagerly, turned into a program at its first calls, and run as one from then on.

A step is called as before. Per signature (structure, shapes and dtypes of the arguments, and the Python state that the
step can reach) three things happen:

1. The first call runs eagerly and is traced. The trace becomes a program, which runs once on copies, before anything is
   merged in it; if it does not leave the bits of the eager run, that is a ``CaptureError``.
2. The second call runs eagerly too, and its trace must be the same as the first: a step in which Python makes numbers
   anew at each call (a random one, a time) shows itself here. The program as it will run, with fusion, is compared
   with it, to rounding.
3. Later calls run the program. What changed in Python since is found by the guards, and leads back to 1.

With a memory budget the eager run of the step would take what the budget forbids. Then the first two calls are traced
with shapes alone, and the program runs from the first call on.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable

from tinynet.errors import ArenaError, ArgumentError, CaptureError
from tinynet.kernels import PRECISIONS
from tinynet.memory.units import as_bytes
from tinynet.ops import door

from .calls import Call
from .execute import Program
from .guards import Guards
from .room import largest_batch
from .trace import Trace
from .variant import EXECUTORS, MISSED, Options, Variant

_MOST_VARIANTS = 32  # programs of one captured function, each with an arena
_RECENT = 4  # programs that a call is compared with before it is taken apart


def capture(
    step: Callable | None = None, *, executor: str | None = None, memory: str | int | None = None, fuse: bool = True,
    verify: bool = True, keep_grads: bool = False, precision: str = "float32",
):  # fmt: skip
    """Captures a step: a function of tensors that may call ``backward`` and optimizers. Decorator or call.

    Args:
        step: takes tensors, arrays, Python values and containers of them; returns tensors in containers, or nothing.
        executor: what runs the program: "native", compiled kernels in one call; "numpy", one by one on NumPy; "cuda",
            on a GPU (tensors of the backend "cupy"), a CUDA graph in one launch. None takes the fastest that can be
            had; without ``fuse`` the kernels of eager mode one by one, whose bits are those of the eager step.
        memory: what the program may take beyond its arguments and the tensors that outlive it, in bytes or as "64MB".
            To keep to it, results of the forward pass are computed again and batches are cut into parts, whose
            gradients are added with exact weights, at the least added work; ``explain`` says what was chosen.
        fuse: merge operations, which may change rounding: each result by the order of its sums. Without it the
            program gives the bits of the eager step.
        verify: compare the program with the eager runs of the first two calls, and their traces with each other.
        keep_grads: make gradients available in ``p.grad`` after each call. Otherwise reading them is an error.
        precision: of float32 matrix products on a GPU: "float32"; "tf32", which rounds their operands to 10 bits of
            fraction, or "bf16", to 7. Both add up in float32, and all else is float32. It is the program in "float32"
            that ``verify`` compares.

    Returns:
        A ``Captured`` function. Results are tensors with memory of their own, outside of the tape.

    Raises:
        CaptureError: at a call, for what a program cannot do; the message names the line.
        PlanError: at a call, where ``memory`` is too little; the message names the least that would do.

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
        return functools.partial(
            capture, executor=executor, memory=memory, fuse=fuse, verify=verify, keep_grads=keep_grads,
            precision=precision,
        )  # fmt: skip
    for name, value, known in (("executor", executor, EXECUTORS), ("precision", precision, PRECISIONS)):
        if value not in known:
            known = ", ".join(map(repr, known))
            raise ArgumentError("capture", expected=f"{name} to be one of {known}", got=repr(value))
    budget = None if memory is None else as_bytes(memory, "capture, memory")
    return Captured(step, Options(fuse, budget, verify, keep_grads, executor, precision))


class Captured:
    """A captured step; called as the step itself."""

    def __init__(self, step: Callable, options: Options):
        functools.update_wrapper(self, step)
        self.__name__ = getattr(step, "__name__", type(step).__name__)  # a module or a partial has none
        self.step, self.options = step, options
        self._variants: dict[tuple, list[Variant]] = {}
        self._recent: tuple[tuple[bool, Variant], ...] = ()  # whether with a tape; the last that ran first
        self._lock = threading.RLock()

    def __call__(self, *args, **kwargs):
        state = door.state
        if state.tracer is not None:  # within another captured step it is a part of that
            return self.step(*args, **kwargs)
        tape = state.tape is not None
        for with_tape, variant in self._recent:
            if with_tape is tape:
                result = variant.shortcut(args, kwargs)
                if result is not MISSED:
                    return result
        call = Call(args, kwargs)
        with self._lock:
            variant = self._find(call)
            if variant is None or not variant.settled:
                result = self._trace(call, variant)
                if self.options.memory is None:
                    return result
                variant = self._find(call)
            others = [each for each in self._recent if each[1] is not variant]
            self._recent = ((tape, variant), *others[: _RECENT - 1])
        return variant.run(call)

    def program(self, *args, **kwargs) -> Program:
        """The program for these arguments, which have been called before.

        Raises:
            CaptureError: they have not.
        """
        call = Call(args, kwargs)
        variant = self._find(call)
        if variant is None:
            raise CaptureError(self.__name__, expected="arguments that the step has been called with", got="others")
        variant.program.profiler = functools.partial(variant.profile, call)
        return variant.program

    def _find(self, call: Call) -> Variant | None:
        return next((v for v in self._variants.get(call.signature, ()) if v.applies(call)), None)

    def _trace(self, call: Call, known: Variant | None):
        """Traces a call, and keeps a new variant or compares with one that is known; the result of the step."""
        guards = Guards(self.step, *call.objects)
        with Trace(call.leaves, guards, call.backend, shapes=self.options.memory is not None) as trace:
            result = self.step(*call.args, **call.kwargs)
        changed = guards.changed()
        if changed is not None:
            raise CaptureError(
                f"capture of {self.__name__}", expected="a step that changes tensors only",
                got=f"one that changed {changed}", mend="do that outside of the step; return what it needs",
            )  # fmt: skip
        if known is not None:
            self._with_room(call, trace, lambda: known.settle(trace, result, call, self.options, self.__name__))
            return known.run(call) if known.replaces(trace) else result
        if sum(map(len, self._variants.values())) >= _MOST_VARIANTS:
            self._make_room(call)
        variant = self._with_room(call, trace, lambda: Variant(trace, result, call, self.options))
        self._variants.setdefault(call.signature, []).append(variant)
        return variant.run(call) if variant.replaces(trace) else result

    def _with_room(self, call: Call, trace: Trace, make: Callable):
        """What ``make()`` gives; where a program finds no memory, the step changes nothing, and the error says more."""
        try:
            return make()
        except ArenaError as error:
            trace.undo()
            raise self._with_largest_batch(error, call) from error.__cause__

    def _with_largest_batch(self, error: ArenaError, call: Call) -> ArenaError:
        """The error of a program without memory, with the largest batch that would fit, where that can be known."""
        if error.free is None or self.options.memory is not None:
            return error
        found = largest_batch(self.step, call, self.options, error.free)
        if found is None:
            return error
        mend = f"a batch of at most {found:,} rows fits; or give a memory= budget, within which a batch is cut"
        new = ArenaError(error.where, expected=error.expected, got=error.got, mend=mend)
        new.requested, new.free = error.requested, error.free
        return new

    def _make_room(self, call: Call) -> None:
        """Forgets the oldest program, where there are many because shapes change; numbers that change are an error."""
        if call.shapes in {signature[-1] for signature in self._variants}:
            raise CaptureError(
                f"capture of {self.__name__}", expected=f"at most {_MOST_VARIANTS} variants of a step",
                got="another one", mend="pass numbers that change from call to call as tensors",
            )  # fmt: skip
        forgotten = self._variants.pop(next(iter(self._variants)))
        self._recent = tuple(each for each in self._recent if each[1] not in forgotten)
