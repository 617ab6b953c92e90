"""Tiles: a product of matrices that only an update reads is computed and spent tile by tile, and never stands whole.

So a weight's gradient takes the memory of one tile. An update may also read the product through elementwise operations
(weight decay added to the gradient, say); those are taken along.
"""

from __future__ import annotations

from tinynet.kernels import of_bf16, tiles
from tinynet.ops.fused import Tiled
from tinynet.ops.splitting import JOIN, Split

from ..graph import TEMPORARY, Graph, Instruction

# Large beside what they read, so that it pays to take them apart.
_PRODUCTS = ("matmul", "linear", of_bf16("matmul"), of_bf16("linear"))


def tile_updates(graph: Graph, most: int = tiles.TILE_BYTES, target: str | None = None) -> None:
    """Merges updates with the products that they alone read, where these are larger than a tile or two.

    Args:
        most: bytes of a tile.
        target: whose kernels will run it.
    """
    makers, readers, gone = graph.makers(), graph.readers(), set()
    for at in range(len(graph.instructions)):
        path = path_to_product(graph, at, lambda made: 2 * _tile_bytes(graph, made, most, target), makers, readers)
        if path is None:
            continue
        merged = graph.instructions[path[-1][0]]
        size = _tile_bytes(graph, merged, most, target)
        for place, position in reversed(path[:-1]):
            merged = _joined(graph, graph.instructions[place], position, merged, size)
        if _meets_written_rows(graph, merged):
            continue
        gone.update(place for place, _ in path[1:])
        graph.instructions[at] = merged
    graph.instructions = [each for i, each in enumerate(graph.instructions) if i not in gone]
    graph.verify("tile_updates")


def _tile_bytes(graph: Graph, product: Instruction, most: int, target: str | None) -> int:
    """How large the tiles of a product are."""
    whole = [spec for spec, cut in zip(graph.operands(product), cut_along_first(graph, product).cuts) if cut is None]
    return min(most, tiles.tile_bytes(target, sum(spec.nbytes for spec in whole)))


def _meets_written_rows(graph: Graph, merged: Instruction) -> bool:
    """Whether tiles read rows of what the update writes that are not their own: other tiles have written those."""
    written = {graph.storage(target) for target in merged.targets}
    return any(
        graph.storage(register) in written and not (cut and register in merged.targets)
        for register, cut in zip(merged.inputs, merged.op.cuts)
    )


def path_to_product(graph: Graph, at: int, least, makers, readers) -> list[tuple[int, int | None]] | None:
    """(place, position of the input that is meant) from the update at ``at`` down to a product, or None.

    Of the product no input is meant: its position is None.

    Args:
        least: ``f(product) -> bytes`` that its result must have.
    """
    if not graph.instructions[at].op.updates:
        return None

    def below(place: int) -> list[tuple[int, int | None]] | None:
        reader = graph.instructions[place]
        for position, register in enumerate(reader.inputs):
            found, maker = graph.registers[register], makers.get(register)
            if (
                maker is None or readers[register] != [place] or reader.inputs.count(register) > 1
                or found.kind != TEMPORARY or found.storage != register or not found.spec.ndim
                or cut_along_first(graph, reader, position) is None
            ):  # fmt: skip
                continue
            made = graph.instructions[maker]
            rest = None
            if made.op.name in _PRODUCTS:
                rest = [(maker, None)] if cut_along_first(graph, made) and found.spec.nbytes >= least(made) else None
            elif made.op.expression is not None and graph.spec(made.outputs[0]) == found.spec:
                rest = below(maker)
            if rest is not None and not any(
                graph.conflict(made, graph.instructions[i]) for i in range(maker + 1, at) if i != place
            ):
                return [(place, position), *rest]
        return None

    return below(at)


def cut_along_first(graph: Graph, each: Instruction, position: int | None = None) -> Split | None:
    """How an instruction is cut along the first axis of its output; along that of input ``position`` where given."""
    specs = graph.operands(each)
    if each.op.split is None or not specs[position or 0].ndim:
        return None
    for i in range(len(specs)) if position is None else (position,):
        axes = tuple(0 if j == i else None for j in range(len(specs)))
        found = each.op.split(specs[i].shape[0], axes, *specs, **each.attributes) if specs[i].shape[:1] else None
        whole = position is None or specs[i].shape == graph.spec(each.outputs[0]).shape
        if found is not None and whole and found.combine == JOIN and found.axis == 0 and set(found.cuts) <= {0, None}:
            return found
    return None


def _joined(
    graph: Graph, consumer: Instruction, position: int, producer: Instruction, tile_bytes: int
) -> Instruction:
    """One instruction that computes the producer's result in tiles, for the consumer's input at ``position``."""
    outer, inner = cut_along_first(graph, consumer, position).cuts, cut_along_first(graph, producer).cuts
    cuts = tuple(cut is not None for cut in (*outer[:position], *inner, *outer[position + 1 :]))
    made = graph.spec(producer.outputs[0])
    op = Tiled(consumer.op, position, producer.op, producer.attributes, cuts, made, tile_bytes)
    inputs = (*consumer.inputs[:position], *producer.inputs, *consumer.inputs[position + 1 :])
    return consumer.with_(op=op, inputs=inputs)
