"""What fits into memory, by arithmetic: ``Fit``, a batch size and what it takes, and ``Search``, which finds them.

How much memory there is, is not asked here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

from tinynet.errors import PlanError
from tinynet.meters.units import show_bytes
from tinynet.train import StepPlan

_MULTIPLES = (16, 8)  # of samples, at which vectors and the tiles of matrix products end
_NEAR = 4  # sizes below the largest of a number of batches that are tried as well
_LOSS = 0.05  # the part of the largest size that a multiple may cost, where the number of samples is not known


class Fit(NamedTuple):
    """A batch size, and what training takes with it.

    Attributes:
        batch_size: samples of a step.
        memory: what to give ``fit`` and ``capture`` as ``memory=``, in bytes.
        plan: of the step within it.
        parts: samples of the parts in which the program takes the batch, one after the other; their gradients are added
            with exact weights, so that the step is that of the whole batch.
        last: samples of the last batch of an epoch, where it is a smaller one; else 0.
        taken: what each thing takes, in bytes.
    """

    batch_size: int
    memory: int
    plan: StepPlan
    parts: tuple[int, ...]
    last: int
    taken: dict[str, int]

    @property
    def bytes(self) -> int:
        """All that is taken, together."""
        return sum(self.taken.values())


class Search:
    """What fits, by arithmetic.

    Args:
        one: the plan of one sample.
        within: the plan of a size, with a budget for its workspace or None.
        budget: bytes for all that is counted.
        samples, drop_last: see ``batch_size``.
        copies: how many times a batch is in memory while it is trained on, the one in the arena included.
    """

    def __init__(
        self, one: StepPlan, within: Callable[[int, int | None], StepPlan], budget: int, samples: int | None,
        drop_last: bool, copies: int,
    ):  # fmt: skip
        self.one, self.samples, self.drop_last, self.copies = one, samples, drop_last, copies
        self.within, self.resized = functools.cache(within), functools.cache(one.resized)
        self.free = budget - one.parameter_bytes - one.moment_bytes

    def least(self) -> int:
        """The budget for one sample."""
        one = self.resized(1)
        return sum(self._taken(one, one.workspace_bytes).values())

    def largest(self) -> int:
        """The largest batch that fits as a whole; 0 if not one sample does."""
        if self.free <= 0:
            return 0
        if self.samples is None and not self.drop_last:  # two arenas, of which the second may be nearly as large
            most = self.one.largest_batch(self.free // 2, arguments=-(-(self.copies + 1) // 2))
            while most and self.whole(most) is None:  # kernels for few rows, as a last batch may have, can take more
                most -= 1
            return most
        most = self.one.largest_batch(self.free, arguments=self.copies)
        if self.samples is None:
            return most
        most = min(most, self.samples)
        if self.drop_last or most < 1:
            return most
        line = self._line(most)
        while most:
            steps = -(-self.samples // most)
            found = self._largest_of(steps, most, line)
            if found:
                return found
            most = -(-self.samples // steps) - 1
        return 0

    def _line(self, most: int) -> Callable[[int, int], float]:
        """About what a size and its last batch take: by the line through the largest size and half of it."""
        large, half = self.resized(most), self.resized(max(1, most // 2))
        apart = max(1, large.batch_size - half.batch_size)
        arena, batch = ((getattr(large, kind) - getattr(half, kind)) / apart for kind in ("peak_bytes", "input_bytes"))
        whole = large.peak_bytes + (self.copies - 1) * large.input_bytes
        rounding = 2 * large.alignment * len(large.tensors)
        return lambda size, last: (
            whole - rounding - (arena + (self.copies - 1) * batch) * (large.batch_size - size) + arena * last
        )

    def _fits(self, size: int, line: Callable[[int, int], float]) -> bool:
        """Whether a size fits as a whole; what takes less time to know comes first."""
        last = self.samples % size if size < self.samples else 0
        if line(size, last) > self.free:
            return False
        lean, rest = self.resized(size), self.resized(last).peak_bytes if last else 0
        if lean.peak_bytes + (self.copies - 1) * lean.input_bytes + rest > self.free:
            return False
        return self.whole(size) is not None

    def _largest_of(self, steps: int, most: int, line: Callable[[int, int], float]) -> int:
        """The largest size up to ``most`` that fits and cuts the data into so many batches; 0 if none does.

        What the sizes take that leave a smaller last batch is a line over the size, which may rise or fall: it is low
        at one of its ends. The size that leaves none takes one arena only.
        """
        exact, rest = divmod(self.samples, steps)
        low, high = exact + 1, min(most, (self.samples - 1) // (steps - 1) if steps > 1 else self.samples)
        if low <= high:
            for size in range(high, max(low, high - _NEAR) - 1, -1):  # a last batch of one row may be dear
                if self._fits(size, line):
                    return size
            if self._fits(low, line):
                while high - low > 1:
                    middle = (low + high) // 2
                    low, high = (middle, high) if self._fits(middle, line) else (low, middle)
                return low
        return exact if not rest and exact <= most and self._fits(exact, line) else 0

    def rounded(self, largest: int) -> int:
        """A multiple of 16 or 8 that is as good as the largest size: with as many steps to an epoch, or close to it."""
        for multiple in _MULTIPLES:
            size = largest - largest % multiple
            alike = size >= (1 - _LOSS) * largest if self.samples is None else self._steps(size) == self._steps(largest)
            if size and alike and self.whole(size) is not None:
                return size
        return largest

    def _steps(self, size: int) -> int:
        return (self.samples if self.drop_last else self.samples + size - 1) // size if size else 0

    def rungs(self, largest: int, beside: int) -> list[Fit]:
        """Sizes from 8 on, doubled up to the largest, as far as the arenas of all of them have room together.

        Args:
            beside: bytes that are taken meanwhile.
        """
        sizes = [size for size in (8 << i for i in range(largest.bit_length())) if size < largest]
        free, found = self.free - beside, []
        for size in [*sizes, largest]:
            fit = self.whole(size)
            if fit is None or free < fit.plan.peak_bytes + (self.copies - 1) * fit.plan.input_bytes:
                break
            free -= fit.plan.peak_bytes
            found.append(fit)
        return found

    def fit(self, size: int) -> Fit:
        """The batch as a whole, or in as few parts as it takes.

        Raises:
            PlanError: it does not fit in parts either.
        """
        return self.whole(size) or self._in_parts(size)

    def whole(self, size: int) -> Fit | None:
        """The batch as a whole, with the fastest tiles where there is room for them; None if it does not fit."""
        for found in (self.within(size, None), self.resized(size)):
            memory = max(found.workspace_bytes, self._least_of_last(size))
            taken = self._taken(found, memory)
            if sum(taken.values()) <= self.free + self.one.parameter_bytes + self.one.moment_bytes:
                return Fit(size, memory, found, (size,), self._last(size) or 0, taken)
        return None

    def _in_parts(self, size: int) -> Fit:
        batch = self.copies * self.resized(size).input_bytes
        free = self.free - batch
        if free <= 0:
            needed = batch + self.one.parameter_bytes + self.one.moment_bytes
            raise PlanError(
                "batch_size", expected=f"more than {show_bytes(needed)}: parameters, moments and a batch of {size:,}",
                got=show_bytes(needed + free), mend="raise the budget, or lower effective=",
            )  # fmt: skip
        last = self._last(size)
        if last != 0:  # which has a program of its own, within the same budget
            rest = self.within(size if last is None else last, None)
            half = (free - rest.input_bytes) // 2
            free = max(half, free - rest.peak_bytes if rest.workspace_bytes <= half else 0, 0)
        try:
            found = self.within(size, free)
        except PlanError as error:
            raise PlanError(
                "batch_size", expected=f"{error.expected} for a batch of {size:,} in parts",
                got=f"{show_bytes(free)} left beside the batch itself, parameters and moments",
                mend="raise the budget, or lower effective=",
            ) from error  # fmt: skip
        return Fit(size, free, found, parts_of(found), last or 0, self._taken(found, free))

    def _last(self, size: int) -> int | None:
        """Samples of the last batch of an epoch, if that is a smaller one; 0 if not; None if it is not known."""
        if self.drop_last:
            return 0
        return None if self.samples is None else self.samples % size

    def _least_of_last(self, size: int) -> int:
        """The workspace that the last batch of an epoch takes at least: kernels for few rows may want more scratch."""
        last = self._last(size)
        sizes = (1 << i for i in range(size.bit_length())) if last is None else (last,)
        return max((self.resized(each).workspace_bytes for each in sizes if 0 < each < size), default=0)

    def _taken(self, found: StepPlan, memory: int) -> dict[str, int]:
        """All that is counted, in bytes; ``memory`` is the budget of all programs."""
        last = self._last(found.batch_size)
        taken = {
            "parameters": self.one.parameter_bytes, "moments": self.one.moment_bytes,
            "batch in the arena": found.input_bytes, "workspace of the arena": found.workspace_bytes,
        }  # fmt: skip
        if self.copies > 1:
            taken[f"batch on its way, {self.copies - 1} times"] = (self.copies - 1) * found.input_bytes
        if last is None:
            taken["arena of a last batch of any size"] = found.input_bytes + memory
        elif last and (self.samples or 0) > found.batch_size:
            taken[f"arena of a last batch of {last:,}"] = self.within(last, memory).peak_bytes
        return taken


def parts_of(found: StepPlan) -> tuple[int, ...]:
    """Samples of the parts into which a planned step cuts its batch; the batch alone where it does not."""
    graph = found.graph
    cuts = {
        each.attributes["index"][0][:2]
        for each in graph.instructions
        if each.op.name == "getitem" and each.inputs[0] == graph.inputs[0]
    }
    parts = tuple(stop - start for start, stop in sorted(cuts))
    return parts if sum(parts) == found.batch_size else (found.batch_size,)
