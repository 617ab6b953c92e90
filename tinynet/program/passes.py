"""Passes that keep every bit of the result: dead code, and results written over inputs that nobody needs any more."""

from __future__ import annotations

from .graph import EXTERNAL, INPUT, TEMPORARY, Graph


def remove_dead(graph: Graph) -> None:
    """Drops instructions whose results reach neither an output nor a tensor that outlives the step."""
    live = {graph.storage(register) for register in graph.outputs}
    live |= {s for s in graph.written() if graph.registers[s].kind in (EXTERNAL, INPUT)}
    kept = []
    for each in reversed(graph.instructions):
        if any(graph.storage(register) in live for register in each.outputs):
            kept.append(each)
            live.update(graph.storage(register) for register in each.inputs)
    graph.instructions = kept[::-1]
    graph.verify("remove_dead")


def write_in_place(graph: Graph) -> None:
    """Gives a result the memory of an input that dies with the instruction, where its record allows it.

    The input has to be a temporary of the same shape and dtype, and the instruction may read its memory in no other
    way (as x and as a view of x, say).
    """
    lifetimes = graph.lifetimes()
    last = {storage: span[1] for storage, span in lifetimes.items()}
    for i, each in enumerate(graph.instructions):
        if each.view or each.op.updates or len(each.outputs) != 1:
            continue
        output = each.outputs[0]
        for position in each.op.overwrites:
            source = each.inputs[position]
            storage = graph.storage(source)
            whole = graph.registers[storage]
            if (
                whole.kind == TEMPORARY
                and last.get(storage) == i
                and whole.spec.nbytes == graph.spec(output).nbytes
                and graph.spec(source) == graph.spec(output)
                and source in (storage, *_written_over(graph, storage))
                and all(r == source for r in each.inputs if graph.storage(r) == storage)
            ):
                own = graph.storage(output)
                last[storage] = last.pop(own)
                for register in graph.registers:
                    if register.storage == own:
                        register.storage = storage
                break
    graph.verify("write_in_place")


def _written_over(graph: Graph, storage: int) -> list[int]:
    """Registers that took over all of a storage in place: no views, which may lie otherwise in it."""
    views = {each.outputs[0] for each in graph.instructions if each.view}
    return [r.index for r in graph.registers if r.storage == storage and r.index not in views]
