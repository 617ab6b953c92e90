"""From a traced graph to one that is ready to be planned: which passes run, and in which order.

What keeps every bit runs always, so that the program without fusion gives the bits of eager mode. ``budget`` puts
recomputation and micro-batches in between: they are changes of the graph as well.
"""

from __future__ import annotations

from collections.abc import Callable

from tinynet.kernels.tiles import TILE_BYTES

from . import passes
from .graph import Graph

_MASK_IN_CACHE = ("native", "cuda")  # targets whose products can do that; elsewhere it would only move scratch


def simplify(graph: Graph) -> None:
    """What is worth doing once, before anything is chosen: constants, repetitions, dead code."""
    passes.remove_dead(graph)
    passes.fold(graph)
    passes.share_common(graph)
    passes.mask_from_output(graph)
    passes.remove_dead(graph)


def finish(
    graph: Graph, fuse: bool, tile_bytes: int = TILE_BYTES, target: str | None = None, strips: int = 1
) -> None:
    """The rest of the way: updates early, fusion, results where they are wanted or in place of what dies."""
    passes.hoist_updates(graph)
    if fuse:
        passes.apply_activations(graph)
        passes.join_cross_entropy(graph)
        passes.fuse_elementwise(graph)
        if target in _MASK_IN_CACHE:
            passes.mask_products(graph)
        passes.round_operands(graph, target)
        if strips > 1:
            passes.overlay_gradients(graph, strips)
    passes.forward_results(graph)
    if fuse:
        passes.tile_updates(graph, tile_bytes, target)
    passes.remove_dead(graph)
    passes.write_in_place(graph)


def compiled(
    graph: Graph, fuse: bool, change: Callable[[Graph], Graph] | None = None, tile_bytes: int = TILE_BYTES,
    target: str | None = None, strips: int = 1,
) -> Graph:  # fmt: skip
    """A new graph that computes what ``graph`` does.

    Args:
        graph: as ``simplify`` left it; it is not changed.
        fuse: whether rounding may change.
        change: what is to be done between, on a copy.
        tile_bytes: of what is computed in tiles, how much is held at a time, at most.
        target: whose kernels will run it; None for any.
        strips: into how many strips of its weight a layer's gradient is cut, to be written over the layer's input; 1
            for none.
    """
    graph = graph.copy()
    if change is not None:
        graph = change(graph)
    finish(graph, fuse, tile_bytes, target, strips)
    return graph
