"""Interleaved measurement: every peer prepares and is checked, then all that are right run a round each in turn.

The clock of a shared machine moves. So the order turns from round to round, a ratio is taken of the two times of one
round, and what is reported are medians over the rounds, with quartiles. A round in which a peer's threads waited for a
core while other processes ran there is repeated: a pool whose threads wait for each other may then take a hundred times
as long.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from . import environment
from .processes import PeerError, PeerUnsupported, Process

BASE = "tinynet"
DISTURBED = 0.05  # of a round's time
REPEATS = 3


@dataclass
class Runner:
    """A process with what it is to prepare; ``check`` finds what is wrong with the answer, or None."""

    name: str
    process: Process
    request: dict
    check: Callable[[dict], str | None] = lambda answer: None
    samples: dict[int, float] = field(default_factory=dict)  # round -> seconds of one call
    disturbed: int = 0  # rounds that stayed disturbed
    state: str | None = None  # why it is not timed


@dataclass(frozen=True)
class Pace:
    """How long a round is, how many there are, and when a slow peer has had its share (after two rounds at least)."""

    seconds: float
    rounds: int
    share: float  # seconds of one peer at one workload
    timeout: float = 600.0
    repeats: int = REPEATS  # of a disturbed round, at most


def interleave(runners: list[Runner], pace: Pace, together: bool = True) -> None:
    """Fills samples and states. ``together``: prepare at the same time, which is sooner done, or one after another."""
    for group in [runners] if together else [[runner] for runner in runners]:
        for runner in group:
            runner.process.send(**runner.request)
        for runner in group:
            answer = _attempt(runner, lambda runner=runner: runner.process.receive(pace.timeout))
            if answer is not None:
                wrong = runner.check(answer)
                runner.state = wrong and f"wrong: {wrong}"
    spent = dict.fromkeys(map(id, runners), 0.0)
    for i in range(-1, pace.rounds):  # the first is a warm-up
        order = [r for r in runners if r.state is None]
        turn = i % len(order) if order else 0
        for runner in order[turn:] + order[:turn]:
            if i >= 2 and spent[id(runner)] > pace.share:
                continue
            start = time.monotonic()
            seconds, disturbed = _round(runner, pace, pace.repeats if i >= 0 else 1)
            spent[id(runner)] += time.monotonic() - start
            if seconds is not None and i >= 0:
                runner.samples[i] = seconds
                runner.disturbed += disturbed > DISTURBED
    for runner in runners:
        if runner.process.process is not None:
            _attempt(runner, lambda runner=runner: runner.process.ask("drop", pace.timeout))


def _round(runner: Runner, pace: Pace, repeats: int) -> tuple[float | None, float]:
    """(seconds of a call, how disturbed), of the least disturbed try."""
    best: tuple[float | None, float] = (None, float("inf"))
    for _ in range(repeats):
        watch = Watch(runner.process)
        answer = _attempt(runner, lambda: runner.process.ask("round", pace.timeout, seconds=pace.seconds))
        if answer is None:
            return None, 0.0
        disturbed = watch.disturbed()
        runner.process.quiet()
        if disturbed < best[1]:
            best = answer["seconds"], disturbed
        if disturbed <= DISTURBED:
            break
    return best


class Watch:
    """Whether other processes are in the way of a peer, from now on."""

    def __init__(self, process: Process):
        self.process, self.cores = process, environment.cores(process.cores)
        self.before, self.start = self._now(), time.monotonic()

    def _now(self):
        return self.process.scheduled(), environment.busy(self.cores)

    def disturbed(self) -> float:
        """The share of the time for which its threads waited for a core, or the share of the cores that was others',
        whichever is less: threads may wait for each other, and others may run where nobody waits."""
        (own, busy), (own_now, busy_now) = self.before, self._now()
        if own is None or own_now is None or busy is None:
            return 0.0
        took = max(time.monotonic() - self.start, 1e-9)
        ran, waited = (max(0.0, b - a) for a, b in zip(own, own_now))
        others = busy_now - busy - ran
        if others < 0.02:  # what counting in hundredths may be wrong by
            return 0.0
        return min(waited / took, others / took / len(self.cores))


def _attempt(runner: Runner, call: Callable[[], dict]) -> dict | None:
    try:
        return call()
    except PeerUnsupported as error:
        runner.state = f"no part: {error}"
    except PeerError as error:
        runner.state = f"failed: {error}"
    return None


def quartiles(values: Iterable[float]) -> dict[str, float]:
    values = sorted(values)
    q1, _, q3 = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    return {"median": statistics.median(values), "q1": q1, "q3": q3}


def geometric_mean(values: Iterable[float]) -> float | None:
    values = list(values)
    return math.exp(sum(map(math.log, values)) / len(values)) if values else None


def cells(found: Iterable[tuple]) -> dict[str, dict]:
    """One cell for each peer, of (name, variant, samples by round, state, rounds disturbed): the better variant, its
    quartiles, and the ratio to tinynet; where nothing was measured, the state."""
    best: dict[str, dict] = {}
    for name, variant, samples, state, *disturbed in found:
        if state is None and samples:
            cell = {"variant": variant, **quartiles(samples.values()), "samples": samples}
            if disturbed and disturbed[0]:
                cell["disturbed_rounds"] = disturbed[0]
            if "median" not in best.get(name, {}) or cell["median"] < best[name]["median"]:
                best[name] = cell
        elif name not in best:
            best[name] = {"state": state or "not measured"}
    base = best.get(BASE, {}).get("samples", {})
    for cell in best.values():
        shared = [cell["samples"][i] / base[i] for i in cell.get("samples", {}) if i in base]
        if shared:
            cell["ratio"] = quartiles(shared)
    for cell in best.values():
        if "samples" in cell:
            cell["samples"] = [cell["samples"][i] for i in sorted(cell["samples"])]
    return best
