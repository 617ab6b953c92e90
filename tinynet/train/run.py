"""``Run``: a training run under way, and the file from which it can be taken up again."""

from __future__ import annotations

import json

import numpy as np

from tinynet.data import Loader
from tinynet.errors import CheckpointError, TinynetError
from tinynet.nn import Dropout, Module
from tinynet.optim import Optimizer
from tinynet.tensor import Tensor

from . import checkpoint
from .history import History

_STATE = "tinynet.run"


class Run:
    """A training run under way, as callbacks see it.

    Attributes:
        model, optimizer, loader, history: what is trained, by what, on what, and what came of it.
        epochs, steps_per_epoch, total_steps: how much is planned.
        epoch, step: how much is done. within_step: whether a step is begun and not done.
        loss: the last batch's loss, a scalar tensor outside of the tape.
    """

    def __init__(self, model: Module, optimizer: Optimizer, loader: Loader, epochs: int):
        self.model, self.optimizer, self.loader, self.epochs = model, optimizer, loader, epochs
        self.steps_per_epoch = len(loader)
        self.total_steps = epochs * self.steps_per_epoch
        self.history = History()
        self.epoch = self.step = 0
        self.within_step = False
        self.loss: Tensor | None = None
        self.stopping: str | None = None
        self.totals = Totals()

    def stop(self, reason: str) -> None:
        """Ends training at the next step boundary; ``reason`` goes into the history."""
        self.stopping = self.stopping or reason

    def save(self, path, extra=None) -> None:
        """Writes model, optimizer, loader position and history to one file, from which ``fit(resume=...)`` goes on."""
        state = self.optimizer.state_dict()
        arrays = {f"optimizer.{k}": v for k, v in state.items() if isinstance(v, np.ndarray)}
        numbers = {k: v for k, v in state.items() if not isinstance(v, np.ndarray)}
        described = {
            "kind": _kind(self.model, self.optimizer), "optimizer": numbers, "loader": self.loader.state_dict(),
            "epoch": self.epoch, "step": self.step, "history": self.history.rows, "totals": self.totals.numbers(),
        }  # fmt: skip
        checkpoint.write(self.model, path, extra, arrays, {_STATE: json.dumps(described)})

    def resume(self, path) -> None:
        """Takes up the run that ``save`` wrote.

        Raises:
            CheckpointError: a file without a run, or of another model, optimizer or data set. Nothing is changed then.
        """
        model, _, arrays, metadata = checkpoint.read(path, "numpy")
        if _STATE not in metadata:
            raise CheckpointError(
                f"{path}", expected="a training run", got="a model only",
                mend="pass a file that the Checkpoint callback wrote",
            )  # fmt: skip
        described = checkpoint._json(path, metadata, _STATE)
        model_before, optimizer_before = self.model.state_dict(), self.optimizer.state_dict()
        try:
            own, kind = _kind(self.model, self.optimizer), described["kind"]
            if kind != own:
                raise CheckpointError("run", expected=own, got=kind)
            history, totals = History(_rows(described["history"])), Totals(*map(_number, described["totals"]))
            epoch, step = _count(described["epoch"]), _count(described["step"])
            self.model.load_state_dict(model.state_dict())
            self.optimizer.load_state_dict(
                described["optimizer"] | {k.removeprefix("optimizer."): v for k, v in arrays.items()}
            )
            self.loader.load_state_dict(described["loader"])
        except (TinynetError, LookupError, TypeError, AttributeError) as error:
            self.model.load_state_dict(model_before)
            self.optimizer.load_state_dict(optimizer_before)
            raise CheckpointError(
                f"{path}", expected="a run of this model, optimizer and data", got=str(error),
                mend="build them as before",
            ) from error  # fmt: skip
        for (_, here), (_, there) in zip(self.model.named_modules(), model.named_modules()):
            if isinstance(here, Dropout):  # which goes on with the masks that would have come
                here.seed, here.stream = there.seed, there.stream
                here.counter = there.counter.to(here.counter.backend)
        self.history, self.totals, self.epoch, self.step = history, totals, epoch, step


class Totals:
    """What the row of an epoch is made of: the sum of losses, the samples, the seconds, the rate it began with."""

    def __init__(self, loss: float = 0.0, samples: int = 0, seconds: float = 0.0, rate: float = 0.0):
        self.loss, self.samples, self.seconds, self.rate = loss, samples, seconds, rate
        self._pending: list[tuple[Tensor, int]] = []  # losses are read at the end: nobody waits for the device before

    def add(self, loss: Tensor, samples: int) -> None:
        self._pending.append((loss, samples))

    def numbers(self) -> list[float]:
        pending, self._pending = self._pending, []
        for loss, samples in pending:
            self.loss += loss.item() * samples
            self.samples += samples
        return [self.loss, self.samples, self.seconds, self.rate]


def _kind(model: Module, optimizer: Optimizer) -> str:
    """What a run has to have in common with the one it takes up, as text."""
    return f"{type(optimizer).__name__} in {optimizer.params[0].dtype} for {model!r}"


def _rows(rows) -> list[dict]:
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise CheckpointError("history", expected="a list of rows", got=repr(rows)[:80])
    return rows


def _number(value):
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise CheckpointError("run", expected="a number", got=repr(value)[:80])
    return value


def _count(value) -> int:
    if type(value) is not int or value < 0:
        raise CheckpointError("run", expected="a count", got=repr(value)[:80])
    return value
