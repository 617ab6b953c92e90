"""``Run``: a training run under way, and the file from which it can be taken up again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from tinynet.backend import as_dtype
from tinynet.data import Loader
from tinynet.data.loader import count_batches
from tinynet.errors import ArgumentError, CheckpointError, TinynetError
from tinynet.nn import Dropout, Module
from tinynet.ops import Spec
from tinynet.optim import Optimizer
from tinynet.program import Program
from tinynet.tensor import Tensor

from . import checkpoint
from .budgets import Budget, Used
from .history import History
from .step import StepProgram
from .watching import WatchedStep

_STATE = "tinynet.run"


class Run:
    """A training run under way, as callbacks see it.

    Attributes:
        model, optimizer, loader, history: what is trained, by what, on what, and what came of it.
        epochs: how many are planned.
        batch_sizes: the schedule of the batch size, a function of the epoch; or None.
        epoch, step: how much is done. within_step: whether a step is begun and not done.
        loss: the last batch's loss, a scalar tensor outside of the tape.
        validate: evaluates the held-out data; None without.
        budget, used: what keeps a budget of time or energy, if anything does; what was used before a resumption.
        batch: the last batch, the arrays (x, y) that the loader gave.
        program_of: the program that trains such a batch, of its x and y; None where steps run eagerly. Of a watched
            step, which is two, it is the one of the gradients.
        captured: what makes these programs; None where steps run eagerly.
        watch: the ``WatchedStep`` of ``fit(watch=...)``, or None.
        norm_of: see ``gradient_norm``; of the arrays of a batch.
    """

    def __init__(
        self, model: Module, optimizer: Optimizer, loader: Loader, epochs: int,
        batch_sizes: Callable[[int], int | Sequence[int]] | None = None,
    ):  # fmt: skip
        self.model, self.optimizer, self.loader, self.epochs = model, optimizer, loader, epochs
        self.batch_sizes = batch_sizes
        self.history = History()
        self.epoch = self.step = 0
        self.within_step = False
        self.loss: Tensor | None = None
        self.batch: tuple[np.ndarray, np.ndarray] | None = None
        self.program_of: Callable[[np.ndarray, np.ndarray], Program] | None = None
        self.captured: StepProgram | None = None
        self.watch: WatchedStep | None = None
        self.norm_of: Callable[[np.ndarray, np.ndarray], Tensor] | None = None
        self.validate: Callable[[], dict[str, float]] | None = None
        self.stopping: str | None = None
        self.budget: Budget | None = None
        self.used = Used(0.0)
        self.totals = Totals()

    @property
    def steps_per_epoch(self) -> int:
        """Steps of a whole epoch at the batch size as it is now."""
        return len(self.loader)

    @property
    def total_steps(self) -> int:
        """Steps of the whole run: those done, and those to come at the batch size as it is now, or by the schedule."""
        loader, under_way = self.loader, not self.loader.between_epochs
        begun = self.epoch + (under_way or self.totals.steps > 0)
        left = loader.batches_left if under_way else 0
        if self.batch_sizes is None:
            return self.step + left + (self.epochs - begun) * len(loader)
        rows, drop_last = len(loader.dataset), loader.drop_last
        return self.step + left + count_steps(self.batch_sizes, rows, range(begun, self.epochs), drop_last)

    @property
    def program(self) -> Program | None:
        """The program that the last batch was trained by; None where steps run eagerly, and before the first."""
        return None if self.program_of is None or self.batch is None else self.program_of(*self.batch)

    @property
    def memory(self) -> int | None:
        """The budget of the step beyond parameters, moments and the batch, in bytes; None without one.

        A callback may assign another one; from the next step on there is a program within it, which is captured then.
        The effective batch stays what it is. ``workspace`` says beforehand whether there can be one.

        Raises:
            ArgumentError: on assignment, where steps run eagerly.
        """
        return None if self.captured is None else self.captured.memory

    @memory.setter
    def memory(self, memory: int | None) -> None:
        self._programs("memory").memory = memory

    def workspace(self, memory: int | None = None, batch_size: int | None = None) -> int:
        """Bytes of workspace that a step would take within a budget, planned from the shapes of the last batch.

        Args:
            memory: the budget; None for the plan without one.
            batch_size: of another batch, otherwise like the last one.

        Raises:
            PlanError: the budget is too little.
            ArgumentError: steps run eagerly, or there was none yet.
        """
        programs = self._programs("workspace")
        if self.batch is None:
            raise ArgumentError("run.workspace", expected="a run that made a step", got="none yet")
        first, specs = self.optimizer.params[0], []
        for array in self.batch:
            rows = (len(array) if batch_size is None else batch_size, *array.shape[1:])
            specs.append(Spec(rows, first.dtype if array.dtype.kind == "f" else as_dtype(array.dtype.name)))
        training = self.model.training
        self.model.train()
        try:
            return programs.workspace(specs, first.backend, memory)
        finally:
            self.model.train(training)

    def gradient_norm(self) -> float | None:
        """The joint norm of the gradients of the last batch, with the parameters as they are now; None before a first.

        It takes about as long as a step, and memory of its own, outside of ``memory``. Nothing is changed.
        """
        if self.batch is None or self.norm_of is None:
            return None
        params = self.optimizer.params
        kept = [p._grad for p in params]
        try:
            return self.norm_of(*self.batch).item()
        finally:
            for p, grad in zip(params, kept):
                p._grad = grad

    def _programs(self, what: str) -> StepProgram:
        if self.captured is None:
            raise ArgumentError(
                f"run.{what}", expected="steps that are programs", got="eager ones",
                mend="leave capture=False out, or change run.loader.batch_size instead",
            )  # fmt: skip
        return self.captured

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
        if self.budget is not None:
            described["used"] = list(self.budget.used())
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
            used = _used(described["used"]) if "used" in described else Used(_seconds(history, totals))
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
        self.history, self.totals, self.epoch, self.step, self.used = history, totals, epoch, step, used


def count_steps(
    batch_sizes: Callable[[int], int | Sequence[int]], samples: int, epochs: Iterable[int], drop_last: bool = False
) -> int:  # fmt: skip
    """Steps of these epochs, by a schedule of the batch size."""
    total = 0
    for epoch in epochs:
        sizes = batch_sizes(epoch)
        total += count_batches(samples, sizes if hasattr(sizes, "__len__") else (sizes,), drop_last)
    return total


class Totals:
    """What the row of an epoch is made of: the sum of losses, the samples, the seconds, the rate it began with, the
    steps, the sum of their batch sizes, in which a last batch that is not full counts as if it were, and the steps that
    were skipped.
    """

    def __init__(
        self, loss: float = 0.0, samples: int = 0, seconds: float = 0.0, rate: float = 0.0, steps: int = 0,
        sizes: int = 0, skipped: int = 0,
    ):  # fmt: skip
        self.loss, self.samples, self.seconds, self.rate = loss, samples, seconds, rate
        self.steps, self.sizes, self.skipped = steps, sizes, skipped
        self._pending: list[tuple[Tensor, int]] = []  # losses are read at the end: nobody waits for the device before

    def add(self, loss: Tensor | None, samples: int, batch_size: int | Sequence[int]) -> None:
        """A step on so many samples, and its loss; None if it was skipped."""
        if loss is None:
            self.skipped += 1
        else:
            self._pending.append((loss, samples))
        self.steps += 1
        self.sizes += batch_size if isinstance(batch_size, int) else samples

    @property
    def batch_size(self) -> float:
        """The mean of the steps' batch sizes; a whole number where all are one."""
        mean = self.sizes / max(1, self.steps)
        return int(mean) if mean.is_integer() else mean

    def numbers(self) -> list[float]:
        pending, self._pending = self._pending, []
        for loss, samples in pending:
            self.loss += loss.item() * samples
            self.samples += samples
        return [self.loss, self.samples, self.seconds, self.rate, self.steps, self.sizes, self.skipped]


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


def _used(value) -> Used:
    if not isinstance(value, list) or len(value) != len(Used._fields) or not isinstance(value[2], str | None):
        raise CheckpointError("run", expected="seconds, joules and where those are from", got=repr(value)[:80])
    seconds, joules, provenance, uncertainty = value
    known = [each if each is None else _number(each) for each in (joules, uncertainty)]
    return Used(_number(seconds), known[0], provenance, known[1])


def _seconds(history: History, totals: Totals) -> float:
    """The time that epochs took, for a run that kept no budget."""
    return totals.seconds + sum(_number(row.get("seconds", 0.0)) for row in history)


def _count(value) -> int:
    if type(value) is not int or value < 0:
        raise CheckpointError("run", expected="a count", got=repr(value)[:80])
    return value
