"""Expressions through the harness: cases are data, so that the sources of all of them are built as one."""

import functools
import importlib
from typing import NamedTuple

import harness
import numpy as np
from runs import run

from tinynet import kernels
from tinynet.kernels import Expression

NAMES = ("x", "y", "z")
_launch = importlib.import_module("tinynet.kernels.cuda.launch")


class Case(NamedTuple):
    """An expression of x, y, z on arrays, or its reduction.

    Attributes:
        out: where the result goes; None for memory of its own.
        axis, keepdims: of a reduction.
        attributes: numbers by name.
    """

    text: str
    arrays: tuple
    out: object = None
    reduce: str | None = None
    axis: tuple = ()
    keepdims: bool = False
    attributes: dict = {}  # noqa: RUF012 (nobody writes to it)

    @property
    def shape(self) -> tuple:
        return np.broadcast_shapes(*(x.shape for x in self.arrays))

    def calls(self):
        """(calls, result), with scratch of exactly the size that is asked for."""
        names = NAMES[: len(self.arrays)]
        kernel = _kernel(self.text, names, tuple(self.attributes), self.reduce)
        out = self.out
        if out is None:
            shape, dtype = self.shape, self.expected().dtype
            if self.reduce:
                shape = np.empty(shape, "bool").sum(axis=self.axis, keepdims=self.keepdims).shape
            out = np.full(shape, 77, dtype)
        given = dict(self.attributes, axis=self.axis, keepdims=self.keepdims) if self.reduce else self.attributes
        nbytes = kernel.scratch_bytes(out, *self.arrays, **given)
        room = np.zeros(nbytes + 256, "uint8")
        scratch = room[-room.ctypes.data % 256 :][:nbytes]
        return kernel.bind(out, *self.arrays, scratch=scratch, **given), out

    def run(self, orders=("forward",)):
        """The result. None of the calls may be another target's."""
        calls, out = self.calls()
        harness.run(calls, orders)
        return out

    def expected(self, arrays=None):
        """The expression as NumPy computes it, of these arrays, or of others in their place; not reduced."""
        arrays = self.arrays if arrays is None else arrays
        expression = Expression(self.text, NAMES[: len(arrays)], tuple(self.attributes))
        with np.errstate(all="ignore"):
            return np.broadcast_to(expression.function()(np, *arrays, **self.attributes), self.shape)

    def in_double(self):
        return self.expected([x.astype("float64") if x.dtype.kind == "f" else x for x in self.arrays])


@functools.cache
def _kernel(text, names, attributes, reduce):
    return kernels.derive(Expression(text, names, attributes), "cuda", "test", reduce)


def build(*groups, operations=None) -> None:
    """Builds what all cases take as one executable, with what operations do: (name, arrays, attributes, layout)."""
    files = {each.file: None for group in groups for case in group() for each in launches(case.calls()[0])}
    really, harness.run = harness.run, lambda calls, **_: files.update((each.file, None) for each in launches(calls))
    try:
        for each in operations() if operations else ():
            run(*each, declined=None)
    finally:
        harness.run = really
    harness.prepare(files)


def launches(calls) -> list:
    return [arguments[0] for function, arguments in calls if function is _launch.run]


def normal(shape, dtype, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def assert_close(found, expected, factor=4.0, note=""):
    """Within some units in the last place of the element type; infinities and NaN in the same places."""
    with np.errstate(all="ignore"):
        expected = np.asarray(expected).astype(found.dtype)
    eps = np.finfo(found.dtype).eps
    np.testing.assert_allclose(found, expected, rtol=factor * eps, atol=factor * eps, err_msg=note)
