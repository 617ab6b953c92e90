"""Preprocessor: from the columns of a table to the arrays of a network, and back for the target.

It is fitted on training rows only, is immutable from then on, and is saved beside the model, so that a file seen
years later is encoded exactly as the training rows were. What happens to one column is in :mod:`.encoders`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tinynet.errors import ArgumentError, DataError

from .encoders import CategoricalColumn, ClassTarget, NumericColumn, ValueTarget
from .records import RELOAD, field
from .table import Table

__all__ = ["Preprocessor", "infer_task"]

_COLUMNS = {"numeric": NumericColumn, "categorical": CategoricalColumn}
_TARGETS = {"classification": ClassTarget, "regression": ValueTarget}
_VERSION = 1


def infer_task(table: Table, target: str) -> str:
    """Whether to predict classes ("classification") or values ("regression"), by the target column.

    Classification, if the target is text; or if all its values are integers and there are few of them: at most
    two different ones, or at most 20 and at most one for every ten rows. Otherwise regression. Raises DataError for
    a column that does not exist.
    """
    column = table.column(target)
    if column.kind == "categorical":
        return "classification"
    values = np.unique(column.values[~np.isnan(column.values)])
    few = len(values) <= max(2, min(20, len(table) // 10))
    return "classification" if few and (values == np.floor(values)).all() else "regression"


@dataclass(frozen=True)
class Preprocessor:
    """How the columns of a table become features and a target.

    Numeric columns are standardised with the mean and standard deviation of the training rows, missing values
    becoming the mean. Categorical columns become one column of 0 and 1 per category. A column without a single
    value in the training rows says nothing and makes no feature. The target becomes a class index, or is
    standardised.

    Attributes:
        columns: one encoder per column used, in the order of the training file.
        target_column: the encoder of the target.

    Made by :meth:`fit` or :meth:`from_dict`.
    """

    columns: tuple[NumericColumn | CategoricalColumn, ...]
    target_column: ClassTarget | ValueTarget

    @classmethod
    def fit(cls, table: Table, target: str, task: str | None = None) -> Preprocessor:
        """Learn from the rows of ``table``, which should be training rows and nothing else.

        Args:
            table: the training rows.
            target: name of the column to predict; all others are features.
            task: "classification" or "regression"; None asks :func:`infer_task`.

        Raises:
            DataError: no such column, no rows, a missing target, text as the target of a regression, a
                categorical column of more than 1,000 categories, or no feature. The message names the file.
            ArgumentError: an unknown task.
        """
        table.column(target)
        if not len(table):
            raise DataError(table.path, expected="training rows", got="none", mend="give at least one row")
        task = infer_task(table, target) if task is None else task
        if task not in _TARGETS:
            raise ArgumentError(
                "Preprocessor.fit",
                expected="task 'classification', 'regression' or None",
                got=repr(task),
                mend="None decides by the target column",
            )
        target_column = _TARGETS[task].fit(table, target)
        columns = tuple(
            _COLUMNS[column.kind].fit(table, name)
            for name, column in table.columns.items()
            if name != target and not np.equal(column.cells, None).all()
        )
        if not columns:
            raise DataError(
                table.path,
                expected=f"a column with values beside the target {target!r}",
                got="none",
                mend="add the columns to predict from",
            )
        return cls(columns, target_column)

    @property
    def task(self) -> str:
        """What is predicted: "classification" or "regression"."""
        return "classification" if isinstance(self.target_column, ClassTarget) else "regression"

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Names of the classes, sorted (as numbers, where all are numbers); None for a regression."""
        return self.target_column.classes

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the features: "age" for a numeric column, "colour=red" for a category, "colour=?" for missing."""
        return tuple(name for column in self.columns for name in column.feature_names)

    def transform(self, table: Table) -> np.ndarray:
        """The features of ``table``: float32 of shape (n, len(feature_names)).

        Columns are found by name; others than those of the training file, the target included, may be there or
        not. Raises DataError for a column that is missing, and for a cell of a numeric column that is no number.
        """
        for column in self.columns:
            table.column(column.name)  # all names first: an error in the schema comes before one in a cell
        out = np.zeros((len(table), len(self.feature_names)), dtype=np.float32)
        start = 0
        for column in self.columns:
            stop = start + len(column.feature_names)
            column.encode(table, out[:, start:stop])
            start = stop
        return out

    def target(self, table: Table) -> np.ndarray:
        """The target of ``table``: class indices, int64 of shape (n,), or standardised values, float32 (n, 1).

        Raises DataError, with the line, for a missing target, a class that training did not have, or text where
        numbers are expected.
        """
        return self.target_column.encode(table)

    def inverse_target(self, predicted) -> np.ndarray:
        """Predictions in the terms of the file.

        Regression: values in the unit of the file, float64 of the shape of ``predicted``. Classification: class
        names, shape (n,), from class indices (n,) or scores (n, classes), of which the largest counts. Raises
        ShapeError, DTypeError or RangeError for predictions that are neither.
        """
        return self.target_column.decode(predicted)

    def to_dict(self) -> dict:
        """Everything it knows, as values that JSON can hold; :meth:`from_dict` restores an equal one."""
        return {
            "version": _VERSION,
            "task": self.task,
            "target": self.target_column.to_dict(),
            "columns": [column.to_dict() for column in self.columns],
        }

    @classmethod
    def from_dict(cls, state: dict) -> Preprocessor:
        """Restore what :meth:`to_dict` gave. Raises DataError, naming the field, for anything else."""
        where = "preprocessor"
        if not isinstance(state, dict):
            raise DataError(where, expected="a dictionary", got=type(state).__name__, mend=RELOAD)
        version = field(state, "version", int, f"version {_VERSION}", where)
        if version != _VERSION:
            raise DataError(
                f"{where}.version", expected=str(_VERSION), got=str(version), mend="update tinynet to read this file"
            )
        task = field(state, "task", str, "'classification' or 'regression'", where)
        if task not in _TARGETS:
            raise DataError(f"{where}.task", expected="'classification' or 'regression'", got=repr(task), mend=RELOAD)
        target = field(state, "target", dict, "a dictionary", where)
        target_column = _TARGETS[task].from_dict(target, f"{where}.target")

        columns = []
        for i, entry in enumerate(field(state, "columns", (list, tuple), "a list of columns", where)):
            here = f"{where}.columns[{i}]"
            if not isinstance(entry, dict):
                raise DataError(here, expected="a dictionary", got=type(entry).__name__, mend=RELOAD)
            kind = field(entry, "kind", str, "'numeric' or 'categorical'", here)
            if kind not in _COLUMNS:
                raise DataError(f"{here}.kind", expected="'numeric' or 'categorical'", got=repr(kind), mend=RELOAD)
            columns.append(_COLUMNS[kind].from_dict(entry, here))
        names = [column.name for column in columns]
        if not names or len({target_column.name, *names}) != len(names) + 1:
            raise DataError(
                f"{where}.columns",
                expected="columns, each of another name, none that of the target",
                got=", ".join(map(repr, names)) or "none",
                mend=RELOAD,
            )
        return cls(tuple(columns), target_column)

    def __repr__(self) -> str:
        return (
            f"Preprocessor({self.task} of {self.target_column.name!r}, "
            f"{len(self.feature_names)} features from {len(self.columns)} columns)"
        )
