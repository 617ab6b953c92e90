"""Batches made of the rows of a data set: gathered, transformed, and their faults named by epoch, batch and row.

This runs in the consumer's thread or in the one that works ahead; it holds nothing of the loader. Which rows make a
batch is decided in :mod:`.loader`, where they lie in :mod:`.order`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from tinynet.errors import DataError

__all__ = ["Batch", "batches"]

_NAMED_ROWS = 8  # so many rows of a batch are named in an error
Batch = tuple[np.ndarray, np.ndarray]


def batches(
    order, cuts: Iterable[tuple[int, int]], transform: Callable | None, where: str, number: int
) -> Iterator[tuple[int, Batch]]:
    """(position behind it, batch) for each cut, of which the first is batch ``number`` of the epoch ``where``."""
    for start, stop in cuts:
        try:
            pair = order.gather(start, stop)
        except Exception as error:
            raise _fault(where, number, order.rows(start, stop), "a batch that can be read", error) from error
        if transform is not None:
            try:
                pair = _transformed(transform, *pair)
            except Exception as error:
                rows = order.rows(start, stop)
                name = getattr(transform, "__name__", type(transform).__name__)
                one = _culprit(transform, *order.gather(start, stop), rows)
                raise _fault(where, number, rows, f"{name}(x, y) to transform the batch", error, one) from error
        yield stop, pair
        del pair
        number += 1


def _transformed(transform, x: np.ndarray, y: np.ndarray) -> Batch:
    pair = transform(x, y)
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise DataError("transform", expected="a pair (x, y)", got=type(pair).__name__, mend="return both arrays")
    x, y = map(np.asarray, pair)
    if not x.ndim or not y.ndim or not 0 < len(x) == len(y):
        raise DataError("transform", expected="x and y with one row per sample", got=f"shapes {x.shape} and {y.shape}")
    return x, y


def _culprit(transform, x: np.ndarray, y: np.ndarray, rows: np.ndarray) -> int | None:
    """The first row that cannot be transformed by itself; None if each can."""
    for i, row in enumerate(rows.tolist()):
        try:
            _transformed(transform, x[i : i + 1], y[i : i + 1])
        except Exception:
            return row
    return None


def _fault(where: str, number: int, rows: np.ndarray, expected: str, error: Exception, one: int | None = None):
    if len(rows) > 1 and (np.diff(rows) == 1).all():
        named = f"{rows[0]} to {rows[-1]}"
    else:
        named = ", ".join(map(str, rows[:_NAMED_ROWS].tolist()))
        named += f" and {len(rows) - _NAMED_ROWS} more" if len(rows) > _NAMED_ROWS else ""
    mend = "see the cause, above"
    if one is not None:
        mend = f"the sample at row {one} of the data set raises an error by itself; {mend}"
    got = f"{type(error).__name__}: {error}"
    return DataError(f"{where}, batch {number} (rows {named})", expected=expected, got=got, mend=mend)
