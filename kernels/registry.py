"""Where kernels are found: by operation, target and element type.

Targets form chains from fast to obvious: what a target does not have is taken from the next one, and ``reference``
has everything. A new operation therefore needs its reference kernel only (or, if it is elementwise, its expression),
and runs everywhere.
"""

from __future__ import annotations

from collections.abc import Callable

from .expression import Expression

# target -> where to look next
_FALLBACK = {"reference": None, "numpy": "reference", "cupy": "reference"}
_kernels: dict[tuple[str, str, str | None], Callable] = {}
_expressions: dict[str, Expression] = {}
_loaded: set[str] = set()
_found: dict[
    tuple[str, str, str | None], Callable
] = {}  # what ``find`` has answered; emptied when there is more to find


def targets() -> tuple[str, ...]:
    return tuple(_FALLBACK)


def operations() -> tuple[str, ...]:
    """Names of all operations that have a kernel."""
    _load("reference")
    return tuple(sorted({name for name, _, _ in _kernels} | set(_expressions)))


def register(operation: str, target: str = "reference", dtype: str | None = None) -> Callable[[Callable], Callable]:
    """Decorator: the function is the kernel of ``operation`` on ``target``, for one element type or for all.

    Example:
        >>> @register("cube")
        ... def cube(out, x):
        ...     out[...] = x * x * x

    Raises:
        ValueError: an unknown target.
    """
    if target not in _FALLBACK:
        raise ValueError(f"register({operation!r}): expected a target among {targets()}, got {target!r}")

    def add(kernel: Callable) -> Callable:
        _kernels[operation, target, dtype] = kernel
        _found.clear()
        return kernel

    return add


def define(operation: str, expression: Expression) -> None:
    """``operation`` is elementwise and computes ``expression``: its kernels on all targets follow from that."""
    _expressions[operation] = expression
    _found.clear()


def expression(operation: str) -> Expression | None:
    """The mathematics of an elementwise operation, or None."""
    return _expressions.get(operation)


def find(operation: str, target: str, dtype: str | None = None) -> Callable:
    """The best kernel that there is.

    Raises:
        ValueError: an unknown target.
        LookupError: the operation has no kernel at all, not even a reference.
    """
    key = operation, target, dtype
    if key not in _found:
        _found[key] = _find(*key)
    return _found[key]


def _find(operation: str, target: str, dtype: str | None) -> Callable:
    if target not in _FALLBACK:
        raise ValueError(f"find({operation!r}): expected a target among {targets()}, got {target!r}")
    step: str | None = target
    while step is not None:
        _load(step)
        kernel = _kernels.get((operation, step, dtype)) or _kernels.get((operation, step, None))
        if kernel is None and operation in _expressions:
            kernel = _derive(_expressions[operation], step)
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


def _derive(expression: Expression, target: str) -> Callable:
    if target == "numpy":
        import numpy

        return expression.ufunc_kernel(numpy)
    if target == "cupy":
        import cupy

        return expression.ufunc_kernel(cupy)
    return expression.reference_kernel()


def _load(target: str) -> None:
    """Imports the modules that register a target's kernels, when the target is first used."""
    if target in _loaded:
        return
    _loaded.add(target)
    if target == "reference":
        from . import reference  # noqa: F401
    elif target == "numpy":
        from .cpu import ufuncs  # noqa: F401
