"""Arrays without memory: a shape, strides and an element type, for tracing a step before there is a single number.

A ``Shadow`` stands where an array would. Operations that only look at memory in another way (transpose, reshape,
slices) work on it, and give the shadow of the view; everything else would need numbers, and there are none. Views are
found by NumPy itself, on an array of the same shape and strides that is never read and does not leave this module.
"""

from __future__ import annotations

import numpy as np


class Shadow:
    """What is known of an array before it exists.

    Attributes:
        shape: sizes of the axes.
        dtype: the element type.
        strides: bytes from one element to the next along each axis.
    """

    __slots__ = ("__weakref__", "dtype", "shape", "strides")

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype, strides: tuple[int, ...] | None = None):
        self.shape, self.dtype = shape, dtype
        if strides is None:
            strides, step = [], dtype.itemsize
            for n in reversed(shape):
                strides.insert(0, step)
                step *= max(n, 1)
        self.strides = tuple(strides)

    def __repr__(self) -> str:
        return f"<shadow {self.dtype}{list(self.shape)}>"

    def __getitem__(self, index) -> Shadow:
        return self.through(lambda array: array[index])

    def through(self, view) -> Shadow:
        """The shadow of ``view(array)``, a function that makes a view and reads nothing."""
        array = np.lib.stride_tricks.as_strided(np.empty(1, self.dtype), self.shape, self.strides, writeable=False)
        result = view(array)
        return Shadow(result.shape, self.dtype, result.strides)


class _Views:
    """The functions of an array namespace that make views, for shadows."""

    _NAMES = ("broadcast_to", "expand_dims", "flip", "matrix_transpose", "moveaxis", "permute_dims", "squeeze")

    def __getattr__(self, name: str):
        if name not in self._NAMES:
            raise AttributeError(f"shadows of arrays can be viewed in other ways, not computed with: {name}")
        function = getattr(np, name)
        return lambda shadow, *args, **options: shadow.through(lambda array: function(array, *args, **options))


class _Shadows:
    """The part of a backend that views ask for."""

    name, xp = "shadows", _Views()

    def reshape(self, shadow: Shadow, shape: tuple[int, ...]) -> tuple[Shadow, bool]:
        try:
            return shadow.through(lambda array: array.reshape(shape, copy=False)), True
        except ValueError:  # it would need a copy
            return Shadow(shape, shadow.dtype), False


SHADOWS = _Shadows()
