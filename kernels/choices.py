"""One of several ways to compute the same: decided by measurement, once, and remembered.

A measurement has the name of what it holds for (sizes, types, how operands lie); it is kept in this process and in a
file: name -> way -> seconds, infinity for a way that fails. Which ways there are, how their seconds are measured and
where the file lies is for who asks.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from .files import only_one, write_whole

Seconds = dict[str, float]  # way -> seconds


class Choice(NamedTuple):
    """The way that is taken, and the seconds of all."""

    way: str
    seconds: Seconds

    def __str__(self) -> str:
        others = sorted(self.seconds.keys() - {self.way}, key=lambda way: (self.seconds[way], way))
        return ", ".join(f"{way} {self.seconds[way] * 1e6:,.0f} µs" for way in (self.way, *others))


class Choices:
    """What this process goes by, of one kind of computation.

    Args:
        clearly: how many times faster than the first way another one has to be.
        kept: whether a choice that cannot be kept is not made, lest the next process choose otherwise.
    """

    def __init__(self, clearly: float, kept: bool = False):
        self.clearly, self.kept = clearly, kept
        self.known: dict[str, Seconds] = {}  # empty where measuring was in vain

    def choose(
        self, name: str, ways: Sequence[str], measure: Callable[[], Seconds] | None,
        where: Callable[[], Path | None],
    ) -> Choice | None:  # fmt: skip
        """What was measured under this name, now if never before; None where nothing was.

        Args:
            ways: the one that a tie goes to, first. One that was not measured with the others has all measured again.
            measure: gives the seconds of all ways; None: not to be measured now.
            where: gives the file, None for nowhere; asked where this process does not know yet.
        """
        known = self.known.get(name)
        if known is None or (known and not known.keys() >= set(ways)):
            known = self._look_up(name, ways, measure, where())
            if known is None:
                return None
            self.known[name] = known
        if not known:
            return None
        seconds = {way: known[way] for way in ways}
        first, *others = ways
        fastest = min(others, key=seconds.get)
        return Choice(fastest if seconds[first] > self.clearly * seconds[fastest] else first, seconds)

    def _look_up(self, name: str, ways: Sequence[str], measure, path: Path | None) -> Seconds | None:
        """What any process has measured, or this one now: one at a time, so that none disturbs or contradicts another.

        None where it was not measured; empty where it was in vain.
        """
        known = read(path).get(name, {})
        if known.keys() >= set(ways):
            return known
        if measure is None:
            return None
        if path is None:
            return {} if self.kept else measure()
        with only_one(path.with_suffix(".lock")):
            known = read(path).get(name, {})
            if known.keys() >= set(ways):
                return known
            measured = measure()
            everything = read(path)  # without locks, another process may have measured meanwhile: what it has, stays
            known = everything.get(name, {})
            if known.keys() >= set(ways):
                return known
            is_kept = write_whole(path, json.dumps(everything | {name: measured}, indent=0).encode())
            return measured if is_kept or not self.kept else {}


def read(path: Path | None) -> dict[str, Seconds]:
    """What is remembered, by name; nothing, where a file is damaged."""
    if path is not None:
        with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
            return {
                str(name): {str(way): float(each) for way, each in seconds.items()}
                for name, seconds in json.loads(path.read_text()).items()
            }
    return {}
