"""How long requests took: a histogram of bounded memory, from which percentiles are read.

Buckets grow with the time they are for, as in Tene's HdrHistogram: 64 to each power of two, so that a percentile is at
most 1/64 (1.6 %) above the exact one, and never below it. 18 kB hold anything from a nanosecond to eighteen minutes.
"""

from __future__ import annotations

import math

RELATIVE_ERROR = 1 / 64
_LONGEST = 2**40 - 1  # ns; what took longer counts as that


class Latencies:
    """Times in nanoseconds, counted. Not for several threads at once.

    Attributes:
        count: how many.
        worst: the longest one, exactly; 0 if there are none.
    """

    def __init__(self):
        self.count = self.worst = 0
        self._counts = [0] * (_bucket(_LONGEST) + 1)

    def add(self, nanoseconds: int) -> None:
        self.count += 1
        if nanoseconds > self.worst:
            self.worst = nanoseconds
        self._counts[_bucket(min(nanoseconds, _LONGEST))] += 1

    def percentile(self, percent: float) -> float:
        """The time that so many percent did not exceed, in nanoseconds, at most 1/64 too long; nan if there are none.

        The exact one is the ceil(percent / 100 * count)-th of the times in order.
        """
        if not self.count:
            return math.nan
        rank, seen = max(1, math.ceil(self.count * percent / 100)), 0
        for bucket, times in enumerate(self._counts):
            seen += times
            if seen >= rank:
                return min(_upper(bucket), self.worst)
        raise AssertionError("fewer times than were counted")


def _bucket(value: int) -> int:
    """Below 128 the value itself; above it the seven leading bits, and after them the number of the others."""
    if value < 128:
        return value
    shift = value.bit_length() - 7
    return (shift << 6) + (value >> shift)


def _upper(bucket: int) -> int:
    """The longest time of a bucket."""
    if bucket < 128:
        return bucket
    shift = (bucket >> 6) - 1
    return ((bucket - (shift << 6) + 1) << shift) - 1
