"""``matmul`` and the mask of a rectifier after it become one instruction, which masks what is still in the cache.

So the gradient that goes on through a layer with a ReLU is written once. Which side of zero the rectifier's input was
on, its output says (``mask``).
"""

from __future__ import annotations

from tinynet.kernels.expression import parse
from tinynet.ops import lookup

from ..graph import TEMPORARY, Graph


def mask_products(graph: Graph) -> None:
    """Merges ``where(h > 0, a @ b, 0)`` where nobody else reads the product."""
    makers, readers, instructions = graph.makers(), graph.readers(), graph.instructions
    gone = set()
    for at, each in enumerate(instructions):
        position = _masked(each.op.expression)
        if position is None:
            continue
        product, h = each.inputs[position], each.inputs[1 - position]
        maker = makers.get(product)
        if (
            maker is None or instructions[maker].op.name != "matmul" or readers[product] != [at]
            or graph.registers[product].kind != TEMPORARY
            or not graph.spec(product) == graph.spec(h) == graph.spec(each.outputs[0])
            or makers.get(h, -1) > maker
            or any(graph.conflict(each, between) for between in instructions[maker + 1 : at])
        ):  # fmt: skip
            continue  # the mask goes to the product, since what follows that may write over its factors
        inputs = (*instructions[maker].inputs, h)
        instructions[maker] = each.with_(op=lookup("masked_matmul"), inputs=inputs, attributes={})
        gone.add(at)
    graph.instructions = [each for i, each in enumerate(instructions) if i not in gone]
    graph.verify("mask_products")


def _masked(expression) -> int | None:
    """Which of two inputs is masked by the other's being above 0, in an expression that does just that."""
    if expression is None or len(expression.inputs) != 2:
        return None
    for i, (h, y) in enumerate((expression.inputs[::-1], expression.inputs)):
        if expression.tree == parse(f"where({h} > 0, {y}, 0)", expression.inputs):
            return i
    return None
