"""``MemoryPlan``: where each tensor of a program lies in its arena, and how much that takes.

Made of a graph and nothing else: no array is touched, so a plan can be had before there is memory for anything.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from tinynet.backend import SHADOWS, Shadow
from tinynet.kernels import alignment as alignment_of
from tinynet.kernels import stages
from tinynet.memory import Lifetime, Offsets, check_plan, lower_bound, memory_map, plan_offsets

from .graph import INPUT, Graph

_TAGS = {"forward": "activation", "backward": "gradient", "update": "update"}  # phase -> what it makes


class PlannedTensor(NamedTuple):
    """One row of a plan: bytes at an offset, alive from one instruction to another."""

    name: str
    tag: str
    offset: int
    nbytes: int
    first: int
    last: int


class MemoryPlan:
    """The memory of a program beyond the tensors that outlive it.

    Args:
        graph: what is planned.
        target: whose kernels run it; they say how much scratch they take.
        alignment: of every offset, in bytes; None for what the target wants.
        effort: of the search for offsets; 0 for greedy passes only.

    Attributes:
        peak_bytes: the size of the arena.
        lower_bound_bytes: the size below which no plan of these lifetimes can go.
        input_bytes: what of the peak the arguments of a call take: the batch itself.
        workspace_bytes: the rest, which is what a memory budget is about.
        tensors: one ``PlannedTensor`` per piece of memory.
        offsets: storage -> offset in bytes.
        scratch: position of an instruction -> (offset, bytes) of the scratch of its kernel.
        staging: for each argument its (offset, bytes) on the way to its slot, on targets that stage; else empty.
    """

    def __init__(self, graph: Graph, target: str = "numpy", alignment: int | None = None, effort: float = 1.0):
        alignment = alignment_of(target) if alignment is None else alignment
        self._items, storages, places = _items(graph, target)
        placed: Offsets = plan_offsets(self._items, alignment=alignment, effort=effort)
        check_plan(self._items, placed.offsets, alignment, placed.peak_bytes)
        self.alignment = alignment
        self.peak_bytes, self.lower_bound_bytes = placed.peak_bytes, placed.lower_bound_bytes
        self.input_bytes = _input_bytes(graph, target, alignment)
        self.workspace_bytes = self.peak_bytes - self.input_bytes
        self.offsets = dict(zip(storages, placed.offsets))
        beside = [(at, item.size) for at, item in zip(placed.offsets, self._items)][len(storages) :]
        self.scratch = dict(zip(places, beside))
        self.staging = beside[len(places) :]
        self.tensors = [
            PlannedTensor(item.name, item.tag, at, item.size, item.first, item.last)
            for item, at in zip(self._items, placed.offsets)
        ]

    def __repr__(self) -> str:
        return f"<plan: {len(self.tensors)} tensors in {self.peak_bytes:,} bytes, bound {self.lower_bound_bytes:,}>"

    def table(self) -> str:
        """Name, kind, offset, bytes and lifetime of each tensor; and the peak beside the bound."""
        rows = [("tensor", "kind", "offset", "bytes", "alive")]
        rows += [(t.name, t.tag, f"{t.offset:,}", f"{t.nbytes:,}", f"{t.first}-{t.last}") for t in self.tensors]
        widths = [max(map(len, column)) for column in zip(*rows)]
        lines = [
            f"{name:<{widths[0]}}  {tag:<{widths[1]}}  {at:>{widths[2]}}  {n:>{widths[3]}}  {alive:>{widths[4]}}"
            for name, tag, at, n, alive in rows
        ]
        return "\n".join([*lines, f"peak {self.peak_bytes:,} bytes, lower bound {self.lower_bound_bytes:,} bytes"])

    def svg(self, path) -> None:
        """Writes the memory map as a picture: time across, addresses up."""
        offsets = [t.offset for t in self.tensors]
        Path(path).write_text(memory_map(self._items, offsets, alignment=self.alignment), encoding="utf-8")


def workspace_bound(graph: Graph, target: str) -> int:
    """The least workspace that any plan of the graph can have, in bytes; without placing anything."""
    alignment = alignment_of(target)
    return lower_bound(_items(graph, target)[0], alignment) - _input_bytes(graph, target, alignment)


def _input_bytes(graph: Graph, target: str, alignment: int) -> int:
    storages = [graph.storage(register) for register in graph.inputs]
    places = [*set(storages), *(storages if stages(target) else ())]
    return sum(-(-graph.spec(storage).nbytes // alignment) * alignment for storage in places)


def _items(graph: Graph, target: str) -> tuple[list[Lifetime], list[int], list[int]]:
    """Lifetimes of all storages, of all scratch, and of staging; the storages, and the instructions with scratch."""
    lifetimes, makers = graph.lifetimes(), graph.makers()
    items = []
    for storage, (first, last) in lifetimes.items():
        register = graph.registers[storage]
        if register.kind == INPUT:
            items.append(Lifetime(first, last, register.spec.nbytes, register.name, "input"))
        else:
            maker = graph.instructions[makers[storage]]
            name = f"{register.name} {maker.op.name}"
            items.append(Lifetime(first, last, register.spec.nbytes, name, _TAGS[maker.phase]))
    places = []
    layouts = _layouts(graph)
    for i, each in enumerate(graph.instructions):
        nbytes = 0 if each.view else _scratch_bytes(layouts, each, target)
        if nbytes:
            items.append(Lifetime(i, i, nbytes, f"scratch of {each.op.name}", "scratch"))
            places.append(i)
    for register in graph.inputs if stages(target) else ():  # arguments come while the call before is running
        spec = graph.spec(register)
        name = f"staging of {graph.registers[register].name}"
        items.append(Lifetime(0, len(graph), spec.nbytes, name, "input"))
    return items, list(lifetimes), places


def _layouts(graph: Graph) -> dict[int, Shadow]:
    """How each register lies in memory: side by side, or as a view of what does."""
    found = {register.index: Shadow(*register.spec) for register in graph.registers}
    for each in graph.instructions:
        if each.view:
            found[each.outputs[0]] = each.op.view(SHADOWS, found[each.inputs[0]], **each.attributes)[0]
    return found


def _scratch_bytes(layouts: dict[int, Shadow], each, target: str) -> int:
    """What the kernel of an instruction takes beside its result."""
    outs = tuple(layouts[register] for register in each.outputs)
    kernel = each.op.kernel(target, outs[0].dtype)
    inputs = (layouts[register] for register in each.inputs)
    return kernel.scratch_bytes(outs[0] if len(outs) == 1 else outs, *inputs, **each.attributes)
