"""When a request would be answered, foretold from what lies before it; what was foretold is corrected by what came.

Two things are learned. The gap between two batches that follow each other: the time in which a thread wakes up and gets
hold of Python. And a factor on all that is foretold, which rises with each deadline that is missed after waiting, and
falls with each one met, so that it settles where one answer in 200 is late. Where requests that found nobody before
them are late as well, as on a machine that others keep busy, that part is added: no shorter queue would help it.
"""

from __future__ import annotations

from collections.abc import Mapping

LATE = 1 / 200  # the part of the accepted requests that the factor settles at
_RISE = 0.02
_LEAST, _MOST = 0.5, 8.0
_MEMORY = 1 / 256  # of the part that is late without having waited
_FIRST_GAP = 20_000  # ns


class Forecast:
    """Times in nanoseconds. Not for several threads at once.

    Args:
        run_times: rows of a batch -> how long a run of it took when it was tried.
        deadline: for one request, from its arrival to its answer.

    Attributes:
        batch: rows of the largest batch.
        factor: on what the run times and the gap say.
        gap: between batches that follow each other.
        late_alone: the part of the requests that are late without having waited.
    """

    def __init__(self, run_times: Mapping[int, int], deadline: int):
        self.deadline, self.batch = deadline, max(run_times)
        self.factor, self.gap = 1.0, min(_FIRST_GAP, deadline // 8)
        self.late_alone, self._most_gap = 0.0, deadline // 4
        sizes = sorted(run_times)
        fitting = (next(size for size in sizes if size >= rows) for rows in range(1, self.batch + 1))
        self._run_times = [0, *(run_times[size] for size in fitting)]

    def run_time(self, rows: int) -> int:
        """How long the run of a batch takes."""
        return self._run_times[rows]

    def wait(self, rows: int, under_way: int, since: int) -> float:
        """How long until the last of ``rows`` waiting ones is answered.

        Args:
            under_way: rows of the batch that is running; 0 if it is about to be put together.
            since: how long it has been running. If that is longer than it should, something holds it up, and it is
                expected to take as long again.
        """
        full, rest = divmod(rows, self.batch)
        runs = full * (self._run_times[-1] + self.gap)
        if rest:
            runs += self._run_times[rest] + self.gap
        return (abs(self._run_times[under_way] - since) + runs) * self.factor

    def worth_waiting(self, rows: int, spent: int) -> bool:
        """Whether a batch of so many rows should wait for others, for about the gap, before it is run.

        It should where a run takes longer than that, and the deadline leaves the time, of which ``spent`` is over.
        """
        if rows >= self.batch or self._run_times[rows] <= self.gap:
            return False
        return spent + (self.gap + self._run_times[-1]) * self.factor <= self.deadline

    def answered(self, latency: int, waited: bool) -> bool:
        """Learns from an answer; whether it was in time. ``waited``: whether others were before it when it came."""
        late = latency > self.deadline
        if not waited:
            self.late_alone += (late - self.late_alone) * _MEMORY
        elif late:
            self.factor = min(self.factor * (1 + _RISE), _MOST)
        if not late:
            part = min(LATE + self.late_alone, 0.5)
            self.factor = max(self.factor * (1 - _RISE * part / (1 - part)), _LEAST)
        return not late

    def followed(self, gap: int) -> None:
        """Learns from a batch that was begun so long after the end of the one before it, with requests waiting.

        The gap settles at the median: one that is far out moves it no further than any other.
        """
        step = max(self.gap >> 4, 100)
        self.gap = min(max(self.gap + (step if gap > self.gap else -step), 0), self._most_gap)
