"""Loader: a data set, epoch after epoch, cut into batches.

The order of epoch k is a function of (seed, k) alone and the position in it is a number of rows, so a run that stops in
the middle of an epoch and resumes elsewhere sees exactly the batches it had left. Orders are in :mod:`.order`, the
making of a batch in :mod:`.making`, the thread that works ahead in :mod:`.prefetch`. Moving batches to a device is not
done here.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from tinynet.errors import ArgumentError

from .dataset import Dataset
from .making import Batch, batches
from .order import AsTheyLie, Mixed, Permuted, default_window
from .sampling import check_seed

__all__ = ["Loader", "count_batches"]


class Loader:
    """Iterates over one epoch of batches ``(x, y)``; each further iteration is the next epoch.

    Args:
        dataset: a Dataset, in memory or on disk, or a pair ``(x, y)`` of arrays of equal length.
        batch_size: samples per batch, or a sequence of such numbers, which are taken in turn and begin anew with each
            epoch; the last batch of an epoch holds what is left.
        shuffle: a fresh order every epoch: "rows" permutes all rows, "blocks" reads neighbouring rows together and
            mixes those of one window (see ``window_rows``). True is "rows" for arrays in memory, and "blocks" for
            arrays on disk, where to read single rows is slow. The batches are then contiguous copies; without
            shuffling they are views into data in memory (writing into one writes into the data).
        seed: of the orders, which depend on (seed, epoch) and nothing else.
        drop_last: leave out a last batch that is not full.
        transform: a function of a batch, ``(x, y) -> (x, y)``, which runs on the host for each one. What it returns
            should depend on its arguments alone: it may be called for a batch that is not used.
        prefetch: so many batches are gathered and transformed ahead, by one thread; 0 makes each when it is asked for.
            The batches are the same. At most ``prefetch`` + 2 of them live at once, the one at hand among them.
            It pays where reading or transforming takes long; a step that keeps all cores busy gains nothing by it.
        window_rows: for "blocks", how many rows are mixed (and held in memory): 32 blocks of neighbouring rows, each
            from a place at random. By default as many as fill 8 MiB. In a data set of no more rows all are permuted.

    Attributes:
        epoch: the number, from 0, of the epoch under way, or of the next one between two epochs.
        shuffle: False, "rows" or "blocks".

    An epoch that is left early (``break``, ``next(iter(loader))``) counts as done: the next iteration starts the
    next epoch. Only :meth:`load_state_dict` makes an iteration start in the middle.

    Raises:
        ArgumentError: a batch size below 1 or, with drop_last, above the length; another argument outside what it may
            be; no samples.
        DataError: while iterating, a batch that cannot be read or transformed. The message names the epoch, the batch
            and its rows, and the sample, where one alone raises it; the cause is chained. The position stays before
            the batch.
    """

    def __init__(
        self,
        dataset,
        batch_size: int | Sequence[int],
        shuffle: bool | str = True,
        seed: int = 0,
        drop_last: bool = False,
        *,
        transform: Callable[[np.ndarray, np.ndarray], Batch] | None = None,
        prefetch: int = 0,
        window_rows: int | None = None,
    ):
        if not isinstance(dataset, Dataset):
            if not isinstance(dataset, (tuple, list)) or len(dataset) != 2:
                raise ArgumentError(
                    "Loader",
                    expected="a Dataset or a pair (x, y)",
                    got=type(dataset).__name__,
                    mend="wrap the arrays: Dataset(x, y)",
                )
            dataset = Dataset(*dataset)
        shuffle = shuffle if isinstance(shuffle, str) else bool(shuffle)
        if shuffle not in (True, False, "rows", "blocks"):
            raise ArgumentError("Loader", expected="shuffle True, False, 'rows' or 'blocks'", got=repr(shuffle))
        if transform is not None and not callable(transform):
            raise ArgumentError("Loader", expected="transform, a function of (x, y)", got=repr(transform))
        self.dataset, self.drop_last, self.transform = dataset, bool(drop_last), transform
        self.prefetch = _at_least(0, prefetch, "prefetch", "give the batches to be made ahead as an integer")
        self._sizes = self._checked(batch_size)
        if len(dataset) == 0:
            raise ArgumentError(
                "Loader", expected="at least one sample", got="an empty data set", mend="check how the data was split"
            )
        if shuffle is True:
            shuffle = "blocks" if dataset.on_disk else "rows"
        self.shuffle, self.window_rows = shuffle, None
        if shuffle == "blocks":
            window = default_window(dataset) if window_rows is None else window_rows
            self.window_rows = _at_least(1, window, "window_rows", "give the rows to be mixed as an integer")
        elif window_rows is not None:
            raise ArgumentError(
                "Loader", expected="window_rows with shuffle='blocks' only", got=f"it with shuffle={shuffle!r}",
                mend="pass shuffle='blocks', or leave it out",
            )  # fmt: skip
        self.seed = check_seed(seed, "Loader")
        self.epoch = 0
        self._settings = {  # what a state is compared by
            "length": len(dataset), "batch_size": _plain(self._sizes), "seed": self.seed,
            "shuffle": {"rows": True}.get(shuffle, shuffle), "drop_last": self.drop_last,
        }  # fmt: skip
        if shuffle == "blocks":
            self._settings["window_rows"] = self.window_rows
        self._assigned = 0  # how often batch_size was
        self._batch = self._row = 0  # handed out of this epoch
        self._turn = 0  # batches since the first of the sizes was taken
        self._resumed = self._iterating = False

    @property
    def batch_size(self) -> int | tuple[int, ...]:
        """Samples per batch, or the sizes that are taken in turn.

        Can be assigned at any time, also while an epoch is under way: it counts from the next batch on, and no row is
        repeated or left out. A sequence then begins with its first size.

        Raises:
            ArgumentError: as for the constructor; the size is then as before.
        """
        return self._sizes[0] if len(self._sizes) == 1 else self._sizes

    @batch_size.setter
    def batch_size(self, batch_size: int | Sequence[int]) -> None:
        self._sizes = self._checked(batch_size)
        self._turn, self._assigned = 0, self._assigned + 1

    def _checked(self, batch_size) -> tuple[int, ...]:
        mend = "give the samples per batch as an integer, or several"
        several = isinstance(batch_size, (Sequence, np.ndarray)) and not isinstance(batch_size, (str, bytes))
        if several and not len(batch_size):
            raise ArgumentError("Loader", expected="a batch_size of at least 1", got=repr(batch_size), mend=mend)
        given = batch_size if several else [batch_size]
        sizes = tuple(_at_least(1, size, "a batch_size", mend) for size in given)
        if self.drop_last and len(self.dataset) and max(sizes) > len(self.dataset):
            raise ArgumentError(
                "Loader",
                expected=f"a batch_size of at most {len(self.dataset)}, the length of the data set, with drop_last",
                got=str(max(sizes)),
                mend="an epoch would have no batch of it: lower batch_size or drop drop_last",
            )
        return sizes

    @property
    def between_epochs(self) -> bool:
        """Whether no epoch is under way that has batches left: none was begun, or its last batch was handed out."""
        under_way = self._row and (self._resumed or self._iterating)
        return not under_way or next(self._cuts(self._row, self._turn), None) is None

    def __len__(self) -> int:
        """Batches of a whole epoch of the present sizes."""
        return count_batches(len(self.dataset), self._sizes, self.drop_last)

    @property
    def batches_left(self) -> int:
        """Batches that the epoch under way has left, of the present sizes; those of a whole one between two epochs."""
        if self.between_epochs:
            return len(self)
        first = self._turn % len(self._sizes)
        return count_batches(len(self.dataset) - self._row, self._sizes[first:] + self._sizes[:first], self.drop_last)

    def __iter__(self) -> Iterator[Batch]:
        if self._row and not self._resumed:
            self.epoch, self._batch, self._row, self._turn = self.epoch + 1, 0, 0, 0
        self._resumed = False
        # The position is kept in local names, so that two iterations side by side do not mix.
        epoch, batch, row, turn = self.epoch, self._batch, self._row, self._turn
        order, made, assigned = self._order(epoch), None, self._assigned
        try:
            while True:
                if made is None or assigned != self._assigned:
                    if made is not None:
                        made.close()
                        assigned, turn = self._assigned, 0
                    made = self._made(order, epoch, batch, row, turn)
                found = next(made, None)
                if found is None:
                    break
                row, pair = found
                batch, turn = batch + 1, turn + 1
                # Counted before it is handed out: a state taken in the loop's body must not repeat this batch.
                self.epoch, self._batch, self._row, self._turn, self._iterating = epoch, batch, row, turn, True
                del found
                yield pair
                del pair
            self.epoch, self._batch, self._row, self._turn = epoch + 1, 0, 0, 0
        finally:
            self._iterating = False
            if made is not None:
                made.close()

    def _order(self, epoch: int) -> AsTheyLie | Mixed | Permuted:
        if self.shuffle == "blocks":
            return Mixed(self.dataset, self.seed, epoch, self.window_rows)
        if self.shuffle:
            return Permuted(self.dataset, self.seed, epoch)
        return AsTheyLie(self.dataset, copies=self.transform is not None)

    def _cuts(self, row: int, turn: int) -> Iterator[tuple[int, int]]:
        """(from, to) of the batches from a position on, of the sizes as they are now."""
        sizes, length = self._sizes, len(self.dataset)
        while row < length:
            stop = row + sizes[turn % len(sizes)]
            if stop > length:
                if self.drop_last:
                    return
                stop = length
            yield row, stop
            row, turn = stop, turn + 1

    def _made(self, order, epoch: int, batch: int, row: int, turn: int):
        """Iterates over (position behind it, batch) from a position on, as far as the batch size stays."""
        items = batches(order, self._cuts(row, turn), self.transform, f"Loader, epoch {epoch}", batch)
        if not self.prefetch:
            return items
        from .prefetch import Prefetched

        return Prefetched(items, self.prefetch)

    def state_dict(self) -> dict:
        """The position and what fixes the batches, as plain values that JSON can hold.

        "epoch"; of it "batch" and "row", the batches and rows handed out; "sizes", the batch size as it is now, and
        "turn", the batches of them; and the settings of the constructor (length, batch_size, seed, shuffle, drop_last).
        Taken in the body of a loop, it counts the batch at hand as done, and none that was only prefetched.
        """
        position = {"epoch": self.epoch, "batch": self._batch, "row": self._row, "turn": self._turn}
        return {**position, "sizes": _plain(self._sizes), **self._settings}

    def load_state_dict(self, state: dict) -> None:
        """Take up the position of ``state``, and its batch size if one was assigned: the next iteration yields exactly
        the batches it had left.

        Raises:
            ArgumentError: a state of a loader of another length, batch size, seed, shuffle or drop_last (its batches
                would not be those left), or one that is damaged. The loader is then as before.
        """
        where = "Loader.load_state_dict"
        mend = "pass what state_dict() gave"
        for name, own in self._settings.items():
            if name not in state:
                raise ArgumentError(where, expected=f"an entry {name!r}", got="none", mend=mend)
            if state[name] != own:
                raise ArgumentError(
                    where,
                    expected=f"{name} {own}, as this loader has",
                    got=str(state[name]),
                    mend="build the loader with the data and settings of the run to resume",
                )
        length = len(self.dataset)
        if "row" not in state:  # written when all batches of a loader were of one size
            size = self._settings["batch_size"]
            _count(state, "batch", -(-length // size), where, mend)
            state = {**state, "row": min(state["batch"] * size, length), "turn": state["batch"], "sizes": size}
        _count(state, "epoch", 2**64 - 1, where, mend)
        _count(state, "row", length, where, mend)
        _count(state, "batch", state["row"], where, mend)
        _count(state, "turn", state["batch"], where, mend)
        sizes = self._checked(state.get("sizes"))
        if sizes != self._sizes:
            self.batch_size = sizes
        position = (int(state[name]) for name in ("epoch", "batch", "row", "turn"))
        self.epoch, self._batch, self._row, self._turn = position
        self._resumed = True

    def __repr__(self) -> str:
        return f"Loader({self.dataset!r}, batch_size={self.batch_size}, {len(self)} batches, epoch {self.epoch})"


def count_batches(length: int, sizes: Sequence[int], drop_last: bool = False) -> int:
    """How many batches of these sizes, taken in turn, ``length`` rows give."""
    rounds, rest = divmod(length, sum(sizes))
    batches = rounds * len(sizes)
    for size in sizes:
        if rest <= 0 or (drop_last and rest < size):
            break
        batches, rest = batches + 1, rest - size
    return batches


def _at_least(least: int, value, name: str, mend: str) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if number < least:
        raise ArgumentError("Loader", expected=f"{name} of at least {least}", got=repr(value), mend=mend)
    return number


def _count(state: dict, name: str, limit: int, where: str, mend: str) -> None:
    value = state.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not 0 <= value <= limit:
        raise ArgumentError(where, expected=f"{name} from 0 to {limit}", got=repr(value), mend=mend)


def _plain(sizes: tuple[int, ...]) -> int | list[int]:
    return sizes[0] if len(sizes) == 1 else list(sizes)
