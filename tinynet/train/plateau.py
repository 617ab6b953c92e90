"""``ReduceLROnPlateau``: a learning rate that falls when training no longer gets on."""

from __future__ import annotations

import math

from tinynet.errors import ArgumentError

from .callbacks import Callback, EarlyStopping


class ReduceLROnPlateau(Callback):
    """Multiplies the learning rate by ``factor`` when a quantity has not improved for some epochs.

    Args:
        monitor: a column of the history, such as "valid_loss".
        factor: between 0 and 1.
        patience: how many epochs without improvement are allowed, counted from the best epoch, the last reduction, or
            the end of its cooldown.
        min_delta: how much counts as an improvement.
        mode: "min", "max", or "auto", as for ``EarlyStopping``.
        cooldown: epochs after a reduction that do not count.
        min_lr: the rate does not fall below it.

    A resumed run goes on as if it had never stopped: the rate comes with the optimizer, the counts from the history.

    Raises:
        ArgumentError: numbers out of range; in ``fit``, a column that the history does not have, or an optimizer with a
            schedule, which sets the rate by itself.
    """

    def __init__(self, monitor: str = "valid_loss", factor: float = 0.1, patience: int = 5, min_delta: float = 0.0,
                 mode: str = "auto", cooldown: int = 0, min_lr: float = 0.0):  # fmt: skip
        if not (0 < factor < 1 and patience >= 1 and cooldown >= 0 and min_lr >= 0):
            raise ArgumentError(
                "ReduceLROnPlateau", expected="factor between 0 and 1, patience >= 1, cooldown >= 0, min_lr >= 0",
                got=f"factor={factor}, patience={patience}, cooldown={cooldown}, min_lr={min_lr}",
            )  # fmt: skip
        self._watch = EarlyStopping(monitor, patience, min_delta, mode)
        self.factor, self.patience, self.cooldown, self.min_lr = factor, patience, cooldown, min_lr

    def on_begin(self, run):
        if run.optimizer._schedule is not None:
            raise ArgumentError(
                "ReduceLROnPlateau", expected="an optimizer whose lr is a number", got="one with a schedule",
                mend="pass a number, or leave the callback out",
            )  # fmt: skip
        self._watch.best, self._since = math.inf, 0
        for row in run.history:  # of a resumed run
            self._due(row)

    def on_epoch(self, run):
        if self._due(run.history[-1]):
            run.optimizer.lr = min(run.optimizer.lr, max(run.optimizer.lr * self.factor, self.min_lr))

    def _due(self, row) -> bool:
        """Whether the rate falls after this row; everything is counted."""
        if self._watch.improved(row):
            self._since = max(self._since, row["epoch"])
        elif row["epoch"] - self._since >= self.patience:
            self._since = row["epoch"] + self.cooldown
            return True
        return False
