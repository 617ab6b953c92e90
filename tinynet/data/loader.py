"""Loader: a data set, epoch after epoch, cut into batches.

The order of epoch k is a function of (seed, k) alone, so a run that stops in the middle of an epoch and resumes
elsewhere sees exactly the batches it had left. Moving batches to a device is not done here.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator

import numpy as np

from tinynet.errors import ArgumentError

from .dataset import Dataset
from .sampling import check_seed, permutation

__all__ = ["Loader"]


class Loader:
    """Iterates over one epoch of batches ``(x, y)``; each further iteration is the next epoch.

    Args:
        dataset: a Dataset, or a pair ``(x, y)`` of arrays of equal length.
        batch_size: samples per batch; the last batch of an epoch holds what is left.
        shuffle: a fresh permutation every epoch. The batches are then contiguous copies; without shuffling they
            are views into the data set (writing into one writes into the data).
        seed: of the permutations, which depend on (seed, epoch) and nothing else.
        drop_last: leave out a last batch that is not full.

    Attributes:
        epoch: the number, from 0, of the epoch under way, or of the next one between two epochs.

    An epoch that is left early (``break``, ``next(iter(loader))``) counts as done: the next iteration starts the
    next epoch. Only :meth:`load_state_dict` makes an iteration start in the middle.

    Raises:
        ArgumentError: batch_size below 1 or, with drop_last, above the length; a seed out of range; no samples.
    """

    def __init__(self, dataset, batch_size: int, shuffle: bool = True, seed: int = 0, drop_last: bool = False):
        if not isinstance(dataset, Dataset):
            if not isinstance(dataset, (tuple, list)) or len(dataset) != 2:
                raise ArgumentError(
                    "Loader",
                    expected="a Dataset or a pair (x, y)",
                    got=type(dataset).__name__,
                    mend="wrap the arrays: Dataset(x, y)",
                )
            dataset = Dataset(*dataset)
        try:
            size = operator.index(batch_size)
        except TypeError:
            size = 0
        if size < 1:
            raise ArgumentError(
                "Loader",
                expected="a batch_size of at least 1",
                got=repr(batch_size),
                mend="give the samples per batch as an integer",
            )
        if len(dataset) == 0:
            raise ArgumentError(
                "Loader", expected="at least one sample", got="an empty data set", mend="check how the data was split"
            )
        if drop_last and size > len(dataset):
            raise ArgumentError(
                "Loader",
                expected=f"a batch_size of at most {len(dataset)}, the length of the data set, with drop_last",
                got=str(size),
                mend="an epoch would have no batch: lower batch_size or drop drop_last",
            )
        self.dataset, self.batch_size = dataset, size
        self.shuffle, self.drop_last = bool(shuffle), bool(drop_last)
        self.seed = check_seed(seed, "Loader")
        self.epoch = 0
        self._batch = 0  # batches of this epoch already handed out
        self._resumed = False

    def __len__(self) -> int:
        """Batches per epoch."""
        whole, rest = divmod(len(self.dataset), self.batch_size)
        return whole if self.drop_last else whole + (rest > 0)

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        if self._batch and not self._resumed:
            self.epoch, self._batch = self.epoch + 1, 0
        self._resumed = False
        # The position is kept in local names, so that two iterations side by side do not mix.
        epoch, first, total = self.epoch, self._batch, len(self)
        n, size, x, y = len(self.dataset), self.batch_size, self.dataset.x, self.dataset.y
        order = permutation(n, self.seed, step=epoch) if self.shuffle else None
        for batch in range(first, total):
            # Counted before it is handed out: a state taken in the loop's body must not repeat this batch.
            self.epoch, self._batch = epoch, batch + 1
            rows = slice(batch * size, min((batch + 1) * size, n))
            if order is None:
                yield x[rows], y[rows]
            else:
                yield np.take(x, order[rows], axis=0), np.take(y, order[rows], axis=0)
        self.epoch, self._batch = epoch + 1, 0

    def state_dict(self) -> dict:
        """The position, as plain values: epoch and batch (batches of it already handed out), and what fixes the
        order (length, batch_size, seed, shuffle, drop_last). Taken in the body of a loop, it counts the batch at
        hand as done."""
        return {"epoch": self.epoch, "batch": self._batch, **self._order_settings()}

    def load_state_dict(self, state: dict) -> None:
        """Take up the position of ``state``: the next iteration yields exactly the batches it had left.

        Raises:
            ArgumentError: a state of another length, batch size, seed, shuffle or drop_last (its batches would not
                be those left), or one that is damaged. The loader is then as before.
        """
        where = "Loader.load_state_dict"
        mend = "pass what state_dict() gave"
        for name, own in self._order_settings().items():
            if name not in state:
                raise ArgumentError(where, expected=f"an entry {name!r}", got="none", mend=mend)
            if state[name] != own:
                raise ArgumentError(
                    where,
                    expected=f"{name} {own}, as this loader has",
                    got=str(state[name]),
                    mend="build the loader with the data and settings of the run to resume",
                )
        for name, limit in (("epoch", 2**64 - 1), ("batch", len(self))):
            value = state.get(name)
            if not isinstance(value, (int, np.integer)) or not 0 <= value <= limit:
                raise ArgumentError(where, expected=f"{name} from 0 to {limit}", got=repr(value), mend=mend)
        self.epoch, self._batch, self._resumed = int(state["epoch"]), int(state["batch"]), True

    def _order_settings(self) -> dict:
        return {
            "length": len(self.dataset),
            "batch_size": self.batch_size,
            "seed": self.seed,
            "shuffle": self.shuffle,
            "drop_last": self.drop_last,
        }

    def __repr__(self) -> str:
        return f"Loader({self.dataset!r}, batch_size={self.batch_size}, {len(self)} batches, epoch {self.epoch})"
