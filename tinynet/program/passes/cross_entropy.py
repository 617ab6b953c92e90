"""Softmax-cross-entropy forward with backward: the exponentials of the loss serve its gradient as well.

The gradient of the loss is computed where the loss is. That is possible where the gradient that comes in does not
depend on the loss, as for any mean or sum of it, whose gradient is known beforehand.
"""

from __future__ import annotations

from tinynet.ops import lookup

from ..graph import Graph


def join_cross_entropy(graph: Graph) -> None:
    """Replaces each pair of the loss and its gradient by one instruction with two results."""
    at = 0
    while at < len(graph.instructions):
        if graph.instructions[at].op.name == "softmax_cross_entropy":
            _join(graph, at)
        at += 1
    graph.verify("join_cross_entropy")


def _join(graph: Graph, at: int) -> None:
    instructions = graph.instructions
    loss = instructions[at]
    other = next(
        (j for j in range(at + 1, len(instructions)) if instructions[j].op.name == "softmax_cross_entropy_grad"
         and instructions[j].inputs[:2] == loss.inputs), None,
    )  # fmt: skip
    if other is None:
        return
    gradient, makers = instructions[other], graph.makers()
    moved, wanted = set(), [gradient.inputs[2]]  # what makes the incoming gradient, and does not stand before the loss
    while wanted:
        place = makers.get(wanted.pop(), -1)
        if place > at and place not in moved:
            moved.add(place)
            wanted.extend(instructions[place].inputs)
        elif place == at:
            return  # it depends on the loss
    if any(graph.conflict(instructions[i], instructions[j]) for j in moved for i in range(at, j) if i not in moved):
        return
    if any(graph.conflict(gradient, instructions[i]) for i in range(at + 1, other) if i not in moved):
        return  # the logits are written over in between
    both = loss.with_(
        op=lookup("softmax_cross_entropy_both"), inputs=gradient.inputs, outputs=(*loss.outputs, *gradient.outputs)
    )
    rest = [each for i, each in enumerate(instructions) if i > at and i != other and i not in moved]
    graph.instructions = [*instructions[:at], *(instructions[i] for i in sorted(moved)), both, *rest]
