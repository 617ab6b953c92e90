"""``linear`` and the activation after it become one instruction, so that what the activation was applied to dies."""

from __future__ import annotations

from tinynet.errors import TinynetError

from ..graph import Graph


def apply_activations(graph: Graph) -> None:
    """Gives ``linear`` the activation that is its result's only reader, if it knows one of that name."""
    readers, instructions = graph.readers(), graph.instructions
    gone = set()
    for i, each in enumerate(instructions):
        result = each.outputs[0]
        if each.op.name != "linear" or each.attributes["activation"] is not None or len(readers.get(result, ())) != 1:
            continue
        at = readers[result][0]
        after = instructions[at] if at < len(instructions) else None
        if after is None or after.inputs != (result,) or after.attributes or after.op.expression is None:
            continue
        attributes = {"activation": after.op.name}
        try:
            each.op.rule(*graph.operands(each), **attributes)
        except TinynetError:  # no activation of linear's
            continue
        if not any(graph.conflict(each, between) for between in instructions[i + 1 : at]):
            instructions[at] = each.with_(outputs=after.outputs, attributes=attributes)
            gone.add(i)
    graph.instructions = [each for i, each in enumerate(instructions) if i not in gone]
    graph.verify("apply_activations")
