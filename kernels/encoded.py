"""What targets share whose kernels are data, made of arrays by an encoder: instructions, launches.

An encoder may decline arrays, by their layout or type; then the kernel of the next target computes. How data are run is
the target's business.
"""

from __future__ import annotations

from collections.abc import Callable

from .registry import Kernel


def encoded(
    operation: str, target: str, encode: Callable, scratch: Callable | None, otherwise: Kernel, kind: type,
    run: Callable,
) -> Kernel:  # fmt: skip
    """A kernel of what ``encode(out, *inputs, **attributes) -> list or None`` gives, with another one for None.

    Args:
        scratch: bytes that ``encode`` takes as ``scratch=``; None if it takes none.
        otherwise: the kernel for what is declined.
        kind: the class of the data. What else the list holds are calls already, ``(function, arguments)``.
        run: runs one of them.
    """

    def nbytes(out, *inputs, **attributes) -> int:
        own = scratch(out, *inputs, **attributes) if scratch is not None else 0
        return max(own, otherwise.scratch_bytes(out, *inputs, **attributes))

    own = scratch  # the name is that of the bytes below

    def steps(out, *inputs, scratch=None, **attributes) -> list[tuple[Callable, tuple]]:
        given = {"scratch": scratch} if own is not None else {}
        data = encode(out, *inputs, **given, **attributes)
        if data is None:
            room = scratch if otherwise.scratch is not None else None
            return otherwise.bind(out, *inputs, scratch=room, **attributes)
        return [(run, (each,)) if isinstance(each, kind) else each for each in data]

    def compute(out, *inputs, scratch=None, **attributes) -> None:
        for function, arguments in steps(out, *inputs, scratch=scratch, **attributes):
            function(*arguments)

    return Kernel(compute, operation, target, nbytes, steps)
