"""``fit``: the loop that trains.

It is written with the public names of the engine, and does nothing that a loop of one's own could not do. Stopping,
by Ctrl-C or by a callback, takes effect between two steps, so that no step is ever half done.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from tinynet.backend import use_backend
from tinynet.data import Loader
from tinynet.errors import ArgumentError
from tinynet.nn import Module
from tinynet.optim import Optimizer
from tinynet.tensor import Tensor

from .budgets import Budget
from .callbacks import Callback
from .evaluating import as_dataset, evaluation, onto
from .history import History
from .norms import GradientNorm
from .run import Run, Totals
from .step import as_program, can_capture, named_loss, named_optimizer, training_step
from .watching import WatchedStep


class _Interrupt:
    """Turns Ctrl-C into a wish to stop at the next step boundary; a second one interrupts at once.

    Only in the main thread, where signals arrive; elsewhere it changes nothing.
    """

    def __init__(self, run: Run):
        self.run = run

    def __enter__(self):
        self._before = None
        if threading.current_thread() is threading.main_thread():
            self._before = signal.getsignal(signal.SIGINT)
            if self._before is not None:
                signal.signal(signal.SIGINT, self._note)
        return self

    def _note(self, *_):
        if self.run.stopping == "interrupted":
            raise KeyboardInterrupt
        self.run.stopping = "interrupted"

    def __exit__(self, *_):
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)


def fit(
    model: Module,
    train,
    *,
    loss: str | Callable[[Tensor, Tensor], Tensor],
    optimizer: str | Optimizer,
    epochs: int,
    batch_size: int | Sequence[int] | Callable[[int], int | Sequence[int]] = 32,
    valid=None,
    callbacks: Iterable[Callback] = (),
    penalty: Callable[[Module], Tensor] | None = None,
    clip_norm: float | None = None,
    shuffle: bool = True,
    seed: int = 0,
    resume=None,
    capture: bool = True,
    memory: str | int | None = None,
    time: str | float | None = None,
    energy: str | float | None = None,
    watch: str | None = None,
) -> History:
    """Trains a model.

    Args:
        model: its ``train`` mode is on while it learns, and is restored at the end.
        train: a ``Dataset``, a pair (x, y) of arrays, or a ``Loader`` (whose batch size and order then count).
            Floating arrays are converted to the model's dtype, batch by batch.
        loss: "mse", "cross_entropy", or a function of (prediction, target) that returns a scalar.
        optimizer: an ``Optimizer`` over the model's parameters, or "gd", "adam", "adamw" with their defaults
            (lr 0.01 for "gd").
        epochs: passes over the data, at least 1.
        batch_size, shuffle, seed: for the loader that is made of ``train``. A sequence of sizes is taken in turn within
            each epoch. A function of the epoch, counted from 0, is a schedule: it gives a size or a sequence at the
            beginning of each (see ``tn.resources.batches``), also for a ``Loader``. A callback may set
            ``run.loader.batch_size`` at any time. Each size is a program of its own, captured when it first comes.
            ``tn.resources.batches.steps`` says how many steps there will be, which learning-rate schedules ask for.
        valid: held-out data, evaluated after each epoch.
        callbacks: see ``tinynet.train.callbacks``.
        penalty: added to the loss: ``lambda m: tn.losses.l1(m.parameters(), 1e-4)``.
        clip_norm: bound of the gradients' joint norm.
        resume: a file of the ``Checkpoint`` callback. Training goes on from there, to the same numbers as if it had
            never stopped.
        capture: run the step as a program (see ``tn.capture``), which is faster and has its memory planned. The model,
            the loss and the penalty must then be what a program can do; with False they may do anything. On a backend
            that cannot hold a program's arena the step runs eagerly in any case. So it is for ``valid``: see
            ``evaluate``.
        memory: a budget for the step, in bytes or as "64MB", beyond parameters, moments and the batch (see
            ``tn.capture``).
        time, energy: budgets for the whole run, in seconds or as "30s", in joules or as "2kJ". Training ends before a
            step that would exceed one, with the parameters of the best epoch; ``stopped`` of the history says how much
            was used. What was used before a resumption counts. Energy is measured where the machine lets it be, else
            estimated, with a warning (see ``tinynet.train.Budget``).
        watch: look for NaN and infinity in the loss and all gradients of each step, before its update. "warn" says
            where the first one came from: the data, a parameter, or an operation and its line; "raise" raises that
            instead of making the update; "skip" leaves such steps out, which the history counts as "skipped". The
            gradients are kept for that, and the step is two programs (see ``tinynet.train.watching``).

    Returns:
        The ``History``. It is returned also when Ctrl-C stops training, which it does between two steps, after the
        callbacks' ``on_end`` (a ``Checkpoint`` has then been written).

    Raises:
        ArgumentError: an unknown name or a number out of range. The typed errors of the engine for data that does not
        fit the model.
        CaptureError: the step cannot be a program; the message names the line.
        PlanError: ``memory`` is too little; the message names the least that would do.
        NonFiniteError: with ``watch="raise"``; the model and the optimizer are as before that step.
    """
    if isinstance(epochs, bool) or not isinstance(epochs, (int, np.integer)) or epochs < 1:
        raise ArgumentError("fit", expected="epochs to be an integer of at least 1", got=repr(epochs))
    loss_function = named_loss(loss)
    optimizer = named_optimizer(optimizer, model)
    schedule = batch_size if callable(batch_size) else None
    size = batch_size if schedule is None else schedule(0)
    loader = train if isinstance(train, Loader) else Loader(as_dataset("fit", train), size, shuffle, seed)
    for epoch in range(epochs) if schedule is not None else ():  # refused before anything changes
        Loader(loader.dataset, schedule(epoch), shuffle=False, drop_last=loader.drop_last)
    valid = valid if valid is None else as_dataset("fit", valid)
    budget = [] if time is None and energy is None else [Budget(time, energy)]
    run = Run(model, optimizer, loader, int(epochs), schedule)
    if watch is None:
        step = training_step(model, loss_function, optimizer, penalty, clip_norm)
    else:
        step = run.watch = WatchedStep(watch, model, loss_function, optimizer, penalty, clip_norm)
    step = _on_batches(step, model, capture, memory)
    run.norm_of = _on_batches(GradientNorm(model, loss_function, optimizer, penalty), model, capture, None)
    run.program_of, run.captured = getattr(step, "program", None), getattr(step, "captured", None)
    if resume is not None:
        run.resume(resume)
    if valid is not None:
        valid = evaluation("fit", model, valid, loss_function, capture=capture, passes=run.epochs - run.epoch)
        run.validate = valid
    callbacks = [*callbacks, *budget]
    was_training = model.training
    model.train()
    begun: list[Callback] = []
    try:
        with _Interrupt(run):
            for callback in callbacks:
                callback.on_begin(run)
                begun.append(callback)
            while run.epoch < run.epochs and run.stopping is None:
                _epoch(run, step, valid, callbacks)
    finally:
        model.train(was_training)
        run.history.stopped = run.stopping
        _end(run, begun)
    return run.history


def _end(run: Run, callbacks: list[Callback]) -> None:
    """Tells all of them that it is over, also where one of them fails at that; the first error is raised then."""
    errors = []
    for callback in callbacks:
        try:
            callback.on_end(run)
        except BaseException as error:
            errors.append(error)
    if errors:
        for other in errors[1:]:
            errors[0].add_note(f"and then {other!r}")
        raise errors[0]


def _on_batches(step, model: Module, capture: bool, memory):
    """The step as a function of the loader's arrays; captured, where that is wanted and the backend can do it."""
    able, first, batch = can_capture(model), next(iter(model.parameters()), None), onto(model)
    if memory is not None and not (capture and able):
        got = f"the backend {first.backend.name}" if capture and first is not None else f"capture={capture}"
        raise ArgumentError("fit", expected="a step that can be planned, with memory=", got=got)
    if capture and able:
        watched = isinstance(step, WatchedStep)
        captured = step.capture(memory) if watched else as_program("fit", step, memory)
        step = step if watched else captured
        if first.backend.feeds:  # the next batch is on its way while a step runs

            def fed(x, y):
                with use_backend(first.backend):  # where the arrays of a call go
                    return step(_as_floats(x, first.dtype), _as_floats(y, first.dtype))

            fed.program = lambda x, y: captured.program(_as_floats(x, first.dtype), _as_floats(y, first.dtype))
            fed.captured = captured
            return fed

    def on_batch(x, y):
        return step(batch(x), batch(y))

    if capture and able:
        on_batch.program = lambda x, y: captured.program(batch(x), batch(y))
        on_batch.captured = captured
    return on_batch


def _as_floats(array: np.ndarray, dtype) -> np.ndarray:
    return array.astype(dtype, copy=False) if array.dtype.kind == "f" else array


def _epoch(run: Run, step, valid, callbacks) -> None:
    """One epoch, or what is left of it; cut short by a wish to stop."""
    before, start = run.totals.seconds, time.perf_counter()
    if run.batch_sizes is not None and run.loader.between_epochs:
        run.loader.batch_size = run.batch_sizes(run.epoch)
    if not run.totals.samples:  # else it was resumed in the middle
        run.totals.rate = run.optimizer.lr
    for x, y in run.loader:
        run.within_step = True
        run.batch = x, y  # before the step, so that the batch before is let go of
        if run.watch is not None:
            run.watch.at(run.step + 1, run.epoch + 1)
        run.loss = step(x, y)
        run.step += 1
        made = run.watch is None or not run.watch.skipped
        run.totals.add(run.loss if made else None, len(x), run.loader.batch_size)
        run.within_step = False
        for callback in callbacks:
            callback.on_step(run)
        run.totals.seconds = before + time.perf_counter() - start
        if run.stopping is not None and not run.loader.between_epochs:
            run.optimizer.zero_grad()
            return  # stopped within the epoch: no row for it
    total, samples, _, rate, *_, skipped = run.totals.numbers()
    size = run.totals.batch_size
    seconds = before + time.perf_counter() - start
    run.totals = Totals()
    run.optimizer.zero_grad()
    if not samples and not skipped:
        return  # a loader that began at the end of an epoch
    run.epoch += 1
    row = {
        "epoch": run.epoch, "loss": total / samples if samples else math.nan, "lr": rate, "batch_size": size,
        "seconds": seconds, "samples_per_second": samples / seconds,
    }  # fmt: skip
    if run.watch is not None and run.watch.mode == "skip":
        row["skipped"] = skipped
    if valid is not None:
        for callback in callbacks:
            callback.on_validation(run)
        row |= {f"valid_{name}": value for name, value in valid().items()}
    run.history.rows.append(row)
    if not samples:
        run.stop(f"all {skipped} steps of epoch {run.epoch} were skipped")
    elif not math.isfinite(row["loss"]):
        run.stop(f"the loss is {row['loss']} in epoch {run.epoch}")
    for callback in callbacks:
        callback.on_epoch(run)
