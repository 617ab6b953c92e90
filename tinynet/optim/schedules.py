"""Schedules: the learning rate as a function of the number of steps done.

A schedule takes the place of the number: ``Adam(params, lr=cosine(1e-3, steps=1000))``. The optimizer asks it before
each step. Any function from an integer to a positive number is one.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from tinynet.errors import ArgumentError

Schedule = Callable[[int], float]


def _positive(where: str, **numbers) -> None:
    for name, n in numbers.items():
        if not n > 0:
            raise ArgumentError(where, expected=f"{name} above 0", got=repr(n))


def constant(lr: float) -> Schedule:
    """Always ``lr``."""
    _positive("constant", lr=lr)
    return lambda t: lr


def step(lr: float, every: int, factor: float = 0.1) -> Schedule:
    """``lr``, multiplied by ``factor`` after each ``every`` steps."""
    _positive("step", lr=lr, every=every, factor=factor)
    return lambda t: lr * factor ** (t // every)


def cosine(lr: float, steps: int, floor: float = 0.0) -> Schedule:
    """From ``lr`` down to ``floor`` over ``steps`` steps along half a cosine, then constant.

    Loshchilov and Hutter, "SGDR", ICLR 2017, without restarts.
    """
    _positive("cosine", lr=lr, steps=steps)
    return lambda t: floor + (lr - floor) * (1 + math.cos(math.pi * min(t / steps, 1.0))) / 2


def warmup(steps: int, then: Schedule | float) -> Schedule:
    """From lr/steps linearly up to the first rate of ``then`` over ``steps`` steps; then ``then`` from its start."""
    _positive("warmup", steps=steps)
    after = then if callable(then) else constant(then)
    return lambda t: after(0) * (t + 1) / steps if t < steps else after(t - steps)


def one_cycle(lr: float, steps: int, start: float = 0.04, end: float = 1e-4, rise: float = 0.3) -> Schedule:
    """Up to the peak ``lr`` and down again over ``steps`` steps, each along half a cosine (Smith and Topin 2018).

    Args:
        lr: the peak.
        steps: of the whole cycle.
        start, end: the first and the last rate, as parts of ``lr``.
        rise: the part of the steps that goes up.
    """
    _positive("one_cycle", lr=lr, steps=steps, start=start, end=end)
    if not 0 < rise < 1:
        raise ArgumentError("one_cycle", expected="rise between 0 and 1", got=repr(rise))
    top = rise * steps

    def rate(t: int) -> float:
        low, part = (start, 1 - t / top) if t < top else (end, min((t - top) / (steps - top), 1.0))
        return lr * (low + (1 - low) * (1 + math.cos(math.pi * part)) / 2)

    return rate
