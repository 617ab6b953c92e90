"""Micro-batches: a graph over a batch of n rows, run over parts of the rows one after the other.

Which registers are made of rows is found from the arguments on, by the operations' split rules: an instruction works
row by row (each part on its own), or sums over the rows (each part gives its share, and the shares are added with exact
weights), or does not depend on rows at all. What depends on a sum over the batch comes after the last part: the
optimizer, say. Where a row depends on such a sum (as in batch normalisation), or an operation has no split rule, the
batch cannot be cut, and the reason is an error; a wrong number is not possible.

The result is an ordinary graph, its parts written out one after the other: executors know nothing of micro-batches.
"""

from __future__ import annotations

from typing import NamedTuple

from tinynet.backend import get_backend
from tinynet.errors import PlanError
from tinynet.ops import Spec, lookup
from tinynet.ops.fused import Reserved
from tinynet.ops.splitting import JOIN, MEAN, Split

from .graph import CONSTANT, TEMPORARY, Graph, Instruction
from .parts import Parts

_BEFORE, _WITHIN, _AFTER = range(3)


class Rows(NamedTuple):
    """How a graph depends on the rows of its arguments.

    Attributes:
        n: how many rows there are.
        axes: register -> the axis along which it is made of rows.
        splits: position of an instruction within the parts -> how it is split.
        places: for each instruction, whether it comes before, within, or after the parts.
    """

    n: int
    axes: dict[int, int]
    splits: dict[int, Split]
    places: list[int]


def rows_of(graph: Graph) -> Rows:
    """Finds how the graph depends on rows: those of the first argument with axes, and of all others as long as it.

    Raises:
        PlanError: the batch cannot be cut; the message names the instruction and its line.
    """
    first = next((r for r in graph.inputs if graph.spec(r).ndim), None)
    n = graph.spec(first).shape[0] if first is not None else 0
    if n < 2:
        raise PlanError("micro-batches", expected="an argument with at least two rows", got="none")
    axes = {r: 0 for r in graph.inputs if graph.spec(r).shape[:1] == (n,)}
    late: set[int] = set()
    splits, places = {}, []
    for i, each in enumerate(graph.instructions):
        cut = tuple(axes.get(r) for r in each.inputs)
        after = not late.isdisjoint(each.inputs)
        if all(axis is None for axis in cut):
            places.append(_AFTER if after else _BEFORE)
            late.update(each.outputs if after else ())
            continue
        if after:
            raise _uncut(each, "one that needs a sum over the batch for each of its rows")
        split = None
        if each.op.split is not None and not each.op.updates:
            split = each.op.split(n, cut, *graph.operands(each), **each.attributes)
        if split is None:
            raise _uncut(each, "one for which rows do not stand alone")
        splits[i] = split
        places.append(_WITHIN)
        if split.combine == JOIN:
            axes[each.outputs[0]] = split.axis
        else:
            late.add(each.outputs[0])
    _check_order(graph, places)
    return Rows(n, axes, splits, places)


def _uncut(each: Instruction, got: str) -> PlanError:
    where = f"micro-batches, {each.op.name} ({each.line})"
    return PlanError(where, expected="an operation that works on parts of the batch", got=got)


def _check_order(graph: Graph, places: list[int]) -> None:
    """Raises PlanError where bringing instructions into the order before, within, after would pass a write."""
    touched: dict[int, list[tuple[int, bool]]] = {}  # storage -> (place, written) in order
    for each, place in zip(graph.instructions, places):
        targets = {graph.storage(r) for r in each.targets}
        for storage in {graph.storage(r) for r in each.inputs} | targets:
            history = touched.setdefault(storage, [])
            if any(before > place and (written or storage in targets) for before, written in history):
                raise _uncut(each, "one that would have to pass a write to the same tensor")
            history.append((place, storage in targets))


def in_parts(graph: Graph, rows: Rows, parts: int, most: int | None = None) -> Graph:
    """The graph with its batch cut into parts of equal size, but for a smaller last one.

    Args:
        graph: it is not changed.
        rows: of this graph.
        parts: how many.
        most: write out this many parts only; the graph then computes nothing useful, but takes as much memory.
    """
    size = -(-rows.n // parts)
    bounds = [(start, min(start + size, rows.n)) for start in range(0, rows.n, size)]
    writer = _Writer(graph.copy(), rows)
    for start, stop in bounds[:most]:
        writer.part(start, stop)
    return writer.finish()


class _Writer:
    """Writes parts out into a new list of instructions."""

    def __init__(self, graph: Graph, rows: Rows):
        self.graph, self.rows, self.old = graph, rows, graph.instructions
        self.backend, self.parts = get_backend(graph.backend), Parts(graph, rows.n)
        self.new = self.parts.new
        self.new += [each for each, place in zip(self.old, rows.places) if place == _BEFORE]
        self.begun: set[int] = set()  # sums that have a first share
        self.joined: dict[int, int] = {}  # output made of rows -> the register for the whole of it
        for register in dict.fromkeys(graph.outputs):
            if register in rows.axes and register not in graph.inputs:
                spec = graph.spec(register)
                self.joined[register] = graph.add(spec, TEMPORARY, name=graph.registers[register].name)
                self.new.append(Instruction(Reserved(spec), (), (self.joined[register],), {}))

    def part(self, start: int, stop: int) -> None:
        """Writes out the instructions for rows start to stop."""
        self.parts.begin(start, stop)
        for i, split in self.rows.splits.items():
            each = self.old[i]
            if split.combine == JOIN:
                self.parts.write(each, split)
            else:
                share = (stop - start) / self.rows.n if split.combine == MEAN else None
                self._add_share(self.parts.cut(each, split), each.outputs[0], share)
        for register, whole in self.joined.items():
            axis = self.rows.axes[register]
            if self.graph.spec(register).size:
                target, made = self.parts.view(whole, axis), self.parts.here[register, axis]
                self.new.append(Instruction(lookup("assign"), (target, made), (target,), {}))

    def finish(self) -> Graph:
        self.graph.outputs = [self.joined.get(r, r) for r in self.graph.outputs]
        after = [each for each, place in zip(self.old, self.rows.places) if place == _AFTER]
        self.graph.instructions = [*self.new, *after]
        self.graph.verify("in_parts")
        return self.graph

    def _add_share(self, each: Instruction, total: int, share: float | None) -> None:
        """A part's sum over its rows, weighted with its share of them if that is given, added to those before it."""
        spec, first = self.graph.spec(total), total not in self.begun
        self.begun.add(total)
        made = total if first and share is None else self.graph.add(spec, TEMPORARY)
        self.new.append(each.with_(outputs=(made,)))
        if share is not None:
            weight = self._constant(share, spec.dtype)
            scaled = total if first else self.graph.add(spec, TEMPORARY)
            self.new.append(each.with_(op=lookup("multiply"), inputs=(made, weight), outputs=(scaled,), attributes={}))
            made = scaled
        if not first:
            add = lookup("accumulate")
            self.new.append(each.with_(op=add, inputs=(total, made), outputs=(total,), attributes={}))

    def _constant(self, number: float, dtype) -> int:
        array = self.backend.full((), number, dtype)
        value = self.backend.to_host(array).item()
        register = self.graph.add(Spec((), dtype), CONSTANT, name=f"{value:g}", value=value)
        self.graph.constants[register] = array
        return register
