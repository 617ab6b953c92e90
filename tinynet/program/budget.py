"""Memory budgets: which gradients go where a layer's input was, which results of the forward pass are made again, and
into how many parts a batch is cut.

The first adds no work, though products are cut. The others do: recomputation the flops of the segments that are made
again, micro-batches those of adding the parts' gradients, which then stand whole. The choice is a search over changes
of the graph: each candidate is compiled as it would be run, and measured by its lower bound, without placing anything.
Of those that fit, the one with the least added work is taken, and planned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from tinynet.errors import PlanError
from tinynet.kernels.tiles import TILE_BYTES
from tinynet.memory.units import show_bytes

from .batching import in_parts, rows_of
from .compile import compiled
from .graph import Graph
from .plan import MemoryPlan, workspace_bound
from .recompute import added_flops, flops_of, kept_bytes, recomputed, segments_of

_MOST_INSTRUCTIONS = 6_000  # of a graph whose parts are written out
_PROBED = 3  # parts that show what all of them take
_LIMITS = 10  # sizes of segments that are tried
# Of a weight. 1024-2048-2048-10 with tiles of 760 KiB takes, in 2, 4 and 8 strips, 1.01 of the time on one core, 1.02,
# 1.02 and 1.05 on two.
_STRIPS = (2, 4, 8, 16)
_TILES, SMALLEST_TILE = 16, 16 * 1024  # the part of a budget that a tile takes; bytes that one may always have


class Candidate(NamedTuple):
    """A way to keep to a budget: flops that it adds, the compiled graph, and what was done, in words."""

    flops: int
    graph: Graph
    words: str


def within(graph: Graph, memory: int | None, fuse: bool, target: str) -> tuple[Graph, list[str]]:
    """The graph, compiled, and changed as far as it takes to keep its workspace within a budget.

    Args:
        graph: as ``simplify`` left it; it is not changed.
        memory: bytes of workspace: beyond the arguments, and tensors that outlive the step. None: no budget.
        fuse: whether fusion is allowed.
        target: whose kernels run it.

    Returns:
        The graph, and what was chosen, in words.

    Raises:
        PlanError: nothing fits; the message names the least budget that would do, and what stood in the way.
    """
    plain = compiled(graph, fuse, target=target)
    if memory is None:
        return plain, []
    whole, least, reason = workspace_bound(plain, target), [], ""
    fitting = min(TILE_BYTES, max(SMALLEST_TILE, memory // _TILES))
    for tile in sorted({TILE_BYTES, fitting, SMALLEST_TILE}, reverse=True):
        search = _Search(graph, memory, fuse, target, tile)
        found = search.as_it_is()
        if found is None and tile > fitting:
            continue  # smaller tiles come before all else; tiles that are too small come last, since they are slow
        found = found or search.in_strips() or min(search.candidates(plain), key=lambda one: one.flops, default=None)
        if found is not None:
            took = MemoryPlan(found.graph, target).workspace_bytes
            more = f"; {found.flops:,} flops more ({found.flops / max(1, flops_of(plain)):.1%})" if found.flops else ""
            instead = f" instead of {whole:,}" if took < whole else ""
            return found.graph, [
                f"within {show_bytes(memory)}: {took:,} bytes of workspace{instead}: {found.words}{more}"
            ]
        least.append(search.least())
        reason = search.reason
    raise PlanError(
        "memory budget", expected=f"at least {min(least):,} bytes ({show_bytes(min(least))}) of workspace",
        got=f"{memory:,} bytes ({show_bytes(memory)})",
        mend=f"raise the budget, or make the batch or the model smaller{reason}",
    )  # fmt: skip


def fitting(graph: Graph, memory: int | None, fuse: bool, targets: Sequence[str]) -> tuple[Graph, list[str], str]:
    """As ``within``, on the first of the targets for which something fits: graph, words, and that target.

    Compiled kernels take more scratch than those for NumPy, if little of it.
    """
    for target in targets[:-1]:
        try:
            return *within(graph, memory, fuse, target), target
        except PlanError:
            continue
    found, words = within(graph, memory, fuse, targets[-1])
    return (
        found,
        [*words, *(f"on {targets[-1]} kernels: those for {each} take too much scratch" for each in targets[:-1])],
        targets[-1],
    )


class _Search:
    """The candidates for one budget and one size of tiles.

    Attributes:
        reason: why the batch cannot be cut, as the end of a sentence; empty where it can.
    """

    def __init__(self, graph: Graph, memory: int, fuse: bool, target: str, tile: int):
        self.graph, self.memory, self.fuse, self.target, self.tile = graph, memory, fuse, target, tile
        self.reason = ""
        self._leanest: tuple[int, Callable[[], Graph]] | None = None

    def compiled(self, graph: Graph, change: Callable[[Graph], Graph] | None = None) -> Graph:
        return compiled(graph, self.fuse, change, self.tile, self.target)

    def fits(self, graph: Graph, whole: Callable[[], Graph] | None = None) -> bool:
        """Whether a compiled graph keeps to the budget: as it would be planned, or, if it stands for a larger one that
        ``whole`` makes, by its bound."""
        bound = workspace_bound(graph, self.target)
        if self._leanest is None or bound < self._leanest[0]:
            self._leanest = bound, whole or (lambda: graph)
        if whole is None and bound <= self.memory:
            bound = MemoryPlan(graph, self.target).workspace_bytes
        return bound <= self.memory

    def least(self) -> int:
        """The workspace of the leanest graph that was tried, planned."""
        return MemoryPlan(self._leanest[1](), self.target).workspace_bytes

    def as_it_is(self) -> Candidate | None:
        unchanged = self.compiled(self.graph)
        return Candidate(0, unchanged, "nothing cut or made again") if self.fits(unchanged) else None

    def in_strips(self) -> Candidate | None:
        """The fewest strips of weights that fit, where gradients are written over the inputs of layers."""
        length = 0
        for strips in _STRIPS if self.fuse else ():
            graph = compiled(self.graph, self.fuse, None, self.tile, self.target, strips)
            if len(graph) == length:
                return None  # as before: no layer can be cut, or none any finer
            if self.fits(graph):
                words = f"gradients written over the inputs of layers, in at most {strips} strips of their weights"
                return Candidate(0, graph, words)
            length = len(graph)
        return None

    def candidates(self, plain: Graph) -> Iterator[Candidate]:
        """What fits: micro-batches or recomputation, and both together only if neither does alone."""
        alone = [*self._cut(plain), *self._again(plain)]
        yield from alone
        if not alone:
            yield from self._both(plain)

    # ---- micro-batches ----

    def _cut(self, plain: Graph, again: list | None = None) -> Iterator[Candidate]:
        """The fewest parts that fit, after recomputation of the segments ``again``."""
        base = recomputed(self.graph, again) if again else self.graph
        try:
            rows = rows_of(base)
        except PlanError as error:
            self.reason = f". The batch cannot be cut: {error}"
            return
        most = max(1, min(rows.n, _MOST_INSTRUCTIONS // max(1, len(base))))

        def whole(parts: int) -> Graph:
            return self.compiled(base, lambda graph: in_parts(graph, rows, parts))

        def probe(parts: int) -> bool:
            some = self.compiled(base, lambda graph: in_parts(graph, rows, parts, _PROBED))
            return self.fits(some, lambda: whole(parts))

        parts = _first(2, most, probe)
        for count in range(parts, most + 1) if parts is not None else ():
            graph = whole(count)
            if self.fits(graph):
                size = -(-rows.n // count)
                words = f"the batch of {rows.n:,} in {-(-rows.n // size)} parts of {size:,}"
                yield Candidate(added_flops(plain, graph), graph, words)
                return

    # ---- recomputation ----

    def _limits(self) -> list[int]:
        """Bytes that a segment may keep: from one tensor to half of all, in equal ratios."""
        kept = [nbytes for _, nbytes in kept_bytes(self.graph)]
        if len(kept) < 2:
            return []
        low, high = max(kept), sum(kept) / 2
        ratio = max(high / low, 1.0) ** (1 / (_LIMITS - 1))
        return sorted({int(low * ratio**i) for i in range(_LIMITS)})

    def _again(self, plain: Graph) -> Iterator[Candidate]:
        """For each size of segments, the fewest of them that fit: those of the longest life, which are the first."""
        for limit in self._limits():
            segments = segments_of(self.graph, limit)

            def made(count: int, segments=segments) -> Graph:
                return self.compiled(self.graph, lambda whole: recomputed(whole, segments[:count]))

            count = _first(1, len(segments), lambda count, made=made: self.fits(made(count)))
            if count is not None:
                graph = made(count)
                words = f"{count} of {len(segments)} segments of the forward pass made again"
                yield Candidate(added_flops(plain, graph), graph, words)

    def _both(self, plain: Graph) -> Iterator[Candidate]:
        for limit in self._limits():
            segments = segments_of(self.graph, limit)
            for flops, graph, words in self._cut(plain, segments):
                also = f"{words}, all {len(segments)} segments of its forward pass made again"
                yield Candidate(flops, graph, also)


def _first(low: int, high: int, holds: Callable[[int], bool]) -> int | None:
    """The first number from low to high for which ``holds``, which stays true once it is; None if there is none."""
    if low > high or not holds(high):
        return None
    while low < high:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle + 1
    return high
