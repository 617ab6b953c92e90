"""Callbacks: what may look on, and step in, while ``fit`` trains.

A callback is asked at the beginning, after each step, before held-out data is evaluated, after each epoch and at the
end, and gets the ``Run``: model, optimizer, loader, history, counters, and ``run.stop(reason)``.
"""

from __future__ import annotations

import csv
import math
import os
import sys
import time
from typing import TYPE_CHECKING

from tinynet.errors import ArgumentError

if TYPE_CHECKING:
    from .run import Run


class Callback:
    """Base: does nothing at every occasion."""

    def on_begin(self, run: Run) -> None:
        """Before the first step."""

    def on_step(self, run: Run) -> None:
        """After each step; ``run.loss`` is the batch's loss, a tensor."""

    def on_validation(self, run: Run) -> None:
        """After the last step of each epoch, before the held-out data is evaluated, if there is any."""

    def on_epoch(self, run: Run) -> None:
        """After each epoch; ``run.history[-1]`` is its row."""

    def on_end(self, run: Run) -> None:
        """At the end, also of a run that was stopped or interrupted."""


class Progress(Callback):
    """A progress bar by tqdm where it is installed, else a line that renews itself; on stderr.

    Args:
        every: seconds between two looks at the loss, which wait for the device.
    """

    def __init__(self, every: float = 0.1):
        self.every = every

    def on_begin(self, run):
        self._next, self._text, self._shown = 0.0, "", 0
        try:
            from tqdm import tqdm
        except ImportError:
            self._bar = None
        else:
            self._bar = tqdm(total=run.total_steps, initial=run.step, unit="step", mininterval=self.every, leave=True)

    def on_step(self, run):
        if self._bar is not None:
            self._bar.update(1)
        if time.perf_counter() >= self._next:
            self._next = time.perf_counter() + self.every
            self._show(run, run.loss.item())

    def on_epoch(self, run):
        row = run.history[-1]
        self._show(run, row["loss"], "".join(f", {k} {v:.4f}" for k, v in row.items() if k.startswith("valid_")))

    def on_end(self, run):
        if self._bar is not None:
            self._bar.close()
        elif self._text:
            print(file=sys.stderr)

    def _show(self, run, loss: float, more: str = "") -> None:
        where = f"epoch {min(run.epoch + 1, run.epochs)}/{run.epochs}"
        if self._bar is not None:
            self._bar.total = run.total_steps
            self._bar.set_description(where, refresh=False)
            self._bar.set_postfix_str(f"loss {loss:.4f}{more}", refresh=False)
            return
        text = f"{where}  step {run.step}/{run.total_steps}  loss {loss:.4f}{more}"
        if sys.stderr.isatty():
            print(f"\r{text.ljust(len(self._text))}", end="", file=sys.stderr, flush=True)
            self._text = text
        elif more or run.step * 10 // run.total_steps > self._shown:  # a file gets a line now and then
            self._shown = run.step * 10 // run.total_steps
            print(text, file=sys.stderr, flush=True)


class EarlyStopping(Callback):
    """Stops when a quantity has not improved for some epochs.

    Args:
        monitor: a column of the history, such as "valid_loss".
        patience: how many epochs without improvement are allowed.
        min_delta: how much counts as an improvement.
        mode: "min", "max", or "auto": "max" for accuracies and r2, "min" for all else.
        restore_best: give the model the parameters of its best epoch at the end. Not after Ctrl-C, which leaves the
            model as it is, to go on with; and an epoch before a resumption cannot come back.

    Raises:
        ArgumentError: numbers out of range; in ``fit``, a column that the history does not have.
    """

    def __init__(self, monitor: str = "valid_loss", patience: int = 5, min_delta: float = 0.0, mode: str = "auto",
                 restore_best: bool = True):  # fmt: skip
        if patience < 1 or min_delta < 0 or mode not in ("min", "max", "auto"):
            raise ArgumentError(
                "EarlyStopping", expected="patience >= 1, min_delta >= 0, mode 'min', 'max' or 'auto'",
                got=f"patience={patience}, min_delta={min_delta}, mode={mode!r}",
            )  # fmt: skip
        self.monitor, self.patience, self.min_delta, self.restore_best = monitor, patience, min_delta, restore_best
        grows = monitor.endswith(("accuracy", "r2")) if mode == "auto" else mode == "max"
        self._sign = -1 if grows else 1

    def on_begin(self, run):
        self.best, self.best_epoch, self._state = math.inf, 0, None
        for row in run.history:  # of a resumed run
            if self.monitor in row:
                self.improved(row)

    def improved(self, row) -> bool:
        """Whether a row of the history is the best so far; it is remembered then."""
        if self.monitor not in row:
            raise ArgumentError(
                "monitor", expected=f"a column of the history: {', '.join(row)}", got=repr(self.monitor),
                mend="pass valid=... to fit, or monitor='loss'",
            )  # fmt: skip
        value = self._sign * row[self.monitor]
        if not value < self.best - self.min_delta:
            return False
        self.best, self.best_epoch = value, row["epoch"]
        return True

    def on_epoch(self, run):
        row = run.history[-1]
        if self.improved(row):
            self._state = run.model.state_dict() if self.restore_best else None
        elif row["epoch"] - self.best_epoch >= self.patience:
            run.stop(f"{self.monitor} has not improved for {self.patience} epochs")

    def on_end(self, run):
        if self._state is not None and run.stopping != "interrupted":
            run.model.load_state_dict(self._state)


class Checkpoint(Callback):
    """Writes model and training state to one file, from which ``fit(resume=path)`` goes on as if never interrupted.

    Args:
        path: of the file; ``tn.load`` reads the model from it.
        every: epochs between two writes. At the end, and on an interruption, it is written in any case; but not by an
            exception in the middle of a step, which cannot be gone on from.
        monitor: write only when this column of the history is the best so far (``mode`` as for EarlyStopping).
        extra: for ``tn.save``.
    """

    def __init__(
        self, path: str | os.PathLike, every: int = 1, monitor: str | None = None, mode: str = "auto", extra=None
    ):
        if every < 1:
            raise ArgumentError("Checkpoint", expected="every >= 1", got=repr(every))
        self.path, self.every, self.extra = path, every, extra
        self._watch = EarlyStopping(monitor, mode=mode) if monitor else None

    def on_begin(self, run):
        self._written = run.step  # before the first step there is nothing that a file should be overwritten with
        if self._watch:
            self._watch.on_begin(run)

    def on_epoch(self, run):
        row = run.history[-1]
        if self._watch.improved(row) if self._watch else row["epoch"] % self.every == 0:
            self._write(run)

    def on_end(self, run):
        if not self._watch and not run.within_step and self._written != run.step:
            self._write(run)

    def _write(self, run):
        run.save(self.path, self.extra)
        self._written = run.step


class CSVLog(Callback):
    """Appends each epoch's row to a CSV file, which can be read while training goes on.

    A file that is there is replaced; a resumed run begins it with the epochs before. It is written anew when an epoch
    brings a column that none before it had.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = path

    def on_begin(self, run):
        self._columns = None

    def on_epoch(self, run):
        first = self._columns is None or not run.history[-1].keys() <= set(self._columns)
        if first:
            self._columns = run.history.columns
        with open(self.path, "w" if first else "a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self._columns)
            if first:
                writer.writeheader()
            writer.writerows(run.history.rows if first else run.history.rows[-1:])
