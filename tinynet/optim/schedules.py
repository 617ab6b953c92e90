"""Schedules: the learning rate as a function of the number of steps done.

A schedule takes the place of the number: ``Adam(params, lr=cosine(1e-3, steps=1000))``. The optimizer asks it before
each step. Any function from an integer to a positive number is one.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Iterable, Sequence
from numbers import Real

from tinynet.errors import ArgumentError

Schedule = Callable[[int], float]


def _is_number(n) -> bool:
    return isinstance(n, Real) and not isinstance(n, bool) and math.isfinite(n)


def _positive(where: str, /, **numbers) -> None:
    for name, n in numbers.items():
        if not (_is_number(n) and n > 0):
            raise ArgumentError(where, expected=f"{name} above 0", got=repr(n))


def _within(where: str, low: float, high: float, /, **numbers) -> None:
    for name, n in numbers.items():
        if not (_is_number(n) and low <= n <= high):
            raise ArgumentError(where, expected=f"{name} from {low:g} to {high:g}", got=repr(n))


def constant(lr: float) -> Schedule:
    """Always ``lr``."""
    _positive("constant", lr=lr)
    return lambda t: lr


def step(lr: float, every: int, factor: float = 0.1) -> Schedule:
    """``lr``, multiplied by ``factor`` after each ``every`` steps."""
    _positive("step", lr=lr, every=every, factor=factor)
    return lambda t: lr * factor ** (t // every)


def multistep(lr: float, milestones: Sequence[int], factor: float = 0.1) -> Schedule:
    """``lr``, multiplied by ``factor`` after each number of steps in ``milestones``, which ascend."""
    _positive("multistep", lr=lr, factor=factor)
    after = _ascending("multistep", milestones)
    return lambda t: lr * factor ** bisect.bisect_right(after, t)


def exponential(lr: float, factor: float, every: int = 1) -> Schedule:
    """``lr`` times ``factor`` to the power t / ``every``: as ``step``, but a little at each step."""
    _positive("exponential", lr=lr, factor=factor, every=every)
    return lambda t: lr * factor ** (t / every)


def polynomial(lr: float, steps: int, floor: float = 0.0, power: float = 1.0) -> Schedule:
    """From ``lr`` down to ``floor`` over ``steps`` steps as (1 - t / steps) to the power ``power``, then constant."""
    _positive("polynomial", lr=lr, steps=steps, power=power)
    _within("polynomial", 0, lr, floor=floor)
    return lambda t: floor + (lr - floor) * (1 - min(t / steps, 1.0)) ** power


def linear(lr: float, steps: int, floor: float = 0.0) -> Schedule:
    """From ``lr`` down to ``floor`` over ``steps`` steps in a line, then constant."""
    _positive("linear", lr=lr, steps=steps)
    _within("linear", 0, lr, floor=floor)
    return polynomial(lr, steps, floor)


def cosine(lr: float, steps: int, floor: float = 0.0) -> Schedule:
    """From ``lr`` down to ``floor`` over ``steps`` steps along half a cosine, then constant.

    Loshchilov and Hutter, "SGDR", ICLR 2017, without restarts.
    """
    _positive("cosine", lr=lr, steps=steps)
    _within("cosine", 0, lr, floor=floor)
    return lambda t: floor + (lr - floor) * (1 + math.cos(math.pi * min(t / steps, 1.0))) / 2


def cosine_restarts(lr: float, steps: int, growth: float = 1.0, floor: float = 0.0, factor: float = 1.0) -> Schedule:
    """Half a cosine from ``lr`` down to ``floor``, and again from the top (Loshchilov and Hutter, "SGDR", ICLR 2017).

    Args:
        lr: the first peak.
        steps: of the first cycle.
        growth: each cycle is so many times as long as the one before; at least 1.
        floor: the rate that each cycle approaches.
        factor: each peak is so many times as high above ``floor`` as the one before; up to 1.
    """
    _positive("cosine_restarts", lr=lr, steps=steps, factor=factor)
    _within("cosine_restarts", 0, lr, floor=floor)
    _within("cosine_restarts", 0, 1, factor=factor)
    if not (_is_number(growth) and growth >= 1):
        raise ArgumentError("cosine_restarts", expected="growth of at least 1", got=repr(growth))

    def rate(t: int) -> float:
        cycle, length = 0, steps
        if growth == 1:
            cycle, t = divmod(t, steps)
        else:
            while t >= length:
                cycle, t, length = cycle + 1, t - length, length * growth
        return floor + (lr - floor) * factor**cycle * (1 + math.cos(math.pi * t / length)) / 2

    return rate


def cyclic(
    low: float, high: float, rise: int, fall: int | None = None, mode: str = "triangular", factor: float = 0.9999
) -> Schedule:
    """Up from ``low`` to ``high`` in a line and down again, without end (Smith, WACV 2017).

    Args:
        low, high: the rates between which it goes.
        rise, fall: steps up and steps down; ``fall`` as many as ``rise`` by default.
        mode: "triangular"; "triangular2", where each cycle is half as high as the one before; or "exp_range", where the
            height above ``low`` is multiplied by ``factor`` at each step.
        factor: for "exp_range"; up to 1.
    """
    fall = rise if fall is None else fall
    _positive("cyclic", low=low, high=high, rise=rise, fall=fall, factor=factor)
    _within("cyclic", 0, high, low=low)
    _within("cyclic", 0, 1, factor=factor)
    heights = {"triangular": lambda t: 1.0, "triangular2": lambda t: 0.5 ** (t // (rise + fall)),
               "exp_range": lambda t: factor**t}  # fmt: skip
    if mode not in heights:
        raise ArgumentError("cyclic", expected=f"mode {', '.join(map(repr, heights))}", got=repr(mode))
    height = heights[mode]

    def rate(t: int) -> float:
        within = t % (rise + fall)
        part = within / rise if within < rise else 1 - (within - rise) / fall
        return low + (high - low) * part * height(t)

    return rate


def inverse_sqrt(lr: float, rise: int) -> Schedule:
    """In a line up to ``lr`` over ``rise`` steps, then down with one over the root of the number of steps.

    With s = t + 1: lr min(s / rise, sqrt(rise / s)). The schedule of Vaswani et al., "Attention is all you need",
    NeurIPS 2017, section 5.3, for a width d is ``inverse_sqrt((d * rise) ** -0.5, rise)``.
    """
    _positive("inverse_sqrt", lr=lr, rise=rise)
    return lambda t: lr * min((t + 1) / rise, math.sqrt(rise / (t + 1)))


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


def sequential(schedules: Sequence[Schedule | float], milestones: Sequence[int]) -> Schedule:
    """One schedule after the other, each from its own start.

    Args:
        schedules: in their order; a number is a constant rate.
        milestones: the step with which each but the first begins; they ascend.

    Raises:
        ArgumentError: not one milestone fewer than schedules, or something else than schedules.
    """
    parts = [_schedule("sequential", each) for each in schedules]
    starts = [0, *_ascending("sequential", milestones)]
    if len(starts) != len(parts):
        got = f"{len(parts)} schedules and {len(starts) - 1} milestones"
        raise ArgumentError("sequential", expected="one milestone fewer than schedules", got=got)

    def rate(t: int) -> float:
        at = bisect.bisect_right(starts, t) - 1
        return parts[at](t - starts[at])

    return rate


def chain(*schedules: Schedule | float) -> Schedule:
    """All at once: their product. One gives the rate, the others factors: ``chain(cosine(0.1, 500), step(1.0, 100))``.

    Raises:
        ArgumentError: no schedule, or something else.
    """
    if not schedules:
        raise ArgumentError("chain", expected="at least one schedule", got="none")
    parts = [_schedule("chain", each) for each in schedules]
    return lambda t: math.prod(part(t) for part in parts)


def _schedule(where: str, given) -> Schedule:
    if callable(given):
        return given
    _positive(where, schedule=given)
    return lambda t: given


def _ascending(where: str, milestones) -> list[int]:
    """The milestones as a list; ArgumentError unless they are whole numbers above 0, each above the one before."""
    given = list(milestones) if isinstance(milestones, Iterable) else [None]
    wrong = not all(_is_number(n) and n == int(n) for n in given)
    if wrong or any(high <= low for low, high in zip([0, *given], given)):
        raise ArgumentError(where, expected="milestones above 0 that ascend", got=repr(milestones))
    return given
