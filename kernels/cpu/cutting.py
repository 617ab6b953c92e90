"""How kernels cut arrays, in blocks that stay in the cache, and lay out scratch, in registers of a block.

Here is also the form that kernels for NumPy are written in: a generator of ``(function, arguments)``, each of them a
call that allocates nothing. ``Kernel.bind`` lists the calls; eager mode makes them at once.

One thing is left to whoever runs the calls. Over operands that are broadcast or lie apart NumPy goes through buffers of
``numpy.getbufsize()`` elements, and it takes those from the heap: with 256 in place of its 8192 they are a few KB, and
the difference of rows and a column is made in a third of the time.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable

import numpy as np

from ..registry import Kernel, add
from .eager import eager

# A chain of twelve calls on float32 (a divide and an exp among them), one core with 2 MiB of second-level cache,
# milliseconds at 1e5, 1e6 and 1e7 elements:
#     blocks of 4096 0.23 2.9 43, 8192 0.28 2.2 33, 16384 0.19 2.0 35, 32768 0.24 2.2 29, 65536 0.24 2.4 34,
#     no blocks 0.27 3.7 66.
# Smaller ones pay for the calls, larger ones leave the cache.
BLOCK = 16384
ALIGNMENT = 64


def pieces(shape: tuple[int, ...], limit: int | None = None) -> tuple[tuple[slice, ...], ...]:
    """Indices that cut a shape, in C order, into pieces of at most ``limit`` elements (a block) and about one size.

    The axes before the cut one are taken entry by entry, those after it whole; so each piece is a run of the elements
    in C order.
    """
    return _pieces(shape, limit or BLOCK)


@functools.lru_cache(maxsize=256)
def _pieces(shape: tuple[int, ...], limit: int) -> tuple[tuple[slice, ...], ...]:
    whole = (slice(None),) * len(shape)
    if math.prod(shape) <= limit:
        return (whole,)
    inner, axis = 1, len(shape) - 1
    while inner * shape[axis] <= limit:
        inner *= shape[axis]
        axis -= 1
    n = shape[axis]
    count = -(-n // (limit // inner))
    step = -(-n // count)
    rounded = -(-step // ALIGNMENT) * ALIGNMENT
    if inner == 1 and rounded <= limit and (n % rounded == 0 or n % rounded >= ALIGNMENT):
        step = rounded  # pieces that begin where vector registers do
    return tuple(
        (*(slice(i, i + 1) for i in lead), slice(start, start + step), *whole[axis + 1 :])
        for lead in itertools.product(*map(range, shape[:axis]))
        for start in range(0, n, step)
    )


def part(x, index: tuple[slice, ...]):
    """The piece of ``x`` that is broadcast to the piece ``index`` of a larger shape."""
    if not x.ndim:
        return x
    if len(index) == x.ndim and 1 not in x.shape:
        return x[index]
    own = zip(index[len(index) - x.ndim :], x.shape)
    return x[tuple(slice(None) if n == 1 else piece for piece, n in own)]


def as_lines(shape: tuple[int, ...], *arrays) -> list:
    """The arrays with one axis, which is easier to cut, where they are contiguous and of this shape or without axes."""
    large = len(shape) > 1 and math.prod(shape) > BLOCK
    if large and all((x.shape == shape and x.flags.c_contiguous) or not x.ndim for x in arrays):
        return [x.reshape(-1) if x.ndim else x for x in arrays]
    return list(arrays)


# ---- scratch ----


def aligned(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


class Registers:
    """Pieces of scratch of given sizes, one after the other, seen as arrays of any shape that fits."""

    def __init__(self, scratch, sizes):
        self._scratch = scratch
        self._at = [0, *itertools.accumulate(map(aligned, sizes))]
        self._views: dict[tuple, np.ndarray] = {}

    def bytes(self, register: int) -> np.ndarray:
        """Scratch from a register on."""
        return self._scratch[self._at[register] :]

    def view(self, register: int, shape: tuple[int, ...], dtype) -> np.ndarray:
        key = register, shape, dtype
        if key not in self._views:
            self._views[key] = np.ndarray(shape, dtype, self._scratch, self._at[register])
        return self._views[key]



# ---- kernels as generators of calls ----

def _maximum(a, b, out) -> None:
    np.maximum(a, b, out=out)


def _minimum(a, b, out) -> None:
    np.minimum(a, b, out=out)


# these two take their output by name only
BY_NAME = {np.maximum: _maximum, np.minimum: _minimum}


def call(function, operands: tuple, out) -> tuple:
    """(function, arguments) that computes into ``out``."""
    if function is np.copyto:
        return function, (out, *operands, "same_kind")
    return BY_NAME.get(function, function), (*operands, out)


def kernel(operation: str, registers: Callable | None = None) -> Callable[[Callable], Callable]:
    """Decorator: the generator of calls is the kernel of ``operation`` for NumPy.

    Args:
        registers: ``registers(out, *inputs, **attributes)``: the bytes of each piece of scratch, from shapes and
            element types alone. The generator takes them as the keyword ``room``, ``Registers``.
    """

    def register(generate: Callable) -> Callable:
        if registers is None:

            def run(out, *inputs, **attributes):
                for function, arguments in generate(out, *inputs, **attributes):
                    function(*arguments)

            add(Kernel(run, operation, "numpy", steps=lambda *given, **more: list(generate(*given, **more))))
            return generate

        def nbytes(out, *inputs, **attributes) -> int:
            return sum(map(aligned, registers(out, *inputs, **attributes)))

        def steps(out, *inputs, scratch, **attributes) -> list:
            room = Registers(scratch, registers(out, *inputs, **attributes))
            return list(generate(out, *inputs, room=room, **attributes))

        def run_in(out, *inputs, scratch, **attributes) -> None:
            for function, arguments in steps(out, *inputs, scratch=scratch, **attributes):
                function(*arguments)

        add(Kernel(run_in, operation, "numpy", nbytes, steps, eager(nbytes, steps)))
        return generate

    return register
