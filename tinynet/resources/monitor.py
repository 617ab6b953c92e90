"""``Monitor``: what a training run does and uses, in samples taken while it trains.

A step costs a count and a look at a clock; all else is done when a sample is due. The counters are those of
``tinynet.meters``; the drawing is done by the report.
"""

from __future__ import annotations

import collections
import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path

from tinynet import ops
from tinynet.autograd import no_grad
from tinynet.backend import CuPyBackend
from tinynet.errors import ArgumentError, CaptureError, MissingExtraError
from tinynet.meters import memory, nvml, processor
from tinynet.meters.energy import Energy, Meter
from tinynet.train import Callback, Run
from tinynet.train.budgets import Work

from .lines import check_folder, open_lines
from .metering import machine_meter

_MOST = 10_000  # samples that are kept


class Monitor(Callback):
    """Takes a sample of a run twice a second, and one at its end.

    A sample is a dictionary, in which None stands for what is not known:

    - time: seconds since 1970. step, epoch: the steps made, and the epoch that they are in, counted from 1.
    - loss: of the last batch. lr, batch_size: of the next step, and of the last one.
    - samples_per_second: trained on since the sample before.
    - resident_bytes: of this process. arena_bytes: of the program that ran last; None where steps are eager.
    - cpu: processors kept busy since the sample before. gpu: the part of the last moment in which the busiest GPU of
      the machine ran something, from 0 to 1; None where the model is on none, or without nvidia-ml-py.
    - joules: since the beginning of the run. provenance, energy_note: where they are from, and what an estimate is
      based on, or why there are none (see ``tinynet.meters.energy``).
    - gradient_norm: of all gradients of the last step together, where they exist at the sample: in eager steps, and
      with ``fit(watch=...)``, after clipping. A program uses each gradient up in its update as soon as it has made
      it; with ``gradients`` they are made once more, before clipping and with the parameters after the update.

    Args:
        path: a file that gets each sample as a line of JSON, for the report: ``monitor.jsonl`` in the run's folder. A
            resumed run goes on with it; otherwise one that is there is replaced.
        every: seconds between samples.
        gradients: make the gradients of the last batch once more for a sample, where they do not exist; it takes about
            as long as a step, and memory of its own (see ``Run.gradient_norm``).
        meter: counts energy; by default that of the machine, for the model's backend, or its model.
        clock: seconds that go on evenly.
        most: samples that are kept in ``samples``; older ones are in the file alone.

    Reading the loss waits for a device to have done its step; so a GPU is waited for at samples, and at no other time.

    Attributes:
        samples: the last ones, oldest first.

    Raises:
        ArgumentError: ``every`` not above 0, or ``most`` below 1.
    """

    def __init__(
        self, path: str | os.PathLike | None = None, every: float = 0.5, *, gradients: bool = False,
        meter: Meter | None = None, clock: Callable[[], float] = time.perf_counter, most: int = _MOST,
    ):  # fmt: skip
        if not (every > 0 and most >= 1):
            raise ArgumentError(
                "Monitor", expected="every above 0 and most of at least 1", got=f"every={every!r}, most={most!r}"
            )
        self.path, self.every, self.gradients = path, every, gradients
        self._given, self._clock = meter, clock
        self.samples: collections.deque[dict] = collections.deque(maxlen=most)
        self._file = None

    def on_begin(self, run):
        check_folder("Monitor", self.path)
        self.samples.clear()
        first = next(iter(run.model.parameters()), None)
        backend = None if first is None else first.backend
        self._gpu = _utilization if isinstance(backend, CuPyBackend) else lambda: None
        self._meter = (machine_meter(backend) if self._given is None else self._given).start()
        self._work = Work(self._meter)
        self._told = self._meter.model is not None and self._meter.model.by_work
        self._goes_on = run.step > 0
        self._trained, self._step = 0, run.step
        self._last, self._busy = self._clock(), processor.seconds()
        self._count = self._counting(self._last + self.every)
        if type(self) is Monitor:  # a method more would double what a step costs
            self.on_step = self._count

    def on_step(self, run):
        self._count(run)

    def _counting(self, due: float) -> Callable[[Run], None]:
        """``on_step``, as a function whose counts are variables of its own, which is faster than attributes."""
        clock, work, trained = self._clock, self._work.step if self._told else None, 0

        def on_step(run: Run) -> None:
            nonlocal due, trained
            trained += len(run.batch[0])
            if work is not None:
                work(run)
            if clock() >= due:
                self._trained, trained = trained, 0
                self._sample(run)
                due = clock() + self.every

        def rest() -> int:
            return trained

        self._rest = rest
        return on_step

    def on_end(self, run):
        try:
            if run.step > self._step and not run.within_step:
                self._trained = self._rest()
                self._sample(run)
        finally:
            self._meter.stop()
            if self._file is not None:
                self._file.close()
                self._file = None

    def _sample(self, run: Run) -> None:
        now, busy = self._clock(), processor.seconds()
        seconds = now - self._last
        loss, energy = run.loss.item(), self._meter.read()
        sample = {
            "time": time.time(), "step": run.step, "epoch": min(run.epoch + 1, run.epochs), "loss": _finite(loss),
            "lr": run.optimizer.lr, "batch_size": len(run.batch[0]),
            "samples_per_second": self._trained / seconds if seconds > 0 else None,
            "resident_bytes": memory.resident(), "arena_bytes": _arena_bytes(run),
            "cpu": (busy - self._busy) / seconds if seconds > 0 else None, "gpu": self._gpu(),
            **_described(energy), "gradient_norm": self._norm(run),
        }  # fmt: skip
        self.samples.append(sample)
        if self.path is not None:
            if self._file is None:  # now that a run has begun, the file of another one may go
                if not self._goes_on:
                    Path(self.path).unlink(missing_ok=True)
                self._file = open_lines(self.path)
            self._file.write(f"{json.dumps(sample)}\n")
        self._step, self._busy, self._last = run.step, busy, now


    def _norm(self, run: Run) -> float | None:
        """The joint norm of the gradients that are there, or are made for it."""
        if run.watch is not None:
            gradients = run.watch.gradients()
        elif run.captured is None:
            gradients = [p.grad for p in run.optimizer.params if p.grad is not None]
        else:
            return _finite(run.gradient_norm()) if self.gradients else None
        if not gradients:
            return None
        with no_grad():
            squares = [ops.sum(ops.square(each.astype("float64"))).item() for each in gradients]
        return _finite(math.sqrt(sum(squares)))


def _finite(number: float) -> float | None:
    """JSON has no numbers that are not finite."""
    return number if math.isfinite(number) else None


def _described(energy: Energy) -> dict:
    return {"joules": energy.joules, "provenance": energy.provenance, "energy_note": energy.why}


def _arena_bytes(run: Run) -> int | None:
    try:
        program = run.program
    except CaptureError:  # the budget was changed, or what the step can reach, and no step was made since
        return None
    return None if program is None else program.plan.peak_bytes


def _utilization() -> float | None:
    """Of the busiest GPU of the machine."""
    try:
        library = nvml.library()
    except MissingExtraError:
        return None
    try:
        library.nvmlInit()
        handles = [library.nvmlDeviceGetHandleByIndex(i) for i in range(library.nvmlDeviceGetCount())]
        return max((library.nvmlDeviceGetUtilizationRates(each).gpu / 100 for each in handles), default=None)
    except library.NVMLError:
        return None
