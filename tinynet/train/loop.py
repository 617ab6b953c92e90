"""``fit``: the loop that trains.

It is written with the public names of the engine, and does nothing that a loop of one's own could not do. Stopping,
by Ctrl-C or by a callback, takes effect between two steps, so that no step is ever half done.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterable

import numpy as np

from tinynet.backend import use_backend
from tinynet.data import Loader
from tinynet.errors import ArgumentError
from tinynet.nn import Module
from tinynet.optim import Optimizer
from tinynet.tensor import Tensor

from .callbacks import Callback
from .evaluating import as_dataset, evaluation, onto
from .history import History
from .run import Run, Totals
from .step import as_program, can_capture, named_loss, named_optimizer, training_step


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
    batch_size: int = 32,
    valid=None,
    callbacks: Iterable[Callback] = (),
    penalty: Callable[[Module], Tensor] | None = None,
    clip_norm: float | None = None,
    shuffle: bool = True,
    seed: int = 0,
    resume=None,
    capture: bool = True,
    memory: str | int | None = None,
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
        batch_size, shuffle, seed: for the loader that is made of ``train``.
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

    Returns:
        The ``History``. It is returned also when Ctrl-C stops training, which it does between two steps, after the
        callbacks' ``on_end`` (a ``Checkpoint`` has then been written).

    Raises:
        ArgumentError: an unknown name or a number out of range. The typed errors of the engine for data that does not
        fit the model.
        CaptureError: the step cannot be a program; the message names the line.
        PlanError: ``memory`` is too little; the message names the least that would do.
    """
    if isinstance(epochs, bool) or not isinstance(epochs, (int, np.integer)) or epochs < 1:
        raise ArgumentError("fit", expected="epochs to be an integer of at least 1", got=repr(epochs))
    loss_function = named_loss(loss)
    optimizer = named_optimizer(optimizer, model)
    loader = train if isinstance(train, Loader) else Loader(as_dataset("fit", train), batch_size, shuffle, seed)
    valid = valid if valid is None else as_dataset("fit", valid)
    run = Run(model, optimizer, loader, int(epochs))
    step = training_step(model, loss_function, optimizer, penalty, clip_norm)
    step = _on_batches(step, model, capture, memory)
    if resume is not None:
        run.resume(resume)
    if valid is not None:
        valid = evaluation("fit", model, valid, loss_function, capture=capture, passes=run.epochs - run.epoch)
    callbacks = list(callbacks)
    was_training = model.training
    model.train()
    begun = False
    try:
        with _Interrupt(run):
            for callback in callbacks:
                callback.on_begin(run)
            begun = True
            while run.epoch < run.epochs and run.stopping is None:
                _epoch(run, step, valid, callbacks)
    finally:
        model.train(was_training)
        run.history.stopped = run.stopping
        if begun:
            for callback in callbacks:
                callback.on_end(run)
    return run.history


def _on_batches(step, model: Module, capture: bool, memory):
    """The step as a function of the loader's arrays; captured, where that is wanted and the backend can do it."""
    able, first, batch = can_capture(model), next(iter(model.parameters()), None), onto(model)
    if memory is not None and not (capture and able):
        got = f"the backend {first.backend.name}" if capture and first is not None else f"capture={capture}"
        raise ArgumentError("fit", expected="a step that can be planned, with memory=", got=got)
    if capture and able:
        step = as_program("fit", step, memory)
        if first.backend.feeds:  # the next batch is on its way while a step runs

            def fed(x, y):
                with use_backend(first.backend):  # where the arrays of a call go
                    return step(_as_floats(x, first.dtype), _as_floats(y, first.dtype))

            return fed
    return lambda x, y: step(batch(x), batch(y))


def _as_floats(array: np.ndarray, dtype) -> np.ndarray:
    return array.astype(dtype, copy=False) if array.dtype.kind == "f" else array


def _epoch(run: Run, step, valid, callbacks) -> None:
    """One epoch, or what is left of it; cut short by a wish to stop."""
    before, start = run.totals.seconds, time.perf_counter()
    if not run.totals.samples:  # else it was resumed in the middle
        run.totals.rate = run.optimizer.lr
    for x, y in run.loader:
        run.within_step = True
        run.loss = step(x, y)
        run.step += 1
        run.totals.add(run.loss, len(x))
        run.within_step = False
        for callback in callbacks:
            callback.on_step(run)
        run.totals.seconds = before + time.perf_counter() - start
        if run.stopping is not None and run.step % run.steps_per_epoch:
            run.optimizer.zero_grad()
            return  # stopped within the epoch: no row for it
    total, samples, _, rate = run.totals.numbers()
    seconds = before + time.perf_counter() - start
    run.totals = Totals()
    run.optimizer.zero_grad()
    if not samples:
        return  # a loader that began at the end of an epoch
    run.epoch += 1
    row = {
        "epoch": run.epoch, "loss": total / samples, "lr": rate, "seconds": seconds,
        "samples_per_second": samples / seconds,
    }  # fmt: skip
    if valid is not None:
        row |= {f"valid_{name}": value for name, value in valid().items()}
    run.history.rows.append(row)
    if not math.isfinite(row["loss"]):
        run.stop(f"the loss is {row['loss']} in epoch {run.epoch}")
    for callback in callbacks:
        callback.on_epoch(run)
