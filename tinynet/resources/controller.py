"""``Controller``: keeps a run within memory that becomes less while it trains, and gives it more when there is more.

What is available, and whether processes wait for it, is read from control groups and the system
(``tinynet.meters.memory``); what a change would save is planned (``run.workspace``), and never tried out.
"""

from __future__ import annotations

import gc
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tinynet.errors import ArgumentError, PlanError
from tinynet.meters import memory
from tinynet.meters.groups import ROOT
from tinynet.meters.units import as_bytes, show_bytes
from tinynet.train import Callback, Run

from .lines import check_folder, open_lines

_PART_KEPT_FREE = 0.05
_SETTLED = 5  # looks after a change before the next one: what was freed has to show itself first
_STALLED, _CALM = 10.0, 1.0  # percent of the time in which all threads waited for memory, and in which some did
_LONGEST = 3600.0  # seconds of calm that are ever asked for
MEMORY, BATCH_SIZE = "memory", "batch_size"


class _Change(NamedTuple):
    """What was changed, from what to what, and the bytes that a step was planned to take before and after."""

    what: str
    before: int | None
    after: int
    took: int | None
    takes: int | None


class Controller(Callback):
    """Looks at the memory that is available, and changes how much a step takes.

    Where less is available than is to be kept free, or where all threads of the control group wait for memory in more
    than 10 % of the time, a step gets a budget: half, a quarter, ... of what it takes, the largest that is enough. Its
    batch is then cut into parts whose gradients are added with exact weights, so that only rounding changes. If no
    smaller budget has a plan, and ``least_batch`` is given, the batch size is halved, which does change the course of
    training: the learning rate stays as it is.

    Changes are taken back one by one, the last one first, when there has been room for that, and twice what is to be
    kept free, for ``calm`` seconds on end, and hardly any waiting. If memory becomes scarce again within as long, twice
    as much calm is asked for the next time: so changes become rarer, and never go back and forth.

    Args:
        path: a file that gets each decision as a line of JSON, for the report: ``decisions.jsonl`` in the run's folder.
            A resumed run goes on with it.
        every: seconds between looks.
        reserve: what is to be kept free, in bytes or as "64MB"; by default a twentieth of the control group's limit, or
            of the machine's memory.
        floor: the least budget.
        least_batch: the least batch size; without it the batch size is left alone.
        calm: seconds.
        root: where /proc and /sys are.
        clock: seconds that go on evenly.

    Attributes:
        decisions: dictionaries with time (seconds since 1970), step, what ("memory", in bytes, or "batch_size"), from,
            to, and reason. A budget of None is none. One whose from and to are the same says that nothing more can be
            done.

    Raises:
        ArgumentError: numbers out of range.
    """

    def __init__(
        self, path: str | os.PathLike | None = None, every: float = 1.0, *, reserve: str | int | None = None,
        floor: str | int = 0, least_batch: int | None = None, calm: float = 30.0, root: str | Path = ROOT,
        clock: Callable[[], float] = time.perf_counter,
    ):  # fmt: skip
        if not (every > 0 and calm > 0) or (least_batch is not None and least_batch < 1):
            got = f"every={every!r}, calm={calm!r}, least_batch={least_batch!r}"
            raise ArgumentError("Controller", expected="every and calm above 0, least_batch of at least 1", got=got)
        self.path, self.every, self.least_batch, self.root = path, every, least_batch, Path(root)
        self.reserve = None if reserve is None else as_bytes(reserve, "Controller, reserve")
        self.floor = as_bytes(floor, "Controller, floor")
        self._calm_at_first, self._clock = calm, clock
        self.decisions: list[dict] = []

    def on_begin(self, run):
        self.decisions.clear()
        self._changes: list[_Change] = []
        self._calm, self._roomy_since = self._calm_at_first, None
        self._exhausted: object = None  # the batch size at which nothing more can be done
        self._refused: dict[object, int] = {}  # batch size -> the largest budget known to have no plan
        self._grown_at = self._settled_at = None
        self._due = self._clock() + self.every
        check_folder("Controller", self.path)
        if self.path is not None and not run.step:
            Path(self.path).unlink(missing_ok=True)

    def on_step(self, run):
        if self._clock() >= self._due:
            self._look(run)
            self._due = self._clock() + self.every

    # ---- what there is ----

    def _look(self, run: Run) -> None:
        now, available = self._clock(), memory.available(self.root)
        if available is None:
            return
        pressure, reserve = memory.pressure(self.root), self._kept_free()
        stalled = pressure is not None and pressure.full_avg10 > _STALLED
        if available < reserve or stalled:
            self._roomy_since = None
            if self._exhausted != run.loader.batch_size and (self._settled_at is None or now >= self._settled_at):
                why = f"{show_bytes(available)} available, {show_bytes(reserve)} to be kept free"
                if stalled:
                    why += f"; all threads waited for memory in {pressure.full_avg10:g} % of 10 s"
                self._shrink(run, now, max(1, reserve - available), why)
            return
        if not self._changes:
            return
        last = self._changes[-1]
        more = 0 if last.took is None else last.took - last.takes
        waiting = pressure is not None and pressure.some_avg10 > _CALM
        if waiting or available - more < 2 * reserve:
            self._roomy_since = None
        elif self._roomy_since is None:
            self._roomy_since = now
        elif now - self._roomy_since >= self._calm:
            self._grow(run, now, f"{show_bytes(available)} available for {now - self._roomy_since:.3g} s")

    def _kept_free(self) -> int:
        if self.reserve is not None:
            return self.reserve
        whole = memory.limit(self.root) or memory.system(self.root).get("MemTotal", 0)
        return int(_PART_KEPT_FREE * whole)

    # ---- what is done ----

    def _shrink(self, run: Run, now: float, needed: int, why: str) -> None:
        if self._grown_at is not None and now - self._grown_at < 2 * self._calm:
            self._calm, self._grown_at = min(2 * self._calm, _LONGEST), None
        change = self._smaller_budget(run, needed) or self._smaller_batch(run, needed)
        if change is None:
            least = "left alone" if self.least_batch is None else f"at least {self.least_batch}"
            limits = f"budgets from {show_bytes(self.floor)} on, batch size {least}"
            self._log(run, MEMORY, run.memory, run.memory, f"{why}; no smaller step is possible ({limits})")
            self._exhausted = run.loader.batch_size
            return
        self._changes.append(change)
        self._apply(run, now, change.what, change.before, change.after, f"{why}; {_saving(change)}")

    def _smaller_budget(self, run: Run, needed: int) -> _Change | None:
        """The largest of half, a quarter, ... of the workspace within which the plan saves enough, or the least."""
        if run.captured is None:
            return None
        takes = run.workspace(run.memory)
        found, budget, size = None, takes // 2, run.loader.batch_size
        while budget >= max(1, self.floor) and budget > self._refused.get(size, 0):  # that search takes its time
            try:
                planned = run.workspace(budget)
            except PlanError:
                self._refused[size] = budget
                break
            found = _Change(MEMORY, run.memory, budget, takes, planned)
            if takes - planned >= needed:
                break
            budget //= 2
        return found

    def _smaller_batch(self, run: Run, needed: int) -> _Change | None:
        size = run.loader.batch_size
        if self.least_batch is None or not isinstance(size, int) or size <= self.least_batch:
            return None
        if run.captured is None:  # there is no plan of an eager step
            return _Change(BATCH_SIZE, size, max(self.least_batch, size // 2), None, None)
        takes, smaller, found = run.workspace(run.memory, size), size, None
        while smaller > self.least_batch:
            smaller = max(self.least_batch, smaller // 2)
            found = _Change(BATCH_SIZE, size, smaller, takes, run.workspace(run.memory, smaller))
            if takes - found.takes >= needed:
                break
        return found

    def _grow(self, run: Run, now: float, why: str) -> None:
        change = self._changes.pop()
        if change.what == BATCH_SIZE and change.after != run.loader.batch_size:
            return  # somebody else has set another one since
        self._exhausted, self._grown_at = None, now
        self._apply(run, now, change.what, change.after, change.before, f"{why}, enough to take the last change back")

    def _apply(self, run: Run, now: float, what: str, before: int | None, after: int | None, reason: str) -> None:
        if what == MEMORY:
            run.memory = after
            gc.collect()  # programs refer to themselves, and their arenas would stay until some later time
        else:
            run.loader.batch_size = after
        self._roomy_since, self._settled_at = None, now + _SETTLED * self.every
        self._log(run, what, before, after, reason)

    def _log(self, run: Run, what: str, before: int | None, after: int | None, reason: str) -> None:
        decision = {
            "time": time.time(), "step": run.step, "what": what, "from": before, "to": after, "reason": reason,
        }  # fmt: skip
        self.decisions.append(decision)
        if self.path is not None:
            with open_lines(self.path) as file:
                file.write(f"{json.dumps(decision)}\n")


def _saving(change: _Change) -> str:
    if change.took is None:
        return "steps run eagerly, so that there is no plan of what that saves"
    return f"by the plan a step takes {change.takes:,} bytes of workspace instead of {change.took:,}"
