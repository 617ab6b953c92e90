"""In-place reuse: results written over inputs that nobody needs any more."""

from __future__ import annotations

from ..graph import TEMPORARY, Graph


def write_in_place(graph: Graph) -> None:
    """Gives a result the memory of an input that dies with the instruction, where its record allows it.

    The input has to be a temporary of the same shape and dtype, and the instruction may read its memory in no other
    way (as x and as a view of x, say).
    """
    last = {storage: span[1] for storage, span in graph.lifetimes().items()}
    views = {each.outputs[0] for each in graph.instructions if each.view}
    members: dict[int, list[int]] = {}  # storage -> the registers in it
    for register in graph.registers:
        members.setdefault(register.storage, []).append(register.index)
    for i, each in enumerate(graph.instructions):
        if each.view or each.op.updates:
            continue
        for position, result in each.op.overwrites:
            source, output = each.inputs[position], each.outputs[result]
            storage, own = graph.storage(source), graph.storage(output)
            if (
                graph.registers[storage].kind == TEMPORARY
                and last.get(storage) == i
                and graph.registers[storage].spec.nbytes == graph.spec(output).nbytes
                and graph.spec(source) == graph.spec(output)
                and (source == storage or source not in views)  # a view may lie otherwise in it
                and all(r == source for r in each.inputs if graph.storage(r) == storage)
            ):
                last[storage] = last.pop(own)
                for register in members.pop(own):
                    graph.registers[register].storage = storage
                    members[storage].append(register)
                break
    graph.verify("write_in_place")
