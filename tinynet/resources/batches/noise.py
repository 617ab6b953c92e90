"""The gradient noise scale: how large a batch may be before larger ones waste samples; and batches that follow it.

Follows McCandlish, Kaplan, Amodei and the OpenAI Dota Team, "An empirical model of large-batch training",
arXiv:1812.06162: the simple noise scale is tr(Sigma) / |G|^2, with the gradient G and the covariance Sigma of the
gradients of single samples. Well below it, doubling the batch halves the steps; well above it, it saves hardly any.
It grows while a model learns, because the gradient shrinks and the samples' differences do not.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from tinynet import ops
from tinynet.autograd import no_grad
from tinynet.data import Loader
from tinynet.errors import ArgumentError
from tinynet.nn import Module
from tinynet.tensor import Tensor, zeros
from tinynet.train import Callback, Run
from tinynet.train.evaluating import as_dataset, onto
from tinynet.train.step import as_program, can_capture, named_loss

from .schedules import check_counts, snapped


class GradientNoise(NamedTuple):
    """Estimates from gradients; without bias, so that single ones may be negative.

    Attributes:
        square: of the gradient's norm, |G|^2.
        variance: of the gradient of one sample, tr(Sigma).
    """

    square: float
    variance: float

    @property
    def scale(self) -> float:
        """tr(Sigma) / |G|^2, in samples; infinite where no gradient can be told from the noise, 0 without noise."""
        if self.variance <= 0:
            return 0.0
        return self.variance / self.square if self.square > 0 else math.inf

    @classmethod
    def of(cls, small: int, square_of_small: float, large: int, square_of_large: float) -> GradientNoise:
        """From the squared norms of gradients of a small and a large batch (the paper's appendix A.1).

        The expected squared norm of the gradient of B samples is |G|^2 + tr(Sigma) / B; two batch sizes give two such
        equations.

        Raises:
            ArgumentError: two sizes that are not 1 <= small < large.
        """
        if not 1 <= small < large:
            raise ArgumentError("GradientNoise", expected="two batch sizes, 1 <= small < large", got=f"{small} {large}")
        square = (large * square_of_large - small * square_of_small) / (large - small)
        variance = (square_of_small - square_of_large) / (1 / small - 1 / large)
        return cls(square, variance)

    def averaged_with(self, before: GradientNoise, decay: float) -> GradientNoise:
        """The exponential average, of both parts apart: that of their quotient would be biased."""
        return GradientNoise(*(decay * old + (1 - decay) * new for old, new in zip(before, self)))


class NoiseScale(Callback):
    """Measures the noise scale after epochs, and gives the next ones the batch size that it asks for.

    After an epoch ``batches`` batches of ``small`` samples go through the model, in evaluation mode, so that what
    training has yet to draw stays as it is. Their gradients are the small batches of the estimate; their mean, of which
    there is one, is that of a large batch. The size is the noise scale, rounded down to ``least`` times a power of two:
    a program for each of these is captured when it first comes, and found again later. The learning rate is left alone.

    The history gets the columns noise_scale, and gradient_square and gradient_variance, of which it is the quotient:
    their exponential averages. A run that is taken up again goes on with them. Where ``fit`` has a schedule of
    its own, that has the last word.

    Args:
        loss: as for ``fit``.
        least, most: bounds of the batch size.
        small: samples of a small batch; ``least`` by default.
        batches: how many of them, at least 2; all that the data have, where there are fewer.
        decay: of the averages, from 0 (the last measurement alone) to below 1.
        every: epochs between two measurements.
        capture: measure by a program, as ``fit`` does.

    Raises:
        ArgumentError: numbers out of range; in ``fit``, data of less than two small batches.
    """

    def __init__(
        self, loss, *, least: int, most: int, small: int | None = None, batches: int = 16, decay: float = 0.5,
        every: int = 1, capture: bool = True,
    ):  # fmt: skip
        small = least if small is None else small
        check_counts("NoiseScale", least=least, small=small, every=every)
        check_counts("NoiseScale", least, most=most)
        check_counts("NoiseScale", 2, batches=batches)
        if not 0 <= decay < 1:
            raise ArgumentError("NoiseScale", expected="decay from 0 to below 1", got=repr(decay))
        self.loss, self.least, self.most, self.small, self.batches = named_loss(loss), least, most, small, batches
        self.decay, self.every, self.capture = decay, every, capture

    def on_begin(self, run: Run) -> None:
        loader = run.loader
        self._meter = _Meter(
            run.model, self.loss, loader.dataset, self.small, self.batches, self.capture, loader.transform
        )
        self._noise: GradientNoise | None = None
        for row in run.history:  # of a resumed run
            if "noise_scale" in row:
                self._noise = GradientNoise(row["gradient_square"], row["gradient_variance"])
        if len(run.history) and loader.between_epochs:
            self._follow(run)

    def on_epoch(self, run: Run) -> None:
        self._follow(run)

    def _follow(self, run: Run) -> None:
        """The size for the next epoch, by the measurement of the last; which is made, if it has not been."""
        row = run.history[-1]
        if "noise_scale" not in row and row["epoch"] % self.every == 0:
            found = self._meter.measure((run.loader.seed + row["epoch"]) % 2**64)
            self._noise = found if self._noise is None else found.averaged_with(self._noise, self.decay)
            row |= {
                "noise_scale": self._noise.scale, "gradient_square": self._noise.square,
                "gradient_variance": self._noise.variance,
            }  # fmt: skip
        if self._noise is not None:
            run.loader.batch_size = snapped(self._noise.scale, self.least, self.most)


def gradient_noise(
    model: Module, data, loss: str | Callable[[Tensor, Tensor], Tensor], *, small: int = 32, batches: int = 16,
    seed: int = 0, capture: bool = True,
) -> GradientNoise:  # fmt: skip
    """One estimate of the gradient noise of a model on data; the model stays as it is, but for gradients, which go.

    Args:
        data: a ``Dataset``, or a pair (x, y).
        loss: as for ``fit``.
        small, batches: samples of a small batch, and how many make up the large one.
        seed: of the choice of samples.
        capture: as for ``fit``.

    Raises:
        ArgumentError: data of less than two small batches.
    """
    check_counts("gradient_noise", small=small)
    check_counts("gradient_noise", 2, batches=batches)
    data = as_dataset("gradient_noise", data)
    return _Meter(model, named_loss(loss), data, small, batches, capture).measure(seed)


class _Meter:
    """Squared norms of the gradients of batches, and of the mean of them.

    It holds one number for each parameter: the sum of the gradients.
    """

    def __init__(self, model: Module, loss, data, small: int, batches: int, capture: bool, transform=None):
        count = min(batches, len(data) // small)
        if count < 2:
            raise ArgumentError(
                "noise scale", expected=f"data of at least two batches of {small}", got=f"{len(data)} samples",
                mend="make small= smaller",
            )  # fmt: skip
        self.model, self.data, self.small, self.count, self.transform = model, data, small, count, transform
        params = [p for p in model.parameters() if p.requires_grad]
        self.params, self.sums = params, [zeros(p.shape, p.dtype, backend=p.backend) for p in params]
        sums = self.sums

        def step(x: Tensor, y: Tensor) -> Tensor:
            model.zero_grad()
            loss(model(x), y).backward()
            with no_grad():
                square = _square([p.grad for p in params if p.grad is not None])
                for total, p in zip(sums, params):
                    if p.grad is not None:
                        ops.accumulate(total, p.grad)
            model.zero_grad()
            return square

        self.step = as_program("noise scale", step) if capture and can_capture(model) else step

    def measure(self, seed: int) -> GradientNoise:
        training, batch = self.model.training, onto(self.model)
        self.model.eval()
        with no_grad():
            for total in self.sums:
                ops.assign(total, zeros((), total.dtype, backend=total.backend))
        try:
            batches = zip(range(self.count), Loader(self.data, self.small, seed=seed, transform=self.transform))
            squares = [self.step(batch(x), batch(y)).item() for _, (x, y) in batches]
        finally:
            self.model.train(training)
        with no_grad():
            of_mean = _square(self.sums).item() / self.count**2
        return GradientNoise.of(self.small, sum(squares) / self.count, self.small * self.count, of_mean)


def _square(tensors: list[Tensor]) -> Tensor:
    """The squared norm of several tensors together."""
    total = None
    for each in tensors:
        part = ops.sum(ops.square(each))
        total = part if total is None else total + part
    return total
