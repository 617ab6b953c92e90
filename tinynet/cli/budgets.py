"""What ``--memory``, ``--time`` and ``--energy`` allow a run, and what it used of them, in words and in numbers."""

from __future__ import annotations

import tinynet as tn
from tinynet import train as training
from tinynet.memory.units import as_bytes, show_bytes
from tinynet.meters.energy import MODELLED
from tinynet.resources.metering import machine_meter

from .sources import Source


class Workspaces(training.Callback):
    """The largest workspace among the programs that trained.

    Attributes:
        nbytes: of it; None where steps ran eagerly.
    """

    def on_begin(self, run):
        self.nbytes, self._seen = None, set()

    def on_step(self, run):
        shape = run.batch[0].shape
        if shape not in self._seen and run.program_of is not None:
            self._seen.add(shape)
            self.nbytes = max(self.nbytes or 0, run.program.plan.workspace_bytes)


class Budgets:
    """The three budgets of a run, each of which may be None.

    Raises:
        ArgumentError: one that cannot be read.
    """

    def __init__(self, memory: str | None, time: str | None, energy: str | None):
        self.memory = None if memory is None else as_bytes(memory, "--memory")
        self._meter = None if energy is None else machine_meter()
        timed = time is not None or energy is not None
        self._budget = training.Budget(time, energy, meter=self._meter) if timed else None
        self._planned, self._workspaces = None, Workspaces()

    @property
    def callbacks(self) -> list[training.Callback]:
        """What has to look on, last of all."""
        callbacks = [] if self.memory is None else [self._workspaces]
        return callbacks if self._budget is None else [*callbacks, self._budget]

    def planned(self, model, source: Source, optimizer, batch: int) -> str:
        """What a step will take, in a line, what is done to keep to a budget, and whether energy is an estimate."""
        plan = tn.plan(model, source.loss, optimizer, batch, source.train.x.shape[1:], self.memory)
        self._planned = plan.workspace_bytes
        took = f"{plan.workspace_bytes / 2**20:,.2f} MiB beyond parameters, moments and the batch"
        lines = [f"a step of {batch:,} takes {took}", *plan.notes]
        if self._meter is not None:
            begin = self._meter.start().read()
            self._meter.stop()
            if begin.provenance == MODELLED:
                lines.append(f"energy is estimated here, from {begin.why}")
        return "\n".join(lines)

    def to_dict(self) -> dict:
        """Limits and what was used, by budget; only those that were set."""
        found = {}
        if self.memory is not None:
            found["memory"] = {
                "limit_bytes": self.memory, "planned_bytes": self._planned, "used_bytes": self._workspaces.nbytes,
            }  # fmt: skip
        if self._budget is None:
            return found
        used = self._budget.used()
        if self._budget.seconds is not None:
            found["time"] = {"limit_seconds": self._budget.seconds, "used_seconds": used.seconds}
        if self._budget.joules is not None:
            found["energy"] = {
                "limit_joules": self._budget.joules, "used_joules": used.joules, "provenance": used.provenance,
                "uncertainty_joules": used.uncertainty,
            }  # fmt: skip
        return found

    def lines(self) -> list[tuple[str, str]]:
        """The same for the summary."""
        lines = []
        if self.memory is not None:
            text = f"{show_bytes(self._workspaces.nbytes)} of {show_bytes(self.memory)} for a step"
            lines.append(("memory", f"{text} ({show_bytes(self._planned)} predicted)"))
        return lines if self._budget is None else [*lines, *self._budget.shown().items()]
