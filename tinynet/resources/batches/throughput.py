"""Samples per second over the batch size, measured on real steps; and the knee, from which larger batches gain little.

Sizes are doubled until that no longer pays, and then timed in turn, so that what else the machine does falls on all of
them. Which sizes fit is not decided here.
"""

from __future__ import annotations

import copy
import functools
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from tinynet.backend import generator, is_floating
from tinynet.errors import ArgumentError, import_extra
from tinynet.nn import Module
from tinynet.ops import Spec
from tinynet.program import capture
from tinynet.train.evaluating import onto
from tinynet.train.step import named_loss, named_optimizer, training_step

from .fitting import Fit

_TOLERANCE = 0.05  # of the best throughput, that the knee may miss
_GAIN = 1.02  # over the best so far, for a larger size to count as faster
_BLOCK = 0.02  # seconds of steps that are timed together
_MOST_ROUNDS = 15
_WARM_UP = 3  # calls: two that capture a step, one that runs it
_STEPS_TO_BEGIN = _WARM_UP + 1  # that a size takes before its first time is known


class Rate(NamedTuple):
    """One point: the batch size, and the median time of a step in seconds."""

    batch_size: int
    seconds: float

    @property
    def samples_per_second(self) -> float:
        return self.batch_size / self.seconds


class Curve:
    """The throughput over the batch size.

    Attributes:
        rates: a ``Rate`` for each size, in ascending order.
        knee: the smallest size whose throughput is within 5 % of the best that was measured.
        stopped: why no larger size was measured.
    """

    def __init__(self, rates: list[Rate], stopped: str):
        self.rates, self.stopped = rates, stopped
        self.best = max(rate.samples_per_second for rate in rates)
        enough = (1 - _TOLERANCE) * self.best
        self.knee = next(rate.batch_size for rate in rates if rate.samples_per_second >= enough)

    def to_dict(self) -> dict:
        """All of it as plain values."""
        points = [rate._asdict() | {"samples_per_second": rate.samples_per_second} for rate in self.rates]
        return {"rates": points, "knee": self.knee, "stopped": self.stopped}

    def __str__(self) -> str:
        lines = [f"{'batch':>10}  {'ms per step':>12}  {'samples/s':>13}  of the best"]
        for rate in self.rates:
            knee = "  <- knee" if rate.batch_size == self.knee else ""
            lines.append(
                f"{rate.batch_size:>10,}  {rate.seconds * 1e3:>12.3f}  {rate.samples_per_second:>13,.0f}  "
                f"{rate.samples_per_second / self.best:>11.0%}{knee}"
            )
        return "\n".join([*lines, self.stopped])

    def plot(self, path) -> None:
        """Draws it into a picture (the ending of ``path`` says which kind), the knee marked.

        Raises:
            MissingExtraError: matplotlib is not installed.
        """
        figure = import_extra("matplotlib.figure", "Curve.plot", "viz").Figure(figsize=(6, 4), layout="constrained")
        axes = figure.add_subplot(xlabel="batch size", ylabel="samples per second", xscale="log")
        sizes = [rate.batch_size for rate in self.rates]
        axes.plot(sizes, [rate.samples_per_second for rate in self.rates], marker="o", markersize=4)
        axes.axvline(self.knee, color="0.6", linewidth=1, linestyle="--", zorder=0)
        axes.annotate(
            f"knee: {self.knee:,}", (self.knee, 0), xycoords=("data", "axes fraction"), xytext=(5, 8),
            textcoords="offset points", color="0.3",
        )  # fmt: skip
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes], rotation=45, ha="right")
        axes.minorticks_off()
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter("{x:,.0f}")
        axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(path)


def climb(
    runners: Iterable[tuple[int, Callable[[], object]]], seconds: float, clock: Callable[[], float] = time.perf_counter
) -> Curve:
    """Measures sizes in ascending order until the time is up, or larger ones no longer gain.

    It ends where two sizes in a row are not 2 % faster than the best before, and where the next would take too long.
    Half of the time goes into the way up; in the rest all sizes are timed again, in turn, and medians taken.

    Args:
        runners: pairs of a size and a function that makes one step and returns when it is done. Each pair is asked for
            when it is its turn, with its function ready to be timed. The time until the first is there does not count.
        seconds: the limit.
        clock: seconds from anywhere.

    Raises:
        ArgumentError: no time, or no sizes.
    """
    if not seconds > 0:
        raise ArgumentError("batch_size", expected="some time to measure", got=repr(seconds))
    blocks: list[_Block] = []
    iterator, start, best, idle = iter(runners), None, 0.0, 0
    stopped = "All sizes that fit were measured."
    while True:
        if blocks and clock() - start + 2 * _STEPS_TO_BEGIN * blocks[-1].times[0] > seconds / 2:
            stopped = f"Larger sizes would have taken more than the {seconds:g} s allowed."
            break
        following = next(iterator, None)
        if following is None:
            break
        start = clock() if start is None else start
        blocks.append(_Block(*following, clock))
        if blocks[-1].rate <= _GAIN * best:
            blocks[-1].time()  # once more, in case that something came between
        idle = 0 if blocks[-1].rate > _GAIN * best else idle + 1
        best = max(best, blocks[-1].rate)
        if idle == 2:
            stopped = "Two larger sizes in a row were no faster."
            break
    if not blocks:
        raise ArgumentError("batch_size", expected="at least one size to measure", got="none")
    for _ in range(_MOST_ROUNDS):
        for block in blocks:
            if clock() - start + block.lasts > seconds:
                return _curve(blocks, stopped)
            block.time()
    return _curve(blocks, stopped)


def _curve(blocks: list[_Block], stopped: str) -> Curve:
    return Curve([Rate(block.size, statistics.median(block.times)) for block in blocks], stopped)


class _Block:
    """As many steps of a size as the clock can tell, timed together.

    Attributes:
        times: of a step, in seconds.
        lasts: seconds of the whole block.
        rate: samples per second, at best.
    """

    def __init__(self, size: int, run: Callable[[], object], clock: Callable[[], float]):
        self.size, self.run, self.clock, self.steps = size, run, clock, 1
        self.times: list[float] = []
        self.time()
        self.steps = max(1, round(_BLOCK / max(self.times.pop(), 1e-9)))
        self.time()
        self.lasts = self.steps * self.times[0]

    @property
    def rate(self) -> float:
        return self.size / max(min(self.times), 1e-9)

    def time(self) -> None:
        begin = self.clock()
        for _ in range(self.steps):
            self.run()
        self.times.append((self.clock() - begin) / self.steps)


class Steps:
    """Training steps of copies of a model and its optimizer, to be timed."""

    def __init__(self, model: Module, loss, optimizer, penalty, clip_norm, executor: str | None):
        self.model, optimizer = copy.deepcopy((model, optimizer))
        self.model.train()
        optimizer = named_optimizer(optimizer, self.model)
        self.step = training_step(self.model, named_loss(loss), optimizer, penalty, clip_norm)
        self.executor = executor

    def runners(self, fits: Iterable[Fit], batch_of: Callable[[int], tuple]) -> Iterator[tuple[int, Callable]]:
        """For each size a function that makes a step of the program, which has been captured and has run.

        Args:
            batch_of: gives arrays x and y of so many samples.
        """
        for fit in fits:
            step = capture(self.step, memory=fit.memory, executor=self.executor)
            run = functools.partial(self._run, step, *batch_of(fit.batch_size))
            for _ in range(_WARM_UP):
                run()
            yield fit.batch_size, run

    def _run(self, step: Callable, x, y) -> float:
        tensor = onto(self.model)
        return step(tensor(x), tensor(y)).item()


def made_up(x: Spec, y: Spec, size: int) -> tuple:
    """A batch of so many samples like others: normal numbers, and 0 for labels."""
    rng = generator(stream=0, seed=0)
    drawn = [rng.standard_normal((size, *spec.shape[1:]), "float32") for spec in (x, y)]
    return drawn[0].astype(x.dtype), (drawn[1] if is_floating(y.dtype) else 0 * drawn[1]).astype(y.dtype)
