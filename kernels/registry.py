"""Where kernels are found: by operation, target and element type.

Targets form chains from fast to obvious: what a target does not have is taken from the next one, and ``reference``
has everything. A new operation therefore needs its reference kernel only (or, if it is elementwise, its expression),
and runs everywhere.

A kernel that needs memory beside its result says how much (``scratch``), and takes it as the keyword ``scratch``: one
array of bytes, whose content means nothing before and after. So a caller that plans its memory hands over a piece of
the plan; one that does not (eager mode) leaves it out, and the kernel takes what it needs for the time of the call.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable

from .expression import Expression
from .precision import precision


class Kernel(functools.partial):
    """A function ``kernel(out, *inputs, **attributes)``, and what a caller has to know of it.

    Called without scratch it takes its own. It is a partial application because that is called at the speed of C: the
    eager mode of small tensors is made of such calls.

    Args:
        function: computes; takes ``scratch=`` too if ``scratch`` is given.
        operation, target: what it is a kernel of, and for.
        scratch: ``scratch(out, *inputs, **attributes) -> int``, bytes beside the result. Of the arguments only
            ``shape`` and ``dtype`` are looked at, and ``strides`` where they have them, so that descriptions without
            memory will do; several outputs come as a tuple. None for a kernel that declares nothing (a reference
            kernel, which takes memory as it goes).
        steps: ``steps(out, *inputs, scratch, **attributes) -> list of (function, arguments)``: the kernel on these
            very arrays as plain calls, for a caller who will run it many times. None: the kernel is the one call.
        eager: ``eager(out, *inputs, **attributes)`` computes in memory that it takes itself, where there is a better
            way to do that than to hand bytes to ``function``.
    """

    __slots__ = ("_steps", "function", "operation", "scratch", "target")

    def __new__(
        cls,
        function: Callable,
        operation: str,
        target: str,
        scratch: Callable | None = None,
        steps: Callable | None = None,
        eager: Callable | None = None,
    ):
        if eager is not None or scratch is None:
            self = super().__new__(cls, eager or function)
        else:
            self = super().__new__(cls, _in_own_scratch, function, scratch)
        self.function, self.operation, self.target = function, operation, target
        self.scratch, self._steps = scratch, steps
        return self

    def __repr__(self) -> str:
        return f"<kernel {self.operation} on {self.target}>"

    def scratch_bytes(self, out, *inputs, **attributes) -> int:
        """How many bytes of scratch a call takes; 0 for a kernel that declares none."""
        return 0 if self.scratch is None else self.scratch(out, *inputs, **attributes)

    def bind(self, out, *inputs, scratch=None, **attributes) -> list[tuple[Callable, tuple]]:
        """The kernel on these arrays as ``(function, arguments)`` calls, to be made in this order, again and again.

        Args:
            scratch: bytes, at least ``scratch_bytes`` of them, aligned to 64; None where that is 0.
        """
        if self.scratch is not None:
            attributes["scratch"] = scratch
        if self._steps is not None:
            return self._steps(out, *inputs, **attributes)
        return [(functools.partial(self.function, out, *inputs, **attributes), ())]


def _in_own_scratch(function, scratch, out, *inputs, **attributes) -> None:
    nbytes = scratch(out, *inputs, **attributes)
    function(out, *inputs, scratch=bytes_beside(out[0] if isinstance(out, tuple) else out, nbytes), **attributes)


def bytes_beside(array, nbytes: int):
    """Fresh bytes in the memory that ``array`` is in."""
    xp = array.__array_namespace__()
    return xp.empty((nbytes,), dtype=xp.uint8, device=array.device)


# target -> where to look next
_FALLBACK = {"reference": None, "numpy": "reference", "native": "numpy", "cupy": "reference", "cuda": "cupy"}
_kernels: dict[tuple[str, str, str | None], Kernel] = {}
_expressions: dict[str, Expression] = {}
_loaded: set[str] = set()
_found: dict[tuple[str, str, str | None], Kernel] = {}  # what ``find`` answered; emptied when there is more to find


def targets() -> tuple[str, ...]:
    return tuple(_FALLBACK)


def available(target: str, dtype: str | None = None) -> bool:
    """Whether kernels of a target can run here, on elements of a type, or of any; if not, ``obstacle`` says why."""
    return obstacle(target, dtype) is None


def obstacle(target: str, dtype: str | None = None) -> str | None:
    """Why kernels of a target cannot run here, on elements of a type, or of any; None where they can.

    What ``native`` runs on has to be there, and what compiles it as well, unless its kernels for the type are kept. To
    be there is to be imported: what is installed may not fit. It is asked once in a process, except for the device in
    force.
    """
    if target == "cuda":
        from .cuda import device

        return device.get().obstacle()
    return _obstacle(target, dtype)


@functools.cache
def _obstacle(target: str, dtype: str | None) -> str | None:
    if target not in _FALLBACK:
        return f"there is no target {target!r}"
    if target == "native":
        sizes = (4, 8) if dtype is None else (8,) if dtype == "float64" else (4,)  # integers go with float32
        try:
            from .cpu.native import library

            return None if any(library.obstacle(size) is None for size in sizes) else library.obstacle(sizes[0])
        except Exception as error:  # of whatever type, where a library of the system is missing
            return f"llvmlite cannot be imported: {error}"
    return "cupy is not installed" if target == "cupy" and importlib.util.find_spec("cupy") is None else None


def link(calls: list[tuple[Callable, tuple]], target: str) -> tuple[list[tuple[Callable, tuple]], bool]:
    """The same calls, those that follow each other made one where a target can do that; and whether all of them can."""
    if target == "native":
        from .cpu.native.instructions import link
    elif target == "cuda":
        from .cuda.graphs import link
    else:
        return calls, False
    return link(calls)


def lends(target: str) -> bool:
    """Whether arguments of a program may be read where they lie: see ``loans``."""
    return target == "native"


def loans(slots: list, bind: Callable[[list], list[tuple]], linked: list[tuple], target: str) -> list[Callable | None]:
    """For each slot ``f(array)``, which lets linked calls read an array instead, ``f.copy(array)``, which lets them
    read the slot with the array's numbers; None where that does not pay or cannot be done.

    Args:
        slots: arrays that the calls do not write to.
        bind: gives the calls, before they are linked, for other arrays in the place of the slots.
        linked: those for the slots, linked; all of them are.
    """
    from .cpu.native.instructions import link
    from .cpu.native.loans import LEAST, elsewhere, loans

    large = [i for i, slot in enumerate(slots) if slot.nbytes >= LEAST]
    others = elsewhere([slots[i] for i in large])
    found: list[Callable | None] = [None] * len(slots)
    if large:
        moved = link(bind([others[large.index(i)] if i in large else slot for i, slot in enumerate(slots)]))[0]
        tables = ([table for table, _ in calls] for calls in (linked, moved))
        for i, loan in zip(large, loans(*tables, [slots[i] for i in large], others) or ()):
            found[i] = loan
    return found


def screen(ranges: list[tuple[object, int, int]], target: str) -> Callable[[], bool] | None:
    """A quick way to see whether all values of arrays lie in their ranges, (array, low, high); None if there is none.

    ``f() -> bool``, of the arrays as they are then: False where nothing is outside.
    """
    if target != "native" or not ranges:
        return None
    from .cpu.native.bounds import screen

    return screen(ranges)


def stages(target: str) -> bool:
    """Whether arguments come to a target by way of memory that is used for nothing else: see ``feeder``."""
    return target in ("cuda", "cupy")


def feeder(slots: list, staging: list, target: str) -> Callable[..., None]:
    """``f(*arrays)`` puts an array into each slot; those of the host too, on a target that ``stages``.

    Args:
        staging: for each slot as many bytes beside it; empty where the target does not stage.
    """
    from .cuda.feeding import Feed

    return Feed(slots, staging)


def keeps_in_bf16(target: str | None, m: int, n: int, k: int) -> bool:
    """Whether the operands of a product of float32 should be kept in bf16, in the precision that is set.

    Then ``to_bf16`` makes them, and the product is that of the name ``of_bf16`` gives it.

    Args:
        m, n, k: rows and columns of the result, and terms of a sum.
    """
    if target != "cuda" or precision() != "bf16":
        return False
    from .cuda.matrices import keeps

    return keeps(m, n, k)


def alignment(target: str) -> int:
    """At which multiples of bytes arrays should begin."""
    # a line of the cache and the widest vector register; what cudaMalloc promises
    return 256 if target in ("cuda", "cupy") else 64


def operations() -> tuple[str, ...]:
    """Names of all operations that have a kernel."""
    _load("reference")
    return tuple(sorted({name for name, _, _ in _kernels} | set(_expressions)))


def register(
    operation: str, target: str = "reference", dtype: str | None = None, scratch: Callable | None = None
) -> Callable[[Callable], Callable]:
    """Decorator: the function is the kernel of ``operation`` on ``target``, for one element type or for all.

    ``scratch`` says what memory it takes beside its result: see ``Kernel``.

    Example:
        >>> @register("cube")
        ... def cube(out, x):
        ...     out[...] = x * x * x

    Raises:
        ValueError: an unknown target.
    """
    if target not in _FALLBACK:
        raise ValueError(f"register({operation!r}): expected a target among {targets()}, got {target!r}")

    def file(kernel: Callable) -> Callable:
        add(Kernel(kernel, operation, target, scratch), dtype)
        return kernel

    return file


def add(kernel: Kernel, dtype: str | None = None) -> None:
    """Files a kernel for its operation and target, for one element type or for all."""
    _kernels[kernel.operation, kernel.target, dtype] = kernel
    _found.clear()


def define(operation: str, expression: Expression) -> None:
    """``operation`` is elementwise and computes ``expression``: its kernels on all targets follow from that."""
    _expressions[operation] = expression
    _found.clear()


def expression(operation: str) -> Expression | None:
    """The mathematics of an elementwise operation, or None."""
    return _expressions.get(operation)


def find(operation: str, target: str, dtype: str | None = None) -> Kernel:
    """The best kernel that there is.

    Raises:
        ValueError: an unknown target.
        LookupError: the operation has no kernel at all, not even a reference.
    """
    key = operation, target, dtype
    if key not in _found:
        _found[key] = _find(*key)
    return _found[key]


def _find(operation: str, target: str, dtype: str | None) -> Kernel:
    if target not in _FALLBACK:
        raise ValueError(f"find({operation!r}): expected a target among {targets()}, got {target!r}")
    step: str | None = target
    while step is not None:
        _load(step)
        kernel = _kernels.get((operation, step, dtype)) or _kernels.get((operation, step, None))
        if kernel is None and operation in _expressions:
            kernel = derive(_expressions[operation], step, name=operation)
        if kernel is not None:
            return kernel
        step = _FALLBACK[step]
    raise LookupError(f"operation {operation!r} has no kernel: register a reference kernel for it")


def forget(operation: str) -> None:
    """Removes all kernels of an operation."""
    _expressions.pop(operation, None)
    _found.clear()
    for key in [key for key in _kernels if key[0] == operation]:
        del _kernels[key]


REDUCTIONS = ("sum", "mean", "max", "min")


def derive(expression: Expression, target: str, name: str = "fused", reduce: str | None = None) -> Kernel:
    """The kernel that computes an expression on a target.

    Args:
        reduce: one of ``REDUCTIONS``, which is applied to the expression at once. The kernel then takes the attributes
            ``axis``, a tuple of axes, counted from 0, of the shape to which the inputs are broadcast, and ``keepdims``.

    Raises:
        ValueError: an unknown target or reduction.
    """
    if target not in _FALLBACK or (reduce is not None and reduce not in REDUCTIONS):
        raise ValueError(
            f"derive({name!r}): expected a target among {targets()} and a reduction among {REDUCTIONS}, got {target!r} "
            f"and {reduce!r}"
        )
    if target == "numpy" or (target == "native" and not available("native")):
        from .cpu import blocks

        return blocks.derive(expression, name, reduce)
    if target == "native":
        from .cpu.native import elementwise

        return elementwise.derive(expression, name, reduce)
    if target == "cuda":
        from .cuda import elementwise

        return elementwise.derive(expression, name, reduce)
    if reduce is not None:
        from .reference.reduction import reduced

        return Kernel(reduced(expression, reduce), name, "reference")
    if target == "cupy" and available("cupy"):
        import cupy

        return Kernel(expression.ufunc_kernel(cupy), name, target)
    return Kernel(expression.reference_kernel(), name, "reference")


def _load(target: str) -> None:
    """Imports the modules that register a target's kernels, when the target is first used."""
    if target in _loaded:
        return
    _loaded.add(target)
    if target == "reference":
        from . import reference  # noqa: F401
    elif target == "numpy":
        from .cpu import kernels
    elif target == "native" and available("native"):  # else all its kernels are those of the next target
        from .cpu.native import kernels
    elif target == "cuda":  # without CuPy too: what its encoders make of arrays are data
        from .cuda import kernels  # noqa: F401
