"""Schedules of the batch size: functions of the epoch, counted from 0, to a size or to sizes taken in turn.

``tn.fit(batch_size=growing(32, most=512))`` asks one at the beginning of each epoch. Any function is one; those here
give few different sizes, since each size is a program of its own: it is captured and planned when it first comes, and
found again from then on. Schedules of the learning rate count steps, of which ``steps`` says how many there will be.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from tinynet.backend import INTEGERS
from tinynet.errors import ArgumentError
from tinynet.train.run import count_steps

Sizes = int | Sequence[int]
Schedule = Callable[[int], Sizes]


def growing(start: int, *, most: int, factor: float = 2.0, every: int = 1) -> Schedule:
    """Sizes from ``start`` up to ``most``, multiplied by ``factor`` after each ``every`` epochs.

    They are rounded down to ``start`` times a power of two, so that there are never more programs than doublings.
    Growing the batch by a factor takes the place of lowering the learning rate by it (Smith, Kindermans, Ying and Le,
    "Don't decay the learning rate, increase the batch size", ICLR 2018).

    Raises:
        ArgumentError: ``start`` or ``every`` below 1, ``most`` below ``start``, a factor not above 1.
    """
    check_counts("growing", start=start, every=every)
    check_counts("growing", start, most=most)
    _check_factor("growing", factor)
    return lambda epoch: snapped(_powered(start, factor, epoch // every, most), start, most)


def shrinking(start: int, *, least: int, factor: float = 2.0, every: int = 1) -> Schedule:
    """Sizes from ``start`` down to ``least``, divided by ``factor`` after each ``every`` epochs.

    They are rounded up to ``least`` times a power of two, or to ``start``, so that there are few programs.

    Raises:
        ArgumentError: ``least`` or ``every`` below 1, ``start`` below ``least``, a factor not above 1.
    """
    check_counts("shrinking", least=least, every=every)
    check_counts("shrinking", least, start=start)
    _check_factor("shrinking", factor)

    def size(epoch: int) -> int:
        divisor = _powered(1, factor, epoch // every, start)
        rung = least
        while rung * divisor < start:
            rung *= 2
        return min(rung, start)

    return size


def stages(sizes: Mapping[int, Sizes]) -> Schedule:
    """The sizes of stages by the epoch at which each begins: ``stages({0: 32, 10: 128, 15: [128, 256]})``.

    Raises:
        ArgumentError: no stage for epoch 0, or an epoch that is not a count.
    """
    if 0 not in sizes or not all(type(epoch) is int and epoch >= 0 for epoch in sizes):
        raise ArgumentError(
            "stages", expected="sizes by the epoch at which they begin, one of them epoch 0", got=repr(dict(sizes))
        )
    begins = sorted(sizes)
    return lambda epoch: sizes[max(begin for begin in begins if begin <= epoch)]


def mixed(*sizes: int | Schedule) -> Schedule:
    """Several sizes in turn within each epoch; each may be a schedule: ``mixed(32, growing(32, most=512))``.

    Raises:
        ArgumentError: no size, or one below 1.
    """
    if not sizes:
        raise ArgumentError("mixed", expected="at least one batch size", got="none")
    for size in sizes:
        if not callable(size):
            check_counts("mixed", size=size)
    return lambda epoch: tuple(each(epoch) if callable(each) else each for each in sizes)


def steps(batch_size: Sizes | Schedule, samples: int, epochs: int, drop_last: bool = False) -> int:
    """How many steps ``fit`` makes of so many samples and epochs: what ``cosine``, ``one_cycle`` and others ask for.

    Example:
        >>> sizes = growing(32, most=512, every=5)
        >>> lr = tn.optim.cosine(1e-3, steps=steps(sizes, len(train), epochs=30))
        >>> optimizer = tn.optim.Adam(model.parameters(), lr=lr)
        >>> tn.fit(model, train, loss="mse", optimizer=optimizer, epochs=30, batch_size=sizes)
    """
    check_counts("steps", samples=samples, epochs=epochs)
    schedule = batch_size if callable(batch_size) else lambda epoch: batch_size
    return count_steps(schedule, samples, range(epochs), drop_last)


def snapped(size: float, start: int, most: int) -> int:
    """The largest of ``start``, 2 ``start``, 4 ``start``, ... up to ``size`` and ``most``; at least ``start``."""
    rung = start
    while 2 * rung <= min(size, most):
        rung *= 2
    return rung


def _powered(start: int, factor: float, times: int, most: int) -> float:
    """``start * factor**times``, or ``most`` where that is more, without overflow."""
    size = float(start)
    for _ in range(times):
        if size >= most:
            return most
        size *= factor
    return size


def check_counts(where: str, low: int = 1, **numbers) -> None:
    """Raises ArgumentError for the first number that is not an integer of at least ``low``."""
    for name, n in numbers.items():
        if isinstance(n, bool) or not isinstance(n, INTEGERS) or n < low:
            raise ArgumentError(where, expected=f"{name} to be an integer of at least {low}", got=repr(n))


def _check_factor(where: str, factor: float) -> None:
    if not factor > 1:
        raise ArgumentError(where, expected="a factor above 1", got=repr(factor))
