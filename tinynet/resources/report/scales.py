"""From numbers to pixels, and the round numbers on the way that are worth a tick."""

from __future__ import annotations

import math
from collections.abc import Callable

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


class Scale:
    """A range of numbers on a range of pixels.

    Args:
        low, high: of the numbers; widened to round ones if ``rounded``.
        start, end: of the pixels; start may lie beyond end, as it does upright.
        about: how many ticks there is room for.
        log: by powers of ten. Numbers must be above 0 then.
        whole: ticks at integers only.

    Attributes:
        ticks: (number, its text), all within the range.
    """

    def __init__(
        self, low: float, high: float, start: float, end: float, *, about: int = 5, log: bool = False,
        whole: bool = False, rounded: bool = True,
    ):  # fmt: skip
        if not log and not high > low:  # a single number: some room around it
            room = 1 if whole else abs(low) / 2 or 0.5
            low, high = low - (0 if whole else min(room, low) if low >= 0 else room), high + room
        if log and not high > low:
            low, high = low / 2, high * 2
        self.log, self.start, self.end = log, start, end
        numbers, show = (_logarithmic if log else _linear)(low, high, about, whole, rounded)
        if rounded:
            low, high = min(low, numbers[0]), max(high, numbers[-1])
        self.low, self.high = low, high
        slack = 1e-9 * (high - low)
        self.ticks = [(number, show(number)) for number in numbers if low - slack <= number <= high + slack]

    def __call__(self, number: float) -> float:
        low, high = self.low, self.high
        if self.log:
            number, low, high = (math.log10(max(each, 1e-300)) for each in (number, low, high))
        return self.start + (number - low) / (high - low) * (self.end - self.start)


def _linear(low: float, high: float, about: int, whole: bool, rounded: bool) -> tuple[list[float], Callable]:
    step = round_step((high - low) / about)
    if whole:
        step = max(1.0, step)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    if not rounded:
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    largest = max(abs(low), abs(high), step)
    if largest >= 1e7 or digits > 6:
        significant = 2 + math.floor(math.log10(largest) + 1e-9) - math.floor(math.log10(step) + 1e-9)
        return [i * step for i in range(first, last + 1)], lambda number: f"{number:.{significant}g}"
    show = lambda number: f"{number + 0.0:,.{digits}f}".replace("-", "\N{MINUS SIGN}")
    return [i * step for i in range(first, last + 1)], show


def _logarithmic(low: float, high: float, about: int, whole: bool, rounded: bool) -> tuple[list[float], Callable]:
    first, last = math.floor(math.log10(low) + 1e-9), math.ceil(math.log10(high) - 1e-9)
    decades = max(last - first, 1)
    factors = (1, 2, 5) if 3 * decades <= about + 1 else (1, 3) if 2 * decades <= about + 1 else (1,)
    every = -(-decades // about)
    numbers = [factor * 10.0**decade for decade in range(first, last + 1, every) for factor in factors]
    below = [number for number in numbers if number <= low * (1 + 1e-9)]
    above = [number for number in numbers if number >= high * (1 - 1e-9)]
    if rounded:  # from the last tick that is not above, to the first that is not below
        numbers = [n for n in numbers if n >= max(below, default=0) and n <= min(above, default=math.inf)]
    return numbers or [low], _power


def _power(number: float) -> str:
    decade = math.floor(math.log10(number) + 1e-9)
    if -4 <= decade < 5:
        return f"{number:,.{max(0, -decade)}f}"
    factor = round(number / 10.0**decade)
    return f"{'' if factor == 1 else f'{factor}·'}10{str(decade).translate(_SUPERSCRIPTS)}"


def round_step(least: float) -> float:
    """The smallest of 1, 2, 5, 10 ... times a power of ten that is not less."""
    decade = 10.0 ** math.floor(math.log10(max(least, 1e-300)))
    return next(factor * decade for factor in (1, 2, 5, 10) if factor * decade >= least * (1 - 1e-9))


def apart(wanted: list[float], gap: float, low: float, high: float) -> list[float]:
    """Places near the wanted ones, in the order of those, each ``gap`` or more from the next, within low to high.

    Where there is no room for all, they are spread evenly.
    """
    order = sorted(range(len(wanted)), key=wanted.__getitem__)
    if (len(order) - 1) * gap > high - low:
        gap = (high - low) / max(1, len(order) - 1)
    places = [min(max(wanted[i], low), high) for i in order]
    for i in range(1, len(places)):
        places[i] = max(places[i], places[i - 1] + gap)
    if places and places[-1] > high:
        places[-1] = high
        for i in range(len(places) - 2, -1, -1):
            places[i] = min(places[i], places[i + 1] - gap)
    found = [0.0] * len(wanted)
    for i, place in zip(order, places):
        found[i] = place
    return found
