"""The order in which an epoch visits the rows of a data set, and the gathering of rows in it.

Three orders, each a function of (seed, epoch) alone: as the rows lie, a permutation of all of them, and blocks at
random with the rows of some blocks mixed. The position in an epoch is a number of rows, so that batches of any size
can be cut from it. Cutting is the business of :mod:`.loader`, randomness that of :mod:`.sampling`.
"""

from __future__ import annotations

import numpy as np

from .dataset import Dataset
from .sampling import BLOCKS, WINDOW, permutation

__all__ = ["AsTheyLie", "Mixed", "Permuted", "default_window"]

_WINDOW_BYTES = 8 << 20
_BLOCKS_PER_WINDOW = 32


class AsTheyLie:
    """The rows in the order of the data set. Batches of arrays in memory are views, or ``copies`` for who writes into
    them."""

    def __init__(self, dataset: Dataset, copies: bool = False):
        self.dataset, self.copy = dataset, copies or None

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Which rows of the data set are at the positions from ``start`` to before ``stop``."""
        return np.arange(start, stop)

    def gather(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Those rows: x and y."""
        x, y = self.dataset.x[start:stop], self.dataset.y[start:stop]
        return np.array(x, copy=self.copy), np.array(y, copy=self.copy)


class Permuted:
    """A permutation of all rows: 8 bytes of index for each of them, and every row read by itself."""

    def __init__(self, dataset: Dataset, seed: int, epoch: int):
        self.dataset, self.order = dataset, permutation(len(dataset), seed, step=epoch)

    def rows(self, start: int, stop: int) -> np.ndarray:
        return self.order[start:stop]

    def gather(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        rows = self.order[start:stop]
        return self.dataset.x.take(rows, axis=0), self.dataset.y.take(rows, axis=0)


class Mixed:
    """Blocks of neighbouring rows in random order, and a permutation of the rows within each window of 32 blocks.

    What is read is contiguous, and one window is held in memory. Each epoch has every row once, as with a permutation
    of all rows; but the rows of a block always come within one window, and so a batch is a sample of 32 blocks (64,
    where two windows meet) instead of all rows. Where rows that lie together are alike, as in a file sorted by class
    or by time, batches vary more from one to the next than with a permutation of all rows.
    """

    def __init__(self, dataset: Dataset, seed: int, epoch: int, window_rows: int):
        self.dataset, self.seed, self.epoch = dataset, seed, epoch
        self.block = max(1, window_rows // _BLOCKS_PER_WINDOW)
        self.per_window = max(1, window_rows // self.block)
        self.blocks = permutation(-(-len(dataset) // self.block), seed, stream=BLOCKS, step=epoch)
        # Every window has as many rows, but for the one with the last block, which may be cut short, and the last one.
        self.short_block = int(np.flatnonzero(self.blocks == len(self.blocks) - 1)[0])
        self.missing = len(self.blocks) * self.block - len(dataset)
        self.arrays = (dataset.x, dataset.y)
        self.held: int | None = None
        self.buffers: list[np.ndarray] = []

    def rows(self, start: int, stop: int) -> np.ndarray:
        return np.concatenate([self._rows(w)[low:high] for w, low, high in self._pieces(start, stop)])

    def gather(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        taken = []
        for window, low, high in self._pieces(start, stop):
            if window != self.held:
                self._read(window)
            taken.append([buffer.take(self.order[low:high], axis=0) for buffer in self.buffers])
        if len(taken) == 1:
            return tuple(taken[0])
        return tuple(np.concatenate(parts) for parts in zip(*taken))

    def _begin(self, window: int) -> int:
        """The position at which a window begins."""
        first = window * self.per_window
        return min(first, len(self.blocks)) * self.block - self.missing * (self.short_block < first)

    def _pieces(self, start: int, stop: int):
        """(window, from, to) of the windows that the positions fall into, counted within each."""
        window = start // (self.per_window * self.block)
        while start < stop:
            begin, end = self._begin(window), self._begin(window + 1)
            if start < end:
                yield window, start - begin, min(stop, end) - begin
                start = min(stop, end)
            window += 1

    def _extents(self, window: int):
        """(first, after the last) row of each block of a window."""
        for block in self.blocks[window * self.per_window : (window + 1) * self.per_window].tolist():
            yield block * self.block, min((block + 1) * self.block, len(self.dataset))

    def _permutation(self, window: int, n: int) -> np.ndarray:
        return permutation(n, self.seed, stream=WINDOW, step=self.epoch, part=window)

    def _rows(self, window: int) -> np.ndarray:
        rows = np.concatenate([np.arange(*extent) for extent in self._extents(window)])
        return rows[self._permutation(window, len(rows))]

    def _read(self, window: int) -> None:
        """Brings a window into the buffers, which every window uses in turn."""
        self.held = None  # what is read may fail, and the buffers then hold no window
        if not self.buffers:
            rows = min(len(self.dataset), self.per_window * self.block)
            self.buffers = [np.empty((rows, *array.shape[1:]), array.dtype) for array in self.arrays]
        at = 0
        for first, last in self._extents(window):
            for array, buffer in zip(self.arrays, self.buffers):
                _copy(array, first, last, buffer[at : at + last - first])
            at += last - first
        self.order, self.held = self._permutation(window, at), window


def _copy(array, first: int, last: int, out: np.ndarray) -> None:
    """The rows from ``first`` to before ``last``; from a file, read straight into place."""
    if isinstance(array, np.ndarray):
        out[...] = array[first:last]
    else:
        array.read(first, last, out)


def default_window(dataset: Dataset) -> int:
    """Rows whose inputs and targets fill 8 MiB."""
    row = sum(int(np.prod(a.shape[1:])) * a.dtype.itemsize for a in (dataset.x, dataset.y))
    return max(1, _WINDOW_BYTES // max(1, row))
