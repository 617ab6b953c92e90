"""Operands of products rounded to bf16 once, where a target multiplies such numbers and each operand serves several.

A layer's input is multiplied forward and for the gradient of its weight, its weight forward and for the gradient of its
input, the gradient of its output for both of these. Rounded in each product, as its kernel would, an operand is read in
float32 every time; here it is rounded before the first of them. What is multiplied is the same.
"""

from __future__ import annotations

from tinynet.kernels import PRODUCTS, keeps_in_bf16
from tinynet.ops import Spec
from tinynet.ops.fused import BF16, of_bf16, to_bf16
from tinynet.ops.spec import FLOAT32

from ..graph import CONSTANT, TEMPORARY, Graph, Instruction


def round_operands(graph: Graph, target: str | None) -> None:
    """Lets products read operands in bf16, which are made before the first product that reads them."""
    made = graph.makers()
    kept: dict[int, int] = {}  # what is multiplied, or what that is a transpose of -> its copy
    found: list[Instruction] = []

    def copied(register: int, reader: Instruction) -> int:
        """The register of an operand's copy. A transpose is that of the copy of what is transposed."""
        maker = graph.instructions[made[register]] if register in made else None
        is_turned = maker is not None and maker.op.name == "transpose"
        source = maker.inputs[0] if is_turned else register
        if source not in kept:
            kept[source] = graph.add(Spec(graph.spec(source).shape, BF16), TEMPORARY)
            found.append(Instruction(to_bf16, (source,), (kept[source],), {}, line=reader.line, phase=reader.phase))
        if not is_turned:
            return kept[source]
        turned = graph.add(Spec(graph.spec(register).shape, BF16), TEMPORARY, storage=kept[source])
        found.append(maker.with_(inputs=(kept[source],), outputs=(turned,)))
        return turned

    for each in graph.instructions:
        if _multiplies_in_bf16(graph, each, target):
            operands = (copied(each.inputs[0], each), copied(each.inputs[1], each))
            each = each.with_(op=of_bf16(each.op.name), inputs=(*operands, *each.inputs[2:]))
        found.append(each)
        written = set() if each.view else {graph.storage(register) for register in each.outputs}
        for source in [source for source in kept if graph.storage(source) in written]:
            del kept[source]  # it has other numbers now
    graph.instructions = found
    graph.verify("round_operands")


def _multiplies_in_bf16(graph: Graph, each: Instruction, target: str | None) -> bool:
    if each.op.name not in PRODUCTS:
        return False
    operands = [graph.registers[register] for register in each.inputs[:2]]
    if any(one.spec.ndim != 2 or one.spec.dtype != FLOAT32 or one.kind == CONSTANT for one in operands):
        return False
    (m, k), (_, n) = (one.spec.shape for one in operands)
    return keeps_in_bf16(target, m, n, k)
