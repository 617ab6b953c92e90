"""Checks, and how they are run: one after another in a worker, so that each gives a line, whatever becomes of it.

A check is a function that gives figures, or raises. A fault on the device makes all that follows in its process fail:
a worker that meets one says so and leaves, and what is left of its group goes to a fresh process.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from ..processes import PeerError
from .pacing import Deadline

LEAST = 5.0  # seconds, below which no process is started
SUMMED = 200  # numbers of size 2 that a kernel may add up and round at each step, within these:
TOLERANCES = {"float32": 2e-5, "float64": 1e-11}


class Wrong(Exception):
    """A check found something else than it has to find."""


class Line(NamedTuple):
    """What came of a check.

    Attributes:
        figures: what was found, by name.
        reason: why it has not passed.
        poisoned: whether the device cannot be used any more by the process in which it ran.
    """

    name: str
    passed: bool
    seconds: float = 0.0
    figures: Mapping = MappingProxyType({})
    reason: str = ""
    poisoned: bool = False


def attempt(name: str, check: Callable[[], dict], alive: Callable[[], object] = lambda: None) -> Line:
    """The line of a check.

    Args:
        alive: raises where the device cannot be used any more.
    """
    begin, figures, reason, poisoned = time.monotonic(), {}, "", False
    try:
        figures = check()
    except Wrong as error:
        reason = str(error)
    except Exception as error:  # whatever it was, the next check may pass
        reason = f"{type(error).__name__}: {error}"[:500]
    try:
        alive()
    except Exception as error:
        poisoned, reason = True, f"{reason or 'passed'}; after it the device failed: {type(error).__name__}: {error}"
    return Line(name, not reason, time.monotonic() - begin, figures, reason, poisoned)


def error_of(got, expected, tolerance: float) -> float:
    """The largest |got - expected| / (1 + |expected|) over the tolerance, which passes up to 1. Not-a-numbers and
    infinities have to be the same; otherwise it is infinite, as it is for other shapes."""
    got, expected = np.asarray(got), np.asarray(expected)
    if got.shape != expected.shape:
        return float("inf")
    if got.dtype.kind != "f":
        return 0.0 if np.array_equal(got, expected) else float("inf")
    got, expected = got.astype("float64"), expected.astype("float64")
    finite = np.isfinite(expected)
    if not np.array_equal(got[~finite], expected[~finite], equal_nan=True) or not np.isfinite(got[finite]).all():
        return float("inf")
    difference = np.abs(got[finite] - expected[finite]) / (1 + np.abs(expected[finite]))
    return float(np.max(difference, initial=0.0)) / tolerance


def distance(got, expected) -> float:
    """||got - expected|| / ||expected||; infinite where something is not finite."""
    got, expected = np.asarray(got, "float64"), np.asarray(expected, "float64")
    if got.shape != expected.shape or not np.isfinite(got).all():
        return float("inf")
    return float(np.linalg.norm(got - expected) / max(np.linalg.norm(expected), 1e-300))


def require(holds: bool, what: str) -> None:
    """Raises Wrong, with what was expected and what was found, where it does not hold."""
    if not holds:
        raise Wrong(what)


def run_group(names: Iterable[str], start: Callable[[], object], deadline: Deadline) -> Iterator[Line]:
    """A line for each check of a group: from its worker, from a fresh one where that failed, or that it was left out.

    Args:
        start: makes a worker, as ``bench.processes.Process`` is one: ``ask("check", timeout, name=)``, ``close()``.
    """
    worker = None
    try:
        for name in names:
            if deadline.left() < LEAST:
                yield Line(name, False, reason="left out: the time was used up")
                continue
            worker = worker or start()
            begin = time.monotonic()
            try:
                line = Line(**worker.ask("check", deadline.left(), name=name))
            except PeerError as error:
                line = Line(name, False, time.monotonic() - begin, reason=f"its process: {error}", poisoned=True)
            if line.poisoned:
                worker.close(now=True)
                worker = None
            yield line
    finally:
        if worker is not None:
            worker.close()
