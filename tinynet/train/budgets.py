"""``Budget``: a training run ends when its time or its energy is used up. Memory is budgeted by a plan instead."""

from __future__ import annotations

import math
import time as clocks
import warnings
from collections.abc import Callable
from typing import NamedTuple

from tinynet.backend import CuPyBackend
from tinynet.errors import ArgumentError, CaptureError
from tinynet.meters.energy import MODELLED, Energy, Meter
from tinynet.meters.models import ProcessorModel
from tinynet.meters.units import as_joules, as_seconds, show_joules, show_seconds

from .callbacks import Callback

_LOOK = 0.25  # seconds between two looks at the energy, at most, since the power may rise
_BLIND = 0.01  # as long as the power is not known
_OUTLIER = 4  # times as long as the steps before: a program was made, say, which says little about the next step


class Used(NamedTuple):
    """What a run has used so far, before and after a resumption.

    Attributes:
        seconds: from the beginning of training to its end.
        joules: None where no energy budget was kept.
        provenance: of the joules, as for ``tinynet.meters.energy.Energy``; with "+" between two kinds.
        uncertainty: of the joules, to either side.
    """

    seconds: float
    joules: float | None = None
    provenance: str | None = None
    uncertainty: float | None = None


class Work:
    """Tells a meter of the flops and bytes of each step, where its model goes by them and steps are programs.

    Of evaluations, and of steps that run eagerly, it is told nothing.
    """

    def __init__(self, meter: Meter):
        self._meter, self._costs = meter, {}
        self._wanted = meter.model is not None and meter.model.by_work

    def step(self, run) -> None:
        """The step that was just done."""
        if not self._wanted or run.program_of is None:
            return
        key = run.batch[0].shape, run.memory
        if key not in self._costs:
            try:
                self._costs[key] = run.program.cost
            except CaptureError:  # the budget was changed after this step: its program is no more
                return
        self._meter.work(*self._costs[key])


class Budget(Callback):
    """Stops training at the step boundary after which the next step would exceed a budget.

    How long a step takes is known from the steps before; where there is validation data, the time of a last evaluation
    is kept back as soon as one was seen. So a budget is exceeded by about a step at most, but for a first step, which
    includes its capture, and a first evaluation, neither of which can be foreseen.

    A run that a budget stops ends with the parameters of its best epoch: by ``valid_loss``, without validation data by
    ``loss``. What was learnt since the last whole epoch is evaluated and kept if it is better; in a first epoch it is
    kept in any case. An epoch before a resumption cannot come back. This goes for models of ``EarlyStopping`` too. A
    ``Checkpoint`` holds the last parameters, from which a run with a larger budget goes on.

    Args:
        time: seconds, or text such as "30s", "10 min".
        energy: joules, or text such as "2kJ", "0.1 kWh".
        meter: counts the energy. By default one of the machine's counters; where those do not cover everything, of
            processor seconds times watts (``tinynet.meters.models.ProcessorModel``), and a warning says so.
        clock: seconds.

    ``fit(time=..., energy=...)`` makes one. Passed in ``callbacks``, it should be the last.

    Raises:
        ArgumentError: no budget, or one that cannot be read. In ``fit``: an energy budget on a GPU without a counter.
    """

    def __init__(
        self, time: str | float | None = None, energy: str | float | None = None, *, meter: Meter | None = None,
        clock: Callable[[], float] = clocks.perf_counter,
    ):  # fmt: skip
        if time is None and energy is None:
            raise ArgumentError("Budget", expected="time, energy or both", got="neither")
        self.seconds = None if time is None else as_seconds(time, "time budget")
        self.joules = None if energy is None else as_joules(energy, "energy budget")
        self._meter, self._clock = meter, clock
        self._began: float | None = None

    # ---- what is used ----

    def used(self) -> Used:
        """What is used so far; at the end of ``fit``, all of it.

        Raises:
            ArgumentError: training did not begin yet.
        """
        if self._began is None:
            raise ArgumentError("Budget.used", expected="a run that has begun", got="none")
        if self._final is not None:
            return self._final
        seconds = self._before.seconds + self._clock() - self._began
        return self._with(seconds, self._energy.read()) if self.joules is not None else Used(seconds)

    def _with(self, seconds: float, energy: Energy) -> Used:
        if energy.joules is None:
            return Used(seconds, None, energy.provenance)
        before = self._before
        kinds = dict.fromkeys(filter(None, (before.provenance, energy.provenance)))
        within = (before.uncertainty or 0.0) + (energy.uncertainty or 0.0)
        return Used(seconds, (before.joules or 0.0) + energy.joules, "+".join(kinds), within)

    def shown(self) -> dict[str, str]:
        """The same in words: "time" and "energy", those that have a budget."""
        used, texts = self.used(), {}
        if self.seconds is not None:
            texts["time"] = f"{show_seconds(used.seconds)} of {show_seconds(self.seconds)}"
        if self.joules is not None:
            joules = "unknown" if used.joules is None else show_joules(used.joules)
            within = "" if used.uncertainty is None else f", ± {show_joules(used.uncertainty)}"
            texts["energy"] = f"{joules} of {show_joules(self.joules)} ({used.provenance}{within})"
        return texts

    # ---- the run ----

    def on_begin(self, run):
        self._before, self._final, self._reason = run.used, None, None
        self._best, self._best_epoch, self._state = math.inf, 0, None
        self._step = self._validation = self._watts = 0.0  # what the next ones will take; 0 is not known
        self._first = True
        if self.joules is not None:
            if self._before.seconds and self._before.joules is None:
                warnings.warn("the energy used before the resumption is not known and does not count", stacklevel=3)
            self._energy = self._opened(run)
            self._work = Work(self._energy)
            self._counted, self._counted_at = 0.0, self._clock()
        self._began = self._last = self._look_at = self._clock()
        run.budget = self
        self._judge(run, self._began)  # a run that is taken up again may have nothing left

    def _opened(self, run) -> Meter:
        first = next(iter(run.model.parameters()), None)
        on_gpu = first is not None and isinstance(first.backend, CuPyBackend)
        meter = Meter(model=ProcessorModel(), gpus=on_gpu) if self._meter is None else self._meter
        begin = meter.start().read()
        if begin.joules is None and begin.told is None:
            raise ArgumentError(
                "energy budget", expected="a counter of energy, or a model of it", got=begin.why,
                mend="pass callbacks=[tn.train.Budget(energy=..., meter=Meter(model=...))], or time= instead",
            )  # fmt: skip
        if begin.provenance == MODELLED and self._meter is None:
            warnings.warn(f"the energy budget is kept by an estimate, from {begin.why}", stacklevel=4)
        return meter

    def on_step(self, run):
        now = self._clock()
        took, self._last = now - self._last, now
        if self._step:
            self._step += (min(took, _OUTLIER * self._step) - self._step) / 4
        elif not self._first:  # which includes its capture
            self._step = took
        self._first = False
        if self.joules is not None:
            self._work.step(run)
        self._judge(run, now)

    def on_validation(self, run):
        self._last = self._clock()

    def on_epoch(self, run):
        now = self._clock()
        row = run.history[-1]
        if "valid_loss" in row:  # with what other callbacks do after an epoch
            self._validation = now - self._last
        self._last = now
        score = row.get("valid_loss", row["loss"])
        if score < self._best:
            self._best, self._best_epoch, self._state = score, run.epoch, run.model.state_dict()
        self._judge(run, now)

    def on_end(self, run):
        if self._reason is not None and run.stopping == self._reason:
            self._keep_best(run)
        self._final = self.used()
        if self.joules is not None:
            self._energy.stop()
        if self._reason is not None and run.stopping == self._reason:
            run.stopping = run.history.stopped = f"{self._reason}: {', '.join(self.shown().values())}"

    # ---- decisions ----

    def _judge(self, run, now: float) -> None:
        if run.stopping is not None:
            return
        if self.seconds is not None:
            used = self._before.seconds + now - self._began
            if used >= self.seconds or used + self._step + self._validation > self.seconds:
                self._stop(run, "the time budget is used up")
                return
        if self.joules is not None and now >= self._look_at:
            self._look(run, now)

    def _look(self, run, now: float) -> None:
        """Reads the energy, and says when to do so again: half way to the end, as it looks now."""
        energy = self._energy.read()
        if energy.told == 0 and self._first:
            return
        if energy.joules is None:
            self._stop(run, f"the energy budget cannot be watched any more ({energy.why})")
            return
        if energy.joules > self._counted:
            if now > self._counted_at:
                self._watts = (energy.joules - self._counted) / (now - self._counted_at)
            self._counted, self._counted_at = energy.joules, now
        left = self.joules - (self._before.joules or 0.0) - energy.joules - self._watts * self._validation
        if left <= 0 or left < self._watts * self._step:
            self._stop(run, "the energy budget is used up")
        wait = left / self._watts / 2 - self._step if self._watts else _BLIND
        self._look_at = now + min(_LOOK, max(0.0, wait))

    def _stop(self, run, reason: str) -> None:
        self._reason = reason
        run.stop(reason)

    def _keep_best(self, run) -> None:
        """Gives the model its best parameters, if those are not what it has."""
        if self._state is None or (self._best_epoch == run.epoch and not run.totals.steps):
            return
        if run.totals.steps:  # cut within an epoch
            total, samples, *_ = run.totals.numbers()
            score = run.validate()["loss"] if run.validate is not None else total / samples if samples else math.inf
            if score < self._best:
                return
        run.model.load_state_dict(self._state)
