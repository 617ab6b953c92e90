"""csv: from a file to two data sets, in the one honest order.

Parse, split, fit the preprocessor on the training part, encode both parts. Each step can be had alone: see
:mod:`.table`, :mod:`.sampling`, :mod:`.preprocess`.
"""

from __future__ import annotations

from tinynet.errors import ArgumentError

from .dataset import Dataset
from .encoders import check_present
from .preprocess import Preprocessor, infer_task
from .sampling import split_indices
from .table import Table, read_table

__all__ = ["MIN_ROWS_TO_HOLD_OUT", "csv"]

MIN_ROWS_TO_HOLD_OUT = 10


def csv(
    path,
    target: str,
    task: str | None = None,
    holdout: float = 0.2,
    seed: int = 0,
    *,
    delimiter: str | None = None,
) -> tuple[Dataset, Dataset]:
    """Read a CSV file and make of it a data set to train on and one to test with.

    Args:
        path: a CSV file with a header row; :func:`read_table` says what it may hold.
        target: name of the column to predict.
        task: "classification" or "regression"; None decides by the target column, see :func:`infer_task`.
        holdout: share of the rows to test with, in [0, 1). Classes are divided in equal proportion.
        seed: of the split.
        delimiter: the character between cells; None finds it out.

    Returns:
        (train, test). ``x`` is float32 of shape (n, features); ``y`` is int64 of shape (n,) for a classification,
        float32 of shape (n, 1), standardised, for a regression. Both carry ``names``, ``classes`` and the
        ``preprocessor``, which was fitted on the training rows only. With fewer than 10 rows (or holdout 0) nothing
        is held out: ``test`` is of length 0.

    Raises:
        DataError: see :func:`read_table` and :meth:`Preprocessor.fit`; the message names file, line and column.
        ArgumentError: task, holdout, seed or delimiter outside what they may be.
    """
    if not 0 <= holdout < 1:
        raise ArgumentError(
            "csv", expected="holdout from 0 to below 1", got=repr(holdout), mend="give the share of rows to test with"
        )
    table = read_table(path, delimiter=delimiter)
    check_present(table, target)
    # Decided on all rows, so that it does not hang on the seed; numbers a preprocessor learns come from train alone.
    task = infer_task(table, target) if task is None else task
    train, test = _split(table, target, task, holdout, seed)
    preprocessor = Preprocessor.fit(train, target, task)
    return _encode(preprocessor, train), _encode(preprocessor, test)


def _split(table: Table, target: str, task: str, holdout: float, seed: int) -> tuple[Table, Table]:
    n = len(table)
    labels = None
    if task == "classification":
        column = table.column(target)
        labels = column.cells if column.values is None else column.values
    share = 1 - holdout if n >= MIN_ROWS_TO_HOLD_OUT else 1
    first, second = split_indices(n, share, seed, labels)
    return table[first], table[second]


def _encode(preprocessor: Preprocessor, table: Table) -> Dataset:
    return Dataset(
        preprocessor.transform(table),
        preprocessor.target(table),
        classes=preprocessor.classes,
        names=preprocessor.feature_names,
        preprocessor=preprocessor,
    )
