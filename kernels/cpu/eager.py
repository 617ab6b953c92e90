"""How a kernel that is bound to its memory elsewhere is called on arrays that are new each time.

To lay out a kernel's calls takes longer than to make them, where arrays are small. They depend on shapes and element
types alone; so they are laid out once, over arrays that stand for others, and kept as what they are made of: this
input, that piece of the output, these bytes of scratch.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable

import numpy as np

_MOST_CALLS = 1500  # of one layout: to lay out more, over large arrays, is a small part of making them
_MOST_KEPT = 20_000  # of all layouts of a kernel


def eager(nbytes: Callable, steps: Callable) -> Callable:
    """``f(out, *inputs, **attributes)``: the calls of ``steps`` in scratch of its own, of ``nbytes``.

    A layout is kept when it is asked for the second time.
    """
    layouts: dict[tuple, Layout | bool | None] = {}  # None: asked for once; False: not to be had

    def run(out, *inputs, **attributes) -> None:
        arrays = (*out, *inputs) if type(out) is tuple else (out, *inputs)
        # what is zero or empty as text: 0.0 equals -0.0
        key = (*[v or repr(v) for v in attributes.values()], *[x.shape for x in arrays], *[x.dtype for x in arrays])
        layout = layouts.get(key)
        if layout and all([x.flags.c_contiguous for x in arrays]):  # noqa: C419 - a list is faster for so few
            layout.run(arrays)
            return
        scratch = np.empty(nbytes(out, *inputs, **attributes), np.uint8)
        for function, arguments in steps(out, *inputs, scratch=scratch, **attributes):
            function(*arguments)
        if key not in layouts:
            if len(layouts) + sum(len(each.calls) for each in layouts.values() if each) > _MOST_KEPT:
                layouts.clear()
            layouts[key] = None
        elif layout is None and all(x.flags.c_contiguous for x in arrays):
            layouts[key] = _laid_out(out, inputs, attributes, scratch, steps) or False

    return run


class Layout:
    """Calls on contiguous arrays of given shapes.

    Args:
        nbytes: of scratch.
        constants: what is the same for all arrays.
        views: (array, shape, dtype, offset, strides), of the arrays, which scratch is the last of.
        calls: (function, positions of its arguments among arrays, scratch, constants and views, in that order).
    """

    def __init__(self, nbytes: int, constants: list, views: list, calls: list):
        self.nbytes, self.constants, self.views = nbytes, constants, views
        self.calls = [(function, _getter(positions)) for function, positions in calls]

    def run(self, arrays) -> None:
        frame = [*arrays, np.empty(self.nbytes, np.uint8), *self.constants]
        for base, shape, dtype, offset, strides in self.views:
            frame.append(np.ndarray(shape, dtype, frame[base], offset, strides))
        for function, arguments in self.calls:
            function(*arguments(frame))


def _getter(positions: list[int]) -> Callable:
    if len(positions) == 1:  # itemgetter would not give a tuple
        only = positions[0]
        return lambda frame: (frame[only],)
    return operator.itemgetter(*positions)


def _laid_out(out, inputs, attributes: dict, scratch, steps: Callable) -> Layout | None:
    """The layout of the calls on contiguous arrays; None if what they take cannot be told, or they are too many."""
    several = type(out) is tuple
    given = (*out, *inputs) if several else (out, *inputs)
    if not all(x.size for x in given):
        return None
    arrays = [np.empty(x.shape, x.dtype) for x in given]  # apart from each other, where those may be one
    count = len(out) if several else 1
    calls = steps(tuple(arrays[:count]) if several else arrays[0], *arrays[count:], scratch=scratch, **attributes)
    if len(calls) > _MOST_CALLS:
        return None
    arrays.append(scratch)
    constants, views, known = [], [], {}

    def position(argument) -> tuple:
        """Among the arrays, the constants or the views."""
        if isinstance(argument, np.ndarray):
            for i, array in enumerate(arrays):
                offset = _address(argument) - _address(array)
                if 0 <= offset < array.nbytes:
                    view = i, argument.shape, argument.dtype, offset, argument.strides
                    if view == (i, array.shape, array.dtype, 0, array.strides):
                        return "array", i
                    if view not in known:
                        known[view] = len(views)
                        views.append(view)
                    return "view", known[view]
        constants.append(argument)
        return "constant", len(constants) - 1

    found = []
    for function, arguments in calls:
        nested = any(isinstance(each, tuple) and any(isinstance(x, np.ndarray) for x in each) for each in arguments)
        if nested or isinstance(function, functools.partial):
            return None
        found.append((function, [position(each) for each in arguments]))
    start = {"array": 0, "constant": len(arrays), "view": len(arrays) + len(constants)}
    placed = [(function, [start[kind] + i for kind, i in places]) for function, places in found]
    return Layout(scratch.nbytes, constants, views, placed)


def _address(array) -> int:
    return array.__array_interface__["data"][0]
