"""Dead code: what reaches neither an output nor a tensor that outlives the step."""

from __future__ import annotations

from ..graph import EXTERNAL, INPUT, Graph


def remove_dead(graph: Graph) -> None:
    """Drops instructions without effect. Gradients of inputs that need none are among them, where one was asked for."""
    live = {graph.storage(register) for register in graph.outputs}
    live |= {s for s in graph.written() if graph.registers[s].kind in (EXTERNAL, INPUT)}
    read = set(graph.outputs)  # registers: a view that nobody reads is dead, whoever else reads the memory
    kept = []
    for each in reversed(graph.instructions):
        if each.outputs[0] in read if each.view else any(graph.storage(register) in live for register in each.outputs):
            kept.append(each)
            read.update(each.inputs)
            live.update(graph.storage(register) for register in each.inputs)
    graph.instructions = kept[::-1]
    graph.verify("remove_dead")
