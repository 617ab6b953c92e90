"""Updates as early as they may be: when the gradient is there, and nobody needs the old value any more.

A gradient then dies where it was made, and ``tiling`` can spend it before it stands whole. Numbers that updates wait
for, such as the count of steps, move up with them.
"""

from __future__ import annotations

from ..graph import Graph

_SMALL = 64  # bytes of a result that may live longer for it


def hoist_updates(graph: Graph) -> None:
    """Moves updates, and what has small results, up past all instructions that do not touch what they read or write.

    Each instruction gets a key: its position, or, if it moves, that of the last one that it has to wait for, and its
    rank among those that wait for the same. One pass over the graph, and a sort.
    """
    keys: list[tuple[int, int]] = []
    made: dict[int, tuple[int, int]] = {}  # register -> key of what made it
    written: dict[int, tuple[int, int]] = {}  # storage -> key of what wrote to it last
    touched: dict[int, tuple[int, int]] = {}  # storage -> the last key of what read or wrote it
    nothing = (-1, -1)
    for i, each in enumerate(graph.instructions):
        inputs = [graph.storage(r) for r in each.inputs]
        outputs = [graph.storage(r) for r in each.outputs]
        key = (i, -1)
        if each.op.updates or (not each.view and sum(graph.spec(r).nbytes for r in each.outputs) <= _SMALL):
            waits = [made.get(r, nothing) for r in each.inputs]
            waits += [written.get(s, nothing) for s in inputs] + [touched.get(s, nothing) for s in outputs]
            key = (max(waits, default=nothing)[0], i)
        keys.append(key)
        for storage in outputs:
            if not each.view:
                written[storage] = max(key, written.get(storage, nothing))
        for storage in (*inputs, *outputs):
            touched[storage] = max(key, touched.get(storage, nothing))
        if not each.op.updates:
            made.update(dict.fromkeys(each.outputs, key))
    order = sorted(range(len(keys)), key=keys.__getitem__)
    graph.instructions = [graph.instructions[i] for i in order]
    graph.verify("hoist_updates")
