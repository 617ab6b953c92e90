"""The mask of a rectifier from its output: x > 0 exactly where max(x, 0) > 0, so that x need not be kept."""

from __future__ import annotations

from tinynet.ops import lookup

from ..graph import Graph
from .folding import number_of


def mask_from_output(graph: Graph) -> None:
    """Lets ``x > 0`` read the output of a rectifier of x that was computed before it."""
    rectified: dict[int, int] = {}
    updated = {graph.storage(r) for each in graph.instructions for r in each.targets}
    rectifier = lookup("relu").expression.tree
    for i, each in enumerate(graph.instructions):
        out = each.outputs[0]
        if each.op.expression is not None and each.op.expression.tree == rectifier:
            if graph.storage(out) not in updated and graph.storage(each.inputs[0]) not in updated:
                rectified[each.inputs[0]] = out
        elif each.op.name == "greater" and each.inputs[0] in rectified and number_of(graph, each.inputs[1]) == 0:
            graph.instructions[i] = each.with_(inputs=(rectified[each.inputs[0]], each.inputs[1]))
    graph.verify("mask_from_output")
