"""Common subexpressions: what is computed twice from the same values is computed once."""

from __future__ import annotations

from ..graph import CONSTANT, Graph


def share_common(graph: Graph) -> None:
    """Replaces the results of repeated instructions by those of the first, and equal constants by one of them."""
    new: dict[int, int] = {}
    numbers: dict[tuple, int] = {}
    for register in graph.registers:
        if register.kind == CONSTANT and register.value is not None and register.storage == register.index:
            key = (register.spec, repr(register.value))  # repr tells -0.0 from 0.0
            new[register.index] = numbers.setdefault(key, register.index)
    new = {old: first for old, first in new.items() if old != first}
    updated = {graph.storage(r) for each in graph.instructions for r in each.targets}
    version: dict[int, int] = {}  # storage -> how often it has been written
    seen: dict[tuple, tuple[int, ...]] = {}
    kept = []
    for each in graph.instructions:
        inputs = tuple(new.get(r, r) for r in each.inputs)
        each = each.with_(inputs=inputs) if inputs != each.inputs else each
        if each.op.updates:
            for register in each.targets:
                version[graph.storage(register)] = version.get(graph.storage(register), 0) + 1
            kept.append(each)
            continue
        if not updated.isdisjoint(graph.storage(r) for r in each.outputs):
            kept.append(each)  # somebody will write over this very copy
            continue
        key = (*each.key(), *((r, version.get(graph.storage(r), 0)) for r in inputs))
        first = seen.setdefault(key, each.outputs)
        if first is each.outputs:
            kept.append(each)
        else:
            new.update(zip(each.outputs, first))
    graph.instructions = kept
    graph.replace(new)
    graph.verify("share_common")
