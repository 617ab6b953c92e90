"""``History``: what a training run has seen, one row of numbers per epoch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from tinynet.errors import import_extra

from .safetensors import atomic_write


class History:
    """The epochs of a run.

    ``history["loss"]`` is a column as a list (None where an epoch lacks it), ``history[-1]`` a row as a dict.

    Attributes:
        rows: one dict per epoch: epoch (from 1), loss (mean over the epoch's samples, while they were trained on), lr,
            batch_size (the mean where it varies), seconds, samples_per_second; with validation data also valid_loss and
            valid_accuracy or valid_r2.
        stopped: why training ended before its last epoch, or None.
    """

    def __init__(self, rows: list[dict] | None = None, stopped: str | None = None):
        self.rows, self.stopped = rows or [], stopped

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of all columns, in the order of their first appearance."""
        return tuple(dict.fromkeys(name for row in self.rows for name in row))

    def __getitem__(self, key: str | int):
        if isinstance(key, str):
            if key not in self.columns:
                raise KeyError(f"no column {key!r}; there are {', '.join(self.columns) or 'none yet'}")
            return [row.get(key) for row in self.rows]
        return self.rows[key]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Mapping]:
        return iter(self.rows)

    def __repr__(self) -> str:
        row = self.rows[-1] if self.rows else {}
        last = ", ".join(f"{k}={v:.4g}" if isinstance(v, (int, float)) else f"{k}={v}" for k, v in row.items())
        last = last or "no epoch"
        return f"History({len(self)} epochs; {last}{'; ' + self.stopped if self.stopped else ''})"

    def to_dict(self) -> dict:
        return {"epochs": self.rows, "stopped": self.stopped}

    def save(self, path) -> None:
        """Writes the history as JSON, atomically."""
        atomic_write(path, [json.dumps(self.to_dict(), indent=1).encode()])

    def plot(self, path, columns: tuple[str, ...] = ("loss", "valid_loss")) -> None:
        """Draws columns over the epochs into a picture (the ending of ``path`` says which kind).

        Raises:
            MissingExtraError: matplotlib is not installed.
        """
        pyplot = import_extra("matplotlib.figure", "History.plot", "viz")
        figure = pyplot.Figure(figsize=(6, 4), layout="constrained")
        axes = figure.add_subplot(xlabel="epoch", yscale="log")
        for name in columns:
            if name in self.columns:
                axes.plot(self["epoch"], self[name], label=name)
        axes.legend(frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(path)
