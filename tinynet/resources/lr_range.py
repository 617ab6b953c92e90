"""The learning-rate range test: ``lr_range`` trains with ever larger rates and looks at the loss.

After Smith, "Cyclical learning rates for training neural networks", WACV 2017, section 3.3; with rates that grow by a
constant factor, and a smoothed loss. It trains copies: the model and the optimizer that are given stay as they are,
whatever happens.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator

from tinynet.data import Loader
from tinynet.errors import ArgumentError, import_extra
from tinynet.nn import Module
from tinynet.optim import Optimizer
from tinynet.tensor import Tensor
from tinynet.train.evaluating import as_dataset, onto
from tinynet.train.step import as_program, can_capture, named_loss, named_optimizer, training_step

_DIVERGED = 4.0  # times the smallest smoothed loss
_SKIPPED = 0.1  # the part of the rates, from the first on, at which the smoothed loss is the mean of too few
_REACH = 0.05  # the part of the rates, to either side, over which a slope is taken


class LRRange:
    """The loss over the learning rate, and what can be read from it.

    Attributes:
        rates: the rates that were tried, each ``(high / low) ** (1 / (steps - 1))`` times the one before.
        losses: the loss of the batch before the step with the rate.
        smoothed: their exponential moving average, corrected for its start as Adam corrects its moments.
        suggestion: ``steepest``, or ``tenth_of_minimum`` where there is no such place.
        steepest: the rate at which the smoothed loss falls most over the logarithm of the rate; None if it never falls.
        tenth_of_minimum: a tenth of the rate at which the smoothed loss is least; a bolder choice where the curve has
            a broad valley, a more careful one where it is steep shortly before it diverges.
        stopped: why no larger rate was tried.
    """

    def __init__(self, rates: list[float], losses: list[float], smoothing: float, stopped: str):
        if not rates:
            raise ArgumentError("lr_range", expected="a finite loss at the first rate", got="none", mend="lower low=")
        self.rates, self.losses, self.stopped = rates, losses, stopped
        self.smoothed = list(_averages(losses, smoothing))
        self._at_least = min(range(len(rates)), key=self.smoothed.__getitem__)
        self.steepest = self._steepest()
        self.tenth_of_minimum = rates[self._at_least] / 10
        self.suggestion = self.tenth_of_minimum if self.steepest is None else self.steepest

    def _steepest(self) -> float | None:
        reach = max(1, round(_REACH * len(self.rates)))
        first = max(reach, round(_SKIPPED * len(self.rates)))
        slopes = {
            i: (self.smoothed[i + reach] - self.smoothed[i - reach])
            / math.log(self.rates[i + reach] / self.rates[i - reach])
            for i in range(first, len(self.rates) - reach)
        }
        best = min(slopes, key=slopes.__getitem__, default=None)
        return self.rates[best] if best is not None and slopes[best] < 0 else None

    def to_dict(self) -> dict:
        """All of it as plain values."""
        names = ("rates", "losses", "smoothed", "suggestion", "steepest", "tenth_of_minimum", "stopped")
        return {name: getattr(self, name) for name in names}

    def __str__(self) -> str:
        every = max(1, len(self.rates) // 20)
        lines = [f"{'rate':>10}  {'loss':>10}  {'smoothed':>10}"]
        for i in range(0, len(self.rates), every):
            lines.append(f"{self.rates[i]:>10.2e}  {self.losses[i]:>10.4g}  {self.smoothed[i]:>10.4g}")
        steepest = "the loss never fell" if self.steepest is None else f"{self.steepest:.2e}"
        lines += [
            self.stopped, f"steepest descent  {steepest}", f"minimum / 10      {self.tenth_of_minimum:.2e}",
            f"suggestion        {self.suggestion:.2e}",
        ]  # fmt: skip
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"LRRange(suggestion={self.suggestion:.3g}, {len(self.rates)} rates up to {self.rates[-1]:.3g})"

    def plot(self, path) -> None:
        """Draws it into a picture (the ending of ``path`` says which kind), the suggestion marked.

        Raises:
            MissingExtraError: matplotlib is not installed.
        """
        figure = import_extra("matplotlib.figure", "LRRange.plot", "viz").Figure(figsize=(6, 4), layout="constrained")
        axes = figure.add_subplot(xlabel="learning rate", ylabel="loss", xscale="log")
        axes.plot(self.rates, self.losses, color="0.75", linewidth=1, label="loss of the batch")
        axes.plot(self.rates, self.smoothed, color="C0", linewidth=2, label="smoothed")
        low, high = min(self.smoothed), max(self.smoothed[: self._at_least + 1])
        margin = max(0.3 * (high - low), 1e-3 * abs(high))
        axes.set_ylim(low - margin, high + margin)  # what diverges would flatten the rest
        axes.axvline(self.suggestion, color="C3", linewidth=1, linestyle="--", zorder=0)
        axes.annotate(
            f"suggestion: {self.suggestion:.2g}", (self.suggestion, 0), xycoords=("data", "axes fraction"),
            xytext=(-5, 8), textcoords="offset points", color="C3", ha="right",
        )  # fmt: skip
        axes.legend(frameon=False, loc="upper left")
        axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(path)


def lr_range(
    model: Module, data, *, loss: str | Callable[[Tensor, Tensor], Tensor], optimizer: str | Optimizer,
    low: float = 1e-7, high: float = 10.0, steps: int = 100, batch_size: int = 32, seed: int = 0,
    smoothing: float = 0.8, penalty: Callable[[Module], Tensor] | None = None, clip_norm: float | None = None,
    capture: bool = True,
) -> LRRange:  # fmt: skip
    """Trains a copy of the model with rates from ``low`` up to ``high``, and says which rate to train with.

    It stops before ``high`` where the loss is not finite, or the smoothed one above 4 times its least value (if that is
    above 0). All rates run on one program. Whatever happens, an error and Ctrl-C included, the model and the optimizer
    that are given are not touched; what a loss of one's own refers to besides its arguments is not copied.

    Args:
        model, data, loss, optimizer, penalty, clip_norm, capture: as for ``fit``. The copy of an optimizer starts from
            its moments as they are; its own rate or schedule does not count.
        low, high: the first rate and the last.
        steps: how many rates are tried, at least 2. Where the data has fewer batches they come again, in a new order.
        batch_size, seed: of the batches; all are full, if the data has one full batch.
        smoothing: beta of the moving average, from 0 up to, not including, 1.

    Returns:
        The ``LRRange``.

    Raises:
        ArgumentError: numbers out of range; a loss that is not finite at the first rate. Otherwise as ``fit``.
    """
    if not (0 < low < high < math.inf):
        raise ArgumentError("lr_range", expected="0 < low < high", got=f"low={low!r}, high={high!r}")
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 2:
        raise ArgumentError("lr_range", expected="steps, a whole number of at least 2", got=repr(steps))
    if not 0 <= smoothing < 1:
        raise ArgumentError("lr_range", expected="smoothing from 0 up to, not including, 1", got=repr(smoothing))
    dataset = as_dataset("lr_range", data)
    loader = Loader(dataset, batch_size, True, seed)
    if loader.batch_size <= len(dataset):
        loader = Loader(dataset, batch_size, True, seed, drop_last=True)
    named_optimizer(optimizer, model)  # refused as it was given, not as a copy
    model, optimizer = copy.deepcopy((model, optimizer))
    optimizer = named_optimizer(optimizer, model)
    first = optimizer.steps

    def rate(step: int) -> float:
        return low * (high / low) ** ((step - first) / (steps - 1))

    optimizer.lr = rate  # a schedule: read anew by each run of the program
    model.train()
    step = training_step(model, named_loss(loss), optimizer, penalty, clip_norm)
    if capture and can_capture(model):
        step = as_program("lr_range", step)
    return _trained(step, onto(model), loader, [rate(first + i) for i in range(steps)], smoothing)


def _trained(step: Callable, batch: Callable, loader: Loader, rates: list[float], smoothing: float) -> LRRange:
    losses: list[float] = []
    least, stopped = math.inf, "All rates were tried."
    for rate, (x, y) in zip(rates, _endless(loader)):
        value = step(batch(x), batch(y)).item()
        if not math.isfinite(value):
            stopped = f"Stopped at {rate:.2e}, where the loss is {value}."
            break
        losses.append(value)
        *_, smoothed = _averages(losses, smoothing)
        least = min(least, smoothed)
        if smoothed > _DIVERGED * least > 0:
            stopped = f"Stopped at {rate:.2e}, where the smoothed loss is above {_DIVERGED:g} times its least value."
            break
    return LRRange(rates[: len(losses)], losses, smoothing, stopped)


def _endless(loader: Loader) -> Iterator[tuple]:
    while True:
        yield from loader


def _averages(values: list[float], beta: float) -> Iterator[float]:
    """The exponential moving average after each value, divided by the sum of its weights."""
    average = 0.0
    for i, value in enumerate(values, 1):
        average = beta * average + (1 - beta) * value
        yield average / (1 - beta**i)
