"""From lifetimes to offsets: ``plan_offsets``, the one function that the rest of the engine needs.

Placing intervals of time with a height so that the total height is least is dynamic storage allocation, and
NP-complete (Garey and Johnson 1979, problem SR2). In practice the lower bound of ``lifetimes`` is reached nearly
always. The way there, stopping at the bound:

1. a few greedy passes (``greedy``), one of which is exact for nested lifetimes;
2. tensors that fit in any case are set aside (``conflicts.simplify``) and the rest is cut into regions;
3. each region is packed by branch and bound with restarts (``search``), for a budget of steps;
4. what was set aside is put back.

Problems with too many conflicts to list (about two million pairs) get stacked in several orders instead. Integers in,
integers out: arrays are ``arena``'s business, and whether the result is right is decided by ``check``, which shares no
code with what is here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from tinynet.errors import PlanError

from .conflicts import compress, count_conflicts, neighbours_of, regions, simplify
from .greedy import ORDERS, fit, stack
from .lifetimes import Lifetime, as_lifetimes, check_alignment, lower_bound, round_up
from .search import Budget, pack

__all__ = ["Offsets", "plan_offsets"]

_MANY_CONFLICTS = 250_000  # pairs; above, stacking comes first, and a pass of first fit takes tenths of a second
_MOST_CONFLICTS = 2_000_000  # pairs; their lists take about 16 bytes a pair
_UNKNOWN = 1 << 62  # higher than any peak
_STEPS_PER_TENSOR, _FEWEST_STEPS, _MOST_STEPS = 1_250, 250_000, 6_000_000


class Offsets(NamedTuple):
    """A plan: where each tensor lies in one block of memory.

    Attributes:
        offsets: in bytes, in the order of the lifetimes given.
        peak_bytes: the size of the block that holds them all, a multiple of the alignment.
        lower_bound_bytes: the size below which no plan can go (see ``lower_bound``).
        optimal: whether no plan is smaller: the bound is reached, or the search was exhausted.
        method: what found it, such as "first fit by lifetime" or "search".
        alignment: in bytes.
    """

    offsets: list[int]
    peak_bytes: int
    lower_bound_bytes: int
    optimal: bool
    method: str
    alignment: int

    @property
    def ratio(self) -> float:
        """Peak over lower bound: 1.0 is perfect."""
        return self.peak_bytes / self.lower_bound_bytes if self.lower_bound_bytes else 1.0


def plan_offsets(
    lifetimes: Iterable[Sequence],
    *,
    alignment: int = 64,
    pinned: Mapping[int, int] | None = None,
    effort: float = 1.0,
    time_limit: float | None = None,
) -> Offsets:
    """Offsets at which tensors that live at the same time never overlap, in as few bytes as possible.

    The result is a function of the arguments alone: the search is limited by a number of steps, not by the clock, and
    equal inputs give equal plans on every machine. Expect 200 tensors in milliseconds, 2,000 in a second.

    Args:
        lifetimes: ``Lifetime`` or plain ``(first, last, size)`` tuples: instruction indices, both included, and bytes.
        alignment: of every offset, in bytes; 64 suits a processor, 256 a GPU.
        pinned: offsets in bytes of tensors that already have a place, by index; adds to ``Lifetime.pinned``.
        effort: multiplies the number of search steps; 0 for greedy passes only.
        time_limit: seconds after which the search stops, whatever the effort. A safety for callers with a deadline:
            a plan that it cut short depends on the machine. None, the default, for no clock at all.

    Returns:
        ``Offsets``. A tensor of zero bytes lies at its pinned offset or else at 0.

    Raises:
        PlanError: lifetimes that are not what they should be, a pinned offset that is not a multiple of the alignment,
            or two pinned tensors that overlap in time and memory; the message names both.

    >>> plan_offsets([(0, 2, 100), (1, 1, 64), (2, 3, 64)]).offsets
    [0, 128, 128]
    """
    lifetimes, alignment = as_lifetimes(lifetimes), check_alignment(alignment)
    lifetimes = _with_pins(lifetimes, pinned or {}, alignment)
    bound = lower_bound(lifetimes, alignment)
    solid = [i for i, item in enumerate(lifetimes) if item.size]
    problem = _Problem([lifetimes[i] for i in solid], alignment, bound)
    budget = min(max(_STEPS_PER_TENSOR * len(solid), _FEWEST_STEPS), _MOST_STEPS)
    problem.solve(Budget(int(budget * effort), time_limit))
    offsets = [item.pinned or 0 for item in lifetimes]
    for i, at in zip(solid, problem.best):
        offsets[i] = at * alignment
    peak = problem.peak * alignment
    return Offsets(offsets, peak, bound, problem.optimal or peak == bound, problem.method, alignment)


def _with_pins(lifetimes: list[Lifetime], pinned: Mapping[int, int], alignment: int) -> list[Lifetime]:
    """The lifetimes with their pinned offsets filled in, once these are known to be possible."""
    for index, at in pinned.items():
        if not 0 <= index < len(lifetimes):
            raise PlanError(
                "pinned", expected=f"indices below {len(lifetimes)}", got=index, mend="Pin tensors that are planned"
            )
        (lifetimes[index],) = as_lifetimes([lifetimes[index]._replace(pinned=at)])
    pins = [(item.first, i) for i, item in enumerate(lifetimes) if item.pinned is not None]
    for _, i in pins:
        if lifetimes[i].pinned % alignment:
            raise PlanError(
                _describe(i, lifetimes[i]),
                expected=f"a pinned offset that is a multiple of {alignment} bytes",
                mend="Move the pin, or plan with a smaller alignment",
            )
    live: list[int] = []
    for first, i in sorted(pins):
        low, high = lifetimes[i].pinned, lifetimes[i].pinned + lifetimes[i].size
        live = [j for j in live if lifetimes[j].last >= first]
        for j in live:
            if lifetimes[j].pinned < high and low < lifetimes[j].pinned + lifetimes[j].size and low < high:
                raise PlanError(
                    f"{_describe(j, lifetimes[j])} and {_describe(i, lifetimes[i])}",
                    expected="pinned tensors that do not overlap",
                    got="the same bytes at the same time",
                    mend="Pin one of them elsewhere, or let the planner choose",
                )
        live.append(i)
    return lifetimes


def _describe(index: int, item: Lifetime) -> str:
    name = f"tensor {index}" + (f" {item.name!r}" if item.name else "")
    return f"{name} (instructions {item.first}..{item.last}, {item.size} bytes pinned at {item.pinned})"


class _Problem:
    """Tensors of at least one byte, in compressed time and in units of the alignment, and the best offsets so far."""

    def __init__(self, lifetimes: list[Lifetime], alignment: int, bound: int):
        self.bound = bound // alignment
        self.spans = [(item.first, item.last + 1) for item in lifetimes]
        spans, self.moments = compress(self.spans)
        self.blocks = [
            (begin, end, round_up(x.size, alignment) // alignment) for (begin, end), x in zip(spans, lifetimes)
        ]
        self.pins = [None if item.pinned is None else item.pinned // alignment for item in lifetimes]
        self.free = [i for i, at in enumerate(self.pins) if at is None]
        self.best: list[int] = []
        self.peak, self.method, self.optimal = 0, "nothing to place", True

    def solve(self, budget: Budget) -> None:
        """Finds offsets, in ``best``, their ``peak``, the ``method``, and whether that is known ``optimal``."""
        if not self.blocks:
            return
        self.peak, self.optimal = _UNKNOWN, False
        conflicts = count_conflicts(self.spans)
        if conflicts > _MANY_CONFLICTS:
            self._stack_in_orders(("lifetime", "area", "contention"))
        if self.peak == self.bound or conflicts > _MOST_CONFLICTS:
            return
        neighbours = neighbours_of(self.blocks)
        searching = budget.steps > 0 and self._pins_stand()
        if conflicts > _MANY_CONFLICTS:
            self._fit_in_orders(neighbours, ("contention",), (False,))
        else:
            self._fit_in_orders(neighbours, ("lifetime", "contention", "size") if searching else tuple(ORDERS))
        if self.peak > self.bound and searching:
            self._search(neighbours, budget)

    def _keep(self, offsets: list[int], method: str) -> bool:
        """Notes offsets that are better than the best so far; whether they reach the bound."""
        peak = max(at + size for at, (_, _, size) in zip(offsets, self.blocks))
        if peak < self.peak:
            self.best, self.peak, self.method = offsets, peak, method
        return self.peak == self.bound

    def _order(self, name: str) -> list[int]:
        return sorted(self.free, key=ORDERS[name](self.blocks, self._loads))

    def _stack_in_orders(self, names) -> None:
        ground = [0] * self.moments
        for (begin, end, size), at in zip(self.blocks, self.pins):
            if at is not None:
                ground[begin:end] = [max(height, at + size) for height in ground[begin:end]]
        for name in names:
            if self._keep(stack(self.blocks, ground, self._order(name), self.pins), f"stack by {name}"):
                return

    def _fit_in_orders(self, neighbours, names, rules=(False, True)) -> None:
        for name in names:
            order = self._order(name)
            for best in rules:
                offsets = fit(self.blocks, neighbours, order, self.pins, best)
                if self._keep(offsets, f"{'best' if best else 'first'} fit by {name}"):
                    return

    @property
    def _loads(self) -> list[int]:
        change = [0] * (self.moments + 1)
        for begin, end, size in self.blocks:
            change[begin] += size
            change[end] -= size
        loads, load = [], 0
        for step in change[:-1]:
            load += step
            loads.append(load)
        return loads

    def _pins_stand(self) -> bool:
        """Whether the pinned tensors stand on the ground and on each other; the search fills no gap below one."""
        pinned = [(block, at) for block, at in zip(self.blocks, self.pins) if at is not None]
        return _heights(pinned, self.moments) is not None

    def _search(self, neighbours, budget: Budget) -> None:
        """Packs the core region by region, the one with the highest load first, and puts the others back."""
        pins = [i for i, at in enumerate(self.pins) if at is not None]
        aside, core = simplify(self.blocks, neighbours, self.bound, keep=pins)
        offsets, reached = list(self.pins), self.bound
        groups = regions(self.blocks, core)
        loads = self._loads
        heat = {group[0]: max(max(loads[slice(*self.blocks[i][:2])]) for i in group) for group in groups}
        groups.sort(key=lambda group: -heat[group[0]])
        waiting = len(core)
        for group in groups:
            part = budget.share(len(group) / waiting)
            before, waiting = part.steps, waiting - len(group)
            spans, moments = compress([self.blocks[i][:2] for i in group + pins])
            blocks = [(*span, self.blocks[i][2]) for span, i in zip(spans, group + pins)]
            inner = _heights(zip(blocks[len(group) :], (self.pins[i] for i in pins)), moments)
            packing = pack(blocks[: len(group)], inner, reached, self.peak, part)
            budget.steps -= before - part.steps
            if packing.offsets is None:  # this region alone needs as much as the best plan, as far as is known
                self.optimal = packing.exhausted
                return
            if packing.peak > reached:
                reached, self.optimal = packing.peak, packing.exhausted
            for i, at in zip(group, packing.offsets):
                offsets[i] = at
        self._keep(fit(self.blocks, neighbours, reversed(aside), offsets), "search")


def _heights(placed, moments: int) -> list[int] | None:
    """The skyline of blocks and their offsets where they stand on each other from zero on; None where one floats."""
    heights = [0] * moments
    for (begin, end, size), at in sorted(placed, key=lambda pair: pair[1]):
        if set(heights[begin:end]) != {at}:
            return None
        heights[begin:end] = [at + size] * (end - begin)
    return heights
