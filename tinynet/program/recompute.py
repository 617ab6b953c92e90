"""Recomputation: what the forward pass made is forgotten, and made again when the backward pass needs it.

The forward pass is cut into segments of consecutive instructions (Chen et al., "Training deep nets with sublinear
memory cost", 2016). A segment that is forgotten keeps only what other segments need to start from; its instructions run
once more before the first use of its results in the backward pass. Dropout repeats its mask, which is a function of a
counter. Which segments are worth it is chosen in ``budget``.
"""

from __future__ import annotations

from collections.abc import Sequence

from .graph import BACKWARD, TEMPORARY, Graph, Instruction

Segment = tuple[int, int]  # first instruction, and one past the last


def turn_of(graph: Graph) -> int:
    """The position of the first instruction of the backward pass; the length of the graph where there is none."""
    return next((i for i, each in enumerate(graph.instructions) if each.phase == BACKWARD), len(graph.instructions))


def kept_bytes(graph: Graph) -> list[tuple[int, int]]:
    """(position, bytes) of each temporary that the forward pass makes and the backward pass reads, in order.

    Those that are small beside the largest are left out: there is nothing to be won by making them again.
    """
    turn, makers = turn_of(graph), graph.makers()
    read = {graph.storage(r) for each in graph.instructions[turn:] for r in each.inputs}
    read -= {graph.storage(r) for r in graph.outputs}
    found: dict[int, int] = {}
    for owner in read:
        if graph.registers[owner].kind == TEMPORARY and makers[owner] < turn:
            found[makers[owner]] = found.get(makers[owner], 0) + graph.spec(owner).nbytes
    least = max(found.values(), default=0) // 100
    return sorted((place, nbytes) for place, nbytes in found.items() if nbytes > least)


def segments_of(graph: Graph, limit: int) -> list[Segment]:
    """The forward pass cut so that each segment keeps at most ``limit`` bytes for the backward pass, or one tensor."""
    found: list[Segment] = []
    start = cut = held = 0
    for place, nbytes in kept_bytes(graph):
        if held and held + nbytes > limit:
            found.append((start, cut))
            start, held = cut, 0
        held, cut = held + nbytes, place + 1
    if held:
        found.append((start, cut))
    return found


def recomputed(graph: Graph, segments: Sequence[Segment]) -> Graph:
    """The graph with these segments forgotten and made again. It is not changed itself."""
    graph = graph.copy()
    turn, makers = turn_of(graph), graph.makers()
    large = {place for place, _ in kept_bytes(graph)}
    writes: dict[int, list[int]] = {}  # storage -> positions at which it is updated
    for i, each in enumerate(graph.instructions):
        for register in each.targets:
            writes.setdefault(graph.storage(register), []).append(i)
    pinned: set[int] = set()  # storages that are kept to start from
    again: dict[int, list[Instruction]] = {}  # position -> what is made again before it
    redirected: dict[int, int] = {}  # register -> the one in its place in the backward pass
    read = list(dict.fromkeys(r for each in graph.instructions[turn:] for r in each.inputs))

    def home(register: int) -> int:
        """Where the memory of a temporary was first written; -1 for all else."""
        owner = graph.storage(register)
        return makers[owner] if graph.registers[owner].kind == TEMPORARY else -1

    for start, stop in sorted(segments, reverse=True):
        wanted = [
            r for r in read if start <= home(r) < stop and home(r) in large and graph.storage(r) not in pinned
            and makers[r] < turn
        ]  # fmt: skip
        if not wanted:
            continue
        at = next(i for i in range(turn, len(graph)) if not set(wanted).isdisjoint(graph.instructions[i].inputs))
        places, stack = set(), list(wanted)
        while stack:
            register = stack.pop()
            storage, place = graph.storage(register), makers.get(register, -1)
            if home(register) < 0 or storage in pinned or place in places:
                continue
            each = graph.instructions[place]
            changed = any(place < w < at for r in each.inputs for w in writes.get(graph.storage(r), ()))
            if changed or not start <= home(register) < stop:
                pinned.add(storage)  # made before the segment, or of what has changed since
            else:
                places.add(place)
                stack.extend(each.inputs)
        new = _write_again(graph, sorted(places), again.setdefault(at, []))
        redirected |= {r: new[r] for r in wanted if r in new}
    _redirect(graph, turn, again, redirected)
    graph.verify("recomputed")
    return graph


def _redirect(graph: Graph, turn: int, again: dict[int, list[Instruction]], redirected: dict[int, int]) -> None:
    """Puts in what is made again, and lets the backward pass read it; views there are views of it."""
    order = []
    for i, each in enumerate(graph.instructions):
        order += again.get(i, ())
        if i >= turn:
            if not redirected.keys().isdisjoint(each.inputs):
                each = each.with_(inputs=tuple(redirected.get(r, r) for r in each.inputs))
            if each.view:
                graph.registers[each.outputs[0]].storage = graph.storage(each.inputs[0])
        order.append(each)
    graph.instructions = order


def _write_again(graph: Graph, places: list[int], again: list[Instruction]) -> dict[int, int]:
    """Adds copies of the instructions at ``places`` to ``again``; register -> its copy."""
    new: dict[int, int] = {}
    for place in places:
        each = graph.instructions[place]
        inputs = tuple(new.get(r, r) for r in each.inputs)
        for register in each.outputs:
            old = graph.registers[register]
            storage = graph.storage(inputs[0]) if each.view else None
            new[register] = graph.add(old.spec, TEMPORARY, storage, name=f"{old.name}'")
        again.append(each.with_(inputs=inputs, outputs=tuple(new[r] for r in each.outputs)))
    return new


def added_flops(before: Graph, after: Graph) -> int:
    """How many more flops one graph takes than the other."""
    return flops_of(after) - flops_of(before)


def flops_of(graph: Graph) -> int:
    """Flops of one run."""
    return sum(
        each.op.cost(*graph.operands(each), **each.attributes)[0] for each in graph.instructions if not each.view
    )
