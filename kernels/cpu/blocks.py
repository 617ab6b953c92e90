"""Kernels derived from expressions: chains of ufuncs, block by block, through registers that stay in the cache.

A tensor is cut into blocks of ``BLOCK`` elements; ``lowering`` says which calls make up the expression, and here they
are laid over the blocks. Nothing of the size of the tensor is held but the result, and nothing is allocated: registers
lie in scratch. ``reduce`` folds the blocks of a chain into a reduction as they come. Each call is one ufunc in the
element type, so a chain gives the bits that its parts give one after the other.
"""

from __future__ import annotations

import functools
import math

import numpy as np

from ..expression import Expression, expand, linear
from ..registry import Kernel
from . import cutting
from .cutting import Registers, aligned, as_lines, call, part, pieces
from .eager import eager
from .lowering import RESULT, Program


class _Derived:
    """What kernels of expressions share: a program for each combination of element types."""

    keep = False  # whether the program leaves its result in a register

    def __init__(self, expression: Expression):
        self.expression = expression
        self._programs: dict[object, Program] = {}

    def program(self, shape: tuple[int, ...], out, inputs, attributes: dict) -> Program:
        """The calls for these element types. ``shape`` is that to which the inputs are broadcast."""
        key = out.dtype
        for x in inputs:
            if x.dtype != key or x.shape != shape:
                key = (key, *[x.dtype for x in inputs], *[x.shape == shape for x in inputs])
                break
        if attributes:
            key = (key, *map(type, attributes.values()))
        program = self._programs.get(key)
        if program is None:
            dtypes, full = [np.dtype(x.dtype) for x in inputs], [x.shape == shape for x in inputs]
            program = Program(self.expression, dtypes, full, attributes, np.dtype(out.dtype), self.keep)
            self._programs[key] = program
        return program

    def run(self, out, *inputs, scratch, **attributes) -> None:
        for function, arguments in self.steps(out, *inputs, scratch=scratch, **attributes):
            function(*arguments)


class Single(_Derived):
    """An expression that is one call, on arrays of any size."""

    def __init__(self, expression: Expression):
        super().__init__(expression)
        self.run = expression.ufunc_kernel(np)

    def kernel(self, name: str) -> Kernel:
        return Kernel(self.run, name, "numpy", steps=self.steps)

    def nbytes(self, out, *inputs, **attributes) -> int:
        return 0

    def steps(self, out, *inputs, scratch=None, **attributes):
        program = self.program(out.shape, out, inputs, attributes)
        if len(program.calls) > 1:  # something is converted, which NumPy does in buffers of its own
            return [(functools.partial(self.run, out, *inputs, **attributes), ())]
        return lay(program, program.numbers_of(attributes), None, inputs, out)[0]


class Chain(_Derived):
    """An expression of several calls: each block goes through all of them before the next one comes."""

    def kernel(self, name: str) -> Kernel:
        return Kernel(self.run, name, "numpy", self.nbytes, self.steps, eager(self.nbytes, self.steps))

    def nbytes(self, out, *inputs, **attributes) -> int:
        n = min(math.prod(out.shape), cutting.BLOCK)
        return sum(aligned(size * n) for size in self.program(out.shape, out, inputs, attributes).registers)

    def steps(self, out, *inputs, scratch, **attributes):
        if not out.size:
            return []
        program = self.program(out.shape, out, inputs, attributes)
        numbers = program.numbers_of(attributes)
        registers = Registers(scratch, [size * min(out.size, cutting.BLOCK) for size in program.registers])
        if out.size <= cutting.BLOCK:
            return lay(program, numbers, registers, inputs, out)[0]
        out, *inputs = as_lines(out.shape, out, *inputs)
        steps = []
        for index in pieces(out.shape):
            steps += lay(program, numbers, registers, [part(x, index) for x in inputs], part(out, index))[0]
        return steps


class Reduction(_Derived):
    """An expression that is reduced at once: a block goes through the chain and into the sum.

    Attributes, beside those of the expression: ``axis``, a tuple of axes of the shape that the inputs are broadcast
    to, and ``keepdims``.
    """

    keep = True

    def __init__(self, expression: Expression, reduce: str):
        super().__init__(expression)
        self._accumulate = {"sum": np.add, "mean": np.add, "max": np.maximum, "min": np.minimum}[reduce]
        self._mean = reduce == "mean"

    def kernel(self, name: str) -> Kernel:
        return Kernel(self.run, name, "numpy", self.nbytes, self.steps, eager(self.nbytes, self.steps))

    def nbytes(self, out, *inputs, axis, keepdims, **attributes) -> int:
        return sum(map(aligned, self._sizes(out, inputs, attributes)))

    def _sizes(self, out, inputs, attributes) -> list[int]:
        shape = np.broadcast_shapes(*(x.shape for x in inputs))
        n = min(math.prod(shape), cutting.BLOCK)
        partial = min(math.prod(out.shape), n) * np.dtype(out.dtype).itemsize
        return [*(size * n for size in self.program(shape, out, inputs, attributes).registers), partial]

    def steps(self, out, *inputs, scratch, axis, keepdims, **attributes):
        shape = np.broadcast_shapes(*(x.shape for x in inputs))
        program = self.program(shape, out, inputs, attributes)
        numbers = program.numbers_of(attributes)
        registers = Registers(scratch, self._sizes(out, inputs, attributes))
        totals = out.reshape([1 if i in axis else n for i, n in enumerate(shape)])  # a view: only ones come and go
        steps = [] if math.prod(shape) else [call(np.copyto, (np.zeros((), out.dtype),), out)]
        function = self._accumulate
        for index in pieces(shape) if math.prod(shape) else ():
            calls, block = lay(program, numbers, registers, [part(x, index) for x in inputs], None)
            steps += calls
            size = tuple(len(range(*piece.indices(n))) for piece, n in zip(index, shape))
            total = part(totals, index)
            if block.shape != size:
                block = np.broadcast_to(block, size)
            if all((index[i].start or 0) == 0 for i in axis):
                steps.append((function.reduce, (block, axis, None, total, True)))
            elif total.shape == size:
                steps.append(call(function, (total, block), total))
            else:
                partial = registers.view(len(program.registers), total.shape, out.dtype)
                steps.append((function.reduce, (block, axis, None, partial, True)))
                steps.append(call(function, (total, partial), total))
        if self._mean:
            count = math.prod(shape[i] for i in axis)
            steps.append(call(np.divide, (out, np.asarray(count, out.dtype)), out))
        return steps


def derive(expression: Expression, name: str, reduce: str | None = None) -> Kernel:
    """The kernel of an expression, or of its reduction."""
    return (computing(expression) if reduce is None else Reduction(expression, reduce)).kernel(name)


def computing(expression: Expression) -> Single | Chain:
    """What computes an expression, for kernels of which that is a part."""
    calls = [op for op, _ in linear(expand(expression.tree)) if op not in ("name", "const")]
    single = len(calls) == 1 and calls != ["where"]
    return Single(expression) if single else Chain(expression)


def lay(program: Program, numbers: list, registers: Registers, inputs, out) -> tuple[list, np.ndarray | None]:
    """The calls of a program on one block, and where a kept result is."""
    shapes: dict[frozenset, tuple[int, ...]] = {}
    frame = []
    for index, dtype, of in program.slots:
        if index == RESULT or index < program.arity:
            array = out if index == RESULT else inputs[index]
            frame.append(array if array.dtype == dtype else array.view(dtype))
        else:
            if of not in shapes:
                shapes[of] = np.broadcast_shapes(*[inputs[i].shape for i in of])
            frame.append(registers.view(index - program.arity, shapes[of], dtype))
    result = frame[program.result] if program.result is not None else None
    frame += numbers
    return [(function, arguments(frame)) for function, arguments in program.calls], result
