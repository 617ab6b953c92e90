"""Dataset: inputs and targets side by side, one row per sample.

Reading files is the business of :mod:`.images` and :mod:`.tabular`, batching that of :mod:`.loader`; a Dataset
only holds two arrays of equal length, says what their columns and classes are called, and divides itself.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tinynet.errors import ArgumentError, DTypeError, RangeError, ShapeError

from .sampling import split_indices

if TYPE_CHECKING:
    from .preprocess import Preprocessor

__all__ = ["Dataset"]


class Dataset:
    """Inputs ``x`` and targets ``y`` of equal first length, as host arrays.

    Args:
        x: inputs, shape (n, ...).
        y: targets, shape (n, ...): class indices (integers, shape (n,)) or values. Arrays keep their dtype and
            are not copied; those on disk (``StoredArray``) are not read.
        classes: names of the classes; the integers of ``y`` index them.
        names: names of the features, one for each column of a two-dimensional ``x``.
        preprocessor: the fitted Preprocessor that made ``x`` and ``y`` from a table, if one did.

    Indexing: a slice gives a Dataset of views; an array of integers or booleans gives a Dataset of copies; an
    integer gives the pair ``(x[i], y[i])``. Parts keep classes, names and preprocessor.

    Raises:
        ShapeError: x and y differ in length, have no axis, or names do not fit x.
        DTypeError: an array of Python objects.
        RangeError: a class index in ``y`` outside ``classes``.
    """

    __slots__ = ("classes", "names", "preprocessor", "x", "y")

    def __init__(
        self,
        x,
        y,
        *,
        classes: Sequence[str] | None = None,
        names: Sequence[str] | None = None,
        preprocessor: Preprocessor | None = None,
    ):
        self.x, self.y = (array if _reads(array) else np.asarray(array) for array in (x, y))
        self.classes = None if classes is None else tuple(classes)
        self.names = None if names is None else tuple(names)
        self.preprocessor = preprocessor
        for name, array in (("x", self.x), ("y", self.y)):
            if array.ndim == 0:
                raise ShapeError(
                    "Dataset",
                    expected=f"{name} with one row per sample",
                    got=f"a single value, {array!r}",
                    mend="give an array",
                )
            if array.dtype == object:
                raise DTypeError(
                    "Dataset",
                    expected=f"{name} of numbers",
                    got="Python objects",
                    mend="convert to a numeric dtype; rows must be of equal length",
                )
        if len(self.x) != len(self.y):
            raise ShapeError(
                "Dataset",
                expected="x and y of equal length",
                got=f"{len(self.x)} rows in x and {len(self.y)} in y",
                mend="give one target per sample",
            )
        if self.names is not None and (self.x.ndim != 2 or self.x.shape[1] != len(self.names)):
            raise ShapeError(
                "Dataset",
                expected=f"x of shape (n, {len(self.names)}), a column per name",
                got=str(self.x.shape),
                mend="give as many names as x has columns",
            )
        if self.classes is not None and self.has_labels and len(self.y) and not _reads(self.y):
            low, high = int(self.y.min()), int(self.y.max())
            if low < 0 or high >= len(self.classes):
                raise RangeError(
                    "Dataset",
                    expected=f"class indices from 0 to {len(self.classes) - 1}",
                    got=f"{low} to {high} in y",
                    mend="number the classes from 0, in the order of `classes`",
                )

    @property
    def has_labels(self) -> bool:
        """Whether ``y`` is one integer (or boolean) per sample, so that it can name classes."""
        return self.y.ndim == 1 and self.y.dtype.kind in "iub"

    @property
    def on_disk(self) -> bool:
        """Whether rows are read from a disk when they are asked for: see :func:`tinynet.data.stored`."""
        return _reads(self.x) or _reads(self.y)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, rows):
        if isinstance(rows, slice):
            return self._part(self.x[rows], self.y[rows])
        try:
            row = operator.index(rows)
        except TypeError:
            return self._gather(rows)
        if not -len(self) <= row < len(self):
            raise RangeError(
                "Dataset",
                expected=f"a row from {-len(self)} to {len(self) - 1}",
                got=str(row),
                mend="index within the length of the data set",
            )
        return self.x[row], self.y[row]

    def _gather(self, rows) -> Dataset:
        rows = np.asarray(rows)
        if rows.size == 0 and rows.dtype.kind == "f":  # what NumPy makes of an empty list
            rows = rows.astype(np.int64)
        if rows.ndim != 1 or rows.dtype.kind not in "iub":
            raise DTypeError(
                "Dataset",
                expected="a slice, an integer, or a one-dimensional array of integers or booleans",
                got=f"{rows.dtype} of shape {rows.shape}",
                mend="index whole samples; take columns from .x",
            )
        if rows.dtype == bool:
            if len(rows) != len(self):
                raise ShapeError(
                    "Dataset",
                    expected=f"a mask of length {len(self)}",
                    got=f"length {len(rows)}",
                    mend="give one truth value per sample",
                )
            rows = np.flatnonzero(rows)
        elif rows.size and (int(rows.min()) < -len(self) or int(rows.max()) >= len(self)):
            raise RangeError(
                "Dataset",
                expected=f"rows from {-len(self)} to {len(self) - 1}",
                got=f"{rows.min()} to {rows.max()}",
                mend="index within the length of the data set",
            )
        return self._part(self.x.take(rows, axis=0), self.y.take(rows, axis=0))

    def _part(self, x, y) -> Dataset:
        return Dataset(x, y, classes=self.classes, names=self.names, preprocessor=self.preprocessor)

    def split(self, fraction: float, seed: int = 0, stratify: bool | None = None) -> tuple[Dataset, Dataset]:
        """Divide at random into two data sets, of which the first holds ``round(fraction * len(self))`` samples.

        Args:
            fraction: share of the first part, from 0 to 1.
            seed: the same seed makes the same split.
            stratify: whether every class is divided in the same proportion, to within one sample. None does so
                where ``y`` holds one integer per sample.

        Samples keep their order within each part. Raises ArgumentError for a fraction or a seed outside its
        range and for a data set on disk, whose parts would be copies in memory; and DTypeError where
        ``stratify=True`` meets targets that are not classes.
        """
        if self.on_disk:
            raise ArgumentError(
                "Dataset.split",
                expected="a data set in memory",
                got="one on disk",
                mend="divide it by slices, data[:n] and data[n:], which read nothing",
            )
        if stratify and not self.has_labels:
            raise DTypeError(
                "Dataset.split",
                expected="integer y of shape (n,) to stratify by",
                got=f"{self.y.dtype} of shape {self.y.shape}",
                mend="pass stratify=False, or class indices as y",
            )
        by_class = self.has_labels if stratify is None else stratify
        first, second = split_indices(len(self), fraction, seed, self.y if by_class else None)
        return self[first], self[second]

    def __repr__(self) -> str:
        parts = [f"{len(self)} samples"]
        parts += [f"{name} {array.shape[1:]} {array.dtype}" for name, array in (("x", self.x), ("y", self.y))]
        if self.classes is not None:
            parts.append(f"{len(self.classes)} classes")
        return f"Dataset({', '.join(parts)})"


def _reads(array) -> bool:
    """Whether it is a ``StoredArray``, told without its module, which is loaded only where one is opened."""
    return getattr(array, "on_disk", False)
