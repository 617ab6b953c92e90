"""``MemoryPlan``: where each tensor of a program lies in its arena, and how much that takes."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from tinynet.memory import Lifetime, check_plan, memory_map, plan_offsets

from .graph import INPUT, Graph


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

    Attributes:
        peak_bytes: the size of the arena.
        lower_bound_bytes: the size below which no plan of these lifetimes can go.
        tensors: one ``PlannedTensor`` per piece of memory.
        offsets: storage -> offset in bytes.
    """

    def __init__(self, graph: Graph, alignment: int = 64):
        lifetimes = graph.lifetimes()
        self._items = []
        for storage, (first, last) in lifetimes.items():
            register = graph.registers[storage]
            tag = "input" if register.kind == INPUT else "temporary"
            self._items.append(Lifetime(first, last, register.spec.nbytes, register.name, tag))
        placed = plan_offsets(self._items, alignment=alignment)
        check_plan(self._items, placed.offsets, alignment, placed.peak_bytes)
        self.alignment = alignment
        self.peak_bytes, self.lower_bound_bytes = placed.peak_bytes, placed.lower_bound_bytes
        self.offsets = dict(zip(lifetimes, placed.offsets))
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
