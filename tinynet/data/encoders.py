"""Encoders: one column of a table <-> numbers for a network.

Each is a frozen record of what training rows said about one column (``fit``), can apply it (``encode``), and can be
written to and read from plain JSON values (``to_dict``, ``from_dict``). Which columns there are, and in which
order, is the business of :mod:`.preprocess`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tinynet.errors import DataError, DTypeError, RangeError, ShapeError

from .records import RELOAD, field, number, positive, text, texts
from .table import Table

__all__ = ["MAX_CATEGORIES", "CategoricalColumn", "ClassTarget", "NumericColumn", "ValueTarget"]

MAX_CATEGORIES = 1000  # in one column: more are names or identifiers, and one-hot rows would fill the memory


@dataclass(frozen=True)
class NumericColumn:
    """A number per row: ``(value - mean) / scale``, and 0, the mean, where the value is missing."""

    name: str
    mean: float
    scale: float

    @classmethod
    def fit(cls, table: Table, name: str) -> NumericColumn:
        """Mean and standard deviation of the values that are there; scale 1 for a constant column."""
        values = table.numbers(name)
        return cls(name, *moments(values[~np.isnan(values)]))

    @property
    def feature_names(self) -> list[str]:
        return [self.name]

    def encode(self, table: Table, out: np.ndarray) -> None:
        """Write the column of ``table`` into ``out``, float32 of shape (n, 1)."""
        values = table.numbers(self.name)
        out[:, 0] = np.where(np.isnan(values), 0, standardise(table, self.name, values, self.mean, self.scale))

    def to_dict(self) -> dict:
        return {"name": self.name, "kind": "numeric", "mean": self.mean, "scale": self.scale}

    @classmethod
    def from_dict(cls, state: dict, where: str) -> NumericColumn:
        return cls(text(state, "name", where), number(state, "mean", where), positive(state, "scale", where))


@dataclass(frozen=True)
class CategoricalColumn:
    """One column of 0 and 1 per category, in sorted order, and a last one for missing cells if training had some.

    A category (or a missing cell) that training did not have is encoded as zeros throughout.
    """

    name: str
    vocabulary: tuple[str, ...]
    missing: bool

    @classmethod
    def fit(cls, table: Table, name: str) -> CategoricalColumn:
        """The categories of the column; DataError if they are more than MAX_CATEGORIES."""
        seen = set(table.column(name).cells)
        vocabulary = tuple(sorted(seen - {None}))
        if len(vocabulary) > MAX_CATEGORIES:
            raise DataError(
                f"{table.path}, column {name!r}",
                expected=f"numbers, or text of at most {MAX_CATEGORIES} different values",
                got=f"text of {len(vocabulary)} different values, such as {vocabulary[0]!r}",
                mend="remove the column if it names rows; write numbers with a decimal point",
            )
        return cls(name, vocabulary, None in seen)

    @property
    def feature_names(self) -> list[str]:
        # None stands for a missing cell; "?" cannot be a category, since it marks one.
        return [f"{self.name}={'?' if category is None else category}" for category in self._categories]

    @property
    def _categories(self) -> tuple[str | None, ...]:
        return (*self.vocabulary, None) if self.missing else self.vocabulary

    @cached_property
    def _index(self) -> dict[str | None, int]:
        return {category: i for i, category in enumerate(self._categories)}

    def encode(self, table: Table, out: np.ndarray) -> None:
        """Write the column of ``table`` into ``out``, float32 zeros of shape (n, categories)."""
        cells = table.column(self.name).cells
        codes = np.fromiter((self._index.get(cell, -1) for cell in cells), dtype=np.int64, count=len(cells))
        rows = np.flatnonzero(codes >= 0)
        out[rows, codes[rows]] = 1

    def to_dict(self) -> dict:
        return {
            "name": self.name,
            "kind": "categorical",
            "vocabulary": list(self.vocabulary),
            "missing": self.missing,
        }

    @classmethod
    def from_dict(cls, state: dict, where: str) -> CategoricalColumn:
        missing = field(state, "missing", bool, "true or false", where)
        return cls(text(state, "name", where), texts(state, "vocabulary", where), missing)


@dataclass(frozen=True)
class ValueTarget:
    """The target of a regression, standardised like a numeric column; no value may be missing."""

    name: str
    mean: float
    scale: float
    classes = None

    @classmethod
    def fit(cls, table: Table, name: str) -> ValueTarget:
        check_present(table, name)
        return cls(name, *moments(table.numbers(name)))

    def encode(self, table: Table) -> np.ndarray:
        """float32 of shape (n, 1)."""
        check_present(table, self.name)
        values = standardise(table, self.name, table.numbers(self.name), self.mean, self.scale)
        return values[:, np.newaxis]

    def decode(self, predicted) -> np.ndarray:
        """Predictions in the unit of the file: float64 of the shape of ``predicted``."""
        return np.asarray(predicted, dtype=np.float64) * self.scale + self.mean

    def to_dict(self) -> dict:
        return {"name": self.name, "mean": self.mean, "scale": self.scale}

    @classmethod
    def from_dict(cls, state: dict, where: str) -> ValueTarget:
        return cls(text(state, "name", where), number(state, "mean", where), positive(state, "scale", where))


@dataclass(frozen=True)
class ClassTarget:
    """The target of a classification: an index into the sorted classes (as numbers, where all are numbers)."""

    name: str
    classes: tuple[str, ...]
    numeric: bool

    @classmethod
    def fit(cls, table: Table, name: str) -> ClassTarget:
        check_present(table, name)
        column = table.column(name)
        if column.kind == "numeric":
            return cls(name, tuple(map(_plain, np.unique(column.values).tolist())), True)
        return cls(name, tuple(sorted(set(column.cells))), False)

    def encode(self, table: Table) -> np.ndarray:
        """int64 of shape (n,); DataError for a class that training did not have."""
        check_present(table, self.name)
        if self.numeric:
            index = {float(label): i for i, label in enumerate(self.classes)}
            keys = table.numbers(self.name).tolist()
        else:
            index = {label: i for i, label in enumerate(self.classes)}
            keys = table.column(self.name).cells
        codes = np.fromiter((index.get(key, -1) for key in keys), dtype=np.int64, count=len(table))
        if len(codes) and codes.min() < 0:
            row = int(codes.argmin())
            raise DataError(
                table.where(row, self.name),
                expected=f"a class of the training rows ({_some(self.classes)})",
                got=repr(table.column(self.name).cells[row]),
                mend="correct the cell, give training rows of this class, or predict values with task='regression'",
            )
        return codes

    def decode(self, predicted) -> np.ndarray:
        """Names of the predicted classes, shape (n,), from class indices (n,) or scores (n, classes)."""
        predicted = np.asarray(predicted)
        if predicted.ndim == 2 and predicted.shape[1] == len(self.classes):
            predicted = predicted.argmax(axis=1)
        elif predicted.ndim != 1:
            raise ShapeError(
                "inverse_target",
                expected=f"class indices of shape (n,) or scores of shape (n, {len(self.classes)})",
                got=str(predicted.shape),
                mend="pass what the model gives",
            )
        if predicted.size and predicted.dtype.kind not in "iu":
            raise DTypeError(
                "inverse_target", expected="integers as class indices", got=str(predicted.dtype), mend="take the argmax"
            )
        if predicted.size and not 0 <= predicted.min() <= predicted.max() < len(self.classes):
            raise RangeError(
                "inverse_target",
                expected=f"class indices from 0 to {len(self.classes) - 1}",
                got=f"{predicted.min()} to {predicted.max()}",
                mend="check that the model was trained with this preprocessor",
            )
        return np.array(self.classes)[predicted.astype(np.int64)]

    def to_dict(self) -> dict:
        return {"name": self.name, "classes": list(self.classes), "numeric": self.numeric}

    @classmethod
    def from_dict(cls, state: dict, where: str) -> ClassTarget:
        classes = texts(state, "classes", where)
        numeric = field(state, "numeric", bool, "true or false", where)
        if not classes or (numeric and not all(map(_is_number, classes))):
            wanted = "numbers, as text, in a list that is not empty" if numeric else "at least one class"
            raise DataError(f"{where}.classes", expected=wanted, got=_some(classes) or "none", mend=RELOAD)
        return cls(text(state, "name", where), classes, numeric)


def moments(values: np.ndarray) -> tuple[float, float]:
    """Mean and (population) standard deviation, the latter 1 where the values do not differ but for rounding.

    Computed on values scaled by a power of two, which is exact, so that no square overflows.
    """
    _, exponent = np.frexp(np.abs(values).max(initial=0))
    unit = np.ldexp(values, -exponent)
    mean, deviation = float(unit.mean()), float(unit.std())
    if deviation <= 4 * np.finfo(np.float64).eps * abs(mean):
        return float(values[0]), 1.0
    return math.ldexp(mean, int(exponent)), math.ldexp(deviation, int(exponent)) or 1.0


def standardise(table: Table, name: str, values: np.ndarray, mean: float, scale: float) -> np.ndarray:
    """``(values - mean) / scale`` as float32; DataError at the first value (NaN aside) that float32 cannot hold."""
    with np.errstate(over="ignore"):
        result = ((values - mean) / scale).astype(np.float32)
    if np.isinf(result).any():
        row = int(np.isinf(result).argmax())
        raise DataError(
            table.where(row, name),
            expected=f"a number that training rows (mean {mean:g}, deviation {scale:g}) make plausible",
            got=repr(table.column(name).cells[row]),
            mend="correct the cell, or leave it empty if the value is missing",
        )
    return result


def check_present(table: Table, name: str) -> None:
    """Raise DataError at the first row without a target."""
    for row in np.flatnonzero(np.equal(table.column(name).cells, None)):
        raise DataError(
            table.where(row, name), expected="a value of the target", got="a missing cell", mend="remove the row"
        )


def _plain(value: float) -> str:
    return str(int(value)) if value.is_integer() else repr(value)


def _is_number(label: str) -> bool:
    try:
        return math.isfinite(float(label))
    except ValueError:
        return False


def _some(classes: tuple[str, ...]) -> str:
    return ", ".join(map(repr, classes[:10])) + ", ..." * (len(classes) > 10)
