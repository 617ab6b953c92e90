"""How long a run may take: one deadline, of which each section gets a share of what is left when its turn comes."""

from __future__ import annotations

import time
from collections.abc import Callable


class Deadline:
    """So many seconds from now on.

    Args:
        clock: seconds, from any beginning.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic):
        self._clock, self._end = clock, clock() + seconds

    def left(self) -> float:
        """Seconds, never below 0."""
        return max(0.0, self._end - self._clock())

    def part(self, share: float) -> Deadline:
        """The deadline of a section that may take this share of what is left."""
        return Deadline(self.left() * share, self._clock)


def shares(weights: dict[str, float]) -> dict[str, float]:
    """Of what is left at each section's turn, if sections take turns in this order and later ones keep their part."""
    rest, found = sum(weights.values()), {}
    for name, weight in weights.items():
        found[name] = weight / rest
        rest -= weight
    return found
